"""From a file of weights to a network filled with it; nothing in the file is run."""

import argparse
import io
import logging
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch

from src.errors import SettingError, missing_weights
from src.store.files import check_file, whole_file

_log = logging.getLogger(__name__)
_LISTED = 5  # keys named in a message
_KEYS = (  # what training scripts call it, averaged weights first
    *("state_dict_ema", "model_ema", "params_ema", "ema"),
    *("state_dict", "model_state_dict", "model", "net"),
)
_PREFIXES = "module.", "_orig_mod.", "model.", "net."  # of networks that were wrapped for training


def load_weights(network, path, name):
    """Fill a network from a weights file.

    Of several state dicts in the file, the one that fits most tensors of the network is taken; of
    equals the one that `read_state` would give, which is then logged: averaged weights (EMA) before
    the others.

    Parameters
    ----------
    network : torch.nn.Module
    path : path-like
        See `read_state`. Keys may start with "module.", "_orig_mod.", "model.", "net." or several
        of them, values may be of any floating type; the network keeps its own. Keys that the
        network lacks are named in one warning.
    name : str
        The configuration entry, for the messages.

    Raises
    ------
    SettingError
        If the file is missing or is no such file, if keys are missing or shapes differ.
    """
    own = network.state_dict()
    found = {label: _nearest(state, own) for label, state in _read_states(path, name).items()}
    fits = {label: _fit(state, own) for label, state in found.items()}
    chosen, *others = [label for label in fits if fits[label] == max(fits.values())]
    if others and max(fits.values()):
        others = _first_few([repr(label) for label in others])
        _log.warning("%s: took %r for model %r; as well fit %s", path, chosen, name, others)
    state = found[chosen]
    misshapen = [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(tensor.shape)} in the network"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    misshapen += [  # what could not be copied, or only in part
        f"{key} is {tensor.dtype}, {tensor.layout}, on {tensor.device}"
        for key, tensor in state.items()
        if key in own and (tensor.is_complex() or tensor.layout != torch.strided or tensor.is_meta)
    ]
    if misshapen:
        raise SettingError(_misfit(path, name, "has tensors of another shape", misshapen))
    missing, extra = network.load_state_dict(state, strict=False)
    if missing:
        there = f"; what it has instead: {_first_few(extra)}" if extra else ""
        raise SettingError(_misfit(path, name, "lacks tensors of the network", missing, there))
    if extra:
        _log.warning("%s: ignored what model %r lacks: %s", path, name, _first_few(extra))


def read_state(path, name):
    """The tensors of a weights file by their keys.

    Parameters
    ----------
    path : path-like
        A `.safetensors` file, or what `torch.save` wrote on any device: a state dict, or a mapping
        that has it under any key, at most two deep. Of several, the first of "state_dict_ema",
        "model_ema", "params_ema", "ema", "state_dict", "model_state_dict", "model", "net" and what
        else there is; that of an optimizer is none.
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
    return next(iter(_read_states(path, name).values()))


def _read_states(path, name):
    """Every state dict of a file by where it is, such as "ema.module"; see `read_state`."""
    path = Path(path)
    if not path.is_file():
        raise missing_weights(name, path)
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    except SettingError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise SettingError(_no_state(path, name)) from error
    found = sorted(_states_in(content), key=lambda at_state: _rank(at_state[0]))
    if not found:
        raise SettingError(_no_state(path, name))
    return {".".join(at): state for at, state in found}


def _states_in(content, at=()):
    """Keys that lead to a mapping, and its tensors, for it and those inside of it."""
    if not isinstance(content, Mapping) or "param_groups" in content:  # an optimizer's
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield at, tensors
    for key, value in named.items():
        if len(at) < 2 and not key.startswith("optim"):
            yield from _states_in(value, (*at, key))


def _rank(at):
    return min((_KEYS.index(key) for key in at if key in _KEYS), default=len(_KEYS))


def _fit(state, own):
    """How well a state dict fits that of a network: keys, and shapes, that agree."""
    shared = state.keys() & own.keys()
    return len(shared) + sum(state[key].shape == own[key].shape for key in shared)


def _nearest(state, own):
    """A state dict without as many prefixes as make it fit that of a network best."""
    forms = [state]
    for form in forms:  # it grows
        for prefix in _PREFIXES:
            below = {key[len(prefix) :]: t for key, t in form.items() if key.startswith(prefix)}
            if below and len(forms) < 20:
                forms.append(below | {k: t for k, t in form.items() if not k.startswith(prefix)})
    return max(forms, key=lambda form: _fit(form, own))


def read_torch(path):
    """What `torch.save` wrote, on the CPU: tensors, NumPy arrays of numbers, plain values.

    Nothing in the file is run. A missing, damaged or hostile file raises nearly any exception.
    """
    check_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch stores the checksums, and does not look at them
        if damaged is not None:
            raise ValueError(f"its checksums do not fit: {damaged} is damaged")
    with torch.serialization.safe_globals(_plain_globals()):
        return torch.load(path, map_location="cpu", weights_only=True)


def write_torch(path, content):
    """Write what `read_torch` reads, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(as_torch(content))


def as_torch(content):
    """The bytes that `write_torch` writes."""
    buffer = io.BytesIO()  # what torch raises of a full disk does not say so
    torch.save(content, buffer)
    return buffer.getbuffer()


def _plain_globals():
    """What may stand beside tensors: NumPy's numbers and arrays, and a script's settings."""
    array = np.zeros(1)
    functions = {"scalar": array[0].__reduce__()[0], "_reconstruct": array.__reduce__()[0]}
    return [
        argparse.Namespace,
        defaultdict,
        (PurePosixPath, "pathlib.PosixPath"),  # no path of the other system can be made here
        (PureWindowsPath, "pathlib.WindowsPath"),
        (PurePosixPath, "pathlib._local.PosixPath"),  # its name in Python 3.13
        (PureWindowsPath, "pathlib._local.WindowsPath"),
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


def _misfit(path, name, what, entries, there=""):
    return (
        f"{path} does not fit model {name!r}: it {what}: {_first_few(entries)}{there}; "
        "check `model_weights` and `kwargs` of that entry in configuration.py"
    )


def _first_few(entries):
    more = f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return ", ".join(entries[:_LISTED]) + more
