"""Devices, networks, and class probabilities of one image and of many."""

import logging
import pickle
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from src.errors import SettingError
from src.segmentation.class_maps import RawOutput
from src.segmentation.inference import (
    Computing,
    check_precision,
    choose_device,
    load_network,
    predict,
    predict_images,
    speed_up,
    to_input,
)

CPU = torch.device("cpu")
Entry = namedtuple("Entry", "name module_name class_name kwargs model_weights")
log = logging.getLogger("test")


def narrow(weights=None, num_classes=3):
    kwargs = {"num_classes": num_classes, "width": 1 / 64}
    return Entry("narrow", "src.model.deepv3", "DeepWV3Plus", kwargs, weights)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return load_network(narrow(), CPU)


class Logits(torch.nn.Module):
    """A network that ignores its image and gives the logits it was made with."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


# --- device


@pytest.mark.parametrize("gpu", [None, -1])
def test_no_gpu_asked_for_is_the_cpu_without_a_word(gpu, caplog):
    assert choose_device(gpu, log) == CPU
    assert caplog.records == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_the_default_falls_back_to_the_cpu_with_one_warning(caplog):
    assert choose_device(0, log) == CPU
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a machine with a GPU")
def test_index_zero_is_the_first_gpu():
    assert choose_device(0, log) == torch.device("cuda", 0)


@pytest.mark.parametrize("gpu", [1000, -2])
def test_a_gpu_that_is_not_there_is_an_error(gpu):
    with pytest.raises(SettingError, match=f"`gpu` must be .* got {gpu}"):
        choose_device(gpu, log)


# --- networks


def test_no_weights_is_an_untrained_network_with_one_warning(caplog):
    load_network(narrow(), CPU)
    (record,) = caplog.records
    assert "untrained" in record.getMessage()


# --- input and output


def test_pictures_become_normalised_tensors_and_ids_stay():
    picture = Image.fromarray(np.array([[[255, 0, 51], [0, 255, 51]]], np.uint8))
    transform = to_input(mean=(0.5, 0.5, 0.2), std=(0.5, 0.25, 1.0))
    image, target = transform(picture, np.array([[7, 255]], np.uint8))
    torch.testing.assert_close(image, torch.tensor([[[1.0, -1]], [[-2, 2]], [[0, 0]]]))
    assert image.is_contiguous()
    assert target.dtype == torch.int64
    assert target.tolist() == [[7, 255]]


def test_the_transform_takes_grey_pictures_and_no_target_and_travels_to_other_processes():
    transform = pickle.loads(pickle.dumps(to_input(mean=[0.0] * 3, std=[1.0] * 3)))
    image, target = transform(Image.new("L", (4, 2), 255), None)
    assert image.shape == (3, 2, 4)
    assert image.min() == image.max() == 1
    assert target is None


@pytest.mark.parametrize("size", [(1, 1), (5, 19), (32, 40)])
def test_probabilities_are_float32_of_the_image_size_and_sum_to_one(size, network):
    probabilities = predict(network, torch.randn(3, *size))
    assert probabilities.shape == (*size, 3)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)


def test_probabilities_are_the_softmax_of_the_logits():
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    probabilities = predict(Logits(logits), torch.zeros(3, 2, 2))
    np.testing.assert_allclose(probabilities, np.broadcast_to([0.5, 0.25, 0.25], (2, 2, 3)))


def test_a_network_of_torchvision_is_an_entry_like_any_other():
    kwargs = {"weights": None, "weights_backbone": None, "num_classes": 4}
    entry = Entry("tv", "torchvision.models.segmentation", "deeplabv3_resnet50", kwargs, None)
    probabilities = predict(load_network(entry, CPU), torch.randn(3, 33, 40))
    assert probabilities.shape == (33, 40, 4)


@pytest.mark.promise(6)
def test_nan_is_refused_with_the_number_of_pixels():
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="do not sum to 1 at 1 of 4 pixels: .* NaN"):
        predict(Logits(logits), torch.zeros(3, 2, 2))


def test_a_raw_output_goes_through_the_same_without_the_network():
    small = torch.tensor([[[0.0, 4.0]], [[0.0, 0.0]]])  # (2, 1, 2), of a picture of 1 x 4
    stride_2 = Computing(scores=["max_logit"])
    loaded = [(7, (RawOutput(small, (1, 4)), np.array([[1, 1, 255, 1]]), "a.png"))]
    ((index, prediction),) = predict_images(Broken(), loaded, stride_2)
    logits = np.array([0, 1, 3, 4])  # by linear interpolation between the middles of two cells
    np.testing.assert_allclose(prediction.scores["max_logit"], [-logits], atol=1e-6)
    expected = [1 / (1 + np.exp(-logits))]
    np.testing.assert_allclose(prediction.probabilities[..., 0], expected, atol=1e-6)
    np.testing.assert_array_equal(prediction.ground_truth, [[1, 1, 255, 1]])
    assert (index, prediction.image_path) == (7, "a.png")


class Broken(torch.nn.Module):
    def forward(self, images):
        raise AssertionError("a raw output needs no network")


# --- options


def test_half_precision_is_for_devices_that_have_it():
    for device in (torch.device("cuda", 0), None):  # None: not known yet
        check_precision(device, "float16")
    check_precision(CPU, "bfloat16")
    with pytest.raises(SettingError, match="`args.precision` float16 needs a GPU"):
        check_precision(CPU, "float16")


def test_half_precision_gives_nearly_the_same_probabilities_in_float32():
    torch.manual_seed(0)
    layer, image = torch.nn.Conv2d(3, 5, 3, padding=1), torch.randn(3, 32, 40)
    half, full = predict(layer, image, Computing(precision="bfloat16")), predict(layer, image)
    assert half.dtype == np.float32
    assert 0 < abs(half - full).max() < 0.02
    np.testing.assert_allclose(half.sum(-1), 1, atol=1e-6)


def test_channels_last_changes_nothing_but_rounding(network):
    fast = load_network(narrow(), CPU)
    fast.load_state_dict(network.state_dict())
    image = torch.randn(3, 32, 40)
    expected = predict(fast, image)
    fast = speed_up(fast, Computing(channels_last=True))
    assert fast.aspp.img_conv[0].weight.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(predict(fast, image), expected, atol=1e-4)


@pytest.mark.parametrize("tile", [(1, 1), (4, 7), (5, 64), (32, 2), (31, 39)])
def test_tiles_change_nothing_for_a_network_without_context(tile):
    torch.manual_seed(0)
    pointwise = torch.nn.Conv2d(3, 5, 1)
    image = torch.randn(3, 32, 40)
    np.testing.assert_allclose(
        predict(pointwise, image, Computing(tile=tile)), predict(pointwise, image), atol=1e-6
    )


@pytest.mark.parametrize("tile", [(32, 40), (64, 64)])
def test_a_tile_as_large_as_the_image_is_the_image(tile, network):
    image = torch.randn(3, 32, 40)
    np.testing.assert_array_equal(
        predict(network, image, Computing(tile=tile)), predict(network, image)
    )


class Counting(torch.nn.Module):
    """Two classes: logits 0 and 0 in the first call, 0 and 2 ln 3 in every further one."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        logits = images[:, :2] * 0
        logits[:, 1] = 2 * np.log(3) * bool(self.sizes)
        self.sizes.append(tuple(images.shape[2:]))
        return logits


