"""Stage 4 in this process: three small pictures whose segments, boxes and vectors are known."""

import json
import logging
import pickle
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import same_ids, store_image
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from PIL import Image
from sklearn.linear_model import LinearRegression

import compute_embeddings
from configuration import CONFIG, DatasetConfig, ModelConfig
from src.embedding import vectors as segment_vectors
from src.embedding.suspects import Judge, Rule
from src.embedding.table import read_table
from src.errors import RunError, SettingError
from src.MetaSeg import meta_models as meta
from src.MetaSeg import segment_tables
from src.MetaSeg.metrics import compute_metrics_components
from src.model_card import card_of
from src.records import ImageName, Prediction
from src.run import processes
from src.store import arrays, provenance, seen, tables
from src.store.paths import Results, judged_pictures

LOG = logging.getLogger(__name__)
MODULE = '''
import torch

mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
min_segment_size, min_crop_size = (4, 4), (8, 8)


class Blocks:
    pred_mapping = {0: ("road", (0, 0, 0)), 1: ("car", (0, 0, 9)), 2: ("bus", (0, 9, 9))}
    label_mapping = {**pred_mapping, 100: ("sofa", (9, 0, 0))}


class Moved(Blocks):
    """One picture, number 3."""

    def __init__(self, path):
        self.path = path

    def __getitem__(self, index):
        return {3: (None, None, self.path)}[index]


class MeanColour(torch.nn.Module):
    """The vector of a crop is its mean colour, in 0..1, times a factor."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    seen = 0  # crops
    stop_at = None  # so many crops are embedded, the next is an interrupt

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, crops):
        if MeanColour.seen == MeanColour.stop_at:
            raise KeyboardInterrupt
        MeanColour.seen += len(crops)
        vectors = self.factor * crops.mean((2, 3))
        return torch.where(vectors[:, 2:] > 2, torch.nan, vectors)  # too much blue


class Together(torch.nn.Module):
    """The vector of a crop says with how many it is computed."""

    def forward(self, crops):
        return torch.full((len(crops), 1), float(len(crops)))


class Whole(torch.nn.Module):
    """A segmentation network whose features are the picture itself."""

    def features(self, images):
        return images
'''
ROAD, CAR, BUS = (20, 40, 60), (200, 10, 30), (90, 180, 250)
CAR_AT, BUS_AT = np.s_[4:10, 5:13], np.s_[12:17, 27:32]  # 6 x 8 and 5 x 5 pixels
BOXES = [[5, 3, 13, 11], [24, 11, 32, 19]]  # grown to 8 x 8: above and below; away from the border


class World:
    """A results folder with measured images, and stage 4 to run on it."""

    def __init__(self, folder, modules):
        self.folder, self.results, self.modules = folder, folder / "results", modules
        self.known_datasets = compute_embeddings.known_datasets
        self.settings = dict(
            datasets=["source", "first"],
            model_name="whole",
            meta_model="by_size",
            meta_weights=None,
            net="mean_colour",
            net_weights=None,
            load_file=None,
            io_path=self.results,
            suspicion=None,
            iou_threshold=0.5,
            threshold=None,
            join=None,
            most=None,
            pred_classes=None,
            min_height=None,
            min_width=None,
            min_crop_height=None,
            min_crop_width=None,
            crop_size=None,
            batch_size=4,
            num_cores=1,
            gpu=None,
            scheduler=None,
            images_per_job=1,
            shard=None,
            overwrite=False,
            dry_run=False,
            fail_fast=False,
            coco=None,
            csv=None,
            parquet=None,
        )

    def add_image(self, dataset, index, model="whole", label=1):
        """A picture of a road with a car, labelled so, and a bus at the right border."""
        picture, labels = np.full((24, 32, 3), ROAD, np.uint8), np.zeros((24, 32), np.uint8)
        picture[CAR_AT], picture[BUS_AT] = CAR, BUS
        labels[CAR_AT], labels[BUS_AT] = 1, 2
        path = self.folder / f"{dataset}{index}.png"
        Image.fromarray(picture).save(path)
        truth = np.where(labels == 1, label, labels).astype(np.uint8)
        prediction = Prediction(np.eye(3, dtype=np.float32)[labels], labels, truth, str(path))
        results = Results(self.results, model, dataset)
        store_image(results, index, prediction, same_ids(3), {"label": label})
        return path

    def run(self, **settings):
        """Run the stage; gives what it returns and how many crops the network saw."""
        network = self.modules.MeanColour
        before = network.seen
        if settings.get("suspicion"):
            settings = {"iou_threshold": None, **settings}
        figures = compute_embeddings.embed_segments({**self.settings, **settings}, LOG)
        return figures, network.seen - before

    def path(self, net="mean_colour", model="whole"):
        return Results(self.results, model).embeddings((4, 4), net)

    def vectors(self, dataset, index, net="mean_colour"):
        return Results(self.results, "whole", dataset).vectors(index, self.path(net))

    def table(self, net="mean_colour"):
        return tables.read_embeddings(self.path(net))


