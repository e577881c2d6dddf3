"""The training of meta models.

That of the network follows Oberdiek et al., arXiv 2005.06831.
"""

import copy
import inspect
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from src import registry
from src.errors import SettingError
from src.MetaSeg.meta_models import MetaModel, is_regressor, standardised
from src.MetaSeg.segment_tables import split_by_image
from src.progress import progress
from src.store import regressors
from src.store.weights import read_torch, write_torch

_TRIAL = 200, 41  # invented segments and features, those of 2 classes
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How a network is trained."""

    seed: int  # same seed, same weights
    epochs: int = 50  # times that every segment is seen
    batch_size: int = 256  # segments a step
    learning_rate: float = 1e-4  # the paper's
    patience: int | None = None  # epochs without a smaller validation loss to stop after


def fit(entry, training, validation=None, *, seed, report=None, progress_path=None, **schedule):
    """Train the meta model of an entry; gives the MetaModel.

    Parameters
    ----------
    entry : ModelConfig
        The class of a network takes the number of features.
    training : SegmentTable
        With known IoU, see `with_known_iou`.
    validation : SegmentTable, optional
        What a network chooses its best weights by; other regressors do not look at it. None: the
        segments of a fifth of the training images, which are then not trained on.
    seed : int
        Same seed, same model.
    report : callable, optional
        `report(epoch, training_loss, validation_loss)` after each epoch of a network, from 1.
    progress_path : path, optional
        File to keep the state of the training in after each epoch. Where it is there already, by
        a training with the same arguments, that one is gone on with; a broken one is a warning. It
        is deleted at the end.
    **schedule
        Of `Schedule`; other regressors take theirs from `entry.kwargs`.
    """
    if is_regressor(entry):
        inputs, mean, std = standardised(training)
        regressor = _fit(_unfitted(entry, seed), entry, inputs, training.true_iou)
        return MetaModel(regressor, training.feature_names, mean, std)
    if validation is None:
        ((training, validation),) = split_by_image(training, 1, seed)
    report = report or (lambda *_: None)
    schedule = Schedule(seed, **schedule)
    return _fit_network(entry, training, validation, schedule, report, progress_path)


def check(entry):
    """Refuse an entry that no meta model comes of, before any segment is read.

    Raises
    ------
    SettingError
        If it is neither a network nor a regressor; or a regressor that does not learn from such
        features or cannot be stored, which a few invented segments show.
    """
    if not is_regressor(entry):
        return
    regressor = _unfitted(entry, 0)
    rows = np.random.default_rng(0).random(_TRIAL, np.float32), np.linspace(0, 1, _TRIAL[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as: it has not converged
        try:
            regressor = _fit(regressor, entry, *rows)
        except SettingError:  # its `kwargs` may ask for more segments
            regressor = _fit(_unfitted(entry._replace(kwargs={}), 0), entry, *rows)
        regressors.dump(regressor, _TRIAL[1])


def _unfitted(entry, seed):
    takes_seed = "random_state" in inspect.signature(registry.find_class(entry)).parameters
    return registry.build(entry, **({"random_state": seed} if takes_seed else {}))


def _fit(regressor, entry, inputs, true_iou):
    try:
        return regressor.fit(inputs, true_iou)
    except (TypeError, ValueError) as error:
        raise SettingError(
            f"meta model {entry.name!r}: {entry.class_name} does not learn from these segments: "
            f"{error}; change its entry in configuration.py"
        ) from error


def _fit_network(entry, training, validation, schedule, report, progress_path):
    """Train a meta network; the weights with the smallest validation loss are kept.

    Adam with weight decay 5e-4, learning rate divided by 10 after 2/5 and 4/5 of the epochs,
    binary cross entropy between the logit and the true IoU (arXiv 2005.06831).
    """
    if training.feature_names != validation.feature_names:
        differ = sorted(set(training.feature_names) ^ set(validation.feature_names))
        raise SettingError(
            f"training and validation segments need the same metrics; one side lacks {differ}: run "
            "src/MetaSeg/main.py for both datasets with the same args.heatmaps, and pred_images.py "
            "with the same args.scores"
        )
    torch.manual_seed(schedule.seed)
    _, mean, std = standardised(training)
    network = registry.build(entry, len(training.feature_names))
    model = MetaModel(network, training.feature_names, mean, std)
    inputs, targets = _tensors(model, training)
    val_inputs, val_targets = _tensors(model, validation)
    optimiser = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate, weight_decay=5e-4)
    epochs = schedule.epochs
    steps = [max(1, epochs * 2 // 5), max(1, epochs * 4 // 5)]
    decay = torch.optim.lr_scheduler.MultiStepLR(optimiser, steps, gamma=0.1)
    changing = {"network": network, "optimiser": optimiser, "schedule": decay}
    losses, best = _resume(progress_path, changing)
    for epoch, both in enumerate(losses, 1):
        report(epoch, *both)
    to_come = range(len(losses) + 1, epochs + 1)
    for epoch in progress(to_come, desc="training", unit="epoch", leave=False):
        if schedule.patience and losses and len(losses) - best["epoch"] >= schedule.patience:
            break
        training_loss = _train_epoch(network, optimiser, inputs, targets, schedule.batch_size)
        decay.step()
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
        report(epoch, *losses[-1])
    network.load_state_dict(best["weights"])
    if progress_path is not None:
        Path(progress_path).unlink(missing_ok=True)
    return model


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


def _keep(path, changing, losses, best):
    """Store what the rest of a training depends on."""
    if path is None:
        return
    state = {name: part.state_dict() for name, part in changing.items()}
    random = torch.get_rng_state()
    write_torch(path, {**state, "losses": losses, "best": best, "random": random})


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
