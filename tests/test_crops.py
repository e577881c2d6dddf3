import json
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from src.embedding import crops
from src.embedding.suspects import Rule
from src.store.arrays import read_components, read_prediction
from src.store.paths import Results
from src.store.tables import read_embeddings

COMPONENTS = np.array(
    [
        [1, -1, -2, 2],
        [-1, -1, -2, -2],
        [-3, -3, -3, -3],
        [3, 3, 3, -3],
        [3, 3, -3, -4],
    ],
    np.int32,
)


def test_a_box_covers_its_segment_and_its_boundary():
    assert_array_equal(
        crops.segment_boxes(COMPONENTS), [[0, 0, 2, 2], [2, 0, 4, 2], [0, 2, 4, 5], [3, 4, 4, 5]]
    )


def test_no_segment_no_box():
    assert crops.segment_boxes(np.zeros((3, 4), np.int32)).shape == (0, 4)


def test_small_boxes_grow_around_their_centre():
    grown = crops.grow_boxes([[10, 10, 12, 14]], (40, 40), min_height=6, min_width=7)
    assert_array_equal(grown, [[8, 9, 15, 15]])  # 5 columns more: 2 left, 3 right


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 6, 6)),
        ((38, 1, 40, 3), (34, 0, 40, 6)),
        ((1, 27, 3, 29), (0, 24, 6, 30)),
        ((5, 5, 25, 25), (5, 5, 25, 25)),  # large enough
    ],
)
def test_grown_boxes_stay_inside_the_image(box, expected):
    assert_array_equal(crops.grow_boxes([box], (30, 40), 6, 6), [expected])


def test_an_image_below_the_minimum_gives_the_whole_image():
    assert_array_equal(crops.grow_boxes([[3, 3, 5, 4]], (8, 9), 20, 20), [[0, 0, 9, 8]])


def test_growing_nothing_gives_nothing():
    assert crops.grow_boxes(np.zeros((0, 4), np.int64), (8, 9), 20, 20).shape == (0, 4)


def test_random_boxes_grow_to_the_minimum_and_keep_what_they_held():
    rng = np.random.default_rng(0)
    upper_left = rng.integers(0, [50, 30], (300, 2))
    lower_right = upper_left + rng.integers(1, [60 - 50, 40 - 30], (300, 2))
    boxes = np.hstack([upper_left, lower_right])
    grown = crops.grow_boxes(boxes, (40, 60), 17, 12)
    assert (grown[:, :2] <= boxes[:, :2]).all() and (grown[:, 2:] >= boxes[:, 2:]).all()
    assert (grown[:, :2] >= 0).all() and (grown[:, 2:] <= [60, 40]).all()
    assert_array_equal(grown[:, 2] - grown[:, 0], np.maximum(12, boxes[:, 2] - boxes[:, 0]))
    assert_array_equal(grown[:, 3] - grown[:, 1], np.maximum(17, boxes[:, 3] - boxes[:, 1]))


def select(**changed):
    settings = {
        "suspicion": np.array([0.9, 0.5, 0.8, 0.7]),
        "is_suspicious": np.array([True, False, True, True]),
        "predicted_class": np.array([11, 11, 0, 13]),
        "is_large": np.array([True, True, True, False]),
        "classes": [11, 13],
    }
    return crops.select_segments(**{**settings, **changed})


def test_each_segment_is_chosen_or_falls_to_one_filter():
    chosen, left_out = select()
    assert_array_equal(chosen, [True, False, False, False])
    assert left_out == {
        "unknown suspicion": 0,
        "not suspicious": 1,
        "other class": 1,
        "too small": 1,
    }


def test_without_classes_every_class_is_wanted():
    assert_array_equal(select(classes=None)[0], [True, False, True, False])
    assert_array_equal(select(classes=set())[0], [False] * 4)


def test_an_unknown_suspicion_is_not_chosen():
    chosen, left_out = select(suspicion=np.array([np.nan, 0.5, 0.8, np.nan]), classes=None)
    assert_array_equal(chosen, [False, False, True, False])
    assert (left_out["unknown suspicion"], left_out["not suspicious"]) == (2, 1)


