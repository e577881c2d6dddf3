"""Pickles of NumPy arrays and plain values, read so that nothing in them runs."""

import os
import pickle

import numpy as np

_SCALAR = np.float64(0).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]


def _known_globals():
    """What pickles of NumPy arrays, scalars and dtypes refer to, under its names in NumPy 1 and 2.

    The functions are taken from NumPy's own answer to how an array is pickled, so that no private
    module has to be imported. Protocol 2 has no bytes of its own, but calls for two functions.
    """
    known = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = np.zeros(1).__reduce__()[0]
        known[f"{core}.multiarray", "scalar"] = _SCALAR
        known[f"{core}.numeric", "_frombuffer"] = _FROM_BUFFER
    known["_codecs", "encode"] = _encode_latin1
    known["__builtin__", "bytes"] = _no_bytes
    return known


def _encode_latin1(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}, which is refused")
    return text.encode("latin1")


def _no_bytes():
    return b""


class _Unpickler(pickle._Unpickler):
    """Reads NumPy arrays and plain values; refuses by name what could run code.

    The unpickler in Python: its steps can be looked at, and no small file can make it fill the
    memory (the one in C makes room for as many objects as a file says that it will remember).
    """

    known = _known_globals()
    dispatch = pickle._Unpickler.dispatch.copy()

    def __init__(self, file):
        super().__init__(file)
        self._size = os.fstat(file.fileno()).st_size

    def find_class(self, module, name):
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return self.known[module, name]

    def load_build(self):
        """Set the state of an array or dtype."""
        target, state = self.stack[-2:]
        if isinstance(target, np.dtype):
            _check_state(target, state)
        elif type(target) is not np.ndarray:
            raise pickle.UnpicklingError(f"it sets the state of {target!r}, which is refused")
        super().load_build()

    def load_bytearray8(self):
        """Read bytes that are there; the length comes first, and the room for it is filled."""
        length = int.from_bytes(self.read(8), "little")
        if length > self._size:
            raise pickle.UnpicklingError(f"it lacks some of {length} bytes")
        content = bytearray(length)
        self.readinto(content)
        self.append(content)

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


class _Unknown(pickle.UnpicklingError):
    """A pickle asks for what `_QuickUnpickler` does not know."""


class _QuickUnpickler(pickle.Unpickler):
    """Reads what `_Pickler` writes of most tables, with the unpickler in C.

    That one cannot be looked at while it sets the state of a dtype, so none is there.
    """

    def find_class(self, module, name):
        known = _Unpickler.known.get((module, name))
        stands_in = {np.dtype: _Dtype, _FROM_BUFFER: _from_buffer, _SCALAR: _scalar}
        for function, ours in stands_in.items():
            if known is function:
                return ours
        raise _Unknown(f"{module}.{name}")


class _Dtype:
    """Stands for a dtype until an array or a scalar needs it."""

    def __init__(self, code, *_):
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state):
        _check_state(self.dtype, state)
        self.dtype = self.dtype.newbyteorder(state[1])


def _unchangeable(function):
    """Keep a pickle from setting attributes of a function that it may call."""

    def refuse(_state):
        raise pickle.UnpicklingError(f"it sets the state of {function.__name__}, which is refused")

    function.__setstate__ = refuse
    return function


@_unchangeable
def _from_buffer(content, stand_in, shape, order):
    return _FROM_BUFFER(content, stand_in.dtype, shape, order)


@_unchangeable
def _scalar(stand_in, content):
    return np.frombuffer(content, stand_in.dtype)[0]


def _check_state(dtype, state):
    """Refuse all but another order of bytes; NumPy believes that there are pointers in bytes."""
    own = dtype.__reduce__()[2]
    if (state[0], *state[2:]) != (own[0], *own[2:]):
        raise pickle.UnpicklingError(f"its dtype {dtype} has a state that is refused")


def load(file, is_ours):
    """The content of a pickle; nothing in it runs.

    `is_ours`: it is whole, as `Pickler` wrote it, and may be read by quicker ways.
    """
    if is_ours:
        try:
            return _QuickUnpickler(file).load()
        except _Unknown:  # an array without elements, say
            file.seek(0)
    return _Unpickler(file).load()


class Pickler(pickle.Pickler):
    """Writes only what `_Unpickler` reads."""

    def reducer_override(self, value):
        is_known = any(value is known for known in _Unpickler.known.values())
        if is_known or type(value) is np.ndarray or isinstance(value, (np.generic, np.dtype)):
            return NotImplemented
        raise TypeError(
            "a table holds NumPy arrays, lists, tuples, dicts, str, bytes and numbers, "
            f"got {type(value).__name__}: {value!r}"
        )
