import hashlib
import json
import os
import pickle
import re
from dataclasses import replace

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from src.errors import SettingError
from src.MetaSeg.metrics import compute_metrics_components
from src.records import Prediction
from src.store import arrays, paths, provenance, tables
from src.store.paths import Results

MADE_FROM = {"model": "narrow", "size": (4, 6), "iou_threshold": 0.5}


@pytest.fixture
def prediction():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=(40, 6)).astype(np.float32)
    truth = rng.integers(0, 3, size=(40, 6)).astype(np.uint8)
    return Prediction(probabilities, probabilities.argmax(-1), truth, "/pictures/Köln 1.png")


@pytest.fixture
def path(tmp_path):
    return Results(tmp_path, "narrow", "streets").prediction(7)


def test_names_are_those_of_the_original_tree(tmp_path):
    names = [
        Results(tmp_path, "m", "d").prediction(3),
        Results(tmp_path, "m", "d").metrics(3),
        Results(tmp_path, "m", "d").components(3),
        Results(tmp_path, "m").embeddings((128, 64), "densenet201"),
        Results(tmp_path, "m", "d").vectors(3, tmp_path / "embeddings" / "m" / "a.p"),
    ]
    assert [name.relative_to(tmp_path).as_posix() for name in names] == [
        "input/m/d/input3.hdf5",
        "metrics/m/d/metrics3.p",
        "components/m/d/components3.hdf5",
        "embeddings/m/embeddings_128_64_densenet201.p",
        "embeddings/m/a/d/vectors3.p",
    ]
    assert paths.min_size_of(names[3]) == (128, 64)
    path = Results(tmp_path, "m").embeddings((128, 64), "timm/vit_tiny.augreg")
    assert (path.parent.name, path.name) == ("m", "embeddings_128_64_timm_vit_tiny.augreg.p")
    with pytest.raises(SettingError, match="must be called embeddings_<height>_<width>_<net>.p"):
        paths.min_size_of(tmp_path / "segments.p")


def test_float32_comes_back_bit_for_bit(path, prediction):
    arrays.write_prediction(path, prediction, MADE_FROM, "float32")
    again = arrays.read_prediction(path)
    assert_array_equal(again.probabilities, prediction.probabilities)
    assert_array_equal(again.prediction, prediction.prediction)
    assert_array_equal(again.ground_truth, prediction.ground_truth)
    assert again.image_path == prediction.image_path
    assert again.probabilities.dtype == np.float32
    assert again.prediction.dtype == again.ground_truth.dtype == np.uint8


def test_the_compact_form_is_rounded_to_65535_steps_and_keeps_the_prediction(path):
    ties = np.array([[[0.4 - 1e-6, 0.4 + 1e-6], [1 + 1e-7, -1e-7]]], np.float32)
    arrays.write_prediction(path, Prediction(ties, ties.argmax(-1), None, "a.png"), MADE_FROM)
    again = arrays.read_prediction(path)
    assert again.probabilities.dtype == np.float32
    assert again.probabilities[0, 0, 0] == again.probabilities[0, 0, 1]  # tied now
    assert_array_equal(again.probabilities[0, 1], [1, 0])
    assert_array_equal(again.prediction, [[1, 0]])


@pytest.mark.parametrize("form", ["compact", "float32"])
def test_probabilities_as_stored_are_measured_to_the_bit_as_those_read(path, prediction, form):
    arrays.write_prediction(path, prediction, MADE_FROM, form)
    read, stored = arrays.read_prediction(path), arrays.read_prediction(path, as_stored=True)
    assert stored.probabilities.dtype == {"compact": np.uint16, "float32": np.float32}[form]
    metrics, components = compute_metrics_components(read.probabilities, read.ground_truth)
    again, same = compute_metrics_components(stored.probabilities, stored.ground_truth)
    assert_array_equal(same, components)
    assert_array_equal([*again.values()], [*metrics.values()])


