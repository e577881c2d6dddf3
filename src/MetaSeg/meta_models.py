"""Meta models: from the metrics of many segments to the IoU of each.

Rottmann et al., arXiv 1811.00648; the network and its training follow Oberdiek et al.,
arXiv 2005.06831.
"""

import copy
import io
import logging
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import trange

from src import registry
from src.errors import SettingError
from src.MetaSeg.meta_nn import MetaNN, Trees
from src.records import SegmentTable
from src.store.files import whole_file
from src.store.weights import read_torch

FORMAT = 2  # of a checkpoint
HELD_OUT = 0.2  # share of the images on the validation side of a split
_PLAIN_LOSSES = ("squared_error", "absolute_error", "quantile")  # sums of leaves are the IoU
_NO_FEATURES = {"class", "iou", "iou0"}
_log = logging.getLogger(__name__)


def feature_names(metric_names):
    """The metrics that are features, in the order of the published meta network's inputs.

    Parameters
    ----------
    metric_names : iterable of str

    Returns
    -------
    names : tuple of str
        All but `class`, `iou` and `iou0` sorted as text, then `cprob0`, `cprob1`, ... by number.
    """
    shares = [name for name in metric_names if re.fullmatch(r"cprob\d+", name)]
    others = [name for name in metric_names if name not in _NO_FEATURES and name not in shares]
    return (*sorted(others), *sorted(shares, key=lambda name: int(name.removeprefix("cprob"))))


def segment_table(metrics_of_images):
    """One table of the segments of many images.

    Parameters
    ----------
    metrics_of_images : iterable of (int, dict)
        Image index and its metrics: name -> S values. Images without segments are fine.

    Returns
    -------
    table : SegmentTable

    Raises
    ------
    ValueError
        If there is no image, or two images have different metrics.
    """
    images = list(metrics_of_images)
    if not images:
        raise ValueError("there are no segment metrics; run src/MetaSeg/main.py first")
    names = feature_names(images[0][1])
    for index, metrics in images:
        if feature_names(metrics) != names:
            differ = sorted(set(feature_names(metrics)) ^ set(names))
            raise SettingError(
                f"image {index} has other metrics than image {images[0][0]}: one of them lacks "
                f"{differ}; run src/MetaSeg/main.py for all images with the same args.heatmaps, "
                "and predictions of one network with the same args.scores"
            )
    counts = [len(metrics["class"]) for _, metrics in images]

    def column(name, dtype):
        return np.concatenate([np.asarray(metrics[name], dtype) for _, metrics in images])

    return SegmentTable(
        features=np.stack([column(name, np.float64) for name in names], axis=1),
        feature_names=names,
        image_index=np.repeat([index for index, _ in images], counts),
        component_index=np.concatenate([np.arange(1, count + 1) for count in counts]),
        predicted_class=column("class", np.int64),
        true_iou=column("iou", np.float64),
    )


def with_known_iou(table):
    """The rows of a `SegmentTable` that have a known IoU.

    Raises
    ------
    SettingError
        If there is none.
    """
    known = ~np.isnan(table.true_iou)
    if not known.any():
        raise SettingError(
            "no segment has a known IoU: choose a dataset with ground truth in classes that the "
            "network predicts"
        )
    return _take_rows(table, known)


def split_by_image(table, count, seed):
    """Random splits of a table in which no image has segments on both sides.

    Parameters
    ----------
    table : SegmentTable
    count : int
        Number of splits, each drawn anew.
    seed : int
        Same seed, same splits.

    Returns
    -------
    splits : list of (SegmentTable, SegmentTable)
        Training and validation; a fifth of the images, rounded up, are on the validation side.

    Raises
    ------
    SettingError
        If the segments are those of one image.
    """
    images = len(np.unique(table.image_index))
    if images < 2:
        raise SettingError(
            f"a split into training and validation images needs 2 images at least, got {images}"
        )
    shuffle = GroupShuffleSplit(count, test_size=HELD_OUT, random_state=seed)
    pairs = shuffle.split(table.features, groups=table.image_index)
    return [(_take_rows(table, training), _take_rows(table, held)) for training, held in pairs]


