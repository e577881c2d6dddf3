import logging
import os
import threading
from functools import partial

import pytest

from src import parallel
from src.records import Tally

LOG = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def processes_at_once(monkeypatch):
    monkeypatch.setattr(parallel, "_LOOK", -1)
    monkeypatch.setattr(parallel, "_STARTING", 0)


def mark(folder, index):
    """Runs in other processes too: leaves a file, and fails for image 2."""
    if index == 2:
        raise KeyError("no such class")
    (folder / str(index)).touch()


def run(folder, indices, num_cores=1, **kwargs):
    return parallel.for_each_image(
        partial(mark, folder), indices, num_cores=num_cores, description="marks", log=LOG, **kwargs
    )


@pytest.mark.parametrize("num_cores", [1, 2])
def test_a_failing_image_is_named_and_the_others_are_done(tmp_path, num_cores, caplog):
    tally = run(tmp_path, [0, 1, 2, 3], num_cores)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "3"]
    assert (tally.done, tally.skipped) == (3, 0)
    assert tally.failed == (("image 2", "KeyError: 'no such class'"),)
    assert "image 2 failed: KeyError: 'no such class'" in caplog.messages


@pytest.mark.parametrize("num_cores", [1, 2])
def test_what_it_returns_is_consumed_here_in_order(num_cores):
    consumed = []

    def consume(index, result):
        consumed.append((index, result[0], os.getpid()))
        if index == 7:
            raise ValueError("not wanted")

    tally = parallel.for_each_image(
        twice, [3, 2, 7, 5], num_cores=num_cores, description="", consume=consume, log=LOG
    )
    here = os.getpid()
    assert consumed == [(3, 6, here), (7, 14, here), (5, 10, here)]
    assert [name for name, _ in tally.failed] == ["image 2", "image 7"]


def test_done_images_are_skipped(tmp_path):
    run(tmp_path, [0, 1])
    tally = run(tmp_path, [0, 1, 4], is_done=lambda index: (tmp_path / str(index)).exists())
    assert (tally.done, tally.skipped, tally.failed) == (1, 2, ())


def test_no_image_at_all_is_no_failure(tmp_path):
    tally = run(tmp_path, [], num_cores=2)
    assert (tally.done, tally.skipped, tally.failed) == (0, 0, ())


def test_an_interrupt_ends_the_run():
    begun = []

    def interrupt(index):
        begun.append(index)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parallel.for_each_image(interrupt, range(9), num_cores=1, description="", log=LOG)
    assert begun == [0]


