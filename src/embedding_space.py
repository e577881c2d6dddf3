"""The embedding space in numbers: reduction, neighbours, clusters, density."""

import warnings

import numpy as np
from scipy.stats import gaussian_kde
from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, Isomap

METHODS = ("tsne", "isomap", "pca")
METRICS = ("euclid", "cos")
ALGORITHMS = ("k-means", "spectral", "agglomerative")
MAX_PCA_COLUMNS = 50
MIN_MANIFOLD_POINTS = 5  # fewer have no neighbourhoods worth unfolding


def reduce(embeddings, method="tsne", dimensions=2, seed=0, **options):
    """Bring embeddings to few dimensions: PCA to at most 50, then t-SNE, Isomap or nothing more.

    The same input, options and seed give the same output. Fewer than 5 points, or points that
    are all equal, are placed by PCA alone; columns that cannot be filled are zero.

    Parameters
    ----------
    embeddings : ndarray of shape (N, F), float
        Finite feature vectors, one a row; N may be 0.
    method : {"tsne", "isomap", "pca"}
    dimensions : int
        Columns of the result, at least 1.
    seed : int
    **options
        Passed to `sklearn.manifold.TSNE` (defaults: perplexity 30, learning_rate 200,
        early_exaggeration 12) or `sklearn.manifold.Isomap` (default: n_neighbors 5). Perplexity
        and neighbours are lowered where there are too few points. PCA takes none.

    Returns
    -------
    points : ndarray of shape (N, dimensions), float32

    Raises
    ------
    ValueError
        Unknown method, not a table, not finite, or an option for PCA.
    """
    embeddings = _table(embeddings, "embeddings")
    _allowed(method, METHODS, "method")
    if dimensions < 1:
        raise ValueError(f"`dimensions` must be 1 or more, got {dimensions!r}")
    if method == "pca" and options:
        raise ValueError(f"method 'pca' takes no options, got {sorted(options)}")
    points = _principal_columns(embeddings, max(MAX_PCA_COLUMNS, dimensions), seed)
    if len(points) >= MIN_MANIFOLD_POINTS and points.any():
        if method == "tsne":
            points = _tsne(points, dimensions, seed, options)
        elif method == "isomap":
            points = _isomap(points, dimensions, options)
    return _fit_columns(points, dimensions).astype(np.float32)


def neighbours(embeddings, query, count, metric="euclid"):
    """Find the rows nearest to one row; the row itself is left out, its duplicates are not.

    Parameters
    ----------
    embeddings : ndarray of shape (N, F), float
    query : int
        Row in [0, N).
    count : int
        How many neighbours; at most N - 1 come back.
    metric : {"euclid", "cos"}
        cos = 1 - (a.b) / (|a| |b|), which is 1 where a or b is zero.

    Returns
    -------
    rows : ndarray of shape (min(count, N - 1),), int64
        Nearest first; of equally near rows the lower first.
    distances : ndarray of the same shape, float64
    """
    embeddings = _table(embeddings, "embeddings")
    _allowed(metric, METRICS, "metric")
    if not 0 <= query < len(embeddings):
        raise ValueError(f"`query` must be a row in [0, {len(embeddings)}), got {query!r}")
    distances = _distances(embeddings, embeddings[query], metric)
    order = np.argsort(distances, kind="stable")
    order = order[order != query][: max(count, 0)]
    return order, distances[order]


def cluster(points, algorithm="k-means", count=8, seed=0):
    """Group points into clusters.

    Parameters
    ----------
    points : ndarray of shape (N, D), float
    algorithm : {"k-means", "spectral", "agglomerative"}
        Spectral clustering works on the graph of the 10 nearest neighbours, agglomerative
        clustering with Ward linkage.
    count : int
        Number of clusters in [1, N]. Where there are fewer different points, each is a cluster.
    seed : int

    Returns
    -------
    labels : ndarray of shape (N,), int64
        Cluster of each point, from 0.
    """
    points = _table(points, "points")
    _allowed(algorithm, ALGORITHMS, "algorithm")
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
        labels = AgglomerativeClustering(count, linkage="ward").fit_predict(points)
    return labels.astype(np.int64)


