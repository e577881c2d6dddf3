"""Near duplicates: the same object in neighbouring frames, copies of pictures.

Their vectors tell them, by a threshold that a picture helps to choose.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from src import pictures
from src.embedding import space
from src.store import reports
from src.store.paths import duplicates_path

COLUMNS = 50  # principal ones, in which distances are taken
MOST_SAMPLES = 5000  # objects whose nearest other one is looked up
SEPARATE = 4  # Ashman's D (Astron. J. 108, 2348) of two heaps; of the halves of one flat heap 3.5
ROWS, OTHERS = 256, 1024  # compared at once: 1 MB, which fits the processor's cache
PAIRS_AT_ONCE = 2**16  # linked
SHOWN = 8  # pairs
NEAR, FAR = "#d6336c", "#868e96"


@dataclass(frozen=True)
class Nearest:
    """Objects, spread over a table, and the nearest other one of each: (n,), a pair an entry."""

    rows: np.ndarray  # int64
    others: np.ndarray  # int64
    distances: np.ndarray  # float64, Euclidean


@dataclass(frozen=True)
class Duplicates:
    """Sets of objects that are near duplicates, and what they were found by."""

    labels: np.ndarray  # (N,) int64: number of each object's set, see `near_duplicates`
    threshold: float
    nearest: Nearest


def find(embeddings):
    """The Duplicates of feature vectors (N, F), by the threshold that `suggest_threshold` gives."""
    vectors = space.reduce(embeddings, "pca", COLUMNS)
    nearest = nearest_others(vectors)
    threshold = suggest_threshold(nearest.distances)
    return Duplicates(near_duplicates(vectors, threshold), threshold, nearest)


def report(log, path, table, thumbnail_of):
    """Write the picture by which a threshold is chosen beside the table that lies in `path`.

    `thumbnail_of` gives the JPEG (bytes) of a row.
    """
    if len(table) < 2:
        log.warning("%s has no two objects: none has a near duplicate", path)
        return
    found = find(table["embeddings"])
    sizes = np.bincount(found.labels)
    sets = sizes[sizes > 1]
    title = (
        f"{sets.sum():,} of {len(table):,} objects are near duplicates in {len(sets):,} sets: "
        f"nearer than {found.threshold:.3g}"
    )
    place = duplicates_path(path)
    figure = draw(found.nearest, found.threshold, thumbnail_of, title)
    reports.save_figure(place, figure, ["png"])
    log.info("wrote %s.png: %s", place, title)


@threadpool_limits.wrap(limits=1)  # threads that wait for each other where others use the cores
def near_duplicates(vectors, threshold):
    """Sets of objects that pairs nearer than a threshold link.

    All pairs count; those too near the threshold for float32 are looked at in float64. Memory does
    not grow with their number.

    Parameters
    ----------
    vectors : ndarray of shape (N, F), float
        Finite.
    threshold : float
        Euclidean distance, above 0.

    Returns
    -------
    labels : ndarray of shape (N,), int64
        Number of each object's set, from 0, in the order of their first objects. An object without
        near duplicates is a set of its own.
    """
    if not threshold > 0:
        raise ValueError(f"`threshold` must be above 0, got {threshold!r}")
    points = np.array(vectors, np.float32)
    if not len(points):
        return np.zeros(0, np.int64)
    points -= points.mean(axis=0)  # near which few digits are lost
    column = points.var(axis=0).argmax()
    order = np.argsort(points[:, column], kind="stable")
    points = points[order]
    left, right, most = _for_products(points, threshold)
    labels, waiting = np.arange(len(points)), np.empty((0, 2), np.int64)
    for rows, columns in _blocks(points[:, column], threshold):
        if np.ptp(np.concatenate([labels[rows], labels[columns]])) == 0:
            continue  # linked already
        near = np.flatnonzero(left[rows] @ right[columns].T < most)  # quicker than in 2 dimensions
        width = columns.stop - columns.start
        pairs = np.column_stack([near // width + rows.start, near % width + columns.start])
        pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
        pairs = pairs[_distances(points, *pairs.T) < threshold]
        waiting = np.concatenate([waiting, pairs])
        if len(waiting) >= PAIRS_AT_ONCE:
            labels, waiting = _linked(labels, waiting), waiting[:0]
    in_order = np.empty_like(labels)
    in_order[order] = _linked(labels, waiting)
    _, first, labels = np.unique(in_order, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


def _distances(vectors, ones, others):
    """Euclidean distances (n,) float64 of pairs of rows."""
    return np.linalg.norm(vectors[ones].astype(np.float64) - vectors[others], axis=1)


def _blocks(along, threshold):
    """Slices of rows and of others that may be as near, of rows sorted `along` a column."""
    along = along.astype(np.float64)
    for start in range(0, len(along), ROWS):
        rows = slice(start, min(start + ROWS, len(along)))
        end = np.searchsorted(along, along[rows.stop - 1] + threshold, side="right")
        for begin in range(start, end, OTHERS):
            yield rows, slice(begin, min(begin + OTHERS, end))


def _for_products(points, threshold):
    """Two tables (N, F + 2) whose products are squared distances of points, and the most to heed.

    That is what the errors of float32 may make of the threshold's square.
    """
    lengths = np.einsum("ij,ij->i", points, points)[:, None]
    ones = np.ones_like(lengths)
    error = 2 * np.finfo(np.float32).eps * (points.shape[1] + 2) * lengths.max()
    return (
        np.hstack([-2 * points, lengths, ones]),
        np.hstack([points, ones, lengths]),
        threshold**2 + error,
    )


def _linked(labels, pairs):
    """Labels of sets where those of each pair of rows have become one."""
    links = coo_array((np.ones(len(pairs), bool), labels[pairs].T), shape=(len(labels),) * 2)
    return connected_components(links, directed=False)[1].astype(np.int64)[labels]


def nearest_others(vectors):
    """The nearest other object of at most 5,000 that are spread evenly over a table.

    `vectors` are (N, F), float, finite; fewer than 2 give an empty Nearest.
    """
    rows = np.linspace(0, len(vectors) - 1, min(len(vectors), MOST_SAMPLES)).astype(np.int64)
    if len(vectors) < 2:
        return Nearest(rows[:0], rows[:0], np.zeros(0))
    from sklearn.neighbors import NearestNeighbors  # slow to import

    search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(vectors)
    found = search.kneighbors(vectors[rows], return_distance=False)
    others = np.where(found[:, 0] == rows, found[:, 1], found[:, 0])  # a copy may come first
    return Nearest(rows, others, _distances(vectors, rows, others))


def suggest_threshold(distances):
    """Distance below which nearest others are near duplicates, from those of many objects (n,).

    Where their logarithms lie in two heaps that are told apart, by a mixture of two Gaussians, that
    is the middle of the widest gap between their means. Else near ones are the exception: below the
    lower quartile by more than one and a half times what is between the quartiles (Tukey). 1 where
    all are copies.
    """
    known = distances[distances > 0]
    if not len(known):
        return 1.0
    logs = np.log10(np.maximum(distances, known.min() / 1000))[:, None]  # copies lie far off
    if len(logs) > 1 and np.ptp(logs) > 0:
        from sklearn.mixture import GaussianMixture  # slow to import

        heaps = GaussianMixture(2, random_state=0).fit(logs)
        low, high = np.argsort(heaps.means_[:, 0])
        gap = heaps.means_[high, 0] - heaps.means_[low, 0]
        if np.sqrt(2 / heaps.covariances_.sum()) * gap > SEPARATE:
            means = heaps.means_[[low, high], 0]
            between = np.sort(np.r_[means, logs[(logs > means[0]) & (logs < means[1])]])
            widest = np.diff(between).argmax()
            return float(10 ** between[widest : widest + 2].mean())
    lower, upper = np.percentile(logs, [25, 75])
    return float(10 ** (lower - 1.5 * (upper - lower)))


def draw(nearest, threshold, thumbnail_of, title):
    """Figure of how far the nearest others are, where the threshold is, and what lies around it.

    Parameters
    ----------
    nearest : Nearest
        Of at least one object.
    threshold : float
    thumbnail_of : callable
        Gives the JPEG (bytes) of a row.
    title : str
    """
    figure = Figure(figsize=(12, 7), layout="constrained")
    above, *below = figure.subplot_mosaic(
        [
            ["above"] * SHOWN,
            [f"one {k}" for k in range(SHOWN)],
            [f"other {k}" for k in range(SHOWN)],
        ],
        height_ratios=[2, 1, 1],
    ).values()
    _draw_distances(above, nearest.distances, threshold)
    above.set_title(title)
    for axes in below:
        axes.set_axis_off()
    for k, entry in enumerate(_examples(nearest, threshold)):
        distance = nearest.distances[entry]
        colour = NEAR if distance < threshold else FAR
        below[k].set_title(f"{distance:.3g}", color=colour)
        below[k].imshow(pictures.decode(thumbnail_of(nearest.rows[entry])))
        below[SHOWN + k].imshow(pictures.decode(thumbnail_of(nearest.others[entry])))
    return figure


def _draw_distances(axes, distances, threshold):
    """Histogram with logarithmic distances; copies are in its first bar."""
    least = min(distances[distances > 0].min(initial=threshold), threshold)
    ends = least / 2, max(distances.max(), threshold) * 2
    axes.hist(np.maximum(distances, ends[0]), np.geomspace(*ends, 80), color=FAR)
    axes.axvline(threshold, color=NEAR, label=f"threshold {threshold:.3g}")
    axes.set(xscale="log", xlim=ends, xlabel="distance to the nearest other object")
    axes.set_ylabel("objects")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False, loc="upper right")


def _examples(nearest, threshold):
    """Entries of pairs to show, the nearest first: as many below the threshold as from it on."""
    pairs = np.sort(np.stack([nearest.rows, nearest.others], axis=1))
    _, once = np.unique(pairs, axis=0, return_index=True)
    order = once[np.argsort(nearest.distances[once], kind="stable")]
    count = np.searchsorted(nearest.distances[order], threshold)
    return [entry for part in (order[:count], order[count:]) for entry in _spread(part, SHOWN // 2)]


def _spread(values, count):
    """At most so many of some values, from the first to the last."""
    return values[np.linspace(0, len(values) - 1, min(len(values), count)).astype(int)]
