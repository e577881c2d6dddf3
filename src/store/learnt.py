"""Networks that have learnt further classes: weights, and in JSON what they are and come from."""

import json
from pathlib import Path

from src.errors import SettingError
from src.store.files import prepare, read_text, whole_file
from src.store.paths import learnt_facts, learnt_folder, learnt_weights
from src.store.sealed import as_json

FORMAT = 1  # of the JSON
_HOW = "base", "layers", "added"  # to build it
_FIELDS = "classes", "mean", "std", "size", "multiple_of"  # that an entry has too


def write_learnt(folder, state, facts):
    """Keep a network; one that is there under that name is replaced.

    Parameters
    ----------
    folder : path
        See `paths.learnt_folder`.
    state : dict of str to Tensor
        Its state dict.
    facts : dict
        Of plain values: what `growing.grow` says of it, and `made_from`.

    Raises
    ------
    WriteError
        The disk takes none.
    """
    from src.store.weights import write_torch  # torch is slow to import, and reading needs none

    prepare(folder)
    tensors = {key: tensor.cpu() for key, tensor in state.items()}
    with whole_file(learnt_facts(folder)) as part:  # both are new, or none is
        Path(part).write_text(as_json(facts | {"format": FORMAT}), encoding="utf-8")
        write_torch(learnt_weights(folder), tensors)


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
        if missing := {*_HOW, *_FIELDS} - facts.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
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


def fields_of(io_path, name):
    """What the entry of a network says beside its name and class: a dict; see `read_learnt`."""
    facts = read_learnt(io_path, name)
    how = {key: facts[key] for key in _HOW}
    weights = learnt_weights(learnt_folder(io_path, name))
    return {"kwargs": how, "model_weights": weights, **{key: facts[key] for key in _FIELDS}}