@pytest.fixture
def world(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "blocks_of_a_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "blocks_of_a_user", raising=False)
    for name in ("source", "first", "second"):
        entry = DatasetConfig(name, "blocks_of_a_user", "Blocks", {})
        monkeypatch.setitem(compute_embeddings.known_datasets, name, entry)
    own = compute_embeddings.known_datasets["source"]
    monkeypatch.setattr(CONFIG, "TRAIN_DATASET", own)
    entries = (
        (compute_embeddings.models, "whole", "Whole", {}),
        (compute_embeddings.embedding_networks, "mean_colour", "MeanColour", {}),
        (compute_embeddings.embedding_networks, "too_large", "MeanColour", {"factor": 4.0}),
        (compute_embeddings.embedding_networks, "together", "Together", {}),
        (compute_embeddings.embedding_networks, "no_network", "Blocks", {}),
    )
    for known, name, class_name, kwargs in entries:
        entry = ModelConfig(name, "blocks_of_a_user", class_name, kwargs, None)
        monkeypatch.setitem(known, name, entry)
    weights = tmp_path / "by_size.pth"
    save_meta_model(weights)
    entry = ModelConfig("by_size", "sklearn.linear_model", "LinearRegression", {}, weights)
    monkeypatch.setitem(compute_embeddings.meta_models, "by_size", entry)
    compute_embeddings.registry.find_class(own)
    world = World(tmp_path, sys.modules["blocks_of_a_user"])
    world.add_image("first", 3)
    return world


def feature_names():
    """Those of segments of three classes."""
    metrics, _ = compute_metrics_components(np.full((4, 4, 3), 1 / 3, np.float32))
    return segment_tables.feature_names(metrics)


def save_meta_model(path, bias=0):
    """A meta model whose predicted IoU is the size of a segment in pixels / 100, plus `bias`."""
    names = feature_names()
    regressor = LinearRegression()
    regressor.coef_ = np.array([float(name == "S") / 100 for name in names])
    regressor.intercept_, regressor.n_features_in_ = bias, len(names)
    model = meta.MetaModel(regressor, names, np.zeros(len(names)), np.ones(len(names)))
    meta.save_meta_model(path, model, None)


def mean_colour(path, box):
    left, upper, right, lower = box
    return np.asarray(Image.open(path))[upper:lower, left:right].mean((0, 1)) / 255


# the table


def test_the_table_holds_what_is_known_of_each_suspicious_segment(world):
    figures, _ = world.run()
    table = world.table()
    picture = world.folder / "first3.png"
    assert figures["segments"] == 3 and figures["kept"] == 2
    assert table["image_path"].tolist() == [str(picture)] * 2
    assert table["dataset"].tolist() == ["first"] * 2
    assert table["model_name"].tolist() == ["whole"] * 2
    assert_array_equal(table["image_index"], [3, 3])
    assert_array_equal(table["image_size"], [[24, 32]] * 2)
    for of_image in table["image_predicted_iou"]:
        assert_allclose(of_image, [1, 0.48, 0.25], rtol=1e-6)
    assert_array_equal(table["box"], BOXES)
    assert_array_equal(table["component_index"], [2, 3])
    assert_array_equal(table["true_id"], [1, 2])
    assert_array_equal(table["predicted_id"], [1, 2])
    assert_allclose(table["predicted_iou"], [0.48, 0.25], rtol=1e-6)
    assert_array_equal(table["segment_size"], [48, 25])
    expected = [mean_colour(picture, box) for box in BOXES]
    assert_allclose(table["embeddings"], expected, rtol=1e-5)
    assert all(thumbnail.startswith(b"\xff\xd8") for thumbnail in table["thumbnail"])  # JPEG
    assert table["embeddings"].dtype == table["predicted_iou"].dtype == np.float32


def add_split_car(world):
    """Picture 4 of `first`: the upper 2 x 8 pixels of the car are a bus to the network."""
    path = world.add_image("first", 4)
    results = Results(world.results, "whole", "first")
    labels = np.zeros((24, 32), np.uint8)
    labels[CAR_AT], labels[4:6, 5:13], labels[BUS_AT] = 1, 2, 2
    truth = np.where(labels == 2, 1, labels).astype(np.uint8)
    probabilities = np.eye(3, dtype=np.float32)[labels]
    prediction = Prediction(probabilities, labels, truth, str(path))
    store_image(results, 4, prediction, same_ids(3), {"split": True})
    return path


def test_segments_that_belong_together_are_one_object_with_one_vector(world):
    add_split_car(world)
    (figures, _) = world.run(join="border", net="segmentation")
    table = world.table("segmentation")
    table = table.take(table["image_index"] == 4)
    assert [numbers.tolist() for numbers in table["segments"]] == [[3, 2]]  # the bus is too small
    assert_array_equal(table["component_index"], [3])
    assert_array_equal(table["segment_size"], [48])
    assert_array_equal(table["predicted_id"], [1])  # of 32 of the 48 pixels
    assert_array_equal(table["true_id"], [1])
    assert_allclose(table["predicted_iou"], [(16 * 0.16 + 32 * 0.32) / 48], rtol=1e-6)
    assert_allclose(table["suspicion"], 1 - table["predicted_iou"], rtol=1e-6)
    assert_array_equal(table["box"], BOXES[:1])
    assert_allclose(table["embeddings"], np.float32([CAR]) / 255, rtol=1e-5)
    assert figures["segments"] == 7 and figures["kept"] == 3 and figures["objects"] == 2


def test_each_segment_alone_has_another_vector_than_the_object_of_the_same_name(world):
    add_split_car(world)
    world.run(join="border", net="segmentation")
    world.run(net="segmentation", min_height=3, min_width=4)
    world.run(net="segmentation")
    table = world.table("segmentation")
    assert [numbers.tolist() for numbers in table["segments"]] == [[2], [3], [3], [4]]


def test_the_most_suspicious_objects_are_counted_whole(world):
    add_split_car(world)
    world.run(join="border", most=1)  # the car's suspicion is 0.52 in picture 3, and 0.73 in 4
    table = world.table()
    assert_array_equal(table["image_index"], [4])
    assert [numbers.tolist() for numbers in table["segments"]] == [[3, 2]]


def test_without_a_threshold_the_most_suspicious_segments_are_joined(world):
    path = world.add_image("first", 4)
    labels, unsure = np.zeros((24, 32), np.uint8), np.zeros((24, 32, 1), np.float32)
    labels[CAR_AT], labels[4:7, 5:13] = 1, 2  # upper and lower 3 x 8 pixels of the car
    unsure[CAR_AT], unsure[4:7, 5:13] = 0.3, 0.4
    probabilities = np.eye(3, dtype=np.float32)[labels] * (1 - 1.5 * unsure) + unsure / 2
    prediction = Prediction(probabilities, labels, None, str(path))
    store_image(Results(world.results, "whole", "first"), 4, prediction, same_ids(3), {"soft": 1})
    settings = dict(suspicion="max_softmax", threshold=None, min_height=3, most=2)
    figures, _ = world.run(join="border", **settings)
    assert (figures["kept"], figures["objects"]) == (2, 1)
    figures, _ = world.run(**settings)
    assert (figures["kept"], figures["objects"]) == (2, 2)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in pycocotools, with NumPy 2
def test_the_mask_that_is_exported_is_that_of_the_object(world):
    masks = pytest.importorskip("pycocotools.mask")
    add_split_car(world)
    path = world.folder / "out.json"
    world.run(join="border", coco=path)
    found = json.loads(path.read_text())["annotations"]
    (car,) = [one for one in found if one["attributes"]["segments"] == [3, 2]]
    expected = np.zeros((24, 32), np.uint8)
    expected[CAR_AT] = 1
    assert_array_equal(masks.decode(car["segmentation"]), expected)


def test_the_files_say_what_they_were_made_from(world):
    world.run(pred_classes=["car", "bus"], crop_size=(9, 9))
    made_from = world.table().facts["made_from"]
    assert made_from.keys() == {"net", "crop_size", "datasets", "known", "format"}
    assert made_from["net"]["class"] == "blocks_of_a_user.MeanColour"
    assert made_from["crop_size"] == [9, 9]
    assert made_from["datasets"]["first"]["count"] == 1  # image
    of_image = provenance.made_from(world.vectors("first", 3))
    assert {key: of_image[key] for key in ("net", "crop_size")} == {
        key: made_from[key] for key in ("net", "crop_size")
    }
    selection = of_image["selection"]
    assert len(of_image["segments"]) == len(selection["meta_model"]["weights"]) == 64  # SHA-256
    expected = dict(iou_threshold=0.5, classes=[1, 2], min_height=4, min_width=4, min_crop=[8, 8])
    assert {key: selection[key] for key in expected} == expected
    assert selection["join"] is None
    world.run(join="touching")
    assert provenance.made_from(world.vectors("first", 3))["selection"]["join"] == "touching"


def test_objects_are_as_new_as_they_lie_far_from_known_segments(world, caplog):
    world.run()
    assert np.isnan(world.table()["novelty"]).all()
    assert (
        "without segments of source, which the networks learnt on, no object has a novelty"
        in caplog.text
    )
    path = world.add_image("source", 0)
    assert world.run()[1] == 1  # the road; car and bus of the source have predicted IoUs below 0.5
    road, car, bus = (mean_colour(path, box) for box in [(0, 0, 32, 24), *BOXES])
    road, car, bus = (vector / np.linalg.norm(vector) for vector in (road, car, bus))
    expected = np.linalg.norm([car - road, bus - road], axis=1)
    assert_allclose(world.table()["novelty"], expected, rtol=1e-5)
    assert world.run()[1] == 0  # nothing is made twice
    world.run(datasets=["first"])  # what is known stays, whatever is searched
    assert_allclose(world.table()["novelty"], expected, rtol=1e-5)


def test_where_no_segment_is_trusted_nothing_is_new(world, caplog):
    world.add_image("source", 0)
    world.run()
    assert np.isfinite(world.table()["novelty"]).all()
    save_meta_model(world.folder / "by_size.pth", bias=-9)
    world.run()
    assert np.isnan(world.table()["novelty"]).all()
    assert "no segment of source is known and trusted: no novelty" in caplog.text


def test_without_the_known_pictures_objects_are_embedded_all_the_same(world, caplog):
    world.add_image("source", 0).unlink()
    world.run()
    assert len(world.table()) == 2 and np.isnan(world.table()["novelty"]).all()
    assert "image 0 of source failed: FileNotFoundError" in caplog.text


def test_the_network_s_own_features_are_the_mean_over_the_segment(world):
    world.run(net="segmentation")
    assert_allclose(
        world.table("segmentation")["embeddings"], np.divide([CAR, BUS], 255), rtol=1e-4
    )


def test_each_picture_is_read_once(world, monkeypatch):
    read = []

    def counted(path):
        read.append(path)
        return Image.open(path).convert("RGB")

    monkeypatch.setattr(segment_vectors, "read_image", counted)
    world.run()
    assert read == [str(world.folder / "first3.png")]


@pytest.mark.parametrize("net", ["mean_colour", "segmentation"])
def test_other_processes_find_and_cut_the_same(world, net, monkeypatch):
    for index in (0, 7, 12):
        world.add_image("first", index)
    world.run(net=net)
    expected = world.table(net)
    monkeypatch.setattr(processes, "_LOOK", -1)
    monkeypatch.setattr(processes, "_STARTING", 0)
    world.run(net=net, num_cores=2, overwrite=True)
    for name, column in expected.columns.items():
        assert_equal(world.table(net)[name].tolist(), column.tolist(), err_msg=name)


def test_the_detection_of_unknown_objects_is_told_over_all_searched_datasets(world):
    world.add_image("second", 0, label=100)
    figures, _ = world.run(datasets=["source", "first", "second"])
    # unknown: the car of the second; 1 - IoU: 0.52, twice 0.75 above it, and 0.52, twice 0 below
    assert figures["auroc"] == pytest.approx((2 + 1 / 2) / 5)


def test_an_image_below_the_smallest_crop_gives_all_of_it_and_is_counted(world, caplog):
    world.run(min_crop_height=20, min_crop_width=40)
    assert_array_equal(world.table()["box"], [[0, 0, 32, 20], [0, 4, 32, 24]])
    assert "images smaller than the least crop, 20 x 40 pixels, whose crops show" in caplog.text


def test_the_table_of_classes_and_filters_is_logged(world, caplog):
    world.run(pred_classes=["car"])
    counts = {
        line.split()[0]: line.split()[1:]
        for line in caplog.messages
        if re.fullmatch(r"\w+ +\d+ +\d+", line)
    }
    assert counts == {"road": ["0", "1"], "car": ["1", "1"], "bus": ["0", "1"], "all": ["1", "3"]}
    for line in ("unknown suspicion: 0", "not suspicious: 1", "other class: 1", "too small: 0"):
        assert f"left out, {line}" in caplog.messages


def test_without_any_suspect_the_table_has_no_rows(world, caplog):
    figures, crops = world.run(min_height=7)
    assert (figures["kept"], crops) == (0, 0)
    path = Results(world.results, "whole").embeddings((7, 4), "mean_colour")
    assert tables.read_embeddings(path)["embeddings"].shape == (0, 0)
    assert "left out, too small: 2" in caplog.messages
    advice = "most segments .2 of 3. are left out as too small: lower args.min_height, now 7"
    assert re.search(advice, caplog.text)
    with pytest.raises(SettingError, match=f"holds no object: {advice}"):
        read_table(path)
    caplog.clear()
    world.run(min_height=7)
    assert "up to date" in caplog.text


def test_where_size_took_all_suspects_the_advice_is_of_the_size_though_most_are_trusted(world):
    rule = Rule("predicted_iou", 0.5, None, None, (7, 4))
    judge = Judge("", "whole", None, rule, (7, 4), {}, {})
    facts = {
        "left_out": {"unknown suspicion": 0, "not suspicious": 9, "other class": 0, "too small": 2},
        "segments": {"is_chosen": np.zeros(11, bool)},
    }
    trusted = facts | {"left_out": {**facts["left_out"], "too small": 0}}
    advice = judge.advice([trusted, facts])
    assert "all that pass the other filters (2 of 20) are left out as too small: lower" in advice
    some = facts | {"segments": {"is_chosen": np.ones(12, bool)}}
    assert "most segments (9 of 11) are left out as not suspicious: raise" in judge.advice([some])


def test_a_budget_takes_the_most_suspicious_of_all_pictures(world):
    world.add_image("first", 0)
    assert world.run(most=2)[0]["kept"] == 2  # the bus of both, predicted IoU 0.25
    assert_array_equal(world.table()["component_index"], [3, 3])
    assert_array_equal(world.table()["suspicion"], [0.75, 0.75])
    assert world.run(most=100)[0]["kept"] == 4


def test_a_budget_keeps_what_is_as_suspicious_as_the_last(world):
    world.add_image("first", 0)
    assert world.run(most=1)[0]["kept"] == 2


def test_without_a_fitting_meta_model_the_entropy_tells_and_that_is_said(world, caplog):
    blurred = world.add_image("second", 0)
    place = Results(world.results, "whole", "second")
    known = arrays.read_prediction(place.prediction(0))
    sure = np.where(known.prediction[..., None] == 2, np.float32([0.2, 0.2, 0.6]), np.eye(3)[0])
    unsure = replace(known, probabilities=sure.astype(np.float32), image_path=str(blurred))
    store_image(place, 0, unsure, same_ids(3), {"label": 2})
    gone = world.folder / "gone.pth"
    figures, _ = world.run(datasets=["second"], meta_weights=gone, iou_threshold=None)
    assert "suspicious is what has a high entropy" in caplog.text
    (bus,) = world.table()["suspicion"]
    p = np.array([0.2, 0.2, 0.6])
    assert_allclose(bus, -(p * np.log(p)).sum() / np.log(3), rtol=1e-4)
    assert figures["kept"] == 1 and np.isnan(world.table()["predicted_iou"]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"suspicion": "margin", "threshold": 0.1, "iou_threshold": 0.5},
            "args.iou_threshold=0.5 goes with args.suspicion=predicted_iou; .* margin is args.thr",
        ),
        ({"suspicion": "margin"}, "args.suspicion=margin needs args.threshold, .* or args.most"),
        ({"suspicion": "energi", "most": 3}, "no score 'energi' .*predicted_iou, entropy, margin"),
    ],
)
def test_a_score_that_cannot_tell_is_named(world, settings, message):
    with pytest.raises(SettingError, match=message):
        world.run(**{"threshold": None} | settings)


