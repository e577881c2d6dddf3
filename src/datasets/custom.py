"""Your own pictures: a folder of images, without ground truth."""

import os
from collections import Counter
from pathlib import Path

from src.datasets import (
    EXTENSIONS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LabelledImages,
    check_root,
    readable_formats,
)
from src.store.paths import drawings_below

mean, std = IMAGENET_MEAN, IMAGENET_STD


class CustomDataset(LabelledImages):
    """All pictures in a folder, by their extension; no ground truth.

    Parameters
    ----------
    root : path
        Folder that holds the pictures.
    recursive : bool
        Look in the folders below as well, also where links lead, but in each only once.

    Attributes
    ----------
    left_out : dict of str to int
        How many other files there are by their extension, in lower case.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or no picture in it.
    """

    def __init__(self, root, recursive=False, transform=None):
        check_root(root)
        readable = {suffix for name in readable_formats() for suffix in EXTENSIONS[name]}
        images, others = [], Counter()
        for path in _files_in(root, recursive):
            if path.suffix.lower() in readable:
                images.append(path)
            else:
                others[path.suffix.lower() or path.name] += 1
        self.left_out = dict(others.most_common())
        if not images:
            raise FileNotFoundError(
                f"there are no pictures {Path(root, '**/*' if recursive else '*')}"
                f"{', but ' * bool(others)}{counted(self.left_out)}; what is read here ends in "
                f"{' '.join(sorted(readable))}"
            )
        images.sort(key=Path.as_posix)  # the index of an image is the same on every machine
        super().__init__([(image, None) for image in images], transform)


def counted(left_out):
    """Files by extension in words: "3 .txt, 1 .mov"."""
    return ", ".join(f"{count} {suffix}" for suffix, count in left_out.items())


def _files_in(root, recursive):
    """Paths of the files in a folder, without hidden ones and what this project has drawn.

    What cannot be read is kept, and named later.
    """
    seen, drawn = set(), set()
    for folder, below, files in os.walk(root, followlinks=True):
        state = Path(folder).stat()
        is_new = (state.st_dev, state.st_ino) not in seen
        seen.add((state.st_dev, state.st_ino))
        drawn.update(drawings_below(folder))
        wanted = (name for name in below if recursive and is_new and name[0] != ".")
        below[:] = sorted(name for name in wanted if Path(folder, name) not in drawn)
        if is_new:
            yield from (Path(folder, name) for name in files if name[0] != ".")