@pytest.mark.parametrize("layout", [h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED])
@pytest.mark.parametrize("before", [0, 512])
def test_float32_is_found_wherever_another_program_has_put_it(path, prediction, layout, before):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=before) as file:
        file["prediction"] = file["ground_truths"] = prediction.prediction
        file["image_path"] = ["a.png"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(layout)
        if layout == h5py.h5d.CHUNKED:
            how.set_chunk((8, 6, 3))
        values = np.ascontiguousarray(prediction.probabilities, np.float32)
        space = h5py.h5s.create_simple(values.shape)
        stored = h5py.h5d.create(file.id, b"probabilities", h5py.h5t.IEEE_F32LE, space, how)
        stored.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    read = arrays.read_prediction(path, as_stored=True).probabilities
    assert_array_equal(read, values)


def test_steps_of_older_files_are_read(path, prediction):
    arrays.write_prediction(path, prediction, MADE_FROM)
    expected = arrays.read_prediction(path).probabilities
    with h5py.File(path, "a") as file:
        steps = file["probabilities"][()]
        del file["probabilities"], file.attrs["made_from"]  # so that no checksum is asked for
        older = hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.SHUFFLE)
        file.create_dataset("probabilities", data=steps, chunks=(3, 16, 6), compression=older)
    assert_array_equal(arrays.read_prediction(path).probabilities, expected)


@pytest.mark.parametrize("form", ["compact", "float32"])
def test_scores_come_back_within_a_65535th_of_their_range(path, prediction, form):
    ramp = np.linspace(-30, 12, 240, dtype=np.float32).reshape(40, 6)
    scores = {"max_logit": ramp, "energy": np.full((40, 6), 7.0, np.float32)}
    arrays.write_prediction(path, replace(prediction, scores=scores), MADE_FROM, form)
    again = arrays.read_prediction(path, probabilities=False).scores
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
    arrays.write_prediction(path, Prediction(p, p.argmax(-1), None, "a.png"), MADE_FROM)
    again = arrays.read_prediction(path)
    rounded, again_components = compute_metrics_components(
        again.probabilities, prediction=again.prediction
    )
    assert_array_equal(again_components, components)
    for name in ("E", "D", "V", *(f"cprob{c}" for c in range(19))):
        assert_allclose(rounded[name], exact[name], rtol=0, atol=2e-4, err_msg=name)


def test_without_probabilities_the_heat_maps_are_kept_in_255_steps(path, prediction):
    maps = np.linspace(0, 1, 40 * 6 * 3, dtype=np.float32).reshape(40, 6, 3)
    arrays.write_prediction(path, replace(prediction, heatmaps=maps), MADE_FROM, "none")
    again = arrays.read_prediction(path)
    assert again.probabilities is None
    assert_allclose(again.heatmaps, maps, rtol=0, atol=0.5 / 255 + 1e-6)
    assert_array_equal(again.prediction, prediction.prediction)


def test_the_probabilities_can_be_left_out(path, prediction):
    arrays.write_prediction(path, prediction, MADE_FROM)
    again = arrays.read_prediction(path, probabilities=False)
    assert again.probabilities is None
    assert_array_equal(again.prediction, prediction.prediction)


def test_unknown_truth_is_stored_as_void_and_read_as_unknown(path, prediction):
    unknown = Prediction(prediction.probabilities, prediction.prediction, None, "a.png")
    arrays.write_prediction(path, unknown, MADE_FROM)
    with h5py.File(path) as file:
        assert (file["ground_truths"][()] == 255).all()
    assert arrays.read_prediction(path).ground_truth is None


def test_more_than_256_classes_need_16_bits(path, prediction):
    many = np.full((40, 6), 300, np.int64)
    arrays.write_prediction(
        path, Prediction(prediction.probabilities, many, many, "a.png"), MADE_FROM
    )
    assert arrays.read_prediction(path).prediction.dtype == np.uint16
    assert_array_equal(arrays.read_prediction(path).ground_truth, many)