def test_an_interrupt_leaves_out_what_other_processes_have_not_begun(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    log = logging.Logger("interrupting")
    log.addFilter(interrupt)  # acts when the failure of image 2 is reported
    with pytest.raises(KeyboardInterrupt):
        parallel.for_each_image(
            partial(mark, tmp_path), range(3000), num_cores=2, description="", log=log
        )
    assert len([*tmp_path.iterdir()]) < 2999


def test_at_least_one_process_is_needed(tmp_path):
    with pytest.raises(ValueError, match="`num_cores` must be at least 1, got 0"):
        run(tmp_path, [0], num_cores=0)


# one after the other, from processes


def twice(index):
    """Runs in other processes too; fails for image 2."""
    if index == 2:
        raise KeyError("no such class")
    return 2 * index, os.getpid()


@pytest.mark.parametrize("num_cores", [1, 2])
def test_results_come_in_the_order_of_the_images_and_failures_in_their_place(num_cores):
    found = dict(parallel.results(twice, [3, 2, 7, 5], num_cores))
    assert [*found] == [3, 2, 7, 5]
    assert repr(found.pop(2)) == "KeyError('no such class')"
    assert {index: double for index, (double, _) in found.items()} == {3: 6, 7: 14, 5: 10}
    assert all((pid == os.getpid()) == (num_cores == 1) for _, pid in found.values())


def test_no_more_than_a_few_images_are_begun_before_their_results_are_taken(tmp_path):
    found = parallel.results(partial(mark, tmp_path), range(3, 1000), 2)
    for taken, _ in enumerate(found, 1):
        assert len([*tmp_path.iterdir()]) <= taken + 8


def test_no_process_is_started_for_what_is_done_sooner_without(monkeypatch):
    monkeypatch.setattr(parallel, "_LOOK", 3600)
    found = dict(parallel.results(twice, [3, 5], 2))
    assert found == {3: (6, os.getpid()), 5: (10, os.getpid())}


def die(index):
    os._exit(1)


def test_images_of_a_killed_process_have_failed():
    found = dict(parallel.results(die, range(30), 2))
    assert [*found] == [*range(30)]
    assert all("terminated" in str(error) for error in found.values())


# produced here, consumed beside


def produce(indices):
    """The square of each index; image 2 cannot be produced."""
    for index in indices:
        yield index, ValueError("no picture") if index == 2 else index**2


def stream(consume, indices, num_cores, produce=produce, **kwargs):
    return parallel.for_each_result(
        produce, consume, indices, num_cores=num_cores, description="squares", log=LOG, **kwargs
    )


@pytest.mark.parametrize("num_cores", [1, 3])
def test_what_cannot_be_produced_or_consumed_is_named_and_the_others_are_done(num_cores):
    kept = {}

    def keep(index, result):
        kept[index] = 1 / (result - 1)  # image 1 fails here

    tally = stream(keep, range(5), num_cores)
    assert kept == {0: -1, 3: 1 / 8, 4: 1 / 15}
    assert (tally.done, tally.skipped) == (3, 0)
    assert sorted(tally.failed) == [
        ("image 1", "ZeroDivisionError: division by zero"),
        ("image 2", "ValueError: no picture"),
    ]


@pytest.mark.parametrize("num_cores", [1, 3])
def test_no_more_results_are_held_than_there_are_consumers(num_cores):
    consumed = []

    def count(indices):
        for index in indices:
            assert index - len(consumed) < num_cores
            yield index, None

    tally = stream(lambda index, _: consumed.append(index), range(200), num_cores, count)
    assert (tally.done, sorted(consumed)) == (200, [*range(200)])


def test_with_one_core_everything_happens_in_this_thread_in_order():
    seen = []
    stream(lambda index, _: seen.append((index, threading.get_ident())), [4, 0, 3], 1)
    assert seen == [(index, threading.get_ident()) for index in (4, 0, 3)]


@pytest.mark.parametrize("num_cores", [1, 3])
def test_nothing_is_produced_where_all_is_done(num_cores):
    tally = stream(None, [0, 1], num_cores, produce=None, is_done=lambda index: True)
    assert (tally.done, tally.skipped) == (0, 2)


@pytest.mark.parametrize("num_cores", [1, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_was_produced_before_an_interrupt_is_kept(num_cores, error):
    consumed = []

    def stop(indices):
        yield from ((index, None) for index in indices[:2])
        raise error

    with pytest.raises(error):
        stream(lambda index, _: consumed.append(index), range(9), num_cores, stop)
    assert sorted(consumed) == [0, 1]


@pytest.mark.parametrize("num_cores", [1, 3])
def test_a_wrong_setting_ends_the_run_whoever_finds_it(num_cores):
    wrong = parallel.SacredError("no such thing")

    def refuse(*_):
        raise wrong

    with pytest.raises(parallel.SacredError, match="no such thing"):
        stream(refuse, range(9), num_cores)
    with pytest.raises(parallel.SacredError, match="no such thing"):
        stream(print, range(9), num_cores, lambda indices: ((i, wrong) for i in indices))


# the end of a run


def test_a_clean_run_ends_with_one_line(caplog):
    caplog.set_level(logging.INFO)
    parallel.close(LOG, Tally(done=3, skipped=4, failed=(), seconds=1.23))
    assert caplog.messages == ["3 done, 4 skipped (already there), 0 failed, 7 in total, 1.2 s"]


def test_a_run_with_failures_fails_and_lists_them():
    tally = Tally(done=3, skipped=0, failed=(("image 2", "it is grey"),), seconds=1.0)
    with pytest.raises(
        parallel.SacredError, match="1 failed; the others are done:\n  image 2: it is grey"
    ):
        parallel.close(LOG, tally)