def _take_rows(table, rows):
    columns = {
        field.name: getattr(table, field.name)[rows]
        for field in fields(table)
        if field.name != "feature_names"
    }
    return replace(table, **columns)


@dataclass(frozen=True)
class MetaModel:
    """A network with the statistics of the segments it was trained on.

    Attributes
    ----------
    network : torch.nn.Module
        Standardised features (N, F) float32 -> (N, 1): logits if `kind` is "neural", else the IoU,
        which may leave [0, 1].
    feature_names : tuple of str
        F names in the order of the network's inputs.
    mean, std : ndarray of shape (F,), float64
        Of the training segments.
    kind : {"neural", "linear", "gradient_boosting"}
    """

    network: nn.Module
    feature_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    kind: str = "neural"

    def predict(self, metrics):
        """Predict the IoU of segments.

        Parameters
        ----------
        metrics : dict of str to array-like of shape (S,)
            As stage 2 writes them; S >= 0. Those of heat maps that the model was trained without
            are not looked at.

        Returns
        -------
        predicted_iou : ndarray of shape (S,), float32
            In [0, 1].

        Raises
        ------
        SettingError
            If the metrics are not those that the model was trained on.
        """
        return self.predict_table(segment_table([(0, metrics)]))

    @torch.inference_mode()
    def predict_table(self, table):
        """Predict the IoU of the rows of a `SegmentTable`; see `predict`."""
        missing = sorted(set(self.feature_names) - set(table.feature_names))
        surplus = sorted(set(table.feature_names) - set(self.feature_names))
        if missing or any(name.startswith(("cprob", "ndist")) for name in surplus):
            raise SettingError(
                f"the meta model was trained on other metrics: missing here {missing}, unknown to "
                f"the model {surplus}; train it on this segmentation network (train_meta_nn.py)"
            )
        columns = [table.feature_names.index(name) for name in self.feature_names]
        outputs = self.network(torch.from_numpy(self.standardise(table.features[:, columns])))[:, 0]
        predicted_iou = torch.sigmoid(outputs) if self.kind == "neural" else outputs.clamp(0, 1)
        return predicted_iou.float().numpy()

    def standardise(self, features):
        """Subtract the mean, divide by the standard deviation: (N, F) float32."""
        return ((features - self.mean) / (self.std + 1e-10)).astype(np.float32)


# training


def kind_of(entry):
    """Kind of the meta model that an entry of `meta_models` names; any own class is "neural"."""
    sklearn_kinds = {
        "LinearRegression": "linear",
        "HistGradientBoostingRegressor": "gradient_boosting",
    }
    return sklearn_kinds.get(entry.class_name, "neural")


def fit(entry, training, validation=None, *, seed, **options):
    """Train the meta model of an entry.

    Parameters
    ----------
    entry : ModelConfig
    training : SegmentTable
        With known IoU, see `with_known_iou`.
    validation : SegmentTable, optional
        What a network chooses its best weights by, no other kind looks at it. None: the segments of
        a fifth of the training images, which are then not trained on.
    seed : int
        Same seed, same model.
    **options
        Of `fit_neural`; the other kinds take theirs from `entry.kwargs`.

    Returns
    -------
    model : MetaModel
    """
    kind = kind_of(entry)
    if kind == "linear":
        return fit_linear(entry, training)
    if kind == "gradient_boosting":
        return fit_gradient_boosting(entry, training, seed=seed)
    if validation is None:
        ((training, validation),) = split_by_image(training, 1, seed)
    return fit_neural(entry, training, validation, seed=seed, **options)


def fit_linear(entry, training):
    """Linear regression on standardised features; see `fit`."""
    inputs, mean, std = _standardised(training)
    regression = registry.build(entry).fit(inputs, training.true_iou)
    network = nn.Linear(inputs.shape[1], 1).requires_grad_(False)
    network.weight[0] = torch.from_numpy(regression.coef_)
    network.bias[0] = float(regression.intercept_)
    return MetaModel(network, training.feature_names, mean, std, "linear")