def test_an_unknown_iou_is_counted_and_judges_nothing(world, caplog):
    world.add_image("first", 0, label=100)
    save_meta_model(world.folder / "by_size.pth", bias=np.nan)
    figures, crops = world.run()
    assert (figures, crops) == ({"segments": 6, "kept": 0, "objects": 0}, 0)
    assert "left out, unknown suspicion: 6" in caplog.messages


def test_labels_above_255_belong_to_no_class(world):
    world.add_image("first", 0, label=100)
    path = Results(world.results, "whole", "first").prediction(3)
    known = arrays.read_prediction(path)
    truth = known.ground_truth.astype(np.uint16)
    truth[truth == 1] = 300
    arrays.write_prediction(path, replace(known, ground_truth=truth), provenance.made_from(path))
    figures, _ = world.run()
    assert_array_equal(world.table()["true_id"], [100, 2, 300, 2])
    # one unknown car of 0.52, above it the buses of 0.75, below the roads; the other has no class
    assert figures["auroc"] == pytest.approx(2 / 4)


# faults of the original


def test_a_single_image_is_enough_and_other_files_in_the_metrics_folder_do_not_matter(world):
    folder = Results(world.results, "whole", "first").metrics(3).parent
    (folder / "metrics_all.p").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    assert world.run()[1] == 2


