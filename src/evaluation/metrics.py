"""Figures of merit: NumPy in, numbers out."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage, sparse
from scipy.spatial.distance import cdist

from src.records import NO_LABEL, Retrieval

BLOCK_ENTRIES = 2**21  # distances held at a time by each thread: 16 MiB
EXACT_PIXELS = 2**23  # up to so many scores are told apart exactly
QUANTILES = 2**16  # of the scores of each kind of pixels so far, by which later ones are counted
MAX_THREADS = 8  # each holds some blocks
COMPONENT_IOU_THRESHOLDS = np.linspace(0.25, 0.75, 11)


def retrieval_average_precision(embeddings, labels, queries, metric="euclid", annotated=None):
    """Average precision of nearest-neighbour retrieval, one query row at a time.

    The `average_precision` of `retrieval`, which see.

    Returns
    -------
    average_precision : ndarray of shape (Q,), float64
        In (0, 1]; NaN for a query without any relevant row.
    """
    return retrieval(embeddings, labels, queries, metric, annotated).average_precision


def retrieval(embeddings, labels, queries, metric="euclid", annotated=None, counts=()):
    """How well the nearest neighbours of each query carry its label.

    For each query all other rows are sorted by distance; of equally near rows the lower comes
    first. A row is relevant if it carries the query's label (and is annotated). With R relevant
    rows, AP = (1/R) * sum over the ranks r of relevant rows of (relevant among the first r) / r;
    precision at k = (relevant among the first k) / k, recall at k the same over R. The query
    itself is left out by its row, so its duplicates count. Rows without a label should not be
    passed at all.

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
    counts : sequence of int, length K
        The k of precision and recall at k, each at least 1.

    Returns
    -------
    retrieval : Retrieval

    Raises
    ------
    ValueError
        Unknown metric, embeddings that are not finite, lengths that do not agree, a query that is
        no row, or a k below 1.
    """
    embeddings = np.asarray(embeddings, np.float64)
    labels = np.asarray(labels)
    queries = np.asarray(queries)
    if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
        raise ValueError(f"`embeddings` must be finite and (N, F), got {embeddings.shape}")
    if queries.size and queries.dtype.kind not in "iu":
        raise ValueError(f"`queries` must be whole numbers, got {queries.dtype}")
    queries = queries.astype(np.int64)
    annotated = np.ones(len(labels), bool) if annotated is None else np.asarray(annotated) != 0
    if not len(embeddings) == len(labels) == len(annotated):
        raise ValueError(
            "`embeddings`, `labels` and `annotated` must have one entry a row, got "
            f"{len(embeddings)}, {len(labels)} and {len(annotated)}"
        )
    if ((queries < 0) | (queries >= len(labels))).any():
        raise ValueError(f"`queries` must be rows in [0, {len(labels)}), got {queries}")
    if min(counts, default=1) < 1:
        raise ValueError(f"`counts` must be at least 1, got {list(counts)}")
    measure = _measure(embeddings, metric)
    counts = np.array(counts, np.int64)
    block = max(1, BLOCK_ENTRIES // max(len(labels), 1))

    def judge(start):
        rows = queries[start : start + block]
        return _judge_ranking(_ranked_relevance(measure, labels, annotated, rows), counts)

    threads = min(os.cpu_count(), MAX_THREADS)  # sorting leaves Python's lock to others
    with ThreadPoolExecutor(threads) as pool:
        blocks = list(pool.map(judge, range(0, len(queries), block)))
    empty = np.zeros(0), np.zeros((0, len(counts))), np.zeros((0, len(counts)))
    return Retrieval(
        *map(np.concatenate, zip(*blocks, strict=True) if blocks else [[e] for e in empty])
    )


def _measure(embeddings, metric):
    """Function from query rows (B,) to their distances to all rows, (B, N)."""
    if metric == "euclid":
        return lambda rows: cdist(embeddings[rows], embeddings)
    if metric == "cos":
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        directions = embeddings / np.where(lengths > 0, lengths, 1)
        return lambda rows: 1 - directions[rows] @ directions.T
    raise ValueError(f"`metric` must be 'euclid' or 'cos', got {metric!r}")


def _ranked_relevance(measure, labels, annotated, rows):
    """Whether the row at each rank is relevant, (B, N) bool; the query comes last, and is not."""
    distances = measure(rows)
    distances[np.arange(len(rows)), rows] = np.inf
    order = np.argsort(distances, axis=1)  # four times faster than a stable sort
    ranked = np.take_along_axis(distances, order, axis=1)
    tied = (ranked[:, 1:] == ranked[:, :-1]).any(axis=1)
    order[tied] = np.argsort(distances[tied], axis=1, kind="stable")
    relevant = (labels[order] == labels[rows, None]) & annotated[order]
    relevant &= order != rows[:, None]
    return relevant


def _judge_ranking(relevant, counts):
    """Average precision (B,), and precision and recall (B, K) at each of `counts`."""
    hits = np.cumsum(relevant, axis=1)
    total = hits[:, -1]
    precision = hits / np.arange(1, relevant.shape[1] + 1)
    precision *= relevant
    found = hits[:, np.minimum(counts, relevant.shape[1]) - 1]
    with np.errstate(invalid="ignore"):  # 0 / 0: nothing relevant
        return precision.sum(axis=1) / total, found / counts, found / total[:, None]


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


def confusion_by_iou(prediction, ground_truth, values, thresholds, classes):
    """Count the pixels of each pair of classes by how trustworthy their segment is said to be.

    Parameters
    ----------
    prediction, ground_truth : ndarray of shape (H, W), int
        Class ids; pixels where one of them is `classes` or more, 255 among them, are left out.
    values : ndarray of shape (H, W), float
        Predicted IoU of each pixel's segment. Compared as float32.
    thresholds : ndarray of shape (T,), float
        Ascending.
    classes : int
        Number of classes C.

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


