"""The faults that each promise is held against.

Every function here injects faults at a Workplace. After each it yields the number of the promise
and the problems, lines of text: none where the stages survived.
"""

import contextlib
import functools
import itertools
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from src.run import parallel
from src.store import cache
from tools.faults.workplace import (
    EAGER,
    EMBED,
    MEASURE,
    PREDICT,
    REPOSITORY,
    STEPS,
    TRAIN,
    Step,
    broken,
    content,
    differences,
    finals,
    leftovers,
    state,
)

BY_IMAGE = PREDICT, MEASURE, EMBED
OWN_PICTURES = tuple(Step(stage, "pictures", "tiny") for stage in ("predict", "measure", "embed"))
EVERY_SEGMENT = ["args.iou_threshold=1.1"]


# what every run is held to


def ended(run, exitcode=0, counts=None, says=()):
    """Problems of how a run ended: exit code, summary, words in its log, no traceback."""
    problems = []
    if run.exitcode != exitcode:
        problems.append(f"exit code {run.exitcode} instead of {exitcode}")
    if counts is not None and run.counts != counts:
        problems.append(f"(done, skipped, failed) is {run.counts} instead of {counts}")
    problems += [f"{words!r} is not in the log" for words in says if words not in run.log]
    if "Traceback" in run.log:
        problems.append("a traceback")
    return [f"{problem}: {run.log[-600:]}" for problem in problems]


def as_undisturbed(place, io_path, step):
    """Problems of what a step has written: not whole, not as in the reference, leftovers."""
    ours, theirs = (place.outputs(folder, step) for folder in (io_path, place.reference))
    problems = [line for pair in zip(ours, theirs, strict=True) for line in differences(*pair)]
    left = [f"{path} is left over" for path in leftovers(io_path)]
    return [*problems, *broken(*ours), *left]


def images_done(place, io_path, step):
    """How many images of a step have all that it writes about them."""
    outputs = place.outputs(io_path, step)
    if step.stage != "embed":
        numbers = [{re.sub(r"\D", "", path.stem) for path in finals(folder)} for folder in outputs]
        return len(set.intersection(*numbers))
    segments = []
    for folder in (*outputs, *place.outputs(place.reference, step)):
        tables = [cache.read_embeddings(path) for path in finals(folder)]
        of_images = [t["image_index"][t["image_level_index"]] for t in tables]
        rows = np.concatenate([*of_images, []]).astype(int)
        segments.append(np.bincount(rows, minlength=1000))  # of each image; there are fewer
    return int(((segments[0] == segments[1]) & (segments[1] > 0)).sum())


# 1, 2: kill -9


def kills(place, step):
    """Kill a stage at random moments, half of them while it writes, and run it again."""
    rng, io_path = random.Random(step.stage), place.results(f"killed_{step.stage}")
    outputs, total = place.outputs(io_path, step), images_done(place, place.reference, step)
    for number in range(place.count(14, 2)):
        kill_at_random(place, step, io_path, rng, in_writing=number % 2)
        yield 1, broken(*outputs)
        done = images_done(place, io_path, step)
        run = place.run(step, io_path)
        if step == TRAIN:
            problems = ended(run, says=["not trained again"] if done else ["wrote"])
        else:
            problems = ended(run, counts=(total - done, done, 0))
        yield 2, problems + as_undisturbed(place, io_path, step)
        for path in leftovers(io_path):  # count each once
            path.unlink()


def kill_at_random(place, step, io_path, rng, in_writing):
    """Start a step from nothing and kill it and its processes, until that was before its end.

    At any moment, or when it has just begun to write any of its files.
    """
    exitcode = 0
    while exitcode != -signal.SIGKILL:
        place.remove(io_path, step)
        folder, names = place.outputs(io_path, step)[-1], 2 if step in (TRAIN, EMBED) else 6
        running = place.start(step, io_path)
        if in_writing:
            wait_for_file(
                running, folder.parent if folder.suffix else folder, rng.randint(1, names)
            )
        else:
            time.sleep(rng.uniform(0, place.seconds[step.stage]))
        running.send(signal.SIGKILL)
        exitcode = running.end().exitcode


