"""The explorer's windows: events and state; numbers and pictures are made elsewhere."""

import math
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from scipy.spatial import KDTree

from src import cache, embedding_space, pictures
from src.datasets import read_image
from src.loading import SettingError
from src.records import NO_LABEL

PAPER, INK, MUTED = "#fbfbfd", "#1f2430", "#6b7280"
BLUE = (31, 119, 180)
GREY = (170, 174, 182)  # points without a label
DENSITY_COLOURS = LinearSegmentedColormap.from_list("density", ["#5b8fd600", "#5b8fd6b0"])
DENSITY_GRID = 100  # cells a side
LEGEND_ROWS = 28
SHEET_ROOM = np.array((0.012, 0.075, 0.976, 0.855))  # left, lower, width, height in the window
MAX_ELBOW_CLUSTERS = 20
MAP_SIZE_IN = GRID_SIZE_IN = (12.0, 8.0)
MAX_CELL_PX, CAPTION_SHARE = 200, 0.27  # of a thumbnail in a sheet; its caption's height
TIP_PX, TIP_GAP_PX = 150, 18
WINDOWLESS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
BY_TRUTH, BY_PREDICTION, ALL_BLUE, BY_CLUSTER = "true class", "predicted class", "blue", "cluster"

KEYS = {
    "m": "next_metric",
    "g": "colour_by_truth",
    "h": "colour_by_prediction",
    "b": "colour_blue",
    "d": "toggle_density",
    "c": "ask_clusters",
    "#": "next_algorithm",
    "?": "toggle_help",
    "f1": "toggle_help",
    "escape": "close_help",
}
HELP = """\
pointer             thumbnail and facts of a segment
left button         the full image, the segment in a red box
middle button       entropy, predicted IoU, ground truth, prediction
right button        nearest neighbours of the segment
wheel               more or fewer neighbours
Ctrl + left/middle  the same picture saved to disk
t + left            only the segment's crop saved to disk
m                   next distance metric
g / h / b           colour by true class, predicted class, all blue
d                   density behind the points, on or off
c                   cluster the segments (asks for the number)
#                   next clustering algorithm
? or F1             these commands, on or off"""


class ImageFiles:
    """Reads what belongs to the images of an embeddings table, when it is asked for.

    Parameters
    ----------
    io_path : path
        The results folder that stages 1 and 2 wrote to.
    """

    def __init__(self, io_path):
        self.io_path = Path(io_path)

    def image(self, path):
        """The picture that was segmented, (H, W, 3) uint8."""
        return np.array(read_image(path))

    def prediction(self, model, dataset, index):
        """Stage 1's `Prediction` of one image."""
        return cache.read_prediction(cache.prediction_path(self.io_path, model, dataset, index))

    def components(self, model, dataset, index):
        """Stage 2's component map of one image, (H, W) int32."""
        return cache.read_components(cache.components_path(self.io_path, model, dataset, index))


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
    return figure


def require_display():
    """Check that windows can be opened here, by matplotlib's own choice of toolkit or by Tk.

    A toolkit is tried in a process of its own, because Qt aborts where it finds no display or
    lacks a system library.

    Raises
    ------
    SettingError
        If not; says how to get a picture instead.
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
        f"no window can be opened on this machine ({problem}); run it where there is a display "
        "and Tk or Qt for Python, or write a picture: `with mainplot.save_path=map.png`"
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


def show_explorer(*args, **kwargs):
    """Open the explorer in a window and wait until that is closed.

    Takes the arguments of `Explorer`. Call `require_display` first.
    """
    import matplotlib.pyplot as plt

    explorer = Explorer(*args, **kwargs, new_figure=window_figure)
    explorer.map.figure.canvas.mpl_connect("close_event", lambda event: plt.close("all"))
    # a toolkit's loop lets Python run, and so see a signal, only when something happens
    heartbeat = explorer.map.figure.canvas.new_timer(interval=200)
    heartbeat.add_callback(lambda: None)
    heartbeat.start()
    with _sigterm_closes(plt):
        plt.show()


@contextmanager
def _sigterm_closes(plt):
    """Let SIGTERM close the windows: a toolkit swallows what a signal's handler raises in it."""
    received = []

    def close(number, _frame):
        received.append(number)
        plt.close("all")

    before = signal.signal(signal.SIGTERM, close)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if received:
        signal.raise_signal(signal.SIGTERM)


