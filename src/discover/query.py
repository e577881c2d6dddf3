"""A picture or words from outside: embedded like the segments, placed on their maps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src import pictures
from src.datasets import read_image
from src.embedding.maps import place_beside
from src.errors import SettingError
from src.store.provenance import identity


@dataclass(frozen=True)
class Query:
    """A picture from outside, or a line of words, embedded like the segments."""

    name: str
    thumbnail: bytes  # JPEG
    embeddings: np.ndarray  # (F,) float32
    nn_embeddings: np.ndarray  # (D,) float32: its place in the space of the neighbours
    plot_embeddings: np.ndarray  # (2,) float32: its place on the map


@dataclass(frozen=True)
class Part:
    """A part of a picture from outside."""

    name: str  # of its file
    picture: np.ndarray  # (H, W, 3) uint8
    box: list[int]  # left, upper, right, lower in pixels; right and lower exclusive


def read_part(path, box=None):
    """The part of a picture that `args.query` and `args.query_box` name; None: no picture, all.

    Raises
    ------
    SettingError
        The picture cannot be read; it does not have the box, or there is a box without a picture.
    """
    if path is None:
        if box is not None:
            raise SettingError("args.query_box goes with args.query: the picture that has the box")
        return None
    try:
        picture = np.array(read_image(path))
    except (OSError, ValueError) as error:
        raise SettingError(f"args.query cannot be read: {error}") from error
    height, width = picture.shape[:2]
    left, upper, right, lower = box = [0, 0, width, height] if box is None else box
    if not (0 <= left < right <= width and 0 <= upper < lower <= height):
        raise SettingError(
            f"`args.query_box` must lie inside {path} ({width} x {height} pixels, width x height) "
            f"and hold something, got {box!r}"
        )
    return Part(Path(path).name, picture, box)


def embed_part(log, part, table, net, embedder):
    """A Query: a Part as the objects of a table are embedded, with its place on the table's maps.

    `net` is the name of the network of the Embedder, for messages; vectors of another length than
    the table's are a SettingError.
    """
    ((_, (vector,)),) = embedder.embed([(part.name, embedder.cut_box(part.picture, part.box))])
    thumbnail = pictures.thumbnail(part.picture, part.box)
    return _query(log, part.name, thumbnail, vector, table, net, embedder)


def embed_words(log, line, table, net, embedder):
    """A Query: a line of words, whose vector is near those of objects that look like it says.

    Otherwise as `embed_part`; a SettingError where the network of the Embedder reads no words.
    """
    vector, thumbnail = embedder.encode_text(line), pictures.blank_thumbnail()
    return _query(log, line, thumbnail, vector, table, net, embedder)


def _query(log, name, thumbnail, vector, table, net, embedder):
    """A Query with its place on the maps of a table."""
    made_from, vectors = table.facts["made_from"] or {}, table["embeddings"]
    if made_from.get("net") not in (None, identity(embedder.entry)):
        log.warning("the segments were embedded by other weights than args.net=%s has now", net)
    if vector.shape != vectors.shape[1:]:
        raise SettingError(
            f"args.net={net} gives {len(vector)} values, the segments have "
            f"{vectors.shape[1]}: name the network that embedded them"
        )
    return Query(name, thumbnail, vector, **place_beside(table, vector))
