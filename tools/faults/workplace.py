"""Where the campaign works: an own configuration, folders of results, and the stages at work."""

import itertools
import json
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from src.store import cache
from tools.faults import starting

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = {
    "predict": "pred_images.py",
    "measure": "src/MetaSeg/main.py",
    "train": "train_meta_nn.py",
    "embed": "compute_embeddings.py",
    "discover": "discover_embedding_space.py",
}
# what a user brings: pictures of any kind and number, and networks that tell when they are built
OWN = """
import os
from pathlib import Path

import torch

from src.datasets import IMAGENET_MEAN, IMAGENET_STD, LabelledImages
from src.model.deepv3 import DeepWV3Plus

mean, std = IMAGENET_MEAN, IMAGENET_STD
min_segment_size = min_crop_size = (8, 8)


class Pictures(LabelledImages):
    def __init__(self, root, transform=None):
        super().__init__([(path, None) for path in sorted(Path(root).iterdir())], transform)


class Telling(torch.nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if "FAULTS_BUILT" in os.environ:
            Path(os.environ["FAULTS_BUILT"]).touch()


class Demo(Telling, DeepWV3Plus):
    pass


class ByColour(torch.nn.Conv2d):
    def features(self, images):
        return torch.nn.functional.avg_pool2d(images, 8, ceil_mode=True)

    def forward(self, images):
        logits = super().forward(images)
        return logits.log() if "FAULTS_NAN" in os.environ else logits  # log of negative: NaN


class Tiny(Telling, ByColour):
    pass
"""
ENTRIES = """
# the fault campaign
import importlib, json
models |= _by_name(
    models["deeplabv3plus_streets"]._replace(module_name="own", class_name="Demo"),
    ModelConfig(
        "tiny", "own", "Tiny", {"in_channels": 3, "out_channels": 19, "kernel_size": 1},
        os.environ.get("FAULTS_WEIGHTS", HERE / "weights" / "tiny.pth"),
    ),
)
pictures = {"root": os.environ.get("FAULTS_PICTURES")}
datasets |= _by_name(DatasetConfig("pictures", "own", "Pictures", pictures))
CONFIG.GPU_ID, CONFIG.NUM_CORES = None, 1
for _name, _value in json.loads(os.environ["FAULTS_CHANGES"]).items():
    _module, _, _attribute = _name.rpartition(".")
    assert hasattr(importlib.import_module(_module), _attribute), _name
    setattr(importlib.import_module(_module), _attribute, _value)
"""
SMALL = """
CONFIG.MODEL_NAME = "tiny"
CONFIG.IOU_THRESHOLD = 1.1  # every segment
CONFIG.MIN_HEIGHT = CONFIG.MIN_WIDTH = CONFIG.MIN_CROP_HEIGHT = CONFIG.MIN_CROP_WIDTH = 6
"""
FEWER = {"src.datasets.streets.SPLITS": {"train": 16, "val": 8, "ood": 16}}
SMALLER = {
    "src.datasets.streets.SPLITS": {"train": 6, "val": 4, "ood": 8},
    "src.datasets.streets.HEIGHT": 48,
    "src.datasets.streets.WIDTH": 96,
}
EAGER = {"src.run.parallel._LOOK": 0, "src.run.parallel._STARTING": 0}  # processes for any work


class Step(NamedTuple):
    """A stage at work on one dataset."""

    stage: str
    dataset: str = "streets_ood"
    model: str | None = None  # None: that of the workplace


PREDICT, MEASURE, TRAIN, EMBED = (Step(name) for name in ("predict", "measure", "train", "embed"))
STEPS = PREDICT, MEASURE, TRAIN, EMBED


@dataclass(frozen=True)
class Run:
    """How a script ended."""

    exitcode: int  # negative: the signal that killed it
    log: str
    seconds: float

    @property
    def counts(self):
        """(done, skipped, failed) of its last summary; None without one."""
        found = re.findall(r"(\d+) done, (\d+) skipped[^,]*, (\d+) failed", self.log)
        return tuple(map(int, found[-1])) if found else None


