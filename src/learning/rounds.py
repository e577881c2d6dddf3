"""Learnt networks one after the other: what they are called, and which tags go on to the next."""

import itertools
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np

from src.errors import SettingError
from src.store.learnt import has_weights, read_learnt
from src.store.of_objects import keys_of
from src.store.paths import Results, learnt_facts, learnt_folder, tags_path
from src.store.sealed import as_stored
from src.store.tags import change_tags, read_tags

SAME = 0.5  # IoU of two boxes from which they are of one object
_LONGEST = 60  # letters of a name that is made of tags


def facts_of(model):
    """What is kept of a learnt network, see `read_learnt`; None: the entry is of another one."""
    if not _has_learnt(model):
        return None
    folder = Path(model.model_weights).parent
    return read_learnt(folder.parents[1], folder.name)


def round_of(model):
    """Round in which a network searches: 1 before it learns, then one more each time it has."""
    return 1 + len(model.kwargs["added"]) if _has_learnt(model) else 1


def learnt_ids(model):
    """Ids of the classes that a network has learnt in all rounds: a range, may be empty."""
    if not _has_learnt(model):
        return range(0)
    count = len(model.classes)
    return range(count - sum(model.kwargs["added"]), count)


def _has_learnt(model):
    return model.module_name == "src.learning.growing"


def choose_name(io_path, name, tags, made_from, schedule, overwrite=False):
    """What a network is to be called, and whether it is there already.

    Parameters
    ----------
    io_path : path
    name : str or None
        None: like the tags, with a number where that is another one's.
    tags : sequence of str
    made_from : dict
    schedule : Schedule
        With `made_from` it says what is the same network.
    overwrite : bool
        It is made again, in place of what has its name.

    Raises
    ------
    SettingError
        The name is another one's, or none.
    """
    expected = as_stored(made_from | {"schedule": asdict(schedule)})
    words = re.sub(r"[^\w.-]+", "_", "_".join(tags)).strip("._-")[:_LONGEST] or "learnt"
    numbered = (f"{words}_{number}" for number in itertools.count(2))
    for candidate in [name] if name else itertools.chain([words], numbered):
        if not learnt_facts(learnt_folder(io_path, candidate)).is_file():
            return candidate, False
        there = as_stored(read_learnt(io_path, candidate)["made_from"])
        if all(there.get(key) == value for key, value in expected.items()):
            return candidate, not overwrite and has_weights(io_path, candidate)
        if name and overwrite:
            return candidate, False
    raise SettingError(
        f"learnt/{name} is there, of other objects or settings: choose another args.name, or "
        "args.overwrite=True to replace it"
    )


def carry_tags(log, model, table, path):
    """Give objects that a learnt network leaves suspicious the tags that they had before.

    That is done once: where the table has tags already, they stay as they are. An object is the
    same where the box of an earlier one in its picture is the same by an IoU of `SAME`.

    Parameters
    ----------
    log : logging.Logger
    model : ModelConfig
        Nothing is done for one that has not learnt.
    table : ObjectTable
    path : path
        Of the table.

    Returns
    -------
    table : ObjectTable
        Its facts have "round": in words, what the network has learnt and how many tags went on.
    """
    facts = facts_of(model)
    if facts is None:
        return table
    told = _told(model, facts)
    if not tags_path(path).exists():
        before = Results(Path(path).parents[2], facts["made_from"]["network"]).all_embeddings()
        same = [file for file in before if file.name == Path(path).name] or before[:1]
        carried = carried_tags(table, [tag for file in same for tag in _tags_of(file)])
        if carried:
            change_tags(tags_path(path), carried)
            told += f"; {_counted(len(carried), 'tag')} of round {round_of(model) - 1} carried"
    log.info("%s", told)
    return table.with_facts(round=told)


def _told(model, facts):
    """What a network has learnt, in the last round with the numbers of objects."""
    counts = facts["made_from"]["tags"]
    earlier = [facts["classes"][str(key)][0] for key in learnt_ids(model)]
    earlier = [name for name in earlier if name not in counts]
    (tag, count), *others = counts.items()
    parts = [f"{tag} ({_counted(count, 'object')})", *(f"{tag} ({n})" for tag, n in others)]
    after = f" after {', '.join(earlier)}" if earlier else ""
    name = Path(model.model_weights).parent.name
    return f"round {round_of(model)}: learnt/{name} has learnt {', '.join(parts)}{after}"


def _counted(count, noun):
    return f"{count} {noun}{'s' * (count != 1)}"


def carried_tags(table, tags):
    """The tags of objects that are found again: a dict by `keys_of` of the table.

    Parameters
    ----------
    table : ObjectTable
    tags : list of tuple
        With the boxes of their objects, (str, int, (int, int, int, int), str): dataset, image
        index, box, tag.
    """
    from src.evaluation.objects import box_ious  # with torch, whose import takes seconds

    by_picture, carried = {}, {}
    for dataset, index, box, tag in tags:
        by_picture.setdefault((dataset, index), []).append((box, tag))
    for key in keys_of(table):
        dataset, index, _, box = key
        earlier = by_picture.get((dataset, index), [])
        if earlier:
            alike = box_ious(np.array([box]), np.array([each for each, _ in earlier]))[0]
            if alike.max() >= SAME:
                carried[key] = earlier[int(alike.argmax())][1]
    return carried


def _tags_of(table_path):
    return [(*picture, box, tag) for *picture, _, box, tag in read_tags(tags_path(table_path))]
