"""`classes.json`: what stands beside a network of another program, or beside its predictions.

A list of names in the order of the ids, or an object from each id, "0" upwards, to its name or to
{"name": ..., "color": [red, green, blue]}; or an object that has either as "classes", and may have
"mean" and "std" of the network's input, 3 numbers each for RGB in 0..1.
"""

import json
import os
from pathlib import Path

from src.errors import SettingError

NAME = "classes.json"


def describe_by(folder):
    """What `classes.json` in a folder says: `classes`, `mean`, `std`, `from`; {} without the file.

    Returns
    -------
    said : dict
        `classes` is a dict from id to name, or to (name, (red, green, blue)) of ints in 0..255;
        `mean`, `std` are tuples of 3 float; `from` is the file.

    Raises
    ------
    SettingError
        If it is not of the form above.
    """
    path = Path(folder, NAME)
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file():  # a pipe, which nobody may ever write to
            raise ValueError("it is no file")
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
        content = content if isinstance(content, dict) and "classes" in content else {None: content}
        said = {"classes": _classes(content.get("classes", content.get(None))), "from": str(path)}
        said |= {key: _three(content[key], key) for key in ("mean", "std") if key in content}
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError(
            f"{path} must be a list of class names, or an object from the ids 0, 1, ... to a name "
            'or {"name": ..., "color": [r, g, b]}, alone or as "classes" beside "mean" and "std": '
            f"{error}"
        ) from error
    return said


def _each_once(pairs):
    """A dict; JSON would take the last of several values of a key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"it says twice what one of {', '.join(content)} is")
    return content


def _classes(content):
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict) or not content:
        raise ValueError("there are no classes")
    classes = {int(key): _class(value, key) for key, value in content.items()}
    if sorted(classes) != list(range(len(content))):
        raise ValueError(f"the ids must be 0 to {len(content) - 1}, got {', '.join(content)}")
    return dict(sorted(classes.items()))


def _class(value, key):
    name, colour = value, None
    if isinstance(value, dict):
        name, colour = value.get("name"), value.get("color")
    if not isinstance(name, str) or not name:
        raise ValueError(f"class {key} has no name: {value!r}")
    if colour is None:
        return name
    is_colour = isinstance(colour, list) and len(colour) == 3
    if not is_colour or not all(type(c) is int and 0 <= c <= 255 for c in colour):
        raise ValueError(f"the color of class {key} must be 3 whole numbers in 0..255: {colour!r}")
    return name, tuple(colour)


def _three(values, key):
    is_three = isinstance(values, list) and len(values) == 3
    if not is_three or not all(type(v) in (int, float) and 0 <= v < 1e3 for v in values):
        raise ValueError(f"{key} must be 3 numbers: {values!r}")
    if key == "std" and 0 in values:
        raise ValueError(f"std must be above 0: {values!r}")
    return tuple(map(float, values))
