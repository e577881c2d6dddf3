"""Meta models: from the metrics of many segments to the IoU of each.

Rottmann et al., arXiv 1811.00648; the network and its training follow Oberdiek et al.,
arXiv 2005.06831.
"""

import copy
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import trange

from src import loading
from src.loading import SettingError
from src.records import SegmentTable

FORMAT = 1
_NO_FEATURES = {"class", "iou", "iou0"}


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
    shares = [name for name in metric_names if name.startswith("cprob")]
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
            raise ValueError(
                f"image {index} has other metrics than image {images[0][0]}; the files come from "
                "different networks: compute the metrics of this dataset again"
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
        iou=column("iou", np.float64),
    )


def with_known_iou(table):
    """The rows of a `SegmentTable` that have a known IoU.

    Raises
    ------
    SettingError
        If there is none.
    """
    known = ~np.isnan(table.iou)
    if not known.any():
        raise SettingError(
            "no segment has a known IoU: choose a dataset with ground truth in classes that the "
            "network predicts"
        )
    rows = {
        field.name: getattr(table, field.name)[known]
        for field in fields(table)
        if field.name != "feature_names"
    }
    return replace(table, **rows)


@dataclass(frozen=True)
class MetaModel:
    """A network with the statistics of the segments it was trained on.

    Attributes
    ----------
    network : torch.nn.Module
        Standardised features (N, F) -> logits (N, 1).
    feature_names : tuple of str
        F names in the order of the network's inputs.
    mean, std : ndarray of shape (F,), float64
        Of the training segments.
    """

    network: torch.nn.Module
    feature_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    def predict(self, metrics):
        """Predict the IoU of segments.

        Parameters
        ----------
        metrics : dict of str to array-like of shape (S,)
            As stage 2 writes them; S >= 0.

        Returns
        -------
        iou : ndarray of shape (S,), float32
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
        if table.feature_names != self.feature_names:
            missing = sorted(set(self.feature_names) - set(table.feature_names))
            surplus = sorted(set(table.feature_names) - set(self.feature_names))
            raise SettingError(
                f"the meta model was trained on other metrics: missing here {missing}, unknown to "
                f"the model {surplus}; train it on this segmentation network (train_meta_nn.py)"
            )
        inputs = torch.from_numpy(self.standardise(table.features))
        return torch.sigmoid(self.network(inputs))[:, 0].numpy()

    def standardise(self, features):
        """Subtract the mean, divide by the standard deviation: (N, F) float32."""
        return ((features - self.mean) / (self.std + 1e-10)).astype(np.float32)


def fit_neural(
    entry, training, validation, *, epochs, batch_size, learning_rate, seed, report=None
):
    """Train a meta network; the weights with the smallest validation loss are kept.

    Adam with weight decay 5e-4, learning rate divided by 10 after 2/5 and 4/5 of the epochs,
    binary cross entropy between the logit and the true IoU (arXiv 2005.06831).

    Parameters
    ----------
    entry : ModelConfig
        Its class takes the number of features.
    training, validation : SegmentTable
        With known IoU, see `with_known_iou`.
    epochs, batch_size, seed : int
    learning_rate : float
    report : callable, optional
        `report(epoch, training_loss, validation_loss)` after each epoch, from 1.

    Returns
    -------
    model : MetaModel
    """
    torch.manual_seed(seed)
    features, names = training.features, training.feature_names
    network = loading.build(entry, len(names))
    model = MetaModel(network, names, features.mean(axis=0), features.std(axis=0))
    inputs, targets = _tensors(model, training)
    val_inputs, val_targets = _tensors(model, validation)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=5e-4)
    steps = [max(1, epochs * 2 // 5), max(1, epochs * 4 // 5)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, steps, gamma=0.1)
    best_loss, best_state = np.inf, None
    for epoch in trange(1, epochs + 1, desc="training", unit="epoch"):
        training_loss = _train_epoch(network, optimiser, inputs, targets, batch_size)
        schedule.step()
        with torch.inference_mode():
            network.eval()
            loss = binary_cross_entropy_with_logits(network(val_inputs), val_targets).item()
        if report is not None:
            report(epoch, training_loss, loss)
        if best_state is None or loss < best_loss:
            best_loss, best_state = loss, copy.deepcopy(network.state_dict())
    network.load_state_dict(best_state)
    return model


KINDS = {"neural": fit_neural}  # name of a way to train -> its function


def _tensors(model, table):
    """Standardised features (N, F) and targets (N, 1)."""
    inputs = torch.from_numpy(model.standardise(table.features))
    return inputs, torch.from_numpy(table.iou.astype(np.float32))[:, None]


def _train_epoch(network, optimiser, inputs, targets, batch_size):
    network.train()
    total = 0.0
    for batch in torch.randperm(len(inputs)).split(batch_size):
        loss = binary_cross_entropy_with_logits(network(inputs[batch]), targets[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item() * len(batch)
    return total / len(inputs)


def save_meta_model(path, model, made_from):
    """Store a meta model whole or not at all.

    Parameters
    ----------
    path : path
    model : MetaModel
    made_from : dict
        What the model depends on: plain values.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "format": FORMAT,
        "state_dict": model.network.state_dict(),
        "feature_names": list(model.feature_names),
        "mean": torch.from_numpy(model.mean),
        "std": torch.from_numpy(model.std),
        "made_from": made_from,
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    torch.save(checkpoint, partial)
    partial.replace(path)


def load_meta_model(entry, path):
    """Load what `save_meta_model` wrote.

    Parameters
    ----------
    entry : ModelConfig
        Its class takes the number of features.
    path : path

    Returns
    -------
    model : MetaModel

    Raises
    ------
    SettingError
        If the file is missing or is no such checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        names = tuple(checkpoint["feature_names"])
        network = loading.build(entry, len(names))
        network.load_state_dict(checkpoint["state_dict"])
        return MetaModel(
            network.eval(), names, checkpoint["mean"].numpy(), checkpoint["std"].numpy()
        )
    except FileNotFoundError as error:
        raise SettingError(f"{path} is missing; run train_meta_nn.py first") from error
    except SettingError:
        raise
    except Exception as error:  # a broken checkpoint raises nearly anything
        raise SettingError(
            f"{path} is no checkpoint of meta model {entry.name!r} ({error}); "
            "train it again with train_meta_nn.py"
        ) from error


def made_from(path):
    """What a checkpoint says it was made from: a dict, or None if it is missing or broken."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["made_from"]
    except Exception:  # a broken checkpoint raises nearly anything
        return None
