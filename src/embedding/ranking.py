"""All objects in the order of how alike they are to some that a person has ticked."""

import numpy as np
from threadpoolctl import threadpool_limits

FEWEST_FOR_MODEL = 5  # examples, and as many counter-examples
VALUES_AT_ONCE = 2**18  # of vectors, which fit the processor's cache: 1 MB


@threadpool_limits.wrap(limits=1)  # threads that wait for each other where others use the cores
def more_like(vectors, examples, counter_examples=()):
    """How alike each object is to the examples.

    With five or more examples and as many counter-examples: the log odds of a linear model that
    tells them apart. With fewer: minus the Euclidean distance to the nearest example, and those
    that are nearer to a counter-example come behind all others.

    Parameters
    ----------
    vectors : ndarray of shape (N, F), float32
        Finite.
    examples, counter_examples : sequence of int
        Rows in [0, N); of `examples` at least one, none in both.

    Returns
    -------
    scores : ndarray of shape (N,), float32
        Higher = more alike.

    Raises
    ------
    ValueError
        The rows are not such.
    """
    wanted = _chosen(vectors, examples, "examples")
    others = _chosen(vectors, counter_examples, "counter_examples")
    if not len(wanted):
        raise ValueError("`examples` must be at least one row, got none")
    if both := set(examples) & set(counter_examples):
        raise ValueError(f"no row may be example and counter-example, got {sorted(both)} as both")
    if min(len(wanted), len(others)) >= FEWEST_FOR_MODEL:
        return _log_odds(vectors, wanted, others)
    if not len(others):
        return -_to_nearest(vectors, [wanted])[0]
    to_wanted, to_others = _to_nearest(vectors, [wanted, others])
    return -np.where(to_others < to_wanted, to_wanted + to_wanted.max(), to_wanted)


def _chosen(vectors, rows, name):
    """The vectors (n, F) of some rows."""
    rows = np.array(rows, np.int64, ndmin=1)
    if ((rows < 0) | (rows >= len(vectors))).any():
        raise ValueError(f"`{name}` must be rows in [0, {len(vectors)}), got {rows.tolist()}")
    return vectors[rows]


def _to_nearest(vectors, groups):
    """Euclidean distances (groups, N) float32 to the nearest of each group of vectors (n, F)."""
    distances = np.empty((len(groups), len(vectors)), np.float32)
    chosen = np.concatenate(groups)
    begins = np.cumsum([0, *map(len, groups[:-1])])
    centre = chosen.mean(axis=0)  # near which few digits are lost
    chosen = chosen - centre
    lengths = np.einsum("ij,ij->i", chosen, chosen)[:, None]
    step = max(1, VALUES_AT_ONCE // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        rows = vectors[start : start + step] - centre
        squares = np.minimum.reduceat(lengths - 2 * chosen @ rows.T, begins)
        squares += np.einsum("ij,ij->i", rows, rows)
        distances[:, start : start + step] = np.sqrt(np.maximum(squares, 0))
    return distances


def _log_odds(vectors, wanted, others):
    """Of each vector, that it is one of those wanted: (N,) float32.

    By logistic regression with both kinds weighing the same, on vectors brought to a spread of 1
    first, so that its penalty means the same for vectors of any length.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    both = np.concatenate([wanted, others]).astype(np.float64)
    is_wanted = np.arange(len(both)) < len(wanted)
    centre, spread = both.mean(axis=0), np.sqrt(both.var(axis=0).sum()) or 1.0
    model = LogisticRegression(class_weight="balanced").fit((both - centre) / spread, is_wanted)
    slope = model.coef_[0] / spread
    offset = model.intercept_[0] - slope @ centre
    return vectors @ slope.astype(np.float32) + np.float32(offset)
