"""The comparison of meta models, and the tasks of stage 2 around it."""

import csv
import functools
import logging

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from src.errors import SettingError
from src.MetaSeg import analysis, main, meta_training, segment_tables, stage
from src.records import Prediction
from src.run.runner import Runner
from src.store import arrays, tables
from src.store.paths import Results

ENTRY = main.meta_models["meta_nn"]


def toy_table(images=6, segments=40, seed=0):
    """Segments with IoU = max(0, 1 - 1.5 E), and metrics that say nothing about it."""
    rng = np.random.default_rng(seed)

    def metrics():
        values = {name: rng.uniform(0, 1, segments) for name in ("E", "S", "cprob0", "cprob1")}
        iou = np.maximum(0, 1 - 1.5 * values["E"])
        return {**values, "V": np.full(segments, 0.3), "class": np.zeros(segments, int), "iou": iou}

    return segment_tables.segment_table([(i, metrics()) for i in range(images)])


def memorise(training):
    """A model that knows its training segments by heart, and nothing else."""
    known = {}
    for row, iou in zip(training.features, training.true_iou, strict=True):
        known[row.tobytes()] = iou
    return lambda table: np.array([known.get(row.tobytes(), 0.5) for row in table.features])


@pytest.fixture(scope="module")
def result():
    table = toy_table()
    return analysis.analyze(table, segment_tables.split_by_image(table, 2, 0), memorise, {})


def score(result, task, model, figure):
    (found,) = (s for s in result.scores if (s.task, s.model, s.figure) == (task, model, figure))
    return found


# Figures


def test_a_model_that_memorises_looks_perfect_on_training_only(result):
    regression = score(result, "regression", "neural", "R^2")
    assert_array_equal(regression.training, [1, 1])
    assert (regression.validation < 0.1).all()
    classification = score(result, "classification", "neural", "AUROC")
    assert_array_equal(classification.training, [1, 1])
    assert_array_equal(classification.validation, [0.5, 0.5])


def test_every_model_has_every_figure_on_every_split(result):
    assert {(s.task, s.model, s.figure) for s in result.scores} == {
        *(
            ("classification", model, figure)
            for model in ("entropy", "logistic", "logistic, L1", "gradient boosting", "neural")
            for figure in ("accuracy", "AUROC", "AUPRC")
        ),
        *(("regression", model, f) for model in ("entropy", "neural") for f in ("R^2", "RMSE")),
    }
    assert {len(side) for s in result.scores for side in (s.training, s.validation)} == {2}


def test_what_entropy_tells_the_entropy_baseline_finds(result):
    assert (score(result, "classification", "entropy", "AUROC").validation == 1).all()
    assert (score(result, "classification", "logistic, L1", "AUROC").validation > 0.99).all()
    assert (score(result, "regression", "entropy", "R^2").validation > 0.85).all()


def test_figures_are_those_worked_out_by_hand():
    iou, guess = [0, 0.5, 0, 1.0], [0.1, 0.6, 0.7, 0.8]
    image = {"class": [0] * 4, "iou": iou, "E": guess}
    training, validation = (
        segment_tables.segment_table([(i, image) for i in images]) for images in ([0, 1], [2])
    )
    regressors = {"guess": lambda training: lambda table: table.features[:, 0]}
    result = analysis.analyze(training, [(training, validation)], memorise, regressors)
    # errors 0.1, 0.1, 0.7, 0.2: squares sum to 0.55; those of the deviations to 0.6875
    assert_allclose(score(result, "regression", "guess", "R^2").validation, [1 - 0.55 / 0.6875])
    assert_allclose(score(result, "regression", "guess", "RMSE").validation, [np.sqrt(0.55 / 4)])
    entropy = {f: score(result, "classification", "entropy", f) for f in ("AUROC", "AUPRC")}
    # IoU 0 ranks first and third by low entropy: 3 of 4 pairs in order, (1 + 2 / 3) / 2
    assert_allclose([entropy[f].validation[0] for f in entropy], [0.75, 5 / 6])


