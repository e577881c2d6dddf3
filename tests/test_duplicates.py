"""Near duplicates: their sets, the threshold, the picture."""

import logging

import numpy as np
import pytest
from factories import object_table
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import discover_embedding_space as script
from src import pictures
from src.embedding import duplicates
from src.embedding.duplicates import near_duplicates, nearest_others, suggest_threshold
from src.store.tables import write_embeddings


def line(*places):
    return np.array([[place, 0] for place in places], np.float32)


def test_pairs_nearer_than_the_threshold_link_to_sets_in_the_order_of_their_first_rows():
    places = line(10, 0, 3, 1, 11.5, 2)  # 0, 1, 2, 3 hang together by steps of 1
    assert_array_equal(near_duplicates(places, 1.25), [0, 1, 1, 1, 2, 1])
    assert_array_equal(near_duplicates(places, 1.6), [0, 1, 1, 1, 0, 1])
    assert_array_equal(near_duplicates(places, 1), [0, 1, 2, 3, 4, 5])  # as far is not nearer


def test_the_smallest_threshold_joins_copies_alone_however_far_out_they_lie():
    far = np.array([[1000, 1, 2], [1000, 1, 2.0001], [1000, 1, 2], [-500, 0, 0]], np.float32)
    assert_array_equal(near_duplicates(far, 1e-9), [0, 1, 0, 2])
    assert_array_equal(near_duplicates(far, 2e-4), [0, 0, 0, 1])


@pytest.mark.parametrize("threshold", [0.5, 1.5, 4, 100])
def test_blocks_find_every_pair(threshold, monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS", 7)
    monkeypatch.setattr(duplicates, "OTHERS", 11)
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", 5)
    vectors = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32) * [1, 3, 1, 1]
    near = np.linalg.norm(vectors[:, None] - vectors, axis=2) < threshold
    for _ in range(7):  # links of up to 128 pairs
        near = (near.astype(int) @ near) > 0
    expected = np.unique(near.argmax(axis=1), return_inverse=True)[1]
    assert_array_equal(near_duplicates(vectors, threshold), expected)


def test_no_objects_have_no_sets_and_no_threshold_is_refused():
    assert len(near_duplicates(np.zeros((0, 3)), 1)) == 0
    for threshold in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="`threshold` must be above 0"):
            near_duplicates(line(0, 1), threshold)


def test_the_nearest_other_of_a_copy_is_the_copy():
    nearest = nearest_others(line(5, 0, 5, 1.5))
    assert_array_equal(nearest.rows, [0, 1, 2, 3])
    assert_array_equal(nearest.others, [2, 3, 0, 1])
    assert_allclose(nearest.distances, [0, 1.5, 0, 1.5])
    assert len(nearest_others(line(5)).rows) == 0


def test_sets_are_found_by_a_threshold_that_fits():
    vectors = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    vectors[10:15] = vectors[:5] + 1e-4
    found = duplicates.find(vectors)
    assert_array_equal(found.labels, [*range(10), *range(5), *range(10, 15)])
    assert 2e-4 < found.threshold < found.nearest.distances[15:].min()
    assert_array_equal(duplicates.find(vectors[:1]).labels, [0])


def test_the_threshold_lies_between_two_heaps_of_distances():
    heaps = np.concatenate([np.geomspace(0.1, 0.2, 30), np.geomspace(5, 10, 300)])
    assert_allclose(suggest_threshold(heaps), 1)  # as many times 0.2 as times less than 5
    copies = np.concatenate([np.zeros(10), np.geomspace(5, 10, 300)])
    assert_allclose(suggest_threshold(copies), 5 / np.sqrt(1000))  # which stand at 5 / 1000


def test_of_one_heap_only_what_lies_far_below_is_near():
    # of the logarithms 0, 0.1, ... 1.0 the quartiles are 0.25 and 0.75: the fence is at -0.5
    assert_allclose(suggest_threshold(10 ** np.linspace(0, 1, 11)), 10**-0.5)
    assert suggest_threshold(np.zeros(4)) == 1
    assert suggest_threshold(np.full(3, 2.0)) == 2  # than which none is nearer


def test_the_picture_lies_beside_the_table_and_shows_pairs_on_both_sides(tmp_path, monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    vectors[20:25] = vectors[:5] + 1e-4
    thumbnail = pictures.thumbnail(np.zeros((9, 9, 3), np.uint8), (0, 0, 9, 9))
    path = tmp_path / "embeddings_8_8_net.p"
    write_embeddings(path, object_table(40, embeddings=vectors, thumbnail=[thumbnail] * 40), {})
    drawn = []
    monkeypatch.setattr(
        duplicates.reports,
        "save_figure",
        lambda *args, save=duplicates.reports.save_figure: (drawn.append(args[1]), save(*args)),
    )
    script.ex.run(config_updates={"args": {"load_file": str(path), "duplicates": True}})
    with Image.open(tmp_path / "embeddings_8_8_net_duplicates.png") as picture:
        assert picture.size == (2400, 1400)
    above, *below = drawn[0].axes
    assert above.get_title().startswith("10 of 40 objects are near duplicates in 5 sets")
    distances = [float(axes.get_title()) for axes in below[: duplicates.SHOWN]]
    assert distances == sorted(distances)
    assert_allclose(distances[:4], 1.73e-4, rtol=1e-2)  # sqrt(3) times 1e-4
    assert distances[4] > 0.01
    assert all(len(axes.images) == 1 for axes in below)


def test_a_single_object_needs_no_picture(tmp_path, caplog):
    table = object_table(1, embeddings=np.ones((1, 3), np.float32))
    duplicates.report(logging.getLogger(), tmp_path / "table.p", table, None)
    assert "has no two objects" in caplog.text
    assert not list(tmp_path.iterdir())
