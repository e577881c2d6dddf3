"""Every file between the stages: its name, its format, how it is written whole and read safely.

Arrays with a value a pixel are HDF5 files, tables are pickles of one plain dict. Each file says
what it was made from, and ends in a checksum that neither format minds. Files of the original
system, which have none, can be read as well.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import pickle
import re
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from PIL import Image

from src.errors import SettingError
from src.records import NO_LABEL, Prediction
from src.store.files import whole_file

FORMAT = 2  # version of the files here; another one is made again
FORMS = ("float32", "compact", "none")  # in which probabilities are stored
_STEP_ROWS = 16  # of a chunk
_SEAL = b"crc32 of all before: "  # then 8 hexadecimal digits
_UNSEALED = "its checksum is missing"  # which all files have that say what they were made from
_BLOCK = 2**20  # bytes that are checked at once
# the table of embedded segments; `image_level_index` leads from the rows below to those above
_OF_IMAGES = (
    "image_path", "dataset", "model_name", "image_index", "image_size", "iou_pred",
    "image_made_from",
)  # fmt: skip
_OF_SEGMENTS = ("box", "component_index", "gt", "pred", "iou", "segment_size")
VECTORS = ("embeddings", "nn_embeddings", "plot_embeddings")  # the latter two: from stage 5
_MAKERS = {
    "input": "pred_images.py",
    "metrics": "src/MetaSeg/main.py",
    "components": "src/MetaSeg/main.py",
    "embeddings": "compute_embeddings.py",
    "classes": "search_classes.py",
}


# names


def prediction_path(io_path, model, dataset, index):
    """Path of one image's class probabilities, written by stage 1."""
    return Path(io_path, "input", model, dataset, f"input{index}.hdf5")


def metrics_path(io_path, model, dataset, index):
    """Path of the table of one image's segments, written by stage 2."""
    return Path(io_path, "metrics", model, dataset, f"metrics{index}.p")


def components_path(io_path, model, dataset, index):
    """Path of one image's component map, written by stage 2."""
    return Path(io_path, "components", model, dataset, f"components{index}.hdf5")


def find_components(folders, model, dataset, index):
    """Path of one image's component map in the first of some folders of all results that has it.

    Where none has it, the path that it has in the last folder.
    """
    paths = [components_path(folder, model, dataset, index) for folder in folders]
    there = (path for path in paths if path.is_file() or path.with_suffix(".p").is_file())
    return next(there, paths[-1])


def embeddings_path(io_path, model, min_height, min_width, net):
    """Path of the table of embedded segments, written by stage 4; sizes in pixels."""
    net = net.replace("/", "_")  # timm/<name>
    return Path(io_path, "embeddings", model, f"embeddings_{min_height}_{min_width}_{net}.p")


def min_size_of(path):
    """Smallest height and width in pixels in the name of a table of embedded segments.

    Raises
    ------
    SettingError
        If it has another name than `embeddings_path` gives.
    """
    name = re.fullmatch(r"embeddings_(\d+)_(\d+)_.+\.p", Path(path).name)
    if not name:
        raise SettingError(
            f"a file of embedded segments must be called embeddings_<height>_<width>_<net>.p, "
            f"got {path}"
        )
    return int(name[1]), int(name[2])


def rating_path(io_path, model, dataset, index):
    """Path of the picture of one image's true and predicted IoU, drawn by stage 2."""
    return Path(io_path, "pictures", "rating", model, dataset, f"rating{index}.png")


def analysis_folder(io_path, model, dataset):
    """Folder of the tables and plots that compare meta models, written by stage 2."""
    return Path(io_path, "analysis", model, dataset)


def image_indices(folder, stem, missing_ok=False):
    """Indices of the images that have a file in a folder.

    Parameters
    ----------
    folder : path
        The folder of one model and dataset, for example that of `prediction_path`.
    stem : {"input", "metrics", "components"}
        The file name up to its number.
    missing_ok : bool
        Give an empty list where there is no such file.

    Returns
    -------
    indices : list of int
        Ascending. Other files in the folder do not matter.

    Raises
    ------
    SettingError
        If there is no such folder and that is not `missing_ok`; lists the folders that exist.
    """
    folder = Path(folder)
    stems = f"(?:{stem}|probs_)" if stem == "input" else stem
    names = (re.fullmatch(rf"{stems}(\d+)\.(?:hdf5|p)", path.name) for path in _files(folder))
    indices = sorted({int(name[1]) for name in names if name})
    if not folder.is_dir() and not missing_ok:
        others = ", ".join(sorted(path.name for path in _files(folder.parent))) or "nothing"
        raise SettingError(
            f"{folder} has no {stem} files; run {_MAKERS[stem]} with args.dataset={folder.name} "
            f"first; {folder.parent} has {others}"
        )
    return indices


