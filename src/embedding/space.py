"""The embedding space in numbers: reduction, neighbours, clusters, density.

Embeddings and points are ndarrays of shape (N, F), float: N finite feature vectors, one a row. The
same input, options and seed give the same output. Each function raises a ValueError that names what
it does not know, cannot take, or has too much of.

scikit-learn and openTSNE are imported where they are used: that takes two seconds, and showing a
stored map needs neither.
"""

import inspect
import warnings

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits

METHODS = ("tsne", "isomap", "pca")
METRICS = ("euclid", "cos")
ALGORITHMS = ("k-means", "spectral", "agglomerative")
MAX_PCA_COLUMNS = 50
MIN_MANIFOLD_POINTS = 5  # fewer have no neighbourhoods worth unfolding
FFT_POINTS = 6_000  # beyond, openTSNE is faster: 2 times at 10,000, 0.5 times at 3,000 (one core)
EXAGGERATED_ITERATIONS = 125  # at its start; 250, as in scikit-learn, made no better map
ITERATIONS = 400  # of it, where `max_iter` says nothing
EXACT_POINTS = 200_000  # beyond, exact neighbours take most of the time, which grows with N²
ONE_THREAD_POINTS = 10_000  # of PCA, k-means, HDBSCAN; PCA of 5,000 takes 4 times as long on two
ONE_THREAD_TSNE_POINTS = 1_000  # beyond, two threads are 1.5 times as fast, where both have a core
FFT_OPTIONS = {  # what both know; openTSNE calls `max_iter` otherwise
    "perplexity", "learning_rate", "early_exaggeration", "max_iter", "n_jobs", "verbose",
}  # fmt: skip
PLACING_NEIGHBOURS = 5  # of a new point on a map
VALUES_AT_ONCE = 2**20  # of vectors, in float64
EXACT_DENSITY_POINTS = 500
BINS_PER_BANDWIDTH = 8  # of a density of more points
MAX_BINS = 2000  # along an axis; fewer to a bandwidth where points lie far out
MAX_POINTS = {  # of what would need all the memory, or many minutes, beyond
    "isomap": 10_000,  # a matrix of distances takes 0.8 GB
    "agglomerative": 10_000,  # the same
    "spectral": 100_000,  # 4 to 10 s in the plane, 0.4 GB
}


def reduce(embeddings, method="tsne", dimensions=2, seed=0, **options):
    """Bring embeddings to few dimensions: PCA to at most 50, then t-SNE, Isomap or nothing more.

    Fewer than 5 points, or points that are all equal, are placed by PCA alone; columns that cannot
    be filled are zero. Isomap takes up to 10,000 points.

    Parameters
    ----------
    method : {"tsne", "isomap", "pca"}
    dimensions : int
        Columns of the result, at least 1.
    **options
        Passed to `sklearn.manifold.TSNE` (defaults: perplexity 30, learning_rate 200,
        early_exaggeration 12) or `sklearn.manifold.Isomap` (default: n_neighbors 5). From 6,000
        points on t-SNE is openTSNE's, unless there are options besides those three, max_iter,
        n_jobs and verbose, or 3 dimensions or more: scikit-learn's are slow then. Its defaults are
        learning_rate "auto" (Belkina et al., 2019) and max_iter 400. Perplexity and neighbours are
        lowered where there are too few points. PCA takes none.

    Returns
    -------
    points : ndarray of shape (N, dimensions), float32
    """
    embeddings = checked_table(embeddings, "embeddings")
    _allowed(method, METHODS, "method")
    if dimensions < 1:
        raise ValueError(f"`dimensions` must be 1 or more, got {dimensions!r}")
    if method == "pca" and options:
        raise ValueError(f"method 'pca' takes no options, got {sorted(options)}")
    _check_size(embeddings, method, "use fewer, or 'tsne'")
    points = principal_columns(embeddings, max(MAX_PCA_COLUMNS, dimensions), seed)
    if len(points) >= MIN_MANIFOLD_POINTS and points.any():
        if method == "tsne":
            points = _tsne(points, dimensions, seed, options)
        elif method == "isomap":
            points = _isomap(points, dimensions, options)
    return _fit_columns(points, dimensions).astype(np.float32)


