"""What all tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from twins import Twins

REPOSITORY = Path(__file__).resolve().parents[1]
RECORDED = REPOSITORY.parent / "shared" / "reference"  # beside a development checkout


def pytest_configure():
    """Give the tests, and the programs that they start, the same world everywhere."""
    # OpenMP's threads wait for each other busily: beside other programs milliseconds become seconds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # what a shell runs in its background ignores Ctrl-C, under nohup SIGHUP, and so all it starts
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # not everywhere
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    unchecked = HealthCheck.too_slow, HealthCheck.function_scoped_fixture
    settings.register_profile("steady", deadline=None, suppress_health_check=unchecked)
    settings.load_profile("steady")


def pytest_collection_modifyitems(items):
    """Leave out what needs the recorded numbers where there are none, as in a clone."""
    if not RECORDED.is_dir():
        items[:] = [item for item in items if "recorded" not in item.fixturenames]


@pytest.fixture(scope="session")
def recorded():
    """Folder of numbers recorded from the original system."""
    return RECORDED


@pytest.fixture(scope="session", params=["twins", *(["recorded"] if RECORDED.is_dir() else [])])
def reference(request, tmp_path_factory):
    """Folder of numbers to be met: those of the slow twins, and those recorded where there are."""
    return Twins(tmp_path_factory.mktemp("twins")) if request.param == "twins" else RECORDED
