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
