"""Runs that are killed or interrupted, and processes of theirs that are."""

import itertools
import json
import os
import random
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faults.checks import check_end, check_same, check_undisturbed, check_whole, finals, images_done
from faults.workplace import (
    BY_IMAGE,
    EAGER,
    EMBED,
    MEASURE,
    PREDICT,
    STEPS,
    TRAIN,
    each,
    family,
    often,
)


@pytest.fixture(scope="module", params=STEPS)
def step(request):
    return request.param


@pytest.fixture(scope="module", params=range(often(14, 1)))
def killed(request, place, step):
    """Results of a step whose processes were killed before its end.

    Half of them at any moment, half when it had just begun to write any of its files.
    """
    rng, exitcode = random.Random(f"{step} {request.param}"), None
    with place.results_without(step) as io_path:
        ours, theirs = (place.outputs(folder, step)[-1] for folder in (io_path, place.reference))
        while exitcode != -signal.SIGKILL:
            place.remove(io_path, step)
            running = place.start(step, io_path)
            if (request.param + STEPS.index(step)) % 2:
                count = rng.randint(1, len(finals(theirs)))
                running.wait_until(lambda n=count: len([*ours.rglob("*.*")]) >= n)
            else:
                time.sleep(rng.uniform(0, place.seconds[step]))
            running.send(signal.SIGKILL)
            exitcode = running.end().exitcode
        yield io_path


@pytest.mark.promise(1)
def test_every_final_file_is_whole_after_a_kill(place, step, killed):
    check_whole(*place.outputs(killed, step))


@pytest.mark.promise(2)
def test_a_rerun_after_a_kill_does_what_is_missing(place, step, killed):
    done, total = (images_done(place, folder, step) for folder in (killed, place.reference))
    run = place.run(step, killed)
    if step == TRAIN:
        check_end(run, says=["not trained again"] if done else ["wrote"])
    else:
        check_end(run, counts=(total - done, done, 0))
    check_undisturbed(place, killed, step)


@pytest.mark.promise(13)
@pytest.mark.parametrize("attempt", range(often(5, 1)))
@each(
    "stage, name",
    itertools.product(BY_IMAGE, ["SIGINT", "SIGTERM"]),
    [(PREDICT, "SIGINT"), (EMBED, "SIGTERM")],
)
def test_a_signal_ends_a_run_cleanly_and_a_rerun_goes_on(place, stage, name, attempt):
    rng, number = random.Random(f"{stage} {name} {attempt}"), getattr(signal, name)
    status = "COMPLETED"
    with place.results_without(stage) as io_path:
        report = io_path / "observed" / "1" / "run.json"
        while status == "COMPLETED":
            place.remove(io_path, stage)
            shutil.rmtree(io_path / "observed", ignore_errors=True)
            running = place.start(stage, io_path, options=["-F", io_path / "observed"])
            running.wait_until(report.exists)
            time.sleep(rng.uniform(0, place.seconds[stage]))
            if running.is_alive():
                running.send(number) if name == "SIGINT" else os.kill(running.pid, number)
            log = running.end().log
            status = json.loads(report.read_text())["status"]
        bars = re.findall(r"(?:predicting|measuring|embedding)[^%:]*: +(\d+)%", log)
        # 100: between two loops over images
        check_end(running, 128 + number, says=["interrupted"] if bars and bars[-1] != "100" else [])
        assert status == "INTERRUPTED"
        check_whole(*place.outputs(io_path, stage))
        check_end(place.run(stage, io_path))
        check_undisturbed(place, io_path, stage)


@pytest.mark.promise(8)
@each("stage", BY_IMAGE, [PREDICT])
def test_a_process_that_is_killed_costs_nothing(place, finished, tmp_path, stage):
    """It reads a file without an end when it is killed, so that it cannot be through before."""
    path, words = place.pictures / "00002.png", []
    if stage == MEASURE:  # which reads no pictures
        path, words = tmp_path / "2.npy", [f"args.heatmaps.own={tmp_path}"]
        for index, labels in enumerate(sorted(place.pictures.with_name("labels").iterdir())):
            np.save(tmp_path / f"{index}.npy", np.asarray(Image.open(labels)))
        check_end(place.run(stage, finished, *words))
    undisturbed = shutil.copytree(finished, tmp_path / "undisturbed")
    kept = path.rename(tmp_path / "kept")
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)  # to open it for one of both would wait for another process
    words += ["args.overwrite=True", "args.num_cores=3"]
    running = place.start(stage, finished, *words, changes=EAGER)
    reader = running.wait_until(lambda: reader_of(path, running.pid))
    kept.replace(path)
    if reader:
        os.kill(reader, signal.SIGKILL)
    check_end(running.end(), counts=(images_done(place, finished, stage), 0, 0))
    os.close(pipe)
    check_same(finished, undisturbed)


def reader_of(path, pid):
    """The process that has opened a file, among those that one has started; None: none yet."""
    for child in family(pid)[1:]:
        with suppress(OSError):  # it may be gone
            if str(path) in map(os.readlink, Path(f"/proc/{child}/fd").glob("*")):
                return child
    return None
