"""From a network and its weights to class probabilities: of one image, or of a stream of them."""

import logging
import math
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np
import torch

from src import registry, scores
from src.errors import SettingError
from src.model.outputs import TOLERANCE
from src.records import Prediction
from src.segmentation.class_maps import (
    RawOutput,
    class_maps,
    kind_of_maps,
    name_of,
    raw_maps,
    resize,
    say_once,
)
from src.store.weights import load_weights

PRECISIONS = "float32", "bfloat16", "float16"
SUM_TOLERANCE = 1e-3  # of the probabilities of a pixel that are worked out here
SHRINK = 0.5**0.5  # of the picture's height and width, from one context of parts to the next
OVERLAP = 4  # neighbouring tiles share at least one such part of their height and width

_log = logging.getLogger(__name__)
_WRONG = {  # why probabilities do not sum to 1, by what the network gave
    "logits": "the network gave NaN or infinite logits; check its weights, and `mean` and `std` of "
    "its input",
    "probabilities": "the network gave something else than probabilities here; if it gives logits, "
    "args.outputs=logits says so",
    "scores": "class scores must be finite and at least 0",
}


@dataclass(frozen=True)
class Computing:
    """How a network computes, and what is kept of it.

    Parts (`tile`) overlap by a quarter or more, where their logits fade over. What lies beyond them
    they are told by the picture in 0.7 times its size, in such parts too, and so on until it fits
    into one: the logits are (1 - context) times those of the parts and `context` times those of the
    smaller picture. `torch.compile` needs a C++ compiler, on a GPU Triton, and a minute at the
    first image; images of many sizes cost more of that.

    The network sees each image, or part, resized to `size` (bilinearly, without aliasing) and then
    continued to the right and below, where it repeats its edge, up to a multiple of `multiple_of`
    pixels; what it gives is cut and resized back (bilinearly). `size` is (height, width), or
    {"shortest_edge": n, "longest_edge": m}, which keeps the shape: the shorter edge becomes n
    pixels, and where the longer one would have more than m (if given), that becomes m.

    `outputs` says what the network gives, or None, which heeds its own `outputs`, else tells the
    first two apart by range and sums: "logits"; "probabilities", taken as they are; or "scores",
    class scores >= 0 whose shares are the probabilities.
    """

    device: torch.device | None = None  # None: the first GPU of the process that predicts, or CPU
    precision: str = "float32"  # of the network, by `torch.autocast`; the softmax is float32 always
    tile: tuple[int, int] | None = None  # height and width in pixels of parts of larger images
    context: float = 0.0  # weight of the smaller picture, from 0 to below 1
    scores: tuple[str, ...] = ()  # which of `scores.of_logits` to keep with each prediction
    fitted: dict = field(default_factory=dict)  # what some of them have learnt, see `scores.fit`
    channels_last: bool = False  # in memory, which half precision on a GPU likes
    compile: bool = False
    size: tuple[int, int] | dict[str, int] | None = None  # in pixels, of the input; None: as it is
    multiple_of: int = 1  # height and width of the input in pixels, such as 32
    classes: int | None = None  # that the network must give; None: any number from 2
    outputs: str | None = None


def choose_device(gpu, log, elsewhere=False):
    """The torch.device to compute on; refuses a GPU that does not exist by a SettingError.

    Parameters
    ----------
    gpu : int or None
        Index of the GPU; None or -1: the CPU. 0, the default setting, means "a GPU if there is
        one": without any GPU it is the CPU, with one warning.
    log : logging.Logger
    elsewhere : bool
        Whether other machines compute: gives None, and each has to choose, by `gpu=0`.
    """
    if gpu is None or gpu == -1:
        return torch.device("cpu")
    if elsewhere:
        return None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu in range(count):
        return torch.device("cuda", gpu)
    if gpu == 0:
        log.warning("no GPU that torch can use here: computing on the CPU (gpu=None says so)")
        return torch.device("cpu")
    there = f"0..{count - 1}" if count else "none on this machine"
    raise SettingError(f"`gpu` must be the index of a GPU ({there}) or None (CPU), got {gpu!r}")


