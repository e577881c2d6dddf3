"""Arrays with a value a pixel: predictions and component maps, as HDF5 files."""

import io
import json
import math
import os
from contextlib import contextmanager

import h5py
import hdf5plugin
import numpy as np

from src.records import NO_LABEL, Prediction
from src.store.files import check_file
from src.store.sealed import UNSEALED, as_json, broken, existing, is_sealed, sealed_file
from src.store.tables import read_pickle

FORMS = ("float32", "compact", "none")  # in which probabilities are stored
_ALWAYS_READ = 2**30  # bytes of an array; of more than these each takes at least a part of one:
_SMALLEST_PART = 1 / 4000
_STEP_ROWS = 16  # of a chunk
_SMALL = hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.SHUFFLE)
_QUICK = hdf5plugin.Blosc(cname="lz4", clevel=9)  # a third of the time for a sixth more
_MOST = 1 + 1e-3  # a probability, rounded


def write_prediction(path, prediction, made_from, form="compact"):
    """Store what stage 1 knows about one image.

    Parameters
    ----------
    path : path
        Folders are made as needed.
    prediction : Prediction
        An unknown ground truth (None) is stored as 255 everywhere.
    made_from : dict
        What the file depends on; see `provenance`.
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
            _store_steps(file, "probabilities", prediction.probabilities, np.uint16, _QUICK)
        else:
            _store_steps(file, "heatmaps", prediction.heatmaps, np.uint8)
        _store_scores(file, prediction.scores)
        _store_ids(file, "prediction", _as_ids(prediction.prediction))
        _store_ids(file, "ground_truths", _as_ids(truth))
        file.create_dataset(
            "image_path", data=[os.fsencode(prediction.image_path)], dtype=h5py.string_dtype()
        )


def read_prediction(path, probabilities=True, as_stored=False):
    """Read what stage 1 knows about one image: a Prediction.

    Older trees' `probs_<index>.hdf5` is found where the file is missing. `ground_truth` is None
    where no pixel has a label; `probabilities`, nearly all of the file, and `heatmaps` where they
    are left out or not stored.

    Probabilities `as_stored`, for those who check them, are not copied where they are float32: what
    is read is the file itself. They may also be uint16 in steps of 1 / 65535, with a map of its own
    in memory for each class; this takes half the time.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing; it is broken.
    """
    with _open_hdf5(path) as file:
        truth = _dataset(file, "ground_truths")
        size = truth.shape
        for name in ("prediction", "probabilities", "heatmaps", "scores"):
            if name in file:
                _dataset(file, name, size)  # before anything is read
        truth = _as_ids(truth[()])
        # older files: `file_names`; other library versions: fixed-length bytes
        names = _dataset(file, "image_path" if "image_path" in file else "file_names")[()]
        image_path = os.fsdecode(np.ravel(names)[0])
        if "\0" in image_path:
            raise ValueError(f"{image_path!r} is no path")
        kept = _read_steps(file, "probabilities", size, as_stored) if probabilities else None
        return Prediction(
            probabilities=kept,
            heatmaps=_read_steps(file, "heatmaps", size),
            scores=_read_scores(file, size),
            prediction=_as_ids(_dataset(file, "prediction", size)[()]),
            ground_truth=None if (truth == NO_LABEL).all() else truth,
            image_path=image_path,
        )


def write_components(path, components, made_from):
    """Store a component map: (H, W) int32, +k inside segment k and -k on its boundary."""
    with _new_hdf5(path, made_from) as file:
        _store_ids(file, "components", np.asarray(components, np.int32))


def read_components(path):
    """Read a component map, (H, W) int32: +k inside segment k and -k on its boundary.

    Where the HDF5 file is missing, the original's pickle of the same name is read.
    """
    path = existing(path)
    if path.suffix == ".p":
        try:
            return _as_components(np.asarray(read_pickle(path)))
        except (TypeError, ValueError) as error:
            raise broken(path, error) from error
    with _open_hdf5(path) as file:
        return _as_components(_dataset(file, "components")[()])


def _as_components(numbers):
    """Numbers of segments as (H, W) int32."""
    most = np.iinfo(np.int32).max
    if (
        numbers.ndim != 2
        or numbers.dtype.kind not in "biu"
        or np.abs(numbers).max(initial=0) > most
    ):
        raise ValueError(f"it holds {numbers.shape} {numbers.dtype}, no map of whole numbers")
    return np.asarray(numbers, np.int32)


def read_map(path):
    """Read a map of the user's: an array of numbers in a .npy file.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing; it is broken or holds something else.
    """
    try:
        check_file(path)
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
            raise ValueError(f"it has {getattr(values, 'dtype', type(values).__name__)}")
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # a broken file raises nearly anything
        raise ValueError(f"{path} must hold a map of numbers, saved by np.save: {error}") from error
    return values


def made_from_of(path, is_checked):
    """What an HDF5 file says it was made from, None where it does not.

    No more is read of it, unless it is checked that it is whole.
    """
    with _open_hdf5(path, is_checked) as file:
        return json.loads(file.attrs.get("made_from", "null"))


@contextmanager
def _new_hdf5(path, made_from):
    buffer = io.BytesIO()  # HDF5 does not survive a disk that is full
    with h5py.File(buffer, "w") as file:
        file.attrs["made_from"] = as_json(made_from)
        yield file
    with sealed_file(path) as file:
        file.write(buffer.getbuffer())


def _store_steps(file, name, array, dtype, compression=_SMALL):
    """Store values (H, W, C) in [0, 1] as whole numbers, 1 as the largest one; compressed.

    One map (H, W) after the other, which takes a quarter less than pixel after pixel.
    """
    height, width, count = array.shape
    stored = file.create_dataset(
        name,
        shape=(count, height, width),
        dtype=dtype,
        chunks=(count, min(_STEP_ROWS, height), width),
        compression=compression,
    )
    for rows in _step_rows(height):
        steps = np.clip(array[rows], 0, 1) * np.float32(np.iinfo(dtype).max)
        stored[:, rows] = np.moveaxis(np.rint(steps, out=steps).astype(dtype), 2, 0)


def _dataset(file, name, size=None):
    """A dataset that lies in its file and is as large as it says: nothing of it is read yet.

    `size`, height and width of the picture, is compared with its own: (H, W), (C, H, W) of steps,
    or (H, W, C) of numbers as they are.
    """
    if not isinstance(file.get(name, h5py.HardLink(), getlink=True), h5py.HardLink):
        raise ValueError(f"{name!r} is a link, which is refused")
    stored = file[name]
    if not isinstance(stored, h5py.Dataset) or stored.is_virtual or stored.external:
        raise ValueError(f"{name!r} lies outside the file, which is refused")
    shape, stored_bytes = stored.shape, stored.id.get_storage_size()
    if not (shape and stored.size) or stored.nbytes > max(
        _ALWAYS_READ, stored_bytes / _SMALLEST_PART
    ):
        raise ValueError(f"{name!r} has the shape {shape} in {stored_bytes} bytes")
    if size is not None and (len(size) != 2 or size not in (shape, shape[1:], shape[:2])):
        raise ValueError(f"{name!r} has the shape {shape} in a picture of {size}")
    if stored.chunks is None:
        is_there = stored_bytes >= stored.nbytes  # texts take more in a file
    else:
        chunks = (-(-length // part) for length, part in zip(shape, stored.chunks, strict=True))
        is_there = stored.id.get_num_chunks() == math.prod(chunks)
    if not is_there:  # HDF5 would make it up
        raise ValueError(f"{name!r} is not all there")
    return stored


def _read_steps(file, name, size, as_stored=False):
    """Values of a dataset (H, W, C) as float32 or as they are stored, None where there is none."""
    if name not in file:
        return None
    stored = _dataset(file, name, size)
    if as_stored and stored.dtype == np.uint16:
        return np.moveaxis(stored[()], 0, 2)
    place = stored.id.get_offset()  # None: in parts, or among what describes it
    if as_stored and stored.dtype == np.float32 and place is not None:
        return np.asarray(np.memmap(file.filename, np.float32, "r", place, stored.shape))
    if stored.dtype.kind == "f":
        values = np.asarray(stored, np.float32)
        if not (as_stored or _is_in_range(values)):
            raise ValueError(f"{name!r} has values outside of 0..1")
        return values
    if stored.dtype.kind != "u":
        raise ValueError(f"{name!r} has values of {stored.dtype}")
    count, height, width = stored.shape
    values = np.empty((height, width, count), np.float32)
    step = np.float32(1 / np.iinfo(stored.dtype).max)
    for rows in _step_rows(height):
        np.multiply(np.moveaxis(stored[:, rows], 0, 2), step, out=values[rows])
    return values


def _is_in_range(values):
    return values.min(initial=0) >= 0 and values.max(initial=0) <= _MOST  # nor NaN


def _store_scores(file, scores):
    """Store maps (H, W) by name in 65535 steps between the lowest and the highest value of each."""
    if not scores:
        return
    maps = np.stack([*scores.values()], axis=2)
    low, high = maps.min(axis=(0, 1)), maps.max(axis=(0, 1))
    _store_steps(file, "scores", (maps - low) / np.where(high > low, high - low, 1), np.uint16)
    file["scores"].attrs.update(names=[*scores], low=low, high=high)


def _read_scores(file, size):
    if "scores" not in file:
        return {}
    maps, attrs = _read_steps(file, "scores", size), file["scores"].attrs
    names, low, high = attrs["names"], attrs["low"], attrs["high"]
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("its scores have no finite range")
    maps = low + maps * (high - low)
    return dict(zip(map(str, names), np.moveaxis(maps, 2, 0), strict=True))


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
    if ids.dtype.kind not in "biu" and not np.array_equal(ids, np.trunc(ids)):
        raise ValueError(f"class ids must be whole numbers, got {ids.dtype}")
    low, high = ids.min(), ids.max()
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"class ids must be in 0..65535, got {low}..{high}")
    return ids.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)


@contextmanager
def _open_hdf5(path, is_checked=True):
    path = existing(path)
    is_whole = not is_checked or is_sealed(path)
    try:
        with h5py.File(path, "r") as file:
            if "made_from" in file.attrs and not is_whole:
                raise ValueError(UNSEALED)
            yield file
    except PermissionError:
        raise
    except (OSError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise broken(path, error) from error
