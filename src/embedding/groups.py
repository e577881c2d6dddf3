"""Groups of objects that look alike: found without a given number, and told in a few figures."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from src.embedding.space import (
    MAX_PCA_COLUMNS,
    checked_table,
    one_thread_for,
    principal_columns,
)

NOISE = -1  # the label of objects in no group
LATER = -2  # of those that came after groups were found
NEIGHBOURS = 16  # in the graph, the object itself included
MIN_SAMPLES = 2  # of HDBSCAN: it and its nearest; more left more of the demo's objects as noise
LEAST_SIZE = 4  # of a group, however few objects there are
BRIDGED = 2000  # vectors, evenly drawn, between which the shortest way is known
ROWS_AT_ONCE = 4096  # between two calls of `progress`
TYPICAL = 8  # rows of a group that stand for it
SAMPLE = 256  # of a group whose vectors are looked at
ORDERS = ("suspicion", "size")


@dataclass(frozen=True, eq=False)
class Group:
    """Objects that look alike, in figures; the numbers of rows are those of the table."""

    label: int  # from 0; NOISE or LATER: of the objects in no group
    rows: np.ndarray  # (n,) int64, ascending
    n_images: int  # pictures that they are in
    medoid: int  # the row nearest to the mean of its vectors
    typical: tuple[int, ...]  # at most 8 rows far apart from one another, the medoid first
    suspicion: float  # mean of those known; NaN where none is
    novelty: float | None  # likewise; None where none is
    predicted: str | None  # most frequent name of the predicted class; None where no names are
    true: str | None  # of the true class, of the objects that have one
    tag: str  # that most of its objects have, "" for none


def find_groups(vectors, seed=0, progress=None):
    """Find groups of vectors that lie dense, and those in no group, without a given number.

    HDBSCAN (Campello et al., 2013) on the 50 principal components, with the distances of the
    16 nearest neighbours, and of a tree of 2,000 vectors, alone: all distances would take minutes
    and gigabytes. Up to 2,000 vectors nothing is lost. The least size of a group grows with
    the root of N, from 4; none has more than three quarters of all, as it would say nothing.

    Parameters
    ----------
    vectors : ndarray of shape (N, F), float
        Finite feature vectors.
    seed : int
        Of the search for the principal components.
    progress : callable, optional
        Called with the number of vectors whose neighbours are found, and N; may raise to cancel.

    Returns
    -------
    labels : ndarray of shape (N,), int64
        Group of each vector from 0, the largest first, of equal ones that of the lowest row;
        -1: none.
    """
    vectors = checked_table(vectors, "vectors")
    count = len(vectors)
    are_twins = bool(count) and (vectors == vectors[0]).all()
    if count <= LEAST_SIZE or are_twins:
        return np.full(count, 0 if are_twins and count >= LEAST_SIZE else NOISE, np.int64)
    from sklearn.cluster import HDBSCAN

    points = principal_columns(vectors, MAX_PCA_COLUMNS, seed)
    with one_thread_for(count):
        found = HDBSCAN(
            min_cluster_size=min_group_size(count),
            min_samples=MIN_SAMPLES,
            metric="precomputed",
            max_cluster_size=max(3 * count // 4, LEAST_SIZE),
            copy=False,
        ).fit_predict(_graph(points, progress or (lambda done, total: None)))
    return _largest_first(found.astype(np.int64))


def min_group_size(count):
    """The least size of a group among `count` objects: 5 of 669, 63 of 100,000."""
    return max(LEAST_SIZE, round(count**0.5 / 5))


def _largest_first(labels):
    numbers, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes, numbers == NOISE))
    place = np.empty(len(numbers), np.int64)
    place[order] = np.arange(len(numbers))
    return np.where(labels == NOISE, NOISE, place[np.searchsorted(numbers, labels)])


def _graph(points, progress):
    """Distances to the nearest neighbours, a symmetric sparse matrix in one piece."""
    from scipy.sparse import coo_array
    from sklearn.neighbors import NearestNeighbors

    count = len(points)
    search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, count), algorithm="brute").fit(points)
    distances, rows = [], []
    for start in range(0, count, ROWS_AT_ONCE):
        progress(start, count)
        of_part = search.kneighbors(points[start : start + ROWS_AT_ONCE])
        distances.append(of_part[0])
        rows.append(of_part[1])
    progress(count, count)
    ends = np.concatenate(rows)
    starts = np.repeat(np.arange(count), ends.shape[1])
    lengths = np.maximum(np.concatenate(distances), _hair(points)).ravel()
    graph = coo_array((lengths, (starts, ends.ravel())), (count, count)).tocsr()
    graph = graph.maximum(graph.T).tocsr()
    return graph.maximum(_bridges(points, graph)).tocsr()


def _bridges(points, graph):
    """A spanning tree of some points: it joins the islands of a graph, and heaps the short way.

    Without it the only way from heap to heap may lead over what lies alone, far from both.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
    from scipy.spatial.distance import cdist

    count, island = connected_components(graph, directed=False)
    spread = np.linspace(0, len(points) - 1, min(BRIDGED, len(points))).astype(np.int64)
    middles = [_middle(points, np.flatnonzero(island == k)) for k in range(count)]
    chosen = np.union1d(spread, middles)
    lengths = np.maximum(cdist(points[chosen], points[chosen]), _hair(points))
    tree = minimum_spanning_tree(lengths).tocoo()
    both = [np.concatenate(pair) for pair in ((tree.row, tree.col), (tree.col, tree.row))]
    return coo_array((np.tile(tree.data, 2), tuple(chosen[both])), graph.shape).tocsr()


