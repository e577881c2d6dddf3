"""Inputs as networks want them, and the outputs of networks of every kind."""

import logging
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torch.nn.functional import interpolate

from src.errors import SettingError
from src.segmentation.class_maps import fit_input
from src.segmentation.inference import Computing, predict, predict_images

LOGITS = torch.tensor([[[[1.0, -2.0], [0.5, 3.0]], [[0.0, 1.0], [-1.0, 2.0]]]])  # (1, 2, 2, 2)
AUX = torch.full((1, 2, 2, 2), 9.0)


class Gives(torch.nn.Module):
    """Ignores its images, keeps their shapes, and gives what it was made with."""

    def __init__(self, output, outputs=None):
        super().__init__()
        self.output, self.outputs, self.shapes = output, outputs, []

    def forward(self, images):
        self.shapes.append(tuple(images.shape[2:]))
        return self.output


def image(height, width):
    return torch.zeros(3, height, width)


# --- where the maps are

Named = namedtuple("Named", "logits aux")


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        SimpleNamespace(logits=LOGITS, hidden=AUX),
        Named(LOGITS, AUX),
        {"aux": AUX, "out": LOGITS},
        {"aux": AUX, "logits": LOGITS},
        OrderedDict(aux=AUX, pred=LOGITS),
        {"aux": AUX, "sem_seg": LOGITS},
        {"aux": AUX, "sem_seg": AUX, "out": LOGITS},
        {"out": "nothing here", "masks": LOGITS, "tokens": torch.zeros(1, 5, 7)},
        (torch.tensor(0.5), LOGITS, AUX),
        [LOGITS, AUX],
    ],
)
def test_the_maps_are_found_wherever_a_network_gives_them(output):
    expected = LOGITS.softmax(1)[0].permute(1, 2, 0)
    np.testing.assert_allclose(predict(Gives(output), image(2, 2)), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            torch.zeros(1, 4, 4),
            r"Gives gave \(1, 4, 4\) float32: a segmentation network must give one value a class "
            r"and pixel, \(N, C, h, w\), as a tensor, under `.logits`, in a mapping",
        ),
        ({"x": LOGITS, "y": AUX}, r"a mapping of x: \(1, 2, 2, 2\) float32, y: \(1, 2, 2, 2\) "),
        ({}, "Gives gave a mapping of nothing"),
        ((torch.zeros(3), "text"), r"a tuple of \(3,\) float32, a str: a segm"),
        (None, "Gives gave a NoneType: a segmentation network must give one value a class"),
        (SimpleNamespace(logits=torch.zeros(2, 2)), "Gives gave a SimpleNamespace: a segm"),
        (
            torch.zeros(1, 1, 2, 2),
            r"one channel \(\(1, 1, 2, 2\) float32\): .* two or more classes; where p is the",
        ),
        (
            torch.zeros(1, 2, 2, dtype=torch.int64),
            r"gave whole numbers \(\(1, 2, 2\) int64\): the ids of the most probable class are not",
        ),
        (torch.zeros(1, 4, 2, 2, dtype=torch.uint8), r"whole numbers \(\(1, 4, 2, 2\) uint8\)"),
    ],
)
def test_what_is_no_map_of_class_values_is_refused_with_what_came_and_what_may(output, message):
    with pytest.raises(SettingError, match=message):
        predict(Gives(output), image(2, 2))


def test_another_number_of_classes_than_is_named_is_refused():
    message = r"Gives gave 2 classes \(\(1, 2, 2, 2\) float32\), and 19 are named: name as many as"
    with pytest.raises(SettingError, match=message):
        predict(Gives(LOGITS), image(2, 2), Computing(classes=19))
    assert predict(Gives(LOGITS), image(2, 2), Computing(classes=2)).shape == (2, 2, 2)


def test_a_word_for_outputs_that_is_none_is_refused():
    message = "`outputs` of Gives must be one of logits, probabilities, scores, or None .* 'sigm"
    with pytest.raises(SettingError, match=message):
        predict(Gives(LOGITS, outputs="sigmoids"), image(2, 2))


def test_a_part_of_a_network_that_is_called_outputs_says_nothing():
    network = torch.nn.Conv2d(3, 2, 1)
    network.outputs = torch.nn.Identity()
    assert predict(network, image(2, 2)).shape == (2, 2, 2)


# --- their size


