import json
import os
import pickle
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from src.errors import SettingError
from src.MetaSeg.metrics import compute_metrics_components
from src.records import Prediction
from src.store import cache

MADE_FROM = {"model": "narrow", "size": (4, 6), "iou_threshold": 0.5}


@pytest.fixture
def prediction():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=(40, 6)).astype(np.float32)
    truth = rng.integers(0, 3, size=(40, 6)).astype(np.uint8)
    return Prediction(probabilities, probabilities.argmax(-1), truth, "/pictures/Köln 1.png")


@pytest.fixture
def path(tmp_path):
    return cache.prediction_path(tmp_path, "narrow", "streets", 7)


def test_names_are_those_of_the_original_tree(tmp_path):
    names = [
        cache.prediction_path(tmp_path, "m", "d", 3),
        cache.metrics_path(tmp_path, "m", "d", 3),
        cache.components_path(tmp_path, "m", "d", 3),
        cache.embeddings_path(tmp_path, "m", 128, 64, "densenet201"),
    ]
    assert [name.relative_to(tmp_path).as_posix() for name in names] == [
        "input/m/d/input3.hdf5",
        "metrics/m/d/metrics3.p",
        "components/m/d/components3.hdf5",
        "embeddings/m/embeddings_128_64_densenet201.p",
    ]
    assert cache.min_size_of(names[-1]) == (128, 64)
    path = cache.embeddings_path(tmp_path, "m", 128, 64, "timm/vit_tiny.augreg")
    assert (path.parent.name, path.name) == ("m", "embeddings_128_64_timm_vit_tiny.augreg.p")
    with pytest.raises(SettingError, match="must be called embeddings_<height>_<width>_<net>.p"):
        cache.min_size_of(tmp_path / "segments.p")


def test_float32_comes_back_bit_for_bit(path, prediction):
    cache.write_prediction(path, prediction, MADE_FROM, "float32")
    again = cache.read_prediction(path)
    assert_array_equal(again.probabilities, prediction.probabilities)
    assert_array_equal(again.prediction, prediction.prediction)
    assert_array_equal(again.ground_truth, prediction.ground_truth)
    assert again.image_path == prediction.image_path
    assert again.probabilities.dtype == np.float32
    assert again.prediction.dtype == again.ground_truth.dtype == np.uint8


def test_the_compact_form_is_rounded_to_65535_steps_and_keeps_the_prediction(path):
    ties = np.array([[[0.4 - 1e-6, 0.4 + 1e-6], [1 + 1e-7, -1e-7]]], np.float32)
    cache.write_prediction(path, Prediction(ties, ties.argmax(-1), None, "a.png"), MADE_FROM)
    again = cache.read_prediction(path)
    assert again.probabilities.dtype == np.float32
    assert again.probabilities[0, 0, 0] == again.probabilities[0, 0, 1]  # tied now
    assert_array_equal(again.probabilities[0, 1], [1, 0])
    assert_array_equal(again.prediction, [[1, 0]])


@pytest.mark.parametrize("form", ["compact", "float32"])
def test_scores_come_back_within_a_65535th_of_their_range(path, prediction, form):
    ramp = np.linspace(-30, 12, 240, dtype=np.float32).reshape(40, 6)
    scores = {"max_logit": ramp, "energy": np.full((40, 6), 7.0, np.float32)}
    cache.write_prediction(path, replace(prediction, scores=scores), MADE_FROM, form)
    again = cache.read_prediction(path, probabilities=False).scores
    assert [*again] == ["max_logit", "energy"]
    assert_allclose(again["max_logit"], ramp, atol=42 / 65535)
    assert_array_equal(again["energy"], scores["energy"])
    assert again["max_logit"].dtype == np.float32


def test_segments_of_the_compact_form_are_those_of_float32_within_2e_4(path):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (12, 15, 19)).repeat(3, axis=0).repeat(3, axis=1)
    p = np.exp(logits + rng.normal(0, 0.5, logits.shape)).astype(np.float32)
    p /= p.sum(-1, keepdims=True)
    exact, components = compute_metrics_components(p)
    cache.write_prediction(path, Prediction(p, p.argmax(-1), None, "a.png"), MADE_FROM)
    again = cache.read_prediction(path)
    rounded, again_components = compute_metrics_components(
        again.probabilities, prediction=again.prediction
    )
    assert_array_equal(again_components, components)
    for name in ("E", "D", "V", *(f"cprob{c}" for c in range(19))):
        assert_allclose(rounded[name], exact[name], rtol=0, atol=2e-4, err_msg=name)


