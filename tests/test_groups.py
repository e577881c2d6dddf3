import csv
import json
import logging
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from src import pictures
from src.discover.overview import write_overview
from src.discover.segments import Segments
from src.embedding.groups import describe_groups, find_groups, min_group_size
from src.errors import SettingError
from src.store.groups import change_groups, read_groups, write_groups
from src.store.paths import groups_path, tags_path
from src.store.tags import change_tags
from tests.factories import object_table


def heaps(*sizes):
    """Vectors in heaps far apart, one size each, in the order of the heaps."""
    rng = np.random.default_rng(0)
    centres = 100 * np.eye(len(sizes), 8)
    return np.vstack([rng.normal(centres[k], 1, (size, 8)) for k, size in enumerate(sizes)])


def test_heaps_are_groups_the_largest_first():
    labels = find_groups(heaps(20, 40, 30))
    assert_array_equal(labels, [2] * 20 + [0] * 40 + [1] * 30)


def test_what_lies_alone_is_in_no_group():
    vectors = np.vstack([heaps(20, 20), [[0.0] * 7 + [500]], [[0.0] * 7 + [-500]]])
    assert_array_equal(find_groups(vectors), [0] * 20 + [1] * 20 + [-1, -1])


def test_neighbours_are_all_that_it_takes():
    from sklearn.cluster import HDBSCAN

    vectors = np.random.default_rng(0).normal(size=(400, 3)) ** 3
    labels = find_groups(vectors)
    exact = HDBSCAN(min_cluster_size=4, min_samples=2, max_cluster_size=300, copy=True)
    expected = exact.fit_predict(vectors - vectors.mean(axis=0))
    assert expected.max() > 5
    assert_array_equal(labels[:, None] == labels, expected[:, None] == expected)


def test_twins_are_a_group_however_many_there_are():
    vectors = np.repeat(np.eye(3, 8), 40, axis=0)  # more twins than a graph has neighbours
    assert_array_equal(find_groups(vectors), np.repeat([0, 1, 2], 40))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 17])
def test_groups_of_few_objects_are_found_too(count):
    labels = find_groups(np.random.default_rng(0).normal(size=(count, 3)))
    assert labels.shape == (count,) and labels.dtype == np.int64
    assert (labels == -1).all() or count > 4  # four are a group only where they are twins
    assert_array_equal(find_groups(np.ones((count, 3))), np.full(count, 0 if count > 3 else -1))


def test_a_group_is_four_objects_or_more_of_many():
    assert [min_group_size(count) for count in (1, 669, 100_000)] == [4, 5, 63]


