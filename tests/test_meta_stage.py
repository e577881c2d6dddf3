"""Stage 3: what is said of a meta model, and which segments count."""

import logging
import shutil

import numpy as np
import pytest
from factories import same_ids, store_image
from numpy.testing import assert_array_equal
from sklearn.linear_model import LinearRegression

import train_meta_nn
from configuration import meta_models as meta_models_of
from configuration import models
from src.MetaSeg import meta_models, meta_stage, segment_tables
from src.records import Prediction
from src.store.paths import Results

LOG = logging.getLogger(__name__)


def table_of(sizes, true_iou):
    """A SegmentTable of one image whose only feature is the size in pixels."""
    metrics = {"S": sizes, "class": np.zeros(len(sizes), int), "iou": true_iou}
    return segment_tables.segment_table([(0, metrics)])


def test_r2_is_told_of_all_and_of_large_segments(caplog):
    caplog.set_level(logging.INFO)
    table = table_of([4, 9, 256, 400], [0, 0, 0.4, 0.8])
    figures = meta_stage.judge(LOG, "val", table, np.array([0, 0, 0.6, 0.8]), least=256)
    # squared errors 0.04; around the mean 0.3 of all: 0.09 + 0.09 + 0.01 + 0.25 = 0.44;
    # around 0.6 of the large ones: 0.04 + 0.04 = 0.08
    assert figures == pytest.approx({"r2": 1 - 0.04 / 0.44, "r2_large": 1 - 0.04 / 0.08})
    assert [record.getMessage() for record in caplog.records] == [
        "R^2 of the predicted IoU on val: 0.909 (4 segments, all)",
        "R^2 of the predicted IoU on val: 0.500 (2 segments, those of 256 pixels and more)",
    ]


def test_predicted_ious_that_end_far_below_the_true_ones_are_a_warning(caplog):
    table = table_of([300, 300, 4], [0.9, 0.2, 0.0])
    figures = meta_stage.judge(LOG, "val", table, np.array([0.5, 0.5, 0.9]), least=256)
    assert figures["r2_large"] < 0
    (warning,) = caplog.records
    # the small one does not count; 95th percentile of 0.2 and 0.9: 0.865
    assert "256 pixels and more ends at 0.50, their true IoU at 0.86 (95" in warning.getMessage()


def test_without_large_segments_nothing_is_said_of_them():
    figures = meta_stage.judge(LOG, "val", table_of([4, 9], [0, 1]), np.array([0, 1.0]), 256)
    assert figures == {"r2": 1.0}


def measured(tmp_path, truth):
    """Results of one image: left half predicted as 0, right half as 1, its true ids beside it."""
    classes = np.repeat([[0, 1]], 4, axis=1) * np.ones((6, 1), int)
    prediction = Prediction(np.eye(2, dtype=np.float32)[classes], classes, truth, "a.png")
    store_image(Results(tmp_path, "net", "val"), 0, prediction, same_ids(2), {"network": "a"})
    return Results(tmp_path, "net", "val")


@pytest.mark.parametrize(
    ("right", "iou"),
    [
        (255, [1, np.nan]),  # no label
        (7, [1, np.nan]),  # no class of the dataset either
        (9, [1, 0]),  # a class that the network does not predict: it is wrong
        (0, [0.5, 0]),  # a region of 24 pixels is missed beside 24
    ],
)
def test_segments_wholly_without_a_label_are_unknown_not_wrong(tmp_path, right, iou):
    truth = np.repeat([[0, right]], 4, axis=1) * np.ones((6, 1), int)
    results = measured(tmp_path, truth)
    labels = np.isin(np.arange(256), [0, 1, 9])
    (image,) = meta_stage.measured_tables(results, [0], labels)
    assert_array_equal(image.metrics["iou"], iou)
    assert_array_equal(np.isnan(image.metrics["iou0"]), np.isnan(iou))
    assert image.unlabelled == np.isnan(iou).sum()
    assert len(meta_stage.known_segments([image]).true_iou) == 2 - image.unlabelled
    (original,) = meta_stage.measured_tables(results, [0])
    assert_array_equal(original.metrics["iou"], np.nan_to_num(iou))


def test_a_segment_with_one_labelled_pixel_is_judged(tmp_path):
    truth = np.full((6, 8), 255)
    truth[0, 7] = 0
    labels = np.isin(np.arange(256), [0, 1])
    (image,) = meta_stage.measured_tables(measured(tmp_path, truth), [0], labels)
    assert_array_equal(image.metrics["iou"], [np.nan, 0])


def test_a_meta_model_that_learnt_unlabelled_ground_as_wrong_is_trained_again(tmp_path):
    there = {"datasets": ["a", "b"]}
    model = meta_models.MetaModel(
        LinearRegression().fit(np.zeros((2, 1)), [0, 1]), ("S",), np.zeros(1), np.ones(1)
    )
    meta_models.save_meta_model(tmp_path / "meta.pth", model, there)
    for count, reason in ((0, None), (3, "other unlabelled")):
        segments = {"images": {"a": 1, "b": 1}, "unlabelled": count}
        assert meta_stage.why_stale(tmp_path / "meta.pth", there, segments) == reason


def test_there_is_no_meta_model_without_the_picture_of_its_training(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    results, options = Results(tmp_path, "net", "val"), {"seed": 0, "epochs": 1}
    entry, path = meta_models_of["meta_nn"], tmp_path / "meta.pth"
    training = meta_stage.Training(entry, path, None, results, results, options, least=256)
    tables = [table_of([4, 9, 256, 400], [0, 0, 0.4, 0.8])] * 2
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(meta_stage.analysis, "draw_losses", killed)
        meta_stage._fit_and_store(training, tables, {}, lambda *_: None)
    assert not path.is_file()  # and the next run trains it
    meta_stage._fit_and_store(training, tables, {}, lambda *_: None)
    assert path.is_file() and path.with_suffix(".png").is_file()


def test_caches_of_the_original_are_learnt_from_without_the_networks_weights(reference, tmp_path):
    shutil.copytree(reference / "caches" / "tree", tmp_path / "tree")
    name = {"args": {"model_name": "deeplabv3plus", "io_path": str(tmp_path / "tree")}}
    dataset = {"dataset": "cityscapes_val", "val_dataset": "cityscapes_val", "epochs": 1}
    name["args"] |= dataset | {"meta_weights": str(tmp_path / "meta.pth")}
    assert not models["deeplabv3plus"].model_weights.exists()
    figures = train_meta_nn.ex.run(config_updates=name).result
    assert "r2" in figures
    assert meta_models.made_from(tmp_path / "meta.pth")["network"] is None
    assert meta_models.fits(tmp_path / "meta.pth", models["deeplabv3plus"])
