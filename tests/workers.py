"""Schedulers and workers of Dask, each a process of its own; as a script: Dask's command line."""

import os
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from starting import start

TESTS = Path(__file__).resolve().parent
HERE = [TESTS.parent, TESTS]  # workers find the project and the tests' functions there


class Process:
    """A process of Dask's command line, and what it says."""

    def __init__(self, stack, *arguments, path=HERE, **variables):
        self._log = Path(stack.enter_context(TemporaryDirectory()), "log.txt")
        self._log.touch()
        self.process = start(
            __file__,
            [*arguments, "--no-dashboard"],
            folder=path[0],
            output=os.devnull,
            errors=self._log,
            environment={"PYTHONPATH": os.pathsep.join(map(str, path)), **variables},
        )
        stack.callback(self._end)

    def lines(self):
        return self._log.read_text().splitlines()

    def said(self, words):
        """The first line with some words, once it is there."""
        while self.process.is_alive():
            for line in self.lines():
                if words in line:
                    return line
            time.sleep(0.01)
        raise AssertionError("\n".join(self.lines()))

    def _end(self):
        self.process.kill()
        self.process.join()


class Cluster:
    """A scheduler, and workers as they are asked for."""

    def __init__(self, stack):
        self._stack = stack
        self.scheduler = Process(stack, "scheduler", "--host", "127.0.0.1", "--port", "0")
        self.address = self.scheduler.said("Scheduler at:").split()[-1]

    def worker(self, *arguments, **kwargs):
        """Start one, and wait until it has joined."""
        options = "--nthreads", "1", "--no-nanny", *arguments
        worker = Process(self._stack, "worker", self.address, *options, **kwargs)
        worker.said("Registered to:")
        return worker


@contextmanager
def new_cluster():
    with ExitStack() as stack:
        yield Cluster(stack)


if __name__ == "__main__":
    from dask.__main__ import main

    main()