# anomaly


def pixel_anomaly_metrics(scores, labels=None):
    """How well a score tells anomalous pixels from normal ones, all frames together.

    A pixel is called anomalous if its score reaches a threshold; the thresholds are the distinct
    scores. Beyond `EXACT_PIXELS` pixels the scores are counted in steps between `QUANTILES`
    quantiles of those of normal and of anomalous pixels so far, and memory stops growing.

    Parameters
    ----------
    scores : iterable of ndarray of shape (H, W), float
        Higher = more anomalous; an array (N, H, W) will do. Compared as float32. Without `labels`:
        an iterable of pairs (scores, labels), read once.
    labels : iterable of ndarray of shape (H, W), int
        0 = normal, 1 = anomaly, 255 = left out.

    Returns
    -------
    metrics : dict of str to number
        `average_precision` (not interpolated), `auroc` (ties count half), `fpr_at_95_tpr` at the
        highest threshold `threshold_at_95_tpr` where at least 95 % of the anomalous pixels are
        found, `best_f1` and the highest `best_f1_threshold` that reaches it; `positives` and
        `negatives`, the numbers of pixels.

    Raises
    ------
    ValueError
        Shapes that differ, a score that is not finite, another label, or only one kind of pixels.
    """
    counts = ScoreCounts()
    for frame in _frames(scores, labels):
        counts.add(*frame)
    return counts.metrics()


class ScoreCounts:
    """How many normal and how many anomalous pixels have each score; memory is bounded.

    See `pixel_anomaly_metrics`, for which it gathers frame by frame.
    """

    def __init__(self):
        self.steps = None  # where steps of scores begin, as codes, once pixels are too many
        self._kept = []  # pairs of codes, of anomalous and of normal pixels, one a frame
        self._pixels = 0
        self._histogram = None  # (2, K) anomalous and normal pixels by step, in their place

    def add(self, scores, labels):
        """Count one frame: `scores` (H, W) float32, finite, and `labels` (H, W), 0, 1 or 255."""
        codes = _code_of(scores)
        self._kept.append([codes[labels == label] for label in (1, 0)])
        self._pixels += sum(map(len, self._kept[-1]))
        if self._pixels > EXACT_PIXELS:  # from now on after each frame
            self._coarsen()

    def curve(self):
        """Thresholds (K,), from the highest, and the pixels that reach them.

        Returns
        -------
        thresholds : ndarray of shape (K,), float32
        tp, fp : ndarray of shape (K,), int64
            Anomalous and normal pixels; the last entries are all there are.

        Raises
        ------
        ValueError
            If there is only one kind of pixels.
        """
        codes, positives, negatives = self._counts()
        if not positives.any() or not negatives.any():
            raise ValueError(
                f"both normal and anomalous pixels are needed, got {negatives.sum()} normal and "
                f"{positives.sum()} anomalous ones"
            )
        return _score_of(codes[::-1]), positives[::-1].cumsum(), negatives[::-1].cumsum()

    def metrics(self):
        """The metrics of all frames so far: the dict that `pixel_anomaly_metrics` gives."""
        thresholds, tp, fp = self.curve()
        tpr, fpr = tp / tp[-1], fp / fp[-1]
        f1 = 2 * tp / (tp + fp + tp[-1])
        at_95, best = int(np.argmax(tpr >= 0.95)), int(np.argmax(f1))
        return {
            "average_precision": float((np.diff(tpr, prepend=0) * tp / (tp + fp)).sum()),
            "auroc": float(np.trapezoid(np.r_[0, tpr], np.r_[0, fpr])),
            "fpr_at_95_tpr": float(fpr[at_95]),
            "threshold_at_95_tpr": float(thresholds[at_95]),
            "best_f1": float(f1[best]),
            "best_f1_threshold": float(thresholds[best]),
            "positives": int(tp[-1]),
            "negatives": int(fp[-1]),
        }

    def _coarsen(self):
        kinds = [np.concatenate(part) for part in zip(*self._kept, strict=True)]
        if self.steps is None:
            self.steps = _steps(kinds)
            self._histogram = np.zeros((2, len(self.steps)), np.int64)
        for counts, codes in zip(self._histogram, kinds, strict=True):
            step = np.searchsorted(self.steps, codes, side="right") - 1
            counts += np.bincount(step, minlength=len(self.steps))
        self._kept.clear()

    def _counts(self):
        """Codes that occur, ascending, and how many positives and negatives have each."""
        if self.steps is not None:
            some = self._histogram.any(axis=0)
            return self.steps[some], *self._histogram[:, some]
        none = np.zeros(0, np.uint32)
        kinds = zip(*self._kept, strict=True) if self._kept else ((), ())
        positives, negatives = (np.concatenate([none, *part]) for part in kinds)
        codes, rows = np.unique(np.r_[positives, negatives], return_inverse=True)
        parts = np.split(rows, [len(positives)])
        return codes, *(np.bincount(part, minlength=len(codes)) for part in parts)


