"""Networks that have learnt further classes: weights, and in JSON what they are and come from."""

import hashlib
import json
import re

from src.errors import SettingError
from src.store.files import prepare, read_text, remove, whole_file
from src.store.paths import all_learnt_weights, learnt_facts, learnt_folder, learnt_weights
from src.store.sealed import as_json

FORMAT = 2  # of the JSON
_HOW = "base", "layers", "added"  # to build it
_FIELDS = "classes", "mean", "std", "size", "multiple_of"  # that an entry has too


def _is_dict_of(**kinds):
    def fits(value):
        is_dict = isinstance(value, dict) and value.keys() == kinds.keys()
        return is_dict and all(isinstance(value[key], kind) for key, kind in kinds.items())

    return fits


def _is_origin(value):
    of = value if isinstance(value, dict) else {}
    is_told = isinstance(of.get("network"), str) and isinstance(of.get("tags"), dict)
    return is_told and type(of.get("round", 1)) is int


_FITS = {  # the rest is looked at where it is used
    "base": _is_dict_of(module_name=str, class_name=str, kwargs=dict),
    "layers": lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    "added": lambda value: isinstance(value, list) and all(v in range(255) for v in value),
    "classes": lambda value: isinstance(value, dict) and len(value) > 1,
    "made_from": _is_origin,
    "sha256": lambda value: re.fullmatch("[0-9a-f]{64}", str(value)),
}


def write_learnt(folder, state, facts):
    """Keep a network; one that is there under that name is replaced, at once.

    Parameters
    ----------
    folder : path
        See `paths.learnt_folder`.
    state : dict of str to Tensor
        Its state dict.
    facts : dict
        Of plain values: what `growing.grow` says of it, and `made_from`, of which at least
        `network` and `tags` must be said.

    Raises
    ------
    WriteError
        The disk takes none.
    """
    from src.store.weights import as_torch  # torch is slow to import, and reading needs none

    prepare(folder)
    content = as_torch({key: tensor.cpu() for key, tensor in state.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    with whole_file(learnt_weights(folder, sha256)) as part:
        part.write_bytes(content)
    facts = facts | {"format": FORMAT, "sha256": sha256}
    with whole_file(learnt_facts(folder)) as part:  # from now on it is the new one
        part.write_text(as_json(facts), encoding="utf-8")
    remove(*{*all_learnt_weights(folder)} - {learnt_weights(folder, sha256)})


def read_learnt(io_path, name):
    """What is kept of a network: a dict, see `write_learnt`.

    Raises
    ------
    SettingError
        There is none of that name, or its file is broken.
    """
    path = learnt_facts(learnt_folder(io_path, name))
    try:
        facts = json.loads(read_text(path))
        if facts.get("format") != FORMAT:
            raise ValueError(f"its format is {facts.get('format')}, not {FORMAT}")
        if missing := {*_FITS, *_FIELDS} - facts.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        wrong = [key for key, fits in _FITS.items() if not fits(facts.get(key))]
        if wrong:
            raise ValueError(f"its `{wrong[0]}` is {str(facts[wrong[0]])[:60]!r}")
    except FileNotFoundError as error:
        there = sorted(file.parent.name for file in path.parents[1].glob(f"*/{path.name}"))
        raise SettingError(
            f"there is no learnt network {name!r}; there are: {', '.join(there) or 'none'}; "
            "learn_classes.py makes one"
        ) from error
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise SettingError(
            f"{path} is broken ({error}); delete the folder, and run learn_classes.py again"
        ) from error
    return facts


def has_weights(io_path, name):
    """Whether the weights of a network are there, as they were written; see `read_learnt`."""
    sha256 = read_learnt(io_path, name)["sha256"]
    path = learnt_weights(learnt_folder(io_path, name), sha256)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def fields_of(io_path, name):
    """What the entry of a network says beside its name and class: a dict; see `read_learnt`."""
    facts = read_learnt(io_path, name)
    how = {key: facts[key] for key in _HOW}
    weights = learnt_weights(learnt_folder(io_path, name), facts["sha256"])
    return {"kwargs": how, "model_weights": weights, **{key: facts[key] for key in _FIELDS}}