def test_without_probabilities_the_heat_maps_are_kept_in_255_steps(path, prediction):
    maps = np.linspace(0, 1, 40 * 6 * 3, dtype=np.float32).reshape(40, 6, 3)
    cache.write_prediction(path, replace(prediction, heatmaps=maps), MADE_FROM, "none")
    again = cache.read_prediction(path)
    assert again.probabilities is None
    assert_allclose(again.heatmaps, maps, rtol=0, atol=0.5 / 255 + 1e-6)
    assert_array_equal(again.prediction, prediction.prediction)


def test_the_probabilities_can_be_left_out(path, prediction):
    cache.write_prediction(path, prediction, MADE_FROM)
    again = cache.read_prediction(path, probabilities=False)
    assert again.probabilities is None
    assert_array_equal(again.prediction, prediction.prediction)


def test_unknown_truth_is_stored_as_void_and_read_as_unknown(path, prediction):
    unknown = Prediction(prediction.probabilities, prediction.prediction, None, "a.png")
    cache.write_prediction(path, unknown, MADE_FROM)
    with h5py.File(path) as file:
        assert (file["ground_truths"][()] == 255).all()
    assert cache.read_prediction(path).ground_truth is None


def test_more_than_256_classes_need_16_bits(path, prediction):
    many = np.full((40, 6), 300, np.int64)
    cache.write_prediction(
        path, Prediction(prediction.probabilities, many, many, "a.png"), MADE_FROM
    )
    assert cache.read_prediction(path).prediction.dtype == np.uint16
    assert_array_equal(cache.read_prediction(path).ground_truth, many)


@pytest.mark.parametrize("wrong", [-1, 70000])
def test_ids_that_do_not_fit_are_refused(path, prediction, wrong):
    ids = np.full((40, 6), wrong, np.int64)
    with pytest.raises(ValueError, match=rf"0\.\.65535, got {wrong}"):
        cache.write_prediction(
            path, Prediction(prediction.probabilities, ids, None, "a.png"), MADE_FROM
        )
    assert not path.exists()


def test_a_component_map_comes_back(tmp_path):
    path = cache.components_path(tmp_path, "m", "d", 0)
    components = np.array([[1, 1, -1], [-1, -1, -2]]) * 40_000  # beyond int16
    cache.write_components(path, components, MADE_FROM)
    assert_array_equal(cache.read_components(path), components)
    assert cache.read_components(path).dtype == np.int32


@pytest.mark.parametrize("suffix", ["input0.hdf5", "components0.hdf5", "metrics0.p"])
def test_a_file_says_what_it_was_made_from(tmp_path, prediction, suffix):
    path = tmp_path / suffix
    assert cache.why_stale(path, MADE_FROM) == "missing"
    if suffix.startswith("input"):
        cache.write_prediction(path, prediction, MADE_FROM)
    elif suffix.startswith("components"):
        cache.write_components(path, np.ones((2, 2)), MADE_FROM)
    else:
        cache.write_table(path, {"S": [1]}, MADE_FROM)
    assert cache.made_from(path) == {**MADE_FROM, "size": [4, 6], "format": cache.FORMAT}
    assert cache.why_stale(path, MADE_FROM) is None
    other = {**MADE_FROM, "size": [4, 7], "image": {"path": "a.png"}}
    assert cache.why_stale(path, other) == "other image.path, size"
    assert cache.why_stale(path, {**other, "size": [4, 6]}, ignored=["image"]) is not None
    path.write_bytes(path.read_bytes()[:50])
    assert cache.why_stale(path, MADE_FROM) == "broken"


