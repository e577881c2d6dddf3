"""Tags that the explorer's user gave to segments."""

import os
from pathlib import Path

from src.errors import SettingError
from src.store.files import locked, prepare
from src.store.of_objects import read_values, write_values


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
        write_values(path, "tag", entries)
    return entries


def read_tags(path):
    """Read the tags in a file: a list, empty where there is none.

    A tag is a (str, int, int, (int, int, int, int), str): dataset, image index, component index,
    box and tag of a segment that has one.

    Raises
    ------
    SettingError
        The file is broken.
    """
    return read_values(path, "tag", _check)


def is_text(tag):
    """Whether UTF-8 can hold a tag: that it is text, and has no half of a pair of surrogates."""
    if not isinstance(tag, str):
        return False
    return tag.isascii() or tag == tag.encode("utf-8", "replace").decode("utf-8")


def _check(tag):
    if not is_text(tag):
        raise ValueError(f"a tag is {tag!r}")
