"""How well a score finds anomalous objects."""

import numpy as np
from scipy import ndimage, sparse

from src.evaluation.pixels import checked_frames
from src.records import NO_LABEL

IOU_THRESHOLDS = np.linspace(0.25, 0.75, 11)


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
    return sum_components(
        [judge_components(*frame, *sizes) for frame in checked_frames(scores, labels)]
    )


def sum_components(per_frame):
    """The dict of `component_anomaly_metrics`, of what `judge_components` gives for each frame."""
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
    """Judge the components of one frame: an entry of `per_frame` of `component_anomaly_metrics`.

    `scores` (H, W) and `labels` (H, W), 0, 1 or 255, are one frame's; the others are as there.
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
    t = IOU_THRESHOLDS[:, None]
    # of the components that one meets, what lies on others of its side does not count
    iou_gt = on_pred / (size_gt + meets.T @ (size_pred - on_true))
    precision = on_true / size_pred
    lists = {
        "sIoU_gt": iou_gt,
        "size_gt": size_gt.astype(float),
        "sIoU_pred": on_true / (size_pred + meets @ (size_gt - on_pred)),
        "size_pred": size_pred.astype(float),
        "prec_pred": precision,
        "tp": (iou_gt >= t).sum(axis=1),
        "fn": (iou_gt < t).sum(axis=1),
        "fp": (precision < t).sum(axis=1),
    }
    return {name: values.tolist() for name, values in lists.items()}


def _components(mask, min_size):
    """The 8-connected components from `min_size` pixels on, numbered; and the pixels of others."""
    numbers, _ = ndimage.label(mask, np.ones((3, 3)))
    small = np.bincount(numbers.ravel()) < min_size
    small[0] = False
    kept = np.where(small[numbers], 0, numbers)
    rank = np.cumsum(~small) - 1
    return rank[kept], small[numbers]


def _ratio(total, count):
    """None where there is nothing to divide by."""
    return float(total / count) if count else None
