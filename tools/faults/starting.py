"""Start scripts without waiting for their imports.

Each is a fork of one process that has imported the libraries, but nothing of this project. It is
the script itself that runs, in a session of its own, from its first line on.
"""

import ctypes
import multiprocessing
import os
import runpy
import sys

LIBRARIES = (
    *("h5py", "hdf5plugin", "matplotlib.pyplot", "PIL.Image", "sacred", "scipy.ndimage"),
    *("sklearn.ensemble", "sklearn.linear_model", "sklearn.metrics", "torch", "torchvision"),
)


def start(script, words, *, log, environment, privileges=True):
    """Start a script as `python script *words` does; gives its multiprocessing.Process.

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
    process : multiprocessing.Process
        `-process.pid` is its group, the processes that it starts included.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    arguments = str(script), [*map(str, words)], str(log), environment, privileges
    process = context.Process(target=_become, args=arguments)
    process.start()
    return process


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
