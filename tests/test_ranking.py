"""More like these: the order of all objects by examples and counter-examples."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from src.embedding import ranking
from src.embedding.ranking import more_like

LINE = np.array([[0, 0], [3, 4], [6, 8], [10, 0], [10, 1]], np.float32)


def test_the_nearest_of_several_examples_counts():
    scores = more_like(LINE, [0, 3])
    # (6, 8) is 10 from (0, 0) and sqrt(16 + 64) from (10, 0)
    assert_allclose(scores, [0, -5, -np.sqrt(80), 0, -1], atol=1e-5)
    assert scores.dtype == np.float32


def test_what_is_nearer_to_a_counter_example_comes_behind_all_others():
    scores = more_like(LINE, [0], [4])
    # to (0, 0): 0, 5, 10, 10, sqrt(101); to (10, 1): 10.05, 7.6, 8.06, 1, 0
    assert_array_equal(np.argsort(-scores, kind="stable"), [0, 1, 2, 3, 4])
    far = np.sqrt(101)
    assert_allclose(scores, [0, -5, -10 - far, -10 - far, -2 * far], rtol=1e-6)


def test_five_of_both_make_a_linear_model_that_sees_the_feature_that_counts():
    # the first value tells them apart; the second is noise in which neighbours would be sought
    vectors = np.array([[side, k] for side in (1, -1) for k in range(-10, 11)], np.float32)
    examples, others = range(8, 13), range(29, 34)  # k from -2 to 2 on each side
    scores = more_like(vectors, examples, others)
    assert (scores[:21] > 0).all() and (scores[21:] < 0).all()
    assert_allclose(scores[:21], scores[0], rtol=1e-4)  # so noise does not count
    # the same with fewer: by distance, beyond k = 4 other things are told apart by little
    assert np.ptp(more_like(vectors, examples, others[:4])[:21]) > 5


def test_the_model_gives_the_same_for_vectors_of_any_length_and_place():
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    rows = range(5), range(5, 12)
    scores = more_like(vectors, *rows)
    assert_array_equal(more_like(vectors, *rows), scores)
    assert_allclose(more_like(1000 * vectors + 50, *rows), scores, atol=1e-3)


def test_examples_that_are_all_alike_need_no_spread():
    assert_allclose(more_like(np.ones((10, 2), np.float32), range(5), range(5, 10)), 0, atol=1e-6)


def test_objects_are_ranked_the_same_in_blocks(monkeypatch):
    vectors = np.random.default_rng(0).integers(0, 9, (50, 3)).astype(np.float32)
    whole = more_like(vectors, [3, 4], [5])
    monkeypatch.setattr(ranking, "VALUES_AT_ONCE", 7)  # of which a row takes 3
    assert_allclose(more_like(vectors, [3, 4], [5]), whole, atol=1e-4)


@pytest.mark.parametrize(
    ("examples", "others", "words"),
    [
        ([], [1], "at least one row"),
        ([5], [], r"`examples` must be rows in \[0, 5\), got \[5\]"),
        ([0], [-1], r"`counter_examples` must be rows in \[0, 5\), got \[-1\]"),
        ([0, 1], [1], r"got \[1\] as both"),
    ],
)
def test_rows_that_cannot_be_are_refused(examples, others, words):
    with pytest.raises(ValueError, match=words):
        more_like(LINE, examples, others)
