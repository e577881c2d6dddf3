"""Reduction, neighbours, clusters, elbow and density of an embedding space."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import gaussian_kde
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from threadpoolctl import threadpool_info, threadpool_limits

from src.embedding import space as embedding_space
from src.embedding.groups import find_groups
from src.embedding.space import (
    ALGORITHMS,
    METHODS,
    cluster,
    density,
    elbow,
    nearest,
    neighbours,
    place,
    reduce,
)


def blobs(n_each=12, columns=6):
    """Three groups of points, far apart; row i belongs to group i % 3."""
    generator = np.random.default_rng(1)
    groups = np.arange(3 * n_each) % 3
    return 20 * np.eye(3, columns)[groups] + generator.normal(size=(3 * n_each, columns)), groups


def same_partition(labels, groups):
    return len(set(zip(labels, groups, strict=True))) == len(set(groups)) == len(set(labels))


@pytest.mark.parametrize("method", METHODS)
def test_groups_stay_together_and_the_same_input_gives_the_same_map(method):
    embeddings, groups = blobs()
    points = reduce(embeddings, method, 2, seed=3)
    assert points.shape == (36, 2)
    assert points.dtype == np.float32
    assert_array_equal(points, reduce(embeddings, method, 2, seed=3))
    nearest = [neighbours(points, row, 1)[0][0] for row in range(len(points))]
    assert_array_equal(groups[nearest], groups)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_rows", [0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("columns", [1, 4])
def test_few_points_give_a_map(method, n_rows, columns):
    embeddings = np.random.default_rng(0).normal(size=(n_rows, columns))
    points = reduce(embeddings, method)
    assert points.shape == (n_rows, 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("method", METHODS)
def test_identical_vectors_give_a_map(method):
    assert_array_equal(reduce(np.full((40, 7), 0.3), method), np.zeros((40, 2)))
    half = np.repeat(np.eye(2, 7), 20, axis=0)  # two places, twenty times each
    assert np.isfinite(reduce(half, method)).all()


@pytest.fixture
def by_fft(monkeypatch):
    """t-SNE by openTSNE, however few the points; short, as it is slow with few."""
    monkeypatch.setattr(embedding_space, "FFT_POINTS", 0)
    monkeypatch.setattr(embedding_space, "EXAGGERATED_ITERATIONS", 40)


def test_both_implementations_keep_the_neighbourhoods(by_fft, monkeypatch):
    embeddings = load_digits().data[:500]
    kept = []
    for fft_points, iterations in ((0, 90), (501, 300)):
        monkeypatch.setattr(embedding_space, "FFT_POINTS", fft_points)
        points = reduce(embeddings, "tsne", max_iter=iterations, learning_rate=20, n_jobs=1)
        kept.append(trustworthiness(embeddings, points, n_neighbors=10))
    assert min(kept) > 0.98
    assert_allclose(kept[0], kept[1], atol=0.01)


@pytest.mark.parametrize("exact_points", [0, 120])
def test_the_map_by_fft_is_the_same_on_any_number_of_threads(exact_points, by_fft, monkeypatch):
    monkeypatch.setattr(embedding_space, "EXACT_POINTS", exact_points)
    embeddings, groups = blobs(40)
    options = {"max_iter": 60, "learning_rate": 5}
    points = reduce(embeddings, "tsne", n_jobs=1, **options)
    assert_array_equal(points, reduce(embeddings, "tsne", n_jobs=2, **options))
    nearest_rows = [neighbours(points, row, 1)[0][0] for row in range(len(points))]
    assert_array_equal(groups[nearest_rows], groups)


@pytest.mark.parametrize("places", [1, 2])
def test_identical_vectors_give_a_map_by_fft(places, by_fft):
    repeated = np.repeat(np.eye(places, 7), 40, axis=0)
    points = reduce(repeated, "tsne", max_iter=50, learning_rate="auto", n_jobs=1)
    assert points.shape == (40 * places, 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("option", [{"angle": 0.9}, {"init": "random"}, {"dimensions": 3}])
def test_what_only_scikit_learn_can_do_is_done_by_it(option, monkeypatch):
    expected = reduce(blobs()[0], "tsne", max_iter=250, **option)
    monkeypatch.setattr(embedding_space, "FFT_POINTS", 0)
    assert_array_equal(reduce(blobs()[0], "tsne", max_iter=250, **option), expected)


def most_threads():
    """Of the pools in the process: how many the largest may use here."""
    return max(pool["num_threads"] for pool in threadpool_info())


def test_few_points_take_one_thread_and_many_take_all(monkeypatch):
    embeddings, seen = blobs()[0], []

    def note(*_):  # called by what computes, which has shown enough then
        seen.append(most_threads())
        raise InterruptedError

    def threads_of(function, **options):
        with threadpool_limits(2), pytest.raises(InterruptedError):
            function(embeddings, **options)
        return seen.pop()

    assert threads_of(reduce, metric=note) == 1
    assert threads_of(find_groups, progress=note) == 1
    monkeypatch.setattr(embedding_space, "ONE_THREAD_TSNE_POINTS", len(embeddings) - 1)
    assert threads_of(reduce, metric=note) == 2


def test_a_new_segment_lies_among_its_neighbours_and_a_duplicate_on_its_twin():
    embeddings, groups = blobs()
    points = reduce(embeddings, "pca")
    generator = np.random.default_rng(2)
    new = np.concatenate([embeddings[:9], embeddings[:9] + generator.normal(0, 0.1, (9, 6))])
    before = points.copy()
    placed = place(new, embeddings, points)
    assert (placed.shape, placed.dtype) == ((18, 2), np.float32)
    assert_array_equal(points, before)
    assert_array_equal(placed[:9], points[:9])
    assert_array_equal(
        [groups[nearest(points, p, 1)[0][0]] for p in placed], groups[:9].tolist() * 2
    )


def test_a_new_segment_lies_at_the_median_of_the_five_nearest():
    embeddings = np.arange(7.0)[:, None]
    points = np.array(
        [[0, 1, 2], [10, 0, 5], [3, 3, 3], [90, -9, 4], [5, 5, 0], [0, 0, 0], [1, 1, 1]]
    )
    assert_array_equal(place([[1.9]], embeddings, points), [[5, 1, 3]])  # of the first five rows


def test_few_points_can_be_placed():
    one = place(np.zeros((3, 4)), np.ones((1, 4)), np.array([[5.0, 6.0, 7.0]]))
    assert_array_equal(one, [[5, 6, 7]] * 3)
    assert place(np.zeros((0, 4)), np.ones((2, 4)), np.ones((2, 3))).shape == (0, 3)
    same = place(np.ones((2, 4)), np.ones((9, 4)), np.full((9, 2), 3.0))
    assert_array_equal(same, np.full((2, 2), 3))
    with pytest.raises(ValueError, match="at least one segment"):
        place(np.ones((1, 4)), np.ones((0, 4)), np.ones((0, 2)))


def test_more_dimensions_than_the_picture_needs():
    assert reduce(blobs()[0], "tsne", 5, max_iter=250).shape == (36, 5)
    assert reduce(blobs()[0], "pca", 9)[:, 6:].any() == np.False_  # six columns have no more


def test_principal_components_keep_the_widest_direction():
    embeddings = np.array([[0.0, 0.0], [0.0, 10.0], [1.0, 5.0], [-1.0, 5.0]])
    assert_allclose(np.abs(reduce(embeddings, "pca", 1)).ravel(), [5, 5, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "umap"}, "'tsne', 'isomap', 'pca', got 'umap'"),
        ({"dimensions": 0}, "1 or more"),
        ({"method": "pca", "perplexity": 3}, "takes no options"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        reduce(np.zeros((3, 2)), **arguments)


def test_a_row_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="row 1 is not"):
        reduce(np.array([[0.0, 1.0], [np.nan, 1.0]]))


def test_neighbours_come_nearest_first_with_their_distances():
    rows, distances = neighbours(np.array([[0.0], [5.0], [1.0], [-2.0]]), 0, 2)
    assert_array_equal(rows, [2, 3])
    assert_array_equal(distances, [1, 2])


def test_the_cosine_looks_at_directions():
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [100.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    rows, distances = neighbours(embeddings, 0, 9, "cos")
    assert_array_equal(rows, [2, 1, 3, 4])
    assert_allclose(distances, [0, 1, 1, 2])


@pytest.mark.parametrize("metric", ["euclid", "cos"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_are_those_of_a_whole_sort(metric, dtype):
    generator = np.random.default_rng(0)
    exact = generator.integers(-2, 3, (400, 3)).astype(float)  # many lie equally near
    vector = np.array([1.0, 0.5, -1.0])
    if metric == "euclid":
        expected = np.sqrt(np.square(exact - vector).sum(axis=1))
    else:
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(vector)
        expected = 1 - exact @ vector / np.where(lengths > 0, lengths, 1)
    for count in (0, 1, 7, 50, 399, 400, 500):
        rows, distances = nearest(exact.astype(dtype), vector, count, metric)
        assert len(rows) == min(count, 400)
        assert_allclose(distances, np.sort(expected)[:count], atol=1e-12)
        assert_allclose(distances, expected[rows], atol=1e-12)
        assert (np.diff(rows)[np.diff(distances) == 0] > 0).all()


def test_a_row_of_a_large_table_is_compared_block_by_block(monkeypatch):
    monkeypatch.setattr(embedding_space, "VALUES_AT_ONCE", 7)
    rows, distances = nearest(np.arange(20.0).reshape(10, 2), [8.0, 9.0], 3)
    assert_array_equal(rows, [4, 3, 5])
    assert_allclose(distances, [0, 8**0.5, 8**0.5])


def test_rows_that_are_not_finite_come_last():
    embeddings = np.array([[np.nan], [3.0], [1.0], [np.nan]])
    assert_array_equal(neighbours(embeddings, 1, 1)[0], [2])
    assert_array_equal(neighbours(embeddings, 1, 9)[0], [2, 0, 3])


@pytest.mark.parametrize("metric", ["euclid", "cos"])
def test_the_query_is_left_out_and_its_duplicates_are_not(metric):
    rows, distances = neighbours(np.ones((4, 2)), 2, 3, metric)
    assert_array_equal(rows, [0, 1, 3])
    assert_allclose(distances, 0, atol=1e-12)


def test_wrong_queries_and_metrics_are_named():
    with pytest.raises(ValueError, match=r"row in \[0, 3\), got 3"):
        neighbours(np.zeros((3, 1)), 3, 1)
    with pytest.raises(ValueError, match="'euclid', 'cos', got 'taxi'"):
        neighbours(np.zeros((3, 1)), 0, 1, "taxi")
    with pytest.raises(ValueError, match=r"shape \(1,\), got \(2,\)"):
        nearest(np.zeros((3, 1)), [1, 2], 1)
    with pytest.raises(ValueError, match="`vector` must be finite"):
        nearest(np.zeros((3, 1)), [np.inf], 1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_finds_separate_groups(algorithm):
    points, groups = blobs()
    assert same_partition(cluster(points, algorithm, 3, seed=0), groups)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_few_or_equal_points_can_be_clustered(algorithm):
    assert_array_equal(cluster(np.zeros((6, 2)), algorithm, 3), np.zeros(6))
    assert_array_equal(cluster(np.array([[1.0], [0.0], [1.0]]), algorithm, 3), [1, 0, 1])
    assert_array_equal(cluster(np.zeros((1, 2)), algorithm, 1), [0])
    assert set(cluster(np.arange(4.0)[:, None], algorithm, 3)) == {0, 1, 2}


@pytest.mark.parametrize("count", [0, 4])
def test_an_impossible_number_of_clusters_is_named(count):
    with pytest.raises(ValueError, match=rf"in \[1, 3\], got {count}"):
        cluster(np.eye(3), "k-means", count)


def test_more_points_than_a_method_takes_are_refused_before_any_work():
    points = np.zeros((10_001, 2))
    with pytest.raises(ValueError, match="agglomerative takes up to 10,000 points, got 10,001"):
        cluster(points, "agglomerative", 3)
    with pytest.raises(ValueError, match="isomap takes up to 10,000 points, got 10,001; use fewer"):
        reduce(points, "isomap")
    with pytest.raises(ValueError, match="up to 100,000 points.*use k-means"):
        cluster(np.zeros((100_001, 1)), "spectral", 3)
    assert_array_equal(cluster(points, "k-means", 3), np.zeros(10_001))


def test_the_elbow_lies_at_the_true_number_of_groups():
    inertias = elbow(blobs()[0], [1, 2, 3, 4])
    assert (np.diff(inertias) < 0).all()
    assert np.argmax(np.diff(inertias, 2)) == 1  # the sharpest bend: at 3
    assert_array_equal(elbow(np.zeros((3, 2)), [1, 2, 3]), [0, 0, 0])


def test_the_density_integrates_to_one_and_peaks_at_the_points():
    points = np.random.default_rng(0).normal(size=(50, 2)) + [3, 0]
    x, y = np.linspace(-4, 10, 57), np.linspace(-7, 7, 43)
    values = density(points, (x, y))
    assert values.shape == (43, 57)
    assert_allclose(values.sum() * (x[1] - x[0]) * (y[1] - y[0]), 1, rtol=1e-3)
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert abs(x[column] - 3) < 1
    assert abs(y[row]) < 1


@pytest.mark.parametrize(
    "points",
    [np.zeros((1, 2)), np.zeros((5, 2)), np.eye(2), np.array([[0.0, 0], [1, 1], [3, 3], [4, 4]])],
)
def test_points_without_an_area_have_a_density(points):
    values = density(points, (np.linspace(-1, 5, 20), np.linspace(-1, 5, 20)))
    assert np.isfinite(values).all()
    assert values.max() > 0
    assert not density(points[:0], (np.arange(3), np.arange(4))).any()


def test_the_density_of_many_points_is_that_of_the_exact_estimate():
    generator = np.random.default_rng(0)
    tilted = generator.normal(size=(3000, 2)) @ [[9, 3], [0, 1]] + [50, -7]
    tilted[:900] += [12, 20]
    grid = np.linspace(20, 90, 41), np.linspace(-20, 40, 37)  # some points lie outside
    expected = gaussian_kde(tilted.T)(np.stack(np.meshgrid(*grid)).reshape(2, -1)).reshape(37, 41)
    assert_allclose(density(tilted, grid), expected, atol=0.01 * expected.max())


@pytest.mark.parametrize("count", [9, 900])
def test_a_narrower_bandwidth_is_that_share_of_scotts(count):
    points = np.random.default_rng(0).normal(size=(count, 2))
    x, y = np.linspace(-2, 2, 7), np.linspace(-2, 2, 9)
    kernel = gaussian_kde(points.T, lambda its: 0.5 * its.scotts_factor())
    expected = kernel(np.stack(np.meshgrid(x, y)).reshape(2, -1)).reshape(9, 7)
    assert_allclose(density(points, (x, y), 0.5), expected, atol=0.01 * expected.max())


def test_a_point_far_out_does_not_make_the_density_large():
    points = np.random.default_rng(0).normal(size=(2000, 2))
    points[0] = 1e9
    values = density(points, (np.linspace(-1e8, 1e9, 20), np.linspace(-1e8, 1e9, 20)))
    assert np.isfinite(values).all()
    assert values.max() > 0
