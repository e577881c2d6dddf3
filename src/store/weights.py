"""From a file of weights to a network filled with it; nothing in the file is run."""

import argparse
import io
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from src.errors import SettingError, missing_weights
from src.store.files import whole_file

_log = logging.getLogger(__name__)
_LISTED = 5  # keys named in a message
_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")  # what training scripts call it


def load_weights(network, path, name):
    """Fill a network from a weights file.

    Parameters
    ----------
    network : torch.nn.Module
    path : path-like
        See `read_state`. Keys may start with "module.", values may be of any floating type; the
        network keeps its own. Keys that the network lacks are named in one warning.
    name : str
        The configuration entry, for the messages.

    Raises
    ------
    SettingError
        If the file is missing or is no such file, if keys are missing or shapes differ.
    """
    state = read_state(path, name)
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


def read_state(path, name):
    """The tensors of a weights file by their keys.

    Parameters
    ----------
    path : path-like
        A `.safetensors` file, or what `torch.save` wrote on any device: a state dict, or a mapping
        that has it under "state_dict", "model", "state_dict_ema" or "model_ema".
    name : str
        The configuration entry, for the messages.

    Returns
    -------
    state : dict of str to Tensor
        On the CPU.

    Raises
    ------
    SettingError
        If the file is missing, damaged or something else. Damage goes unnoticed only inside the
        values of files without checksums: `.safetensors`, and those of torch before 1.6.
    """
    path = Path(path)
    if not path.is_file():
        raise missing_weights(name, path)
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    except SettingError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise SettingError(_no_state(path, name)) from error
    if not isinstance(content, Mapping):
        raise SettingError(_no_state(path, name))
    under = [content[key] for key in _KEYS if isinstance(content.get(key), Mapping)]
    state = under[0] if under else content
    return {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def read_torch(path):
    """What `torch.save` wrote, on the CPU: tensors, NumPy arrays of numbers, plain values.

    Nothing in the file is run. A missing, damaged or hostile file raises nearly any exception.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch stores the checksums, and does not look at them
        if damaged is not None:
            raise ValueError(f"its checksums do not fit: {damaged} is damaged")
    with torch.serialization.safe_globals(_plain_globals()):
        return torch.load(path, map_location="cpu", weights_only=True)


def write_torch(path, content):
    """Write what `read_torch` reads, whole or not at all."""
    buffer = io.BytesIO()  # what torch raises of a full disk does not say so
    torch.save(content, buffer)
    with whole_file(path) as part:
        part.write_bytes(buffer.getbuffer())


def _plain_globals():
    """What may stand beside tensors: NumPy's numbers and arrays, and a script's settings."""
    array = np.zeros(1)
    functions = {"scalar": array[0].__reduce__()[0], "_reconstruct": array.__reduce__()[0]}
    return [
        argparse.Namespace,
        np.ndarray,
        (_dtype, "numpy.dtype"),
        *(type(np.dtype(code)) for code in "?bhilqBHILQefd"),
        *(
            (function, f"numpy.{core}.multiarray.{name}")
            for core in ("core", "_core")  # its name in NumPy 1 and 2
            for name, function in functions.items()
        ),
    ]


def _dtype(code, *_):
    """A dtype of numbers, the shared one: NumPy ignores what a file then claims about it.

    It would believe a file about a copy, such as that there are pointers in the bytes.
    """
    dtype = np.dtype(code)
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds an array of {dtype}, which is refused")
    return dtype


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
