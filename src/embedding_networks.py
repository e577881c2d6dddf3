"""Networks that turn pictures of segments into feature vectors, in batches."""

import itertools
import logging
import pickle
import re
import textwrap
from collections import OrderedDict, defaultdict
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from scipy import ndimage
from torch import nn

from src import loading
from src.loading import SettingError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_log = logging.getLogger(__name__)
_HEADS = ("avgpool", "classifier", "fc", "head", "heads")  # what follows the last feature map
# what goes wrong while weights are fetched and read
_UNREADABLE = (OSError, HTTPException, RuntimeError, pickle.UnpicklingError, EOFError)
_OLD_DENSE_KEY = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")


def load_embedding_network(entry, device):
    """Build a classification network of an entry, cut before its head: pictures -> vectors.

    The vector is the mean of the last feature map over the picture: 512 values for vgg16 and
    resnet18, 2048 for the larger ResNets, 1920 for densenet201 (the map as the last norm leaves it;
    torchvision's classifier would put a ReLU behind).

    Parameters
    ----------
    entry : ModelConfig
        Names a class or function that gives a network whose children run one after another up to
        the head, such as those of `torchvision.models` with kwargs
        {"weights": "IMAGENET1K_V1"}: the weights are downloaded on first use. `model_weights`:
        None, or a file with the network's state dict to read instead.
    device : torch.device

    Returns
    -------
    network : torch.nn.Module
        In evaluation mode, on `device`; (N, 3, h, w) normalised for ImageNet -> (N, F).

    Raises
    ------
    SettingError
        If the weights can be neither downloaded nor read; says which file to put where.
    """
    network = _build(entry)
    names = [name for name, _ in network.named_children()]
    if not set(names) & set(_HEADS):
        raise SettingError(
            f"embedding network {entry.name!r} must have a child named one of {list(_HEADS)}, "
            f"before which to cut it; it has {names}"
        )
    trunk = itertools.takewhile(lambda child: child[0] not in _HEADS, network.named_children())
    layers = OrderedDict(trunk, mean=nn.AdaptiveAvgPool2d(1), vector=nn.Flatten())
    return nn.Sequential(layers).eval().to(device)


