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
    min_height, min_width : int
        Smallest size of a box in pixels. Where the image itself is smaller, the box spans all
        of it.

    Returns
    -------
    boxes : ndarray of shape (N, 4), int64
        Each contains the box it came from. An odd number of missing pixels adds the last one to
        the right or below.
    """
    left, upper, right, lower = np.asarray(boxes, np.int64).reshape(-1, 4).T
    height, width = image_size
    left, right = _grow(left, right, width, min_width)
    upper, lower = _grow(upper, lower, height, min_height)
    return np.stack([left, upper, right, lower], axis=1)


def _grow(start, stop, length, minimum):
    """Grow the intervals [start, stop) to `minimum` inside [0, length)."""
    size = np.maximum(stop - start, min(minimum, length))
    start = np.clip(start - (size - (stop - start)) // 2, 0, length - size)
    return start, start + size


def select_segments(
    *, predicted_iou, predicted_class, boxes, iou_threshold, classes, min_height, min_width
):
    """Choose the segments that are probably wrong, of a class of interest and large enough.

    Parameters
    ----------
    predicted_iou : ndarray of shape (S,), float
        In [0, 1]; kept below `iou_threshold`. NaN = unknown, not kept.
    predicted_class : ndarray of shape (S,), int
        Ids in the training set's `pred_mapping`; kept if among `classes`, a collection of ids or
        None for all.
    boxes : ndarray of shape (S, 4), int
        See `segment_boxes`; kept from `min_height` x `min_width` pixels on.

    Returns
    -------
    chosen : ndarray of shape (S,), bool
    left_out : dict of str to int
        How many of the others fell to which filter: their predicted IoU is unknown, or not below
        the threshold; of the rest, those of another class; of the rest, those that are too small.
    """
    predicted_iou = np.asarray(predicted_iou)
    suspicious = predicted_iou < iou_threshold
    wanted = np.ones_like(suspicious) if classes is None else np.isin(predicted_class, [*classes])
    large = are_large(boxes, min_height, min_width)
    left_out = {
        "unknown iou": np.isnan(predicted_iou),
        "high iou": predicted_iou >= iou_threshold,
        "other class": suspicious & ~wanted,
        "too small": suspicious & wanted & ~large,
    }
    chosen = suspicious & wanted & large
    return chosen, {reason: int(mask.sum()) for reason, mask in left_out.items()}


def are_large(boxes, min_height, min_width):
    """Whether boxes (S, 4), see `segment_boxes`, have `min_height` x `min_width` pixels: (S,)."""
    left, upper, right, lower = np.asarray(boxes).reshape(-1, 4).T
    return (lower - upper >= min_height) & (right - left >= min_width)


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
