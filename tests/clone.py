"""A copy of the repository as its user has it: with own entries, own data, in another folder.

The data are coloured blocks and the network looks at the colour only, so that a stage takes little
longer than its imports.
"""

import multiprocessing
import pickle
import shutil
import subprocess
import tempfile
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from starting import start

REPOSITORY = Path(__file__).resolve().parents[1]
PREDICT, MEASURE, TRAIN, EMBED, DISCOVER = SCRIPTS = (
    "pred_images.py",
    "src/MetaSeg/main.py",
    "train_meta_nn.py",
    "compute_embeddings.py",
    "discover_embedding_space.py",
)
SEARCH, LEARN = "search_classes.py", "learn_classes.py"
SPLITS = {"blocks": 4, "blocks_val": 3, "blocks_ood": 3}  # number of pictures
MODULE = '''
"""What a user brings: a dataset and a network."""

import torch

from src.datasets import LabelledImages, list_images, with_labels

mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
min_segment_size = min_crop_size = (6, 6)
KNOWN = {0: ("road", (128, 64, 128)), 1: ("car", (0, 0, 142)), 2: ("sky", (70, 130, 180))}
UNKNOWN = {100: ("sofa", (200, 0, 60)), 101: ("boat", (0, 200, 255))}


class Blocks(LabelledImages):
    pred_mapping = KNOWN
    label_mapping = {**KNOWN, **UNKNOWN}

    def __init__(self, root, transform=None):
        images = list_images(root, "*_image.png")
        super().__init__(with_labels(images, self.labels_of), transform)

    @staticmethod
    def labels_of(image):
        return image.with_name(image.name.replace("image", "labels"))


class NearestColour(torch.nn.Module):
    def __init__(self, softness):
        super().__init__()
        self.softness = softness
        self.register_buffer("colours", torch.zeros(3, 3))  # the weights: (classes, channels)

    def features(self, images):
        return torch.nn.functional.avg_pool2d(images, 4)

    def forward(self, images):
        distances = (images[:, None] - self.colours[None, :, :, None, None]).square().sum(2)
        return -distances / self.softness
'''
ENTRIES = """
models |= _by_name(
    ModelConfig(
        "nearest_colour", "own", "NearestColour", {"softness": 0.05}, HERE / "weights/colours.pth"
    )
)
datasets |= _by_name(
    *(DatasetConfig(name, "own", "Blocks", {"root": HERE / "data" / name}) for name in SPLITS)
)
CONFIG.TRAIN_DATASET = datasets["blocks"]
CONFIG.VAL_DATASET = datasets["blocks_val"]
CONFIG.DATASET = datasets["blocks_ood"]
CONFIG.MODEL_NAME = "nearest_colour"
CONFIG.META_MODEL_NAME = "meta_nn"
CONFIG.EMBEDDING_NETWORK = "segmentation"
CONFIG.IOU_THRESHOLD = 1.1  # every segment
CONFIG.GPU_ID = None
CONFIG.NUM_CORES = 1
"""
TREE = {  # what the stages write below the results folder for one dataset; {} is the image
    "input": "input/nearest_colour/{dataset}/input{}.hdf5",
    "metrics": "metrics/nearest_colour/{dataset}/metrics{}.p",
    "components": "components/nearest_colour/{dataset}/components{}.hdf5",
}