@pytest.mark.parametrize("stride", [4, 8])
def test_smaller_maps_are_enlarged_bilinearly_which_is_said_once(stride, caplog):
    caplog.set_level(logging.INFO)
    torch.manual_seed(0)
    small = torch.randn(1, 3, 3, 5)
    height, width = 3 * stride - 2, 5 * stride - 1  # as with strides that round up
    network = Gives(small)
    predicted = [predict(network, image(height, width)) for _ in range(2)]
    rows, columns = (enlargement(*lengths) for lengths in ((height, 3), (width, 5)))
    logits = np.einsum("yi,cij,xj->yxc", rows, small[0].numpy(), columns)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for probabilities in predicted:
        np.testing.assert_allclose(probabilities, shares, atol=1e-6)
    (message,) = caplog.messages
    assert (
        message == f"Gives gives maps of 3 x 5 for {height} x {width} pixels: resized, bilinearly"
    )


def enlargement(pixels, cells):
    """Weight of each cell at each pixel: linear between the cells' middles, constant outside."""
    weights = np.zeros((pixels, cells))
    for pixel in range(pixels):
        position = np.clip((pixel + 0.5) * cells / pixels - 0.5, 0, cells - 1)
        cell = min(int(position), cells - 2)
        weights[pixel, cell : cell + 2] += [cell + 1 - position, position - cell]
    return weights


def test_an_input_is_filled_up_with_its_edges_and_the_output_cut():
    images = torch.arange(6.0).reshape(1, 1, 2, 3)
    inputs, inside = fit_input(images, None, multiple_of=4)
    expected = [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert inputs[0, 0].tolist() == expected
    assert inside == (2, 3)
    same = torch.nn.Identity()
    picture = torch.randn(3, 2, 3)
    np.testing.assert_array_equal(
        predict(same, picture, Computing(multiple_of=4)), predict(same, picture)
    )


def test_of_a_filled_input_with_a_stride_each_cell_stays_where_it_was():
    small = torch.arange(8.0).reshape(1, 2, 2, 2)  # of 4 x 4, the picture is 3 x 3 of it
    probabilities = predict(Gives(small), image(3, 3), Computing(multiple_of=4))
    whole = interpolate(small, (4, 4), mode="bilinear", align_corners=False)[0, :, :3, :3]
    np.testing.assert_allclose(probabilities, whole.softmax(0).permute(1, 2, 0), atol=1e-7)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, (30, 50)),
        ((20, 16), (20, 16)),
        ([60, 100], (60, 100)),
        ({"shortest_edge": 60}, (60, 100)),
        ({"shortest_edge": 60, "longest_edge": None}, (60, 100)),
        ({"shortest_edge": 60, "longest_edge": 100}, (60, 100)),
        ({"shortest_edge": 60, "longest_edge": 75}, (45, 75)),
        ({"shortest_edge": 7, "longest_edge": 99}, (7, 12)),
    ],
)
def test_an_input_has_the_size_that_the_network_was_made_for(size, expected):
    network = Gives(LOGITS)
    assert predict(network, image(30, 50), Computing(size=size)).shape == (30, 50, 2)
    assert network.shapes == [expected]


def test_an_input_is_made_smaller_without_aliasing():
    stripes = torch.tensor([0.0, 8.0]).repeat(8)[None, None, None].expand(1, 3, 4, 16)
    inputs, _ = fit_input(stripes, (2, 4), 1)
    np.testing.assert_allclose(inputs, 4, atol=1)  # grey, and none of the stripes alone


def test_of_tiles_each_is_resized_and_filled_up():
    network = Gives(LOGITS)
    computing = Computing(tile=(8, 6), size=(5, 4), multiple_of=4)
    assert predict(network, image(8, 9), computing).shape == (8, 9, 2)
    assert network.shapes == [(8, 4)] * 2


# --- what they mean

SHARES = LOGITS.softmax(1)


def test_probabilities_are_taken_as_they_are_with_one_warning(caplog):
    network = Gives(SHARES)
    for _ in range(2):
        np.testing.assert_array_equal(
            predict(network, image(2, 2)), SHARES[0].permute(1, 2, 0).numpy()
        )
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("the outputs of Gives are probabilities (in [0, 1], ")


