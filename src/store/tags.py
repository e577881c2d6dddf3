"""Tags that the explorer's user gave to segments."""

import json
import os
from pathlib import Path

from src.errors import SettingError
from src.store.files import locked, prepare, read_text, whole_file


def change_tags(path, changes):
    """Change the tags of some segments in a file; what others have changed meanwhile stays.

    Parameters
    ----------
    path : path
        See `paths.tags_path`; folders are made as needed.
    changes : dict of tuple to str
        By dataset, image index, component index and box: the tag, or "" for none any more.

    Returns
    -------
    tags : list
        All that are in the file then, see `read_tags`.

    Raises
    ------
    SettingError, WriteError
        The file is broken, or a tag is no text; the disk takes none.
    """
    for tag in changes.values():
        if not is_text(tag):
            raise SettingError(f"a tag must be text that UTF-8 can hold, got {tag!r}")
    path = Path(os.path.realpath(path))  # a link stays one
    prepare(path.parent)
    with locked(path):
        tags = {tuple(key): tag for *key, tag in read_tags(path)} | changes
        entries = [(*key, tag) for key, tag in tags.items() if tag]
        _write(path, entries)
    return entries


def _write(path, tags):
    """Store tags as JSON that a person can read."""
    names = "dataset", "image_index", "component_index", "box", "tag"
    lines = [json.dumps(dict(zip(names, entry, strict=True)), ensure_ascii=False) for entry in tags]
    content = '{"tags": [\n' + ",\n".join(lines) + "\n]}\n"
    with whole_file(path) as part:
        # names of folders need not be UTF-8, and come back from an escape of JSON
        part.write_text(content, encoding="utf-8", errors="backslashreplace")


def read_tags(path):
    """Read the tags in a file: a list, empty where there is none.

    A tag is a (str, int, int, (int, int, int, int), str): dataset, image index, component index,
    box and tag of a segment that has one.

    Raises
    ------
    SettingError
        The file is broken.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return []
    try:
        entries = json.loads(read_text(path))["tags"]
        if not isinstance(entries, list):
            raise TypeError(f"`tags` is {entries!r}")
        return [_as_tag(**entry) for entry in entries]
    except (KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise SettingError(f"{path} is broken ({error}); mend it or move it away") from error


def is_text(tag):
    """Whether UTF-8 can hold a tag: that it is text, and has no half of a pair of surrogates."""
    if not isinstance(tag, str):
        return False
    return tag.isascii() or tag == tag.encode("utf-8", "replace").decode("utf-8")


def _as_tag(*, dataset, image_index, component_index, box, tag):
    numbers = image_index, component_index, *box
    if len(box) != 4 or any(type(number) is not int for number in numbers):
        raise TypeError(f"a tag has the numbers {numbers}")
    if not (isinstance(dataset, str) and is_text(tag)):
        raise ValueError(f"a tag has the texts {(dataset, tag)!r}")
    return dataset, image_index, component_index, tuple(box), tag
