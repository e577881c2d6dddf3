"""Objects as files for other tools: COCO JSON, CSV and Parquet; the most suspicious first."""

import csv
import importlib
import json
import os
import re
from collections import defaultdict
from operator import itemgetter
from pathlib import Path

import numpy as np

from src.errors import SettingError
from src.records import NO_LABEL
from src.store.files import whole_file

COLUMNS = {  # of CSV and Parquet, with their types in the latter
    "dataset": "string",
    "model": "string",
    "image_index": "int64",
    "image_path": "string",
    "component": "int64",
    "predicted_id": "int64",
    "predicted_class": "string",
    "true_id": "int64",
    "true_class": "string",
    "predicted_iou": "float32",
    "suspicion": "float32",
    "novelty": "float32",
    "segment_size": "int64",
    "crop_left": "int64",
    "crop_upper": "int64",
    "crop_right": "int64",
    "crop_lower": "int64",
    "tag": "string",
}
_PACKAGES = {"coco": ("pycocotools.mask", "COCO"), "parquet": ("pyarrow.parquet", "Parquet")}
_LONE = re.compile("[\ud800-\udfff]")  # what is no text of UTF-8
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a cell begins with that is calculated
_SIDES = ("left", "upper", "right", "lower")
_ATTRIBUTES = (
    "predicted_class", "predicted_iou", "suspicion", "novelty", "dataset", "image_index",
    "component", "true_class", "tag", "segments",
)  # fmt: skip
ROWS_AT_ONCE = 4096  # in Parquet: at most 32 MB of vectors of 1920 values in memory


