"""Tags that the explorer's user gave to segments."""

import json
from pathlib import Path

from src.errors import SettingError
from src.store.files import locked, prepare, whole_file


def write_tags(path, tags):
    """Store the tags of segments, as JSON that a person can read.

    Parameters
    ----------
    path : path
        See `paths.tags_path`; folders are made as needed.
    tags : list of (str, int, int, (int, int, int, int), str)
        Dataset, image index, component index, box and tag of each segment that has one.
    """
    names = "dataset", "image_index", "component_index", "box", "tag"
    lines = [json.dumps(dict(zip(names, entry, strict=True)), ensure_ascii=False) for entry in tags]
    with whole_file(path) as part:
        part.write_text('{"tags": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def change_tags(path, changes):
    """Change the tags of some segments in a file; what others have changed meanwhile stays.

    Parameters
    ----------
    path
        As for `write_tags`.
    changes : dict of tuple to str
        By dataset, image index, component index and box: the tag, or "" for none any more.

    Returns
    -------
    tags : list
        All that are in the file then, see `read_tags`.

    Raises
    ------
    SettingError, WriteError
        The file is broken; the disk takes none.
    """
    path = Path(path)
    prepare(path.parent)
    with locked(path):
        tags = {tuple(key): tag for *key, tag in read_tags(path)} | changes
        entries = [(*key, tag) for key, tag in tags.items() if tag]
        write_tags(path, entries)
    return entries


def read_tags(path):
    """Read the tags as they were given to `write_tags`; none where there is no file.

    Raises
    ------
    SettingError
        The file is broken.
    """
    path = Path(path)
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["tags"]
        if not isinstance(entries, list):
            raise TypeError(f"`tags` is {entries!r}")
        return [_as_tag(**entry) for entry in entries]
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise SettingError(f"{path} is broken ({error}); mend it or move it away") from error


def _as_tag(*, dataset, image_index, component_index, box, tag):
    numbers = image_index, component_index, *box
    if len(box) != 4 or any(type(number) is not int for number in numbers):
        raise TypeError(f"a tag has the numbers {numbers}")
    if not (isinstance(dataset, str) and isinstance(tag, str)):
        raise TypeError(f"a tag has the texts {(dataset, tag)}")
    return dataset, image_index, component_index, tuple(box), tag
