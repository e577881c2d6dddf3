"""Data sets as plug-ins: sequences of (image, ground_truth, path).

The common part is here: pictures and label files from a folder of the user.
"""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class LabelledImages:
    """Pictures with their label files; the base of the data sets.

    Parameters
    ----------
    samples : list of (path, path or None)
        Each picture and its label file; None: no ground truth.
    transform : callable, optional
        Takes image and ground truth, gives both back changed.
    """

    label_mapping = {}  # id: (name, RGB)
    train_ids = {}  # id: name that networks have learnt it by, where that is another
    kinds = {}  # id: name of the kind of thing, where several classes are one
    categories = {}  # name of a class: that of its category, for coarser figures
    anomaly_ids = {}  # id: 0 normal, 1 anomaly, 255 not judged, where the names do not tell

    def __init__(self, samples, transform=None):
        self.samples = samples
        self.transform = transform

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        """Image (PIL, RGB), ground truth (H, W) uint8 in the ids of `label_mapping` or None, path.

        Raises
        ------
        FileNotFoundError, ValueError
            A file is missing; it cannot be read, or the sizes of image and labels differ.
        """
        image_path, label_path = self.samples[index]
        image, ground_truth = read_image(image_path), self.ground_truth(index)
        if ground_truth is not None and ground_truth.shape != (image.height, image.width):
            raise ValueError(
                f"labels must be of the size of their image: {label_path} has (height, width) "
                f"{ground_truth.shape}, {image_path} has {(image.height, image.width)}"
            )
        if self.transform is not None:
            image, ground_truth = self.transform(image, ground_truth)
        return image, ground_truth, str(image_path)

    def ground_truth(self, index):
        """Ground truth of an image as it is on disk, or None; the image itself is not read."""
        _, label_path = self.samples[index]
        return None if label_path is None else self.read_labels(label_path)

    def read_labels(self, path):
        """Labels of one file as (H, W) uint8; here the values of the file are the ids."""
        return read_ids(path)


def read_image(path):
    """Read a picture of any kind as a PIL image in RGB, turned upright as its EXIF data say."""
    with _opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip to white
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        if image.mode == "P":  # directly to RGB a palette with transparency warns
            image = image.convert("RGBA")
        return image.convert("RGB")


def read_ids(path):
    """Read a label file of 8 bits a pixel, grey or with a palette, as (H, W) uint8."""
    with _opened(path) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(f"must hold 8-bit label ids, got a picture of mode {image.mode!r}")
        return np.array(image)


def read_colours(path):
    """Read a label file that shows classes as colours, as (H, W, 3) uint8."""
    with _opened(path) as image:
        return np.array(image.convert("RGB"))


@contextmanager
def _opened(path):
    """Give the picture in a file; whatever goes wrong on the way becomes an error with its name."""
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # a broken picture raises nearly anything
        raise ValueError(f"{path} cannot be used: {error}") from error


def list_images(root, pattern, *, folder=".", readable=(".png",)):
    """List the pictures below the root of a data set.

    Parameters
    ----------
    root : path
        Of the data set.
    pattern : str
        Glob pattern of the pictures in `folder`.
    folder : str
        Where in the root to look.
    readable : collection of str
        File name extensions that count, in lower case, with the dot.

    Returns
    -------
    paths : list of Path
        Sorted, so that the index of an image is the same on every machine. Without hidden files
        and folders.

    Raises
    ------
    FileNotFoundError
        There is no such root, or no such picture.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}; set the root of the data set in configuration.py: "
            "`kwargs` of its entry in `datasets`"
        )
    paths = [
        path
        for path in (root / folder).glob(pattern)
        if path.suffix.lower() in readable
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not paths:
        raise FileNotFoundError(f"there are no pictures {root / folder / pattern}")
    return sorted(paths, key=Path.as_posix)


def with_labels(images, label_of):
    """Pair pictures with their label files.

    Parameters
    ----------
    images : list of Path
    label_of : callable
        Takes the path of a picture, gives that of its labels.

    Raises
    ------
    FileNotFoundError
        A picture has no label file.
    """
    samples = [(image, label_of(image)) for image in images]
    missing = [label for _, label in samples if not label.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(samples)} pictures have no labels, the first: {missing[0]}"
        )
    return samples


def check_choice(name, value, allowed):
    """Raise a ValueError that lists what is allowed if `value` is not."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}")
