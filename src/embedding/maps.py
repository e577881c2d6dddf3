"""Maps of the embedding space: made of a table's vectors, and kept in its file."""

from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np

from src.embedding import space
from src.embedding.table import MAPS, read_table
from src.errors import SettingError, WriteError
from src.store import tables
from src.store.files import locked, version_of

MAX_NEW = 1 / 3  # share of a table's objects that may be placed on a map made of the others


@dataclass(frozen=True)
class Reduction:
    """How vectors become maps, see `space.reduce`."""

    method: str = "tsne"  # one of `space.METHODS`
    size: int | None = 2  # dimensions to find neighbours in; None: the vectors as they are
    seed: int = 0
    tsne: dict = field(default_factory=dict)  # options of t-SNE


def read_with_maps(log, path, reduction, overwrite=False, keep=False):
    """The table of a file of stage 4 with its maps, which are made and stored where they lack.

    Those are the columns `nn_embeddings` and `plot_embeddings`; `overwrite` makes them again, and
    `keep` keeps them however many objects have come since. It is a SettingError if the file cannot
    be read, or the vectors cannot be reduced like that.
    """
    version = version_of(path)  # before it is read: another run may write it meanwhile
    return with_maps(log, path, version, read_table(path), reduction, overwrite, keep)


def with_maps(log, path, version, table, reduction, overwrite=False, keep=False):
    """The table of a file with its maps; see `read_with_maps`.

    Objects that have come since the maps were made are placed on them, without moving others; where
    they are more than `MAX_NEW` of all, the maps are made anew. A file that is no longer the one
    that was read, of that `version`, stays as it is.
    """
    made_by, known = asdict(reduction), table.facts.get("reduced_by") or {}
    is_stale = overwrite or any(known.get(name) != value for name, value in made_by.items())
    if is_stale or not (keep or _has_few_new(log, table, known)):
        maps = reduce_table(log, table["embeddings"], reduction)
        made_by["objects"] = len(table)
    else:
        maps, made_by = place_new(log, table), known
    if not maps:
        return table
    table = table.with_columns(**maps).with_facts(reduced_by=made_by)
    made_from = table.facts["made_from"]
    if made_from is None:
        log.warning("the map is not kept in %s: that is a file of the original system", path)
        return table
    try:
        with locked(path):
            if version_of(path) == version:
                tables.write_embeddings(path, table, made_from)
            else:
                log.warning("the map is not kept: another run has written %s meanwhile", path)
    except (OSError, WriteError) as error:
        log.warning("the map cannot be kept, and will be made again next time: %s", error)
    return table


def _has_few_new(log, table, reduced_by):
    """Whether most objects were there when the maps were made, placed or not since; else told."""
    there = np.isfinite(table["plot_embeddings"]).all(axis=1).sum()
    count = len(table)
    new = count - min(there, reduced_by.get("objects", there))
    if new <= MAX_NEW * count:
        return True
    log.info(
        "making the map anew: %d of %d segments have come since it was made, more than a third "
        "(args.keep_map=True keeps it and places them on it)",
        new, count,
    )  # fmt: skip
    return False


def reduce_table(log, vectors, reduction):
    """Columns `nn_embeddings` (N, size), for neighbours, and `plot_embeddings` (N, 2)."""
    method, size, tsne = reduction.method, reduction.size, reduction.tsne
    log.info("reducing %d vectors of %d values by %s", *vectors.shape, method)
    reduce = partial(space.reduce, vectors, method, seed=reduction.seed, **tsne)
    try:
        plot = reduce(dimensions=2)
        neighbour = vectors if size is None else plot if size == 2 else reduce(dimensions=size)
    except (TypeError, ValueError) as error:  # of the library that does it
        given = ", ".join(f"tsne.{name}={value!r}" for name, value in tsne.items())
        raise SettingError(
            f"args.method={method} cannot reduce {len(vectors):,} vectors"
            f"{' with ' * bool(given)}{given}: {error}"
        ) from error
    return {"nn_embeddings": neighbour, "plot_embeddings": plot}


def place_new(log, table):
    """The columns of `reduce_table` without their NaN; empty where there are none."""
    new = np.isnan(table["plot_embeddings"]).any(axis=1)
    if not new.any():
        return {}
    log.info("placing %d new segments on the map", np.count_nonzero(new))
    vectors, maps = table["embeddings"], {}
    for name in MAPS:
        points = table[name].copy()
        if points.shape == vectors.shape and table.facts["reduced_by"]["size"] is None:
            points = vectors
        else:
            points[new] = space.place(vectors[new], vectors[~new], points[~new])
        maps[name] = points
    return maps


def place_beside(table, vector):
    """Where a further vector (F,) lies on each map of a table: a dict of the names in `MAPS`."""
    vectors, maps = table["embeddings"], [table[name] for name in MAPS]
    (place,) = space.place(vector[None], vectors, np.hstack(maps))  # by one search
    places = dict(zip(MAPS, np.split(place, [maps[0].shape[1]]), strict=True))
    if table["nn_embeddings"].shape == vectors.shape:  # the vectors as they are
        places["nn_embeddings"] = vector
    return places