def wait_for_file(running, folder, count):
    """Wait until so many names have come up in a folder: the last file has just been begun."""
    before = names_in(folder)
    while running.is_alive() and len(names_in(folder) - before) < count:
        time.sleep(0.0002)


def names_in(folder):
    """Names of all that is in a folder, which may be missing."""
    with contextlib.suppress(OSError):
        return {path.name for path in folder.iterdir()}
    return set()


# 3, 4: what is done


def second_runs(place):
    """Run every stage again over finished work."""
    if not place.built.exists():
        yield 3, ["the networks do not tell that they are built"]
    place.built.unlink()
    io_path = place.results("again")
    before = state(io_path)
    for step in STEPS:
        problems = ended(place.run(step, io_path, FAULTS_BUILT=place.built))
        if state(io_path) != before:
            problems.append(f"{step.stage} has changed a file")
        if place.built.exists():
            problems.append(f"{step.stage} has loaded a network")
        yield 3, problems + as_undisturbed(place, io_path, step)


def changes(place):
    """Change what the results were made from, one thing after the other."""
    pictures, io_path = place.pictures("changing", 4), place.folder / "changed"
    weights = place.folder / "changing.pth"
    shutil.copy(place.folder / "own" / "weights" / "tiny.pth", weights)
    variables = dict(FAULTS_PICTURES=pictures, FAULTS_WEIGHTS=weights)

    def change_picture():
        with Image.open(pictures / "00002.png") as picture:
            picture.rotate(180).save(pictures / "00002.png")

    def change_weights():
        old = torch.load(weights, weights_only=True)
        torch.save({name: -value for name, value in old.items()}, weights)

    def nothing():
        pass

    other = ["args.precision=bfloat16"]
    later_format = {"changes": {"src.store.cache.FORMAT": 99}}
    rows = [
        (nothing, 4, "missing", [], {}),
        (nothing, 0, "", [], {}),
        (change_picture, 1, "image.mtime_ns", [], {}),
        (change_weights, 4, "network.weights", [], {}),
        (nothing, 4, "precision", other, {}),
        (nothing, 4, "format", other, later_format),
        (nothing, 4, "args.overwrite", [*other, "args.overwrite=True"], later_format),
    ]
    for change, images, reason, own, everywhere in rows[: place.count(7, 3)]:
        change()
        for step in OWN_PICTURES:
            settings = [*EVERY_SEGMENT, *own[1:]] if step.stage == "embed" else own
            settings = own[1:] if step.stage == "measure" else settings
            run = functools.partial(place.run, step, io_path, **everywhere, **variables)
            is_other = step.stage == "embed" and images and reason != "args.overwrite"
            why = "without a vector" if is_other else reason
            before = state(io_path)
            dry = run(*settings, "args.dry_run=True")
            problems = ended(dry, says=[f"{images} to do" if images else "0 done", why])
            if state(io_path) != before:
                problems.append("the dry run has changed a file")
            yield 4, problems + ended(run(*settings), counts=(images, 4 - images, 0))


def retraining(place):
    """Train the meta model again, from another seed."""
    io_path = place.results("retrained")
    again, weights = "args.overwrite=True", io_path / "meta.pth"
    for settings, words, is_changed in (
        (["args.seed=1", "args.dry_run=True"], "seed", False),
        (["args.seed=1"], "wrote", True),
        (["args.seed=1"], "not trained again", False),
        (["args.seed=1", again], "wrote", True),
    ):
        before = state(weights)
        problems = ended(place.run(TRAIN, io_path, *settings), says=[words])
        if (state(weights) != before) != is_changed:
            problems.append(f"{settings} has changed the weights, or should have")
        yield 4, problems


# 5: broken files


