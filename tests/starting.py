"""Start scripts without waiting for their imports.

Each is a fork of one process that has imported the libraries, but nothing of this project. It is
the script itself that runs, in a session of its own, from its first line on. Start all of them in
one thread: of two threads that ask for exit codes one may be told a wrong one.
"""

import gc
import multiprocessing
import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = (
    *("distributed", "filelock", "git", "h5py", "hdf5plugin", "matplotlib.pyplot", "PIL.Image"),
    *("sacred", "scipy.ndimage", "sklearn.ensemble", "sklearn.linear_model", "sklearn.metrics"),
    *("torch", "torchvision"),
)


def start(script, words, *, folder, output, errors, environment):
    """Start a script as `python script *words` does.

    Parameters
    ----------
    script : path
    words : sequence of str
    folder : path
        That it works in.
    output, errors : path
        Take what it prints, after what is there.
    environment : dict of str to str
        Added to this process's.

    Returns
    -------
    process : multiprocessing.Process
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    arguments = map(str, (script, folder, output, errors))
    process = context.Process(target=_become, args=(*arguments, [*map(str, words)], environment))
    process.start()
    return process


def _become(script, folder, output, errors, words, environment):
    os.setsid()
    for stream, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    os.environ.update(environment)
    os.chdir(folder)
    ours = {"", str(HERE), str(HERE.parent)}  # a script does not see the checkout of the tests
    sys.path[:] = [path for path in sys.path if path not in ours]
    searched = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0:0] = [str(Path(script).parent), *filter(None, searched)]
    sys.argv = [script, *words]
    gc.freeze()  # or each collection copies what the libraries hold, as if it were the script's
    runpy.run_path(script, run_name="__main__")
