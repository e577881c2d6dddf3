"""How fast meta models learn: 200,000 segments of 3,000 images read and stacked, and an epoch.

The segments are random numbers in the files of stage 2, for 19 classes.
"""

import tempfile
import time

import numpy as np

from configuration import meta_models
from src.MetaSeg import meta_training, segment_tables
from src.store import tables
from src.store.paths import Results

IMAGES, SEGMENTS = 3000, 67  # of each image
EPOCHS = 3
PLACE = {"model_name": "none", "dataset": "noise"}


def store(io_path):
    """Write the metrics of every image."""
    names = (*segment_tables.original_names(19), "iou", "iou0")
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        metrics = dict(zip(names, rng.random((len(names), SEGMENTS)), strict=True))
        metrics["class"] = rng.integers(0, 19, SEGMENTS)
        tables.write_table(Results(io_path, *PLACE.values()).metrics(index), metrics, {})


def read(io_path):
    """One table of them all."""
    return segment_tables.segment_table(
        (index, tables.read_table(Results(io_path, *PLACE.values()).metrics(index)))
        for index in range(IMAGES)
    )


def timed(function, *args, **kwargs):
    """Result and seconds."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def main():
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        store(folder)
        table, seconds = timed(read, folder)
    rows = len(table.true_iou)
    print(f"{rows} segments of {IMAGES} images read and stacked   {seconds:6.2f} s")
    entry = meta_models["meta_nn"]
    starts = [time.perf_counter()]
    meta_training.fit(
        entry, table, table, seed=0, epochs=EPOCHS,
        report=lambda *_: starts.append(time.perf_counter()),
    )  # fmt: skip
    print(f"an epoch of the network, its validation included {np.diff(starts).min():10.2f} s")
    for kind in ("linear", "gradient_boosting"):
        model, seconds = timed(meta_training.fit, meta_models[kind], table, seed=0)
        print(f"{kind:18} fitted in {seconds:6.2f} s, ", end="")
        print(f"predicts in {timed(model.predict_table, table)[1]:6.2f} s")


if __name__ == "__main__":
    main()