def test_the_folders_are_those_of_the_configured_model(world, monkeypatch):
    entry = compute_embeddings.models["whole"]._replace(name="other")
    monkeypatch.setitem(compute_embeddings.models, "other", entry)
    world.add_image("first", 0, model="other")
    world.run(model_name="other")
    assert_array_equal(tables.read_embeddings(world.path(model="other"))["image_index"], [0, 0])


# only what is new


def with_maps(path):
    """Give a file the maps that stage 5 adds."""
    table = tables.read_embeddings(path)
    points = np.arange(2.0 * len(table), dtype=np.float32).reshape(-1, 2)
    table = table.with_columns(plot_embeddings=points, nn_embeddings=points + 100)
    made_from = table.facts["made_from"]
    tables.write_embeddings(path, table.with_facts(reduced_by={"method": "tsne"}), made_from)


def test_a_second_run_computes_nothing_and_leaves_the_file_alone(world, caplog):
    world.run()
    before = world.path().stat().st_mtime_ns
    figures, crops = world.run()
    assert (figures["kept"], crops) == (2, 0)
    assert world.path().stat().st_mtime_ns == before
    assert "up to date" in caplog.text


@pytest.mark.promise(3)
def test_vectors_that_have_not_changed_are_not_read_again(world, monkeypatch):
    monkeypatch.setattr(seen, "_SETTLED_NS", 0)
    world.add_image("first", 4)
    world.add_image("second", 0)
    world.run(datasets=["source", "first", "second"], net="too_large")
    read, table = world.run(net="too_large"), world.path("too_large").read_bytes()
    with monkeypatch.context() as unread:
        unread.delattr(tables, "read_objects")
        assert world.run(net="too_large") == read
        with pytest.raises(AttributeError, match="read_objects"):
            world.run(net="too_large", verify=True)
    with_maps(world.path("too_large"))
    assert world.run(net="too_large") == read
    assert "plot_embeddings" in world.table("too_large")
    world.path("too_large").unlink()
    assert world.run(net="too_large") == read
    assert world.path("too_large").read_bytes() == table
    world.add_image("first", 4, label=2)
    world.run(net="too_large")
    assert_array_equal(world.table("too_large")["true_id"], [1, 2, 1])


