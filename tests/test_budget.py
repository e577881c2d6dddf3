"""Which pictures to label first, worked out by hand."""

import numpy as np
from factories import object_table
from numpy.testing import assert_allclose, assert_array_equal

from src.embedding.budget import choose_pictures, reason
from src.evaluation import budget
from src.records import ImageName


def table_of(places, suspicion, images):
    """Objects on a line."""
    vectors = np.stack([places, np.zeros(len(places))], axis=1).astype(np.float32)
    return object_table(
        len(places),
        embeddings=vectors,
        suspicion=np.array(suspicion, np.float32),
        image_index=np.array(images),
    )


def rows_of(table, labels, number=99):
    return [choice.row for choice in choose_pictures(table, np.array(labels), number)]


def test_the_gain_is_surprise_by_the_roots_of_labels_and_effort():
    table = table_of([0, 10, 4], [0.9, 0.5, 0.7], [0, 1, 2])
    choices = choose_pictures(table, np.array([0, 0, -1]), 9)
    # places 1, 3, 2 of 3; efforts of 2; at last one of the group of two is labelled
    gains = np.log([4, 2, 4 / 3]) / np.sqrt([2, 2, 4])
    assert [choice.row for choice in choices] == [0, 2, 1]
    assert_allclose([choice.gain for choice in choices], gains)
    assert [choice.place for choice in choices] == [1, 2, 3]
    known = [(choice.group, choice.group_size, choice.labelled) for choice in choices]
    assert known == [(0, 2, 0), (-1, 1, 0), (0, 2, 1)]


def test_groups_take_turns():
    table = table_of([0, 10, 20, 50, 60], [0.9, 0.8, 0.7, 0.2, 0.1], range(5))
    # ln 6, ln 3, ln 2, ln 1.5, ln 1.2; the third by root 3 is 0.400, less than ln 1.5 = 0.405
    assert rows_of(table, [0, 0, 0, 1, 1]) == [0, 1, 3, 2, 4]


def test_a_twin_of_what_is_labelled_teaches_nothing():
    table = table_of([5, 5, 0, 9], [0.9, 0.8, 0.7, 0.1], range(4))
    assert rows_of(table, [0, 0, 0, 0]) == [0, 2, 3, 1]
    assert rows_of(table, [0, -1, 0, 0])[:2] == [0, 1]  # in other groups they are no twins


def test_nearer_than_half_the_radius_of_its_group_an_object_counts_in_part():
    # from the mean 5: 5, 4, 4, 5; half the radius is root 41/2 / 2 = 2.26
    table = table_of([0, 1, 9, 10], [0.9, 0.8, 0.7, 0.1], range(4))
    second, third = choose_pictures(table, np.zeros(4, np.int64), 3)[1:]
    assert (second.row, third.row) == (2, 1)
    assert_allclose(second.gain, np.log(5 / 3) / 2)
    near = 1 / (np.sqrt(41 / 2) / 2)
    assert_allclose(third.gain, near * np.log(5 / 2) / np.sqrt(3) / np.sqrt(2), rtol=1e-5)


def test_all_objects_of_a_picture_count_and_all_are_effort():
    table = table_of([0, 5, 9], [0.9, 0.8, 0.7], [1, 2, 2])
    choices = choose_pictures(table, np.full(3, -1), 9)
    # ln 4 / root 2 = 0.98 and (ln 2 + ln 4/3) / root 3 = 0.57
    gains = np.log([4, 8 / 3]) / np.sqrt([2, 3])
    assert [(choice.row, choice.n_objects) for choice in choices] == [(0, 1), (1, 2)]
    assert_allclose([choice.gain for choice in choices], gains)
    table = table_of([0, 5, 9], [0.7, 0.9, 0.8], [1, 2, 2])
    first = choose_pictures(table, np.full(3, -1), 1)[0]
    assert_allclose(first.gain, np.log(8) / np.sqrt(3))


def test_a_picture_is_chosen_once_and_with_all_its_objects():
    table = table_of([0, 10, 10, 1], [0.9, 0.1, 0.8, 0.7], [0, 0, 1, 2])
    choices = choose_pictures(table, np.array([0, 0, 0, 0]), 3)
    assert sorted((choice.row, choice.n_objects) for choice in choices) == [(0, 2), (2, 1), (3, 1)]
    assert choices[-1].labelled == 3
    assert len(choose_pictures(table, np.array([0, 0, 0, 0]), 2)) == 2


