"""The short form of the fault campaign: few faults a promise, small pictures, a tiny network.

`make faults` injects many more, on the demo. Hostile files, promise 12, have tests of their own.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
PROMISES = [number for number in range(1, 15) if number != 12]


@pytest.fixture(scope="module")
def report():
    """What the campaign prints: a table, then what went wrong."""
    command = [sys.executable, "-m", "tools.faults", "--small"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_stages_survive_every_fault_of_promise(report, promise):
    row = re.search(rf"^ *{promise} .*?(\d+) +(\d+)$", report.stdout, re.M)
    assert row, report.stderr[-3000:]
    faults, survived = map(int, row.groups())
    problems = re.findall(rf"^{promise}: (?:.+\n)+", report.stdout, re.M)
    assert faults == survived > 0, "".join(problems)


def test_the_campaign_ends_with_a_failure_if_a_fault_was_not_survived(report):
    rows = re.findall(r"^ *\d+ .*?(\d+) +(\d+)$", report.stdout, re.M)
    assert report.returncode == any(faults != survived for faults, survived in rows)
