"""The segment metrics against recorded values, a slow twin and cases worked by hand."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from twins.metaseg import slow_metrics

from src.MetaSeg import metrics as metrics_module
from src.MetaSeg.metrics import compute_metrics_components, heatmaps

VOID = 255
GOLDEN_CASES = (
    *("classes35", "column_Nx1", "gt_all_void", "gt_far_iou0", "layout_borders"),
    *("near_single_class", "noisy19", "row_1xN", "single_class", "smooth19", "ties7"),
    *("two_classes", "void_regions"),
)
AGGREGATES = ("", "_in", "_bd", "_rel", "_rel_in")
AGGREGATES += ("_var", "_var_in", "_var_bd", "_var_rel", "_var_rel_in")


def one_hot(classes, class_count):
    return np.eye(class_count, dtype=np.float32)[np.asarray(classes)]


def distinct_neighbours(height, width):
    """Four classes of which no two equal ones touch: every pixel is a segment."""
    rows, columns = np.indices((height, width))
    return 2 * (rows % 2) + columns % 2


@contextmanager
def strips_of(rows):
    """Cut images into strips of so many rows, as large images are."""
    with patch.multiple(metrics_module, STRIP_BYTES=0, MIN_STRIP_ROWS=rows):
        yield


def assert_close(actual, expected, name):
    difference = np.abs(np.asarray(actual, np.float64) - expected)
    assert np.all(difference <= 1e-6 * (1 + np.abs(expected))), (name, difference.max())


def assert_same_result(actual, expected):
    assert_array_equal(actual[1], expected[1])
    assert list(actual[0]) == list(expected[0])
    for name, values in expected[0].items():
        assert_array_equal(actual[0][name], values, err_msg=name)


# ---------------------------------------------------------------------------------------------
# The recorded values


def load_golden(reference, case):
    with np.load(reference / "metaseg" / f"{case}.npz") as file:
        return {name: file[name] for name in file.files}


def test_every_recorded_case_is_listed(reference):
    assert sorted(p.stem for p in (reference / "metaseg").glob("*.npz")) == list(GOLDEN_CASES)


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_recorded_maps_and_metrics_are_reproduced(reference, case, rows):
    golden = load_golden(reference, case)
    with strips_of(rows):
        metrics, components = compute_metrics_components(golden["probs"], golden["gt"])
    assert components.dtype == np.int32
    assert_array_equal(components, golden["components"])
    for name, values in zip("EDV", heatmaps(golden["probs"]), strict=True):
        assert values.dtype == np.float32
        assert_close(values, golden[name], name)
    recorded = [name for name in golden if name.startswith("metric_")]
    assert case == "single_class" or len(recorded) == len(metrics)
    for name in recorded:
        assert_close(metrics[name.removeprefix("metric_")], golden[name], name)


def test_metrics_are_listed_in_the_original_order():
    metrics, _ = compute_metrics_components(np.full((2, 2, 3), 1 / 3))
    expected = ["iou", "iou0", "class", "mean_x", "mean_y"]
    expected += [h + suffix for h in "EDV" for suffix in AGGREGATES]
    expected += ["S", "S_in", "S_bd", "S_rel", "S_rel_in"]
    expected += ["cprob0", "cprob1", "cprob2", "ndist0", "ndist1", "ndist2"]
    assert list(metrics) == expected
    assert metrics.pop("class").dtype == np.int64
    assert {(v.dtype, v.shape) for v in metrics.values()} == {(np.dtype(np.float64), (1,))}


# ---------------------------------------------------------------------------------------------
# The slow twin, on random images


@st.composite
def images(draw):
    """Probabilities, ground truth or None, and further maps, of every awkward kind."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    class_count = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["smooth", "confident", "coarse", "one-hot", "blocks"]))
    if kind == "coarse":  # ties for every place
        p = random.integers(0, 3, (height, width, class_count)) / 2
    elif kind == "one-hot":
        p = one_hot(random.integers(0, class_count, (height, width)), class_count)
    elif kind == "blocks":  # segments large enough to have inner pixels
        corners = random.integers(0, class_count, (2, 2))
        p = one_hot(corners.repeat(6, 0).repeat(6, 1)[:height, :width], class_count) * 0.75
    else:
        p = np.exp(random.normal(0, 6 if kind == "confident" else 1, (height, width, class_count)))
        p /= p.sum(axis=-1, keepdims=True)
    p = p.astype(np.float32)

    truth = p.argmax(axis=-1)
    changed = random.random((height, width)) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    truth[changed] = random.choice([*range(class_count), class_count, VOID], changed.sum())
    further = {"depth": random.normal(3, 1, (height, width))}
    return p, draw(st.sampled_from([truth, truth, truth, None])), further


