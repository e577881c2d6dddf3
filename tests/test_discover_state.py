"""What the explorer's user has chosen: groups, filters, selections, tags, questions."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from src.discover import state
from src.discover.questions import Question
from src.errors import SettingError
from src.store.paths import tags_path
from src.store.tags import change_tags, read_tags

RED, BLUE = (255, 0, 0), (0, 0, 255)


def groups_of(codes, names):
    colours = np.zeros((len(names), 3), np.uint8)
    return state.Groups(np.array(codes), tuple(names), colours)


@pytest.fixture
def first():
    """A state of four segments without anything chosen."""
    return state.State(state.BY_TRUTH, np.zeros(4, bool), np.zeros(4, np.int64))


def test_for_a_set_stands_its_first_that_is_kept_or_else_its_first():
    sets, order = np.array([0, 1, 0, 1, 2, 0]), np.array([5, 3, 2, 1, 0, 4])
    every = np.ones(6, bool)
    assert_array_equal(state.standing(sets, every, order), [5, 3, 5, 3, 4, 5])
    kept = np.array([1, 0, 1, 0, 0, 0], bool)
    assert_array_equal(state.standing(sets, kept, order), [2, 3, 2, 3, 4, 2])


# groups


def test_values_with_one_name_are_one_group_in_the_first_colour():
    entries = {3: ("cow", RED), 5: ("car", BLUE), 8: ("cow", BLUE)}
    groups = state.group_by_name(np.array([8, 5, 3, 3]), entries.__getitem__)
    assert groups.names == ("cow", "car")
    assert_array_equal(groups.codes, [0, 1, 0, 0])
    assert_array_equal(groups.colours, [RED, BLUE])
    assert_array_equal(groups.counts(), [3, 1])
    assert_array_equal(groups.counts(np.array([True, False, False, True])), [2, 0])


def test_a_scale_has_equal_steps_that_hold_its_ends_and_what_is_beyond():
    colours = np.zeros((4, 3), np.uint8)
    values = np.array([0.0, 0.24, 0.26, 1.0, 1.1, -0.1, np.nan])
    groups = state.group_by_step(state.Scale(values, (0.0, 1.0)), colours, (9, 9, 9))
    assert_array_equal(groups.codes, [0, 0, 1, 3, 3, 0, 4])
    assert groups.names[4] == "unknown"
    assert_array_equal(groups.colours[4], (9, 9, 9))
    assert groups.names[1] == "0.25 to 0.50"


@pytest.mark.parametrize(
    ("values", "extent", "text"),
    [
        ([0.1, 0.3, np.nan], (0.1, 0.3), "0.20"),  # predicted IoUs
        ([-18.25, -2.5], (-19, -2), "0.20"),  # energies
        ([3e-5, 0.00021], (3e-5, 0.00021), "0.20000"),
        ([0.75], (0.7, 0.8), "0.20"),
        ([np.nan], (0, 1), "0.20"),
    ],
)
def test_a_scale_ends_on_round_numbers_and_tells_its_values_apart(values, extent, text):
    scale = state.Scale.of(np.array(values, np.float32))
    assert scale.extent == pytest.approx(extent)
    assert scale.text(0.2) == text
    assert scale.is_known() == (values != [np.nan])


# filters


def test_a_segment_is_kept_that_passes_every_filter(first):
    ways = {
        "class": groups_of([0, 0, 1, 1], ["cow", "car"]),
        "dataset": groups_of([0, 1, 0, 1], ["a", "b"]),
    }
    scales = {
        state.BY_IOU: state.Scale.of([0.1, 0.2, 0.3, np.nan]),
        state.BY_SUSPICION: state.Scale.of([5, 9, 2, 7]),
    }

    def kept(**changes):
        return state.kept_rows(replace(first, **changes), ways.__getitem__, scales).tolist()

    assert kept() == [True, True, True, True]
    assert kept(hidden=frozenset({("class", "cow")})) == [False, False, True, True]
    both = frozenset({("class", "cow"), ("dataset", "b")})
    assert kept(hidden=both) == [False, False, True, False]
    assert kept(ranges={state.BY_IOU: (0.2, np.inf)}) == [False, True, True, False]
    both = {state.BY_IOU: (-np.inf, 0.2), state.BY_SUSPICION: (6, np.inf)}
    assert kept(ranges=both) == [False, True, False, False]
    assert kept(hidden=frozenset({("class", "gone")})) == [True, True, True, True]


def test_a_group_is_hidden_and_shown_in_turn():
    hidden = state.toggled(frozenset(), "class", "cow")
    assert hidden == {("class", "cow")}
    assert state.toggled(hidden, "class", "cow") == frozenset()


def test_one_group_alone_leaves_other_ways_as_they_are():
    before = frozenset({("class", "cow"), ("dataset", "b")})
    names = ("cow", "car", "cat")
    alone = state.only(before, "class", "cow", names)
    assert alone == {("class", "car"), ("class", "cat"), ("dataset", "b")}
    assert state.only(alone, "class", "cow", names) == {("dataset", "b")}


# selections


def test_a_polygon_holds_the_points_inside_it_only():
    points = np.array([(1, 1), (5, 5), (3, 1), (9, 1)], float)
    triangle = np.array([(0, 0), (6, 0), (0, 6)], float)
    assert state.inside(points, triangle).tolist() == [True, False, True, False]
    assert not state.inside(points, triangle[:2]).any()
    hollow = np.array([(0, 0), (10, 0), (10, 2), (2, 2), (2, 8), (0, 8)], float)
    assert state.inside(points, hollow).tolist() == [True, False, True, True]


def test_a_selection_is_replaced_grown_or_shrunk():
    old, new = np.array([True, True, False]), np.array([False, True, True])
    assert state.combined(old, new, "replace").tolist() == [False, True, True]
    assert state.combined(old, new, "add").tolist() == [True, True, True]
    assert state.combined(old, new, "remove").tolist() == [True, False, False]


# tags


def test_a_tag_is_given_changed_and_taken(first):
    one = state.tagged(first, [0, 2], "cow")
    two = state.tagged(one, [2, 3], "car")
    three = state.tagged(two, [0], "")
    assert three.tag_names == ("cow", "car")
    assert_array_equal(one.tags, [1, 0, 1, 0])
    assert_array_equal(three.tags, [0, 0, 2, 2])
    assert_array_equal(first.tags, [0, 0, 0, 0])


def test_tags_are_read_as_they_were_written(tmp_path):
    path = tags_path(tmp_path / "model" / "embeddings_16_16_net.v2.p")
    assert path.name == "embeddings_16_16_net.v2_tags.json"
    assert read_tags(path) == []
    tags = [("streets", 3, 7, (0, 1, 20, 30), 'Kühe, "am" Zaun'), ("b", 0, 1, (0, 0, 1, 1), "x")]
    change_tags(path, {(*key,): tag for *key, tag in tags})
    assert read_tags(path) == tags
    assert json.loads(path.read_text(encoding="utf-8"))["tags"][0]["tag"] == 'Kühe, "am" Zaun'


@pytest.mark.parametrize("content", ["{", '{"tags": [{"tag": 1}]}', "[]"])
def test_broken_tags_are_named_and_not_overwritten(tmp_path, content):
    path = tmp_path / "tags.json"
    path.write_text(content)
    with pytest.raises(SettingError, match=r"tags\.json is broken"):
        read_tags(path)


# questions


class Wall:
    """Remembers the last banner."""

    def show_banner(self, text):
        self.text = text


def test_a_question_takes_text_as_it_is_typed_until_enter():
    answers = []
    wall = Wall()
    question = Question(wall, "Name", "any text", answers.append)
    assert wall.text.splitlines()[:2] == ["Name: ▏", "any text"]
    for key in ("A", " ", "b", "shift", "f5", "backspace", "ü"):
        assert question.press(key) is None
    assert wall.text.startswith("Name: A ü")
    assert question.press("enter") == "answered"
    assert answers == ["A ü"]
    assert wall.text == ""


def test_a_question_asks_again_with_a_remark_and_can_be_cancelled():
    wall = Wall()
    question = Question(wall, "Number", "1 to 3", lambda answer: f"{answer!r} is none")
    for key in ("x", "enter"):
        assert question.press(key) is None
    assert wall.text.splitlines()[:2] == ["'x' is none", "Number: ▏"]
    assert question.press("escape") == "cancelled"
    assert wall.text == ""
