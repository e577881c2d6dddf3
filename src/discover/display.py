"""Where the explorer shows: in windows, in a browser, or only in the pictures it writes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from src.discover.views import OUTSIDE
from src.errors import SettingError
from src.run.signals import STOPS

PAPER = "#fbfbfd"
SENSELESS = {"Subplots", "Customize"}  # buttons of matplotlib's toolbars
WINDOWLESS = {"agg", "cairo", "nbagg", "pdf", "pgf", "ps", "svg", "template", "webagg"}


@dataclass(frozen=True)
class Windows:
    """How figures come into windows."""

    new: Callable  # of (size in inches, title): makes a figure
    close: Callable  # of a figure: closes its window
    copy: Callable = lambda figure, text: False  # a text to the clipboard; whether there is one
    hand_out: Callable = lambda folder: None  # what was exported, to who cannot open its folder


def picture_figure(size_in, title):
    """Figure without a window; `title` has nowhere to show."""
    figure = Figure(figsize=size_in, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def window_figure(size_in, title):
    """Figure in a window of its own."""
    import matplotlib.pyplot as plt  # only here and below: pyplot looks for a display

    with plt.rc_context({"figure.max_open_warning": 0}):
        figure = plt.figure(figsize=size_in, facecolor=PAPER)
    figure.canvas.manager.set_window_title(title)
    _tidy(figure.canvas.toolbar)
    return figure


def _tidy(toolbar):
    """Take buttons off a toolbar of Qt or Tk that would spoil what the explorer has laid out."""
    if hasattr(toolbar, "removeAction"):
        for action in toolbar.actions():
            if action.text() in SENSELESS:
                toolbar.removeAction(action)
    elif hasattr(toolbar, "winfo_children"):
        for button in toolbar.winfo_children():
            if button.winfo_class() == "Button" and button.cget("text") in SENSELESS:
                button.destroy()


def close_window(figure):
    """Close the window of a figure."""
    import matplotlib.pyplot as plt

    plt.close(figure)


NO_WINDOWS = Windows(picture_figure, lambda figure: None)


def copy_text(figure, text):
    """Put a text on the clipboard of a window's toolkit; whether that was done."""
    toolkit = figure.canvas.required_interactive_framework
    with suppress(UnicodeError):  # bytes in a name that are no UTF-8 would be others there
        text.encode()
        if toolkit == "qt":
            from matplotlib.backends.qt_compat import QtWidgets

            QtWidgets.QApplication.clipboard().setText(text)
            return True
        if toolkit == "tk":
            widget = figure.canvas.get_tk_widget()
            widget.clipboard_clear()
            widget.clipboard_append(text)
            return True
    return False


def require_display():
    """Check that windows can be opened here, by matplotlib's own choice of toolkit or by Tk.

    A toolkit is tried in a process of its own, because Qt aborts where it finds no display or
    lacks a system library. If there are none, a SettingError says how to see the explorer in a
    browser, and how to get a picture instead.
    """
    import matplotlib.pyplot as plt

    backend = plt.get_backend()
    problem = f"matplotlib's backend here is {backend!r}"
    if backend.lower() not in WINDOWLESS:
        for candidate in dict.fromkeys((backend, "tkagg")):
            problem = _problem_with_windows(candidate)
            if not problem:
                plt.switch_backend(candidate)
                return
    raise SettingError(
        f"no window can be opened on this machine ({problem}); explore in a web browser, also "
        "that of another machine: `with args.browser=True`, or write a picture: "
        "`with mainplot.save_path=map.png`"
    )


def _problem_with_windows(backend):
    """Why a backend opens no window; empty where it does."""
    probe = subprocess.run(
        [sys.executable, "-c", "import matplotlib.pyplot as plt; plt.figure()"],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
    )
    if probe.returncode == 0:
        return ""
    return (probe.stderr.strip() or f"{backend} ended with {probe.returncode}").splitlines()[-1]


def show_explorer(make):
    """Open the explorer, which `make` gives for `windows`, and wait until its window is closed.

    Call `require_display` first.
    """
    import matplotlib.pyplot as plt

    explorer = make(windows=Windows(window_figure, close_window, copy_text))
    explorer.map.figure.canvas.mpl_connect("close_event", lambda event: plt.close("all"))
    # a toolkit's loop lets Python run, and so see a signal, only when something happens
    heartbeat = explorer.map.figure.canvas.new_timer(interval=200)
    heartbeat.add_callback(lambda: None)
    heartbeat.start()
    with _stops_close(plt):
        plt.show()


def write_pictures(log, explorer, path, segment=None):
    """Write the map, and beside it neighbours and overview of a segment, those of the first Query.

    The suffix of the path names the format; `segment` is a row. A SettingError names what cannot be
    written.
    """
    path, todo = Path(path), [(explorer.save, (), "")]
    if segment is not None:
        todo.append((explorer.save_neighbours, (segment,), f"_neighbours_{segment}"))
        todo.append((explorer.save_overview, (segment,), f"_overview_{segment}"))
    if explorer.asking.has_shown():
        todo.append((explorer.save_neighbours, (OUTSIDE,), "_query"))
    for save, row, what in todo:
        place = path.with_name(f"{path.stem}{what}{path.suffix}")
        try:
            save(*row, place)
        except OSError as error:
            raise SettingError(
                f"{place} of `mainplot.save_path` cannot be made: {error}"
            ) from error
        log.info("wrote %s", place)


@contextmanager
def _stops_close(plt):
    """Let signals close the windows: a toolkit swallows what a signal's handler raises in it."""
    received = []

    def close(number, _frame):
        received.append(number)
        plt.close("all")

    numbers = [number for number in STOPS if number != signal.SIGINT]  # which Matplotlib heeds
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, close) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    if received:
        signal.raise_signal(received[0])
