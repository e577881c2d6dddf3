import itertools
import json
import logging

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, PngImagePlugin, features

import configuration
from src import class_ids, datasets
from src.datasets import a2d2, cityscapes
from src.datasets.a2d2 import A2D2
from src.datasets.cityscapes import Cityscapes
from src.datasets.cityscapes_laf import CityscapesLAF
from src.datasets.custom import CustomDataset
from src.datasets.segment_me_if_you_can import RoadAnomaly21, RoadObstacle21


def save(path, pixels=None, **options):
    """Save a picture; without pixels 2 x 3 ones of one colour."""
    pixels = np.full((2, 3, 3), 90, np.uint8) if pixels is None else np.asarray(pixels, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def cityscapes_tree(root, split, stem, ids, kind="gtFine"):
    city = stem.split("_")[0]
    save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
    save(root / kind / split / city / f"{stem}_{kind}_labelIds.png", ids)


def a2d2_tree(root, recording, position, number, colours):
    folder = root / "camera_lidar_semantic" / recording
    short = position.replace("_", "")
    name = f"{recording.replace('_', '')}_{{}}_{short}_{number:09d}.png"
    save(folder / "camera" / f"cam_{position}" / name.format("camera"))
    save(folder / "label" / f"cam_{position}" / name.format("label"), colours)


def smiyc_tree(root, image, ids=None):
    stem = image.split(".")[0]
    save(root / "images" / image)
    if ids is not None:
        save(root / "labels_masks" / f"{stem}_labels_semantic.png", ids)


def tree_of(kind, root, shape=(2, 3)):
    """Make a tree with one picture and its labels, and give the path of the labels."""
    ids = np.zeros(shape)
    if kind is Cityscapes:
        cityscapes_tree(root, "val", "bonn_000002_000019", ids)
    elif kind is CityscapesLAF:
        cityscapes_tree(root, "test", "02_Hanns_Klemm_Str_44_000000_000200", ids, kind="gtCoarse")
    elif kind is A2D2:
        a2d2_tree(root, "20181204_191844", "front_center", 7, np.zeros((*shape, 3)))
    else:
        smiyc_tree(root, "validation0000.png", ids)
    (path,) = (path for path in root.rglob("*.png") if "abel" in path.name)
    return path


# Cityscapes


def test_cityscapes_gives_train_ids_in_the_order_of_the_names(tmp_path):
    cityscapes_tree(tmp_path, "val", "ulm_000001_000019", [[7, 8, 11], [26, 33, 0]])
    cityscapes_tree(tmp_path, "val", "bonn_000010_000019", [[24, 25, 4], [29, 30, 31]])
    cityscapes_tree(tmp_path, "val", "bonn_000002_000019", [[1, 2, 3], [9, 10, 255]])
    dataset = Cityscapes(tmp_path, split="val")
    names = [path.rsplit("/", 1)[1] for _, _, path in dataset]
    assert names == [
        "bonn_000002_000019_leftImg8bit.png",
        "bonn_000010_000019_leftImg8bit.png",
        "ulm_000001_000019_leftImg8bit.png",
    ]
    image, truth, _ = dataset[2]
    assert (image.mode, image.size) == ("RGB", (3, 2))
    assert truth.dtype == np.uint8
    assert_array_equal(truth, [[0, 1, 2], [13, 18, 255]])
    assert_array_equal(dataset[1][1], [[11, 12, 255], [255, 255, 16]])
    assert_array_equal(dataset[0][1], np.full((2, 3), 255))


def test_the_test_split_of_cityscapes_has_no_truth(tmp_path):
    cityscapes_tree(tmp_path, "test", "bonn_000002_000019", np.zeros((2, 3)))
    ((_, truth, _),) = Cityscapes(tmp_path, split="test")
    assert truth is None


def test_the_cityscapes_table_is_the_recorded_one(reference):
    table = json.loads((reference / "labels" / "cityscapes.json").read_text())
    names, colours = table["predicted_train_id_to_name"], table["predicted_train_id_to_rgb"]
    expected = {int(key): (names[key], tuple(colours[key])) for key in names}
    assert expected == Cityscapes.pred_mapping == Cityscapes.label_mapping
    assert cityscapes.pred_class_selection == table["predicted_class_selection"]
    assert list(cityscapes.mean) == table["normalisation"]["mean"]
    assert list(cityscapes.std) == table["normalisation"]["std"]
    mapping = json.loads((reference / "labels" / "mappings.json").read_text())
    for key, train_id in mapping["cityscapes_id_to_train_id"].items():
        if int(key) >= 0:
            assert Cityscapes._table[int(key)] == train_id


# Lost and Found


def test_lost_and_found_keeps_its_own_ids(tmp_path):
    stem = "01_Hanns_Klemm_Str_45_000001_000240"
    cityscapes_tree(tmp_path, "train", stem, [[0, 1, 2], [43, 31, 255]], kind="gtCoarse")
    ((_, truth, path),) = CityscapesLAF(tmp_path, split="train")
    assert path.endswith(f"{stem}_leftImg8bit.png")
    assert_array_equal(truth, [[0, 1, 2], [43, 31, 255]])


def test_the_lost_and_found_table_is_the_recorded_one(reference):
    table = json.loads((reference / "labels" / "lost_and_found.json").read_text())
    rows = {row["id"]: (row["name"], tuple(row["rgb"])) for row in table["classes"]}
    del rows[255]
    assert rows == CityscapesLAF.label_mapping  # of the five rows with id 0 the last one counts


def test_lost_and_found_knows_the_road_and_no_object():
    table = class_ids.match_ids(
        CityscapesLAF.label_mapping, Cityscapes.pred_mapping, CityscapesLAF.train_ids
    )
    assert table[1] == 0
    assert (np.delete(table, 1) == 255).all()


def test_a_gamma_chunk_changes_no_colour(tmp_path):
    gamma = PngImagePlugin.PngInfo()
    gamma.add(b"gAMA", (22727).to_bytes(4, "big"))
    path = save(tmp_path / "a.png", pnginfo=gamma)
    assert_array_equal(datasets.read_image(path), np.full((2, 3, 3), 90))


# A2D2


def test_a2d2_turns_colours_into_ids(tmp_path):
    colours = [
        [(204, 255, 153), (182, 89, 6), (210, 50, 115)],
        [(0, 0, 0), (255, 0, 0), (33, 44, 177)],
    ]
    a2d2_tree(tmp_path, "20181204_191844", "front_center", 7, colours)
    ((_, truth, _),) = A2D2(tmp_path)
    assert truth.dtype == np.uint8
    assert_array_equal(truth, [[0, 1, 54], [255, 7, 33]])


def test_a2d2_colours_of_no_class_are_no_label_with_one_warning(tmp_path):
    colours = np.full((2, 3, 3), (1, 2, 3))
    a2d2_tree(tmp_path, "20181204_191844", "front_center", 7, colours)
    a2d2_tree(tmp_path, "20181204_191844", "front_center", 8, colours)
    dataset = A2D2(tmp_path)
    with pytest.warns(UserWarning, match="7.png has 6 pixels in a colour of no class") as warned:
        truths = [truth for _, truth, _ in dataset]
    assert len(warned) == 1
    assert_array_equal(truths, np.full((2, 2, 3), 255))


def test_a2d2_is_sorted_by_recording_camera_and_number(tmp_path):
    black = np.zeros((2, 3, 3))
    a2d2_tree(tmp_path, "20181204_191844", "front_center", 1, black)
    a2d2_tree(tmp_path, "20181016_082154", "side_left", 1, black)
    a2d2_tree(tmp_path, "20181016_082154", "front_center", 12, black)
    a2d2_tree(tmp_path, "20181016_082154", "front_center", 3, black)
    assert len(A2D2(tmp_path)) == 3  # without the camera on the left
    paths = [path.rsplit("/", 1)[1] for _, _, path in A2D2(tmp_path, ["side_left", "front_center"])]
    assert paths == [
        "20181016082154_camera_frontcenter_000000003.png",
        "20181016082154_camera_frontcenter_000000012.png",
        "20181016082154_camera_sideleft_000000001.png",
        "20181204191844_camera_frontcenter_000000001.png",
    ]


def test_a2d2_leaves_out_images_without_labels(tmp_path):
    for number in (1, 2):
        a2d2_tree(tmp_path, "20181204_191844", "front_center", number, np.zeros((2, 3, 3)))
    first, second = sorted(tmp_path.rglob("*_label_*.png"))
    first.unlink()
    ((_, _, path),) = A2D2(tmp_path)
    assert path.endswith("000000002.png")
    second.unlink()
    with pytest.raises(FileNotFoundError, match=r"no picture of \['cam_front_center'\] in "):
        A2D2(tmp_path)


def test_a2d2_knows_its_cameras(tmp_path):
    with pytest.raises(ValueError, match="`positions` must be one of 'front_center', .*got 'top'"):
        A2D2(tmp_path, positions=["top"])


@pytest.mark.parametrize("position", a2d2.POSITIONS)
def test_a2d2_reads_every_camera(tmp_path, position):
    a2d2_tree(tmp_path, "20181204_191844", position, 7, np.full((2, 3, 3), (255, 0, 0)))
    ((_, truth, _),) = A2D2(tmp_path, positions=[position])
    assert (truth == 7).all()


def test_a2d2_meets_cityscapes_by_its_own_mapping(reference):
    mappings = json.loads((reference / "labels" / "mappings.json").read_text())
    to_train_id = mappings["cityscapes_id_to_train_id"]
    table = class_ids.match_ids(A2D2.label_mapping, Cityscapes.pred_mapping, A2D2.train_ids)
    for key, cityscapes_id in mappings["a2d2_id_to_cityscapes_id"].items():
        assert table[int(key)] == to_train_id[str(cityscapes_id)]
    names = {str(label.id): label.name for label in cityscapes.tables.Cityscapes.classes}
    assert A2D2.train_ids == {
        int(key): names[str(cityscapes_id)]
        for key, cityscapes_id in mappings["a2d2_id_to_cityscapes_id"].items()
        if cityscapes_id != 255
    }


def test_the_kinds_of_a2d2_are_those_of_the_paper(reference):
    kinds = json.loads((reference / "labels" / "mappings.json").read_text())["a2d2_id_to_train_id"]
    names = {key: name for key, (name, _) in A2D2.label_mapping.items()} | A2D2.kinds
    assert len(set(names.values())) == 37
    for one, other in itertools.combinations(names, 2):
        assert (names[one] == names[other]) == (kinds[str(one)] == kinds[str(other)])


def test_classes_of_one_kind_have_its_name_and_the_colour_of_the_first():
    joined = class_ids.joined_classes(configuration.datasets["a2d2"])
    assert [joined[key] for key in (7, 8, 10)] == [("Car", (255, 0, 0))] * 3  # Car 1, 2 and 4
    assert joined[33] == joined[46] == ("Traffic signal", (33, 44, 177))  # Signal corpus first
    assert joined[34] == ("Sky", (135, 206, 255))
    assert joined.keys() == A2D2.label_mapping.keys() and len(set(joined.values())) == 37


def test_a2d2_finds_the_recorded_categories_in_those_of_cityscapes(reference):
    recorded = json.loads((reference / "labels" / "mappings.json").read_text())
    order = [None, *dict.fromkeys(Cityscapes.categories.values())]
    for key, category in recorded["a2d2_id_to_cityscapes_category_id"].items():
        name = A2D2.train_ids.get(int(key))
        assert Cityscapes.categories.get(name) == order[category]


def test_a_class_that_is_learnt_by_the_name_of_a_kind_meets_every_id_of_it():
    known = {0: ("car", (0, 0, 142)), 1: ("utility vehicle", (9, 9, 9))}
    table = class_ids.predicted_ids(configuration.datasets["a2d2"], known, logging.getLogger())
    assert_array_equal(np.flatnonzero(table == 1), [52, 53])  # Utility vehicle 1 and 2
    assert_array_equal(np.flatnonzero(table == 0), [7, 8, 9, 10])


def test_a_network_that_learnt_a2d2_keeps_the_classes_of_a2d2():
    table = class_ids.match_ids(A2D2.label_mapping, A2D2.label_mapping, A2D2.train_ids)
    assert_array_equal(table[:55], np.arange(55))


def test_the_a2d2_table_is_the_recorded_one(reference):
    table = json.loads((reference / "labels" / "a2d2.json").read_text())
    rows = {row["id"]: (row["name"], tuple(row["rgb"])) for row in table["classes"]}
    assert rows.pop(255)[1] == (0, 0, 0)
    assert rows == A2D2.label_mapping


# SegmentMeIfYouCan


@pytest.mark.parametrize(("kind", "suffix"), [(RoadAnomaly21, "jpg"), (RoadObstacle21, "webp")])
def test_a_track_has_truth_where_it_is_public(tmp_path, kind, suffix):
    smiyc_tree(tmp_path, f"validation0001.{suffix}", [[0, 1, 1], [255, 0, 0]])
    smiyc_tree(tmp_path, f"validation0000.{suffix}", [[1, 1, 1], [1, 1, 1]])
    smiyc_tree(tmp_path, f"frame_7.{suffix}")
    save(tmp_path / "labels_masks" / "validation0000_labels_semantic_color.png")
    items = list(kind(tmp_path))
    names = [path.rsplit("/", 1)[1] for _, _, path in items]
    assert names == [f"{stem}.{suffix}" for stem in ("frame_7", "validation0000", "validation0001")]
    assert items[0][1] is None
    assert_array_equal(items[1][1], np.ones((2, 3)))
    assert_array_equal(items[2][1], [[0, 1, 1], [255, 0, 0]])
    assert items[2][1].dtype == np.uint8


def test_obstacles_lie_on_a_road_that_cityscapes_knows():
    table = class_ids.match_ids(RoadObstacle21.label_mapping, Cityscapes.pred_mapping)
    assert (table[0], table[1]) == (0, 255)
    table = class_ids.match_ids(RoadAnomaly21.label_mapping, Cityscapes.pred_mapping)
    assert (table == 255).all()


# your own pictures


def test_custom_takes_every_kind_of_picture_in_order_and_nothing_else(tmp_path):
    for name in ("c.JPG", "a.webp", "b.bmp", "d.tif", "e.jpeg", "f.png", "below/g.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._f.png").write_text("what macOS leaves behind")
    (tmp_path / "folder.png").mkdir()
    save(tmp_path / ".thumbnails" / "f.png")
    names = [path.rsplit("/", 1)[1] for _, _, path in CustomDataset(tmp_path)]
    assert names == ["a.webp", "b.bmp", "c.JPG", "d.tif", "e.jpeg", "f.png"]
    image, truth, _ = CustomDataset(tmp_path)[0]
    assert (image.mode, image.size, truth) == ("RGB", (3, 2), None)
    assert len(CustomDataset(tmp_path, recursive=True)) == 7
    assert CustomDataset(tmp_path).left_out == {".txt": 1}


def test_folders_below_and_behind_links_are_searched_once(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    save(elsewhere / "deep" / "b.png")
    photos = tmp_path / "photos"
    save(photos / "2024" / "may" / "a.png")
    (photos / "linked").symlink_to(elsewhere)
    (photos / "linked again").symlink_to(elsewhere)
    (photos / "2024" / "loop").symlink_to(photos)
    found = CustomDataset(photos, recursive=True)
    names = [path.relative_to(photos).as_posix() for path, _ in found.samples]
    assert names == ["2024/may/a.png", "linked/deep/b.png"]


def test_what_is_no_picture_is_counted_by_its_extension(tmp_path):
    for name in ("a.png", "b.MOV", "c.mov", "d.xml", "README"):
        save(tmp_path / name) if name == "a.png" else (tmp_path / name).write_text("")
    assert CustomDataset(tmp_path).left_out == {".mov": 2, ".xml": 1, "README": 1}
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"but 2 \.mov, 1 \.xml, 1 README; .* \.jpg"):
        CustomDataset(tmp_path)


@pytest.mark.parametrize(("suffix", "needed"), [(".avif", "avif"), (".jp2", "jpg_2000")])
def test_newer_formats_are_read_where_pillow_can(tmp_path, suffix, needed):
    if not features.check(needed):
        pytest.skip(f"Pillow without {needed}")
    save(tmp_path / f"a{suffix}")
    image, _, _ = CustomDataset(tmp_path)[0]
    assert image.size == (3, 2) and abs(np.asarray(image).astype(int) - 90).max() < 4


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("L", 200, (200, 200, 200)),
        ("1", 1, (255, 255, 255)),
        ("LA", (200, 9), (200, 200, 200)),
        ("RGBA", (1, 2, 3, 4), (1, 2, 3)),
        ("I;16", 0x8001, (128, 128, 128)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("P", 5, (10, 20, 30)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, rgb):
    image = Image.new(mode, (3, 2), colour)
    options = {}
    if mode == "P":
        image.putpalette([0] * 15 + [10, 20, 30])
        options["transparency"] = bytes([255] * 5 + [7])
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path, **options)
    with Image.open(path) as saved:
        assert saved.mode.partition(";")[0] == mode.partition(";")[0]  # "I" before Pillow 11
    read = datasets.read_image(path)
    assert read.mode == "RGB"
    assert_array_equal(read, np.full((2, 3, 3), rgb))


def test_a_turned_picture_is_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn clockwise is missing
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255
    save(tmp_path / "a.png", pixels, exif=exif)
    read = np.asarray(datasets.read_image(tmp_path / "a.png"))
    assert read.shape == (3, 2, 3)
    assert (read[0, 1] == 255).all()


# what holds for all


def test_the_transform_changes_image_and_truth_together(tmp_path):
    cityscapes_tree(tmp_path, "val", "bonn_000002_000019", [[7, 8, 11], [26, 33, 0]])
    dataset = Cityscapes(tmp_path, transform=lambda image, truth: (image.size, truth[:, ::-1]))
    image, truth, _ = dataset[0]
    assert image == (3, 2)
    assert_array_equal(truth, [[2, 1, 0], [255, 18, 13]])


LABELLED = [Cityscapes, CityscapesLAF, A2D2, RoadAnomaly21, RoadObstacle21]
KINDS = [*LABELLED, CustomDataset]


@pytest.mark.parametrize("kind", LABELLED)
def test_the_truth_can_be_read_without_the_picture(tmp_path, kind):
    tree_of(kind, tmp_path)
    dataset = kind(tmp_path, transform=lambda image, truth: (image, truth + 1))
    ((_, changed, path),) = dataset
    (tmp_path / path).write_bytes(b"")
    assert_array_equal(dataset.ground_truth(0), changed - 1)


def test_pictures_without_truth_have_none(tmp_path):
    save(tmp_path / "a.png")
    assert CustomDataset(tmp_path).ground_truth(0) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_root_says_where_it_is_set(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere; set the root .*configuratio"):
        kind(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_root_says_what_was_looked_for(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="there are no pictures .*[*]"):
        kind(tmp_path)


@pytest.mark.parametrize("kind", [Cityscapes, CityscapesLAF])
def test_an_unknown_split_lists_the_known_ones(tmp_path, kind):
    with pytest.raises(ValueError, match="`split` must be one of 'train', .*'test', got 'vall'"):
        kind(tmp_path, split="vall")


def test_a_picture_whose_labels_are_missing_fails_alone(tmp_path):
    for city in ("aachen", "bonn", "ulm"):
        cityscapes_tree(tmp_path, "val", f"{city}_000002_000019", np.zeros((2, 3)))
    (tmp_path / "gtFine/val/bonn/bonn_000002_000019_gtFine_labelIds.png").unlink()
    dataset = Cityscapes(tmp_path, split="val")
    assert len(dataset) == 3
    assert dataset[0][1].shape == dataset[2][1].shape == (2, 3)
    with pytest.raises(FileNotFoundError, match="bonn_000002_000019_gtFine_labelIds"):
        dataset[1]


@pytest.mark.parametrize("kind", LABELLED)
def test_labels_of_another_size_are_named(tmp_path, kind):
    labels = tree_of(kind, tmp_path, shape=(4, 3))
    sizes = rf"{labels.name} has .* \(4, 3\), .*\.png has \(2, 3\)"
    with pytest.raises(ValueError, match=sizes):
        kind(tmp_path)[0]


@pytest.mark.parametrize("kind", LABELLED)
def test_unreadable_labels_are_named(tmp_path, kind):
    labels = tree_of(kind, tmp_path)
    labels.write_bytes(labels.read_bytes()[:40])
    with pytest.raises(ValueError, match=f"{labels.name} cannot be used: "):
        kind(tmp_path)[0]


@pytest.mark.parametrize("kind", [Cityscapes, CityscapesLAF])
def test_a_tree_with_no_labels_at_all_is_refused(tmp_path, kind):
    labels = tree_of(kind, tmp_path)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=f"none of 1 pictures has labels.*{labels.name}"):
        kind(tmp_path)


def test_labels_in_colour_are_no_ids(tmp_path):
    cityscapes_tree(tmp_path, "val", "bonn_000002_000019", np.zeros((2, 3, 3)))
    with pytest.raises(
        ValueError, match="labelIds.png cannot be used: .*8 or 16 bits.* mode 'RGB'"
    ):
        Cityscapes(tmp_path)[0]


@pytest.mark.parametrize("content", [b"", b"a text file", "cut"])
def test_an_unreadable_picture_is_named(tmp_path, content):
    rng = np.random.default_rng(0)
    path = save(tmp_path / "a.png", rng.integers(0, 256, (50, 50, 3)))
    path.write_bytes(path.read_bytes()[:3000] if content == "cut" else content)
    with pytest.raises(ValueError, match=r"a\.png cannot be used: "):
        CustomDataset(tmp_path)[0]


def test_a_vanished_picture_is_named(tmp_path):
    path = save(tmp_path / "a.png")
    dataset = CustomDataset(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        dataset[0]


@pytest.mark.parametrize(
    ("item", "got"),
    [
        ((1, None), r"\(int, NoneType\)"),
        ((1, None, "a.png", 0), r"\(int, NoneType, str, int\)"),
        ((1, None, 7), r"\(int, NoneType, int\)"),
        (1.5, r"\(float\)"),
    ],
)
def test_an_item_of_others_datasets_without_path_or_with_more_is_named(item, got):
    with pytest.raises(ValueError, match=rf"an item of list must be \(image, .* got {got}"):
        datasets.item_of([item], 0)
    assert datasets.item_of([(1, None, "a.png")], 0) == (1, None, "a.png")


def test_drawings_in_results_among_the_pictures_are_no_pictures(tmp_path):
    results = tmp_path / "results"
    kept = ["a.png", "pictures/rating/b.png", "results/pictures/c.png"]
    drawn = ["results/pictures/rating/net/d.png", "results/analysis/net/e.png"]
    for path in (tmp_path / name for name in kept + drawn):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)
    for name in ("names", "input"):
        (results / name).mkdir()
    listed = CustomDataset(tmp_path, recursive=True).samples
    assert [path.relative_to(tmp_path).as_posix() for path, _ in listed] == kept
