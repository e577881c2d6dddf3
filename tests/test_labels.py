"""Labels in files: PNGs that show their classes, and COCO files that come back from tools."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pycocotools import mask as coco

from src.datasets import read_ids
from src.errors import SettingError
from src.store.labels import match_names, read_coco, write_labels

MASK = np.zeros((4, 6), np.uint8)
MASK[1:3, 2:5] = 1
POLYGON = [[2, 1, 5, 1, 5, 3, 2, 3]]
RUNS = {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}  # column by column
PACKED = coco.encode(np.asfortranarray(MASK))
PACKED = PACKED | {"counts": PACKED["counts"].decode()}
SHAPES = {"polygon": POLYGON, "runs": RUNS, "packed runs": PACKED}


def write_coco(path, segmentation=POLYGON, **others):
    annotation = {"id": 7, "image_id": 3, "category_id": 5, "segmentation": segmentation}
    content = {
        "images": [
            {"id": 3, "file_name": "a/b.png", "height": 4, "width": 6},
            {"id": 4, "file_name": "c.png", "height": 4, "width": 6},
        ],
        "categories": [{"id": 5, "name": "cow"}],
        "annotations": [annotation | others],
    }
    path.write_text(json.dumps(content))
    return path


def test_labels_are_read_as_written_and_show_the_colours_of_their_classes(tmp_path):
    labels = np.array([[0, 1], [255, 1]], np.uint8)
    write_labels(tmp_path / "a" / "0.png", labels, {0: ("road", (1, 2, 3)), 1: ("cow", (4, 5, 6))})
    assert_array_equal(read_ids(tmp_path / "a" / "0.png"), labels)
    shown = np.array(Image.open(tmp_path / "a" / "0.png").convert("RGB"))
    assert_array_equal(shown, [[[1, 2, 3], [4, 5, 6]], [[128, 128, 128], [4, 5, 6]]])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_polygons_and_runs_are_the_same_pixels(tmp_path, shape):
    drawn = read_coco(write_coco(tmp_path / "c.json", shape))
    assert drawn.keys() == {"a/b.png", "c.png"}
    assert [name for name, _ in drawn["a/b.png"].objects] == ["cow"]
    assert_array_equal(*drawn["a/b.png"].masks(), MASK)
    assert not [*drawn["c.png"].masks()]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"segmentation": [[1, 1, 2, 2]]}, "annotation 7 .*three points"),
        ({"segmentation": []}, "annotation 7 .*three points"),
        ({"segmentation": RUNS | {"size": [6, 4]}}, "its RLE has the size"),
        ({"segmentation": RUNS | {"counts": [9, 2]}}, "another number of pixels"),
        ({"segmentation": RUNS | {"counts": "\u00e4"}}, "ascii"),
        ({"segmentation": PACKED | {"counts": "0P_1"}}, "another number of pixels"),
        ({"segmentation": None}, "annotation 7"),
        ({"category_id": 6}, "annotation 7 .*6 is missing"),
        ({"image_id": 9}, "annotation 7 .*9 is missing"),
        ({"segmentation": [[1, 1, 1e300, 1, 2, 2]]}, "annotation 7 .*far outside"),
    ],
)
def test_what_is_no_shape_is_refused_by_the_number_of_its_annotation(tmp_path, wrong, words):
    with pytest.raises(SettingError, match=words):
        read_coco(write_coco(tmp_path / "c.json", **wrong))


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        ("categories", {"name": ""}, "name of a category is ''"),
        ("categories", {"name": None}, "name of a category is None"),
        ("categories", {"name": "\ud800"}, "name of a category is"),
        ("images", {"height": float("inf")}, r"a/b.png has the height and width \(inf, 6.0\)"),
        ("images", {"width": -6}, "a/b.png has the height and width"),
        ("images", {"file_name": "c.png"}, "two of its pictures have the same `file_name`"),
        ("images", {"id": 4}, "two of its pictures have the same `file_name` or `id`"),
    ],
)
def test_what_is_no_category_or_picture_is_refused(tmp_path, kind, wrong, words):
    path = write_coco(tmp_path / "c.json")
    content = json.loads(path.read_text())
    content[kind][0] |= wrong
    path.write_text(json.dumps(content))
    with pytest.raises(SettingError, match=words):
        read_coco(path)


@pytest.mark.parametrize("shape", [[[9, 9, 12, 9, 12, 12]], RUNS | {"counts": [24]}])
def test_an_object_without_a_pixel_is_left_out_and_named(tmp_path, shape, caplog):
    drawn = read_coco(write_coco(tmp_path / "c.json", shape))
    assert not drawn["a/b.png"].objects
    assert "annotation 7 shows no pixel of its picture" in caplog.text


def test_names_of_categories_are_taken_without_spaces_around_them(tmp_path):
    path = write_coco(tmp_path / "c.json")
    path.write_text(path.read_text().replace("cow", " cow "))
    assert [name for name, _ in read_coco(path)["a/b.png"].objects] == ["cow"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"categories": 1}'])
def test_what_is_no_coco_file_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(SettingError, match="must be a COCO file"):
        read_coco(tmp_path / "c.json")
    with pytest.raises(SettingError, match="must be a COCO file"):
        read_coco(tmp_path / "missing.json")


def test_names_are_matched_from_their_end():
    paths = {1: "/data/a/0.png", 2: "/data/b/0.png", 3: "/data/b/1.png"}
    names = ["b/0.png", "upload/1.png", "a\\0.png", "2.png"]
    assert match_names(names, paths) == {"b/0.png": 2, "upload/1.png": 3, "a\\0.png": 1}
    with pytest.raises(SettingError, match="any of 2 pictures"):
        match_names(["0.png"], paths)
    with pytest.raises(SettingError, match="are both /data/b/1.png"):
        match_names(["b/1.png", "c/1.png"], paths)
