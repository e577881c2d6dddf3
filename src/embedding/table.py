"""The table of all embedded objects, collected from the files of pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.embedding.novelty import read_known, with_novelty
from src.errors import SettingError
from src.progress import progress
from src.records import ImageName, ObjectTable
from src.store import provenance, tables
from src.store.files import locked
from src.store.paths import indices_in, judged_pictures, seen_vectors, vectors_folder
from src.store.seen import note, read_states, state_of
from src.store.tables import MAPS

_SEEN = "table"  # among the pictures that stage 4 has seen
_SAME = "net", "crop_size", "format"  # of all vectors in a table


@dataclass(frozen=True)
class Collection:
    """What stage 4 has collected."""

    table: ObjectTable  # all objects, in the order of dataset, image and component
    judged: dict  # of ImageName, in this run: facts of `Judge.objects_of`
    rows: np.ndarray  # int64, of the objects in pictures of this run


def collect(log, embedding, names, done, verify=False):
    """Write the table of all objects unless it is up to date; gives the Collection.

    It has the objects of all pictures whose vectors are by the same network: of the searched
    datasets those that are still measured, and all of others. Where no object is among them, a
    table that is there stays as it is.

    Parameters
    ----------
    log : logging.Logger
    embedding : Embedding
    names, done : list of ImageName
        All measured images of the searched datasets; those that this run has embedded, or found
        embedded.
    verify : bool
        Read the vectors of all pictures, though none have changed since the table was collected.
    """
    path, done = Path(embedding.path), set(done)
    with locked(path):  # another run, or stage 5, may read and write it too
        pictures = _stored(path)
        depends = provenance.digest({"network": embedding.network, "names": [*map(str, names)]})
        state = state_of(depends, map(embedding.file_of, pictures))
        is_seen = read_states(seen_vectors(path)).get(_SEEN) == [state]
        unchanged = _unchanged(log, embedding, names) if is_seen and not verify else None
        if unchanged is None:
            table, facts, is_all = _collect(log, embedding, names, done, pictures)
            note(seen_vectors(path), {_SEEN: [state] if state and is_all else None})
        else:
            table, facts = unchanged
            log.info("%s is up to date: not embedded again", path)
    judged = {name: facts[name] for name in sorted(facts.keys() & done)}
    rows = [row for row, name in enumerate(table.image_names()) if name in done]
    return Collection(table, judged, np.array(rows, np.int64))


def _stored(path):
    """ImageName of each picture whose vectors are there."""
    folder = vectors_folder(path)
    return [
        ImageName(of_dataset.name, index)
        for of_dataset in sorted(folder.iterdir() if folder.is_dir() else [])
        for index in indices_in(of_dataset, "vectors")
    ]


def _unchanged(log, embedding, names):
    """The table as it is, and the facts of its pictures; None: it must be collected.

    The vectors that it was collected from are the same.
    """
    path = Path(embedding.path)
    try:
        facts, made_from = tables.read_judged(judged_pictures(path))
    except (OSError, ValueError):
        return None
    known = read_known(path, made_from)
    made_from["known"] = known and known.digest
    table = _read_old(log, path, made_from)
    if table is None or table.facts["made_from"] != made_from:
        return None
    searched = {name.dataset for name in names}
    noted = dict(zip(table.image_names(), table["image_path"], strict=True))
    is_moved = any(
        embedding.source.path_of(name, lay) != lay
        for name, lay in noted.items()
        if name.dataset in searched
    )
    if is_moved:
        return None
    for name, of_picture in facts.items():
        _log_not_finite(log, name, of_picture)
    _log_kept(log, path, made_from["datasets"].keys() - searched)
    return table, facts


def _collect(log, embedding, names, done, pictures):
    """Write the table unless it is up to date.

    Gives it, the facts of its pictures, and whether it has all that are there, each as a Judge
    knows it.
    """
    path, searched, measured = Path(embedding.path), {name.dataset for name in names}, set(names)
    pictures = [name for name in pictures if name.dataset not in searched or name in measured]
    found, made_from = _read_all(log, embedding, searched, pictures)
    facts = {name: found[name].facts for name in sorted(found)}
    is_all = len(facts) == len(pictures) and all("segments" in of for of in facts.values())
    if is_all and provenance.why_stale(judged_pictures(path), made_from):
        tables.write_judged(judged_pictures(path), facts, made_from)
    judged = [facts[name] for name in facts if name in done]
    is_empty = not any(len(found[name]) for name in found if name.dataset in searched)
    known = read_known(path, made_from)
    made_from["known"] = known and known.digest
    table = with_novelty(_joined(found), known)
    found.clear()  # so that no more than two copies of the vectors are in memory
    old = _read_old(log, path, made_from)
    table = _with_maps(table, old)
    if judged and not len(table):
        table = table.with_facts(emptied_by=embedding.source.advice(judged))
    if _is_same(old, table, made_from):
        log.info("%s is up to date: not embedded again", path)
    elif is_empty and path.is_file():
        log.warning("%s keeps what it has, as no object was selected", path)
    else:
        tables.write_embeddings(path, table, made_from)
    return table, facts, is_all


def _read_all(log, embedding, searched, pictures):
    """ObjectTable by ImageName of every picture, and what the table is made from."""
    found, sources, dropped = {}, {}, set()
    made_from = provenance.of_embeddings(embedding.network, {})
    for name in progress(pictures, desc="collecting", unit="image", delay=2):
        try:
            table, source = tables.read_objects(embedding.file_of(name))
        except (OSError, ValueError) as error:
            log.warning("image %s is left out: %s", name, error)
            continue
        if any(source.get(key) != made_from[key] for key in _SAME):
            dropped.add(name.dataset)
            continue
        _log_not_finite(log, name, table.facts)
        if len(table) and name.dataset in searched:
            lies = embedding.source.path_of(name, table["image_path"][0])
            table = table.with_columns(image_path=tables.as_column([lies] * len(table)))
        found[name] = table
        sources.setdefault(name.dataset, []).append([name.index, provenance.digest(source)])
    if dropped:
        log.warning(
            "%s: the objects of %s are dropped, which another network or crop size has embedded",
            embedding.path, ", ".join(sorted(dropped)),
        )  # fmt: skip
    _log_kept(log, embedding.path, sources.keys() - searched)
    datasets = {
        dataset: {"pictures": provenance.digest(of_dataset), "count": len(of_dataset)}
        for dataset, of_dataset in sources.items()
    }
    return found, made_from | {"datasets": datasets}


def _log_not_finite(log, name, facts):
    for number in facts.get("not_finite", ()):
        log.warning("segment %d of image %s is left out: its vector is not finite", number, name)


def _log_kept(log, path, datasets):
    if datasets:
        log.info("%s keeps the objects of %s", path, ", ".join(sorted(datasets)))


def _joined(found):
    """One table of those of pictures, in the order of dataset, image and component."""
    parts = [found[name] for name in sorted(found) if len(found[name])]
    if not parts:
        return tables.no_objects()
    return ObjectTable(
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns}
    )


def _read_old(log, path, made_from):
    """The table as it is, None where there is none, or one by another network."""
    if not path.is_file():
        return None
    try:
        old = tables.read_embeddings(path)
    except ValueError as error:
        log.warning("%s: it is collected again", error)
        path.unlink()  # nothing in it is worth to be kept
        return None
    source = old.facts["made_from"] or {}
    return old if all(source.get(key) == made_from[key] for key in _SAME) else None


def _with_maps(table, old):
    """The table with the maps that stage 5 made of an older one; NaN where an object is new."""
    if old is None or not len(table) or not all(name in old for name in MAPS):
        return table
    rows = matching_rows(table, old)
    rows[(old["embeddings"][rows] != table["embeddings"]).any(axis=1)] = -1
    if (rows < 0).all():
        return table
    maps = {name: old[name][rows] for name in MAPS}
    for values in maps.values():
        values[rows < 0] = np.nan
    return table.with_columns(**maps).with_facts(reduced_by=old.facts.get("reduced_by"))


def _is_same(old, table, made_from):
    return (
        old is not None
        and old.facts["made_from"] == made_from
        and np.array_equal(old["image_path"], table["image_path"])
    )


def matching_rows(table, other):
    """Row of each object in another table, of the same segments in the same box; -1: not there."""
    row_of = {key: row for row, key in enumerate(_keys(other))}
    return np.array([row_of.get(key, -1) for key in _keys(table)], np.int64)


def _keys(table):
    names = "dataset", "image_index", "image_made_from"
    columns = [table[name].tolist() for name in names]
    segments = (tuple(numbers.tolist()) for numbers in table["segments"])
    return zip(*columns, segments, map(tuple, table["box"].tolist()), strict=True)


# reading


def read_table(path):
    """The table of embedded objects in a file.

    Raises
    ------
    SettingError
        It is missing, broken, something else, or holds no object.
    """
    path = Path(path)
    if not path.is_file():
        files = path.parent.glob("embeddings_*.p") if path.parent.is_dir() else ()
        there = ", ".join(sorted(file.name for file in files))
        raise SettingError(
            f"{path} is missing; run compute_embeddings.py first; "
            f"{path.parent} has {there or 'no such file'}"
        )
    table = tables.read_embeddings(path)
    if not len(table):
        why = table.facts.get("emptied_by", "compute_embeddings.py says why it found none")
        raise SettingError(f"{path} holds no object: {why}")
    return table


def only_datasets(path, table, names):
    """The objects of some datasets in the table of a file; None: all.

    Raises
    ------
    SettingError
        It has no object of one of them.
    """
    if names is None:
        return table
    there = sorted(set(table["dataset"]))
    missing = sorted(set(names) - set(there))
    if missing:
        raise SettingError(
            f"{path} has no objects of {', '.join(missing)}, only of {', '.join(there)}; run "
            "compute_embeddings.py with them first"
        )
    if not set(there) - set(names):
        return table  # and no second copy of all vectors
    return table.take(np.isin(table["dataset"].astype(str), names))
