"""Files that say what they were made from and end in a checksum, which others do not mind."""

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np

try:
    from isal.isal_zlib import crc32  # takes a third of the time
except ImportError:  # not built for this processor
    from zlib import crc32

from src.store.files import whole_file
from src.store.paths import MAKERS

UNSEALED = "its checksum is missing"  # which all files have that say what they were made from
_SEAL = b"crc32 of all before: "  # then 8 hexadecimal digits
_BLOCK = 2**20  # bytes that are checked at once


@contextmanager
def sealed_file(path):
    """Give a file to write to, which takes its place at `path` with a checksum at its end."""
    with whole_file(path) as part, part.open("wb") as file:
        checked = _Checked(file)
        yield checked
        file.write(_seal(checked.checksum))


class _Checked:
    """Writes to a file and computes the checksum of what it writes."""

    def __init__(self, file):
        self._file, self.checksum = file, 0

    def write(self, content):
        self.checksum = crc32(content, self.checksum)
        return self._file.write(content)


def _seal(checksum):
    return _SEAL + b"%08x" % checksum


def is_sealed(path):
    """Whether a file has a checksum; the original's files have none.

    Raises
    ------
    ValueError
        It has one, but not that of its content.
    """
    length = len(_seal(0))
    with path.open("rb") as file:
        left, checksum = file.seek(0, os.SEEK_END) - length, 0
        file.seek(max(left, 0))
        seal = file.read()
        if not seal.startswith(_SEAL):
            return False
        file.seek(0)
        while left:
            block = file.read(min(left, _BLOCK))
            left, checksum = left - len(block), crc32(block, checksum)
    if seal != _seal(checksum):
        raise broken(path, ValueError("its checksum is not that of its content"))
    return True


def read_sealed(path):
    """The bytes of a file before its checksum; a ValueError where it has none, or another's."""
    path = Path(path)
    if not is_sealed(path):
        raise broken(path, ValueError(UNSEALED))
    return path.read_bytes()[: -len(_seal(0))]


def as_json(made_from):
    """Plain and NumPy values in dicts as JSON; sets and arrays become lists, others text."""

    def plain(value):
        if isinstance(value, set | frozenset):
            return sorted(value)
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)

    return json.dumps(made_from, sort_keys=True, default=plain)


def as_stored(made_from):
    """What comes back from a file of a dict of plain values: keys are str, tuples are lists."""
    return json.loads(as_json(made_from))


def existing(path):
    """The file itself, or where it is missing the one that an older tree has in its place."""
    path = Path(path)
    if path.is_file():
        return path
    older = {
        "input": path.with_name(path.name.replace("input", "probs_", 1)),
        "components": path.with_suffix(".p"),
    }.get(_stem(path), path)
    if older.is_file():
        return older
    raise FileNotFoundError(f"{path} is missing; {advice(path)}")


def _stem(path):
    """The letters that a file name begins with: "input" of "input3.hdf5"."""
    return re.match("[a-z]*", Path(path).name)[0]


def advice(path, when="first"):
    """Which script writes a file."""
    stem, folder = _stem(path), Path(path).parent.name
    of_dataset = f" for {folder!r}" if folder and stem not in ("embeddings", "vectors") else ""
    return f"run {MAKERS.get(stem, 'the script that writes it')}{of_dataset} {when}"


def broken(path, error):
    """The ValueError that says why a file cannot be read, and what to do."""
    reason = f"{type(error).__name__}: {error}"
    return ValueError(f"{path} cannot be read ({reason}); {advice(path, 'again')}")
