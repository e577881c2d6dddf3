"""The page docs/notebook.md as it is printed, and the module behind it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import model_card
from numpy.testing import assert_array_equal

from configuration import datasets, models
from src import notebook
from src.MetaSeg import main as metaseg
from src.records import Prediction
from src.store.arrays import read_components
from src.store.paths import Results
from src.store.tables import read_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "notebook.md"
CODE = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
CLASSES = {0: ("road", (128, 64, 128)), 1: ("car", (0, 0, 142))}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the page's code has named, run in an empty folder, and the picture that it shows."""
    names, folder = {}, tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(datasets["custom_dataset"].kwargs, "root", None)  # put back at the end
        *first, last = CODE[0].splitlines()
        exec("\n".join(first), names)
        names["shown"] = eval(last, names)
        exec(CODE[1], names)
        yield names


def test_the_page_has_at_most_15_lines_of_code():
    assert len(CODE) == 2
    assert sum(bool(line.strip()) for block in CODE for line in block.splitlines()) <= 15


def test_the_page_finds_and_shows_suspicious_segments(page):
    assert page["shown"].size == (2 * 512, 2 * 256)
    segments, rows = page["segments"], page["suspects"] - 1
    assert 0 < len(rows) < len(segments.number)
    assert (segments.predicted_iou[rows] < 0.5).all()
    left, upper = segments.box[rows[0], :2]
    shown, picture = np.asarray(page["shown"]), page["prediction"].image_path
    assert picture == "street.png"
    assert tuple(shown[upper - 1, left - 1]) == (255, 0, 0)  # the line lies outside the box


def test_the_pages_run_predicts_the_picture(page):
    assert page["run"].status == "COMPLETED"
    assert Results("results", "deeplabv3plus_streets", "custom_dataset").prediction(0).is_file()


def test_segments_are_those_that_stage_2_writes(page):
    run = metaseg.ex.run(config_updates={"args": page["settings"] | {"num_cores": 1}})
    assert run.status == "COMPLETED"
    results = Results("results", "deeplabv3plus_streets", "custom_dataset")
    segments, metrics = page["segments"], read_table(results.metrics(0))
    assert_array_equal(segments.components, abs(read_components(results.components(0))))
    assert_array_equal(segments.size, metrics["S"])
    predicted_iou = page["loaded"].meta_model.predict(metrics)
    # stage 1 has rounded the probabilities to steps of 1 / 65535
    np.testing.assert_allclose(segments.predicted_iou, predicted_iou, atol=1e-3)


def test_rows_are_numbered_like_the_pixels_of_their_segments():
    classes = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0]])
    likely = np.where(classes[..., None] == [0, 1], np.float32(0.75), np.float32(0.25))
    prediction = Prediction(likely, classes.astype(np.uint8), None, "street.png")
    loaded = notebook.Loaded(None, replace(model_card(), classes=CLASSES), None)
    segments = notebook.segments(loaded, prediction)
    assert_array_equal(segments.components, [[1, 1, 2, 2], [1, 1, 2, 2], [3, 1, 1, 1]])
    assert_array_equal(segments.number, [1, 2, 3])
    assert_array_equal(segments.class_name, ["road", "car", "car"])
    assert_array_equal(segments.size, [7, 4, 1])
    assert_array_equal(segments.box, [[0, 0, 4, 3], [2, 0, 4, 2], [0, 2, 1, 3]])
    assert_array_equal(segments.metrics["cprob1"], [0.25, 0.75, 0.75])
    assert np.isnan(segments.predicted_iou).all()  # without a meta model


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    entry = models["deeplabv3plus_streets"]._replace(model_weights=None)
    loaded = notebook.load(entry, datasets["streets"], gpu=None)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        notebook.predict(loaded, tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png cannot be used: it is empty"):
        notebook.predict(loaded, tmp_path / "empty.png")
