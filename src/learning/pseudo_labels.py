"""Labels to learn from, made of tagged objects and of what a network is sure of."""

import numpy as np

from src.records import NO_LABEL

MARGIN = 0.2  # of predicted IoU, above that of an object's largest segment (arXiv 2201.01073)
INSIDE = 0.5  # share of a segment in the box of a tagged object from which it may be part of it


def pseudo_labels(components, classes, is_trusted, predicted_iou, learnt):
    """The labels of a picture.

    The segments of a tagged object have the class of its tag, but for those whose predicted IoU is
    more than `MARGIN` above that of its largest one; trusted segments keep their class. All else
    has no label, and so have trusted segments that lie for the most part in the box of a tagged
    object: they may be a piece of it.

    Parameters
    ----------
    components : ndarray of shape (H, W), int32
        Segment number from 1; negative on the segment's own boundary.
    classes : ndarray of shape (S,), int
        Predicted class of each segment.
    is_trusted : ndarray of shape (S,), bool
    predicted_iou : ndarray of shape (S,), float
        In [0, 1], NaN where it is not known.
    learnt : list of (ndarray of int64, int)
        Segment numbers of each tagged object, the largest segment first, and the id of its class.

    Returns
    -------
    labels : ndarray of shape (H, W), uint8
        Class ids; 255 = no label.
    """
    numbers = np.abs(components) - 1
    ids = np.where(is_trusted, classes, NO_LABEL).astype(np.uint8)
    sizes = np.bincount(numbers.ravel(), minlength=len(ids))
    for segments, _ in learnt:
        box = _box(np.isin(numbers, segments - 1))
        inside = np.bincount(numbers[box].ravel(), minlength=len(ids))
        ids[inside >= INSIDE * sizes] = NO_LABEL
    for segments, label in learnt:
        of_object = predicted_iou[segments - 1]
        belongs = ~(of_object > of_object[0] + MARGIN)
        ids[segments - 1] = np.where(belongs, label, NO_LABEL)
    return ids[numbers]


def _box(mask):
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
