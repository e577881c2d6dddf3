"""Meta models, held to the numbers of the published network."""

import json
import logging
import shutil
from collections import namedtuple
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics.pairwise import linear_kernel
from torch.nn.functional import binary_cross_entropy_with_logits

from src import registry
from src.errors import SettingError
from src.MetaSeg import meta_models, meta_stage, meta_training, segment_tables
from src.MetaSeg.meta_models import MetaModel
from src.MetaSeg.meta_nn import MetaNN
from src.run.runner import Runner
from src.store import provenance
from src.store.paths import Results

Entry = namedtuple("Entry", "name module_name class_name kwargs model_weights")
ENTRY = Entry("meta_nn", "src.MetaSeg.meta_nn", "MetaNN", {}, None)
LINEAR = Entry("linear", "sklearn.linear_model", "LinearRegression", {}, None)
TREES = Entry("trees", "sklearn.ensemble", "HistGradientBoostingRegressor", {"max_iter": 20}, None)
REGRESSORS = {
    class_name: Entry(class_name, f"sklearn.{module}", class_name, kwargs, None)
    for module, class_name, kwargs in (
        ("dummy", "DummyRegressor", {}),
        ("ensemble", "AdaBoostRegressor", {"n_estimators": 5}),
        ("ensemble", "BaggingRegressor", {"n_estimators": 5, "max_features": 0.5}),
        ("ensemble", "ExtraTreesRegressor", {"n_estimators": 5, "ccp_alpha": 0.001}),
        ("ensemble", "GradientBoostingRegressor", {"n_estimators": 5, "max_leaf_nodes": 9}),
        ("ensemble", "HistGradientBoostingRegressor", {"max_iter": 5, "loss": "poisson"}),
        ("ensemble", "RandomForestRegressor", {"n_estimators": 5, "max_leaf_nodes": 20}),
        ("kernel_ridge", "KernelRidge", {"kernel": "rbf"}),
        ("linear_model", "ElasticNet", {"alpha": 0.01}),
        ("linear_model", "LinearRegression", {}),
        ("linear_model", "Ridge", {}),
        ("linear_model", "SGDRegressor", {}),
        ("linear_model", "TweedieRegressor", {}),
        ("neighbors", "KNeighborsRegressor", {"algorithm": "brute"}),
        ("neural_network", "MLPRegressor", {"hidden_layer_sizes": (4,), "tol": 0.1}),
        ("svm", "LinearSVR", {}),
        ("svm", "NuSVR", {}),
        ("svm", "SVR", {}),
        ("tree", "DecisionTreeRegressor", {}),
    )
}
CASES = [
    "column_Nx1", "gt_all_void", "gt_far_iou0", "layout_borders", "near_single_class", "noisy19",
    "row_1xN", "smooth19", "void_regions",
]  # fmt: skip
TRAINING = dict(epochs=8, batch_size=64, learning_rate=1e-2, seed=1)


@pytest.fixture(scope="module")
def published(reference):
    """The network that the original system was published with."""
    return meta_models.load_meta_model(reference / "meta_nn" / "meta_nn.pth")


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
    return segment_tables.segment_table([(0, toy_metrics(count, seed))])


def toy_images(count, segments=10):
    """A table of several images."""
    images = [(3 * i, toy_metrics(segments, seed=i)) for i in range(count)]
    return segment_tables.segment_table(images)


def trained(**changes):
    return meta_training.fit(
        ENTRY, toy_table(300), toy_table(100, seed=9), **{**TRAINING, **changes}
    )


# Features


def test_features_come_in_the_order_of_the_published_network(reference):
    expected = json.loads((reference / "meta_nn" / "feature_names.json").read_text())
    metrics = golden_metrics(reference, "smooth19")
    assert list(segment_tables.feature_names(metrics)) == expected
    assert list(segment_tables.feature_names(sorted(metrics, reverse=True))) == expected


