"""Stage 5's script up to the window: which file, which segments, which map, which query."""

import csv
import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
from factories import object_table
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import discover_embedding_space as script
from configuration import CONFIG, ModelConfig, models
from src.discover import state
from src.discover.asking import Asking
from src.discover.display import write_pictures
from src.discover.query import embed_part, read_part
from src.embedding import space as embedding_space
from src.embedding.maps import MAPS, Reduction, read_with_maps, with_maps
from src.embedding.space import reduce
from src.embedding.table import only_datasets, read_table
from src.errors import SettingError
from src.model_card import card_of
from src.store import exports
from src.store.files import version_of
from src.store.groups import write_groups
from src.store.of_objects import keys_of
from src.store.paths import groups_path
from src.store.provenance import identity
from src.store.tables import write_embeddings

LOG = logging.getLogger(__name__)
PLANE = Reduction("pca")


@pytest.fixture
def path(tmp_path):
    """A file of stage 4: eight segments of two datasets in turn."""
    vectors = np.random.default_rng(0).random((8, 3), np.float32)
    names = {"dataset": ["streets", "alleys"] * 4, "image_path": ["a.png", "b.png"] * 4}
    path = tmp_path / "embeddings_8_8_net.p"
    write_embeddings(path, object_table(8, embeddings=vectors, **names), {"net": "a"})
    return path


# the table


def test_a_missing_file_is_named_with_those_that_are_there(path):
    with pytest.raises(SettingError, match=r"_other\.p is missing.*has embeddings_8_8_net\.p"):
        read_table(path.with_name("embeddings_8_8_other.p"))
    with pytest.raises(SettingError, match="has no such file"):
        read_table(path.parent / "gone" / "embeddings_8_8_net.p")


def test_only_the_named_datasets_are_shown_and_wrong_names_are_told(path):
    table = read_table(path)
    assert only_datasets(path, table, None) is table
    assert only_datasets(path, table, ["alleys", "streets"]) is table  # and no copy of it
    shown = only_datasets(path, table, ["alleys"])
    assert_array_equal(shown["dataset"], ["alleys"] * 4)
    assert_array_equal(shown["component_index"], [2, 4, 6, 8])
    with pytest.raises(SettingError, match="no objects of highways, only of alleys, streets"):
        only_datasets(path, table, ["highways", "streets"])


# the maps


def make_maps(path, reduction, overwrite=False):
    return read_with_maps(LOG, path, reduction, overwrite)


def test_maps_are_stored_and_reused_only_for_the_same_settings(path, caplog):
    caplog.set_level(logging.INFO)
    first = make_maps(path, PLANE)
    assert len(caplog.records) == 1
    assert read_table(path).facts["made_from"]["net"] == "a"
    again = make_maps(path, PLANE)
    assert len(caplog.records) == 1
    assert_array_equal(again["plot_embeddings"], first["plot_embeddings"])
    as_they_are = replace(PLANE, size=None)
    make_maps(path, as_they_are)
    assert len(caplog.records) == 2
    assert_array_equal(read_table(path)["nn_embeddings"], first["embeddings"])
    make_maps(path, as_they_are, overwrite=True)
    assert len(caplog.records) == 3


def test_a_file_that_another_run_has_written_meanwhile_stays(path, caplog):
    version, table = version_of(path), read_table(path)
    write_embeddings(path, table.take([0, 1]), table.facts["made_from"])
    placed = with_maps(LOG, path, version, table, PLANE)
    assert len(placed["plot_embeddings"]) == 8
    assert "the map is not kept: another run has written" in caplog.text
    assert len(read_table(path)) == 2


def lose(path, table, rows):
    """Write a table as stage 4 leaves it where some rows have come since the maps were made."""
    is_new = np.isin(np.arange(len(table)), rows)[:, None]
    lacking = {name: np.where(is_new, np.nan, table[name]) for name in MAPS}
    write_embeddings(path, table.with_columns(**lacking), table.facts["made_from"])


