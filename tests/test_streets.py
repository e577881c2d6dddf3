"""The rendered streets: the same everywhere, Cityscapes' classes, unknown things in one split."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torchvision.datasets import Cityscapes

from src import loading
from src.datasets import street_scene, streets
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
    predicted = loading.match_ids(Streets.label_mapping, Streets.pred_mapping)
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


def test_an_unknown_split_names_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="'train', 'val', 'ood', got 'test'"):
        Streets(tmp_path, "test")
    assert not list(tmp_path.iterdir())


def test_the_categories_are_those_of_cityscapes():
    official = {label.name: label.category for label in Cityscapes.classes}
    assert {name: official[name] for name, _ in KNOWN.values()} == Streets.categories
