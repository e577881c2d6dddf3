"""The GPU suite in its tiny form, which needs no GPU."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import configuration


@pytest.fixture
def gpu(monkeypatch):
    """The suite; its entries do not stay in the configuration."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import gpu

    for entries in (configuration.models, configuration.datasets):
        monkeypatch.setitem(entries, gpu.stage_1.NAME, None)
    return gpu


def test_the_gpu_suite_measures_everything_in_a_tiny_form(gpu, capsys):
    assert gpu.main(["--tiny"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    assert {len(row) for row in rows} == {7}
    parts = {row[1].partition(":")[0].strip() for row in rows[2:]} - {"Segformer of Hugging Face"}
    assert parts == {
        "DeepLabv3+, 32 x 48", "densenet201, crops of 32 to 40 pixels",
        "network's features, 3 segments a picture", "stage 3", "a training step",
    }  # fmt: skip
    figures = [row[2].strip() for row in rows[2:]]
    known = [float(figure.split()[0]) for figure in figures if figure != "too short to tell"]
    assert known and min(known) > 0


def test_what_fails_or_comes_too_late_is_named_and_the_rest_goes_on(gpu, capsys, monkeypatch):
    def broken():
        raise ValueError("no")

    speeds = {"a": lambda: 2.0, "b": broken, "c": lambda: 5.0, "d": lambda: math.nan}
    rows = [gpu.Measurement("part", what, "images/s", speed) for what, speed in speeds.items()]
    monkeypatch.setattr(gpu, "measurements", lambda *_: rows)
    assert gpu.main(["--tiny"]) == 1
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split("|")[2:4] for line in lines if line.startswith("| part")]
    figures = [" ".join(map(str.strip, pair)).strip() for pair in cells]
    assert figures == [
        "2 images/s 1.0", "failed: ValueError", "5 images/s 2.5", "too short to tell",
    ]  # fmt: skip
    monkeypatch.setattr(gpu, "MOST_SECONDS", 0)
    assert gpu.main(["--tiny"]) == 0
    assert capsys.readouterr().out.count("left out: no time") == 4


def test_a_speed_leaves_out_what_happens_once(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "timed", lambda run, count: (None, run(count)))
    assert gpu.speed(lambda count: 10 + 2 * count, (2, 12)) == 10 / 20
    assert math.isnan(gpu.speed(lambda count: 10 - count, (1, 2)))  # by chance the longer run


def test_features_are_those_of_the_loop_that_one_would_write_first(gpu):
    torch.manual_seed(0)
    network = gpu.DeepWV3Plus(num_classes=3, width=1 / 16).eval()
    components = np.repeat(np.int32([1, 1, 2, -2, 2, 2, -1, 1] * 4), 32).reshape(32, 32)
    given = network, torch.randn(3, 32, 32), components, [2, 1]
    assert_allclose(gpu.segment_features(*given), gpu.enlarged_features(*given), rtol=1e-4)
