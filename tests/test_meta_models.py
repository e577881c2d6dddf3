"""Meta models, held to the numbers of the published network."""

import json
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn.functional import binary_cross_entropy_with_logits

from src.loading import SettingError
from src.MetaSeg import meta_models
from src.MetaSeg.meta_models import MetaModel
from src.MetaSeg.meta_nn import MetaNN

Entry = namedtuple("Entry", "name module_name class_name kwargs model_weights")
ENTRY = Entry("meta_nn", "src.MetaSeg.meta_nn", "MetaNN", {}, None)
CASES = [
    "column_Nx1", "gt_all_void", "gt_far_iou0", "layout_borders", "near_single_class", "noisy19",
    "row_1xN", "smooth19", "void_regions",
]  # fmt: skip
TRAINING = dict(epochs=8, batch_size=64, learning_rate=1e-2, seed=1)


@pytest.fixture(scope="module")
def published(reference):
    """The published network as a `MetaModel`."""
    with np.load(reference / "meta_nn" / "meta_nn_arrays.npz") as file:
        arrays = dict(file)
    network = MetaNN(75)
    network.load_state_dict(
        {
            key.removeprefix("state_dict."): torch.from_numpy(value)
            for key, value in arrays.items()
            if key.startswith("state_dict.")
        }
    )
    mean, std = (
        np.concatenate([arrays[f"train_xa_{name}"], arrays[f"train_classes_{name}"]])
        for name in ("mean", "std")
    )
    names = tuple(json.loads((reference / "meta_nn" / "feature_names.json").read_text()))
    return MetaModel(network.eval(), names, mean, std)


def golden_metrics(reference, case):
    with np.load(reference / "metaseg" / f"{case}.npz") as file:
        return {
            name.removeprefix("metric_"): file[name]
            for name in file.files
            if name.startswith("metric_")
        }


def toy_metrics(count, seed=0, names=("S", "E", "cprob0", "cprob1")):
    """Segments whose IoU follows from one metric."""
    rng = np.random.default_rng(seed)
    metrics = {name: rng.uniform(0, 10, count) for name in names}
    unsure = metrics.get("E", np.zeros(count))
    return {**metrics, "class": rng.integers(0, 2, count), "iou": 1 - unsure / 10}


def toy_table(count, seed=0):
    return meta_models.segment_table([(0, toy_metrics(count, seed))])


def trained(**changes):
    return meta_models.fit_neural(
        ENTRY, toy_table(300), toy_table(100, seed=9), **{**TRAINING, **changes}
    )


# Features


def test_features_come_in_the_order_of_the_published_network(reference):
    expected = json.loads((reference / "meta_nn" / "feature_names.json").read_text())
    metrics = golden_metrics(reference, "smooth19")
    assert list(meta_models.feature_names(metrics)) == expected
    assert list(meta_models.feature_names(sorted(metrics, reverse=True))) == expected


def test_class_shares_are_sorted_by_number_and_all_else_as_text():
    names = ["cprob10", "cprob2", "ndist10", "ndist2", "mean_x", "S", "class", "iou", "iou0"]
    assert meta_models.feature_names(names) == (
        "S", "mean_x", "ndist10", "ndist2", "cprob2", "cprob10",
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_published_network_predicts_what_it_always_did(reference, published, case):
    metrics = golden_metrics(reference, case)
    with np.load(reference / "meta_nn" / f"{case}.npz") as file:
        expected = dict(file)
    table = meta_models.segment_table([(0, metrics)])
    features = published.standardise(table.features)
    assert_allclose(features, expected["features"], rtol=1e-6, atol=1e-6)
    predicted = published.predict(metrics)
    assert (predicted.dtype, predicted.shape) == (np.float32, expected["predictions"].shape)
    assert_allclose(predicted, expected["predictions"], rtol=0, atol=2e-6)


# Tables


def test_the_segments_of_all_images_are_rows_of_one_table():
    images = [(3, toy_metrics(2)), (5, toy_metrics(0)), (8, toy_metrics(3, seed=1))]
    table = meta_models.segment_table(images)
    assert table.feature_names == ("E", "S", "cprob0", "cprob1")
    assert (table.features.shape, table.features.dtype) == ((5, 4), np.float64)
    assert_array_equal(table.features[:, 1], [*images[0][1]["S"], *images[2][1]["S"]])
    assert_array_equal(table.image_index, [3, 3, 8, 8, 8])
    assert_array_equal(table.component_index, [1, 2, 1, 2, 3])
    assert_array_equal(table.iou[:2], images[0][1]["iou"])


def test_one_segment_is_one_row():
    metrics = {"class": [0], "iou": [0.5], "S": [4], "cprob0": [1.0]}
    assert meta_models.segment_table([(0, metrics)]).features.tolist() == [[4.0, 1.0]]
    model = MetaModel(MetaNN(2), ("S", "cprob0"), np.zeros(2), np.ones(2))
    assert model.predict(metrics).shape == (1,)


def test_an_image_without_segments_has_no_predictions():
    model = MetaModel(MetaNN(2), ("S", "cprob0"), np.zeros(2), np.ones(2))
    predicted = model.predict({"class": [], "iou": [], "S": [], "cprob0": []})
    assert (predicted.shape, predicted.dtype) == ((0,), np.float32)


def test_without_any_image_the_error_says_what_to_run():
    with pytest.raises(ValueError, match=r"run src/MetaSeg/main\.py first"):
        meta_models.segment_table([])


def test_images_with_different_metrics_are_not_mixed():
    images = [(4, toy_metrics(2)), (7, toy_metrics(2, names=("S", "E", "cprob0")))]
    with pytest.raises(ValueError, match="image 7 has other metrics than image 4"):
        meta_models.segment_table(images)


def test_segments_of_unknown_iou_are_left_out_of_training():
    table = replace(toy_table(3), iou=np.array([0.25, np.nan, 1.0]))
    known = meta_models.with_known_iou(table)
    assert known.iou.tolist() == [0.25, 1.0]
    assert_array_equal(known.features, table.features[[0, 2]])
    assert_array_equal(known.component_index, [1, 3])
    assert known.feature_names == table.feature_names
    with pytest.raises(SettingError, match="choose a dataset with ground truth"):
        meta_models.with_known_iou(replace(table, iou=np.full(3, np.nan)))


def test_other_metrics_than_those_trained_on_are_named():
    model = MetaModel(MetaNN(2), ("S", "cprob0"), np.zeros(2), np.ones(2))
    metrics = {"class": [0], "iou": [0.5], "S": [4], "cprob1": [1.0]}
    with pytest.raises(SettingError, match=r"missing here \['cprob0'\].*model \['cprob1'\]"):
        model.predict(metrics)


# Training


def test_training_brings_the_validation_loss_down_and_keeps_the_best_weights():
    losses = []
    model = trained(report=lambda epoch, training, validation: losses.append(validation))
    assert len(losses) == TRAINING["epochs"]
    validation = toy_table(100, seed=9)
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(model.standardise(validation.features)))
        targets = torch.from_numpy(validation.iou.astype(np.float32))[:, None]
        assert binary_cross_entropy_with_logits(logits, targets).item() == min(losses)
    assert min(losses) < losses[0] - 0.05
    error = np.abs(model.predict_table(validation) - validation.iou)
    assert error.mean() < 0.1


