"""How fast meta models learn: 200,000 segments of 3,000 images read and stacked, and an epoch.

The segments are random numbers in the files of stage 2, for 19 classes.
"""

import tempfile
from functools import partial

import numpy as np
from measuring import timed

from configuration import meta_models
from src.MetaSeg import meta_training, segment_tables
from src.store import tables
from src.store.paths import Results

IMAGES, SEGMENTS = 3000, 67  # of each image


def store(results):
    """Write the metrics of every image."""
    names = (*segment_tables.original_names(19), "iou", "iou0")
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        metrics = dict(zip(names, rng.random((len(names), SEGMENTS)), strict=True))
        metrics["class"] = rng.integers(0, 19, SEGMENTS)
        tables.write_table(results.metrics(index), metrics, {})


def read(results):
    """One table of them all."""
    return segment_tables.segment_table(
        (index, tables.read_table(results.metrics(index))) for index in range(IMAGES)
    )


def main():
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(folder, "none", "noise")
        store(results)
        table, seconds = timed(read, results)
    rows = len(table.true_iou)
    print(f"{rows} segments of {IMAGES} images read and stacked   {seconds:6.2f} s")
    fit = partial(meta_training.fit, seed=0)
    _, seconds = timed(fit, meta_models["meta_nn"], table, table, epochs=1)
    print(f"the network, one epoch and its validation       {seconds:6.2f} s")
    for kind in ("linear", "gradient_boosting"):
        model, seconds = timed(fit, meta_models[kind], table)
        print(f"{kind:18} fitted in {seconds:6.2f} s, ", end="")
        print(f"predicts in {timed(model.predict_table, table)[1]:6.2f} s")


if __name__ == "__main__":
    main()
