"""From a network and its weights to class probabilities: of one image, or of a stream of them."""

import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch

from src import registry
from src.errors import SettingError
from src.records import Prediction
from src.scores import OF_LOGITS
from src.store.weights import load_weights

PRECISIONS = "float32", "bfloat16", "float16"
SUM_TOLERANCE = 1e-3  # of the probabilities of a pixel
OVERLAP = 4  # neighbouring tiles share at least one such part of their height and width

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Computing:
    """How a network computes, and what is kept of it.

    Parts (`tile`) overlap by a quarter or more, where their logits fade over. `torch.compile` needs
    a C++ compiler, on a GPU Triton, and a minute at the first image; images of many sizes cost more
    of that.
    """

    device: torch.device | None = None  # None: the first GPU of the process that predicts, or CPU
    precision: str = "float32"  # of the network, by `torch.autocast`; the softmax is float32 always
    tile: tuple[int, int] | None = None  # height and width in pixels of parts of larger images
    scores: tuple[str, ...] = ()  # which of `scores.OF_LOGITS` to keep with each prediction
    channels_last: bool = False  # in memory, which half precision on a GPU likes
    compile: bool = False


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
        network untrained, with a warning.
    device : torch.device

    Returns
    -------
    network : torch.nn.Module
        In evaluation mode, on `device`. Its output for a batch (N, 3, H, W) are logits
        (N, C, H, W), or a mapping that has them under "out".

    Raises
    ------
    SettingError
        If the class cannot be found or the weights do not exist or do not fit.
    """
    network = registry.build(entry)
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
    image : Tensor of shape (3, H, W), float32
        Normalised as the network wants it; any H and W from 1.
    computing : Computing, optional

    Returns
    -------
    probabilities : ndarray of shape (H, W, C), float32
        Softmax of the logits; sums to 1 over the classes.

    Raises
    ------
    ValueError
        If the logits have another size than the image, or are NaN or +infinite somewhere.
    MemoryError
        If the device has not enough memory; the message names the settings that need less.
    SettingError
        If the network was to be compiled by `speed_up`, and cannot be.
    """
    return _begin(network, image, computing or Computing())()[0]


def predict_images(network, loaded, computing=None):
    """Predict one image after the other; a GPU is given the next one before it has finished.

    Parameters
    ----------
    network, computing
        As for `predict`.
    loaded : iterable of (int, tuple or Exception)
        Index and item of a dataset, image as float32 tensor (3, H, W), ground truth, and path; or
        why it could not be loaded.

    Yields
    ------
    index : int
    prediction : Prediction, or Exception
        Why the image could not be loaded or predicted.
    """
    ahead = int(_device_of(network, torch.empty(0)).type == "cuda")
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
    device, is_full = _device_of(network, image), False
    try:
        results = _probabilities(network, image, device, computing)
        tensors, wait = _to_memory(results)
        del results
    except RuntimeError as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(error).partition("\n")[0]
            raise SettingError(f"`args.compile` must be False here: {reason}") from error
        is_full = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
        if not is_full:
            raise
    if is_full:  # out of the clause: the error held on to what was computed
        raise MemoryError(_full(device, image))

    def finish():
        wait()
        probabilities, classes, worst, *maps = (tensor.numpy() for tensor in tensors)
        if not worst < SUM_TOLERANCE:  # NaN too
            wrong = int((~(abs(probabilities.sum(-1) - 1) < SUM_TOLERANCE)).sum())
            raise ValueError(
                f"the class probabilities do not sum to 1 at {wrong} of {classes.size} pixels: the "
                "network gave NaN or infinite logits; check its weights, and `mean` and `std` of "
                "its input"
            )
        return probabilities, classes, dict(zip(computing.scores, maps, strict=True))

    return finish


@torch.inference_mode()
def _probabilities(network, image, device, computing):
    """Probabilities (H, W, C) float32, classes (H, W), how far their sums are from 1, scores."""
    if device.type == "cuda":
        image = image.pin_memory()  # the GPU fetches it by itself
    images, precision = image[None].to(device, non_blocking=True), computing.precision
    with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
        logits = _tiled_logits(network, images, computing.tile)
    logits = logits[0].permute(1, 2, 0).float()
    maps = [OF_LOGITS[name](logits) for name in computing.scores]
    probabilities = logits.softmax(-1).contiguous()
    ids = torch.uint8 if logits.shape[-1] <= 255 else torch.uint16  # 255 is "no label"
    worst = (probabilities.sum(-1) - 1).abs().amax()
    return probabilities, probabilities.argmax(-1).to(ids), worst, *maps


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


def _tiled_logits(network, images, tile):
    """Logits (1, C, H, W) of a batch of one image, computed tile by tile where it is larger."""
    height, width = images.shape[2:]
    tile = (height, width) if tile is None else (min(tile[0], height), min(tile[1], width))
    if tile == (height, width):
        return _logits(network, images)
    weights = torch.outer(*(_fade(length, images.device) for length in tile))
    total, logits = torch.zeros(height, width, device=images.device), None
    for top in _tile_starts(height, tile[0]):
        for left in _tile_starts(width, tile[1]):
            area = np.s_[..., top : top + tile[0], left : left + tile[1]]
            part = _logits(network, images[area])
            if logits is None:
                logits = weights.new_zeros(1, part.shape[1], height, width)
            logits[area] += weights * part
            total[area] += weights
    return logits / total


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


def _logits(network, images):
    logits = network(images)
    if isinstance(logits, Mapping):
        logits = logits["out"]
    if logits.ndim != 4 or logits.shape[2:] != images.shape[2:]:
        raise ValueError(
            "a segmentation network must give logits (1, C, H, W) of the image's size; "
            f"got {tuple(logits.shape)} for an image {tuple(images.shape[1:])}"
        )
    return logits


def _full(device, image):
    if device.type == "cuda":
        torch.cuda.empty_cache()
    height, width = image.shape[1:]
    return (
        f"the memory of the device ({device}) is not enough for an image of {height} x {width} "
        "pixels: args.tile=[512,1024], or smaller, cuts it into parts, and args.precision=bfloat16 "
        "needs less"
    )


def _device_of(network, otherwise):
    return next(chain(network.parameters(), network.buffers()), otherwise).device


def _to_tensors(image, target, mean, std):
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    pixels = pixels.div_(255).sub_(mean).div_(std)
    if target is None:
        return pixels, None
    return pixels, torch.from_numpy(np.array(target, dtype=np.int64))
