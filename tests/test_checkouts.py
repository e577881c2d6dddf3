"""Two checkouts and one environment: every script takes what lies beside it."""

import subprocess
import sys

import pytest
from clone import MEASURE, PREDICT, SEARCH, TREE, Clone, files_below

from configuration import ModelConfig
from src.errors import SettingError
from src.store.provenance import identity
from src.store.weights import read_state

SAY = '\nimport sys\n\nprint(f"src of {__file__}", file=sys.stderr)\n'
EAGER = "\n_LOOK = _STARTING = 0\n"  # processes for any work


class Checkout(Clone):
    """A clone that keeps its results inside, and whose every process says where it comes from."""

    def __init__(self, folder):
        super().__init__(folder)
        self.results = self.folder / "results"
        for name, code in (("src/__init__.py", SAY), ("src/run/processes.py", EAGER)):
            path = self.folder / name
            path.write_text(path.read_text() + code)

    def environment(self, results=None):
        """As in a shell where nobody has set anything for this project."""
        own = "PYTHONPATH", "OODRETRIEVAL_IO_PATH"
        variables = super().environment(results)
        return {name: value for name, value in variables.items() if name not in own}


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory):
    """Two checkouts with a run of stages 1 and 2, each started in the folder of the other."""
    first, second = (Checkout(tmp_path_factory.mktemp(name)) for name in ("first", "second"))
    first.elsewhere, second.elsewhere = second.folder, first.folder
    first.processes, second.processes = "args.num_cores=2", "args.scheduler=local:1"

    for checkout in (first, second):
        words = "with", "args.dataset=blocks"
        checkout.runs = [
            checkout.call(PREDICT, *words),
            checkout.call(MEASURE, *words, checkout.processes),
        ]
    return first, second


@pytest.mark.parametrize("number", [0, 1])
def test_scripts_and_their_processes_take_the_src_beside_them(checkouts, number):
    stages = checkouts[number].runs
    for run in stages:
        assert run.returncode == 0, run.stderr
        said = {line for line in run.stderr.splitlines() if line.startswith("src of ")}
        assert said == {f"src of {checkouts[number].folder / 'src' / '__init__.py'}"}
    assert stages[1].stderr.count("src of ") > 1  # the script's own, and those of its processes


@pytest.mark.parametrize("number", [0, 1])
def test_scripts_take_the_configuration_beside_them(checkouts, number):
    expected = {name.format(i, dataset="blocks") for name in TREE.values() for i in range(4)}
    assert files_below(checkouts[number].results) == expected


@pytest.mark.parametrize("script", [SEARCH, MEASURE])
def test_a_script_never_takes_another_checkout_in_silence(checkouts, script, tmp_path):
    own, other = checkouts
    code = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    run = subprocess.run(  # by `python -P` the other one, which is installed, comes first
        [sys.executable, "-c", code, own.folder / script, "print_config"],
        cwd=tmp_path,
        env={**own.environment(), "PYTHONPATH": str(other.folder)},
        capture_output=True,
        text=True,
    )
    if script == MEASURE:
        assert f"io_path = '{own.results}'" in run.stdout, run.stderr
    else:
        assert run.returncode == 1
        assert f"has found the `src` of {other.folder} in the place of its own" in run.stderr


def test_a_copy_without_its_weights_says_what_is_missing_and_where_they_lie(tmp_path):
    path = tmp_path / "weights" / "net.pth"  # as in an installed copy, which has none
    message = f"weights of 'net' are missing: put them at {path}.*run from its clone.*make setup"
    with pytest.raises(SettingError, match=message):
        identity(ModelConfig("net", "torch.nn", "Linear", {}, path))
    with pytest.raises(SettingError, match=message):
        read_state(path, "net")
