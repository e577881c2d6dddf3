"""What a run takes that finds all done: stages 1, 2 and 4 of 20,000 small pictures.

Each has files of its own. The first such run reads them all to their end and notes what it found;
the next ones look at sizes and times only, which `args.verify=True` does not. A number of pictures
may follow on the command line.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from measuring import timed
from PIL import Image
from stage4 import CLASSES, EVERY, LOG, OBJECTS, SIZE, NoModel, NoNetwork

from configuration import DatasetConfig
from src.embedding.stage import Embedding, embed_dataset
from src.embedding.suspects import Judge
from src.MetaSeg.stage import measure_dataset
from src.model_card import ModelCard
from src.records import Prediction
from src.run.gone import keep_up
from src.run.runner import Runner
from src.segmentation.inference import Computing
from src.segmentation.stage import Predictor, predict_dataset
from src.store.paths import Results

IDS = np.arange(256, dtype=np.uint8)


class NoSegmentation(Predictor):
    """As many bands as objects in each picture."""

    outputs = None

    def predict(self, indices):
        ids = np.repeat(np.arange(SIZE, dtype=np.uint8) * OBJECTS // SIZE, SIZE)
        ids = ids.reshape(SIZE, SIZE)
        probabilities = np.eye(CLASSES, dtype=np.float32)[ids]
        for index in indices:
            self._sources[index] = self._made_from(index)
            path = str(self.samples.samples[index][0])
            yield index, Prediction(probabilities, ids, ids, path)


def draw(folder, count):
    """Write so many pictures of noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        noise = random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{index:06}.png", compress_level=0)


def stages(folder, count):
    """The three stages by name, each a function of a Runner that gives its Tally."""
    results = Results(folder, "none", "noise")
    root = {"root": str(folder / "pictures")}
    data = DatasetConfig("noise", "src.datasets.custom", "CustomDataset", root)
    card = ModelCard({}, CLASSES, (0, 0, 0), (1, 1, 1), None, 1, None, "")
    predictor = NoSegmentation(
        results, None, data, card, Computing(torch.device("cpu")), "compact", IDS, {}, loaders=1
    )
    judge = Judge(folder, "none", NoModel(), EVERY, (1, 1), {"noise": data}, {})
    embedding = Embedding(
        judge, NoNetwork(), {"net": "none", "crop_size": None}, folder,
        results.embeddings((1, 1), "none"),
    )  # fmt: skip

    def predict(run):
        return predict_dataset(run, predictor, range(count))

    def measure(run):
        keep_up(run, results, data)
        return measure_dataset(run, results, IDS, heatmaps={})

    def embed(run):
        keep_up(run, results, data)
        return embed_dataset(run, embedding)[0]

    return {"stage 1": predict, "stage 2": measure, "stage 4": embed}


def main(count=20_000):
    """Print the table."""
    run = Runner(LOG)
    verifying = Runner(LOG, verify=True)
    print(f"{'':10}{'all to do':>12}{'first look':>12}{'again':>8}{'verify':>8}   (seconds)")
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder, "pictures"), count)
        for name, stage in stages(Path(folder), count).items():
            runs = run, run, run, verifying
            tallies, seconds = zip(*(timed(stage, each) for each in runs), strict=True)
            if [tally.skipped for tally in tallies] != [0, count, count, count]:
                raise RuntimeError(f"{name} does not find all done: {tallies}")
            first, *others = seconds
            print(f"{name:10}{first:12.1f}" + "{:12.1f}{:8.1f}{:8.1f}".format(*others), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
