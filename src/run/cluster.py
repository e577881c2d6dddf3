"""The one module that knows Dask: its workers, as a `concurrent.futures.Executor`.

Workers belong to whoever started them, perhaps for more than this project. So none is closed: each
is examined when it joins, and one that passes offers a resource that every job of ours asks for.
What travels before that is pickled by value, as not even the project may be there.
"""

import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
import secrets
import signal
import socket
import threading
import warnings
import weakref
import zlib
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from multiprocessing import resource_tracker
from pathlib import Path

from src.errors import RunError
from src.run.settings import SCHEDULER

ATTEMPTS = 3  # at a job whose worker dies, where the scheduler is ours
_CONNECTING = 12  # seconds to wait for a scheduler; Dask needs 11
_CLOSING = 3  # seconds to wait for one that hangs
_LOOKING = 30  # seconds to wait for a folder
_WATCHING = 0.5  # seconds between two looks at the connection
_NOISY = "distributed", "distributed.client", "tornado.application", "asyncio"


class SuspectError(RuntimeError):
    """Workers died with a job each time it was tried; jobs that wait there are suspected too."""


@contextmanager
def connect(scheduler, folder, log, gpu=False):
    """An executor whose jobs run on the workers of a Dask cluster.

    Workers that are refused, that join later or go away are told to `log`.

    Parameters
    ----------
    scheduler : str
        The address of a running scheduler, such as "tcp://host:8786" (also tls://), or "local:N":
        a cluster of N worker processes on this machine for the time being.
    folder : path
        There already; workers must see it too.
    log : logging.Logger
    gpu : bool
        Jobs ask for a worker's resource GPU, one each, if any worker offers it.

    Yields
    ------
    executor : concurrent.futures.Executor
        Has also `slots()`: how many jobs the workers can be at, now. A job whose workers died has
        a SuspectError, one whose scheduler is gone a RunError.

    Raises
    ------
    RunError
        Another `scheduler`, no Dask, no scheduler there, no worker that can be used.
    """
    SCHEDULER.check("args.scheduler", scheduler, "none")
    try:
        import distributed  # noqa: F401 (an extra, and slow to import)
    except ImportError:
        raise RunError("`args.scheduler` needs `pip install .[cluster]`") from None
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if scheduler.startswith("local:"):
            cluster = stack.enter_context(_local_cluster(int(scheduler.removeprefix("local:"))))
            address = cluster.scheduler_address
        else:
            address = scheduler
        client = stack.enter_context(_client(address))
        _check_python(client)
        token = stack.enter_context(_token(folder))
        executor = stack.enter_context(_Executor(client, log))
        executor.examine_workers(token)
        executor.wait_for_worker()
        executor.choose_resources(gpu)
        yield executor


@cache
def version():
    """Digest of the source files of this package, as they are when a process first asks: str."""
    digest = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:12]


@cache
def packages():
    """Versions of what figures depend on: a dict of str to str."""
    names = "numpy", "torch", "h5py"
    found = {name: importlib.metadata.version(name) for name in names}
    return {"Python": platform.python_version(), **found}