def place(new, embeddings, points):
    """Place further embeddings on a map that is there, each where its nearest neighbours lie.

    That is the median, column by column, of the 5 nearest; a duplicate lies where its twin does.
    So it works for a map of any kind, and keeps as many neighbours as the optimisation by which
    openTSNE does the same, without looking for the neighbours of every old segment again. The map,
    `points` (N, D), made from `embeddings` (N, F), stays as it is; those that are `new` (M, F) come
    to places (M, D), float32. N is at least 1.
    """
    new, embeddings, points = map(
        checked_table, (new, embeddings, points), ("new", "embeddings", "points")
    )
    if not len(points):
        raise ValueError("`points` must hold at least one segment to place others beside")
    if not len(new):
        return np.zeros((0, points.shape[1]), np.float32)
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(PLACING_NEIGHBOURS, len(points)), algorithm="brute")
    rows = search.fit(embeddings).kneighbors(new, return_distance=False)
    twins = (embeddings[rows[:, 0]] == new).all(axis=1)
    placed = np.where(twins[:, None], points[rows[:, 0]], np.median(points[rows], axis=1))
    return placed.astype(np.float32)


def tsne_options():
    """Names of the options that `reduce` passes to t-SNE: a set of str."""
    from sklearn.manifold import TSNE

    own = {"n_components", "method", "random_state"}  # `reduce` sets these itself
    return set(inspect.signature(TSNE).parameters) - own


def neighbours(embeddings, query, count, metric="euclid"):
    """Find the rows nearest to one row; the row itself is left out, its duplicates are not.

    Parameters
    ----------
    query : int
        Row in [0, N).
    count : int
        How many neighbours; at most N - 1 come back.
    metric : {"euclid", "cos"}
        cos = 1 - (a.b) / (|a| |b|), which is 1 where a or b is zero.

    Returns
    -------
    rows : ndarray of shape (min(count, N - 1),), int64
        Nearest first; of equally near rows the lower first. Rows that are not finite come last.
    distances : ndarray of the same shape, float64
    """
    if not 0 <= query < len(embeddings):
        raise ValueError(f"`query` must be a row in [0, {len(embeddings)}), got {query!r}")
    count = max(count, 0)
    rows, distances = nearest(embeddings, embeddings[query], count + 1, metric)
    others = rows != query  # among many duplicates it may not be there
    return rows[others][:count], distances[others][:count]


def nearest(embeddings, vector, count, metric="euclid"):
    """Find the rows nearest to a finite vector (F,), at most N; otherwise as `neighbours`."""
    embeddings, vector = np.asarray(embeddings), np.asarray(vector, np.float64)
    _allowed(metric, METRICS, "metric")
    if vector.shape != embeddings.shape[1:]:
        raise ValueError(f"`vector` must have the shape {embeddings.shape[1:]}, got {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError("`vector` must be finite")
    distances = _distances(embeddings, vector, metric)
    candidates = np.arange(len(distances))
    if 0 < count < len(distances):  # sort no more than the nearest and those equally near
        farthest = np.partition(distances, count - 1)[count - 1]
        candidates = np.flatnonzero(~(distances > farthest))
    rows = candidates[np.argsort(distances[candidates], kind="stable")][: max(count, 0)]
    return rows, distances[rows]


def cluster(points, algorithm="k-means", count=8, seed=0):
    """Group points into clusters.

    Parameters
    ----------
    algorithm : {"k-means", "spectral", "agglomerative"}
        Spectral clustering works on the graph of the 10 nearest neighbours, agglomerative
        clustering with Ward linkage. They take up to 100,000 and 10,000 points.
    count : int
        Number of clusters in [1, N]. Where there are fewer different points, each is a cluster.

    Returns
    -------
    labels : ndarray of shape (N,), int64
        Cluster of each point, from 0.
    """
    points = checked_table(points, "points")
    _allowed(algorithm, ALGORITHMS, "algorithm")
    _check_size(points, algorithm, "use k-means")
    _check_count(count, len(points))
    different, labels = np.unique(points, axis=0, return_inverse=True)
    if count >= len(different):
        return labels.reshape(-1).astype(np.int64)
    if count == 1:
        return np.zeros(len(points), np.int64)
    if algorithm == "k-means":
        labels = _k_means(points, count, seed).labels_
    elif algorithm == "spectral":
        labels = _spectral(points, count, seed)
    else:
        from sklearn.cluster import AgglomerativeClustering

        labels = AgglomerativeClustering(count, linkage="ward").fit_predict(points)
    return labels.astype(np.int64)


def elbow(points, counts, seed=0):
    """Spread that k-means leaves for each number of clusters, to choose one at the bend.

    For each of the `counts` in [1, N] that is the sum of squared distances of the points to the
    centre of their cluster.
    """
    points = checked_table(points, "points")
    for count in counts:
        _check_count(count, len(points))
    different = len(np.unique(points, axis=0))
    return np.array(
        [_k_means(points, c, seed).inertia_ if c < different else 0.0 for c in counts], np.float64
    )


def density(points, grid, bandwidth=1.0):
    """Gaussian kernel density of points in the plane.

    Points that span no area (fewer than 3, all equal, on one line) are blurred by 2 % of the
    grid's width and height first. More than 500 points are counted in bins, an eighth of
    the bandwidth wide: the error stays below 1 % of the highest value.

    Parameters
    ----------
    points : ndarray of shape (N, 2), float
    grid : tuple of (ndarray of shape (W,), ndarray of shape (H,))
        The x and the y coordinates of the grid, each ascending.
    bandwidth : float
        Share of the bandwidth by Scott's rule; smaller shows finer structure.

    Returns
    -------
    values : ndarray of shape (H, W), float64
        Density at each crossing; its integral over the plane is 1. Zero where N = 0.
    """
    points = checked_table(points, "points")
    x, y = (np.asarray(axis, np.float64) for axis in grid)
    if not len(points):
        return np.zeros((len(y), len(x)))
    if len(points) < 3 or np.linalg.matrix_rank(np.cov(points.T), rtol=1e-12) < 2:
        blur = 0.02 * np.array([x[-1] - x[0], y[-1] - y[0]])
        offsets = blur * [(1, 0), (-1, 0), (0, 1), (0, -1)]
        points = (points[:, None] + offsets).reshape(-1, 2)
    crossings = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    if len(points) <= EXACT_DENSITY_POINTS:
        from scipy.stats import gaussian_kde

        kernel = gaussian_kde(points.T, lambda its: bandwidth * its.scotts_factor())
        values = kernel(crossings.T)
    else:
        values = _binned_density(points, crossings, bandwidth)
    return values.reshape(len(y), len(x))


def _binned_density(points, crossings, bandwidth):
    """Kernel density (G,) at G crossings: a histogram of the points, blurred by the kernel.

    In coordinates where the kernel is round, with a standard deviation of `width` bins.
    """
    factor = bandwidth * len(points) ** (-1 / 6)  # Scott's in the plane
    to_round = np.linalg.inv(factor * np.linalg.cholesky(np.cov(points.T))).T
    points, crossings = points @ to_round, crossings @ to_round
    width = min(BINS_PER_BANDWIDTH, MAX_BINS / np.ptp(points, axis=0).max())
    points, crossings = points * width, crossings * width
    margin = int(np.ceil(4 * width))  # beyond which the kernel is 0 here
    origin = points.min(axis=0) - margin
    rows, columns = np.rint(points - origin).astype(np.int64).T
    shape = rows.max() + margin + 1, columns.max() + margin + 1
    counts = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).astype(float)
    blur = np.sqrt(max(width**2 - 1 / 12, 0))  # rounding to bins has blurred by 1 / 12
    blurred = gaussian_filter(counts.reshape(shape), blur, mode="constant", truncate=4)
    values = map_coordinates(blurred, (crossings - origin).T, order=1, mode="constant")
    return values * np.linalg.det(to_round) * width**2 / len(points)


