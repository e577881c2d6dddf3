"""Which label each pixel gets of tagged objects and of what is trusted."""

import numpy as np
from numpy.testing import assert_array_equal

from src.learning.pseudo_labels import labels_around, pseudo_labels, to_edges

# sky 1 above road 2; an object of the segments 3 and 4, with 5 inside its box; 6 far away
COMPONENTS = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [2, 3, 3, 4, 2, 2, 2, 6],
        [2, 3, 3, 5, 2, 2, 2, 6],
        [2, 2, 2, 2, 2, 2, 2, 2],
    ],
    np.int32,
)
CLASSES = np.array([7, 0, 1, 2, 3, 4])
TRUSTED = np.array([True, True, False, False, True, False])
NEW, NO = 19, 255
COLOURS = [(0, 0, 0), (90, 90, 250), (90, 90, 90), (200, 30, 30), (220, 60, 30), (90, 90, 90)]
PICTURE = np.array([*COLOURS, (10, 90, 10)], np.uint8)[COMPONENTS]


def labels_with(iou_of_4):
    iou = np.array([0.9, 0.9, 0.1, iou_of_4, 0.9, 0.2])
    return pseudo_labels(COMPONENTS, CLASSES, TRUSTED, iou, [(np.array([3, 4]), NEW)], PICTURE)


def test_objects_are_new_what_is_trusted_keeps_its_class_all_else_has_no_label():
    expected = [
        [7, 7, 7, 7, 7, 7, 7, 7],
        [0, NEW, NEW, NEW, 0, 0, 0, NO],  # 6 is suspicious, and nobody's
        [0, NEW, NEW, NO, 0, 0, 0, NO],  # 5 is trusted, but may be a piece of the object
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert_array_equal(labels_with(0.25), expected)


def test_a_piece_of_a_much_higher_predicted_iou_has_no_label():
    assert labels_with(0.3)[1, 3] == NEW  # 0.1 + 0.2 at most
    assert labels_with(0.31)[1, 3] == NO


def test_where_no_iou_is_known_all_pieces_are_of_the_object():
    unknown = np.full(6, np.nan)
    learnt = [(np.array([3, 4]), NEW)]
    labels = pseudo_labels(COMPONENTS, CLASSES, TRUSTED, unknown, learnt, PICTURE)
    assert_array_equal(labels, labels_with(0.25))


def test_signs_of_boundaries_make_no_difference():
    learnt, iou = [(np.array([3, 4]), NEW)], np.full(6, 0.1)
    labels = pseudo_labels(-COMPONENTS, CLASSES, TRUSTED, iou, learnt, PICTURE)
    assert_array_equal(labels, labels_with(0.1))


def test_a_drawn_object_covers_parts_of_segments():
    mask = np.zeros((4, 8), bool)
    mask[3, :2] = True
    labels = labels_around(COMPONENTS, CLASSES, TRUSTED, [(mask, NEW)])
    assert_array_equal(labels[3], [NEW, NEW, 0, 0, 0, 0, 0, 0])
    nothing = labels_around(COMPONENTS, CLASSES, TRUSTED, [(mask & False, NEW)])
    assert_array_equal(nothing[3], [0] * 8)
    assert nothing[2, 3] == 3


def test_an_object_ends_where_the_colours_of_the_picture_change():
    rows, columns = np.mgrid[:40, :60]
    disc = (rows - 20) ** 2 + (columns - 30) ** 2 < 100
    noise = np.random.default_rng(0).integers(0, 20, (40, 60, 1))
    picture = (np.where(disc[..., None], (200, 30, 30), (90, 90, 90)) + noise).astype(np.uint8)
    picture[2:5, 50:55] = 200, 30, 30  # something else of its colour
    rough = (rows > 14) & (rows < 34) & (columns > 26) & (columns < 42)  # half of it, and ground
    assert 0.3 < (rough & disc).sum() / (rough | disc).sum() < 0.5
    assert_array_equal(to_edges(picture, rough), disc)


def test_a_mask_of_which_edges_would_leave_hardly_anything_stays():
    picture = np.full((40, 60, 3), 90, np.uint8)
    picture[10:14, 10:14] = 250
    mask = np.zeros((40, 60), bool)
    mask[10:30, 10:30] = True
    assert_array_equal(to_edges(picture, mask), mask)
    for all_or_none in (mask | True, mask & False):
        assert_array_equal(to_edges(picture, all_or_none), all_or_none)
