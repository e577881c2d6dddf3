"""What stage 4 takes beside its network: 100,000 objects of 20,000 pictures, and one picture more.

One small picture, its prediction and its segments stand under all names. The vectors are random.
A number of pictures may follow on the command line.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import timed, with_peak
from PIL import Image

from src.embedding.stage import Embedding, embed_dataset
from src.embedding.suspects import Judge, Rule
from src.embedding.table import collect
from src.embedding.vectors import Embedder
from src.MetaSeg.stage import measure_dataset
from src.records import ImageName, Prediction
from src.run.runner import Runner
from src.store import arrays, tables
from src.store.paths import Results

OBJECTS = 5  # in each picture
FEATURES = 1920  # as densenet201 gives them
SIZE, CLASSES = 64, 19
LOG = logging.getLogger("benchmark")
LOG.setLevel(logging.ERROR)
EVERY = Rule("predicted_iou", 1, None, None, (1, 1))  # segment is suspicious


class NoModel:
    """A meta model that trusts no segment."""

    def predict(self, metrics):
        return np.zeros(len(metrics["S"]), np.float32)


class NoNetwork(Embedder):
    """Random vectors."""

    network = device = None

    def cut(self, picture, objects, places):
        return len(objects)

    def embed(self, cut):
        random = np.random.default_rng(0)
        for key, count in cut:
            yield key, random.random((count, FEATURES), np.float32)


def measure_picture(results):
    """Predict and measure picture 0: as many bands as objects."""
    picture = Path(results.io_path, "noise.png")
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(noise).save(picture)
    ids = np.repeat(np.arange(SIZE, dtype=np.uint8) * OBJECTS // SIZE, SIZE).reshape(SIZE, SIZE)
    prediction = Prediction(np.eye(CLASSES, dtype=np.float32)[ids], ids, ids, str(picture))
    arrays.write_prediction(results.prediction(0), prediction, {}, "compact")
    measure_dataset(Runner(LOG), results, np.arange(256, dtype=np.uint8), heatmaps={})


def link(results, indices):
    """Give the files of picture 0 further names."""
    for path_of in results.prediction, results.metrics, results.components:
        for index in indices:
            os.link(path_of(0), path_of(index))


def store_vectors(embedding, count):
    """Write the vectors of picture 0 as those of the others."""
    table, made_from = tables.read_objects(embedding.file_of(ImageName("noise", 0)))
    for index in range(1, count):
        other = table.with_columns(image_index=np.full(OBJECTS, index))
        embedding.store(ImageName("noise", index), (other, made_from))


def main(count=20_000):
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(folder, "none", "noise")
        measure_picture(results)
        judge = Judge(folder, "none", NoModel(), EVERY, (1, 1), {"noise": None}, {})
        embedding = Embedding(
            judge, NoNetwork(), {"net": "none", "crop_size": None}, Path(folder),
            results.embeddings((1, 1), "none"),
        )  # fmt: skip
        run = Runner(LOG)
        embed_dataset(run, embedding)
        link(results, range(1, count))
        store_vectors(embedding, count)
        embed_dataset(run, embedding)
        measure("a second run", embed_dataset, run, embedding)
        link(results, [count])
        measure("one picture more", embed_dataset, run, embedding)
        names = judge.measured_images()
        embedding.path.unlink()
        measure("the table collected", collect, LOG, embedding, names, names)


def measure(what, function, *args):
    """Print a line of the table."""
    (_, seconds), peak = with_peak(timed, function, *args)
    print(f"{what:25}{seconds:8.1f} s, {peak / 1e6:6.0f} MB", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
