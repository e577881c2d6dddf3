"""How well predicted classes agree with true ones."""

import numpy as np


def confusion_matrix(prediction, ground_truth, classes):
    """Count the pixels of each pair of true and predicted class.

    Parameters
    ----------
    prediction, ground_truth : ndarray of shape (H, W), int
        Class ids; pixels whose true id is `classes` or more, 255 among them, are left out.
    classes : int
        Number of classes C.

    Returns
    -------
    confusion : ndarray of shape (C, C), int64
        Row = true class, column = predicted class.
    """
    counted = ground_truth < classes
    pairs = ground_truth[counted].astype(np.int64) * classes + prediction[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_iou(confusion):
    """Intersection over union of each class.

    Parameters
    ----------
    confusion : ndarray of shape (..., C, C), int
        See `confusion_matrix`; those of several images add up.

    Returns
    -------
    iou : ndarray of shape (..., C), float64
        tp / (tp + fp + fn) in [0, 1]; NaN for a class that does not occur in the ground truth.
    """
    hits, true = confusion.diagonal(axis1=-2, axis2=-1), confusion.sum(axis=-1)
    union = true + confusion.sum(axis=-2) - hits
    return np.where(true > 0, hits / np.maximum(union, 1), np.nan)


def mean_iou(iou):
    """Mean of IoUs (..., C) over the classes that are not NaN: (...), float64; NaN without any."""
    occurring = np.isfinite(iou).sum(axis=-1)
    return np.where(occurring > 0, np.nansum(iou, axis=-1) / np.maximum(occurring, 1), np.nan)


def confusion_by_iou(prediction, ground_truth, values, thresholds, classes):
    """Count the pixels of each pair of classes by how trustworthy their segment is said to be.

    Parameters
    ----------
    prediction, ground_truth, classes
        As for `confusion_matrix`; a predicted id of `classes` or more is left out, too.
    values : ndarray of shape (H, W), float
        Predicted IoU of each pixel's segment. Compared as float32.
    thresholds : ndarray of shape (T,), float
        Ascending.

    Returns
    -------
    below : ndarray of shape (T + 1, C, C), int64
        Row = true class, column = predicted class. Entry t counts the pixels whose value is below
        threshold t, the last one all; those of several images add up, and the last less entry t
        are the pixels at or above the threshold.
    """
    counted = (ground_truth < classes) & (prediction < classes)
    edges = np.asarray(thresholds, np.float32)
    step = np.searchsorted(edges, np.asarray(values, np.float32)[counted], side="right")
    pairs = (step * classes + ground_truth[counted]) * classes + prediction[counted]
    counts = np.bincount(pairs, minlength=(len(edges) + 1) * classes**2)
    return counts.reshape(-1, classes, classes).cumsum(axis=0)
