"""Features of a segmentation network: those that it offers, or what its last layer is given."""

import logging
from contextlib import ExitStack, contextmanager
from math import isqrt

from torch import nn

from src.errors import SettingError
from src.segmentation.class_maps import RawOutput, find_maps, name_of, resize, say_once

AGREEMENT = 0.5  # share of places where the last layer has the most probable class of the output


def features_of(network, images, classes=None):
    """Feature maps of images, to tell objects apart by.

    What the network's method `features` gives, where it has one. Else what its last layer is given:
    of the convolutions and linear layers that make one value a class, the one that agrees best with
    the output about the most probable class, and the last of several (a head that only training
    needs may run after it). Where there is none, as in an ONNX file, the class maps themselves.

    Parameters
    ----------
    network : torch.nn.Module
    images : Tensor of shape (N, 3, H, W), float32, or RawOutput
        As the network takes them. A RawOutput is its own features.
    classes : int, optional
        That the network gives; None: it is run once more, to count them.

    Returns
    -------
    features : Tensor of shape (N, F, h, w), floating

    Raises
    ------
    SettingError
        The output has no maps of classes, see `class_maps.find_maps`; the last layer works on
        tokens (N, L, F), and no grid of squares on the maps or the images has L of them.
    """
    if isinstance(images, RawOutput):
        return find_maps(network, images.tensor[None], classes)
    if callable(getattr(network, "features", None)):
        return network.features(images)
    classes = classes or find_maps(network, network(images)).shape[1]
    with _noted_calls(network, classes) as calls:
        maps = find_maps(network, network(images), classes)
    sizes = tuple(maps.shape[2:]), tuple(images.shape[2:])
    highest, features = AGREEMENT, None
    for layer, given, made in calls:
        agreement = _agreement(_as_maps(layer, made, sizes), maps)
        if agreement >= highest:
            highest, features = agreement, _as_maps(layer, given, sizes)
    if features is not None:
        return features
    tokens = [tuple(made.shape) for _, _, made in calls if made.ndim == 3]
    if tokens:
        raise SettingError(
            f"the last layer of {name_of(network)} gives {tokens[-1]} for {sizes[1]} pixels, which "
            "are no grid of squares: give the network a method `features(images)` -> (N, F, h, w), "
            "or choose another embedding network than net='segmentation'"
        )
    say_once(
        network, logging.WARNING, "%s has neither a method `features` nor a last layer to look "
        "into: its class values themselves are the features", name_of(network),
    )  # fmt: skip
    return maps


@contextmanager
def _noted_calls(network, classes):
    """While entered: a list of (layer, input, output) of those that make one value a class."""
    calls = []

    def note(layer, inputs, output):
        calls.append((layer, inputs[0], output))

    with ExitStack() as hooks:
        for module in network.modules():
            is_linear = isinstance(module, nn.Linear)
            if is_linear or isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                channels = module.out_features if is_linear else module.out_channels
                if channels == classes:
                    hooks.callback(module.register_forward_hook(note).remove)
        yield calls


def _as_maps(layer, values, sizes):
    """What a layer takes or makes as maps (N, F, h, w); None: it is none."""
    if isinstance(layer, nn.Linear):
        if values.ndim == 3:
            grid = next(filter(None, (_grid(values.shape[1], size) for size in sizes)), None)
            values = values if grid is None else values.unflatten(1, grid)
        values = values.movedim(-1, 1)
    return values if values.ndim == 4 else None


def _grid(count, size):
    """Rows and columns of so many equal squares that cover a (height, width); None: none do."""
    height, width = size
    side = isqrt(height * width // count)
    if side == 0 or height % side or width % side or height * width != count * side**2:
        return None
    return height // side, width // side


def _agreement(made, maps):
    """At which share of its places a layer's most probable class is that of the maps."""
    if made is None or len(made) != len(maps):
        return 0.0
    same = made.argmax(1) == resize(maps, tuple(made.shape[2:])).argmax(1)
    return same.float().mean().item()
