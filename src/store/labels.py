"""Labels of pictures in files: our own as PNG, and those that annotation tools write as COCO."""

import importlib
import json
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from src.errors import SettingError
from src.store.files import read_text, whole_file
from src.store.tags import is_text

LONGEST = 100_000  # height and width of a picture, beyond which the number is a mistake
GREY = (128, 128, 128)  # of what has no label


def write_labels(path, labels, classes):
    """Write label ids as a PNG whose palette shows them in the colours of their classes.

    Parameters
    ----------
    path : path
        Folders are made as needed.
    labels : ndarray of shape (H, W), uint8
        255 = no label.
    classes : dict of int to (str, (int, int, int))
    """
    palette = np.full((256, 3), GREY, np.uint8)
    for key, (_, colour) in classes.items():
        palette[key] = colour
    picture = Image.fromarray(labels)
    picture.putpalette(palette.ravel().tolist())
    with whole_file(path) as part:
        picture.save(part, format="PNG")


@dataclass(frozen=True)
class Drawn:
    """The objects that somebody has drawn in a picture."""

    size: tuple[int, int]  # height and width of the picture in pixels
    # category, and polygons, or runs of pixels with their lengths in a list, as COCO has them
    objects: list[tuple[str, list | dict]] = field(default_factory=list)

    def masks(self):
        """Pixels (H, W), bool, of each object."""
        for _, shape in self.objects:
            yield _pycocotools().decode(_runs(shape, self.size)).astype(bool)


def read_coco(path):
    """Read the objects in a COCO file (https://cocodataset.org/#format-data).

    Returns
    -------
    drawn : dict of str to Drawn
        By `file_name`; pictures without an object too.

    Raises
    ------
    SettingError
        pycocotools is not installed; the file is missing, or is no such file.
    """
    _pycocotools()
    where = "it"
    try:
        content = json.loads(read_text(path))
        names = {of["id"]: _name_of(of) for of in content["categories"]}
        pictures = {str(of["file_name"]): of["id"] for of in content["images"]}
        drawn = {of["id"]: Drawn(_size_of(of)) for of in content["images"]}
        if len({*pictures.values()}) < len(content["images"]):
            raise ValueError("two of its pictures have the same `file_name` or `id`")
        for annotation in content["annotations"]:
            where = f"annotation {annotation.get('id')}"
            name, shape = names[annotation["category_id"]], annotation["segmentation"]
            picture = drawn[annotation["image_id"]]
            picture.objects.append((name, _checked(shape, picture.size)))
        return {name: drawn[key] for name, key in pictures.items()}
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise SettingError(
            f"`args.coco` {path} must be a COCO file with polygons or RLE: {where} cannot be "
            f"used ({what}); export it again as COCO with segmentations"
        ) from error


def _name_of(category):
    name = category["name"]
    if not (is_text(name) and name.strip()):
        raise ValueError(f"the name of a category is {name!r}")
    return name.strip()


def _size_of(picture):
    """Height and width."""
    size = float(picture["height"]), float(picture["width"])
    if not all(0 < length <= LONGEST and length.is_integer() for length in size):
        raise ValueError(f"{picture['file_name']} has the height and width {size}")
    return tuple(map(int, size))


def _checked(shape, size):
    """A shape as pycocotools takes it, which crashes at some that are none."""
    if isinstance(shape, list):
        wrong = [of for of in shape if len(of) < 6 or len(of) % 2 or not np.isfinite(of).all()]
        if not shape or wrong:
            raise ValueError("a polygon needs three points, x and y each")
        if any(np.abs(of).max() > 2 * LONGEST for of in shape):  # memory goes with their distance
            raise ValueError("a point of its polygon lies far outside of its picture")
        return _with_pixels(shape, size)
    if tuple(shape["size"]) != size:
        raise ValueError(f"its RLE has the size {shape['size']}, its picture {list(size)}")
    counts = shape["counts"]
    counts = _unpacked(counts) if isinstance(counts, str) else counts
    if any(type(count) is not int or count < 0 for count in counts) or sum(counts) != np.prod(size):
        raise ValueError("its RLE has another number of pixels than its picture")
    return _with_pixels({"size": list(size), "counts": counts}, size)


def _with_pixels(shape, size):
    """The shape itself; a ValueError where it shows no pixel of a picture of that size."""
    if not _pycocotools().area(_runs(shape, size)):
        raise ValueError("it has no pixel in its picture")
    return shape


def _runs(shape, size):
    """A shape as pycocotools packs it."""
    coco = _pycocotools()
    runs = coco.frPyObjects(shape, *size)
    return coco.merge(runs) if isinstance(runs, list) else runs


def _unpacked(text):
    """Lengths of runs from COCO's packed text: five bits a letter, from the third on as changes."""
    counts, value, shift = [], 0, 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def match_names(names, paths):
    """Which picture each file name of an annotation tool means.

    A tool may have left out folders, or put some in front: the picture is the one whose path has
    most of the name's last parts.

    Parameters
    ----------
    names : iterable of str
    paths : dict of any key to path
        Of the pictures that there are.

    Returns
    -------
    found : dict of str to key
        Without names of no picture.

    Raises
    ------
    SettingError
        A name may be that of several pictures, or several names that of one.
    """
    by_file, found, taken = defaultdict(list), {}, set()
    parts_of = {key: _parts(path) for key, path in paths.items()}
    for key, parts in parts_of.items():
        by_file[parts[-1]].append(key)
    for name in names:
        parts = _parts(name)
        alike = {key: _common_end(parts, parts_of[key]) for key in by_file[parts[-1]]}
        best = [key for key in alike if alike[key] == max(alike.values())]
        if len(best) > 1:
            raise SettingError(
                f"`args.coco`: {name} may be any of {len(best)} pictures, such as "
                f"{paths[best[0]]} and {paths[best[1]]}: keep folders in `file_name`"
            )
        if best and best[0] in taken:
            raise SettingError(
                f"`args.coco`: {name} and another file of it are both {paths[best[0]]}: leave one "
                "of them out"
            )
        if best:
            found[name] = best[0]
            taken.add(best[0])
    return found


def _parts(path):
    return str(path).replace("\\", "/").split("/")


def _common_end(parts, others):
    pairs = zip(reversed(parts), reversed(others), strict=False)
    return next((k for k, (one, other) in enumerate(pairs) if one != other), len(parts))


def _pycocotools():
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise SettingError(
            f"reading COCO needs pycocotools ({error}); install it in the repository with: "
            "pip install .[export]"
        ) from error
