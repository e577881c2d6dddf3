"""Tables: a pickle of one dict of NumPy arrays and plain values each."""

import json
import os
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from src.errors import SettingError
from src.records import ImageName, ObjectTable
from src.store.files import read_text, whole_file
from src.store.paths import plain_name
from src.store.safe_pickle import Pickler, load
from src.store.sealed import (
    UNSEALED,
    advice,
    as_json,
    as_stored,
    broken,
    existing,
    is_sealed,
    sealed_file,
)
from src.store.stored_bytes import OpenFile, StoredBytes

MAPS = ("nn_embeddings", "plot_embeddings")  # from stage 5
VECTORS = ("embeddings", *MAPS)
# columns of an ObjectTable, and what the original calls them in a file: an entry an image there,
# to which `image_level_index` leads from the rows
_OF_IMAGES = {
    "image_path": "image_path",
    "dataset": "dataset",
    "model_name": "model_name",
    "image_index": "image_index",
    "image_size": "image_size",
    "image_predicted_iou": "iou_pred",
    "image_made_from": "image_made_from",
}
_OF_ROWS = {
    "box": "box",
    "component_index": "component_index",
    "true_id": "gt",
    "predicted_id": "pred",
    "predicted_iou": "iou",
    "suspicion": "suspicion",
    "novelty": "novelty",
    "segment_size": "segment_size",
    "thumbnail": "thumbnail",
    "annotated": "annotated",
    **{name: name for name in VECTORS},
}
_SEGMENTS = "segments", "segment_counts"  # of all rows one after the other; how many each has
_SIZES = "thumbnail_sizes"  # in bytes, of thumbnails that follow the pickle one after the other


def write_table(path, table, made_from):
    """Store a table, and under the key "made_from" what it depends on; see `provenance`.

    Parameters
    ----------
    path : path
        Folders are made as needed.
    table : dict
        Name -> NumPy array, or plain lists, tuples, dicts, str, bytes and numbers; others, which
        `read_table` would refuse, raise a TypeError.
    made_from : dict
    """
    with sealed_file(path) as file:
        _dump(file, table, made_from)


def _dump(file, table, made_from):
    # from protocol 5 on NumPy neither writes nor reads by way of a copy
    Pickler(file, protocol=5).dump({**table, "made_from": as_stored(made_from)})


def read_table(path):
    """Read a table as it was given to `write_table`; the original's tables are dicts of lists.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing; it is broken, or holds anything but NumPy arrays and plain values.
    """
    table = read_pickle(path)
    if not isinstance(table, dict):
        raise ValueError(f"{path} must hold a dict, got {type(table).__name__}; {advice(path)}")
    table.pop("made_from", None)
    return table


def read_pickle(path):
    """All that a pickle holds, its "made_from" included; see `read_table`."""
    with _unpickled(path) as (content, _):
        return content


@contextmanager
def _unpickled(path):
    """Give what a pickle holds, and its file, read up to the pickle's end."""
    path = existing(path)
    has_seal = is_sealed(path)
    with path.open("rb") as file:
        try:
            content = load(file, has_seal)
            if isinstance(content, dict) and "made_from" in content and not has_seal:
                raise ValueError(UNSEALED)
        except Exception as error:  # a broken pickle raises nearly anything
            raise broken(path, error) from error
        yield content, file


# the table of embedded objects


def write_embeddings(path, table, made_from):
    """Store an ObjectTable in the nested form of the original; see `write_table`.

    Thumbnails follow the pickle, so that they can be left in the file until they are looked at.
    """
    names = zip(table["dataset"], table["image_index"].tolist(), strict=True)
    position, first, image_level_index = {}, [], np.empty(len(table), np.int64)
    for row, name in enumerate(names):
        if name not in position:
            position[name] = len(first)
            first.append(row)
        image_level_index[row] = position[name]
    content = {"image_level_index": image_level_index}
    columns = {_OF_IMAGES[name]: table[name][first] for name in _OF_IMAGES if name in table}
    # as they are: two columns that are one array are stored once
    columns |= {_OF_ROWS[name]: table[name] for name in _OF_ROWS if name in table}
    thumbnails = columns.pop("thumbnail", ())
    for name, values in columns.items():
        content[name] = values.tolist() if values.dtype == object else values
    # one after the other, as many small arrays take long to read
    content["segments"] = np.concatenate([np.zeros(0, np.int64), *table["segments"]])
    content["segment_counts"] = np.array([len(of) for of in table["segments"]], np.int64)
    if "thumbnail" in table:
        content[_SIZES] = _sizes(thumbnails)
    with sealed_file(path) as file:
        _dump(file, table.facts | content, made_from)
        for picture in thumbnails:
            file.write(picture or b"")


