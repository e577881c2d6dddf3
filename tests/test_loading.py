"""From entries of the configuration to objects."""

import json
import sys
from collections import namedtuple
from fractions import Fraction

import numpy as np
import pytest

from src import loading
from src.loading import SettingError

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
    assert loading.choose({"half": HALF}, "half", "number") is HALF


def test_an_unknown_name_lists_what_exists_and_the_nearest():
    entries = {"streets": 1, "cityscapes_val": 2}
    with pytest.raises(SettingError) as caught:
        loading.choose(entries, "strets", "dataset")
    message = str(caught.value)
    assert "no dataset 'strets'. Did you mean 'streets'?" in message
    assert "'streets', 'cityscapes_val'" in message


def test_a_name_like_no_other_gets_no_guess():
    with pytest.raises(SettingError, match="no model 'x'. Entries .*: 'streets'"):
        loading.choose({"streets": 1}, "x", "model")


def test_a_setting_error_prints_without_traceback_and_is_a_value_error():
    error = SettingError("wrong")
    assert isinstance(error, loading.SacredError) and isinstance(error, ValueError)
    assert not error.print_traceback
    assert str(error) == "wrong"


def test_build_makes_the_object_from_the_entry():
    assert loading.build(HALF) == Fraction(1, 2)


def test_arguments_of_the_call_win_over_those_of_the_entry():
    assert loading.build(HALF, denominator=3) == Fraction(1, 3)
    assert HALF.kwargs["denominator"] == 2  # the entry is as it was


def test_positional_arguments_come_first():
    entry = Entry("pair", "fractions", "Fraction", {"denominator": 4})
    assert loading.build(entry, 3) == Fraction(3, 4)


def test_a_module_of_the_current_folder_can_be_named(user_folder):
    (user_folder / "own_module_a.py").write_text("class Mine:\n    pass\n")
    entry = Entry("mine", "own_module_a", "Mine", {})
    assert type(loading.build(entry)).__name__ == "Mine"


def test_a_module_of_the_repository_can_be_named_from_anywhere(user_folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(loading.REPOSITORY)])
    entry = Entry("error", "src.loading", "SettingError", {"message": "x"})
    assert isinstance(loading.build(entry), SettingError)
    assert str(loading.REPOSITORY) in sys.path


def test_a_missing_module_is_named_with_where_it_was_looked_for(user_folder):
    entry = HALF._replace(module_name="no_such.module")
    with pytest.raises(SettingError) as caught:
        loading.build(entry)
    for part in ("'half'", "'no_such.module'", str(user_folder), str(loading.REPOSITORY)):
        assert part in str(caught.value)


def test_a_module_that_needs_a_missing_package_says_which(user_folder):
    (user_folder / "own_module_b.py").write_text("import no_such_package\n")
    entry = HALF._replace(module_name="own_module_b")
    with pytest.raises(SettingError, match="'own_module_b' needs 'no_such_package'"):
        loading.build(entry)


def test_a_missing_class_is_named_with_those_that_exist():
    entry = HALF._replace(class_name="Fractoin")
    with pytest.raises(SettingError, match="no class 'Fractoin'; it defines 'Fraction'"):
        loading.build(entry)


def test_arguments_that_the_class_does_not_take_are_named():
    entry = HALF._replace(kwargs={"numerater": 1})
    with pytest.raises(SettingError, match=r"'half': Fraction\(.*'numerater'"):
        loading.build(entry)


def test_an_error_inside_the_class_stays_what_it_is():
    with pytest.raises(ZeroDivisionError):
        loading.build(HALF, denominator=0)


def test_names_beside_the_class_can_be_read():
    entry = Entry("loading", "src.loading", "SettingError", {})
    assert loading.module_attribute(entry, "NO_LABEL") == 255
    assert loading.module_attribute(entry, "mean", default=None) is None
    with pytest.raises(SettingError, match="'loading': module 'src.loading' must define `mean`"):
        loading.module_attribute(entry, "mean")


GREY = (128, 128, 128)


def test_ids_meet_by_class_name_whatever_the_case():
    labels = {0: ("Car", GREY), 7: ("road", GREY), 9: ("Dog", GREY), 12: ("road", GREY)}
    predictions = {0: ("road", GREY), 13: ("car", GREY)}
    table = loading.match_ids(labels, predictions)
    assert table.dtype == np.uint8 and table.shape == (256,)
    assert [table[i] for i in (0, 7, 9, 12)] == [13, 0, 255, 0]  # nothing predicts dogs
    assert (np.delete(table, [0, 7, 12]) == 255).all()


def test_no_label_stays_no_label_even_where_it_has_a_name():
    both = {0: ("road", GREY), 255: ("unlabeled", GREY)}
    assert loading.match_ids(both, {**both, 3: ("other", GREY)})[255] == 255
    assert loading.match_ids({255: ("road", GREY)}, {0: ("road", GREY)})[255] == 255


@pytest.mark.parametrize("wrong", [-1, 256])
def test_ids_beyond_one_byte_are_refused(wrong):
    good, bad = {0: ("road", GREY)}, {wrong: ("plate", GREY)}
    with pytest.raises(ValueError, match=rf"`label_mapping` must lie in 0..255, got \[{wrong}\]"):
        loading.match_ids(bad, good)
    with pytest.raises(ValueError, match=rf"`pred_mapping` must lie in 0..255, got \[{wrong}\]"):
        loading.match_ids(good, bad)


def test_two_predicted_ids_of_one_name_are_refused():
    with pytest.raises(ValueError, match="name each class once, got 'Road' twice"):
        loading.match_ids({}, {0: ("road", GREY), 1: ("Road", GREY)})


def test_an_identity_equals_itself_after_a_way_through_a_file():
    entry = Model("any", "torch.nn", "Conv2d", {"kernel_size": (3, 5)}, None)
    identity = loading.identity(entry)
    assert identity == json.loads(json.dumps(identity))
    assert identity["kwargs"] == {"kernel_size": [3, 5]}


@pytest.mark.parametrize("value", [0, -1, 2.0, "two", True])
def test_a_count_that_is_none_is_refused_by_its_name(value):
    with pytest.raises(SettingError, match=r"`args.num_images` must be a whole number >= 1"):
        loading.check_counts(num_images=value)
