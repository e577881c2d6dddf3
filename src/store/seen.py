"""Which images a stage has found done, so that it reads their files again only after a change."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from src.errors import WriteError
from src.store import provenance
from src.store.files import locked
from src.store.sealed import as_json, read_sealed, sealed_file

_SETTLED_NS = 2 * 10**9  # age from which on another change has another time on any file system


@dataclass(frozen=True)
class Seen:
    """How a stage tells which images are done, and where it keeps what it has found.

    An image stays done while the files that it was judged by are the same, as far as the system
    tells: number, size, times of change of content and of state. A file that has changed just now
    is always read, as the next change may have the same time.
    """

    path: Path  # of the file that keeps it, JSON
    facts: dict  # what is the same for all images that are judged, such as settings
    files: Callable  # gives of an image the paths of its results, and of all they depend on
    why: Callable  # reads these: why an image must be worked on, as text; None: it is done

    @contextmanager
    def looking(self, verify=False, keep=True):
        """Give the function that says of an image what `why` says; safe in several threads.

        `verify`: read all files. `keep`: note what is found, at the end.
        """
        before = {} if verify else _read(self.path)
        facts, found = provenance.digest(self.facts | {"formats": provenance.FORMATS}), {}

        def why(image):
            state = _state(facts, self.files(image))
            if state is not None and before.get(str(image)) == state:
                return None
            reason = self.why(image)
            found[str(image)] = state if reason is None else None
            return reason

        try:
            yield why
        finally:
            if keep and found:
                with suppress(OSError, WriteError):  # it only saves time
                    _update(self.path, found)


def _state(facts, paths):
    """What changes with the facts, and with any of some files.

    None: one is missing, or has changed just now.
    """
    newest, states = time.time_ns() - _SETTLED_NS, [facts]
    for path in paths:
        try:
            file = os.stat(path)  # noqa: PTH116 (thousands of files)
        except FileNotFoundError:
            return None
        changed = file.st_mtime_ns, file.st_ctime_ns
        if max(changed) > newest:
            return None
        states.append((file.st_ino, file.st_size, *changed))
    return hashlib.sha256(repr(states).encode()).hexdigest()[:32]


def _read(path):
    """States by image; none where the file is missing or broken."""
    try:
        return dict(json.loads(read_sealed(path)))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _update(path, found):
    """Note the states of some images, and forget those that are None."""
    with locked(path):  # other shards note theirs
        there = _read(path)
        states = {image: state for image, state in (there | found).items() if state is not None}
        if states != there:
            with sealed_file(path) as file:
                file.write(as_json(states).encode())
