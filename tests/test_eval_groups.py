import logging

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from src.evaluation.groups import groups_of, judge, report
from src.store.groups import write_groups
from src.store.of_objects import keys_of
from src.store.paths import groups_path
from tests.factories import object_table

LOG = logging.getLogger(__name__)
NAMES = np.array(list("aaabbbcc"))
LABELS = np.array([0, 0, 1, 1, 1, -1, 0, -1])


def test_groups_are_judged_as_by_hand():
    judged = judge(LABELS, NAMES, np.ones(8, bool))
    assert (judged.objects, judged.groups, judged.grouped) == (8, 2, 6 / 8)
    assert judged.purity == 4 / 6  # two a of three, two b of three
    assert judged.completeness == 5 / 8  # two a, two b, one c
    # pairs together in a group 6, in a class 2 a + 1 b = 4 of 15, in both 2; expected 24 / 15
    assert judged.adjusted_rand == pytest.approx((2 - 24 / 15) / ((6 + 4) / 2 - 24 / 15))
    # of all: in a group 3 + 3 + 1, in a class 3 + 3 + 1 of 28, in both 1 + 1
    assert judged.adjusted_rand_all == pytest.approx((2 - 49 / 28) / (7 - 49 / 28))


def test_one_side_is_judged_in_the_groups_of_all():
    judged = judge(LABELS, NAMES, NAMES == "c")
    assert (judged.objects, judged.groups, judged.grouped) == (2, 1, 0.5)
    assert (judged.purity, judged.completeness) == (0, 0.5)  # most of group 0 are a


def test_where_nothing_is_in_a_group_purity_is_unknown():
    judged = judge(np.full(8, -1), NAMES, np.ones(8, bool))
    assert np.isnan([judged.purity, judged.adjusted_rand]).all()
    assert (judged.grouped, judged.completeness, judged.adjusted_rand_all) == (0, 0, 0)


def test_a_side_without_objects_is_empty_in_the_table(tmp_path):
    sides = {"all": np.ones(8, bool), "unknown": np.zeros(8, bool)}
    report(LOG, tmp_path / "groups", {k: judge(LABELS, NAMES, sides[k]) for k in sides})
    header, first, second = (tmp_path / "groups.csv").read_text().splitlines()
    assert header.startswith("objects of classes,objects,groups,in a group,purity,completeness,")
    assert first.startswith("all,8,2,0.75,0.66")
    assert second == "unknown,0,0,,,,,"


def test_kept_groups_are_judged_and_found_where_there_are_none(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "embeddings_1_1_net.p"
    vectors = np.repeat(np.eye(2, 3, dtype=np.float32), 5, axis=0)
    table = object_table(10, embeddings=vectors)
    assert_array_equal(groups_of(LOG, table, path, 0), [0] * 5 + [1] * 5)
    assert "they are found now" in caplog.text
    write_groups(groups_path(path), dict.fromkeys(keys_of(table)[:9], 3))
    assert_array_equal(groups_of(LOG, table, path, 0), [3] * 9 + [-1])
    assert "1 of 10 objects have come since" in caplog.text
