import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from src.errors import SettingError, WriteError
from src.store.files import locked, prepare, remove, whole_file

TOKEN = "0123456789abcdef"


def test_a_file_appears_when_it_is_complete_and_its_folder_is_made(tmp_path):
    path = tmp_path / "new" / "a.p"
    with whole_file(path) as part:
        part.write_bytes(b"whole")
        assert part.parent == path.parent and not path.exists()
    assert path.read_bytes() == b"whole"
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_not_replaced(make, tmp_path):
    path = tmp_path / "a.p"
    make(path)
    mode = path.stat().st_mode
    refused = pytest.raises(WriteError, match="a.p cannot be written, as it is no file")
    with refused, whole_file(path) as part:
        part.touch()
    assert path.stat().st_mode == mode and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, stop):
    path = tmp_path / "a.p"
    path.write_bytes(b"old")
    with pytest.raises(stop), whole_file(path) as part:
        part.write_bytes(b"ha")
        raise stop
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_in_one_sentence_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.p"
    path.write_bytes(b"old")
    sentence = rf"^{re.escape(str(path))} cannot be written \(No space left on device\): make room"
    with pytest.raises(WriteError, match=sentence), whole_file(path) as part:
        part.symlink_to("/dev/full")
        part.write_bytes(b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_place_that_takes_no_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file/a cannot be written \(Not a directory\)"):
        prepare(tmp_path / "file" / "a")


def test_another_file_that_cannot_be_read_meanwhile_keeps_its_own_error(tmp_path):
    with pytest.raises(NotADirectoryError), whole_file(tmp_path / "results" / "a.p") as part:
        (tmp_path / "other").touch()
        part.write_bytes((tmp_path / "other" / "b").read_bytes())


def leave_part(folder):
    """What a process that is killed while it writes a file leaves."""
    code = """
import os, signal, sys
from src.store.files import whole_file
with whole_file(sys.argv[1]) as part:
    part.write_bytes(b"ha")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(folder / "a.p")], check=False)
    (part,) = folder.iterdir()
    return part


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a part must be a day old")
def test_what_a_killed_writer_left_is_deleted(tmp_path):
    leave_part(tmp_path)
    prepare(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_is_being_written_stays(tmp_path):
    with whole_file(tmp_path / "a.p") as part:
        part.touch()
        prepare(tmp_path)
        assert part.exists()


@pytest.mark.parametrize(("age", "stays"), [(3600, True), (90000, False)])
def test_what_another_machine_left_is_deleted_after_a_day(tmp_path, age, stays):
    part = tmp_path / f".a.p.not-{socket.gethostname()}-1-{TOKEN}.tmp"
    part.touch()
    then = part.stat().st_mtime - age
    os.utime(part, (then, then))
    prepare(tmp_path)
    assert part.exists() == stays


def test_files_of_others_stay_however_old(tmp_path):
    for name in (".a.tmp", "a.tmp", ".a-1.tmp", f"a-1-{TOKEN}"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    prepare(tmp_path)
    assert len([*tmp_path.iterdir()]) == 4


def test_who_would_not_wait_is_told_that_another_run_is_at_a_file(tmp_path):
    path = tmp_path / "a"
    with locked(path), pytest.raises(SettingError, match="wait"), locked(path, "wait for it"):
        pass
    with locked(path, "wait for it"):
        pass


def test_what_cannot_be_deleted_is_named(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").mkdir()
    with pytest.raises(WriteError, match="b cannot be written"):
        remove(tmp_path / "a", tmp_path / "missing", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