def load_network(entry, device):
    """Build the segmentation network of an entry, with its weights.

    Parameters
    ----------
    entry : ModelConfig
        `model_weights` is the path of the weights file: see `weights.load_weights`. None leaves the
        network untrained, with a warning. A network whose attribute `has_weights` is True comes
        filled.
    device : torch.device

    Returns
    -------
    network : torch.nn.Module
        In evaluation mode, on `device`; its output for a batch (N, 3, H, W) has a 4-D tensor, see
        `class_maps.find_maps`.

    Raises
    ------
    SettingError
        If the class cannot be found or the weights do not exist or do not fit.
    """
    network = registry.build(entry)
    if getattr(network, "has_weights", False):
        return network.eval().to(device)
    if entry.model_weights is None:
        _log.warning("model %r has no `model_weights`: the network is untrained", entry.name)
    else:
        load_weights(network, entry.model_weights, entry.name)
    return network.eval().to(device)


def check_precision(device, precision):
    """Refuse, by a SettingError, a precision that a device does not have; None: not known yet."""
    if precision == "float16" and device is not None and device.type != "cuda":
        raise SettingError("`args.precision` float16 needs a GPU; bfloat16 also works without")


def speed_up(network, computing):
    """A network arranged as `computing` says; its output stays the same but for rounding."""
    if computing.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return torch.compile(network) if computing.compile else network


def to_input(mean, std):
    """The transform that turns a picture into the input of a network.

    Parameters
    ----------
    mean, std : sequence of 3 float
        Of the red, green and blue channel in 0..1, as the network was trained with.

    Returns
    -------
    transform : callable
        `transform(image, target)`: a PIL image and an id map (PIL or array of shape (H, W)) or
        None; gives a float32 tensor (3, H, W) and an int64 tensor (H, W) or None. It can be sent
        to other processes.
    """
    return partial(_to_tensors, mean=tuple(mean), std=tuple(std))


def predict(network, image, computing=None):
    """Class probabilities of one image, computed on the device where the network is.

    Parameters
    ----------
    network : torch.nn.Module
        As `load_network` gives it.
    image : Tensor of shape (3, H, W), float32, or RawOutput
        Normalised as the network wants it; any H and W from 1. A RawOutput is what a network gave:
        this one is not run.
    computing : Computing, optional

    Returns
    -------
    probabilities : ndarray of shape (H, W, C), float32
        Softmax of the logits, or what `Computing.outputs` says; sums to 1 over the classes.

    Raises
    ------
    ValueError
        If they do not sum to 1 somewhere, as where logits are NaN or +infinite.
    MemoryError
        If the device has not enough memory; the message names the settings that need less.
    SettingError
        If the output has no such maps (see `class_maps.find_maps`), or only probabilities where
        `scores` need more; if the network was to be compiled by `speed_up`, and cannot be.
    """
    return _begin(network, image, computing or Computing())()[0]