class Checkout:
    """A copy of the repository, whose scripts are started in another folder, without a network.

    Attributes
    ----------
    folder, elsewhere, results : Path
        Of the copy, of the scripts' working directory, and of what they write.
    """

    def __init__(self, home):
        self.folder, self.elsewhere = home / "clone", home / "elsewhere"
        self.results, self._logs = home / "results", home / "logs"
        self.elsewhere.mkdir(parents=True)
        self._logs.mkdir()
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "src", self.folder / "src", ignore=ignored)
        for name in ("configuration.py", *SCRIPTS, SEARCH, LEARN):
            shutil.copy(REPOSITORY / name, self.folder / name)

    def call(self, script, *words, results=None):
        """Run a script to its end."""
        return self._start(script, *words, results=results).end()

    def call_all(self, **calls):
        """Run independent command lines, name=(script, *words), two at a time."""
        started = {}
        for name, words in calls.items():
            working = [call.process for call in started.values() if call.process.exitcode is None]
            if len(working) == 2:
                connection.wait([process.sentinel for process in working])
            started[name] = self._start(*words)
        return {name: call.end() for name, call in started.items()}

    def _start(self, script, *words, results=None):
        logs = Path(tempfile.mkdtemp(dir=self._logs))
        paths = {"output": logs / "output.txt", "errors": logs / "errors.txt"}
        environment = self.environment(results)
        process = start(
            self.folder / script, words, folder=self.elsewhere, environment=environment, **paths
        )
        return Call(process, **paths)

    def environment(self, results=None):
        """Variables that scripts get; `results` is another folder for what they write."""
        return {
            "PYTHONPATH": str(self.folder),
            "OODRETRIEVAL_IO_PATH": str(results or self.results),
            "TORCH_HOME": str(self.folder / "torch"),
            **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),  # closed
            **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
        }


class Clone(Checkout):
    """A checkout with own entries in its configuration, and with their data.

    Attributes
    ----------
    photographs : Path
        Folder of the dataset "custom_dataset": there is none yet.
    """

    def __init__(self, home):
        super().__init__(home)
        configuration = self.folder / "configuration.py"
        own = ENTRIES.replace("SPLITS", repr([*SPLITS]))
        self.photographs = self.folder / "data" / "photographs"
        default = configuration.read_text().replace("/path/to/images", str(self.photographs))
        configuration.write_text(default + own)
        (self.folder / "own.py").write_text(MODULE)
        weights = self.folder / "weights"
        weights.mkdir()
        torch.save({"colours": paint_blocks(self.folder / "data")}, weights / "colours.pth")


class Call(NamedTuple):
    """A script at work, and what it prints."""

    process: multiprocessing.Process
    output: Path
    errors: Path

    def end(self):
        """Wait for its end, and give that as `subprocess.run` does."""
        self.process.join()
        texts = self.output.read_text(), self.errors.read_text()
        return subprocess.CompletedProcess(self.process.name, self.process.exitcode, *texts)


def files_below(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix() for path in paths}


def written_at(*folders):
    """When each file was written, but for the notes of what a run has looked at."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    others = {"seen.json", ".seen.json.lock"}
    return {
        path: path.stat().st_mtime_ns
        for path in paths
        if "__pycache__" not in path.parts and path.name not in others
    }


def tree_of(dataset, indices):
    return {name.format(i, dataset=dataset) for name in TREE.values() for i in indices}


def table_at(path):
    return pickle.loads(path.read_bytes())


def paint(rng, colours, unknown):
    """Picture and labels of a road below the sky, with blocks on it that the network may miss."""
    labels = np.full((48, 64), 2, np.uint8)
    labels[20:] = 0
    seen = labels.copy()
    for _ in range(4):
        row, column = rng.integers(4, 36), rng.integers(0, 50)
        block = np.s_[row : row + rng.integers(7, 12), column : column + rng.integers(7, 14)]
        seen[block] = 1
        labels[block] = rng.choice([1, 1, 0])  # some cars are only painted on the road
    for label in unknown:
        row, column = rng.integers(22, 36), rng.integers(0, 50)
        block = np.s_[row : row + 10, column : column + 12]
        labels[block] = seen[block] = label
    picture = np.array([colours.get(i, (0, 0, 0)) for i in range(256)], np.uint8)[seen]
    noise = rng.normal(0, 6, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8), labels


def paint_blocks(data):
    known = {0: (128, 64, 128), 1: (0, 0, 142), 2: (70, 130, 180)}
    colours = {**known, 100: (60, 95, 160), 101: (110, 110, 140)}
    rng = np.random.default_rng(0)
    for name, count in SPLITS.items():
        (data / name).mkdir(parents=True)
        for index in range(count):
            unknown = [100, 101] if name == "blocks_ood" else []
            for what, array in zip(("image", "labels"), paint(rng, colours, unknown), strict=True):
                Image.fromarray(array).save(data / name / f"{index}_{what}.png")
    return torch.tensor(list(known.values())) / 255
