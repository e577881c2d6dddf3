"""One function over many images: progress, failures that stop nothing, one line at the end."""

import multiprocessing
import os
import signal
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing

from tqdm import tqdm

from src.records import Tally

with warnings.catch_warnings():  # sacred imports pkg_resources, which announces its end
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from sacred.utils import SacredError


def for_each_image(function, indices, *, num_cores, description, is_done=None, log):
    """Call a function once for each image.

    Parameters
    ----------
    function : callable
        Takes an index; what it returns is dropped. With several processes it is pickled: a
        function of a module, or a `functools.partial` of one. An exception means that this image
        failed; the others go on. Only a SacredError, a wrong setting, ends the run.
    indices : iterable of int
    num_cores : int
        Processes to use; with 1 everything happens in this one.
    description : str
        A word or two beside the progress bar.
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
    if num_cores < 1:
        raise ValueError(f"`num_cores` must be at least 1, got {num_cores}")
    start = time.monotonic()
    indices = list(indices)
    todo = [index for index in indices if not _is_done(is_done, index)]
    skipped = len(indices) - len(todo)
    workers = min(num_cores, len(todo))
    results = _in_processes(function, todo, workers) if workers > 1 else _here(function, todo)
    failed = []
    bar = tqdm(total=len(indices), initial=skipped, desc=description, unit="image")
    with bar, closing(results):
        for index, error in results:
            if error is not None:
                name, reason = f"image {index}", f"{type(error).__name__}: {error}"
                failed.append((name, reason))
                log.error("%s failed: %s", name, reason)
                log.debug("%s", name, exc_info=error)
            bar.update()
    return Tally(len(todo) - len(failed), skipped, tuple(failed), time.monotonic() - start)


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
        Names the images that failed. sacred prints it without a traceback and exits with 1.
    """
    log.info(summary(tally))
    if tally.failed:
        lines = [f"{name}: {reason}" for name, reason in tally.failed]
        message = f"{len(lines)} failed; the others are done:"
        raise SacredError("\n  ".join([message, *lines]), print_traceback=False)


def _is_done(is_done, index):
    """Whether an image is done; where that cannot be told, working on it will say why."""
    try:
        return is_done is not None and is_done(index)
    except SacredError:
        raise
    except Exception:
        return False


def _here(function, indices):
    """Yield (index, None or the exception) one image after the other."""
    for index in indices:
        try:
            function(index)
        except SacredError:
            raise
        except Exception as error:
            yield index, error
        else:
            yield index, None


def _in_processes(function, indices, workers):
    """Yield (index, None or the exception) as images are finished, in any order."""
    # a plain fork would copy the threads' locks of torch and HDF5 in whatever state they are
    method = "spawn" if os.name == "nt" else "forkserver"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker) as pool:
        futures = {pool.submit(function, index): index for index in indices}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, SacredError):
                    raise error
                yield futures[future], error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    """Keep a killed parent from leaving its workers behind, waiting for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
