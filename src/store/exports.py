"""Objects as files for other tools, the most suspicious first: COCO, Label Studio, CSV, Parquet."""

import csv
import datetime
import importlib
import json
import os
import re
import zipfile
from collections import defaultdict
from operator import itemgetter
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from src.errors import SettingError
from src.records import NO_LABEL
from src.store.files import whole_file

COLUMNS = {  # of CSV and Parquet, with their types in the latter
    "dataset": "string",
    "model": "string",
    "image_index": "int64",
    "image_path": "string",
    "file_name": "string",
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
_NOT_IN_LINE = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")  # nor of a line of it
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a cell begins with that is calculated
_SIDES = ("left", "upper", "right", "lower")
_ATTRIBUTES = (
    "predicted_class", "predicted_iou", "suspicion", "novelty", "dataset", "image_index",
    "component", "image_path", "true_class", "tag", "segments",
)  # fmt: skip
_LICENCE = dict(id=1, name="unknown", url="")  # of pictures
_RUN_BITS = 3, 4, 8, 16  # of the four kinds of runs in Label Studio's masks
ROWS_AT_ONCE = 4096  # in Parquet: at most 32 MB of vectors of 1920 values in memory


def check_files(**paths):
    """Refuse files that cannot be written, before the work that goes into them.

    `paths` are by name of the setting: `coco`, `csv`, `parquet`; None: not wanted. A SettingError
    says that a folder has that name or lets nothing be written into it, two have the same name, or
    a package is missing.
    """
    names = defaultdict(list)
    for name, path in paths.items():
        if path is not None:
            names[os.path.realpath(path)].append(f"`args.{name}`")
    for path, of_path in names.items():
        if len(of_path) > 1:
            raise SettingError(f"{' and '.join(of_path)} would both be {path}: choose another")
    for name, path in paths.items():
        if path is None:
            continue
        path = Path(path).absolute()
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "something else"
            raise SettingError(f"`args.{name}` must be the name of a file, {path} is {what}")
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

    Ids count from 1: those of images and annotations beginning with the most suspicious, those of
    categories by name. The category is the tag, or the predicted class where there is none. A
    `file_name` is relative to `root` of the `info`, the folder that all the pictures have in
    common. Boxes are [left, upper, width, height] in pixels: `bbox` that of the object,
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

    Returns
    -------
    content : dict
        What the file holds.

    Raises
    ------
    SettingError
        pycocotools is not installed.
    ValueError
        A component map has other segments than the table.
    """
    masks = _optional(*_PACKAGES["coco"])
    names_of_rows, by_image = table.image_names(), defaultdict(list)
    root, files = picture_names(table, rows)
    for rank, row in enumerate(_rows(table, rows), 1):
        by_image[names_of_rows[row]].append((rank, _record(table, row, names, tags, files)))
    images, annotations = {}, []  # a picture of two datasets is one image
    for of_image in by_image.values():  # whose component map is read once
        first = of_image[0][1]
        place = first["model"], first["dataset"], first["image_index"]
        # column by column, as COCO counts pixels
        numbers = np.asfortranarray(np.abs(components(*place)))
        image = dict(id=len(images) + 1, file_name=first["file_name"], license=_LICENCE["id"])
        height, width = numbers.shape
        image = images.setdefault(first["file_name"], dict(image, width=width, height=height))
        for rank, record in of_image:
            found = _annotation(masks, numbers, record)
            annotations.append(dict(id=rank, image_id=image["id"], **found))
    annotations.sort(key=itemgetter("id"))
    categories = sorted({annotation["category_id"] for annotation in annotations})
    id_of = {name: number for number, name in enumerate(categories, 1)}
    for annotation in annotations:
        annotation["category_id"] = id_of[annotation["category_id"]]
    content = dict(
        info=_info(root),
        licenses=[_LICENCE],
        images=list(images.values()),
        annotations=annotations,
        categories=[dict(id=key, name=name) for name, key in id_of.items()],
    )
    _write_json(path, content)
    return content


def picture_names(table, rows):
    """What the pictures of rows are called below the folder that they have in common.

    Returns
    -------
    root : str
        That folder, absolute.
    names : dict of str to str
        By `image_path`: the path from there, with / between folders; in no particular order.
    """
    paths = {
        path: os.path.normpath(Path(path).absolute()) for path in set(table["image_path"][rows])
    }
    root = os.path.commonpath(map(os.path.dirname, paths.values())) if paths else ""
    return root, {path: Path(at).relative_to(root).as_posix() for path, at in paths.items()}


def _info(root):
    now = datetime.datetime.now(datetime.timezone.utc)
    return dict(
        description="Objects that a segmentation network may not know, the most suspicious first",
        version="1.0",
        year=now.year,
        date_created=now.isoformat(timespec="seconds"),
        contributor="",
        url="",
        root=_as_utf8(root),
    )


def _write_json(path, content):
    with whole_file(path) as part:
        text = json.dumps(content, allow_nan=False, ensure_ascii=False)
        part.write_text(text, encoding="utf-8")


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
        category_id=record["tag"] or record["predicted_class"],  # until all of them are known
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
        files = picture_names(table, rows)[1]
        for row in _rows(table, rows):
            record = _record(table, row, names, tags, files)
            writer.writerow({name: _as_cell(name, value) for name, value in record.items()})


def _as_cell(name, value):
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    # a path still leads there
    return f"./{value}" if name in ("image_path", "file_name") else f"'{value}"


def write_groups(path, groups):
    """Write groups of objects as <path>.csv, a row each, and <path>.json, with their objects.

    `groups` are dicts of plain values, the same keys each: columns of the CSV file, but `members`,
    a list. Missing folders are made.
    """
    groups = [{name: _as_utf8(value) for name, value in group.items()} for group in groups]
    columns = [name for name in groups[0] if name != "members"]
    with whole_file(f"{path}.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows([_as_cell(name, group[name]) for name in columns] for group in groups)
    for group in groups:
        group["members"] = [
            {name: _as_utf8(value) for name, value in entry.items()} for entry in group["members"]
        ]
    with whole_file(f"{path}.json") as part:
        lines = [json.dumps(group, allow_nan=False, ensure_ascii=False) for group in groups]
        part.write_text('{"groups": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


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
    schema, files = _schema(arrow, table), picture_names(table, rows)[1]
    rows = _rows(table, rows)
    with whole_file(path) as part, parquet.ParquetWriter(part, schema) as writer:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            records = [
                _full_record(table, row, names, tags, files)
                for row in rows[start : start + ROWS_AT_ONCE]
            ]
            writer.write_table(arrow.Table.from_pylist(records, schema))


def write_label_studio(path, config_path, coco):
    """Write objects as tasks of Label Studio, a picture each, and how it is to show them.

    The masks are predictions, as brush strokes in its own run lengths; labels are the categories.
    Pictures are looked for below the folder that it serves files from, which must be the `root`
    in the `info` of the COCO content.

    Parameters
    ----------
    path : path
        JSON file, to import.
    config_path : path
        XML file, the "labeling interface".
    coco : dict
        From `write_coco`.
    """
    masks = _optional(*_PACKAGES["coco"])
    labels = {category["id"]: category["name"] for category in coco["categories"]}
    by_image = defaultdict(list)
    for annotation in coco["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    tasks = []
    for image in coco["images"]:
        size = dict(original_width=image["width"], original_height=image["height"])
        result = [
            _stroke(annotation, masks.decode(annotation["segmentation"]), labels) | size
            for annotation in by_image[image["id"]]
        ]
        first = by_image[image["id"]][0]["attributes"]
        prediction = dict(model_version="suspicion", score=first["suspicion"], result=result)
        url = f"/data/local-files/?d={quote(image['file_name'])}"
        tasks.append(dict(data=dict(image=url), predictions=[prediction]))
    _write_json(path, tasks)
    with whole_file(config_path) as part:
        part.write_text(_labelling(labels.values()), encoding="utf-8")


def _stroke(annotation, mask, labels):
    """A region of Label Studio."""
    label = labels[annotation["category_id"]]
    return dict(
        id=str(annotation["id"]),
        type="brushlabels",
        from_name="category",
        to_name="image",
        image_rotation=0,
        value=dict(format="rle", rle=brush_runs(mask), brushlabels=[label]),
    )


def _labelling(labels):
    known = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <BrushLabels name="category" toName="image">\n{known}  </BrushLabels>\n</View>\n'
    )


def brush_runs(mask):
    """A mask in the run lengths of Label Studio, those of @thi.ng/rle-pack.

    What is packed is a picture of four bytes a pixel, 255 inside the mask and 0 outside. In bits,
    the highest first: how many values (32), the bits of a value less 1 (5), those of the lengths
    of the four kinds of runs less 1 (4 each); then for every run 1, its kind (2), its length less 1
    and its value.

    Parameters
    ----------
    mask : ndarray of shape (H, W)
        Not 0 inside.

    Returns
    -------
    packed : list of int
        Bytes.
    """
    values = np.ravel(mask) != 0
    ends = np.flatnonzero(np.diff(values, append=~values[-1:])) + 1
    bits = [f"{4 * values.size:032b}{8 - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    for end, length in zip(ends.tolist(), np.diff(ends, prepend=0).tolist(), strict=True):
        bits += _run(4 * length, "1" * 8 if values[end - 1] else "0" * 8)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _run(length, value):
    """The bits of one value that comes so many times; long runs are cut."""
    longest = 2 ** _RUN_BITS[-1]
    while length > 0:
        part = min(length, longest)
        kind = next(kind for kind, size in enumerate(_RUN_BITS) if part <= 2**size)
        yield f"1{kind:02b}{part - 1:0{_RUN_BITS[kind]}b}{value}"
        length -= part


def write_image_list(path, table, rows):
    """Write what pictures the rows are of, a `file_name` a line, each once.

    Signs that would break a line are written as in `printf %b`.
    """
    files = picture_names(table, rows)[1]
    _write_image_list(path, [files[table["image_path"][row]] for row in _rows(table, rows)])


def _write_image_list(path, names):
    with whole_file(path) as part:
        lines = (f"{_as_utf8(name, _NOT_IN_LINE)}\n" for name in dict.fromkeys(names))
        part.write_text("".join(lines), encoding="utf-8")


def write_pictures(folder, table, rows, **more):
    """Write a list of pictures to label: `pictures.csv`, and the list of a task of CVAT.

    That is `manifest.jsonl` and, for the command line, `images.txt` as of `write_image_list`.

    Parameters
    ----------
    folder : path
        Made as needed.
    table : ObjectTable
    rows : sequence of int
        An object of each picture, in the order of the list.
    more : sequences of str or number
        Further columns of the CSV, by name.
    """
    files = picture_names(table, rows)[1]
    names = [_as_utf8(files[path]) for path in table["image_path"][rows]]
    columns = dict(
        dataset=table["dataset"][rows],
        image_index=table["image_index"][rows].tolist(),
        image_path=map(_as_utf8, table["image_path"][rows]),
        file_name=names,
        component=table["component_index"][rows].tolist(),
        suspicion=map(_finite, table["suspicion"][rows]),
        **more,
    )
    with (
        whole_file(Path(folder, "pictures.csv")) as part,
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        for values in zip(*columns.values(), strict=True):
            writer.writerow(map(_as_cell, columns, values))
    _write_image_list(
        Path(folder, "images.txt"), [files[path] for path in table["image_path"][rows]]
    )
    _write_manifest(Path(folder, "manifest.jsonl"), names, table["image_size"][rows].tolist())


def _write_manifest(path, names, sizes):
    """What CVAT calls a dataset manifest: a line of JSON a picture, below two that say so."""
    lines = [dict(version="1.1"), dict(type="images")]
    for name, (height, width) in dict(zip(names, sizes, strict=True)).items():
        suffix = Path(name).suffix
        size = dict(width=width, height=height) if height > 0 else {}
        lines.append(dict(name=name.removesuffix(suffix), extension=suffix) | size)
    with whole_file(path) as part:
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        part.write_text(text, encoding="utf-8")


def link_pictures(folder, table, rows):
    """Lay the pictures of rows below a folder by their `file_name`, see `link`.

    Gives the number of those that are gone, or cannot lie there.
    """
    failed = 0
    for path, name in picture_names(table, rows)[1].items():
        try:
            link(Path(path), Path(folder, _as_utf8(name)))
        except OSError:
            failed += 1
    return failed


def link(path, name):
    """Give a file a further name: a hard link, as supervision asks for, or where none can be, soft.

    Missing folders are made; an OSError says that the file is not there, or the name cannot be.
    """
    path = path.resolve(strict=True)
    name.parent.mkdir(parents=True, exist_ok=True)
    try:
        name.hardlink_to(path)
    except OSError:  # another disk, or another's file
        name.symlink_to(path)


def name_for_datumaro(folder):
    """Give `labels.json` and `data` of a folder the names by which Datumaro finds COCO."""
    folder = Path(folder)
    link(folder / "labels.json", folder / "annotations" / "instances_default.json")
    (folder / "images").mkdir()
    (folder / "images" / "default").symlink_to(Path("..", "data"), target_is_directory=True)


def write_zip(path, folder):
    """Write a folder as a ZIP file, with what links in it lead to."""
    folder = Path(folder)
    with whole_file(path) as part, zipfile.ZipFile(part, "w", strict_timestamps=False) as file:
        for at in sorted(folder.rglob("*")):
            if at.is_file():
                file.write(at, at.relative_to(folder.parent), zipfile.ZIP_DEFLATED)


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


def _full_record(table, row, names, tags, files):
    """What Parquet holds of a segment."""
    record = _record(table, row, names, tags, files)
    record["embedding"] = table["embeddings"][row]
    if "plot_embeddings" in table:
        record["x"], record["y"] = map(_finite, table["plot_embeddings"][row])
    if "thumbnail" in table:
        record["image"] = dict(bytes=table["thumbnail"][row], path=f"{row}.jpg")
    return record


def _record(table, row, names, tags, files):
    """What every format says of a segment, by the names in `COLUMNS`; None: unknown."""
    predicted, true = names
    dataset = table["dataset"][row]
    true_id, size = int(table["true_id"][row]), int(table["segment_size"][row])
    record = dict(
        dataset=dataset,
        model=table["model_name"][row],
        image_index=int(table["image_index"][row]),
        image_path=table["image_path"][row],
        file_name=files[table["image_path"][row]],
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


def _as_utf8(value, foreign=_LONE):
    """Text that UTF-8 can hold: of names of files that it cannot, those bytes as \\xff, \\ as \\\\.

    A shell's `printf %b` gives the name of the file again.
    """
    if not isinstance(value, str) or not foreign.search(value):
        return value
    return foreign.sub(_escape, value.replace("\\", r"\\"))


def _escape(found):
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python has the bytes 80 to ff of a name as these
        return rf"\x{code - 0xDC00:02x}"
    return rf"\x{code:02x}" if code < 0x80 else rf"\u{code:04x}"


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
