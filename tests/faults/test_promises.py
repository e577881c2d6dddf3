"""What the stages promise, held against faults, in the order of the promises.

More of them are marked in other folders: odd pictures in tests/test_bad_images.py, files that would
run code in tests/test_hostile.py, processes and batches beside them.
"""

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from workers import new_cluster

from faults import check
from faults.workplace import (
    BY_IMAGE,
    COUNT,
    DISCOVER,
    EAGER,
    EMBED,
    LEARN,
    MEASURE,
    PREDICT,
    STEPS,
    TRAIN,
    draw,
    each,
    often,
    save_layer,
)
from src.store.paths import tags_path
from src.store.provenance import FORMATS, OTHER_FORMAT
from src.store.tags import read_tags

# 1, 2, 13: kills and interrupts


MADE = {TRAIN: ("wrote", "not trained again"), LEARN: ("thing is there", "is up to date")}


def stopped(place, step, io_path, number, rng, in_writing=False):
    """Start a step from nothing until a signal ends it; give that run, and sacred's status.

    The signal comes at any moment, or when any file has just been begun.
    """
    ours, theirs = (place.outputs(folder, step)[-1] for folder in (io_path, place.reference))
    report, status = io_path / "observed" / "1" / "run.json", "COMPLETED"
    while status == "COMPLETED":
        place.remove(io_path, step)
        shutil.rmtree(io_path / "observed", ignore_errors=True)
        count = rng.randint(1, len(check.finals(theirs)))
        running = place.start(step, io_path, options=["-F", io_path / "observed"])
        running.wait_until(report.exists)
        if in_writing:
            running.wait_until(lambda n=count: len([*ours.rglob("*.*")]) >= n)
        else:
            time.sleep(rng.uniform(0, place.seconds[step]))
        running.send(number)
        running.end()
        found = re.search(r'"status": "(\w+)"', report.read_text())
        status = found and found[1]  # None: killed while it was written
    return running, status


@pytest.fixture(scope="module", params=[*itertools.product(STEPS, range(often(14, 1)))], ids=str)
def killed(request, place):
    """A step whose processes were killed, and its results; half of the times while it wrote."""
    step, number = request.param
    rng, in_writing = random.Random(f"{step} {number}"), (number + STEPS.index(step)) % 2
    with place.results_without(step) as io_path:
        stopped(place, step, io_path, signal.SIGKILL, rng, in_writing)
        yield step, io_path


@pytest.mark.promise(1)
def test_every_final_file_is_whole_after_a_kill(place, killed):
    step, io_path = killed
    check.whole(*place.outputs(io_path, step))


@pytest.mark.promise(2)
def test_a_rerun_after_a_kill_does_what_is_missing(place, killed):
    step, io_path = killed
    done, run = check.images_done(place, io_path, step), place.run(step, io_path)
    if step in MADE:
        check.end(run, says=[MADE[step][done]])
    else:
        check.end(run, counts=(COUNT - done, done, 0))
    check.undisturbed(place, io_path, step)


@pytest.mark.promise(13)
@pytest.mark.parametrize("attempt", range(often(5, 1)))
@each(
    "step, number",
    itertools.product([*BY_IMAGE, LEARN], [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]),
    [(PREDICT, signal.SIGINT), (EMBED, signal.SIGTERM), (LEARN, signal.SIGINT)],
)
def test_a_signal_ends_a_run_cleanly_and_a_rerun_goes_on(place, io_path, step, number, attempt):
    rng = random.Random(f"{step} {number} {attempt}")
    run, status = stopped(place, step, io_path, number, rng)
    bars = re.findall(r"(?:predicting|measuring|embedding)[^%:]*: +(\d+)%", run.log)
    # 100: between two loops over images
    check.end(run, 128 + number, says=["interrupted"] if bars and bars[-1] != "100" else [])
    assert status == "INTERRUPTED"
    check.whole(*place.outputs(io_path, step))
    check.end(place.run(step, io_path))
    check.undisturbed(place, io_path, step)


