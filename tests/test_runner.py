import logging
import os
import re
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import pytest

from src.errors import RunError
from src.run import processes
from src.run.runner import Runner, Tally, said_once, summary

LOG = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def processes_at_once(monkeypatch):
    monkeypatch.setattr(processes, "_LOOK", -1)
    monkeypatch.setattr(processes, "_STARTING", 0)


def mark(folder, index):
    """Runs in other processes too: leaves a file, and fails for image 2."""
    if index == 2:
        raise KeyError("no such class")
    (folder / str(index)).touch()


def run(folder, indices, num_cores=1, why=None):
    return Runner(LOG, num_cores).each(partial(mark, folder), indices, "marks", why=why)


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

    tally = Runner(LOG, num_cores).each(twice, [3, 2, 7, 5], "", consume)
    here = os.getpid()
    assert consumed == [(3, 6, here), (7, 14, here), (5, 10, here)]
    assert [name for name, _ in tally.failed] == ["image 2", "image 7"]


def test_done_images_are_skipped(tmp_path):
    run(tmp_path, [0, 1])
    tally = run(tmp_path, [0, 1, 4], why=lambda k: None if (tmp_path / str(k)).exists() else "new")
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
        Runner(LOG).each(interrupt, range(9), "")
    assert begun == [0]


