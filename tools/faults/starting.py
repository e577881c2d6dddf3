"""Start scripts without waiting for their imports.

Each is a fork of one process that has imported the libraries, but nothing of this project. It is
the script itself that runs, in a session of its own, from its first line on.
"""

import ctypes
import multiprocessing
import os
import runpy
import sys
import threading
from multiprocessing import connection

LIBRARIES = (
    *("h5py", "hdf5plugin", "matplotlib.pyplot", "PIL.Image", "sacred", "scipy.ndimage"),
    *("sklearn.ensemble", "sklearn.linear_model", "sklearn.metrics", "torch", "torchvision"),
)

# to start a process and to ask for an exit code polls all processes, and of two threads that poll
# one process only the first gets its exit code
_one_polls = threading.Lock()


class Started:
    """A process that `start` has started.

    Attributes
    ----------
    pid : int
        Also its group, the processes that it starts included.
    """

    def __init__(self, process):
        with _one_polls:
            process.start()
        self._process, self.pid = process, process.pid

    def exitcode(self, wait=0):
        """Its exit code, negative for a signal; None: it is still running after `wait` seconds."""
        connection.wait([self._process.sentinel], wait)
        with _one_polls:
            return self._process.exitcode


def start(script, words, *, log, environment, privileges=True):
    """Start a script as `python script *words` does.

    Parameters
    ----------
    script : path
    words : sequence of str
    log : path
        Takes all that it prints, after what is there.
    environment : dict of str to str
        Added to this process's. PYTHONPATH is searched first.
    privileges : bool
        False: the modes of files hold for it, even if it runs as root.

    Returns
    -------
    started : Started
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    arguments = str(script), [*map(str, words)], str(log), environment, privileges
    return Started(context.Process(target=_become, args=arguments))


def _become(script, words, log, environment, privileges):
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(environment)
    if not privileges:
        version, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capset(version, none)  # not a single capability
    sys.path[0:0] = environment["PYTHONPATH"].split(os.pathsep)
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")