def _sizes(thumbnails):
    if isinstance(thumbnails, StoredBytes):
        return thumbnails.sizes
    return np.array([len(picture or b"") for picture in thumbnails], np.int64)


def read_embeddings(path):
    """Read the table of embedded objects, by this system or the original: an ObjectTable.

    It has vectors; its facts also "made_from", a dict, None for the original's files. Thumbnails
    stay in the file, see `StoredBytes`; those of an older one are read.

    Raises
    ------
    FileNotFoundError, SettingError
        The file is missing; it is broken, or is no such table.
    """
    try:
        with _unpickled(path) as (content, file):
            try:
                return _object_table(content, file)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise broken(path, error) from error
    except ValueError as error:
        raise SettingError(str(error)) from error


def _object_table(content, file):
    columns = _columns(content)
    if _SIZES in content:
        columns["thumbnail"] = _stored_thumbnails(file, _whole(content[_SIZES]))
    _check(columns)
    known = {"image_level_index", *_OF_IMAGES.values(), *_OF_ROWS.values(), *_SEGMENTS, _SIZES}
    facts = {name: value for name, value in content.items() if name not in known}
    for name in ("made_from", "reduced_by"):
        if not isinstance(facts.get(name), dict | None):
            raise TypeError(f"its {name} must be a dict, got {facts[name]!r}")
    return ObjectTable(columns, {"made_from": None} | facts)


def _stored_thumbnails(file, sizes):
    """The column of thumbnails that follow what has been read of a file."""
    start = file.tell()
    left = os.fstat(file.fileno()).st_size - start
    if np.min(sizes, initial=0) < 0 or np.max(sizes, initial=0) > left or sizes.sum() > left:
        raise ValueError(f"its thumbnails do not fit into {left} bytes")
    return StoredBytes(OpenFile(file), start + np.cumsum(sizes) - sizes, sizes)


def write_objects(path, table, made_from):
    """Store the ObjectTable of one picture; see `write_table`."""
    columns = {
        name: values.tolist() if values.dtype == object else values
        for name, values in table.columns.items()
        if len(table)  # arrays without elements take long to read
    }
    write_table(path, {"columns": columns, "facts": table.facts}, made_from)


def read_objects(path):
    """Read the ObjectTable of one picture, and what it was made from: a dict.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing; it is broken, or is no such table.
    """
    content = read_pickle(path)
    try:
        columns = {
            name: values if isinstance(values, np.ndarray) else as_column(values)
            for name, values in content["columns"].items()
        }
        if columns and "segments" not in columns:  # an older file, of single segments
            columns["segments"] = as_column(columns["component_index"][:, None])
        facts, made_from = content["facts"], content["made_from"]
        if not isinstance(facts, dict) or not isinstance(made_from, dict):
            raise TypeError("its facts must be dicts")
        if columns:
            _check(columns)
        return ObjectTable(columns, facts) if columns else no_objects(facts), made_from
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise broken(path, error) from error


