"""What the numbers that a network gives mean: logits, or probabilities."""

TOLERANCE = 1e-2  # of a sum of probabilities: half precision rounds, as does resizing


def kind_of(values, axis):
    """Whether class values are logits or probabilities, by their range and sums.

    Parameters
    ----------
    values : ndarray or Tensor, floating
        Finite class values of at least one pixel.
    axis : int
        That of the classes.

    Returns
    -------
    kind : str or None
        See `kind_by`.
    """
    farthest = abs(values.sum(axis) - 1).max()
    return kind_by(float(values.min()), float(values.max()), float(farthest))


def kind_by(lowest, highest, farthest):
    """`kind_of` by figures that may come from a device together.

    Parameters
    ----------
    lowest, highest : float
        Of all values.
    farthest : float
        Largest distance of a pixel's sum over the classes from 1.

    Returns
    -------
    kind : str or None
        "probabilities" if all are in [0, 1] and sum to 1; "logits" if any is outside. None: all are
        in [0, 1] and do not sum to 1, as independent (sigmoid) probabilities, or logits of a
        network that hardly learnt anything; only who made it knows.
    """
    if not (lowest >= 0 and highest <= 1 + TOLERANCE):  # NaN too
        return "logits"
    return "probabilities" if farthest <= TOLERANCE else None