def test_the_same_seed_gives_the_same_numbers():
    table = toy_table(5, 20)
    model = functools.partial(meta_training.fit, ENTRY, seed=3, epochs=2)

    def numbers():
        splits = segment_tables.split_by_image(table, 2, 3)
        result = analysis.analyze(table, splits, lambda t: model(t).predict_table, {})
        return analysis.plain_numbers(result)

    assert numbers() == numbers()


def test_correlations_are_sorted_and_a_constant_metric_has_none():
    table = toy_table(3, 10)
    names, e = table.feature_names, table.features[:, 0]
    expected = {
        name: np.corrcoef(table.features[:, i], table.true_iou)[0, 1]
        for i, name in enumerate(names)
        if name != "V"
    }
    found = analysis.correlations(table)
    assert (names[0], found.pop("V")) == ("E", 0)
    assert next(iter(found)) == "E" and np.corrcoef(e, table.true_iou)[0, 1] < -0.9
    assert found == pytest.approx(expected)
    assert sorted(map(abs, found.values()), reverse=True) == list(map(abs, found.values()))


def test_the_penalty_path_has_40_values_and_begins_with_nothing_but_zeros(result):
    assert_allclose(np.log10(analysis.PENALTIES[[0, 1, -1]]), [-4.2, -4.2 + 5 / 39, 0.8])
    assert result.coefficients.shape == (40, 5)
    assert not result.coefficients[0].any()
    assert result.coefficients[-1].argmax() == result.table.feature_names.index("E")


# Data that will not do


@pytest.mark.parametrize(
    ("images", "change", "message"),
    [
        (1, lambda iou: iou, "needs 3 images with ground truth and segments at least.*there are 1"),
        (4, lambda iou: iou * 0, "all 160 segments have IoU 0: there is nothing to tell apart"),
        (4, lambda iou: iou * 0 + 0.5, "all 160 segments have an IoU above 0"),
    ],
)
def test_too_few_data_are_named(images, change, message):
    table = toy_table(images)
    table.true_iou[:] = change(table.true_iou)
    with pytest.raises(SettingError, match=message):
        analysis.check(table)


def test_a_split_with_one_class_on_a_side_is_named():
    table = toy_table(4)
    table.true_iou[table.image_index > 0] = 0.5
    analysis.check(table)
    with pytest.raises(SettingError, match="160 training segments|40 validation segments"):
        analysis.check_splits([(table, table), *segment_tables.split_by_image(table, 5, 0)])


# Output


@pytest.fixture(scope="module")
def report(result, tmp_path_factory):
    """Folder of the tables and pictures."""
    folder = tmp_path_factory.mktemp("analysis") / "new"
    analysis.write_report(folder, result, "set")
    return folder


def test_the_tables_hold_the_numbers_of_the_result(result, report):
    numbers = analysis.plain_numbers(result)
    with (report / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.scores)
    for row in rows:
        figures = numbers[row["task"]][row["model"]][row["figure"]]
        for side in ("training", "validation"):
            assert float(row[f"{side} mean"]) == figures[side]["mean"]
            assert float(row[f"{side} std"]) == figures[side]["std"]
    with (report / "correlations.csv").open() as file:
        assert {r["metric"]: float(r["r"]) for r in csv.DictReader(file)} == numbers["correlation"]
    latex = (report / "scores.tex").read_text()
    assert latex.count(r"\\") == len(rows) + 1
    assert r"regression & neural & $R^2$ & $1.000 \pm 0.000$" in latex
    text = "\n".join(analysis.text_table(result))
    assert "1.000 +- 0.000" in text


def test_the_pictures_show_something(report):
    analysis.draw_losses(report / "losses", [(0.7, 0.8), (0.5, 0.6)], "set", "other")
    pictures = sorted(path.name for path in report.glob("*.png"))
    assert pictures == [
        "correlated.png",
        "losses.png",
        "penalty_path.png",
        "predicted.png",
        "roc.png",
    ]
    for name in pictures:
        with Image.open(report / name) as picture:
            assert len(picture.convert("L").getcolors()) > 20


# Tasks of stage 2

LOG = logging.getLogger("test_analysis")


