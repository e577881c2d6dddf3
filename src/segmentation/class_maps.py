"""From a picture to what a network takes, and from any network's output to maps of its classes."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor, from_numpy
from torch.nn.functional import interpolate, pad

from src import registry
from src.errors import ClassCountError, SettingError
from src.model.outputs import kind_by
from src.model.predictions import Predictions, read

KINDS = "logits", "probabilities", "scores"  # see `Computing.outputs`
KEYS = "out", "logits", "pred", "sem_seg"  # of a mapping, the first that has a 4-D tensor

_log = logging.getLogger(__name__)
_kinds = WeakKeyDictionary()  # of the outputs of a network, once they are known
_said = WeakKeyDictionary()  # of a network, what need not be said again


@dataclass(frozen=True, eq=False)
class RawOutput:
    """What a network gave for a picture elsewhere; taken in the place of a network's input."""

    tensor: Tensor  # (C, h, w), floating: logits, probabilities or class scores
    size: tuple[int, int]  # (height, width) of the picture in pixels


def stored_outputs(model):
    """The Predictions of an entry, where it names some in the place of a network; else None."""
    is_stored = registry.find_class(model) is Predictions
    return registry.build(model) if is_stored else None


def read_output(predictions, picture, size, classes):
    """The RawOutput of a picture of `size` that lies in `predictions`, a Predictions.

    Raises
    ------
    FileNotFoundError, ValueError
        It has none; see `predictions.read`.
    """
    values = read(predictions.path_of(picture), size, classes)
    return RawOutput(from_numpy(values), tuple(size))


def fit_input(images, size, multiple_of):
    """Images as a network takes them; see `size` and `multiple_of` of `Computing`.

    Parameters
    ----------
    images : Tensor of shape (N, 3, H, W)

    Returns
    -------
    inputs : Tensor of shape (N, 3, h, w)
        The images are in its upper left corner; what is right of and below them repeats their edge.
    inside : (int, int)
        Height and width of the images in the inputs, in pixels.
    """
    inside = _size_inside(tuple(images.shape[2:]), size)
    if inside != images.shape[2:]:
        images = interpolate(images, inside, mode="bilinear", antialias=True)
    below, right = (-length % multiple_of for length in inside)
    if below or right:
        images = pad(images, (0, right, 0, below), mode="replicate")
    return images, inside


def _size_inside(whole, size):
    """Height and width that images of `whole` get: those given, or by their edges."""
    if size is None:
        return whole
    if not isinstance(size, Mapping):
        return tuple(size)
    factor = size["shortest_edge"] / min(whole)
    if size.get("longest_edge") is not None:
        factor = min(factor, size["longest_edge"] / max(whole))
    return tuple(max(1, round(factor * length)) for length in whole)


def class_maps(network, images, computing):
    """What a network gives for images, resized to them.

    Parameters
    ----------
    network : torch.nn.Module
    images : Tensor of shape (N, 3, H, W), float32
    computing : Computing
        Its `size`, `multiple_of` and `classes` are heeded.

    Returns
    -------
    maps : Tensor of shape (N, C, H, W), floating

    Raises
    ------
    SettingError
        See `find_maps`.
    """
    inputs, inside = fit_input(images, computing.size, computing.multiple_of)
    maps = find_maps(network, network(inputs), computing.classes)
    whole = tuple(inputs.shape[2:])
    _say_resized(network, maps, whole)
    if inside != whole:
        maps = resize(maps, whole)[..., : inside[0], : inside[1]]
    return resize(maps, tuple(images.shape[2:]))


def raw_maps(network, output, size, computing):
    """As `class_maps`, of an output (1, C, h, w) that is there already, for a picture of `size`."""
    maps = find_maps(network, output, computing.classes)
    _say_resized(network, maps, size)
    return resize(maps, size)


