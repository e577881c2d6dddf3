"""Where the campaign works: a clone with own pictures, folders of results, the stages at work."""

import itertools
import json
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress

import clone
import numpy as np
import pytest
import torch
from PIL import Image
from starting import start

from src.store.of_objects import keys_of
from src.store.paths import Results, tags_path
from src.store.tables import read_embeddings
from src.store.tags import change_tags

PREDICT, MEASURE, TRAIN, EMBED, DISCOVER = clone.SCRIPTS
LEARN = clone.LEARN
STEPS = PREDICT, MEASURE, TRAIN, EMBED, LEARN
BY_IMAGE = PREDICT, MEASURE, EMBED
LEARNING = "args.epochs=4", "args.batch_size=2", "args.learning_rate=0.01"
EAGER = {"src.run.processes._LOOK": 0, "src.run.processes._STARTING": 0}  # processes for any work
COLOURS = {0: (128, 64, 128), 1: (0, 0, 142), 2: (70, 130, 180), 100: (60, 95, 160)}
MODULE = '''
import os
from pathlib import Path

from src.run.processes import _each


class Colours(torch.nn.Module):
    """As NearestColour, by a layer that can learn."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Conv2d(3, 3, 1)

    def features(self, images):
        return torch.nn.functional.avg_pool2d(images, 4)

    def forward(self, images):
        return self.head(images)


class Pictures(LabelledImages):
    pred_mapping, label_mapping = Blocks.pred_mapping, Blocks.label_mapping

    def __init__(self, root, transform=None):
        labels = {path.name: path for path in Path(root).with_name("labels").glob("*")}
        images = sorted(Path(root).iterdir())
        super().__init__([(path, labels.get(path.name)) for path in images], transform)


def die_once(function, indices):
    death = Path(os.environ["FAULTS_DEATH"])
    if death.exists():
        return _each(function, indices)
    death.touch()
    os.kill(os.getpid(), 9)
'''
ENTRIES = """
import ctypes, importlib, json, own

_weights = os.environ["FAULTS_WEIGHTS"]
models["nearest_colour"] = ModelConfig("nearest_colour", "own", "Colours", {}, _weights)
_root = {"root": os.environ["FAULTS_PICTURES"]}
datasets |= _by_name(DatasetConfig("pictures", "own", "Pictures", _root))
for _name, _value in json.loads(os.environ["FAULTS_CHANGES"]).items():
    _module, _, _attribute = _name.rpartition(".")
    assert hasattr(importlib.import_module(_module), _attribute), _name
    setattr(importlib.import_module(_module), _attribute, getattr(own, str(_value), _value))
if "FAULTS_RIGHTS" in os.environ:  # none: the modes of files hold even for root
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
"""


def often(many, few):
    """How often, or which faults, to inject: `few` in the short form."""
    return many if os.environ.get("FAULTS") == "many" else few


def each(names, many, few):
    """A decorator: a test case for each of many, or of few."""
    return pytest.mark.parametrize(names, list(often(many, few)))


COUNT = often(16, 6)  # of pictures


