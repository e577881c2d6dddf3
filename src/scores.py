"""Anomaly scores of pixels and segments, all with one sign: higher = stranger."""

import numpy as np

from src.errors import SettingError


def max_logit(logits):
    """The largest logit with its sign turned (Hendrycks et al., arXiv 1911.11132).

    Parameters
    ----------
    logits : Tensor of shape (..., C), float32

    Returns
    -------
    score : Tensor of shape (...), float32
    """
    return -logits.amax(-1)


def energy(logits):
    """The free energy of the logits (Liu et al., arXiv 2010.03759); shapes as of `max_logit`."""
    return -logits.logsumexp(-1)


def rejected_by_all(logits):
    """No class wants the pixel: minus the sum of the classes' tanh (Nayal et al., 2211.14293).

    Made for mask networks, whose class scores are at least 0; shapes as of `max_logit`.
    """
    return -logits.tanh().sum(-1)


# of logits, or of the class scores of mask networks: what stage 1 may keep
OF_LOGITS = {"max_logit": max_logit, "energy": energy, "rejected_by_all": rejected_by_all}
# of probabilities, in the order of `MetaSeg.metrics.heatmaps`: what metrics call their means
OF_PROBABILITIES = {"entropy": "E", "margin": "D", "max_softmax": "V"}
NAMES = *OF_PROBABILITIES, "predicted_iou", *OF_LOGITS  # which no map of one's own may have


def of_picture(heatmaps, predicted_iou, kept):
    """All scores of the pixels of a picture.

    Parameters
    ----------
    heatmaps : sequence of three ndarray of shape (H, W), float32
        Entropy, probability difference (the margin) and variation ratio (1 - largest probability):
        `MetaSeg.metrics.heatmaps` defines them.
    predicted_iou : ndarray of shape (H, W), float32, or None
        That of each pixel's segment; None: unknown.
    kept : dict of str to ndarray of shape (H, W), float32
        Those that stage 1 has kept, see `OF_LOGITS`, and heat maps of one's own.

    Returns
    -------
    scores : dict of str to ndarray of shape (H, W), float32
        By the names that settings have for them; "predicted_iou" is 1 - predicted IoU, where known.
    """
    of_segments = {} if predicted_iou is None else {"predicted_iou": 1 - predicted_iou}
    return dict(zip(OF_PROBABILITIES, heatmaps, strict=True)) | of_segments | kept


def names_in(metrics):
    """Names of the scores that a table of metrics has means of: a list."""
    own = [
        name
        for name in metrics
        if f"{name}_var" in metrics and name not in OF_PROBABILITIES.values()
    ]
    return [*OF_PROBABILITIES, *own]


def of_segments(metrics, name):
    """Mean of a score over each segment's inner pixels, over all where there are none inside.

    Parameters
    ----------
    metrics : dict of str to ndarray of shape (S,)
        As stage 2 writes them.
    name : str
        One of `names_in`.

    Returns
    -------
    score : ndarray of shape (S,), float32

    Raises
    ------
    SettingError
        The table has no such score.
    """
    known = names_in(metrics)
    if name not in known:
        raise SettingError(
            f"there is no score {name!r} of segments here, but predicted_iou, {', '.join(known)}; "
            f"those of logits ({', '.join(OF_LOGITS)}) are kept by pred_images.py with "
            "args.scores=[...], maps of your own by src/MetaSeg/main.py with args.heatmaps"
        )
    key = OF_PROBABILITIES.get(name, name)
    means = np.where(np.asarray(metrics["S_in"]) > 0, metrics[f"{key}_in"], metrics[key])
    return means.astype(np.float32)