def _files(folder):
    return list(folder.iterdir()) if folder.is_dir() else []


# predictions and component maps


def write_prediction(path, prediction, made_from, form="compact"):
    """Store what stage 1 knows about one image.

    Parameters
    ----------
    path : path
        See `prediction_path`; folders are made as needed.
    prediction : Prediction
        An unknown ground truth (None) is stored as 255 everywhere.
    made_from : dict
        What the file depends on, in values that JSON can hold.
    form : {"float32", "compact", "none"}
        How the probabilities are stored: as they are; as whole multiples of 1 / 65535, compressed;
        not at all, but the heat maps in 255 steps for pictures.
    """
    truth = prediction.ground_truth
    if truth is None:
        truth = np.full(prediction.prediction.shape, NO_LABEL, np.uint8)
    with _new_hdf5(path, made_from) as file:
        if form == "float32":  # a fifth smaller if compressed, but five times slower to read
            file["probabilities"] = np.asarray(prediction.probabilities, np.float32)
        elif form == "compact":
            _store_steps(file, "probabilities", prediction.probabilities, np.uint16)
        else:
            _store_steps(file, "heatmaps", prediction.heatmaps, np.uint8)
        _store_scores(file, prediction.scores)
        _store_ids(file, "prediction", _as_ids(prediction.prediction))
        _store_ids(file, "ground_truths", _as_ids(truth))
        file.create_dataset(
            "image_path", data=[os.fsencode(prediction.image_path)], dtype=h5py.string_dtype()
        )


def read_prediction(path, probabilities=True):
    """Read what stage 1 knows about one image.

    Parameters
    ----------
    path : path
        See `prediction_path`; older trees' `probs_<index>.hdf5` is found where it is missing.
    probabilities : bool
        False: leave out the probabilities, which are nearly all of the file.

    Returns
    -------
    prediction : Prediction
        `ground_truth` is None where no pixel has a label; `probabilities` and `heatmaps` are None
        where they are left out or not stored.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing; it is broken.
    """
    with _open_hdf5(path) as file:
        truth = _as_ids(file["ground_truths"][()])
        # older files: `file_names`; other library versions: fixed-length bytes
        names = file["image_path" if "image_path" in file else "file_names"][()]
        return Prediction(
            probabilities=_read_steps(file, "probabilities") if probabilities else None,
            heatmaps=_read_steps(file, "heatmaps"),
            scores=_read_scores(file),
            prediction=_as_ids(file["prediction"][()]),
            ground_truth=None if (truth == NO_LABEL).all() else truth,
            image_path=os.fsdecode(np.ravel(names)[0]),
        )


