"""Meta models: from the metrics of a segment to its predicted IoU; stored and loaded.

Rottmann et al., arXiv 1811.00648.
"""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.base import RegressorMixin
from torch import nn

from src import registry
from src.errors import SettingError, reason_of
from src.MetaSeg.meta_nn import MetaNN
from src.MetaSeg.segment_tables import original_names, segment_table
from src.store import provenance, regressors
from src.store.weights import read_torch, write_torch

FORMAT = 2  # of a checkpoint
STEP = 1 / 65535  # to which stage 1 rounds the probabilities that it stores
_EARLIER_KINDS = "linear", "gradient_boosting"  # of regressors as arrays of our own


@dataclass(frozen=True)
class MetaModel:
    """A regressor with the statistics of the segments it was trained on.

    A network makes of standardised features (N, F) float32 logits (N, 1), a regressor of
    scikit-learn by its `predict` the IoU (N,), which may leave [0, 1].
    """

    regressor: nn.Module | RegressorMixin
    feature_names: tuple[str, ...]  # F, in the order of the regressor's inputs
    mean: np.ndarray  # (F,) float64, of the training segments
    std: np.ndarray  # (F,) float64

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
        inputs = self.standardise(table.features[:, columns])
        if isinstance(self.regressor, nn.Module):
            return torch.sigmoid(self.regressor(torch.from_numpy(inputs))[:, 0]).float().numpy()
        predicted_iou = self.regressor.predict(inputs) if len(inputs) else inputs[:, 0]
        return predicted_iou.clip(0, 1).astype(np.float32)

    def standardise(self, features):
        """Subtract the mean, divide by the standard deviation: (N, F) float32."""
        return ((features - self.mean) / (self.std + 1e-10)).astype(np.float32)


def standardised(table):
    """Standardised features as float32, and the statistics behind them."""
    mean, std = table.features.mean(axis=0), table.features.std(axis=0)
    # a constant, which may change in other images; or what rounding makes
    std[std <= np.maximum(1e-10 * np.abs(mean), STEP)] = 1
    model = MetaModel(None, table.feature_names, mean, std)
    return model.standardise(table.features), mean, std


def is_regressor(entry):
    """Whether an entry of `meta_models` names a regressor of scikit-learn; else it is a network.

    Raises
    ------
    SettingError
        If its class is neither. A function is taken for one that builds a network.
    """
    found = registry.find_class(entry)
    if not inspect.isclass(found) or issubclass(found, nn.Module):
        return False
    if issubclass(found, RegressorMixin):
        return True
    raise SettingError(
        f"meta model {entry.name!r} must be a torch.nn.Module or a regressor of scikit-learn, such "
        f"as RandomForestRegressor, got {found.__name__} of {found.__module__}; change its entry "
        "in configuration.py"
    )


def save_meta_model(path, model, made_from):
    """Store a meta model whole or not at all.

    The file is a torch checkpoint of plain values and tensors, whatever the regressor, so that
    loading it runs no code; one of scikit-learn is a tensor of the bytes of `regressors.dump`,
    which refuses by a SettingError what cannot be stored. `made_from` is a dict of plain values:
    what the model depends on, such as its training data.
    """
    classes = sum(re.fullmatch(r"cprob\d+", name) is not None for name in model.feature_names)
    checkpoint = {
        "format": FORMAT,
        **_stored(model.regressor, len(model.feature_names)),
        "feature_names": list(model.feature_names),
        "classes": classes,
        "mean": torch.from_numpy(model.mean),
        "std": torch.from_numpy(model.std),
        "made_from": made_from,
    }
    write_torch(path, checkpoint)


def _stored(regressor, size):
    if isinstance(regressor, nn.Module):
        return {"kind": "neural", "state_dict": regressor.state_dict()}
    content = bytearray(regressors.dump(regressor, size))
    return {"kind": "regressor", "regressor": torch.frombuffer(content, dtype=torch.uint8)}


def load_meta_model(path, entry=None, training=None):
    """Load what `save_meta_model` wrote, the original's `meta_nn.pth`, or a bare state dict.

    Gives the MetaModel.

    Parameters
    ----------
    entry : ModelConfig, optional
        What the file holds if that is a network, or a regressor of the user's own; None: `MetaNN`.
        A file that named its own class could have any code run.
    training : callable, optional
        Gives the SegmentTable of the training images. Called only for a bare state dict, which
        does not say by which mean and standard deviation its inputs are standardised.

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
        mean, std = checkpoint["mean"].numpy(), checkpoint["std"].numpy()
        return MetaModel(_rebuild(checkpoint, len(names), entry), names, mean, std)
    except FileNotFoundError as error:
        raise SettingError(f"{path} is missing; run train_meta_nn.py first") from error
    except SettingError:
        raise
    except Exception as error:  # a broken checkpoint raises nearly anything
        name = entry.name if entry else "MetaNN"
        raise SettingError(
            f"{path} is no checkpoint of meta model {name!r} ({reason_of(error)}); "
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
    _, mean, std = standardised(table)
    return {
        "kind": "neural",
        "state_dict": state,
        "feature_names": table.feature_names,
        "mean": torch.from_numpy(mean),
        "std": torch.from_numpy(std),
    }


def _rebuild(checkpoint, size, entry):
    """The regressor of a checkpoint."""
    of_sklearn = entry is not None and is_regressor(entry)
    if checkpoint["kind"] == "regressor":
        own = registry.find_class(entry) if of_sklearn else None
        return regressors.load(checkpoint["regressor"].numpy().tobytes(), size, own)
    if checkpoint["kind"] != "neural" or of_sklearn:
        raise ValueError(f"its kind is {checkpoint['kind']!r}")
    network = registry.build(entry, size) if entry else MetaNN(size)
    network.load_state_dict(checkpoint["state_dict"])
    return network.eval()


def _read(path):
    """A checkpoint as `save_meta_model` writes it; nothing in the file is run."""
    checkpoint = read_torch(path)
    if "train_xa_mean" in checkpoint:
        return _from_original(checkpoint)
    if "kind" in checkpoint and checkpoint["kind"] in _EARLIER_KINDS:
        raise SettingError(
            f"{path} was written by an earlier version, in a form that is not read any more; train "
            "it again with train_meta_nn.py"
        )
    return checkpoint


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


def fits(path, model):
    """Whether a meta model's file is there, and not of another segmentation network.

    That it is of another network, the entry `model`, must be known: the file says of which it is,
    and the network's own weights are at hand.
    """
    if path is None or not Path(path).is_file():
        return False
    network = (made_from(path) or {}).get("network")
    return network is None or provenance.identity_if_there(model) in (None, network)


def made_from(path):
    """What a checkpoint says it was made from: a dict, or None if it is missing or broken."""
    try:
        checkpoint = _read(path)
        return checkpoint["made_from"] if checkpoint["format"] == FORMAT else None
    except Exception:  # a broken checkpoint raises nearly anything
        return None