def is_out_of_memory(error):
    """Whether an error of torch says that a device has not enough memory."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def predict_images(network, loaded, computing=None):
    """Predict one image after the other; a GPU is given the next one before it has finished.

    Parameters
    ----------
    network, computing
        As for `predict`.
    loaded : iterable of (int, tuple or Exception)
        Index and item of a dataset, image as float32 tensor (3, H, W) or RawOutput, ground truth,
        and path; or why it could not be loaded.

    Yields
    ------
    index : int
    prediction : Prediction, or Exception
        Why the image could not be loaded or predicted.
    """
    ahead = int(device_of(network, torch.empty(0)).type == "cuda")
    begun = deque()
    begin = partial(_begin_sample, network, computing or Computing())
    for index, sample in loaded:
        begun.append((index, _attempt(begin, sample)))
        del sample
        if len(begun) > ahead:
            index, finish = begun.popleft()
            yield index, _attempt(_call, finish)
    for index, finish in begun:
        yield index, _attempt(_call, finish)


def _attempt(function, value):
    """What a function makes of a value, or the exception: the value itself, or one it raises."""
    if isinstance(value, Exception):
        return value
    try:
        return function(value)
    except Exception as error:
        return error


def _call(function):
    return function()


def _begin_sample(network, computing, sample):
    """Begin to predict a loaded item; gives a function that waits for its Prediction."""
    image, ground_truth, path = sample
    finish = _begin(network, image, computing)

    def finish_sample():
        truth = None if ground_truth is None else np.asarray(ground_truth)
        probabilities, classes, maps = finish()
        return Prediction(probabilities, classes, truth, path, scores=maps)

    return finish_sample


def _begin(network, image, computing):
    """Begin to predict an image.

    Returns
    -------
    finish : callable
        Waits, then gives the probabilities (H, W, C) float32, the most probable class (H, W), and
        the scores by name, each (H, W) float32.
    """
    is_raw = isinstance(image, RawOutput)
    size, tensor = (image.size, image.tensor) if is_raw else (tuple(image.shape[1:]), image)
    device, is_full = device_of(network, tensor), False
    try:
        kind, results = _results(network, tensor, device, computing, size if is_raw else None)
        tensors, wait = _to_memory(results)
        del results
    except RuntimeError as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(error).partition("\n")[0]
            raise SettingError(f"`args.compile` must be False here: {reason}") from error
        is_full = is_out_of_memory(error)
        if not is_full:
            raise
    if is_full:  # out of the clause: the error held on to what was computed
        raise MemoryError(_full(device, size))

    def finish():
        wait()
        tolerance = TOLERANCE if kind == "probabilities" else SUM_TOLERANCE
        if not tensors[2] < tolerance:  # NaN too
            wrong = ~(_distance(tensors[0], kind) < tolerance)
            raise ValueError(
                f"the class probabilities do not sum to 1 at {int(wrong.sum())} of {wrong.numel()} "
                f"pixels: {_WRONG[kind]}"
            )
        probabilities, classes, _, *maps = (tensor.numpy() for tensor in tensors)
        return probabilities, classes, dict(zip(computing.scores, maps, strict=True))

    return finish


@torch.inference_mode()
def logits_of(network, image, computing):
    """Logits (H, W, C) float32 of one image, or the class scores of a mask network.

    On the device where the network is; otherwise as `predict`.
    """
    is_raw = isinstance(image, RawOutput)
    size, tensor = (image.size, image.tensor) if is_raw else (None, image)
    maps, _ = _maps(network, tensor, device_of(network, tensor), computing, size)
    return maps[0].permute(1, 2, 0).float()


def _maps(network, tensor, device, computing, raw_size):
    """Maps (1, C, H, W) of the classes, and their kind, one of `class_maps.KINDS`.

    Of an image, or with the size of its picture of a raw output (C, h, w).
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # the GPU fetches it by itself
    batch, precision = tensor[None].to(device, non_blocking=True), computing.precision
    if raw_size is not None:
        maps = raw_maps(network, batch, raw_size, computing)
    else:
        with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
            maps = _tiled_maps(network, batch, computing)
    kind = kind_of_maps(network, maps, computing.outputs, is_one_network=raw_size is None)
    if kind == "probabilities" and computing.scores:
        raise SettingError(
            f"`args.scores` {', '.join(computing.scores)} need logits, and {name_of(network)} "
            "gives probabilities: leave them out, or let it give what comes before its softmax"
        )
    return maps, kind


@torch.inference_mode()
def _results(network, tensor, device, computing, raw_size):
    """The kind of the class maps, and what is made of them, a tuple of tensors; see `_maps`.

    Probabilities (H, W, C) float32, classes (H, W), how far their sums are from 1, scores.
    """
    maps, kind = _maps(network, tensor, device, computing, raw_size)
    maps = maps[0].permute(1, 2, 0).float()
    of_pixels = [scores.of_logits(name, maps, computing.fitted) for name in computing.scores]
    if kind == "logits":
        maps = maps.softmax(-1)
    elif kind == "scores":
        total = maps.sum(-1, keepdim=True)
        maps = torch.where(total == 0, 1 / maps.shape[-1], maps / total)  # none: all alike
    probabilities = maps.contiguous()
    ids = torch.uint8 if maps.shape[-1] <= 255 else torch.uint16  # 255 is "no label"
    worst = _distance(probabilities, kind).amax()
    return kind, (probabilities, probabilities.argmax(-1).to(ids), worst, *of_pixels)