def read_ahead(path):
    """Ask the system to fetch a file from its disk while we work, where there is one and it can.

    The system takes requests of about a megabyte and forgets the rest of larger ones.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError), Path(path).open("rb") as file:
        for start in range(0, os.fstat(file.fileno()).st_size, 2**20):
            os.posix_fadvise(file.fileno(), start, 2**20, os.POSIX_FADV_WILLNEED)


def write_components(path, components, made_from):
    """Store a component map: (H, W) int32, +k inside segment k and -k on its boundary."""
    with _new_hdf5(path, made_from) as file:
        _store_ids(file, "components", np.asarray(components, np.int32))


def read_components(path):
    """Read a component map, (H, W) int32: +k inside segment k and -k on its boundary.

    Where the HDF5 file is missing, the original's pickle of the same name is read.
    """
    if _existing(path).suffix == ".p":
        return np.asarray(_read_pickle(path), np.int32)
    with _open_hdf5(path) as file:
        return np.asarray(file["components"], np.int32)


def read_map(path):
    """Read a map of the user's: an array of numbers in a .npy file.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing; it is broken or holds something else.
    """
    try:
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
            raise ValueError(f"it has {getattr(values, 'dtype', type(values).__name__)}")
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # a broken file raises nearly anything
        raise ValueError(f"{path} must hold a map of numbers, saved by np.save: {error}") from error
    return values


# tables


def write_table(path, table, made_from):
    """Store a table.

    Parameters
    ----------
    path : path
        See `metrics_path` and `embeddings_path`; folders are made as needed.
    table : dict
        Name -> NumPy array, or plain lists, tuples, dicts, str, bytes and numbers.
    made_from : dict
        What the file depends on, in values that JSON can hold. Stored under the key "made_from".

    Raises
    ------
    TypeError
        The table holds something that `read_table` would refuse.
    """
    with _sealed_file(path) as file:
        # from protocol 5 on NumPy neither writes nor reads by way of a copy
        _Pickler(file, protocol=5).dump({**table, "made_from": as_stored(made_from)})


def read_table(path):
    """Read a table as it was given to `write_table`; the original's tables are dicts of lists.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing; it is broken, or holds anything but NumPy arrays and plain values.
    """
    table = _read_pickle(path)
    if not isinstance(table, dict):
        raise ValueError(f"{path} must hold a dict, got {type(table).__name__}; {_advice(path)}")
    table.pop("made_from", None)
    return table


def read_embeddings(path):
    """Read the table of embedded segments: I images with N segments, vectors of F values.

    Parameters
    ----------
    path : path
        See `embeddings_path`; a file of the original system will do.

    Returns
    -------
    table : dict
        An entry an image: `image_path`, `dataset`, `model_name`, lists of str; `image_index`, int64
        (I,); `image_size`, int64 (I, 2), height and width in pixels, -1 where unknown; `iou_pred`,
        a list of float32 arrays, the predicted IoU of all segments of the image;
        `image_made_from`, a list of str, which changes when the image is segmented anew.

        An entry a segment: `embeddings`, float32 (N, F); `box`, int64 (N, 4), left, upper, right,
        lower of the crop, right and lower exclusive; int64 (N,): `component_index` from 1 within
        the image, `image_level_index`, the position in the lists of images, `gt`, the most frequent
        true id of its dataset (255: none), `pred`, the predicted id, and `segment_size` in pixels,
        -1 where unknown; `iou`, float32 (N,), the predicted one; `thumbnail`, a list of bytes (JPEG
        files), which the original's files lack; from stage 5 `nn_embeddings` (N, D) and
        `plot_embeddings` (N, 2), float32, NaN where a segment has come since.

        `reduced_by` and what else the file holds; `made_from`, a dict, None for the original's.

    Raises
    ------
    FileNotFoundError, SettingError
        The file is missing; it is broken, or is no such table.
    """
    try:
        table = _read_pickle(path)
    except ValueError as error:
        raise SettingError(str(error)) from error
    try:
        return table | {"made_from": table.get("made_from")} | _embedding_columns(table)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise SettingError(str(_broken(path, error))) from error


def version_of(path):
    """What tells a file from a later one of its name; None: it is missing."""
    try:
        state = Path(path).stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def take_segments(table, rows):
    """The table of embedded segments with only some of them, and with their images only.

    Parameters
    ----------
    table : dict
        As `read_embeddings` gives it; vectors and thumbnails may be missing.
    rows : sequence of int
        Rows of the segments, in the order wanted.
    """
    rows = np.asarray(rows, np.int64)
    images, image_level_index = np.unique(table["image_level_index"][rows], return_inverse=True)

    def taken(column, at):
        return column[at] if isinstance(column, np.ndarray) else [column[k] for k in at.tolist()]

    of_images = {name: taken(table[name], images) for name in _OF_IMAGES}
    names = [name for name in (*_OF_SEGMENTS, *VECTORS, "thumbnail") if name in table]
    of_segments = {name: taken(table[name], rows) for name in names}
    return table | of_images | of_segments | {"image_level_index": image_level_index}


def without_vectors(table):
    """What the table of embedded segments says of them, without vectors, maps and thumbnails."""
    names = (*_OF_IMAGES, "image_level_index", *_OF_SEGMENTS)
    return {name: table[name] for name in names}


def _embedding_columns(table):
    """The columns that `read_embeddings` promises, from a file of any age."""
    images, rows = len(table["image_path"]), len(table["component_index"])
    names = ("image_index", "component_index", "image_level_index", "gt", "pred")
    columns = {name: np.asarray(table[name], np.int64) for name in names}
    columns["box"] = np.asarray(table["box"], np.int64).reshape(rows, 4)
    columns["segment_size"] = np.asarray(table.get("segment_size", np.full(rows, -1)), np.int64)
    sizes = np.asarray(table.get("image_size", np.full((images, 2), -1)), np.int64)
    columns["image_size"] = sizes.reshape(images, 2)
    columns["image_made_from"] = table.get("image_made_from", [""] * images)
    for name in VECTORS:
        if name in table:
            vectors = np.asarray(table[name], np.float32)
            columns[name] = vectors if rows else vectors.reshape(0, *vectors.shape[1:] or (0,))
    iou = table.get("iou")
    if iou is None:
        places = zip(columns["image_level_index"], columns["component_index"], strict=True)
        iou = [table["iou_pred"][image][number - 1] for image, number in places]
    return columns | {"iou": np.asarray(iou, np.float32)}


# pictures


def write_picture(path, picture):
    """Store a picture (H, W, 3) uint8 as PNG; folders are made as needed."""
    with whole_file(path) as part:
        Image.fromarray(picture).save(part, "PNG")


# what a file was made from


def made_from(path):
    """What a file says it was made from: a dict, or None where it does not say.

    Of an HDF5 file no more is read than that.
    """
    if _existing(path).suffix == ".hdf5":
        with _open_hdf5(path, is_checked=False) as file:
            source = json.loads(file.attrs.get("made_from", "null"))
    else:
        table = _read_pickle(path)
        source = table.get("made_from") if isinstance(table, dict) else None
    return source if isinstance(source, dict) else None


def version():
    """Version of this project, for the record; None where it is not installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("oodretrieval")
    return None