def test_what_is_known_of_all_segments_comes_back(world):
    world.add_image("second", 0)
    world.run(datasets=["source", "first", "second"], net="too_large")
    facts, _ = tables.read_judged(judged_pictures(world.path("too_large")))
    for name in ("first", 3), ("second", 0):
        of_picture, _ = tables.read_objects(world.vectors(*name, net="too_large"))
        assert of_picture.facts["not_finite"] == [3]
        assert_equal(facts[ImageName(*name)], of_picture.facts)


def test_another_image_is_appended_and_the_rest_stays(world):
    world.run()
    with_maps(world.path())
    world.add_image("first", 1)
    assert world.run()[1] == 2
    table = world.table()
    assert_array_equal(table["image_index"], [1, 1, 3, 3])
    assert_array_equal(table["component_index"], [2, 3, 2, 3])
    assert_allclose(table["embeddings"][:2], table["embeddings"][2:])
    assert_array_equal(table["plot_embeddings"], [[np.nan] * 2] * 2 + [[0, 1], [2, 3]])
    assert_array_equal(table["nn_embeddings"], [[np.nan] * 2] * 2 + [[100, 101], [102, 103]])
    assert table.facts["reduced_by"] == {"method": "tsne"}


def test_another_dataset_joins_those_in_the_file(world, caplog):
    world.run()
    before = world.table()
    world.add_image("second", 3)
    assert world.run(datasets=["source", "second"])[1] == 2
    assert "keeps the objects of first" in caplog.text
    table = world.table()
    assert table["dataset"].tolist() == ["first"] * 2 + ["second"] * 2
    assert_array_equal(table["embeddings"][:2], before["embeddings"])
    caplog.clear()
    assert world.run(datasets=["source", "second", "first"])[1] == 0
    assert "up to date" in caplog.text


def test_another_threshold_computes_only_the_pictures_that_it_adds_segments_to(world):
    world.run(iou_threshold=0.3)
    assert_array_equal(world.table()["component_index"], [3])
    assert world.run(iou_threshold=0.5)[1] == 2
    assert_array_equal(world.table()["component_index"], [2, 3])
    assert world.run(iou_threshold=0.3)[1] == 0
    assert_array_equal(world.table()["component_index"], [3])


@pytest.mark.promise(2)
def test_the_segments_of_a_picture_are_computed_together_however_a_run_was_cut(world):
    world.run(net="together", iou_threshold=0.3)
    world.add_image("first", 4)
    world.run(net="together", iou_threshold=0.5)
    assert_array_equal(world.table("together")["embeddings"], [[2]] * 4)
    cut = world.path("together").read_bytes(), world.vectors("first", 3, "together").read_bytes()
    shutil.rmtree(world.path("together").parent)
    world.run(net="together", iou_threshold=0.5)
    assert cut == (
        world.path("together").read_bytes(),
        world.vectors("first", 3, "together").read_bytes(),
    )


@pytest.mark.parametrize("settings", [{"iou_threshold": 0.1}, {"min_crop_height": 9}])
def test_a_selection_of_no_segment_leaves_the_file_as_it_is(world, settings, caplog):
    world.run()
    before = world.path().read_bytes()
    figures, _ = world.run(pred_classes=["road"], csv=world.folder / "out.csv", **settings)
    assert figures["kept"] == 0
    assert f"{world.path()} keeps what it has, as no object was selected" in caplog.messages
    assert world.path().read_bytes() == before
    assert len((world.folder / "out.csv").read_text().splitlines()) == 1


def test_a_segment_with_another_box_is_computed_again(world):
    world.run()
    assert world.run(min_crop_height=7)[1] == 2
    assert_array_equal(world.table()["box"][0], [5, 4, 13, 11])


def test_an_image_that_was_segmented_anew_is_computed_again(world):
    world.add_image("first", 4)
    world.run()
    world.add_image("first", 4, label=2)
    assert world.run()[1] == 2
    assert_array_equal(world.table()["true_id"], [1, 2, 2, 2])


