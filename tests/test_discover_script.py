"""Stage 5's script up to the window: which file, which segments, which map, which query."""

import logging
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import discover_embedding_space as script
from configuration import ModelConfig
from src import registry
from src.embedding import space as embedding_space
from src.errors import SettingError
from src.store import cache

LOG = logging.getLogger(__name__)
SETTINGS = dict(method="pca", size=2, seed=0, tsne={})
MAPPING = {0: ("road", (9, 9, 9)), 7: ("cow", (1, 2, 3))}


def make_table(count=8):
    """Two images of two datasets with `count` segments."""
    return {
        "image_path": ["a.png", "b.png"],
        "dataset": ["streets", "alleys"],
        "model_name": ["narrow"] * 2,
        "image_index": np.arange(2),
        "image_size": np.full((2, 2), 64),
        "iou_pred": [np.full(9, 0.2, np.float32)] * 2,
        "image_made_from": ["", ""],
        "embeddings": np.random.default_rng(0).random((count, 3), np.float32),
        "box": np.tile([0, 0, 9, 9], (count, 1)),
        "component_index": np.arange(1, count + 1),
        "image_level_index": np.arange(count) % 2,
        "gt": np.full(count, 7),
        "pred": np.zeros(count, np.int64),
        "iou": np.full(count, 0.2, np.float32),
        "segment_size": np.full(count, 81),
        "thumbnail": [b""] * count,
    }


@pytest.fixture
def path(tmp_path):
    """A file of stage 4."""
    path = tmp_path / "embeddings_8_8_net.p"
    cache.write_table(path, make_table(), {"net": "a"})
    return path


# the table


def test_a_missing_file_is_named_with_those_that_are_there(path):
    with pytest.raises(SettingError, match=r"_other\.p is missing.*has embeddings_8_8_net\.p"):
        script.read_table(path.with_name("embeddings_8_8_other.p"))
    with pytest.raises(SettingError, match="has no such file"):
        script.read_table(path.parent / "gone" / "embeddings_8_8_net.p")


def test_only_the_named_datasets_are_shown_and_wrong_names_are_told(path):
    table = script.read_table(path)
    assert script.only_datasets(path, table, None) is table
    shown = script.only_datasets(path, table, ["alleys"])
    assert shown["dataset"] == ["alleys"]
    assert_array_equal(shown["component_index"], [2, 4, 6, 8])
    assert_array_equal(shown["image_level_index"], [0, 0, 0, 0])
    with pytest.raises(SettingError, match="which has streets, alleys; got"):
        script.only_datasets(path, table, ["highways"])


# the maps


def make_maps(path, settings, table=None, overwrite=False):
    version = cache.version_of(path)
    table = script.read_table(path) if table is None else table
    return script.with_maps(LOG, path, version, table, settings, overwrite)


def test_maps_are_stored_and_reused_only_for_the_same_settings(path, caplog):
    caplog.set_level(logging.INFO)
    first = make_maps(path, SETTINGS)
    assert len(caplog.records) == 1
    stored = script.read_table(path)
    assert stored["made_from"]["net"] == "a"
    again = make_maps(path, SETTINGS, stored)
    assert len(caplog.records) == 1
    assert_array_equal(again["plot_embeddings"], first["plot_embeddings"])
    make_maps(path, {**SETTINGS, "size": None}, stored)
    assert len(caplog.records) == 2
    assert_array_equal(script.read_table(path)["nn_embeddings"], first["embeddings"])
    make_maps(path, {**SETTINGS, "size": None}, overwrite=True)
    assert len(caplog.records) == 3


def test_a_file_that_another_run_has_written_meanwhile_stays(path, caplog):
    version, table = cache.version_of(path), script.read_table(path)
    cache.write_table(path, cache.take_segments(table, [0, 1]), table["made_from"])
    placed = script.with_maps(LOG, path, version, table, SETTINGS, overwrite=False)
    assert len(placed["plot_embeddings"]) == 8
    assert "the map is not kept: another run has written" in caplog.text
    assert len(script.read_table(path)["embeddings"]) == 2


