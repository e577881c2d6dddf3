"""Class tables of the datasets, from those written by hand in tests/data."""

import csv
import json
from pathlib import Path

from PIL import ImageColor

TABLES = Path(__file__).resolve().parents[1] / "data"
VOID = 255
CATEGORIES = ("void", "flat", "construction", "object", "nature", "sky", "human", "vehicle")
SELECTED = {  # the classes whose segments stage 4 looks at, from Cityscapes
    *("wall", "fence", "traffic light", "traffic sign", "person", "rider"),
    *("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}


def rows_of(table):
    """The rows of a table of classes, numbers as such and colours as (red, green, blue)."""
    with (TABLES / f"{table}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows):
        row["id"] = int(row.get("id", place))
        row["rgb"] = ImageColor.getrgb(row.pop("colour"))
    return rows


def cityscapes():
    """Rows of Cityscapes: id, train_id, name, category, rgb."""
    return [{**row, "train_id": int(row["train_id"])} for row in rows_of("cityscapes")]


def a2d2_kind(name):
    """What Car 1 to Car 4 are; the body of a traffic signal is one, too."""
    return "Traffic signal" if name == "Signal corpus" else name.rstrip(" 1234")


def mappings():
    """Ids to ids: {from_to_to: {id: id}}."""
    known = {row["name"]: row for row in cityscapes()} | {"-": {"id": VOID, "category": "void"}}
    a2d2 = {row["id"]: row for row in rows_of("a2d2")}
    kinds = list(dict.fromkeys(a2d2_kind(row["name"]) for row in a2d2.values()))
    as_cityscapes = {key: known[row["cityscapes"]] for key, row in a2d2.items()}
    return {
        "a2d2_id_to_cityscapes_id": {key: row["id"] for key, row in as_cityscapes.items()},
        "a2d2_id_to_cityscapes_category_id": {
            key: CATEGORIES.index(row["category"]) for key, row in as_cityscapes.items()
        },
        "a2d2_id_to_train_id": {
            key: kinds.index(a2d2_kind(row["name"])) for key, row in a2d2.items()
        },
        "cityscapes_id_to_train_id": {
            **{row["id"]: row["train_id"] for row in cityscapes()},
            VOID: VOID,
        },
    }


def write(folder):
    """Write a JSON file a dataset, and the mappings."""
    trained = [row for row in cityscapes() if row["train_id"] != VOID]
    void = {"id": VOID, "name": "no label", "rgb": (0, 0, 0)}
    tables = {
        "cityscapes": {
            "predicted_train_id_to_name": {row["train_id"]: row["name"] for row in trained},
            "predicted_train_id_to_rgb": {row["train_id"]: row["rgb"] for row in trained},
            "predicted_class_selection": [
                row["train_id"] for row in trained if row["name"] in SELECTED
            ],
            # of the pictures of ImageNet, 0..1
            "normalisation": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        },
        "a2d2": {"classes": [*rows_of("a2d2"), void]},
        "lost_and_found": {"classes": [*rows_of("lost_and_found"), void]},
        "mappings": mappings(),
    }
    for name, content in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
