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

    path: Path  # of the file that keeps it, JSON: a list of state and inputs by image
    facts: dict  # what is the same for all images that are judged, such as settings
    files: Callable  # gives of an image the paths of its results, and of all they depend on
    why: Callable  # reads these: why an image must be worked on, as text; None: it is done
    inputs: Callable = lambda image: ()  # reads these: paths of more that they name, may be missing

    @contextmanager
    def looking(self, verify=False, keep=True):
        """Give the function that says of an image what `why` says; safe in several threads.

        `verify`: read all files. `keep`: note what is found, at the end.
        """
        before = {} if verify else read_states(self.path)
        facts, found = provenance.digest(self.facts | {"formats": provenance.FORMATS}), {}

        def why(image):
            paths, noted = self.files(image), before.get(str(image))
            if noted and noted[0] == state_of(facts, paths, noted[1:]):
                return None
            inputs = list(map(str, self.inputs(image)))
            state = state_of(facts, paths, inputs)
            reason = self.why(image)
            found[str(image)] = [state, *inputs] if state and reason is None else None
            return reason

        try:
            yield why
        finally:
            if keep and found:
                note(self.path, found)


def state_of(facts, paths, inputs=()):
    """What changes with the facts, text, and with any of some files; itself text.

    None: one of `paths` is missing, or one has changed just now. To be asked before they are read.
    """
    newest, states = time.time_ns() - _SETTLED_NS, [facts]
    for path in [*paths, *inputs]:
        try:
            file = os.stat(path)  # noqa: PTH116 (thousands of files)
        except OSError:
            if path not in inputs:
                return None
            states.append(None)
            continue
        changed = file.st_mtime_ns, file.st_ctime_ns
        if max(changed) > newest:
            return None
        states.append((file.st_ino, file.st_size, *changed))
    return hashlib.sha256(repr(states).encode()).hexdigest()[:32]


def read_states(path):
    """Lists of state and inputs by image; none where the file is missing or broken."""
    try:
        return dict(json.loads(read_sealed(path)))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def note(path, found):
    """Note what is found of some images, forget those that are None; where it can be written."""
    with suppress(OSError, WriteError), locked(path):  # other shards note theirs
        there = read_states(path)
        states = {image: state for image, state in (there | found).items() if state is not None}
        if states != there:
            with sealed_file(path) as file:
                file.write(as_json(states).encode())