def why_stale(path, expected, ignored=()):
    """Why a file has to be made, or made again.

    Parameters
    ----------
    path : path
    expected : dict
        What it should be made from, as given to its writer.
    ignored : collection of str
        Keys of which it does not matter what the file says.

    Returns
    -------
    reason : str or None
        None: it is there, whole to its last byte, and made from `expected`.
    """
    try:
        is_sealed = _is_sealed(_existing(path))
        there = made_from(path) or {}
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError):
        return "broken"
    if there and not is_sealed:
        return "broken"
    kept = {key: there[key] for key in there.keys() - set(ignored)}
    return why_differs(kept, as_stored(expected))


def why_differs(there, expected):
    """Which keys tell two `made_from` apart: "other image.size, network.weights"; None: none."""
    there, expected = _flat(there), _flat(expected)
    missing = object()
    keys = there.keys() | expected.keys()
    others = sorted(key for key in keys if there.get(key, missing) != expected.get(key, missing))
    return f"other {', '.join(others)}" if others else None


def _flat(made_from, prefix=""):
    """Values of nested dicts under dotted keys."""
    flat = {}
    for key, value in made_from.items():
        is_nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if is_nested else {f"{prefix}{key}": value}
    return flat


def state_of(path):
    """What tells a file of the user's from every other: path, bytes, time of change."""
    state = Path(path).stat()
    return {"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns}


def digest(made_from):
    """SHA-256, as text, of what many files were made from: plain values."""
    return hashlib.sha256(_as_json(made_from).encode()).hexdigest()


def as_stored(made_from):
    """What `made_from` gives of a dict: keys are str, tuples, sets and arrays lists; the format."""
    return json.loads(_as_json({**made_from, "format": FORMAT}))


def _as_json(made_from):
    def plain(value):
        if isinstance(value, set | frozenset):
            return sorted(value)
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)

    return json.dumps(made_from, sort_keys=True, default=plain)


# writing: whole or not at all


@contextmanager
def _new_hdf5(path, made_from):
    buffer = io.BytesIO()  # HDF5 does not survive a disk that is full
    with h5py.File(buffer, "w") as file:
        file.attrs["made_from"] = json.dumps(as_stored(made_from), sort_keys=True)
        yield file
    with _sealed_file(path) as file:
        file.write(buffer.getbuffer())


@contextmanager
def _sealed_file(path):
    """Give a file to write to, which takes its place at `path` with a checksum at its end."""
    with whole_file(path) as part, part.open("wb") as file:
        checked = _Checked(file)
        yield checked
        file.write(_seal(checked.checksum))