def resize(maps, size):
    """Maps (N, C, h, w) resized to (height, width), bilinearly, in float32; or as they are."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return interpolate(maps.float(), tuple(size), mode="bilinear", align_corners=False)


def find_maps(network, output, classes=None):
    """The maps (N, C, h, w) of all classes in the output of a network.

    Parameters
    ----------
    network : torch.nn.Module
        Is named where its output is refused.
    output : Tensor, object with `logits`, mapping, tuple or list
        Of a mapping counts the first of `KEYS` that is a 4-D tensor, or the only 4-D tensor; of a
        tuple or list the first 4-D tensor.
    classes : int, optional
        How many there must be.

    Raises
    ------
    SettingError
        There is no 4-D tensor; it has one channel, whole numbers, or another number of classes.
    """
    name = name_of(network)
    maps = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if maps is None and isinstance(output, Mapping):
        found = {key: value for key, value in output.items() if _is_4d(value)}
        known = [found[key] for key in KEYS if key in found]
        maps = known[0] if known else found.popitem()[1] if len(found) == 1 else None
    elif maps is None and isinstance(output, tuple | list):
        maps = next(filter(_is_4d, output), None)
    if isinstance(maps, Tensor) and not maps.is_floating_point():
        raise SettingError(
            f"{name} gave whole numbers ({_described(maps)}): the ids of the most probable class "
            "are not enough, it must give logits or probabilities of every class"
        )
    if not _is_4d(maps):
        raise SettingError(
            f"{name} gave {_described(output)}: a segmentation network must give one value a class "
            "and pixel, (N, C, h, w), as a tensor, under `.logits`, in a mapping (under "
            f"{', '.join(KEYS)}, or alone), or as the first 4-D tensor of a tuple or list"
        )
    count = maps.shape[1]
    if count < 2:
        raise SettingError(
            f"{name} gave one channel ({_described(maps)}): it must give a value for each of two "
            "or more classes; where p is the probability of one class, 1 - p and p are two"
        )
    if classes not in (None, count):
        raise ClassCountError(
            f"{name} gave {count} classes ({_described(maps)}), and {classes} are named: name as "
            "many as it has, or choose the network that belongs to the names",
            count,
        )
    return maps


def kind_of_maps(network, maps, declared=None, is_one_network=True):
    """What maps of classes are, as declared or by their range and sums: one of `KINDS`.

    Parameters
    ----------
    network : torch.nn.Module
        Its attribute `outputs`, where it has one, is heeded.
    maps : Tensor of shape (N, C, H, W)
    declared : str, optional
        One of `KINDS`: goes before what the network says.
    is_one_network : bool
        Whether what was found once holds for all outputs; a GPU need not be waited for again.

    Raises
    ------
    SettingError
        What is declared is none of `KINDS`.
    """
    own = getattr(network, "outputs", None)
    declared = declared or (own if isinstance(own, str) else None)  # it may be a part of a network
    if declared is not None:
        if declared not in KINDS:
            raise SettingError(
                f"`outputs` of {name_of(network)} must be one of {', '.join(KINDS)}, or None (told "
                f"by range and sums), got {declared!r}"
            )
        return declared
    if is_one_network and network in _kinds:
        return _kinds[network]
    values = maps.float()
    figures = values.amin(), values.amax(), (values.sum(1) - 1).abs().amax()
    lowest, highest, farthest = (float(figure) for figure in figures)
    kind = kind_by(lowest, highest, farthest)
    if kind is None:
        say_once(
            network, logging.WARNING, "the outputs of %s are in [0, 1] and do not sum to 1: taken "
            "for logits; for probabilities of each class by itself, as of a sigmoid, set "
            "args.outputs=scores", name_of(network),
        )  # fmt: skip
        return "logits"
    if kind == "probabilities":
        say_once(
            network, logging.WARNING, "the outputs of %s are probabilities (in [0, 1], they sum to "
            "1): taken as they are, without a softmax", name_of(network),
        )  # fmt: skip
    if not math.isnan(lowest):
        _kinds[network] = kind
    return kind


def name_of(network):
    """The name of a network's class; `torch.compile` hides it."""
    return type(getattr(network, "_orig_mod", network)).__name__


def _say_resized(network, maps, size):
    if tuple(maps.shape[2:]) != tuple(size):
        say_once(
            network, logging.INFO, "%s gives maps of %d x %d for %d x %d pixels: resized, "
            "bilinearly", name_of(network), *maps.shape[2:], *size,
        )  # fmt: skip


def say_once(network, level, message, *values):
    """Log a message about a network, unless that is done."""
    said = _said.setdefault(network, set())
    if message not in said:
        said.add(message)
        _log.log(level, message, *values)


def _is_4d(value):
    return isinstance(value, Tensor) and value.ndim == 4


def _described(output):
    """Kind and shapes of an output, in a few words."""
    if isinstance(output, Tensor):
        return f"{tuple(output.shape)} {str(output.dtype).removeprefix('torch.')}"
    if isinstance(output, Mapping):
        parts = [f"{key}: {_described(value)}" for key, value in output.items()]
        return f"a mapping of {', '.join(parts) or 'nothing'}"
    if isinstance(output, tuple | list):
        parts = ", ".join(map(_described, output))
        return f"a {type(output).__name__} of {parts or 'nothing'}"
    return f"a {type(output).__name__}"
