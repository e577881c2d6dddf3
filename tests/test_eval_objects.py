"""Objects held against the truth: figures that can be worked out by eye."""

import csv
import logging
from dataclasses import replace

import numpy as np
import pytest
from factories import model_card, object_table, same_ids, store_image
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from configuration import DatasetConfig
from src.embedding.crops import segment_boxes
from src.evaluation import objects
from src.evaluation.pictures import Pictures
from src.records import Prediction
from src.run.runner import Runner
from src.store import provenance, tables
from src.store.paths import Results

LOG = logging.getLogger(__name__)
ROAD, COW = 0, 100
LABELS = np.full(256, 255, np.uint8)
LABELS[[ROAD, COW]] = 0, 1
TRUTH = np.full((4, 8), ROAD, np.uint8)
TRUTH[:2, :4] = COW
SEGMENTS = np.full((4, 8), 4, np.int32)
SEGMENTS[:2, :2], SEGMENTS[:2, 2:4], SEGMENTS[2:, :4] = 1, 2, 3


def judge(candidates, suspicion, truth=TRUTH, least=(2, 2)):
    """Candidates of `SEGMENTS`, by the numbers of their segments, held against a truth."""
    of = objects.Truth.of_picture(truth, LABELS, least)
    inside = of.regions > 0
    places = SEGMENTS[inside] - 1, of.regions[inside] - 1
    ones = np.ones(len(places[0]), np.int64)
    pixels = sparse.coo_array((ones, places), (4, len(of.ids))).tocsr()
    found = [np.array(numbers) for numbers in candidates]
    sizes = np.bincount(SEGMENTS.ravel())[1:]
    boxes = segment_boxes(SEGMENTS)
    return objects.judge_candidates(5, of, pixels, sizes, boxes, found, np.array(suspicion))


def test_an_object_is_found_at_the_highest_suspicion_of_what_covers_it():
    judged = judge([[1], [2, 1], [3]], [0.9, 0.5, 0.7])
    assert_array_equal(judged.is_unknown, [False, True])  # the road, the cow
    # of the cow's 8 pixels the first has 4, in half of its box, and the second all; of the road's
    # 24 the third has 8, in a quarter of its box
    none = -np.inf
    assert_allclose(judged.found_at, [[0.7, 0.7, none, none], [0.9, 0.9, 0.9, 0.9]])
    assert judged.finds.tolist() == [True, True, False]
    assert judged.is_false.tolist() == [False, False, True]
    assert judged.picture.tolist() == [5, 5, 5] and judged.true_picture.tolist() == [5, 5]


def test_a_candidate_that_mostly_lies_on_something_else_does_not_touch_an_object():
    judged = judge([[1, 4]], [1])  # 4 pixels of the cow, 16 of the road
    road, cow = judged.found_at
    assert np.isfinite(road).tolist() == [True, True, True, True]  # 16 of 28; the whole box
    assert np.isfinite(cow).tolist() == [False, False, False, False]  # 4 of 24
    assert judged.is_false.tolist() == [True]


def test_what_is_mostly_not_judged_is_no_candidate_and_other_pixels_do_not_count():
    truth = TRUTH.copy()
    truth[2:, :3] = 255  # 6 of the 8 pixels of segment 3
    judged = judge([[1], [3]], [0.9, 0.8], truth)
    assert_allclose(judged.suspicion, [0.9])
    judged = judge([[1, 2, 3]], [0.9], truth)  # 8 of the cow, 2 of the road, 6 not judged
    assert_allclose(judged.found_at[1], [0.9, 0.9, 0.9, 0.9])  # 8 of 10; boxes: 8 of 16


def test_small_objects_do_not_count():
    judged = judge([[1]], [1], least=(3, 3))
    assert judged.is_unknown.tolist() == [False]
    assert judged.finds.tolist() == [True]  # and yet what finds one is not held against it


