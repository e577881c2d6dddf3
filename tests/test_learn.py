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
SIZE = 8  # of a group


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


@pytest.mark.parametrize(("wanted", "names"), [(None, {"cow", "tent"}), (["tent"], {"tent"})])
def test_no_tag_lies_in_the_judged_pictures_or_in_another_dataset(results, wanted, names):
    path = tags_path(results.embeddings(streets.min_segment_size, learn.NETS[0]))
    assert set(learn.tag_groups(results, wanted)) == names
    tags = read_tags(path)  # those by hand are gone
    assert {(dataset, index) for dataset, index, *_ in tags} == {(learn.OOD, learn.JUDGED)}
    assert sorted(tag for *_, tag in tags) == sorted([*names] * SIZE)


def test_only_groups_of_nearly_one_unknown_kind_are_named():
    groups = np.repeat([0, 1, 2, -1], 5)
    kinds = [[COW] * 4 + [TENT], [COW] * 3 + [TENT] * 2, [CAR] * 5, [COW] * 5]
    tags = learn.tags_of(object_table(20, true_id=np.ravel(kinds)), groups)
    assert_array_equal(tags, ["cow"] * 5 + [""] * 15)
