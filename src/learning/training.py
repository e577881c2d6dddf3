"""How a grown network learns its new classes and keeps the old ones."""

import copy
import logging
import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy, log_softmax, pad, softmax

from src.errors import SettingError
from src.evaluation.confusion import class_iou, confusion_matrix
from src.learning.growing import decoder_of, grow
from src.progress import progress
from src.records import NO_LABEL
from src.segmentation.class_maps import class_maps, name_of
from src.segmentation.inference import Computing, is_out_of_memory
from src.store import paths, reports
from src.store.learnt import write_learnt
from src.store.provenance import digest
from src.store.sealed import as_stored
from src.store.weights import read_torch, write_torch

DECAY = 0.97  # a step, of the running mean of the weights
STAYS = 0.4  # share of the old weights in those that are kept
FIRST = 10  # times the learning rate, at which the last layers learn alone in the first epoch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How a network is trained; the defaults are those of Uhlemeyer et al., arXiv 2201.01073.

    Where the paper is silent, they are those of the code published with it. Not theirs are the
    first epoch, what is kept and part of the distillation: see `train` and `losses_of`.
    """

    seed: int = 0  # the same seed, the same weights
    epochs: int = 70  # times that every picture with new classes is seen
    batch_size: int = 5  # crops a step
    learning_rate: float = 5e-5  # of Adam, at the beginning
    weight_decay: float = 1e-4
    power: float = 0.9  # of the polynomial by which the learning rate falls to 0
    distillation: float = 0.5  # share of the loss that the old network's opinion has
    # height and width in pixels of what a step sees; of networks with a `size` it is all
    crop: tuple[int, int] = (1000, 1000)
    modules: tuple[str, ...] | None = None  # names of those that learn; None: the decoder


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch."""

    number: int  # from 1
    cross_entropy: float  # mean over its steps
    distillation: float  # likewise
    iou: list[float] | None  # of each class in the pictures to validate by; NaN: it is in none
    old_count: int  # number of old classes, which come first

    def merit(self):
        """What the best epoch has most of: the mean of old and new classes' mean IoU.

        Where none is known it is the last one: what a loss is of changes with the epoch.
        """
        if self.iou is None:
            return self.number
        parts = self.iou[: self.old_count], self.iou[self.old_count :]
        known = [[value for value in part if not math.isnan(value)] for part in parts]
        return fmean(fmean(part) for part in known if part)


def teach(entry, card, added, lessons, schedule, folder, made_from, device):
    """Grow a network, train it, and keep it as learnt/<name> with its learning curves.

    Parameters
    ----------
    entry, card, added
        See `grow`.
    lessons : tuple of 3 sequences
        Those with new classes, those of the old ones, and those to validate by; see `train`.
    schedule : Schedule
    folder : path
        See `paths.learnt_folder`.
    made_from : dict
        Plain values: what is noted beside what is known here.
    device : torch.device

    Returns
    -------
    epochs : list of Epoch

    Raises
    ------
    SettingError
        See `grow` and `train`.
    """
    network, facts = grow(entry, card, added, schedule.seed)
    network.to(device)
    epochs = train(network, len(card.classes), *lessons, schedule, folder, made_from)
    names = [name for name, _ in facts["classes"].values()]
    draw_curves(epochs, names, len(card.classes), paths.learnt_curves(folder))
    told = [asdict(each) | {"iou": each.iou and reports.plain(each.iou)} for each in epochs]
    made_from = made_from | {"schedule": asdict(schedule), "epochs": told}
    write_learnt(folder, network.state_dict(), facts | {"made_from": made_from})
    paths.learnt_checkpoint(folder).unlink(missing_ok=True)
    return epochs