def test_the_first_picture_decides_for_a_network():
    network = Gives(SHARES)
    predict(network, image(2, 2))
    network.output = LOGITS
    with pytest.raises(ValueError, match="not sum to 1 at 3 of 4 .*, args.outputs=logits"):
        predict(network, image(2, 2))
    network.output = SHARES * torch.nan
    with pytest.raises(ValueError, match="not sum to 1 at 4 of 4"):
        predict(network, image(2, 2))


def test_a_first_picture_of_nan_decides_nothing():
    network = Gives(SHARES * torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        predict(network, image(2, 2))
    network.output = SHARES
    np.testing.assert_array_equal(predict(network, image(2, 2))[0, 0], SHARES[0, :, 0, 0])


def test_what_could_be_both_is_taken_for_logits_with_a_warning(caplog):
    sigmoids = torch.tensor([0.9, 0.3]).reshape(1, 2, 1, 1)
    probabilities = predict(Gives(sigmoids), image(1, 1))
    np.testing.assert_allclose(probabilities[0, 0], [1 / (1 + np.exp(-0.6)), 0.354344], rtol=1e-5)
    (message,) = caplog.messages
    assert "are in [0, 1] and do not sum to 1: taken for logits" in message
    assert message.endswith("as of a sigmoid, set args.outputs=scores")


@pytest.mark.parametrize("computing", [Computing(), Computing(outputs="scores")])
def test_of_scores_the_shares_are_the_probabilities(computing, caplog):
    scores = torch.tensor([[0.9, 0.0], [0.3, 0.0]]).reshape(1, 2, 1, 2)
    network = Gives(scores, outputs=None if computing.outputs else "scores")
    probabilities = predict(network, image(1, 2), computing)
    np.testing.assert_allclose(probabilities, [[[0.75, 0.25], [0.5, 0.5]]])  # nothing: all alike
    assert caplog.messages == []


@pytest.mark.parametrize("bad", [-0.5, torch.nan, torch.inf])
def test_scores_that_are_none_are_refused(bad):
    scores = torch.ones(1, 3, 2, 2)
    scores[0, 0, 0, 1] = bad
    with pytest.raises(ValueError, match="at 1 of 4 pixels: class scores must be finite and at le"):
        predict(Gives(scores, outputs="scores"), image(2, 2))


@pytest.mark.parametrize("outputs", ["logits", "scores"])
def test_scores_of_pixels_see_the_raw_output(outputs):
    values = torch.tensor([3.0, 1.0]).reshape(1, 2, 1, 1)
    loaded = [(0, (image(1, 1), None, "a.png"))]
    computing = Computing(scores=["max_logit"], outputs=outputs)
    ((_, prediction),) = predict_images(Gives(values), loaded, computing)
    assert prediction.scores["max_logit"].tolist() == [[-3]]


def test_a_score_that_needs_logits_is_refused_where_only_probabilities_come():
    message = "`args.scores` energy, max_logit need logits, and Gives gives probabilities: leave"
    with pytest.raises(SettingError, match=message):
        predict(Gives(SHARES), image(2, 2), Computing(scores=["energy", "max_logit"]))


# --- networks of other libraries


@pytest.mark.parametrize("size", [(33, 50), (64, 32), (1, 7)])
def test_a_network_that_wants_multiples_of_32_takes_any_picture(size):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    network = smp.Unet("resnet18", encoder_weights=None, classes=5).eval()
    picture = torch.randn(3, *size)
    probabilities = predict(network, picture, Computing(multiple_of=32, classes=5))
    height, width = size
    filled = np.pad(picture, ((0, 0), (0, -height % 32), (0, -width % 32)), "edge")
    with torch.inference_mode():
        logits = network(torch.from_numpy(filled)[None])[0, :, :height, :width]
    np.testing.assert_allclose(probabilities, logits.softmax(0).permute(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_networks_of_torchvision_give_their_main_output(name):
    torch.manual_seed(0)
    aux = {"aux_loss": True} if name.startswith("deeplab") else {}
    build = getattr(torchvision.models.segmentation, name)
    network = build(weights=None, weights_backbone=None, num_classes=4, **aux).eval()
    picture = torch.randn(3, 45, 70)
    with torch.inference_mode():
        logits = network(picture[None])["out"][0]
    probabilities = predict(network, picture)
    np.testing.assert_allclose(probabilities, logits.softmax(0).permute(1, 2, 0), atol=1e-6)
