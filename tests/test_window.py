"""The explorer in a real window, with a real pointer and keyboard on a screen of its own."""

import ctypes
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


class ClientMessage(ctypes.Structure):
    """XClientMessageEvent of Xlib, padded to the size of an XEvent."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("padding", ctypes.c_long * 12),
    ]


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

    def ask_to_close(self, window):
        """Send what a window manager sends when its close button is pressed."""
        x11 = ctypes.CDLL("libX11.so.6")
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = ctypes.c_ulong
        display = ctypes.c_void_p(x11.XOpenDisplay(self.name.encode()))
        protocols, delete = (
            x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
        )
        message = ClientMessage(
            type=33, send_event=1, window=window, message_type=protocols, format=32, data=(delete,)
        )
        x11.XSendEvent(display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(message))
        x11.XCloseDisplay(display)

    def windows(self, title):
        """Ids of the visible windows of a title; None without any."""
        return self.do("search", "--onlyvisible", "--name", title).split() or None


@pytest.fixture
def screen():
    ours, theirs = os.pipe()
    size = "x".join(map(str, (*SCREEN, 24)))
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(theirs), "-screen", "0", size, "-nolisten", "tcp", "-noreset"],
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


def test_the_explorer_opens_answers_and_closes(explorer, screen, tmp_path):
    window = shown_window(explorer, screen)
    before = screen.grab()

    def act_until(condition, *words):
        """Act, again if the window was not ready for it, until the screen is as expected."""

        def shown():
            screen.do(*words)
            now = screen.grab()
            return now if condition(now) else None

        return wait_for(shown, f"answer to {words}", explorer)

    def has_tip(now):  # the thumbnail of a segment covers a part of the map
        return (now != before)[:800].any(axis=-1).sum() > 5000

    act_until(has_tip, "mousemove", *point_on(before))
    act_until(lambda now: not has_tip(now), "mousemove", 600, 20)  # above the map
    act_until(lambda now: not is_sofa(now).any(), "key", "b")  # all points blue
    after = act_until(lambda now: is_sofa(now).any(), "key", "g")  # by true class again
    Image.fromarray(after).save(tmp_path / "window.png")

    screen.ask_to_close(window)
    explorer.wait(DEADLINE)
    log = explorer.stderr.read()
    assert explorer.returncode == 0, log
    assert "Traceback" not in log and "Completed" in log


def test_an_open_window_can_be_stopped_from_outside(explorer, screen):
    shown_window(explorer, screen)
    explorer.terminate()
    explorer.wait(DEADLINE)
    assert explorer.returncode == 128 + signal.SIGTERM, explorer.stderr.read()


def shown_window(explorer, screen):
    """Id of the explorer's window, once it shows the map; it has the keyboard."""
    (window,) = wait_for(lambda: screen.windows("^Embedding space$"), "window", explorer)
    screen.do("windowmove", window, 0, 0, "windowfocus", window)
    wait_for(lambda: is_sofa(screen.grab()).any() or None, "map", explorer)
    return int(window)


def is_sofa(picture):
    """Pixels of the map in the colour of that kind in `label_mapping`."""
    return (picture[:, : SCREEN[0] * 3 // 5] == (200, 0, 60)).all(axis=-1)


def point_on(picture):
    """A pixel (x, y) inside a point of the map."""
    row, column = np.argwhere(is_sofa(picture))[0]
    return column + 2, row + 2