@pytest.mark.parametrize("wrong", [-1, 70000])
def test_ids_that_do_not_fit_are_refused(path, prediction, wrong):
    ids = np.full((40, 6), wrong, np.int64)
    with pytest.raises(ValueError, match=rf"0\.\.65535, got {wrong}"):
        arrays.write_prediction(
            path, Prediction(prediction.probabilities, ids, None, "a.png"), MADE_FROM
        )
    assert not path.exists()


@pytest.mark.parametrize("wrong", [0.7, np.nan])
def test_ids_that_are_no_whole_numbers_are_refused(path, prediction, wrong):
    ids = np.full((40, 6), 2.0)
    arrays.write_prediction(path, replace(prediction, ground_truth=ids), MADE_FROM)
    assert (arrays.read_prediction(path).ground_truth == 2).all()
    ids[3, 4] = wrong
    with pytest.raises(ValueError, match="class ids must be whole numbers, got float64"):
        arrays.write_prediction(path, replace(prediction, ground_truth=ids), MADE_FROM)


def test_a_component_map_comes_back(tmp_path):
    path = Results(tmp_path, "m", "d").components(0)
    components = np.array([[1, 1, -1], [-1, -1, -2]]) * 40_000  # beyond int16
    arrays.write_components(path, components, MADE_FROM)
    assert_array_equal(arrays.read_components(path), components)
    assert arrays.read_components(path).dtype == np.int32


@pytest.mark.parametrize("suffix", ["input0.hdf5", "components0.hdf5", "metrics0.p"])
def test_a_file_says_what_it_was_made_from(tmp_path, prediction, suffix):
    path = tmp_path / suffix
    assert provenance.why_stale(path, MADE_FROM) == "missing"
    if suffix.startswith("input"):
        arrays.write_prediction(path, prediction, MADE_FROM)
    elif suffix.startswith("components"):
        arrays.write_components(path, np.ones((2, 2)), MADE_FROM)
    else:
        tables.write_table(path, {"S": [1]}, MADE_FROM)
    assert provenance.made_from(path) == {**MADE_FROM, "size": [4, 6]}
    assert provenance.why_stale(path, MADE_FROM) is None
    other = {**MADE_FROM, "size": [4, 7], "image": {"path": "a.png"}}
    assert provenance.why_stale(path, other) == "other image.path, size"
    assert provenance.why_stale(path, {**other, "size": [4, 6]}, ignored=["image"]) is not None
    assert provenance.why_stale(path, lambda there: {**MADE_FROM, "size": there["size"]}) is None
    path.write_bytes(path.read_bytes()[:50])
    assert provenance.why_stale(path, MADE_FROM) == "broken"


def test_a_file_of_another_format_is_made_again_for_that_reason_alone(tmp_path):
    tables.write_table(tmp_path / "metrics0.p", {"S": [1]}, {"format": 2, "old": 1})
    reason = provenance.why_stale(tmp_path / "metrics0.p", {"format": 3, "new": 1})
    assert reason == provenance.OTHER_FORMAT


def test_a_file_of_the_user_is_known_by_its_bytes(tmp_path):
    """Neither its place nor its time make it another one; one changed byte does."""
    first, second = tmp_path / "a.png", tmp_path / "b" / "c.png"
    first.write_bytes(b"street")
    noted = provenance.content(first)
    second.parent.mkdir()
    second.write_bytes(b"street")
    os.utime(second, (1, 1))
    moved = provenance.content(second, noted)
    assert moved["sha256"] == hashlib.sha256(b"street").hexdigest() and moved["size"] == 6
    assert provenance.why_differs({"image": moved}, {"image": noted}) is None
    assert provenance.digest({"image": moved}) == provenance.digest({"image": noted})
    second.write_bytes(b"stream")
    changed = provenance.content(second, moved)
    assert provenance.why_differs({"image": changed}, {"image": noted}) == "other image.sha256"