def test_a_table_comes_back_as_it_was_given(tmp_path):
    path = cache.metrics_path(tmp_path, "m", "d", 0)
    table = {
        "iou": np.array([0.5, np.nan]),
        "name": ["wall", "Köln"],
        "thumbnail": [b"\xff\xd8", b""],
        "box": [(0, np.int64(1), 2, 3)],
        "nested": {"k": 3, "p": 0.25, "none": None},
        "ragged": [np.zeros(2, np.float32), np.zeros((0, 4))],
    }
    cache.write_table(path, table, MADE_FROM)
    again = cache.read_table(path)
    assert list(again) == list(table)
    np.testing.assert_equal(again, table)
    assert again["ragged"][0].dtype == np.float32


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(path, prediction):
    cache.write_prediction(path, prediction, MADE_FROM)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), cache._new_hdf5(path, {}) as file:
        file["probabilities"] = np.zeros(3)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_indices_are_numbers_in_order_and_other_files_do_not_matter(tmp_path):
    names = ["metrics10.p", "metrics9.p", "metrics0.p"]
    others = ["metrics_all.p", ".metrics3.p.17.tmp", "metrics4.p.bak", "old_metrics5.p", "notes"]
    for name in names + others:
        (tmp_path / name).touch()
    assert cache.image_indices(tmp_path, "metrics") == [0, 9, 10]


def test_a_dataset_that_a_stage_has_not_seen_is_an_error_that_lists_the_others(tmp_path):
    (tmp_path / "streets_val").mkdir()
    with pytest.raises(SettingError, match="run src/MetaSeg/main.py .*streets_ood first; .*val"):
        cache.image_indices(tmp_path / "streets_ood", "metrics")


@pytest.mark.parametrize(
    ("name", "script"),
    [("input", "pred_images.py"), ("metrics", "src/MetaSeg/main.py")],
)
def test_a_missing_file_names_the_script_that_makes_it(tmp_path, name, script):
    path = tmp_path / "streets" / f"{name}3.hdf5"
    with pytest.raises(FileNotFoundError, match=f"{name}3.hdf5 is missing; run {script} for 'str"):
        cache.read_prediction(path)


def test_a_missing_table_of_segments_names_no_dataset():
    with pytest.raises(FileNotFoundError, match=r"run compute_embeddings.py first$"):
        cache.read_embeddings("embeddings_1_1_a.p")
    with pytest.raises(FileNotFoundError, match=r"run the script that writes it first$"):
        cache.read_table("other.p")


@pytest.mark.parametrize("wrong", [5, ["a.p"], True])
def test_a_setting_that_is_no_path_is_refused(wrong, tmp_path):
    cache.check_paths(csv=None, load_file="a.p", io_path=tmp_path)
    with pytest.raises(SettingError, match=r"`args.csv` must be the path of a file or folder, got"):
        cache.check_paths(load_file=None, csv=wrong)


@pytest.mark.parametrize("suffix", [".hdf5", ".p"])
def test_component_maps_are_found_in_the_first_folder_that_has_them(tmp_path, suffix):
    folders = [tmp_path / name for name in "abc"]
    where = "net", "streets", 3
    paths = [cache.components_path(folder, *where) for folder in folders]
    assert cache.find_components(folders, *where) == paths[2]
    for at in (2, 1):
        paths[at].parent.mkdir(parents=True)
        paths[at].with_suffix(suffix).touch()
        assert cache.find_components(folders, *where) == paths[at]


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_cut_prediction_is_named(path, prediction, kept):
    cache.write_prediction(path, prediction, MADE_FROM)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(ValueError, match="input7.hdf5 cannot be read .* run pred_images.py"):
        cache.read_prediction(path)


def test_a_file_of_another_kind_is_named(path, prediction):
    cache.write_components(path, np.ones((2, 2)), MADE_FROM)
    with pytest.raises(ValueError, match="input7.hdf5 cannot be read .*ground_truths"):
        cache.read_prediction(path)


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_cut_table_is_named(tmp_path, kept):
    path = cache.metrics_path(tmp_path, "m", "streets", 2)
    cache.write_table(path, {"S": np.arange(9)}, MADE_FROM)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="metrics2.p cannot be read .* run src/MetaSeg/main.py"):
        cache.read_table(path)


