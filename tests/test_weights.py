"""Weight files: of any maker, and what is none."""

import argparse
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference import CPU, narrow

from src.errors import SettingError
from src.segmentation.inference import load_network
from src.store.weights import load_weights, read_state, read_torch


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return load_network(narrow(), CPU).state_dict()


def assert_same_state(network, state):
    loaded = network.state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)


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


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema", "model_ema"])
def test_weights_are_found_under_the_names_that_training_scripts_give_them(key, tmp_path):
    content = {key: {"weight": torch.ones(2), "steps": 3}, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "checkpoint.pth")
    state = read_state(tmp_path / "checkpoint.pth", "narrow")
    assert list(state) == ["weight"] and torch.equal(state["weight"], torch.ones(2))


@pytest.mark.parametrize("kind", ["?", "i4", "i8", "u1", "f2", "f4", "f8"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_arrays_of_numbers_come_back_as_they_were(kind, is_zip, tmp_path):
    array = np.arange(6).reshape(2, 3).astype(kind)
    torch.save([array, array[1, 2]], tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    again, last = read_torch(tmp_path / "a.pth")
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype and last == array[1, 2]


class Liar:
    """A dtype of numbers with a state that says something else."""

    def __init__(self, field):
        self.state = (3, "<", None, ("a",), {"a": (np.dtype(field), 0)}, 8, 1, 0)

    def __reduce__(self):
        return np.dtype, ("f8", False, True), self.state


def test_no_dtype_of_a_file_takes_bytes_for_pointers(tmp_path):
    torch.save(Liar("i8"), tmp_path / "liar.pth")
    assert read_torch(tmp_path / "liar.pth").fields is None
    for name, content in (("object", np.array([None])), ("field", Liar("O"))):
        torch.save({"state_dict": {}, "beside": content}, tmp_path / f"{name}.pth")
        with pytest.raises(SettingError, match=rf"{name}\.pth .*must be a state dict"):
            read_state(tmp_path / f"{name}.pth", "narrow")


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


@pytest.mark.parametrize("seed", [17, 21, 62])
def test_a_file_of_noise_is_no_weights_file(tmp_path, seed):
    path = tmp_path / "noise.pth"
    path.write_bytes(np.random.default_rng(seed).bytes(300))
    with pytest.raises(SettingError, match="noise.pth .*must be a state dict"):
        load_weights(torch.nn.Linear(1, 1), path, "narrow")


NESTED = {
    "state_dict": ["state_dict"],
    "lightning": ["state_dict"],
    "model_state_dict": ["model_state_dict"],
    "net": ["net"],
    "ema": ["ema"],
    "params_ema": ["params_ema"],
    "unheard of": ["unheard of"],
    "one deeper": ["ema", "module"],
    "two names": ["model", "state_dict"],
}


def training_state(network):
    """What stands beside the weights in a checkpoint, an optimizer that has stepped among it."""
    optimizer = torch.optim.Adam(network.parameters())
    sum(tensor.sum() for tensor in network.parameters()).backward()
    optimizer.step()
    return {
        "epoch": 7,
        "iteration": torch.tensor(70),
        "path": Path("runs/7"),
        "seen": Counter(road=3),
        "optimizer": optimizer.state_dict(),
        "opt": optimizer.state_dict(),
        "optimizer_averages": {key: t + 1 for key, t in network.state_dict().items()},
        "lr_scheduler": {"last_epoch": 7, "base_lrs": [0.1]},
    }


@pytest.mark.parametrize("place", NESTED.values(), ids=NESTED)
def test_the_only_state_dict_is_found_beside_what_training_leaves(place, tmp_path, caplog):
    saved, loaded = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    beside, content = training_state(saved), saved.state_dict()
    for key in reversed(place):
        content = {"decay": 0.9, key: content}
    torch.save({**beside, **content}, tmp_path / "a.pth")
    load_weights(loaded, tmp_path / "a.pth", "a")
    assert_same_state(loaded, saved.state_dict())
    assert caplog.records == []


def test_paths_of_the_other_system_beside_the_weights_do_no_harm(tmp_path):
    for number, module in enumerate((b"pathlib", b"pathlib._local")):
        path = tmp_path / f"{number}.pth"
        content = {"net": {"weight": torch.ones(2)}, "path": Path("a/b")}
        torch.save(content, path, _use_new_zipfile_serialization=False)
        for name in (b"PosixPath", b"WindowsPath"):
            written = path.read_bytes()
            path.write_bytes(written.replace(b"cpathlib\nPosixPath", b"c" + module + b"\n" + name))
            assert list(read_state(path, "a")) == ["weight"]
            path.write_bytes(written)


def test_an_optimizer_alone_is_no_weights_file(tmp_path):
    optimizer = training_state(torch.nn.Linear(2, 3))["optimizer"]
    for name, content in (("bare", optimizer), ("named", {"optimizer": optimizer, "epoch": 1})):
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(SettingError, match=rf"{name}\.pth .*must be a state dict"):
            load_weights(torch.nn.Linear(2, 3), tmp_path / f"{name}.pth", "a")


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model.net.", "net.module."],
)
def test_prefixes_of_wrapped_networks_go(prefix, tmp_path):
    saved, loaded = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    state = {prefix + key: tensor for key, tensor in saved.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    load_weights(loaded, tmp_path / "a.pth", "a")
    assert_same_state(loaded, saved.state_dict())


def test_averaged_weights_win_and_the_others_are_named(tmp_path, caplog):
    plain, averaged, loaded = (torch.nn.Linear(2, 3) for _ in range(3))
    torch.save({"model": plain.state_dict(), "ema": averaged.state_dict()}, tmp_path / "a.pth")
    load_weights(loaded, tmp_path / "a.pth", "a")
    assert_same_state(loaded, averaged.state_dict())
    (record,) = caplog.records
    assert "took 'ema' for model 'a'; as well fit 'model'" in record.getMessage()


def test_what_fits_wins_over_a_better_name(tmp_path, caplog):
    saved, loaded = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    content = {"model": torch.nn.Linear(5, 4).state_dict(), "student": saved.state_dict()}
    torch.save(content, tmp_path / "a.pth")
    load_weights(loaded, tmp_path / "a.pth", "a")
    assert_same_state(loaded, saved.state_dict())
    assert caplog.records == []


def test_what_does_not_fit_names_keys_of_both_sides(tmp_path):
    torch.save({"model": {"stem.weight": torch.ones(2), "epoch": 3}}, tmp_path / "a.pth")
    expected = r"a\.pth does not fit model 'a': .*network: weight, bias; .*instead: stem\.weight;"
    with pytest.raises(SettingError, match=expected):
        load_weights(torch.nn.Linear(2, 3), tmp_path / "a.pth", "a")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "change",
    [lambda t: t.to(torch.complex64), torch.Tensor.to_sparse, lambda t: t.to("meta")],
    ids=["complex", "sparse", "without data"],
)
def test_tensors_that_cannot_fill_a_network_are_named(change, tmp_path):
    network = torch.nn.Linear(2, 3)
    state = {key: change(tensor) for key, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(SettingError, match=r"a\.pth does not fit model 'a': .*: weight is "):
        load_weights(network, tmp_path / "a.pth", "a")