@pytest.fixture
def measured(tmp_path):
    """Four small images, measured with a heat map: Results, and the folder of the maps."""
    rng = np.random.default_rng(0)
    results, maps = Results(tmp_path, "net", "set"), tmp_path / "maps"
    maps.mkdir()
    for index in range(4):
        probabilities = rng.dirichlet([0.5] * 3, (12, 16)).astype(np.float32)
        prediction = probabilities.argmax(-1).astype(np.uint8)
        truth = np.where(rng.random((12, 16)) < 0.6, prediction, 0).astype(np.uint8)
        record = Prediction(probabilities, prediction, truth, "x.png")
        arrays.write_prediction(results.prediction(index), record, {"image": index})
        np.save(maps / f"{index}.npy", np.full((12, 16), index / 2))
    measure(results, maps)
    return results, maps


def measure(results, maps):
    ids = np.arange(256, dtype=np.uint8)
    return stage.measure_dataset(Runner(LOG), results, ids, {"depth": maps})


def test_a_heat_map_of_ones_own_becomes_metrics_and_features(measured):
    results, _ = measured
    metrics = tables.read_table(results.metrics(3))
    assert set(metrics["depth"]) == {1.5}
    names = segment_tables.feature_names(metrics)
    assert {"depth_bd", "depth_var_rel_in"} <= {*names}


def test_another_heat_map_is_measured_anew_and_no_other_image(measured):
    results, maps = measured
    assert measure(results, maps).skipped == 4
    np.save(maps / "2.npy", np.full((12, 16), 7.25, np.float32))
    tally = measure(results, maps)
    assert (tally.done, tally.skipped) == (1, 3)
    assert set(tables.read_table(results.metrics(2))["depth"]) == {7.25}


def test_a_missing_heat_map_is_named(measured):
    results, maps = measured
    (maps / "1.npy").unlink()
    ((name, reason),) = measure(results, maps).failed
    assert name == "image 1" and str(maps / "1.npy") in reason


def test_the_tasks_draw_every_image_and_write_the_tables(measured, tmp_path):
    results, _ = measured
    images = [(i, tables.read_table(results.metrics(i))) for i in range(4)]
    table = segment_tables.segment_table(images)
    model = meta_training.fit(main.meta_models["linear"], table, seed=0)
    mapping = {i: (f"class {i}", (90 * i, 0, 0)) for i in range(3)}
    tally = stage.draw_ratings(Runner(LOG), results, model, (mapping, mapping))
    assert (tally.done, tally.failed) == (4, ())
    with Image.open(tmp_path / "pictures" / "rating" / "net" / "set" / "rating3.png") as picture:
        assert picture.width == 2400 and len(picture.convert("L").getcolors()) > 20
    settings = dict(learning_rate=1e-3, num_averages=1, seed=0, num_images=None)
    result = main.analyze_metrics(settings, Runner(LOG), results, ENTRY)
    figures, numbers = analysis.main_figures(result), analysis.plain_numbers(result)
    linear = numbers["regression"]["linear"]["R^2"]["validation"]["mean"]
    assert figures["R^2 linear"] == linear
    assert {*numbers["regression"]} == {"entropy", "linear", "gradient boosting", "neural"}
    assert "depth" in numbers["correlation"]
    assert (tmp_path / "analysis" / "net" / "set" / "scores.tex").is_file()


def test_a_chosen_regressor_is_compared_beside_the_others(measured, monkeypatch):
    results, _ = measured
    own = main.meta_models["linear"]._replace(name="my_regressor")
    monkeypatch.setitem(main.meta_models, "my_regressor", own)
    settings = dict(learning_rate=1e-3, num_averages=1, seed=0, num_images=None)
    result = main.analyze_metrics(settings, Runner(LOG), results, own)
    figures = analysis.main_figures(result)
    assert {name for name in figures if name.startswith("R^2")} == {
        "R^2 entropy", "R^2 linear", "R^2 gradient boosting", "R^2 my regressor", "R^2 neural",
    }  # fmt: skip
    assert figures["R^2 my regressor"] == figures["R^2 linear"]  # which it is, by another name