class View:
    """One window: a figure and what changes over it without redrawing it.

    Over the picture lie a thumbnail beside the pointer, two status lines and a banner in the
    middle. They are drawn onto a copy of the finished picture, which takes milliseconds however
    many points there are.
    """

    def __init__(self, figure):
        self.figure = figure
        line = {"fontsize": 9.5, "color": INK, "animated": True, "parse_math": False}
        self.status = figure.text(0.012, 0.038, "", **line)
        self.message = figure.text(0.012, 0.013, "", **{**line, "color": MUTED})
        self.state = figure.text(0.988, 0.013, "", ha="right", **{**line, "color": MUTED})
        paper = {"boxstyle": "round,pad=1", "facecolor": "white", "edgecolor": MUTED}
        self.banner = figure.text(
            0.5, 0.52, "", ha="center", va="center", ma="left", bbox=paper, visible=False,
            zorder=20, **{**line, "fontsize": 11, "family": "monospace", "linespacing": 1.5},
        )  # fmt: skip
        self.tip = figure.add_axes(
            (0, 0, 0.1, 0.1), xticks=[], yticks=[], animated=True, visible=False, zorder=10
        )
        self.tip.set_navigate(False)
        self._ground = None
        figure.canvas.mpl_connect("draw_event", self._keep_ground)

    def refresh(self):
        """Draw anew what lies over the picture."""
        canvas = self.figure.canvas
        if self._ground is None:
            canvas.draw_idle()
            return
        canvas.restore_region(self._ground)
        self._draw_over()
        canvas.blit(self.figure.bbox)

    def redraw(self):
        """Draw everything anew."""
        self._ground = None
        self.figure.canvas.draw_idle()

    def show_banner(self, text):
        """Put a text into the middle of the window; an empty one takes it away."""
        self.banner.set_text(text)
        self.banner.set_visible(bool(text))
        self.tip.set_visible(False)
        self.refresh()

    def show_tip(self, picture, frame, x, y):
        """Put a picture beside the pointer at pixel (x, y), inside the window."""
        ratio = self.figure.canvas.device_pixel_ratio
        height, width = picture.shape[:2]
        scale = min(TIP_PX / max(height, width), 4) * ratio
        width, height = width * scale, height * scale
        room_x, room_y = self.figure.bbox.size
        gap = TIP_GAP_PX * ratio
        left = x + gap if x + gap + width <= room_x - gap else max(x - gap - width, gap)
        lower = min(max(y - height / 2, gap), room_y - gap - height)
        self.tip.set_position((left / room_x, lower / room_y, width / room_x, height / room_y))
        for image in self.tip.images:
            image.remove()
        self.tip.imshow(picture, aspect="auto")
        for spine in self.tip.spines.values():
            spine.set(color=frame, linewidth=2.5)
        self.tip.set_visible(True)

    def _keep_ground(self, event):
        if not self.figure.canvas.is_saving():
            self._ground = self.figure.canvas.copy_from_bbox(self.figure.bbox)
            self._draw_over()

    def _draw_over(self):
        for artist in (self.status, self.message, self.state, self.tip, self.banner):
            if artist.get_visible():
                self.figure.draw_artist(artist)


