"""Which segments are joined to objects, on maps that can be worked out by eye."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from src.embedding import objects

BRIDGE = np.array(
    [
        [1, 1, 4, 4, 2, 2],
        [1, 1, 3, 2, 2, 2],
        [1, 1, 3, 3, 3, 2],
    ],
    np.int32,
)  # 3 shares 5 pairs of pixels with 1, and 8 with 2
CORNER = np.kron([[1, 3], [4, 2]], np.ones((3, 3), np.int32)).astype(np.int32)


def joined(components, suspicious, large, way):
    """Segment numbers of each object as lists, of segments by their numbers."""
    numbers = np.arange(1, components.max() + 1)
    chosen = np.isin(numbers, suspicious), np.isin(numbers, large)
    sizes, shared = np.bincount(components.ravel())[1:], objects.borders(components, len(numbers))
    found = objects.join(*chosen, sizes, shared, way)
    return [segments.tolist() for segments in found]


def test_borders_are_counted_in_pairs_of_pixels_also_at_corners():
    components = np.array([[1, -1, 2], [1, 1, -2], [3, 3, 3]], np.int32)
    assert_array_equal(objects.borders(components, 3).toarray(), [[0, 4, 5], [4, 0, 2], [5, 2, 0]])


def test_without_a_way_each_suspicious_segment_is_an_object():
    assert joined(BRIDGE, [1, 3], [1, 2], None) == [[1], [3]]


def test_all_that_touch_are_one_object_with_the_largest_segment_first():
    assert joined(BRIDGE, [1, 2, 3], [1, 2], "touching") == [[1, 2, 3]]  # 6, 6 and 4 pixels
    assert joined(BRIDGE, [1, 2], [1, 2], "touching") == [[1], [2]]
    assert joined(BRIDGE, [3, 4], [], "touching") == [[3, 4]]


def test_a_small_segment_follows_the_large_one_with_the_longest_border_and_joins_no_two():
    assert joined(BRIDGE, [1, 2, 3], [1, 2], "border") == [[1], [2, 3]]


def test_a_small_segment_does_not_follow_a_large_one_that_is_trusted():
    assert joined(BRIDGE, [1, 3], [1, 2], "border") == [[1, 3]]
    assert joined(BRIDGE, [3], [1, 2], "border") == [[3]]


def test_small_segments_without_a_large_one_join_where_they_touch():
    assert joined(BRIDGE, [3, 4], [1, 2], "border") == [[3, 4]]


def test_large_segments_join_only_where_they_share_an_eighth_of_the_shorter_border():
    # 1 and 2 share one pair of pixels of 15 each, 1 and 3 share 7 of them
    assert joined(CORNER, [1, 2], [1, 2, 3, 4], "border") == [[1], [2]]
    assert joined(CORNER, [1, 3], [1, 2, 3, 4], "border") == [[1, 3]]
    assert joined(CORNER, [1, 2], [1, 2, 3, 4], "touching") == [[1, 2]]


@pytest.mark.parametrize("way", [None, *objects.WAYS])
def test_where_nothing_is_suspicious_there_is_no_object(way):
    assert joined(BRIDGE, [], [1, 2], way) == []


def test_the_map_of_objects_keeps_the_boundaries_of_their_segments():
    components = np.array([[1, -1, -2, 2], [3, -3, -4, 4]], np.int32)
    labels = objects.label_map(components, [np.array([2, 1]), np.array([4])])
    assert_array_equal(labels, [[1, -1, -1, 1], [0, 0, -2, 2]])


def test_a_joined_object_needs_twice_as_many_pixels_as_the_least_box():
    boxes, sizes = np.array([[0, 0, 2, 4], [5, 5, 8, 8]]), np.array([7, 8])
    assert objects.are_large(boxes, sizes, 9, (2, 2), "border").tolist() == [False, True]
    assert objects.are_large(boxes, sizes, 9, (2, 2), None).tolist() == [True, True]
    assert objects.are_large(boxes, sizes, 9, (2, 1), "touching").tolist() == [True, True]
    assert objects.are_large(boxes, sizes, 9, (1, 3), None).tolist() == [False, True]
    assert objects.are_large(boxes, sizes, 9, (3, 1), "border").tolist() == [True, True]


def test_the_box_of_an_object_is_around_all_its_segments():
    boxes, found = np.array([[0, 3, 2, 4], [5, 5, 7, 7], [1, 1, 6, 2]]), [np.array([1, 3])]
    assert objects.boxes_of(boxes, found).tolist() == [[0, 1, 6, 4]]
    assert objects.boxes_of(boxes, []).shape == (0, 4)
    assert objects.sizes_of(np.array([2, 4, 5]), found).tolist() == [7]


def test_means_and_classes_count_pixels():
    sizes, found = np.array([6, 6, 4]), [np.array([1]), np.array([2, 3])]
    assert_array_equal(
        objects.mean_by_pixels([0.1, 0.5, 1], sizes, found), np.float32([0.1, (3 + 4) / 10])
    )
    assert_array_equal(objects.class_by_pixels(np.array([7, 7, 2]), sizes, found), [7, 7])
    assert_array_equal(
        objects.class_by_pixels(np.array([7, 2, 7]), np.array([1, 4, 3]), [np.array([1, 2, 3])]),
        [2],  # as many pixels of both: the lower
    )
