"""What several test modules make up."""

import numpy as np

from src.MetaSeg.stage import store_segments
from src.model_card import ModelCard
from src.records import NO_LABEL, ObjectTable
from src.store import provenance
from src.store.arrays import write_prediction
from src.store.tables import as_column

TEXTS = "dataset", "model_name", "image_path", "image_made_from"
OF_OBJECTS = (
    *TEXTS,
    "image_predicted_iou",
    "thumbnail",
    "segments",
)  # columns that hold Python's objects


def object_table(count, facts=None, **columns):
    """An ObjectTable of `count` rows; further columns have a value a row, or one text for all."""
    made_up = {
        "dataset": "streets",
        "model_name": "net",
        "image_path": "a.png",
        "image_made_from": "",
        "image_index": np.zeros(count, np.int64),
        "image_size": np.full((count, 2), 64),
        "image_predicted_iou": [np.full(count, 0.25, np.float32)] * count,
        "component_index": np.arange(1, count + 1),
        "box": np.tile([0, 0, 9, 9], (count, 1)),
        "true_id": np.zeros(count, np.int64),
        "predicted_id": np.zeros(count, np.int64),
        "predicted_iou": np.full(count, 0.25, np.float32),
        "segment_size": np.full(count, 81),
    }
    table = {}
    for name, values in (made_up | columns).items():
        values = [values] * count if isinstance(values, str) else values
        table[name] = as_column(values) if name in OF_OBJECTS else np.asarray(values)
    table.setdefault("segments", as_column(table["component_index"][:, None]))
    table.setdefault("suspicion", 1 - table["predicted_iou"])
    return ObjectTable(table, {"made_from": None} | (facts or {}))


def same_ids(count):
    """The ids (256,) that predicted classes have where true ones up to `count` are the same."""
    ids = np.arange(256, dtype=np.uint8)
    ids[count:] = NO_LABEL
    return ids


def store_image(results, index, prediction, predicted_ids, source=None):
    """Write a Prediction of an image, made from `source`, and its segments: stages 1 and 2."""
    source = source or {}
    write_prediction(results.prediction(index), prediction, source, "float32")
    store_segments(results, index, prediction, provenance.of_segments(source, predicted_ids))


def model_card(classes=2, mean=(0, 0, 0), std=(1, 1, 1), **others):
    """A ModelCard of so many classes, "class 0", ..."""
    named = {k: (f"class {k}", (k, k, k)) for k in range(classes)}
    facts = dict(size=None, multiple_of=1, trained_on=None, origin="")
    return ModelCard(named, classes, mean, std, **facts | others)
