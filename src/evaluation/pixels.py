"""How well a score tells anomalous pixels from normal ones."""

import itertools

import numpy as np

from src.records import NO_LABEL

EXACT_PIXELS = 2**23  # up to so many scores are told apart exactly
QUANTILES = 2**16  # of the scores of each kind of pixels so far, by which later ones are counted


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
    for frame in checked_frames(scores, labels):
        counts.add(*frame)
    return counts.metrics()


class ScoreCounts:
    """How many normal and how many anomalous pixels have each score; memory is bounded.

    See `pixel_anomaly_metrics`, for which it gathers frame by frame.
    """

    def __init__(self):
        self.steps = None  # where steps of scores begin, as codes, once pixels are too many
        none = np.zeros(0, np.uint32)
        self._kept = [[none, none]]  # codes of anomalous and of normal pixels, a pair a frame
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
        """Thresholds (K,) float32 from the highest; anomalous and normal pixels that reach them.

        Those are two arrays (K,) int64, their last entries all there are. If there is only one kind
        of pixels, that is a ValueError.
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
        positives, negatives = map(np.concatenate, zip(*self._kept, strict=True))
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


def checked_frames(scores, labels):
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
