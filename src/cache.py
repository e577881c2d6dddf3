"""Every file between the stages: its name, its format, how it is written whole and read safely.

Arrays with a value a pixel are HDF5 files, tables are pickles of one plain dict. Each file says
what it was made from. Files of the original system can be read as well.
"""

import hashlib
import json
import os
import pickle
import re
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from PIL import Image

from src.loading import SettingError
from src.records import NO_LABEL, Prediction

FORMAT = 1  # version of the files here; another one is made again
FORMS = ("float32", "compact", "none")  # in which probabilities are stored
_STEP_ROWS = 16  # of a chunk
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


def embeddings_path(io_path, model, dataset, min_height, min_width, net):
    """Path of the table of embedded segments, written by stage 4; sizes in pixels."""
    name = f"embeddings_{min_height}_{min_width}_{net}.p"
    return Path(io_path, "embeddings", model, dataset, name)


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
        If there is no such file and that is not `missing_ok`; lists the folders that exist.
    """
    folder = Path(folder)
    stems = f"(?:{stem}|probs_)" if stem == "input" else stem
    names = (re.fullmatch(rf"{stems}(\d+)\.(?:hdf5|p)", path.name) for path in _files(folder))
    indices = sorted({int(name[1]) for name in names if name})
    if not indices and not missing_ok:
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
    with _whole_file(path) as part, part.open("wb") as file:
        _Pickler(file, protocol=4).dump({**table, "made_from": _plain(made_from)})


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


# pictures


def write_picture(path, picture):
    """Store a picture (H, W, 3) uint8 as PNG; folders are made as needed."""
    with _whole_file(path) as part:
        Image.fromarray(picture).save(part, "PNG")


# what a file was made from


def made_from(path):
    """What a file says it was made from: a dict, or None where it does not say."""
    if _existing(path).suffix == ".hdf5":
        with _open_hdf5(path) as file:
            return json.loads(file.attrs.get("made_from", "null"))
    table = _read_pickle(path)
    return table.get("made_from") if isinstance(table, dict) else None


def is_made_from(path, expected, ignored=()):
    """Whether a file is there, readable and made from `expected`, a dict as given to its writer.

    What the file says under the keys in `ignored` does not matter.
    """
    try:
        there = made_from(path) or {}
    except (OSError, ValueError):
        return False
    return {key: there[key] for key in there.keys() - set(ignored)} == _plain(expected)


def digest(made_from):
    """SHA-256, as text, of what many files were made from: plain values."""
    return hashlib.sha256(_as_json(made_from).encode()).hexdigest()


def _plain(made_from):
    """The dict as JSON gives it back, with the format: keys are str, tuples and arrays lists."""
    return json.loads(_as_json({**made_from, "format": FORMAT}))


def _as_json(made_from):
    def plain(value):
        if isinstance(value, set | frozenset):
            return sorted(value)
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)

    return json.dumps(made_from, sort_keys=True, default=plain)


# writing: whole or not at all


@contextmanager
def _whole_file(path):
    """Give the name of a file beside `path`, which takes its place once it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # whoever else writes it
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _new_hdf5(path, made_from):
    with _whole_file(path) as part, h5py.File(part, "w") as file:
        file.attrs["made_from"] = json.dumps(_plain(made_from), sort_keys=True)
        yield file


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


def _advice(path):
    maker = _MAKERS.get(_stem(path), "the script that writes it")
    return f"run {maker} for {Path(path).parent.name!r} first"


def _broken(path, error):
    reason = f"{type(error).__name__}: {error}"
    return ValueError(f"{path} cannot be read ({reason}); delete it, then {_advice(path)}")


@contextmanager
def _open_hdf5(path):
    path = _existing(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _broken(path, error) from error


def _read_pickle(path):
    path = _existing(path)
    with path.open("rb") as file:
        try:
            return _Unpickler(file).load()
        except Exception as error:  # a broken pickle raises nearly anything
            raise _broken(path, error) from error


def _known_globals():
    """What pickles of NumPy arrays, scalars and dtypes refer to, under its names in NumPy 1 and 2.

    The functions are taken from NumPy's own answer to how an array is pickled, so that no private
    module has to be imported.
    """
    known = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = np.zeros(1).__reduce__()[0]
        known[f"{core}.multiarray", "scalar"] = np.float64(0).__reduce__()[0]
        known[f"{core}.numeric", "_frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]
    return known


class _Unpickler(pickle.Unpickler):
    """Reads NumPy arrays and plain values; refuses by name what could run code."""

    known = _known_globals()

    def find_class(self, module, name):
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return self.known[module, name]


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
    with _whole_file(path) as part:
        content = {"classes": classes, "made_from": _plain(made_from)}
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
    except FileNotFoundError:
        raise SettingError(f"{path} is missing; {advice}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError(f"{path} is broken ({error}); {advice}") from error
    if source != _plain(made_from):
        raise SettingError(f"{path} was made when the dataset had other images; {advice}")
    return classes
