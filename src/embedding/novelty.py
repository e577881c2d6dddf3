"""How new an object is: how far its vector lies from those of known things."""

import numpy as np

from src.errors import SettingError

LEAST_IOU = 0.5  # predicted, of segments that are trusted


def novelty(vectors, known, k=5):
    """Distance of each vector to the k-th nearest known one (Sun et al., arXiv 2204.06507).

    Unlike theirs, vectors keep their length.

    Parameters
    ----------
    vectors : ndarray of shape (N, F), float
    known : ndarray of shape (M, F), float
        At least one; of less than `k` the farthest counts.
    k : int

    Returns
    -------
    distance : ndarray of shape (N,), float32
        Euclidean; higher = stranger.
    """
    if not len(vectors):
        return np.zeros(0, np.float32)
    from sklearn.neighbors import NearestNeighbors  # slow to import

    search = NearestNeighbors(n_neighbors=min(k, len(known)), algorithm="brute").fit(known)
    return search.kneighbors(vectors)[0][:, -1].astype(np.float32)


def with_novelty(table, known):
    """The table with a column `novelty` (N,) float32.

    Parameters
    ----------
    table : ObjectTable
        With `embeddings`.
    known : ObjectTable
        Embedded segments of pictures like those that the network was trained on, none of which is
        in `table`; those whose predicted IoU is at least `LEAST_IOU`, or unknown, are trusted.

    Raises
    ------
    SettingError
        No segment is trusted, or another network has made the vectors.
    """
    trusted = known.take(~(known["predicted_iou"] < LEAST_IOU))
    widths = table["embeddings"].shape[1], trusted["embeddings"].shape[1]
    if widths[0] != widths[1]:
        raise SettingError(
            f"vectors of {widths[0]} and of {widths[1]} values cannot be compared: embed the known "
            "segments with the same args.net"
        )
    if not len(trusted):
        raise SettingError(
            f"none of the {len(known)} known segments has a predicted IoU of at least {LEAST_IOU}: "
            "run compute_embeddings.py for them with args.iou_threshold=1.01"
        )
    return table.with_columns(novelty=novelty(table["embeddings"], trusted["embeddings"]))
