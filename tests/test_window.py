"""The explorer in a real window, with a real pointer and keyboard on a screen of its own."""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import ImageGrab, features
from real_explorer import (
    DEADLINE,
    REPOSITORY,
    end,
    has_third_cluster,
    is_sofa,
    keep,
    point_on,
    running,
    wait_for,
    write_results,
)

SCREEN = (1300, 900)  # pixels
BACKENDS = {"PySide6": "qtagg", "PyQt6": "qtagg", "PyQt5": "qtagg", "tkinter": "tkagg"}
PRESENT = sorted({BACKENDS[name] for name in BACKENDS if importlib.util.find_spec(name)})

missing = [program for program in ("Xvfb", "xdotool") if shutil.which(program) is None]
pytestmark = [
    pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed"),
    pytest.mark.skipif(not PRESENT, reason="no toolkit for windows"),
    pytest.mark.skipif(not features.check("xcb"), reason="this Pillow takes no screenshots"),
]


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

    def window(self, title):
        """Id of the visible window of a title; None without one."""
        found = self.do("search", "--onlyvisible", "--name", f"^{title}$").split()
        return int(found[0]) if found else None


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


class Hand:
    """A hand on the mouse and the keyboard of a running explorer."""

    def __init__(self, screen, explorer):
        self.screen, self.explorer = screen, explorer

    def open(self, title):
        """Wait for a window, give it the keyboard and the foreground, and return its id."""
        window = wait_for(lambda: self.screen.window(title), f"window {title!r}", self.explorer)
        self.screen.do("windowmove", window, 0, 0, "windowraise", window, "windowfocus", window)
        return window

    def gone(self, title):
        """Wait until a window has closed."""
        wait_for(lambda: not self.screen.window(title) or None, f"end of {title!r}", self.explorer)

    def until(self, condition, *words):
        """Act, again if the window was not ready for it, until the screen is as expected.

        The screenshot returned is one that the next three equal: the window has found its size.
        """
        last, same = None, 0

        def shown():
            nonlocal last, same
            self.screen.do(*words)
            before, last = last, self.screen.grab()
            same = same + 1 if before is not None and (before == last).all() else 0
            return last if same >= 3 and condition(last) else None

        return wait_for(shown, f"answer to {words}", self.explorer)


@pytest.mark.parametrize("backend", PRESENT)
def test_the_explorer_opens_answers_and_closes(backend, screen, tmp_path):
    write_results(tmp_path)
    with running(tmp_path, DISPLAY=screen.name, MPLBACKEND=backend) as explorer:
        hand = Hand(screen, explorer)
        hand.open("Embedding space")
        hand.until(has_sofa)
        hand.until(lambda now: not has_sofa(now), "key", "b")  # all points blue
        first = hand.until(has_sofa, "key", "g")  # by true class; all that came before is drawn
        spot = point_on(first)

        def has_tip(now):  # something, such as a thumbnail, covers a part of the map
            return (now != first)[:800].any(axis=-1).sum() > 5000

        keep(hand.until(has_tip, "mousemove", *spot), f"{backend}_map")
        hand.until(lambda now: not has_tip(now), "mousemove", 600, 20)  # above the map

        for button, title, filled in (
            (1, "Image", has_red_box),
            (2, "Overview", has_red_box),
            (3, "Nearest neighbours", has_thumbnails),
        ):
            screen.do("mousemove", *spot, "click", button)
            hand.open(title)
            shown = hand.until(filled)
            keep(shown, f"{backend}_{title.lower().replace(' ', '_')}")
            if button == 3:  # the wheel changes how many they are
                screen.do("mousemove", 600, 60, "click", 4)
                hand.until(lambda now, shown=shown: (now != shown)[100:800].any())
                screen.ask_to_close(screen.window(title))
            else:
                screen.do("key", "Escape")
                hand.gone(title)
            hand.open("Embedding space")
            screen.do("mousemove", 600, 25)
            hand.until(lambda now: not has_tip(now), "mousemove", 600, 20)

        screen.do("key", "c")
        keep(hand.until(has_tip), f"{backend}_question")
        screen.do("type", "elbow")
        screen.do("key", "Return")
        hand.open("Elbow")
        keep(hand.until(has_curve), f"{backend}_elbow")
        screen.do("key", "3", "key", "Return")
        screen.ask_to_close(screen.window("Elbow"))
        hand.gone("Elbow")
        hand.open("Embedding space")
        hand.until(has_third_cluster)
        screen.do("key", "0")
        hand.open("Groups")
        keep(hand.until(has_crops), f"{backend}_groups")
        screen.do("key", "Escape")
        hand.gone("Groups")
        hand.open("Embedding space")
        screen.do("windowsize", screen.window("Embedding space"), 640, 480)
        keep(hand.until(is_small), f"{backend}_small")
        screen.ask_to_close(screen.window("Embedding space"))
        explorer.wait(DEADLINE)
        log = explorer.stderr.read()
    assert explorer.returncode == 0, log
    assert "Traceback" not in log and "Completed" in log
    assert "QWidget" not in log and "QPainter" not in log, log