def test_another_network_or_crop_size_computes_everything_and_drops_the_other_datasets(
    world, caplog
):
    world.add_image("second", 0)
    world.run(datasets=["source", "first", "second"])
    with_maps(world.path())
    assert world.run(crop_size=[6, 6])[1] == 2
    assert "the objects of second are dropped" in caplog.text
    table = world.table()
    assert set(table["dataset"]) == {"first"} and "plot_embeddings" not in table


def test_overwriting_computes_the_named_datasets_again(world):
    world.add_image("second", 0)
    world.run(datasets=["source", "first", "second"])
    with_maps(world.path())
    assert world.run(overwrite=True)[1] == 2
    table = world.table()
    assert set(table["dataset"]) == {"first", "second"}
    assert_array_equal(table["plot_embeddings"].ravel(), np.arange(8))  # of the same vectors


def test_overwriting_keeps_what_is_known_of_the_vectors_of_other_datasets(world):
    world.add_image("second", 0)
    assert world.run(datasets=["source", "first", "second"], net="too_large")[1] == 4
    assert world.run(net="too_large", overwrite=True)[1] == 2  # the bus of the first again
    assert world.run(datasets=["source", "second"], net="too_large")[1] == 0


def test_a_broken_file_is_made_again(world, caplog):
    world.run()
    for path, crops in ((world.path(), 0), (world.vectors("first", 3), 2)):
        path.write_bytes(path.read_bytes()[:100])
        assert world.run()[1] == crops
        assert len(world.table()) == 2
    assert f"{world.path()} cannot be read" in caplog.text


def test_a_broken_table_is_made_again_where_no_segment_is_selected(world):
    world.run()
    world.path().write_bytes(b"")
    world.run(iou_threshold=0.1)
    assert len(world.table()) == 0


@pytest.mark.parametrize("stop_at", [1, 3])
def test_an_interrupt_costs_the_vectors_of_the_picture_in_progress_at_most(world, stop_at):
    for index in range(3):
        world.add_image("first", index)
    world.modules.MeanColour.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        world.run(batch_size=1)
    done = [world.vectors("first", index).is_file() for index in (0, 1, 2, 3)]
    assert done == [stop_at == 3, False, False, False]
    world.modules.MeanColour.stop_at = None
    assert world.run()[1] == 8 - 2 * sum(done)
    assert len(world.table()) == 8
    assert world.run()[1] == 0


def test_an_interrupt_before_the_first_vector_leaves_the_old_files_alone(world):
    world.run()
    files = world.path(), world.vectors("first", 3)
    before = [path.read_bytes() for path in files]
    world.modules.MeanColour.stop_at = world.modules.MeanColour.seen
    with pytest.raises(KeyboardInterrupt):
        world.run(overwrite=True)
    assert [path.read_bytes() for path in files] == before


def test_pictures_and_results_that_have_moved_are_not_embedded_again(world):
    """Vectors stay, and a picture that is read again is the one that its dataset has now."""
    world.run()
    old, new = world.folder / "first3.png", world.folder / "pictures" / "first3.png"
    new.parent.mkdir()
    shutil.copyfile(old, new)
    old.unlink()
    entry = DatasetConfig("first", "blocks_of_a_user", "Moved", {"path": str(new)})
    world.known_datasets["first"] = entry
    assert world.run()[1] == 0
    assert world.table()["image_path"].tolist() == [str(new)] * 2
    assert world.run(crop_size=[6, 6])[1] == 2
    moved = world.results.rename(world.folder / "moved")
    world.results = world.settings["io_path"] = moved
    assert world.run(crop_size=[6, 6])[1] == 0


# other features for segments that are there


def test_segments_of_a_file_get_vectors_of_another_network(world):
    world.run(net="segmentation")
    with_maps(world.path("segmentation"))
    for folder in ("input", "metrics", "components"):  # none is needed
        (world.results / folder).rename(world.folder / folder)
    assert world.run(load_file=world.path("segmentation")) == ({}, 2)
    table, source = world.table(), world.table("segmentation")
    for name in source.columns.keys() - {"embeddings", "plot_embeddings", "nn_embeddings"}:
        assert_equal(table[name].tolist(), source[name].tolist(), err_msg=name)
    assert_allclose(table["embeddings"][0], mean_colour(world.folder / "first3.png", BOXES[0]))
    assert "plot_embeddings" not in table and "reduced_by" not in table.facts
    assert world.run(load_file=world.path("segmentation"))[1] == 0


def test_a_file_of_the_original_gets_other_vectors_and_thumbnails(world, reference):
    file = reference / "caches" / "tree" / "embeddings_32_32_densenet201.p"
    assert world.run(load_file=file)[1] == 5
    path = Results(world.results, "deeplabv3plus").embeddings((32, 32), "mean_colour")
    table, original = tables.read_embeddings(path), tables.read_table(file)
    assert_array_equal(table["box"], original["box"])
    assert_array_equal(table["true_id"], original["gt"])
    pictures = [Path(picture) for picture in dict.fromkeys(table["image_path"])]
    assert all(picture.is_absolute() for picture in pictures)
    assert_allclose(table["embeddings"][1], mean_colour(pictures[0], original["box"][1]), rtol=1e-5)
    assert len(table["thumbnail"]) == 5
    assert_array_equal(table["segment_size"], [-1] * 5)
    assert world.run(load_file=file)[1] == 0


def test_masks_of_a_file_of_the_original_come_from_the_folders_above_it(world, reference):
    pytest.importorskip("pycocotools")
    file = reference / "caches" / "tree" / "embeddings_32_32_densenet201.p"
    world.run(load_file=file, coco=world.folder / "out.json")
    annotations = json.loads((world.folder / "out.json").read_text())["annotations"]
    results = Results(file.parent, "deeplabv3plus", "cityscapes_val")
    components = arrays.read_components(results.components(0))
    areas = {
        annotation["attributes"]["component"]: annotation["area"]
        for annotation in annotations
        if annotation["attributes"]["image_index"] == 0
    }
    assert areas == {number: (abs(components) == number).sum() for number in (2, 18)}