class MapView(View):
    """The scatter plot of all segments, with its legend."""

    def __init__(self, figure, points, title):
        super().__init__(figure)
        self.points = np.asarray(points, np.float64)
        figure.text(0.012, 0.972, title, fontsize=13, color=INK, weight="bold", va="top")
        self.axes = figure.add_axes((0.012, 0.075, 0.766, 0.85), xticks=[], yticks=[])
        self.axes.set_facecolor("white")
        for spine in self.axes.spines.values():
            spine.set_color("#d9dce3")
        self.axes.set_aspect("equal", adjustable="datalim")
        size_pt = float(np.clip(260 / math.sqrt(len(self.points)), 2.5, 9))
        self.scatter = self.axes.scatter(
            *self.points.T, s=size_pt**2, linewidths=0.4, edgecolors="#1f243066", zorder=2
        )
        lower, upper = _extent(self.points, 0.06)
        self._set_limits((lower[0], upper[0]), (lower[1], upper[1]))
        self.reach_pt = size_pt / 2 + 3
        self.density = None
        self._legend_axes = figure.add_axes((0.79, 0.075, 0.205, 0.85))
        self._legend_axes.set_axis_off()
        self._tree, self._tree_of = None, None

    def paint(self, colours, title, entries):
        """Colour the points ((N, 3) uint8) and explain it by (name, colour, count) entries."""
        self.scatter.set_facecolors(colours / 255)
        if len(entries) > LEGEND_ROWS:
            rest = entries[LEGEND_ROWS - 1 :]
            others = (f"{len(rest)} more", None, sum(count for *_, count in rest))
            entries = [*entries[: LEGEND_ROWS - 1], others]
        handles = [_legend_handle(*entry) for entry in entries]
        self._legend_axes.legend(
            handles=handles, title=title, loc="upper left", frameon=False, fontsize=9.5,
            title_fontsize=10.5, alignment="left", borderpad=0, labelcolor=INK, handletextpad=0.3,
        )  # fmt: skip
        self.redraw()

    def show_density(self, values, extent):
        """Lay a density behind the points; None takes it away."""
        if self.density is not None:
            self.density.remove()
            self.density = None
        if values is not None:
            limits = self.axes.get_xlim(), self.axes.get_ylim()
            self.density = self.axes.imshow(
                values, extent=extent, origin="lower", cmap=DENSITY_COLOURS, zorder=1,
                aspect="equal", interpolation="bilinear",
            )  # fmt: skip
            self._set_limits(*limits)
        self.redraw()

    def row_at(self, event):
        """Row of the point under the pointer, or None."""
        if not self.axes.bbox.contains(event.x, event.y):
            return None
        distance, row = self._screen_tree().query((event.x, event.y))
        return int(row) if distance <= self.reach_pt * self.figure.dpi / 72 else None

    def wants_tip(self):
        return True

    def _set_limits(self, x, y):
        self.axes.set_xlim(x, auto=True)  # not fixed: widened to keep both axes at one scale
        self.axes.set_ylim(y, auto=True)

    def _screen_tree(self):
        """The points in pixels, for the part of the map that shows now."""
        shown = self.axes.transData.frozen().get_matrix().tobytes()
        if shown != self._tree_of:
            self._tree = KDTree(self.axes.transData.transform(self.points))
            self._tree_of = shown
        return self._tree


