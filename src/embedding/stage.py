"""Stage 4: from the pictures of some datasets to the vectors of their suspicious objects.

Each picture has a file of its own; the table of all objects is collected from them.
"""

from collections import deque
from contextlib import closing
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from src import pictures
from src.embedding.novelty import embed_known
from src.embedding.suspects import Judge, Loaded
from src.embedding.table import collect, matching_rows
from src.embedding.trusted import Trusted
from src.embedding.vectors import Embedder, read_picture
from src.run import processes
from src.run.kept import Kept
from src.store import provenance, tables
from src.store.paths import Results, seen_vectors, vectors_folder
from src.store.seen import Seen


@dataclass(eq=False)
class Embedding(Kept):
    """What stage 4 does with pictures, here or in another process."""

    source: Judge | Loaded  # where the objects of a picture come from
    embedder: Embedder
    network: dict  # see `provenance.of_vectors`
    io_path: Path  # folder of all results
    path: Path  # of the table that is collected
    num_cores: int = 1  # processes that choose and cut, while this one embeds
    overwrite: bool = False  # whether vectors that are there are computed again
    trusted: Trusted | None = None  # where the known segments come from, that objects are new to

    def file_of(self, name):
        """Path of the vectors of a picture."""
        results = Results(self.io_path, self.source.model_name, name.dataset)
        return results.vectors(name.index, self.path)

    @property
    def seen(self):
        """Tells which pictures need not be embedded."""

        def files(name):
            return [self.file_of(name), *self.source.files(name)]

        facts = {"network": self.network, "selection": self.source.selection}
        return Seen(seen_vectors(self.path), facts, files, self.why_stale, self.source.inputs)

    def why_stale(self, name):
        """Why a picture must be embedded, as text; None: it need not."""
        return provenance.why_stale(self.file_of(name), self._made_from(name))

    def embed(self, names):
        """Yield (ImageName, (ObjectTable, made_from) or the exception), in any order."""
        self.embedder.network  # noqa: B018 (what is wrong with it shows before pictures are read)
        ready, begun = deque(), {}

        def cut_all():
            for name, result in processes.results(self.prepare, names, self.num_cores):
                if isinstance(result, Exception):
                    ready.append((name, result))
                    continue
                table, made_from, content = result
                if content is None:
                    ready.append((name, (table, made_from)))
                else:
                    begun[name] = table, made_from
                    yield name, content

        with closing(self.embedder.embed(cut_all())) as embedded:
            for name, vectors in embedded:
                table, made_from = begun.pop(name)
                yield name, (table.with_columns(embeddings=vectors), made_from)
                while ready:
                    yield ready.popleft()
        yield from ready

    def prepare(self, name):
        """Choose and cut the objects of a picture.

        Returns
        -------
        table : ObjectTable
            With thumbnails; with vectors too where an earlier run has embedded all of them.
        made_from : dict
        content : object
            What the vectors are made from; None: they are there, or there is no object.
        """
        made_from = self._made_from(name)
        table = self.source.objects_of(name)
        if not len(table):
            return table, made_from, None
        kept = self._kept(name, table, made_from)
        if kept:
            return table.with_columns(**kept), made_from, None
        picture = read_picture(table)
        thumbnails = [pictures.thumbnail(picture, box) for box in table["box"]]
        table = table.with_columns(thumbnail=tables.as_column(thumbnails))
        places = self.source.places(name.dataset)
        return table, made_from, self.embedder.cut(picture, table, places)

    def store(self, name, result):
        """Write the vectors of a picture; those that are not finite are left out, and named."""
        table, made_from = result
        if len(table):
            is_finite = np.isfinite(table["embeddings"]).all(axis=1)
            left_out = table["component_index"][~is_finite].tolist()
            table = table.take(is_finite).with_facts(not_finite=left_out)
        tables.write_objects(self.file_of(name), table, made_from)

    def _kept(self, name, table, made_from):
        """Vectors and thumbnails of all objects where the same network has embedded them, or None.

        Of all or of none: the vectors of a picture are computed together.
        """
        if self.overwrite:
            return None
        try:
            there, source = tables.read_objects(self.file_of(name))
        except (OSError, ValueError):
            return None
        rows = matching_rows(table, there)
        is_same = all(source[key] == made_from[key] for key in ("segments", "net", "crop_size"))
        if not is_same or (rows < 0).any():
            return None
        return {key: there[key][rows] for key in ("embeddings", "thumbnail")}

    def _made_from(self, name):
        segments, selection = self.source.made_from(name)
        return provenance.of_vectors(segments, selection, self.network)


def embed_dataset(run, embedding):
    """Embed the pictures that have no up-to-date vectors, and collect the table of all.

    Returns
    -------
    tally : Tally
    collection : Collection or None
        None: in a dry run, and where no picture could be embedded.
    """
    names = embedding.source.measured_images()
    ours = run.in_shard(names, attrgetter("index"))
    if not (run.dry_run or run.scheduler or vectors_folder(embedding.path).is_dir()):
        embedding.embedder.network  # noqa: B018 (what is wrong with it shows before all else)
    one_of_each = {name.dataset: name for name in ours}.values()
    folders = [embedding.file_of(name).parent for name in one_of_each]
    run.prepare(*folders, Path(embedding.path).parent)
    with run.on_cluster(embedding.io_path, gpu=embedding.embedder.device is None) as run:
        tally = run.stream(embedding.embed, embedding.store, ours, "embedding", embedding.seen)
    if run.dry_run:
        if tally.planned or not Path(embedding.path).is_file():
            run.log.info("%s would be written", embedding.path)
        return tally, None
    failed = {name for name, _ in tally.failed}
    done = [name for name in ours if f"image {name}" not in failed]
    if ours and not done:
        return tally, None
    if embedding.trusted and done:
        embed_known(run, embedding, embedding.trusted)
    return tally, collect(run.log, embedding, names, done, run.verify)