class Running:
    """A script at work, in a process group of its own."""

    def __init__(self, script, words, log, environment, privileges):
        self._log, self._start = log, time.monotonic()
        self._process = starting.start(
            script, words, log=log, environment=environment, privileges=privileges
        )
        self.pid = self._process.pid

    def is_alive(self):
        return self._process.exitcode() is None

    def send(self, number):
        """Send a signal to the whole group, as a terminal and `kill -9 -- -PID` do."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, limit=600):
        """Wait for its end: a Run."""
        exitcode = self._process.exitcode(limit)
        if exitcode is None:
            self.send(signal.SIGKILL)
            exitcode = self._process.exitcode(wait=None)
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        return Run(exitcode, log, time.monotonic() - self._start)


class Workplace:
    """An own configuration with fewer streets, and folders of results.

    Parameters
    ----------
    folder : path
        An empty folder; all happens below it.
    is_small : bool
        Small pictures, a tiny network and few faults: the short form. Else the demo.

    Attributes
    ----------
    reference : Path
        Results of all stages, undisturbed.
    seconds : dict of str to float
        What each stage took there, by its name.
    built : Path
        A file that the networks of these runs made when they were built.
    """

    def __init__(self, folder, is_small):
        self.folder, self.is_small = Path(folder), is_small
        self.model = "tiny" if is_small else "deeplabv3plus_streets"
        self.reference, self.built = self.folder / "reference", self.folder / "built"
        self.seconds, self._runs = {}, itertools.count()
        self._configure()
        self._finish_reference()

    def count(self, many, few):
        """How often, or which faults, to inject: `few` in the short form."""
        return few if self.is_small else many

    def start(self, step, io_path, *settings, options=(), privileges=True, changes=(), **variables):
        """Start a stage on a folder of results.

        Parameters
        ----------
        step : Step
        io_path : path
        *settings : str
            What follows `with`.
        options : sequence of str
            Of sacred, before `with`.
        privileges : bool
            See `starting.start`.
        changes : dict of str to number
            Values to give to names of modules, such as "src.store.cache.FORMAT".
        **variables : path
            Of the environment.
        """
        log = self.folder / "logs" / f"{next(self._runs)}_{step.stage}.txt"
        log.parent.mkdir(exist_ok=True)
        environment = {
            "PYTHONPATH": os.pathsep.join(map(str, (self.folder / "own", REPOSITORY))),
            "OODRETRIEVAL_IO_PATH": str(self.folder / "drawings"),
            "FAULTS_CHANGES": json.dumps(self.count(FEWER, SMALLER) | dict(changes)),
            **{name: str(value) for name, value in variables.items()},
        }
        words = [*options, "with", *self._settings(step, Path(io_path)), *settings]
        return Running(REPOSITORY / SCRIPTS[step.stage], words, log, environment, privileges)

    def run(self, step, io_path, *settings, **keywords):
        """Run a stage to its end: a Run; see `start`."""
        return self.start(step, io_path, *settings, **keywords).end()

    def results(self, name, without=None):
        """A new folder with a copy of all results, without those of a Step."""
        folder = self.folder / name
        shutil.copytree(self.reference, folder)
        if without:
            self.remove(folder, without)
        return folder

    def outputs(self, io_path, step):
        """Folders, or files, that a step writes."""
        model, results = step.model or self.model, Path(io_path)
        return {
            "predict": [results / "input" / model / step.dataset],
            "measure": [
                results / name / model / step.dataset for name in ("metrics", "components")
            ],
            "train": [results / "meta.pth"],
            "embed": [results / "embeddings" / model],
        }[step.stage]

    def remove(self, io_path, step):
        """Delete what a step has written."""
        for path in self.outputs(io_path, step):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def pictures(self, name, count, height=48, width=64):
        """A new folder of pictures with a sky, a street and some blocks, the same for all calls."""
        folder, rng = self.folder / name, np.random.default_rng(0)
        folder.mkdir(parents=True)
        for number in range(count):
            picture = np.full((height, width, 3), 60, np.uint8)
            picture[: height // 3] = 70, 130, 180
            for colour in rng.integers(0, 256, (3, 3)):
                row, column = (int(rng.integers(0, side // 2 + 1)) for side in (height, width))
                picture[row : row + height // 3, column : column + width // 4] = colour
            Image.fromarray(picture).save(folder / f"{number:05d}.png", compress_level=1)
        return folder

    def _settings(self, step, io_path):
        settings = [f"args.io_path={io_path}"]
        if step.model:
            settings += [f"args.model_name={step.model}"]
        if step.stage in ("predict", "measure"):
            return [*settings, f"args.dataset={step.dataset}"]
        if step.stage == "discover":
            return [*settings, f"args.datasets=[{step.dataset}]"]
        own = io_path / "meta.pth"
        meta = own if own.is_file() or step.stage == "train" else self.reference / "meta.pth"
        settings += [f"args.meta_weights={meta}"]
        if step.stage == "train":
            return [*settings, "args.epochs=20"]
        return [*settings, f"args.datasets=[streets,{step.dataset}]"]

    def _configure(self):
        own = self.folder / "own"
        shutil.copytree(REPOSITORY / "weights", own / "weights")
        default = (REPOSITORY / "configuration.py").read_text()
        (own / "configuration.py").write_text(default + (SMALL if self.is_small else "") + ENTRIES)
        (own / "own.py").write_text(OWN)
        rng = torch.Generator().manual_seed(0)
        shapes = {"weight": (19, 3, 1, 1), "bias": (19,)}
        weights = {name: 2 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
        torch.save(weights, own / "weights" / "tiny.pth")

    def _finish_reference(self):
        names = "streets", "streets_val", "streets_ood"
        images = [Step(stage, name) for name in names for stage in ("predict", "measure")]
        for step in (*images, TRAIN, EMBED):
            run = self.run(step, self.reference, FAULTS_BUILT=self.built)
            if run.exitcode:
                raise SystemExit(f"{step} cannot do its work undisturbed:\n{run.log}")
            self.seconds[step.stage] = run.seconds


# files


def finals(folder):
    """All files below a folder, or a file itself, that have their final name."""
    paths = Path(folder).rglob("*") if Path(folder).is_dir() else [Path(folder)]
    return sorted(path for path in paths if path.is_file() and not path.name.startswith("."))


def leftovers(folder):
    """Files that are no whole ones, and no locks."""
    return [path for path in Path(folder).rglob(".*.tmp") if path.is_file()]


def state(*folders):
    """What changes with a file below some folders: its content's place, time and size."""
    stats = {path: path.stat() for folder in folders for path in finals(folder)}
    return {path: (s.st_ino, s.st_mtime_ns, s.st_size) for path, s in stats.items()}