# 3, 4: what is done, and what has to be done again

NO_NETWORK = {"src.segmentation.inference.load_network": None}


@pytest.mark.promise(3)
@pytest.mark.parametrize("step", STEPS)
def test_a_second_run_changes_no_file_and_loads_no_network(place, finished, step):
    before = check.state(finished)
    check.end(place.run(step, finished, changes=NO_NETWORK))
    assert check.state(finished) == before
    check.undisturbed(place, finished, step)
    if step in (PREDICT, EMBED, LEARN):  # the others need none
        again = place.run(step, finished, "args.overwrite=True", changes=NO_NETWORK)
        assert again.exitcode == 1


@pytest.mark.promise(4)
@each("setting", ["seed=1", "epochs=1", "batch_size=9", "learning_rate=0.1"], ["seed=1"])
def test_a_meta_model_is_trained_again_where_a_setting_is_another(place, finished, setting):
    before, words = check.state(finished), f"would be trained: other {setting.split('=')[0]}"
    dry = place.run(TRAIN, finished, f"args.{setting}", "args.dry_run=True")
    check.end(dry, says=[words])
    assert check.state(finished) == before
    for said in ("wrote", "not trained again"):
        check.end(place.run(TRAIN, finished, f"args.{setting}"), says=[said])


class World:
    """Pictures, labels and weights, what the stages have made of them, and how these are run.

    All lies elsewhere than when it was made.
    """

    def __init__(self, place, results, folder):
        self.place, self.results, self.formats, self.settings = place, results, dict(FORMATS), {}
        shutil.copytree(place.pictures.parent, folder / "data")
        self.pictures = folder / "data" / place.pictures.name
        self.weights = shutil.copy(place.weights, folder / "colours.pth")

    def run(self, step, *settings):
        own = dict(FAULTS_PICTURES=self.pictures, FAULTS_WEIGHTS=self.weights)
        settings = *self.settings.get(step, []), *settings
        formats = {"src.store.provenance.FORMATS": self.formats}
        return self.place.run(step, self.results, *settings, changes=formats, **own)

    def rewrite(self, contents):
        """Give pictures, by their number, the content of others."""
        paths = sorted(self.pictures.iterdir())
        contents = {paths[to]: paths[of].read_bytes() for to, of in contents.items()}
        for path, data in contents.items():
            path.write_bytes(data)


def other(count, fact):
    """What stages 1, 2 and 4 plan where predictions depend on another fact."""
    facts = fact, f"prediction.{fact}", "segments"
    return [f"{count} to do, other {name}" for name in facts]


DONE, AGAIN = "0 done", f"{COUNT} to do, {OTHER_FORMAT}"
ALL_DONE = [DONE, DONE, DONE]
CHANGES = {  # of a World, and what stages 1, 2 and 4 plan then
    "a picture is another": (lambda w: w.rewrite({2: 0}), other(1, "image.sha256")),
    "its files have other times": (
        lambda w: [*map(os.utime, [w.weights, *w.pictures.parent.rglob("*.png")])],
        ALL_DONE,
    ),
    "segments have another format": (
        lambda w: w.formats.update(segments=99),
        [DONE, AGAIN, f"{COUNT} to do, other segments"],
    ),
    "nothing": (lambda w: None, ALL_DONE),
    "results have other times": (
        lambda w: [*map(os.utime, w.results.rglob("*"))],
        ALL_DONE,
    ),
    "results are deleted": (lambda w: shutil.rmtree(w.results), [f"{COUNT} to do, missing"] * 3),
    "two change places": (lambda w: w.rewrite({0: 3, 3: 0}), other(2, "image.sha256")),
    "a picture comes": (
        lambda w: shutil.copy(w.pictures / "00000.png", w.pictures / "10000.png"),
        ["1 to do, missing"] * 3,
    ),
    "labels are gone": (
        lambda w: (w.pictures.with_name("labels") / "00001.png").unlink(),
        other(1, "labels"),
    ),
    "weights are others": (
        lambda w: save_layer(torch.eye(3), w.weights),
        [*other(COUNT, "network.weights")[:2], f"{COUNT} to do, other net.weights, segments"],
    ),
    "the precision is another": (
        lambda w: w.settings.update({PREDICT: ["args.precision=bfloat16"]}),
        other(COUNT, "precision"),
    ),
    "the threshold is another": (
        lambda w: w.settings.update({EMBED: ["args.iou_threshold=1.2"]}),
        [DONE, DONE, f"{COUNT} to do, other selection.iou_threshold"],
    ),
    "predictions have another format": (
        lambda w: w.formats.update(prediction=99),
        [AGAIN, *other(COUNT, "format")[1:]],
    ),
    "vectors have another format": (
        lambda w: w.formats.update(vectors=99),
        [DONE, DONE, AGAIN],
    ),
    "all is asked for again": (
        lambda w: w.settings.update(dict.fromkeys(BY_IMAGE, ["args.overwrite=True"])),
        [f"{COUNT} to do, args.overwrite"] * 3,
    ),
}


