"""The explorer: every command by synthetic events, without a display."""

import csv
import json
import re
import threading
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from factories import object_table
from matplotlib.backend_bases import (
    CloseEvent,
    FigureCanvasBase,
    KeyEvent,
    MouseEvent,
    NavigationToolbar2,
    ResizeEvent,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from src import pictures
from src.discover import colours, explorer, grouping, sheets, state
from src.discover.commands import COMMANDS, KEYS
from src.discover.display import Windows, close_window, require_display, window_figure
from src.discover.events import BUTTONS
from src.discover.explorer import Explorer
from src.discover.export import export_segments
from src.discover.panel import ACTIVE, TOOL_CHIPS
from src.discover.query import Query
from src.discover.segments import Segments
from src.discover.views import HIDDEN, OUTSIDE, levels_holding
from src.embedding import duplicates
from src.embedding import space as embedding_space
from src.errors import SettingError
from src.records import ObjectTable, Prediction
from src.store.arrays import write_components, write_prediction
from src.store.groups import read_groups, write_groups
from src.store.paths import Results, groups_path, tags_path
from src.store.tables import as_column
from src.store.tags import change_tags, read_tags

REPOSITORY = Path(__file__).resolve().parents[1]
PRED = {0: ("road", (128, 64, 128)), 13: ("car", (0, 0, 142))}
LABEL = {**PRED, 30: ("sofa", (200, 100, 50)), 31: ("boat", (20, 180, 90))}
ALLEY_LABEL = {7: ("sofa", (1, 2, 3)), 13: ("crate", (90, 90, 0))}  # other ids, a common name
SHADES = [20, 60, 100, 140, 180, 220]  # the grey of each segment and of its thumbnail
SOFA, BOAT, CAR, ROAD = map(tuple, colours.palette(4).tolist())  # as frequent: true, predicted
PLACES = np.array([(0, 0), (1, 0), (0, 3), (5, 0), (5, 4), (9, 9)], np.float32)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder and its embeddings table: two images of three segments."""
    folder = tmp_path_factory.mktemp("results")
    boxes = [(4, 8, 14, 20), (20, 8, 36, 24), (40, 4, 60, 28)]
    for index in range(2):
        image = np.zeros((32, 64, 3), np.uint8)
        components = np.ones((32, 64), np.int32)
        for k, (left, upper, right, lower) in enumerate(boxes):
            image[upper:lower, left:right] = SHADES[3 * index + k]
            components[upper:lower, left:right] = k + 2
        Image.fromarray(image).save(folder / f"picture{index}.png")
        prediction = Prediction(
            np.full((32, 64, 2), 0.5, np.float32),
            np.zeros((32, 64), np.uint8),
            np.full((32, 64), 30, np.uint8),
            str(folder / f"picture{index}.png"),
        )
        files = Results(folder, "narrow", "streets")
        write_prediction(files.prediction(index), prediction, {})
        write_components(files.components(index), components, {})
    table = object_table(
        6,
        image_path=[str(folder / f"picture{index}.png") for index in (0, 0, 0, 1, 1, 1)],
        model_name="narrow",
        image_index=[0, 0, 0, 1, 1, 1],
        image_predicted_iou=[np.array([0.9, 0.1, 0.2, 0.3], np.float32)] * 6,
        box=boxes * 2,
        component_index=[2, 3, 4] * 2,
        true_id=[30, 30, 31, 31, 13, 255],
        predicted_id=[0, 13, 0, 13, 0, 13],
        predicted_iou=np.array([0.1, 0.2, 0.3] * 2, np.float32),
        embeddings=np.c_[PLACES[:, ::-1], np.arange(6)].astype(np.float32),
        segment_size=[120, 256, 480] * 2,
        thumbnail=[
            pictures.thumbnail(np.full((20, 20, 3), shade, np.uint8), (0, 0, 20, 20))
            for shade in SHADES
        ],
        nn_embeddings=PLACES,
        plot_embeddings=PLACES,
    )
    return folder, table


class IdleCanvas(FigureCanvasAgg):
    """Draws later, as a window does; FigureCanvasAgg draws at once, ten times in one command."""

    def draw_idle(self):
        pass


class Hand:
    """An explorer and a hand on its mouse and keyboard."""

    def __init__(self, folder, table, out_dir, **settings):
        self.opened, self.closed = [], []
        self.clipboard, self.has_clipboard = None, True
        labels = {"streets": LABEL, "alleys": ALLEY_LABEL}
        self.explorer = Explorer(
            Segments(table, labels, PRED, folder),
            out_dir,
            windows=Windows(self._new_figure, self._close, self._copy),
            **settings,
        )
        self.out_dir = out_dir

    def _new_figure(self, size_in, title):
        figure = Figure(size_in, dpi=60)  # small pictures are drawn faster
        IdleCanvas(figure)
        self.opened.append((title, figure))
        return figure

    def _close(self, figure):
        self.closed.append(figure)
        figure.canvas.callbacks.process("close_event", CloseEvent("close_event", figure.canvas))

    def _copy(self, figure, text):
        self.clipboard = text
        return self.has_clipboard

    def settle(self, view=None):
        """Draw, as a window does once it has nothing else to do."""
        canvas = (view or self.map).figure.canvas
        canvas.draw()
        return np.array(canvas.buffer_rgba())

    @property
    def map(self):
        return self.explorer.map

    @property
    def grid(self):
        return self.explorer.sheets.views[-1]

    @property
    def panel(self):
        return self.map.panel

    @property
    def slider(self):
        """The one that shows."""
        (shown,) = (its for its in self.panel.ranges.values() if its.slider.active)
        return shown.slider

    def titles(self):
        return [title for title, _ in self.opened[1:]]

    def place(self, row, view):
        if view is self.map:
            return view.axes.transData.transform(view.points[row])
        number = list(view.rows).index(row)
        columns, side, caption = view.cell
        column, line = number % columns, number // columns
        left, _, _, top = view.axes.bbox.extents
        return left + (column + 0.5) * side, top - line * (side + caption) - 0.5 * side

    def mouse(self, name, row, view=None, **event):
        view = view or self.map
        x, y = self.place(row, view)
        self.send(view, MouseEvent(name, view.figure.canvas, x, y, **event))

    def click(self, row, button, view=None, **event):
        self.mouse("button_press_event", row, view, button=button, **event)

    def hover(self, row, view=None):
        self.mouse("motion_notify_event", row, view)

    def wheel(self, step, view=None):
        view = view or self.map
        self.send(view, MouseEvent("scroll_event", view.figure.canvas, 5, 5, step=step))

    def press(self, *keys, view=None):
        for key in keys:
            self.down(key, view)
            self.up(key, view)

    def click_group(self, number, **event):
        """Click on a row of the overview of groups, by its place among those that show."""
        (view,) = self.explorer.grouping.views
        place = view.axes.transData.transform((100, grouping.HEAD + (number + 0.5) * grouping.ROW))
        mouse = MouseEvent("button_press_event", view.figure.canvas, *place, button=1, **event)
        self.send(view, mouse)

    def down(self, key, view=None):
        view = view or self.map
        self.send(view, KeyEvent("key_press_event", view.figure.canvas, key))

    def up(self, key, view=None):
        view = view or self.map
        self.send(view, KeyEvent("key_release_event", view.figure.canvas, key))

    def send(self, view, event):
        view.figure.canvas.callbacks.process(event.name, event)

    def press_in(self, figure, *keys):
        """Press keys in a window that is only looked at."""
        for key in keys:
            for name in ("key_press_event", "key_release_event"):
                event = KeyEvent(name, figure.canvas, key)
                figure.canvas.callbacks.process(name, event)

    def resize(self, width_px, height_px, view=None):
        """Give a window another size and draw it."""
        view = view or self.map
        view.figure.set_size_inches(width_px / view.figure.dpi, height_px / view.figure.dpi)
        self.send(view, ResizeEvent("resize_event", view.figure.canvas))
        return self.settle(view)

    def message(self, view=None):
        return (view or self.map).message.get_text()

    def facts(self, view=None):
        """What the status line tells of a segment, without the path of its picture."""
        return (view or self.map).status.get_text().rsplit("  ·  ", 1)[0]

    def place_of(self, kind, what):
        """Pixel in the middle of what the panel shows; KeyError where it does not."""
        places = {(kind, what): place for place, kind, what in self.panel._targets}
        left, upper, right, lower = places[kind, what]
        middle = (left + right) / 2, (upper + lower) / 2
        return tuple(self.panel.axes.transData.transform(middle))

    def press_panel(self, kind, what, **event):
        event = {"button": 1} | event
        x, y = self.place_of(kind, what)
        for name in ("button_press_event", "button_release_event"):
            self.send(self.map, MouseEvent(name, self.map.figure.canvas, x, y, **event))

    def slide(self, low, high):
        """Drag the slider's left and then its right handle to a number."""
        slider = self.slider
        for old, new in zip(slider.val, (low, high), strict=True):
            moves = [("motion_notify_event", value) for value in np.linspace(old, new, 9)]
            for name, value in (
                ("button_press_event", old),
                *moves,
                ("button_release_event", new),
            ):
                x, y = slider.ax.transData.transform((value, 0.5))
                event = MouseEvent(name, slider.ax.figure.canvas, x, y, button=1)
                self.send(self.map, event)

    def draw_around(self, rows, **event):
        """Draw a square around the points, as lasso or as rectangle."""
        places = np.array([self.place(row, self.map) for row in rows])
        (left, lower), (right, upper) = places.min(axis=0) - 8, places.max(axis=0) + 8
        corners = [(left, lower), (right, lower), (right, upper), (left, upper)]
        if self.explorer.selecting.tool == "rectangle":
            corners = [corners[0], corners[2]]
        canvas = self.map.figure.canvas
        self.send(self.map, MouseEvent("button_press_event", canvas, *corners[0], 1, **event))
        for corner in corners[1:]:
            self.send(self.map, MouseEvent("motion_notify_event", canvas, *corner, **event))
        self.send(self.map, MouseEvent("button_release_event", canvas, *corners[-1], 1, **event))

    def selected(self):
        return np.flatnonzero(self.explorer.state.selected).tolist()

    def point_colours(self):
        """Colour that each point is drawn in last, (N, 3) from 0 to 255; rings do not count."""
        colours = np.full((len(self.map.points), 3), -1)
        for line in sorted(self.map.axes.lines, key=lambda line: line.get_zorder()):
            if line.get_fillstyle() != "none" and line.get_marker() in "oD":
                for point in line.get_xydata():
                    row = np.flatnonzero((self.map.points == point).all(axis=1))
                    colours[row] = np.rint(np.multiply(to_rgb(line.get_markerfacecolor()), 255))
        return colours

    def grey_points(self):
        """Rows that are filtered out, as drawn."""
        grey = np.rint(np.multiply(to_rgb(HIDDEN), 255))
        return np.flatnonzero((self.point_colours() == grey).all(axis=1)).tolist()

    def legend(self):
        content = self.panel._content
        return content.title, [f"{entry.name}  {entry.count}" for entry in content.entries]

    def saved(self):
        return sorted(path.name for path in self.out_dir.glob("*"))


@pytest.fixture
def hand(results, tmp_path):
    return Hand(*results, tmp_path / "saved")


@pytest.fixture
def two_datasets(results, tmp_path):
    """The same, but the second image is of another dataset with ids of its own."""
    folder, table = results
    names = as_column(["streets"] * 3 + ["alleys"] * 3)
    other = table.with_columns(dataset=names, true_id=np.array([30, 30, 31, 7, 13, 255]))
    return Hand(folder, other, tmp_path / "saved")


def shade_of(view):
    """Row whose grey the thumbnail beside the pointer has."""
    return int(np.argmin(np.abs(np.subtract(SHADES, view.tip.picture.mean()))))


# pointer


@pytest.mark.parametrize("row", range(6))
def test_hovering_shows_the_thumbnail_and_the_facts_of_that_segment(hand, row):
    hand.hover(row)
    assert hand.map.tip.get_visible()
    assert shade_of(hand.map) == row
    status = hand.map.status.get_text()
    assert f"streets  ·  image {row // 3}  ·  segment {row % 3 + 2}" in status
    assert ["true sofa", "true sofa", "true boat", "true boat", "true car", "true no label"][
        row
    ] in status
    assert f"predicted IoU 0.{row % 3 + 1}0" in status


@pytest.mark.parametrize("row", range(6))
def test_the_thumbnail_stays_inside_the_window_and_off_the_pointer(hand, row):
    hand.hover(row)
    left, lower, right, upper = hand.map.tip.extent
    width, height = hand.map.figure.bbox.size
    assert 0 <= left < right <= width
    assert 0 <= lower < upper <= height
    x, y = hand.place(row, hand.map)
    assert not (left <= x <= right and lower <= y <= upper)


def rest(hand):
    """Let the pointer rest until what is under it has been looked up."""
    glances = hand.explorer.events.glances
    glances.work()  # as its timer does
    glances._job[1].exception()  # waits for it
    glances.work()


def test_a_pointer_at_rest_shows_the_segment_outlined_in_its_surroundings(hand):
    hand.hover(4)
    thumbnail = hand.map.tip.picture
    rest(hand)
    shown = hand.map.tip.picture
    assert hand.map.tip.get_visible() and shown.shape != thumbnail.shape
    # the box (20, 8, 36, 24) with 16 pixels around it, as far as the image of 64 x 32 goes
    assert shown.shape == (4 * 32, 4 * 48, 3)
    is_red = (shown == pictures.RED).all(axis=-1)
    rows, columns = np.nonzero(is_red)
    assert (columns.min(), rows.min()) == (4 * 16 - 2, 4 * 8 - 2)
    assert (columns.max(), rows.max()) == (4 * 32 + 1, 4 * 24 + 1)
    assert_array_equal(shown[64, 96], [SHADES[4]] * 3)
    hand.hover(3)
    assert shade_of(hand.map) == 3  # its thumbnail, at once
    hand.hover(4)
    assert_array_equal(hand.map.tip.picture, shown)


def test_without_stage_2s_file_the_box_is_drawn_and_without_the_image_nothing_changes(
    results, tmp_path
):
    folder, table = results
    hand = Hand(tmp_path, table, tmp_path)  # no component maps here
    hand.hover(4)
    rest(hand)
    is_red = (hand.map.tip.picture == pictures.RED).all(axis=-1)
    assert is_red.any() and not is_red[64, 96]
    hand = Hand(folder, table.with_columns(image_path=as_column(["gone"] * 6)), tmp_path)
    hand.hover(4)
    before = hand.map.tip.picture
    rest(hand)
    assert hand.map.tip.get_visible()
    assert_array_equal(hand.map.tip.picture, before)


def test_hovering_over_nothing_shows_nothing(hand):
    hand.hover(0)
    hand.send(hand.map, MouseEvent("motion_notify_event", hand.map.figure.canvas, 400, 400))
    assert not hand.map.tip.get_visible()
    assert hand.map.status.get_text() == ""


def test_the_thumbnail_is_drawn_and_goes_without_a_trace(hand):
    empty = hand.settle()
    hand.hover(5)
    assert (np.asarray(hand.map.figure.canvas.buffer_rgba()) != empty).any()
    hand.send(hand.map, MouseEvent("motion_notify_event", hand.map.figure.canvas, 400, 400))
    assert_array_equal(np.asarray(hand.map.figure.canvas.buffer_rgba()), empty)


def test_points_are_found_after_zooming(hand):
    hand.map.axes.set(xlim=(4, 6), ylim=(3, 5))
    hand.map.figure.canvas.draw()
    hand.hover(4)
    assert shade_of(hand.map) == 4


# mouse buttons


def test_left_click_opens_the_image_with_a_red_box(hand):
    hand.click(4, 1)
    assert hand.titles() == ["Image"]
    figure = hand.opened[-1][1]
    picture = figure.axes[0].images[0].get_array()
    assert_array_equal(picture[16, 19], pictures.RED)
    assert picture[16, 25, 0] == SHADES[4]
    assert "image 1  ·  segment 3" in figure.artists[0].get_text()


def test_middle_click_opens_the_overview_of_four_panels(hand):
    hand.click(0, 2)
    assert hand.titles() == ["Overview"]
    figure = hand.opened[-1][1]
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        "Entropy",
        "Predicted IoU of each segment",
        "Image with ground truth",
        "Predicted classes",
    ]
    for axes in panels:
        assert_array_equal(axes.images[0].get_array()[14, 3], pictures.RED)
    assert "segment 2" in figure.artists[0].get_text()