def test_own_features_need_the_component_map_of_the_segments_in_the_file(world):
    world.run()
    assert world.run(load_file=world.path(), net="segmentation")[1] == 0
    assert_allclose(world.table("segmentation")["embeddings"][0], np.divide(CAR, 255), rtol=1e-4)
    Results(world.results, "whole", "first").components(3).unlink()
    with pytest.raises(RunError, match=r"image 3 of first: .*components3.hdf5 is missing"):
        world.run(load_file=world.path(), net="segmentation", overwrite=True)


@pytest.mark.parametrize("name", ["embeddings_4_4_mean_colour.p", "renamed.p"])
def test_a_file_to_load_that_is_none_is_a_wrong_setting(world, name):
    path = world.folder / name
    with pytest.raises(SettingError, match=rf"args.load_file.*{name} is missing"):
        world.run(load_file=path)
    path.write_bytes(pickle.dumps({"gt": [1]}))
    with pytest.raises(SettingError, match=rf"args.load_file.*{name} cannot be read"):
        world.run(load_file=path)


# what breaks


def test_a_picture_that_vanished_broke_or_changed_is_named_and_tried_again(world):
    vanished, broken, changed = (world.add_image("first", index) for index in range(3))
    hidden = vanished.rename(world.folder / "hidden.png")
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    Image.new("RGB", (40, 40)).save(changed)
    for _ in range(2):
        with pytest.raises(RunError, match="3 failed; the others are done") as error:
            world.run()
        for index in range(3):
            assert f"image {index} of first: " in str(error.value)
        assert "was 24 x 32" in str(error.value)
        assert_array_equal(world.table()["image_index"], [3, 3])
    hidden.rename(vanished)
    broken.write_bytes(whole)
    changed.write_bytes(whole)
    assert world.run()[1] == 6
    assert_array_equal(np.unique(world.table()["image_index"]), [0, 1, 2, 3])


def test_an_image_without_its_metrics_is_named_and_stops_no_other(world):
    world.add_image("first", 0)
    Results(world.results, "whole", "first").components(0).write_bytes(b"broken")
    with pytest.raises(RunError, match=r"1 failed; .*\n *image 0 of first: .*components0"):
        world.run()
    assert_array_equal(world.table()["image_index"], [3, 3])


def test_an_image_that_cannot_be_judged_any_more_keeps_its_vectors(world):
    world.add_image("first", 0)
    world.run()
    with_maps(world.path())
    before = world.table()
    path = Results(world.results, "whole", "first").components(0)
    whole = path.read_bytes()
    path.write_bytes(b"broken")
    world.add_image("first", 5)
    files = {name: world.folder / f"out.{name}" for name in ("coco", "csv")}
    with pytest.raises(RunError, match=r"1 failed; .*\n *image 0 of first: .*components0"):
        world.run(overwrite=True, **files)
    table = world.table()
    assert_array_equal(np.unique(table["image_index"]), [0, 3, 5])
    assert_array_equal(table["embeddings"][:4], before["embeddings"])
    assert_array_equal(table["plot_embeddings"][:2], before["plot_embeddings"][:2])
    assert table["thumbnail"].tolist()[:2] == before["thumbnail"].tolist()[:2]
    assert len(files["csv"].read_text().splitlines()) == 1 + 4  # what was found now
    path.write_bytes(whole)
    assert world.run()[1] == 0
    assert_array_equal(np.unique(world.table()["image_index"]), [0, 3, 5])


def test_a_picture_that_vanished_does_no_harm_once_it_is_embedded(world):
    world.run()
    (world.folder / "first3.png").unlink()
    world.add_image("first", 4)
    assert world.run()[1] == 2


def test_a_vector_that_is_not_finite_is_named_left_out_and_not_tried_again(world, caplog):
    world.add_image("first", 0)
    assert world.run(net="too_large")[1] == 4
    assert "segment 3 of image 0 of first is left out: its vector is not finite" in caplog.text
    table = world.table("too_large")
    assert_array_equal(table["component_index"], [2, 2])
    assert np.isfinite(table["embeddings"]).all()
    caplog.clear()
    assert world.run(net="too_large")[1] == 0
    assert "up to date" in caplog.text
    assert world.run(net="too_large", overwrite=True)[1] == 4


# for other tools


def test_the_segments_are_exported_also_when_nothing_is_new(world):
    world.add_image("second", 0, label=100)
    world.run(datasets=["source", "first"])
    world.run(datasets=["source", "second"])
    files = {name: world.folder / f"out.{name}" for name in ("coco", "csv", "parquet")}
    world.run(datasets=["source", "second"], **files)  # those of the searched datasets
    assert files["parquet"].read_bytes()[:4] == b"PAR1"
    assert '"annotations"' in files["coco"].read_text()
    lines = files["csv"].read_text().splitlines()
    assert len(lines) == 3
    assert "second" in lines[1] and "bus" in lines[1]  # whose predicted IoU is lower
    assert "second" in lines[2] and "car" in lines[2] and "sofa" in lines[2]


def test_an_export_that_fails_is_named_and_the_table_is_kept(world):
    world.run()
    Results(world.results, "whole", "first").components(3).unlink()
    file = world.folder / "out.json"
    with pytest.raises(SettingError, match=r"out.json cannot be made: .*components3.* missing"):
        world.run(load_file=world.path(), net="too_large", coco=file)
    assert len(world.table("too_large")["box"]) == 1


# settings


@pytest.mark.parametrize(
    ("wanted", "numbers"), [(["bus"], [3]), (["CAR", 2], [2, 3]), ("car", [2]), (2, [3])]
)
def test_predicted_classes_are_chosen_by_name_or_id(world, wanted, numbers):
    world.run(pred_classes=wanted)
    assert_array_equal(world.table()["component_index"], numbers)