def test_the_label_is_the_most_frequent_one_inside():
    truth = np.array(
        [
            [8, 7, 5, 6],
            [7, 7, 5, 5],
            [9, 9, 9, 9],
            [4, 2, 4, 9],
            [2, 255, 9, 7],
        ],
        np.uint8,
    )
    # 1, 2: the boundary does not count; 3: 4 and 2 are equally frequent; 4: only a boundary
    assert_array_equal(crops.majority_label(COMPONENTS, truth, [4, 3, 2, 1]), [7, 2, 6, 8])


def test_no_label_can_be_the_most_frequent_one():
    truth = np.full(COMPONENTS.shape, 255, np.uint8)
    assert_array_equal(crops.majority_label(COMPONENTS, truth, [3]), [255])
    assert_array_equal(crops.majority_label(COMPONENTS, None, [3, 1]), [255, 255])


def test_the_labels_of_many_segments_take_little_memory():
    components = np.arange(1, 2**18 + 1, dtype=np.int32).reshape(512, 512)  # of a pixel each
    truth = (components % 300).astype(np.uint16)
    tracemalloc.start()
    labels = crops.majority_label(-components, truth, components.ravel())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_array_equal(labels, truth.ravel())
    assert peak < 256 * components.size  # bytes: 32 numbers a segment, not one a label


def test_no_chosen_segment_no_label():
    assert crops.majority_label(COMPONENTS, np.zeros((5, 4), np.uint8), []).shape == (0,)


# faults of the original; the one of a single image and those of folders: test_compute_embeddings


def reference_image(reference, index):
    """Component map of an image, and its rows in the recorded selection."""
    tree = reference / "caches" / "tree"
    results = Results(tree, "deeplabv3plus", "cityscapes_val")
    recorded = read_embeddings(tree / "embeddings_32_32_densenet201.p")
    of_image = recorded.take(recorded["image_index"] == index)
    return read_components(results.components(index)), of_image


def reference_truth(reference, index):
    """Ground truth (H, W) of an image."""
    results = Results(reference / "caches" / "tree", "deeplabv3plus", "cityscapes_val")
    return read_prediction(results.prediction(index), probabilities=False).ground_truth


def test_a_small_box_away_from_the_borders_grows_where_the_original_leaves_it(reference):
    components, recorded = reference_image(reference, 1)
    assert_array_equal(recorded["box"][1], [53, 0, 94, 44])  # 41 wide, 48 were asked for
    box = crops.segment_boxes(components)[recorded["component_index"][1] - 1]
    left, upper, right, lower = crops.grow_boxes([box], components.shape, 44, 48)[0]
    assert (right - left, lower - upper) == (48, 44)
    assert left <= 53 and right >= 94 and right < components.shape[1]


def test_the_last_row_and_column_and_the_boundary_are_in_the_box(reference):
    components, recorded = reference_image(reference, 0)
    number, box = recorded["component_index"][1], recorded["box"][1]
    rows, columns = np.nonzero(components == number)  # the original: inner pixels, last ones lost
    assert_array_equal(box, [columns.min(), rows.min(), columns.max(), rows.max()])
    rows, columns = np.nonzero(abs(components) == number)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert_array_equal(crops.segment_boxes(components)[number - 1], expected)


def test_a_segment_of_exactly_the_smallest_size_is_large_enough():
    components = np.zeros((9, 9), np.int32)
    components[2:5, 3:7] = -1  # 3 x 4 pixels
    boxes = crops.segment_boxes(components)
    assert crops.are_large(boxes, 9, 3, 4).all()
    assert not crops.are_large(boxes, 9, 4, 4).any()
    assert not crops.are_large(boxes, 9, 3, 5).any()


def test_a_share_is_one_of_the_pictures_height():
    boxes = [[0, 0, 32, 32], [0, 0, 31, 32]]
    assert_array_equal(crops.are_large(boxes, 1024, 1 / 32, 1 / 32), [True, False])
    assert_array_equal(crops.grow_boxes([[0, 0, 2, 2]], (80, 60), 1 / 8, 0.5), [[0, 0, 40, 10]])
    assert crops.in_pixels(0.001, 100) == 1 and crops.in_pixels(128, 100) == 128


