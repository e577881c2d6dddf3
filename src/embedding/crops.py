"""Which segments of an image to cut out, and which box around each; pure geometry."""

import numpy as np
from scipy import ndimage

from src.records import NO_LABEL


def segment_boxes(components):
    """Smallest box around each segment, its boundary included.

    Parameters
    ----------
    components : ndarray of shape (H, W), int32
        Segment number from 1; negative on the segment's own boundary.

    Returns
    -------
    boxes : ndarray of shape (S, 4), int64
        Left, upper, right, lower in pixels; right and lower exclusive. Row k - 1 is segment k;
        zeros for a number that does not occur.
    """
    boxes = [
        (0, 0, 0, 0)
        if found is None
        else (found[1].start, found[0].start, found[1].stop, found[0].stop)
        for found in ndimage.find_objects(np.abs(components))
    ]
    return np.array(boxes, np.int64).reshape(-1, 4)


def grow_boxes(boxes, image_size, min_height, min_width):
    """Grow small boxes around their centre and shift them back inside the image.

    Parameters
    ----------
    boxes : ndarray of shape (N, 4), int64
        Left, upper, right, lower in pixels, inside the image; right and lower exclusive.
    image_size : (int, int)
        Height and width of the image in pixels.
    min_height, min_width : int or float
        Smallest size of a box, see `in_pixels`. Where the image itself is smaller, the box spans
        all of it.

    Returns
    -------
    boxes : ndarray of shape (N, 4), int64
        Each contains the box it came from. An odd number of missing pixels adds the last one to
        the right or below.
    """
    left, upper, right, lower = np.asarray(boxes, np.int64).reshape(-1, 4).T
    height, width = image_size
    left, right = _grow(left, right, width, in_pixels(min_width, height))
    upper, lower = _grow(upper, lower, height, in_pixels(min_height, height))
    return np.stack([left, upper, right, lower], axis=1)


def _grow(start, stop, length, minimum):
    """Grow the intervals [start, stop) to `minimum` inside [0, length)."""
    size = np.maximum(stop - start, min(minimum, length))
    start = np.clip(start - (size - (stop - start)) // 2, 0, length - size)
    return start, start + size


def select_segments(*, suspicion, is_suspicious, predicted_class, is_large, classes):
    """Choose the segments that are suspicious, of a class of interest and large enough.

    Parameters
    ----------
    suspicion : ndarray of shape (S,), float
        NaN = unknown, not kept.
    is_suspicious : ndarray of shape (S,), bool
        Whether it is enough.
    predicted_class : ndarray of shape (S,), int
        Ids of the network's classes; kept if among `classes`, a collection of ids or None for all.
    is_large : ndarray of shape (S,), bool
        See `are_large`.

    Returns
    -------
    chosen : ndarray of shape (S,), bool
    left_out : dict of str to int
        How many of the others fell to which filter: their suspicion is unknown, or too low; of the
        rest, those of another class; of the rest, those that are too small.
    """
    is_unknown = np.isnan(suspicion)
    suspicious = is_suspicious & ~is_unknown
    wanted = np.ones_like(suspicious) if classes is None else np.isin(predicted_class, [*classes])
    left_out = {
        "unknown suspicion": is_unknown,
        "not suspicious": ~suspicious & ~is_unknown,
        "other class": suspicious & ~wanted,
        "too small": suspicious & wanted & ~is_large,
    }
    chosen = suspicious & wanted & is_large
    return chosen, {reason: int(mask.sum()) for reason, mask in left_out.items()}


def are_large(boxes, image_height, min_height, min_width):
    """Whether boxes (S, 4), see `segment_boxes`, reach a least size, see `in_pixels`: (S,) bool."""
    left, upper, right, lower = np.asarray(boxes).reshape(-1, 4).T
    is_high = lower - upper >= in_pixels(min_height, image_height)
    return is_high & (right - left >= in_pixels(min_width, image_height))


def in_pixels(length, image_height):
    """A length in pixels: a whole number as it is, a share (float, below 1) of a picture's height.

    At least 1.
    """
    return length if isinstance(length, int) else max(1, round(length * image_height))


def majority_label(components, ground_truth, chosen):
    """Most frequent true id of each chosen segment.

    Parameters
    ----------
    components : ndarray of shape (H, W), int32
        Segment number from 1; negative on the segment's own boundary.
    ground_truth : ndarray of shape (H, W), uint8 or uint16, or None
        True ids; 255 = no label, an id like any other here. None: unknown.
    chosen : array-like of shape (N,), int
        Different segment numbers.

    Returns
    -------
    labels : ndarray of shape (N,), int64
        Counted over the inner pixels, over all pixels where there are none inside. The smallest
        of equally frequent ids; 255 where the truth is unknown.
    """
    chosen = np.asarray(chosen, np.int64)
    labels = np.full(chosen.shape, NO_LABEL, np.int64)
    if ground_truth is None or not chosen.size:
        return labels
    number = np.abs(components)
    row_of = np.full(max(number.max(), chosen.max()) + 1, -1)
    row_of[chosen] = np.arange(len(chosen))
    pixels = row_of[number] >= 0
    rows, ids = row_of[number[pixels]], ground_truth[pixels].astype(np.int64)
    inner = components[pixels] > 0
    for counted in (np.ones_like(inner), inner):  # the later one wins, where it counts any
        found, most_frequent = _most_frequent(rows[counted], ids[counted])
        labels[found] = most_frequent
    return labels


def _most_frequent(rows, ids):
    """Each row that occurs, ascending, and its most frequent id, the smallest of equal ones."""
    base = 2**16  # above every id
    pairs, counts = np.unique(rows * base + ids, return_counts=True)
    rows, ids = np.divmod(pairs, base)
    order = np.lexsort((ids, -counts, rows))
    rows, first = np.unique(rows[order], return_index=True)
    return rows, ids[order][first]
