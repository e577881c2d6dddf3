"""Reduction, neighbours, clusters, elbow and density of an embedding space."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from src.embedding_space import ALGORITHMS, METHODS, cluster, density, elbow, neighbours, reduce


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
def test_the_query_is_left_out_and_its_duplicates_are_not(metric):
    rows, distances = neighbours(np.ones((4, 2)), 2, 3, metric)
    assert_array_equal(rows, [0, 1, 3])
    assert_allclose(distances, 0, atol=1e-12)


def test_wrong_queries_and_metrics_are_named():
    with pytest.raises(ValueError, match=r"row in \[0, 3\), got 3"):
        neighbours(np.zeros((3, 1)), 3, 1)
    with pytest.raises(ValueError, match="'euclid', 'cos', got 'taxi'"):
        neighbours(np.zeros((3, 1)), 0, 1, "taxi")


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
