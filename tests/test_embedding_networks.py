"""Feature vectors of crops and of segments."""

import json
from collections import namedtuple

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from test_model import fill
from torch.nn.functional import interpolate

from src.embedding_networks import embed_crops, load_embedding_network, segment_features
from src.loading import SettingError
from src.model.deepv3 import DeepWV3Plus

CPU = torch.device("cpu")
Entry = namedtuple("Entry", "name module_name class_name kwargs model_weights")


def imagenet(class_name, weights=None, **kwargs):
    return Entry(class_name, "torchvision.models", class_name, {"weights": None, **kwargs}, weights)


def write_state(entry, path, rename=str):
    """Save untrained weights of the entry's network, under its own or renamed keys."""
    network = getattr(torchvision.models, entry.class_name)(**entry.kwargs)
    torch.save({rename(key): tensor for key, tensor in network.state_dict().items()}, path)
    return network.eval()


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return load_embedding_network(imagenet("resnet18"), CPU)


# --- networks


def test_densenet_vectors_are_the_recorded_ones(reference, tmp_path):
    expected = json.loads((reference / "caches" / "expected_selection.json").read_text())
    entry = imagenet("densenet201", tmp_path / "densenet201.pth")
    whole = fill(write_state(entry, entry.model_weights), **expected["weight_formula"])
    keys = json.loads((reference / "caches" / "densenet201_keys.json").read_text())
    assert [[key, list(t.shape)] for key, t in whole.state_dict().items()] == keys
    torch.save(whole.state_dict(), entry.model_weights)
    paths = [reference / "caches" / "tree" / path for path in expected["image_path"]]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    boxes = zip(
        expected["image_level_index"], expected["boxes_left_upper_right_lower"], strict=True
    )
    crops = [pictures[index].crop(box) for index, box in boxes]

    vectors = embed_crops(load_embedding_network(entry, CPU), crops, CPU, batch_size=4)

    check = expected["embeddings_check"]
    assert list(vectors.shape) == check["shape"]
    np.testing.assert_allclose(vectors[:, :8], check["first8"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(vectors.mean(1), check["mean"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("class_name", "length"),
    [
        ("vgg16", 512),
        ("resnet18", 512),
        ("resnet101", 2048),
        ("resnet152", 2048),
        ("wide_resnet101_2", 2048),
        ("densenet201", 1920),
    ],
)
def test_the_networks_of_the_original_are_cut_before_their_head(class_name, length):
    with torch.device("meta"):  # shapes only: the six are half a billion weights
        network = load_embedding_network(imagenet(class_name), torch.device("meta"))
        assert network(torch.empty(2, 3, 64, 48)).shape == (2, length)


def test_a_resnet_vector_is_what_its_classifier_sees(tmp_path):
    entry = imagenet("resnet18", tmp_path / "resnet18.pth")
    whole = write_state(entry, entry.model_weights)
    cut = load_embedding_network(entry, CPU)
    image = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        torch.testing.assert_close(whole.fc(cut(image)), whole(image))


def test_published_densenet_keys_are_read(tmp_path):
    entry = Entry(
        "small", "torchvision.models", "DenseNet", {"block_config": (1, 1)}, tmp_path / "old.pth"
    )
    whole = write_state(
        entry,
        entry.model_weights,
        rename=lambda key: key.replace("layer1.norm", "layer1.norm.").replace(
            "layer1.conv", "layer1.conv."
        ),
    )
    loaded = load_embedding_network(entry, CPU).features.state_dict()
    for key, tensor in whole.features.state_dict().items():
        assert torch.equal(loaded[key], tensor), key


def test_without_network_the_error_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens on the discard port
    entry = imagenet("resnet18", weights=None)._replace(kwargs={"weights": "IMAGENET1K_V1"})
    with pytest.raises(SettingError, match="put the file resnet18-f37072fd.pth into ") as raised:
        load_embedding_network(entry, CPU)
    assert str(tmp_path / "hub" / "checkpoints") in str(raised.value)


def test_a_file_in_torchvisions_cache_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    write_state(imagenet("resnet18"), cache / "resnet18-f37072fd.pth")
    entry = imagenet("resnet18")._replace(kwargs={"weights": "IMAGENET1K_V1"})
    crop = np.zeros((32, 32, 3), np.uint8)
    assert embed_crops(load_embedding_network(entry, CPU), [crop], CPU, 1).shape == (1, 512)


def test_unknown_published_weights_are_an_error_that_lists_those_there_are():
    entry = imagenet("resnet18")._replace(kwargs={"weights": "V3"})
    with pytest.raises(SettingError, match="IMAGENET1K_V1.* got 'V3'"):
        load_embedding_network(entry, CPU)


def test_a_missing_or_foreign_file_is_an_error_that_names_it(tmp_path):
    entry = imagenet("resnet18", tmp_path / "weights.pth")
    with pytest.raises(SettingError, match="'resnet18' are missing: put them at .*weights.pth"):
        load_embedding_network(entry, CPU)
    torch.save({"fc.weight": torch.zeros(2)}, entry.model_weights)
    with pytest.raises(SettingError, match="weights.pth does not hold a state dict"):
        load_embedding_network(entry, CPU)


def test_neither_published_weights_nor_a_file_is_one_warning(caplog):
    load_embedding_network(imagenet("resnet18"), CPU)
    (record,) = caplog.records
    assert "neither `model_weights` nor `weights`" in record.getMessage()


def test_a_network_without_a_known_head_is_refused():
    entry = Entry("flat", "torch.nn", "Flatten", {}, None)
    with pytest.raises(SettingError, match="must have a child named one of"):
        load_embedding_network(entry, CPU)


# --- crops


def test_vectors_come_in_the_order_of_the_crops_whatever_the_batches(resnet18):
    random = np.random.default_rng(0)
    sizes = [(40, 48), (33, 50), (40, 48), (64, 32), (40, 48)]
    crops = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    one_by_one = np.concatenate([embed_crops(resnet18, [crop], CPU, 1) for crop in crops])
    together = embed_crops(resnet18, [Image.fromarray(crop) for crop in crops], CPU, 2)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-5)


def test_crops_reach_the_network_normalised_for_imagenet():
    crop = np.full((2, 2, 3), (255, 0, 51), np.uint8)
    mean_colour = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(embed_crops(mean_colour, [crop], CPU, 1)[0], expected, rtol=1e-5)


def test_no_crops_give_no_vectors(resnet18):
    assert embed_crops(resnet18, [], CPU, 8).shape == (0, 0)


@pytest.mark.parametrize("crop", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)])
def test_crops_that_are_not_rgb_bytes_are_refused(crop, resnet18):
    with pytest.raises(ValueError, match=r"a crop must be \(h, w, 3\) uint8"):
        embed_crops(resnet18, [crop], CPU, 8)


