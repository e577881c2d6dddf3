"""How new objects are, by hand."""

import numpy as np
import pytest
from factories import object_table
from numpy.testing import assert_allclose

from src.embedding.novelty import novelty, with_novelty
from src.errors import SettingError

KNOWN = np.array([[0, 0], [3, 4], [0, 1], [50, 50]], np.float32)


def test_novelty_is_the_distance_to_the_kth_nearest_known_vector():
    vectors = np.array([[0, 0], [3, 0]], np.float32)
    assert_allclose(novelty(vectors, KNOWN, k=1), [0, 3])
    assert_allclose(novelty(vectors, KNOWN, k=2), [1, np.sqrt(10)], rtol=1e-6)
    assert_allclose(novelty(vectors, KNOWN[:3], k=5), [5, 4])  # of three, the farthest
    assert novelty(vectors[:0], KNOWN).shape == (0,)


def test_only_trusted_segments_count_as_known():
    table = object_table(1, embeddings=np.zeros((1, 2), np.float32))
    iou = np.array([0.2, 0.5, np.nan, 0.3], np.float32)
    known = object_table(4, embeddings=KNOWN, predicted_iou=iou)
    assert_allclose(with_novelty(table, known)["novelty"], [5])  # of (3, 4) and (0, 1)
    with pytest.raises(SettingError, match="none of the 1 known segments has a predicted IoU of"):
        with_novelty(table, known.take([0]))


def test_vectors_of_another_network_are_refused():
    table = object_table(1, embeddings=np.zeros((1, 3), np.float32))
    known = object_table(4, embeddings=KNOWN)
    with pytest.raises(SettingError, match="vectors of 3 and of 2 values cannot be compared"):
        with_novelty(table, known)