WRITERS = {
    "input7.hdf5": (lambda path: cache.write_prediction(path, made_up(), MADE_FROM)),
    "components7.hdf5": (lambda path: cache.write_components(path, np.eye(9), MADE_FROM)),
    "metrics7.p": (lambda path: cache.write_table(path, {"S": np.arange(99)}, MADE_FROM)),
}
READERS = {
    "input7.hdf5": cache.read_prediction,
    "components7.hdf5": cache.read_components,
    "metrics7.p": cache.read_table,
}


def made_up():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (5, 6)).astype(np.float32)
    return Prediction(probabilities, np.ones((5, 6), np.uint8), None, "street.png")


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_a_changed_bit_is_noticed_wherever_it_is(tmp_path, name, data):
    path = tmp_path / name
    WRITERS[name](path)
    whole = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=f"{name} cannot be read .*checksum.* again$"):
        READERS[name](path)
    assert cache.why_stale(path, MADE_FROM) == "broken"


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_a_cut_file_is_noticed_wherever_it_is_cut(tmp_path, name, data):
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        READERS[name](path)
    assert cache.why_stale(path, MADE_FROM) == "broken"


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path, protocol):
    path, trap = tmp_path / "metrics0.p", tmp_path / "trap"
    path.write_bytes(pickle.dumps({"S": Hostile(str(trap))}, protocol))
    with pytest.raises(ValueError, match=r"metrics0.p .*(posix|nt)\.mkdir, which is refused"):
        cache.read_table(path)
    assert not trap.exists()


def test_a_table_that_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="a table holds NumPy arrays, .* got (Posix|Windows)Path"):
        cache.write_table(tmp_path / "metrics0.p", {"path": [tmp_path]}, MADE_FROM)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_pickled_by_either_numpy_are_read(tmp_path, protocol, core):
    path = tmp_path / "metrics0.p"
    whole = pickle.dumps({"S": np.arange(3.0), "class": np.int64(4)}, protocol)
    if protocol == 3:  # the only one of them whose names can be exchanged for longer ones
        whole = re.sub(rb"numpy\._?core", core, whole)
    path.write_bytes(whole)
    np.testing.assert_equal(cache.read_table(path), {"S": np.arange(3.0), "class": 4})


# the original's files


def test_older_names_and_string_types_are_read(tmp_path, prediction):
    with h5py.File(tmp_path / "probs_4.hdf5", "w") as file:
        file["probabilities"] = prediction.probabilities
        file["prediction"] = file["ground_truths"] = np.zeros((40, 6), np.int64)
        file["file_names"] = np.array(["Köln.png".encode()])  # fixed length
    assert cache.image_indices(tmp_path, "input") == [4]
    again = cache.read_prediction(tmp_path / "input4.hdf5")
    assert again.image_path == "Köln.png"
    assert cache.made_from(tmp_path / "input4.hdf5") is None


def test_the_original_tree_is_read(reference):
    names = reference / "caches" / "tree", "deeplabv3plus", "cityscapes_val"
    folder = cache.prediction_path(*names, 0).parent
    assert cache.image_indices(folder, "input") == [0, 1, 2]
    for index in range(3):
        prediction = cache.read_prediction(cache.prediction_path(*names, index))
        components = cache.read_components(cache.components_path(*names, index))
        metrics = cache.read_table(cache.metrics_path(*names, index))
        assert_array_equal(prediction.probabilities.argmax(-1), prediction.prediction)
        assert prediction.prediction.dtype == prediction.ground_truth.dtype == np.uint8
        assert prediction.image_path == f"images/cityscapes_val_00000{index}.png"
        assert components.dtype == np.int32
        sizes = np.bincount(np.abs(components).ravel())
        assert_array_equal(sizes[1:], metrics["S"])
        assert len(metrics) == 78