class _Executor(Executor):
    """Jobs go to the workers that offer the resource of this version of the project."""

    def __init__(self, client, log):
        self._client, self._log = client, log
        self._address = client.scheduler.address
        self._run = f"oodretrieval-{secrets.token_hex(8)}"
        self._changed = threading.Condition()
        self._accepted, self._refused = {}, {}
        self._plugins, self._functions, self._pending = [], {}, set()
        self._closing = threading.Event()
        self._gpu = False
        self._dask = None
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, function, /, *args):
        name = self._name_of(function)
        inner = self._dask.submit(_runner(), name, pickle.dumps(args))
        outer = Future()
        self._pending.add(outer)
        outer.add_done_callback(self._pending.discard)
        # weak: in a circle, results would stay in memory
        outer.add_done_callback(partial(_pass_on_cancel, weakref.ref(inner)))
        inner.add_done_callback(partial(self._hand_over, outer))
        return outer

    def slots(self):
        """Jobs that the accepted workers can be at, at the same time."""
        with self._changed:
            workers = [*self._accepted.values()]
        return sum(min(w["threads"], w["gpus"]) if self._gpu else w["threads"] for w in workers)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._closing.set()
        if self._client.status != "running":
            return
        for topic in (self._run, "all"):
            self._client.unsubscribe_topic(topic)
        remove = self._client.scheduler.unregister_worker_plugin
        with suppress(Exception):  # the scheduler may go, or hang, at this very moment
            for name in self._plugins:
                self._client.sync(remove, name=name, callback_timeout=_CLOSING)

    def examine_workers(self, token):
        """Look at every worker that there is, and from now on at every one that joins."""
        own = hashlib.sha256(f"{version()} {token.parent}".encode()).hexdigest()[:12]
        self._resource = f"oodretrieval-{own}"
        self._client.subscribe_topic(self._run, lambda event: self._hear(event[1]))
        self._client.subscribe_topic("all", lambda event: self._hear_all(event[1]))
        examiner = _examiner(
            resource=self._resource,
            topic=self._run,
            version=version(),
            packages=packages(),
            token=str(token),
        )
        self._register(examiner, self._run)
        for verdict in self._client.run(_verdict(), self._run, on_error="ignore").values():
            if verdict is not None:
                self._hear(verdict)

    def wait_for_worker(self):
        """Wait until there is a worker that can be used.

        Raises
        ------
        RunError
            All that are there are refused.
        """
        with self._changed:
            if not self._accepted and not self._refused:
                self._log.info("waiting for workers of %s", self._address)
            while not self._accepted and not self._refused:
                self._changed.wait(_WATCHING)
                if self._client.status != "running":
                    raise self._lost()
            if not self._accepted:
                reasons = "\n  ".join(sorted(self._refused.values()))
                raise RunError(f"no worker of {self._address} can be used:\n  {reasons}")

    def choose_resources(self, gpu):
        """Decide what jobs ask for, now that the first workers are known."""
        self._gpu = gpu and any(worker["gpus"] for worker in self._accepted.values())
        if gpu and not self._gpu:
            self._log.warning(
                "no worker offers --resources GPU=1: jobs run on every worker, with what it has"
            )
        resources = {self._resource: 1} | ({"GPU": 1} if self._gpu else {})
        self._dask = self._client.get_executor(resources=resources, pure=False)
        self._log.info("%d jobs at a time on workers of %s", self.slots(), self._address)

    def _register(self, plugin, name):
        self._plugins.append(name)
        self._client.register_plugin(plugin, name=name)

    def _name_of(self, function):
        """Name under which every worker has a function; at first it goes to all of them."""
        if id(function) not in self._functions:
            import cloudpickle

            name = f"{self._run}-{len(self._functions)}"
            try:
                self._register(_holder(zlib.compress(cloudpickle.dumps(function), 1)), name)
            except OSError:
                raise self._lost() from None
            self._functions[id(function)] = name, function  # kept, or another may get its id
        return self._functions[id(function)][0]

    def _hand_over(self, outer, inner):
        with suppress(InvalidStateError):  # cancelled here, or failed by `_watch`
            try:
                outer.set_result(pickle.loads(inner.result()))
            except CancelledError:
                outer.set_exception(self._lost())
            except Exception as error:
                outer.set_exception(_translated(error))

    def _watch(self):
        """Fail all jobs once the scheduler is gone, as Dask leaves some of them pending."""
        while not self._closing.wait(_WATCHING):
            if self._client.status != "running":
                for future in list(self._pending):
                    with suppress(InvalidStateError):  # it has its result
                        future.set_exception(self._lost())

    def _lost(self):
        return RunError(
            f"the scheduler {self._address} is gone; what is done stays: start it again, and then "
            "this script"
        )

    def _hear(self, verdict):
        """Note what a worker found about itself; may come twice."""
        address, refusal = verdict["address"], verdict["refusal"]
        with self._changed:
            if address in self._accepted or address in self._refused:
                return
            if refusal:
                self._refused[address] = f"{address} on {verdict['host']}: {refusal}"
            else:
                self._accepted[address] = verdict
            self._changed.notify_all()
        if refusal:
            self._log.warning("worker %s gets no jobs: %s", address, refusal)
        if verdict["differences"]:
            self._log.warning("worker %s has %s", address, verdict["differences"])

    def _hear_all(self, event):
        if not isinstance(event, dict) or event.get("action") != "remove-worker":
            return
        with self._changed:
            was_ours = self._accepted.pop(event["worker"], None)
            self._refused.pop(event["worker"], None)
        if was_ours and not event.get("expected") and not self._closing.is_set():
            self._log.warning(
                "worker %s is gone; the jobs that it was at are tried elsewhere", event["worker"]
            )


# what runs on the workers, pickled by value: it may use modules and its own locals, nothing else


@cache
def _runner():
    def images(name, arguments):
        from distributed import get_worker

        return get_worker().plugins[name].call(arguments)

    return images


def _verdict():
    def verdict(name, dask_worker):
        return getattr(dask_worker.plugins.get(name), "verdict", None)

    return verdict


def _holder(content):
    """A plugin with a function, which a worker loads when it is first called."""
    from distributed import WorkerPlugin

    class Holder(WorkerPlugin):
        def __init__(self):
            self.content = content

        def setup(self, worker):
            import threading

            self.lock = threading.Lock()

        def call(self, arguments):
            import pickle
            import zlib

            with self.lock:
                if self.content is not None:
                    self.function = pickle.loads(zlib.decompress(self.content))
                    self.content = None
            return pickle.dumps(self.function(*pickle.loads(arguments)))

    return Holder()


