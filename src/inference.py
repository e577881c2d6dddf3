"""From a network and its weights to class probabilities of one image."""

import logging
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from src import loading
from src.loading import SettingError

_log = logging.getLogger(__name__)
_LISTED = 5  # keys named in a message
_SCALAR = np.float64().__reduce__()[0]  # its module has two names, by version of NumPy


def choose_device(gpu, log):
    """The device to compute on.

    Parameters
    ----------
    gpu : int or None
        Index of the GPU; None or -1: the CPU. 0, the default setting, means "a GPU if there is
        one": without any GPU it is the CPU, with one warning.
    log : logging.Logger

    Returns
    -------
    device : torch.device

    Raises
    ------
    SettingError
        If the GPU of that index does not exist.
    """
    if gpu is None or gpu == -1:
        return torch.device("cpu")
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
        `model_weights` is the path of the weights file: see `load_weights`. None leaves the
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
    network = loading.build(entry)
    if entry.model_weights is None:
        _log.warning("model %r has no `model_weights`: the network is untrained", entry.name)
    else:
        load_weights(network, entry.model_weights, entry.name)
    return network.eval().to(device)


def load_weights(network, path, name):
    """Fill a network from a weights file.

    Parameters
    ----------
    network : torch.nn.Module
    path : path-like
        A `.safetensors` file, or what `torch.save` wrote on any device: a state dict, or a mapping
        that has it under "state_dict". Keys may start with "module.", values may be of any
        floating type; the network keeps its own. Keys that the network lacks are named in one
        warning.
    name : str
        The configuration entry, for the messages.

    Raises
    ------
    SettingError
        If the file is missing or is no such file, if keys are missing or shapes differ.
    """
    state = _read_state(Path(path), name)
    own = network.state_dict()
    state = {key if key in own else key.removeprefix("module."): t for key, t in state.items()}
    misshapen = [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(tensor.shape)} in the network"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if misshapen:
        raise SettingError(_misfit(path, name, "has tensors of another shape", misshapen))
    missing, extra = network.load_state_dict(state, strict=False)
    if missing:
        raise SettingError(_misfit(path, name, "lacks tensors of the network", missing))
    if extra:
        _log.warning("%s: ignored what model %r lacks: %s", path, name, _first_few(extra))


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


@torch.inference_mode()
def predict(network, image):
    """Class probabilities of one image, on the device where the network is.

    Parameters
    ----------
    network : torch.nn.Module
        As `load_network` gives it.
    image : Tensor of shape (3, H, W), float32
        Normalised as the network wants it; any H and W from 1.

    Returns
    -------
    probabilities : ndarray of shape (H, W, C), float32
        Softmax of the logits; sums to 1 over the classes.

    Raises
    ------
    ValueError
        If the logits have another size than the image, or are NaN or +infinite somewhere.
    """
    logits = network(image[None].to(_device_of(network, image)))
    if isinstance(logits, Mapping):
        logits = logits["out"]
    if logits.ndim != 4 or logits.shape[2:] != image.shape[1:]:
        raise ValueError(
            "a segmentation network must give logits (1, C, H, W) of the image's size; "
            f"got {tuple(logits.shape)} for an image {tuple(image.shape)}"
        )
    probabilities = logits[0].permute(1, 2, 0).float().softmax(-1)
    if probabilities.sum().isnan():
        wrong = int(probabilities.isnan().any(-1).sum())
        raise ValueError(
            f"the network gave NaN or infinite logits at {wrong} of {image[0].numel()} pixels; "
            "check its weights, and `mean` and `std` of its input"
        )
    return probabilities.contiguous().cpu().numpy()


def _device_of(network, otherwise):
    return next(network.parameters(), otherwise).device


def _to_tensors(image, target, mean, std):
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    pixels = pixels.div_(255).sub_(mean).div_(std)
    if target is None:
        return pixels, None
    return pixels, torch.from_numpy(np.array(target, dtype=np.int64))


def _read_state(path, name):
    if not path.is_file():
        raise SettingError(
            f"the weights of model {name!r} are missing: put them at {path} (README.md says where "
            "the published ones are to be had), or change `model_weights` in configuration.py"
        )
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise SettingError(_no_state(path, name)) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise SettingError(_no_state(path, name))
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _read_torch(path):
    # Beside the weights, training scripts store scores as NumPy scalars: plain numbers.
    with torch.serialization.safe_globals(
        [(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
        + [np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8"))]
    ):
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path):
    try:  # optional: only who has such a file needs it
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise SettingError(f"{path}: reading it needs `pip install safetensors`") from None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _no_state(path, name):
    return (
        f"{path} (weights of model {name!r}) must be a state dict, or a mapping with one under "
        "'state_dict', saved by torch.save, or a .safetensors file; it is damaged or something else"
    )


def _misfit(path, name, what, entries):
    return (
        f"{path} does not fit model {name!r}: it {what}: {_first_few(entries)}; "
        "check `model_weights` and `kwargs` of that entry in configuration.py"
    )


def _first_few(entries):
    more = f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return ", ".join(entries[:_LISTED]) + more
