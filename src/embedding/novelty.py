"""How new an object is: how far its vector lies from those of known things.

Known are segments of the dataset that the networks learnt on, as far as they are trusted. Stage 4
embeds them once, and keeps their vectors beside those of the objects.
"""

from dataclasses import dataclass, replace

import numpy as np

from src.store import provenance, tables
from src.store.paths import known_vectors

_SAME = "net", "crop_size", "format"  # of vectors that may be compared


@dataclass(frozen=True, eq=False)
class Known:
    """The known segments of one dataset."""

    vectors: np.ndarray  # (M, F) float32
    image_index: np.ndarray  # (M,) int64
    dataset: str
    digest: str  # of what they were made from


def embed_known(run, embedding, trusted):
    """Embed the known segments unless that is done, and keep their vectors below the table's.

    A picture that fails is named, and does without.

    Parameters
    ----------
    run : Runner
    embedding : Embedding
        Of the objects.
    trusted : Trusted
    """
    names, path = trusted.measured_images(), known_vectors(embedding.path)
    if not names:
        run.log.info(
            "without segments of %s, which the networks learnt on, no object has a novelty: run "
            "stages 1 and 2 for it",
            ", ".join(trusted.datasets),
        )
        return
    known = replace(embedding, source=trusted)
    made_from = _made_from(known, names)
    if not run.overwrite and provenance.why_stale(path, made_from) is None:
        return
    kept = {}
    here = replace(run, executor=None, fail_fast=bool(run.fail_fast))  # objects matter more
    tally = here.stream(known.embed, kept.__setitem__, names, "embedding known segments")
    found = [kept[name][0] for name in names if name in kept and len(kept[name][0])]
    if not found:
        run.log.warning("no segment of %s is known and trusted: no novelty", names[0].dataset)
        if not tally.failed:
            path.unlink(missing_ok=True)  # what was known is not any more
        return
    columns = "embeddings", "image_index"
    vectors, image_index = (np.concatenate([of[key] for of in found]) for key in columns)
    finite = np.isfinite(vectors).all(axis=1)
    content = {"vectors": vectors[finite], "image_index": image_index[finite]}
    if tally.failed:  # they are tried again
        made_from = _made_from(known, [name for name in names if name in kept])
    tables.write_table(path, content, made_from)
    run.log.info("wrote %s: %d known segments of %d pictures", path, finite.sum(), len(found))


def _made_from(known, names):
    trusted = known.source
    segments = [[name.index, _segments_from(trusted, name)] for name in names]
    return provenance.of_known(known.network, trusted.selection, names[0].dataset, segments)


def _segments_from(trusted, name):
    try:
        return trusted.made_from(name)[0]
    except (OSError, ValueError):  # will be named when it is embedded
        return None


def read_known(path, made_from):
    """The known segments that go with a table of objects: a Known, or None.

    Parameters
    ----------
    path : path
        Of the table.
    made_from : dict
        What it is made from; vectors by another network are not compared.
    """
    try:
        content = tables.read_pickle(known_vectors(path))
        source = content["made_from"]
        if any(source[key] != made_from[key] for key in _SAME) or not len(content["vectors"]):
            return None
        digest = provenance.digest(source)
        return Known(content["vectors"], content["image_index"], source["dataset"], digest)
    except (OSError, ValueError, KeyError, TypeError):  # missing or broken: stage 4 makes it anew
        return None


def with_novelty(table, known):
    """The table with a column `novelty` (N,) float32; NaN where there is nothing to compare with.

    Segments of an object's own picture are not compared with it. `known` is a Known, or None.
    """
    found = np.full(len(table), np.nan, np.float32)
    if known is not None and len(table):
        is_own = table["dataset"] == known.dataset
        others = np.flatnonzero(~is_own)
        found[others] = novelty(table["embeddings"][others], known.vectors)
        for index in np.unique(table["image_index"][is_own]):
            rows = np.flatnonzero(is_own & (table["image_index"] == index))
            vectors = known.vectors[known.image_index != index]
            found[rows] = novelty(table["embeddings"][rows], vectors)
    return table.with_columns(novelty=found)


def novelty(vectors, known, k=5):
    """Distance of each vector to the k-th nearest known one (Sun et al., arXiv 2204.06507).

    All are brought to length 1, as theirs: the length of features tells other things too.

    Parameters
    ----------
    vectors : ndarray of shape (N, F), float
    known : ndarray of shape (M, F), float
        Of less than `k` the farthest counts.
    k : int

    Returns
    -------
    distance : ndarray of shape (N,), float32
        Euclidean, in [0, 2]; higher = stranger; NaN where none is known.
    """
    if not len(vectors) or not len(known):
        return np.full(len(vectors), np.nan, np.float32)
    from sklearn.neighbors import NearestNeighbors  # slow to import
    from sklearn.preprocessing import normalize

    search = NearestNeighbors(n_neighbors=min(k, len(known)), algorithm="brute")
    return search.fit(normalize(known)).kneighbors(normalize(vectors))[0][:, -1].astype(np.float32)