def write_judged(path, facts, made_from):
    """Store what is known of all segments of many pictures; see `write_table`.

    `facts` are those of `Judge.objects_of` by ImageName; those of a picture whose
    vectors are not all finite have the list "not_finite", numbers of segments.
    """
    content = {}
    for dataset in dict.fromkeys(name.dataset for name in facts):
        indices, those = zip(*_of_dataset(facts, dataset), strict=True)
        segments, left_out = (
            {key: [of[what][key] for of in those] for key in those[0][what]}
            for what in ("segments", "left_out")
        )
        content[dataset] = {
            "image_index": np.array(indices),
            "segment_counts": np.array([len(of) for of in next(iter(segments.values()))]),
            "segments": {key: np.concatenate(columns) for key, columns in segments.items()},
            "left_out": {key: np.array(counts) for key, counts in left_out.items()},
            "not_finite": {
                at: of["not_finite"] for at, of in enumerate(those) if of.get("not_finite")
            },
        }
    write_table(path, {"datasets": content}, made_from)


def _of_dataset(facts, dataset):
    return [(name.index, of) for name, of in facts.items() if name.dataset == dataset]


def read_judged(path):
    """Read what was given to `write_judged`: facts by ImageName, and what they were made from.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing; it is broken, or is no such table.
    """
    content, facts = read_pickle(path), {}
    try:
        for dataset, of in content["datasets"].items():
            ends = np.cumsum(of["segment_counts"])[:-1]
            segments = {key: np.split(column, ends) for key, column in of["segments"].items()}
            left_out = {key: counts.tolist() for key, counts in of["left_out"].items()}
            for at, index in enumerate(of["image_index"].tolist()):
                facts[ImageName(dataset, index)] = {
                    "segments": {key: columns[at] for key, columns in segments.items()},
                    "left_out": {key: counts[at] for key, counts in left_out.items()},
                    "not_finite": of["not_finite"].get(at, []),
                }
        return facts, content["made_from"]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise broken(path, error) from error


def no_objects(facts=None):
    """An ObjectTable without rows."""
    names = {"image_level_index", *_OF_IMAGES.values(), *_OF_ROWS.values()}
    names -= {"annotated", *MAPS}  # which come later
    return ObjectTable(_columns(dict.fromkeys(names, [])), facts or {})


def _columns(content):
    """The columns of an ObjectTable, from a file of any age."""
    images, rows = len(content["image_path"]), len(content["component_index"])
    of_row = _whole(content["image_level_index"])
    if np.min(of_row, initial=0) < 0:
        raise IndexError("its rows lead to pictures below 0")
    sizes = _whole(content.get("image_size", np.full((images, 2), -1)))
    columns = {
        "image_index": _whole(content["image_index"])[of_row],
        "image_size": sizes.reshape(images, 2)[of_row],
        "image_made_from": as_column(content.get("image_made_from", [""] * images))[of_row],
        "component_index": _whole(content["component_index"]),
        "true_id": _whole(content["gt"]),
        "predicted_id": _whole(content["pred"]),
        "box": _whole(content["box"]).reshape(rows, 4),
        "segment_size": _whole(content.get("segment_size", np.full(rows, -1))),
    }
    segments = _whole(content.get("segments", columns["component_index"]))
    counts = _whole(content.get("segment_counts", np.ones(rows)))
    ends = np.cumsum(counts)
    parts = zip((ends - counts).tolist(), ends.tolist(), strict=True)
    columns["segments"] = as_column([segments[start:stop] for start, stop in parts])
    for name in ("image_path", "dataset", "model_name"):
        columns[name] = as_column(content[name])[of_row]
    columns["image_predicted_iou"] = ious = as_column(content["iou_pred"])[of_row]
    iou = content.get("iou")
    if iou is None:
        pairs = zip(ious, columns["component_index"], strict=True)
        iou = [of_image[number - 1] for of_image, number in pairs]
    columns["predicted_iou"] = _decimal(iou)
    suspicion = content.get("suspicion", 1 - columns["predicted_iou"])
    columns["suspicion"] = _decimal(suspicion)
    columns["novelty"] = _decimal(content.get("novelty", np.full(rows, np.nan)))
    if "thumbnail" in content:
        columns["thumbnail"] = as_column(content["thumbnail"])
    if "annotated" in content:
        columns["annotated"] = np.asarray(content["annotated"])
    for name in VECTORS:
        if name in content:
            vectors = _decimal(content[name])
            columns[name] = vectors if rows else vectors.reshape(0, *vectors.shape[1:] or (0,))
    return columns


