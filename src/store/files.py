"""Files that are whole or not there at all."""

import errno
import os
import re
import secrets
import socket
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from src.errors import SettingError, WriteError

_DAY = 86400  # seconds, after which a part of another machine's file is taken for abandoned
_NAMES = "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EFBIG"
_REFUSALS = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}


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

    Raises
    ------
    WriteError
        The disk is full, or takes no file here, or there is something else than a file, such as a
        device. What is there stays.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise WriteError(
            f"{path} cannot be written, as it is no file: move it away, or choose another"
        )
    # the host and the process tell whether it is still being written
    writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"
    part = path.with_name(f".{path.name}.{writer}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        what = Path(error.filename or part)  # other files may be read meanwhile
        if error.errno in _REFUSALS and (what.parent == path.parent or what in path.parents):
            raise _refusal(path, error) from error
        raise
    finally:
        with suppress(OSError):
            part.unlink()


def check_file(path):
    """Refuse what is there and is no file: a device never ends, a pipe never begins.

    Raises
    ------
    OSError, ValueError
        It is missing, or may not be looked at; it is no file.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError(f"{path} is no file")


def read_text(path):
    """The text of a small file in UTF-8; raises what `check_file` does, and where it is no text."""
    check_file(path)
    return Path(path).read_text(encoding="utf-8")


def version_of(path):
    """What tells a file from a later one of its name; None: it is missing."""
    try:
        state = Path(path).stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def read_ahead(path):
    """Ask the system to fetch a file from its disk while we work, where there is one and it can.

    The system takes requests of about a megabyte and forgets the rest of larger ones.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError), Path(path).open("rb") as file:
        for start in range(0, os.fstat(file.fileno()).st_size, 2**20):
            os.posix_fadvise(file.fileno(), start, 2**20, os.POSIX_FADV_WILLNEED)


@contextmanager
def locked(path, refusal=None):
    """Keep other runs that ask for it too from writing a file, while this one reads and writes.

    `refusal` is what to say where another run is at it; None: wait for its end.

    Raises
    ------
    SettingError, WriteError
        Another run is at it; the disk takes no file here.
    """
    path = Path(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        held = lock.acquire(timeout=-1 if refusal is None else 0)
    except Timeout as error:
        raise SettingError(refusal) from error
    except OSError as error:
        raise _refusal(path, error) from error
    with held:
        yield


def prepare(*folders):
    """Make folders that are missing, and delete what killed writers have left in the others.

    Where the writer's machine is another one, that is told by the file's age: a day.

    Raises
    ------
    WriteError
        The disk is full, or takes no folder here.
    """
    for folder in folders:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refusal(folder, error) from error
        for part in Path(folder).glob(".*.tmp"):
            with suppress(OSError):  # another run may sweep too, or finish the file
                if _is_abandoned(part):
                    part.unlink()


def remove(*paths):
    """Delete files; a WriteError where that is not allowed, or one is a folder."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _refusal(path, error) from error


def _refusal(path, error):
    return WriteError(
        f"{path} cannot be written ({os.strerror(error.errno)}): make room or give permission, "
        "then start again; what is done stays"
    )


def _is_abandoned(part):
    host = re.escape(socket.gethostname())
    ours = re.search(rf"\.{host}-(\d+)-[0-9a-f]{{16}}\.tmp$", part.name)
    if ours and os.name == "posix":
        return not _runs(int(ours[1]))
    is_part = re.search(r"-\d+-[0-9a-f]{16}\.tmp$", part.name)
    return bool(is_part) and time.time() - part.stat().st_mtime > _DAY


def _runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True
