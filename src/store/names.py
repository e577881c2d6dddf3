"""What a dataset's or a model's name stands for, kept beside the results that bear it."""

import json
from pathlib import Path

from src.errors import SettingError
from src.store.files import locked, prepare, read_text, whole_file
from src.store.paths import name_path
from src.store.sealed import as_json, as_stored


def read(io_path, kind, name):
    """What is kept of a name: a dict, empty where there is nothing.

    Parameters
    ----------
    io_path : path
        Folder of all results.
    kind : {"datasets", "models"}
    name : str

    Raises
    ------
    SettingError
        The file is broken.
    """
    path = name_path(io_path, kind, name)
    try:
        facts = json.loads(read_text(path))
        if not isinstance(facts, dict):
            raise ValueError("it holds no object")
        if not isinstance(facts.get("stands_for", ""), str):
            raise ValueError(f"`stands_for` is {facts['stands_for']!r}")
    except (FileNotFoundError, NotADirectoryError):  # `note` says that there can be none
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError(
            f"{path} is broken ({error}); delete it, and run pred_images.py again with the folder "
            f"or network that {name!r} stood for"
        ) from error
    return facts


def note(io_path, kind, name, **facts):
    """Keep facts of a name, beside those that are kept of it; what is JSON, such as text.

    Raises
    ------
    SettingError
        Another run has given the name to something else meanwhile.
    """
    path = name_path(io_path, kind, name)
    facts = as_stored(facts)
    if read(io_path, kind, name).items() >= facts.items():
        return
    prepare(path.parent)
    with locked(path):
        there = read(io_path, kind, name)
        meant = there.get("stands_for"), facts.get("stands_for")
        if None not in meant and meant[0] != meant[1]:
            raise SettingError(f"{name!r} has come to stand for {meant[0]}; start again")
        with whole_file(path) as part:
            Path(part).write_text(as_json(there | facts), encoding="utf-8")


def free_name(io_path, kind, wanted, stands_for, taken=()):
    """The name that something has in these results, or would get: `wanted`, or one with a number.

    Parameters
    ----------
    io_path, kind
        As for `read`.
    wanted : str
    stands_for : str
        What it is kept with, see `note`.
    taken : collection of str
        Names of the configuration, which mean something else.
    """
    number = 1
    while True:
        name = wanted if number == 1 else f"{wanted}_{number}"
        if name not in taken and read(io_path, kind, name).get("stands_for") in (None, stands_for):
            return name
        number += 1
