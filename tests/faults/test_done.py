"""What is done, and what has to be done again."""

import os
import shutil

import pytest
import torch

from faults.checks import check_end, check_undisturbed, images_done, state
from faults.workplace import BY_IMAGE, EAGER, EMBED, MEASURE, PREDICT, STEPS, TRAIN, draw, each
from src.store.provenance import FORMATS, OTHER_FORMAT

NO_NETWORK = {"own.NearestColour": None}


@pytest.mark.promise(3)
@pytest.mark.parametrize("step", STEPS)
def test_a_second_run_changes_no_file_and_loads_no_network(place, finished, step):
    before = state(finished)
    check_end(place.run(step, finished, changes=NO_NETWORK))
    assert state(finished) == before
    check_undisturbed(place, finished, step)
    if step in (PREDICT, EMBED):  # the others need none
        again = place.run(step, finished, "args.overwrite=True", changes=NO_NETWORK)
        assert again.exitcode == 1


@pytest.mark.promise(4)
@each("setting", ["seed=1", "epochs=1", "batch_size=9", "learning_rate=0.1"], ["seed=1"])
def test_a_meta_model_is_trained_again_where_a_setting_is_another(place, finished, setting):
    before, words = state(finished), f"would be trained: other {setting.split('=')[0]}"
    dry = place.run(TRAIN, finished, f"args.{setting}", "args.dry_run=True")
    check_end(dry, says=[words])
    assert state(finished) == before
    for said in ("wrote", "not trained again"):
        check_end(place.run(TRAIN, finished, f"args.{setting}"), says=[said])


class World:
    """Own pictures and weights, what the stages make of them, and how these are run."""

    def __init__(self, place, folder):
        self.place, self.folder, self.formats = place, folder, dict(FORMATS)
        self.pictures, self.weights = folder / "pictures", folder / "colours.pth"
        self.results, self.settings = folder / "results", {}

    def run(self, step, *settings):
        own = dict(FAULTS_PICTURES=self.pictures, FAULTS_WEIGHTS=self.weights)
        settings = *self.settings.get(step, []), *settings
        formats = {"src.store.provenance.FORMATS": self.formats}
        return self.place.run(step, self.results, *settings, changes=formats, **own)

    def copy(self, name):
        """Work on a copy of a folder, which has other times."""
        copy = self.folder / f"copied_{name}"
        vars(self)[name] = shutil.copytree(vars(self)[name], copy, copy_function=shutil.copyfile)

    def move(self, name):
        """Work on a folder or file under another name."""
        vars(self)[name] = vars(self)[name].rename(self.folder / f"moved_{name}")

    def rewrite(self, contents):
        """Give pictures, by their number, the content of others."""
        paths = sorted(self.pictures.iterdir())
        contents = {paths[to]: paths[of].read_bytes() for to, of in contents.items()}
        for path, content in contents.items():
            path.write_bytes(content)


def other(count, fact):
    """What stages 1, 2 and 4 plan where predictions depend on another fact."""
    facts = fact, f"prediction.{fact}", "segments"
    return [f"{count} to do, other {name}" for name in facts]


def touch(*paths):
    for path in paths:
        os.utime(path)


