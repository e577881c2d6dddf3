"""What a Dask cluster costs: images per second, time a job, and traffic of the scheduler.

Scheduler and workers are processes of this machine, so there is no network between them. Stage 2
works on the demo's images, where stage 1 has predicted them (`make demo`); each measurement is the
second of two, when all processes have imported what they need. The traffic is counted where
messages are written, several that travel together as several.
"""

import logging
import os
import statistics
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import distributed
import numpy as np
from distributed.comm.tcp import TCP

from configuration import CONFIG
from src.MetaSeg.stage import measure_dataset
from src.run import processes
from src.run.runner import Runner
from src.store.paths import Results

LOG = logging.getLogger("benchmark")
LOG.setLevel(logging.ERROR)
DATASET = "streets_ood"
JOBS = 200
IMAGES_PER_JOB = 1, 16, 64
REPEATS = 2


def main():
    """Print the tables."""
    measure_stage()
    measure_jobs()


def measure_stage():
    """Images per second of stage 2, here and on a cluster."""
    demo = Results(CONFIG.metaseg_io_path, CONFIG.MODEL_NAME, DATASET)
    if not demo.indices("input", missing_ok=True):
        print("stage 2: not measured, run `make demo` first")
        return
    print("stage 2, images per second   images per job    1 process   2 processes")
    with tempfile.TemporaryDirectory() as folder:
        results = replace(demo, io_path=folder)
        linked = results.folder("input")
        linked.parent.mkdir(parents=True)
        linked.symlink_to(demo.folder("input").resolve(), target_is_directory=True)
        speeds = [images_per_second(results, num_cores=n) for n in (1, 2)]
        print_row("without Dask", "", *speeds)
        for images in IMAGES_PER_JOB[:2]:
            speeds = []
            for count in (1, 2):
                with local_cluster(count) as cluster:
                    address = cluster.scheduler_address
                    speeds.append(
                        images_per_second(results, scheduler=address, images_per_job=images)
                    )
            print_row("with Dask", images, *speeds)


def images_per_second(results, **options):
    """The median of some runs over all images, after one that does not count."""
    run, ids = Runner(LOG, overwrite=True, **options), np.arange(256, dtype=np.uint8)
    tallies = [measure_dataset(run, results, ids, heatmaps={}) for _ in range(REPEATS + 1)]
    if any(tally.failed for tally in tallies):
        raise RuntimeError(f"failed: {tallies[0].failed[:1]}")
    return statistics.median(tally.done / tally.seconds for tally in tallies[1:])


def measure_jobs():
    """Time and traffic of jobs with nothing to do."""
    print(f"\n{JOBS} jobs of nothing   images per job   us a job   us an image")
    with processes.LocalProcesses(2) as pool:
        print_row("local pool, 2", 1, *microseconds(pool, 1))
    counts = {}
    for workers in (1, 2):
        with (
            local_cluster(workers) as cluster,
            tempfile.TemporaryDirectory() as folder,
            Runner(LOG, scheduler=cluster.scheduler_address).on_cluster(folder) as runner,
        ):
            executor = runner.executor
            for images in IMAGES_PER_JOB:
                print_row(f"Dask, {workers} workers", images, *microseconds(executor, images))
                counts[images] = traffic(executor, images, cluster.scheduler)
    print("\ntraffic a job, 2 workers   images per job   messages   bytes")
    for images, (total, by_way) in counts.items():
        print(f"{'':27}{images:14}{total[0]:11.1f}{total[1]:8.0f}")
        print("".join(f"  {way}: {n:.1f}, {size:.0f} bytes;" for way, (n, size) in by_way.items()))


def microseconds(executor, images_per_job):
    """Time of a job, and of an image of it: the median of some runs, after one to warm up."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run(executor, images_per_job)
        seconds.append(time.perf_counter() - start)
    job = statistics.median(seconds[1:]) / JOBS * 1e6
    return job, job / images_per_job


def run(executor, images_per_job):
    """Jobs that give their index back, as stages give back that there was no error."""
    for _ in processes.results(abs, range(JOBS * images_per_job), 1, executor, images_per_job):
        pass


def traffic(executor, images_per_job, scheduler):
    """Messages and bytes a job, in all and by their way."""
    with counted(scheduler) as counts:
        workers = Counter()
        for sign in (-1, 1):
            if sign == 1:
                run(executor, images_per_job)
            for stream in worker_streams(scheduler):
                workers.update(messages=sign * stream[0], bytes=sign * stream[1])
    by_way = {way: (n / JOBS, counts[way, "bytes"] / JOBS) for way, n in messages(counts)}
    by_way["worker to scheduler"] = workers["messages"] / JOBS, workers["bytes"] / JOBS
    totals = [sum(column) for column in zip(*by_way.values(), strict=True)]
    return totals, by_way


def messages(counts):
    """Ways that were counted, and how many messages each."""
    return [(way, n) for (way, what), n in counts.items() if what == "messages"]


def worker_streams(scheduler):
    """Messages and bytes that each worker has sent so far on its own account."""
    with distributed.Client(scheduler.address, set_as_default=False) as client:
        return client.run(
            lambda dask_worker: (
                dask_worker.batched_stream.message_count,
                dask_worker.batched_stream.byte_count,
            )
        ).values()


@contextmanager
def counted(scheduler):
    """Count what client and scheduler, which live in this process, write meanwhile."""
    counts, write = Counter(), TCP.write

    async def counting(self, message, *args, **kwargs):
        size = await write(self, message, *args, **kwargs)
        if self.local_address == scheduler.address:
            way = "scheduler to client or worker"
        elif self.peer_address == scheduler.address:
            way = "client to scheduler"
        else:
            way = "scheduler asks worker"
        counts[way, "messages"] += len(message) if isinstance(message, list | tuple) else 1
        counts[way, "bytes"] += size
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


def print_row(name, images_per_job, *figures):
    """One line of a table."""
    print(f"{name:27}{images_per_job:>16}" + "".join(f"{f:13.1f}" for f in figures), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
