"""Figures that are only looked at, or saved: a whole image, the overview, the elbow curve.

`new_figure` is a function of (size in inches, title), see `display.Windows`.
"""

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from PIL import Image

from src import pictures
from src.discover.colours import BLUE
from src.discover.panel import INK, MUTED
from src.discover.quick import Words
from src.store.files import whole_file
from src.store.reports import DPI, missing_letters_told

TITLE_IN = 0.6  # of two lines


def draw_image(new_figure, picture, title):
    """Figure of a picture (H, W, 3) uint8 below a title of two lines."""
    height, width = picture.shape[:2]
    figure = new_figure(_window_size(width / height, TITLE_IN), "Image")
    _write(figure, 0.5, 1 - 0.15 / figure.get_figheight(), title)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98 - TITLE_IN / figure.get_figheight()))
    axes.set_axis_off()
    _put(axes, picture)
    return figure


def draw_overview(new_figure, panels, title):
    """Figure of the four panels of `pictures.overview_panels`, the heat maps with their scales."""
    height, width = next(iter(panels.values())).shape[:2]
    figure = new_figure(_window_size(width / height, TITLE_IN), "Overview")
    top = 1 - TITLE_IN / figure.get_figheight()
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1, rect=(0, 0, 1, top))
    _write(figure, 0.5, 1 - 0.15 / figure.get_figheight(), title)
    scales = {"Entropy": pictures.ENTROPY_COLOURS, "Predicted": pictures.IOU_COLOURS}
    for number, (name, picture) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(2, 2, number, xticks=[], yticks=[])
        axes.set_title(name, fontsize=11, color=INK)
        _put(axes, picture)
        if number <= 2:  # heat maps
            bar = figure.colorbar(
                ScalarMappable(cmap=scales[name.split(" ", 1)[0]]),
                cax=axes.inset_axes((1.015, 0, 0.02, 1)),
            )
            bar.ax.tick_params(labelsize=8, colors=MUTED)
    return figure


def draw_elbow(new_figure, counts, inertias):
    """Figure of what k-means leaves for each number of clusters."""
    figure = new_figure((7, 5.2), "Elbow")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1, rect=(0, 0.16, 1, 0.84))
    _write(figure, 0.5, 0.15, "")
    axes = figure.add_subplot()
    axes.plot(counts, inertias, "o-", color=np.array(BLUE) / 255)
    axes.set_title("k-means: choose the number of clusters at the bend", color=INK, fontsize=11)
    axes.set(xlabel="number of clusters", ylabel="sum of squared distances", xticks=counts)
    axes.grid(alpha=0.3)
    axes.set_facecolor("white")
    return figure


def show_question(figure, text):
    """Show in `draw_elbow`'s figure what is asked; an empty text takes it away."""
    (words,) = figure.artists
    words.set_text(text)
    figure.canvas.draw_idle()


def present(figure):
    """Show a figure's window, if it has one."""
    if figure.canvas.manager is not None:
        figure.canvas.manager.show()
    figure.canvas.draw_idle()


def save_figure(figure, path):
    """Write a figure, whole or not at all; the suffix names the format, folders are made."""
    with missing_letters_told(path), whole_file(path) as part:
        figure.savefig(part, dpi=DPI, format=Path(path).suffix[1:])


def save_picture(picture, path):
    """Write a picture (H, W, 3) uint8 as PNG, whole or not at all; folders are made as needed."""
    with whole_file(path) as part:
        Image.fromarray(picture).save(part, "PNG")


def _write(figure, x, y, text):
    place = {"horizontalalignment": "center", "verticalalignment": "top"}
    words = figure.add_artist(Words(x, y, text, fontsize=11, color=INK, **place))
    words.room = 0.97
    return words


def _put(axes, picture):
    """Show a picture; the toolbar tells no coordinates and colours of it."""
    axes.imshow(picture).set_mouseover(False)
    axes.format_coord = no_coordinates


def no_coordinates(x, y):
    """What the toolbar tells of a place: nothing, the windows have status lines."""
    return ""


def _window_size(aspect, title_in):
    """Inches of a window for a picture `aspect` times as wide as high, below a title."""
    width = min(13.0, 8.0 * aspect)
    return width, width / aspect + title_in