def _steps(kinds):
    """Codes (K,) uint32, ascending from 0, at which steps begin that tell scores apart well.

    Quantiles of the codes of each kind of pixels, so that a step holds few of them wherever they
    crowd, and a coarse scale over all numbers for what is still to come.
    """
    quantiles = [
        np.sort(codes)[np.linspace(0, len(codes) - 1, QUANTILES).astype(np.int64)]
        for codes in kinds
        if len(codes)
    ]
    return np.unique(np.concatenate([*quantiles, np.arange(2**16, dtype=np.uint32) << 16]))


def component_anomaly_metrics(scores, labels, threshold, min_predicted_size, min_true_size):
    """How well the objects that a score finds are the anomalous ones, as SegmentMeIfYouCan counts.

    Predicted components are the 8-connected ones of the pixels whose score is above the threshold;
    true components those of label 1. Small predicted components are dropped, the pixels of small
    true ones left out. sIoU of a component: its intersection with the components that it meets,
    over the union, without what of them belongs to others (Chan et al., arXiv 2104.14812). At each
    t of 0.25, 0.3, ..., 0.75: tp and fn = true components with sIoU >= t and below, fp = predicted
    components of which less than t lies on true ones; F1 = 2 tp / (2 tp + fn + fp), of the counts
    over all frames.

    Parameters
    ----------
    scores, labels
        As for `pixel_anomaly_metrics`; `labels` None: pairs.
    threshold : float
    min_predicted_size, min_true_size : int
        Pixels; the benchmark takes 500 and 100 for its anomaly track, 50 and 10 for its obstacles.

    Returns
    -------
    metrics : dict
        `tp_25`, `tp_50`, `tp_75`, `tp_mean` (over all t), the same for `fp`, `fn` and `f1`;
        `sIoU_gt`, `sIoU_pred` and `prec_pred` (share of a predicted component that is true), means
        over all components; `f1_per_threshold`, a list. None where nothing is there to judge.
        `per_frame`: a list of dicts with the lists `sIoU_gt`, `size_gt`, `sIoU_pred`, `size_pred`
        and `prec_pred`, in the order in which the components are met row by row, and `tp`, `fn`
        and `fp` at each t.
    """
    sizes = threshold, min_predicted_size, min_true_size
    return sum_components([judge_components(*frame, *sizes) for frame in _frames(scores, labels)])


def sum_components(per_frame):
    """Metrics of all frames: the dict that `component_anomaly_metrics` gives.

    Parameters
    ----------
    per_frame : list of dict
        What `judge_components` gives for each frame.
    """
    tp, fp, fn = (
        np.sum([np.zeros(11), *(frame[key] for frame in per_frame)], axis=0).tolist()
        for key in ("tp", "fp", "fn")
    )
    f1 = [_ratio(2 * h, 2 * h + a + m) for h, a, m in zip(tp, fp, fn, strict=True)]
    metrics = {}
    for name, values in (("tp", tp), ("fp", fp), ("fn", fn), ("f1", f1)):
        metrics |= {f"{name}_{t}": values[i] for t, i in ((25, 0), (50, 5), (75, 10))}
        metrics[f"{name}_mean"] = None if values[0] is None else float(np.mean(values))
    for key in ("sIoU_gt", "sIoU_pred", "prec_pred"):
        values = [value for frame in per_frame for value in frame[key]]
        metrics[key] = _ratio(sum(values), len(values))
    return {**metrics, "f1_per_threshold": f1, "per_frame": per_frame}


