"""A column of bytes that stays in its file until they are asked for."""

import os
from dataclasses import dataclass, replace

import numpy as np


class OpenFile:
    """A file that stays open as long as it is needed, which threads may read at once.

    Where another takes its place, what it had is still read; it is that of `file`, which may be
    closed meanwhile.
    """

    def __init__(self, file):
        self._file = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)

    def __del__(self):  # by itself it would warn that nobody has closed it
        self._file.close()

    def read(self, start, size):
        """So many bytes from `start` on; an OSError where they cannot be read."""
        content = os.pread(self._file.fileno(), size, start)
        if len(content) < size:
            raise OSError(f"the file has {len(content)} bytes from {start} on where {size} belong")
        return content


@dataclass(frozen=True, eq=False)
class StoredBytes:
    """A column of N rows, used like an array of bytes; each is read when it is asked for."""

    file: OpenFile
    starts: np.ndarray  # (N,) int64, of the bytes of each row
    sizes: np.ndarray  # (N,) int64

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, rows):
        """The bytes of one row, or StoredBytes of several: numbers or a mask."""
        if np.ndim(rows) == 0:
            return self.file.read(self.starts[rows], self.sizes[rows])
        return replace(self, starts=self.starts[rows], sizes=self.sizes[rows])

    def tolist(self):
        """The bytes of all rows."""
        return list(self)
