"""`classes.json`: its forms, and what is wrong with one."""

import json

import pytest

from src.errors import SettingError
from src.model.classes_json import describe_by


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        (["road", "car"], {0: "road", 1: "car"}),
        ({"1": "car", "0": {"name": "road"}}, {0: "road", 1: "car"}),
        ({"0": {"name": "road", "color": [1, 2, 3]}}, {0: ("road", (1, 2, 3))}),
    ],
)
def test_each_form_gives_the_classes_alone_and_beside_mean_and_std(content, classes, tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(content))
    assert describe_by(tmp_path) == {"classes": classes, "from": str(path)}
    path.write_text(json.dumps({"classes": content, "mean": [0, 0.5, 1], "std": [1, 1, 2]}))
    beside = {"mean": (0.0, 0.5, 1.0), "std": (1.0, 1.0, 2.0)}
    assert describe_by(tmp_path) == {"classes": classes, "from": str(path), **beside}


def test_no_file_says_nothing(tmp_path):
    assert describe_by(tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[", "Expecting value"),
        ("[]", "there are no classes"),
        ("7", "there are no classes"),
        ('{"0": "road", "2": "car"}', "ids must be 0 to 1, got 0, 2"),
        ('{"road": 0}', "no name|invalid literal"),
        ('{"0": "road", "0": "car"}', "says twice what one of 0 is"),
        ('["road", 7]', "class 1 has no name: 7"),
        ('[{"name": "road", "color": [1, 2, 300]}]', "color of class 0 .* 300"),
        ('{"classes": ["road"], "mean": [1, 2]}', r"mean must be 3 numbers: \[1, 2\]"),
        ('{"classes": ["road"], "std": [1, 2, 0]}', "std must be above 0"),
        ('{"classes": ["road"], "std": [1, 2, NaN]}', "std must be 3 numbers"),
    ],
)
def test_what_is_wrong_is_said_with_the_form(content, expected, tmp_path):
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(SettingError, match=rf"classes\.json must be a list .*{expected}"):
        describe_by(tmp_path)