def test_the_original_embeddings_are_read_as_arrays(reference):
    folder = reference / "caches"
    expected = json.loads((folder / "expected_selection.json").read_text())
    table = cache.read_embeddings(folder / "tree" / "embeddings_32_32_densenet201.p")
    assert table["embeddings"].shape == (5, 1920) and table["embeddings"].dtype == np.float32
    first8 = expected["embeddings_check"]["first8"]
    assert_allclose(table["embeddings"][:, :8], first8, rtol=1e-6)
    assert_array_equal(table["box"], expected["boxes_left_upper_right_lower"])
    for name in ("component_index", "image_level_index", "image_index", "gt", "pred"):
        assert_array_equal(table[name], expected[name])
        assert table[name].dtype == np.int64
    assert table["image_path"] == expected["image_path"]
    saved = np.load(folder / "expected_features_and_iou.npz")
    rows = saved["start"][table["image_level_index"]] + table["component_index"] - 1
    assert_allclose(table["iou"], saved["iou_pred"][rows], rtol=1e-6)
    # what the original does not know
    assert "thumbnail" not in table and table["made_from"] is None
    assert_array_equal(table["image_size"], np.full((3, 2), -1))
    assert_array_equal(table["segment_size"], [-1] * 5)
    assert table["image_made_from"] == [""] * 3


# the table of embedded segments


def embedded():
    """Three segments of two images."""
    return {
        "image_path": ["a.png", "b.png"],
        "dataset": ["streets", "woods"],
        "model_name": ["narrow", "narrow"],
        "image_index": np.array([4, 0]),
        "image_size": np.array([[9, 8], [7, 6]]),
        "iou_pred": [np.array([0.5, 0.25], np.float32), np.array([0.75], np.float32)],
        "image_made_from": ["x", "y"],
        "embeddings": np.eye(3, dtype=np.float32),
        "box": np.arange(12).reshape(3, 4),
        "component_index": np.array([1, 2, 1]),
        "image_level_index": np.array([0, 0, 1]),
        "gt": np.array([1, 2, 255]),
        "pred": np.array([0, 0, 1]),
        "iou": np.array([0.5, 0.25, 0.75], np.float32),
        "segment_size": np.array([7, 8, 9]),
        "thumbnail": [b"1", b"2", b"3"],
        "reduced_by": {"method": "pca"},
    }


def test_embedded_segments_come_back_as_they_were_given(tmp_path):
    table = embedded()
    cache.write_table(tmp_path / "embeddings_1_1_a.p", table, MADE_FROM)
    again = cache.read_embeddings(tmp_path / "embeddings_1_1_a.p")
    assert again.pop("made_from") == cache.as_stored(MADE_FROM)
    np.testing.assert_equal(again, table)


def test_a_table_of_no_segments_has_the_shapes_of_one(tmp_path):
    lists = {name: [] for name in embedded() if name not in ("iou", "reduced_by", "thumbnail")}
    cache.write_table(tmp_path / "embeddings_1_1_a.p", lists, MADE_FROM)
    table = cache.read_embeddings(tmp_path / "embeddings_1_1_a.p")
    assert table["embeddings"].shape == (0, 0) and table["box"].shape == (0, 4)
    assert table["iou"].shape == table["gt"].shape == (0,)
    assert table["image_size"].shape == (0, 2)


def test_some_segments_bring_their_images_and_no_others():
    some = cache.take_segments(embedded(), [2, 1])
    assert some["image_path"] == ["a.png", "b.png"] and some["thumbnail"] == [b"3", b"2"]
    assert_array_equal(some["image_level_index"], [1, 0])
    assert_array_equal(some["embeddings"], np.eye(3)[[2, 1]])
    last = cache.take_segments(embedded(), [2])
    assert last["dataset"] == ["woods"] and len(last["iou_pred"]) == 1
    assert_array_equal(last["image_level_index"], [0])
    assert_array_equal(last["image_size"], [[7, 6]])
    assert last["reduced_by"] == {"method": "pca"}
    none = cache.take_segments(embedded(), [])
    assert none["image_path"] == none["thumbnail"] == [] and none["box"].shape == (0, 4)


@pytest.mark.parametrize(
    "wrong", [{"gt": [1]}, {**embedded(), "gt": ["sofa"] * 3}, [1], {**embedded(), "box": [[1, 2]]}]
)
def test_a_file_that_holds_no_embedded_segments_is_named(tmp_path, wrong):
    path = tmp_path / "embeddings_1_1_a.p"
    path.write_bytes(pickle.dumps(wrong))
    with pytest.raises(ValueError, match="embeddings_1_1_a.p cannot be read .*compute_embeddings"):
        cache.read_embeddings(path)
