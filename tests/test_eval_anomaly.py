"""Anomaly evaluation of a small results tree, whose figures are worked out by hand."""

import csv
import logging
from dataclasses import replace

import numpy as np
import pytest
from factories import same_ids, store_image
from numpy.testing import assert_allclose

import eval_anomaly
from configuration import CONFIG, DatasetConfig, ModelConfig, datasets
from src import class_ids
from src.evaluation import anomaly
from src.MetaSeg import main as stage_2
from src.MetaSeg import meta_models, meta_training, segment_tables
from src.records import Prediction
from src.store import arrays
from src.store.paths import Results
from src.store.tables import read_table

MODEL = CONFIG.MODEL_NAME
LABELS = np.full((12, 20), 0, np.uint8)
LABELS[2:8, 2:12] = 100  # an unknown object of 60 pixels
LABELS[0] = 255
FOUND = LABELS == 100
FOUND[2] = False  # of which five sixths are uncertain
SCORE = np.where(FOUND, np.float32(1.5), np.float32(-2))


def write_image(folder, index, labels, dataset="streets_ood"):
    """Stages 1 and 2 of an image whose uncertain pixels are `FOUND`."""
    p = np.where(FOUND, 0.6, 0.99)[..., None]
    probabilities = np.concatenate([p, (1 - p) / 18 * np.ones(18)], axis=2).astype(np.float32)
    classes = np.where(FOUND, 13, 0).astype(np.uint8)
    prediction = Prediction(probabilities, classes, labels, "x.png", scores={"max_logit": SCORE})
    results = Results(folder, MODEL, dataset)
    store_image(results, index, prediction, same_ids(19))
    return read_table(results.metrics(index))


@pytest.fixture
def tree(tmp_path):
    """Results of two images, one of them without ground truth, and a meta model's weights."""
    metrics = write_image(tmp_path, 0, LABELS)
    write_image(tmp_path, 3, None)
    entry = ModelConfig("linear", "sklearn.linear_model", "LinearRegression", {}, None)
    table = segment_tables.with_known_iou(segment_tables.segment_table([(0, metrics)] * 3))
    weights = tmp_path / "linear.pth"
    meta_models.save_meta_model(weights, meta_training.fit(entry, table, seed=0), {})
    return tmp_path, ["args.meta_model=linear", f"args.meta_weights={weights}"]


def run(tree, *settings):
    folder, own = tree
    words = ["eval_anomaly.py", "with", f"args.io_path={folder}", "args.num_cores=1", *own]
    return eval_anomaly.ex.run_commandline([*words, *settings]).result


def test_every_score_is_judged_by_pixels_and_by_objects(tree):
    result = run(tree)
    assert list(result) == [
        "entropy", "margin", "max_softmax", "predicted_iou", "max_logit",
    ]  # fmt: skip
    for name, figures in result.items():
        assert (figures["positives"], figures["negatives"]) == (60, 160), name
        # 50 anomalous pixels score high; the other 10 tie with the normal ones
        assert figures["average_precision"] == pytest.approx(5 / 6 + 1 / 6 * 60 / 220), name
        assert figures["auroc"] == pytest.approx(5 / 6 + 1 / 6 / 2), name
        assert figures["best_f1"] == pytest.approx(2 * 50 / (50 + 60)), name
        objects = figures["obstacle"]  # 10 pixels of a true one are enough, not so for "anomaly"
        assert (objects["sIoU_gt"], objects["prec_pred"]) == (pytest.approx(5 / 6), 1), name
        assert objects["f1_mean"] == 1, name
        assert (figures["anomaly"]["sIoU_gt"], figures["anomaly"]["f1_mean"]) == (None, None), name


def test_stage_2_aggregates_the_scores_that_stage_1_kept(tmp_path):
    metrics = write_image(tmp_path, 0, LABELS)
    assert_allclose(metrics["max_logit"], [-2, 1.5], atol=1e-4)
    assert_allclose(metrics["max_logit_var"], [0, 0], atol=1e-4)