class _Checked:
    """Writes to a file and computes the checksum of what it writes."""

    def __init__(self, file):
        self._file, self.checksum = file, 0

    def write(self, content):
        self.checksum = zlib.crc32(content, self.checksum)
        return self._file.write(content)


def _seal(checksum):
    return _SEAL + b"%08x" % checksum


def _is_sealed(path):
    """Whether a file has a checksum; the original's files have none.

    Raises
    ------
    ValueError
        It has one, but not that of its content.
    """
    length = len(_seal(0))
    with path.open("rb") as file:
        left, checksum = file.seek(0, os.SEEK_END) - length, 0
        file.seek(max(left, 0))
        seal = file.read()
        if not seal.startswith(_SEAL):
            return False
        file.seek(0)
        while left:
            block = file.read(min(left, _BLOCK))
            left, checksum = left - len(block), zlib.crc32(block, checksum)
    if seal != _seal(checksum):
        raise _broken(path, ValueError("its checksum is not that of its content"))
    return True


def _store_steps(file, name, array, dtype):
    """Store values (H, W, C) in [0, 1] as whole numbers, 1 as the largest one; compressed.

    One map (H, W) after the other, which takes a quarter less than pixel after pixel.
    """
    height, width, count = array.shape
    stored = file.create_dataset(
        name,
        shape=(count, height, width),
        dtype=dtype,
        chunks=(count, min(_STEP_ROWS, height), width),
        compression=hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.SHUFFLE),
    )
    for rows in _step_rows(height):
        steps = np.clip(array[rows], 0, 1) * np.float32(np.iinfo(dtype).max)
        stored[:, rows] = np.moveaxis(np.rint(steps, out=steps).astype(dtype), 2, 0)


def _read_steps(file, name):
    """Values of a dataset (H, W, C) as float32, None where there is none."""
    if name not in file:
        return None
    stored = file[name]
    if stored.dtype.kind == "f":  # stored as they are
        return np.asarray(stored, np.float32)
    count, height, width = stored.shape
    values = np.empty((height, width, count), np.float32)
    step = np.float32(1 / np.iinfo(stored.dtype).max)
    for rows in _step_rows(height):
        np.multiply(np.moveaxis(stored[:, rows], 0, 2), step, out=values[rows])
    return values


def _store_scores(file, scores):
    """Store maps (H, W) by name in 65535 steps between the lowest and the highest value of each."""
    if not scores:
        return
    maps = np.stack([*scores.values()], axis=2)
    low, high = maps.min(axis=(0, 1)), maps.max(axis=(0, 1))
    _store_steps(file, "scores", (maps - low) / np.where(high > low, high - low, 1), np.uint16)
    file["scores"].attrs.update(names=[*scores], low=low, high=high)


def _read_scores(file):
    if "scores" not in file:
        return {}
    maps, attrs = _read_steps(file, "scores"), file["scores"].attrs
    maps = attrs["low"] + maps * (attrs["high"] - attrs["low"])
    return dict(zip(attrs["names"], np.moveaxis(maps, 2, 0), strict=True))


def _step_rows(height):
    """A few rows after the other: what is done to them stays in the processor's cache."""
    return [slice(row, row + _STEP_ROWS) for row in range(0, height, _STEP_ROWS)]


def _store_ids(file, name, array):
    """Store whole numbers with a value a pixel, compressed: they come in long runs."""
    file.create_dataset(
        name,
        data=array,
        chunks=(min(128, array.shape[0]), *array.shape[1:]),
        # a shuffle of the bytes would double the size
        compression=hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.NOFILTER),
    )


def _as_ids(ids):
    """Class ids as uint8, or as uint16 where there are more than 256."""
    if ids.dtype in (np.uint8, np.uint16):
        return ids
    low, high = ids.min(), ids.max()
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"class ids must be in 0..65535, got {low}..{high}")
    return ids.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)


# reading: clear errors, and nothing that runs


