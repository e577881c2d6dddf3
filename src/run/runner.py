"""How the stages work on many images: progress, failures that stop nothing, one line at the end."""

import logging
import re
import time
from collections import defaultdict
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial

from src.errors import RunError
from src.progress import progress
from src.run import cluster, processes
from src.run.settings import SHARD
from src.store import files
from src.store.provenance import OTHER_FORMAT
from src.store.seen import Seen

_CHECKED = 4096  # images that are looked at together
_LISTED = 10  # images named in a plan
_FIRST = 3  # images that end a run if they fail alike
_OWN = re.compile(  # what reasons have of the image: paths, quoted or not, file names, numbers
    r"""(['"])[^'"]*[/\\][^'"]*\1 | \S*[/\\.]\w\S* | [-+]?\d\S*""", re.VERBOSE
)


@dataclass(frozen=True)
class Tally:
    """How a run over many images ended."""

    done: int  # images worked on now
    skipped: int  # images found done
    failed: tuple[tuple[str, str], ...]  # name of each image that failed, and why
    seconds: float  # that the run took
    planned: int = 0  # images that a dry run would have worked on


@dataclass(frozen=True)
class Runner:
    """How to work on images: what with, on which of them, and what becomes of failures.

    Each failed image is named in `log`: reasons as errors, tracebacks at level DEBUG. An `executor`
    does the work in the place of processes of this machine; see `on_cluster`. It may have a method
    `slots()`, how many jobs it can be at now, and is then given three times as many. A job that
    comes to a `cluster.SuspectError` is tried again by images, each alone.
    """

    log: logging.Logger
    num_cores: int = 1  # processes and threads that may work at the same time
    scheduler: str | None = None  # see `cluster.connect`; None: this machine, without Dask
    images_per_job: int = 16  # in a row, for a worker of a cluster; a job should take seconds
    shard: str | None = None  # "k/n": image i is for this machine if i % n = k; None: all are
    overwrite: bool = False  # work on images that are done as well
    verify: bool = False  # read the files of all images to tell which are done; see `Seen`
    dry_run: bool = False  # only log how many images would be worked on, and why
    # whether the first image that fails ends the run; None: only the first three that fail alike
    fail_fast: bool | None = None
    executor: Executor | None = None

    def __post_init__(self):
        if self.num_cores < 1:
            raise ValueError(f"`num_cores` must be at least 1, got {self.num_cores}")

    @classmethod
    def from_args(cls, args, log):
        """The Runner of a script, from those of its settings that are named like an attribute."""
        names = [field.name for field in fields(cls) if field.name in args]
        return cls(log, **{name: args[name] for name in names})

    def is_elsewhere(self):
        """Whether the work is done on machines that may have GPUs where this one has none."""
        return self.scheduler is not None and not self.scheduler.startswith("local:")

    @contextmanager
    def on_cluster(self, folder, gpu=False):
        """This Runner at work on what `scheduler` names; in a dry run, or without one, here.

        Arguments and errors are those of `cluster.connect`; `folder`, that of the results, is made.
        """
        if self.scheduler is None or self.dry_run:
            yield self
            return
        files.prepare(folder)
        with cluster.connect(self.scheduler, folder, self.log, gpu) as executor:
            yield replace(self, executor=executor)

    def prepare(self, *folders):
        """Make folders for what is written, unless nothing is; see `files.prepare`."""
        if not self.dry_run:
            files.prepare(*folders)

    def in_shard(self, images, index_of=int):
        """Those of a list of images that this machine works on; may be none.

        `index_of` gives the index of an image; by default images are indices.

        Raises
        ------
        SettingError
            If `shard` is no k/n.
        """
        if self.shard is None:
            return images
        SHARD.check("args.shard", self.shard, "all")
        machine, count = map(int, self.shard.split("/"))
        return [image for image in images if index_of(image) % count == machine]

    def each(self, function, images, what, consume=None, why=None):
        """Call a function once for each image, and use what it returns here.

        Parameters
        ----------
        function : callable
            Takes an image. With several processes it is pickled: a function of a module, or a
            `functools.partial` of one. An exception means that this image failed; the others go on.
            Only a RunError, such as a wrong setting or a full disk, ends the run.
        images : iterable
            Indices (int), or all that a process needs to know of an image; `str` of it names it.
        what : str
            A word or two beside the progress bar.
        consume : callable, optional
            Takes an image and what the function returned, in this process and in the order of the
            images; its exceptions are failures too. None: what the function returns is dropped.
        why
            As for `stream`.

        Returns
        -------
        tally : Tally
            Failed images are called "image <index>".

        Raises
        ------
        KeyboardInterrupt, RunError
            As for `stream`; images in progress in other processes are finished, no more are begun.
        """
        how = self.num_cores, self.executor, self.images_per_job

        def produce(todo):
            return processes.results(function, todo, *how)

        consume = consume or (lambda _image, _result: None)
        return replace(self, executor=None).stream(produce, consume, images, what, why)

    def stream(self, produce, consume, images, what, why=None, threads=1):
        """Produce the results of all images in turn, and consume each meanwhile; gives the Tally.

        For work that one thing does, such as a GPU, and that other things take off its hands. No
        more than `threads` results are held, and the one that is being produced.

        Parameters
        ----------
        produce : callable
            Takes the list of the images to work on, never an empty one, and gives a generator of
            (image, result). Runs here. An exception as result means that this image failed. With an
            executor it is pickled, as `consume` is, and a job calls them there as here; only errors
            come back. What `produce` itself raises is then a failure of the images of the job.
        consume : callable
            Takes an image and its result; what it returns is dropped. Its exceptions are failures
            too.
        images, what
            As for `each`.
        why : Seen or callable, optional
            Takes an image and says why it is to be worked on, as text; None: it is done. Called in
            several threads. Where it fails, the work will say why. A Seen keeps what it finds,
            except in a dry run.
        threads : int
            That consume, so `consume` should leave Python's lock to others; with 1 everything
            happens in this thread.

        Raises
        ------
        KeyboardInterrupt
            As it comes, once all results there are have been consumed and the summary is logged.
        RunError
            What ends a run; see `fail_fast`.
        Exception
            What `produce` itself raises here, likewise.
        """
        start, done, skipped, failed = time.monotonic(), 0, 0, []

        def tally(planned=0):
            return Tally(done, skipped, tuple(failed), time.monotonic() - start, planned)

        def work(todo):
            if todo and self.executor is None:
                yield from processes.in_threads(consume, produce(todo), threads)
            elif todo:
                job = partial(processes.stream, produce, consume, threads)
                yield from processes.elsewhere(self.executor, job, todo, self.images_per_job)

        try:
            images = list(images)
            todo = self._reasons(why, images, what)
            skipped = len(images) - len(todo)
            if self.dry_run:
                _log_plan(self.log, todo)
                return tally(planned=len(todo))
            first = [f"image {image}" for image, _ in todo[:_FIRST]] if len(todo) > _FIRST else []
            bar = progress(total=len(images), initial=skipped, desc=what, unit="image")
            with bar, closing(work([image for image, _ in todo])) as results:
                for image, error in results:
                    if error is None:
                        done += 1
                    else:
                        failed.append(self._logged(image, error))
                        if self.fail_fast:
                            raise failure(tally(), "the run stops there")
                        if self.fail_fast is None and not done and not skipped:
                            _check_first(first, failed)
                    bar.update()
        except KeyboardInterrupt:
            self.log.info("%s, interrupted", summary(tally()))
            raise
        return tally()

    def close(self, tally):
        """End a script: log the summary, and fail if an image failed.

        Raises
        ------
        RunError
            See `failure`.
        """
        self.log.info(summary(tally))
        if tally.failed:
            raise failure(tally)

    def _reasons(self, why, images, what):
        """Each image that is to be worked on, and the reason: a list of pairs."""
        if self.overwrite or why is None:
            return [(image, "args.overwrite" if why else "not looked at") for image in images]
        todo = []
        bar = progress(total=len(images), desc=f"{what}: looking", unit="image", delay=2)
        is_kept = isinstance(why, Seen)
        looking = why.looking(self.verify, not self.dry_run) if is_kept else nullcontext(why)
        with looking as why, bar, ThreadPoolExecutor() as pool:
            for start in range(0, len(images), _CHECKED):  # an interrupt waits for those that began
                part = images[start : start + _CHECKED]
                for image, reason in zip(part, pool.map(partial(_reason, why), part), strict=True):
                    if reason is not None:
                        todo.append((image, reason))
                    bar.update()
        old = sum(reason == OTHER_FORMAT for _, reason in todo)
        if old and not self.dry_run:
            self.log.info("%d files are of another version of this project: made again", old)
        return todo

    def _logged(self, image, error):
        """Name of an image that failed, and why, as it is logged; what ends a run is raised."""
        if isinstance(error, RunError):
            raise error
        name, reason = f"image {image}", f"{type(error).__name__}: {error}"
        self.log.error("%s failed: %s", name, reason)
        self.log.debug("%s", name, exc_info=error)
        return name, reason


