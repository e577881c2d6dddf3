"""Anomaly scores of pixels, all with one sign: higher = stranger."""


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


OF_LOGITS = {"max_logit": max_logit, "energy": energy}  # that stage 1 may keep


def of_picture(heatmaps, predicted_iou, kept):
    """All scores of the pixels of a picture.

    Parameters
    ----------
    heatmaps : sequence of three ndarray of shape (H, W), float32
        Entropy, probability difference (the margin) and variation ratio (1 - largest probability):
        `MetaSeg.metrics.heatmaps` defines them.
    predicted_iou : ndarray of shape (H, W), float32
        That of each pixel's segment.
    kept : dict of str to ndarray of shape (H, W), float32
        Those that stage 1 has kept, see `OF_LOGITS`.

    Returns
    -------
    scores : dict of str to ndarray of shape (H, W), float32
    """
    entropy, difference, variation = heatmaps
    return {
        "entropy": entropy,
        "1 - largest probability": variation,
        "margin": difference,
        "1 - predicted IoU": 1 - predicted_iou,
        **{name.replace("_", " "): values for name, values in kept.items()},
    }