@pytest.mark.parametrize("backend", PRESENT)
def test_an_open_window_can_be_stopped_from_outside(backend, screen, tmp_path):
    write_results(tmp_path)
    with running(tmp_path, DISPLAY=screen.name, MPLBACKEND=backend) as explorer:
        Hand(screen, explorer).open("Embedding space")
        explorer.terminate()
        explorer.wait(DEADLINE)
        assert explorer.returncode == 128 + signal.SIGTERM, explorer.stderr.read()


TOOLS = """
from src.discover.display import copy_text, window_figure
figure = window_figure((5, 4), "tools")
toolbar = figure.canvas.toolbar
if hasattr(toolbar, "actions"):
    from matplotlib.backends.qt_compat import QtWidgets
    print([action.text() for action in toolbar.actions() if action.text()])
    copied = QtWidgets.QApplication.clipboard().text
else:
    buttons = [its for its in toolbar.winfo_children() if its.winfo_class().endswith("utton")]
    print([button.cget("text") for button in buttons])
    copied = toolbar.clipboard_get
print(copy_text(figure, "/photos/\u00fc $1.png"), copied() == "/photos/\u00fc $1.png")
print(copy_text(figure, "not UTF-8: \\udcff"))
figure.canvas.draw()
toolbar.update()  # goes without the buttons that are gone
"""


@pytest.mark.parametrize("backend", PRESENT)
def test_the_toolbar_has_no_senseless_button_and_paths_come_to_the_clipboard(backend, screen):
    done = subprocess.run(
        [sys.executable, "-c", TOOLS],
        env={**os.environ, "DISPLAY": screen.name, "MPLBACKEND": backend},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['Home', 'Back', 'Forward', 'Pan', 'Zoom', 'Save']",
        "True True",
        "False",
    ]


def has_sofa(picture):
    return is_sofa(picture).any()


def has_red_box(picture):
    """Whether a segment is boxed, as in an image; the map has no such red."""
    return (picture == (255, 0, 0)).all(axis=-1).sum() > 100


def has_thumbnails(picture):
    """Whether the dark squares of many segments show, as in a sheet."""
    return (picture == 60).all(axis=-1).sum() > 20_000


def has_crops(picture):
    """Whether the dark squares of some segments show, as in the overview of groups."""
    return (picture == 60).all(axis=-1).sum() > 5000


def has_curve(picture):
    """Whether the blue line of the elbow curve shows."""
    return (picture == (31, 119, 180)).all(axis=-1).sum() > 300


def is_small(picture):
    """Whether the points, by cluster now, show in a window of at most 600 pixels' height."""
    return has_third_cluster(picture[:, :680]) and not picture[600:].any()
