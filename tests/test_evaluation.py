"""Retrieval average precision: recorded values, hand-worked values, the odd cases."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from src import evaluation
from src.evaluation import retrieval_average_precision

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


def test_the_blocks_do_not_show(monkeypatch):
    generator = np.random.default_rng(0)
    embeddings, labels = generator.normal(size=(40, 3)), generator.integers(0, 4, 40)
    whole = retrieval_average_precision(embeddings, labels, np.arange(40))
    monkeypatch.setattr(evaluation, "BLOCK_ENTRIES", 120)
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
        ({"labels": [1, 2]}, "one entry a row, got 4, 2 and 2"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"embeddings": LINE, "labels": [1, 0, 1, 1], "queries": [0], **change}
    with pytest.raises(ValueError, match=message):
        retrieval_average_precision(**arguments)


def test_pixels_without_a_known_class_are_not_counted():
    ground_truth = np.array([[0, 0, 1], [1, 7, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
    assert_array_equal(evaluation.confusion_matrix(prediction, ground_truth, 2), [[1, 1], [0, 2]])


def test_class_iou_is_worked_out_from_hits_misses_and_false_alarms():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    assert_allclose(evaluation.class_iou(confusion), [3 / 6, 4 / 7, np.nan])