def test_finding_groups_tells_how_far_it_is_and_can_be_cancelled(monkeypatch):
    monkeypatch.setattr("src.embedding.groups.ROWS_AT_ONCE", 40)
    calls = []
    find_groups(heaps(50, 50), progress=lambda *done: calls.append(done))
    assert calls == [(0, 100), (40, 100), (80, 100), (100, 100)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_groups(heaps(50, 50), progress=cancel)


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`vectors` must be finite; row 1 is not"):
        find_groups(np.array([[0.0], [np.nan]]))


# figures of groups


def table_of_six():
    return object_table(
        6,
        embeddings=np.array([[0.0], [1], [3], [50], [54], [99]], np.float32),
        image_index=[0, 0, 1, 1, 1, 2],
        suspicion=np.array([0.5, 0.25, 0.75, 1, 0.5, 0.9], np.float32),
        novelty=np.array([1, np.nan, 2, np.nan, np.nan, 5], np.float32),
    )


LABELS = np.array([4, 4, 4, 0, 0, -1])


def test_a_group_is_told_in_figures():
    names = np.array(["road", "car", "car", "car", "road", "sky"], object)
    true = np.array(["", "tent", "tent", None, "", "dog"], object)
    tags = np.array(["", "Zelt", "Zelt", "", "", ""], object)
    two, three, noise = describe_groups(
        table_of_six(), LABELS, predicted=names, true=true, tags=tags
    )
    assert (three.label, three.rows.tolist(), three.n_images) == (4, [0, 1, 2], 2)
    assert three.medoid == 1  # the mean is 4 / 3
    assert three.typical == (1, 2, 0)  # 2 is farther from 1 than 0 is
    assert (three.suspicion, three.novelty) == (0.5, 1.5)
    assert (three.predicted, three.true, three.tag) == ("car", "tent", "Zelt")
    assert (two.label, two.suspicion, two.novelty) == (0, 0.75, None)
    assert (two.predicted, two.true, two.tag) == ("car", None, "")
    assert (noise.label, noise.rows.tolist(), noise.true) == (-1, [5], "dog")


def test_groups_come_by_suspicion_or_by_size_and_noise_last():
    def labels(order):
        return [g.label for g in describe_groups(table_of_six(), LABELS, order=order)]

    assert labels("suspicion") == [0, 4, -1]  # 0.75, 0.5 and 0.9
    assert labels("size") == [4, 0, -1]
    with pytest.raises(ValueError, match="`order` must be one of suspicion, size, got 'age'"):
        labels("age")


def test_names_and_tags_need_not_be_known():
    group = describe_groups(table_of_six(), LABELS)[0]
    assert (group.predicted, group.true, group.tag) == (None, None, "")


def test_typical_rows_are_eight_spread_over_the_inner_half():
    vectors = np.arange(-20, 21, dtype=np.float32)[:, None]  # the mean is in row 20
    table = object_table(41, embeddings=vectors)
    (group,) = describe_groups(table, np.zeros(41, np.int64))
    assert group.medoid == group.typical[0] == 20
    assert len(set(group.typical)) == 8
    assert min(group.typical) == 10 and max(group.typical) >= 29  # of rows 10 to 30


# the file of groups

CAR, TENT, SOFA = (("streets", 0, number, (0, 0, 9, number)) for number in (1, 2, 3))


def test_groups_are_kept_beside_the_table_until_they_are_found_anew(tmp_path):
    path = groups_path(tmp_path / "new" / "embeddings_16_16_net.p")
    assert path.name == "embeddings_16_16_net_groups.json" and read_groups(path) == {}
    write_groups(path, {CAR: np.int64(0), TENT: -1})
    assert read_groups(path) == {CAR: 0, TENT: -1}
    known = read_groups(path)
    assert change_groups(path, {TENT: 0, SOFA: 1}, known) == {CAR: 0, TENT: 0, SOFA: 1}
    write_groups(path, {SOFA: 2})
    assert read_groups(path) == {SOFA: 2}
    entry = {"dataset": "streets", "image_index": 0, "component_index": 3, "box": [0, 0, 9, 3]}
    assert json.loads(path.read_text()) == {"groups": [entry | {"group": 2}]}


def test_groups_of_another_data_set_stay_numbered_after_those_found_anew(tmp_path):
    path = tmp_path / "groups.json"
    lamp, mast, bin_ = (("alleys", 0, number, (0, 0, 9, number)) for number in (1, 2, 3))
    write_groups(path, {CAR: 0, lamp: 1, mast: 3, bin_: -1})
    assert write_groups(path, {TENT: 0, SOFA: 1, CAR: None}) == read_groups(path)
    assert read_groups(path) == {TENT: 0, SOFA: 1, lamp: 2, mast: 3, bin_: -1}
    write_groups(path, {CAR: None})  # none are known any more
    assert read_groups(path) == {lamp: 0, mast: 1, bin_: -1}


def test_groups_that_are_others_by_now_are_not_changed(tmp_path):
    path, known = tmp_path / "groups.json", {CAR: 0, TENT: 1, SOFA: None}
    write_groups(path, {CAR: 0})
    assert change_groups(path, {CAR: 1}, known) == {CAR: 1, TENT: 1}  # what it lacked, too
    assert change_groups(path, {CAR: 2, SOFA: 2}, known) == {CAR: 1, TENT: 1}
    assert change_groups(path, {SOFA: 2}, known) == {CAR: 1, TENT: 1, SOFA: 2}
    path.write_text("{")
    for write in (write_groups, partial(change_groups, known=known)):
        with pytest.raises(SettingError, match="groups.json is broken"):
            write(path, {CAR: 0})
    assert path.read_text() == "{"


@pytest.mark.parametrize(
    "entry, why",
    [
        ({"group": "0"}, "a group is '0'"),
        ({"group": -2}, "a group is -2"),
        ({"group": True}, "a group is True"),
        ({"groop": 1}, "further values"),
        ({"group": 1, "box": [1, 2]}, "the numbers"),
        ({"group": 1, "dataset": 5}, "the dataset 5"),
    ],
)
def test_a_broken_file_of_groups_is_named(tmp_path, entry, why):
    whole = {"dataset": "a", "image_index": 0, "component_index": 1, "box": [0, 0, 9, 9]}
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"groups": [whole | entry]}))
    with pytest.raises(SettingError, match=f"groups.json is broken .*{why}.*mend it"):
        read_groups(path)