def damaged(data, rng):
    """Bytes cut off, with one bit the other way, or none at all."""
    at = rng.randrange(len(data))
    flipped = bytes([data[at] ^ 1 << rng.randrange(8)])
    return rng.choice([data[:at], data[:at], *[data[:at] + flipped + data[at + 1 :]] * 4, b""])


def files_of_each_kind(place, io_path):
    """The first image's files and the table of vectors, each with the step that writes it."""
    steps = PREDICT, MEASURE, MEASURE, EMBED
    outputs = [folder for step in BY_IMAGE for folder in place.outputs(io_path, step)]
    return [(finals(folder)[0], step) for folder, step in zip(outputs, steps, strict=True)]


def damaged_reads(place):
    """Read files of each kind that are damaged anywhere."""
    rng, folder = random.Random(5), place.folder / "damaged"
    for path, _ in files_of_each_kind(place, place.reference):
        whole, data = content(path), path.read_bytes()
        copy = folder / path.relative_to(place.reference)
        copy.parent.mkdir(parents=True)
        for _ in range(place.count(200, 40)):
            copy.write_bytes(damaged(data, rng))
            problems = []
            try:
                np.testing.assert_equal(content(copy), whole)
            except ValueError as error:
                if str(copy) not in str(error):
                    problems.append(f"{copy} is not named: {error!r}")
            except Exception as error:
                problems.append(f"{copy}: {error!r}"[:400])
            yield 5, problems


def damaged_results(place):
    """Run the stage that reads a damaged file, then the one that makes it again."""
    rng, io_path = random.Random(6), place.results("mended")
    measure, embed = ([step, "args.overwrite=True"] for step in (MEASURE, EMBED))
    readers = measure, embed, embed, [Step("discover"), "mainplot.save_path=map.png"]
    cases = zip(files_of_each_kind(place, io_path), readers, strict=True)
    for ((path, owner), (reader, *settings)), _ in itertools.product(
        cases, range(place.count(3, 1))
    ):
        path.write_bytes(damaged(path.read_bytes(), rng))
        run = place.run(reader, io_path, *settings)
        yield 5, ended(run, 1, says=[str(path), "1 failed" if reader in BY_IMAGE else ""])
        images = images_done(place, place.reference, owner)
        redone = images if owner == EMBED else 1
        run = place.run(owner, io_path)
        problems = ended(run, counts=(redone, images - redone, 0))
        yield 5, problems + as_undisturbed(place, io_path, owner)
        for step in (MEASURE, EMBED):
            place.run(step, io_path)


# 6, 7: odd pictures and datasets


