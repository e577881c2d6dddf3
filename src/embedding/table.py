"""The table of embedded segments while it grows: what stays, what is still to be computed."""

import time
from collections import Counter, deque
from contextlib import closing
from pathlib import Path

import numpy as np

from src.records import CropTask, ImageName
from src.run import parallel
from src.store import cache
from src.store.files import locked

SAVE_EVERY = 10  # seconds, while vectors come in, at least
SAVING = 0.05  # share of the time that may go into it


class GrowingTable:
    """The segments that are wanted, with the vectors that are there and those that come in.

    Rows stand in the order of dataset, image and component. Other runs may write the same file at
    the same time: what they have added since it was read is taken over before it is written.

    Parameters
    ----------
    log : logging.Logger
    path : path
        Where the table is written. What is there already and was made by the same network stays:
        the vectors of segments that are wanted again, and all segments of other datasets.
    found : FoundSegments
        The wanted segments.
    made_from : dict
        `net` and `crop_size`: the network, and the size to which it scales crops.
    overwrite : bool
        Whether vectors of wanted segments are computed again.

    Attributes
    ----------
    is_up_to_date : bool
        Whether the file at `path` has all that is wanted, and says so.
    """

    def __init__(self, log, path, found, made_from, overwrite):
        self._log, self._path, self._found = log, path, found
        self._network, self._overwrite = made_from, overwrite
        old, source = self._read()
        self._unsaved, self._saved, self._pause = False, time.monotonic(), SAVE_EVERY
        self.is_up_to_date = (
            self._made_from["datasets"] == old["made_from"].get("datasets", {})
            and not self._missing().any()
            and np.array_equal(source[self._has_vector], np.arange(len(old["box"])))
        )

    def fill(
        self, embedder, num_cores, *, executor=None, images_per_job=1, dry_run=False,
        fail_fast=False,
    ):  # fmt: skip
        """Compute the missing vectors, and write the table unless it is up to date.

        It is also written now and then, and where an error or an interrupt ends this. Where no
        segment is wanted, a file that is there stays as it is.

        Parameters
        ----------
        embedder : Embedder
            Its errors are failures of the image. Vectors with NaN or infinity are named, left out
            and not tried again.
        num_cores : int
            Processes that cut, while this one embeds.
        executor, images_per_job
            What cuts and embeds, where that is not to happen here; see `parallel.for_each_image`.
        dry_run, fail_fast : bool
            See `parallel.for_each_result`; a dry run writes nothing.

        Returns
        -------
        tally : Tally
        """

        reason = "args.overwrite" if self._overwrite else "segments without a vector"

        def compute(tasks):
            if executor is None:
                return self._compute(tasks, embedder, num_cores)
            return self._collect(tasks, embedder, executor, images_per_job)

        try:
            tally = parallel.for_each_result(
                compute,
                lambda task, _: None,  # `compute` keeps what it gets
                self._tasks(),
                num_cores=1,
                description="embedding",
                why=lambda task: reason if len(task.rows) else None,
                dry_run=dry_run,
                fail_fast=fail_fast,
                log=self._log,
            )
        except BaseException:  # an interrupt too
            if self._unsaved:
                self._write()
            raise
        if dry_run:
            if not self.is_up_to_date:
                self._log.info("%s would be written", self._path)
            return tally
        if not self.is_up_to_date and not len(self._wanted) and Path(self._path).is_file():
            self._log.warning("%s keeps what it has, as no segment was selected", self._path)
        elif self._unsaved or not self.is_up_to_date:
            self._write()
        return tally

    def complete(self):
        """The table of all segments that have a vector; see `cache.read_embeddings`."""
        table = {"embeddings": np.zeros((len(self._has_vector), 0), np.float32), **self._table}
        table["not_finite"] = sorted(self._not_finite)
        if self._has_vector.all():
            return table
        return cache.take_segments(table, np.flatnonzero(self._has_vector))

    def _collect(self, tasks, embedder, executor, images_per_job):
        """Yield (task, None or the error) of images whose vectors came from elsewhere."""
        results = parallel.results(embedder.embed_image, tasks, 1, executor, images_per_job)
        with closing(results):
            for task, result in results:
                if isinstance(result, Exception):
                    yield task, result
                    continue
                vectors, thumbnails = result
                self._put_thumbnails(task.rows, thumbnails)
                for row, vector in zip(task.rows.tolist(), vectors, strict=True):
                    self._put(row, vector)
                yield task, None

    def _compute(self, tasks, embedder, num_cores):
        """Yield (task, None or the error) of images whose vectors are all in the table."""
        failed, task_of, missing = deque(), {}, Counter()

        def cut_all():
            for task, result in parallel.results(embedder.cut, tasks, num_cores):
                if isinstance(result, Exception):
                    failed.append((task, result))
                    continue
                content, thumbnails = result
                self._put_thumbnails(task.rows, thumbnails)
                task_of.update(dict.fromkeys(task.rows.tolist(), task))
                missing[task] = len(task.rows)
                yield task, content

        with closing(embedder.embed(cut_all())) as vectors:
            for row, vector in vectors:
                self._put(int(row), vector)
                task = task_of.pop(int(row))
                missing[task] -= 1
                if not missing[task]:
                    yield task, None
                while failed:
                    yield failed.popleft()
        yield from failed

    def _missing(self):
        """Rows, as mask, whose vectors are neither there nor known not to be finite."""
        missing = ~self._has_vector
        for row in np.flatnonzero(missing).tolist() if self._not_finite else ():
            missing[row] = self._key(row) not in self._not_finite
        return missing

    def _key(self, row):
        """What tells a segment from every other, in plain values."""
        table = self._table
        image = table["image_level_index"][row]
        name = table["dataset"][image], int(table["image_index"][image])
        number, box = int(table["component_index"][row]), tuple(table["box"][row].tolist())
        return *name, table["image_made_from"][image], number, box

    def _tasks(self):
        """A CropTask for each image that is wanted, without rows where nothing is missing.

        Its rows count the wanted segments only: what other runs add does not change them.
        """
        missing, table = self._missing()[self._wanted], self._table
        images = table["image_level_index"][self._wanted]
        numbers, boxes = (table[name][self._wanted] for name in ("component_index", "box"))
        tasks = []
        ends = np.flatnonzero(np.diff(images)) + 1
        for rows in np.split(np.arange(len(images)), ends) if len(images) else ():
            image, todo = images[rows[0]], rows[missing[rows]]
            tasks.append(
                CropTask(
                    name=ImageName(table["dataset"][image], int(table["image_index"][image])),
                    path=table["image_path"][image],
                    size=tuple(table["image_size"][image].tolist()),
                    rows=todo,
                    numbers=numbers[todo],
                    boxes=boxes[todo],
                )
            )
        return tasks

    def _put_thumbnails(self, rows, thumbnails):
        for row, thumbnail in zip(self._wanted[rows].tolist(), thumbnails, strict=True):
            self._table["thumbnail"][row] = thumbnail

    def _put(self, row, vector):
        self._unsaved = True
        row = self._wanted[row]
        if not np.isfinite(vector).all():
            dataset, index, _, number, box = key = self._key(row)
            self._log.warning(
                "segment %d of image %d of %s (box %s) is left out: its vector is not finite",
                number, index, dataset, box,
            )  # fmt: skip
            self._not_finite.add(key)
            return
        self._store(row, vector)
        if time.monotonic() - self._saved > self._pause:
            self._write()

    def _store(self, rows, vectors):
        if "embeddings" not in self._table:
            self._table["embeddings"] = _nothing(len(self._has_vector), vectors.shape[-1])
        self._table["embeddings"][rows] = vectors
        self._has_vector[rows] = True

    def _read(self):
        """Begin with what the file has; gives its table, and the row there of each row here."""
        self._version = cache.version_of(self._path)
        old = _read_old(self._log, self._path, self._found, self._network)
        there = old["made_from"].get("datasets", {})
        self._made_from = cache.as_stored(
            # the version is for the record, and makes no file stale
            {**self._network, "datasets": there | self._found.made_from, "version": cache.version()}
        )
        self._table, source, is_wanted = _merged(self._found, old)
        self._wanted = np.flatnonzero(is_wanted)
        if self._overwrite:
            source[is_wanted] = -1
        _take_vectors(self._table, old, source)
        self._has_vector = source >= 0
        self._not_finite = {
            key
            for key in old.get("not_finite", ())
            if not (self._overwrite and key[0] in self._found.made_from)
        }
        return old, source

    def _take_over(self):
        """Read the file anew, which another run has written, and add what was computed here."""
        table, rows, not_finite = self._table, self._wanted, self._not_finite
        is_here = self._has_vector[rows]
        self._read()
        self._not_finite |= not_finite
        if is_here.any():
            self._store(self._wanted[is_here], table["embeddings"][rows[is_here]])
        for row, old_row in zip(self._wanted.tolist(), rows.tolist(), strict=True):
            thumbnail = table["thumbnail"][old_row]
            if thumbnail is not None:
                self._table["thumbnail"][row] = thumbnail

    def _write(self):
        start = time.monotonic()
        with locked(self._path):
            if cache.version_of(self._path) != self._version:
                self._take_over()
            cache.write_table(self._path, self.complete(), self._made_from)
            self._version = cache.version_of(self._path)
        self._unsaved, self._saved = False, time.monotonic()
        self._pause = max(SAVE_EVERY, (self._saved - start) / SAVING)
        self._log.info("wrote %s: %d segments", self._path, self._has_vector.sum())