# --- segments

COMPONENTS = np.zeros((21, 34), np.int32)
COMPONENTS[:, :20] = 1
COMPONENTS[:, 20:] = 2
COMPONENTS[:, 19:21] *= -1  # the boundary between the two
COMPONENTS[3:5, 2:4] = -3  # a segment that is all boundary
COMPONENTS[20, 33] = -4  # one pixel


def test_segment_features_are_the_means_of_the_enlarged_feature_map():
    torch.manual_seed(0)
    network = DeepWV3Plus(num_classes=3, width=1 / 64).eval()
    image = torch.randn(3, *COMPONENTS.shape)
    features = segment_features(network, image, COMPONENTS, [4, 1, 3])
    with torch.inference_mode():
        maps = network.features(image[None])
        enlarged = interpolate(maps, COMPONENTS.shape, mode="bilinear", align_corners=True)[0]
    for row, k in zip(features, [4, 1, 3], strict=True):
        inside = enlarged[:, torch.from_numpy(abs(COMPONENTS) == k)]
        np.testing.assert_allclose(row, inside.mean(1), rtol=1e-4, atol=1e-5)
    assert features.dtype == np.float32
    assert features.shape == (3, maps.shape[1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (30, 1)])
def test_segments_of_thin_images_have_features(shape):
    network = DeepWV3Plus(num_classes=3, width=1 / 64).eval()
    image = torch.ones(3, *shape)
    features = segment_features(network, image, np.full(shape, -1, np.int32), [1])
    assert np.isfinite(features).all()


def test_no_chosen_segment_gives_no_features():
    network = DeepWV3Plus(num_classes=3, width=1 / 64).eval()
    image = torch.zeros(3, *COMPONENTS.shape)
    assert segment_features(network, image, COMPONENTS, []).shape == (0, 6)


@pytest.mark.parametrize("k", [0, 5])
def test_a_segment_that_does_not_exist_is_an_error(k):
    network = DeepWV3Plus(num_classes=3, width=1 / 64).eval()
    with pytest.raises(ValueError, match=f"`chosen` must name segments .* got {k}"):
        segment_features(network, torch.zeros(3, *COMPONENTS.shape), COMPONENTS, [k])


def test_a_network_without_features_is_an_error_that_says_what_to_do():
    with pytest.raises(SettingError, match="no method `features"):
        segment_features(torch.nn.Flatten(), torch.zeros(3, 21, 34), COMPONENTS, [1])