def _existing(path):
    """The file itself, or where it is missing the one that an older tree has in its place."""
    path = Path(path)
    older = {
        "input": path.with_name(path.name.replace("input", "probs_", 1)),
        "components": path.with_suffix(".p"),
    }
    candidates = [path, older.get(_stem(path), path)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{path} is missing; {_advice(path)}")


def _stem(path):
    """The letters that a file name begins with: "input" of "input3.hdf5"."""
    return re.match("[a-z]*", Path(path).name)[0]


def _advice(path, when="first"):
    stem, folder = _stem(path), Path(path).parent.name
    of_dataset = f" for {folder!r}" if folder and stem != "embeddings" else ""
    return f"run {_MAKERS.get(stem, 'the script that writes it')}{of_dataset} {when}"


def _broken(path, error):
    reason = f"{type(error).__name__}: {error}"
    return ValueError(f"{path} cannot be read ({reason}); {_advice(path, 'again')}")


@contextmanager
def _open_hdf5(path, is_checked=True):
    path = _existing(path)
    is_sealed = not is_checked or _is_sealed(path)
    try:
        with h5py.File(path, "r") as file:
            if "made_from" in file.attrs and not is_sealed:
                raise ValueError(_UNSEALED)
            yield file
    except PermissionError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _broken(path, error) from error


def _read_pickle(path):
    path = _existing(path)
    is_sealed = _is_sealed(path)
    with path.open("rb") as file:
        try:
            content = _load(file, is_sealed)
            if isinstance(content, dict) and "made_from" in content and not is_sealed:
                raise ValueError(_UNSEALED)
        except Exception as error:  # a broken pickle raises nearly anything
            raise _broken(path, error) from error
    return content


_SCALAR = np.float64(0).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]


def _known_globals():
    """What pickles of NumPy arrays, scalars and dtypes refer to, under its names in NumPy 1 and 2.

    The functions are taken from NumPy's own answer to how an array is pickled, so that no private
    module has to be imported. Protocol 2 has no bytes of its own, but calls for two functions.
    """
    known = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = np.zeros(1).__reduce__()[0]
        known[f"{core}.multiarray", "scalar"] = _SCALAR
        known[f"{core}.numeric", "_frombuffer"] = _FROM_BUFFER
    known["_codecs", "encode"] = _encode_latin1
    known["__builtin__", "bytes"] = _no_bytes
    return known


def _encode_latin1(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}, which is refused")
    return text.encode("latin1")


def _no_bytes():
    return b""


class _Unpickler(pickle._Unpickler):
    """Reads NumPy arrays and plain values; refuses by name what could run code.

    The unpickler in Python: its steps can be looked at, and no small file can make it fill the
    memory (the one in C makes room for as many objects as a file says that it will remember).
    """

    known = _known_globals()
    dispatch = pickle._Unpickler.dispatch.copy()

    def __init__(self, file):
        super().__init__(file)
        self._size = os.fstat(file.fileno()).st_size

    def find_class(self, module, name):
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return self.known[module, name]

    def load_build(self):
        """Set the state of an array or dtype."""
        target, state = self.stack[-2:]
        if isinstance(target, np.dtype):
            _check_state(target, state)
        elif type(target) is not np.ndarray:
            raise pickle.UnpicklingError(f"it sets the state of {target!r}, which is refused")
        super().load_build()

    def load_bytearray8(self):
        """Read bytes that are there; the length comes first, and the room for it is filled."""
        length = int.from_bytes(self.read(8), "little")
        if length > self._size:
            raise pickle.UnpicklingError(f"it lacks some of {length} bytes")
        content = bytearray(length)
        self.readinto(content)
        self.append(content)

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


class _Unknown(pickle.UnpicklingError):
    """A pickle asks for what `_QuickUnpickler` does not know."""


class _QuickUnpickler(pickle.Unpickler):
    """Reads what `_Pickler` writes of most tables, with the unpickler in C.

    That one cannot be looked at while it sets the state of a dtype, so none is there.
    """

    def find_class(self, module, name):
        known = _Unpickler.known.get((module, name))
        stands_in = {np.dtype: _Dtype, _FROM_BUFFER: _from_buffer, _SCALAR: _scalar}
        for function, ours in stands_in.items():
            if known is function:
                return ours
        raise _Unknown(f"{module}.{name}")


class _Dtype:
    """Stands for a dtype until an array or a scalar needs it."""

    def __init__(self, code, *_):
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state):
        _check_state(self.dtype, state)
        self.dtype = self.dtype.newbyteorder(state[1])


