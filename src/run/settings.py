"""Settings that say their own rules: what a value may be, what None means, what it is for.

Their help, the checks before a run and the messages of these come from here::

    args = dict(
        gpu=setting(0, "index of the GPU", none="the CPU", at_least=0),
        tile=setting(None, "size of the parts to predict", none="whole images", kind=SIZE),
    )
"""

import ast
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

from src.errors import SettingError

HOW_TO_RUN = (
    "num_cores", "scheduler", "images_per_job", "shard", "overwrite", "verify", "dry_run",
    "fail_fast",
)  # fmt: skip


class Kind(NamedTuple):
    """What a value may be."""

    words: str  # what comes after "must be": "a whole number >= 1"
    fits: Callable[[Any], bool]
    read: Callable = lambda value: value  # from what is typed to what the program works with
    hint: str = ""  # what to type instead, of {name} and {value}

    def check(self, name, value, none=None, about=""):
        """Refuse a value that is none of the kind, by a SettingError.

        Its message has the `name` of what has the value, such as "args.tile", what None would mean
        there (`none`), and what the name is for (`about`).
        """
        if self.fits(value):
            return
        allowed = self.words if none is None else f"{self.words}, or None ({none})"
        typed = "..." if isinstance(value, float) else value  # 1e5 has come as 100000.0
        is_close = value == "" or _is_list(value)  # to write it otherwise would not help
        hint = self.hint and not is_close and "; " + self.hint.format(name=name, value=typed)
        about = about and f" [{about}]"
        raise SettingError(f"`{name}` must be {allowed}, got {value!r}{hint or ''}{about}")


@dataclass(frozen=True)
class Setting:
    """A default and the rules for what may take its place; `setting` makes it."""

    default: Any
    explanation: str
    kind: Kind
    none: str | None = None
    entries: Kind | None = None  # of what is put into a dict that is empty by default

    def check(self, name, value):
        """Refuse a value that does not fit; `name` is the dotted name of the setting."""
        takes_none = self.none is not None or self.default is None
        if not (value is None and takes_none):
            self.kind.check(name, value, self.none, self.explanation)

    def of_entry(self):
        """The rules for what is put into a dict that is empty by default."""
        return Setting("", self.explanation, self.entries)

    def description(self):
        """What the setting is for and what it may be, in one line."""
        kind = self.entries or self.kind
        is_as_default = kind in [of_type for _, of_type in _OF_TYPES]
        words = "" if is_as_default else f": {kind.words}"
        none = "" if self.none is None else f"; None: {self.none}"
        return f"{self.explanation}{words}{none}"


def setting(
    default, explanation, *, none=None, at_least=None, at_most=None, choices=None, kind=None
):
    """A setting in the config scope of a script.

    Without further rules a value must have the type of the default, and an int may stand for a
    float; a default of None takes anything, one of {} any names with any values.

    Parameters
    ----------
    default
        Where it is a list, `at_least`, `at_most` and `choices` hold for each entry; where it is {},
        all rules hold for each value.
    explanation : str
        One line.
    none : str, optional
        What None means; without it, None is only allowed where it is the default.
    at_least, at_most : int or float, optional
        Of numbers, of whole ones where the default is no float.
    choices : iterable of str, optional
    kind : Kind, optional
        What a value must be instead: `PATH`, `SIZE`, ...
    """
    rule = kind
    if choices is not None:
        rule = one_of(*choices)
    elif at_least is not None or at_most is not None:
        rule = number(at_least, at_most, whole=not isinstance(default, float))
    if isinstance(default, dict):
        return Setting(default, explanation, _of_type(default), none, rule or ANYTHING)
    if isinstance(default, list | tuple) and rule is not None and kind is None:
        rule = list_of(rule)
    rule = rule or _of_type(default)
    return Setting(rule.read(default), explanation, rule, none)