def content(path):
    """All that a file of the pipeline holds, as its reader gives it, with what it was made from.

    Raises
    ------
    ValueError
        The file is broken.
    """
    if path.suffix == ".pth":
        return _plain(torch.load(path, weights_only=True))
    readers = {
        "input": lambda path: vars(cache.read_prediction(path)),
        "metrics": cache.read_table,
        "components": cache.read_components,
        "embeddings": cache.read_embeddings,
    }
    kind = re.match("[a-z]+", path.name)[0]
    return {"made_from": cache.made_from(path), "content": readers[kind](path)}


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value


def broken(*folders):
    """Problems of the final files below some folders: those that do not open and validate."""
    problems = []
    for path in (path for folder in folders for path in finals(folder)):
        try:
            content(path)
            if path.suffix in (".hdf5", ".p") and cache.made_from(path)["format"] != cache.FORMAT:
                problems.append(f"{path} is of another format")
        except Exception as error:
            problems.append(f"{path}: {type(error).__name__}: {error}")
    return problems


def differences(one, other):
    """Problems where two folders, or files, do not hold the same files with the same content."""
    pairs = [{path.relative_to(top): path for path in finals(top)} for top in (one, other)]
    problems = [f"{name} is not in both" for name in pairs[0].keys() ^ pairs[1].keys()]
    for name in pairs[0].keys() & pairs[1].keys():
        try:
            np.testing.assert_equal(content(pairs[0][name]), content(pairs[1][name]))
        except (AssertionError, ValueError) as error:
            problems.append(f"{pairs[0][name]}: {' '.join(str(error).split())[:300]}")
    return problems