def _whole(values):
    """Whole numbers as int64; others are refused, as half a segment would lead to another one."""
    numbers = np.asarray(values)
    is_number = numbers.dtype.kind in "biuf" or not numbers.size
    with np.errstate(invalid="ignore"):  # infinite, or no number
        whole = numbers.astype(np.int64, copy=False) if is_number else None
    if not is_number or (whole != numbers).any():
        raise ValueError(f"it has {numbers.dtype} where whole numbers belong")
    return whole


def _decimal(values):
    numbers = np.asarray(values)
    if numbers.size and numbers.dtype.kind not in "biuf":
        raise ValueError(f"it has {numbers.dtype} where numbers belong")
    return numbers.astype(np.float32, copy=False)


def _check(columns):
    """Refuse columns that name files elsewhere, or lead out of their picture's arrays."""
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError("its columns have other lengths")
    for name in ("dataset", "model_name", "image_path", "image_made_from"):
        for text in set(columns[name]):
            if not isinstance(text, str) or "\0" in text:
                raise ValueError(f"{text!r} cannot be its {name}")
            # names of pictures need not be UTF-8; half of a surrogate stands for no byte
            text.encode(errors="surrogateescape" if name == "image_path" else "strict")
    for name in ("dataset", "model_name"):
        for text in set(columns[name]):
            plain_name(text)
    if any(np.min(columns[name], initial=0) < 0 for name in ("image_index", "box")):
        raise ValueError("it has indices or boxes below 0")
    counts, sizes = (
        np.array([len(values) for values in columns[name]], np.int64)
        for name in ("segments", "image_predicted_iou")
    )
    numbers = np.concatenate([np.zeros(0, np.int64), *columns["segments"]])
    is_elsewhere = (numbers < 1) | (numbers > np.repeat(sizes, counts))
    wrong = np.repeat(np.arange(len(counts)), counts)[is_elsewhere]
    for row in [*np.flatnonzero(counts == 0)[:1], *wrong[:1]]:
        numbers = list(columns["segments"][row])
        raise ValueError(f"segments {numbers} are not in a picture of {sizes[row]}")
    shapes = {name: columns[name].shape for name in VECTORS if name in columns}
    if any(len(shape) != 2 for shape in shapes.values()) or (
        len(columns["box"]) and shapes.get("plot_embeddings", (0, 2))[1] != 2
    ):
        raise ValueError(f"its vectors have the shapes {shapes}")
    thumbnails = columns.get("thumbnail", ())
    for picture in () if isinstance(thumbnails, StoredBytes) else thumbnails:
        if not isinstance(picture, bytes | None):
            raise TypeError(f"a thumbnail is a {type(picture).__name__}")


def as_column(values):
    """A column of Python's objects: text, bytes, arrays."""
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value
    return column


# overviews of datasets


def write_overview(path, classes, made_from):
    """Store in which images of a dataset each class occurs, as JSON; folders are made as needed.

    `classes` is a list of dict: `id`, `name` and `images`, ascending indices, of each class.
    """
    with whole_file(path) as part:
        checksum = zlib.crc32(as_json(classes).encode())
        content = {"classes": classes, "made_from": made_from, "crc32": checksum}
        part.write_text(as_json(content), encoding="utf-8")


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
        overview = json.loads(read_text(path))
        classes, source = overview["classes"], overview["made_from"]
        if not all({"id", "name", "images"} <= row.keys() for row in classes):
            raise ValueError("a class lacks its id, name or images")
        if overview.get("crc32") != zlib.crc32(as_json(classes).encode()):
            raise ValueError("its checksum is not that of its classes")
    except FileNotFoundError:
        raise SettingError(f"{path} is missing; {advice}") from None
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise SettingError(f"{path} is broken ({error}); {advice}") from error
    if source != as_stored(made_from):
        raise SettingError(f"{path} was made when the dataset had other images; {advice}")
    return classes