@settings(max_examples=300)
@given(images(), st.sampled_from([1, 2, 3, 12]), st.integers(1, 3))
def test_random_images_give_what_the_definitions_say(image, strip_rows, threads):
    probabilities, truth, further = image
    with strips_of(strip_rows):
        metrics, components = compute_metrics_components(
            probabilities, truth, further, threads=threads
        )
    rows, expected_components = slow_metrics(probabilities, truth, further)
    assert_array_equal(components, expected_components)
    assert set(metrics) == set(rows[0])
    for name, values in metrics.items():
        expected = np.array([row[name] for row in rows], np.float64)
        if truth is None and name in ("iou", "iou0"):
            assert_array_equal(values, expected)
        else:
            assert_close(values, expected, name)


# ---------------------------------------------------------------------------------------------
# Worked by hand


def test_pixels_touching_at_a_corner_are_one_segment():
    _, components = compute_metrics_components(one_hot([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 2))
    assert_array_equal(components, [[-1, -2, -2], [-2, -1, -2], [-2, -2, -1]])


def test_the_edge_of_the_image_makes_no_boundary():
    metrics, components = compute_metrics_components(one_hot([[0, 0, 0, 1]] * 2, 2))
    assert_array_equal(components, [[1, 1, -1, -2]] * 2)
    assert_array_equal(metrics["S_in"], [4, 0])
    assert_array_equal(metrics["S_rel"], [3, 1])
    assert_array_equal(metrics["mean_x"], [0.5, 0.5])  # x is the row
    assert_array_equal(metrics["mean_y"], [1, 3])
    assert_array_equal(metrics["class"], [0, 1])


def test_a_neighbouring_pixel_counts_once_for_every_pixel_it_touches():
    metrics, _ = compute_metrics_components(one_hot([[0, 0, 2], [0, 0, 1]], 3))
    # The upper right 0 touches 2 and 1, so does the lower right one.
    assert_array_equal(metrics["ndist2"], [0.5, 0, 1 / 3])
    assert_array_equal(metrics["ndist1"], [0.5, 1 / 3, 0])
    assert_array_equal(metrics["ndist0"], [0, 2 / 3, 2 / 3])


def test_heat_maps_of_a_pixel_worked_by_hand():
    entropy, difference, variation = heatmaps([[[0.5, 0.25, 0.25, 0.0]]])
    assert entropy[0, 0] == pytest.approx(0.75, abs=1e-6)  # 1.5 bits of 2
    assert difference[0, 0] == 0.75
    assert variation[0, 0] == 0.5


def test_of_equal_probabilities_the_lowest_class_wins():
    metrics, _ = compute_metrics_components([[[0.2, 0.4, 0.4]]])
    assert_array_equal(metrics["class"], [1])
    assert_array_equal(metrics["D"], [1])


def test_an_inner_and_a_boundary_pixel_are_aggregated_apart():
    further = {"depth": [[2.0, 4.0, 10.0]]}
    metrics, _ = compute_metrics_components(one_hot([[0, 0, 1]], 2), heatmaps=further)
    first = [metrics["depth" + suffix][0] for suffix in AGGREGATES]
    assert first == [3, 2, 4, 6, 2, 1, 0, 0, 2, 0]
    second = [metrics["depth" + suffix][1] for suffix in AGGREGATES]
    assert second == [10, 0, 10, 10, 0, 0, 0, 0, 0, 0]


def test_further_maps_keep_their_precision():
    further = {"time": np.full((1, 2), 2**24 + 1), "near": np.full((1, 2), 0.1, np.float32)}
    metrics, _ = compute_metrics_components(one_hot([[0, 1]], 2), heatmaps=further)
    assert_array_equal(metrics["time"], [2**24 + 1] * 2)
    assert_array_equal(metrics["near"], [np.float32(0.1)] * 2)


def test_further_maps_are_listed_between_v_and_s():
    further = {"depth": np.ones((1, 2)), "speed": np.ones((1, 2), np.int8)}
    names = list(compute_metrics_components(one_hot([[0, 1]], 2), heatmaps=further)[0])
    start = names.index("V_var_rel_in") + 1
    expected = [name + suffix for name in further for suffix in AGGREGATES]
    assert names[start : names.index("S")] == expected


def test_truth_confirmed_by_another_segment_of_the_class_is_not_missed():
    metrics, _ = compute_metrics_components(one_hot([[0, 1, 0, 0]], 2), np.zeros((1, 4), int))
    # The pixel between the two zeros counts against both; neither pays for the other.
    assert_array_equal(metrics["iou"], [1 / 2, 0, 2 / 3])
    assert_array_equal(metrics["iou0"], [0, 1, 0])


def test_missed_truth_is_followed_through_other_segments_but_not_beyond_a_gap():
    truth = [[0, 0, 0, 2, 0]]
    metrics, _ = compute_metrics_components(one_hot([[0, 1, 2, 2, 1]], 3), truth)
    assert_array_equal(metrics["iou"], [1 / 3, 0, 1 / 2, 0])


def test_pixels_without_a_label_stay_in_the_union():
    truth = np.array([[0, 0, 0, 1, 1, VOID]] * 4)
    truth[1, 1] = VOID
    metrics, _ = compute_metrics_components(one_hot([[0, 0, 0, 1, 1, 1]] * 4, 2), truth)
    assert_array_equal(metrics["iou"], [11 / 12, 8 / 12])


def test_without_ground_truth_the_iou_is_unknown_and_all_else_the_same():
    p = one_hot([[0, 1, 1]], 2)
    unknown, _ = compute_metrics_components(p)
    known, _ = compute_metrics_components(p, [[0, 1, 1]])
    assert_array_equal([unknown.pop("iou"), unknown.pop("iou0")], np.full((2, 2), np.nan))
    for name, values in unknown.items():
        assert_array_equal(values, known[name])


# ---------------------------------------------------------------------------------------------
# Corners in which the original fails


def test_one_class_everywhere_counts_its_boundary_as_one_pixel():
    p = np.full((2, 3, 2), (0.75, 0.25), np.float32)
    metrics, components = compute_metrics_components(p, np.zeros((2, 3), np.uint8))
    assert_array_equal(components, np.ones((2, 3)))
    expected = {"iou": 1, "S": 6, "S_in": 6, "S_bd": 0, "S_rel": 6, "S_rel_in": 6}
    expected |= {"V": 0.25, "V_in": 0.25, "V_bd": 0, "V_rel": 1.5, "V_rel_in": 1.5, "V_var_bd": 0}
    expected |= {"cprob0": 0.75, "cprob1": 0.25, "ndist0": 0, "ndist1": 0}
    assert {name: metrics[name].tolist() for name in expected} == {
        name: [value] for name, value in expected.items()
    }


def test_an_image_of_one_pixel_is_one_segment():
    metrics, components = compute_metrics_components([[[0.25, 0.75]]], [[1]])
    assert_array_equal(components, [[1]])
    assert_array_equal(metrics["iou"], [1])


def test_a_network_of_one_class_has_no_entropy():
    metrics, components = compute_metrics_components(np.full((2, 2, 1), 0.75), np.zeros((2, 2)))
    assert_array_equal(components, np.ones((2, 2)))
    assert [metrics[name][0] for name in ("iou", "E", "D", "V")] == [1, 0, 0.25, 0.25]


def test_more_than_32767_segments_keep_their_numbers():
    classes = distinct_neighbours(129, 256)
    metrics, components = compute_metrics_components(one_hot(classes, 4), classes)
    assert_array_equal(components.ravel(), -1 - np.arange(129 * 256))
    assert_array_equal(metrics["iou"], np.ones(129 * 256))
    assert_array_equal(metrics["class"], classes.ravel())


@pytest.mark.parametrize("shape", [(1, 65540), (65540, 1)])
def test_images_longer_than_65535_pixels_are_whole(shape):
    classes = np.zeros(shape, int)
    classes.flat[65537] = 1
    metrics, components = compute_metrics_components(one_hot(classes, 2), classes)
    assert components.shape == shape
    assert_array_equal(metrics["S"], [65537, 1, 2])
    assert_array_equal(metrics["mean_x"] + metrics["mean_y"], [32768, 65537, 65538.5])


@pytest.mark.parametrize("class_count", [128, 129, 300])
def test_the_last_of_many_classes_is_like_any_other(class_count):
    p = np.full((1, 1, class_count), 0.3 / (class_count - 1))
    p[..., -1] = 0.7
    metrics, _ = compute_metrics_components(p, [[class_count - 1]])
    assert_array_equal(metrics["class"], [class_count - 1])
    assert_array_equal(metrics["iou"], [1])
    assert_close(metrics["V"], 0.3, "V")
    assert_close(metrics["D"], 0.3 + 0.3 / (class_count - 1), "D")


def test_class_255_of_many_is_a_segment_that_no_truth_confirms():
    metrics, components = compute_metrics_components(one_hot([[255, 256]], 257), [[255, 256]])
    assert_array_equal(components, [[-1, -2]])
    assert_array_equal(metrics["class"], [255, 256])
    assert_array_equal(metrics["iou"], [0, 1])


def test_truth_of_a_class_the_network_does_not_know_matches_nothing():
    metrics, _ = compute_metrics_components(one_hot([[0, 1, 1]], 2), [[256, 257, 2]])
    assert_array_equal(metrics["iou"], [0, 0])


def test_a_segment_is_one_however_many_strips_it_runs_through():
    classes = [[1, 0, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]]
    truth = [[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]]
    with strips_of(1):
        metrics, components = compute_metrics_components(one_hot(classes, 2), truth)
    assert_array_equal(abs(components), [[1, 2, 1], [1, 2, 1], [1, 2, 1], [1, 1, 1]])
    assert_array_equal(metrics["S"], [9, 3])
    assert_array_equal(metrics["mean_x"], [(3 * 2 + 3 * 3) / 9, 1])
    assert_array_equal(metrics["iou"], [5 / 9, 3 / (3 + 4)])  # 4 missed pixels in one column


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_any_number_of_threads_gives_the_same_bits(threads):
    random = np.random.default_rng(0)
    p = random.dirichlet([0.3] * 5, (9, 12)).repeat(9, axis=0).repeat(7, axis=1)
    p[random.random(p.shape[:2]) < 0.1] = np.eye(5)[3]
    truth = np.roll(p.argmax(axis=-1), 3, axis=0)
    further = {"depth": random.normal(size=truth.shape)}
    with strips_of(4):
        expected = compute_metrics_components(p, truth, further)
        assert_same_result(compute_metrics_components(p, truth, further, threads=threads), expected)


@pytest.mark.parametrize("class_count", [1, 3, 4, 19, 33, 70])
def test_a_pixel_has_the_same_bits_wherever_it_lies(class_count):
    # The kernel takes 16 pixels at a time in squares of 4, and what is left over one by one.
    random = np.random.default_rng(class_count)
    p = random.dirichlet([0.3] * class_count, (1, 37)).astype(np.float32)
    whole = heatmaps(p)
    for column in range(p.shape[1]):
        for values, alone in zip(whole, heatmaps(p[:, column : column + 1]), strict=True):
            assert_array_equal(values[:, column : column + 1], alone)


def test_own_maps_are_summed_like_further_ones():
    random = np.random.default_rng(0)
    p = random.dirichlet([0.3] * 5, (9, 12)).repeat(7, axis=0).repeat(7, axis=1)
    p = (p + random.uniform(0, 0.1, p.shape)).astype(np.float32)
    p /= p.sum(axis=-1, keepdims=True)
    copies = dict(zip(("e", "d", "v"), heatmaps(p), strict=True))
    metrics, _ = compute_metrics_components(p, heatmaps=copies)
    for name in copies:  # four numbers in one register, and one by one
        for suffix in AGGREGATES:
            assert_array_equal(metrics[name + suffix], metrics[name.upper() + suffix])


@pytest.mark.parametrize("class_count", [4, 7, 19, 40])
def test_probabilities_are_summed_singly_over_16_pixels_and_doubly_beyond(class_count):
    random = np.random.default_rng(class_count)
    p = random.dirichlet([0.3] * class_count, (1, 41)).astype(np.float32)
    p[..., 0] = 1  # one segment; no sum is checked
    stretches = [p[0, start : start + 16] for start in (0, 16, 32)]
    sums = np.array([np.add.accumulate(stretch)[-1] for stretch in stretches], np.float64).sum(0)
    metrics, _ = compute_metrics_components(p)
    for k in range(class_count):
        assert metrics[f"cprob{k}"] == np.float32(sums[k]) / np.float64(41)


def test_a_number_of_threads_below_one_is_refused():
    with pytest.raises(ValueError, match="`threads` must be at least 1, got 0"):
        compute_metrics_components(one_hot([[0, 1]], 2), threads=0)


def test_a_known_prediction_takes_the_place_of_the_most_probable_class():
    p = np.array([[[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]]])
    metrics, components = compute_metrics_components(p, prediction=[[1, 1, 0]])
    assert_array_equal(components, [[1, -1, -2]])
    assert_array_equal(metrics["class"], [1, 0])
    assert_close(metrics["cprob1"], [0.65, 0.4], "cprob1")
    assert_close(metrics["D"], [(1.0 + 0.4) / 2, 0.8], "D")  # still of the two most probable


@pytest.mark.parametrize("prediction", [[[0, 3]], [[-1, 0]], [[0.5, 0]]])
def test_a_prediction_of_no_class_is_refused_with_its_place(prediction):
    with pytest.raises(
        ValueError, match="`prediction` must hold whole numbers from 0 to 2; 1 of 2"
    ):
        compute_metrics_components(np.full((1, 2, 3), 1 / 3), prediction=prediction)


def test_inputs_are_read_however_they_lie_in_memory(tmp_path):
    random = np.random.default_rng(0)
    p = random.dirichlet([0.3] * 5, (9, 12)).astype(np.float16)  # exact in every dtype
    truth = random.integers(0, 5, (9, 12)).astype(np.uint8)
    expected = compute_metrics_components(p.astype(np.float32), truth)
    np.save(tmp_path / "p.npy", p.astype(np.float32))
    read_only = p.astype(np.float32)
    read_only.flags.writeable = False
    fixed_truth = truth.astype(np.uint16)
    fixed_truth.flags.writeable = False
    padded = np.zeros((9, 24, 5), np.float32)
    padded[:, ::2] = p
    for variant in (
        p,
        p.astype(np.float64),
        p.astype(">f4"),
        np.asfortranarray(p.astype(np.float32)),
        padded[:, ::2],
        read_only,
        np.load(tmp_path / "p.npy", mmap_mode="r"),
    ):
        for variant_truth in (truth, fixed_truth, truth.astype(np.int64), np.asfortranarray(truth)):
            assert_same_result(compute_metrics_components(variant, variant_truth), expected)


@pytest.mark.parametrize("class_count", [1, 3, 19, 40])
def test_steps_are_measured_to_the_bit_as_the_numbers_that_they_stand_for(class_count):
    random = np.random.default_rng(0)
    steps = random.integers(0, 2**16, (7, 37, class_count)).astype(np.uint16)
    steps[0, :2] = [[0], [2**16 - 1]]
    exact = steps * np.float32(1 / 65535)
    expected = compute_metrics_components(exact)
    planes = np.moveaxis(np.moveaxis(steps, 2, 0).copy(), 0, 2)
    for variant in (steps, planes, planes.repeat(2, axis=1)[:, ::2], steps.astype(">u2")):
        assert_same_result(compute_metrics_components(variant), expected)
        assert_array_equal(heatmaps(variant), heatmaps(exact))


def test_inputs_are_left_as_they_are():
    p, truth = one_hot([[0, 1], [1, 1]], 2), np.array([[0, 0], [1, 1]], np.uint16)
    depth = np.arange(4.0).reshape(2, 2)
    compute_metrics_components(p, truth, {"depth": depth})
    assert_array_equal(p, one_hot([[0, 1], [1, 1]], 2))
    assert_array_equal(truth, [[0, 0], [1, 1]])
    assert_array_equal(depth, [[0, 1], [2, 3]])


def test_rounding_below_zero_and_above_one_is_allowed():
    for values in heatmaps([[[1.00005, -0.00005]]]):
        assert values[0, 0] == pytest.approx(0, abs=2e-4)


# ---------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.01, 1.01])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_value_that_is_no_probability_is_refused_with_its_place(value, dtype):
    p = np.full((3, 4, 2), 0.5, dtype)
    p[1, 2, 1] = p[2, 0, 0] = value
    message = r"2 of 24 are not, the first at \(row, column, class\) \(1, 2, 1\)"
    for function in (compute_metrics_components, heatmaps):
        with pytest.raises(ValueError, match=message):
            function(p)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 2), (3, 4, 0), (1, 3, 4, 2)])
