"""How much the whole of stage 2 takes beside its kernel: reading, measuring, writing.

One prediction of 1024 x 2048 pixels and 19 classes stands under many names, so it comes from the
memory of the system and not from the disk.
"""

import logging
import os
import tempfile
from functools import partial

import numpy as np
from measuring import F0, make_image, median_ms

from src.MetaSeg.metrics import compute_metrics_components
from src.MetaSeg.stage import measure_dataset
from src.records import Prediction
from src.run.runner import Runner
from src.store import arrays
from src.store.paths import Results

IMAGES = 20
MB = 1e6
FORMS = "float32", "compact"


def store(results, field, ground_truth, form):
    """Write the prediction once and link it to the other names."""
    paths = [results.prediction(index) for index in range(IMAGES)]
    prediction = field.argmax(-1).astype(np.uint8)
    stored = Prediction(field, prediction, ground_truth, "noise.png")
    arrays.write_prediction(paths[0], stored, {}, form)
    for path in paths[1:]:
        os.link(paths[0], path)
    return paths[0]


def run_stage(results, num_cores):
    """Images per second of stage 2 over all images, none of which is done."""
    run = Runner(logging.getLogger(), num_cores, overwrite=True)
    tally = measure_dataset(run, results, np.arange(256, dtype=np.uint8), heatmaps={})
    if tally.done != IMAGES:
        raise RuntimeError(f"{tally.done} of {IMAGES} images were measured")
    return tally.done / tally.seconds


def main():
    """Print a table for each form of the probabilities."""
    field, ground_truth = make_image(**F0)
    for form in FORMS:
        measure(field, ground_truth, form)


def measure(field, ground_truth, form):
    """Print how long an image takes."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(folder, "none", "noise")
        path = store(results, field, ground_truth, form)
        kernel, reading = median_ms(
            partial(compute_metrics_components, field, ground_truth),
            partial(arrays.read_prediction, path, as_stored=True),
        )
        speeds = {cores: run_stage(results, cores) for cores in (1, 2)}
        components = results.components(0)
        print(f"\n{form}, {path.stat().st_size / MB:.0f} MB")
        print(f"kernel alone           {kernel:8.0f} ms an image")
        print(f"reading alone          {reading:8.0f} ms an image")
        for cores, speed in speeds.items():
            print(
                f"stage, {cores} process(es)   {1000 / speed:8.0f} ms an image, {speed:.1f} images "
                f"per second, {1000 / speed / kernel:.2f} times the kernel"
            )
        print(f"component map          {components.stat().st_size / 1000:8.0f} kB")


if __name__ == "__main__":
    main()
