"""Devices, weight files, and class probabilities of one image."""

import logging
import pickle
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from src.inference import choose_device, load_network, load_weights, predict, to_input
from src.loading import SettingError

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


@pytest.fixture(scope="module")
def state(network):
    return network.state_dict()


def assert_same_state(network, state):
    loaded = network.state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)


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


# --- weights


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_bare_and_wrapped_state_dicts_load_with_and_without_prefix(
    prefix, wrapped, state, tmp_path, caplog
):
    saved = {prefix + key: tensor for key, tensor in state.items()}
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": saved, "epoch": 7} if wrapped else saved, path)
    network = load_network(narrow(path), CPU)
    assert_same_state(network, state)
    assert not network.training
    assert caplog.records == []


def test_a_key_of_the_network_that_starts_with_the_prefix_keeps_it(tmp_path):
    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = torch.nn.Linear(1, 1)

    saved = Wrapper()
    for name, prefix in (("bare", ""), ("parallel", "module.")):
        path = tmp_path / f"{name}.pth"
        torch.save({prefix + key: tensor for key, tensor in saved.state_dict().items()}, path)
        loaded = Wrapper()
        load_weights(loaded, path, name)
        assert_same_state(loaded, saved.state_dict())


def test_safetensors_files_load(state, tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    assert_same_state(load_network(narrow(path), CPU), state)


def test_half_precision_weights_become_float32(state, tmp_path):
    path = tmp_path / "half.pth"
    torch.save({k: t.half() if t.is_floating_point() else t for k, t in state.items()}, path)
    network = load_network(narrow(path), CPU)
    for key, tensor in network.state_dict().items():
        assert tensor.dtype == state[key].dtype
        torch.testing.assert_close(tensor, state[key], rtol=1e-3, atol=1e-6)


def test_scores_stored_as_numpy_scalars_beside_the_weights_do_no_harm(state, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": state, "mean_iu": np.float64(0.8), "epoch": np.int64(3)}, path)
    assert_same_state(load_network(narrow(path), CPU), state)


def test_checkpoints_of_old_torch_and_numpy_load(state, tmp_path):
    path = tmp_path / "checkpoint.pth"
    content = {"state_dict": state, "mean_iu": np.float64(0.8)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    path.write_bytes(old)
    assert_same_state(load_network(narrow(path), CPU), state)


def test_extra_keys_give_one_warning_that_names_them(state, tmp_path, caplog):
    path = tmp_path / "weights.pth"
    torch.save({**state, "classifier.weight": torch.zeros(1)}, path)
    assert_same_state(load_network(narrow(path), CPU), state)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "classifier.weight" in record.getMessage()


def test_missing_keys_are_an_error_with_the_first_few_and_the_entry(state, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({key: tensor for key, tensor in state.items() if "aspp" not in key}, path)
    with pytest.raises(SettingError, match=r"'narrow'.*aspp\.features\.0\.0\.weight.* more;"):
        load_network(narrow(path), CPU)


def test_wrong_shapes_are_an_error_with_both_shapes(state, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    expected = r"'narrow'.*final\.6\.weight is \(3, 4, 1, 1\) in the file, \(7, 4, 1, 1\) in the"
    with pytest.raises(SettingError, match=expected):
        load_network(narrow(path, num_classes=7), CPU)


def test_a_missing_file_is_an_error_with_the_path_and_the_entry(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(SettingError, match="'narrow'.*put them at .*weights.pth"):
        load_network(narrow(path), CPU)


class Intruder:
    """Unpickling it would call a function."""

    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pth", b""),
        ("text.pth", b"<html>404</html>"),
        ("zip.pth", b"PK\x03\x04 and then nothing"),
        ("text.safetensors", b"<html>404</html>"),
        ("list.pth", [1, 2]),
        ("code.pth", Intruder()),
    ],
)
def test_a_file_of_something_else_is_an_error_and_runs_no_code(name, content, tmp_path):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, 2))
    with pytest.raises(SettingError, match=rf"{name}.* must be a state dict"):
        load_network(narrow(path), CPU)


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


def test_nan_is_refused_with_the_number_of_pixels():
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite logits at 1 of 4 pixels"):
        predict(Logits(logits), torch.zeros(3, 2, 2))


def test_logits_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"got \(1, 3, 2, 2\) for an image \(3, 8, 8\)"):
        predict(Logits(torch.zeros(1, 3, 2, 2)), torch.zeros(3, 8, 8))
