"""Which suspicious segments belong together, and so are one object; pure geometry."""

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from src.embedding import crops

LEAST_SHARE = 1 / 8  # of the border of the large segment with the shorter one
LEAST_PIXELS = 2  # times those of the least box, of what is joined: it is ragged where it is small


def join(is_suspicious, is_large, sizes, shared, way):
    """Join the suspicious ones of the S segments of a picture to objects.

    Parameters
    ----------
    is_suspicious, is_large : ndarray of shape (S,), bool
        Which segments to join; which reach the least size, see `crops.are_large`.
    sizes : ndarray of shape (S,), int
        In pixels.
    shared : sparse array of shape (S, S)
        See `borders`; None will do where `way` is None.
    way : str or None
        One of `WAYS`; None: each segment is an object.

    Returns
    -------
    objects : list of ndarray of int64
        Segment numbers, from 1, of each object, the largest segment first (the lower of equal
        ones). Objects are in the order of the numbers of their largest segments.
    """
    rows = np.flatnonzero(is_suspicious)
    if way is None or not len(rows):
        return [np.array([row + 1]) for row in rows]
    groups = WAYS[way](shared, is_suspicious, is_large)
    rows = rows[np.lexsort((rows, -sizes[rows], groups[rows]))]
    objects = np.split(rows + 1, np.flatnonzero(np.diff(groups[rows])) + 1)
    return sorted(objects, key=lambda segments: segments[0])


def find(is_suspicious, is_large, sizes, boxes, shared, image_height, least, way):
    """The objects of a picture: those that `join` makes and that are large, see `are_large`.

    `boxes` (S, 4) are those of the segments, see `crops.segment_boxes`.
    """
    objects = join(is_suspicious, is_large, sizes, shared, way)
    of_objects = boxes_of(boxes, objects), sizes_of(sizes, objects)
    large = are_large(*of_objects, image_height, least, way)
    return [segments for segments, is_kept in zip(objects, large, strict=True) if is_kept]


def borders(components, count):
    """How many pairs of neighbouring pixels, also at corners, any two segments share.

    Parameters
    ----------
    components : ndarray of shape (H, W), int32
        Segment number from 1; negative on the segment's own boundary.
    count : int
        S, the number of segments.

    Returns
    -------
    shared : symmetric sparse array of shape (S, S), int64
    """
    numbers = np.abs(components) - 1
    sides = (
        (numbers[1:], numbers[:-1]),
        (numbers[:, 1:], numbers[:, :-1]),
        (numbers[1:, 1:], numbers[:-1, :-1]),
        (numbers[1:, :-1], numbers[:-1, 1:]),
    )
    pairs = np.concatenate([np.stack([a[a != b], b[a != b]]) for a, b in sides], axis=1)
    pairs = np.concatenate([pairs, pairs[::-1]], axis=1)
    ones = np.ones(pairs.shape[1], np.int64)
    return sparse.coo_array((ones, tuple(pairs)), (count, count)).tocsr()


def _touching(shared, is_suspicious, _is_large):
    """All that touch."""
    return _connected(shared, is_suspicious)


def _by_border(shared, is_suspicious, is_large):
    """Large ones that share enough of their border; small ones follow a large one, or each other.

    A small segment goes to the large suspicious one that it shares the most border with, so that
    a chain of fragments does not join two objects.
    """
    length = shared.sum(axis=1)
    pairs = shared.tocoo()
    enough = pairs.data >= LEAST_SHARE * np.minimum(length[pairs.row], length[pairs.col])
    places = pairs.row[enough], pairs.col[enough]
    enough = sparse.coo_array((pairs.data[enough], places), shared.shape).tocsr()
    large, small = is_suspicious & is_large, is_suspicious & ~is_large
    groups = _connected(enough, large)
    with_large = shared * large  # columns of others are 0
    follows = small & (with_large.max(axis=1).toarray() > 0)
    groups[follows] = groups[with_large.argmax(axis=1)[follows]]
    alone = small & ~follows
    groups[alone] = _connected(shared, alone)[alone] + len(groups)
    return groups


def _connected(shared, chosen):
    """Number of the group of each chosen segment, any number of others: (S,) int64."""
    groups = np.zeros(len(chosen), np.int64)
    groups[chosen] = connected_components(shared[chosen][:, chosen], directed=False)[1]
    return groups


WAYS = {"border": _by_border, "touching": _touching}


def label_map(components, objects):
    """The map of a picture's objects, made from that of its segments.

    Parameters
    ----------
    components : ndarray of shape (H, W), int32
        See `borders`.
    objects : sequence of n ndarray of int64
        Segment numbers of each.

    Returns
    -------
    labels : ndarray of shape (H, W), int32
        +k inside the segments of the object k, from 1 on, -k on their boundaries, 0 elsewhere.
    """
    numbers = np.abs(components)
    object_of = np.zeros(numbers.max(initial=0) + 1, np.int32)
    for number, segments in enumerate(objects, 1):
        object_of[segments] = number
    return np.sign(components) * object_of[numbers]


def boxes_of(boxes, objects):
    """Smallest box around each object (n, 4), of those of segments (S, 4), `segment_boxes`."""
    of_segments = [boxes[segments - 1] for segments in objects]
    found = [[*of.min(axis=0)[:2], *of.max(axis=0)[2:]] for of in of_segments]
    return np.array(found, np.int64).reshape(-1, 4)


def are_large(boxes, sizes, image_height, least, way):
    """Whether objects with such boxes (n, 4) and sizes in pixels (n,) are large enough: (n,) bool.

    The box must reach the `least` height and width, see `crops.in_pixels`; where segments were
    joined in a `way`, the object must also have twice as many pixels as a box of that size.
    """
    large = crops.are_large(boxes, image_height, *least)
    if way is not None:
        height, width = (crops.in_pixels(length, image_height) for length in least)
        large &= sizes >= LEAST_PIXELS * height * width
    return large


def sizes_of(sizes, objects):
    """Pixels of each object (n,), int64, of those of segments (S,)."""
    return np.array([sizes[segments - 1].sum() for segments in objects], np.int64)


def mean_by_pixels(values, sizes, objects):
    """Mean of what is known of segments, (S,) with `sizes` in pixels, over each object: float32."""
    means = [
        np.average(np.asarray(values, np.float64)[segments - 1], weights=sizes[segments - 1])
        for segments in objects
    ]
    return np.array(means, np.float32)


def class_by_pixels(classes, sizes, objects):
    """The class (S,) that most pixels of each object have, the lower of equal ones: int64."""
    found = [
        np.bincount(classes[segments - 1], weights=sizes[segments - 1]).argmax()
        for segments in objects
    ]
    return np.array(found, np.int64)
