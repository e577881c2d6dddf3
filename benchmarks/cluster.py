"""What a Dask cluster costs: time a job, and traffic of the scheduler.

Scheduler and workers are processes of this machine, so there is no network between them. The
traffic is counted where messages are written, several that travel together as several.
"""

import logging
import os
import tempfile
from collections import Counter
from contextlib import contextmanager

import distributed
from distributed.comm.tcp import TCP
from measuring import median_ms

from src.run import processes
from src.run.runner import Runner

LOG = logging.getLogger("benchmark")
LOG.setLevel(logging.ERROR)
JOBS = 200
IMAGES_PER_JOB = 1, 16, 64


def main():
    """Print the table."""
    print(f"{JOBS} jobs of nothing   images per job  us a job  messages a job  bytes a job")
    with processes.LocalProcesses(2) as pool:
        print_row("local pool, 2", 1, microseconds(pool, 1))
    for workers in (1, 2):
        with (
            local_cluster(workers) as cluster,
            tempfile.TemporaryDirectory() as folder,
            Runner(LOG, scheduler=cluster.scheduler_address).on_cluster(folder) as runner,
        ):
            for images in IMAGES_PER_JOB:
                job = microseconds(runner.executor, images)
                sent = traffic(runner.executor, images, cluster.scheduler_address)
                print_row(f"Dask, {workers} workers", images, job, *sent)


def microseconds(executor, images_per_job):
    """Time of a job: the median of some runs, after one to warm up."""
    run(executor, images_per_job)
    [milliseconds] = median_ms(lambda: run(executor, images_per_job), repeats=3)
    return milliseconds / JOBS * 1000


def run(executor, images_per_job):
    """Jobs that give their index back, as stages give back that there was no error."""
    for _ in processes.results(abs, range(JOBS * images_per_job), 1, executor, images_per_job):
        pass


def traffic(executor, images_per_job, address):
    """Messages and bytes a job: of client and scheduler, which live in this process, and workers'.

    What workers are asked for here does not count.
    """
    before = sent_by_workers(address)
    with counted() as counts:
        run(executor, images_per_job)
    after = sent_by_workers(address)
    return [(counts[k] + after[k] - before[k]) / JOBS for k in ("messages", "bytes")]


def sent_by_workers(address):
    """Messages and bytes that all workers have sent so far on their own account."""

    def sent(dask_worker):
        stream = dask_worker.batched_stream
        return Counter(messages=stream.message_count, bytes=stream.byte_count)

    with distributed.Client(address, set_as_default=False) as client:
        return sum(client.run(sent).values(), Counter())


@contextmanager
def counted():
    """Count what this process writes meanwhile."""
    counts, write = Counter(), TCP.write

    async def counting(self, message, *args, **kwargs):
        size = await write(self, message, *args, **kwargs)
        counts["messages"] += len(message) if isinstance(message, list | tuple) else 1
        counts["bytes"] += size
        return size

    TCP.write = counting
    try:
        yield counts
    finally:
        TCP.write = write


def local_cluster(workers):
    """Scheduler in this process, workers in others."""
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    )


def print_row(name, images_per_job, job, *sent):
    """One line of the table."""
    traffic = "".join(f"{figure:14.1f}" for figure in sent)
    print(f"{name:19}{images_per_job:16}{job:10.1f}{traffic}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
