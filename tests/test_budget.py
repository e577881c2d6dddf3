"""Which pictures to label first, worked out by hand."""

import numpy as np
from factories import object_table
from numpy.testing import assert_allclose

from src.embedding.budget import choose_pictures, reason


def table_of(places, suspicion, images):
    """Objects on a line."""
    vectors = np.stack([places, np.zeros(len(places))], axis=1).astype(np.float32)
    return object_table(
        len(places),
        embeddings=vectors,
        suspicion=np.array(suspicion, np.float32),
        image_index=np.array(images),
    )


def test_the_most_suspicious_comes_first_then_what_is_suspicious_and_far_from_it():
    table = table_of([0, 0.1, 12, 5], [0.9, 0.8, 0.1, 0.7], [0, 1, 2, 3])
    choices = choose_pictures(table, 10)
    # shares 1, 3/4, 1/4, 1/2 times distances to row 0: 0.075, 3, 2.5; then to both: 0.075, 2.5
    assert [choice.row for choice in choices] == [0, 2, 3, 1]
    assert [choice.place for choice in choices] == [1, 4, 3, 2]
    assert [choice.nearest for choice in choices] == [None, 0, 0, 0]
    assert_allclose([choice.distance for choice in choices], [np.nan, 12, 5, 0.1], rtol=1e-5)
    assert [choice.row for choice in choose_pictures(table, 2)] == [0, 2]


def test_a_picture_is_chosen_once_and_with_all_its_objects():
    table = table_of([0, 10, 10, 1], [0.9, 0.1, 0.8, 0.7], [0, 0, 1, 2])
    choices = choose_pictures(table, 3)
    assert [(choice.row, choice.n_objects) for choice in choices] == [(0, 2), (3, 1), (2, 1)]
    assert choices[2].nearest == 1  # its twin, in the first picture


def test_objects_that_look_the_same_come_by_suspicion_and_the_unknown_last():
    table = table_of([3, 3, 3], [np.nan, 0.5, 0.75], [0, 1, 2])
    assert [choice.row for choice in choose_pictures(table, 3)] == [2, 1, 0]


def test_the_scale_of_a_score_does_not_matter():
    places, images = [0, 4, 9, 2], [0, 1, 2, 3]
    as_shares = choose_pictures(table_of(places, [0.4, 0.3, 0.2, 0.1], images), 4)
    as_scores = choose_pictures(table_of(places, [50, -1, -2, -900], images), 4)
    assert [one.row for one in as_shares] == [one.row for one in as_scores]


def test_the_reason_is_told_in_words():
    table = table_of([0, 12], [0.9, np.nan], [0, 7])
    first, second = choose_pictures(table, 2)
    assert reason(table, first) == "suspicion 0.900, place 1 of 2: where to begin"
    near = "12 from the nearest object above, in image 0 of streets"
    assert reason(table, second) == f"suspicion unknown, place 2 of 2; {near}"
