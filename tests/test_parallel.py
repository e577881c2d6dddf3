import logging
from functools import partial

import pytest

from src import parallel
from src.records import Tally

LOG = logging.getLogger(__name__)


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
