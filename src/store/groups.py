"""The groups that objects of a table were found in, beside its tags."""

import itertools
import os
from pathlib import Path

from src.store.files import locked, prepare
from src.store.of_objects import read_values, write_values


def write_groups(path, groups):
    """Store the groups of objects, found anew: those of their data sets in the file go.

    Those of other data sets stay, numbered after the new ones.

    Parameters
    ----------
    path : path
        See `paths.groups_path`; folders are made as needed.
    groups : dict of tuple to (int or None)
        By dataset, image index, component index and box: number of the group from 0, or -1 for
        an object in none, see `embedding.groups`; None: groups were not looked for with it.

    Returns
    -------
    groups : dict
        All that are in the file then, see `read_groups`.

    Raises
    ------
    SettingError, WriteError
        The file is broken; the disk takes none.
    """
    path = _prepared(path)
    datasets = {dataset for dataset, *_ in groups}
    found = {key: int(group) for key, group in groups.items() if group is not None}
    with locked(path):
        others = {key: group for key, group in read_groups(path).items() if key[0] not in datasets}
        first = 1 + max(found.values(), default=-1)
        numbers = dict(zip(sorted(set(others.values()) - {-1}), itertools.count(first)))
        groups = found | {key: numbers.get(group, -1) for key, group in others.items()}
        _write(path, groups)
    return groups


def change_groups(path, changes, known):
    """Change the groups of some objects, see `write_groups`; those of others stay.

    Parameters
    ----------
    changes : dict of tuple to int
    known : dict of tuple to (int or None)
        The groups of all objects as they were known to who changes some: where those in the file
        are others, nothing is changed. Of objects that the file lacks they are added.

    Returns
    -------
    groups : dict
        All that are in the file then, see `read_groups`.

    Raises
    ------
    SettingError, WriteError
        The file is broken; the disk takes none.
    """
    path = _prepared(path)
    with locked(path):
        groups = read_groups(path)
        if any(groups.get(key, known.get(key)) != known.get(key) for key in changes):
            return groups
        lacking = {key: group for key, group in known.items() if group is not None}
        groups = lacking | groups | changes
        _write(path, groups)
    return groups


def _prepared(path):
    path = Path(os.path.realpath(path))  # a link stays one
    prepare(path.parent)
    return path


def _write(path, groups):
    write_values(path, "group", [(*key, int(group)) for key, group in groups.items()])


def read_groups(path):
    """The groups in a file, a dict as for `write_groups`; none where there is no file.

    A SettingError says that it is broken.
    """
    return {tuple(key): group for *key, group in read_values(path, "group", _check)}


def _check(group):
    if type(group) is not int or group < -1:
        raise TypeError(f"a group is {group!r}")
