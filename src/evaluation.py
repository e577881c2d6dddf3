"""Figures of merit: NumPy in, numbers out."""

import numpy as np
from scipy.spatial.distance import cdist

BLOCK_ENTRIES = 2**22  # distances held at a time: 32 MiB


def retrieval_average_precision(embeddings, labels, queries, metric="euclid", annotated=None):
    """Average precision of nearest-neighbour retrieval, one query row at a time.

    For each query all other rows are sorted by distance. A row is relevant if it carries the
    query's label (and is annotated). AP = (1/R) * sum over the ranks r of relevant rows of
    (relevant rows among the first r) / r, with R relevant rows. The query itself is left out by
    its row, so its duplicates count. Rows without a label should not be passed at all.

    Parameters
    ----------
    embeddings : ndarray of shape (N, F), float
    labels : ndarray of shape (N,), int
    queries : sequence of int, length Q
        Rows in [0, N).
    metric : {"euclid", "cos"}
        cos = 1 - (a.b) / (|a| |b|), which is 1 where a or b is zero.
    annotated : ndarray of shape (N,), bool or 0/1, optional
        Rows with 0 stay in the list but are relevant to no query. None: all are annotated.

    Returns
    -------
    average_precision : ndarray of shape (Q,), float64
        In (0, 1]; NaN for a query without any relevant row.

    Raises
    ------
    ValueError
        Unknown metric, lengths that do not agree, or a query that is no row.
    """
    embeddings = np.asarray(embeddings, np.float64)
    labels = np.asarray(labels)
    queries = np.asarray(queries, np.int64)
    annotated = np.ones(len(labels), bool) if annotated is None else np.asarray(annotated) != 0
    if not len(embeddings) == len(labels) == len(annotated):
        raise ValueError(
            "`embeddings`, `labels` and `annotated` must have one entry a row, got "
            f"{len(embeddings)}, {len(labels)} and {len(annotated)}"
        )
    if ((queries < 0) | (queries >= len(labels))).any():
        raise ValueError(f"`queries` must be rows in [0, {len(labels)}), got {queries}")
    measure = _measure(embeddings, metric)
    block = max(1, BLOCK_ENTRIES // max(len(labels), 1))
    results = [
        _block_average_precision(measure, labels, annotated, queries[start : start + block])
        for start in range(0, len(queries), block)
    ]
    return np.concatenate(results) if results else np.zeros(0)


def _measure(embeddings, metric):
    """Function from query rows (B,) to their distances to all rows, (B, N)."""
    if metric == "euclid":
        return lambda rows: cdist(embeddings[rows], embeddings)
    if metric == "cos":
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        directions = embeddings / np.where(lengths > 0, lengths, 1)
        return lambda rows: 1 - directions[rows] @ directions.T
    raise ValueError(f"`metric` must be 'euclid' or 'cos', got {metric!r}")


def _block_average_precision(measure, labels, annotated, rows):
    distances = measure(rows)
    distances[np.arange(len(rows)), rows] = np.inf  # the query: last, and not relevant
    order = np.argsort(distances, axis=1, kind="stable")
    relevant = (labels[order] == labels[rows, None]) & annotated[order]
    relevant &= order != rows[:, None]
    hits = np.cumsum(relevant, axis=1)
    precision = hits / np.arange(1, len(labels) + 1)
    count = relevant.sum(axis=1)
    total = (precision * relevant).sum(axis=1)
    return np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)


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
    confusion : ndarray of shape (C, C), int
        See `confusion_matrix`; those of several images add up.

    Returns
    -------
    iou : ndarray of shape (C,), float64
        tp / (tp + fp + fn) in [0, 1]; NaN for a class that does not occur in the ground truth.
    """
    hits, true = confusion.diagonal(), confusion.sum(axis=1)
    union = true + confusion.sum(axis=0) - hits
    return np.where(true > 0, hits / np.maximum(union, 1), np.nan)
