"""One function over many images: progress, failures that stop nothing, one line at the end."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing

from tqdm import tqdm

from src.records import Tally

with warnings.catch_warnings():  # sacred imports pkg_resources, which announces its end
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from sacred.utils import SacredError

_LOOK = 0.5  # seconds of work that tell how long the rest will take
_STARTING = 4.0  # seconds that it takes to start processes
_AHEAD = 4  # images a process that are begun or wait to be fetched
_SLOW_IMPORTS = ("torch", "torchvision", "sklearn.metrics")


def for_each_image(function, indices, *, num_cores, description, consume=None, is_done=None, log):
    """Call a function once for each image, and use what it returns here.

    Parameters
    ----------
    function : callable
        Takes an index. With several processes it is pickled: a function of a module, or a
        `functools.partial` of one. An exception means that this image failed; the others go on.
        Only a SacredError, a wrong setting, ends the run.
    indices : iterable
        Indices (int), or all that a process needs to know of an image; `str` of it names the image.
    num_cores : int
        Processes to use; with 1 everything happens in this one.
    description : str
        A word or two beside the progress bar.
    consume : callable, optional
        Takes an index and what the function returned, in this process and in the order of the
        images; its exceptions are failures too. None: what the function returns is dropped.
    is_done : callable, optional
        Takes an index; images for which it is true are skipped.
    log : logging.Logger
        Each failed image is named here: reasons as errors, tracebacks at level DEBUG.

    Returns
    -------
    tally : Tally
        Failed images are called "image <index>".

    Raises
    ------
    KeyboardInterrupt
        As it comes; images in progress in other processes are finished, no more are begun.
    """
    _check_num_cores(num_cores)
    return for_each_result(
        lambda todo: results(function, todo, num_cores),
        consume or (lambda _index, _result: None),
        indices,
        num_cores=1,
        description=description,
        is_done=is_done,
        log=log,
    )


def for_each_result(produce, consume, indices, *, num_cores, description, is_done=None, log):
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
    indices, description, is_done, log
        As for `for_each_image`.

    Returns
    -------
    tally : Tally

    Raises
    ------
    KeyboardInterrupt
        As it comes, once all results there are have been consumed.
    Exception
        What `produce` itself raises, likewise.
    """
    _check_num_cores(num_cores)

    def work(todo):
        if todo:
            yield from _in_threads(consume, produce(todo), num_cores)

    return _count(work, indices, description, is_done, log)


def results(function, indices, num_cores):
    """Yield what a function makes of each image, in their order, while it works on the next ones.

    What `for_each_result` may have as `produce`, or the first link of it. No more than a few
    results a process are held, however long the caller takes over each. Processes are started
    only where the work is not done sooner without them.

    Parameters
    ----------
    function, num_cores
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
    done, seconds = 0, 0.0
    while waiting and (min(num_cores, len(waiting)) == 1 or _is_short(seconds, done, len(waiting))):
        index = waiting.popleft()
        start = time.monotonic()
        result = _call(function, index)
        done, seconds = done + 1, seconds + time.monotonic() - start
        yield index, result
    if waiting:
        yield from _from_processes(function, waiting, min(num_cores, len(waiting)))


def summary(tally):
    """The line a run over many images ends with."""
    total = tally.done + tally.skipped + len(tally.failed)
    return (
        f"{tally.done} done, {tally.skipped} skipped (already there), "
        f"{len(tally.failed)} failed, {total} in total, {tally.seconds:.1f} s"
    )


def close(log, tally):
    """End a script: log the summary, and fail if an image failed.

    Raises
    ------
    SacredError
        See `failure`.
    """
    log.info(summary(tally))
    if tally.failed:
        raise failure(tally)


def failure(tally):
    """The SacredError that names what failed; sacred prints no traceback and exits with 1."""
    lines = [f"{name}: {reason}" for name, reason in tally.failed]
    message = f"{len(lines)} failed; the others are done:"
    return SacredError("\n  ".join([message, *lines]), print_traceback=False)


def _check_num_cores(num_cores):
    if num_cores < 1:
        raise ValueError(f"`num_cores` must be at least 1, got {num_cores}")


def _count(work, indices, description, is_done, log):
    """Do what is not done yet, with a progress bar; give the tally.

    `work` takes the indices to do, and gives a generator of (index, None or the exception).
    """
    start = time.monotonic()
    indices = list(indices)
    todo = [index for index in indices if not _is_done(is_done, index)]
    skipped = len(indices) - len(todo)
    failed = []
    bar = tqdm(total=len(indices), initial=skipped, desc=description, unit="image")
    with bar, closing(work(todo)) as results:
        for index, error in results:
            if isinstance(error, SacredError):
                raise error
            if error is not None:
                name, reason = f"image {index}", f"{type(error).__name__}: {error}"
                failed.append((name, reason))
                log.error("%s failed: %s", name, reason)
                log.debug("%s", name, exc_info=error)
            bar.update()
    return Tally(len(todo) - len(failed), skipped, tuple(failed), time.monotonic() - start)


def _is_done(is_done, index):
    """Whether an image is done; where that cannot be told, working on it will say why."""
    try:
        return is_done is not None and is_done(index)
    except SacredError:
        raise
    except Exception:
        return False


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


def _from_processes(function, waiting, workers):
    """Yield (index, result or the exception) in the order of the deque `waiting`."""
    pending = deque()
    with ProcessPoolExecutor(workers, new_processes(), initializer=_begin_worker) as pool:
        try:
            while waiting or pending:
                while waiting and len(pending) < workers * _AHEAD:
                    index = waiting.popleft()
                    pending.append((index, _submit(pool, function, index)))
                index, future = pending.popleft()
                yield index, future.exception() or future.result()
                del future  # its result may be as large as an image
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(pool, function, index):
    """The future of a call; where a process has been killed, one that says so."""
    try:
        return pool.submit(function, index)
    except BrokenProcessPool as error:
        future = Future()
        future.set_exception(error)
        return future


def _in_threads(consume, results, workers):
    """Yield (index, None or the exception) as results are consumed, in any order."""
    pending = {}
    with ThreadPoolExecutor(workers) as pool, closing(results):  # leaving consumes what is pending
        for index, result in results:
            if isinstance(result, Exception):
                yield index, result
            elif workers == 1:
                yield index, _error_of(consume, index, result)
            else:
                pending[pool.submit(_error_of, consume, index, result)] = index
            del result  # as large as an image
            if len(pending) == workers:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        for future in as_completed(pending):
            yield pending[future], future.result()


def new_processes():
    """The context of `multiprocessing` for processes beside this one.

    A plain fork would copy the threads' locks of torch and HDF5 in whatever state they are. What is
    slow to import and was needed here is imported once for all of them.
    """
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
    if os.name != "nt":
        context.set_forkserver_preload([name for name in _SLOW_IMPORTS if name in sys.modules])
    return context


def ignore_interrupt(*_):
    """In a worker process: leave to the parent what an interrupt means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begin_worker():
    ignore_interrupt()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    """Keep a killed parent from leaving its workers behind, waiting for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
