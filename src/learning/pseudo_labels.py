"""Labels to learn from, made of tagged objects and of what a network is sure of."""

import cv2
import numpy as np
from scipy.ndimage import label

from src.records import NO_LABEL

MARGIN = 0.2  # of predicted IoU, above that of an object's largest segment (arXiv 2201.01073)
AROUND = 0.5  # share of an object's height and width, within which it may go on around its mask
LEAST_AROUND_PX = 8
ITERATIONS = 5  # of GrabCut
KEPT = 0.25  # share of a mask below which what GrabCut leaves of it is not believed
INSIDE = 0.5  # share of a segment in the box of a new object from which it may be part of it


def pseudo_labels(components, classes, is_trusted, predicted_iou, learnt, image):
    """The labels of a picture with tagged objects.

    An object is its segments, but for those whose predicted IoU is more than `MARGIN` above that of
    its largest one (arXiv 2201.01073), as far as the edges `to_edges` finds; what is around it is
    as `labels_around` has it.

    Parameters
    ----------
    components, classes, is_trusted
        See `labels_around`.
    predicted_iou : ndarray of shape (S,), float
        In [0, 1], NaN where it is not known.
    learnt : list of (ndarray of int64, int)
        Segment numbers of each tagged object, the largest segment first, and the id of its class.
    image : ndarray of shape (H, W, 3), uint8

    Returns
    -------
    labels : ndarray of shape (H, W), uint8
        Class ids; 255 = no label.
    """
    numbers, is_trusted, masks = np.abs(components), is_trusted.copy(), []
    for segments, key in learnt:
        of_object = predicted_iou[segments - 1]
        is_trusted[segments - 1] = False
        belongs = ~(of_object > of_object[0] + MARGIN)  # unknown ones do
        mask = np.isin(numbers, segments[belongs])
        masks.append((to_edges(image, mask), key))
    return labels_around(components, classes, is_trusted, masks)


def to_edges(image, mask):
    """The mask of an object, moved to where the colours of the picture change.

    By GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004): segments end where a network changes
    its mind, which is seldom where an unknown object ends.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
    mask : ndarray of shape (H, W), bool

    Returns
    -------
    mask : ndarray of shape (H, W), bool
        Only what is connected with some of the one given, or that where hardly any would be left.
    """
    box = _box(mask)
    around = tuple(_wider(span, length) for span, length in zip(box, mask.shape, strict=True))
    rough = mask[around]
    states = np.where(rough, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    if rough.all() or not rough.any():
        return mask
    frame = np.ones_like(rough)
    frame[1:-1, 1:-1] = False
    states[frame & ~rough] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    models = np.zeros((2, 1, 65))  # of the colours outside and inside
    colours = np.ascontiguousarray(image[around])
    cv2.grabCut(colours, states, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = np.zeros_like(mask)
    found[around] = (states == cv2.GC_FGD) | (states == cv2.GC_PR_FGD)
    if (found & mask).sum() < KEPT * mask.sum():
        return mask
    parts, _ = label(found)
    return np.isin(parts, np.unique(parts[found & mask]))


def _wider(span, length):
    by = max(LEAST_AROUND_PX, round(AROUND * (span.stop - span.start)))
    return slice(max(0, span.start - by), min(length, span.stop + by))


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
    for mask, key in masks:
        labels[mask] = key
    return labels


def _box(mask):
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.s_[0:0, 0:0]
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