def test_where_two_tiles_overlap_their_logits_fade_over():
    network = Counting()
    probabilities = predict(
        network, torch.zeros(3, 1, 7), Computing(tile=(1, 4))
    )  # columns 0..3 and 3..6
    assert network.sizes == [(1, 4), (1, 4)]
    expected = [0.5, 0.5, 0.5, 0.75, 0.9, 0.9, 0.9]  # 1/2, half the way ln 3: 3/4, 9/10
    np.testing.assert_allclose(probabilities[0, :, 1], expected, atol=1e-6)


def test_tiles_overlap_by_a_quarter_or_more():
    network = Counting()
    predict(
        network, torch.zeros(3, 10, 10), Computing(tile=(8, 5))
    )  # rows 0..7, 2..9; columns 0.., 2.., 5..
    assert network.sizes == [(8, 5)] * 6


class Whereabouts(torch.nn.Module):
    """Two classes: logits 0 and the natural logarithm of height + width of what it sees."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        logits = images[:, :2] * 0
        logits[:, 1] = np.log(images.shape[3] + images.shape[2])
        return logits


def test_parts_are_told_what_lies_beyond_them_by_smaller_pictures():
    network = Whereabouts()
    computing = Computing(tile=(2, 8), context=0.25)
    probabilities = predict(network, torch.zeros(3, 4, 14), computing)
    # 2 x 2 parts of 4 x 14 pixels, then of 3 x 10, and then the picture fits: 2 x 7
    assert network.sizes == [(2, 8)] * 4 + [(2, 8)] * 4 + [(2, 7)]
    logit = 0.75 * np.log(10) + 0.25 * (0.75 * np.log(10) + 0.25 * np.log(9))
    np.testing.assert_allclose(probabilities[..., 1], 1 / (1 + np.exp(-logit)), atol=1e-6)


def test_parts_of_half_a_picture_are_a_warning_with_the_figure(caplog):
    network = Whereabouts()
    predict(network, torch.zeros(3, 4, 14), Computing(tile=(3, 8)))
    assert not caplog.records
    for context in (0.25, 0.25, 0.0):  # one warning a network
        predict(network, torch.zeros(3, 4, 16), Computing(tile=(2, 8), context=context))
    assert [record.getMessage() for record in caplog.records] == [
        "parts of 2 x 8 see at most half the height and width of pictures, such as 4 x 16: that "
        "cost the demo's network 0.018 of mIoU, three quarters of them 0.002"
    ]


def test_pictures_that_a_network_of_one_size_would_see_distorted_are_no_context():
    network = Whereabouts()
    predict(network, torch.zeros(3, 4, 16), Computing(tile=(4, 8), size=(4, 8), context=0.25))
    assert set(network.sizes) == {(4, 8)}


# --- many images


class Greedy(torch.nn.Module):
    """Asks for far too much memory where the image is wider than high."""

    def forward(self, images):
        if images.shape[3] > images.shape[2]:
            torch.empty(2**50)
        return images


class Pictures:
    """Images of different sizes, and two that cannot be loaded."""

    sizes = (4, 4), (3, 5), (6, 2), None, None

    def load(self, index):
        if self.sizes[index] is None:
            return index, FileNotFoundError(f"no {index}.png")
        height, width = self.sizes[index]
        image = torch.zeros(3, height, width)
        image[1] = np.log(2)
        truth = np.full((height, width), index) if index else None
        return index, (image, truth, f"{index}.png")


def test_images_of_all_sizes_are_predicted_and_what_fails_stops_no_other():
    predicted = dict(predict_images(Greedy(), map(Pictures().load, range(5))))
    assert [*predicted] == [0, 1, 2, 3, 4]
    for index in (0, 2):
        prediction = predicted[index]
        shape = Pictures.sizes[index]
        assert prediction.probabilities.shape == (*shape, 3)
        np.testing.assert_allclose(prediction.probabilities[0, 0], [0.25, 0.5, 0.25])
        np.testing.assert_array_equal(prediction.prediction, np.ones(shape, np.uint8))
        assert prediction.prediction.dtype == np.uint8
        assert prediction.image_path == f"{index}.png"
    assert predicted[0].ground_truth is None
    np.testing.assert_array_equal(predicted[2].ground_truth, np.full((6, 2), 2))
    assert isinstance(predicted[3], FileNotFoundError)


def test_the_scores_asked_for_are_kept_higher_for_what_is_more_anomalous():
    logits = torch.log(torch.tensor([[[[1.0, 3.0]], [[2.0, 5.0]]]]))  # (1, 2, 1, 2)
    sample = torch.zeros(3, 1, 2), None, "a.png"
    ((_, prediction),) = predict_images(Logits(logits), [(0, sample)], Computing(scores=["energy"]))
    assert [*prediction.scores] == ["energy"]
    np.testing.assert_allclose(prediction.scores["energy"], -np.log([[3, 8]]), rtol=1e-6)
    ((_, prediction),) = predict_images(
        Logits(logits), [(0, sample)], Computing(scores=["max_logit"])
    )
    np.testing.assert_allclose(prediction.scores["max_logit"], -np.log([[2, 5]]), rtol=1e-6)


def test_too_little_memory_is_an_error_that_names_what_needs_less():
    with pytest.raises(MemoryError, match=r"image of 3 x 5 .*args\.tile.*args\.precision"):
        predict(Greedy(), torch.zeros(3, 3, 5))
    assert predict(Greedy(), torch.zeros(3, 3, 5), Computing(tile=(3, 3))).shape == (3, 5, 3)


def test_more_than_256_classes_are_told_apart():
    logits = torch.zeros(1, 300, 1, 1)
    logits[0, 290] = 9
    sample = torch.zeros(3, 1, 1), None, "x.png"
    ((_, prediction),) = predict_images(Logits(logits), [(0, sample)])
    assert prediction.prediction.tolist() == [[290]]
    assert prediction.prediction.dtype == np.uint16


@pytest.mark.parametrize(("classes", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_no_predicted_class_has_the_id_that_means_no_label(classes, dtype):
    loaded = [(0, (torch.zeros(3, 2, 2), None, "a.png"))]
    ((_, prediction),) = predict_images(torch.nn.Conv2d(3, classes, 1), loaded)
    assert prediction.prediction.dtype == dtype