def _distance(probabilities, kind):
    """How far the sum at each pixel is from 1, and the least value below 0: (H, W) float32."""
    distance = (probabilities.sum(-1) - 1).abs()
    return distance if kind == "logits" else distance - probabilities.amin(-1).clamp(max=0)


def _to_memory(tensors):
    """Begin to copy tensors from their device to the main memory.

    Returns
    -------
    copies : sequence of Tensor
    wait : callable
        The copies are filled when it returns; the device computes meanwhile.
    """
    device = tensors[0].device
    if device.type != "cuda":
        return tensors, lambda: None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    for tensor in tensors:
        tensor.record_stream(stream)  # its memory is not used again before it is copied
    return copies, stream.synchronize


def _tiled_maps(network, images, computing):
    """Maps (1, C, H, W) of a batch of one image, computed tile by tile where it is larger."""
    height, width = images.shape[2:]
    tile = computing.tile or (height, width)
    tile = min(tile[0], height), min(tile[1], width)
    if tile == (height, width):
        return class_maps(network, images, computing)
    if 2 * tile[0] <= height and 2 * tile[1] <= width:
        say_once(
            network, logging.WARNING,
            "parts of %d x %d see at most half the height and width of pictures, such as %d x %d: "
            "that cost the demo's network %s of mIoU, three quarters of them 0.002",
            *tile, height, width, "0.018" if computing.context else "0.06",
        )  # fmt: skip
    maps = _joined_maps(network, images, tile, computing)
    if not computing.context or isinstance(computing.size, tuple):  # which would distort them
        return maps
    scale = max(SHRINK, min(computing.tile[0] / height, computing.tile[1] / width))
    smaller = resize(images, (round(height * scale), round(width * scale)))
    around = resize(_tiled_maps(network, smaller, computing), (height, width))
    return torch.lerp(maps, around, computing.context)


def _joined_maps(network, images, tile, computing):
    """Maps (1, C, H, W) joined of those of tiles of a size (height, width)."""
    height, width = images.shape[2:]
    weights = torch.outer(*(_fade(length, images.device) for length in tile))
    total, maps = torch.zeros(height, width, device=images.device), None
    for top in _tile_starts(height, tile[0]):
        for left in _tile_starts(width, tile[1]):
            area = np.s_[..., top : top + tile[0], left : left + tile[1]]
            part = class_maps(network, images[area], computing)
            if maps is None:
                maps = weights.new_zeros(1, part.shape[1], height, width)
            maps[area] += weights * part
            total[area] += weights
    return maps / total


def _tile_starts(length, tile):
    """First rows, or columns, of tiles at equal distances that cover a length and overlap."""
    step = tile - tile // OVERLAP
    count = 1 + math.ceil((length - tile) / step)
    return [round(start) for start in np.linspace(0, length - tile, count)]


def _fade(length, device):
    """Weight of a tile's rows, or columns: 1, falling evenly to the ends where tiles overlap."""
    to_end = torch.arange(1, length + 1, device=device)
    reach = length // OVERLAP + 1
    return (torch.minimum(to_end, to_end.flip(0)) / reach).clamp(max=1)


def _full(device, size):
    if device.type == "cuda":
        torch.cuda.empty_cache()
    height, width = size
    return (
        f"the memory of the device ({device}) is not enough for an image of {height} x {width} "
        "pixels: args.tile=[512,1024], or smaller, cuts it into parts, and args.precision=bfloat16 "
        "needs less"
    )


def to_rgb(image, mean, std):
    """The picture (H, W, 3), uint8, of what `to_input` made of it: a tensor (3, H, W)."""
    rgb = image.numpy().transpose(1, 2, 0) * np.float32(std) + np.float32(mean)
    return np.rint(255 * rgb.clip(0, 1)).astype(np.uint8)


def device_of(network, otherwise):
    """The device of a network; that of a tensor where it has nothing that lies on one."""
    return next(chain(network.parameters(), network.buffers()), otherwise).device


def _to_tensors(image, target, mean, std):
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    pixels = pixels.div_(255).sub_(mean).div_(std)
    if target is None:
        return pixels, None
    return pixels, torch.from_numpy(np.array(target, dtype=np.int64))