def bad_pictures(place):
    """A folder with pictures that cannot be read among others."""
    pictures = place.pictures("bad", 3)
    good = Image.open(pictures / "00000.png")
    good.convert("I;16").save(pictures / "good_grey16.png")
    good.convert("CMYK").save(pictures / "good_cmyk.jpg")
    good.save(pictures / "good.jpg")
    data = (pictures / "good.jpg").read_bytes()
    bad = {"cut.jpg": data[: len(data) // 2], "empty.png": b"", "text.png": b"no picture"}
    for name, content_of_it in bad.items():
        (pictures / name).write_bytes(content_of_it)
    (pictures / "gone.png").symlink_to("nowhere")
    names, variables = [*bad, "gone.png"], {"FAULTS_PICTURES": pictures}
    step, io_path = OWN_PICTURES[0], place.folder / "bad_results"
    for counts in ((6, 0, 4), (0, 6, 4)):
        run = place.run(step, io_path, **variables)
        yield 6, ended(run, 1, counts, names) + broken(io_path)
    first = place.run(step, place.folder / "fail_fast", "args.fail_fast=True", **variables)
    yield 6, ended(first, 1, says=["1 failed", "cut.jpg"])
    nan = place.run(step, place.folder / "nan", FAULTS_NAN=1, **variables)
    stored = [f"{path} is stored" for path in finals(place.folder / "nan")]
    yield 6, ended(nan, 1, (0, 0, 10), ["NaN"]) + stored


def small_datasets(place):
    """Datasets of no image, of one, of one pixel, and without a suspicious segment."""
    cases = [
        ("none", 0, (48, 64), 1.1),
        ("pixel", 1, (1, 1), 1.1),
        ("unsuspicious", 1, (48, 64), 1e-9),
        ("one", 1, (48, 64), 1.1),
    ]
    for name, count, size, threshold in cases[: place.count(4, 3)]:
        pictures, io_path = place.pictures(name, count, *size), place.folder / f"{name}_results"
        for step in OWN_PICTURES:
            settings = [f"args.iou_threshold={threshold}"] if step.stage == "embed" else []
            run = functools.partial(place.run, step, io_path, *settings, FAULTS_PICTURES=pictures)
            problems = ended(run())
            before = state(io_path)
            problems += ended(run())
            if state(io_path) != before:
                problems.append(f"{name}: {step.stage} is done again")
            yield 7, problems


# 8: processes that die


def worker_deaths(place):
    """Kill a process of a stage that works with several."""
    for step in (MEASURE, EMBED, PREDICT)[: place.count(3, 1)]:
        io_path = place.results(f"worker_{step.stage}", without=step)
        running = place.start(step, io_path, "args.num_cores=3", changes=EAGER)
        workers = []
        while len(workers) < 2 and running.is_alive():
            below = [pid for server in children(running.pid) for pid in children(server)]
            workers = [*filter(is_worker, below)]
        if len(workers) == 2:
            os.kill(workers[0], signal.SIGKILL)
        total = images_done(place, place.reference, step)
        problems = [] if len(workers) == 2 else ["there was no process to kill"]
        problems += ended(running.end(), counts=(total, 0, 0))
        yield 8, problems + as_undisturbed(place, io_path, step)


def deadly_images(_place):
    """Work on an image that kills the process each time."""
    # in a process of its own: this one may start and poll processes in one place only
    code = "from tools.faults.promises import *; print(meet_deadly_image())"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    done, *failed = run.stdout.splitlines() or [""]
    is_named = len(failed) == 1 and failed[0].startswith("image 2: ") and "3 times" in failed[0]
    yield 8, [] if done == "5" and is_named else [f"{run.stdout}{run.stderr[-600:]}"]


def meet_deadly_image():
    """How many of six images are done, and a line for each other one."""
    log = logging.getLogger("faults")
    log.addHandler(logging.NullHandler())
    with parallel.LocalProcesses(2) as executor:
        tally = parallel.for_each_image(
            die_at_2, range(6), num_cores=2, description="dying", executor=executor, log=log
        )
    return "\n".join([str(tally.done), *(f"{name}: {reason}" for name, reason in tally.failed)])


def die_at_2(index):
    """Work that needs more memory than there is, at one image."""
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def is_worker(pid):
    """Whether a process works for another one; libraries start others while they are imported."""
    with contextlib.suppress(OSError):
        return b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def children(pid):
    """Processes that a process has started; none where it is gone."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    return []


# 9: disks


def bad_disks(place):
    """A full disk, a read-only one, and a folder without permission."""
    for step in BY_IMAGE[: place.count(3, 1)]:
        io_path = place.results(f"disk_{step.stage}", without=step)
        target = place.outputs(io_path, step)[-1]
        needed = sum(
            path.stat().st_size for path in finals(place.outputs(place.reference, step)[-1])
        )
        with small_disk(target, needed // 2) as remount:
            if remount:
                run = place.run(step, io_path)
                yield 9, ended(run, 1, says=["No space left"]) + broken(target)
                remount(f"size={4 * needed + 2**20}")
                yield 9, ended(place.run(step, io_path)) + as_undisturbed(place, io_path, step)
                remount("ro")
                yield 9, refused(place, step, io_path, "Read-only")
        if not finals(target):
            place.run(step, io_path)
        target.chmod(0o555)
        yield 9, refused(place, step, io_path, "Permission denied", privileges=False)
        target.chmod(0o755)
        yield 9, ended(place.run(step, io_path)) + as_undisturbed(place, io_path, step)


def refused(place, step, io_path, words, **keywords):
    """Problems of a run that cannot write over what is there."""
    before = state(io_path)
    run = place.run(step, io_path, "args.overwrite=True", **keywords)
    changed = ["files have changed"] if state(io_path) != before else []
    return ended(run, 1, says=[words]) + changed


@contextlib.contextmanager
def small_disk(folder, size):
    """A disk of so many bytes at a folder; gives what changes its options, None if forbidden."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    if not shutil.which("mount") or not mount(f"size={size}"):
        print("left out: a full and a read-only disk, which root may mount", file=sys.stderr)
        yield None
        return
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# 10, 11: several runs, in any order


def side_by_side(place):
    """Two runs at the same time, and the shards of one."""
    for step in BY_IMAGE:
        for name, settings in {
            "twice": [[], []],
            "shards": [[f'args.shard="{k}/3"'] for k in range(3)],
        }.items():
            io_path = place.results(f"{name}_{step.stage}", without=step)
            running = [place.start(step, io_path, *words) for words in settings]
            runs = [run.end() for run in running]
            problems = [line for run in runs for line in ended(run)]
            if name == "shards" and (total := sum(run.counts[0] for run in runs if run.counts)):
                expected = images_done(place, place.reference, step)
                problems += [f"{total} of {expected} images done"] if total != expected else []
                problems += ended(place.run(step, io_path), counts=(0, expected, 0))
            yield 10, problems + as_undisturbed(place, io_path, step)


def other_ways(place):
    """The same work by several processes, and in another order."""
    indices = place.folder / "indices.txt"
    count = images_done(place, place.reference, PREDICT)
    indices.write_text("\n".join(map(str, reversed(range(count)))))
    ways = [(PREDICT, [f"args.subset_file={indices}"]), (MEASURE, ["args.num_cores=2"])]
    ways += [(PREDICT, ["args.num_cores=3"]), (MEASURE, ["args.num_cores=3"])]
    ways += [(EMBED, ["args.num_cores=2"]), (EMBED, ["args.num_cores=3"])]
    ways = ways[: place.count(6, 2)]
    for number, (step, settings) in enumerate(ways):
        io_path = place.results(f"way_{number}", without=step)
        problems = ended(place.run(step, io_path, *settings, changes=EAGER))
        yield 11, problems + as_undisturbed(place, io_path, step)


def batch_sizes(place):
    """Vectors of crops do not depend on how many go through the network together, to 1e-4."""
    import torchvision  # slow

    weights = place.folder / "mobilenet.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), weights)
    io_path = place.results("batches", without=EMBED)
    vectors = []
    for size in place.count((1, 16, 3), (1, 16)):
        settings = "args.net=mobilenet_v3_small", f"args.net_weights={weights}"
        run = place.run(EMBED, io_path, *settings, f"args.batch_size={size}", "args.overwrite=True")
        tables = [content(path) for path in finals(*place.outputs(io_path, EMBED))]
        vectors += [table["content"]["embeddings"] for table in tables]
        same = len(vectors) and np.allclose(vectors[0], vectors[-1], rtol=1e-4, atol=1e-5)
        yield 11, ended(run) + ([] if same else [f"other vectors with batches of {size}"])


# 12: hostile files


def hostile_files(place):
    """The tests of the suite that hand hostile files to every loader; the short form is in it."""
    if place.is_small:
        return
    tests = REPOSITORY / "tests" / "test_hostile.py"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", str(tests)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", run.stdout)}
    yield from [(12, [])] * counts.get("passed", 0)
    for _ in range(max(counts.get("failed", 0) + counts.get("error", 0), run.returncode)):
        yield 12, [run.stdout[-600:] + run.stderr[-600:]]