def checked_table(values, name):
    values = np.asarray(values)
    if values.dtype != np.float32:  # which may be too large for a copy
        values = values.astype(np.float64, copy=False)
    if values.ndim != 2:
        raise ValueError(f"`{name}` must have the shape (rows, columns), got {values.shape}")
    if not np.isfinite(values).all():
        row = np.argmin(np.isfinite(values).all(axis=1))
        raise ValueError(f"`{name}` must be finite; row {row} is not")
    return values


def one_thread_for(count, few=ONE_THREAD_POINTS):
    """A context in which libraries compute by one thread, where `count` points are `few` at most.

    Threads would wait for each other longer than they work, and longer beside other programs. What
    computes is imported before: what is loaded later is not limited.
    """
    return threadpool_limits(1 if count <= few else None)


def _allowed(value, known, name):
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}")


def _check_size(points, method, instead):
    most = MAX_POINTS.get(method, len(points))
    if len(points) > most:
        raise ValueError(f"{method} takes up to {most:,} points, got {len(points):,}; {instead}")


def _check_count(count, n_points):
    if not 1 <= count <= n_points:
        raise ValueError(f"the number of clusters must be in [1, {n_points}], got {count!r}")


def _distances(embeddings, vector, metric):
    """Distances (N,) float64, a few rows after the other: no float64 copy of the table."""
    distances = np.empty(len(embeddings))
    step = max(1, VALUES_AT_ONCE // max(1, len(vector)))
    for start in range(0, len(embeddings), step):
        rows = embeddings[start : start + step].astype(np.float64)
        distances[start : start + step] = _row_distances(rows, vector, metric)
    return distances


def _row_distances(rows, vector, metric):
    # sums by einsum: unlike those of a matrix product they are the same for equal rows
    if metric == "euclid":
        rows -= vector
        return np.sqrt(np.einsum("ij,ij->i", rows, rows))
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows) * (vector @ vector))
    return 1 - np.einsum("ij,j->i", rows, vector) / np.where(lengths > 0, lengths, 1)