def fit_gradient_boosting(entry, training, *, seed):
    """Boosted regression trees on standardised features; see `fit`."""
    inputs, mean, std = _standardised(training)
    regressor = registry.build(entry, random_state=seed).fit(inputs, training.true_iou)
    return MetaModel(_as_trees(regressor), training.feature_names, mean, std, "gradient_boosting")


def _as_trees(regressor):
    """The trees of a HistGradientBoostingRegressor; scikit-learn has no public way to them."""
    if regressor.loss not in _PLAIN_LOSSES or regressor.is_categorical_ is not None:
        raise SettingError(
            f"gradient boosting needs a `loss` among {', '.join(_PLAIN_LOSSES)} and no categorical "
            f"features, got {regressor.loss!r}; change `kwargs` of its entry in configuration.py"
        )
    trees = [predictor.nodes for (predictor,) in regressor._predictors]
    roots = np.cumsum([0, *map(len, trees)])[:-1]
    nodes = np.concatenate(trees)
    itself, is_leaf = np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
    own_root = np.repeat(roots, [len(tree) for tree in trees])
    arrays = {
        "roots": roots,
        "feature": np.where(is_leaf, 0, nodes["feature_idx"]),
        "threshold": np.where(is_leaf, 0, nodes["num_threshold"]),
        "left": np.where(is_leaf, itself, own_root + nodes["left"]),
        "right": np.where(is_leaf, itself, own_root + nodes["right"]),
        "value": np.where(is_leaf, nodes["value"], 0),
        "start": np.ravel(regressor._baseline_prediction)[0],
        "depth": nodes["depth"].max(),
    }
    return Trees(**{name: torch.as_tensor(np.asarray(array)) for name, array in arrays.items()})


