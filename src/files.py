"""Files that are whole or not there at all."""

import os
import secrets
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path):
    """Give the name of a file beside `path`, which takes its place once it is complete.

    Parameters
    ----------
    path : path
        Missing folders are made.

    Yields
    ------
    part : Path
        To be written. Flushed to the disk and renamed at the end, deleted after an error.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # whoever else writes it
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