def test_class_shares_are_sorted_by_number_and_all_else_as_text():
    names = ["cprob10", "cprob2", "ndist10", "ndist2", "mean_x", "S", "class", "iou", "iou0"]
    assert segment_tables.feature_names(names) == (
        "S", "mean_x", "ndist10", "ndist2", "cprob2", "cprob10",
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_published_network_predicts_what_it_always_did(reference, published, case):
    metrics = golden_metrics(reference, case)
    with np.load(reference / "meta_nn" / f"{case}.npz") as file:
        expected = dict(file)
    table = segment_tables.segment_table([(0, metrics)])
    features = published.standardise(table.features)
    assert_allclose(features, expected["features"], rtol=1e-6, atol=1e-6)
    predicted = published.predict(metrics)
    assert (predicted.dtype, predicted.shape) == (np.float32, expected["predictions"].shape)
    assert_allclose(predicted, expected["predictions"], rtol=0, atol=2e-6)


# Tables


def test_the_segments_of_all_images_are_rows_of_one_table():
    images = [(3, toy_metrics(2)), (5, toy_metrics(0)), (8, toy_metrics(3, seed=1))]
    table = segment_tables.segment_table(images)
    assert table.feature_names == ("E", "S", "cprob0", "cprob1")
    assert (table.features.shape, table.features.dtype) == ((5, 4), np.float64)
    assert_array_equal(table.features[:, 1], [*images[0][1]["S"], *images[2][1]["S"]])
    assert_array_equal(table.image_index, [3, 3, 8, 8, 8])
    assert_array_equal(table.component_index, [1, 2, 1, 2, 3])
    assert_array_equal(table.true_iou[:2], images[0][1]["iou"])


def test_one_segment_is_one_row():
    metrics = {"class": [0], "iou": [0.5], "S": [4], "cprob0": [1.0]}
    assert segment_tables.segment_table([(0, metrics)]).features.tolist() == [[4.0, 1.0]]
    model = MetaModel(MetaNN(2), ("S", "cprob0"), np.zeros(2), np.ones(2))
    assert model.predict(metrics).shape == (1,)


def test_an_image_without_segments_has_no_predictions():
    model = MetaModel(MetaNN(2), ("S", "cprob0"), np.zeros(2), np.ones(2))
    predicted = model.predict({"class": [], "iou": [], "S": [], "cprob0": []})
    assert (predicted.shape, predicted.dtype) == ((0,), np.float32)


def test_without_any_image_the_error_says_what_to_run():
    with pytest.raises(ValueError, match=r"run src/MetaSeg/main\.py first"):
        segment_tables.segment_table([])


def test_images_with_different_metrics_are_not_mixed():
    images = [(4, toy_metrics(2)), (7, toy_metrics(2, names=("S", "E", "cprob0")))]
    with pytest.raises(ValueError, match="image 7 has other metrics than image 4"):
        segment_tables.segment_table(images)


def test_metrics_of_maps_that_a_model_does_not_know_change_nothing(tmp_path):
    model = meta_training.fit(LINEAR, toy_table(50), seed=0)
    metrics = toy_metrics(20, seed=5)
    more = {**metrics, "energy": np.arange(20.0), "A_first_by_name": np.ones(20)}
    assert_array_equal(model.predict(more), model.predict(metrics))
    with pytest.raises(SettingError, match=r"unknown to the model \['cprob2'\]"):
        model.predict({**metrics, "cprob2": np.ones(20)})
    with pytest.raises(SettingError, match=r"missing here \['E'\]"):
        model.predict({name: metrics[name] for name in metrics if name != "E"})


def test_a_model_learns_from_the_maps_that_are_there():
    metrics = {**toy_metrics(50), "E": np.zeros(50), "energy": 10 * (1 - toy_metrics(50)["iou"])}
    model = meta_training.fit(LINEAR, segment_tables.segment_table([(0, metrics)]), seed=0)
    assert "energy" in model.feature_names
    assert_allclose(model.predict(metrics), metrics["iou"], atol=1e-4)


def test_segments_of_unknown_iou_are_left_out_of_training():
    table = replace(toy_table(3), true_iou=np.array([0.25, np.nan, 1.0]))
    known = segment_tables.with_known_iou(table)
    assert known.true_iou.tolist() == [0.25, 1.0]
    assert_array_equal(known.features, table.features[[0, 2]])
    assert_array_equal(known.component_index, [1, 3])
    assert known.feature_names == table.feature_names
    with pytest.raises(SettingError, match="choose a dataset with ground truth"):
        segment_tables.with_known_iou(replace(table, true_iou=np.full(3, np.nan)))


def test_other_metrics_than_those_trained_on_are_named():
    model = MetaModel(MetaNN(2), ("S", "cprob0"), np.zeros(2), np.ones(2))
    metrics = {"class": [0], "iou": [0.5], "S": [4], "cprob1": [1.0]}
    with pytest.raises(SettingError, match=r"missing here \['cprob0'\].*model \['cprob1'\]"):
        model.predict(metrics)


@pytest.mark.parametrize("count", [2, 7, 10])
def test_no_image_is_on_both_sides_of_a_split_and_every_segment_on_one(count):
    table = toy_images(count)
    for training, validation in segment_tables.split_by_image(table, 5, seed=1):
        sides = set(training.image_index), set(validation.image_index)
        assert not sides[0] & sides[1]
        assert len(sides[1]) == -(-count // 5)  # a fifth, rounded up
        rows = np.concatenate([training.features, validation.features])
        assert_array_equal(np.sort(rows[:, 0]), np.sort(table.features[:, 0]))


def test_the_same_seed_gives_the_same_splits_and_each_split_is_another():
    def drawn(seed):
        splits = segment_tables.split_by_image(toy_images(12), 3, seed)
        return [tuple(np.unique(validation.image_index)) for _, validation in splits]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 3


def test_one_image_cannot_be_split():
    with pytest.raises(SettingError, match="needs 2 images at least, got 1"):
        segment_tables.split_by_image(toy_table(30), 1, seed=0)


# Training


def test_training_brings_the_validation_loss_down_and_keeps_the_best_weights():
    losses = []
    model = trained(report=lambda epoch, training, validation: losses.append(validation))
    assert len(losses) == TRAINING["epochs"]
    validation = toy_table(100, seed=9)
    with torch.inference_mode():
        logits = model.regressor(torch.from_numpy(model.standardise(validation.features)))
        targets = torch.from_numpy(validation.true_iou.astype(np.float32))[:, None]
        assert binary_cross_entropy_with_logits(logits, targets).item() == min(losses)
    assert min(losses) < losses[0] - 0.05
    error = np.abs(model.predict_table(validation) - validation.true_iou)
    assert error.mean() < 0.1


def test_the_statistics_are_those_of_the_training_segments():
    model, training = trained(epochs=1), toy_table(300)
    assert_array_equal(model.mean, training.features.mean(axis=0))
    standard = model.standardise(training.features)
    assert_allclose(standard.mean(axis=0), 0, atol=1e-6)
    assert_allclose(standard.std(axis=0), 1, atol=1e-6)


def test_a_metric_that_never_changes_does_no_harm():
    constant = segment_tables.segment_table([(0, {**toy_metrics(50), "S": np.full(50, 7.0)})])
    model = meta_training.fit(ENTRY, constant, constant, **{**TRAINING, "epochs": 1})
    assert np.isfinite(model.predict_table(constant)).all()


def test_the_same_seed_gives_the_same_weights():
    models = (trained(epochs=2, seed=seed) for seed in (1, 1, 2))
    first, again, other = (model.regressor.state_dict() for model in models)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


def test_a_metric_that_varies_by_less_than_probabilities_are_rounded_does_not_rule():
    table = segment_tables.segment_table([(0, {**toy_metrics(50), "S": np.linspace(0, 1e-6, 50)})])
    inputs, _, _ = meta_models.standardised(table)
    assert abs(inputs[:, table.feature_names.index("S")]).max() <= 1e-6


def test_a_constant_metric_that_changes_in_other_images_does_not_rule_the_prediction():
    constant = segment_tables.segment_table([(0, {**toy_metrics(50), "S": np.full(50, 0.1)})])
    for entry in (LINEAR, TREES):
        model = meta_training.fit(entry, constant, seed=0)
        changed = {**toy_metrics(50), "S": np.full(50, 0.2)}
        assert_allclose(model.predict(changed), model.predict_table(constant), atol=1e-3)


class InterruptionError(Exception):
    """Stands for whatever ends a training."""


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path):
    def interrupt(epoch, training, validation):
        if epoch == 5:
            raise InterruptionError

    path, epochs = tmp_path / "progress", []
    with pytest.raises(InterruptionError):
        trained(progress_path=path, report=interrupt)
    assert path.is_file()
    torch.rand(7)  # others draw random numbers meanwhile
    again = trained(progress_path=path, report=lambda *told: epochs.append(told))
    whole = trained(report=lambda *told: epochs.append(told))
    assert epochs[:8] == epochs[8:]  # those before the interruption are told again
    one, other = again.regressor.state_dict(), whole.regressor.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not path.exists()


def test_training_stops_early_when_asked_to():
    losses = []
    trained(
        epochs=50, learning_rate=0.0, patience=3, report=lambda *told: losses.append(told)
    )  # the loss never gets smaller than after the first epoch
    assert len(losses) == 4


def test_without_validation_segments_a_fifth_of_the_images_takes_their_place():
    training = toy_images(10)
    ((inner, held),) = segment_tables.split_by_image(training, 1, seed=1)
    one = meta_training.fit(ENTRY, training, **TRAINING)
    other = meta_training.fit(ENTRY, inner, held, **TRAINING)
    assert_array_equal(one.predict_table(training), other.predict_table(training))


def test_the_linear_model_finds_a_linear_relation_and_stays_within_0_and_1():
    model = meta_training.fit(LINEAR, toy_table(100), seed=0)  # iou = 1 - E / 10
    metrics = {**toy_metrics(4), "E": np.array([2.5, 10, 15, -5])}
    assert_allclose(model.predict(metrics), [0.75, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize("name", REGRESSORS)
def test_any_regressor_of_scikit_learn_is_trained_stored_and_loaded(name, tmp_path):
    entry, table, unseen = REGRESSORS[name], toy_table(200), toy_table(90, seed=3)
    meta_training.check(entry)
    model = meta_training.fit(entry, table, seed=3)
    meta_models.save_meta_model(tmp_path / "any.name", model, {"datasets": ["toy"]})
    again = meta_models.load_meta_model(tmp_path / "any.name", entry)
    assert type(again.regressor) is registry.find_class(entry)
    predicted = again.predict_table(unseen)
    assert predicted.dtype == np.float32 and predicted.min() >= 0 and predicted.max() <= 1
    inputs = [model.standardise(t.features) for t in (table, unseen)]
    seed = {"random_state": 3} if "random_state" in model.regressor.get_params() else {}
    alone = registry.build(entry, **seed).fit(inputs[0], table.true_iou).predict(inputs[1])
    assert_allclose(predicted, alone.clip(0, 1), rtol=1e-6, atol=1e-7)
    assert meta_models.made_from(tmp_path / "any.name") == {"datasets": ["toy"]}


def test_a_regressor_of_ones_own_is_trusted_by_its_entry_alone(tmp_path):
    entry = Entry("own", __name__, "Half", {}, None)
    meta_training.check(entry)
    path, model = tmp_path / "own.pth", meta_training.fit(entry, toy_table(20), seed=0)
    meta_models.save_meta_model(path, model, {})
    again = meta_models.load_meta_model(path, entry)
    assert_array_equal(again.predict(toy_metrics(3)), np.full(3, 0.5, np.float32))
    for other in (None, LINEAR, ENTRY):
        with pytest.raises(SettingError, match=r"own\.pth .*it holds .*\.Half, which is refused"):
            meta_models.load_meta_model(path, other)


class Half(RegressorMixin, BaseEstimator):
    """Predicts 0.5."""

    def fit(self, inputs, targets):
        return self

    def predict(self, inputs):
        return np.full(len(inputs), 0.5)


@pytest.mark.parametrize("entry", [ENTRY, LINEAR, TREES])
def test_any_number_of_segments_is_predicted_in_the_same_way_by_every_kind(entry):
    options = {**TRAINING, "epochs": 1} if entry is ENTRY else {"seed": 1}
    model = meta_training.fit(entry, toy_table(60), toy_table(20), **options)
    every = model.predict(toy_metrics(5))
    assert (every.dtype, every.shape) == (np.float32, (5,))
    assert ((every >= 0) & (every <= 1)).all()
    one = {name: values[:1] for name, values in toy_metrics(5).items()}
    none = {name: values[:0] for name, values in toy_metrics(5).items()}
    assert_allclose(model.predict(one), every[:1], rtol=1e-6)
    assert model.predict(none).shape == (0,)


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """A trained model and the file that it is stored in."""
    model, path = trained(epochs=1), tmp_path / "new" / "folder" / "meta.pth"
    meta_models.save_meta_model(path, model, {"dataset": "streets", "epochs": 1})
    return model, path


def test_a_checkpoint_brings_the_model_back(checkpoint):
    model, path = checkpoint
    again = meta_models.load_meta_model(path, ENTRY)
    assert again.feature_names == model.feature_names
    assert_array_equal(again.mean, model.mean)
    assert_array_equal(again.std, model.std)
    metrics = toy_metrics(20, seed=5)
    assert_array_equal(again.predict(metrics), model.predict(metrics))
    assert [file.name for file in path.parent.iterdir()] == ["meta.pth"]


@pytest.mark.parametrize("under", [None, "state_dict"])
def test_a_bare_state_dict_takes_its_statistics_from_the_training_segments(under, tmp_path):
    table = toy_images(6)
    model = meta_training.fit(ENTRY, table, seed=0)
    state = model.regressor.state_dict()
    torch.save({under: state} if under else state, tmp_path / "bare.pth")
    _, mean, std = meta_models.standardised(table)  # it kept a fifth of the images for validation
    model = replace(model, mean=mean, std=std)
    again = meta_models.load_meta_model(tmp_path / "bare.pth", ENTRY, lambda: table)
    metrics = toy_metrics(20, seed=5)
    assert_array_equal(again.predict(metrics), model.predict(metrics))


def test_a_bare_state_dict_without_training_segments_says_what_it_lacks(tmp_path):
    torch.save(MetaNN(4).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(SettingError, match="bare state dict.* first of args.datasets"):
        meta_models.load_meta_model(tmp_path / "bare.pth", ENTRY)


def test_statistics_in_a_checkpoint_are_not_worked_out_again(checkpoint):
    model, path = checkpoint
    again = meta_models.load_meta_model(path, ENTRY, training=pytest.fail)
    assert_array_equal(again.mean, model.mean)


@pytest.mark.parametrize("entry", [LINEAR, TREES])
def test_a_checkpoint_knows_its_kind(entry, tmp_path):
    model = meta_training.fit(entry, toy_table(60), seed=0)
    meta_models.save_meta_model(tmp_path / "model.pth", model, {})
    again = meta_models.load_meta_model(tmp_path / "model.pth")
    metrics = toy_metrics(20, seed=5)
    assert_array_equal(again.predict(metrics), model.predict(metrics))
    assert type(again.regressor) is registry.find_class(entry)


@pytest.mark.parametrize("entry", [LINEAR, TREES])
def test_weights_of_a_network_are_no_regressor(entry, checkpoint):
    with pytest.raises(SettingError, match=rf"meta\.pth is no checkpoint .*'{entry.name}'"):
        meta_models.load_meta_model(checkpoint[1], entry)


@pytest.mark.parametrize("kind", ["linear", "gradient_boosting"])
def test_regressors_of_an_earlier_version_are_to_be_trained_again(kind, checkpoint):
    _, path = checkpoint
    torch.save({**torch.load(path), "kind": kind}, path)
    message = rf"{path} was written by an earlier version, .* train it again with train_meta_nn\.py"
    with pytest.raises(SettingError, match=message):
        meta_models.load_meta_model(path, LINEAR)
    assert meta_models.made_from(path) is None


@pytest.mark.parametrize("entry", [ENTRY, LINEAR, TREES])
def test_a_checkpoint_holds_nothing_that_could_run(entry, tmp_path):
    model = meta_training.fit(entry, toy_images(6), seed=0)
    meta_models.save_meta_model(tmp_path / "model.pth", model, {"datasets": ["toy"]})
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    assert content["feature_names"] == ["E", "S", "cprob0", "cprob1"]
    assert content["classes"] == 2
    assert content["made_from"] == {"datasets": ["toy"]}


class Shout:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "train_xa_mean": Shout(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(SettingError, match=r"evil\.pth is no checkpoint"):
        meta_models.load_meta_model(tmp_path / "evil.pth")
    assert meta_models.made_from(tmp_path / "evil.pth") is None
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_knows_what_it_was_made_from(checkpoint, tmp_path):
    _, path = checkpoint
    assert meta_models.made_from(path) == {"dataset": "streets", "epochs": 1}
    assert meta_models.made_from(tmp_path / "missing.pth") is None
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    assert meta_models.made_from(tmp_path / "broken.pth") is None


def test_a_meta_model_fits_unless_it_is_known_to_be_of_another_network(checkpoint, tmp_path):
    model, path = checkpoint
    entry = ENTRY._replace(model_weights=tmp_path / "network.pth")
    entry.model_weights.write_bytes(b"weights")
    assert meta_models.fits(path, entry)  # it does not say of which it is
    meta_models.save_meta_model(path, model, {"network": provenance.identity(entry)})
    assert meta_models.fits(path, entry)
    entry.model_weights.write_bytes(b"others")
    assert not meta_models.fits(path, entry)
    assert not meta_models.fits(path, ENTRY)
    entry.model_weights.unlink()  # the results of others
    assert meta_models.fits(path, entry)
    assert not meta_models.fits(tmp_path / "gone.pth", entry)
    assert not meta_models.fits(None, entry)


def test_a_meta_model_of_another_network_is_replaced_only_where_asked_to(checkpoint, tmp_path):
    model, path = checkpoint
    first, second = ({"class": f"nets.{name}", "kwargs": {}, "weights": None} for name in "AB")
    meta_models.save_meta_model(path, model, {"network": first})
    before, place = path.read_bytes(), Results(tmp_path, "net", "none")
    training = meta_stage.Training(ENTRY, path, second, place, place, {}, 256)
    run = Runner(logging.getLogger(__name__))
    with pytest.raises(SettingError, match=r"another network \(nets.A, .*by args.meta_weights="):
        meta_stage.train(run, training, None)
    with pytest.raises(SettingError, match="has no metrics files"):
        meta_stage.train(replace(run, overwrite=True), training, None)
    assert path.read_bytes() == before


def test_a_missing_checkpoint_says_what_to_run(tmp_path):
    with pytest.raises(SettingError, match=r"gone\.pth is missing; run train_meta_nn\.py first"):
        meta_models.load_meta_model(tmp_path / "gone.pth", ENTRY)


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
        meta_models.load_meta_model(path, entry)


def test_a_checkpoint_with_code_in_it_is_refused_without_advice_to_run_it(tmp_path):
    torch.save({"kind": "neural", "state_dict": shutil.rmtree}, tmp_path / "meta.pth")
    with pytest.raises(SettingError, match="holds more than tensors and plain values") as caught:
        meta_models.load_meta_model(tmp_path / "meta.pth", ENTRY)
    assert "weights_only" not in str(caught.value)


# What cannot be trained


def test_training_and_validation_need_the_same_metrics():
    other = segment_tables.segment_table(
        [(0, toy_metrics(50, names=("S", "E", "depth", "cprob0")))]
    )
    with pytest.raises(SettingError, match=r"one side lacks \['cprob1', 'depth'\]"):
        meta_training.fit(ENTRY, toy_table(50), other, **TRAINING)


def test_images_with_different_metrics_are_named():
    images = [(3, toy_metrics(2)), (5, toy_metrics(2, names=("S", "E", "cprob0")))]
    with pytest.raises(SettingError, match="image 5 has other metrics than image 3.*'cprob1'"):
        segment_tables.segment_table(images)


def test_a_training_that_diverges_is_an_error():
    table = toy_table(50)
    unknown = replace(table, true_iou=np.full(50, np.nan))
    with pytest.raises(SettingError, match="diverged in epoch 1"):
        meta_training.fit(ENTRY, table, unknown, **TRAINING)


@pytest.mark.parametrize(
    ("module_name", "class_name"),
    [("sklearn.linear_model", "LogisticRegression"), ("sklearn.cluster", "KMeans"),
     ("sklearn.preprocessing", "StandardScaler"), ("collections", "OrderedDict")],
)  # fmt: skip
def test_what_is_no_regressor_is_refused_by_name(module_name, class_name):
    entry = Entry("wrong", module_name, class_name, {}, None)
    message = f"meta model 'wrong' must be a torch.nn.Module or a regressor .* got {class_name} of"
    for refusal in (meta_training.check, partial(meta_training.fit, training=toy_table(9), seed=0)):
        with pytest.raises(SettingError, match=message):
            refusal(entry)


@pytest.mark.parametrize(
    ("module_name", "class_name", "kwargs", "reason"),
    [
        ("sklearn.gaussian_process", "GaussianProcessRegressor", {}, r"kernels\.RBF.* is refused"),
        ("sklearn.svm", "SVR", {"kernel": linear_kernel}, r"pairwise\.linear_kernel, which"),
        ("sklearn.neighbors", "KNeighborsRegressor", {"algorithm": "kd_tree"}, r"\.KDTree, which"),
    ],
)
def test_what_cannot_be_stored_without_code_is_refused_by_name(
    module_name, class_name, kwargs, reason
):
    entry = Entry("unsafe", module_name, class_name, kwargs, None)
    with pytest.raises(SettingError, match=f"{class_name} cannot be stored .*{reason}"):
        meta_training.check(entry)


@pytest.mark.parametrize(
    ("module_name", "class_name"),
    [("sklearn.isotonic", "IsotonicRegression"), ("sklearn.linear_model", "GammaRegressor")],
)
def test_what_learns_nothing_from_segments_is_refused_by_name(module_name, class_name):
    entry = Entry("unfit", module_name, class_name, {}, None)
    with pytest.raises(SettingError, match=f"meta model 'unfit': {class_name} does not learn"):
        meta_training.check(entry)


def test_arguments_that_a_regressor_does_not_take_are_refused_by_name():
    entry = LINEAR._replace(name="typo", kwargs={"fit_intercep": False})
    with pytest.raises(SettingError, match="'typo': LinearRegression.* does not take its `kwargs`"):
        meta_training.check(entry)


def test_a_regressor_that_asks_for_more_segments_than_a_trial_has_is_none_the_worse():
    entry = Entry("many", "sklearn.linear_model", "RANSACRegressor", {"min_samples": 900}, None)
    meta_training.check(entry)
    with pytest.raises(SettingError, match="'many': RANSACRegressor does not learn .*min_samples"):
        meta_training.fit(entry, toy_table(50), seed=0)
    assert meta_training.fit(entry, toy_table(1000), seed=0).predict(toy_metrics(3)).shape == (3,)


class Normalised(torch.nn.Sequential):
    def __init__(self, size):
        super().__init__(torch.nn.BatchNorm1d(size), torch.nn.Linear(size, 1))


def test_a_last_batch_of_one_segment_does_not_stop_the_training():
    entry = Entry("normalised", __name__, "Normalised", {}, None)
    model = meta_training.fit(entry, toy_table(65), toy_table(20, seed=9), **TRAINING)
    assert model.predict(toy_metrics(1)).shape == (1,)
