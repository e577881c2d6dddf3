"""Work on images by processes that may die, in threads, or by an executor from elsewhere."""

import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from functools import cache, partial
from queue import Empty, SimpleQueue

from src.errors import SettingError
from src.run import cluster
from src.run.signals import STOPS

ATTEMPTS = 3  # at an image whose process dies
_LOOK = 0.5  # seconds of work that tell how long the rest will take
_STARTING = 4.0  # seconds that it takes to start processes
_WAITING = 0.5  # seconds, at a time
_AHEAD = 4  # images a process that are begun or wait to be fetched
_AHEAD_ELSEWHERE = 3  # jobs that an executor has for each one that it can be at
_HELD_ELSEWHERE = 10_000  # images whose results may wait for that of an earlier one
_SHARED = "/dev/shm"  # where processes share memory and locks
_SLOW_IMPORTS = ("torch", "torchvision", "sklearn.metrics")


_log = logging.getLogger(__name__)


class WorkerDiedError(RuntimeError):
    """The process that worked on an image was killed, each time that it was tried."""


def results(function, indices, num_cores, executor=None, images_per_job=1):
    """Yield what a function makes of each image, in their order, while it works on the next ones.

    What `Runner.stream` may have as `produce`, or the first link of it. No more than a few
    results a process are held, however long the caller takes over each. Processes are started
    only where the work is not done sooner without them.

    Parameters
    ----------
    function, indices
        See `function` and `images` of `Runner.each`.
    num_cores : int
        Processes to use; with 1 everything happens in this one.
    executor, images_per_job
        See `Runner`.

    Yields
    ------
    index, result
        The exception where the function raised one.
    """
    waiting = deque(indices)
    job = partial(_each, function)
    if executor is not None:
        yield from elsewhere(executor, job, waiting, images_per_job)
        return
    done, seconds = 0, 0.0
    while waiting and (min(num_cores, len(waiting)) == 1 or _is_short(seconds, done, len(waiting))):
        index = waiting.popleft()
        start = time.monotonic()
        result = _call(function, index)
        done, seconds = done + 1, seconds + time.monotonic() - start
        yield index, result
    if waiting and not _can_start():
        yield from ((index, _call(function, index)) for index in waiting)
    elif waiting:
        processes = min(num_cores, len(waiting))
        _check_open_files(processes)
        with LocalProcesses(processes) as executor:
            yield from elsewhere(executor, job, waiting, held=processes * _AHEAD)


@cache
def _can_start():
    """Whether processes can be given work; a warning where they cannot."""
    try:
        new_processes().Lock()
    except OSError as error:
        _log.warning(
            "processes cannot be started, so all work is done in this one: %s takes no lock (%s); "
            "in a container, --shm-size=1g gives it one", _SHARED, os.strerror(error.errno),
        )  # fmt: skip
        return False
    return True


def _check_open_files(count):
    """Refuse to start more processes than files may be open for; half of it fails in many ways."""
    if os.name != "posix":
        return
    import resource  # not everywhere

    limit, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], 16 + 8 * count
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise SettingError(
            f"{count} processes need {needed} open files, and {limit} are allowed (ulimit -n): "
            "raise that, or lower args.num_cores"
        )


def has_shared_memory(size):
    """Whether there is room to share that many bytes, and as many for all that others share."""
    try:
        return shutil.disk_usage(_SHARED).free > 64 * size
    except OSError:
        return not sys.platform.startswith("linux")


def is_worker():
    """Whether this process was started to work for another."""
    return multiprocessing.parent_process() is not None


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


def elsewhere(executor, job, indices, images_per_job=1, held=_HELD_ELSEWHERE):
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
                with suppress(Empty):  # a signal just before a wait does not end it
                    finished.get(timeout=_WAITING)
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


def stream(produce, consume, num_cores, indices):
    """A job: None for each image that is produced and consumed, or else the exception."""
    errors = dict(in_threads(consume, produce(indices), num_cores))
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


def in_threads(consume, results, workers):
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
    for number in STOPS:  # the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    """Keep a killed parent from leaving its workers behind, waiting for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
