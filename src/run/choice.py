"""Which images and files a script works on, from its settings."""

import difflib
from fnmatch import fnmatch
from pathlib import Path

from src.errors import SettingError
from src.store.paths import Results, stored_net


def embeddings_file(args, model_name, log):
    """Path of the table of stage 4 that settings name, else of the one that was written last.

    The settings are `io_path` and those that say which, where they are not None: `net`,
    `min_height`, `min_width`. Others that they would fit are named in the log.

    Raises
    ------
    SettingError
        There is no such table.
    """
    tables = Results(args["io_path"], model_name).all_embeddings()
    sizes = ("*" if args[key] is None else f"{args[key]:g}" for key in ("min_height", "min_width"))
    pattern = "_".join(["embeddings", *sizes, stored_net(args["net"] or "*") + ".p"])
    found = [path for path in tables if fnmatch(path.name, pattern)]
    if not found:
        there = ", ".join(path.name for path in tables) or "none"
        raise SettingError(
            f"stage 4 has written no {pattern} for model {model_name!r}; run compute_embeddings.py "
            f"first. Tables that are there: {there}"
        )
    if len(found) > 1:
        others = ", ".join(path.name for path in found[1:])
        log.info("taking %s, which was written last; there are also %s", found[0], others)
    return found[0]


def chosen_indices(count, num_images=None, *, classindex=None, classes=None, subset_file=None):
    """Indices of the images to work on, from the settings `args.<name>` of a script.

    Parameters
    ----------
    count : int
        Images in the dataset.
    num_images : int or None
        Only the first so many of those that the other settings leave.
    classindex : str or int, optional
        Name (upper or lower case) or id of a class: only the images where it occurs.
    classes : list of dict, optional
        With `classindex`: `id`, `name` and `images` (ascending indices) of each class, as
        `search_classes.py` finds them.
    subset_file : path, optional
        Text file, one index a line: only these images.

    Returns
    -------
    indices : list of int
        Ascending, each once; at least one, unless the dataset has none.

    Raises
    ------
    SettingError
        If there is no such class or file, the file holds anything but indices of images, or no
        image is left.
    """
    indices = set(range(count))
    if classindex is not None:
        indices &= _images_with(classindex, classes)
    if subset_file is not None:
        indices &= _read_indices(subset_file, count)
    if not indices and count:
        raise SettingError(
            f"no image is left to work on: none of the {count} images fits "
            f"`args.classindex` {classindex!r} and `args.subset_file` {subset_file!r}"
        )
    return sorted(indices)[:num_images]


def _images_with(classindex, classes):
    """Indices of the images with a class; classes of one name count together."""

    def is_meant(row):
        if isinstance(classindex, str):
            return row["name"].casefold() == classindex.casefold()
        return row["id"] == classindex

    rows = [row for row in classes if is_meant(row)]
    if not rows:
        names = {row["name"].casefold(): row["name"] for row in classes}
        nearest = difflib.get_close_matches(str(classindex).casefold(), names)
        hint = " or ".join(repr(names[name]) for name in nearest)
        known = ", ".join(f"{row['id']} {row['name']!r}" for row in classes)
        raise SettingError(
            f"`args.classindex` must be the name or id of a class, got {classindex!r}."
            f"{f' Did you mean {hint}?' if hint else ''} Classes: {known}"
        )
    return {index for row in rows for index in row["images"]}


def _read_indices(path, count):
    """Indices in a text file, one a line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"`args.subset_file` must be a text file with one index a line: {path}: {error}"
        ) from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    wrong = [
        f"{line!r} (line {number})"
        for number, line in numbered
        if not line.isdecimal() or int(line) >= count
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise SettingError(
            f"`args.subset_file` {path} must hold one index a line, from 0 to {count - 1}; got "
            f"{', '.join(wrong[:5])}{more}"
        )
    return {int(line) for _, line in numbered}