def by_name(settings, above=""):
    """Dict of Setting by dotted names, in the same order, of a dict that has dicts and defaults."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found |= by_name(value, f"{above}{key}.")
        else:
            is_setting = isinstance(value, Setting)
            found[f"{above}{key}"] = value if is_setting else setting(value, "")
    return found


def shared_settings(config, *names):
    """Settings that several scripts have, for the `args` of one: a dict of Setting by name.

    `config` is `CONFIG` of the configuration, which has the defaults; `HOW_TO_RUN` names those of a
    `Runner`.
    """

    def least(what, default):
        about = f"least {what}"
        return setting(default, about, none="what suits the dataset", kind=LENGTH)

    every = dict(
        model_name=setting(config.MODEL_NAME, "network that made the predictions, as in stage 1"),
        meta_model=setting(config.META_MODEL_NAME, "entry of `meta_models` that predicts the IoU"),
        meta_weights=setting(
            None, "its weights file", none="`model_weights` of its entry", kind=PATH
        ),
        net=setting(None, "network that made the vectors", none="that of the table written last"),
        io_path=setting(config.metaseg_io_path, "folder of all results", kind=PATH),
        min_height=least("height", config.MIN_HEIGHT),
        min_width=least("width", config.MIN_WIDTH),
        min_crop_height=least("height of a crop", config.MIN_CROP_HEIGHT),
        min_crop_width=least("width of a crop", config.MIN_CROP_WIDTH),
        num_images=setting(
            config.NUM_IMAGES, "only the first so many images", none="all", at_least=1
        ),
        unlabelled=setting(
            "unknown",
            "IoU of segments that lie wholly on ground without a label; the original's is `zero`",
            choices=("unknown", "zero"),
        ),
        gpu=setting(config.GPU_ID, "index of the GPU", none="the CPU", at_least=-1),
        seed=setting(config.SEED, "same seed, same result", at_least=0, at_most=2**32 - 1),
        # how to run
        num_cores=setting(config.NUM_CORES, "processes to use", at_least=1),
        scheduler=setting(None, "cluster that does the work", none="none", kind=SCHEDULER),
        images_per_job=setting(16, "images that a cluster gets together", at_least=1),
        shard=setting(None, "share of the images to work on here", none="all", kind=SHARD),
        overwrite=setting(False, "do again what is already there"),
        verify=setting(False, "read files that are there to their end, changed or not"),
        dry_run=setting(False, "only say what would be done, and why"),
        fail_fast=setting(
            None,
            "whether to stop at the first image that fails",
            none="where the first three fail alike",
            kind=_of_type(True),
        ),
    )
    return {name: every[name] for name in names}


# ---- Kinds of values ----------------------------------------------------------------------------


def number(at_least=None, at_most=None, whole=True):
    """A number within limits, which it may reach."""

    def fits(value):
        is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        is_enough = is_number and (at_least is None or value >= at_least)
        return is_enough and (at_most is None or value <= at_most)

    words = "a whole number" if whole else "a number"
    if at_least is not None and at_most is not None:
        words += f" from {at_least} to {at_most}"
    elif at_least is not None:
        words += f" >= {at_least}"
    elif at_most is not None:
        words += f" <= {at_most}"
    return Kind(words, fits)


def one_of(*choices):
    """One of some words."""
    return Kind(f"one of {', '.join(choices)}", lambda value: value in choices)


def list_of(kind, at_least=0):
    """A list of so many values of a kind, or more."""

    def fits(value):
        return _is_list(value) and len(value) >= at_least and all(map(kind.fits, value))

    words = f"a list of {at_least} or more" if at_least else "a list"
    return Kind(f"{words}, each {kind.words}", fits, _as_list, _LIST_HINT)


def some_whole_numbers(words, count, at_least):
    """A list of so many whole numbers that are large enough; `words` say what they mean."""
    kind = number(at_least)
    return Kind(
        words,
        lambda value: _is_list(value) and len(value) == count and all(map(kind.fits, value)),
        _as_list,
    )


def _is_list(value):
    return isinstance(value, list | tuple)


def _is_text(value):
    return isinstance(value, str)


def _as_list(text):
    """A list of what stands in square brackets: numbers, None, words; anything else as it is."""
    inside = re.fullmatch(r"\s*\[(.+)\]\s*", text) if _is_text(text) else None
    return [_literal(word.strip()) for word in inside[1].split(",")] if inside else text


def _literal(word):
    try:
        return ast.literal_eval(word)
    except (SyntaxError, ValueError):
        return word


def _expanded(path):
    """A path as text, with the folders that ~ and variables stand for."""
    if not isinstance(path, str | os.PathLike):
        return path
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 (takes a name like ~old, too)


def _as_names(value):
    value = _as_list(value)
    return [value] if _is_text(value) else value


def _are_names(value):
    return _is_list(value) and len(value) > 0 and all(map(_is_text, value))


def _is_shard(value):
    numbers = re.fullmatch(r"(\d+)/(\d+)", value) if _is_text(value) else None
    return numbers is not None and int(numbers[1]) < int(numbers[2])


def _is_scheduler(value):
    pattern = r"local:[1-9]\d*|(tcp|tls)://.+:\d+"
    return _is_text(value) and re.fullmatch(pattern, value) is not None


_QUOTE_HINT = "quote it to keep it text: '{name}=\"{value}\"'"
_LIST_HINT = "write {name}=[{value}], and commas between several"

ANYTHING = Kind("anything", lambda value: True, _as_list)
NAME = Kind(
    "a name without slashes",
    lambda value: _is_text(value) and re.fullmatch(r"[^/\\\0]+", value) and value.strip(" ."),
    lambda value: str(value) if type(value) is int else value,
)
PATH = Kind(
    "the path of a file or folder",
    lambda value: _is_text(value) and value.strip() != "",  # "" would be the folder in here
    _expanded,
    _QUOTE_HINT,
)
NAMES = Kind("a name or a list of names, such as [one,two]", _are_names, _as_names)
LENGTH = Kind(
    "a whole number >= 1 (pixels), or a share of the picture's height such as 0.125",
    lambda value: number(1).fits(value) or (isinstance(value, float) and 0 < value < 1),
)
SIZE = some_whole_numbers("[height, width], two whole numbers >= 1 (in pixels)", 2, at_least=1)
NUMBER = number(whole=False)
SHARE = Kind("a number from 0 to below 1", lambda value: NUMBER.fits(value) and 0 <= value < 1)
POSITIVE = Kind("a number above 0", lambda value: NUMBER.fits(value) and value > 0)
SHARD = Kind("k/n with k in 0..n-1, such as 0/4 to 3/4", _is_shard)
SCHEDULER = Kind(
    "the address of a Dask scheduler such as tcp://host:8786, or local:N for N worker processes on "
    "this machine",
    _is_scheduler,
)
_OF_TYPES = (
    (bool, Kind("True or False", lambda value: isinstance(value, bool))),
    (int, number()),
    (float, NUMBER),
    (str, Kind("text", _is_text, hint=_QUOTE_HINT)),
    ((list, tuple), Kind("a list", _is_list, _as_list, _LIST_HINT)),
    (dict, Kind("a dict", lambda value: isinstance(value, dict))),
    (PurePath, PATH),
    (object, ANYTHING),
)


def _of_type(default):
    return next(kind for type_, kind in _OF_TYPES if isinstance(default, type_))
