"""Threads that wait do not keep a core from other programs."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_waiting_threads_spin_little_unless_the_user_wants_it(own, expected):
    code = "import src, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    inherited = {key: os.environ[key] for key in os.environ if not key.startswith(("GOMP", "OMP"))}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | own,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [expected, "False"]