@pytest.mark.parametrize("content", ["", "5", "[]", '{"groups": 5}', '{"groups": [5]}'])
def test_what_is_no_file_of_groups_is_named(tmp_path, content):
    path = tmp_path / "groups.json"
    path.write_text(content)
    with pytest.raises(SettingError, match="groups.json is broken"):
        read_groups(path)


# the overview without a window

LOG = logging.getLogger(__name__)
PRED = {0: ("car $x$", (0, 0, 142)), 1: ("=road", (128, 64, 128))}
TRUE = {"streets": {30: ("tent", (1, 2, 3)), 31: ("boat", (4, 5, 6))}}


def segments_in_heaps(groups):
    """Four objects each, in heaps far apart; the heap's number is its suspicion."""
    heap = np.repeat(np.arange(groups), 4)
    vectors = np.zeros((4 * groups, groups), np.float32)
    vectors[np.arange(len(heap)), heap] = 100 + np.tile(np.arange(4), groups)
    square = np.full((9, 9, 3), 200, np.uint8)
    table = object_table(
        len(heap),
        image_path="caf\udce9.png",
        embeddings=vectors,
        plot_embeddings=vectors[:, :2],
        image_index=np.arange(len(heap)) // 2,
        true_id=np.where(heap == 0, 255, 30),
        predicted_id=heap % 2,
        suspicion=heap.astype(np.float32),
        novelty=np.full(len(heap), np.nan, np.float32),
        thumbnail=[pictures.thumbnail(square, (0, 0, 9, 9))] * len(heap),
    )
    return Segments(table, TRUE, PRED, "results")


def test_an_overview_is_written_as_pictures_and_tables(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    segments, path = segments_in_heaps(3), tmp_path / "embeddings_1_1_net.p"
    keys = segments.tag_keys()
    change_tags(tags_path(path), dict.fromkeys(keys[4:7], "Zelt"))
    write_overview(LOG, segments, path, tmp_path / "out", 0, "suspicion")
    assert list(read_groups(groups_path(path)).items()) == [
        (key, row // 4) for row, key in enumerate(keys)
    ]
    with (tmp_path / "out" / "groups.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    told = "name", "group", "objects", "images", "suspicion", "novelty"
    assert [tuple(row[key] for key in told) for row in rows] == [
        ("group 3", "2", "4", "2", "2.0", ""),
        ("Zelt (group 2)", "1", "4", "2", "1.0", ""),
        ("group 1", "0", "4", "2", "0.0", ""),
    ]
    classes = [(row["predicted_class"], row["true_class"], row["tag"]) for row in rows]
    assert classes == [("car $x$", "tent", ""), ("'=road", "tent", "Zelt"), ("car $x$", "", "")]
    groups = json.loads((tmp_path / "out" / "groups.json").read_text(encoding="utf-8"))["groups"]
    assert [member["row"] for member in groups[1]["members"]] == [4, 5, 6, 7]
    assert groups[1]["predicted_class"] == "=road"
    assert groups[1]["members"][0]["image_path"] == r"caf\xe9.png"
    assert "3 groups, 0 objects in none; wrote" in caplog.text


def test_an_overview_of_many_groups_has_pages_and_none_of_an_older_one(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "groups_3.png").write_bytes(b"of an older one")
    path = tmp_path / "embeddings_1_1_net.p"
    write_overview(LOG, segments_in_heaps(21), path, folder, 0, "size")
    assert sorted(file.name for file in folder.glob("*.png")) == ["groups_1.png", "groups_2.png"]
    first, second = (pictures_of(folder / f"groups_{k}.png") for k in (1, 2))
    assert first.shape[0] - second.shape[0] == 19 * 160
    assert (first[90:250, 680:840] == 200).all(axis=2).any()  # the medoid of the first row


def pictures_of(path):
    return np.array(Image.open(path).convert("RGB"))