def test_the_statistics_are_those_of_the_training_segments():
    model, training = trained(epochs=1), toy_table(300)
    assert_array_equal(model.mean, training.features.mean(axis=0))
    standard = model.standardise(training.features)
    assert_allclose(standard.mean(axis=0), 0, atol=1e-6)
    assert_allclose(standard.std(axis=0), 1, atol=1e-6)


def test_a_metric_that_never_changes_does_no_harm():
    constant = meta_models.segment_table([(0, {**toy_metrics(50), "S": np.full(50, 7.0)})])
    model = meta_models.fit_neural(ENTRY, constant, constant, **{**TRAINING, "epochs": 1})
    assert np.isfinite(model.predict_table(constant)).all()


def test_the_same_seed_gives_the_same_weights():
    first, again, other = (trained(epochs=2, seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """A trained model and the file that it is stored in."""
    model, path = trained(epochs=1), tmp_path / "new" / "folder" / "meta.pth"
    meta_models.save_meta_model(path, model, {"dataset": "streets", "epochs": 1})
    return model, path


def test_a_checkpoint_brings_the_model_back(checkpoint):
    model, path = checkpoint
    again = meta_models.load_meta_model(ENTRY, path)
    assert again.feature_names == model.feature_names
    assert_array_equal(again.mean, model.mean)
    assert_array_equal(again.std, model.std)
    metrics = toy_metrics(20, seed=5)
    assert_array_equal(again.predict(metrics), model.predict(metrics))
    assert [file.name for file in path.parent.iterdir()] == ["meta.pth"]


def test_a_checkpoint_holds_nothing_that_could_run(checkpoint):
    content = torch.load(checkpoint[1], weights_only=True)
    assert content["feature_names"] == ["E", "S", "cprob0", "cprob1"]


def test_a_checkpoint_knows_what_it_was_made_from(checkpoint, tmp_path):
    _, path = checkpoint
    assert meta_models.made_from(path) == {"dataset": "streets", "epochs": 1}
    assert meta_models.made_from(tmp_path / "missing.pth") is None
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    assert meta_models.made_from(tmp_path / "broken.pth") is None


def test_a_missing_checkpoint_says_what_to_run(tmp_path):
    with pytest.raises(SettingError, match=r"gone\.pth is missing; run train_meta_nn\.py first"):
        meta_models.load_meta_model(ENTRY, tmp_path / "gone.pth")


@pytest.mark.parametrize("damage", ["cut short", "text", "of another kind", "of another network"])
def test_a_broken_checkpoint_is_named(checkpoint, damage):
    _, path = checkpoint
    entry = ENTRY
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "text":
        path.write_text("no checkpoint")
    elif damage == "of another kind":
        torch.save([1, 2, 3], path)
    else:
        entry = ENTRY._replace(module_name="torch.nn", class_name="LSTMCell", kwargs={
            "hidden_size": 3,
        })  # fmt: skip
    with pytest.raises(SettingError, match=r"meta\.pth is no checkpoint of meta model 'meta_nn'"):
        meta_models.load_meta_model(entry, path)