def test_a_file_that_was_seen_is_not_read_again(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"street")
    noted = {**provenance.content(path), "sha256": "as noted"}
    assert provenance.content(path, noted) == noted
    os.utime(path, ns=(0, 1))
    assert provenance.content(path, noted)["sha256"] != "as noted"


def test_a_table_comes_back_as_it_was_given(tmp_path):
    path = Results(tmp_path, "m", "d").metrics(0)
    table = {
        "iou": np.array([0.5, np.nan]),
        "name": ["wall", "Köln"],
        "thumbnail": [b"\xff\xd8", b""],
        "box": [(0, np.int64(1), 2, 3)],
        "nested": {"k": 3, "p": 0.25, "none": None},
        "ragged": [np.zeros(2, np.float32), np.zeros((0, 4))],
    }
    tables.write_table(path, table, MADE_FROM)
    again = tables.read_table(path)
    assert list(again) == list(table)
    np.testing.assert_equal(again, table)
    assert again["ragged"][0].dtype == np.float32


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(path, prediction):
    arrays.write_prediction(path, prediction, MADE_FROM)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), arrays._new_hdf5(path, {}) as file:
        file["probabilities"] = np.zeros(3)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_indices_are_numbers_in_order_and_other_files_do_not_matter(tmp_path):
    names = ["metrics10.p", "metrics9.p", "metrics0.p"]
    others = ["metrics_all.p", ".metrics3.p.17.tmp", "metrics4.p.bak", "old_metrics5.p", "notes"]
    for name in names + others:
        path = Results(tmp_path, "m", "d").folder("metrics") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert Results(tmp_path, "m", "d").indices("metrics") == [0, 9, 10]


def test_a_dataset_that_a_stage_has_not_seen_is_an_error_that_lists_the_others(tmp_path):
    Results(tmp_path, "m", "streets_val").folder("metrics").mkdir(parents=True)
    with pytest.raises(SettingError, match="run src/MetaSeg/main.py .*streets_ood first; .*val"):
        Results(tmp_path, "m", "streets_ood").indices("metrics")
    assert Results(tmp_path, "m", "streets_ood").indices("metrics", missing_ok=True) == []


@pytest.mark.parametrize(
    ("name", "script"),
    [("input", "pred_images.py"), ("metrics", "src/MetaSeg/main.py")],
)
def test_a_missing_file_names_the_script_that_makes_it(tmp_path, name, script):
    path = tmp_path / "streets" / f"{name}3.hdf5"
    with pytest.raises(FileNotFoundError, match=f"{name}3.hdf5 is missing; run {script} for 'str"):
        arrays.read_prediction(path)


def test_a_missing_table_of_segments_names_no_dataset():
    with pytest.raises(FileNotFoundError, match=r"run compute_embeddings.py first$"):
        tables.read_embeddings("embeddings_1_1_a.p")
    with pytest.raises(FileNotFoundError, match=r"run the script that writes it first$"):
        tables.read_table("other.p")


@pytest.mark.parametrize("suffix", [".hdf5", ".p"])
def test_component_maps_are_found_in_the_first_folder_that_has_them(tmp_path, suffix):
    places = [Results(tmp_path / name, "net", "streets") for name in "abc"]
    maps = [results.components(3) for results in places]
    assert paths.find_components(places, 3) == maps[2]
    for at in (2, 1):
        maps[at].parent.mkdir(parents=True)
        maps[at].with_suffix(suffix).touch()
        assert paths.find_components(places, 3) == maps[at]


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_cut_prediction_is_named(path, prediction, kept):
    arrays.write_prediction(path, prediction, MADE_FROM)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(ValueError, match="input7.hdf5 cannot be read .* run pred_images.py"):
        arrays.read_prediction(path)


