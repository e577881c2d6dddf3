"""From a file of weights to a network filled with it; nothing in the file is run."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from src.loading import SettingError

_log = logging.getLogger(__name__)
_LISTED = 5  # keys named in a message
_SCALAR = np.float64().__reduce__()[0]  # its module has two names, by version of NumPy


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


def _read_state(path, name):
    if not path.is_file():
        raise SettingError(
            f"the weights of model {name!r} are missing: put them at {path} (README.md says where "
            "the published ones are to be had), or change `model_weights` in configuration.py"
        )
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except SettingError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise SettingError(_no_state(path, name)) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise SettingError(_no_state(path, name))
    return {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}


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