def elbow(points, counts, seed=0):
    """Spread that k-means leaves for each number of clusters, to choose one at the bend.

    Parameters
    ----------
    points : ndarray of shape (N, D), float
    counts : sequence of int
        Numbers of clusters, each in [1, N].
    seed : int

    Returns
    -------
    inertias : ndarray of shape (len(counts),), float64
        Sum of squared distances of the points to the centre of their cluster.
    """
    points = _table(points, "points")
    for count in counts:
        _check_count(count, len(points))
    different = len(np.unique(points, axis=0))
    return np.array(
        [_k_means(points, c, seed).inertia_ if c < different else 0.0 for c in counts], np.float64
    )


def density(points, grid):
    """Gaussian kernel density of points in the plane, bandwidth by Scott's rule.

    Points that span no area (fewer than 3, all equal, on one line) are blurred by 2 % of the
    grid's width and height first.

    Parameters
    ----------
    points : ndarray of shape (N, 2), float
    grid : tuple of (ndarray of shape (W,), ndarray of shape (H,))
        The x and the y coordinates of the grid, each ascending.

    Returns
    -------
    values : ndarray of shape (H, W), float64
        Density at each crossing; its integral over the plane is 1. Zero where N = 0.
    """
    points = _table(points, "points")
    x, y = (np.asarray(axis, np.float64) for axis in grid)
    if not len(points):
        return np.zeros((len(y), len(x)))
    if len(points) < 3 or np.linalg.matrix_rank(points - points.mean(axis=0), rtol=1e-6) < 2:
        blur = 0.02 * np.array([x[-1] - x[0], y[-1] - y[0]])
        offsets = blur * [(1, 0), (-1, 0), (0, 1), (0, -1)]
        points = (points[:, None] + offsets).reshape(-1, 2)
    crossings = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return gaussian_kde(points.T)(crossings.T).reshape(len(y), len(x))


def _table(values, name):
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"`{name}` must have the shape (rows, columns), got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be finite; row {_first_bad_row(values)} is not")
    return values


def _first_bad_row(values):
    return int(np.argmin(np.isfinite(values).all(axis=1)))


def _allowed(value, known, name):
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}")


def _check_count(count, n_points):
    if not 1 <= count <= n_points:
        raise ValueError(f"the number of clusters must be in [1, {n_points}], got {count!r}")


def _distances(embeddings, vector, metric):
    if metric == "euclid":
        return np.sqrt(np.square(embeddings - vector).sum(axis=1))
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(vector)
    return 1 - embeddings @ vector / np.where(lengths > 0, lengths, 1)


def _principal_columns(embeddings, limit, seed):
    """Coordinates along the principal axes, at most `limit`; zeros where all rows are equal."""
    columns = min(limit, *embeddings.shape)
    if len(embeddings) < 2 or (embeddings == embeddings[0]).all():
        return np.zeros((len(embeddings), columns))  # PCA would divide by no variance
    return PCA(columns, random_state=seed).fit_transform(embeddings)


def _fit_columns(points, dimensions):
    missing = max(dimensions - points.shape[1], 0)
    return np.pad(points[:, :dimensions], ((0, 0), (0, missing)))


def _tsne(points, dimensions, seed, options):
    settings = {"perplexity": 30.0, "learning_rate": 200.0, "early_exaggeration": 12.0, **options}
    settings["perplexity"] = min(settings["perplexity"], (len(points) - 1) / 3)
    start = _fit_columns(points, dimensions)  # the principal axes: no chance, large shapes kept
    settings.setdefault("init", (start / start[:, 0].std() * 1e-4).astype(np.float32))
    settings.setdefault("method", "barnes_hut" if dimensions < 4 else "exact")
    return TSNE(dimensions, random_state=seed, **settings).fit_transform(points)


def _isomap(points, dimensions, options):
    settings = {"n_neighbors": 5, **options}
    settings["n_neighbors"] = min(settings["n_neighbors"], len(points) - 1)
    with warnings.catch_warnings():
        # Islands in the neighbour graph are joined by their nearest points: no cause for alarm.
        warnings.simplefilter("ignore")
        columns = min(dimensions, len(points))
        return Isomap(n_components=columns, **settings).fit_transform(points)


def _k_means(points, count, seed):
    return KMeans(count, n_init=10, random_state=seed).fit(points)


def _spectral(points, count, seed):
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