class GridView(View):
    """A segment and its nearest neighbours as a sheet of thumbnails."""

    def __init__(self, figure):
        super().__init__(figure)
        self.axes = figure.add_axes(SHEET_ROOM)
        self.axes.set_axis_off()
        self.title = figure.text(
            0.012, 0.972, "", fontsize=12, color=INK, weight="bold", va="top", parse_math=False
        )
        self.query = None
        self.rows = []  # of the table, the query first
        self.distances = []
        self.cell = (1, 1, 0)  # columns, thumbnail side and caption height in pixels

    def layout(self, count):
        """Columns, thumbnail side and caption height (pixels) that show `count` cells largest."""
        width, height = self.figure.bbox.size * SHEET_ROOM[2:]

        def side(columns):
            rows = math.ceil(count / columns)
            return int(min(width / columns, height / rows / (1 + CAPTION_SHARE)))

        columns = max(range(1, count + 1), key=side)
        largest = MAX_CELL_PX * self.figure.canvas.device_pixel_ratio
        side_px = max(8, int(min(side(columns), largest)))
        return columns, side_px, int(CAPTION_SHARE * side_px)

    def fill(self, rows, distances, title, sheet, captions, cell):
        """Show a sheet of thumbnails, pixel by pixel; the first is the query.

        `cell` is (columns, side, caption height) of the sheet, as from `layout`.
        """
        self.query, self.rows, self.distances, self.cell = int(rows[0]), rows, distances, cell
        self.title.set_text(title)
        self.tip.set_visible(False)
        for artist in (*self.axes.images, *self.axes.texts):
            artist.remove()
        size = sheet.shape[1::-1] / self.figure.bbox.size
        left, top = SHEET_ROOM[0] + (SHEET_ROOM[2] - size[0]) / 2, SHEET_ROOM[1] + SHEET_ROOM[3]
        self.axes.set_position((left, top - size[1], *size))
        self.axes.imshow(sheet, aspect="auto", extent=(0, sheet.shape[1], sheet.shape[0], 0))
        columns, side, height = cell
        font_pt = min(0.33 * height * 72 / self.figure.dpi, 11)
        for number, caption in enumerate(captions):
            x, y = number % columns * side, number // columns * (side + height)
            self.axes.text(
                x + side / 2, y + side - side / 40, caption, ha="center", va="top",
                fontsize=font_pt, color=INK, linespacing=1.2, parse_math=False,
                weight="bold" if number == 0 else "normal",
            )  # fmt: skip
        self.redraw()

    def row_at(self, event):
        """Row of the table whose thumbnail is under the pointer, or None."""
        if not self.axes.bbox.contains(event.x, event.y):
            return None
        x, y = self.axes.transData.inverted().transform((event.x, event.y))
        columns, side, height = self.cell
        number = int(y // (side + height)) * columns + min(int(x // side), columns - 1)
        return int(self.rows[number]) if number < len(self.rows) else None

    def distance_of(self, row):
        """Distance of a shown row from the query."""
        return float(self.distances[list(self.rows).index(row)])

    def wants_tip(self):
        """Whether the sheet's own thumbnails have become too small to see."""
        return self.cell[1] < 0.6 * TIP_PX * self.figure.canvas.device_pixel_ratio


class Explorer:
    """The map of all segments, the windows that open from it, and what the user has chosen.

    Parameters
    ----------
    table : dict
        Embeddings table of stage 4 with `plot_embeddings` (N, 2) and `nn_embeddings` (N, D),
        N >= 1.
    label_mapping, pred_mapping : dict of int to (str, (int, int, int))
        Names and RGB colours of the true and of the predicted classes.
    files : ImageFiles
        Reads whole images when they are asked for.
    out_dir : path
        Folder for the pictures saved by mouse.
    metric : {"euclid", "cos"}
    n_neighbours : int
        Neighbours shown at first.
    seed : int
        Of the clustering.
    new_figure : function of (size in inches, title)
        `window_figure` for windows, `picture_figure` for a machine without a display.

    Raises
    ------
    ValueError
        If the table has no segment, or the metric is unknown.
    """

    def __init__(
        self,
        table,
        label_mapping,
        pred_mapping,
        files,
        out_dir,
        *,
        metric="euclid",
        n_neighbours=24,
        seed=0,
        new_figure=picture_figure,
    ):
        if not len(table["plot_embeddings"]):
            raise ValueError("the embeddings table has no segment, so there is nothing to show")
        if metric not in embedding_space.METRICS:
            raise ValueError(f"`metric` must be one of {embedding_space.METRICS}, got {metric!r}")
        self.table, self.files, self.out_dir = table, files, Path(out_dir)
        self.label_mapping, self.pred_mapping = label_mapping, pred_mapping
        self.metric, self.seed = metric, seed
        self.algorithm = embedding_space.ALGORITHMS[0]
        self.n_segments = len(table["plot_embeddings"])
        self.n_neighbours = max(1, min(n_neighbours, self.n_segments - 1))
        self.clusters = None  # (N,) from 0, after the first clustering
        self.answer = None  # what has been typed, while the number of clusters is asked for
        self.held = set()  # keys that are down
        self._new_figure = new_figure
        self._asking = None  # the window with the question
        self.grids = []
        title = self._map_title()
        self.map = MapView(
            new_figure(MAP_SIZE_IN, "Embedding space"), table["plot_embeddings"], title
        )
        self._connect(self.map)
        known = (np.asarray(table["gt"]) != NO_LABEL).any()
        self._colour(BY_TRUTH if known else BY_PREDICTION)
        self._say("? shows all commands")

    # pictures without a window

    def save(self, path):
        """Write the map with its legend as a picture; the suffix names the format."""
        _save_figure(self.map.figure, path)

    def save_neighbours(self, row, path):
        """Write the sheet of a segment's nearest neighbours as a picture."""
        grid = GridView(picture_figure(GRID_SIZE_IN, ""))
        self._fill(grid, row)
        _save_figure(grid.figure, path)

    def save_overview(self, row, path):
        """Write the four-panel overview of a segment as a picture."""
        _save_figure(self._overview(row, picture_figure), path)

    def save_image(self, row, path):
        """Write the full image with the segment in a red box, pixel by pixel."""
        _save_picture(self._boxed_image(row), path)

    def save_crop(self, row, path):
        """Write the segment's box cut out of its image, pixel by pixel."""
        image = self.files.image(self._of_image(row, "image_path"))
        _save_picture(pictures.crop(image, self.table["box"][row]), path)

    # pictures in windows

    def show_image(self, row):
        """Open the full image with the segment in a red box."""
        picture = self._boxed_image(row)
        height, width = picture.shape[:2]
        figure = self._new_figure(_window_size(width / height, 0.5), "Image")
        _title(figure, self.describe(row))
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98 - 0.45 / figure.get_figheight()))
        axes.set_axis_off()
        axes.imshow(picture)
        _present(figure)

    def show_overview(self, row):
        """Open the four-panel overview of a segment."""
        _present(self._overview(row, self._new_figure))

    def show_neighbours(self, row, grid=None):
        """Open a segment's nearest neighbours in a new grid window, or in the one given."""
        if self.n_segments == 1:
            self._say("this is the only segment: it has no neighbours")
            return
        if grid is None:
            grid = GridView(self._new_figure(GRID_SIZE_IN, "Nearest neighbours"))
            self.grids.append(grid)
            self._connect(grid)
            _present(grid.figure)
        self._fill(grid, row)
        self._say(f"{self.n_neighbours} nearest neighbours ({self.metric})")

    # commands of the keyboard

    def colour_by_truth(self):
        """Colour by the most frequent true class of each segment."""
        if (np.asarray(self.table["gt"]) == NO_LABEL).all():
            self._say("no segment has a ground truth, so there is nothing to colour by")
        else:
            self._colour(BY_TRUTH)
            self._say("coloured by true class")

    def colour_by_prediction(self):
        """Colour by predicted class."""
        self._colour(BY_PREDICTION)
        self._say("coloured by predicted class")

    def colour_blue(self):
        """Give all points one blue."""
        self._colour(ALL_BLUE)
        self._say("all segments blue")

    def next_metric(self):
        """Go to the next distance metric; open grids are searched anew."""
        self.metric = _next(embedding_space.METRICS, self.metric)
        self._fill_grids()
        self._say(f"distance metric: {self.metric}")

    def next_algorithm(self):
        """Go to the next clustering algorithm."""
        self.algorithm = _next(embedding_space.ALGORITHMS, self.algorithm)
        self._say(f"clustering algorithm: {self.algorithm}")

    def change_neighbours(self, by):
        """Show more or fewer neighbours from now on, and in the open grids."""
        highest = max(1, self.n_segments - 1)
        count = min(max(self.n_neighbours + by, 1), highest)
        if count != self.n_neighbours:
            self.n_neighbours = count
            self._fill_grids()
        self._say(f"neighbours: {self.n_neighbours} (of at most {highest})")

    def toggle_density(self):
        """Lay the density behind the points, or take it away."""
        if self.map.density is not None:
            self.map.show_density(None, None)
            self._say("density off")
            return
        self._busy(self.map, "estimating the density ...")
        lower, upper = _extent(self.map.points, 0.5)
        x, y = np.linspace(lower, upper, DENSITY_GRID).T
        values = embedding_space.density(self.map.points, (x, y))
        self.map.show_banner("")
        self.map.show_density(values, (lower[0], upper[0], lower[1], upper[1]))
        self._say("density on")

    def ask_clusters(self, view=None):
        """Ask in the window for the number of clusters; typed keys are the answer."""
        self.answer, self._asking = "", view or self.map
        self._show_question()

    def toggle_help(self, view=None):
        """Show all commands, or hide them."""
        view = view or self.map
        view.show_banner("" if view.banner.get_visible() else HELP)

    def close_help(self, view=None):
        """Hide the commands."""
        (view or self.map).show_banner("")

    # facts about a segment

    def describe(self, row):
        """One line about a segment: where it comes from, its classes, its predicted IoU."""
        parts = [
            f"{self._of_image(row, 'dataset')}",
            f"image {self._of_image(row, 'image_index')}",
            f"segment {self.table['component_index'][row]}",
            self._classes(row),
            f"predicted IoU {self.table['iou'][row]:.2f}",
        ]
        return "  ·  ".join(parts)

    def _classes(self, row):
        predicted = _name(self.table["pred"][row], self.pred_mapping)
        return f"predicted {predicted}, true {_name(self.table['gt'][row], self.label_mapping)}"

    # events

    def _connect(self, view):
        canvas = view.figure.canvas
        if canvas.manager is not None and canvas.manager.key_press_handler_id is not None:
            # In these windows the keys are the explorer's, not matplotlib's.
            canvas.mpl_disconnect(canvas.manager.key_press_handler_id)
        for name, handler in {
            "motion_notify_event": self._on_move,
            "button_press_event": self._on_press,
            "scroll_event": self._on_scroll,
            "key_press_event": self._on_key,
            "key_release_event": self._on_release,
            "figure_leave_event": self._on_leave,
            "resize_event": self._on_resize,
            "close_event": self._on_close,
        }.items():
            canvas.mpl_connect(name, partial(handler, view))

    def _on_move(self, view, event):
        row = view.row_at(event)
        view.tip.set_visible(False)
        if row is None:
            view.status.set_text("")
        else:
            text = self.describe(row)
            if view is not self.map:
                text += f"  ·  distance {view.distance_of(row):.4g}"
            view.status.set_text(text)
            if view.wants_tip():
                picture = pictures.decode(self.table["thumbnail"][row])
                view.show_tip(picture, self._colours[row] / 255, event.x, event.y)
        view.refresh()

    def _on_press(self, view, event):
        toolbar = view.figure.canvas.toolbar
        if event.dblclick or (toolbar is not None and toolbar.mode):
            return  # the second half of a double click; matplotlib's pan or zoom
        row = view.row_at(event)
        if row is None:
            return
        save = bool(event.modifiers & {"ctrl", "cmd", "super"})
        try:
            self._click(view, row, int(event.button), save)
        except (OSError, ValueError) as error:
            self._say(f"cannot show this: {error}")

    def _click(self, view, row, button, save):
        if button == 1 and "t" in self.held and self.answer is None:
            self._save(self.save_crop, row, "crop")
        elif button == 1 and save:
            self._save(self.save_image, row, "image")
        elif button == 1:
            self.show_image(row)
        elif button == 2 and save:
            self._save(self.save_overview, row, "overview")
        elif button == 2:
            self.show_overview(row)
        elif button == 3:
            self.show_neighbours(row, None if view is self.map else view)

    def _on_scroll(self, view, event):
        self.change_neighbours(1 if event.step > 0 else -1)

    def _on_key(self, view, event):
        if not event.key:
            return
        key = _plain(event.key)
        self.held.add(key)
        if self.answer is not None:
            self._type(key)
        elif key in KEYS and not {"ctrl", "cmd", "super"} & set(event.key.split("+")[:-1]):
            command = getattr(self, KEYS[key])
            command(view) if key in ("c", "?", "f1", "escape") else command()

    def _on_release(self, view, event):
        if event.key:
            self.held.discard(_plain(event.key))

    def _on_leave(self, view, event):
        self.held.clear()  # a key let go elsewhere is not reported here
        view.tip.set_visible(False)
        view.refresh()

    def _on_resize(self, view, event):
        view.tip.set_visible(False)
        if view is not self.map and view.query is not None:
            self._fill(view, view.query)

    def _on_close(self, view, event):
        if self._asking is view:
            self.answer = self._asking = None
        if view in self.grids:
            self.grids.remove(view)

    # the question for the number of clusters

    def _type(self, key):
        if key == "escape":
            self._end_question()
            self._say("clustering cancelled")
        elif key == "enter":
            self._take_answer(self.answer.strip())
        elif key == "backspace":
            self.answer = self.answer[:-1]
            self._show_question()
        elif len(key) == 1:
            self.answer += key
            self._show_question()

    def _take_answer(self, answer):
        if answer == "elbow" and self.algorithm == "k-means":
            self._show_elbow()
        elif answer.isdecimal() and 1 <= int(answer) <= self.n_segments:
            view = self._asking
            self._busy(view, f"clustering with {self.algorithm} ...")
            self.clusters = embedding_space.cluster(
                self.table["nn_embeddings"], self.algorithm, int(answer), self.seed
            )
            self._end_question()
            self._colour(BY_CLUSTER)
            self._say(f"{self.clusters.max() + 1} clusters by {self.algorithm}")
        else:
            self.answer = ""
            elbow = answer == "elbow"
            problem = (
                "`elbow` needs k-means" if elbow else f"{answer!r} is not a number of clusters"
            )
            self._show_question(problem)

    def _show_elbow(self):
        self._busy(self._asking, "drawing the elbow curve ...")
        counts = np.arange(1, min(MAX_ELBOW_CLUSTERS, self.n_segments) + 1)
        inertias = embedding_space.elbow(self.table["nn_embeddings"], counts, self.seed)
        figure = self._new_figure((7, 4.5), "Elbow")
        _draw_elbow(figure, counts, inertias)
        manager = figure.canvas.manager
        if manager is not None and manager.key_press_handler_id is not None:
            figure.canvas.mpl_disconnect(manager.key_press_handler_id)
        # The new window may get the keyboard, but the answer belongs to the question.
        figure.canvas.mpl_connect("key_press_event", partial(self._on_key, self._asking))
        _present(figure)
        self.answer = ""
        self._show_question()

    def _show_question(self, problem=""):
        hint = " or `elbow`" if self.algorithm == "k-means" else ""
        lines = [
            f"Number of clusters ({self.algorithm}): {self.answer}▏",
            f"a whole number from 1 to {self.n_segments}{hint}",
            "Enter: go   Escape: cancel",
        ]
        self._asking.show_banner("\n".join([problem, *lines] if problem else lines))

    def _end_question(self):
        view, self.answer, self._asking = self._asking, None, None
        view.show_banner("")

    # colours

    def _colour(self, mode):
        self.colouring = mode
        ids, mapping, title = {
            BY_TRUTH: (self.table["gt"], self.label_mapping, "True class"),
            BY_PREDICTION: (self.table["pred"], self.pred_mapping, "Predicted class"),
            ALL_BLUE: (np.zeros(self.n_segments, int), {0: ("all segments", BLUE)}, "Segments"),
            BY_CLUSTER: (self.clusters, self._cluster_mapping(), "Cluster"),
        }[mode]
        ids, rows, counts = np.unique(ids, return_inverse=True, return_counts=True)
        palette = np.array([mapping.get(i, ("", GREY))[1] for i in ids], np.uint8)
        self._colours = palette[rows.reshape(-1)]
        names = [_name(i, mapping) for i in ids]
        order = np.argsort(-counts, kind="stable") if mode != BY_CLUSTER else range(len(ids))
        entries = [(names[i], palette[i], int(counts[i])) for i in order]
        self.map.paint(self._colours, title, entries)
        self._fill_grids()

    def _cluster_mapping(self):
        count = 0 if self.clusters is None else int(self.clusters.max()) + 1
        colours = pictures.distinct_colours(count)
        return {number: (f"cluster {number + 1}", rgb) for number, rgb in enumerate(colours)}

    # the neighbour grids

    def _fill_grids(self):
        for grid in self.grids:
            self._fill(grid, grid.query)

    def _fill(self, grid, query):
        rows, distances = embedding_space.neighbours(
            self.table["nn_embeddings"], query, self.n_neighbours, self.metric
        )
        rows, distances = np.r_[query, rows], np.r_[0.0, distances]
        columns, side, height = cell = grid.layout(len(rows))
        sheet = pictures.thumbnail_sheet(
            [self.table["thumbnail"][row] for row in rows],
            columns,
            [tuple(map(int, self._colours[row])) for row in rows],
            side,
            height,
            ground=PAPER,
        )
        captions = [self._caption(*pair) for pair in zip(rows, distances, strict=True)]
        captions[0] = captions[0].rsplit("\n", 1)[0] + "\nquery"
        title = (
            f"Nearest neighbours ({self.metric}) of image {self._of_image(query, 'image_index')}, "
            f"segment {self.table['component_index'][query]} ({self._classes(query)})"
        )
        grid.fill(rows, distances, title, sheet, captions, cell)
        grid.status.set_text(self.describe(query))

    def _caption(self, row, distance):
        predicted = _short(_name(self.table["pred"][row], self.pred_mapping))
        if self.table["gt"][row] == NO_LABEL:
            return f"{predicted}\n{distance:.3g}"
        true = _short(_name(self.table["gt"][row], self.label_mapping))
        return f"{true}\n→ {predicted}  {distance:.3g}"

    # whole images

    def _boxed_image(self, row):
        image = self.files.image(self._of_image(row, "image_path"))
        return pictures.draw_box(image, self.table["box"][row])

    def _overview(self, row, new_figure):
        where = [self._of_image(row, key) for key in ("model_name", "dataset", "image_index")]
        panels = pictures.overview_panels(
            self.files.image(self._of_image(row, "image_path")),
            self.files.prediction(*where),
            self.files.components(*where),
            self._of_image(row, "iou_pred"),
            self.table["box"][row],
            self.label_mapping,
            self.pred_mapping,
        )
        return _draw_panels(new_figure, panels, self.describe(row))

    def _of_image(self, row, key):
        return self.table[key][int(self.table["image_level_index"][row])]

    # small things

    def _map_title(self):
        names = ", ".join(dict.fromkeys(map(str, self.table["dataset"])))
        images = len(self.table["image_path"])
        return f"Embedding space of {names}: {self.n_segments:,} segments of {images:,} images"

    def _save(self, save, row, what):
        dataset, index = self._of_image(row, "dataset"), self._of_image(row, "image_index")
        component = self.table["component_index"][row]
        path = self.out_dir / f"{dataset}_image{index}_segment{component}_{what}.png"
        save(row, path)
        self._say(f"saved {path}")

    def _busy(self, view, text):
        view.show_banner(text)
        view.figure.canvas.flush_events()

    def _say(self, text):
        """Tell in every window what happened, and what is chosen now."""
        for view in (self.map, *self.grids):
            view.message.set_text(text)
            view.state.set_text(
                f"metric: {self.metric}   neighbours: {self.n_neighbours}   "
                f"clustering: {self.algorithm}   commands: ?"
            )
            view.refresh()