def test_a_file_of_another_kind_is_named(path, prediction):
    arrays.write_components(path, np.ones((2, 2)), MADE_FROM)
    with pytest.raises(ValueError, match="input7.hdf5 cannot be read .*ground_truths"):
        arrays.read_prediction(path)


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_cut_table_is_named(tmp_path, kept):
    path = Results(tmp_path, "m", "streets").metrics(2)
    tables.write_table(path, {"S": np.arange(9)}, MADE_FROM)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="metrics2.p cannot be read .* run src/MetaSeg/main.py"):
        tables.read_table(path)


WRITERS = {
    "input7.hdf5": (lambda path: arrays.write_prediction(path, made_up(), MADE_FROM)),
    "components7.hdf5": (lambda path: arrays.write_components(path, np.eye(9), MADE_FROM)),
    "metrics7.p": (lambda path: tables.write_table(path, {"S": np.arange(99)}, MADE_FROM)),
}
READERS = {
    "input7.hdf5": arrays.read_prediction,
    "components7.hdf5": arrays.read_components,
    "metrics7.p": tables.read_table,
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
    assert provenance.why_stale(path, MADE_FROM) == "broken"


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_a_cut_file_is_noticed_wherever_it_is_cut(tmp_path, name, data):
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        READERS[name](path)
    assert provenance.why_stale(path, MADE_FROM) == "broken"


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
        tables.read_table(path)
    assert not trap.exists()


def test_a_table_that_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="a table holds NumPy arrays, .* got (Posix|Windows)Path"):
        tables.write_table(tmp_path / "metrics0.p", {"path": [tmp_path]}, MADE_FROM)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_pickled_by_either_numpy_are_read(tmp_path, protocol, core):
    path = tmp_path / "metrics0.p"
    whole = pickle.dumps({"S": np.arange(3.0), "class": np.int64(4)}, protocol)
    if protocol == 3:  # the only one of them whose names can be exchanged for longer ones
        whole = re.sub(rb"numpy\._?core", core, whole)
    path.write_bytes(whole)
    np.testing.assert_equal(tables.read_table(path), {"S": np.arange(3.0), "class": 4})


# the original's files


def test_older_names_and_string_types_are_read(tmp_path, prediction):
    results = Results(tmp_path, "m", "d")
    path = results.prediction(4)
    path.parent.mkdir(parents=True)
    with h5py.File(path.with_name("probs_4.hdf5"), "w") as file:
        file["probabilities"] = prediction.probabilities
        file["prediction"] = file["ground_truths"] = np.zeros((40, 6), np.int64)
        file["file_names"] = np.array(["Köln.png".encode()])  # fixed length
    assert results.indices("input") == [4]
    again = arrays.read_prediction(path)
    assert again.image_path == "Köln.png"
    assert provenance.made_from(path) is None


def test_the_original_tree_is_read(reference):
    results = Results(reference / "caches" / "tree", "deeplabv3plus", "cityscapes_val")
    assert results.indices("input") == [0, 1, 2]
    for index in range(3):
        prediction = arrays.read_prediction(results.prediction(index))
        components = arrays.read_components(results.components(index))
        metrics = tables.read_table(results.metrics(index))
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
    table = tables.read_embeddings(folder / "tree" / "embeddings_32_32_densenet201.p")
    assert table["embeddings"].shape == (5, 1920) and table["embeddings"].dtype == np.float32
    first8 = expected["embeddings_check"]["first8"]
    assert_allclose(table["embeddings"][:, :8], first8, rtol=1e-6)
    assert_array_equal(table["box"], expected["boxes_left_upper_right_lower"])
    for ours, name in {"component_index": "", "true_id": "gt", "predicted_id": "pred"}.items():
        assert_array_equal(table[ours], expected[name or ours])
        assert table[ours].dtype == np.int64
    at = expected["image_level_index"]
    assert_array_equal(table["image_index"], np.array(expected["image_index"])[at])
    assert table["image_path"].tolist() == [expected["image_path"][image] for image in at]
    saved = np.load(folder / "expected_features_and_iou.npz")
    rows = saved["start"][at] + table["component_index"] - 1
    assert_allclose(table["predicted_iou"], saved["iou_pred"][rows], rtol=1e-6)
    # what the original does not know
    assert "thumbnail" not in table and table.facts["made_from"] is None
    assert_array_equal(table["image_size"], np.full((5, 2), -1))
    assert_array_equal(table["segment_size"], [-1] * 5)
    assert table["image_made_from"].tolist() == [""] * 5