@torch.inference_mode()
def embed_crops(network, crops, device, batch_size):
    """Feature vectors of pictures; those of the same size go through the network together.

    Nothing is padded, scaled or cut.

    Parameters
    ----------
    network : torch.nn.Module
        As `load_embedding_network` gives it.
    crops : sequence of N ndarray of shape (h, w, 3), uint8, or PIL images
        RGB, of any sizes that the network takes.
    device : torch.device
        Where the network is.
    batch_size : int
        Most pictures at a time.

    Returns
    -------
    embeddings : ndarray of shape (N, F), float32
        In the order of `crops`; (0, 0) without any.
    """
    crops = [_as_array(crop) for crop in crops]
    by_size = defaultdict(list)
    for index, crop in enumerate(crops):
        by_size[crop.shape].append(index)
    mean, std = (
        torch.tensor(values, device=device)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    vectors = [None] * len(crops)
    for indices in by_size.values():
        for start in range(0, len(indices), batch_size):
            part = indices[start : start + batch_size]
            batch = torch.from_numpy(np.stack([crops[i] for i in part])).to(device)
            batch = batch.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
            for index, vector in zip(part, network(batch).float().cpu().numpy(), strict=True):
                vectors[index] = vector
    return np.array(vectors) if vectors else np.empty((0, 0), np.float32)


@torch.inference_mode()
def segment_features(network, image, components, chosen):
    """Features of the segmentation network itself, averaged over each chosen segment's pixels.

    The same as enlarging the feature map to the image, bilinearly with the corner pixels kept in
    the corners, and taking the mean over the segment, its boundary included. The enlargement is
    linear, so the mean's weights go down to the cells of the feature map instead; memory beside
    the feature map: one (h, w) map a chosen segment.

    Parameters
    ----------
    network : torch.nn.Module
        Has a method `features`: (1, 3, H, W) -> (1, F, h, w).
    image : Tensor of shape (3, H, W), float32
        Normalised as the network wants it.
    components : ndarray of shape (H, W), int32
        Segment number from 1; negative on the segment's own boundary.
    chosen : sequence of n int
        Segment numbers.

    Returns
    -------
    features : ndarray of shape (n, F), float32
        In the order of `chosen`.

    Raises
    ------
    SettingError
        If the network has no such method.
    ValueError
        If the sizes differ or a chosen segment does not exist.
    """
    if not callable(getattr(network, "features", None)):
        raise SettingError(
            f"{type(network).__name__} has no method `features(images)`, whose feature map "
            "net='segmentation' averages: add one, or choose another embedding network"
        )
    if tuple(image.shape[1:]) != components.shape:
        raise ValueError(
            f"`components` must be of the image's size {tuple(image.shape[1:])}, "
            f"got {components.shape}"
        )
    device = next(network.parameters(), image).device
    maps = network.features(image[None].to(device))[0].float()
    weights = torch.from_numpy(_cell_weights(components, chosen, maps.shape[1:])).to(device)
    return (weights.flatten(1) @ maps.flatten(1).T).cpu().numpy()


def _cell_weights(components, chosen, size):
    """Share of each cell of the feature map in the mean over each segment: (n, h, w) float32."""
    numbers = np.abs(components)
    boxes = ndimage.find_objects(numbers)
    row_shares, column_shares = map(_linear_shares, numbers.shape, size)
    weights = np.empty((len(chosen), *size), np.float32)
    for weight, k in zip(weights, chosen, strict=True):
        if not 1 <= k <= len(boxes) or boxes[k - 1] is None:
            raise ValueError(f"`chosen` must name segments of `components`, got {k}")
        rows, columns = boxes[k - 1]
        inside = (numbers[rows, columns] == k).astype(np.float32)
        weight[:] = row_shares[rows].T @ inside @ column_shares[columns] / inside.sum()
    return weights


def _linear_shares(pixels, cells):
    """Linear enlargement from `cells` to `pixels`, the ends kept: (pixels, cells) float32."""
    position = np.linspace(0, cells - 1, pixels)  # one pixel: the first cell
    distance = np.abs(position[:, None] - np.arange(cells))
    return np.maximum(0, 1 - distance).astype(np.float32)


def _as_array(crop):
    if isinstance(crop, Image.Image):
        return np.asarray(crop.convert("RGB"))
    if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3:
        raise ValueError(f"a crop must be (h, w, 3) uint8, got {crop.shape} {crop.dtype}")
    return crop


def _build(entry):
    """The whole network with its weights; published ones come through torchvision's own cache."""
    published = entry.module_name == "torchvision.models" and entry.kwargs.get("weights")
    if entry.model_weights is not None:
        network = loading.build(entry, **({"weights": None} if published else {}))
        _load_file(network, Path(entry.model_weights), entry.name)
        return network
    if not published:
        _log.warning(
            "embedding network %r has neither `model_weights` nor `weights` in its kwargs: its "
            "weights are what its class makes of them",
            entry.name,
        )
        return loading.build(entry)
    try:
        return loading.build(entry)
    except (*_UNREADABLE, KeyError) as error:
        url = _published_url(entry)
        file = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
        raise SettingError(
            f"the weights of embedding network {entry.name!r} could not be downloaded or read "
            f"({error}): fetch {url} where that is possible and put the file {file.name} into "
            f"{file.parent}"
        ) from error


def _published_url(entry):
    offered = torchvision.models.get_model_weights(entry.class_name).__members__
    choice = entry.kwargs["weights"]
    if choice not in offered:
        raise SettingError(
            f"`weights` of embedding network {entry.name!r} must be one of {[*offered]}, "
            f"got {choice!r}"
        )
    return offered[choice].url


def _load_file(network, path, name):
    if not path.is_file():
        raise SettingError(
            f"the weights of embedding network {name!r} are missing: put them at {path}, or change "
            "`model_weights` in configuration.py (None: the published ones are downloaded)"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # torchvision's published DenseNets still write norm.1 for norm1
        network.load_state_dict({_OLD_DENSE_KEY.sub(r"\1\2", k): v for k, v in state.items()})
    except (*_UNREADABLE, AttributeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise SettingError(
            f"{path} does not hold a state dict of embedding network {name!r}: {reason}"
        ) from error
