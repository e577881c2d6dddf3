"""Damaged files, odd pictures and datasets, disks that take no more, and memory."""

import random
import re
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from faults.checks import (
    check_end,
    check_undisturbed,
    check_whole,
    content,
    finals,
    images_done,
    state,
)
from faults.workplace import BY_IMAGE, DISCOVER, EMBED, MEASURE, PREDICT, draw, each, family, often

# 5: damaged files; those that would run code are handed over in tests/test_hostile.py

KINDS = {  # where files of each kind are, who writes them, and who reads them
    "input": ("input/*/*/input0.hdf5", PREDICT, MEASURE),
    "metrics": ("metrics/*/*/metrics0.p", MEASURE, EMBED),
    "components": ("components/*/*/components0.hdf5", MEASURE, EMBED),
    "vectors": ("embeddings/*/*/*/vectors0.p", EMBED, None),
    "embeddings": ("embeddings/*/embeddings*.p", EMBED, DISCOVER),
}


def damaged(data, name):
    """Bytes cut off, with one bit the other way, or none at all; the same for the same name."""
    rng = random.Random(name)
    at = rng.randrange(len(data))
    flipped = bytes([data[at] ^ 1 << rng.randrange(8)])
    return rng.choice([data[:at], data[:at], *[data[:at] + flipped + data[at + 1 :]] * 4, b""])


@pytest.mark.promise(5)
@pytest.mark.parametrize("number", range(often(160, 20)))
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_by_name(place, tmp_path, kind, number):
    (path,) = place.reference.glob(KINDS[kind][0])
    copy = tmp_path / path.name
    copy.write_bytes(damaged(path.read_bytes(), f"{kind} {number}"))
    with pytest.raises(ValueError, match=str(copy)):
        content(copy)


@pytest.mark.promise(5)
@pytest.mark.parametrize("number", range(often(4, 1)))
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_noticed_and_made_again(place, finished, kind, number):
    pattern, writer, reader = KINDS[kind]
    (path,) = finished.glob(pattern)
    path.write_bytes(damaged(path.read_bytes(), f"again {kind} {number}"))
    if reader:
        again = [] if reader == DISCOVER else ["args.overwrite=True"]
        check_end(place.run(reader, finished, *again), 1, says=[str(path)])
    images, todo = images_done(place, place.reference, writer), int(kind != "embeddings")
    plan = "1 to do, broken: image 0" if todo else "0 done"
    check_end(place.run(writer, finished, "args.dry_run=True"), says=[plan])
    check_end(place.run(writer, finished), counts=(todo, images - todo, 0))
    check_undisturbed(place, finished, writer)


# 6, 7: odd networks and datasets; odd pictures are handed over in tests/test_bad_images.py


@pytest.mark.promise(6)
def test_a_network_that_gives_nan_fails_every_picture_and_stores_nothing(place, tmp_path):
    weights = tmp_path / "nan.pth"
    torch.save({"colours": torch.full((3, 3), torch.nan)}, weights)
    total = images_done(place, place.reference, PREDICT)
    run = place.run(PREDICT, tmp_path, FAULTS_WEIGHTS=weights)
    check_end(run, 1, (0, 0, total), ["NaN"])
    assert not finals(tmp_path / "input")


DATASETS = {  # number of pictures, their height and width, IoU below which segments are suspicious
    "no picture": (0, 48, 64, 1.1),
    "no suspicious segment": (1, 48, 64, 1e-9),
    "a pixel": (1, 1, 1, 1.1),
    "a row of pixels": (1, 1, 64, 1.1),
    "a picture": (1, 48, 64, 1.1),
}


@pytest.mark.promise(7)
@each("name", DATASETS, [*DATASETS][:2])
def test_a_dataset_with_hardly_anything_is_done(place, tmp_path, name):
    *size, threshold = DATASETS[name]
    pictures, io_path = draw(tmp_path / "pictures", *size), tmp_path / "results"
    for step in BY_IMAGE:
        words = [f"args.iou_threshold={threshold}"] if step == EMBED else []
        check_end(place.run(step, io_path, *words, FAULTS_PICTURES=pictures))
        before = state(io_path)
        check_end(place.run(step, io_path, *words, FAULTS_PICTURES=pictures))
        assert state(io_path) == before


