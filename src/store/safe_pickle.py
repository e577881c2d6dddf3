"""Pickles of NumPy arrays and plain values, read so that nothing in them runs."""

import mmap
import os
import pickle
import re

import numpy as np

_DEEPEST = 50  # dicts and lists in one another
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
        raise pickle.UnpicklingError("it asks for another encoding than latin1, which is refused")
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
            raise pickle.UnpicklingError(
                f"it sets the state of a {type(target).__name__}, which is refused"
            )
        super().load_build()

    def load_setitem(self):
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self):
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_bytearray8(self):
        """Read bytes that are there; the length comes first, and the room for it is filled."""
        length = int.from_bytes(self.read(8), "little")
        if length > self._size:
            raise pickle.UnpicklingError(f"it lacks some of {length} bytes")
        content = bytearray(length)
        self.readinto(content)
        self.append(content)

    def load_reduce(self):
        """Call a function; NumPy's words about a dtype would spell out what came in its place."""
        function, arguments = self.stack[-2:]
        if function is np.dtype and not isinstance(arguments[0], str):
            raise pickle.UnpicklingError("it has a dtype of no name, which is refused")
        super().load_reduce()

    # sets hash whatever came
    del dispatch[pickle.EMPTY_SET[0]], dispatch[pickle.ADDITEMS[0]], dispatch[pickle.FROZENSET[0]]
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _check_keys(keys):
    """Refuse tuples of tuples, whose hash may take for ever."""
    for key in keys:
        if isinstance(key, tuple) and any(isinstance(part, tuple) for part in key):
            raise pickle.UnpicklingError("it has nested keys, which are refused")


class _Unknown(pickle.UnpicklingError):
    """A pickle asks for what `_QuickUnpickler` does not know."""


_PLAIN = rb"[}\x94(\x93Rbt\x85-\x87)\]aesuN\x88\x890]|[\x80Kh].|M..|[Jj].{4}|[\x95G].{8}"
_OPCODE = re.compile(_PLAIN, re.DOTALL)  # of `Pickler`; one more says how many bytes follow it:
_OPCODES = re.compile(
    rb"((?:%s)*)(?:[\x8cC\x8a](.)|[XB\x8b](.{4})|[\x8d\x8e\x96](.{8})|(\.))" % _PLAIN, re.DOTALL
)
_TUPLES = {pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_TUPLE}


def _is_own(file):
    """Whether a pickle has only opcodes that `Pickler` writes, and repeats no tuple.

    Then it names no place in the memo, which the unpickler in C would make room for, and has no
    key whose hash takes for ever.
    """
    at, memo, tuples = 0, 0, set()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while step := _OPCODES.match(content, at):
            before = b""
            for opcode in _OPCODE.findall(step[1]):
                if opcode == pickle.MEMOIZE:
                    if before in _TUPLES:
                        tuples.add(memo)
                    memo += 1
                elif opcode[:1] in b"hj" and int.from_bytes(opcode[1:], "little") in tuples:
                    return False
                before = opcode
            if step[5]:
                return True
            at = step.end() + int.from_bytes(step[step.lastindex], "little")
    return False  # another opcode, or beyond the end


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
        if not isinstance(code, str):
            raise pickle.UnpicklingError("it has a dtype of no name, which is refused")
        self.dtype = np.dtype(code)

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
    content = _load(file, is_ours and _is_own(file))
    _extent([content], os.fstat(file.fileno()).st_size, {})
    return content


def _load(file, is_own):
    if is_own:
        try:
            return _QuickUnpickler(file).load()
        except _Unknown:  # an array without elements, say
            file.seek(0)
    return _Unpickler(file).load()


def _extent(value, at_most, known, depth=0):
    """How many entries a dict, list or tuple has where each is written out, and how deep they lie.

    Those that are in one another many times take few bytes, and for ever to go through. `known`
    are the extents of those that are done, by their id.
    """
    if id(value) in known:
        return known[id(value)]
    if depth > _DEEPEST:
        raise pickle.UnpicklingError(f"it is nested more than {_DEEPEST} deep")
    parts = value.values() if isinstance(value, dict) else value
    count, height = len(value), 0
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype.hasobject:
            part = part.ravel().tolist()
        if isinstance(part, dict | list | tuple):
            inner = _extent(part, at_most, known, depth + 1)
            count, height = count + inner[0], max(height, inner[1] + 1)
    if count > at_most or height > _DEEPEST:
        raise pickle.UnpicklingError("it repeats itself more often than its bytes can say")
    known[id(value)] = count, height
    return known[id(value)]


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
