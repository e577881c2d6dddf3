"""Real schedulers and real workers, each a process of its own on this machine."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from workers import HERE, new_cluster

from src.errors import RunError
from src.run import cluster
from src.run.runner import Runner

pytest.importorskip("distributed")
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def two_workers():
    with new_cluster() as cluster:
        cluster.worker()
        cluster.worker()
        yield cluster


@pytest.fixture
def log():
    """A logger whose messages can be acted upon: `log.when(words, action)`."""
    logger = logging.Logger("cluster")
    logger.messages, actions = [], []
    logger.when = lambda words, action: actions.append((words, action))

    class Handler(logging.Handler):
        def emit(self, record):
            logger.messages.append(record.getMessage())
            for words, action in actions:
                if words in record.getMessage():
                    action()

    logger.addHandler(Handler())
    return logger


def said(log, words):
    return any(words in message for message in log.messages)


@contextmanager
def opened(scheduler, folder, log, gpu=False):
    """The executor that a scheduler's name stands for."""
    with Runner(log, scheduler=scheduler).on_cluster(folder, gpu) as runner:
        yield runner.executor


# what workers do


def twice(index):
    """The double of a number, and the process that found it; fails for image 2."""
    if index == 2:
        raise KeyError("no such class")
    return 2 * index, os.getpid()


def leave_when(folder, index, wanted):
    """Mark an image, and at image 0 wait until some file is there."""
    (folder / f"{index}-{os.getpid()}").touch()
    while index == 0 and not list(folder.glob(wanted)):
        time.sleep(0.05)  # on the worker
    return os.getpid()


def wait_for(wanted, folder, index):
    return leave_when(folder, index, wanted)


def die(folder, deaths, index):
    """Be killed at image 5, so many times."""
    with (folder / str(index)).open("a") as file:
        file.write("x")
    if index == 5 and (folder / "5").stat().st_size <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def measure(function, indices, executor, log, images_per_job=1):
    """The tally, and what came back in its order."""
    consumed = []
    runner = Runner(log, executor=executor, images_per_job=images_per_job)
    tally = runner.each(function, indices, "", lambda *pair: consumed.append(pair))
    return tally, consumed


# tests


def test_results_are_those_of_a_local_run_in_their_order(two_workers, tmp_path, log):
    with opened(two_workers.address, tmp_path, log) as executor:
        assert executor.slots() == 2
        tally, consumed = measure(twice, range(100), executor, log, images_per_job=7)
    assert [(i, double) for i, (double, _) in consumed] == [
        (i, 2 * i) for i in range(100) if i != 2
    ]
    assert len({process for _, (_, process) in consumed} - {os.getpid()}) == 2
    assert tally.failed == (("image 2", "KeyError: 'no such class'"),)
    assert list(tmp_path.iterdir()) == []


def produce(indices):
    for index in indices:
        yield index, KeyError("no picture") if index == 2 else os.getpid()


def store(folder, index, process):
    assert process == os.getpid()
    (folder / str(index)).touch()


def test_a_worker_runs_the_same_stream_as_this_process_would(two_workers, tmp_path, log):
    with opened(two_workers.address, tmp_path, log) as executor:
        runner = Runner(log, executor=executor, images_per_job=3)
        tally = runner.stream(produce, partial(store, tmp_path), range(20), "", threads=2)
    assert (tally.done, tally.failed) == (19, (("image 2", "KeyError: 'no picture'"),))
    assert {int(path.name) for path in tmp_path.iterdir()} == {*range(20)} - {2}


def test_a_killed_worker_costs_nothing_but_time(tmp_path, log):
    with opened("local:1", tmp_path, log) as executor:
        tally, consumed = measure(partial(die, tmp_path, 1), range(30), executor, log)
    assert consumed == [(index, index) for index in range(30)]
    assert (tmp_path / "5").stat().st_size == 2
    assert said(log, "is gone; the jobs that it was at are tried elsewhere")


def test_of_a_job_only_the_image_that_kills_its_workers_is_named(tmp_path, log):
    with opened("local:2", tmp_path, log) as executor:
        tally, consumed = measure(
            partial(die, tmp_path, 99), range(16), executor, log, images_per_job=8
        )
    assert [index for index, _ in consumed] == [index for index in range(16) if index != 5]
    ((name, reason),) = tally.failed
    assert name == "image 5"
    assert reason.startswith("WorkerDiedError: 3 workers died with it")
    assert "\n" not in reason


def test_workers_that_join_later_get_work(tmp_path, log):
    with new_cluster() as cluster:
        log.when("waiting for workers", cluster.worker)
        log.when("1 jobs at a time", cluster.worker)
        with opened(cluster.address, tmp_path, log) as executor:
            wait = partial(wait_for, "9-*", tmp_path)  # only the second worker can get to image 9
            _, consumed = measure(wait, range(10), executor, log)
    assert len({process for _, process in consumed}) == 2


@pytest.fixture
def other_version(tmp_path):
    folder = tmp_path / "elsewhere" / "src"
    shutil.copytree(REPOSITORY / "src", folder, ignore=shutil.ignore_patterns("*.c"))
    with (folder / "run" / "cluster.py").open("a") as file:
        file.write("# another version\n")
    return [folder.parent, HERE[1]]