def test_a_map_is_made_anew_where_more_than_a_third_has_come_since(path, caplog):
    caplog.set_level(logging.INFO)
    fresh = make_maps(path, PLANE)["plot_embeddings"]
    old = read_table(path).with_columns(plot_embeddings=np.zeros((8, 2), np.float32))
    lose(path, old, [0, 1, 2])
    kept = read_with_maps(LOG, path, PLANE, keep=True)
    assert_array_equal(kept["plot_embeddings"], np.zeros((8, 2)))
    lose(path, old, [0, 1, 2])
    assert_array_equal(make_maps(path, PLANE)["plot_embeddings"], fresh)
    assert "making the map anew: 3 of 8 segments have come since it was made" in caplog.text


def test_segments_that_came_little_by_little_are_counted_together(path, caplog):
    caplog.set_level(logging.INFO)
    whole = read_table(path)
    for count in (4, 5, 6):  # all of which the first 4 are two thirds of
        table = whole.take(np.arange(count))
        if count > 4:
            former = read_table(path)
            points = np.full((count, 2), np.nan, np.float32)
            points[: count - 1] = former["plot_embeddings"]
            table = table.with_columns(**dict.fromkeys(MAPS, points))
            table = table.with_facts(reduced_by=former.facts["reduced_by"])
        write_embeddings(path, table, whole.facts["made_from"])
        make_maps(path, PLANE)
    assert "making the map anew" not in caplog.text
    former = read_table(path)
    points = np.vstack([former["plot_embeddings"], [[np.nan, np.nan]]]).astype(np.float32)
    table = whole.take(np.arange(7)).with_columns(**dict.fromkeys(MAPS, points))
    table = table.with_facts(reduced_by=former.facts["reduced_by"])
    write_embeddings(path, table, whole.facts["made_from"])
    make_maps(path, PLANE)
    assert "making the map anew: 3 of 7 segments" in caplog.text


@pytest.mark.parametrize("size", [2, 1, None])
def test_segments_that_came_since_are_placed_and_others_stay(path, size):
    reduction = replace(PLANE, size=size)
    before = make_maps(path, reduction)
    others = np.arange(8) != 2
    lose(path, before, [2])
    after = make_maps(path, reduction)
    for name in MAPS:
        assert np.isfinite(after[name]).all()
        assert_array_equal(after[name][others], before[name][others])
    assert_array_equal(read_table(path)["plot_embeddings"], after["plot_embeddings"])
    if size is None:
        assert_array_equal(after["nn_embeddings"], after["embeddings"])


