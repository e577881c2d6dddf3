"""A value of each of some objects as JSON that a person can read: tags, groups."""

import json
import os
from pathlib import Path

from src.errors import SettingError
from src.store.files import read_text, whole_file

KEY = "dataset", "image_index", "component_index", "box"  # of an object


def keys_of(table, rows=None):
    """What the rows of an ObjectTable are known by here; all, or some by number: a list."""
    columns = [(table[name] if rows is None else table[name][rows]).tolist() for name in KEY]
    return [(*name, tuple(box)) for *name, box in zip(*columns, strict=True)]


def write_values(path, name, entries):
    """Store a value called `name`, such as "tag", of each of some objects: a line each.

    `entries` are tuples of dataset, image index, component index, box and value.
    """
    names = *KEY, name
    as_line = json.JSONEncoder(ensure_ascii=False).encode
    lines = [as_line(dict(zip(names, entry, strict=True))) for entry in entries]
    content = f'{{"{name}s": [\n' + ",\n".join(lines) + "\n]}\n"
    with whole_file(path) as part:
        # names of folders need not be UTF-8, and come back from an escape of JSON
        part.write_text(content, encoding="utf-8", errors="backslashreplace")


def read_values(path, name, check):
    """The entries as they were given to `write_values`; none where there is no file.

    `check` raises a TypeError or ValueError for a value that is none. Then, and where the file is
    broken in another way, it is a SettingError.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return []
    try:
        entries = json.loads(read_text(path))[f"{name}s"]
        if not isinstance(entries, list):
            raise TypeError(f"`{name}s` is {entries!r}")
        return [_as_entry(name, check, entry) for entry in entries]
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise SettingError(f"{path} is broken ({error}); mend it or move it away") from error


def _as_entry(name, check, entry):
    dataset, image_index, component_index, box = map(entry.pop, KEY)
    numbers = image_index, component_index, *box
    if len(box) != 4 or {*map(type, numbers)} != {int}:
        raise TypeError(f"a {name} has the numbers {numbers}")
    if not isinstance(dataset, str):
        raise TypeError(f"a {name} has the dataset {dataset!r}")
    if entry.keys() != {name}:
        raise TypeError(f"a {name} has the further values {entry}")
    value = entry[name]
    check(value)
    return dataset, image_index, component_index, tuple(box), value
