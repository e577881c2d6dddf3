"""The groups that objects of a table were found in, beside its tags."""

import os
from pathlib import Path

from src.store.files import locked, prepare
from src.store.of_objects import read_values, write_values


def write_groups(path, groups):
    """Store the groups of objects, found anew: those that are in the file go.

    Parameters
    ----------
    path : path
        See `paths.groups_path`; folders are made as needed.
    groups : dict of tuple to int
        By dataset, image index, component index and box: number of the group from 0, or -1 for
        an object in none; see `embedding.groups`.

    Raises
    ------
    WriteError
        The disk takes none.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    prepare(path.parent)
    with locked(path):
        _write(path, groups)


def change_groups(path, changes):
    """Change the groups of some objects, see `write_groups`; those of others stay.

    Gives all that are in the file then, a dict.
    """
    path = Path(os.path.realpath(path))
    prepare(path.parent)
    with locked(path):
        groups = read_groups(path) | changes
        _write(path, groups)
    return groups


def _write(path, groups):
    write_values(path, "group", [(*key, int(group)) for key, group in groups.items()])


def read_groups(path):
    """The groups in a file as they were given to `write_groups`; none where there is no file.

    A SettingError says that it is broken.
    """
    return {tuple(key): group for *key, group in read_values(path, "group", _check)}


def _check(group):
    if type(group) is not int or group < -1:
        raise TypeError(f"a group is {group!r}")