def judge_components(scores, labels, threshold, min_predicted_size, min_true_size):
    """Judge the components of one frame.

    Parameters
    ----------
    scores : ndarray of shape (H, W), float
    labels : ndarray of shape (H, W), int
        0, 1 or 255.
    threshold, min_predicted_size, min_true_size
        As for `component_anomaly_metrics`.

    Returns
    -------
    components : dict of str to list
        One entry of its `per_frame`.
    """
    predicted = _components((scores > threshold) & (labels != NO_LABEL), min_predicted_size)[0]
    true, small = _components(labels == 1, min_true_size)
    evaluated = (labels != NO_LABEL) & ~small
    shape = int(predicted.max(initial=0)) + 1, int(true.max(initial=0)) + 1
    pairs = predicted[evaluated], true[evaluated]
    pixels = sparse.coo_array((np.ones(len(pairs[0]), np.int64), pairs), shape).tocsr()
    size_pred, size_gt = pixels.sum(axis=1)[1:], pixels.sum(axis=0)[1:]
    common = pixels[1:, 1:]
    there = size_pred > 0  # a predicted component may lie in what is left out
    common, size_pred = common[there], size_pred[there]
    on_true, on_pred = common.sum(axis=1), common.sum(axis=0)
    meets = (common > 0).astype(np.int64)
    t = COMPONENT_IOU_THRESHOLDS[:, None]
    iou_gt = _adjusted(size_gt, on_pred, meets.T @ size_pred, meets.T @ on_true)
    precision = on_true / size_pred
    lists = {
        "sIoU_gt": iou_gt,
        "size_gt": size_gt.astype(float),
        "sIoU_pred": _adjusted(size_pred, on_true, meets @ size_gt, meets @ on_pred),
        "size_pred": size_pred.astype(float),
        "prec_pred": precision,
        "tp": (iou_gt >= t).sum(axis=1),
        "fn": (iou_gt < t).sum(axis=1),
        "fp": (precision < t).sum(axis=1),
    }
    return {name: values.tolist() for name, values in lists.items()}


def _frames(scores, labels):
    """Yield checked pairs: scores (H, W) float32, labels (H, W) of 0, 1 and 255."""
    pairs = scores if labels is None else itertools.zip_longest(scores, labels)
    for number, (score, label) in enumerate(pairs):
        score, label = np.asarray(score, np.float32), np.asarray(label)
        if score.shape != label.shape or score.ndim != 2:
            raise ValueError(
                f"frame {number}: scores and labels must have one shape (H, W), got {score.shape} "
                f"and {label.shape}"
            )
        if not np.isfinite(score[label != NO_LABEL]).all():
            raise ValueError(f"frame {number}: `scores` must be finite")
        if not np.isin(label, (0, 1, NO_LABEL)).all():
            raise ValueError(
                f"frame {number}: `labels` must be 0, 1 or {NO_LABEL}, got {np.unique(label)}"
            )
        yield score, label


def _code_of(scores):
    """Whole numbers (uint32) in the order of float32 scores; their first bits matter most."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _score_of(codes):
    """The float32 scores of codes."""
    return (
        np.where(codes >> 31, codes & np.uint32(0x7FFFFFFF), ~codes)
        .astype(np.uint32)
        .view(np.float32)
    )


def _components(mask, min_size):
    """The 8-connected components from `min_size` pixels on, numbered; and the pixels of others."""
    numbers, _ = ndimage.label(mask, np.ones((3, 3)))
    small = np.bincount(numbers.ravel()) < min_size
    small[0] = False
    kept = np.where(small[numbers], 0, numbers)
    rank = np.cumsum(~small) - 1
    return rank[kept], small[numbers]


def _adjusted(size, common, size_met, common_met):
    """sIoU of components of `size` pixels, `common` of them in the other components that they meet.

    Those have `size_met` pixels, `common_met` of them in components of this side; what of these
    belongs to others does not count.
    """
    return common / (size + size_met - common_met)


def _ratio(total, count):
    """None where there is nothing to divide by."""
    return float(total / count) if count else None