def test_right_click_opens_the_neighbours_nearest_first(hand):
    hand.click(0, 3)
    assert hand.titles() == ["Nearest neighbours"]
    assert_array_equal(hand.grid.rows, [0, 1, 2, 3, 4, 5])
    captions = [text.get_text() for text in hand.grid.axes.texts]
    assert captions[:2] == ["sofa\nquery", "sofa\npred. car  1.0"]
    assert captions[5].startswith("no label") or captions[5] == "pred. car\n12.7"
    title = "(euclid, reduced space) of image 0, segment 2 (predicted road, true sofa)"
    assert title in hand.grid.title.get_text()


def test_a_right_click_in_the_grid_goes_on_from_there(hand):
    hand.click(0, 3)
    hand.click(5, 3, hand.grid)
    assert len(hand.explorer.sheets.views) == 1
    assert hand.grid.rows[0] == 5


def test_the_buttons_work_in_the_grid_too(hand):
    hand.click(0, 3)
    hand.hover(3, hand.grid)
    hand.press("1", view=hand.grid)
    assert "image 1  ·  segment 2" in hand.opened[-1][1].artists[0].get_text()
    hand.click(2, 2, hand.grid)
    assert "image 0  ·  segment 4" in hand.opened[-1][1].artists[0].get_text()
    hand.click(4, 1, hand.grid, modifiers=["ctrl"])
    assert hand.titles() == ["Nearest neighbours", "Image"]
    assert hand.saved() == ["streets_image1_segment3_image.png"]


def test_hovering_in_the_grid_tells_the_facts_and_the_distance(hand):
    hand.click(0, 3)
    hand.hover(2, hand.grid)
    assert hand.facts(hand.grid).endswith("distance 3")
    assert not hand.grid.tip.get_visible()  # the sheet's own thumbnails are large


@pytest.mark.parametrize(
    ("button", "name", "size"),
    [
        (1, "streets_image0_segment4_image.png", (64, 32)),
        (2, "streets_image0_segment4_overview.png", None),
    ],
)
def test_ctrl_saves_instead_of_showing(hand, button, name, size):
    hand.click(2, button, modifiers=["ctrl"])
    assert hand.titles() == []
    assert hand.saved() == [name]
    assert hand.message() == f"saved {hand.out_dir / name}"
    with Image.open(hand.out_dir / name) as picture:
        assert size is None or picture.size == size


def test_t_saves_only_the_crop(hand):
    hand.down("t")
    hand.click(2, 1)
    hand.up("t")
    assert hand.saved() == ["streets_image0_segment4_crop.png"]
    with Image.open(hand.out_dir / hand.saved()[0]) as picture:
        assert_array_equal(np.array(picture), np.full((24, 20, 3), SHADES[2]))
    hand.click(2, 1)
    assert hand.titles() == ["Image"]


def test_a_modifier_survives_when_another_key_is_let_go(hand):
    hand.down("control")
    hand.down("ctrl+t")
    hand.up("ctrl+t")
    hand.click(2, 1, modifiers=["ctrl"])
    hand.down("t")
    hand.down("ctrl+t")
    hand.up("control")
    hand.click(1, 1)
    assert hand.saved() == [
        "streets_image0_segment3_crop.png",
        "streets_image0_segment4_image.png",
    ]
    hand.up("t")
    assert not hand.explorer.events.held


def test_the_toolbars_pan_and_zoom_keep_their_clicks(hand):
    class Toolbar:
        mode = "pan/zoom"

    hand.map.figure.canvas.toolbar = Toolbar()
    for button in (1, 2, 3):
        hand.explorer.say("")
        hand.click(0, button)
        assert hand.titles() == []
        assert hand.message().startswith("the toolbar's pan or zoom is on: press its button again")
    hand.press_panel("command", state.ALL_BLUE)  # the panel is not the toolbar's
    assert hand.explorer.state.colouring == state.ALL_BLUE
    hand.map.figure.canvas.toolbar.mode = ""
    hand.click(0, 1)
    hand.click(0, 1, dblclick=True)
    assert hand.titles() == ["Image"]


def test_a_missing_image_is_told_and_the_rest_goes_on(results, tmp_path):
    folder, table = results
    missing = str(tmp_path / "gone.png")
    hand = Hand(folder, table.with_columns(image_path=as_column([missing] * 6)), tmp_path)
    hand.click(0, 1)
    assert "cannot show this" in hand.message()
    assert "gone.png" in hand.message()
    hand.hover(1)
    assert shade_of(hand.map) == 1


@pytest.mark.parametrize("button", [1, 2])
def test_a_window_with_a_picture_takes_the_same_keys_and_escape_closes_it(hand, button):
    hand.click(0, button)
    figure = hand.opened[-1][1]
    hand.press_in(figure, "b", "t")
    assert hand.explorer.state.colouring == state.ALL_BLUE
    assert not hand.explorer.events.held
    hand.press_in(figure, "c", "escape")
    assert hand.explorer.question is None and hand.closed == []
    hand.press_in(figure, "escape")
    assert hand.closed == [figure]


# windows


def test_a_picture_takes_the_window_of_the_one_before_unless_that_is_kept(hand):
    hand.click(0, 1)
    figure = hand.opened[-1][1]
    hand.click(1, 2)  # an overview, with layout and scales of its own
    assert [axes.get_title() for axes in figure.axes if axes.get_title()][0] == "Entropy"
    hand.click(2, 1)
    assert len(figure.axes) == 1 and hand.titles() == ["Image"]
    figure.canvas.draw()
    assert "image 0  ·  segment 4" in figure.artists[0].get_text()
    hand.press_in(figure, "p")
    assert hand.message() == "this window is kept: the next opens beside it"
    hand.click(3, 1)
    assert hand.titles() == ["Image", "Image"]
    assert "image 0  ·  segment 4" in figure.artists[0].get_text()
    hand.press_in(figure, "p")
    assert hand.message() == "the next takes the place of this window"
    hand.click(4, 1)
    assert "image 1  ·  segment 3" in figure.artists[0].get_text()
    assert len(hand.titles()) == 2


def test_a_closed_window_is_not_used_again(hand):
    for close in (
        lambda figure: hand.press_in(figure, "escape"),
        lambda figure: hand._close(figure),
    ):
        hand.click(0, 1)
        close(hand.opened[-1][1])
    assert hand.titles() == ["Image", "Image"]


def test_neighbours_take_the_window_of_those_before_and_backspace_goes_back(hand):
    hand.click(0, 3)
    hand.click(5, 3, hand.grid)
    hand.click(3, 3)
    assert hand.titles() == ["Nearest neighbours"]
    seen = []
    for _ in range(3):
        seen.append(int(hand.grid.rows[0]))
        hand.press("backspace", view=hand.grid)
    assert seen == [3, 5, 0]
    assert hand.message() == "nothing to go back to: it is for neighbours of neighbours"
    hand.press("p", view=hand.grid)
    hand.click(2, 3)
    assert hand.titles() == ["Nearest neighbours"] * 2
    assert [sheet.rows[0] for sheet in hand.explorer.sheets.views] == [0, 2]


def test_only_pictures_and_neighbours_can_be_kept(hand):
    hand.press("p")
    assert hand.message() == "only windows with a picture or with neighbours can be kept"


def test_escape_closes_the_top_window_of_any_kind_but_not_the_map(hand):
    hand.press("l")
    hand.draw_around([0, 1])
    hand.click(0, 3)
    hand.hover(1, hand.grid)
    hand.press("1", view=hand.grid)
    selection, neighbours, picture = (figure for _, figure in hand.opened[1:])
    hand.press("?", view=hand.explorer.sheets.views[0])
    hand.press("escape", view=hand.explorer.sheets.views[0])
    assert hand.closed == []
    hand.press_in(picture, "escape")
    hand.press("escape", view=hand.grid)
    assert hand.closed == [picture, neighbours]
    hand.press("escape", "escape")  # on the map: selecting, then the selection
    assert hand.explorer.selecting.tool == "" and hand.selected() == []
    assert hand.closed == [picture, neighbours]
    hand.press("escape", "escape")
    assert hand.closed == [picture, neighbours, selection]
    assert hand.explorer.sheets.views == []


def test_the_path_of_the_picture_shows_on_hover_and_in_titles_and_q_copies_it(hand):
    path = str(hand.explorer.table["image_path"][3])
    hand.press("q")
    assert hand.message() == "there is no segment under the pointer"
    hand.hover(3)
    assert hand.map.status.get_text().endswith(f"  ·  {path}")
    hand.press("q")
    assert (hand.clipboard, hand.message()) == (path, f"copied {path}")
    hand.click(0, 1)
    figure = hand.opened[-1][1]
    assert figure.artists[0].get_text().split("\n")[1] == hand.explorer.table["image_path"][0]
    hand.has_clipboard = False
    hand.press_in(figure, "q")
    path = str(hand.explorer.table["image_path"][0])
    assert (hand.clipboard, hand.message()) == (path, f"no clipboard here: {path}")


def test_of_a_long_path_the_end_shows_and_its_odd_signs_are_drawn(results, tmp_path):
    folder, table = results
    path = "/" + "/".join(f"folder{number}" for number in range(40)) + "/a\nb\udcff.png"
    hand = Hand(folder, table.with_columns(image_path=as_column([path] * 6)), tmp_path)
    hand.hover(3)
    status = hand.map.status
    assert "predicted IoU 0.10  ·  …/folder" in status.get_text()
    assert status.get_text().endswith("/folder39/a�b�.png")
    assert status.fitted() == [status.get_text()]  # no gap
    hand.settle()
    hand.resize(300, 300)
    hand.hover(3)
    assert status.get_text().endswith("predicted IoU 0.10")  # facts come first


# wheel, m, #


def test_the_wheel_changes_the_number_of_neighbours_within_what_exists(hand):
    assert hand.explorer.n_neighbours == 5
    hand.click(0, 3)
    for expected in (4, 3):
        hand.wheel(-1, hand.grid)
        assert hand.explorer.n_neighbours == expected
        assert len(hand.grid.rows) == expected + 1
    for _ in range(3):
        hand.wheel(-1, hand.grid)
    assert hand.explorer.n_neighbours == 1
    for _ in range(5):
        hand.wheel(1, hand.grid)
    assert hand.explorer.n_neighbours == 5
    assert hand.message() == "neighbours: 5 (of at most 5)"


def test_the_segment_under_the_pointer_is_right_after_the_grid_changed_size(hand):
    hand.click(0, 3)
    for _ in range(3):
        hand.wheel(-1, hand.grid)
    hand.hover(1, hand.grid)
    hand.press("1", view=hand.grid)
    assert "image 0  ·  segment 3" in hand.opened[-1][1].artists[0].get_text()


def test_m_goes_to_the_next_metric_and_searches_open_grids_anew(hand):
    hand.click(1, 3)
    assert hand.grid.rows[1] == 0
    hand.press("m", view=hand.grid)
    assert hand.explorer.metric == "cos"
    assert "(cos, " in hand.grid.title.get_text()
    assert hand.grid.rows[1] == 3  # the same direction, farther away
    assert "metric: cos" in hand.map.state.get_text()
    hand.press("m")
    assert hand.explorer.metric == "euclid"