@pytest.mark.parametrize("size", [2, 1, None])
def test_segments_that_came_since_are_placed_and_others_stay(path, size):
    settings = {**SETTINGS, "size": size}
    before = make_maps(path, settings)
    longer = script.read_table(path)
    for name in ("plot_embeddings", "nn_embeddings"):
        longer[name] = longer[name].copy()
        longer[name][2] = np.nan  # as stage 4 leaves them
    after = make_maps(path, settings, longer)
    others = np.arange(8) != 2
    for name in ("plot_embeddings", "nn_embeddings"):
        assert np.isfinite(after[name]).all()
        assert_array_equal(after[name][others], before[name][others])
    assert_array_equal(script.read_table(path)["plot_embeddings"], after["plot_embeddings"])
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
    settings = {**SETTINGS, "method": method, "tsne": tsne}
    with pytest.raises(SettingError, match=message):
        make_maps(path, settings)


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


def test_an_option_that_the_script_sets_itself_is_none_of_tsne():
    with pytest.raises(SettingError, match="tsne has angle, .*; got n_components"):
        script.check_options("tsne", {"n_components": 3}, False, "map.png", None)


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    class Explorer:
        query = None

        def save(self, path):
            path.write_bytes(b"")

    with pytest.raises(SettingError, match=r"gone.map\.png of `mainplot\.save_path` cannot be"):
        script.write_pictures(LOG, Explorer(), str(tmp_path / "gone" / "map.png"), None)


def test_a_file_of_the_original_is_shown_but_not_written(reference, tmp_path, caplog):
    source = reference / "caches" / "tree" / "embeddings_32_32_densenet201.p"
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    table = make_maps(path, SETTINGS)
    assert table["plot_embeddings"].shape == (len(table["pred"]), 2)
    assert path.read_bytes() == source.read_bytes()
    assert "file of the original system" in caplog.text


def test_a_map_that_cannot_be_stored_is_shown_all_the_same(path, caplog):
    table = script.read_table(path)
    blocked = path / "below_a_file.p"
    table = script.with_maps(LOG, blocked, None, table, SETTINGS, overwrite=False)
    assert np.isfinite(table["plot_embeddings"]).all()
    assert "the map cannot be kept" in caplog.text


# a picture from outside


@pytest.fixture
def photo(tmp_path):
    """A picture of 40 x 30 pixels (width x height)."""
    picture = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png"), picture


def test_a_query_is_a_picture_or_a_part_of_it(photo):
    path, picture = photo
    name, read, box = script.read_query(path, None)
    assert (name, box) == ("photo.png", [0, 0, 40, 30])
    assert_array_equal(read, picture)
    assert script.read_query(path, [1, 2, 40, 30])[2] == [1, 2, 40, 30]
    assert script.read_query(None, None) is None


@pytest.mark.parametrize("box", [[0, 0, 41, 30], [5, 5, 5, 9]])
def test_a_wrong_box_is_refused_with_what_is_allowed(photo, box):
    with pytest.raises(SettingError, match=r"`args\.query_box` must"):
        script.read_query(photo[0], box)


def test_a_query_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"args\.query .*gone\.png"):
        script.read_query(str(tmp_path / "gone.png"), None)
    with pytest.raises(SettingError, match=r"args\.query_box goes with args\.query"):
        script.read_query(None, [0, 0, 1, 1])


def test_a_query_is_embedded_by_the_network_of_the_segments_and_placed(photo, monkeypatch, caplog):
    entry = ModelConfig("tiny", "torchvision.models", "resnet18", {"weights": None}, None)
    monkeypatch.setitem(script.embedding_networks, "tiny", entry)
    named = script.read_query(photo[0], None)
    vectors = np.random.default_rng(2).random((8, 512), np.float32)
    maps = embedding_space.reduce(vectors, "pca", 2, 0)
    table = {"embeddings": vectors, "nn_embeddings": maps, "plot_embeddings": maps}
    same = {"net": registry.identity(entry), "crop_size": None}
    query = script.embed_query(LOG, named, {**table, "made_from": same}, "tiny", "none")
    assert query.name == "photo.png"
    assert query.embeddings.shape == (512,)
    assert_allclose(query.plot_embeddings, query.nn_embeddings)
    assert "other weights" not in caplog.text
    other = {**table, "made_from": {"net": "another"}}
    script.embed_query(LOG, named, other, "tiny", "none")
    assert "other weights" in caplog.text
    short = {**table, "embeddings": vectors[:, :9], "made_from": None}
    with pytest.raises(SettingError, match="gives 512 values, the segments have 9"):
        script.embed_query(LOG, named, short, "tiny", "none")
