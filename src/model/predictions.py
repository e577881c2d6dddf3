"""What another program predicted: one `.npy` or `.npz` file a picture, in place of a network."""

import zipfile
from pathlib import Path

import numpy as np
from torch import nn

from src.errors import SettingError
from src.model import classes_json

_SUFFIXES = ".npy", ".npz"
_KEYS = "logits", "probabilities", "arr_0"
_LARGEST_RATIO = 1100  # of a size to that of its compressed form: deflate does not get further
_WHOLE = (
    "the class of each pixel alone, as after arg-max, does not say how sure the network was: store "
    "what it gave before, such as np.save('<stem of the picture>.npy', logits.astype(np.float16)) "
    "of shape (C, H, W) or (H, W, C)"
)


class Predictions(nn.Module):
    """A folder of class values, logits or probabilities, one file a picture.

    The file of a picture has its name, with `.npy` or `.npz`, and lies in the folder itself, or
    there below the last few folders of the picture: `city/1.npy` for `/data/city/1.jpg`.

    Parameters
    ----------
    folder : path-like
        A SettingError if it is missing, or has no such files.
    """

    has_weights = True

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)
        _check(self.folder)

    @staticmethod
    def describe(folder):
        """What `classes.json` in the folder says: see `classes_json.describe_by`."""
        _check(Path(folder))
        return classes_json.describe_by(folder)

    def path_of(self, picture):
        """The file of a picture: of those that there are, the one below most of its folders.

        Raises
        ------
        FileNotFoundError
            If it has none.
        """
        parts = Path(picture).absolute().parts[1:]
        tails = [Path(*parts[start:]) for start in range(len(parts))]
        for path in (self.folder / tail.with_suffix(s) for tail in tails for s in _SUFFIXES):
            if path.is_file():
                return path
        for path in (self.folder / tail.with_suffix(".png") for tail in tails):
            if path.is_file():
                raise FileNotFoundError(f"{picture} has only {path} for a prediction: {_WHOLE}")
        raise FileNotFoundError(
            f"there is no prediction of {picture}: looked for {tails[-1].with_suffix('.npy')} and "
            f".npz in {self.folder}, and in folders like those of the picture below it"
        )

    def paths_of(self, pictures):
        """The files of many pictures.

        Parameters
        ----------
        pictures : iterable of path-like

        Returns
        -------
        paths : dict
            From each picture that has one to its file, a Path.

        Raises
        ------
        SettingError
            If two would share a file, or none has one.
        """
        paths, owners, missing = {}, {}, None
        for picture in pictures:
            try:
                path = self.path_of(picture)
            except FileNotFoundError as error:
                missing = missing or error
                continue
            other = owners.setdefault(path, picture)
            if other != picture:
                raise SettingError(
                    f"{other} and {picture} would both have the prediction {path}: put the files "
                    f"of {self.folder} into folders like those of the pictures"
                )
            paths[picture] = path
        if missing and not paths:
            raise SettingError(f"no picture has a prediction; the first: {missing}")
        return paths


def read(path, size, class_count=None):
    """The class values of one file.

    Parameters
    ----------
    path : path-like
        A `.npy` file, or a `.npz` file of one array or with one called logits, probabilities or
        arr_0: (C, h, w) or (h, w, C), perhaps as a batch of one; float16, float32 or float64.
    size : (int, int)
        Height and width of the picture in pixels; h and w may be others.
    class_count : int, optional
        C, where it is known.

    Returns
    -------
    values : ndarray of shape (C, h, w), float32
        Finite, in any memory order. `outputs.kind_of(values, 0)` tells what they are.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, damaged or something else, if its layout cannot be told, or it holds
        other values. One sentence, which names the file.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} is no .npy or .npz file: {_WHOLE}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    array = _load(path)
    shape = array.shape[1:] if array.ndim == 4 and array.shape[0] == 1 else array.shape
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"{path} must be of shape (C, H, W) or (H, W, C), is {shape}: {_WHOLE}")
    is_first = _has_classes_first(shape, size, class_count, path)
    if shape[0 if is_first else 2] < 2:
        raise ValueError(f"{path} has one channel, {shape}: {_WHOLE}")
    with np.errstate(over="ignore"):  # told below
        values = np.array(array, np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} has NaN or infinite values, which say nothing of a pixel")
    return values if is_first else values.transpose(2, 0, 1)


def _has_classes_first(shape, size, class_count, path):
    """Whether a shape is (C, h, w), not (h, w, C): by the number of classes, then by the sides."""
    forms = {True: (shape[0], shape[1:]), False: (shape[2], shape[:2])}
    fitting = [first for first, (count, _) in forms.items() if class_count in (None, count)]
    if not fitting:
        raise ValueError(
            f"{path} is of shape {shape}, but there are {class_count} classes: (C, H, W) or "
            f"(H, W, C) must have as many, and so must {classes_json.NAME} beside it"
        )
    if len(fitting) > 1:
        fitting = [first for first in fitting if _is_alike(forms[first][1], size)]
    if len(fitting) != 1:
        raise ValueError(
            f"{path} is of shape {shape} for a picture of {size[0]} x {size[1]} pixels, which may "
            f"be (C, H, W) or (H, W, C): a file {classes_json.NAME} in the folder of predictions "
            "that names the classes would tell"
        )
    return fitting[0]


def _is_alike(small, size):
    """Whether height : width are those of the picture, but for rounding to whole pixels."""
    return abs(small[0] * size[1] - small[1] * size[0]) <= size[0] + size[1]


def _load(path):
    """The array of a file, of floating numbers, not larger than the file can hold."""
    try:
        if path.suffix == ".npz":
            array = _load_npz(path)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)  # it checks the file's size
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(f"{path} is damaged or something else: {error}") from None
    if array.dtype.kind in "biu":
        raise ValueError(f"{path} has whole numbers ({array.dtype}): {_WHOLE}")
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ValueError(f"{path} must be float16, float32 or float64, is {array.dtype}")
    return array


def _load_npz(path):
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        named = [key for key in _KEYS if key in members]
        if not named and len(members) != 1:
            raise ValueError(
                f"it must have one array, or one called {', '.join(_KEYS)}; it has "
                f"{', '.join(members) or 'none'}"
            )
        info = members[named[0] if named else next(iter(members))]
        with archive.open(info) as file:
            shape, dtype = _header(file)
            size = int(dtype.itemsize) * int(np.prod(shape, dtype=object))
            stored = _LARGEST_RATIO * min(info.compress_size, path.stat().st_size)
            if size > min(info.file_size, stored):
                raise ValueError(f"its array {shape} is larger than the file can hold")
        with archive.open(info) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read()  # to its end, where the checksum is compared
            return array


def _header(file):
    """Shape and dtype of an array."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    return shape, dtype


def _check(folder):
    if not folder.is_dir():
        raise SettingError(f"there is no folder of predictions {folder}")
    if not any(path.suffix in _SUFFIXES for path in folder.rglob("*")):
        raise SettingError(f"{folder} has no .npy or .npz file, one a picture: {_WHOLE}")
