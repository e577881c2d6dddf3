"""One image on its way through stage 2, and what later stages read of it."""

import numpy as np
import pytest
from factories import same_ids, store_image
from numpy.testing import assert_array_equal

from src.MetaSeg import stage as measuring
from src.records import Prediction
from src.store import arrays, provenance, tables
from src.store.paths import Results

MADE_FROM = provenance.of_segments({"tile": None}, same_ids(2))


@pytest.fixture
def place(tmp_path):
    """An image of two segments, the right one of true class 300, which no mapping has."""
    place = Results(tmp_path, "narrow", "streets"), 4
    probabilities = np.zeros((2, 4, 2), np.float32)
    probabilities[:, :2, 0], probabilities[:, 2:, 1] = 1, 1
    truth = np.array([[0, 0, 300, 300]] * 2, np.uint16)
    prediction = Prediction(probabilities, probabilities.argmax(-1), truth, "a.png")
    store_image(*place, prediction, same_ids(2), {"tile": None})
    return place


def test_true_ids_that_no_mapping_has_count_as_no_label(place):
    assert_array_equal(measuring.read_measured(*place).metrics["iou"], [1, 0])


def test_what_was_measured_is_read_with_its_prediction(place):
    prediction, metrics, components = measuring.read_measured(*place, probabilities=True)
    assert prediction.probabilities.shape == (2, 4, 2)
    assert metrics["S"].tolist() == [4, 4]
    assert_array_equal(np.abs(components), [[1, 1, 2, 2]] * 2)
    assert measuring.read_measured(*place).prediction.probabilities is None


def test_segments_of_an_older_prediction_are_refused(place):
    path = place[0].prediction(4)
    arrays.write_prediction(path, arrays.read_prediction(path), {"tile": [64, 64]})
    with pytest.raises(ValueError, match="predicted again since it was measured"):
        measuring.read_measured(*place)


def test_metrics_of_other_segments_than_the_component_map_has_are_refused(place):
    path = place[0].metrics(4)
    metrics = tables.read_table(path)
    for changed in ({"E": metrics["E"][:1]}, {key: metrics[key][:1] for key in metrics}):
        tables.write_table(path, metrics | changed, provenance.made_from(path))
        with pytest.raises(ValueError, match=f"{path} has other segments than .*delete both"):
            measuring.read_measured(*place)


def test_what_does_not_sum_to_1_is_refused_and_nothing_is_written(place):
    halves = np.full((2, 3, 3), 0.5, np.float32)
    prediction = Prediction(halves, np.zeros((2, 3), np.uint8), None, "halves.png")
    results = place[0]
    with pytest.raises(ValueError, match=r"must sum to 1; .* is 1.5 to 1.5: store the softmax"):
        measuring.store_segments(results, 9, prediction, MADE_FROM)
    assert not results.metrics(9).exists() and not results.components(9).exists()


def test_a_component_map_without_its_metrics_is_not_taken_for_measured(place):
    arrays.write_components(place[0].components(4), np.ones((2, 4)), {"prediction": {}})
    with pytest.raises(ValueError, match="measured in part only; run src/MetaSeg/main.py again"):
        measuring.read_measured(*place)