def test_a_budget_of_objects_passes_over_pictures_that_have_more_than_are_left():
    table = table_of([0, 5, 9, 3, 6, 8], [0.9, 0.1, 0.8, 0.7, 0.6, 0.2], [0, 0, 1, 1, 1, 2])

    def chosen(budget, unit="objects"):
        choices = choose_pictures(table, np.full(6, -1), budget, unit=unit)
        return [(choice.row, choice.n_objects) for choice in choices]

    # (ln 7/2 + ln 7/3 + ln 7/4) / 2 = 1.33, (ln 7 + ln 7/6) / root 3 = 1.21, ln 7/5 / root 2 = 0.24
    assert chosen(3, "pictures") == chosen(6) == [(2, 3), (0, 2), (5, 1)]
    assert chosen(5) == [(2, 3), (0, 2)]
    assert chosen(4) == [(2, 3), (5, 1)]
    assert chosen(2) == [(0, 2)]


def test_objects_in_no_group_come_by_suspicion_and_the_unknown_last():
    table = table_of([3, 3, 3], [np.nan, 0.5, 0.75], [0, 1, 2])
    assert rows_of(table, [-1, -1, -1]) == [2, 1, 0]


def test_the_scale_of_a_score_does_not_matter():
    places, images, labels = [0, 4, 9, 2], [0, 1, 2, 3], [0, 1, 0, 1]
    as_shares = rows_of(table_of(places, [0.4, 0.3, 0.2, 0.1], images), labels)
    as_scores = rows_of(table_of(places, [50, -1, -2, -900], images), labels)
    assert as_shares == as_scores


def test_the_reason_is_told_in_words():
    table = table_of([0, 12, 3], [0.9, np.nan, 0.5], [0, 7, 8])
    choices = {choice.row: choice for choice in choose_pictures(table, np.array([2, 2, -1]), 3)}
    in_group = "group 3 of 2 objects, {} of them in images above"
    assert reason(table, choices[0]) == f"suspicion 0.900, place 1 of 3; {in_group.format(0)}"
    assert reason(table, choices[1]) == f"suspicion unknown, place 3 of 3; {in_group.format(1)}"
    assert reason(table, choices[2]) == "suspicion 0.500, place 2 of 3; in no group"


# the simulation


def test_curves_are_shares_of_all_that_is_unknown_and_of_the_effort():
    # objects of two kinds, pixels, effort
    held = [budget.Held(np.array(of), *rest) for of, *rest in [([2, 0], 30, 10), ([0, 0], 0, 30)]]
    held.append(budget.Held(np.array([1, 1]), 10, 10))
    assert_allclose(
        budget.curve(held),  # pictures, effort, kinds, objects, pixels
        [
            [1 / 3, 0.2, 0.5, 0.5, 0.75],
            [2 / 3, 0.8, 0.5, 0.5, 0.75],
            [1, 1, 1, 1, 1],
        ],
    )
    at = budget.at_budgets(budget.curve(held)[None])
    # of the objects at a tenth, a quarter and half of the pictures, and of the effort
    assert_allclose(at[0, 0, 1], [0.15, 0.375, 0.5])
    assert_allclose(at[0, 1, 1], [0.25, 0.5, 0.5])


def test_the_effort_is_the_length_of_the_borders():
    truth = np.zeros((4, 5), np.uint8)
    truth[1:3, 1:3] = 7
    # left and upper side of the square, and right of and below it: 3 + 2 + 2, one corner shared
    assert budget.border_length(truth) == 7
    assert budget.border_length(np.zeros((4, 5), np.uint8)) == 0


def test_every_way_labels_each_picture_once():
    table = table_of([0, 0.1, 12, 5], [0.9, 0.8, 0.1, 0.7], [0, 1, 2, 3])
    names = [ImageName("streets", index) for index in (4, 3, 2, 1, 0)]  # 4 has no object
    orders = budget.ways(table, names, 0)
    for order in sum(orders.values(), []):
        assert sorted(order) == sorted(names)
    (suspicious,), (far,) = orders["most suspicious first"], orders["farthest first"]
    assert [name.index for name in suspicious] == [0, 1, 3, 2, 4]
    # shares 1, 3/4, 1/4, 1/2 times distances to row 0: 0.075, 3, 2.5; then to both: 0.075, 2.5
    assert [name.index for name in far] == [0, 2, 3, 1, 4]
    assert len(orders["at random"]) == budget.SEEDS
    assert_array_equal(orders["at random"], budget.ways(table, names, 0)["at random"])
