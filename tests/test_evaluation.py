"""Figures of merit: recorded values, values worked out by hand, the odd cases."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from src.evaluation import (
    component_anomaly_metrics,
    pixel_anomaly_metrics,
    pixels,
    ranking,
    retrieval_average_precision,
)
from src.evaluation.confusion import class_iou, confusion_by_iou, confusion_matrix
from src.evaluation.ranking import retrieval

LINE = np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0], [6.0, 1.0]])  # row 0 sees 1, 2, 3 in order


@pytest.mark.parametrize("case", ["plain", "annotated"])
@pytest.mark.parametrize("metric", ["euclid", "cos"])
def test_recorded_average_precisions_are_met(reference, case, metric):
    recorded = np.load(reference / "retrieval" / f"map_{case}.npz")
    result = retrieval_average_precision(
        recorded["embeddings"][recorded["kept_rows"]],
        recorded["train_ids"],
        recorded["query_indices"],
        metric,
        recorded.get("annotated"),
    )
    assert_allclose(result, recorded[f"ap_{metric}"], rtol=1e-6, atol=1e-6)


def test_a_list_worked_by_hand():
    # Relevant at ranks 2 and 3 of row 0: (1/2 + 2/3) / 2.
    assert_allclose(retrieval_average_precision(LINE, [1, 0, 1, 1], [0]), [7 / 12])


def test_neighbours_from_the_querys_own_picture_can_be_left_out():
    # Row 0 sees 1, 2, 3 in order; 1 is of its picture, so 2 and 3 are at ranks 1 and 2.
    figures = retrieval(LINE, [1, 1, 0, 1], [0, 2], counts=[1, 3], pictures=[5, 5, 7, 8])
    assert_allclose(figures[0], [1 / 2, 0, 1 / 3, 0, 1])
    assert_array_equal(figures[1], [np.nan, 0, 0, np.nan, np.nan])  # nothing like row 2
    figures = retrieval(LINE, [1, 1, 0, 1], [0, 1], pictures=[5, 5, 7, 5])
    assert_array_equal(figures[:, 0], [np.nan, np.nan])  # nothing like them in other pictures


def test_the_blocks_do_not_show(monkeypatch):
    generator = np.random.default_rng(0)
    embeddings, labels = generator.normal(size=(40, 3)), generator.integers(0, 4, 40)
    whole = retrieval_average_precision(embeddings, labels, np.arange(40))
    monkeypatch.setattr(ranking, "BLOCK_ENTRIES", 120)
    assert_array_equal(retrieval_average_precision(embeddings, labels, np.arange(40)), whole)


def test_the_query_is_left_out_by_its_row_not_by_its_place():
    embeddings = np.ones((10, 2))
    labels = np.array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    # All distances are 0, so rows keep their order: row 5 finds row 0 first.
    assert_allclose(retrieval_average_precision(embeddings, labels, [5]), [1.0])


def test_a_query_without_relevant_rows_is_nan_and_spoils_no_other():
    result = retrieval_average_precision(LINE, [1, 1, 0, 2], [0, 2])
    assert_array_equal(result, [1.0, np.nan])


def test_rows_without_annotation_stay_in_the_list_but_match_nothing():
    labels, annotated = np.array([1, 1, 1, 0]), np.array([1, 0, 1, 1])
    assert_allclose(retrieval_average_precision(LINE, labels, [0], annotated=annotated), [1 / 2])
    assert_array_equal(annotated, [1, 0, 1, 1])


def test_a_zero_embedding_is_far_from_everything_by_cosine():
    embeddings = np.array([[1.0, 0], [0, 0], [-1, 0], [1, 1]])
    assert_allclose(retrieval_average_precision(embeddings, [1, 1, 0, 0], [0], "cos"), [1 / 2])


def test_no_queries_give_no_values():
    assert retrieval_average_precision(LINE, [1, 1, 0, 2], []).shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "taxi"}, "'euclid' or 'cos', got 'taxi'"),
        ({"queries": [4]}, r"rows in \[0, 4\)"),
        ({"labels": [1, 2]}, "one entry a row, got 4, 2, 2 and 2"),
        ({"queries": [True, False, True, True]}, "`queries` must be whole numbers, got bool"),
        ({"pictures": [1]}, "`annotated` and `pictures` must .*, got 4, 4, 4 and 1"),
        ({"embeddings": LINE * np.nan}, r"`embeddings` must be finite and \(N, F\)"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"embeddings": LINE, "labels": [1, 0, 1, 1], "queries": [0], **change}
    with pytest.raises(ValueError, match=message):
        retrieval(**arguments)


def test_pixels_without_a_known_class_are_not_counted():
    ground_truth = np.array([[0, 0, 1], [1, 7, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
    assert_array_equal(confusion_matrix(prediction, ground_truth, 2), [[1, 1], [0, 2]])


def test_class_iou_is_worked_out_from_hits_misses_and_false_alarms():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    assert_allclose(class_iou(confusion), [3 / 6, 4 / 7, np.nan])


# --- precision and recall at k


def test_precision_and_recall_at_k_are_worked_out_by_hand():
    # The neighbours of row 0 are rows 1, 2 and 3; rows 2 and 3 carry its label.
    result = retrieval(LINE, [1, 0, 1, 1], [0], counts=[1, 2, 3, 10])
    assert_allclose(result[:, 1:5], [[0, 1 / 2, 2 / 3, 2 / 10]])
    assert_allclose(result[:, 5:], [[0, 1 / 2, 1, 1]])


def test_equally_near_rows_come_in_the_order_of_the_table():
    embeddings = np.array([[0.0], [1.0], [-1.0], [1.0]])
    assert_allclose(retrieval_average_precision(embeddings, [1, 0, 1, 0], [0]), [1 / 2])
    assert_allclose(retrieval_average_precision(embeddings, [1, 1, 0, 0], [0]), [1])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_order_of_the_rows_does_not_matter(seed):
    generator = np.random.default_rng(seed)
    embeddings, labels = generator.normal(size=(12, 2)), generator.integers(0, 3, 12)
    order = generator.permutation(12)
    before = retrieval_average_precision(embeddings, labels, np.arange(12))
    after = retrieval_average_precision(embeddings[order], labels[order], np.arange(12))
    assert_allclose(after, before[order])


# --- IoU by predicted IoU


@pytest.mark.parametrize("dataset", ["cityscapes_val", "a2d2"])
def test_recorded_confusions_by_threshold_are_met(reference, dataset):
    recorded = np.load(reference / "retrieval" / f"iou_by_threshold_{dataset}.npz")
    values = recorded["iou_pred"][np.abs(recorded["components"]) - 1]
    void = 8  # category 0 is left out
    prediction, truth = (
        np.where(recorded[name] == 0, void, recorded[name])
        for name in ("prediction_categories", "gt_categories")
    )
    below = confusion_by_iou(prediction, truth, values, recorded["thresholds"], void)

    transposed = below.transpose(0, 2, 1)  # recorded with the predicted class as row
    assert_array_equal(transposed[:-1], recorded["confusion_below"])
    assert_array_equal(transposed[-1] - transposed[:-1], recorded["confusion_at_or_above"])
    iou = np.nan_to_num([class_iou(confusion) for confusion in below[:-1]])[:, 1:]
    some = below[:-1].any(axis=(1, 2))  # without any pixel the original's helper gives ones
    assert_allclose(iou[some], recorded["class_iou_below"][some], atol=1e-5)
    assert_allclose(100 * iou[some].mean(1), recorded["miou_percent_below"][some], atol=1e-3)


def test_a_pixel_at_the_threshold_is_not_below_it():
    prediction, truth = np.array([[0, 1, 1]]), np.array([[0, 0, 1]])
    values = np.array([[0.1, 0.5, 0.7]])  # 0.1 is another number in float32
    below = confusion_by_iou(prediction, truth, values, [0.1, 0.5, 0.6], 2)
    assert_array_equal(below[0], [[0, 0], [0, 0]])
    assert_array_equal(below[1], [[1, 0], [0, 0]])
    assert_array_equal(below[2], [[1, 1], [0, 0]])
    assert_array_equal(below[3], [[1, 1], [0, 1]])


# --- anomaly


@pytest.fixture
def recorded_frames(reference):
    folder = reference / "anomaly_metrics"
    frames = np.load(folder / "frames.npz")
    return frames["scores"], frames["labels"], json.loads((folder / "expected.json").read_text())


def test_recorded_pixel_metrics_are_met(recorded_frames):
    scores, labels, expected = recorded_frames
    for values, name in (
        (scores, "exact_pooled"),
        (np.round(scores * 16) / 16, "exact_pooled_scores_rounded_to_sixteenths"),
    ):
        metrics = pixel_anomaly_metrics(values, labels)
        for key, value in expected["pixel"][name].items():
            assert metrics[key] == pytest.approx(value, rel=1e-12), key


def test_recorded_pixel_metrics_of_single_frames_are_met(recorded_frames):
    scores, labels, expected = recorded_frames
    for frame, values in enumerate(expected["pixel"]["exact_per_frame"]):
        if values is None:
            with pytest.raises(ValueError, match="0 anomalous"):
                pixel_anomaly_metrics(scores[[frame]], labels[[frame]])
            continue
        metrics = pixel_anomaly_metrics(scores[[frame]], labels[[frame]])
        for key, value in values.items():
            assert metrics[key] == pytest.approx(value, rel=1e-12), (frame, key)


@pytest.mark.parametrize("binning", ["PixBinaryClass", "PixBinaryClass-uniThr"])
def test_the_benchmarks_own_program_approximates_these_values(recorded_frames, binning):
    scores, labels, expected = recorded_frames
    metrics, rough = pixel_anomaly_metrics(scores, labels), expected["pixel"][binning]
    for key, name in (
        ("average_precision", "area_PRC"),
        ("auroc", "area_ROC"),
        ("fpr_at_95_tpr", "tpr95_fpr"),
        ("best_f1", "best_f1"),
    ):
        assert metrics[key] == pytest.approx(rough[name], abs=2e-3), key


def test_scores_that_crowd_at_one_are_told_apart_in_steps_too(monkeypatch):
    generator = np.random.default_rng(0)
    labels = (generator.random((4, 100, 100)) < 0.05).astype(int)
    scores = 1 / (1 + np.exp(-(12 + 2 * generator.normal(size=labels.shape) + 3 * labels)))
    exact = pixel_anomaly_metrics(scores, labels)
    monkeypatch.setattr(pixels, "EXACT_PIXELS", 1000)
    monkeypatch.setattr(pixels, "QUANTILES", 500)
    rough = pixel_anomaly_metrics(scores, labels)
    for key in ("average_precision", "auroc", "fpr_at_95_tpr", "best_f1"):
        assert rough[key] == pytest.approx(exact[key], abs=5e-3), key


def test_counting_in_steps_comes_close_to_the_exact_values(recorded_frames, monkeypatch):
    scores, labels, _ = recorded_frames
    exact = pixel_anomaly_metrics(scores, labels)
    monkeypatch.setattr(pixels, "EXACT_PIXELS", 30_000)  # reached in the second frame
    rough = pixel_anomaly_metrics(scores - 0.5, labels)  # negative scores, too
    assert (rough["positives"], rough["negatives"]) == (exact["positives"], exact["negatives"])
    for key in ("average_precision", "auroc", "fpr_at_95_tpr", "best_f1"):
        assert rough[key] == pytest.approx(exact[key], abs=2e-4), key
    assert rough["threshold_at_95_tpr"] + 0.5 == pytest.approx(
        exact["threshold_at_95_tpr"], abs=1e-4
    )


def test_recorded_component_metrics_are_met(recorded_frames):
    scores, labels, expected = recorded_frames
    for name, case in expected["component"].items():
        metrics = component_anomaly_metrics(
            scores,
            labels,
            case["score_threshold"],
            case["min_predicted_component"],
            case["min_true_component"],
        )
        for key, value in case["aggregate"].items():
            assert metrics[key] == pytest.approx(value, rel=1e-12), (name, key)
        assert metrics["f1_per_threshold"] == pytest.approx(case["f1_per_threshold"])
        for found, frame in zip(metrics["per_frame"], case["per_frame"], strict=True):
            for key, values in frame.items():
                assert found[key] == pytest.approx(values), (name, key)


def test_pixel_metrics_worked_out_by_hand():
    # From the highest score: anomaly, normal, anomaly and normal tied, then an ignored pixel.
    scores, labels = [[[4, 3, 2, 2, 1]]], [[[1, 0, 1, 0, 255]]]
    metrics = pixel_anomaly_metrics(scores, labels)
    assert metrics["average_precision"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)
    assert metrics["auroc"] == pytest.approx((1 + 1 + 0 + 1 / 2) / 4)  # of the four pairs
    assert (metrics["fpr_at_95_tpr"], metrics["threshold_at_95_tpr"]) == (1, 2)
    assert (metrics["best_f1"], metrics["best_f1_threshold"]) == (pytest.approx(2 / 3), 4)
    assert (metrics["positives"], metrics["negatives"]) == (2, 2)


def test_frames_may_come_as_pairs_one_after_the_other():
    scores, labels = np.arange(12.0).reshape(3, 2, 2), np.arange(12).reshape(3, 2, 2) % 2
    whole = pixel_anomaly_metrics(scores, labels)
    assert pixel_anomaly_metrics(zip(scores, labels, strict=True)) == whole
    sizes = 0.5, 1, 1
    whole = component_anomaly_metrics(scores, labels, *sizes)
    assert component_anomaly_metrics(zip(scores, labels, strict=True), None, *sizes) == whole


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_perfect_constant_and_shuffled_scores(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (2, 4, 5))
    labels[0, 0, :3] = 0, 1, 255
    labels[1] = np.where(generator.random((4, 5)) < 0.2, 255, labels[1])
    perfect = pixel_anomaly_metrics(labels == 1, labels)
    assert (perfect["average_precision"], perfect["auroc"], perfect["best_f1"]) == (1, 1, 1)
    assert perfect["fpr_at_95_tpr"] == 0
    constant = pixel_anomaly_metrics(np.ones(labels.shape), labels)
    base_rate = (labels == 1).sum() / (labels != 255).sum()
    assert constant["average_precision"] == pytest.approx(base_rate)
    assert constant["auroc"] == pytest.approx(0.5)
    scores, order = generator.random(labels.shape), generator.permutation(20)
    shuffled = [frames.reshape(2, 20)[:, order].reshape(2, 4, 5) for frames in (scores, labels)]
    assert pixel_anomaly_metrics(*shuffled) == pixel_anomaly_metrics(scores, labels)
    objects = component_anomaly_metrics(labels == 1, labels, 0.5, 1, 1)
    assert (objects["sIoU_gt"], objects["prec_pred"], objects["f1_mean"]) == (1, 1, 1)


def test_component_metrics_worked_out_by_hand():
    labels = np.array([[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0]])
    scores = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    # One predicted component of 4 pixels: 2 on the left object, 1 on the right one, 1 on neither.
    metrics = component_anomaly_metrics([scores], [labels], 0.5, 1, 1)
    left, right = 2 / (4 + 4 - 2 - 1), 1 / (2 + 4 - 1 - 2)
    assert metrics["per_frame"][0]["sIoU_gt"] == pytest.approx([left, right])
    assert metrics["sIoU_pred"] == pytest.approx(3 / (4 + 6 - 3))
    assert metrics["prec_pred"] == pytest.approx(3 / 4)
    assert (metrics["tp_25"], metrics["fn_25"], metrics["fp_25"]) == (2, 0, 0)
    assert (metrics["tp_50"], metrics["fn_50"], metrics["fp_75"]) == (0, 2, 0)
    assert metrics["f1_25"] == 1


def test_small_components_are_dropped_or_left_out():
    labels = np.zeros((3, 9), int)
    labels[:, 0:3], labels[0, 8] = 1, 1  # objects of 9 and of 1 pixels
    scores = np.zeros((3, 9))
    scores[:, 0:3], scores[0, 7:9], scores[2, 6] = 1, 1, 1  # predictions of 9, 2 and 1 pixels
    metrics = component_anomaly_metrics([scores], [labels], 0.5, 2, 2)
    # The second one loses the pixel that is left out, and is a false alarm; the third is dropped.
    assert metrics["per_frame"][0]["size_pred"] == [9, 1]
    assert metrics["per_frame"][0]["prec_pred"] == [1, 0]
    assert metrics["per_frame"][0]["size_gt"] == [9]


def test_where_there_is_no_component_nothing_is_claimed():
    metrics = component_anomaly_metrics(np.zeros((1, 2, 2)), np.zeros((1, 2, 2), int), 0.5, 1, 1)
    assert [metrics[key] for key in ("f1_mean", "f1_25", "sIoU_gt", "prec_pred")] == [None] * 4
    assert (metrics["tp_mean"], metrics["fp_mean"], metrics["fn_mean"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[[1, 2]]], [[[0]]], r"frame 0: .* one shape \(H, W\), got \(1, 2\) and \(1, 1\)"),
        ([[[1, np.nan]]], [[[0, 1]]], "frame 0: `scores` must be finite"),
        ([[[1, 2]]], [[[0, 7]]], r"`labels` must be 0, 1 or 255, got \[0 7\]"),
        ([[[1, 2]]], [[[0, 255]]], "got 1 normal and 0 anomalous"),
        ([[[1, 2]], [[1, 2]]], [[[0, 1]]], "frame 1: .* got .* and \\(\\)"),
    ],
)
def test_frames_that_cannot_be_judged_are_named(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        pixel_anomaly_metrics(scores, labels)