def test_figures_are_worked_out_by_hand():
    judged = judge([[1], [2, 1], [3]], [0.9, 0.5, 0.7])
    everything = objects.figures(judged, pictures=2)
    assert everything["candidates"] == 1.5 and everything["false"] == 0.5
    assert everything["f1"] == pytest.approx(2 / 3)  # 1 found, none missed, 1 finds nothing
    assert [everything[f"known_{name}"] for name in objects.FOUND] == [1, 1, 0, 0]
    most = objects.figures(judged, 2, least=0.8)
    assert (most["candidates"], most["false"], most["f1"], most["mask_25"]) == (0.5, 0, 1, 1)
    assert most["known_any"] == 0
    nothing = objects.figures(judged, 2, least=1)
    assert (nothing["candidates"], nothing["f1"], nothing["any"]) == (0, 0, 0)
    no_object = judged.only(np.zeros(6, bool))
    assert objects.figures(no_object, 1)["f1"] is None


def test_box_ious_are_worked_out_by_hand():
    boxes = np.array([[0, 0, 2, 2], [5, 5, 6, 6]])
    assert_allclose(objects.box_ious(boxes, np.array([[1, 0, 3, 2]])), [[2 / 6], [0]])


@pytest.fixture
def pictures(tmp_path):
    """Two pictures whose cow is in two suspicious pieces, and a road that is not suspicious."""
    results = Results(tmp_path, "net", "streets_ood")
    path = results.embeddings((2, 2), "segmentation")
    selection = dict(iou_threshold=0.5, classes=None, min_height=2, min_width=2, join="border")
    for index in (0, 1):
        classes = (SEGMENTS - 1).astype(np.uint8)
        probabilities = np.eye(4, dtype=np.float32)[classes]
        prediction = Prediction(probabilities, classes, TRUTH, "a.png")
        store_image(results, index, prediction, same_ids(4), {"image": index})
        iou = np.float32([0.2, 0.1, 0.9, 0.8])
        facts = {"predicted_iou": iou, "suspicion": 1 - iou}
        facts |= {"is_large": np.ones(4, bool), "predicted_id": np.arange(4)}
        table = object_table(1).with_facts(segments=facts)
        made_from = provenance.of_vectors("", selection, {"net": "n", "crop_size": None})
        tables.write_objects(results.vectors(index, path), table, made_from)
    data = DatasetConfig("streets_ood", "src.datasets.streets", "Streets", {})
    card = replace(model_card(4), classes={ROAD: ("road", (0, 0, 0))})
    return Pictures(results, data, card), path


def judged_rows(pictures):
    (chosen, path), run = pictures, Runner(log=LOG, num_cores=1)
    return objects.eval_objects(run, chosen, path, (2, 2))[0]


def test_fragments_and_objects_stand_side_by_side(pictures, tmp_path):
    rows = judged_rows(pictures)
    first = {row["way"]: row for row in rows if row["chosen"] == "stage 4"}
    assert first.keys() == {"fragments", "border", "touching"}
    assert [first[way]["candidates"] for way in first] == [2, 1, 1]
    assert [first[way]["mask_50"] for way in first] == [1, 1, 1]
    assert [first[way]["f1_other_half"] for way in first] == [1, 1, 1]
    curve = [row for row in rows if (row["way"], row["chosen"]) == ("border", "curve")]
    values = [row["value"] for row in curve]
    assert values == sorted(values) and 0.1 < values[0] < values[-1] < 0.9 + 1e-6
    (middle,) = (row for row in curve if round(row["value"], 2) == 0.5)  # the cow is suspicious
    assert (middle["candidates"], middle["mask_50"], middle["f1"]) == (1, 1, 1)
    assert curve[0]["mask_50"] == 0  # all is one object
    assert curve[-1]["candidates"] == 0  # half of the cow is too small
    budget = [row for row in rows if (row["way"], row["chosen"]) == ("fragments", "budget")]
    assert [(row["value"], row["candidates"]) for row in budget] == [(0.5, 1), (1, 1), (2, 2)]
    objects.report(LOG, tmp_path / "objects", rows, "streets_ood")
    with (tmp_path / "objects.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert (tmp_path / "objects.png").stat().st_size


def test_without_the_files_of_pictures_nothing_is_claimed(pictures, tmp_path):
    chosen, path = pictures
    assert judged_rows((chosen, path.with_name("embeddings_9_9_segmentation.p"))) is None
