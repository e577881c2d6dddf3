"""The explorer in a real window, with a real pointer and keyboard on a screen of its own."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageGrab, features

from configuration import CONFIG
from src import cache, pictures

REPOSITORY = Path(__file__).resolve().parents[1]
TOOLKITS = ("tkinter", "PySide6", "PyQt6", "PyQt5")
SCREEN = (1300, 900)  # pixels
DEADLINE = 60  # seconds

missing = [program for program in ("Xvfb", "xdotool") if shutil.which(program) is None]
pytestmark = [
    pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed"),
    pytest.mark.skipif(
        not any(map(importlib.util.find_spec, TOOLKITS)), reason="no toolkit for windows"
    ),
    pytest.mark.skipif(not features.check("xcb"), reason="this Pillow takes no screenshots"),
]


def end(process):
    """End a program that was started in a session of its own, with all it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue
    process.wait(10)


def wait_for(condition, what, process=None):
    """Ask again until a condition gives something, and return that."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended with {process.returncode} before {what}: {process.stderr.read()}")
        time.sleep(0.05)
    return pytest.fail(f"no {what} within {DEADLINE} s")


class Screen:
    """A virtual display, its pointer and its keyboard."""

    def __init__(self, name):
        self.name = name

    def do(self, *words):
        """Standard output of one xdotool command; empty where it finds nothing."""
        done = subprocess.run(
            ["xdotool", *map(str, words)],
            env={**os.environ, "DISPLAY": self.name},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout.strip()

    def grab(self):
        """What the screen shows, (H, W, 3) uint8."""
        return np.array(ImageGrab.grab(xdisplay=self.name).convert("RGB"))

    def windows(self, title):
        """Ids of the visible windows of a title."""
        return self.do("search", "--onlyvisible", "--name", title).split()


@pytest.fixture
def screen():
    ours, theirs = os.pipe()
    size = "x".join(map(str, (*SCREEN, 24)))
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(theirs), "-screen", "0", size, "-nolisten", "tcp"],
        pass_fds=[theirs],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        with os.fdopen(ours) as reader:
            number = reader.readline().strip()  # the server writes it once it is ready
        assert number, "Xvfb did not start"
        yield Screen(f":{number}")
    finally:
        end(server)


@pytest.fixture
def results(tmp_path):
    """A results folder with forty embedded segments of two unknown kinds."""
    rng = np.random.default_rng(0)
    kinds = np.repeat([104, 107], 20)
    shades = np.where(kinds == 104, 60, 200)
    thumbnails = [np.full((32, 48, 3), shade, np.uint8) for shade in shades]
    table = {
        "image_path": ["street.png"],
        "dataset": [CONFIG.DATASET.name],
        "model_name": [CONFIG.MODEL_NAME],
        "image_index": np.array([0]),
        "iou_pred": [np.full(40, 0.2, np.float32)],
        "embeddings": (rng.normal(0, 1, (40, 8)) + kinds[:, None]).astype(np.float32),
        "box": np.tile([0, 0, 48, 32], (40, 1)),
        "component_index": np.arange(1, 41),
        "image_level_index": np.zeros(40, np.int64),
        "gt": kinds,
        "pred": np.full(40, 13),
        "iou": np.full(40, 0.2, np.float32),
        "thumbnail": [pictures.thumbnail(picture, (0, 0, 48, 32)) for picture in thumbnails],
    }
    where = CONFIG.MODEL_NAME, CONFIG.DATASET.name, 16, 16, CONFIG.EMBEDDING_NETWORK
    cache.write_table(cache.embeddings_path(tmp_path, *where), table, {})
    return tmp_path


@pytest.fixture
def explorer(screen, results):
    environment = {
        **os.environ,
        "DISPLAY": screen.name,
        "OMP_NUM_THREADS": "1",
        "OODRETRIEVAL_IO_PATH": str(results),
    }
    for name in ("MPLBACKEND", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "discover_embedding_space.py"),
            "with",
            "args.method=pca",
        ],
        cwd=results,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)
        process.stderr.close()


def colours(picture):
    return len(np.unique(picture.reshape(-1, 3), axis=0))


def test_the_explorer_opens_answers_and_closes(explorer, screen, tmp_path):
    (window,) = wait_for(lambda: screen.windows("^Embedding space$"), "window", explorer)
    screen.do("windowmove", window, 0, 0, "windowfocus", window)

    def shown():  # a map has points, names and their colours
        picture = screen.grab()
        return picture if colours(picture) > 100 else None

    before = wait_for(shown, "map", explorer)

    def changed_by(*words):
        """Act once, and again if the window was not ready for it, until the screen changes."""
        first = screen.grab()

        def changed():
            screen.do(*words)
            now = screen.grab()
            return now if (now != first).any(axis=-1).sum() > 200 else None

        return wait_for(changed, f"answer to {words}", explorer)

    point = point_on(before)
    screen.do("mousemove", 5, 5)
    changed_by("mousemove", *point)  # the thumbnail of that segment
    answered = changed_by("key", "b")  # all points blue
    Image.fromarray(answered).save(tmp_path / "blue.png")
    hovered = changed_by("key", "g")  # and by true class again
    Image.fromarray(hovered).save(tmp_path / "window.png")
    assert colours(hovered) > 100

    screen.do("windowquit", window)
    explorer.wait(DEADLINE)
    log = explorer.stderr.read()
    assert explorer.returncode == 0, log
    assert "Traceback" not in log and "Completed" in log


def point_on(picture):
    """A pixel (x, y) inside a point of the map, by the colour of its kind in `label_mapping`."""
    sofa = (200, 0, 60)
    rows, columns = np.nonzero((picture[:, : SCREEN[0] * 3 // 5] == sofa).all(axis=-1))
    assert len(rows), "no point of the map is on the screen"
    return columns[0] + 2, rows[0] + 2
