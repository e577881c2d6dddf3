"""What was made of pictures that their dataset has no more."""

from contextlib import suppress

from src import registry
from src.store.paths import GONE, index_of


def keep_up(run, results, data, forget=False):
    """Set aside what the stages made of pictures that a dataset has no more, and say so.

    Later stages then do not see it. It is taken back once there are as many pictures again.

    Parameters
    ----------
    run : Runner
    results : Results
    data : DatasetConfig
        Its entry. Where it cannot be built, as on a machine without its pictures, nothing happens.
    forget : bool
        Delete it instead.
    """
    try:
        count = len(registry.build(data))
    except Exception:  # of others' datasets, any; who reads the pictures will name it
        return
    there = results.of_pictures()
    gone = [path for path in there if index_of(path) >= count]
    back = [path for path in there if path.suffix == GONE and index_of(path) < count]
    if gone:
        numbers = {index_of(path) for path in gone}
        what = "would be " * run.dry_run + ("deleted" if forget else "left out")
        hint = "" if forget else "; pred_images.py with args.forget=True deletes it"
        run.log.warning(
            "%s has %d pictures now, and results of %d more, from index %d on: they are %s%s",
            results.dataset, count, len(numbers), count, what, hint,
        )  # fmt: skip
    if run.dry_run:
        return
    for path in gone:
        with suppress(FileNotFoundError):  # another shard has been there
            if forget:
                path.unlink()
            elif path.suffix != GONE:
                path.replace(f"{path}{GONE}")
    for path in back:
        with suppress(FileNotFoundError):
            if path.with_suffix("").exists():
                path.unlink()
            else:
                path.replace(path.with_suffix(""))