@pytest.mark.promise(4)
@each("change", CHANGES, [*CHANGES][:3])
def test_what_was_made_from_the_same_is_done_and_all_else_is_not(place, finished, tmp_path, change):
    make, plans = CHANGES[change]
    world = World(place, finished, tmp_path)
    make(world)
    total = len([*world.pictures.iterdir()])
    for step, plan in zip(BY_IMAGE, plans, strict=True):
        before, todo = check.state(finished), int(plan.split()[0])
        check.end(world.run(step, "args.dry_run=True"), says=[plan])
        assert check.state(finished) == before
        check.end(world.run(step), counts=(todo, total - todo, 0))


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
        check.content(copy)


@pytest.mark.promise(5)
@pytest.mark.parametrize("number", range(often(4, 1)))
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_noticed_and_made_again(place, finished, kind, number):
    pattern, writer, reader = KINDS[kind]
    (path,) = finished.glob(pattern)
    path.write_bytes(damaged(path.read_bytes(), f"again {kind} {number}"))
    if reader:
        again = [] if reader == DISCOVER else ["args.overwrite=True"]
        check.end(place.run(reader, finished, *again), 1, says=[str(path)])
    todo = int(kind != "embeddings")
    plan = "1 to do, broken: image 0" if todo else "0 done"
    check.end(place.run(writer, finished, "args.dry_run=True"), says=[plan])
    check.end(place.run(writer, finished), counts=(todo, COUNT - todo, 0))
    check.undisturbed(place, finished, writer)


@pytest.mark.promise(5)
@pytest.mark.parametrize("number", range(often(6, 1)))
def test_damaged_weights_that_were_learnt_are_learnt_again(place, finished, number):
    (path,) = finished.glob("learnt/thing/weights_*.pth")
    path.write_bytes(damaged(path.read_bytes(), f"learnt {number}"))
    check.end(place.run(LEARN, finished), says=[MADE[LEARN][0]])
    check.undisturbed(place, finished, LEARN)


@pytest.mark.promise(5)
@pytest.mark.parametrize("share", often([0, 0.2, 0.5, 0.99], [0.5]))
def test_cut_facts_of_a_learnt_network_are_refused_by_name(place, finished, share):
    path = finished / "learnt" / "thing" / "learnt.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    check.end(place.run(LEARN, finished), 1, says=[f"{path} is broken"])
    check.end(place.run(PREDICT, finished, "args.model_name=learnt/thing"), 1, says=[str(path)])


@pytest.mark.promise(10)
@pytest.mark.parametrize("step", [LEARN])
def test_one_of_two_runs_makes_a_network_and_the_other_says_so(place, io_path, step):
    runs = [running.end() for running in [place.start(LEARN, io_path) for _ in range(2)]]
    first, second = sorted(runs, key=lambda run: run.exitcode)
    check.end(first)
    if second.exitcode:  # else it came later
        check.end(second, 1, says=["another run is making learnt/thing"])
    check.undisturbed(place, io_path, LEARN)


