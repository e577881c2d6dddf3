"""From entries of the configuration to objects."""

import json
import logging
import re
import sys
from collections import namedtuple
from fractions import Fraction

import numpy as np
import pytest

from src import class_ids, registry
from src.errors import RunError, SettingError
from src.run import choice
from src.store import provenance

Entry = namedtuple("Entry", "name module_name class_name kwargs")
Model = namedtuple("Model", [*Entry._fields, "model_weights"])
HALF = Entry("half", "fractions", "Fraction", {"numerator": 1, "denominator": 2})


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """The current folder, with room for a user's own modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_choose_gives_the_entry_of_that_name():
    assert registry.choose({"half": HALF}, "half", "number") is HALF


def test_an_unknown_name_lists_what_exists_and_the_nearest():
    entries = {"streets": 1, "cityscapes_val": 2}
    with pytest.raises(SettingError) as caught:
        registry.choose(entries, "strets", "dataset")
    message = str(caught.value)
    assert "no dataset 'strets'. Did you mean 'streets'?" in message
    assert "'streets', 'cityscapes_val'" in message


def test_a_name_like_no_other_gets_no_guess():
    with pytest.raises(SettingError, match="no model 'x'. Entries .*: 'streets'"):
        registry.choose({"streets": 1}, "x", "model")


def test_a_setting_error_prints_without_traceback_and_is_a_value_error():
    error = SettingError("wrong")
    assert isinstance(error, RunError) and isinstance(error, ValueError)
    assert not error.print_traceback
    assert str(error) == "wrong"


def test_build_makes_the_object_from_the_entry():
    assert registry.build(HALF) == Fraction(1, 2)


def test_arguments_of_the_call_win_over_those_of_the_entry():
    assert registry.build(HALF, denominator=3) == Fraction(1, 3)
    assert HALF.kwargs["denominator"] == 2  # the entry is as it was


def test_positional_arguments_come_first():
    entry = Entry("pair", "fractions", "Fraction", {"denominator": 4})
    assert registry.build(entry, 3) == Fraction(3, 4)


def test_a_module_of_the_current_folder_can_be_named(user_folder):
    (user_folder / "own_module_a.py").write_text("class Mine:\n    pass\n")
    entry = Entry("mine", "own_module_a", "Mine", {})
    assert type(registry.build(entry)).__name__ == "Mine"


def test_a_module_of_the_repository_can_be_named_from_anywhere(user_folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(registry.REPOSITORY)])
    entry = Entry("error", "src.errors", "SettingError", {"message": "x"})
    assert isinstance(registry.build(entry), SettingError)
    assert str(registry.REPOSITORY) in sys.path


def test_a_missing_module_is_named_with_where_it_was_looked_for(user_folder):
    entry = HALF._replace(module_name="no_such.module")
    with pytest.raises(SettingError) as caught:
        registry.build(entry)
    for part in ("'half'", "'no_such.module'", str(user_folder), str(registry.REPOSITORY)):
        assert part in str(caught.value)


def test_a_module_that_needs_a_missing_package_says_which(user_folder):
    (user_folder / "own_module_b.py").write_text("import no_such_package\n")
    entry = HALF._replace(module_name="own_module_b")
    with pytest.raises(SettingError, match="'own_module_b' needs 'no_such_package'"):
        registry.build(entry)


def test_a_missing_class_is_named_with_those_that_exist():
    entry = HALF._replace(class_name="Fractoin")
    with pytest.raises(SettingError, match="no class 'Fractoin'; it defines 'Fraction'"):
        registry.build(entry)


def test_arguments_that_the_class_does_not_take_are_named():
    entry = HALF._replace(kwargs={"numerater": 1})
    with pytest.raises(SettingError, match=r"'half': Fraction\(.*'numerater'"):
        registry.build(entry)


def test_an_error_inside_the_class_stays_what_it_is():
    with pytest.raises(ZeroDivisionError):
        registry.build(HALF, denominator=0)


def test_names_beside_the_class_can_be_read():
    entry = Entry("loading", "src.records", "Prediction", {})
    assert registry.module_attribute(entry, "NO_LABEL") == 255
    assert registry.module_attribute(entry, "mean", default=None) is None
    with pytest.raises(SettingError, match="'loading': module 'src.records' must define `mean`"):
        registry.module_attribute(entry, "mean")


GREY = (128, 128, 128)


def test_ids_meet_by_class_name_whatever_the_case():
    labels = {0: ("Car", GREY), 7: ("road", GREY), 9: ("Dog", GREY), 12: ("road", GREY)}
    predictions = {0: ("road", GREY), 13: ("car", GREY)}
    table = class_ids.match_ids(labels, predictions)
    assert table.dtype == np.uint8 and table.shape == (256,)
    assert [table[i] for i in (0, 7, 9, 12)] == [13, 0, 255, 0]  # nothing predicts dogs
    assert (np.delete(table, [0, 7, 12]) == 255).all()


def test_no_label_stays_no_label_even_where_it_has_a_name():
    both = {0: ("road", GREY), 255: ("unlabeled", GREY)}
    assert class_ids.match_ids(both, {**both, 3: ("other", GREY)})[255] == 255
    assert class_ids.match_ids({255: ("road", GREY)}, {0: ("road", GREY)})[255] == 255


@pytest.mark.parametrize("wrong", [-1, 256])
def test_ids_beyond_one_byte_are_refused(wrong):
    good, bad = {0: ("road", GREY)}, {wrong: ("plate", GREY)}
    with pytest.raises(ValueError, match=rf"`label_mapping` must lie in 0..255, got \[{wrong}\]"):
        class_ids.match_ids(bad, good)
    with pytest.raises(ValueError, match=rf"`pred_mapping` must lie in 0..255, got \[{wrong}\]"):
        class_ids.match_ids(good, bad)


def test_two_predicted_ids_of_one_name_are_refused():
    with pytest.raises(ValueError, match="name each class once, got 'Road' twice"):
        class_ids.match_ids({}, {0: ("road", GREY), 1: ("Road", GREY)})


def test_a_class_can_be_learnt_under_another_name():
    labels = {0: ("Car 1", GREY), 1: ("Car 2", GREY), 2: ("Animals", GREY), 3: ("Sky", GREY)}
    train_ids = {0: "car", 1: "Car", 2: "dynamic"}  # nothing predicts "dynamic"
    table = class_ids.match_ids(labels, {4: ("car", GREY), 10: ("sky", GREY)}, train_ids)
    assert table[:5].tolist() == [4, 4, 255, 10, 255]


def test_a_class_that_is_learnt_under_its_own_name_is_that_class():
    labels = {0: ("Car 1", GREY)}
    predictions = {4: ("car", GREY), 5: ("Car 1", GREY)}
    assert class_ids.match_ids(labels, predictions, {0: "car"})[0] == 5


@pytest.mark.parametrize("train_ids", [{1: "car"}, {0: 13}, {0: None}])
def test_train_ids_that_name_nothing_are_refused(train_ids):
    with pytest.raises(ValueError, match="`train_ids` must map ids of `label_mapping` to names"):
        class_ids.match_ids({0: ("Car 1", GREY)}, {13: ("car", GREY)}, train_ids)


DATASETS = """
class Roads:
    pred_mapping = label_mapping = {0: ("road", (1, 2, 3))}