def is_of(path, made_from):
    """Whether a table of embedded segments is there and its vectors are of the same network.

    Parameters
    ----------
    path, made_from
        As for `GrowingTable`.
    """
    try:
        return _is_same(cache.made_from(path), made_from)
    except (OSError, ValueError):
        return False


def _is_same(there, made_from):
    expected = cache.as_stored(made_from)
    return {name: (there or {}).get(name) for name in expected} == expected


def _read_old(log, path, found, made_from):
    """The table at `path` if it was made by the same network, else one without segments."""
    nothing = cache.take_segments(found.table, []) | {"thumbnail": [], "made_from": {}}
    if not Path(path).is_file():
        return nothing
    try:
        old = cache.read_embeddings(path)
    except ValueError as error:
        log.warning("%s: all segments are embedded again", error)
        return nothing
    others = ", ".join(sorted(set(old["dataset"]) - set(found.made_from)))
    if not _is_same(old["made_from"], made_from):
        dropped = f"; the segments of {others} are dropped" if others else ""
        log.warning(
            "%s was made by another network, crop size or version: all segments are embedded "
            "again%s", path, dropped,
        )  # fmt: skip
        return nothing
    if others:
        log.info("%s keeps the segments of %s", path, others)
    return old


def _merged(found, old):
    """The wanted segments, and those in images that were not searched now; without vectors.

    The latter are images of other datasets, and those that could not be searched.

    Returns
    -------
    table : dict
    source : ndarray of shape (N,), int64
        The row of each segment in `old`, -1 where it is not there.
    is_wanted : ndarray of shape (N,), bool
    """
    wanted = found.table
    names = zip(old["dataset"], old["image_index"].tolist(), strict=True)
    stays = [name[0] not in found.made_from or name in found.not_searched for name in names]
    kept = np.flatnonzero(np.array(stays, bool)[old["image_level_index"]])
    others = cache.take_segments(cache.without_vectors(old), kept)
    table = {name: _joined(others[name], column) for name, column in wanted.items()}
    table["image_level_index"][len(kept) :] += len(others["image_path"])
    image = table["image_level_index"]
    order = np.lexsort((table["component_index"], table["image_index"][image], _dataset_of(table)))
    source = np.concatenate([kept, _matching_rows(wanted, old)])
    return cache.take_segments(table, order), source[order], order >= len(kept)


