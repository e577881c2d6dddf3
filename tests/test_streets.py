"""The rendered streets: the same everywhere, Cityscapes' classes, unknown things in one split."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torchvision.datasets import Cityscapes

from src import class_ids
from src.datasets import streets
from src.datasets.demo import scene as street_scene
from src.datasets.streets import KNOWN, SPLITS, UNKNOWN, Streets


@pytest.fixture(scope="module")
def scenes():
    """Picture and labels of the first scenes of each split."""
    return {split: [streets.scene(split, 0, index) for index in range(3)] for split in SPLITS}


@pytest.fixture
def short_splits(monkeypatch):
    """Two scenes a split."""
    for split in SPLITS:
        monkeypatch.setitem(SPLITS, split, 2)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def label_ids(scenes):
    return set(np.unique([labels for _, labels in scenes]).tolist())


# What a scene is


def test_a_scene_is_a_picture_and_labels_of_the_same_size(scenes):
    for picture, labels in sum(scenes.values(), []):
        assert (picture.shape, picture.dtype) == ((256, 512, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((256, 512), np.uint8)


def test_a_scene_can_be_rendered_again(scenes):
    for again, first in zip(streets.scene("ood", 0, 2), scenes["ood"][2], strict=True):
        assert_array_equal(again, first)


def test_splits_seeds_and_scenes_differ(scenes):
    pictures = [picture for split in scenes.values() for picture, _ in split]
    pictures.append(streets.scene("train", 1, 0)[0])
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


# Classes


def test_known_classes_are_those_that_cityscapes_trains_on():
    trained_on = {c.train_id: (c.name, c.color) for c in Cityscapes.classes if 0 <= c.train_id < 19}
    assert trained_on == KNOWN
    assert Streets.pred_mapping == KNOWN


def test_a_few_scenes_show_most_of_the_known_classes(scenes):
    known = label_ids(scenes["train"] + scenes["val"])
    assert len(known) >= 12
    assert known <= KNOWN.keys()


def test_unknown_kinds_have_ids_names_and_colours_of_their_own():
    assert Streets.label_mapping == KNOWN | UNKNOWN
    assert not KNOWN.keys() & UNKNOWN.keys()
    names, colours = zip(*Streets.label_mapping.values(), strict=True)
    assert len(set(names)) == len(set(colours)) == len(Streets.label_mapping)
    predicted = class_ids.match_ids(Streets.label_mapping, Streets.pred_mapping)
    assert set(predicted[list(UNKNOWN)]) == {255}


def test_unknown_kinds_show_in_the_ood_scenes(scenes):
    unknown = label_ids(scenes["ood"]) - KNOWN.keys()
    assert unknown and unknown <= UNKNOWN.keys()


def test_only_the_ood_split_plans_unknown_objects_of_many_kinds(monkeypatch):
    def plan(rng, height, width, unseen=()):  # of what `scene` wants to see rendered
        return list(unseen)

    monkeypatch.setattr(street_scene, "render", plan)
    planned = {
        split: [thing for index in range(count) for thing in streets.scene(split, 0, index)]
        for split, count in SPLITS.items()
    }
    assert planned["train"] == planned["val"] == []
    assert {name for _, name in planned["ood"]} == {name for name, _ in UNKNOWN.values()}
    assert all(UNKNOWN[label][0] == name for label, name in planned["ood"])
    assert len(UNKNOWN) >= 8
    for label in UNKNOWN:  # retrieval needs several of a kind
        assert sum(other == label for other, _ in planned["ood"]) >= 3


# Files


def test_the_files_are_the_same_for_the_same_seed(tmp_path, short_splits):
    for folder in ("one", "two"):
        Streets(tmp_path / folder, "val", seed=3)
    first = contents(tmp_path / "one" / "val_seed3_drawing1")
    assert sorted(first) == [
        "0000_image.png", "0000_labels.png", "0001_image.png", "0001_labels.png",
    ]  # fmt: skip
    assert first == contents(tmp_path / "two" / "val_seed3_drawing1")


def test_a_dataset_gives_what_was_rendered(tmp_path, short_splits, scenes):
    dataset = Streets(tmp_path, "ood")
    image, ground_truth, path = dataset[1]
    assert len(dataset) == 2
    assert (image.mode, image.size) == ("RGB", (512, 256))
    assert path == str(tmp_path / "ood_seed0_drawing1" / "0001_image.png")
    for found, rendered in zip((image, ground_truth), scenes["ood"][1], strict=True):
        assert_array_equal(found, rendered)


@pytest.mark.parametrize("lost", ["0001_image.png", "0001_labels.png"])
def test_a_half_written_split_is_completed(tmp_path, short_splits, lost):
    Streets(tmp_path, "train")
    folder = tmp_path / "train_seed0_drawing1"
    before = contents(folder)
    (folder / lost).unlink()
    kept = folder / "0000_image.png"
    written = kept.stat().st_mtime_ns
    Streets(tmp_path, "train")
    assert contents(folder) == before
    assert kept.stat().st_mtime_ns == written


KILLED_IN_A_FILE = """
import os, signal, sys
from PIL import Image
from src.datasets import streets

def save(image, path, format):
    if path.name.startswith(".0001_labels.png"):
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    saved(image, path, format)

streets.SPLITS["val"] = 2
saved, Image.Image.save = Image.Image.save, save
streets.Streets(sys.argv[1], "val")
"""


def test_a_split_whose_rendering_was_killed_is_completed(tmp_path, short_splits):
    Streets(tmp_path / "whole", "val")
    command = [sys.executable, "-c", KILLED_IN_A_FILE, tmp_path / "killed"]
    killed = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "killed" / "val_seed0_drawing1"
    before = {path.name: path.stat() for path in folder.iterdir()}
    (left,) = (name for name in before if name.endswith(".tmp"))
    assert before.keys() == {"0000_image.png", "0000_labels.png", "0001_image.png", left}
    Streets(tmp_path / "killed", "val")
    assert contents(folder) == contents(tmp_path / "whole" / "val_seed0_drawing1")
    for name in before.keys() - {left}:
        now = (folder / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (before[name].st_ino, before[name].st_mtime_ns)


def test_runs_that_render_at_once_leave_each_others_files_as_new_as_they_are(
    tmp_path, short_splits, monkeypatch
):
    folder, save, before = tmp_path / "val_seed0_drawing1", streets._save, {}

    def overtaken(array, path):
        monkeypatch.setattr(streets, "_save", save)
        Streets(tmp_path, "val")  # the other run, which is done with all
        before.update({path.name: path.stat() for path in folder.iterdir()})
        save(array, path)

    monkeypatch.setattr(streets, "_save", overtaken)
    Streets(tmp_path, "val")
    after = {path.name: path.stat() for path in folder.iterdir()}
    assert {name: now.st_mtime_ns for name, now in after.items()} == {
        name: then.st_mtime_ns for name, then in before.items()
    }
    written_again = {name for name, now in after.items() if now.st_ino != before[name].st_ino}
    assert written_again <= {"0000_image.png"} and len(after) == 4


def test_an_unknown_split_names_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="'train', 'val', 'ood', got 'test'"):
        Streets(tmp_path, "test")
    assert not list(tmp_path.iterdir())


def test_the_categories_are_those_of_cityscapes():
    official = {label.name: label.category for label in Cityscapes.classes}
    assert {name: official[name] for name, _ in KNOWN.values()} == Streets.categories