def test_probabilities_of_another_form_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(H, W, C\) with no side 0, got \("):
        compute_metrics_components(np.zeros(shape))


def test_more_pixels_than_segment_numbers_are_refused():
    p = np.broadcast_to(np.float32(0.5), (2**16, 2**15, 1))
    with pytest.raises(ValueError, match="at most 2147483647 pixels, got 65536 x 32768"):
        compute_metrics_components(p)


def test_more_classes_than_ids_are_refused():
    with pytest.raises(ValueError, match="at most 65535 classes on the last axis, got 65536"):
        compute_metrics_components(np.zeros((1, 1, 65536)))


def test_values_that_are_no_real_numbers_are_refused():
    with pytest.raises(ValueError, match="`probabilities` must hold real numbers, got dtype comp"):
        compute_metrics_components(np.zeros((1, 1, 2), complex))


@pytest.mark.parametrize("shape", [(0,), (2, 3), (3, 2), (4, 4), (3, 4, 1)])
def test_ground_truth_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"`ground_truth` must have the image's shape \(3, 4\)"):
        compute_metrics_components(np.full((3, 4, 2), 0.5), np.zeros(shape))


@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf, 65536])
def test_a_true_class_that_is_no_id_is_refused_with_its_place(value):
    truth = np.zeros((3, 4), np.float64 if isinstance(value, float) else np.int64)
    truth[2, 1] = value
    message = r"from 0 to 65535; 1 of 12 are not, the first at \(row, column\) \(2, 1\)"
    with pytest.raises(ValueError, match=message):
        compute_metrics_components(np.full((3, 4, 2), 0.5), truth)


def test_a_further_map_that_does_not_fit_is_refused_by_name():
    p = np.full((3, 4, 2), 0.5)
    with pytest.raises(
        ValueError, match=r"`heatmaps\['depth'\]` must have .* \(3, 4\), got \(4, 3"
    ):
        compute_metrics_components(p, heatmaps={"depth": np.zeros((4, 3))})
    holed = np.zeros((3, 4))
    holed[1, 1] = np.nan
    with pytest.raises(ValueError, match=r"`heatmaps\['depth'\]` must be finite; 1 of 12"):
        compute_metrics_components(p, heatmaps={"depth": holed})


@pytest.mark.parametrize("name", ["E", "iou", "S", "cprob1", "E_var"])
def test_a_further_map_may_not_take_the_name_of_a_metric(name):
    with pytest.raises(ValueError, match="rename the map"):
        compute_metrics_components(np.full((3, 4, 2), 0.5), heatmaps={name: np.zeros((3, 4))})