def check_files(**paths):
    """Refuse files that cannot be written, before the work that goes into them.

    `paths` are by name of the setting: `coco`, `csv`, `parquet`; None: not wanted. A SettingError
    says that a folder has that name or lets nothing be written into it, or a package is missing.
    """
    for name, path in paths.items():
        if path is None:
            continue
        path = Path(path).absolute()
        if path.is_dir():
            raise SettingError(f"`args.{name}` must be the name of a file, {path} is a folder")
        folder = next(folder for folder in path.parents if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise SettingError(
                f"`args.{name}` {path} cannot be written: {folder} is no folder that you may write "
                "to; choose another"
            )
        if name in _PACKAGES:
            _optional(*_PACKAGES[name])


def write_coco(path, table, rows, names, tags=None, *, components):
    """Write objects as a COCO file (https://cocodataset.org/#format-data), masks included.

    Image and annotation ids count from 1, beginning with the most suspicious. A `category_id` is a
    predicted id. Boxes are [left, upper, width, height] in pixels: `bbox` that of the object,
    `crop_box` among the attributes that of its crop; the mask is that of all its `segments`. What
    is unknown is null.

    Parameters
    ----------
    path : path
        Folders are made as needed.
    table : ObjectTable
    rows : sequence of int
        Rows of the segments to write, in any order; may be empty.
    names : tuple of (dict, dict)
        The predicted classes, and the true ones of each dataset by its name: id -> (name, colour),
        as `class_ids.joined_classes` gives them. An id that they lack is called "class <id>".
    tags : dict of int to str, optional
        Tag by row, of those that have one.
    components : function of (model, dataset, image index) -> ndarray of shape (H, W), int32
        Component map, +k inside segment k and -k on its boundary; called once an image.

    Raises
    ------
    SettingError
        pycocotools is not installed.
    ValueError
        A component map has other segments than the table.
    """
    masks = _optional(*_PACKAGES["coco"])
    names_of_rows, by_image = table.image_names(), defaultdict(list)
    for rank, row in enumerate(_rows(table, rows), 1):
        by_image[names_of_rows[row]].append((rank, row))
    images, annotations = [], []
    for of_image in by_image.values():  # whose component map is read once
        at = of_image[0][1]
        place = table["model_name"][at], table["dataset"][at], int(table["image_index"][at])
        # column by column, as COCO counts pixels
        numbers = np.asfortranarray(np.abs(components(*place)))
        height, width = numbers.shape
        image = dict(id=len(images) + 1, file_name=_as_utf8(table["image_path"][at]))
        images.append(dict(image, width=width, height=height))
        for rank, row in of_image:
            found = _annotation(masks, numbers, _record(table, row, names, tags))
            annotations.append(dict(id=rank, image_id=image["id"], **found))
    annotations.sort(key=itemgetter("id"))
    classes = names[0].keys() | {annotation["category_id"] for annotation in annotations}
    categories = [dict(id=key, name=_name(names[0], key)) for key in sorted(map(int, classes))]
    content = dict(images=images, annotations=annotations, categories=categories)
    with whole_file(path) as part:
        part.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def _annotation(masks, numbers, record):
    """What COCO says of an object, from the segment numbers (H, W) of its image."""
    mask = np.asfortranarray(np.isin(numbers, record["segments"]))
    encoded = masks.encode(mask.view(np.uint8))
    area, expected = int(masks.area(encoded)), record["segment_size"]
    if area == 0 or expected not in (None, area):
        raise ValueError(
            f"segment {record['component']} of image {record['image_index']} of "
            f"{record['dataset']!r} has {area} pixels now, and had {expected or 'some'} when it "
            "was embedded; run compute_embeddings.py again"
        )
    left, upper, right, lower = (record[f"crop_{side}"] for side in _SIDES)
    return dict(
        category_id=record["predicted_id"],
        bbox=masks.toBbox(encoded).tolist(),
        area=area,
        segmentation=dict(size=list(numbers.shape), counts=encoded["counts"].decode("ascii")),
        iscrowd=0,
        attributes=dict(
            {key: record[key] for key in _ATTRIBUTES},
            crop_box=[left, upper, right - left, lower - upper],
        ),
    )


def write_csv(path, table, rows, names, tags=None):
    """Write objects as CSV in UTF-8, a row each; arguments as for `write_coco`.

    Texts that a spreadsheet would take for a formula, such as "=1+1" or "-a", have a ' before them,
    paths ./, with which they still lead to the same file.
    `segments` is a list such as [7, 9], of which `component` is the largest. The crop's box is in
    pixels, right and lower exclusive; `segment_size` is in pixels. What is unknown is empty.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "segments"])
        writer.writeheader()
        for row in _rows(table, rows):
            record = _record(table, row, names, tags)
            writer.writerow({name: _as_cell(name, value) for name, value in record.items()})


def _as_cell(name, value):
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    return f"./{value}" if name == "image_path" else f"'{value}"  # a path still leads there


def write_parquet(path, table, rows, names, tags=None):
    """Write objects as Parquet, a row each; arguments as for `write_coco`.

    The columns of `write_csv`, with null for what is unknown; `embedding` (list of float32); `x`
    and `y`, where the table has a map; and where it has thumbnails `image`, their bytes (JPEG) and
    path, as Hugging Face's datasets and the viewers that read those have it.

    Raises
    ------
    SettingError
        pyarrow is not installed.
    """
    arrow = _optional("pyarrow", "Parquet")
    parquet = _optional(*_PACKAGES["parquet"])
    schema = _schema(arrow, table)
    rows = _rows(table, rows)
    with whole_file(path) as part, parquet.ParquetWriter(part, schema) as writer:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            records = [
                _full_record(table, row, names, tags) for row in rows[start : start + ROWS_AT_ONCE]
            ]
            writer.write_table(arrow.Table.from_pylist(records, schema))


def _schema(arrow, table):
    fields = [*COLUMNS.items(), ("segments", arrow.list_(arrow.int64()))]
    fields += [("embedding", arrow.list_(arrow.float32()))]
    metadata = {}
    if "plot_embeddings" in table:
        fields += [("x", "float32"), ("y", "float32")]
    if "thumbnail" in table:
        fields += [("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))]
        info = {"info": {"features": {"image": {"_type": "Image"}}}}
        metadata = {"huggingface": json.dumps(info)}
    return arrow.schema(fields, metadata)


def _full_record(table, row, names, tags):
    """What Parquet holds of a segment."""
    record = _record(table, row, names, tags)
    record["embedding"] = table["embeddings"][row]
    if "plot_embeddings" in table:
        record["x"], record["y"] = map(_finite, table["plot_embeddings"][row])
    if "thumbnail" in table:
        record["image"] = dict(bytes=table["thumbnail"][row], path=f"{row}.jpg")
    return record


def _record(table, row, names, tags):
    """What every format says of a segment, by the names in `COLUMNS`; None: unknown."""
    predicted, true = names
    dataset = table["dataset"][row]
    true_id, size = int(table["true_id"][row]), int(table["segment_size"][row])
    record = dict(
        dataset=dataset,
        model=table["model_name"][row],
        image_index=int(table["image_index"][row]),
        image_path=table["image_path"][row],
        component=int(table["component_index"][row]),
        segments=table["segments"][row].tolist(),
        predicted_id=int(table["predicted_id"][row]),
        predicted_class=_name(predicted, int(table["predicted_id"][row])),
        true_id=None if true_id == NO_LABEL else true_id,
        true_class=None if true_id == NO_LABEL else _name(true.get(dataset, {}), true_id),
        predicted_iou=_finite(table["predicted_iou"][row]),
        suspicion=_finite(table["suspicion"][row]),
        novelty=_finite(table["novelty"][row]) if "novelty" in table else None,
        segment_size=None if size < 0 else size,
        tag=(tags or {}).get(row),
    )
    record = {name: _as_utf8(value) for name, value in record.items()}
    sides = zip(_SIDES, table["box"][row].tolist(), strict=True)
    return record | {f"crop_{side}": value for side, value in sides}


def _as_utf8(value):
    """Text that UTF-8 can hold: of names of files that it cannot, those bytes as \\xff, \\ as \\\\.

    A shell's `printf %b` gives the name of the file again.
    """
    if not isinstance(value, str) or not _LONE.search(value):
        return value
    return _LONE.sub(_escape, value.replace("\\", r"\\"))


def _escape(found):
    code = ord(found[0])  # Python has the bytes 80 to ff of a name as dc80 to dcff
    return rf"\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else rf"\u{code:04x}"


def _rows(table, rows):
    return table.by_suspicion(rows).tolist()


def _name(mapping, key):
    return _as_utf8(mapping[key][0]) if key in mapping else f"class {key}"


def _finite(value):
    return float(value) if np.isfinite(value) else None


def _optional(module, what):
    """A module that only this kind of file needs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SettingError(
            f"writing {what} needs {module.partition('.')[0]} ({error}); install it in the "
            "repository with: pip install .[export]"
        ) from error