def _plain(key):
    """A key's own name: without the modifiers held with it, and not changed by Caps Lock."""
    return (key if len(key) == 1 else key.rsplit("+", 1)[-1] or "+").lower()


def _next(values, value):
    return values[(values.index(value) + 1) % len(values)]


def _name(class_id, mapping):
    unknown = "no label" if class_id == NO_LABEL else f"class {class_id}"
    return mapping.get(int(class_id), (unknown, None))[0]


def _short(text, length=15):
    return text if len(text) <= length else text[: length - 1] + "…"


def _extent(points, margin):
    """Corners around all points with a share of their span on each side."""
    lower, upper = points.min(axis=0), points.max(axis=0)
    span = upper - lower
    span[span == 0] = span.max() or 1.0
    return lower - margin * span, upper + margin * span


def _window_size(aspect, title_in):
    """Inches of a window for a picture `aspect` times as wide as high, below a title."""
    width = min(13.0, 8.0 * aspect)
    return width, width / aspect + title_in


def _legend_handle(name, colour, count):
    marker = {"marker": "o", "markersize": 8, "markeredgecolor": "#1f243066"}
    if colour is None:
        marker = {"marker": ""}
    else:
        marker["markerfacecolor"] = np.asarray(colour) / 255
    return Line2D([], [], linestyle="", label=f"{_short(name, 22)}  {count:,}", **marker)