def test_the_number_sign_goes_round_the_clustering_algorithms(hand):
    seen = []
    for _ in range(3):
        hand.press("#")
        seen.append(hand.explorer.clustering.algorithm)
        assert hand.message() == f"clustering algorithm: {seen[-1]}"
    assert seen == ["spectral", "agglomerative", "k-means"]


# colours


def test_g_h_and_b_colour_the_points_and_explain_it(hand):
    hand.press("h")
    assert_array_equal(hand.point_colours(), [ROAD, CAR] * 3)
    assert hand.legend() == ("Predicted class", ["road  3", "car  3"])
    hand.press("g")
    assert_array_equal(hand.point_colours(), [SOFA, SOFA, BOAT, BOAT, CAR, colours.GREY])
    assert hand.legend() == ("True class", ["sofa  2", "boat  2", "car  1", "no label  1"])
    hand.press("b")
    assert_array_equal(hand.point_colours(), [colours.BLUE] * 6)
    assert hand.legend()[1] == ["all segments  6"]


def test_classes_that_the_network_lacks_are_diamonds_and_come_first_in_the_legend(hand):
    diamonds = [line for line in hand.map.axes.lines if line.get_marker() == "D"]
    points = np.vstack([line.get_xydata() for line in diamonds])
    assert_array_equal(np.unique(points, axis=0), np.unique(PLACES[:4], axis=0))  # sofas, boats
    assert [entry.unknown for entry in hand.panel._content.entries] == [True, True, False, False]
    words = {text.get_text() for text in hand.panel.axes.texts}
    assert "◆ unknown to the net" in words
    known, unknown = sorted(hand.panel.axes.collections, key=lambda its: its.get_offsets()[0, 1])[
        ::-1
    ]
    assert_array_equal(np.rint(255 * unknown.get_facecolors()[:, :3]), [SOFA, BOAT])
    assert len(unknown.get_paths()[0]) == 5 < len(known.get_paths()[0])  # a square, a circle
    hand.press("h")
    assert {line.get_marker() for line in hand.map.axes.lines} == {"o"}
    words = {text.get_text() for text in hand.panel.axes.texts}
    assert "◆ unknown to the net" not in words


def test_a_class_name_with_a_line_break_is_one_line_of_the_legend(results, tmp_path, monkeypatch):
    monkeypatch.setitem(PRED, 13, ("car\ncoach", PRED[13][1]))
    hand = Hand(*results, tmp_path)
    hand.press("h")
    hand.settle()
    shown = [text.get_text() for text in hand.map.figure.findobj(Text)]
    assert "car coach" in shown and "car\ncoach" not in shown


