"""What is unchanged is not read again; what has changed always is."""

import os
from dataclasses import replace

import pytest

from src.store import seen as store
from src.store.seen import Seen

posix = pytest.mark.skipif(os.name != "posix", reason="no time of a change of state")


class Stage:
    """Three images of one file each; done are those whose file says so."""

    def __init__(self, folder):
        self.folder, self.read = folder, []
        for image in range(3):
            self.path(image).write_text("done")
        self.seen = Seen(folder / "seen.json", {"net": "a"}, lambda k: [self.path(k)], self.why)

    def path(self, image):
        return self.folder / f"{image}.txt"

    def why(self, image):
        self.read.append(image)
        text = self.path(image).read_text()
        return None if text == "done" else text

    def look(self, images=range(3), seen=None, **how):
        """Which images are read, and the reasons."""
        self.read = []
        with (seen or self.seen).looking(**how) as why:
            reasons = [why(image) for image in images]
        return self.read, reasons


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_SETTLED_NS", 0)
    return Stage(tmp_path)


def test_images_are_read_once_and_again_after_a_change(stage):
    assert stage.look() == ([0, 1, 2], [None] * 3)
    assert stage.look() == ([], [None] * 3)
    stage.path(1).write_text("broken")
    assert stage.look() == ([1], [None, "broken", None])
    assert stage.look() == ([1], [None, "broken", None])
    stage.path(2).unlink()
    stage.path(1).write_text("done")
    with pytest.raises(FileNotFoundError):
        stage.look()
    assert stage.look([0, 1]) == ([], [None] * 2)


@pytest.mark.promise(4)
def test_a_file_that_only_the_others_name_may_be_missing_and_is_heeded_where_it_is_there(stage):
    photograph = stage.folder / "photograph"
    seen = replace(stage.seen, inputs=lambda image: [photograph] * image)
    assert stage.look(seen=seen) == ([0, 1, 2], [None] * 3)
    assert stage.look(seen=seen) == ([], [None] * 3)
    photograph.touch()
    assert stage.look(seen=seen) == ([1, 2], [None] * 3)
    assert stage.look(seen=seen) == ([], [None] * 3)


@posix
@pytest.mark.promise(5)
def test_a_damage_that_keeps_size_and_time_of_a_file_is_read(stage):
    stage.look()
    times = stage.path(1).stat()
    stage.path(1).write_text("dunE")
    os.utime(stage.path(1), ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stage.look() == ([1], [None, "dunE", None])


@posix
@pytest.mark.promise(5)
def test_another_file_that_takes_the_place_of_one_is_read(stage):
    stage.look()
    times, other = stage.path(1).stat(), stage.folder / "other"
    other.write_text("dunE")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(stage.path(1))
    assert stage.look() == ([1], [None, "dunE", None])


@pytest.mark.promise(5)
def test_a_damage_that_no_time_tells_of_is_found_on_request_and_then_known(stage):
    """A bit that falls over on the disk, as if the file had been noted as it is now."""
    stage.path(1).write_text("rotten")
    stage.look(seen=replace(stage.seen, why=lambda image: None))
    assert stage.look() == ([], [None] * 3)
    assert stage.look(verify=True) == ([0, 1, 2], [None, "rotten", None])
    assert stage.look() == ([1], [None, "rotten", None])


def test_a_file_that_has_changed_just_now_is_always_read(tmp_path):
    stage = Stage(tmp_path)
    assert stage.look() == stage.look() == ([0, 1, 2], [None] * 3)


@pytest.mark.promise(4)
def test_other_facts_or_formats_read_all_again(stage, monkeypatch):
    stage.look()
    assert stage.look(seen=replace(stage.seen, facts={"net": "b"}))[0] == [0, 1, 2]
    monkeypatch.setitem(store.provenance.FORMATS, "vectors", 99)
    assert stage.look(seen=replace(stage.seen, facts={"net": "b"}))[0] == [0, 1, 2]


def test_shards_keep_what_the_others_have_noted(stage):
    assert stage.look([0, 2])[0] == [0, 2]
    assert stage.look([1])[0] == [1]
    assert stage.look() == ([], [None] * 3)


def test_a_dry_run_notes_nothing(stage):
    stage.look(keep=False)
    assert not stage.seen.path.exists()
    assert stage.look()[0] == [0, 1, 2]


@pytest.mark.promise(5)
def test_a_damaged_note_is_not_believed(stage):
    stage.look()
    whole = stage.seen.path.read_bytes()
    for damaged in (whole[:40], whole[:-1], b"", whole[:9] + b"f" + whole[10:], b"[1, 2]"):
        stage.seen.path.write_bytes(damaged)
        assert damaged == whole or stage.look() == ([0, 1, 2], [None] * 3)


def test_where_nothing_can_be_written_all_are_read(stage):
    stage.seen.path.mkdir()
    assert stage.look() == stage.look() == ([0, 1, 2], [None] * 3)