def test_each_score_is_what_its_name_says(tree):
    p = np.full((2, 2, 19), 0.1 / 17, np.float32)
    p[..., 0], p[..., 1] = 0.7, 0.2
    results = Results(tree[0], MODEL, "streets_ood")
    prediction = Prediction(p, p.argmax(-1), np.zeros((2, 2), np.uint8), "x.png")
    store_image(results, 7, prediction, same_ids(256))
    load = dict(results=results, anomaly_labels=np.zeros(256), meta_model=FixedIoU())
    scores, labels = anomaly.load_frame(7, **load)
    entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1 / 17)) / np.log(19)
    expected = {
        "entropy": entropy,
        "margin": 1 - 0.7 + 0.2,
        "max_softmax": 0.3,
        "predicted_iou": 0.75,
    }
    assert {name: pytest.approx(values[0, 0], abs=1e-5) for name, values in scores.items()} == (
        expected
    )
    # the same in 255 steps where stage 1 kept no probabilities
    maps = np.full((2, 2, 3), [entropy, 0.5, 0.3], np.float32)
    prediction = replace(prediction, heatmaps=maps)
    arrays.write_prediction(results.prediction(7), prediction, {}, "none")
    scores, _ = anomaly.load_frame(7, **load)
    assert {name: pytest.approx(values[0, 0], abs=2e-3) for name, values in scores.items()} == (
        expected
    )
    assert_allclose(labels, np.zeros((2, 2)))


@pytest.mark.parametrize("network", [None, {"class": "another"}])
def test_without_a_meta_model_that_fits_the_others_are_judged_and_one_line_says_so(
    tree, network, caplog
):
    folder, weights = tree[0], tree[0] / "own.pth"
    if network:
        model = meta_models.load_meta_model(folder / "linear.pth")
        meta_models.save_meta_model(weights, model, {"network": network})
    result = run((folder, ["args.meta_model=linear", f"args.meta_weights={weights}"]))
    assert list(result) == ["entropy", "margin", "max_softmax", "max_logit"]
    (line,) = [text for text in caplog.messages if "predicted_iou" in text]
    assert line == f"without predicted_iou: {weights} is not there, or is of another network"


@pytest.fixture
def mapped(tree, monkeypatch):
    """The tree with a map of the user's own, that knows the unknown object; and its file."""
    for index in (0, 3):
        np.save(tree[0] / f"{index}.npy", (LABELS == 100).astype(np.float16))
    words = "args.dataset=streets_ood", "args.heatmaps.own=.", "args.num_cores=1"
    with monkeypatch.context() as there:
        there.chdir(tree[0])
        stage_2.ex.run_commandline(["main.py", "with", *words, "args.io_path=."])
    return tree, tree[0] / "0.npy"


def test_heat_maps_of_one_s_own_are_judged_beside_the_scores(mapped):
    figures = run(mapped[0])
    assert list(figures)[-1] == "own"
    assert figures["own"]["average_precision"] == figures["own"]["auroc"] == 1


def test_an_own_heat_map_that_is_gone_is_the_error_of_its_picture(mapped):
    tree, path = mapped
    write_image(tree[0], 5, LABELS)
    path.unlink()
    with pytest.raises(SystemExit, match=f"image 0: .*{path}"):
        run(tree)


def test_an_own_heat_map_that_is_another_one_now_is_not_judged(mapped):
    tree, path = mapped
    np.save(path, np.zeros((12, 20)))
    with pytest.raises(SystemExit, match=f"image 0: .*{path} has changed since; run src/MetaSeg"):
        run(tree)


class FixedIoU:
    """A meta model that predicts 0.25 for every segment."""

    def predict(self, metrics):
        return np.full(len(metrics["class"]), 0.25, np.float32)


def test_objects_of_each_track_have_its_sizes(tree):
    labels = np.zeros((60, 60), np.uint8)
    labels[:11, :11], labels[20:26, 20:26] = 1, 1  # 121 and 36 pixels
    scores = {"a": (labels == 1).astype(np.float32)}
    found = anomaly.judge_frame(0, load=lambda _: (scores, labels), thresholds={"a": 0.5})
    assert found["obstacle"]["a"]["size_gt"] == [121, 36]
    assert found["obstacle"]["a"]["size_pred"] == [121]  # 36 are too few
    assert found["anomaly"]["a"]["size_gt"] == [121]
    assert found["anomaly"]["a"]["size_pred"] == []


