"""Which label each pixel gets of tagged objects and of what is trusted."""

import numpy as np
from numpy.testing import assert_array_equal

from src.learning.pseudo_labels import labels_around, pseudo_labels

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


def labels_with(iou_of_4):
    iou = np.array([0.9, 0.9, 0.1, iou_of_4, 0.9, 0.2])
    return pseudo_labels(COMPONENTS, CLASSES, TRUSTED, iou, [(np.array([3, 4]), NEW)])


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
    labels = pseudo_labels(COMPONENTS, CLASSES, TRUSTED, unknown, learnt)
    assert_array_equal(labels, labels_with(0.25))


def test_signs_of_boundaries_make_no_difference():
    learnt, iou = [(np.array([3, 4]), NEW)], np.full(6, 0.1)
    labels = pseudo_labels(-COMPONENTS, CLASSES, TRUSTED, iou, learnt)
    assert_array_equal(labels, labels_with(0.1))


def test_a_drawn_object_covers_parts_of_segments():
    mask = np.zeros((4, 8), bool)
    mask[3, :2] = True
    labels = labels_around(COMPONENTS, CLASSES, TRUSTED, [(mask, NEW)])
    assert_array_equal(labels[3], [NEW, NEW, 0, 0, 0, 0, 0, 0])
    nothing = labels_around(COMPONENTS, CLASSES, TRUSTED, [(mask & False, NEW)])
    assert_array_equal(nothing[3], [0] * 8)
    assert nothing[2, 3] == 3