def _examiner(**wanted):
    """A plugin that offers our resource where the project, its version and the folder are right."""
    from distributed import WorkerPlugin

    waiting = _LOOKING

    class Examiner(WorkerPlugin):
        async def setup(self, worker):
            import asyncio
            import logging
            import socket

            from distributed.core import Status

            try:
                refusal, differences = await asyncio.wait_for(
                    asyncio.to_thread(self.examine), waiting
                )
            except asyncio.TimeoutError:
                refusal, differences = "the folder of the results does not answer", ""
            offer = 0 if refusal else worker.state.nthreads
            if offer != worker.state.total_resources.get(wanted["resource"], 0):
                await worker.set_resources(**{wanted["resource"]: offer})
                if offer and worker.status == Status.running:
                    # only now does the scheduler think of this worker for jobs that wait for one
                    worker.status = Status.paused
                    worker.status = Status.running
            for text in filter(None, (refusal, differences)):
                logging.getLogger("distributed.worker").warning("oodretrieval: %s", text)
            self.verdict = {
                "address": worker.address,
                "host": socket.gethostname(),
                "refusal": refusal,
                "differences": differences,
                "threads": worker.state.nthreads,
                "gpus": worker.state.total_resources.get("GPU", 0),
            }
            worker.log_event(wanted["topic"], self.verdict)

        def examine(self):
            """Why this worker cannot be used, and what is different here; "" where nothing is."""
            import os
            from pathlib import Path

            try:
                from src.run import cluster

                version, packages = cluster.version(), cluster.packages()
            except Exception as error:
                return f"the project cannot be imported there ({type(error).__name__}: {error})", ""
            if version != wanted["version"]:
                return (
                    f"it has version {version} of the project, this is {wanted['version']}; "
                    "update it, and start the worker again"
                ), ""
            folder = Path(wanted["token"]).parent
            if not Path(wanted["token"]).is_file():
                return f"it does not see this machine's folder {folder}", ""
            if not os.access(folder, os.W_OK):
                return f"it may not write into {folder}", ""
            differences = [
                f"{name} {packages.get(name)} (here {ours})"
                for name, ours in wanted["packages"].items()
                if packages.get(name) != ours
            ]
            return "", ", ".join(differences)

    return Examiner()


# the driver's side


def _pass_on_cancel(reference, outer):
    inner = reference()
    if inner is not None and outer.cancelled():
        inner.cancel()


def _translated(error):
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return SuspectError(f"{error.allowed_failures + 1} workers died with it")
    return error


@contextmanager
def _local_cluster(workers):
    import dask
    from distributed import LocalCluster

    settings = {"distributed.scheduler.allowed-failures": ATTEMPTS - 1}
    with dask.config.set(settings):
        with _interrupts_waiting():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # as much as there is, like processes without Dask
                silence_logs=logging.CRITICAL,
            )
        with cluster:
            yield cluster


@contextmanager
def _interrupts_waiting():
    """Keep Ctrl-C from the threads and processes that are started meanwhile, for good.

    It is for this process, which is told once that is over.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # to start that with the first process would let it in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _client(address):
    import dask
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    patience = {"distributed.comm.timeouts.tcp": f"{_CONNECTING}s"}  # with a machine that is gone
    with warnings.catch_warnings(), dask.config.set(patience):
        warnings.simplefilter("ignore", VersionMismatchWarning)  # said in one line instead
        try:
            client = Client(address, timeout=_CONNECTING, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RunError(
                f"there is no Dask scheduler at {address}, or it does not let this machine in "
                f"({type(error).__name__}); start one by `dask scheduler`"
            ) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=_CLOSING)


def _check_python(client):
    """Refuse workers of another Python, which cannot even be examined."""
    found = client.get_versions()
    machines = {client.scheduler.address: found["scheduler"], **found["workers"]}
    ours = platform.python_version_tuple()[:2]
    for address, versions in machines.items():
        theirs = dict((versions or {}).get("host", {})).get("python")
        if theirs and tuple(theirs.split(".")[:2]) != ours:
            raise RunError(
                f"{address} runs Python {theirs}, this is {platform.python_version()}: both must "
                "have the same, up to the last number"
            )


@contextmanager
def _token(folder):
    """A file that workers look for; named like the parts of `files.whole_file`, to be swept."""
    writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"
    path = Path(folder).resolve() / f".cluster.{writer}.tmp"
    try:
        path.touch()
    except OSError as error:
        raise RunError(f"{folder} takes no file ({os.strerror(error.errno)})") from error
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _quiet():
    """Keep Dask from explaining at length on stderr what is said here in one line."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