DONE, AGAIN = ["0 done"] * 3, f"4 to do, {OTHER_FORMAT}"
CHANGES = {  # of a World, and what the stages plan then
    "a picture is another": (lambda w: w.rewrite({2: 0}), other(1, "image.sha256")),
    "pictures are copied": (lambda w: w.copy("pictures"), DONE),
    "segments have another format": (
        lambda w: w.formats.update(segments=99),
        ["0 done", AGAIN, "4 to do, other segments"],
    ),
    "nothing": (lambda w: None, DONE),
    "all is touched": (lambda w: touch(w.weights, *w.pictures.iterdir()), DONE),
    "pictures are moved": (lambda w: w.move("pictures"), DONE),
    "weights are moved": (lambda w: w.move("weights"), DONE),
    "results are moved": (lambda w: w.move("results"), DONE),
    "results are copied": (lambda w: w.copy("results"), DONE),
    "all is moved": (lambda w: (w.move("pictures"), w.move("results")), DONE),
    "results are deleted": (lambda w: shutil.rmtree(w.results), ["4 to do, missing"] * 3),
    "two change places": (lambda w: w.rewrite({0: 3, 3: 0}), other(2, "image.sha256")),
    "a picture comes": (
        lambda w: shutil.copy(w.pictures / "00000.png", w.pictures / "00004.png"),
        ["1 to do, missing"] * 3,
    ),
    "weights are others": (
        lambda w: torch.save({"colours": torch.eye(3)}, w.weights),
        other(4, "network.weights"),
    ),
    "the precision is another": (
        lambda w: w.settings.update({PREDICT: ["args.precision=bfloat16"]}),
        other(4, "precision"),
    ),
    "the threshold is another": (
        lambda w: w.settings.update({EMBED: ["args.iou_threshold=1.2"]}),
        [*DONE[:2], "4 to do, other selection.iou_threshold"],
    ),
    "predictions have another format": (
        lambda w: w.formats.update(prediction=99),
        [AGAIN, *other(4, "format")[1:]],
    ),
    "vectors have another format": (lambda w: w.formats.update(vectors=99), [*DONE[:2], AGAIN]),
    "all is asked for again": (
        lambda w: w.settings.update(dict.fromkeys(BY_IMAGE, ["args.overwrite=True"])),
        ["4 to do, args.overwrite"] * 3,
    ),
}


@pytest.fixture(scope="module")
def kept(place):
    """The folder of a World where all is done, and a copy of it."""
    world, copy = World(place, place.elsewhere / "world"), place.elsewhere / "kept"
    draw(world.pictures, 4)
    shutil.copy(place.weights, world.weights)
    for step in BY_IMAGE:
        check_end(world.run(step))
    shutil.copytree(world.folder, copy)
    return world.folder, copy


@pytest.mark.promise(4)
@each("change", CHANGES, [*CHANGES][:3])
def test_what_was_made_from_the_same_is_done_and_all_else_is_not(place, kept, change):
    folder, copy = kept
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    world, (make, plans) = World(place, folder), CHANGES[change]
    make(world)
    total = len([*world.pictures.iterdir()])
    for step, plan in zip(BY_IMAGE, plans, strict=True):
        before = state(world.results)
        check_end(world.run(step, "args.dry_run=True"), says=[plan])
        assert state(world.results) == before
        todo = int(plan.split()[0])
        check_end(world.run(step), counts=(todo, total - todo, 0))


@pytest.mark.promise(10)
@each("step", BY_IMAGE, [EMBED])
def test_two_runs_do_the_same_work_at_the_same_time(place, io_path, step):
    for running in [place.start(step, io_path) for _ in range(2)]:
        check_end(running.end())
    check_undisturbed(place, io_path, step)


@pytest.mark.promise(10)
@each("step", BY_IMAGE, [EMBED])
def test_shards_share_the_work_at_the_same_time(place, io_path, step):
    total = images_done(place, place.reference, step)
    shards = [place.start(step, io_path, f'args.shard="{k}/3"') for k in range(3)]
    runs = [running.end() for running in shards]
    for run in runs:
        check_end(run)
    assert sum(run.counts[0] for run in runs) == total
    check_end(place.run(step, io_path), counts=(0, total, 0))
    check_undisturbed(place, io_path, step)


WAYS = [
    *[(PREDICT, "subset_file={backwards}"), (PREDICT, "num_cores=3"), (MEASURE, "num_cores=2")],
    *[(MEASURE, "num_cores=3"), (EMBED, "num_cores=2"), (EMBED, "num_cores=3")],
]


@pytest.mark.promise(11)
@each("step, setting", WAYS, WAYS[:1])
def test_another_order_and_several_processes_make_the_same(place, io_path, tmp_path, step, setting):
    backwards = tmp_path / "indices.txt"
    indices = reversed(range(images_done(place, place.reference, PREDICT)))
    backwards.write_text("\n".join(map(str, indices)))
    words = f"args.{setting.format(backwards=backwards)}"
    check_end(place.run(step, io_path, words, changes=EAGER))
    check_undisturbed(place, io_path, step)
