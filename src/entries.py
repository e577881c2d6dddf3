"""From a name on the command line to the entry that it means.

It may be one of the configuration; a folder of pictures, or a network by its kind, such as
hf/<name>; or the name that such a one got in earlier results.
"""

import ast
import os
import re
from contextlib import suppress
from pathlib import Path

from src import registry
from src.errors import SettingError
from src.store import learnt, names
from src.store.paths import name_path

KINDS = {  # of networks that need no entry: module, class, and the argument that says which
    "hf": ("src.model.huggingface", "HuggingFace", "name"),
    "torchvision": ("src.model.torchvision_models", "Torchvision", "name"),
    "onnx": ("src.model.onnx", "Onnx", "path"),
    "predictions": ("src.model.predictions", "Predictions", "folder"),
    "learnt": ("src.learning.growing", "Learnt", None),  # all is kept beside the results
}
_OF_FILES = "onnx", "predictions"  # kinds that are files of the user, never a name


def choose_dataset(entries, word, io_path, keeps=False):
    """Entry of a dataset: one of `entries` by its name, or one made of a folder of pictures.

    Parameters
    ----------
    entries : dict of str to DatasetConfig
    word : str
        A name; a folder is told by a slash, or a leading dot or ~.
    io_path : path
        Folder of all results, where it is kept what names of folders stand for.
    keeps : bool
        Keep it there, so that later stages and other machines take the name of the folder too.

    Raises
    ------
    SettingError
        There is no such entry, or no such folder.
    """
    if word in entries:
        return entries[word]
    is_path = _is_path(word)
    folder = _absolute(word) if is_path else _stands_for(io_path, "datasets", word)
    if folder is None:
        here = f"; the folder in here is ./{word}" if word and Path(word).is_dir() else ""
        raise _unknown(entries, word, "dataset", f"name a folder of pictures, as ./photos{here}")
    if not Path(folder).is_dir():
        hint = ""
        if not is_path:
            kept_in = name_path(io_path, "datasets", word)
            hint = f"; if it lies elsewhere now, say so in {kept_in}"
        raise SettingError(f"dataset {word!r}: there is no folder {folder}{hint}")
    wanted = _plain(Path(folder).name)
    name = names.free_name(io_path, "datasets", wanted, folder, entries) if is_path else word
    if keeps:
        names.note(io_path, "datasets", name, stands_for=folder)
    return next(iter(entries.values()))._replace(
        name=name,
        module_name="src.datasets.custom",
        class_name="CustomDataset",
        kwargs={"root": folder, "recursive": True},
    )


def searched_datasets(entries, words, io_path):
    """Entry of the dataset that the networks learnt on, or None, and a list of those to search.

    Of several `words`, see `choose_dataset`, the first is the former where it is one of `entries`.
    """
    found = [choose_dataset(entries, word, io_path) for word in dict.fromkeys(map(str, words))]
    is_first_learnt = len(found) > 1 and found[0].name in entries
    return (found[0], found[1:]) if is_first_learnt else (None, found)


def dataset_names(entries, words, io_path):
    """Names of datasets as tables have them, of names and folders; None stays None."""
    return words and [
        choose_dataset(entries, word, io_path).name if _is_path(word) else word for word in words
    ]


def choose_model(entries, word, io_path, keeps=False):
    """Entry of a segmentation network: one of `entries` by its name, or one made of its kind.

    Parameters
    ----------
    entries : dict of str to ModelConfig
    word : str
        A name; or hf/<name or folder>, torchvision/<name>, onnx/<file>, predictions/<folder>,
        learnt/<name>.
    io_path, keeps
        As for `choose_dataset`.

    Raises
    ------
    SettingError
        There is no such entry, file or folder; what was learnt was made from none of them.
    """
    if word in entries:
        return entries[word]
    kind, _, which = _spelt_out(entries, word, io_path).partition("/")
    place = Path(_absolute(which))
    if kind in _OF_FILES and not place.exists():
        raise SettingError(f"model {word!r}: there is no file or folder {place}")
    is_place = kind in _OF_FILES or (kind == "hf" and place.is_dir())
    which = str(place) if is_place else which
    parts = (place.parent / place.stem).parts[-2:] if is_place else which.split("/")
    wanted, stands_for = "_".join([kind, *map(_plain, parts)]), f"{kind}/{which}"
    module, class_name, argument = KINDS[kind]
    facts = {
        "kwargs": {argument: which},
        "model_weights": which if is_place and kind != "predictions" else None,
    }
    if kind == "learnt":
        facts = learnt.fields_of(io_path, which)
        _check_base(entries, word, facts["kwargs"]["base"])
    name = names.free_name(io_path, "models", wanted, stands_for, entries)
    if keeps:
        names.note(io_path, "models", name, stands_for=stands_for)
    of_entries = type(next(iter(entries.values())))
    return of_entries(name=name, module_name=module, class_name=class_name, **facts)


def _check_base(entries, word, base):
    """Refuse a learnt network that was made from no class known here: importing one runs code."""
    known = {(entry.module_name, entry.class_name) for entry in entries.values()}
    known |= {of_kind[:2] for of_kind in KINDS.values()}
    if (base["module_name"], base["class_name"]) not in known:
        raise SettingError(
            f"model {word!r} was made from {base['module_name']}.{base['class_name']}, which no "
            "entry of `models` in configuration.py names: add the entry of that network again"
        )


def _spelt_out(entries, word, io_path):
    """A kind of networks, a slash, and which one: as it was typed, or as it is kept."""
    kind, _, which = str(word).partition("/")
    if kind in KINDS and which:
        return str(word)
    stands_for = _stands_for(io_path, "models", word)
    if stands_for is None:
        kinds = (
            "hf/<name or folder>, torchvision/<name>, onnx/<file>, predictions/<folder> or "
            "learnt/<name>"
        )
        raise _unknown(entries, word, "model", f"name one by {kinds}")
    return stands_for


def _stands_for(io_path, kind, word):
    is_name = word and Path(str(word)).name == word
    return names.read(io_path, kind, word).get("stands_for") if is_name else None


def _is_path(word):
    return "/" in word or os.sep in word or word.startswith((".", "~"))


def _absolute(path):
    return os.path.abspath(os.path.expandvars(os.path.expanduser(path)))  # noqa: PTH100, PTH111


def _plain(name):
    """A name of a folder or file as one that stays itself on a command line."""
    plain = re.sub(r"[^\w.+-]", "_", name).strip(".") or "pictures"
    with suppress(SyntaxError, ValueError):
        ast.literal_eval(plain)
        return f"_{plain}"  # 2024 would come back as a number
    return plain


def _unknown(entries, word, kind, other):
    try:
        registry.choose(entries, word, kind)
    except SettingError as error:
        return SettingError(f"{error}; or {other}")
