"""How new objects are, by hand."""

import numpy as np
from factories import object_table
from numpy.testing import assert_allclose, assert_array_equal

from src.embedding.novelty import Known, novelty, with_novelty
from src.store.tables import as_column

KNOWN = np.array([[1, 0], [0, 2], [3, 0], [-5, 0]], np.float32)


def test_novelty_is_the_distance_to_the_kth_nearest_known_vector_of_length_1():
    vectors = np.array([[2, 0], [0, 1]], np.float32)
    assert_allclose(novelty(vectors, KNOWN, k=1), [0, 0], atol=1e-6)
    assert_allclose(novelty(vectors, KNOWN, k=2), [0, np.sqrt(2)], atol=1e-6)
    assert_allclose(novelty(vectors, KNOWN, k=5), [2, np.sqrt(2)], rtol=1e-6)  # the farthest
    assert novelty(vectors[:0], KNOWN).shape == (0,)
    assert_array_equal(novelty(vectors, KNOWN[:0]), [np.nan, np.nan])


def test_an_object_is_not_compared_with_its_own_picture():
    known = Known(KNOWN[:3], np.array([4, 4, 5]), "streets", "")
    table = object_table(
        3,
        dataset=as_column(["streets", "streets", "woods"]),
        image_index=np.array([4, 5, 4]),
        embeddings=np.array([[2, 0]] * 3, np.float32),
    )
    expected = [0, np.sqrt(2), np.sqrt(2)]
    assert_allclose(with_novelty(table, known)["novelty"], expected, atol=1e-6)
    assert_array_equal(with_novelty(table, None)["novelty"], [np.nan] * 3)
