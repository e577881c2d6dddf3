"""How well a score finds anomalies: pixel by pixel, object by object, and as the benchmark does."""

import json
from statistics import fmean

import numpy as np

from twins.metaseg import flood

VOID = 255
OVERLAPS = [0.25 + 0.05 * step for step in range(11)]
TRACKS = {"AnomalyTrack": (500, 100), "ObstacleTrack": (50, 10)}  # smallest predicted, true object
SCORES = {"half": 0.5, "low": 0.4}


def write(folder):
    """Write frames.npz and what is expected of them, expected.json."""
    scores, labels = frames()
    pairs = [*zip(scores, labels, strict=True)]
    rounded = [(np.round(score * 16) / 16, label) for score, label in pairs]
    pixel = {
        "exact_pooled": pixel_metrics(pairs),
        "exact_pooled_scores_rounded_to_sixteenths": pixel_metrics(rounded),
        "exact_per_frame": [pixel_metrics([p]) if (p[1] == 1).any() else None for p in pairs],
        "PixBinaryClass-uniThr": curve_metrics(pairs, even_edges),
        "PixBinaryClass": curve_metrics(pairs, quantile_edges),
    }
    component = {
        f"{track}/{name}": component_metrics(pairs, threshold, *sizes)
        for track, sizes in TRACKS.items()
        for name, threshold in SCORES.items()
    }
    np.savez(folder / "frames.npz", scores=scores, labels=labels)
    (folder / "expected.json").write_text(json.dumps({"pixel": pixel, "component": component}))