def train(network, old_count, lessons, replayed, validation, schedule, folder, made_from=None):
    """Train a grown network in place; at the end it is as in its best epoch.

    Each epoch sees every lesson once, and as many of those replayed, drawn anew; in the first one
    the last layers learn alone. What it is judged by and leaves is the running mean of the weights,
    mixed with the old ones, which keeps the old classes (Wortsman et al., arXiv 2109.01903). After
    each, `folder` has what a run with the same arguments goes on from, to the same weights.
    Frozen modules, and the statistics of all batch norms, stay as they are.

    Parameters
    ----------
    network : Learnt
        On the device to train on.
    old_count : int
        Number of old classes, whose ids come first.
    lessons, replayed, validation : sequence of (Tensor, Tensor)
        Image (3, H, W), float32, normalised, and labels (H, W), int64: ids of the grown network,
        255 = no label. Each is read when it is needed. Lessons that change with the epoch have a
        `set_epoch`, as samplers of torch have. `replayed` and `validation` may be empty; without
        the latter the best epoch is the last one.
    schedule : Schedule
    folder : path
    made_from : dict, optional
        Of plain values: what lessons come from. After a kill, others begin anew.

    Returns
    -------
    epochs : list of Epoch

    Raises
    ------
    SettingError
        There is no lesson, or no module of a name; the loss is not finite in the first epoch. In
        later ones that ends the training, with a warning. A step takes more memory than there is.
    WriteError
        The disk takes no checkpoint.
    """
    if not len(lessons):
        raise SettingError("there is no picture with labels of a new class: tag some objects")
    course = _Course(network, old_count, schedule)
    facts = {"schedule": asdict(schedule), "made_from": made_from, "start": course.fingerprint()}
    counts = [len(lessons), len(replayed), len(validation)]
    plan = digest(as_stored(facts | {"counts": counts}))
    checkpoint = paths.learnt_checkpoint(folder)
    epochs = course.resume(checkpoint, plan)
    a_pass = len(lessons) + min(len(lessons), len(replayed))
    steps = math.ceil(a_pass / schedule.batch_size)
    total = steps * schedule.epochs
    bar = progress(total=total, initial=steps * len(epochs), desc="learning", unit="step")
    with bar, _memory_told(schedule):
        for number in range(len(epochs) + 1, schedule.epochs + 1):
            rng, losses = np.random.default_rng([schedule.seed, number]), []
            factor = course.begin(number)
            if hasattr(lessons, "set_epoch"):
                lessons.set_epoch(number)
            for batch in course.batches(lessons, replayed, rng):
                left = 1 - ((number - 1) * steps + len(losses)) / total
                rate = schedule.learning_rate * left**schedule.power
                losses.append(course.step(*batch, factor * rate))
                bar.update()
            hard, soft = np.mean(losses, axis=0).tolist()
            if not (math.isfinite(hard + soft) and course.is_finite()):
                _say_diverged(number, epochs)
                break
            epochs.append(Epoch(number, hard, soft, course.iou(validation), old_count))
            course.keep(checkpoint, plan, epochs)
    course.take_best()
    return epochs