def test_an_interrupt_leaves_out_what_other_processes_have_not_begun(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    log = logging.Logger("interrupting")
    log.addFilter(interrupt)  # acts when the failure of image 2 is reported
    with pytest.raises(KeyboardInterrupt):
        Runner(log, 2).each(partial(mark, tmp_path), range(3000), "")
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
    found = dict(processes.results(twice, [3, 2, 7, 5], num_cores))
    assert [*found] == [3, 2, 7, 5]
    assert repr(found.pop(2)) == "KeyError('no such class')"
    assert {index: double for index, (double, _) in found.items()} == {3: 6, 7: 14, 5: 10}
    assert all((pid == os.getpid()) == (num_cores == 1) for _, pid in found.values())


def test_no_more_than_a_few_images_are_begun_before_their_results_are_taken(tmp_path):
    found = processes.results(partial(mark, tmp_path), range(3, 1000), 2)
    for taken, _ in enumerate(found, 1):
        assert len([*tmp_path.iterdir()]) <= taken + 8


def test_no_process_is_started_for_what_is_done_sooner_without(monkeypatch):
    monkeypatch.setattr(processes, "_LOOK", 3600)
    found = dict(processes.results(twice, [3, 5], 2))
    assert found == {3: (6, os.getpid()), 5: (10, os.getpid())}


def die(folder, deaths, index):
    """Runs in other processes: image 5 is killed so many times, and leaves a file each time."""
    marks = len([*folder.iterdir()])
    if index == 5 and marks < deaths:
        (folder / str(marks)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * index


@pytest.mark.promise(8)
@pytest.mark.parametrize("deaths", [1, 2])
def test_an_image_whose_process_is_killed_is_tried_again_and_costs_no_other(tmp_path, deaths):
    found = dict(processes.results(partial(die, tmp_path, deaths), range(30), 2))
    assert found == {index: 2 * index for index in range(30)}
    assert len([*tmp_path.iterdir()]) == deaths


@pytest.mark.promise(8)
def test_an_image_that_always_kills_its_process_is_named_and_costs_no_other(tmp_path):
    found = dict(processes.results(partial(die, tmp_path, 99), range(30), 2))
    assert repr(found.pop(5)).startswith("WorkerDiedError('its process was killed 3 times")
    assert found == {index: 2 * index for index in range(30) if index != 5}
    assert len([*tmp_path.iterdir()]) == processes.ATTEMPTS == 3


@pytest.mark.parametrize("images_per_job", [1, 7])
def test_any_executor_can_do_the_work(images_per_job):
    with ThreadPoolExecutor(2) as threads:
        found = dict(
            processes.results(lambda index: 2 * index, range(3000), 1, threads, images_per_job)
        )
    assert found == {index: 2 * index for index in range(3000)}


def test_an_executor_that_says_how_much_it_can_do_gets_three_times_as_much():
    class Threads(ThreadPoolExecutor):
        begun, most = 0, 0

        def slots(self):
            return 2

        def submit(self, *args):
            self.begun += 1
            self.most = max(self.most, self.begun)
            future = super().submit(*args)
            future.add_done_callback(self.end)
            return future

        def end(self, _):
            self.begun -= 1

    with Threads(1) as threads:
        assert len([*processes.results(abs, range(100), 1, threads)]) == 100
        assert threads.most <= 6


class UnpicklableError(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def fail_badly(index):
    """Runs in other processes."""
    raise UnpicklableError(index, "more")


def test_failures_elsewhere_come_with_their_traceback_whether_they_can_be_pickled_or_not(caplog):
    caplog.set_level(logging.DEBUG)
    with ProcessPoolExecutor(1, processes.new_processes()) as pool:
        there = Runner(LOG, executor=pool, images_per_job=2)
        tally = there.each(twice, [1, 2, 3], "")
        assert (tally.done, tally.failed) == (2, (("image 2", "KeyError: 'no such class'"),))
        tally = there.each(fail_badly, [4], "")
    assert tally.failed == (("image 4", "RuntimeError: UnpicklableError: 4 and more"),)
    assert 'raise KeyError("no such class")' in caplog.text
    assert 'raise UnpicklableError(index, "more")' in caplog.text


def store(folder, index, result):
    """Runs in other processes."""
    (folder / f"{index} {result}").touch()


def test_an_executor_runs_the_stream_of_each_job(tmp_path):
    with ProcessPoolExecutor(1, processes.new_processes()) as pool:
        tally = stream(partial(store, tmp_path), range(5), 2, executor=pool, images_per_job=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0 0", "1 1", "3 9", "4 16"]
    assert (tally.done, tally.failed) == (4, (("image 2", "ValueError: no picture"),))


def test_what_is_wrong_with_the_settings_ends_the_run_of_an_executor_too():
    with (
        ProcessPoolExecutor(1, processes.new_processes()) as pool,
        pytest.raises(RunError, match="no such thing") as raised,
    ):
        stream(refuse, range(5), 1, executor=pool)
    assert not raised.value.print_traceback


def refuse(*_):
    """Runs in other processes."""
    raise RunError("no such thing")


# produced here, consumed beside


def produce(indices):
    """The square of each index; image 2 cannot be produced."""
    for index in indices:
        yield index, ValueError("no picture") if index == 2 else index**2


def stream(consume, indices, threads, produce=produce, why=None, **options):
    runner = Runner(LOG, **options)
    return runner.stream(produce, consume, indices, "squares", why, threads)


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
    tally = stream(None, [0, 1], num_cores, produce=None, why=lambda index: None)
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
    wrong = RunError("no such thing")

    def refuse(*_):
        raise wrong

    with pytest.raises(RunError, match="no such thing"):
        stream(refuse, range(9), num_cores)
    with pytest.raises(RunError, match="no such thing"):
        stream(print, range(9), num_cores, lambda indices: ((i, wrong) for i in indices))


# plans, and runs that end early


def test_a_dry_run_says_what_would_be_done_and_why_and_does_nothing(caplog):
    caplog.set_level(logging.INFO)
    reasons = {1: "missing", 2: "broken", 4: "missing"}
    tally = stream(None, range(5), 1, produce=None, why=reasons.get, dry_run=True)
    assert (tally.planned, tally.done, tally.skipped) == (3, 0, 2)
    assert caplog.messages == ["2 to do, missing: image 1, 4", "1 to do, broken: image 2"]
    assert summary(tally).startswith("3 to do, 2 skipped (already there), 0 failed")


def test_where_it_cannot_be_told_whether_an_image_is_done_it_is_worked_on():
    done = []
    tally = stream(lambda index, _: done.append(index), range(3, 6), 1, why=lambda index: 1 / 0)
    assert (done, tally.skipped) == ([3, 4, 5], 0)


@pytest.mark.parametrize("num_cores", [1, 3])
def test_the_first_failure_ends_a_run_that_is_to_fail_fast(num_cores, caplog):
    produced = []

    def note(indices):
        for index, result in produce(indices):
            produced.append(index)
            yield index, result

    with pytest.raises(
        RunError, match="1 failed; the run stops there:\n  image 2: ValueError: no pict"
    ):
        stream(lambda *_: None, range(99), num_cores, note, fail_fast=True)
    assert produced == [0, 1, 2]


def fail(reasons, index):
    """Runs in other processes too: leaves no file, but fails as it is told."""
    if reasons[index % len(reasons)]:
        raise ValueError(reasons[index % len(reasons)].format(index))


@pytest.mark.parametrize(
    ("reason", "num_cores"),
    [
        ("no class 'out'", 1),
        ("no class 'out'", 2),
        ("/some/{0}.png is cut", 1),
        ("no photo{0}.png", 1),
        ("can't read '/my own/{0}.png': {0} x 5 pixels, not 0.{0}", 1),
    ],
)
def test_a_run_ends_with_the_reason_that_its_first_three_images_have_in_common(reason, num_cores):
    with pytest.raises(RunError) as raised:
        Runner(LOG, num_cores).each(partial(fail, [reason]), range(1000), "")
    assert str(raised.value) == (
        "the first 3 failed alike; the others were not tried, which args.fail_fast=False does:\n"
        f"  ValueError: {reason.format(0)}"
    )


@pytest.mark.parametrize(
    ("reasons", "options", "why"),
    [
        (["bad"], {"fail_fast": False}, None),
        (["bad", "bad", "worse"], {}, None),
        (["no 'out'", "no 'out'", "no 'pred'"], {}, None),
        (["bad", "bad", "bad", ""], {}, lambda index: index != 3 and "new" or None),  # 3 is done
        (["", "bad", "bad", "bad"], {}, None),
    ],
)
def test_otherwise_all_images_are_tried(reasons, options, why):
    tally = Runner(LOG, **options).each(partial(fail, reasons), range(20), "", why=why)
    assert tally.done + tally.skipped + len(tally.failed) == 20


def test_three_images_that_are_all_are_named_each():
    tally = Runner(LOG).each(partial(fail, ["bad"]), range(3), "")
    assert [name for name, _ in tally.failed] == ["image 0", "image 1", "image 2"]


def test_what_was_produced_before_the_first_three_failed_is_kept():
    kept = []

    def produce(indices):
        yield from ((index, ValueError("bad") if index < 3 else None) for index in (3, 0, 1, 2))
        raise AssertionError("the others are not tried")

    def keep(index, _):
        is_ended.wait(60)
        kept.append(index)

    is_ended = threading.Event()
    log = logging.Logger("ending")
    log.addFilter(lambda record: "image 2" in record.getMessage() and is_ended.set())
    with pytest.raises(RunError, match="the first 3 failed alike"):
        Runner(log).stream(produce, keep, range(9), "", threads=2)
    assert kept == [3]


@pytest.mark.parametrize("num_cores", [1, 3])
def test_an_interrupted_run_says_what_it_has_done(num_cores, caplog):
    caplog.set_level(logging.INFO)

    def stop(indices):
        yield from ((index, None) for index in indices[:2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(lambda *_: None, range(9), num_cores, stop, why=lambda k: "new" if k > 4 else None)
    (line,) = caplog.messages
    assert line.startswith("2 done, 5 skipped (already there), 0 failed, 7 in total")
    assert line.endswith(", interrupted")


# the end of a run


def test_a_clean_run_ends_with_one_line(caplog):
    caplog.set_level(logging.INFO)
    Runner(LOG).close(Tally(done=3, skipped=4, failed=(), seconds=1.23))
    assert caplog.messages == ["3 done, 4 skipped (already there), 0 failed, 7 in total, 1.2 s"]


def test_where_every_picture_failed_no_others_are_claimed_to_be_done():
    tally = Tally(done=0, skipped=0, failed=(("image 2", "it is grey"),), seconds=1.0)
    with pytest.raises(RunError, match="1 failed; none is done:\n  image 2: it"):
        Runner(LOG).close(tally)


def test_where_nobody_watches_progress_is_a_line_every_so_often(monkeypatch, caplog, capsys):
    monkeypatch.setattr("src.progress.EVERY_S", 1e-9)
    caplog.set_level(logging.INFO)
    Runner(LOG).each(abs, range(4), "adding")
    assert [message.partition("%")[0] for message in caplog.messages] == [
        "adding: 1 of 4 (25", "adding: 2 of 4 (50", "adding: 3 of 4 (75", "adding: 4 of 4 (100",
    ]  # fmt: skip
    assert re.fullmatch(
        r"\), .*(image/s|s/image), \d\d:\d\d left", caplog.messages[1].partition("%")[2]
    )
    written = capsys.readouterr()  # nothing but what the log may write
    assert written.out == "" and all("INFO adding" in line for line in written.err.splitlines())


@pytest.mark.parametrize(
    ("scheduler", "expected"), [(None, False), ("local:2", False), ("tcp://host:8786", True)]
)
def test_only_other_machines_may_have_gpus_where_this_one_has_none(scheduler, expected):
    assert Runner(LOG, scheduler=scheduler).is_elsewhere() == expected


def test_work_that_is_done_soon_says_nothing_of_its_progress(caplog, capsys):
    caplog.set_level(logging.INFO)
    Runner(LOG).each(abs, range(4), "adding", why=lambda _: "new")
    assert caplog.messages == [] and capsys.readouterr() == ("", "")


def test_where_work_is_begun_anew_each_message_appears_once(caplog):
    caplog.set_level(logging.INFO)
    with said_once(LOG):
        for count in (1, 2):
            LOG.info("no GPU")
            LOG.info("%d classes", count)
    LOG.info("no GPU")
    assert caplog.messages == ["no GPU", "1 classes", "2 classes", "no GPU"]


def test_a_run_with_failures_fails_and_lists_them():
    tally = Tally(done=3, skipped=0, failed=(("image 2", "it is grey"),), seconds=1.0)
    with pytest.raises(RunError, match="1 failed; the others are done:\n  image 2: it"):
        Runner(LOG).close(tally)
