"""The workplace, and the table at the end."""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest

from faults.workplace import Workplace

PROMISES = {
    1: "a file under its final name is whole",
    2: "a rerun does what is missing, with the same result",
    3: "a second run changes no file, loads no network",
    4: "done means made from the same",
    5: "a broken file is noticed, named, made again",
    6: "a bad image stops no other",
    7: "no segment, one image, none: done",
    8: "a process that dies costs its image only",
    9: "disk full, read-only, no permission: one sentence",
    10: "two runs at once, shards",
    11: "any number of processes, order, batch size",
    12: "nothing that is read can run code",
    13: "SIGINT, SIGTERM, SIGHUP: a clean stop",
    14: "memory does not grow with the number of images",
    15: "two windows, and scripts, keep each other's tags and groups",
    16: "a picture that is gone is in no later stage",
    17: "a damaged label file is refused",
    18: "a table from others names no file elsewhere",
    19: "an HDF5 file from others holds what it gives",
    20: "little memory to share, or none",
    21: "a Dask worker, scheduler, driver that dies: time only",
    22: "the explorer's files are whole, or refused by name",
}


@pytest.fixture(scope="session")
def place():
    """The one Workplace of all faults."""
    if sys.platform != "linux":
        pytest.skip("processes are looked up in /proc")
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        yield Workplace(Path(folder))


@pytest.fixture
def finished(place):
    """A copy of all results."""
    with place.results_without(None) as folder:
        yield folder


@pytest.fixture
def io_path(place, step):
    """A copy of all results but those of the step that a test is about."""
    with place.results_without(step) as folder:
        yield folder


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("promise"):
            item.user_properties.append(("promise", *mark.args))


def pytest_terminal_summary(terminalreporter):
    """Say how many faults were injected for each promise, and how many were survived."""
    cases = defaultdict(set)
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            for key, value in getattr(report, "user_properties", ()):
                cases[outcome, key, value].add(report.nodeid)
    if not cases:
        return
    terminalreporter.section("faults")
    terminalreporter.line(f"{'promise':56} {'faults':>6} {'survived':>8}")
    for number, promise in PROMISES.items():
        passed, *others = (cases[o, "promise", number] for o in ("passed", "failed", "error"))
        faults, survived = len(passed.union(*others)), len(passed.difference(*others))
        terminalreporter.line(f"{number:2} {promise:53} {faults:6} {survived:8}")