def fit_neural(
    entry, training, validation, *, seed, epochs=50, batch_size=256, learning_rate=1e-4,
    patience=None, report=None, progress_path=None,
):  # fmt: skip
    """Train a meta network; the weights with the smallest validation loss are kept.

    Adam with weight decay 5e-4, learning rate divided by 10 after 2/5 and 4/5 of the epochs,
    binary cross entropy between the logit and the true IoU (arXiv 2005.06831).

    Parameters
    ----------
    entry : ModelConfig
        Its class takes the number of features.
    training, validation : SegmentTable
        With known IoU, see `with_known_iou`.
    seed, epochs, batch_size : int
    learning_rate : float
        The paper's is 1e-4.
    patience : int, optional
        Stop after so many epochs without a smaller validation loss. None: never.
    report : callable, optional
        `report(epoch, training_loss, validation_loss)` after each epoch, from 1.
    progress_path : path, optional
        File to keep the state of the training in after each epoch. Where it is there already, by
        a training with the same arguments, that one is gone on with; a broken one is a warning. It
        is deleted at the end.

    Returns
    -------
    model : MetaModel
    """
    if training.feature_names != validation.feature_names:
        differ = sorted(set(training.feature_names) ^ set(validation.feature_names))
        raise SettingError(
            f"training and validation segments need the same metrics; one side lacks {differ}: run "
            "src/MetaSeg/main.py for both datasets with the same args.heatmaps, and pred_images.py "
            "with the same args.scores"
        )
    torch.manual_seed(seed)
    _, mean, std = _standardised(training)
    network = registry.build(entry, len(training.feature_names))
    model = MetaModel(network, training.feature_names, mean, std)
    inputs, targets = _tensors(model, training)
    val_inputs, val_targets = _tensors(model, validation)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=5e-4)
    steps = [max(1, epochs * 2 // 5), max(1, epochs * 4 // 5)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, steps, gamma=0.1)
    changing = {"network": network, "optimiser": optimiser, "schedule": schedule}
    losses, best = _resume(progress_path, changing)
    for epoch, both in enumerate(losses, 1):
        _tell(report, epoch, both)
    for epoch in trange(len(losses) + 1, epochs + 1, desc="training", unit="epoch", leave=False):
        if patience and losses and len(losses) - best["epoch"] >= patience:
            break
        training_loss = _train_epoch(network, optimiser, inputs, targets, batch_size)
        schedule.step()
        with torch.inference_mode():
            network.eval()
            loss = binary_cross_entropy_with_logits(network(val_inputs), val_targets).item()
        losses.append([training_loss, loss])
        if not np.isfinite(loss):
            raise SettingError(
                f"the training diverged in epoch {epoch}: the validation loss is {loss}; choose a "
                "smaller args.learning_rate"
            )
        if best is None or loss < best["loss"]:
            weights = copy.deepcopy(network.state_dict())
            best = {"epoch": epoch, "loss": loss, "weights": weights}
        _keep(progress_path, changing, losses, best)
        _tell(report, epoch, losses[-1])
    network.load_state_dict(best["weights"])
    if progress_path is not None:
        Path(progress_path).unlink(missing_ok=True)
    return model


def _standardised(table):
    """Standardised features as float32, and the statistics behind them."""
    mean, std = table.features.mean(axis=0), table.features.std(axis=0)
    std[std <= 1e-10 * np.abs(mean)] = 1  # a constant, which may change in other images
    model = MetaModel(None, table.feature_names, mean, std)
    return model.standardise(table.features), mean, std


def _tensors(model, table):
    """Standardised features (N, F) and targets (N, 1)."""
    inputs = torch.from_numpy(model.standardise(table.features))
    return inputs, torch.from_numpy(table.true_iou.astype(np.float32))[:, None]


def _train_epoch(network, optimiser, inputs, targets, batch_size):
    network.train()
    total = 0.0
    batches = torch.randperm(len(inputs)).split(batch_size)
    if len(batches) > 1 and len(batches[-1]) == 1:  # nothing to normalise a batch by
        batches = batches[:-1]
    for batch in batches:
        loss = binary_cross_entropy_with_logits(network(inputs[batch]), targets[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item() * len(batch)
    return total / len(inputs)


def _tell(report, epoch, losses):
    if report is not None:
        report(epoch, *losses)


def _keep(path, changing, losses, best):
    """Store what the rest of a training depends on."""
    if path is None:
        return
    state = {name: part.state_dict() for name, part in changing.items()}
    random = torch.get_rng_state()
    _save_whole(path, {**state, "losses": losses, "best": best, "random": random})


def _resume(path, changing):
    """Losses of the epochs that are done, and the best so far; brings back what `_keep` stored."""
    if path is None or not Path(path).is_file():
        return [], None
    beginning = copy.deepcopy({name: part.state_dict() for name, part in changing.items()})
    random = torch.get_rng_state()
    try:
        state = read_torch(path)
        changing["network"].load_state_dict(state["best"]["weights"])  # do they fit?
        for name, part in changing.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        return state["losses"], state["best"]
    except Exception as error:  # a broken file raises nearly anything
        for name, part in changing.items():
            part.load_state_dict(beginning[name])
        torch.set_rng_state(random)
        _log.warning("%s cannot be read, the training begins anew: %s", path, error)
        return [], None


# checkpoints


def save_meta_model(path, model, made_from):
    """Store a meta model whole or not at all.

    The file is a torch checkpoint of plain values and tensors, whatever the kind of the model, so
    that loading it runs no code.

    Parameters
    ----------
    path : path
    model : MetaModel
    made_from : dict
        What the model depends on, such as its training data: plain values.
    """
    classes = sum(re.fullmatch(r"cprob\d+", name) is not None for name in model.feature_names)
    checkpoint = {
        "format": FORMAT,
        "kind": model.kind,
        "state_dict": model.network.state_dict(),
        "feature_names": list(model.feature_names),
        "classes": classes,
        "mean": torch.from_numpy(model.mean),
        "std": torch.from_numpy(model.std),
        "made_from": made_from,
    }
    _save_whole(path, checkpoint)


def _save_whole(path, content):
    buffer = io.BytesIO()  # what torch raises of a full disk does not say so
    torch.save(content, buffer)
    with whole_file(path) as part:
        part.write_bytes(buffer.getbuffer())


def load_meta_model(path, entry=None, training=None):
    """Load what `save_meta_model` wrote, the original's `meta_nn.pth`, or a bare state dict.

    Parameters
    ----------
    path : path
    entry : ModelConfig, optional
        Its class takes the number of features; None: `MetaNN`. Only a network needs it: a file that
        named its own class could have any code run.
    training : callable, optional
        Gives the SegmentTable of the training images. Called only for a bare state dict, which
        does not say by which mean and standard deviation its inputs are standardised.

    Returns
    -------
    model : MetaModel

    Raises
    ------
    SettingError
        If the file is missing or is no such checkpoint, or if it needs `training`.
    """
    try:
        checkpoint = _read(path)
        if "kind" not in checkpoint:
            checkpoint = _with_statistics(checkpoint, path, entry, training)
        names = tuple(checkpoint["feature_names"])
        network = _rebuild(checkpoint["kind"], checkpoint["state_dict"], len(names), entry)
        mean, std = checkpoint["mean"].numpy(), checkpoint["std"].numpy()
        return MetaModel(network.eval(), names, mean, std, checkpoint["kind"])
    except FileNotFoundError as error:
        raise SettingError(f"{path} is missing; run train_meta_nn.py first") from error
    except SettingError:
        raise
    except Exception as error:  # a broken checkpoint raises nearly anything
        name = entry.name if entry else "MetaNN"
        raise SettingError(
            f"{path} is no checkpoint of meta model {name!r} ({error}); "
            "train it again with train_meta_nn.py"
        ) from error


def _with_statistics(checkpoint, path, entry, training):
    """Our form of a bare state dict, which stands by itself or under the key "state_dict"."""
    state = checkpoint.get("state_dict", checkpoint)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it holds no state dict")
    if training is None:
        raise SettingError(
            f"{path} is a bare state dict, without the mean and standard deviation of the segments "
            "it was trained on: only compute_embeddings.py can use it, which works them out of the "
            "first of args.datasets; train_meta_nn.py writes checkpoints that have them"
        )
    table = training()
    _, mean, std = _standardised(table)
    return {
        "kind": kind_of(entry) if entry else "neural",
        "state_dict": state,
        "feature_names": table.feature_names,
        "mean": torch.from_numpy(mean),
        "std": torch.from_numpy(std),
    }


def _rebuild(kind, state, size, entry):
    """The network of a checkpoint."""
    if kind == "gradient_boosting":
        return Trees(**state)
    if kind == "linear":
        network = nn.Linear(size, 1)
    elif kind == "neural":
        network = registry.build(entry, size) if entry else MetaNN(size)
    else:
        raise ValueError(f"its kind is {kind!r}")
    network.load_state_dict(state)
    return network


def _read(path):
    """A checkpoint as `save_meta_model` writes it; nothing in the file is run."""
    checkpoint = read_torch(path)
    return _from_original(checkpoint) if "train_xa_mean" in checkpoint else checkpoint


def _from_original(checkpoint):
    """Our form of the original's checkpoint, which has two groups of features and no names."""
    mean, std = (
        torch.from_numpy(
            np.concatenate([checkpoint[f"train_xa_{name}"], checkpoint[f"train_classes_{name}"]])
        )
        for name in ("mean", "std")
    )
    return {
        "kind": "neural",
        "state_dict": checkpoint["state_dict"],
        "feature_names": original_names(len(checkpoint["train_classes_mean"])),
        "mean": mean,
        "std": std,
        "made_from": None,
    }


def original_names(classes):
    """Features of the original in order: the metrics of stage 2 without further heat maps.

    Parameters
    ----------
    classes : int
        Number of predicted classes.
    """
    suffixes = ("", "_in", "_bd", "_rel", "_rel_in")
    suffixes += ("_var", "_var_in", "_var_bd", "_var_rel", "_var_rel_in")
    names = [name + suffix for name in "EDV" for suffix in suffixes]
    names += ["mean_x", "mean_y", "S", "S_in", "S_bd", "S_rel", "S_rel_in"]
    names += [f"{name}{c}" for name in ("ndist", "cprob") for c in range(classes)]
    return feature_names(names)


def made_from(path):
    """What a checkpoint says it was made from: a dict, or None if it is missing or broken."""
    try:
        checkpoint = _read(path)
        return checkpoint["made_from"] if checkpoint["format"] == FORMAT else None
    except Exception:  # a broken checkpoint raises nearly anything
        return None