@contextmanager
def said_once(log):
    """Meanwhile let each message of a log through only once, as where work is begun anew."""
    said = set()

    def is_new(record):
        count = len(said)
        said.add(record.getMessage())
        return len(said) > count

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)


def summary(tally):
    """The line a run over many images ends with."""
    total = tally.done + tally.planned + tally.skipped + len(tally.failed)
    begun = f"{tally.planned} to do" if tally.planned else f"{tally.done} done"
    return (
        f"{begun}, {tally.skipped} skipped (already there), "
        f"{len(tally.failed)} failed, {total} in total, {tally.seconds:.1f} s"
    )


def failure(tally, others=None):
    """The RunError that names what failed, and says what became of the others."""
    lines = [f"{name}: {reason}" for name, reason in tally.failed]
    others = others or ("the others are done" if tally.done + tally.skipped else "none is done")
    message = "\n  ".join([f"{len(lines)} failed; {others}:", *lines])
    return RunError(message)


def _check_first(first, failed):
    """End a run whose first images have all failed for one reason, by a RunError.

    `first` are their names, none where there are no others; `failed` is that of a Tally.
    """
    names = [name for name, _ in failed]
    reasons = {_OWN.sub("", reason) for _, reason in failed}
    if first and len(reasons) == 1 and set(first) <= set(names):
        raise RunError(
            f"the first {len(names)} failed alike; the others were not tried, which "
            f"args.fail_fast=False does:\n  {failed[0][1]}"
        )


def _reason(why, index):
    """Why an image is to be worked on; where that cannot be told, working on it will say."""
    try:
        return why(index)
    except RunError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _log_plan(log, todo):
    """Say how many images would be worked on for which reason, and which are the first."""
    names = defaultdict(list)
    for index, reason in todo:
        names[reason].append(str(index))
    for reason, images in names.items():
        more = ", ..." if len(images) > _LISTED else ""
        log.info("%d to do, %s: image %s%s", len(images), reason, ", ".join(images[:_LISTED]), more)