def _title(figure, text):
    figure.text(
        0.5, 1 - 0.15 / figure.get_figheight(), text, ha="center", va="top", fontsize=11,
        color=INK, parse_math=False,
    )  # fmt: skip


def _draw_panels(new_figure, panels, title):
    height, width = next(iter(panels.values())).shape[:2]
    figure = new_figure(_window_size(width / height, 0.5), "Overview")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    scales = {"Entropy": pictures.ENTROPY_COLOURS, "Predicted": pictures.IOU_COLOURS}
    for number, (name, picture) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(2, 2, number, xticks=[], yticks=[])
        axes.set_title(name, fontsize=11, color=INK)
        axes.imshow(picture)
        if number <= 2:  # heat maps
            bar = figure.colorbar(
                ScalarMappable(cmap=scales[name.split(" ", 1)[0]]),
                cax=axes.inset_axes((1.015, 0, 0.02, 1)),
            )
            bar.ax.tick_params(labelsize=8, colors=MUTED)
    return figure


def _draw_elbow(figure, counts, inertias):
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    axes = figure.add_subplot()
    axes.plot(counts, inertias, "o-", color=np.array(BLUE) / 255)
    axes.set_title("k-means: choose the number of clusters at the bend", color=INK, fontsize=11)
    axes.set(xlabel="number of clusters", ylabel="sum of squared distances", xticks=counts)
    axes.grid(alpha=0.3)
    axes.set_facecolor("white")


def _present(figure):
    if figure.canvas.manager is not None:
        figure.canvas.manager.show()
    figure.canvas.draw_idle()


def _save_figure(figure, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _save_picture(picture, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