def test_segments_of_an_older_prediction_are_refused(tree):
    path = Results(tree[0], MODEL, "streets_ood").prediction(0)
    arrays.write_prediction(path, arrays.read_prediction(path), {"tile": [64, 64]}, "float32")
    with pytest.raises(SystemExit, match="image 0: .*predicted again since it was measured"):
        run(tree)


def test_images_with_different_scores_are_not_compared(tree):
    path = Results(tree[0], MODEL, "streets_ood").prediction(5)
    write_image(tree[0], 5, LABELS)
    prediction = replace(arrays.read_prediction(path), scores={})
    arrays.write_prediction(path, prediction, {}, "float32")
    with pytest.raises(SystemExit, match="image 5 .*others also have max_logit"):
        run(tree)


@pytest.mark.parametrize(
    ("dataset", "unknown"), [("road_anomaly_21", 1), ("road_obstacle_21", 1), ("cityscapes_laf", 5)]
)
def test_the_benchmarks_are_judged_by_their_own_labels(tree, dataset, unknown):
    known = 1 if dataset == "cityscapes_laf" else 0
    labels = np.where(LABELS == 100, unknown, np.where(LABELS == 0, known, 255)).astype(np.uint8)
    write_image(tree[0], 0, labels, dataset)
    figures = run(tree, f"args.dataset={dataset}")["max_logit"]
    assert (figures["positives"], figures["negatives"]) == (60, 160)


def test_tables_and_curves_are_written(tree):
    run(tree)
    folder = Results(tree[0], MODEL, "streets_ood").analysis
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "anomaly_pixels.csv", "anomaly_components.csv", "anomaly_curves.png", "anomaly_curves.pdf",
    }  # fmt: skip
    rows = list(csv.DictReader((folder / "anomaly_pixels.csv").read_text().splitlines()))
    assert [row["score"] for row in rows][-1] == "max_logit"
    assert float(rows[0]["auroc"]) == pytest.approx(5 / 6 + 1 / 12)
    rows = list(csv.DictReader((folder / "anomaly_components.csv").read_text().splitlines()))
    assert [row["track"] for row in rows] == ["anomaly"] * 5 + ["obstacle"] * 5


def test_a_dataset_of_known_classes_only_is_refused_before_any_work(tree):
    datasets["all_known"] = DatasetConfig("all_known", "src.datasets.cityscapes", "Cityscapes", {})
    try:
        with pytest.raises(SystemExit, match="has no class that the network does not predict"):
            run(tree, "args.dataset=all_known")
    finally:
        del datasets["all_known"]


def test_images_without_ground_truth_are_refused_by_name(tree):
    write_image(tree[0], 0, None)
    with pytest.raises(SystemExit, match="no image of 'streets_ood' has ground truth"):
        run(tree)


def test_images_without_anomalies_are_refused_by_number(tree):
    write_image(tree[0], 0, np.zeros_like(LABELS))
    with pytest.raises(SystemExit, match="1 images of 'streets_ood': .* 0 anomalous"):
        run(tree)


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_judged(tree):
    results = Results(tree[0], MODEL, "streets_ood")
    write_image(tree[0], 5, LABELS)
    results.prediction(5).write_bytes(b"broken")
    with pytest.raises(SystemExit, match="image 5"):
        run(tree)
    assert (results.analysis / "anomaly_pixels.csv").is_file()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("streets_ood", {0: 0, 18: 0, 100: 1, 254: 255, 255: 255}),
        ("road_anomaly_21", {0: 0, 1: 1, 255: 255}),
        ("road_obstacle_21", {0: 0, 1: 1, 255: 255}),
        ("cityscapes_laf", {0: 255, 1: 0, 2: 1, 31: 255, 43: 1}),
        ("a2d2", {14: 255, 5: 255, 20: 1, 7: 0, 41: 1}),  # ego car, blur, trash, car, tractor
    ],
)
def test_what_counts_as_anomaly_in_each_dataset(name, expected):
    known = class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping")
    table = class_ids.anomaly_labels(datasets[name], known, logging.getLogger(__name__))
    assert_allclose(table[[*expected]], [*expected.values()])