def _unchangeable(function):
    """Keep a pickle from setting attributes of a function that it may call."""

    def refuse(_state):
        raise pickle.UnpicklingError(f"it sets the state of {function.__name__}, which is refused")

    function.__setstate__ = refuse
    return function


@_unchangeable
def _from_buffer(content, stand_in, shape, order):
    return _FROM_BUFFER(content, stand_in.dtype, shape, order)


@_unchangeable
def _scalar(stand_in, content):
    return np.frombuffer(content, stand_in.dtype)[0]


def _check_state(dtype, state):
    """Refuse all but another order of bytes; NumPy believes that there are pointers in bytes."""
    own = dtype.__reduce__()[2]
    if (state[0], *state[2:]) != (own[0], *own[2:]):
        raise pickle.UnpicklingError(f"its dtype {dtype} has a state that is refused")


def _load(file, is_ours):
    """The content of a pickle; nothing in it runs."""
    if is_ours:
        try:
            return _QuickUnpickler(file).load()
        except _Unknown:  # an array without elements, say
            file.seek(0)
    return _Unpickler(file).load()


class _Pickler(pickle.Pickler):
    """Writes only what `_Unpickler` reads."""

    def reducer_override(self, value):
        is_known = any(value is known for known in _Unpickler.known.values())
        if is_known or type(value) is np.ndarray or isinstance(value, (np.generic, np.dtype)):
            return NotImplemented
        raise TypeError(
            "a table holds NumPy arrays, lists, tuples, dicts, str, bytes and numbers, "
            f"got {type(value).__name__}: {value!r}"
        )


# overviews of datasets


def classes_path(io_path, dataset, index):
    """Path of the table of the classes in one image, written by search_classes.py."""
    return Path(io_path, "overviews", dataset, f"classes{index}.p")


def overview_path(io_path, dataset):
    """Path of the list of images by class, written by search_classes.py."""
    return Path(io_path, "overviews", dataset, "overview.json")


def write_overview(path, classes, made_from):
    """Store in which images of a dataset each class occurs, as JSON.

    Parameters
    ----------
    path : path
        See `overview_path`; folders are made as needed.
    classes : list of dict
        `id`, `name` and `images`, ascending indices, of each class.
    made_from : dict
        What the file depends on, in values that JSON can hold.
    """
    with whole_file(path) as part:
        checksum = zlib.crc32(_as_json(classes).encode())
        content = {"classes": classes, "made_from": as_stored(made_from), "crc32": checksum}
        part.write_text(_as_json(content), encoding="utf-8")


def read_overview(path, made_from):
    """Read the classes as they were given to `write_overview`.

    Raises
    ------
    SettingError
        The file is missing or broken, or was made from something else than `made_from`.
    """
    path = Path(path)
    advice = f"run search_classes.py with args.dataset={path.parent.name} first"
    try:
        overview = json.loads(path.read_text(encoding="utf-8"))
        classes, source = overview["classes"], overview["made_from"]
        if not all({"id", "name", "images"} <= row.keys() for row in classes):
            raise ValueError("a class lacks its id, name or images")
        if overview.get("crc32") != zlib.crc32(_as_json(classes).encode()):
            raise ValueError("its checksum is not that of its classes")
    except FileNotFoundError:
        raise SettingError(f"{path} is missing; {advice}") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise SettingError(f"{path} is broken ({error}); {advice}") from error
    if source != as_stored(made_from):
        raise SettingError(f"{path} was made when the dataset had other images; {advice}")
    return classes


# tags that the explorer's user gave


def tags_path(embeddings_path):
    """Path of the tags of a table of embedded segments: JSON, beside it."""
    path = Path(embeddings_path)
    return path.with_name(f"{path.name.removesuffix('.p')}_tags.json")


def write_tags(path, tags):
    """Store the tags of segments, as JSON that a person can read.

    Parameters
    ----------
    path : path
        See `tags_path`; folders are made as needed.
    tags : list of (str, int, int, (int, int, int, int), str)
        Dataset, image index, component index, box and tag of each segment that has one.
    """
    names = "dataset", "image_index", "component_index", "box", "tag"
    lines = [json.dumps(dict(zip(names, entry, strict=True)), ensure_ascii=False) for entry in tags]
    with whole_file(path) as part:
        part.write_text('{"tags": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


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
