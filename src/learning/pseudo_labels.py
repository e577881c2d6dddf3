"""Labels to learn from, made of tagged objects and of what a network is sure of."""

import numpy as np

from src.records import NO_LABEL

MARGIN = 0.2  # of predicted IoU, above that of an object's largest segment (arXiv 2201.01073)
INSIDE = 0.5  # share of a segment in the box of a new object from which it may be part of it


def pseudo_labels(components, classes, is_trusted, predicted_iou, learnt):
    """The labels of a picture with tagged objects.

    The segments of such an object have the class of its tag, but for those whose predicted IoU is
    more than `MARGIN` above that of its largest one; what is around them is as `labels_around` has
    it.

    Parameters
    ----------
    components, classes, is_trusted
        See `labels_around`.
    predicted_iou : ndarray of shape (S,), float
        In [0, 1], NaN where it is not known.
    learnt : list of (ndarray of int64, int)
        Segment numbers of each tagged object, the largest segment first, and the id of its class.

    Returns
    -------
    labels : ndarray of shape (H, W), uint8
        Class ids; 255 = no label.
    """
    numbers, is_trusted, masks = np.abs(components), is_trusted.copy(), []
    for segments, label in learnt:
        of_object = predicted_iou[segments - 1]
        is_trusted[segments - 1] = False
        belongs = ~(of_object > of_object[0] + MARGIN)  # unknown ones do
        masks.append((np.isin(numbers, segments[belongs]), label))
    return labels_around(components, classes, is_trusted, masks)


def labels_around(components, classes, is_trusted, masks):
    """The labels of a picture whose new objects are known by their pixels.

    Trusted segments keep their class, but for those that lie for the most part in the box of a new
    object: they may be a piece of it. All else has no label.

    Parameters
    ----------
    components : ndarray of shape (H, W), int32
        Segment number from 1; negative on the segment's own boundary.
    classes : ndarray of shape (S,), int
        Predicted class of each segment.
    is_trusted : ndarray of shape (S,), bool
    masks : list of (ndarray of shape (H, W), bool, and int)
        Pixels of each new object, any number of them, and the id of its class.

    Returns
    -------
    labels : ndarray of shape (H, W), uint8
        Class ids; 255 = no label.
    """
    numbers = np.abs(components) - 1
    ids = np.where(is_trusted, classes, NO_LABEL).astype(np.uint8)
    sizes = np.bincount(numbers.ravel(), minlength=len(ids))
    for mask, _ in masks:
        inside = np.bincount(numbers[_box(mask)].ravel(), minlength=len(ids))
        ids[inside >= INSIDE * sizes] = NO_LABEL
    labels = ids[numbers]
    for mask, label in masks:
        labels[mask] = label
    return labels


def _box(mask):
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else np.s_[:0]