def principal_columns(embeddings, limit, seed):
    """Coordinates along the principal axes, at most `limit`; zeros where all rows are equal."""
    columns = min(limit, *embeddings.shape)
    if len(embeddings) < 2 or (embeddings == embeddings[0]).all():
        return np.zeros((len(embeddings), columns))  # PCA would divide by no variance
    from sklearn.decomposition import PCA

    with one_thread_for(len(embeddings)):
        return PCA(columns, random_state=seed).fit_transform(embeddings).astype(np.float64)


def _fit_columns(points, dimensions):
    missing = max(dimensions - points.shape[1], 0)
    return np.pad(points[:, :dimensions], ((0, 0), (0, missing)))


def _tsne(points, dimensions, seed, options):
    settings = {"perplexity": 30.0, "early_exaggeration": 12.0, **options}
    settings["perplexity"] = min(settings["perplexity"], (len(points) - 1) / 3)
    start = _fit_columns(points, dimensions)  # the principal axes: no chance, large shapes kept
    start = start / start[:, 0].std() * 1e-4
    if len(points) >= FFT_POINTS and dimensions <= 2 and settings.keys() <= FFT_OPTIONS:
        return _fft_tsne(points, start, seed, settings)
    from sklearn.manifold import TSNE

    settings.setdefault("learning_rate", 200.0)
    settings.setdefault("init", start.astype(np.float32))
    settings.setdefault("method", "barnes_hut" if dimensions < 4 else "exact")
    with one_thread_for(len(points), ONE_THREAD_TSNE_POINTS):
        return TSNE(dimensions, random_state=seed, **settings).fit_transform(points)


def _fft_tsne(points, start, seed, settings):
    """t-SNE by openTSNE, whose time grows with N instead of N log N, with scikit-learn's options.

    With a learning rate that grows with N the map of 20,000 keeps more neighbours after 400
    iterations than after 1,000 with scikit-learn's.
    """
    from openTSNE import TSNE

    settings = {"learning_rate": "auto", "max_iter": ITERATIONS, "n_jobs": -1, **settings}
    iterations = settings.pop("max_iter") - EXAGGERATED_ITERATIONS  # which are counted apart
    if settings["learning_rate"] != "auto":
        settings["learning_rate"] *= 4  # a factor of the gradient that scikit-learn leaves out
    order = KDTree(points).indices  # near ones lie together in memory: a fifth less time
    points = points[order]
    tsne = TSNE(
        start.shape[1],
        early_exaggeration_iter=EXAGGERATED_ITERATIONS,
        n_iter=iterations,
        initialization=start[order],
        negative_gradient_method="fft",
        random_state=seed,
        **settings,
    )
    places = np.empty_like(start)
    places[order] = tsne.fit(points, _affinities(points, seed, tsne.perplexity, tsne.n_jobs))
    return places


def _affinities(points, seed, perplexity, n_jobs):
    """How near points are for openTSNE, which do not depend on the number of threads."""
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import Annoy, Sklearn

    count = min(int(3 * perplexity), len(points) - 1)
    if len(points) <= EXACT_POINTS:
        index = Sklearn(points, count, n_jobs=n_jobs)
    else:  # each thread would draw trees of its own
        index = Annoy(points, count, n_jobs=1, random_state=seed)
    return PerplexityBasedNN(perplexity=perplexity, knn_index=index, n_jobs=n_jobs)


def _isomap(points, dimensions, options):
    from sklearn.manifold import Isomap

    settings = {"n_neighbors": 5, **options}
    settings["n_neighbors"] = min(settings["n_neighbors"], len(points) - 1)
    with warnings.catch_warnings():
        # Islands in the neighbour graph are joined by their nearest points: no cause for alarm.
        warnings.simplefilter("ignore")
        columns = min(dimensions, len(points))
        return Isomap(n_components=columns, **settings).fit_transform(points)


def _k_means(points, count, seed):
    from sklearn.cluster import KMeans

    starts = 10 if len(points) <= 20_000 else 3  # beyond, the time would be felt, not the gain
    with one_thread_for(len(points)):
        return KMeans(count, n_init=starts, random_state=seed).fit(points)


def _spectral(points, count, seed):
    from sklearn.cluster import SpectralClustering

    graph = SpectralClustering(
        count,
        affinity="nearest_neighbors",
        n_neighbors=min(10, len(points)),
        assign_labels="cluster_qr",
        random_state=seed,
    )
    with warnings.catch_warnings():
        # An unconnected graph is what well separated clusters look like.
        warnings.simplefilter("ignore", UserWarning)
        return graph.fit_predict(points)
