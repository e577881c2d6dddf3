"""One function over many images: progress, failures that stop nothing, one line at the end."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import defaultdict, deque
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from queue import SimpleQueue

from tqdm import tqdm

from src.errors import RunError
from src.records import Tally
from src.run import cluster
from src.store import files

ATTEMPTS = 3  # at an image whose process dies
_LOOK = 0.5  # seconds of work that tell how long the rest will take
_STARTING = 4.0  # seconds that it takes to start processes
_AHEAD = 4  # images a process that are begun or wait to be fetched
_AHEAD_ELSEWHERE = 3  # jobs that an executor has for each one that it can be at
_HELD_ELSEWHERE = 10_000  # images whose results may wait for that of an earlier one
_CHECKED = 4096  # images that are looked at together
_LISTED = 10  # images named in a plan
_SLOW_IMPORTS = ("torch", "torchvision", "sklearn.metrics")


class WorkerDiedError(RuntimeError):
    """The process that worked on an image was killed, each time that it was tried."""


@contextmanager
def open_executor(scheduler, folder, log, gpu=False):
    """What `args.scheduler` names, for the functions below to work with.

    Parameters
    ----------
    scheduler : str or None
        "tcp://host:8786", a running Dask scheduler; "local:4", a Dask cluster of four processes on
        this machine for the time being; None: processes of this machine, without Dask.
    folder : path
        Of the results; every worker must see it.
    log : logging.Logger
    gpu : bool
        Whether images need a GPU: they go to workers that offer the resource GPU, if there are any.

    Yields
    ------
    executor : concurrent.futures.Executor or None

    Raises
    ------
    RunError
        See `cluster.connect`.
    """
    if scheduler is None:
        yield None
        return
    files.prepare(folder)
    with cluster.connect(scheduler, folder, log, gpu) as executor:
        yield executor


def for_each_image(
    function, indices, *, num_cores, description, consume=None, executor=None, images_per_job=1,
    **options,
):  # fmt: skip
    """Call a function once for each image, and use what it returns here.

    Parameters
    ----------
    function : callable
        Takes an index. With several processes it is pickled: a function of a module, or a
        `functools.partial` of one. An exception means that this image failed; the others go on.
        Only a RunError, such as a wrong setting or a full disk, ends the run.
    indices : iterable
        Indices (int), or all that a process needs to know of an image; `str` of it names the image.
    num_cores : int
        Processes to use; with 1 everything happens in this one.
    description : str
        A word or two beside the progress bar.
    consume : callable, optional
        Takes an index and what the function returned, in this process and in the order of the
        images; its exceptions are failures too. None: what the function returns is dropped.
    executor : concurrent.futures.Executor, optional
        What does the work in the place of processes on this machine, such as `open_executor` gives.
        It may have a method `slots()`, how many jobs it can be at now, and is then given three
        times as many. A job that comes to a `cluster.SuspectError` is tried again by images, each
        of them alone.
    images_per_job : int
        Images in a row that the executor gets together; to be chosen so that a job takes seconds.
    **options
        `why`, `dry_run`, `fail_fast` and `log` of `for_each_result`.

    Returns
    -------
    tally : Tally
        Failed images are called "image <index>".

    Raises
    ------
    KeyboardInterrupt
        As it comes; images in progress in other processes are finished, no more are begun.
    RunError
        As for `for_each_result`.
    """
    _check_num_cores(num_cores)
    return for_each_result(
        lambda todo: results(function, todo, num_cores, executor, images_per_job),
        consume or (lambda _index, _result: None),
        indices,
        num_cores=1,
        description=description,
        **options,
    )


def for_each_result(
    produce, consume, indices, *, num_cores, description, why=None, dry_run=False, fail_fast=False,
    log, executor=None, images_per_job=1,
):  # fmt: skip
    """Produce the results of all images in turn, and consume each while the next one is produced.

    For work that one thing does, such as a GPU, and that other things take off its hands. No more
    than `num_cores` results are held, and the one that is being produced.

    Parameters
    ----------
    produce : callable
        Takes the list of the indices to work on, never an empty one, and gives a generator of
        (index, result). Runs here. An exception as result means that this image failed.
    consume : callable
        Takes an index and its result; what it returns is dropped. Its exceptions are failures too.
    num_cores : int
        Threads that consume, so `consume` should leave Python's lock to others; with 1 everything
        happens in this thread.
    indices, description
        As for `for_each_image`.
    why : callable, optional
        Takes an index and says why the image is to be worked on, as text; None: it is done. Called
        in several threads. Where it fails, the work will say why.
    dry_run : bool
        Only log how many images would be worked on, and why.
    fail_fast : bool
        End the run at the first image that fails, instead of after all others.
    log : logging.Logger
        Each failed image is named here: reasons as errors, tracebacks at level DEBUG.
    executor, images_per_job
        As for `for_each_image`. `produce` and `consume` are pickled, and a job calls them there as
        here; only errors come back. What `produce` itself raises is then a failure of the images
        of the job.

    Returns
    -------
    tally : Tally

    Raises
    ------
    KeyboardInterrupt
        As it comes, once all results there are have been consumed and the summary is logged.
    RunError
        What ends a run; with `fail_fast` the first failure.
    Exception
        What `produce` itself raises here, likewise.
    """
    _check_num_cores(num_cores)
    start, done, skipped, failed = time.monotonic(), 0, 0, []

    def tally(planned=0):
        return Tally(done, skipped, tuple(failed), time.monotonic() - start, planned)

    def work(todo):
        if todo and executor is None:
            yield from _in_threads(consume, produce(todo), num_cores)
        elif todo:
            job = partial(_stream, produce, consume, num_cores)
            yield from _from_executor(executor, job, todo, _HELD_ELSEWHERE, images_per_job)

    try:
        indices = list(indices)
        todo = _reasons(why, indices, description)
        skipped = len(indices) - len(todo)
        if dry_run:
            _log_plan(log, todo)
            return tally(planned=len(todo))
        bar = tqdm(total=len(indices), initial=skipped, desc=description, unit="image")
        with bar, closing(work([index for index, _ in todo])) as results:
            for index, error in results:
                if error is None:
                    done += 1
                else:
                    failed.append(_logged(log, index, error))
                    if fail_fast:
                        raise failure(tally(), "the run stops there")
                bar.update()
    except KeyboardInterrupt:
        log.info("%s, interrupted", summary(tally()))
        raise
    return tally()


def results(function, indices, num_cores, executor=None, images_per_job=1):
    """Yield what a function makes of each image, in their order, while it works on the next ones.

    What `for_each_result` may have as `produce`, or the first link of it. No more than a few
    results a process are held, however long the caller takes over each. Processes are started
    only where the work is not done sooner without them.

    Parameters
    ----------
    function, num_cores, executor, images_per_job
        As for `for_each_image`.
    indices : iterable
        What the function takes: indices, or all that a process needs to know of an image.

    Yields
    ------
    index, result
        The exception where the function raised one.
    """
    _check_num_cores(num_cores)
    waiting = deque(indices)
    job = partial(_each, function)
    if executor is not None:
        yield from _from_executor(executor, job, waiting, _HELD_ELSEWHERE, images_per_job)
        return
    done, seconds = 0, 0.0
    while waiting and (min(num_cores, len(waiting)) == 1 or _is_short(seconds, done, len(waiting))):
        index = waiting.popleft()
        start = time.monotonic()
        result = _call(function, index)
        done, seconds = done + 1, seconds + time.monotonic() - start
        yield index, result
    if waiting:
        processes = min(num_cores, len(waiting))
        with LocalProcesses(processes) as executor:
            yield from _from_executor(executor, job, waiting, processes * _AHEAD)


def summary(tally):
    """The line a run over many images ends with."""
    total = tally.done + tally.planned + tally.skipped + len(tally.failed)
    begun = f"{tally.planned} to do" if tally.planned else f"{tally.done} done"
    return (
        f"{begun}, {tally.skipped} skipped (already there), "
        f"{len(tally.failed)} failed, {total} in total, {tally.seconds:.1f} s"
    )


def close(log, tally):
    """End a script: log the summary, and fail if an image failed.

    Raises
    ------
    RunError
        See `failure`.
    """
    log.info(summary(tally))
    if tally.failed:
        raise failure(tally)


def failure(tally, others="the others are done"):
    """The RunError that names what failed."""
    lines = [f"{name}: {reason}" for name, reason in tally.failed]
    message = "\n  ".join([f"{len(lines)} failed; {others}:", *lines])
    return RunError(message)


class LocalProcesses(Executor):
    """Processes on this machine; one that dies costs the job it was at, which is tried again.

    Each process has a pool of its own: a pool of several loses the jobs of all when one dies. The
    result of a job whose process has died `ATTEMPTS` times is a `WorkerDiedError`.
    """

    def __init__(self, count):
        self._threads, self._own, self._pools = ThreadPoolExecutor(count), threading.local(), []

    def submit(self, function, /, *args, **kwargs):
        return self._threads.submit(self._run, function, args, kwargs)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait)

    def _run(self, function, args, kwargs):
        for _ in range(ATTEMPTS):
            try:
                return self._pool().submit(function, *args, **kwargs).result()
            except BrokenProcessPool:
                self._own.pool.shutdown()
                self._own.pool = None
        raise WorkerDiedError(
            f"its process was killed {ATTEMPTS} times; if the memory was full, a lower "
            "args.num_cores needs less"
        )

    def _pool(self):
        """The pool of this thread."""
        if getattr(self._own, "pool", None) is None:
            self._own.pool = ProcessPoolExecutor(1, new_processes(), initializer=_begin_worker)
            self._pools.append(self._own.pool)
        return self._own.pool


def _check_num_cores(num_cores):
    if num_cores < 1:
        raise ValueError(f"`num_cores` must be at least 1, got {num_cores}")


def _reasons(why, indices, description):
    """Each image that is to be worked on, and the reason: a list of pairs."""
    if why is None:
        return [(index, "not looked at") for index in indices]
    todo = []
    bar = tqdm(total=len(indices), desc=f"{description}: looking", unit="image", delay=2)
    with bar, ThreadPoolExecutor() as pool:
        for start in range(0, len(indices), _CHECKED):  # an interrupt waits for those that began
            part = indices[start : start + _CHECKED]
            for index, reason in zip(part, pool.map(partial(_reason, why), part), strict=True):
                if reason is not None:
                    todo.append((index, reason))
                bar.update()
    return todo


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


def _logged(log, index, error):
    """Name of an image that failed, and why, as it is logged; what ends a run is raised."""
    if isinstance(error, RunError):
        raise error
    name, reason = f"image {index}", f"{type(error).__name__}: {error}"
    log.error("%s failed: %s", name, reason)
    log.debug("%s", name, exc_info=error)
    return name, reason


def _call(function, *args):
    """What a call returns, or the exception that it raises."""
    try:
        return function(*args)
    except Exception as error:
        return error


def _error_of(function, *args):
    """The exception that a call raises, or None."""
    result = _call(function, *args)
    return result if isinstance(result, Exception) else None


def _is_short(seconds, done, left):
    """Whether the images that are left take less time than to start processes for them."""
    return seconds < _LOOK or seconds * left < _STARTING * done


def _from_executor(executor, job, indices, held, images_per_job=1):
    """Yield (index, result or the exception) in the order of the indices.

    `job` takes some indices and gives a list of as many results; `held` images are begun at most.
    """
    waiting, begun, finished = deque(indices), deque(), SimpleQueue()
    running = 0

    def submit(chunk):
        future = executor.submit(job, chunk)
        future.add_done_callback(lambda _: finished.put(None))
        return future

    try:
        while waiting or begun:
            while not finished.empty():
                finished.get()
                running -= 1
            room = _room(executor, held // images_per_job)
            while waiting and running < room and len(begun) < max(room, held // images_per_job):
                chunk = [waiting.popleft() for _ in range(min(images_per_job, len(waiting)))]
                begun.append((chunk, submit(chunk)))
                running += 1
            if not begun[0][1].done():
                finished.get()
                running -= 1
                continue
            chunk, future = begun.popleft()
            if not isinstance(future.exception(), cluster.SuspectError):
                yield from zip(chunk, _outcomes(future, chunk), strict=True)
                del future  # its results may be as large as images
                continue
            wait([future for _, future in begun])
            for index in chunk:
                alone = submit([index])
                running += 1
                yield index, _of_suspect(*_outcomes(alone, [index]))
    finally:
        for _, future in begun:
            future.cancel()


def _room(executor, jobs):
    """How many jobs an executor should have that are not finished."""
    slots = getattr(executor, "slots", None)
    return _AHEAD_ELSEWHERE * max(slots(), 1) if slots else max(jobs, 1)


def _outcomes(future, chunk):
    """The results of a job, or its exception for each of its images."""
    error = future.exception()
    if error is not None:
        return [error] * len(chunk)
    return [r.unpacked() if isinstance(r, _Failure) else r for r in future.result()]


def _of_suspect(outcome):
    if not isinstance(outcome, cluster.SuspectError):
        return outcome
    return WorkerDiedError(f"{outcome} alone; if the memory was full, fewer workers a machine help")


def _each(function, indices):
    """A job: what a function makes of each image."""
    return [_packed(_call(function, index)) for index in indices]


def _stream(produce, consume, num_cores, indices):
    """A job: None for each image that is produced and consumed, or else the exception."""
    errors = dict(_in_threads(consume, produce(indices), num_cores))
    return [_packed(errors[index]) for index in indices]


def _packed(result):
    return _Failure(result) if isinstance(result, Exception) else result


class _Failure:
    """An exception on its way from a worker, with the traceback that pickling drops."""

    def __init__(self, error):
        self._text = "".join(traceback.format_exception(error))
        error = error.with_traceback(None)  # Dask makes pickle take it along
        try:
            self._error = pickle.dumps(error)
            pickle.loads(self._error)
        except Exception:
            self._error = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))

    def unpacked(self):
        error = pickle.loads(self._error)
        error.__cause__ = _ElsewhereError(f"\n{self._text}")
        return error


class _ElsewhereError(Exception):
    """Shows where on a worker an exception was raised."""


def _in_threads(consume, results, workers):
    """Yield (index, None or the exception) as results are consumed, in any order."""
    pending = {}

    def finished(when):
        for future in wait(pending, return_when=when).done:
            yield pending.pop(future), future.result()

    with ThreadPoolExecutor(workers) as pool, closing(results):  # leaving consumes what is pending
        try:
            for index, result in results:
                if isinstance(result, Exception):
                    yield index, result
                elif workers == 1:
                    yield index, _error_of(consume, index, result)
                else:
                    pending[pool.submit(_error_of, consume, index, result)] = index
                del result  # as large as an image
                if len(pending) == workers:
                    yield from finished(FIRST_COMPLETED)
        except GeneratorExit:
            raise
        except BaseException:  # an interrupt, say: count what there is
            yield from finished(ALL_COMPLETED)
            raise
        yield from finished(ALL_COMPLETED)


def new_processes():
    """The context of `multiprocessing` for processes beside this one.

    A plain fork would copy the threads' locks of torch and HDF5 in whatever state they are. What is
    slow to import and was needed here is imported once for all of them.
    """
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
    if os.name != "nt":
        context.set_forkserver_preload([name for name in _SLOW_IMPORTS if name in sys.modules])
    return context


def _begin_worker():
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    """Keep a killed parent from leaving its workers behind, waiting for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