def test_a_worker_of_another_version_gets_no_jobs(tmp_path, other_version, log):
    marks = tmp_path / "marks"
    marks.mkdir()
    with new_cluster() as cluster_:
        wrong = cluster_.worker(path=other_version)
        refusal = f"of the project, this is {cluster.version()}; update it"
        with (
            pytest.raises(RunError, match=f"no worker .*can be used:\n.*{refusal}"),
            opened(cluster_.address, marks, log),
        ):
            pass
        log.messages.clear()
        right = cluster_.worker()
        log.when("jobs at a time", partial(cluster_.worker, path=other_version))
        refused = []
        log.when("gets no jobs", lambda: refused.append(0))
        log.when("gets no jobs", lambda: len(refused) == 2 and (marks / "heard").touch())
        with opened(cluster_.address, marks, log) as executor:
            _, consumed = measure(partial(wait_for, "heard", marks), range(10), executor, log)
        assert any(refusal in line for line in wrong.lines())
    assert {process for _, process in consumed} == {right.process.pid}


def test_a_worker_that_does_not_see_the_folder_gets_no_jobs(tmp_path, log):
    with new_cluster() as cluster:
        right = cluster.worker()

        def hide():
            (token,) = tmp_path.glob(".cluster*")
            token.unlink()
            cluster.worker()

        log.when("jobs at a time", hide)
        log.when(f"does not see this machine's folder {tmp_path}", (tmp_path / "heard").touch)
        with opened(cluster.address, tmp_path, log) as executor:
            _, consumed = measure(partial(wait_for, "heard", tmp_path), range(9), executor, log)
    assert {process for _, process in consumed} == {right.process.pid}


def test_a_scheduler_that_goes_away_ends_the_run_with_one_sentence(tmp_path, log, capfd):
    with new_cluster() as cluster:
        cluster.worker()
        tasks = partial(wait_for, "never", tmp_path)
        consumed = []

        def consume(index, _):
            consumed.append(index)
            cluster.scheduler.process.kill()

        with (
            pytest.raises(RunError, match="is gone; what is done stays") as raised,
            opened(cluster.address, tmp_path, log) as executor,
        ):
            Runner(log, executor=executor, images_per_job=1).each(tasks, [1, 0, 2], "", consume)
    assert consumed == [1]
    assert not raised.value.print_traceback
    assert "distributed" not in capfd.readouterr().err


def test_jobs_that_need_a_gpu_go_where_one_is_offered(tmp_path, log):
    with new_cluster() as cluster:
        cluster.worker()
        with opened(cluster.address, tmp_path, log, gpu=True) as executor:
            assert len(measure(twice, [1], executor, log)[1]) == 1
        assert said(log, "no worker offers --resources GPU=1")
        with_gpu = cluster.worker("--resources", "GPU=1")
        with opened(cluster.address, tmp_path, log, gpu=True) as executor:
            assert executor.slots() == 1
            _, consumed = measure(twice, range(10, 30), executor, log)
    assert {process for _, (_, process) in consumed} == {with_gpu.process.pid}


@pytest.mark.parametrize("scheduler", ["local", "local:0", "local:two", "host:8786", "udp://h:1"])
def test_a_scheduler_of_no_kind_is_refused(scheduler, tmp_path, log):
    with (
        pytest.raises(RunError, match="tcp://host:8786, or local:N .*, or None"),
        opened(scheduler, tmp_path, log),
    ):
        pass


def test_a_scheduler_that_is_not_there_is_named(tmp_path, log, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECTING", 0.1)
    with (
        pytest.raises(RunError, match="no Dask scheduler at tcp://127.0.0.1:1, or"),
        opened("tcp://127.0.0.1:1", tmp_path, log),
    ):
        pass


def test_without_a_scheduler_there_is_no_executor(tmp_path, log):
    with opened(None, tmp_path / "missing", log) as executor:
        assert executor is None
    assert not (tmp_path / "missing").exists()


SCRIPT = """
import time
from src.run.experiment import create_experiment
from src.run.runner import Runner

ex = create_experiment("sleeper")

@ex.config
def config():
    args = dict(folder="")

@ex.automain
def main(args, _log):
    runner = Runner(_log, scheduler="local:2", images_per_job=1)
    with runner.on_cluster(args["folder"]) as runner:
        runner.each(
            time.sleep, [0, 10**6], "", lambda index, _: _log.info("slept %s", index)
        )
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_script_and_cluster_without_noise(number, tmp_path):
    (tmp_path / "sleeper.py").write_text(SCRIPT)
    command = [sys.executable, "sleeper.py", "with", f"args.folder={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as script:  # fmt: skip
        lines = []
        for line in script.stderr:
            lines.append(line)
            if "slept 0" in line:  # Ctrl-C goes to all processes of a terminal
                os.killpg(script.pid, number) if number == signal.SIGINT else script.terminate()
    text = "".join(lines)
    assert script.returncode == 128 + number
    assert re.search(r"[01] done, 0 skipped \(already there\), 0 failed, . in total", text)
    assert "Traceback" not in text
    assert "distributed" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["sleeper.py"]