def test_the_selection_of_the_training_dataset_holds_unless_another_is_asked_for(world):
    world.modules.pred_class_selection = {2}
    world.run()
    assert_array_equal(world.table()["component_index"], [3])
    world.run(pred_classes=["car"])
    assert_array_equal(world.table()["component_index"], [2])


@pytest.mark.parametrize("old", [{}, {1: ("boat", (0, 0, 9))}])
def test_a_learnt_class_is_known_and_searched_only_where_it_is_asked_for(world, old):
    known = {**world.modules.Blocks.pred_mapping, **old}
    classes = known | {3: ("cow", (9, 9, 0)), 4: ("tent", (9, 9, 9))}
    facts = {"base": {}, "layers": ["head"], "added": [1, 1]}
    entry = ModelConfig("learnt_it", "src.learning.growing", "Learnt", facts, None, classes)
    card = card_of(entry, CONFIG.TRAIN_DATASET, {})
    assert compute_embeddings.classes_to_search(None, entry, card) == [0, 1, 2]
    assert compute_embeddings.classes_to_search(["cow", 0], entry, card) == [0, 3]
    world.modules.pred_class_selection = {2}  # of the dataset that named the classes before
    wanted = [0, 1, 2] if old else [2]
    assert compute_embeddings.classes_to_search(None, entry, card) == wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pred_classes": ["cow"]}, r"'cow'.* Classes: 0 'road', 1 'car', 2 'bus'"),
        ({"pred_classes": [7]}, "got 7"),
        ({"pred_classes": []}, "got none"),
        ({"datasets": ["source", "frist"]}, "Did you mean 'first'"),
        ({"net": "segmentation", "crop_size": [9, 9]}, "go with networks that see crops"),
        ({"crop_size": [9]}, r"`args.crop_size` must be \[height, width\]"),
        ({"net": "mean_color"}, "Did you mean 'mean_colour'"),
        ({"net": "timm/"}, "timm/<name> and hf/<name or folder> need no entry"),
        ({"net": "no_network"}, "'no_network' must be a torch.nn.Module"),
        ({"net_weights": "missing.pth"}, "weights of 'mean_colour' are missing"),
        ({"datasets": [[1], 2]}, r"there is no dataset '\[1\]'"),
        ({"coco": Path(__file__).parent}, "`args.coco` .* is a folder"),
    ],
)
def test_a_setting_that_cannot_work_is_named_before_an_image_is_searched(
    world, settings, message, caplog
):
    with pytest.raises(SettingError, match=message):
        world.run(**settings)
    assert "predicted class" not in caplog.text  # which heads the table of what was found
    assert not (world.results / "embeddings").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": [9]}, r"`args.crop_size` must be \[height, width\], .*, got \[9\]"),
        ({"num_cores": 0}, "`args.num_cores` must be a whole number >= 1, got 0"),
        ({"iou_threshold": 0}, "`args.iou_threshold` must be a number above 0, or None .*, got 0"),
        ({"iou_threshold": float("nan")}, "`args.iou_threshold` must be .*, got nan"),
        ({"iou_threshold": "low"}, "`args.iou_threshold` must be .*, got 'low'"),
        ({"datasets": []}, r"`args.datasets` must be a name or a list of names.*got \[\]"),
        ({"load_file": 5}, "`args.load_file` must be the path of a file or folder, .*, got 5"),
        ({"csv": 5}, "`args.csv` must be the path of a file or folder, .*, got 5"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_before_the_run(world, settings, message):
    with pytest.raises(SettingError, match=message):
        compute_embeddings.ex.run(config_updates={"args": {**world.settings, **settings}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"crop_size": [9]}, "args.crop_size"), ({"net_weights": __file__}, "must be a state dict")],
)
def test_that_holds_where_a_file_is_there_already(world, settings, message, caplog):
    world.run()
    caplog.clear()
    with pytest.raises(SettingError, match=message):
        world.run(**settings)
    assert "predicted class" not in caplog.text


def test_datasets_of_different_scale_need_a_size_for_both(world, monkeypatch):
    (world.folder / "larger_blocks.py").write_text(
        MODULE.replace("(4, 4), (8, 8)", "(5, 4), (9, 9)")
    )
    entry = DatasetConfig("second", "larger_blocks", "Blocks", {})
    monkeypatch.setitem(compute_embeddings.known_datasets, "second", entry)
    world.add_image("second", 0)
    datasets = ["source", "first", "second"]
    with pytest.raises(SettingError, match="args.min_height and args.min_width"):
        world.run(datasets=datasets)
    with pytest.raises(SettingError, match="args.min_crop_height and args.min_crop_width"):
        world.run(datasets=datasets, min_height=4)
    crops = dict(min_crop_height=8, min_crop_width=8)
    assert world.run(datasets=datasets, min_height=4, **crops)[1] == 4


def test_a_meta_model_without_statistics_takes_those_of_the_source_domain(world, monkeypatch):
    path = world.folder / "bare.pth"
    sizes_alone = torch.tensor([[float(name == "S") / 100 for name in feature_names()]])
    torch.save({"weight": sizes_alone, "bias": torch.zeros(1)}, path)
    entry = ModelConfig("net", "torch.nn", "Linear", {"out_features": 1}, path)
    monkeypatch.setitem(compute_embeddings.meta_models, "net", entry)
    weights = dict(meta_model="net", meta_weights=path)
    with pytest.raises(SettingError, match="source has no metrics files"):
        world.run(**weights)
    world.add_image("source", 0)
    world.run(**weights)
    sizes = np.array([695, 48, 25])
    logits = (sizes - sizes.mean()) / sizes.std() / 100
    assert_allclose(world.table()["image_predicted_iou"][0], 1 / (1 + np.exp(-logits)), rtol=1e-6)