@pytest.mark.parametrize(
    ("method", "tsne", "message"),
    [
        ("tsne", {"perplexity": "x"}, "args.method=tsne .* with tsne.perplexity='x': "),
        ("tsne", {"perplexity": -3}, "perplexity"),
        ("tsne", {"max_iter": 3}, "max_iter"),
        ("isomap", {}, "args.method=isomap cannot reduce 8 vectors: isomap takes up to 5 points"),
    ],
)
def test_what_the_reduction_refuses_is_named_without_a_traceback(
    path, monkeypatch, method, tsne, message
):
    monkeypatch.setitem(embedding_space.MAX_POINTS, "isomap", 5)
    with pytest.raises(SettingError, match=message):
        make_maps(path, Reduction(method, tsne=tsne))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *(("args.seed", seed, "a whole number") for seed in (-1, 2**32, 1.5, "x", None, True)),
        *(("args.port", port, "a whole number from 0 to 65535") for port in (70000, -1, "x")),
        *(("args.query_box", box, r"\[left, upper") for box in ([0, 0, 9], "box", [0, 0, 9, 9.5])),
        *(("mainplot.save_path", path, "the path of a file") for path in (5, True)),
        ("mainplot.segment", -1, "a whole number >= 0"),
        ("args.method", "umap", "one of tsne, isomap, pca"),
        ("args.metric", "taxi", "one of euclid, cos"),
        ("args.neighbours", 0, "a whole number >= 1"),
        ("args.budget", 0, "a whole number >= 1"),
        ("args.datasets", [], "a name or a list of names"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_before_the_run(name, value, rule):
    with pytest.raises(
        SettingError, match=f"`{name}` must be {rule}.*, got {re.escape(repr(value))}"
    ):
        script.ex.run(config_updates={name: value})


def test_a_wrong_name_for_the_picture_is_named():
    with pytest.raises(SettingError, match=r"`mainplot\.save_path` must end in one of"):
        script.check_options("tsne", {}, False, "map.doc", None)


def test_groups_need_no_display_and_no_browser():
    script.check_options("tsne", {}, False, None, None, groups=True)
    with pytest.raises(SettingError, match=r"args\.browser shows what args\.groups writes: choose"):
        script.check_options("tsne", {}, True, None, None, groups=True)


def test_an_option_that_the_script_sets_itself_is_none_of_tsne():
    with pytest.raises(SettingError, match="tsne has angle, .*; got n_components"):
        script.check_options("tsne", {"n_components": 3}, False, "map.png", None)


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    class Explorer:
        asking = Asking(None, None)

        def save(self, path):
            path.write_bytes(b"")

    with pytest.raises(SettingError, match=r"gone.map\.png of `mainplot\.save_path` cannot be"):
        write_pictures(LOG, Explorer(), str(tmp_path / "gone" / "map.png"))


def test_a_file_of_the_original_is_shown_but_not_written(reference, tmp_path, caplog):
    source = reference / "caches" / "tree" / "embeddings_32_32_densenet201.p"
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    table = make_maps(path, PLANE)
    assert table["plot_embeddings"].shape == (len(table), 2)
    assert path.read_bytes() == source.read_bytes()
    assert "file of the original system" in caplog.text


def test_a_map_that_cannot_be_stored_is_shown_all_the_same(path, caplog):
    blocked = path / "below_a_file.p"
    table = with_maps(LOG, blocked, None, read_table(path), PLANE)
    assert np.isfinite(table["plot_embeddings"]).all()
    assert "the map cannot be kept" in caplog.text


def test_classes_of_one_kind_are_one_group_and_one_name_in_exports(tmp_path):
    true_id, points = [7, 8, 34], np.zeros((3, 2), np.float32)  # Car 1, Car 2, Sky of A2D2
    table = object_table(3, dataset="a2d2", true_id=true_id, plot_embeddings=points)
    card = card_of(models[CONFIG.MODEL_NAME], CONFIG.TRAIN_DATASET, {})
    shown = script.segments_of(LOG, table, card, tmp_path)
    groups = shown.groups(state.BY_TRUTH, None)
    assert (groups.names, groups.codes.tolist()) == (("Car", "Sky"), [0, 0, 1])
    assert groups.colours.shape == (2, 3)
    exports.write_csv(tmp_path / "a.csv", table, [0, 1], (card.classes, shown.label_mappings))
    assert (tmp_path / "a.csv").read_text().count(",Car,") == 2


# a list of pictures to label


def test_a_budget_of_pictures_is_listed_for_people_and_for_cvat(path, tmp_path):
    args = dict(load_file=path, budget=5, budget_of="pictures", seed=0, io_path=tmp_path)
    script.list_pictures(args, None, None, LOG)
    folder = tmp_path / "pictures" / "explorer" / "embeddings_8_8_net_to_label_5"
    with (folder / "pictures.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)  # of 8 objects in two pictures
    assert (first["file_name"], first["objects"]) == ("a.png", "4")
    assert first["reason"] == "suspicion 0.750, place 1 of 8; in no group"
    # ln 9 + ln 9/3 + ln 9/5 + ln 9/7 by the root of 1 + 4
    assert first["gain"] == "1.849"
    assert (second["dataset"], second["image_index"]) == ("alleys", "0")
    assert (folder / "images.txt").read_text() == "a.png\nb.png\n"
    lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    assert list(lines) == [
        {"version": "1.1"},
        {"type": "images"},
        {"name": "a", "extension": ".png", "width": 64, "height": 64},
        {"name": "b", "extension": ".png", "width": 64, "height": 64},
    ]
    args["budget"] = 1
    script.list_pictures(args, ["alleys"], None, LOG)
    assert (folder.with_name("embeddings_8_8_net_to_label_1") / "images.txt").read_text() == (
        "b.png\n"
    )


def test_a_budget_of_objects_is_never_exceeded(path, tmp_path):
    args = dict(load_file=path, budget=5, budget_of="objects", seed=0, io_path=tmp_path)
    script.list_pictures(args, None, None, LOG)
    folder = tmp_path / "pictures" / "explorer" / "embeddings_8_8_net_to_label_5_objects"
    assert (folder / "images.txt").read_text() == "a.png\n"  # of two with 4 objects each
    with pytest.raises(SettingError, match="every picture has more than args.budget=3 objects"):
        script.list_pictures(args | {"budget": 3}, None, None, LOG)


def test_a_list_of_pictures_goes_by_the_groups_that_are_kept(path, tmp_path):
    alleys = keys_of(read_table(path))[1::2]
    write_groups(groups_path(path), dict.fromkeys(alleys, 2))
    args = dict(load_file=path, budget=5, budget_of="pictures", seed=0, io_path=tmp_path)
    script.list_pictures(args, None, None, LOG)
    folder = tmp_path / "pictures" / "explorer" / "embeddings_8_8_net_to_label_5"
    with (folder / "pictures.csv").open(encoding="utf-8", newline="") as file:
        reasons = [row["reason"].partition("; ")[2] for row in csv.DictReader(file)]
    assert reasons == ["in no group", "group 3 of 4 objects, 0 of them in images above"]


# a picture from outside


@pytest.fixture
def photo(tmp_path):
    """A picture of 40 x 30 pixels (width x height)."""
    picture = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png"), picture


def test_a_query_is_a_picture_or_a_part_of_it(photo):
    path, picture = photo
    whole = read_part(path)
    assert (whole.name, whole.box) == ("photo.png", [0, 0, 40, 30])
    assert_array_equal(whole.picture, picture)
    assert read_part(path, [1, 2, 40, 30]).box == [1, 2, 40, 30]
    assert read_part(None) is None


@pytest.mark.parametrize("box", [[0, 0, 41, 30], [5, 5, 5, 9]])
def test_a_wrong_box_is_refused_with_what_is_allowed(photo, box):
    with pytest.raises(SettingError, match=r"`args\.query_box` must"):
        read_part(photo[0], box)


def test_a_query_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"args\.query .*gone\.png"):
        read_part(str(tmp_path / "gone.png"))
    with pytest.raises(SettingError, match=r"args\.query_box goes with args\.query"):
        read_part(None, [0, 0, 1, 1])


def test_a_query_is_embedded_by_the_network_of_the_segments_and_placed(photo, monkeypatch, caplog):
    entry = ModelConfig("tiny", "torchvision.models", "resnet18", {"weights": None}, None)
    monkeypatch.setitem(script.embedding_networks, "tiny", entry)
    part = read_part(photo[0])
    vectors = np.random.default_rng(2).random((8, 512), np.float32)
    maps = dict.fromkeys(MAPS, reduce(vectors, "pca", 2, 0))
    table = object_table(8, embeddings=vectors, **maps)
    same = table.with_facts(made_from={"net": identity(entry), "crop_size": None})
    embedder = script.embedder_of("tiny", same, None, None, LOG)
    query = embed_part(LOG, part, same, "tiny", embedder)
    assert query.name == "photo.png"
    assert query.embeddings.shape == (512,)
    assert_allclose(query.plot_embeddings, query.nn_embeddings)
    assert "other weights" not in caplog.text
    other = table.with_facts(made_from={"net": "another"})
    embed_part(LOG, part, other, "tiny", embedder)
    assert "other weights than args.net=tiny" in caplog.text
    with pytest.raises(SettingError, match="gives 512 values, the segments have 9"):
        short = table.with_columns(embeddings=vectors[:, :9])
        embed_part(LOG, part, short, "tiny", embedder)


def test_a_query_is_the_one_object_of_its_picture_for_the_segmentation_network(photo):
    table = object_table(1)
    model = script.models[CONFIG.MODEL_NAME]
    card = card_of(model, CONFIG.TRAIN_DATASET, {})
    embedder = script.embedder_of("segmentation", table, model, card, LOG)
    part = read_part(photo[0], [1, 2, 39, 28])
    picture, components, numbers = embedder.cut_box(part.picture, part.box)
    assert numbers == [1]
    assert_array_equal(np.argwhere(components == 1)[[0, -1]], [[2, 1], [27, 38]])
    assert components.sum() == 26 * 38
    ((_, vectors),) = embedder.embed([("photo", (picture, components, numbers))])
    assert vectors.shape == (1, 48) and np.isfinite(vectors).all()