class Streets:
    label_mapping = {5: ("RD normal street", (1, 2, 3))}
    train_ids = {5: "road"}


class Seas:
    label_mapping = {5: ("sea", (1, 2, 3))}


class Pictures:
    pass
"""


@pytest.mark.parametrize(
    ("kind", "expected", "warned"),
    [("Streets", 0, False), ("Seas", 255, True), ("Pictures", 255, False)],
)
def test_a_truth_without_counterpart_is_told(user_folder, caplog, kind, expected, warned):
    (user_folder / "own_module_c.py").write_text(DATASETS)
    entry = Entry("mine", "own_module_c", kind, {})
    known = class_ids.class_mapping(Entry("roads", "own_module_c", "Roads", {}), "pred_mapping")
    table = class_ids.predicted_ids(entry, known, logging.getLogger("test"))
    assert table[5] == expected
    message = "the true IoU of segments of 'mine' is unknown: .*`train_ids` of Seas .*(road)"
    assert bool(caplog.messages) is warned
    assert not warned or re.search(message, caplog.text)


CLASSES = [
    {"id": 7, "name": "Car 1", "images": [1, 4, 5]},
    {"id": 8, "name": "Car 2", "images": [2]},
    {"id": 41, "name": "Tractor", "images": []},
    {"id": 60, "name": "car 2", "images": [2, 3]},
]


def test_without_a_choice_every_image_is_meant():
    assert choice.chosen_indices(3) == [0, 1, 2]
    assert choice.chosen_indices(3, 2) == [0, 1]
    assert choice.chosen_indices(3, 9) == [0, 1, 2]


@pytest.mark.parametrize(
    ("classindex", "expected"), [("Car 1", [1, 4, 5]), ("CAR 2", [2, 3]), (7, [1, 4, 5]), (8, [2])]
)
def test_images_are_chosen_by_name_or_id_of_a_class(classindex, expected):
    assert choice.chosen_indices(6, classindex=classindex, classes=CLASSES) == expected


def test_images_are_chosen_by_a_list(tmp_path):
    subset = tmp_path / "subset.txt"
    subset.write_text("5\n1\n\n 3 \n1\n")
    assert choice.chosen_indices(6, subset_file=subset) == [1, 3, 5]
    assert choice.chosen_indices(6, 2, subset_file=subset) == [1, 3]  # the first so many of them
    both = dict(classindex="Car 1", classes=CLASSES, subset_file=subset)
    assert choice.chosen_indices(6, **both) == [1, 5]


def test_an_unknown_class_gets_the_nearest_names():
    with pytest.raises(SettingError) as caught:
        choice.chosen_indices(6, classindex="traktor", classes=CLASSES)
    message = str(caught.value)
    assert "`args.classindex` must be the name or id of a class, got 'traktor'." in message
    assert "Did you mean 'Tractor'? Classes: 7 'Car 1', 8 'Car 2', 41 'Tractor'" in message
    with pytest.raises(SettingError, match="got 9. Classes: 7 'Car 1'"):
        choice.chosen_indices(6, classindex=9, classes=CLASSES)


def test_a_class_in_no_image_leaves_nothing():
    with pytest.raises(SettingError, match="none of the 6 images fits `args.classindex` 'tractor'"):
        choice.chosen_indices(6, classindex="tractor", classes=CLASSES)


@pytest.mark.parametrize("line", ["6", "-1", "2.0", "two", "[0, 1]"])
def test_a_line_that_is_no_index_is_named(tmp_path, line):
    subset = tmp_path / "subset.txt"
    subset.write_text(f"0\n\n{line}\n")
    message = rf"subset.txt must hold one index a line, from 0 to 5; got {re.escape(repr(line))} "
    with pytest.raises(SettingError, match=message + r"\(line 3\)$"):
        choice.chosen_indices(6, subset_file=subset)


def test_of_many_wrong_lines_the_first_are_named(tmp_path):
    subset = tmp_path / "subset.txt"
    subset.write_text("\n".join(map(str, range(100, 107))))
    with pytest.raises(SettingError, match=r"'100' \(line 1\), .*'104' \(line 5\) and 2 more$"):
        choice.chosen_indices(100, subset_file=subset)


@pytest.mark.parametrize("content", [None, b"\xff\xfe0"])
def test_a_list_that_cannot_be_read_is_named(tmp_path, content):
    subset = tmp_path / "subset.txt"
    if content:
        subset.write_bytes(content)
    with pytest.raises(SettingError, match="`args.subset_file` must be a text file .*subset.txt"):
        choice.chosen_indices(6, subset_file=subset)


def test_a_dataset_has_an_identity_too():
    identity = provenance.identity(HALF)
    assert identity["class"] == "fractions.Fraction"
    assert identity["kwargs"] == {"numerator": 1, "denominator": 2}


def test_an_identity_equals_itself_after_a_way_through_a_file():
    entry = Model("any", "torch.nn", "Conv2d", {"kernel_size": (3, 5)}, None)
    identity = provenance.identity(entry)
    assert identity == json.loads(json.dumps(identity))
    assert identity["kwargs"] == {"kernel_size": [3, 5]}
