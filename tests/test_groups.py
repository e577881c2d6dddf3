import numpy as np
import pytest
from numpy.testing import assert_array_equal

from src.embedding.groups import describe_groups, find_groups, min_group_size
from tests.factories import object_table


def heaps(*sizes):
    """Vectors in heaps far apart, one size each, in the order of the heaps."""
    rng = np.random.default_rng(0)
    centres = 100 * np.eye(len(sizes), 8)
    return np.vstack([rng.normal(centres[k], 1, (size, 8)) for k, size in enumerate(sizes)])


def test_heaps_are_groups_the_largest_first():
    labels = find_groups(heaps(20, 40, 30))
    assert_array_equal(labels, [2] * 20 + [0] * 40 + [1] * 30)


def test_what_lies_alone_is_in_no_group():
    vectors = np.vstack([heaps(20, 20), [[0.0] * 7 + [500]], [[0.0] * 7 + [-500]]])
    assert_array_equal(find_groups(vectors), [0] * 20 + [1] * 20 + [-1, -1])


def test_neighbours_are_all_that_it_takes():
    from sklearn.cluster import HDBSCAN

    vectors = np.random.default_rng(0).normal(size=(400, 3)) ** 3
    labels = find_groups(vectors)
    exact = HDBSCAN(min_cluster_size=4, min_samples=2, max_cluster_size=300, copy=True)
    expected = exact.fit_predict(vectors - vectors.mean(axis=0))
    assert expected.max() > 5
    assert_array_equal(labels[:, None] == labels, expected[:, None] == expected)


def test_twins_are_a_group_however_many_there_are():
    vectors = np.repeat(np.eye(3, 8), 40, axis=0)  # more twins than a graph has neighbours
    assert_array_equal(find_groups(vectors), np.repeat([0, 1, 2], 40))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 17])
def test_groups_of_few_objects_are_found_too(count):
    labels = find_groups(np.random.default_rng(0).normal(size=(count, 3)))
    assert labels.shape == (count,) and labels.dtype == np.int64
    assert_array_equal(find_groups(np.ones((count, 3))), np.full(count, 0 if count > 3 else -1))


def test_a_group_is_four_objects_or_more_of_many():
    assert [min_group_size(count) for count in (1, 669, 100_000)] == [4, 5, 63]


def test_finding_groups_tells_how_far_it_is_and_can_be_cancelled(monkeypatch):
    monkeypatch.setattr("src.embedding.groups.ROWS_AT_ONCE", 40)
    calls = []
    find_groups(heaps(50, 50), progress=lambda *done: calls.append(done))
    assert calls == [(0, 100), (40, 100), (80, 100), (100, 100)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_groups(heaps(50, 50), progress=cancel)


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`vectors` must be finite; row 1 is not"):
        find_groups(np.array([[0.0], [np.nan]]))


# figures of groups


def table_of_six():
    return object_table(
        6,
        embeddings=np.array([[0.0], [1], [3], [50], [54], [99]], np.float32),
        image_index=[0, 0, 1, 1, 1, 2],
        suspicion=np.array([0.5, 0.25, 0.75, 1, 0.5, 0.9], np.float32),
        novelty=np.array([1, np.nan, 2, np.nan, np.nan, 5], np.float32),
    )


LABELS = np.array([4, 4, 4, 0, 0, -1])


def test_a_group_is_told_in_figures():
    names = np.array(["road", "car", "car", "car", "road", "sky"], object)
    true = np.array(["", "tent", "tent", None, "", "dog"], object)
    tags = np.array(["", "Zelt", "Zelt", "", "", ""], object)
    two, three, noise = describe_groups(
        table_of_six(), LABELS, predicted=names, true=true, tags=tags
    )
    assert (three.label, three.rows.tolist(), three.n_images) == (4, [0, 1, 2], 2)
    assert three.medoid == 1  # the mean is 4 / 3
    assert three.typical == (1, 2, 0)  # 2 is farther from 1 than 0 is
    assert (three.suspicion, three.novelty) == (0.5, 1.5)
    assert (three.predicted, three.true, three.tag) == ("car", "tent", "Zelt")
    assert (two.label, two.suspicion, two.novelty) == (0, 0.75, None)
    assert (two.predicted, two.true, two.tag) == ("car", None, "")
    assert (noise.label, noise.rows.tolist(), noise.true) == (-1, [5], "dog")


def test_groups_come_by_suspicion_or_by_size_and_noise_last():
    def labels(order):
        return [g.label for g in describe_groups(table_of_six(), LABELS, order=order)]

    assert labels("suspicion") == [0, 4, -1]  # 0.75, 0.5 and 0.9
    assert labels("size") == [4, 0, -1]
    with pytest.raises(ValueError, match="`order` must be one of suspicion, size, got 'age'"):
        labels("age")


def test_names_and_tags_need_not_be_known():
    group = describe_groups(table_of_six(), LABELS)[0]
    assert (group.predicted, group.true, group.tag) == (None, None, "")


def test_typical_rows_are_eight_spread_over_the_inner_half():
    vectors = np.arange(-20, 21, dtype=np.float32)[:, None]  # the mean is in row 20
    table = object_table(41, embeddings=vectors)
    (group,) = describe_groups(table, np.zeros(41, np.int64))
    assert group.medoid == group.typical[0] == 20
    assert len(set(group.typical)) == 8
    assert min(group.typical) == 10 and max(group.typical) >= 29  # of rows 10 to 30