@contextmanager
def _memory_told(schedule):
    """Say by a SettingError what needs less memory, where there is too little."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        height, width = schedule.crop
        raise SettingError(
            f"there is too little memory to learn from {schedule.batch_size} parts of {height} x "
            f"{width} pixels a step: lower args.batch_size or args.crop_size"
        ) from error


def _say_diverged(number, epochs):
    message = f"the loss of epoch {number} is not finite"
    if not epochs:
        raise SettingError(f"{message}: choose a smaller learning rate; nothing has been changed")
    _log.warning("%s: the training ends here, and the best epoch before is kept", message)


class _Course:
    """A network in training, beside what it was: its steps, and its way to the disk and back."""

    def __init__(self, network, old_count, schedule):
        network = network.eval().to(memory_format=torch.channels_last)  # quicker on any device
        self.network, self.old_count, self.schedule = network, old_count, schedule
        self.old = copy.deepcopy(network).requires_grad_(False)
        self.classes = old_count + sum(network.added[-1:])
        self.learns = trainable(network, schedule.modules)
        self.kept = copy.deepcopy(self.old)  # see `average`
        self.means = {key: self.kept.network.get_parameter(key) for key in self.learns}
        self.last = tuple(f"{layer}." for layer in network.layers)
        self.steps = 0
        self.optimiser = torch.optim.Adam(
            self.learns.values(), schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.device = next(network.parameters()).device
        self.best = None  # merit, and what the parameters that learn were then

    def begin(self, number):
        """Begin an epoch; gives the factor on the learning rate.

        In the first one the last layers learn alone: their new weights, drawn by chance, would
        spoil what lies before them (Kumar et al., arXiv 2202.10054).
        """
        is_first = number == 1
        for key, value in self.learns.items():
            value.requires_grad_(key.startswith(self.last) or not is_first)
        return FIRST if is_first else 1

    def step(self, images, labels, learning_rate):
        """One step of the optimiser; gives cross-entropy and distillation, (2,) list of float."""
        images = images.to(self.device, memory_format=torch.channels_last)
        labels = labels.to(self.device)
        with self.autocast():
            with torch.no_grad():
                before = self.maps(self.old, images)[:, : self.old_count]
            maps = self.maps(self.network, images)
        hard, soft = losses_of(maps.float(), labels, before.float())
        share = self.schedule.distillation
        loss = (1 - share) * hard + share * soft
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.steps += 1
        self.average()
        return [hard.item(), soft.item()]

    @torch.no_grad()
    def average(self):
        """Take the weights as they are now into the running mean of what is kept."""
        share = 1 - min(DECAY, self.steps / (self.steps + 9))  # the beginning is soon forgotten
        added = self.classes - self.old_count
        for key, value in self.learns.items():
            mixed = value.lerp(self.old.network.get_parameter(key), STAYS)
            if added and key.startswith(self.last):
                mixed[-added:] = value[-added:]  # of new classes, which were nothing before
            self.means[key].lerp_(mixed, share)

    def batches(self, lessons, replayed, rng):
        """Images (N, 3, H, W) and labels (N, H, W) of the steps of an epoch."""
        size, batch_size = self.schedule.crop, self.schedule.batch_size
        if self.network.input["size"] is not None:
            size = math.inf, math.inf
        again = rng.choice(len(replayed), min(len(lessons), len(replayed)), replace=False)
        parts = [(lessons, k) for k in range(len(lessons))] + [(replayed, k) for k in again]
        order = rng.permutation(len(parts))
        for start in range(0, len(order), batch_size):
            chosen = [parts[k] for k in order[start : start + batch_size]]
            yield _stacked([_crop(*of[k], size, self.old_count, rng) for of, k in chosen])

    def maps(self, network, images):
        return class_maps(network, images, Computing(**self.network.input))

    def autocast(self):
        is_fast = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_fast)

    @torch.inference_mode()
    def iou(self, validation):
        """IoU of each class in pictures with labels, a list, NaN where it is in none; or None."""
        confusion = np.zeros((self.classes, self.classes), np.int64)
        for image, labels in (validation[k] for k in range(len(validation))):
            with self.autocast():
                maps = self.maps(self.kept, image[None].to(self.device))
            found = maps[0].argmax(0).cpu().numpy()
            confusion += confusion_matrix(found, labels.numpy(), self.classes)
        return class_iou(confusion).tolist() if confusion.any() else None

    def is_finite(self):
        """Whether all that learns is numbers: the last step of an epoch shows in no loss of it."""
        return all(value.isfinite().all() for value in self.learns.values())

    def fingerprint(self):
        """What tells the network at the start from others: a list of numbers."""
        return [value.double().sum().item() for value in self.network.parameters()]

    def keep(self, path, plan, epochs):
        """Write what `resume` goes on from, and remember the best epoch."""
        means = {key: value.clone() for key, value in self.means.items()}
        if self.best is None or epochs[-1].merit() > self.best["merit"]:
            self.best = {"merit": epochs[-1].merit(), "state": means}
        state = {key: value.detach() for key, value in self.learns.items()}
        content = {"plan": plan, "epochs": [asdict(epoch) for epoch in epochs], "best": self.best}
        content |= {"state": state, "means": means, "steps": self.steps}
        write_torch(path, content | {"optimiser": self.optimiser.state_dict()})

    def resume(self, path, plan):
        """The epochs that are done, by the checkpoint where it belongs to the same plan."""
        if not path.is_file():
            return []
        try:
            content = read_torch(path)
            if content["plan"] != plan:
                _log.info("%s is of other settings or pictures: the training begins anew", path)
                return []
            _fill(self.learns, content["state"])
            _fill(self.means, content["means"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.best, self.steps = content["best"], content["steps"]
            return [Epoch(**epoch) for epoch in content["epochs"]]
        except Exception as error:  # a damaged file raises nearly anything
            _log.warning("%s cannot be read (%s): the training begins anew", path, error)
            return []

    def take_best(self):
        """Give the network the parameters of its best epoch."""
        _fill(self.learns, self.best["state"])


@torch.no_grad()
def _fill(parameters, values):
    for key, parameter in parameters.items():
        parameter.copy_(values[key])


def trainable(network, modules=None):
    """Freeze a grown network but for some modules and its last layers.

    Parameters
    ----------
    network : Learnt
    modules : sequence of str, optional
        Names, as `named_modules` of the network that has grown gives them; None: `decoder_of`.

    Returns
    -------
    parameters : dict of str to Parameter
        Those that learn.

    Raises
    ------
    SettingError
        There is no module of a name, or it has no parameters.
    """
    network.requires_grad_(False)
    inner = network.network
    chosen = {}
    for name in [*(decoder_of(inner) if modules is None else modules), *network.layers]:
        below = {
            key: value
            for key, value in inner.named_parameters()
            if key.startswith(f"{name}.") or not name
        }
        if not below:
            there = ", ".join(child for child, _ in inner.named_children())
            raise SettingError(
                f"{name_of(inner)} has no module {name!r} with parameters that could learn; it "
                f"has {there}"
            )
        chosen |= below
    for value in chosen.values():
        value.requires_grad_(True)
    return chosen


def losses_of(logits, labels, old_logits):
    """Cross-entropy with the labels, and with what the old network says of its classes.

    As in the code published with arXiv 2201.01073: a class that is the share h of a batch has the
    weight 1 / (1 + h (1 - h)), sums are divided by the number of all pixels, and the distillation
    looks at the old classes, at every pixel. Where the label is one of them it looks at the new
    ones too, of which the old network has none: else many known things are taken for new.

    Parameters
    ----------
    logits : Tensor of shape (N, C, H, W), float32
    labels : Tensor of shape (N, H, W), int64
        255 = no label.
    old_logits : Tensor of shape (N, C', H, W), float32
        C' <= C.

    Returns
    -------
    hard, soft : Tensor of shape (), float32
    """
    classes, old_count = logits.shape[1], old_logits.shape[1]
    share = torch.bincount(labels.flatten(), minlength=NO_LABEL + 1)[:classes] / labels.numel()
    weights = 1 / (1 + share * (1 - share))
    hard = cross_entropy(logits, labels, weights, ignore_index=NO_LABEL, reduction="sum")
    among_all = log_softmax(logits, 1)[:, :old_count]
    among_old = log_softmax(logits[:, :old_count], 1)
    expected = torch.where((labels < old_count)[:, None], among_all, among_old)
    soft = -(softmax(old_logits, 1) * expected).sum(1).mean()
    return hard / labels.numel(), soft


def _stacked(crops):
    """Crops as batches of images and of labels; smaller ones are continued without labels."""
    height, width = np.max([labels.shape for _, labels in crops], axis=0).tolist()
    images = [_padded(image, height, width, 0) for image, _ in crops]
    labels = [_padded(labels, height, width, NO_LABEL) for _, labels in crops]
    return torch.stack(images), torch.stack(labels)


def _padded(values, height, width, fill):
    return pad(values, (0, width - values.shape[-1], 0, height - values.shape[-2]), value=fill)


def _crop(image, labels, size, old_count, rng):
    """A crop by chance, mirrored half of the time; where there are new classes, it shows some."""
    new = ((labels >= old_count) & (labels != NO_LABEL)).nonzero()
    shown = new[rng.integers(len(new))].tolist() if len(new) else (None, None)
    spans = zip(labels.shape, size, shown, strict=True)
    area = [_span(length, most, at, rng) for length, most, at in spans]
    image, labels = image[(slice(None), *area)], labels[tuple(area)]
    return (image.flip(-1), labels.flip(-1)) if rng.random() < 0.5 else (image, labels)


def _span(length, most, at, rng):
    """A slice of at most `most` of `length` rows or columns, one of them `at` where that is one."""
    most = min(most, length)
    first, last = 0, length - most
    if at is not None:
        first, last = max(first, at - most + 1), min(last, at)
    start = int(rng.integers(first, last + 1))
    return slice(start, start + most)


def draw_curves(epochs, names, old_count, path):
    """Draw the losses of each epoch, and beside them IoUs where they are known.

    Parameters
    ----------
    epochs : list of Epoch
    names : list of str
        Of the classes.
    old_count : int
        How many of them are old ones, of which the mean is drawn.
    path : path
        Without its suffix; PNG.
    """
    numbers = [epoch.number for epoch in epochs]
    is_validated = epochs[0].iou is not None
    figure = Figure(figsize=(9 if is_validated else 4.5, 3.2), layout="constrained")
    axes = figure.subplots(1, 1 + is_validated, squeeze=False)[0]
    for key, what in (("cross_entropy", "cross-entropy"), ("distillation", "distillation")):
        axes[0].plot(numbers, [getattr(epoch, key) for epoch in epochs], label=what)
    axes[0].set(ylabel="loss", ylim=(0, None))
    if is_validated:
        iou = np.array([epoch.iou for epoch in epochs], float)
        old = np.ma.masked_invalid(iou[:, :old_count]).mean(1)
        axes[1].plot(numbers, old, "k--", label="old classes, mean")
        for k in range(old_count, len(names)):
            axes[1].plot(numbers, iou[:, k], label=reports.label(names[k]))
        best = max(epochs, key=Epoch.merit).number
        axes[1].axvline(best, color="0.8", zorder=0)
        axes[1].set(ylabel="IoU", ylim=(0, 1))
    for each in axes:
        each.set(xlabel="epoch")
        each.spines[["top", "right"]].set_visible(False)
        each.legend(frameon=False)
    reports.save_figure(path, figure, ("png",))
