"""What the measurement on the demo may learn from: tools/learn.py."""

import numpy as np
import pytest
from factories import object_table
from numpy.testing import assert_array_equal

from src.datasets import streets
from src.store.of_objects import keys_of
from src.store.paths import Results, tags_path
from src.store.tables import write_embeddings
from src.store.tags import change_tags, read_tags
from tools import learn

COW, TENT, CAR = 100, 109, 13  # true ids
SIZE = 12  # of a group


@pytest.fixture
def results(tmp_path):
    """Two pure groups of unknown kinds and one of cars, each in judged and in other pictures.

    The pictures of another dataset have the same numbers.
    """
    kinds = np.repeat([COW, TENT, CAR], SIZE)
    index = np.tile(np.repeat([learn.JUDGED - 1, learn.JUDGED], SIZE * 3), 2)
    dataset = np.repeat([learn.OOD, learn.VAL], SIZE * 6)
    noise = np.random.default_rng(0).normal(0, 0.01, (SIZE * 12, 3))
    vectors = np.tile(np.repeat(np.eye(3), SIZE, axis=0), (4, 1)) + noise
    columns = {"dataset": list(dataset), "image_index": index, "true_id": np.tile(kinds, 4)}
    vectors = {"embeddings": vectors.astype(np.float32)}
    table = object_table(len(index), nn_embeddings=vectors["embeddings"], **vectors, **columns)
    found = Results(tmp_path, learn.OLD, learn.OOD)
    for net in learn.NETS:
        write_embeddings(found.embeddings(streets.min_segment_size, net), table, {})
    path = tags_path(found.embeddings(streets.min_segment_size, learn.NETS[0]))
    change_tags(path, dict.fromkeys(keys_of(table), "by hand"))
    return found


def test_no_tag_lies_in_the_judged_pictures_or_in_another_dataset(results):
    path = tags_path(results.embeddings(streets.min_segment_size, learn.NETS[0]))
    assert set(learn.tag_groups(results)) == {"cow", "tent"}
    tags = read_tags(path)  # those by hand are gone
    assert {(dataset, index) for dataset, index, *_ in tags} == {(learn.OOD, learn.JUDGED)}
    assert sorted(tag for *_, tag in tags) == sorted(["cow", "tent"] * SIZE)


def test_only_large_groups_of_nearly_one_unknown_kind_are_named():
    groups = np.repeat([0, 1, 2, -1, 3], [10, 10, 10, 10, 9])
    kinds = [COW] * 8 + [TENT] * 2, [COW] * 7 + [TENT] * 3, [CAR] * 10, [COW] * 10, [COW] * 9
    tags = learn.tags_of(object_table(49, true_id=np.concatenate(kinds)), groups)
    assert_array_equal(tags, ["cow"] * 10 + [""] * 39)


def test_suspects_are_counted_in_the_judged_pictures_alone(results):
    assert learn.suspects_of(results, ["cow"]) == [SIZE, SIZE, SIZE]  # cows, tents, cars
    assert learn.suspects_of(results, ["cow", "tent"]) == [2 * SIZE, 0, SIZE]