def _joined(one, other):
    return np.concatenate([one, other]) if isinstance(one, np.ndarray) else [*one, *other]


def _matching_rows(wanted, old):
    """Row in `old` of each wanted segment, -1 where it is not there with the same box."""
    position = {key: at for at, key in enumerate(_image_keys(old))}
    image = np.array([position.get(key, -1) for key in _image_keys(wanted)], np.int64)
    ours = (image[wanted["image_level_index"]] << 32) + wanted["component_index"]
    theirs = (old["image_level_index"] << 32) + old["component_index"]
    if not len(theirs):
        return np.full(len(ours), -1)
    order = np.argsort(theirs)
    place = np.searchsorted(theirs, ours, sorter=order)
    row = order[np.minimum(place, len(theirs) - 1)]
    is_same = (theirs[row] == ours) & (old["box"][row] == wanted["box"]).all(axis=1)
    return np.where(is_same, row, -1)


def _image_keys(table):
    """What tells an image, as it is segmented now, from every other."""
    names = table["dataset"], table["image_index"].tolist(), table["image_made_from"]
    return zip(*names, strict=True)


def _dataset_of(table):
    """Dataset of each segment: (N,) str."""
    return np.asarray(table["dataset"], np.str_)[table["image_level_index"]]


def _take_vectors(table, old, source):
    """Bring vectors, maps and thumbnails of an older table; NaN and None where there are none."""
    table["thumbnail"] = [old["thumbnail"][row] if row >= 0 else None for row in source.tolist()]
    if (source < 0).all():
        return
    is_all = np.array_equal(source, np.arange(len(old["box"])))
    for name in cache.VECTORS:
        if name in old:
            table[name] = old[name] if is_all else _rows_of(old[name], source)
    if "reduced_by" in old:
        table["reduced_by"] = old["reduced_by"]


def _rows_of(vectors, source):
    """The vectors of some rows, NaN for row -1."""
    found = np.empty((len(source), vectors.shape[1]), np.float32)
    np.take(vectors, source, axis=0, out=found, mode="clip")
    found[source < 0] = np.nan
    return found


def _nothing(rows, size):
    return np.full((rows, size), np.nan, np.float32)