# 7: odd datasets; odd pictures are handed over in tests/test_bad_images.py

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
        check.end(place.run(step, io_path, *words, FAULTS_PICTURES=pictures))
        before = check.state(io_path)
        check.end(place.run(step, io_path, *words, FAULTS_PICTURES=pictures))
        assert check.state(io_path) == before


# 8: processes that die


@pytest.mark.promise(8)
@each("step", BY_IMAGE, [PREDICT])
def test_a_process_that_is_killed_costs_nothing(place, io_path, tmp_path, step):
    changes, death = EAGER | {"src.run.processes._each": "die_once"}, tmp_path / "death"
    run = place.run(step, io_path, "args.num_cores=3", changes=changes, FAULTS_DEATH=death)
    assert death.exists()
    check.end(run, counts=(COUNT, 0, 0))
    check.undisturbed(place, io_path, step)


# 9: disks


@contextmanager
def disk(folder, size):
    """Make a folder a disk of some bytes; gives what changes its options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(options):
        command = "mount", "-t", "tmpfs", "-o", options, "tmpfs", folder
        return subprocess.run(command, capture_output=True).returncode == 0

    if not shutil.which("mount") or not mount(f"size={size}"):
        pytest.skip("only root may mount a disk that is full or read-only")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", folder], check=True)


def check_refused(place, step, io_path, words, **variables):
    """A run that may not write over what is there says so and leaves it."""
    before = check.state(io_path)
    check.end(place.run(step, io_path, "args.overwrite=True", **variables), 1, says=[words])
    assert check.state(io_path) == before
    check.undisturbed(place, io_path, step)


@pytest.mark.promise(9)
@each("part", [0.1, 0.3, 0.5, 0.7], [0.5])
@each("step", [*BY_IMAGE, LEARN], [EMBED, LEARN])
def test_a_full_or_read_only_disk_ends_a_run_with_one_sentence(place, io_path, step, part):
    target, whole = (place.outputs(folder, step)[-1] for folder in (io_path, place.reference))
    size = sum(path.stat().st_size for path in check.finals(whole))
    with disk(target, int(part * size)) as remount:
        check.end(place.run(step, io_path), 1, says=["No space left"])
        check.whole(target)
        remount(f"size={4 * size + 2**20}")
        check.end(place.run(step, io_path))
        check.undisturbed(place, io_path, step)
        remount("ro")
        check_refused(place, step, io_path, "Read-only")


@pytest.mark.promise(9)
@each("step", [*BY_IMAGE, LEARN], [PREDICT, LEARN])
def test_a_folder_without_permission_ends_a_run_with_one_sentence(place, finished, step):
    target = place.outputs(finished, step)[-1]
    folders = [target, *target.rglob("*/")]
    for folder in folders:
        folder.chmod(0o555)
    check_refused(place, step, finished, "Permission denied", FAULTS_RIGHTS="none")
    for folder in folders:
        folder.chmod(0o755)


# 10, 11: several runs, other ways


@pytest.mark.promise(10)
@pytest.mark.parametrize("shards", [[[]] * 2, [[f'args.shard="{k}/3"'] for k in range(3)]])
@each("step", BY_IMAGE, [EMBED])
def test_runs_at_the_same_time_share_the_work(place, io_path, step, shards):
    runs = [running.end() for running in [place.start(step, io_path, *words) for words in shards]]
    for run in runs:
        check.end(run)
    assert len(shards) == 2 or sum(run.counts[0] for run in runs) == COUNT
    check.end(place.run(step, io_path), counts=(0, COUNT, 0))
    check.undisturbed(place, io_path, step)


WAYS = [
    *[(PREDICT, "subset_file={backwards}"), (PREDICT, "num_cores=3"), (MEASURE, "num_cores=2")],
    *[(MEASURE, "num_cores=3"), (EMBED, "num_cores=2"), (EMBED, "num_cores=3")],
]


@pytest.mark.promise(11)
@each("step, setting", WAYS, WAYS[:1])
def test_another_order_and_several_processes_make_the_same(place, io_path, tmp_path, step, setting):
    backwards = tmp_path / "indices.txt"
    backwards.write_text("\n".join(map(str, reversed(range(COUNT)))))
    words = f"args.{setting.format(backwards=backwards)}"
    check.end(place.run(step, io_path, words, changes=EAGER))
    check.undisturbed(place, io_path, step)


# 14: memory

LARGE = often((4096, 8192), (256, 512))  # height and width in pixels


def peak(place, step, name, count, *size):
    """The most bytes that a step takes for some pictures; the steps before it are done first."""
    folder = place.elsewhere / name
    pictures = folder / "pictures" if folder.exists() else draw(folder / "pictures", count, *size)
    words = {PREDICT: ["args.tile=[1024,1024]"]}
    for before in BY_IMAGE[: BY_IMAGE.index(step) + 1]:
        largest, own = 0, words.get(before, [])
        running = place.start(before, folder, *own, FAULTS_PICTURES=pictures)
        while running.is_alive():
            largest = max(largest, memory_of(running.pid))
            time.sleep(0.02)
        check.end(running.end())
    return largest


def memory_of(pid):
    """Bytes that a process and all it has started have for themselves."""
    with suppress(psutil.Error):  # one may be gone
        process = psutil.Process(pid)
        family = process, *process.children(recursive=True)
        return sum(member.memory_full_info().uss for member in family)
    return 0


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


# 21: clusters


@pytest.fixture
def two_workers(place):
    """A cluster, and its workers, which find what the driver finds."""
    pytest.importorskip("distributed")
    own = {"path": [place.folder], **place.variables()}
    with new_cluster() as cluster:
        yield cluster, [cluster.worker(**own) for _ in range(2)]


@pytest.mark.promise(21)
@pytest.mark.parametrize("attempt", range(often(3, 1)))
@each(
    "step, victim",
    itertools.product(BY_IMAGE, ["worker", "scheduler", "driver"]),
    [(PREDICT, "worker"), (MEASURE, "driver"), (EMBED, "scheduler")],
)
def test_a_part_of_a_cluster_that_is_killed_costs_time_only(
    place, io_path, two_workers, step, victim, attempt
):
    cluster, (worker, _) = two_workers
    target, rng = place.outputs(io_path, step)[-1], random.Random(f"{step} {victim} {attempt}")
    count = rng.randint(1, COUNT // 2)
    on_cluster = f"args.scheduler={cluster.address}"
    running = place.start(step, io_path, on_cluster)
    running.wait_until(lambda: len([*target.rglob("[!.]*.*")]) >= count)
    if victim == "driver":
        running.send(signal.SIGKILL)
    else:
        {"worker": worker, "scheduler": cluster.scheduler}[victim].process.kill()
    run = running.end()
    if victim == "worker":
        check.end(run, counts=(COUNT, 0, 0))
    elif run.exitcode != 0:  # 0: it was done before
        code, says = {"scheduler": (1, ["scheduler"]), "driver": (-signal.SIGKILL, [])}[victim]
        check.end(run, code, says=says)
    check.whole(*place.outputs(io_path, step))
    check.end(place.run(step, io_path, *[on_cluster] * (victim != "scheduler")))
    check.undisturbed(place, io_path, step)


# 22: the explorer's files: the map in the table, the pictures, the tags

SHOWN = "mainplot.segment=0"


def explored(io_path):
    """What the explorer has left: the table as it is read, and its pictures as arrays."""
    (table,) = io_path.glob("embeddings/*/embeddings*.p")
    pictures = {path.name: np.asarray(Image.open(path)) for path in io_path.glob("*.png")}
    return check.content(table), pictures


@pytest.fixture(scope="module")
def map_of_all(place):
    """What an undisturbed explorer leaves."""
    with place.results_without(None) as folder:
        check.end(place.run(DISCOVER, folder, SHOWN))
        yield explored(folder)


@pytest.mark.promise(22)
@pytest.mark.parametrize("attempt", range(often(8, 1)))
@each("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [signal.SIGKILL])
def test_an_explorer_that_is_stopped_leaves_whole_files(
    place, finished, map_of_all, number, attempt
):
    rng, began = random.Random(f"{number} {attempt}"), finished / "observed" / "1" / "run.json"
    running = place.start(DISCOVER, finished, SHOWN, options=["-F", finished / "observed"])
    running.wait_until(began.exists)
    wanted = rng.randint(0, 3)  # files that have been begun
    running.wait_until(lambda: len([*finished.glob("*map*")]) >= wanted)
    running.send(number)
    run = running.end()
    if number != signal.SIGKILL:
        check.end(run, *(() if run.exitcode == 0 else (128 + number,)))
    explored(finished)
    check.end(place.run(DISCOVER, finished, SHOWN))
    np.testing.assert_equal(explored(finished), map_of_all)


TAGS = b'{"tags": [{"dataset": "pictures", "image_index": 0, "component_index": 1, '
TAGS += b'"box": [0, 0, 4, 4], "tag": "boat"}]}'
BROKEN_TAGS = {
    "empty": b"",
    "cut": TAGS[:60],
    "a box of three": TAGS.replace(b", 4]", b"]"),
    "no tag": TAGS.replace(b', "tag": "boat"', b""),
    "a number": TAGS.replace(b'"boat"', b"7"),
    "no UTF-8": TAGS.replace(b"boat", b"\xff"),
    "zeros": bytes(len(TAGS)),
    "deep": b"[" * 100_000,
}


@pytest.mark.promise(22)
@each("name", BROKEN_TAGS, [*BROKEN_TAGS][:2])
def test_tags_that_are_broken_are_refused_by_name_and_stay(place, finished, name):
    (table,) = finished.glob("embeddings/*/embeddings*.p")
    path = tags_path(table)
    path.write_bytes(BROKEN_TAGS[name])
    check.end(place.run(DISCOVER, finished), 1, says=[f"{path} is broken"])
    assert path.read_bytes() == BROKEN_TAGS[name]


@pytest.mark.promise(22)
@each("size", [0, 20_000, 200_000], [20_000])
def test_an_explorers_picture_that_finds_no_room_is_not_there(place, finished, size):
    folder = finished / "pictures of the map"
    with disk(folder, size or 1) as remount:
        if not size:
            remount("ro")
        words = ["Read-only" if not size else "No space left"]
        place_of = f"mainplot.save_path={folder / 'map.png'}"
        check.end(place.run(DISCOVER, finished, place_of, SHOWN), 1, says=words)
        for path in folder.iterdir():
            Image.open(path).load()


# 15: tags

TAGGING = """
import sys
from src.store.tags import change_tags

for number in range(20):
    change_tags(sys.argv[1], {(sys.argv[2], number, 1, (0, 0, 9, 9)): "cow"})
    print(number, flush=True)
"""


@pytest.mark.promise(15)
@pytest.mark.parametrize("number", range(often(8, 1)))
def test_tags_of_several_writers_stay_though_one_is_killed(tmp_path, number):
    path, names = tmp_path / "tags.json", ["one", "two", "killed"]
    writers = [
        subprocess.Popen([sys.executable, "-c", TAGGING, path, name], stdout=subprocess.PIPE)
        for name in names
    ]
    told = [writers[2].stdout.readline() for _ in range(1 + 2 * number)]
    writers[2].kill()
    told += writers[2].stdout.readlines()
    assert [writer.wait() for writer in writers[:2]] == [0, 0]
    for writer in writers:
        writer.wait()
        writer.stdout.close()
    found = {entry[:2] for entry in read_tags(path)}
    assert found >= {(name, number) for name in names[:2] for number in range(20)}
    assert found >= {("killed", number) for number in range(len(told))}