def test_the_smaller_of_two_equally_frequent_labels_is_taken():
    truth = np.array([[7, 3, 3, 7]], np.uint8)  # the original takes what its sort puts last
    assert_array_equal(crops.majority_label(np.ones((1, 4), np.int32), truth, [1]), [3])


def first_box(pixels, min_crop, *, last=0, grows_inside=False):
    """Crop of a segment (H, W) by the recorded rule, or with two of its faults mended."""
    sides = []
    for axis in (0, 1):
        at = np.flatnonzero(pixels.any(axis=axis))
        start, stop, length, least = (
            at[0],
            at[-1] + last,
            pixels.shape[1 - axis],
            min_crop[1 - axis],
        )
        lacking = max(0, least - (stop - start))
        if lacking and start - lacking // 2 < 0:
            start, stop = 0, least
        elif lacking and stop + lacking // 2 > length:
            start, stop = length - least, length
        elif grows_inside:
            start, stop = start - lacking // 2, stop + lacking - lacking // 2
        sides.append((start, stop))
    (left, right), (upper, lower) = sides
    return [left, upper, right, lower]


def test_the_recorded_selection_differs_only_by_the_stated_faults(reference):
    folder = reference / "caches"
    recorded = json.loads((folder / "expected_selection.json").read_text())
    known = np.load(folder / "expected_features_and_iou.npz")
    min_size = recorded["min_height"], recorded["min_width"]
    min_crop = recorded["min_crop_height"], recorded["min_crop_width"]
    numbers, labels, first_boxes = [], [], []
    mended = {"boundary": [], "last": [], "middle": []}
    for image in recorded["image_index"]:
        components, _ = reference_image(reference, image)
        truth = reference_truth(reference, image)
        rows = slice(*known["start"][image : image + 2])
        boxes = crops.segment_boxes(components)
        predicted_iou, height = known["iou_pred"][rows], len(components)
        classes = recorded["pred_class_selection"]
        rule = Rule("predicted_iou", recorded["iou_threshold"], None, classes, min_size)
        chosen, _ = crops.select_segments(
            suspicion=1 - predicted_iou,
            is_suspicious=rule.is_suspicious(1 - predicted_iou, predicted_iou),
            predicted_class=known["segment_class"][rows],
            is_large=crops.are_large(boxes, height, *min_size),
            classes=classes,
        )
        # the recorded size rule: inner pixels, largest minus smallest; a zero box has none
        is_large = crops.are_large(first_extents(components, len(boxes)), height, *min_size)
        ours = np.flatnonzero(chosen) + 1
        theirs = ours[is_large[ours - 1]]
        numbers += theirs.tolist()
        labels += crops.majority_label(components, truth, theirs).tolist()
        grown = crops.grow_boxes(boxes, components.shape, *min_crop)
        for number in theirs.tolist():
            inner, whole = components == number, abs(components) == number
            first_boxes.append(first_box(inner, min_crop))
            assert_array_equal(
                grown[number - 1], first_box(whole, min_crop, last=1, grows_inside=True)
            )
            mended["boundary"].append(first_box(whole, min_crop))
            mended["last"].append(first_box(inner, min_crop, last=1))
            mended["middle"].append(first_box(inner, min_crop, grows_inside=True))
    assert numbers == recorded["component_index"]
    assert labels == recorded["gt"]
    assert_array_equal(first_boxes, recorded["boxes_left_upper_right_lower"])
    assert all(boxes != first_boxes for boxes in mended.values())  # each fault shows


def first_extents(components, count):
    """Box (S, 4) of each segment by the recorded rule, before it grows; zeros without one."""
    boxes = crops.segment_boxes(np.maximum(components, 0))
    boxes = np.vstack([boxes, np.zeros((count - len(boxes), 4), np.int64)])
    return boxes - [0, 0, 1, 1]