# 13: signals


def signals(place):
    """Ctrl-C and SIGTERM at random moments after the run has begun."""
    rng = random.Random(13)
    pairs = list(itertools.product(BY_IMAGE, (signal.SIGINT, signal.SIGTERM)))
    for step, number in place.count(pairs, [pairs[0], pairs[3], pairs[5]]):
        io_path = place.results(f"{step.stage}_{number.name}", without=step)
        for attempt in range(place.count(4, 1)):
            yield 13, interrupted(place, step, io_path, number, rng, attempt)
        run = place.run(step, io_path)
        yield 13, ended(run) + as_undisturbed(place, io_path, step)


def interrupted(place, step, io_path, number, rng, attempt):
    """Problems of a run that a signal ends; tried again where it has ended before."""
    while True:
        place.remove(io_path, step)
        observed = place.folder / "observed" / f"{step.stage}_{number.name}_{attempt}"
        shutil.rmtree(observed, ignore_errors=True)
        running = place.start(step, io_path, options=["-F", str(observed)])
        report = observed / "1" / "run.json"
        while running.is_alive() and not report.exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, place.seconds[step.stage]))
        if running.is_alive():
            running.send(number) if number == signal.SIGINT else os.kill(running.pid, number)
        run = running.end()
        status = json.loads(report.read_text())["status"]
        if status != "COMPLETED":
            break
    bars = re.findall(r"(\d+)%\|", run.log)  # 100: between two loops over images
    says = ["interrupted"] if bars and bars[-1] != "100" else []
    problems = ended(run, 128 + number, says=says) + broken(*place.outputs(io_path, step))
    return problems + ([] if status == "INTERRUPTED" else [f"sacred's status is {status}"])


