"""A small results folder and the running explorer, for the tests in real windows and browsers."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from factories import object_table
from PIL import Image

from configuration import CONFIG
from src import pictures
from src.discover.colours import palette
from src.records import Prediction
from src.store.arrays import write_components, write_prediction
from src.store.paths import Results
from src.store.tables import write_embeddings

REPOSITORY = Path(__file__).resolve().parents[1]
ARTEFACTS = REPOSITORY / "test-artefacts"  # screenshots, for people to look at
DEADLINE = 300  # seconds for an answer that takes one: a guard that no slow machine comes near
SOFA, BOAT = 104, 107  # ids of the demo's `label_mapping`
SOFA_COLOUR = tuple(palette(1)[0].tolist())  # on the map: boats come next
COUNT = 40  # segments, in rows of ten


def write_results(folder):
    """Write an image of forty segments of two unknown kinds, and what the stages make of it."""
    rng = np.random.default_rng(0)
    kinds = np.repeat([SOFA, BOAT], COUNT // 2)
    shades = np.where(kinds == SOFA, 60, 200)
    boxes = [(64 * (k % 10) + 8, 64 * (k // 10) + 16) for k in range(COUNT)]
    boxes = np.array([(left, upper, left + 48, upper + 32) for left, upper in boxes])
    image = np.full((256, 640, 3), (150, 170, 200), np.uint8)
    components = np.full((256, 640), COUNT + 1, np.int32)
    truth = np.full((256, 640), 10, np.uint8)
    for k, (left, upper, right, lower) in enumerate(boxes):
        image[upper:lower, left:right] = shades[k]
        components[upper:lower, left:right] = k + 1
        truth[upper:lower, left:right] = kinds[k]
    path = str(folder / "street.png")
    Image.fromarray(image).save(path)
    results = Results(folder, CONFIG.MODEL_NAME, CONFIG.DATASET.name)
    classes = np.where(components > COUNT, 10, 13)
    probabilities = np.eye(19, dtype=np.float32)[classes] * 0.8 + 0.2 / 19
    prediction = Prediction(probabilities, classes.astype(np.uint8), truth, path)
    write_prediction(results.prediction(0), prediction, {})
    write_components(results.components(0), components, {})
    vectors = rng.normal(0, 1, (COUNT, 8)) + kinds[:, None]
    table = object_table(
        COUNT,
        image_path=path,
        dataset=CONFIG.DATASET.name,
        model_name=CONFIG.MODEL_NAME,
        image_size=np.tile([256, 640], (COUNT, 1)),
        image_predicted_iou=[np.append(np.full(COUNT, 0.2), 0.9).astype(np.float32)] * COUNT,
        embeddings=vectors.astype(np.float32),
        box=boxes,
        true_id=kinds,
        predicted_id=np.full(COUNT, 13),
        segment_size=np.full(COUNT, 48 * 32),
        thumbnail=[pictures.thumbnail(image, tuple(box)) for box in boxes],
    )
    write_embeddings(results.embeddings((16, 16), CONFIG.EMBEDDING_NETWORK), table, {})


@contextmanager
def running(folder, *settings, **environment):
    """The script of stage 5 on a results folder, in a process of its own."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND", "QT_QPA_PLATFORM")
    }
    script = REPOSITORY / "discover_embedding_space.py"
    process = subprocess.Popen(
        [sys.executable, "-u", str(script), "with", "args.method=pca", *settings],
        cwd=folder,
        env={
            **inherited,
            "OMP_NUM_THREADS": "1",
            "OODRETRIEVAL_IO_PATH": str(folder),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)
        process.stdout.close()
        process.stderr.close()


def end(process):
    """End a program that was started in a session of its own, with all it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
    process.wait()


def wait_for(condition, what, process=None):
    """Ask again until a condition gives something but None, and return that."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        found = condition()
        if found is not None:
            return found
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended with {process.returncode} before {what}: {process.stderr.read()}")
        time.sleep(0.05)
    return pytest.fail(f"no {what} within {DEADLINE} s")


def keep(picture, name):
    """Keep a screenshot, (H, W, 3) uint8, for people to look at."""
    ARTEFACTS.mkdir(exist_ok=True)
    Image.fromarray(picture).save(ARTEFACTS / f"{name}.png")


def is_sofa(picture):
    """Pixels in the colour of that kind, in the part of the window that holds the map."""
    return (picture[:, : picture.shape[1] * 3 // 5] == SOFA_COLOUR).all(axis=-1)


def has_third_cluster(picture):
    """Whether points have the third colour of the palette; the true classes are two."""
    return (picture[:, : picture.shape[1] * 3 // 5] == palette(3)[2]).all(axis=-1).any()


def point_on(picture):
    """A pixel (x, y) inside a point of the map."""
    row, column = np.argwhere(is_sofa(picture))[0]
    return int(column) + 2, int(row) + 2