def test_frames_in_the_grid_and_beside_the_pointer_follow_the_colours(hand):
    hand.click(0, 3)
    for key, colour in (("g", SOFA), ("b", colours.BLUE)):
        hand.press(key)
        sheet = hand.grid.axes.images[0].get_array()
        side = hand.grid.cell[1]
        assert_array_equal(sheet[side // 2, side // 20 + 1], colour)
        hand.hover(0)
        assert hand.map.tip.frame == colour
        left, lower, _, _ = hand.map.tip.extent
        assert_array_equal(hand.settle()[-1 - lower, left, :3], colour)


def test_without_ground_truth_the_map_shows_predictions_and_g_says_why(results, tmp_path):
    folder, table = results
    hand = Hand(folder, table.with_columns(true_id=np.full(6, 255)), tmp_path)
    assert hand.explorer.state.colouring == state.BY_PREDICTION
    hand.press("g")
    assert hand.explorer.state.colouring == state.BY_PREDICTION
    assert "no segment has a ground truth" in hand.message()


def test_keys_with_ctrl_are_no_commands(hand):
    hand.press("ctrl+b")
    assert hand.explorer.state.colouring == state.BY_TRUTH


# density and clusters


def test_d_lays_the_density_behind_the_points_and_takes_it_away(hand):
    limits = hand.map.axes.get_xlim()
    before = hand.map.axes.get_children()
    hand.press("d")
    for artist in hand.map.density:
        assert artist.get_zorder() < min(its.get_zorder() for its in hand.map.axes.lines)
    assert hand.map.axes.get_xlim() == limits
    assert hand.message() == "density on"
    hand.press("d")
    assert hand.map.density == []
    assert hand.map.axes.get_children() == before


def test_the_density_is_darkest_where_most_points_are(hand):
    def redness(x, y):
        column, line = hand.map.axes.transData.transform((x, y)).astype(int)
        return int(hand.settle()[-1 - line, column, 0])

    two, one, none = (0.5, 0.5), (9, 8.3), (2.5, 7)  # so many points are near
    assert redness(*two) == redness(*one) == redness(*none) == 255
    hand.press("d")
    assert redness(*two) < redness(*one) < redness(*none) == 255
    hand.map.axes.set(xlim=(0, 1), ylim=(0.1, 1.1))  # as the toolbar zooms
    assert redness(*two) < 200


def test_the_density_shows_structure_by_levels_that_hold_shares_of_the_points(hand):
    held = levels_holding([0.35, 0.65, 0.95, 0.99], np.array([[4.0, 2.0], [3.0, 1.0]]))
    assert_array_equal(held, [1, 3, 4])
    hand.press("d")
    filled, lines = hand.map.density
    assert len(filled.levels) == len(lines.levels) == 5
    assert (np.diff(lines.levels) > 0).all()
    outermost = lines.get_paths()[0]
    parts = [part for part in outermost.to_polygons() if len(part) > 2]
    inside = [state.inside(hand.map.points, np.asarray(part)) for part in parts]
    assert np.any(inside, axis=0).all()  # around each heap, and with gaps between them
    assert len(parts) > 1


def test_c_asks_in_the_window_and_clusters(hand):
    hand.press("c")
    assert "Number of clusters (k-means)" in hand.map.banner.get_text()
    hand.press("4", "backspace", "3", "enter")
    assert not hand.map.banner.get_visible()
    assert hand.explorer.state.colouring == state.BY_CLUSTER
    assert len(set(map(tuple, hand.point_colours()))) == 3
    assert hand.legend()[0] == "Cluster"
    assert hand.message() == "3 clusters by k-means in 3 principal components"


def test_clusters_lie_in_the_vectors_or_where_it_is_said_in_the_plane_of_the_map(results, tmp_path):
    folder, table = results
    places = np.array([[0, 0], [0, 1], [0, 2], [9, 0], [9, 1], [9, 2]], np.float32)
    vectors = np.array([[5, 0, 0], [0, 0, 0], [0, 0, 0]] * 2, np.float32)
    columns = dict(plot_embeddings=places, nn_embeddings=places, embeddings=vectors)
    hand = Hand(folder, table.with_columns(**columns), tmp_path)
    hand.press("c", "2", "enter")
    first, *others = hand.explorer.state.clusters
    assert [first == other for other in others] == [False, False, True, False, False]
    hand.press("c", *"2 map", "enter")
    first, *others = hand.explorer.state.clusters
    assert [first == other for other in others] == [True, True, False, False, False]
    assert hand.message() == "2 clusters by k-means on the map"


def test_typed_letters_are_an_answer_and_no_commands(hand):
    hand.press("c", "b", "#")
    assert hand.explorer.state.colouring == state.BY_TRUTH
    assert hand.explorer.clustering.algorithm == "k-means"
    assert "b#" in hand.map.banner.get_text()


def test_escape_cancels_the_question(hand):
    hand.press("c", "2", "escape")
    assert hand.explorer.question is None
    assert not hand.map.banner.get_visible()
    assert hand.explorer.state.clusters is None
    hand.press("b")
    assert hand.explorer.state.colouring == state.ALL_BLUE


@pytest.mark.parametrize("answer", ["0", "7", "x", "-1", "2.5", "", "2 2", "map"])
def test_a_wrong_answer_says_what_is_expected_and_asks_again(hand, answer):
    hand.press("c", *answer, "enter")
    banner = hand.map.banner.get_text()
    assert f"{answer!r} is not a number of clusters" in banner
    assert "a whole number from 1 to 6 or `elbow`" in banner
    hand.press("2", "enter")
    assert hand.explorer.state.clusters.max() == 1


def test_elbow_draws_the_curve_and_asks_again(hand):
    hand.press("c", *"elbow", "enter")
    assert hand.titles() == ["Elbow"]
    curve = hand.opened[-1][1].axes[0].lines[0]
    assert_array_equal(curve.get_xdata(), [1, 2, 3, 4, 5, 6])
    assert (np.diff(curve.get_ydata()) < 0).all()
    figure = hand.opened[-1][1]  # the keyboard may be there now
    hand.press_in(figure, "2")
    for text in (hand.map.banner.get_text(), figure.artists[0].get_text()):
        assert text.startswith("Number of clusters (k-means): 2")
    hand.press_in(figure, "enter")
    assert hand.explorer.state.clusters.max() == 1
    assert figure.artists[0].get_text() == ""


def test_a_second_elbow_replaces_the_first_and_a_closed_one_leaves_the_question(hand):
    hand.press("c", *"elbow", "enter", *"elbow", "enter")
    (_, first), (_, second) = hand.opened[1:]
    assert hand.closed == [first]
    event = CloseEvent("close_event", second.canvas)
    second.canvas.callbacks.process(event.name, event)
    hand.press("2")
    assert "2" not in second.artists[0].get_text()
    hand.press("enter")
    assert hand.explorer.state.clusters.max() == 1


def test_the_elbow_is_for_k_means_only(hand):
    hand.press("#", "c")
    assert "elbow" not in hand.map.banner.get_text()
    hand.press(*"elbow", "enter")
    assert hand.titles() == []
    assert "`elbow` needs k-means" in hand.map.banner.get_text()


def test_the_question_is_asked_in_the_window_where_the_key_was_pressed(hand):
    hand.click(0, 3)
    hand.press("c", view=hand.grid)
    assert hand.grid.banner.get_visible()
    assert not hand.map.banner.get_visible()
    hand.press("2", "enter", view=hand.grid)
    assert hand.explorer.state.colouring == state.BY_CLUSTER


def test_an_open_question_stays_until_it_is_answered_or_cancelled(hand):
    hand.press("c", "2")
    hand.click(0, 2)  # the overview announces itself in the same place
    assert "(k-means): 2" in hand.map.banner.get_text()
    assert hand.map.banner.get_visible()
    for command in ("helping.toggle", "clustering.ask"):
        hand.press_panel("command", command)
        assert "(k-means): 2" in hand.map.banner.get_text()
        assert "comes first" in hand.message()
    hand.press("enter")
    assert hand.explorer.state.clusters.max() == 1


def test_a_question_whose_window_is_closed_is_told(hand):
    hand.click(0, 3)
    hand.press("c", view=hand.grid)
    hand.send(hand.grid, CloseEvent("close_event", hand.grid.figure.canvas))
    assert hand.explorer.question is None
    assert hand.message().startswith("cancelled")


def test_any_command_closes_the_help(hand):
    for act in (
        lambda: hand.press("b"),
        lambda: hand.press("escape"),
        lambda: hand.press_panel("command", state.BY_PREDICTION),
        lambda: hand.press_panel("command", "helping.toggle"),
        lambda: hand.wheel(1),
    ):
        hand.press("?")
        assert hand.map.banner.get_visible()
        act()
        assert not hand.map.banner.get_visible()


def test_question_mark_shows_every_command_until_asked_again(hand):
    hand.press("?")
    banner = hand.map.banner.get_text()
    for press, _, does in COMMANDS:
        assert press in banner
        assert does in banner
    hand.press("?")
    assert not hand.map.banner.get_visible()


def test_a_small_page_shows_the_commands_large_enough_to_read_one_page_after_another(hand):
    hand.press("?")
    hand.resize(0.6 * 800, 0.6 * 424)
    pages = []
    while hand.map.banner.get_visible():
        hand.settle()
        assert hand.map.banner.get_fontsize() > 7.9
        pages.append(hand.map.banner.get_text())
        hand.press("?")
    assert [page.splitlines()[-1] for page in pages] == [
        "page 1 of 2; ? turns it",
        "page 2 of 2; ? turns it",
    ]
    words = " ".join("\n".join(pages).split())
    for press, _, does in COMMANDS:
        assert " ".join(f"{press} {does}".split()) in words
    hand.press("?", "?", "b", "?")
    assert hand.map.banner.get_text() == pages[0]


# colours by other things


def test_a_class_name_in_two_datasets_is_one_class(two_datasets):
    two_datasets.press("g")
    assert two_datasets.legend()[1] == ["sofa  3", "crate  1", "boat  1", "no label  1"]
    sofa = two_datasets.point_colours()[[0, 1, 3]]
    assert_array_equal(sofa, [SOFA] * 3)
    two_datasets.hover(4)
    assert "true crate" in two_datasets.map.status.get_text()  # id 13 is a car elsewhere


def test_o_colours_by_dataset(two_datasets):
    two_datasets.press("o")
    assert two_datasets.legend() == ("Dataset", ["alleys  3", "streets  3"])
    colours = two_datasets.point_colours()
    assert_array_equal(colours[:3], [colours[0]] * 3)
    assert_array_equal(colours[3:], [colours[3]] * 3)
    assert (colours[0] != colours[3]).any()


def test_i_colours_by_predicted_iou_on_a_scale(hand):
    hand.press("i")
    assert hand.legend() == ("Predicted IoU", [])
    scale = pictures.scale_colours(state.STEPS)
    low, middle, high = scale[[0, 16, 31]]  # 0.1, 0.2 and 0.3 on a scale from 0.1 to 0.3
    assert hand.explorer.segments.scales[state.BY_IOU].extent == pytest.approx((0.1, 0.3))
    assert_array_equal(hand.point_colours(), [low, middle, high] * 2)
    ticks = {text.get_text() for text in hand.panel.axes.texts}
    assert {"0.10", "0.30"} <= ticks


def test_w_colours_by_suspicion_with_the_strange_in_the_colour_of_a_low_iou(results, tmp_path):
    folder, table = results
    entropy = np.array([0.02, 0.05, 0.08, 0.02, 0.05, np.nan], np.float32)
    hand = Hand(folder, table.with_columns(suspicion=entropy), tmp_path)
    hand.press("w")
    assert hand.legend() == ("Suspicion", ["unknown  1"])
    low, middle, high = pictures.scale_colours(state.STEPS)[[0, 15, 31]]
    assert_array_equal(hand.point_colours()[:3], [high, middle, low])
    assert_array_equal(hand.point_colours()[5], colours.GREY)
    ticks = {text.get_text() for text in hand.panel.axes.texts}
    assert {"0.020", "0.080", "SUSPICION", "0.020 to 0.080"} <= ticks
    hand.hover(1)
    assert "predicted IoU 0.20  ·  suspicion 0.050" in hand.map.status.get_text()


def test_y_colours_and_ranks_by_novelty(results, tmp_path):
    folder, table = results
    novelty = np.array([1, 6, 2, 5, 3, np.nan], np.float32)
    hand = Hand(folder, table.with_columns(novelty=novelty), tmp_path)
    hand.press("y")
    assert hand.legend() == ("Novelty", ["unknown  1"])
    low, high = pictures.scale_colours(state.STEPS)[[0, 31]]
    assert_array_equal(hand.point_colours()[[0, 1, 5]], [high, low, colours.GREY])
    hand.hover(1)
    assert hand.facts().endswith("novelty 6.00")
    hand.press("l")
    hand.draw_around([0, 1, 2, 3, 4, 5])
    assert_array_equal(hand.grid.rows, [1, 3, 4, 2, 0, 5])
    assert hand.grid.title.get_text() == "Selection: 6 objects, with their novelty"
    hand.slide(1.9, 5.1)
    assert hand.grey_points() == [0, 1, 5]


def test_without_known_segments_there_is_no_novelty_to_colour_by(hand):
    hand.press("y")
    assert hand.message() == "no segment has a novelty, so there is nothing to colour by"
    hand.hover(1)
    assert "novelty" not in hand.map.status.get_text()


def test_a_suspicion_that_is_1_minus_the_predicted_iou_is_not_told_twice(hand):
    hand.hover(1)
    assert "suspicion" not in hand.map.status.get_text()
    hand.press("w")
    assert hand.legend() == ("Suspicion", [])


@pytest.fixture
def unjudged(results, tmp_path):
    """Segments without a predicted IoU or a ground truth, chosen by a score."""
    folder, table = results
    unknown = dict(predicted_iou=np.full(6, np.nan, np.float32), true_id=np.full(6, 255))
    scores = np.array([-4, -9, -2, -7, -3, -8], np.float32)
    return Hand(folder, table.with_columns(suspicion=scores, **unknown), tmp_path)


def test_without_any_predicted_iou_the_suspicion_takes_its_place(unjudged):
    assert unjudged.legend()[0] == "Predicted class"
    unjudged.press("w")
    assert unjudged.legend()[0] == "Suspicion"
    unjudged.hover(2)
    status = unjudged.map.status.get_text()
    assert "true no label  ·  suspicion -2.00" in status and "IoU" not in status
    unjudged.press("i")
    assert unjudged.message() == "no segment has a predicted IoU, so there is nothing to colour by"
    unjudged.press("h")
    unjudged.slide(-5, -2)  # from -9 to -2
    assert unjudged.grey_points() == [1, 3, 5]
    assert re.fullmatch(r"only suspicion from -5.0\d to -2.00", unjudged.message())  # a pixel
    unjudged.press("r")
    assert unjudged.grey_points() == []


def test_a_selection_shows_the_most_suspicious_first(unjudged):
    unjudged.press("l")
    unjudged.draw_around([0, 1, 2, 3, 4, 5])
    assert_array_equal(unjudged.grid.rows, [2, 4, 0, 3, 5, 1])
    assert unjudged.grid.title.get_text() == "Selection: 6 objects, with their suspicion"
    captions = [text.get_text() for text in unjudged.grid.axes.texts]
    assert [caption.split()[-1] for caption in captions[:2]] == ["-2.00", "-3.00"]


def test_without_truth_a_caption_says_that_its_class_is_the_predicted_one(unjudged):
    unjudged.press("l")
    unjudged.draw_around([0, 1])
    assert [text.get_text() for text in unjudged.grid.axes.texts] == [
        "pred. road\n-4.00",
        "pred. car\n-9.00",
    ]


def test_small_thumbnails_too_show_the_number_that_their_sheet_promises(results, tmp_path):
    folder, table = results
    many = table.take(np.arange(90) % 6)
    hand = Hand(folder, many, tmp_path)
    hand.press("l")
    hand.draw_around([0, 5])
    assert hand.grid.title.get_text() == "Selection: 90 objects, with their predicted IoU"
    captions = [text.get_text() for text in hand.grid.axes.texts]
    assert captions[0] == "sofa 0.10"
    assert all(re.search(r" 0\.[123]0$", caption) for caption in captions)
    drawn = [line for text in hand.grid.axes.texts for line in text.fitted()]
    assert all(line.endswith("0") for line in drawn)


def test_ranges_of_both_scales_add_up_and_are_undone_one_by_one(results, tmp_path):
    folder, table = results
    scores = np.array([1, 2, 3, 4, 5, 6], np.float32)
    hand = Hand(folder, table.with_columns(suspicion=scores), tmp_path)
    hand.slide(0.15, 0.3)
    hand.press("w")
    hand.slide(2.5, 6)
    assert hand.grey_points() == [0, 1, 3]
    assert hand.message().startswith(
        "only predicted IoU from 0.15 to 0.30; only suspicion from 2.5"
    )
    hand.press("i")
    assert hand.grey_points() == [0, 1, 3]
    hand.press("u", "u")  # the colours, then the left handle; the right one has not moved
    assert hand.message() == "undone: filter by suspicion"
    assert hand.grey_points() == [0, 3]


def test_k_colours_by_the_last_clusters_and_asks_for_their_number_first(hand):
    hand.press("k")
    assert "Number of clusters" in hand.map.banner.get_text()
    hand.press("2", "enter", "b", "k")
    assert hand.explorer.state.colouring == state.BY_CLUSTER
    assert hand.legend()[0] == "Cluster"


def test_the_buttons_of_the_panel_are_the_commands_of_the_keys(hand):
    hand.press_panel("command", state.BY_PREDICTION)
    assert hand.explorer.state.colouring == state.BY_PREDICTION
    hand.press_panel("command", "undo")
    assert hand.explorer.state.colouring == state.BY_TRUTH
    hand.press_panel("command", "selecting.next_tool")
    assert hand.explorer.selecting.tool == "lasso"


def test_every_button_says_what_it_does_and_its_key(hand):
    for chip in (*hand.panel._content.ways, *hand.panel._content.tools):
        x, y = hand.place_of("command", chip.command)
        hand.send(hand.map, MouseEvent("motion_notify_event", hand.map.figure.canvas, x, y))
        status = hand.map.status.get_text()
        key = status.rsplit("(", 1)[1].rstrip(")")
        assert KEYS[key] == chip.command


def test_every_key_has_its_command(hand):
    for command in KEYS.values():
        has_words = command in state.WAYS or command in BUTTONS
        assert has_words or attrgetter(command)(hand.explorer).__doc__


def test_a_long_message_has_the_whole_line_and_one_too_long_a_gap(hand):
    for text, has_room in (
        ("short", True),
        ("x" * 110, False),
        ("begin" + "x" * 500 + "end", False),
    ):
        hand.explorer.say(text)
        hand.settle()
        assert hand.map.state.get_visible() == has_room
    (drawn,) = hand.map.message.fitted()
    assert drawn.startswith("begin") and "…" in drawn and drawn.endswith("end")
    hand.map.message.set_text(drawn)
    assert hand.map.message.width_px() <= hand.map.figure.bbox.width


@pytest.mark.parametrize("size", [(720, 480), (540, 360), (380, 264), (240, 180)])  # at 60 dpi
def test_nothing_is_cut_off_or_overlaps_in_a_small_window(hand, size):
    hand.press("l")
    hand.draw_around([0, 1])
    hand.press("?")
    hand.resize(*size)
    window, banner = hand.map.figure.bbox, hand.map.banner.get_window_extent()
    assert window.x0 <= banner.x0 and banner.x1 <= window.x1
    assert window.y0 <= banner.y0 and banner.y1 <= window.y1
    rooms = [room for room, *_ in hand.panel._targets]
    for number, (left, upper, right, lower) in enumerate(rooms):
        for other in rooms[:number]:
            apart = right <= other[0] or other[2] <= left or lower <= other[1] or other[3] <= upper
            assert apart
    assert hand.map.axes.bbox.x1 < hand.panel.axes.bbox.x0
    assert hand.panel.axes.bbox.x1 <= window.x1
    (drawn,) = hand.map.title.fitted()
    assert ("…" in drawn) == (hand.map.title.width_px() > hand.map.title.room * size[0])


def test_a_small_page_has_all_buttons_the_slider_and_some_of_the_legend(hand):
    hand.resize(0.6 * 800, 0.6 * 424)  # what a browser of 800 x 600 pixels leaves, at 60 dpi
    shown = [(kind, what) for _, kind, what in hand.panel._targets]
    commands = {*state.WAYS, *(command for _, command in TOOL_CHIPS)}
    assert commands <= {what for kind, what in shown if kind == "command"}
    assert hand.slider.ax.bbox.width > 100
    assert sum(kind == "entry" for kind, _ in shown) >= 2


def test_drawing_does_not_blit_which_some_toolkits_refuse_meanwhile(hand):
    hand.hover(0)
    hand.map.figure.canvas.blit = lambda *_: pytest.fail("blitted inside a draw event")
    hand.resize(700, 500)


# filters


def test_a_click_on_the_legend_greys_a_group_out_and_in_again(hand):
    hand.press("h")
    hand.press_panel("entry", "car")
    assert hand.grey_points() == [1, 3, 5]
    assert hand.panel._content.counts == "3 of 6 shown"
    assert [entry.shown for entry in hand.panel._content.entries] == [True, False]
    assert hand.message() == "filtered out: predicted class: car"
    hand.press_panel("entry", "car")
    assert hand.grey_points() == []


@pytest.mark.parametrize("how", [{"button": 3}, {"button": 1, "modifiers": ["shift"]}])
def test_a_right_click_or_shift_on_the_legend_leaves_this_group_alone(hand, how):
    hand.press_panel("entry", "boat", **how)
    assert hand.grey_points() == [0, 1, 4, 5]
    hand.press_panel("entry", "boat", **how)
    assert hand.grey_points() == []


def test_filters_of_several_kinds_add_up_and_stay_when_the_colours_change(two_datasets):
    hand = two_datasets
    hand.press("o")
    hand.press_panel("entry", "alleys")
    hand.press("h")
    hand.press_panel("entry", "road")
    assert hand.grey_points() == [0, 2, 3, 4, 5]
    hand.slide(0.15, 0.3)
    assert hand.grey_points() == [0, 2, 3, 4, 5]
    hand.slide(0.25, 0.3)
    assert hand.grey_points() == [0, 1, 2, 3, 4, 5]
    hand.press("g")
    assert len(hand.grey_points()) == 6
    hand.press("r")
    assert hand.grey_points() == []
    assert hand.message() == "no filters"


def test_tags_filter_too(hand):
    hand.press("l")
    hand.draw_around([0, 1])
    hand.press("n", *"odd", "enter", "a")
    assert hand.legend() == ("Tag", ["no tag  4", "odd  2"])
    hand.press_panel("entry", "no tag")
    assert hand.grey_points() == [2, 3, 4, 5]


def test_the_only_group_that_is_left_is_named(hand):
    hand.press_panel("entry", "boat", button=3)
    assert hand.message() == "only boat"


def test_an_unknown_predicted_iou_is_grey_named_and_filtered(results, tmp_path):
    folder, table = results
    values = np.array([0.1, 0.2, np.nan] * 2, np.float32)
    hand = Hand(folder, table.with_columns(predicted_iou=values), tmp_path)
    hand.press("i")
    assert_array_equal(hand.point_colours()[[2, 5]], [colours.GREY] * 2)
    assert hand.legend()[1] == ["unknown  2"]
    hand.hover(2)
    assert "predicted IoU unknown" in hand.map.status.get_text()
    hand.press_panel("entry", "unknown")
    assert hand.grey_points() == [2, 5]


def test_classes_without_a_name_have_colours_of_their_own(results, tmp_path):
    folder, table = results
    ids = np.array([40, 41, 42, 43, 54, 255])
    hand = Hand(folder, table.with_columns(true_id=ids), tmp_path)
    hand.press("g")
    assert len(set(map(tuple, hand.point_colours()))) == 6
    assert_array_equal(hand.point_colours()[5], colours.GREY)


def test_the_slider_filters_by_predicted_iou_and_its_movement_is_one_step_back(hand):
    hand.slide(0.15, 0.25)
    assert hand.grey_points() == [0, 2, 3, 5]
    ends = hand.explorer.state.ranges[state.BY_IOU]
    assert ends == pytest.approx((0.15, 0.25), abs=0.01)
    hand.press("u")  # the right handle
    assert hand.grey_points() == [0, 3]
    hand.press("u")  # the left handle
    assert hand.grey_points() == []
    assert hand.slider.val == pytest.approx((0.1, 0.3))
    hand.press("u")
    assert hand.message() == "nothing to undo"


def test_the_handle_of_the_slider_that_was_taken_is_the_one_that_moves(hand):
    slider, canvas = hand.slider, hand.map.figure.canvas

    def send(name, value):
        x, y = slider.ax.transData.transform((value, 0.5))
        hand.send(hand.map, MouseEvent(name, canvas, x, y, button=1))

    send("button_press_event", 0.3)
    send("motion_notify_event", 0.12)  # in one leap, to where the left one is nearer
    assert slider.val == pytest.approx((0.1, 0.12), abs=0.002)  # a pixel
    send("motion_notify_event", 0.05)
    assert slider.val == pytest.approx((0.1, 0.1))  # and never beyond the other
    send("motion_notify_event", 0.21)
    send("button_release_event", 0.21)
    send("motion_notify_event", 0.3)
    assert slider.val == pytest.approx((0.1, 0.21), abs=0.002)
    assert hand.grey_points() == [2, 5]
    hand.press("u", "u")
    assert hand.message() == "nothing to undo"  # all of it was one step


def test_a_point_that_is_not_filtered_out_wins_under_the_pointer(results, tmp_path):
    folder, table = results
    places = PLACES.copy()
    places[1] = (0.05, 0)  # a finger's breadth of row 0
    hand = Hand(folder, table.with_columns(plot_embeddings=places), tmp_path)
    hand.press("h")
    hand.hover(1)
    assert shade_of(hand.map) == 1
    hand.press_panel("entry", "car")
    hand.hover(1)
    assert shade_of(hand.map) == 0
    hand.hover(3)
    assert shade_of(hand.map) == 3  # grey, but still there


def test_a_long_legend_is_moved_by_the_wheel(results, tmp_path):
    folder, table = results
    many = table.take(np.repeat(np.arange(6), 10)).with_columns(true_id=np.arange(60))
    hand = Hand(folder, many, tmp_path)
    last = hand.panel._content.entries[-1].name
    with pytest.raises(KeyError):
        hand.place_of("entry", last)
    x, y = hand.place_of("entry", hand.panel._content.entries[3].name)
    for _ in range(30):
        wheel = MouseEvent("scroll_event", hand.map.figure.canvas, x, y, step=-1)
        hand.send(hand.map, wheel)
    hand.press_panel("entry", last)
    assert last == "car"  # the only one that the network knows
    assert_array_equal(np.flatnonzero(~hand.map.kept), [13])
    assert hand.explorer.n_neighbours == 24


# selection


def test_l_goes_from_lasso_to_rectangle_to_none(hand):
    seen = []
    for _ in range(3):
        hand.press("l")
        seen.append(hand.explorer.selecting.tool)
    assert seen == ["lasso", "rectangle", ""]
    hand.press("l", "escape")
    assert hand.explorer.selecting.tool == ""


@pytest.mark.parametrize("presses", [1, 2])
def test_drawing_selects_and_shows_the_segments_as_a_sheet(hand, presses):
    hand.press(*"l" * presses)
    hand.draw_around([0, 1, 2])
    assert hand.selected() == [0, 1, 2]
    assert hand.titles() == ["Selection"]
    assert_array_equal(hand.grid.rows, [0, 1, 2])
    assert hand.grid.title.get_text().startswith("Selection: 3 objects")
    assert [text.get_text() for text in hand.grid.axes.texts][:2] == [
        "sofa\npred. road  0.10",
        "sofa\npred. car  0.20",
    ]
    rings = [line for line in hand.map.axes.lines if line.get_fillstyle() == "none"]
    assert_array_equal(rings[0].get_xydata(), PLACES[:3])


@pytest.mark.parametrize(
    ("held", "modifiers"), [(["control"], []), ([], ["ctrl"]), (["x"], [])], ids=str
)
def test_shift_adds_to_the_selection_and_ctrl_or_x_removes(hand, held, modifiers):
    hand.press("l")
    hand.draw_around([0, 1])
    hand.draw_around([5], modifiers=["shift"])
    assert hand.selected() == [0, 1, 5]
    for key in held:
        hand.down(key)
    hand.draw_around([1], modifiers=modifiers)
    for key in held:
        hand.up(key)
    assert hand.selected() == [0, 5]
    assert_array_equal(hand.grid.rows, [0, 5])
    assert hand.titles() == ["Selection"]  # one window
    hand.draw_around([3])
    assert hand.selected() == [3]


def test_filtered_out_segments_are_not_selected(hand):
    hand.press("h", "l")
    hand.press_panel("entry", "car")
    hand.draw_around([0, 1, 2])
    assert hand.selected() == [0, 2]


def test_what_is_filtered_out_after_it_was_selected_is_left_alone(hand):
    hand.press("l")
    hand.draw_around([0, 1, 2])
    hand.press("h")
    hand.press_panel("entry", "car")
    assert hand.panel._content.counts == "3 of 6 shown\n2 of 3 selected"
    assert_array_equal(hand.grid.rows, [0, 2])
    hand.press("n", *"cow", "enter")
    assert_array_equal(hand.explorer.state.tags, [1, 0, 1, 0, 0, 0])
    hand.press("e")
    assert "exported 2 objects" in hand.message()
    hand.press_panel("entry", "road")
    hand.press("e")
    assert "all that is selected is filtered out" in hand.message()
    hand.press("r")
    assert_array_equal(hand.grid.rows, [0, 1, 2])


def test_escape_clears_the_selection_once_nothing_else_is_open(hand):
    hand.press("l")
    hand.draw_around([0, 1])
    hand.press("?", "escape")
    hand.press("escape")
    assert hand.selected() == [0, 1]
    hand.press("escape")
    assert hand.selected() == []
    hand.press("u")
    assert hand.selected() == [0, 1]


def test_selected_points_keep_their_colours_above_the_rings(hand):
    hand.press("l")
    hand.draw_around([0, 1, 2])
    assert_array_equal(hand.point_colours()[:3], [SOFA, SOFA, BOAT])
    orders = {len(line.get_xdata()): line.get_zorder() for line in hand.map.axes.lines}
    ring = next(line for line in hand.map.axes.lines if line.get_fillstyle() == "none")
    assert len(ring.get_xdata()) == 3
    assert ring.get_zorder() < orders[2]  # the two selected sofas


def test_many_points_step_back_while_the_density_shows(hand):
    sizes = []
    for size_pt in (9, 2):
        hand.map.size_pt = size_pt
        for key in "dd":
            hand.press("h", key, "b")
            sizes.append(hand.map.axes.lines[0].get_markersize() / size_pt)
    assert sizes == [1, 1, 0.5, 1]


def test_a_click_while_selecting_is_still_a_click(hand):
    hand.press("l")
    hand.click(2, 1)
    hand.mouse("button_release_event", 2, button=1)
    assert hand.titles() == ["Image"]
    assert hand.selected() == []


def test_the_line_that_is_drawn_shows_and_escape_drops_it(hand):
    hand.press("l")
    hand.click(0, 1)
    hand.hover(5)
    assert len(hand.map.stroke.get_xdata()) == 2
    assert not hand.map.tip.get_visible()
    hand.press("escape")
    hand.mouse("button_release_event", 5, button=1)
    assert len(hand.map.stroke.get_xdata()) == 0
    assert hand.selected() == []


def test_an_empty_selection_empties_the_sheet_and_v_says_so(hand):
    hand.press("l")
    hand.draw_around([0, 1])
    canvas = hand.map.figure.canvas
    for name, x, y in (
        ("button_press_event", 60, 60),
        ("motion_notify_event", 60, 80),
        ("button_release_event", 80, 80),
    ):
        hand.send(hand.map, MouseEvent(name, canvas, x, y, button=1))
    assert hand.selected() == []
    assert len(hand.grid.rows) == 0
    hand.press("v")
    assert "nothing is selected" in hand.message()


def test_the_wheel_turns_the_pages_of_a_large_selection(hand, monkeypatch):
    monkeypatch.setattr(sheets, "PAGE", 4)
    hand.press("l")
    hand.draw_around([0, 5])
    assert_array_equal(hand.grid.rows, [0, 3, 1, 4])  # the most suspicious
    assert "1 to 4 here" in hand.grid.title.get_text()
    hand.wheel(-1, hand.grid)
    assert_array_equal(hand.grid.rows, [2, 5])
    hand.wheel(-1, hand.grid)
    assert_array_equal(hand.grid.rows, [2, 5])
    hand.click(5, 3, hand.grid)  # neighbours open in a window of their own
    assert hand.titles() == ["Selection", "Nearest neighbours"]
    assert hand.grid.rows[0] == 5


# groups


def test_the_overview_of_groups_selects_names_joins_and_takes_apart(hand):
    hand.press("c", "3", "enter", "0")  # those of k-means: they are there already
    (view,) = hand.explorer.grouping.views
    assert view.title.get_text() == "3 groups of 6 objects, 0 with a name"
    sizes = [len(group.rows) for group in hand.explorer.grouping.groups]
    assert sum(sizes) == 6
    first, second = (list(group.rows) for group in hand.explorer.grouping.groups[:2])
    hand.click_group(0)
    assert hand.selected() == first
    hand.press(*"tent", "enter", view=view)
    assert np.flatnonzero(hand.explorer.state.tags).tolist() == first
    assert view.title.get_text() == "3 groups of 6 objects, 1 with a name"
    hand.click_group(1, modifiers=["shift"])
    assert [len(group.rows) for group in hand.explorer.grouping.groups] == [
        len(first + second),
        sizes[2],
    ]
    hand.press("delete", view=view)
    assert hand.explorer.state.clusters[first + second].tolist() == [-1] * len(first + second)
    assert view.title.get_text().startswith("1 group of 6 objects")
    hand.press("u", "u", view=view)
    assert [len(group.rows) for group in hand.explorer.grouping.groups] == sizes
    hand.press("tab", view=view)
    assert "largest first" in {text.get_text().split(" (")[0] for text in view.axes.texts}
    hand.press("escape", view=view)  # what was selected before
    assert hand.selected() == []
    hand.press("escape", view=view)
    assert hand.explorer.grouping.views == []


def grouped(hand):
    """The overview of three groups of the six."""
    hand.press("c", "3", "enter", "0")
    (view,) = hand.explorer.grouping.views
    return view


def active(view):
    """Numbers of the groups that are marked."""
    marked = [box.get_facecolor() == to_rgba(ACTIVE) for box in view.axes.patches]
    return np.flatnonzero(marked).tolist()


@pytest.mark.parametrize("key", ["u", "ctrl+z", "cmd+z"])
def test_undo_is_no_letter_of_a_name_while_a_group_is_active(hand, key):
    view = grouped(hand)
    hand.click_group(0)
    hand.press(*"tuba", "enter", view=view)
    hand.press(key, view=view)
    assert hand.explorer.question is None
    assert hand.message(view) == "undone: tag" and active(view) == [0]
    hand.click_group(1)
    assert active(view) == [1]
    hand.press(key, view=view)
    assert hand.message(view) == "undone: selection" and active(view) == [0]
    hand.press(key, view=view)
    assert active(view) == [] and hand.selected() == []


def test_a_name_may_begin_with_any_letter_and_space_comes_before_one_that_undoes(hand):
    view = grouped(hand)
    for number, keys, name in ((0, "vent", "vent"), (1, " urn", "urn"), (2, "U 2", "U 2")):
        hand.click_group(number)
        hand.press(*keys, "enter", view=view)
        assert hand.explorer.grouping.groups[number].tag == name


def test_ctrl_z_takes_back_what_was_typed_and_then_the_question(hand):
    view = grouped(hand)
    hand.click_group(0)
    hand.press(*"tent", "ctrl+z", view=view)
    assert "Tag of" in view.banner.get_text() and "tent" not in view.banner.get_text()
    hand.press("ctrl+x", "ctrl+alt+@", view=view)  # this types, as AltGr does on some keyboards
    assert hand.explorer.question.answer == "@"
    hand.press("ctrl+z", "ctrl+z", view=view)
    assert hand.explorer.question is None and active(view) == [0]
    assert not hand.explorer.state.tags.any()


def test_the_group_that_is_selected_is_active_however_it_was_selected(hand):
    view = grouped(hand)
    hand.click_group(2)
    hand.press("up", view=view)
    assert active(view) == [1]
    hand.press("up", "up", view=view)
    assert active(view) == [0]
    name = hand.explorer.segments.groups(state.BY_CLUSTER, hand.explorer.state).names
    hand.down("s")
    hand.press_panel("entry", name[hand.explorer.grouping.groups[1].label])
    hand.up("s")
    assert active(view) == [1]
    hand.press("escape", view=view)
    assert active(view) == [] and hand.explorer.grouping.views == [view]


def test_groups_that_were_joined_are_named_together(hand):
    view = grouped(hand)
    both = np.union1d(*(group.rows for group in hand.explorer.grouping.groups[:2]))
    hand.click_group(0)
    hand.click_group(1, modifiers=["shift"])
    assert hand.message(view).startswith("joined ")
    assert_array_equal(hand.selected(), both)
    hand.press(*"tent", "enter", view=view)
    assert_array_equal(np.flatnonzero(hand.explorer.state.tags), both)


def test_what_is_in_no_group_is_not_joined_but_can_be_named(hand):
    view = grouped(hand)
    hand.click_group(0)
    hand.press("delete", view=view)
    assert "is no group any more" in hand.message(view)
    assert hand.selected() == [] and active(view) == []
    before = hand.explorer.state.clusters
    for first, second in ((0, 2), (2, 0)):
        hand.click_group(first)
        hand.click_group(second, modifiers=["shift"])
        assert "only groups can be joined" in hand.message(view)
    assert hand.explorer.state.clusters is before
    hand.click_group(2)
    hand.press("delete", *"odd", "enter", view=view)
    assert_array_equal(hand.explorer.state.tags > 0, before == -1)


def test_the_wheel_and_arrows_bring_other_groups_into_a_low_window(hand):
    view = grouped(hand)
    hand.resize(720, 140, view)
    assert view.fitting == 1
    for act, first in (
        (lambda: hand.wheel(-1, view), 1),
        (lambda: hand.wheel(1, view), 0),
        (lambda: hand.click_group(0), 0),
        (lambda: hand.press("down", "down", "down", view=view), 2),
        (lambda: hand.press("up", view=view), 1),
    ):
        act()
        assert view.first == first
    assert active(view) == [0] and len(view.rows) == 1
    assert_array_equal(hand.selected(), hand.explorer.grouping.groups[1].rows)


@pytest.fixture
def kept(results, tmp_path):
    """Opens windows on one table; its file of groups is `kept.path`."""

    def open_window():
        return Hand(*results, tmp_path, table_path=tmp_path / "net.p")

    open_window.path = groups_path(tmp_path / "net.p")
    open_window.tags_path = tags_path(tmp_path / "net.p")
    return open_window


def labels_in(path, hand):
    """The groups in a file, by row."""
    groups = read_groups(path)
    return [groups.get(key) for key in hand.explorer.segments.tag_keys()]


def shown_groups(hand):
    """The groups of a window, by row."""
    clusters = hand.explorer.state.clusters
    return None if clusters is None else clusters.tolist()


def test_groups_are_there_the_next_time_as_they_were_left(kept):
    hand = kept()
    view = grouped(hand)
    found = shown_groups(hand)
    assert labels_in(kept.path, hand) == found and set(found) == {0, 1, 2}
    hand.click_group(0)
    hand.click_group(1, modifiers=["shift"])
    joined = shown_groups(hand)
    assert joined != found and labels_in(kept.path, hand) == joined
    again = kept()
    again.press("0")
    assert again.explorer.grouping.views[0].title.get_text().startswith("2 groups of 6 objects")
    assert shown_groups(again) == joined and again.legend()[0] == "Cluster"
    hand.press("u", view=view)
    assert labels_in(kept.path, hand) == found
    hand.press(*"uuu", view=view)
    assert hand.explorer.state.clusters is None and read_groups(kept.path) == {}
    assert hand.explorer.grouping.views == []


def test_0_in_the_overview_finds_groups_anew_and_undo_brings_the_old_ones_back(kept):
    hand = kept()
    view = grouped(hand)
    before = shown_groups(hand)
    hand.press("0", view=view)
    assert shown_groups(hand) == [-1] * 6 == labels_in(kept.path, hand)  # none are near enough
    hand.press("u", view=view)
    assert shown_groups(hand) == before == labels_in(kept.path, hand)


def test_objects_that_came_after_the_groups_are_told_and_stay_new(kept):
    keys = kept().explorer.segments.tag_keys()
    write_groups(kept.path, dict(zip(keys[:4], [1, 1, 0, -1], strict=True)))
    hand = kept()
    assert hand.message() == "2 objects came after the groups were found; 0 shows them"
    hand.press("0")
    (view,) = hand.explorer.grouping.views
    groups = {group.label: group.rows.tolist() for group in hand.explorer.grouping.groups}
    assert list(groups)[2:] == [-1, -2] and groups[-2] == [4, 5]
    assert "in no group yet" in {text.get_text() for text in view.axes.texts}
    assert hand.legend()[1][2:] == ["in no group  1", "in no group yet  2"]
    hand.click_group(0)
    hand.click_group(1, modifiers=["shift"])
    assert set(labels_in(kept.path, hand)[:3]) in ({0}, {1})
    assert labels_in(kept.path, hand)[3:] == [-1, None, None]


def test_groups_of_other_objects_alone_are_no_groups(kept):
    write_groups(kept.path, {("streets", 0, 1, (9, 9, 9, 9)): 0})
    hand = kept()
    assert hand.explorer.state.clusters is None and hand.message() == "? shows all commands"


def test_a_broken_file_of_groups_is_told_and_stays_and_groups_can_be_found(kept):
    kept.path.write_text("{")
    hand = kept()
    assert hand.message().startswith(f"without the groups of before: {kept.path} is broken")
    hand.press("c", "3", "enter")
    assert hand.message().startswith(f"the groups cannot be kept: {kept.path} is broken")
    assert set(shown_groups(hand)) == {0, 1, 2}
    hand.press("0")
    hand.press("0", view=hand.explorer.grouping.views[0])
    assert hand.message().startswith(f"the groups cannot be kept: {kept.path} is broken")
    assert kept.path.read_text() == "{"


def test_what_could_not_be_kept_comes_with_the_next_change(results, tmp_path):
    folder = tmp_path / "folder"
    folder.write_text("")  # a file is in the way
    hand = Hand(*results, tmp_path, table_path=folder / "net.p")
    view = grouped(hand)
    hand.click_group(0)
    hand.press(*"tent", "enter", view=view)
    assert hand.message().startswith("the tags cannot be kept")
    hand.click_group(1, modifiers=["shift"])
    assert hand.message().startswith("the groups cannot be kept")
    folder.unlink()
    hand.click_group(1)
    hand.press(*"boat", "enter", view=view)
    hand.press("delete", view=view)
    paths = groups_path(folder / "net.p"), tags_path(folder / "net.p")
    assert labels_in(paths[0], hand) == shown_groups(hand)
    assert {entry[-1] for entry in read_tags(paths[1])} == {"tent", "boat"}


@pytest.mark.promise(15)
def test_two_windows_keep_and_see_each_others_groups(kept):
    one = kept()
    grouped(one)
    two = kept()
    two.press("0")
    one.click_group(0)
    one.press("delete", view=one.explorer.grouping.views[0])
    two.click_group(1)
    two.press("delete", view=two.explorer.grouping.views[0])
    assert sorted(shown_groups(two)).count(-1) == labels_in(kept.path, two).count(-1) >= 2
    assert len(set(labels_in(kept.path, two))) == 2
    two.press("u")  # takes its own change back, not the other's
    assert len(set(labels_in(kept.path, two))) == 3
    assert labels_in(kept.path, two) == shown_groups(two)
    assert {row for row, label in enumerate(shown_groups(two)) if label == -1} == {
        row for row, label in enumerate(shown_groups(one)) if label == -1
    }


@pytest.mark.promise(15)
def test_groups_found_anew_elsewhere_are_not_mixed_with_those_of_before(kept):
    one = kept()
    view = grouped(one)
    two = kept()
    two.press("c", "2", "enter")
    found = shown_groups(two)
    one.click_group(0)
    one.press("delete", view=view)
    assert one.message(view).startswith("not done: these groups were changed in another window")
    assert labels_in(kept.path, one) == found == shown_groups(one)
    assert view.title.get_text().startswith("2 groups")
    one.press("u", "u", "u", view=view)
    assert labels_in(kept.path, one) == found == shown_groups(one)


@pytest.mark.promise(15)
def test_groups_of_one_show_to_all_and_undo_takes_none_of_others_away(kept):
    one, two = kept(), kept()
    one.explorer.keeping.kept = two.explorer.keeping.take  # as in a browser: at once
    two.explorer.keeping.kept = one.explorer.keeping.take
    view = grouped(one)
    assert shown_groups(two) == shown_groups(one)
    two.press("0")
    two.press("c", "2", "enter")
    assert shown_groups(one) == shown_groups(two) and view.title.get_text().startswith("2 groups")
    one.press(*"uuuu", view=view)
    assert one.message() == "nothing to undo"
    assert shown_groups(one) == shown_groups(two) == labels_in(kept.path, one)
    two.press("u")
    assert set(shown_groups(one)) == {0, 1, 2}


def test_groups_that_all_took_away_are_coloured_by_no_more(kept):
    one, two = kept(), kept()
    one.explorer.keeping.kept = two.explorer.keeping.take
    one.press("c", "3", "enter")
    two.press("0")
    two.press_panel("entry", "group 1")
    one.press("u")
    assert two.explorer.state.clusters is None and two.explorer.grouping.views == []
    assert two.explorer.state.colouring == state.BY_PREDICTION and two.grey_points() == []


def test_groups_are_found_and_coloured_without_a_number(results, tmp_path):
    folder, table = results
    near = np.repeat([[0, 0, 0], [9, 9, 9]], 3, axis=0) + np.eye(6, 3) / 9
    rows = np.arange(48) % 6
    many = table.take(rows).with_columns(
        embeddings=(near[rows] + np.arange(48)[:, None] / 99).astype(np.float32),
        image_index=np.arange(48) // 6,
    )
    hand = Hand(folder, many, tmp_path)
    hand.press("0")
    assert hand.legend() == ("Cluster", ["group 1  24", "group 2  24"])
    hand.press("u")
    assert hand.message() == "undone: grouping" and hand.legend()[0] == "True class"


# tags


# near duplicates


@pytest.fixture
def twins(results, tmp_path):
    """The same, where rows 0, 1 and 3 are near duplicates; 0 and 3 are as suspicious."""
    folder, table = results
    places = np.array([0, 0.01, 30, -0.01, 60, 90], np.float32)
    vectors = np.stack([places, 0 * places], axis=1)
    return Hand(folder, table.with_columns(embeddings=vectors), tmp_path / "saved")


def join(hand):
    """Join near duplicates, once they have been looked for."""
    hand.explorer.segments.near_duplicates().exception()  # waits for them
    hand.press("=")


def test_near_duplicates_are_one_point_with_their_number_until_they_are_taken_apart(twins):
    before = twins.settle()[:440, :540]
    join(twins)
    assert (twins.settle()[:440, :540] != before).any()
    twins.press("=")
    assert_array_equal(twins.settle()[:440, :540], before)
    twins.press("=")
    assert re.fullmatch(
        "3 near duplicates in 1 point: nearer than .*; = takes them apart", twins.message()
    )
    assert_array_equal(twins.map.numbers.points, PLACES[:1])
    assert_array_equal(twins.map.numbers.values, [3])
    assert twins.panel._content.counts == "6 shown in 4 points"
    twins.hover(0)
    assert twins.map.status.get_text().count("3 near duplicates") == 1
    for row in (1, 3):
        twins.hover(row)
        assert twins.map.status.get_text() == ""
    twins.hover(2)
    assert "near duplicates" not in twins.map.status.get_text()
    twins.press("=")
    assert len(twins.map.numbers.values) == 0
    twins.press("u")
    assert len(twins.map.numbers.values) == 1


def test_the_point_of_near_duplicates_selects_names_and_exports_all_of_them(twins):
    join(twins)
    twins.press("l")
    twins.draw_around([0])
    assert twins.selected() == [0, 1, 3]
    assert twins.grid.rows.tolist() == [0, 3, 1]
    assert twins.panel._content.counts == "6 shown in 4 points\n3 selected"
    ringed = [line for line in twins.map.axes.lines if line.get_fillstyle() == "none"]
    assert [len(line.get_xydata()) for line in ringed] == [1]
    twins.press("n", *"sofa", "enter", "e")
    (path,) = twins.out_dir.glob("sofa/*.csv")
    with path.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_of_near_duplicates_those_that_are_not_filtered_out_count(twins):
    join(twins)
    twins.press("h")
    twins.press_panel("entry", "road")  # rows 0, 2 and 4
    assert_array_equal(twins.map.numbers.points, PLACES[[3]])  # more suspicious than row 1
    assert_array_equal(twins.map.numbers.values, [2])
    assert twins.grey_points() == [2, 4]
    twins.press("l")
    twins.draw_around([3])
    assert twins.selected() == [1, 3]
    twins.press_panel("entry", "car", button=3)
    twins.press_panel("entry", "road", button=3)  # row 0 alone
    assert len(twins.map.numbers.values) == 0


def test_where_no_objects_are_near_duplicates_or_they_are_not_waited_for_nothing_is_joined(
    results, twins, tmp_path, monkeypatch
):
    folder, table = results
    evenly = table.with_columns(embeddings=np.c_[np.arange(6), np.zeros(6)].astype(np.float32))
    hand = Hand(folder, evenly, tmp_path)
    join(hand)
    assert hand.message().startswith("no objects are near duplicates: nearer than ")
    assert hand.explorer.state.sets is None
    begun = threading.Event()
    monkeypatch.setattr(duplicates, "find", lambda vectors: begun.wait())
    twins.press("=")
    assert twins.map.banner.get_text().startswith("looking for near duplicates ...")
    twins.press("escape")
    begun.set()
    assert twins.message() == "cancelled"
    assert twins.explorer.state.sets is None


def test_a_picture_of_the_map_has_the_numbers_of_near_duplicates(twins, tmp_path):
    join(twins)
    twins.explorer.save(tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text().count("stroke: #ffffff; stroke-width: 3") == 1


def test_of_numbers_that_have_no_room_beside_each_other_the_larger_one_shows(hand):
    places = hand.map.axes.transData.inverted().transform([(100, 100), (105, 103), (200, 100)])
    hand.map.numbers.show(places, np.array([2, 1234, 3]), 9.0)
    placed = list(hand.map.numbers._placed(hand.map.figure.canvas.get_renderer()))
    assert [value for _, value in placed] == [1234, 3]
    assert_allclose([place for place, _ in placed], [(108, 106), (203, 103)], atol=1)


def test_a_tag_is_typed_in_the_window_and_kept_for_the_next_time(results, tmp_path):
    hand = Hand(*results, tmp_path, table_path=tmp_path / "net.p")
    hand.press("l")
    hand.draw_around([0, 1])
    hand.press("n", *"Cow & käse", "x", "backspace", "enter")
    assert hand.message() == "tagged 2 as 'Cow & käse'"
    hand.hover(1)
    assert hand.facts().endswith("tag Cow & käse")
    again = Hand(*results, tmp_path, table_path=tmp_path / "net.p")
    again.press("a")
    assert again.legend()[1] == ["no tag  4", "Cow & käse  2"]
    assert_array_equal(again.explorer.state.tags, [1, 1, 0, 0, 0, 0])


def test_an_empty_tag_takes_the_tag_away_and_undo_brings_it_back(results, tmp_path):
    table_path = tmp_path / "net.p"
    path = tags_path(table_path)
    hand = Hand(*results, tmp_path, table_path=table_path)
    hand.press("l")
    hand.draw_around([0, 1])
    hand.press("n", *"cow", "enter", "n", "enter")
    assert read_tags(path) == []
    hand.press("u")
    assert [entry[-1] for entry in read_tags(path)] == ["cow", "cow"]
    hand.press("u")
    assert read_tags(path) == []


def test_a_link_to_a_file_of_tags_stays_one(tmp_path):
    key, link = ("streets", 0, 2, (0, 0, 9, 9)), tmp_path / "link.json"
    change_tags(tmp_path / "tags.json", {key: "cow"})
    link.symlink_to("tags.json")
    change_tags(link, {key: "boat"})
    assert link.is_symlink()
    assert read_tags(tmp_path / "tags.json") == [(*key, "boat")]
    with pytest.raises(SettingError, match="must be text that UTF-8 can hold, got 5"):
        change_tags(link, {key: 5})


def test_the_tag_of_a_segment_with_another_box_is_not_applied_but_kept(results, tmp_path):
    table_path = tmp_path / "net.p"
    path = tags_path(table_path)
    old = ("streets", 0, 2, (0, 0, 9, 9), "cow")
    change_tags(path, {old[:-1]: old[-1]})
    hand = Hand(*results, tmp_path, table_path=table_path)
    assert not hand.explorer.state.tags.any()
    hand.press("l")
    hand.draw_around([3])
    hand.press("n", *"boat", "enter")
    assert read_tags(path) == [old, ("streets", 1, 2, (4, 8, 14, 20), "boat")]


@pytest.mark.promise(15)
def test_two_windows_on_one_table_keep_and_see_each_others_tags(results, tmp_path):
    table_path = tmp_path / "net.p"
    path = tags_path(table_path)
    one, two = (Hand(*results, tmp_path, table_path=table_path) for _ in range(2))
    for hand, row, word in ((one, 0, "cow"), (two, 3, "boat")):
        hand.press("l")
        hand.draw_around([row])
        hand.press("n", *word, "enter")
    assert sorted(entry[-1] for entry in read_tags(path)) == ["boat", "cow"]
    assert [two.explorer.tag_of(row) for row in (0, 3)] == ["cow", "boat"]
    one.press("u")  # takes its own away, not the other's
    assert [entry[-1] for entry in read_tags(path)] == ["boat"]
    assert [one.explorer.tag_of(row) for row in (0, 3)] == ["", "boat"]


@pytest.mark.promise(15)
def test_undo_takes_no_tags_of_others_away(results, tmp_path):
    table_path = tmp_path / "net.p"
    path = tags_path(table_path)
    one, two = (Hand(*results, tmp_path, table_path=table_path) for _ in range(2))
    one.explorer.keeping.kept = two.explorer.keeping.take  # as in a browser: at once
    two.explorer.keeping.kept = one.explorer.keeping.take
    for hand, row, word in ((one, 0, "cow"), (two, 3, "boat"), (one, 3, "ship")):
        hand.press("escape", "escape", "l")
        hand.draw_around([row])
        hand.press("n", *word, "enter")
    assert [two.explorer.tag_of(row) for row in (0, 3)] == ["cow", "ship"]
    two.press("u")  # its own is not there any more
    assert [two.explorer.tag_of(row) for row in (0, 3)] == ["cow", "ship"]
    assert [entry[-1] for entry in read_tags(path)] == ["cow", "ship"]
    one.press("u")
    assert [two.explorer.tag_of(row) for row in (0, 3)] == ["cow", "boat"]


@pytest.mark.promise(15)
def test_a_tag_set_by_a_script_while_the_window_is_open_stays(results, tmp_path):
    table_path = tmp_path / "net.p"
    path = tags_path(table_path)
    hand = Hand(*results, tmp_path, table_path=table_path)
    hand.press("l")
    hand.draw_around([0])
    hand.press("n", *"cow", "enter")
    key = hand.explorer.segments.tag_keys([3])[0]
    change_tags(path, {key: "boat"})
    hand.press("n", *"calf", "enter")
    assert {entry[-1] for entry in read_tags(path)} == {"boat", "calf"}


def test_tags_that_cannot_be_kept_are_told(results, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    hand = Hand(*results, tmp_path, table_path=blocked / "net.p")
    hand.press("l")
    hand.draw_around([3])
    hand.press("n", *"boat", "enter")
    assert hand.message().startswith("the tags cannot be kept")


def test_n_without_a_selection_says_how_to_make_one(hand):
    hand.press("n")
    assert hand.explorer.question is None
    assert hand.message().startswith("nothing is selected: press l, then draw around segments")


NAMES = ["$x^$", r"$\broken", "_a", "a & <b>", "\U0001f600 \u05e9\u05dc\u05d5\u05dd"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_names_are_shown_as_they_are_on_one_line(results, tmp_path, suffix):
    folder, table = results
    names = [*NAMES, "two\nlines\udce9"]
    columns = {"predicted_id": np.arange(6), "dataset": as_column(["caf\udce9 $x^"] * 6)}
    named = ObjectTable(table.columns | columns, table.facts)
    explorer = Explorer(
        Segments(named, {}, {k: (name, (9, 9, 9)) for k, name in enumerate(names)}, folder),
        tmp_path,
    )
    explorer.colour_by(state.BY_PREDICTION)
    shown = [entry.name for entry in explorer.map.panel._content.entries]
    assert shown == [*NAMES, "two lines\\udce9"]
    assert explorer.describe(5).startswith("caf\\udce9 $x^  ·  image 1")
    explorer.save(tmp_path / f"map.{suffix}")  # mathematics and half a surrogate would raise
    explorer.save_neighbours(0, tmp_path / f"sheet.{suffix}")


# export


def test_e_exports_the_selection_as_coco_csv_and_crops(hand):
    hand.press("e")
    assert "nothing is selected" in hand.message()
    hand.press("l")
    hand.draw_around([0, 1])
    hand.press("n", *"cow", "enter", "e")
    folder = hand.out_dir / "cow"
    assert hand.message() == f"exported 2 objects to {folder}"
    with (folder / "segments.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["component"], line["tag"]) for line in lines] == [("2", "cow"), ("3", "cow")]
    annotations = json.loads((folder / "labels.json").read_text())["annotations"]
    assert [annotation["bbox"] for annotation in annotations] == [[4, 8, 10, 12], [20, 8, 16, 16]]
    crops = sorted((folder / "crops").iterdir())
    assert [path.name for path in crops] == [
        "streets_image0_segment2_crop.png",
        "streets_image0_segment3_crop.png",
    ]
    assert_array_equal(np.array(Image.open(crops[1])), np.full((16, 16, 3), SHADES[1]))
    hand.press("e")
    assert (hand.out_dir / "cow_1" / "segments.csv").is_file()
    hand.draw_around([2, 3])
    hand.press("e")
    assert (hand.out_dir / "selection_1" / "segments.csv").is_file()


def test_an_export_goes_on_when_its_window_is_closed_meanwhile(hand, monkeypatch):
    hand.press("*")
    hand.settle()
    figure = hand.map.figure

    def close():
        hand._close(figure)
        FigureCanvasBase(figure)  # as matplotlib does

    monkeypatch.setattr(figure.canvas, "flush_events", close)
    hand.press("e")
    assert len(list(hand.out_dir.glob("*/segments.csv"))) == 1


def test_an_export_that_finds_no_place_is_told(results, tmp_path):
    (tmp_path / "file").write_text("")
    hand = Hand(*results, tmp_path / "file" / "folder")
    hand.press("l")
    hand.draw_around([0, 1])
    hand.press("e")
    assert hand.message().startswith("cannot export: ")


@contextmanager
def no_room(size=10):
    """No file grows beyond some bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_finds_no_room_is_told_and_leaves_no_half_file(hand):
    with no_room():
        hand.click(2, 1, modifiers=["ctrl"])
        assert "_image.png cannot be written (File too large)" in hand.message()
        hand.press("l")
        hand.draw_around([0, 1])
        hand.press("e")
        assert hand.message().startswith("cannot export: ") and "File too large" in hand.message()
    assert not [path for path in hand.out_dir.rglob("*") if path.is_file()]
    hand.press("e")
    assert hand.message().startswith("exported 2 objects")


def test_an_export_tells_what_it_could_not_write(results, tmp_path):
    folder, table = results
    paths = as_column([table["image_path"][0]] * 3 + [str(tmp_path / "gone.png")] * 3)
    gone = table.with_columns(image_path=paths)
    hand = Hand(tmp_path, gone, tmp_path)  # no component maps here
    told = export_segments(
        hand.explorer.segments, np.array([2, 3]), {}, tmp_path, lambda text: None
    )[1]
    assert "no COCO file" in told
    assert "1 image missing in data" in told
    assert told.endswith("1 without a crop: their images cannot be read")
    assert len(list(tmp_path.glob("selection_1/crops/*"))) == 1


# neighbours in other spaces, and of other pictures


def test_f_finds_neighbours_in_the_full_feature_space(hand):
    hand.click(2, 3)
    assert_array_equal(hand.grid.rows[:3], [2, 0, 1])
    hand.press("f")
    assert hand.grid.title.get_text().startswith("Nearest neighbours (euclid, full space)")
    assert_array_equal(hand.grid.rows[:3], [2, 1, 0])  # sqrt(1 + 9 + 1), sqrt(9 + 4)
    assert hand.message() == "neighbours in the full feature space (3 values)"
    hand.press("f")
    assert_array_equal(hand.grid.rows[:3], [2, 0, 1])


@pytest.fixture
def asked(results, tmp_path):
    """An explorer with a picture from outside, near row 3 on the map, near row 5 in full."""
    query = Query(
        "photo.jpg",
        pictures.blank_thumbnail(),
        embeddings=np.array([9, 9, 4.5], np.float32),
        nn_embeddings=np.array([5, 0.5], np.float32),
        plot_embeddings=np.array([5, 0.5], np.float32),
    )
    hand = Hand(*results, tmp_path)
    hand.explorer.asking.show(query)
    return hand


def test_a_picture_from_outside_is_marked_and_shown_with_its_neighbours(asked):
    assert asked.titles() == ["Nearest neighbours"]
    title = asked.grid.title.get_text()
    assert title == "Nearest neighbours (euclid, reduced space) of photo.jpg"
    assert_array_equal(asked.grid.rows[:3], [OUTSIDE, 3, 4])
    assert asked.grid.axes.texts[0].get_text() == "photo.jpg\nquery"
    stars = [line for line in asked.map.axes.lines if line.get_marker() == "*"]
    assert_array_equal(stars[0].get_xydata(), [(5, 0.5)])
    asked.press("f")
    assert_array_equal(asked.grid.rows[:2], [OUTSIDE, 5])


def test_a_click_on_the_query_opens_nothing_and_on_its_neighbour_goes_on(asked):
    asked.click(OUTSIDE, 1, asked.grid)
    assert asked.titles() == ["Nearest neighbours"]
    asked.click(3, 3, asked.grid)
    assert asked.grid.rows[0] == 3


# the keyboard in place of buttons


def test_1_2_and_3_act_on_the_segment_under_the_pointer(hand):
    hand.press("1")
    assert hand.message() == "there is no segment under the pointer"
    hand.hover(4)
    hand.press("1", "p", "2", "3")
    assert hand.titles() == ["Image", "Overview", "Nearest neighbours"]
    assert hand.grid.rows[0] == 4
    assert "image 1  ·  segment 3" in hand.opened[1][1].artists[0].get_text()


def test_s_held_saves_as_ctrl_does(hand):
    hand.down("s")
    hand.click(2, 1)
    hand.hover(3)
    hand.press("2")
    hand.up("s")
    assert hand.titles() == []
    assert hand.saved() == [
        "streets_image0_segment4_image.png",
        "streets_image1_segment2_overview.png",
    ]


def test_plus_and_minus_change_the_number_of_neighbours_everywhere(hand):
    hand.press("-", "-", "+")
    assert hand.explorer.n_neighbours == 4


# what of the map shows


def limits(hand):
    return np.array([hand.map.axes.get_xlim(), hand.map.axes.get_ylim()])


def test_the_wheel_over_the_map_zooms_at_the_pointer_and_z_shows_all_again(hand):
    whole = limits(hand)
    there = hand.place(4, hand.map)
    hand.mouse("scroll_event", 4, step=2)
    assert_allclose(hand.place(4, hand.map), there, atol=1)
    assert_allclose(np.ptp(whole, axis=1) / np.ptp(limits(hand), axis=1), 1.25**2)
    assert hand.explorer.n_neighbours == 5
    hand.mouse("scroll_event", 4, step=-2)
    assert_allclose(limits(hand), whole, atol=0.02)
    hand.mouse("scroll_event", 0, step=-99)
    assert_allclose(np.ptp(limits(hand), axis=1) / np.ptp(whole, axis=1), 2)  # no farther out
    hand.press("z")
    assert_allclose(limits(hand), whole)


@pytest.mark.parametrize("button", [2, 3])
def test_a_drag_with_another_button_from_nothing_moves_the_map(hand, button):
    canvas, before = hand.map.figure.canvas, hand.place(4, hand.map)
    for name, x, y in (
        ("button_press_event", 400, 380),
        ("motion_notify_event", 410, 380),
        ("motion_notify_event", 430, 340),
        ("button_release_event", 430, 340),
        ("motion_notify_event", 90, 90),
    ):
        hand.send(hand.map, MouseEvent(name, canvas, x, y, button=button))
    assert_allclose(np.subtract(hand.place(4, hand.map), before), (30, -40))
    assert hand.titles() == []


def test_the_map_is_as_large_as_before_after_the_window_was_smaller(hand):
    hand.settle()
    before, first = limits(hand), tuple(hand.map.figure.bbox.size)
    for size in ((300, 480), (720, 200), first):
        hand.resize(*size)
    assert_allclose(limits(hand), before)
    hand.mouse("scroll_event", 4, step=5)
    before = limits(hand)
    for size in ((300, 480), (720, 200), first):
        hand.resize(*size)
    assert_allclose(limits(hand), before)


def test_the_toolbars_home_brings_the_whole_map_back_at_every_size(results, tmp_path):
    hand = Hand(*results, tmp_path)
    toolbar = NavigationToolbar2(hand.map.figure.canvas)
    hand.resize(500, 300)
    whole, panel = limits(hand), hand.panel.axes.get_position().bounds
    hand.mouse("scroll_event", 4, step=5)
    hand.resize(300, 480)
    hand.resize(500, 300)
    assert np.ptp(limits(hand), axis=1).max() < np.ptp(whole, axis=1).max()
    toolbar.home()
    hand.settle()
    assert_allclose(limits(hand), whole)
    assert hand.panel.axes.get_position().bounds == panel


# back


def test_u_undoes_colouring_clustering_selection_and_filter_in_turn(hand):
    hand.press("h")
    hand.press_panel("entry", "car")
    hand.press("l")
    hand.draw_around([0, 2])
    hand.press("c", "2", "enter")
    told = []
    for _ in range(5):
        hand.press("u")
        told.append(hand.message())
    assert told == [
        "undone: clustering",
        "undone: selection",
        "undone: filter",
        "undone: colouring",
        "nothing to undo",
    ]
    assert hand.explorer.state.colouring == state.BY_TRUTH
    assert hand.explorer.state.clusters is None
    assert hand.selected() == []
    assert hand.grey_points() == []


def test_a_step_back_that_would_change_nothing_is_none(hand):
    hand.press("h", "l")
    hand.draw_around([0, 1])
    hand.draw_around([0, 1])  # the same again
    hand.press("n", *"cow", "enter", "n", *"cow", "enter", "c", "2", "enter", "c", "2", "enter")
    told = []
    for _ in range(5):
        hand.press("u")
        told.append(hand.message())
    assert told == [
        "undone: clustering",
        "undone: tag",
        "undone: selection",
        "undone: colouring",
        "nothing to undo",
    ]


def test_a_page_that_was_not_ticked_is_no_step_back(hand):
    hand.press("l")
    hand.draw_around([0, 1])
    hand.press("j")
    hand.press("j", view=hand.grid)
    assert hand.explorer.state.rejected.sum() == 4
    hand.press("u")
    assert hand.message() == "undone: selection"


def test_the_same_colours_again_are_no_step(hand):
    hand.press("h", "h", "u")
    assert hand.explorer.state.colouring == state.BY_TRUTH


# what shows is what is there


@pytest.mark.parametrize("seed", range(8))
def test_the_thumbnail_under_the_pointer_is_the_segments_own_after_anything(two_datasets, seed):
    """The classic fault of such tools: a picture, frame or fact of what was there before."""
    hand, rng = two_datasets, np.random.default_rng(seed)
    hand.press("l", "l")
    hand.hover(int(rng.integers(6)))
    for _ in range(12):
        what = rng.integers(7)
        if what == 0:
            hand.press(str(rng.choice(list("ghbioadrfmu"))))
        elif what == 1 and hand.panel._content.entries:
            entries = hand.panel._content.entries
            hand.press_panel("entry", entries[rng.integers(len(entries))].name)
        elif what == 2:
            hand.slide(*np.sort(rng.uniform(0.1, 0.3, 2)))
        elif what == 3:
            hand.draw_around(rng.choice(6, 2, replace=False))
        elif what == 4:
            hand.press("c", str(rng.integers(1, 7)), "enter")
        elif what == 5:
            hand.click(int(rng.integers(6)), 3)
        else:
            hand.wheel(int(rng.choice([-1, 1])))
        for view in (hand.map, *hand.explorer.sheets.views):
            check_pointer(hand, view, rng)


def check_pointer(hand, view, rng):
    """Whatever is under the pointer now, and after a movement, is shown as itself."""
    rows = np.arange(6) if view is hand.map else view.rows
    if view.pointer is None and len(rows):
        hand.hover(int(rng.choice(rows)), view)
    for _ in range(2):
        if view.pointer is not None and (row := view.row_at(*view.pointer)) is not None:
            facts = f"image {row // 3}  ·  segment {row % 3 + 2}"
            assert facts in view.status.get_text()
            if view is hand.map:
                assert view.tip.get_visible()
                assert shade_of(view) == row
                assert view.tip.frame == hand.explorer.colour_of(row)
            else:
                middle = hand.place(row, view)
                x, y = view.axes.transData.inverted().transform(middle)
                assert shown_shade(view.axes.images[0].get_array(), x, y) == row
        if len(rows):
            hand.hover(int(rng.choice(rows)), view)


def test_an_object_is_told_by_its_largest_segment_and_how_many_more_it_has():
    of_rows = as_column([np.array([7, 2, 4]), np.array([3])])
    points = np.zeros((2, 2), np.float32)
    table = object_table(2, component_index=[7, 3], segments=of_rows, plot_embeddings=points)
    shown = Segments(table, {}, {}, "results")
    assert "image 0  ·  segment 7 and 2 more  ·  predicted" in shown.describe(0)
    assert "image 0  ·  segment 3  ·  predicted" in shown.describe(1)
    assert shown.named(0).startswith("image 0, segment 7 and 2 more (")
    assert shown.tag_keys([0]) == [("streets", 0, 7, (0, 0, 9, 9))]


def without_thumbnails(table):
    columns = {name: column for name, column in table.columns.items() if name != "thumbnail"}
    return ObjectTable(columns)


def shown_shade(sheet, x, y):
    """Row whose grey a sheet of thumbnails has at a point."""
    return int(np.argmin(np.abs(np.subtract(SHADES, sheet[int(y), int(x)].mean()))))


def test_thumbnails_that_the_table_lacks_are_cut_from_the_images(results, tmp_path):
    folder, table = results
    hand = Hand(folder, without_thumbnails(table), tmp_path)
    hand.hover(4)
    own = pictures.thumbnail(np.array(Image.open(table["image_path"][4])), table["box"][4])
    assert_array_equal(hand.map.tip.picture, pictures.decode(own))
    hand.click(0, 3)
    assert len(hand.grid.rows) == 6


def test_a_thumbnail_that_cannot_be_cut_is_told_and_left_blank_in_a_sheet(results, tmp_path):
    folder, table = results
    gone = table.with_columns(image_path=as_column([str(tmp_path / "gone.png")] * 6))
    hand = Hand(folder, without_thumbnails(gone), tmp_path)
    hand.hover(4)
    assert not hand.map.tip.get_visible()
    assert "no thumbnail" in hand.message()
    hand.click(0, 3)
    sheet = hand.grid.axes.images[0].get_array()
    middle = hand.grid.cell[1] // 2
    assert_allclose(sheet[middle, middle], pictures.BLANK, atol=2)  # it was a JPEG


def test_a_resized_window_is_laid_out_anew(hand):
    hand.click(0, 3)
    for view in (hand.map, hand.grid):
        view.figure.set_size_inches(9, 9)
        event = ResizeEvent("resize_event", view.figure.canvas)
        hand.send(view, event)
    hand.press_panel("command", state.ALL_BLUE)
    assert hand.explorer.state.colouring == state.ALL_BLUE
    hand.hover(4, hand.grid)
    assert "image 1  ·  segment 3" in hand.grid.status.get_text()


def test_an_algorithm_that_takes_no_more_points_says_so_in_the_question(hand, monkeypatch):
    monkeypatch.setitem(embedding_space.MAX_POINTS, "spectral", 3)
    hand.press("#", "c", "2", "enter")
    assert "spectral" in hand.map.banner.get_text()
    assert hand.explorer.question is not None
    assert hand.explorer.state.clusters is None


def test_what_may_take_its_time_is_announced_while_it_works(hand, monkeypatch):
    monkeypatch.setattr(explorer, "SLOW_POINTS", 0)
    monkeypatch.setattr(sheets, "SLOW_VALUES", 0)
    shown = []
    canvas = hand.map.figure.canvas
    monkeypatch.setattr(
        canvas, "flush_events", lambda: shown.append(hand.map.banner.get_text()), raising=False
    )
    hand.press("d", "h", "l")
    hand.draw_around([0, 1])
    hand.press("e", "c", *"elbow", "enter", "2", "enter")
    hand.click(1, 3)
    hand.click(1, 2)
    for words in (
        "estimating the density",
        "drawing ...",
        "exporting masks of images: 0 of 1",
        "exporting crops: 0 of 2",
        "drawing the elbow curve",
        "clustering with k-means",
        "searching neighbours",
        "drawing the overview",
    ):
        assert any(words in text for text in shown), words
    assert not hand.map.banner.get_visible()


def test_help_and_the_explorers_page_list_the_same_commands():
    page = (REPOSITORY / "docs" / "explorer.md").read_text(encoding="utf-8")
    for press, _, does in COMMANDS:
        assert f"| {press} | {does} |" in page


# pictures without a display, and windows


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_saved_map_has_the_legend_but_no_buttons(hand, tmp_path, suffix):
    hand.explorer.save(tmp_path / f"map.{suffix}")
    assert (tmp_path / f"map.{suffix}").stat().st_size > 5000
    if suffix == "svg":
        text = (tmp_path / "map.svg").read_text()
        assert "<!-- sofa -->" in text
        assert "<!-- export -->" not in text
    hand.press_panel("command", state.ALL_BLUE)  # they are back
    assert hand.explorer.state.colouring == state.ALL_BLUE


def test_map_neighbours_and_overview_are_written_without_a_display(hand, tmp_path):
    hand.explorer.save(tmp_path / "new" / "map.png")
    hand.explorer.save_neighbours(0, tmp_path / "neighbours.png")
    hand.explorer.save_overview(0, tmp_path / "overview.png")
    assert hand.titles() == []
    for name in ("new/map.png", "neighbours.png", "overview.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 500


def test_hovering_goes_on_after_the_map_was_saved(hand, tmp_path):
    before = hand.settle()
    hand.explorer.save(tmp_path / "map.png")
    hand.settle()
    hand.hover(0)
    hand.send(hand.map, MouseEvent("motion_notify_event", hand.map.figure.canvas, 400, 400))
    assert_array_equal(np.asarray(hand.map.figure.canvas.buffer_rgba()), before)


@pytest.mark.parametrize("n_rows", [1, 2])
def test_one_or_two_segments_are_a_map(results, tmp_path, n_rows):
    folder, table = results
    hand = Hand(folder, table.take(range(n_rows)), tmp_path)
    hand.press("d", "c", "1", "enter")
    hand.click(0, 3)
    assert len(hand.explorer.sheets.views) == n_rows - 1


def test_one_is_not_told_as_many(results, tmp_path):
    folder, table = results
    hand = Hand(folder, table.take([0]), tmp_path)
    assert hand.map.title.get_text() == "Embedding space of streets: 1 object of 1 image"
    hand.press("l", "l")
    hand.draw_around([0])
    assert hand.grid.title.get_text().startswith("Selection: 1 object,")


def test_an_empty_table_and_a_wrong_metric_are_named(results, tmp_path):
    folder, table = results
    with pytest.raises(ValueError, match="no segment"):
        Hand(folder, table.take([]), tmp_path)
    with pytest.raises(ValueError, match="got 'taxi'"):
        Hand(folder, table, tmp_path, metric="taxi")


def test_matplotlibs_own_keys_are_off_in_the_explorers_windows_only(results, tmp_path):
    matplotlib.use("agg")
    folder, table = results
    parts = Segments(table, {"streets": LABEL}, PRED, folder)
    windows = Windows(window_figure, close_window)
    explorer = Explorer(parts, tmp_path, windows=windows)
    explorer.windows.show_image(0)
    explorer.keep_window()
    explorer.windows.show_overview(0)
    explorer.clustering.ask()
    for key in (*"elbow", "enter", "escape"):
        explorer.answer(key)
    explorer.show_neighbours(0)
    ours = [plt.figure(number) for number in plt.get_fignums()]
    titles = [figure.canvas.manager.get_window_title() for figure in ours]
    assert titles == ["Embedding space", "Image", "Overview", "Elbow", "Nearest neighbours"]
    theirs = plt.figure()
    theirs.add_subplot()
    for figure in (*ours, theirs):  # matplotlib's l: logarithmic scale
        figure.canvas.draw()
        axes = figure.axes[1 if figure is ours[0] else 0]
        event = KeyEvent("key_press_event", figure.canvas, "l", *axes.bbox.get_points()[1] - 9)
        figure.canvas.callbacks.process(event.name, event)
        assert axes.get_yscale() == ("log" if figure is theirs else "linear")
    for figure in ours[1:4]:
        event = KeyEvent("key_press_event", figure.canvas, "escape")
        figure.canvas.callbacks.process(event.name, event)
    assert plt.get_fignums() == [1, 5, 6]
    plt.close("all")


def test_without_a_display_the_way_on_is_told():
    matplotlib.use("agg")
    with pytest.raises(SettingError, match="mainplot.save_path=map.png"):
        require_display()
