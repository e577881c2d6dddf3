"""Segments written for other tools, read back by the tools of those formats."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from factories import object_table
from numpy.testing import assert_array_equal
from PIL import Image

from src.errors import SettingError
from src.store import exports
from src.store.exports import check_files, write_coco, write_csv, write_parquet
from src.store.tables import as_column

NAMES = (
    {0: ("road, paved", (1, 2, 3)), 4: ("Gebäude", (4, 5, 6))},
    {"streets": {7: ("Kühe, braun", (0, 0, 0))}, "photographs": {}},
)
MAPS = {  # two images: 1, 2, 3 are segments, a negative pixel is on a boundary
    ("streets", 5): np.array([[1, -1, 2], [-1, -1, -2], [3, -3, -2]], np.int32),
    ("photographs", 0): np.array([[-1, -2, -2, -2]], np.int32),
}


def table_of_four():
    """Rows 0 and 1 lie in the first image, 2 and 3 in the second."""
    return object_table(
        4,
        image_path=["a/b, ü.png"] * 2 + ["c.jpg"] * 2,
        dataset=["streets"] * 2 + ["photographs"] * 2,
        image_index=[5, 5, 0, 0],
        embeddings=np.arange(8, dtype=np.float32).reshape(4, 2),
        box=[[0, 0, 2, 2], [0, 0, 3, 3], [0, 0, 4, 1], [0, 0, 4, 1]],
        component_index=[1, 2, 1, 2],
        true_id=[7, 255, 255, 3],
        predicted_id=[0, 4, 4, 9],
        predicted_iou=np.array([0.25, 0.5, 0.125, np.nan], np.float32),
        novelty=np.array([2.5, 0.5, 1, np.nan], np.float32),
        segment_size=[4, 3, 1, -1],
        thumbnail=[b"one", b"two", b"three", b"four"],
    )


def components(model, dataset, index):
    assert model == "net"
    return MAPS[dataset, index]


def test_coco_masks_are_the_segments_pixel_by_pixel(tmp_path):
    coco_api = pytest.importorskip("pycocotools.coco")
    table = table_of_four()
    write_coco(tmp_path / "new" / "all.json", table, [2, 0, 3, 1], NAMES, components=components)
    coco = coco_api.COCO(tmp_path / "new" / "all.json")
    assert [(i["file_name"], i["width"], i["height"]) for i in coco.loadImgs([1, 2])] == [
        ("c.jpg", 4, 1),
        ("a/b, ü.png", 3, 3),
    ]
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [a["attributes"]["component"] for a in annotations] == [1, 1, 2, 2]
    for annotation in annotations:
        attributes = annotation["attributes"]
        numbers = MAPS[attributes["dataset"], attributes["image_index"]]
        mask = coco.annToMask(annotation)
        assert_array_equal(mask, abs(numbers) == attributes["component"])
        assert annotation["area"] == mask.sum()
    assert [a["bbox"] for a in annotations] == [
        [0, 0, 1, 1],
        [0, 0, 2, 2],
        [2, 0, 1, 3],
        [1, 0, 3, 1],
    ]


def test_coco_tells_what_is_known_of_a_segment(tmp_path):
    pytest.importorskip("pycocotools")
    path = tmp_path / "some.json"
    write_coco(path, table_of_four(), [0, 3], NAMES, {0: "keep, später"}, components=components)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["categories"] == [
        {"id": 1, "name": "class 9"},  # no tag: what the network takes it for
        {"id": 2, "name": "keep, später"},
    ]
    first, last = content["annotations"]
    assert (first["id"], first["image_id"], first["category_id"], first["iscrowd"]) == (1, 1, 2, 0)
    assert first["attributes"] == {
        "predicted_class": "road, paved",
        "predicted_iou": 0.25,
        "suspicion": 0.75,
        "novelty": 2.5,
        "dataset": "streets",
        "image_index": 5,
        "component": 1,
        "image_path": "a/b, ü.png",
        "segments": [1],
        "true_class": "Kühe, braun",
        "tag": "keep, später",
        "crop_box": [0, 0, 2, 2],
    }
    assert (last["id"], last["image_id"], last["category_id"]) == (2, 2, 1)
    unknown = last["attributes"]
    assert (unknown["predicted_iou"], unknown["suspicion"]) == (None, None)
    assert (unknown["true_class"], unknown["tag"]) == ("class 3", None)


def test_the_mask_of_an_object_is_that_of_all_its_segments(tmp_path):
    coco_api = pytest.importorskip("pycocotools.coco")
    joined = as_column([np.array([1, 3]), *[np.array([k]) for k in (2, 1, 2)]])
    table = table_of_four().with_columns(segments=joined, segment_size=np.array([6, 3, 1, 3]))
    write_coco(tmp_path / "a.json", table, [0], NAMES, components=components)
    (annotation,) = coco_api.COCO(tmp_path / "a.json").loadAnns([1])
    mask = coco_api.maskUtils.decode(annotation["segmentation"])
    assert_array_equal(mask, [[1, 1, 0], [1, 1, 0], [1, 1, 0]])
    assert annotation["bbox"] == [0, 0, 2, 3]
    assert annotation["attributes"]["segments"] == [1, 3]


def test_a_component_map_is_asked_for_once_an_image(tmp_path):
    pytest.importorskip("pycocotools")
    asked = []

    def counted(*place):
        asked.append(place)
        return components(*place)

    write_coco(tmp_path / "all.json", table_of_four(), range(4), NAMES, components=counted)
    assert asked == [("net", "photographs", 0), ("net", "streets", 5)]


@pytest.mark.parametrize("there", [np.ones((2, 2), np.int32), np.full((3, 3), 2, np.int32)])
def test_an_image_measured_anew_is_named_and_nothing_is_written(there, tmp_path):
    pytest.importorskip("pycocotools")
    with pytest.raises(ValueError, match=r"segment 2 of image 5 of 'streets'.*had 3"):
        write_coco(
            tmp_path / "a.json", table_of_four(), [1], NAMES, components=lambda *place: there
        )
    assert not list(tmp_path.iterdir())


def test_coco_is_read_as_results_too(tmp_path):
    coco_api = pytest.importorskip("pycocotools.coco")
    write_coco(tmp_path / "a.json", table_of_four(), range(4), NAMES, components=components)
    coco = coco_api.COCO(tmp_path / "a.json")
    again = coco.loadRes(coco.dataset["annotations"])
    assert again.getAnnIds() == [1, 2, 3, 4]
    assert_array_equal(again.annToMask(again.anns[2]), [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_coco_is_sorted_by_suspicion_and_says_where_its_names_begin(tmp_path):
    table = table_of_four().with_columns(
        image_path=as_column(["/data/val/a/1.png"] * 2 + ["/data/val/b/1.png"] * 2)
    )
    content = write_coco(tmp_path / "a.json", table, range(4), NAMES, components=components)
    assert content == json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert content["info"]["root"] == "/data/val"
    assert [image["file_name"] for image in content["images"]] == ["b/1.png", "a/1.png"]
    (licence,) = content["licenses"]
    assert {image["license"] for image in content["images"]} == {licence["id"]}
    assert min(category["id"] for category in content["categories"]) == 1
    paths = [annotation["attributes"]["image_path"] for annotation in content["annotations"]]
    assert paths == ["/data/val/b/1.png", *["/data/val/a/1.png"] * 2, "/data/val/b/1.png"]


def test_a_picture_of_two_datasets_is_one_image(tmp_path):
    table = table_of_four().with_columns(image_path=as_column(["c.jpg"] * 4))
    content = write_coco(
        tmp_path / "a.json",
        table,
        [0, 2],
        NAMES,
        components=lambda model, dataset, index: MAPS[dataset, index],
    )
    assert [image["id"] for image in content["images"]] == [1]
    assert [annotation["image_id"] for annotation in content["annotations"]] == [1, 1]


def unpacked(packed):
    """Values of @thi.ng/rle-pack, by what its bits mean."""
    bits = iter("".join(f"{byte:08b}" for byte in packed))

    def read(count):
        return int("".join(next(bits) for _ in range(count)), 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    return np.array(values)


def test_label_studio_has_the_same_pixels_of_every_object(tmp_path):
    table, tags = table_of_four(), {0: 'a "b" <c>'}
    coco = write_coco(tmp_path / "a.json", table, range(4), NAMES, tags, components=components)
    exports.write_label_studio(tmp_path / "tasks.json", tmp_path / "config.xml", coco)
    first, second = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert first["data"] == {"image": "/data/local-files/?d=c.jpg"}
    assert second["data"] == {"image": "/data/local-files/?d=a/b%2C%20%C3%BC.png"}
    (prediction,) = second["predictions"]
    assert prediction["score"] == 0.75
    config = ElementTree.parse(tmp_path / "config.xml")
    (image,), (brush,) = config.iter("Image"), config.iter("BrushLabels")
    assert image.get("value") == "$image"
    assert {label.get("value") for label in brush} == {"Gebäude", "class 9", 'a "b" <c>'}
    labels = []
    for number, region in enumerate(prediction["result"], 1):
        assert (region["type"], region["image_rotation"]) == ("brushlabels", 0)
        assert (region["from_name"], region["to_name"]) == (brush.get("name"), image.get("name"))
        height, width = region["original_height"], region["original_width"]
        pixels = unpacked(region["value"]["rle"]).reshape(height, width, 4)
        assert_array_equal(pixels[..., 3], 255 * (abs(MAPS["streets", 5]) == number))
        labels += region["value"]["brushlabels"]
    assert labels == ['a "b" <c>', "Gebäude"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 64), (200, 331)])
@pytest.mark.parametrize("share", [0, 0.5, 0.001, 1])
def test_any_mask_comes_back_from_the_runs_of_label_studio(shape, share):
    mask = np.random.default_rng(1).random(shape) < share
    assert_array_equal(unpacked(exports.brush_runs(mask)), 255 * np.repeat(mask.ravel(), 4))


def test_the_list_of_images_has_each_once_and_a_line_each(tmp_path):
    names = "/p/b\n1.png", "/p/\u2028.png", os.fsdecode(b"/p/k\xf6ln\\.png"), "/p/日本 '\".png"
    table = object_table(5, image_path=[*names, names[0]], predicted_iou=np.arange(5) / 10)
    exports.write_image_list(tmp_path / "images.txt", table, [4, 3, 2, 1, 0])
    lines = (tmp_path / "images.txt").read_text(encoding="utf-8").split("\n")
    assert lines == [r"b\x0a1.png", r"\u2028.png", r"k\xf6ln\\.png", "日本 '\".png", ""]
    shell = subprocess.run(["bash", "-c", 'printf %b "$0"', lines[0]], capture_output=True)
    assert shell.stdout == b"b\n1.png"


def test_any_name_stays_readable_in_every_format(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    name = "=a\n\"b\", 'c';\t\\d \u202e日本 \U0001f600.png"
    table = table_of_four().with_columns(image_path=as_column([name] * 4))
    tags = {0: 'x\n"y"\U0001f600'}
    write_coco(tmp_path / "a.json", table, [0], NAMES, tags, components=components)
    write_csv(tmp_path / "a.csv", table, [0], NAMES, tags)
    write_parquet(tmp_path / "a.parquet", table, [0], NAMES, tags)
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert content["images"][0]["file_name"] == name
    assert content["categories"] == [{"id": 1, "name": tags[0]}]
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["file_name"], row["tag"]) == (f"./{name}", tags[0])
    (row,) = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert (row["file_name"], row["tag"]) == (name, tags[0])


@pytest.fixture
def folder(tmp_path):
    """COCO, its pictures and their names, laid out as FiftyOne has it; and how Datumaro does."""
    pytest.importorskip("pycocotools")
    paths = [os.fsdecode(b"a/k\xf6ln.png"), "b, c ü.png"]
    for path, (height, width) in zip(paths, [(3, 3), (1, 4)], strict=True):
        at = tmp_path / "pictures" / path
        at.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (1, 2, 3)).save(at)
    paths = [str(tmp_path / "pictures" / path) for path in paths]
    table = table_of_four().with_columns(image_path=as_column([paths[0]] * 2 + [paths[1]] * 2))
    how = dict(components=components, tags={0: "cow", 3: "cow"})
    write_coco(tmp_path / "out" / "labels.json", table, range(4), NAMES, **how)
    assert exports.link_pictures(tmp_path / "out" / "data", table, range(4)) == 0
    exports.name_for_datumaro(tmp_path / "out")
    return tmp_path / "out"


def test_the_folder_is_laid_out_as_fiftyone_documents_it(folder):
    content = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    assert content.keys() == {"info", "licenses", "categories", "images", "annotations"}
    names = {image["file_name"] for image in content["images"]}
    there = {path for path in (folder / "data").rglob("*") if path.is_file()}
    assert {path.relative_to(folder / "data").as_posix() for path in there} == names
    for image in content["images"]:
        with Image.open(folder / "data" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])


def test_no_name_is_absolute_and_no_category_0_as_datumaro_asks(folder):
    content = json.loads((folder / "annotations" / "instances_default.json").read_bytes())
    for image in content["images"]:
        assert not Path(image["file_name"]).is_absolute()
        assert (folder / "images" / "default" / image["file_name"]).is_file()
    assert sorted(category["id"] for category in content["categories"]) == [1, 2]


def test_datumaro_reads_the_folder(folder):
    datumaro = pytest.importorskip("datumaro")
    read = datumaro.Dataset.import_from(str(folder), "coco")
    labels = read.categories()[datumaro.AnnotationType.label]
    found = {
        (labels[a.label].name, int(a.image.sum()), a.attributes["predicted_class"])
        for item in read
        for a in item.annotations
        if a.type == datumaro.AnnotationType.mask
    }
    assert found == {
        ("Gebäude", 1, "Gebäude"),
        ("cow", 4, "road, paved"),
        ("Gebäude", 3, "Gebäude"),
        ("cow", 3, "class 9"),
    }
    assert {item.media.size for item in read} == {(3, 3), (1, 4)}


@pytest.mark.filterwarnings("ignore:OpenCV")  # that it is not there
def test_supervision_reads_the_folder(folder):
    supervision = pytest.importorskip("supervision")
    how = dict(annotations_path=str(folder / "labels.json"), force_masks=True)
    read = supervision.DetectionDataset.from_coco(str(folder / "data"), **how)
    assert read.classes == ["Gebäude", "cow"]
    areas = [of_image.mask.sum(axis=(1, 2)).tolist() for _, _, of_image in read]
    assert areas == [[1, 3], [4, 3]]
    assert [picture.shape[:2] for _, picture, _ in read] == [(1, 4), (3, 3)]


def test_a_picture_that_is_gone_is_counted(tmp_path):
    table = object_table(1, image_path=str(tmp_path / "gone.png"))
    assert exports.link_pictures(tmp_path / "data", table, [0]) == 1


def test_a_zip_holds_the_pictures_themselves_also_those_of_long_ago(folder, tmp_path):
    os.utime(folder / "data" / "b, c ü.png", (0, 0))
    exports.write_zip(tmp_path / "out.zip", folder)
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        assert "out/labels.json" in file.namelist()
        name = "out/data/b, c ü.png"
        assert file.read(name) == (folder / "data" / "b, c ü.png").read_bytes()


def test_csv_has_a_row_a_segment(tmp_path):
    write_csv(tmp_path / "a.csv", table_of_four(), np.array([3, 0]), NAMES, {0: 'a "b"\nc'})
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        known, unknown = csv.DictReader(file)
    assert known == {
        "dataset": "streets",
        "model": "net",
        "image_index": "5",
        "image_path": "a/b, ü.png",
        "file_name": "a/b, ü.png",
        "component": "1",
        "predicted_id": "0",
        "predicted_class": "road, paved",
        "true_id": "7",
        "true_class": "Kühe, braun",
        "predicted_iou": "0.25",
        "suspicion": "0.75",
        "novelty": "2.5",
        "segment_size": "4",
        "crop_left": "0",
        "crop_upper": "0",
        "crop_right": "2",
        "crop_lower": "2",
        "tag": 'a "b"\nc',
        "segments": "[1]",
    }
    assert {key for key, value in unknown.items() if not value} == {
        "predicted_iou", "suspicion", "novelty", "segment_size", "tag",
    }  # fmt: skip
    assert (unknown["true_id"], unknown["true_class"]) == ("3", "class 3")


def test_parquet_has_the_same_columns_with_vector_map_and_thumbnail(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    places = np.array([[1, 2], [3, 4], [np.nan, np.nan], [5, 6]], np.float32)
    table = table_of_four().with_columns(plot_embeddings=places)
    write_csv(tmp_path / "a.csv", table, [2, 0], NAMES)
    write_parquet(tmp_path / "a.parquet", table, [2, 0], NAMES, {2: "x"})
    read = parquet.read_table(tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert read.column_names == [*columns, "embedding", "x", "y", "image"]
    new, placed = read.to_pylist()
    assert (placed["image_path"], placed["crop_right"], placed["tag"]) == ("a/b, ü.png", 2, None)
    assert (placed["embedding"], placed["x"], placed["y"]) == ([0, 1], 1, 2)
    assert placed["image"] == {"bytes": b"one", "path": "0.jpg"}
    assert (new["tag"], new["true_class"], new["x"], new["y"]) == ("x", None, None, None)


def test_the_most_suspicious_come_first_in_every_format_and_the_unknown_last(tmp_path):
    pytest.importorskip("pycocotools")
    parquet = pytest.importorskip("pyarrow.parquet")
    suspicion = np.array([-3, np.nan, 0.5, 12], np.float32)  # a score without bounds
    table = table_of_four().with_columns(suspicion=suspicion)
    write_coco(tmp_path / "a.json", table, range(4), NAMES, components=components)
    write_csv(tmp_path / "a.csv", table, range(4), NAMES)
    write_parquet(tmp_path / "a.parquet", table, range(4), NAMES)
    annotations = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["annotations"]
    found = [annotation["attributes"]["suspicion"] for annotation in annotations]
    assert found == [12, 0.5, -3, None]
    assert [annotation["image_id"] for annotation in annotations] == [1, 1, 2, 2]
    assert parquet.read_table(tmp_path / "a.parquet")["suspicion"].to_pylist() == found
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [row["suspicion"] for row in csv.DictReader(file)] == ["12.0", "0.5", "-3.0", ""]


def test_a_name_that_is_not_utf_8_is_escaped_in_every_format_and_found_again(tmp_path):
    pytest.importorskip("pycocotools")
    parquet = pytest.importorskip("pyarrow.parquet")
    name = os.fsdecode(b"k\xf6ln\\.png")
    table = table_of_four().with_columns(image_path=as_column([name] * 4))
    write_coco(tmp_path / "a.json", table, [0], NAMES, {0: "\ud800"}, components=components)
    write_csv(tmp_path / "a.csv", table, [0], NAMES)
    write_parquet(tmp_path / "a.parquet", table, [0], NAMES)
    escaped = r"k\xf6ln\\.png"
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert content["images"][0]["file_name"] == escaped
    assert content["annotations"][0]["attributes"]["tag"] == r"\ud800"
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [row["image_path"] for row in csv.DictReader(file)] == [escaped]
    assert parquet.read_table(tmp_path / "a.parquet")["image_path"].to_pylist() == [escaped]
    shell = subprocess.run(["bash", "-c", 'printf %b "$0"', escaped], capture_output=True)
    assert shell.stdout == os.fsencode(name)


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path):
    table = table_of_four().with_columns(suspicion=np.array([-1, 0, 0, 0], np.float32))
    names = {0: ("=cmd|' /C calc'!A0", (1, 2, 3))}, NAMES[1]
    for tag in ("=1+1", "+1", "-1", "@A1", "\t=1", "a=1", "1-1"):
        write_csv(tmp_path / "a.csv", table, [0], names, {0: tag})
        with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
        assert row["tag"] == (tag if tag[0] in "a1" else f"'{tag}")
        assert row["predicted_class"] == "'=cmd|' /C calc'!A0"
        assert row["suspicion"] == "-1.0"


@pytest.mark.parametrize("folder", ["=1+1", "-a", "+a", "@a", "a"])
def test_a_path_in_a_csv_file_leads_to_its_picture_and_is_no_formula(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(folder, "a.png")
    path.parent.mkdir()
    path.touch()
    table = table_of_four().with_columns(image_path=as_column([str(path)] * 4))
    write_csv("a.csv", table, [0], NAMES)
    with Path("a.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image_path"][0] in "a." and Path(row["image_path"]).samefile(path)


def test_parquet_leaves_out_what_the_table_does_not_have(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = table_of_four()
    del table.columns["thumbnail"]
    write_parquet(tmp_path / "a.parquet", table, [1], NAMES)
    assert parquet.read_table(tmp_path / "a.parquet").column_names[-1] == "embedding"


def test_an_empty_selection_gives_files_without_rows(tmp_path):
    coco_api = pytest.importorskip("pycocotools.coco")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = table_of_four()
    write_coco(tmp_path / "a.json", table, [], NAMES, components=components)
    write_csv(tmp_path / "a.csv", table, [], NAMES)
    write_parquet(tmp_path / "a.parquet", table, [], NAMES)
    coco = coco_api.COCO(tmp_path / "a.json")
    assert (coco.getImgIds(), coco.getAnnIds(), coco.getCatIds()) == ([], [], [])
    assert len((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()) == 1
    read = parquet.read_table(tmp_path / "a.parquet")
    assert (read.num_rows, read.column_names[-1]) == (0, "image")


@pytest.mark.parametrize("missing", ["pycocotools", "pyarrow"])
def test_a_missing_package_is_named_with_the_way_to_install_it(missing, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SettingError, match=rf"needs {missing} .*pip install \.\[export\]"):
        if missing == "pyarrow":
            write_parquet(tmp_path / "a.parquet", table_of_four(), [], NAMES)
        else:
            write_coco(tmp_path / "a.json", table_of_four(), [], NAMES, components=components)
    with pytest.raises(SettingError, match=rf"needs {missing} "):
        check_files(coco=tmp_path / "a.json", parquet=tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["coco", "csv", "parquet"])
def test_files_that_cannot_be_written_are_refused_beforehand(name, tmp_path):
    pytest.importorskip("pycocotools")
    pytest.importorskip("pyarrow")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(SettingError, match=rf"`args.{name}` .*, {tmp_path} is a folder"):
        check_files(**{name: tmp_path})
    with pytest.raises(SettingError, match=rf"`args.{name}` .*{tmp_path}/notes is no folder"):
        check_files(**{name: tmp_path / "notes" / "new" / "a"})
    with pytest.raises(SettingError, match="/dev/null is something else"):
        check_files(**{name: "/dev/null"})
    check_files(**{name: tmp_path / "new" / "a"})
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_two_exports_do_not_get_one_name(tmp_path):
    pytest.importorskip("pycocotools")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SettingError, match="`args.csv` and `args.coco` would both be .*/a"):
        check_files(csv=tmp_path / "a", coco=tmp_path / "link" / "a", parquet=None)


def test_a_folder_that_lets_nothing_in_is_refused_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may always write
    with pytest.raises(SettingError, match=rf"{tmp_path} is no folder that you may write to"):
        check_files(csv=tmp_path / "new" / "a.csv")


def test_nothing_is_refused_where_no_file_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_files(coco=None, csv=None, parquet=None)