# 14: memory


def memory(place):
    """The memory of a stage does not grow with the number of images, nor far beyond one large one.

    With four times as many images it takes at most 50 MB more; for large images, at most six times
    the probabilities of one of them and half a gigabyte.
    """
    few = place.count(500, 5)
    folders = [place.pictures(f"{count}_pictures", count) for count in (few, 4 * few)]
    large = place.pictures("large", place.count(5, 2), *place.count((4096, 8192), (256, 512)))
    one = 4 * 19 * np.prod(place.count((4096, 8192), (256, 512)))
    for step in OWN_PICTURES:
        (less, problems), (more, others) = (peak(place, step, pictures) for pictures in folders)
        grown = (more - less) / 1e6
        problems += others
        if grown > 50:
            problems.append(f"{step.stage}: {grown:.0f} MB more for {4 * few} than {few} images")
        yield 14, problems
        taken, problems = peak(place, step, large)
        if taken > 6 * one + 0.5e9:
            problems.append(f"{step.stage}: {taken / one:.1f} times an image's probabilities")
        yield 14, problems
        figures = f"{grown:+.0f} MB; {taken / one:.1f} times an image's probabilities"
        print(f"memory, {step.stage}: {figures}", file=sys.stderr, flush=True)


def peak(place, step, pictures):
    """Largest memory in bytes that a stage takes, all its processes together; and problems."""
    io_path = place.folder / f"{pictures.name}_results"
    settings = {"predict": ["args.tile=[1024,1024]"], "embed": EVERY_SEGMENT}.get(step.stage, [])
    running = place.start(step, io_path, *settings, FAULTS_PICTURES=pictures)
    largest = 0
    while running.is_alive():
        largest = max(largest, memory_of(running.pid))
        time.sleep(0.02)
    return largest, ended(running.end())


def memory_of(pid):
    """Bytes that a process and all it has started have written to memory of their own."""
    total = 0
    with contextlib.suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total = 1024 * int(re.search(r"^Private_Dirty: +(\d+)", rollup, re.M)[1])
    return total + sum(memory_of(child) for child in children(pid))


CAMPAIGN = (  # what takes longest first
    *(memory, signals, side_by_side, bad_disks, damaged_results),
    *(functools.partial(kills, step=step) for step in STEPS),
    *(changes, small_datasets, second_runs, retraining, damaged_reads, bad_pictures),
    *(worker_deaths, deadly_images, other_ways, batch_sizes, hostile_files),
)