def frames():
    """Scores in 0..1 and labels of four frames; the second has no anomaly."""
    random = np.random.default_rng(3)
    labels = np.zeros((4, 120, 160), np.uint8)
    for frame in (0, 2, 3):
        for size in (34, 24, 12, 7, 3):  # pixels of height, and a third more of width
            row, column = random.integers(0, 120 - size), random.integers(0, 160 - size)
            labels[frame, row : row + size, column : column + size * 4 // 3] = 1
    coarse = random.normal(0, 0.8, (4, 15, 20)).repeat(8, 1).repeat(8, 2)
    logits = coarse + random.normal(0, 0.4, labels.shape) + 2.5 * labels - 1
    labels[:, :6], labels[:, 50:60, 70:85] = VOID, VOID
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


# --- pixels


def pixel_metrics(pairs):
    """At each distinct score, from the highest: how many pixels of each kind reach it."""
    counts = {}
    for score, label in pairs:
        for value, kind in zip(score.ravel().tolist(), label.ravel().tolist(), strict=True):
            if kind != VOID:
                counts.setdefault(value, [0, 0])[kind] += 1
    negatives, positives = map(sum, zip(*counts.values(), strict=True))
    tp = fp = precisions = lower = 0
    at_95 = None
    for value in sorted(counts, reverse=True):
        normal, anomalous = counts[value]
        # an anomalous pixel wins against the normal ones below it, and half against its equals
        lower += anomalous * (negatives - fp - normal / 2)
        tp, fp = tp + anomalous, fp + normal
        precisions += anomalous * tp / (tp + fp)
        if at_95 is None and tp / positives >= 0.95:
            at_95 = fp / negatives, value
    return {
        "average_precision": precisions / positives,
        "auroc": lower / positives / negatives,
        "fpr_at_95_tpr": at_95[0],
        "threshold_at_95_tpr": at_95[1],
        "positives": positives,
        "negatives": negatives,
    }


def even_edges(anomalous, normal):
    return np.linspace(-0.01, 1.01, 4097)


def quantile_edges(anomalous, normal):
    """Edges that tell scores apart where they are many, of either kind of pixels of a frame."""
    low, high = (f([*anomalous, *normal]) for f in (min, max))
    beyond = max(0.01, 0.01 * (high - low))
    kinds = [np.quantile(k, np.linspace(0, 1, 384)) for k in (anomalous, normal) if len(k)]
    return np.unique(np.concatenate([[low - beyond, high + beyond], *kinds]))


def curve_metrics(pairs, edges_of):
    """From histograms of each frame, as the benchmark's own program has them."""
    points = {}  # lower edge of a bin: anomalous and normal pixels
    for score, label in pairs:
        kinds = [score[label == kind].astype(float) for kind in (1, 0)]
        edges = edges_of(*kinds)
        histograms = [np.histogram(kind, edges)[0] for kind in kinds]
        for edge, *numbers in zip(edges, *histograms, strict=False):
            points[edge] = np.add(points.get(edge, 0), numbers)
    tp, fp = np.cumsum([points[edge] for edge in sorted(points, reverse=True)], axis=0).T
    some = tp + fp > 0
    tp, fp = tp[some], fp[some]
    recall, false_alarms = np.r_[0, tp / tp[-1]], np.r_[0, fp / fp[-1]]
    return {
        "area_PRC": float((np.diff(recall) * tp / (tp + fp)).sum()),
        "area_ROC": float(np.trapezoid(recall, false_alarms)),
        "tpr95_fpr": float(false_alarms[np.argmax(recall >= 0.95)]),
        "best_f1": float((2 * tp / (tp + fp + tp[-1])).max()),
    }


# --- objects


def objects(mask):
    """The 8-connected sets of pixels of a mask, in the order in which they are met."""
    left, found = {tuple(pixel) for pixel in np.argwhere(mask).tolist()}, []
    for pixel in sorted(left):
        if pixel in left:
            found.append(flood(pixel, left, mask.shape))
            left -= found[-1]
    return found


def adjusted_iou(one, others, same_side):
    """Intersection over union with all that it meets, without what of this is in its neighbours."""
    met = set().union(*(other for other in others if one & other))
    elsewhere = set().union(*(other for other in same_side if other is not one))
    return len(one & met) / len((one | met) - (met & elsewhere)) if met else 0.0


def frame_metrics(score, label, threshold, min_predicted, min_true):
    true = objects(label == 1)
    small = set().union(*(t for t in true if len(t) < min_true))
    true = [t for t in true if len(t) >= min_true]
    predicted = objects((score > threshold) & (label != VOID))
    predicted = [p - small for p in predicted if len(p) >= min_predicted]
    predicted = [p for p in predicted if p]
    precision = [sum(len(p & t) for t in true) / len(p) for p in predicted]
    iou = [adjusted_iou(t, predicted, true) for t in true]
    return {
        "sIoU_gt": iou,
        "size_gt": [len(t) for t in true],
        "sIoU_pred": [adjusted_iou(p, true, predicted) for p in predicted],
        "size_pred": [len(p) for p in predicted],
        "prec_pred": precision,
        "tp": [sum(value >= least for value in iou) for least in OVERLAPS],
        "fn": [sum(value < least for value in iou) for least in OVERLAPS],
        "fp": [sum(value < least for value in precision) for least in OVERLAPS],
    }


def component_metrics(pairs, threshold, min_predicted, min_true):
    per_frame = [frame_metrics(*pair, threshold, min_predicted, min_true) for pair in pairs]
    counts = {
        name: [sum(frame[name][step] for frame in per_frame) for step in range(len(OVERLAPS))]
        for name in ("tp", "fp", "fn")
    }
    counts["f1"] = [
        2 * tp / (2 * tp + fp + fn) for tp, fp, fn in zip(*counts.values(), strict=True)
    ]
    aggregate = {
        name: fmean(v for frame in per_frame for v in frame[name])
        for name in ("sIoU_gt", "sIoU_pred", "prec_pred")
    }
    for name, values in counts.items():
        aggregate |= {f"{name}_{t}": values[step] for t, step in ((25, 0), (50, 5), (75, 10))}
        aggregate[f"{name}_mean"] = fmean(values)
    return {
        "score_threshold": threshold,
        "min_predicted_component": min_predicted,
        "min_true_component": min_true,
        "aggregate": aggregate,
        "f1_per_threshold": counts["f1"],
        "per_frame": per_frame,
    }
