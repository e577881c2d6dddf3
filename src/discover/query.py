"""A picture or words from outside: embedded like the segments, placed on their maps."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from src import pictures
from src.datasets import read_image
from src.embedding.maps import place_beside
from src.errors import SettingError
from src.store.provenance import identity

_BOX = r"\[" + ",".join([r"\s*(\d{1,9})\s*"] * 4) + r"\]"


@dataclass(frozen=True)
class Query:
    """A picture from outside, or a line of words, embedded like the segments."""

    name: str
    thumbnail: bytes  # JPEG
    embeddings: np.ndarray  # (F,) float32
    nn_embeddings: np.ndarray  # (D,) float32: its place in the space of the neighbours
    plot_embeddings: np.ndarray  # (2,) float32: its place on the map
    is_words: bool = False  # which lie near pictures by cosine, and only in the vectors as they are


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
    return _part(path, picture, box, "`args.query_box`")


def typed_part(text):
    """The Part that is typed in a window, such as `photo.jpg` or `photo.jpg [10, 20, 200, 180]`.

    What is no picture is a SettingError of one sentence, whatever it is: who types need not be who
    may look around here.
    """
    match = re.fullmatch(r"(.+?)\s*" + _BOX, text)
    path, *box = match.groups() if match else [text]
    try:
        picture = np.array(read_image(Path(path).expanduser()))
    except (OSError, ValueError, RuntimeError):  # the last where ~ is nobody's
        raise SettingError(f"{path} is no picture that can be read here") from None
    return _part(path, picture, list(map(int, box)) or None, "the part")


def _part(path, picture, box, setting):
    """A Part of a picture; None: all of it. `setting` is what the box is called, for messages."""
    height, width = picture.shape[:2]
    left, upper, right, lower = box = [0, 0, width, height] if box is None else box
    if not (0 <= left < right <= width and 0 <= upper < lower <= height):
        raise SettingError(
            f"{setting} must lie inside {path} ({width} x {height} pixels, width x height) "
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
    return replace(_query(log, line, thumbnail, vector, table, net, embedder), is_words=True)


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


class Queries:
    """Makes Queries of words and pictures, for all who look at one table.

    Parameters
    ----------
    log, table, net
        As for `embed_part`.
    make_embedder : callable
        Gives the Embedder; called at the first question, and what it gives is kept.
    """

    def __init__(self, log, table, net, make_embedder):
        self.log, self.table, self.net, self._make_embedder = log, table, net, make_embedder
        self._pool = ThreadPoolExecutor(1)  # one question after another
        self._is_ready = False

    @cached_property
    def _embedder(self):
        return self._make_embedder()

    def of_words(self, line):
        """As `embed_words`."""
        return self._embed(embed_words, line)

    def of_part(self, part):
        """As `embed_part`."""
        return self._embed(embed_part, part)

    def later(self, make, *what):
        """A Future of what `make` gives for something, in another thread."""
        return self._pool.submit(make, *what)

    def doing(self):
        """In words what takes its time."""
        return f"{'asking' if self._is_ready else 'building'} the network {self.net}"

    def _embed(self, embed, what):
        query = embed(self.log, what, self.table, self.net, self._embedder)
        self._is_ready = True
        return query