class Running:
    """A script at work, in a process group of its own; with its exit code and log at the end."""

    def __init__(self, process, log):
        self._process, self._log = process, log
        self.pid, self.is_alive = process.pid, process.is_alive

    def wait_until(self, condition):
        """Wait until a function gives something true, or the script ends."""
        while not condition() and self.is_alive():
            time.sleep(0.0002)

    def send(self, number):
        """Send a signal to the whole group, as a terminal and `kill -9 -- -PID` do."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self):
        """Wait for its end."""
        self._process.join()
        self.exitcode = self._process.exitcode  # negative: the signal that killed it
        self.log = self._log.read_text(errors="replace") if self._log.exists() else ""
        return self

    @property
    def counts(self):
        """(done, skipped, failed) of its last summary; None without one."""
        found = re.findall(r"(\d+) done, (\d+) skipped[^,]*, (\d+) failed", self.log)
        return tuple(map(int, found[-1])) if found else None


class Workplace(clone.Clone):
    """A clone whose stages work on the dataset "pictures", and folders of results."""

    def __init__(self, folder):
        super().__init__(folder)
        for name, code in (("configuration.py", ENTRIES), ("own.py", MODULE)):
            path = self.folder / name
            path.write_text(path.read_text() + code)
        self.weights, self._numbers = self.folder / "weights" / "colours.pth", itertools.count()
        save_layer(torch.load(self.weights)["colours"], self.weights)
        self.pictures = draw(folder / "data" / "pictures", COUNT, *often((384, 512), (48, 64)))
        self.reference = folder / "reference"  # results of all stages, undisturbed
        self.seconds = {}  # that each stage took for them
        for step in (PREDICT, *STEPS):  # the first one for the time that later ones take
            self.remove(self.reference, step)
            began = time.monotonic()
            run = self.run(step, self.reference)
            assert run.exitcode == 0, f"{step} cannot do its work undisturbed:\n{run.log}"
            self.seconds[step] = time.monotonic() - began
            if step == EMBED:
                tag_objects(self.reference)

    def start(self, step, io_path, *settings, options=(), changes=None, **variables):
        """Start a stage on a folder of results: a Running.

        `settings` follow `with`, `options` are before it. `changes` are values to give to names of
        modules, such as "src.run.processes.ATTEMPTS", `variables` of the environment.
        """
        log = self.elsewhere / f"{next(self._numbers)}.txt"
        process = start(
            self.folder / step,
            [*options, "with", *self._settings(step, io_path), *settings],
            folder=self.elsewhere,
            output=log,
            errors=log,
            environment=self.environment(io_path) | self.variables(changes, **variables),
        )
        return Running(process, log)

    def variables(self, changes=None, **others):
        """What a process of this clone finds in its environment; see `start`."""
        own = dict(FAULTS_PICTURES=self.pictures, FAULTS_WEIGHTS=self.weights) | others
        own["FAULTS_CHANGES"] = json.dumps(changes or {})
        return {name: str(value) for name, value in own.items()}

    def _settings(self, step, io_path):
        meta = io_path / "meta" / "meta.pth"
        if step != TRAIN and not meta.is_file():
            meta = self.reference / "meta" / "meta.pth"
        weights, names = f"args.meta_weights={meta}", ("args.dataset", "args.val_dataset")
        return {
            PREDICT: ["args.dataset=pictures"],
            MEASURE: ["args.dataset=pictures"],
            TRAIN: [weights, *(f"{name}=pictures" for name in names), "args.epochs=6"],
            EMBED: [weights, "args.datasets=[blocks,pictures]"],
            LEARN: ["args.tags=[thing]", "args.datasets=[blocks,pictures]", *LEARNING],
            DISCOVER: [f"mainplot.save_path={io_path / 'map.png'}"],
        }[step]

    def run(self, step, io_path, *settings, **keywords):
        """Run a stage to its end; see `start`."""
        return self.start(step, io_path, *settings, **keywords).end()

    @contextmanager
    def results_without(self, step):
        """A folder with a copy of all results, without those of a step, for the time being."""
        folder = self.reference.with_name(f"results_{next(self._numbers)}")
        shutil.copytree(self.reference, folder)
        self.remove(folder, step)
        yield folder
        shutil.rmtree(folder)

    def outputs(self, io_path, step):
        """Folders that a step writes to; none for None."""
        results = Results(io_path, "nearest_colour", "pictures")
        return {
            None: [],
            PREDICT: [results.folder("input")],
            MEASURE: [results.folder("metrics"), results.folder("components")],
            TRAIN: [io_path / "meta"],
            EMBED: [io_path / "embeddings"],
            LEARN: [io_path / "learnt"],
        }[step]

    def remove(self, io_path, step):
        """Delete what a step has written."""
        for folder in self.outputs(io_path, step):
            shutil.rmtree(folder, ignore_errors=True)


def save_layer(colours, path):
    """Write the weights by which Colours takes the nearest of some (3, 3), in [0, 1]."""
    weight, bias = 40 * colours[:, :, None, None], -20 * colours.square().sum(1)
    torch.save({"head.weight": weight, "head.bias": bias}, path)


def tag_objects(io_path):
    """Tag the first object of each of the pictures that are searched."""
    (path,) = io_path.glob("embeddings/*/embeddings*.p")
    table = read_embeddings(path)
    keys = {key[:2]: key for key in reversed(keys_of(table)) if key[0] == "pictures"}
    change_tags(tags_path(path), dict.fromkeys(keys.values(), "thing"))


def draw(folder, count, height=48, width=64):
    """Draw pictures, the same for all calls, and their labels beside; give the folder."""
    rng, labels = np.random.default_rng(0), folder.with_name("labels")
    size = max(-(-height // 48), -(-width // 64))  # of a drawn pixel
    for path in (folder, labels):
        path.mkdir(parents=True)
    for number in range(count):
        arrays = clone.paint(rng, COLOURS, unknown=[100])
        for path, array in zip((folder, labels), arrays, strict=True):
            array = array.repeat(size, 0).repeat(size, 1)[:height, :width]
            Image.fromarray(array).save(path / f"{number:05d}.png", compress_level=1)
    return folder