# the table of embedded segments


def nested():
    """Three objects of two images, as the original's form has them."""
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
        "suspicion": np.array([0.9, 0.8, 0.7], np.float32),
        "novelty": np.array([1.5, np.nan, 2.5], np.float32),
        "segment_size": np.array([7, 8, 9]),
        "thumbnail": [b"1", b"2", b"3"],
        "reduced_by": {"method": "pca"},
    }


def test_the_novelty_of_objects_in_an_older_table_is_unknown(tmp_path):
    older = {name: values for name, values in nested().items() if name != "novelty"}
    tables.write_table(tmp_path / "embeddings_1_1_a.p", older, MADE_FROM)
    novelty = tables.read_embeddings(tmp_path / "embeddings_1_1_a.p")["novelty"]
    assert_array_equal(novelty, [np.nan] * 3)


SINGLE = {"segments": np.array([1, 2, 1]), "segment_counts": np.array([1, 1, 1])}


def embedded(folder):
    """The same as an ObjectTable."""
    tables.write_table(folder / "embeddings_1_1_a.p", nested(), MADE_FROM)
    return tables.read_embeddings(folder / "embeddings_1_1_a.p")


def test_a_table_of_objects_has_a_row_an_object(tmp_path):
    table = embedded(tmp_path)
    assert len(table) == 3
    assert {len(column) for column in table.columns.values()} == {3}
    assert table["image_path"].tolist() == ["a.png", "a.png", "b.png"]
    assert_array_equal(table["image_index"], [4, 4, 0])
    assert_array_equal(table["image_size"], [[9, 8], [9, 8], [7, 6]])
    assert_array_equal(table["image_predicted_iou"][1], [0.5, 0.25])
    assert_array_equal(table["predicted_iou"], [0.5, 0.25, 0.75])
    assert_array_equal(table["true_id"], [1, 2, 255])
    assert table.facts["reduced_by"] == {"method": "pca"}
    assert table.image_names() == [("streets", 4), ("streets", 4), ("woods", 0)]


def test_a_table_of_objects_is_stored_in_the_form_of_the_original(tmp_path):
    path, table = tmp_path / "embeddings_2_2_a.p", embedded(tmp_path)
    tables.write_embeddings(path, table, MADE_FROM)
    stored = nested() | SINGLE | {"thumbnail_sizes": np.array([1, 1, 1])}
    del stored["thumbnail"]  # which follow the pickle
    np.testing.assert_equal(tables.read_table(path), stored)
    again = tables.read_embeddings(path)
    assert again.facts == table.facts
    for name, column in table.columns.items():
        np.testing.assert_equal(again[name].tolist(), column.tolist(), err_msg=name)


def test_thumbnails_stay_in_the_file_and_outlive_it(tmp_path):
    path, table = tmp_path / "embeddings_2_2_a.p", embedded(tmp_path)
    thumbnails = [b"of the first", b"", b"of the third"]
    table = table.with_columns(thumbnail=tables.as_column(thumbnails))
    tables.write_embeddings(path, table, MADE_FROM)
    assert path.read_bytes().count(b"of the firstof the third") == 1
    before = tables.read_embeddings(path)
    tables.write_embeddings(path, before.take([2, 0]), MADE_FROM)  # in its own place
    assert tables.read_embeddings(path)["thumbnail"].tolist() == [thumbnails[2], thumbnails[0]]
    path.unlink()
    assert before["thumbnail"].tolist() == thumbnails
    assert before.take([False, False, True])["thumbnail"][0] == b"of the third"