# 9: disks


@contextmanager
def disk(folder, options):
    """Make a folder a disk; gives what changes its options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a disk that is full or read-only")

    mount(options)
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", folder], check=True)


def check_refused(place, step, io_path, words, **variables):
    """A run that may not write over what is there says so and leaves it."""
    before = state(io_path)
    check_end(place.run(step, io_path, "args.overwrite=True", **variables), 1, says=[words])
    assert state(io_path) == before
    check_undisturbed(place, io_path, step)


@pytest.mark.promise(9)
@each("part", [0.1, 0.3, 0.5, 0.7], [0.5])
@each("step", BY_IMAGE, [EMBED])
def test_a_full_disk_ends_a_run_with_one_sentence(place, io_path, step, part):
    target, whole = (place.outputs(folder, step)[-1] for folder in (io_path, place.reference))
    size = sum(path.stat().st_size for path in finals(whole))
    with disk(target, f"size={int(part * size)}") as remount:
        check_end(place.run(step, io_path), 1, says=["No space left"])
        check_whole(target)
        remount(f"size={4 * size + 2**20}")
        check_end(place.run(step, io_path))
        check_undisturbed(place, io_path, step)


@pytest.mark.promise(9)
@each("step", BY_IMAGE, [MEASURE])
def test_a_read_only_disk_ends_a_run_with_one_sentence(place, io_path, step):
    with disk(place.outputs(io_path, step)[-1], "size=1g") as remount:
        check_end(place.run(step, io_path))
        remount("ro")
        check_refused(place, step, io_path, "Read-only")


@pytest.mark.promise(9)
@each("step", BY_IMAGE, [PREDICT])
def test_a_folder_without_permission_ends_a_run_with_one_sentence(place, finished, step):
    target = place.outputs(finished, step)[-1]
    folders = [target, *target.rglob("*/")]
    for folder in folders:
        folder.chmod(0o555)
    check_refused(place, step, finished, "Permission denied", FAULTS_RIGHTS="none")
    for folder in folders:
        folder.chmod(0o755)


# 14: memory

LARGE = often((4096, 8192), (256, 512))  # height and width in pixels


def peak(place, step, name, count, *size):
    """The most bytes that a step takes for some pictures; the steps before it are done first."""
    folder = place.elsewhere / name
    pictures = folder / "pictures" if folder.exists() else draw(folder / "pictures", count, *size)
    own = dict(FAULTS_PICTURES=pictures)
    words = {PREDICT: ["args.tile=[1024,1024]"]}
    for before in BY_IMAGE[: BY_IMAGE.index(step)]:
        check_end(place.run(before, folder, *words.get(before, []), **own))
    running, largest = place.start(step, folder, *words.get(step, []), **own), 0
    while running.is_alive():
        largest = max(largest, memory_of(running.pid))
        time.sleep(0.02)
    check_end(running.end())
    return largest


def memory_of(pid):
    """Bytes that a process and all it has started have written to memory of their own."""
    total = 0
    for process in family(pid):
        with suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += 1024 * int(re.search(r"^Private_Dirty: +(\d+)", rollup, re.M)[1])
    return total


@pytest.mark.promise(14)
@each("step", BY_IMAGE, [MEASURE])
def test_memory_does_not_grow_with_the_number_of_images(place, step):
    few, many = (peak(place, step, f"{n}_pictures", n) for n in often((500, 2000), (5, 20)))
    print(f"{step}: {(many - few) / 1e6:+.0f} MB")
    assert many - few <= 50e6


@pytest.mark.promise(14)
@each("step", BY_IMAGE, [PREDICT])
def test_memory_does_not_grow_far_beyond_a_large_image(place, step):
    one = 4 * 3 * LARGE[0] * LARGE[1]  # bytes of the probabilities of three classes
    taken = peak(place, step, "large", often(5, 2), *LARGE)
    print(f"{step}: {taken / one:.1f} times the probabilities of an image")
    assert taken <= 6 * one + 0.5e9