def _hair(points):
    """How far apart twins are taken to be: edges without length would get lost."""
    return 1e-9 * np.ptp(points[:, 0])


def _middle(points, rows):
    """The row nearest to the mean of some."""
    of_rows = points[rows]
    return rows[np.argmin(((of_rows - of_rows.mean(axis=0)) ** 2).sum(axis=1))]


def describe_groups(table, labels, *, predicted=None, true=None, tags=None, order="suspicion"):
    """What the groups of the objects in a table are: a list of Group, those in none last.

    Of more than 256 objects of a group as many, evenly drawn, choose its medoid and typical rows:
    those lie far apart in the half of the group that is nearest to its mean.

    Parameters
    ----------
    table : ObjectTable
        N rows with `embeddings`.
    labels : ndarray of shape (N,), int64
        See `find_groups`; numbers of groups may be left out.
    predicted, true, tags : ndarray of shape (N,), str objects, optional
        Names of the classes of each object, None or "" where it has none; its tag or "".
    order : {"suspicion", "size"}
        The most suspicious, or the largest group first.
    """
    if order not in ORDERS:
        raise ValueError(f"`order` must be one of {', '.join(ORDERS)}, got {order!r}")
    pictures = _numbers_of_pictures(table)
    by_label = np.argsort(labels, kind="stable")
    numbers, starts = np.unique(labels[by_label], return_index=True)
    groups = [
        Group(
            int(number),
            rows,
            len(np.unique(pictures[rows])),
            (typical := _typical_rows(table["embeddings"], rows))[0],
            typical,
            _mean(table["suspicion"][rows], np.nan),
            _mean(table["novelty"][rows], None) if "novelty" in table else None,
            _most_frequent(predicted, rows),
            _most_frequent(true, rows),
            "" if tags is None else Counter(tags[rows]).most_common(1)[0][0],
        )
        for number, rows in zip(numbers, np.split(by_label, starts)[1:], strict=True)
    ]
    by = (lambda group: group.suspicion) if order == "suspicion" else (lambda g: len(g.rows))
    return sorted(
        groups, key=lambda group: (max(0, -group.label), -np.nan_to_num(by(group), nan=-np.inf))
    )


def _numbers_of_pictures(table):
    numbers = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in table.image_names()])


def _typical_rows(vectors, rows):
    """At most 8 of the rows, as a tuple: see `describe_groups`."""
    if len(rows) > SAMPLE:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64)]
    points = vectors[rows]
    far = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
    inner = np.argsort(far, kind="stable")[: max(TYPICAL, len(rows) // 2)]
    rows, points = rows[inner], points[inner]
    chosen, apart = [0], np.full(len(rows), np.inf)
    while len(chosen) < min(TYPICAL, len(rows)):
        apart = np.minimum(apart, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        apart[chosen] = -1  # a twin of one that is chosen is another object
        chosen.append(int(np.argmax(apart)))
    return tuple(rows[chosen].tolist())


def _mean(values, nothing):
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else nothing


def _most_frequent(names, rows):
    """Of equally frequent ones the first in the table; None where there is none."""
    found = Counter(name for name in names[rows] if name) if names is not None else None
    return found.most_common(1)[0][0] if found else None