def test_a_thumbnail_of_a_file_that_was_cut_meanwhile_cannot_be_read(tmp_path):
    path = tmp_path / "embeddings_2_2_a.p"
    tables.write_embeddings(path, embedded(tmp_path), MADE_FROM)
    thumbnails = tables.read_embeddings(path)["thumbnail"]
    os.truncate(path, thumbnails.starts[1])
    assert thumbnails[0] == b"1"
    with pytest.raises(OSError, match="0 bytes from .* on where 1 belong"):
        thumbnails[1]


def test_a_wrong_bit_in_a_thumbnail_is_found_before_it_is_shown(tmp_path):
    path = tmp_path / "embeddings_2_2_a.p"
    tables.write_embeddings(path, embedded(tmp_path), MADE_FROM)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"123crc32", b"133crc32"))
    assert path.read_bytes() != content
    with pytest.raises(SettingError, match="embeddings_2_2_a.p cannot be read .*checksum"):
        tables.read_embeddings(path)


def test_the_objects_of_one_picture_come_back_as_they_were_given(tmp_path):
    table = embedded(tmp_path).take([0, 1]).with_facts(left_out={"too small": 3})
    for some in (table, table.take([])):
        tables.write_objects(tmp_path / "vectors0.p", some, MADE_FROM)
        again, source = tables.read_objects(tmp_path / "vectors0.p")
        assert source == provenance.as_stored(MADE_FROM)
        assert again.facts == table.facts and len(again) == len(some)
        for name in some.columns:
            np.testing.assert_equal(again[name].tolist(), some[name].tolist(), err_msg=name)


def test_the_segments_of_each_object_are_stored(tmp_path):
    path, joined = tmp_path / "embeddings_2_2_a.p", [[3, 1, 2], [4], [1, 7]]
    columns = dict(segments=[np.array(numbers) for numbers in joined])
    columns["image_predicted_iou"] = [np.full(count, 0.5, np.float32) for count in (4, 4, 7)]
    columns = {name: tables.as_column(values) for name, values in columns.items()}
    tables.write_embeddings(path, embedded(tmp_path).with_columns(**columns), MADE_FROM)
    found = tables.read_embeddings(path)
    assert [numbers.tolist() for numbers in found["segments"]] == joined
    assert found.facts.keys() == {"made_from", "reduced_by"}


def test_a_table_of_no_objects_has_the_shapes_of_one(tmp_path):
    lists = {name: [] for name in nested() if name not in ("iou", "reduced_by", "thumbnail")}
    tables.write_table(tmp_path / "embeddings_1_1_a.p", lists, MADE_FROM)
    for table in (tables.read_embeddings(tmp_path / "embeddings_1_1_a.p"), tables.no_objects()):
        assert table["embeddings"].shape == (0, 0) and table["box"].shape == (0, 4)
        assert table["predicted_iou"].shape == table["true_id"].shape == (0,)
        assert table["image_size"].shape == (0, 2)


def test_some_objects_bring_what_is_known_of_them(tmp_path):
    some = embedded(tmp_path).take([2, 1])
    assert some["image_path"].tolist() == ["b.png", "a.png"]
    assert some["thumbnail"].tolist() == [b"3", b"2"]
    assert_array_equal(some["embeddings"], np.eye(3)[[2, 1]])
    assert some.facts["reduced_by"] == {"method": "pca"}
    none = some.take([])
    assert len(none) == 0 and none["box"].shape == (0, 4)
    assert len(some.take(np.array([False, True]))) == 1


@pytest.mark.parametrize(
    "wrong", [{"gt": [1]}, {**nested(), "gt": ["sofa"] * 3}, [1], {**nested(), "box": [[1, 2]]}]
)
def test_a_file_that_holds_no_embedded_segments_is_named(tmp_path, wrong):
    path = tmp_path / "embeddings_1_1_a.p"
    path.write_bytes(pickle.dumps(wrong))
    with pytest.raises(ValueError, match="embeddings_1_1_a.p cannot be read .*compute_embeddings"):
        tables.read_embeddings(path)
