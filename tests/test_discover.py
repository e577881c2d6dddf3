"""The explorer: every command by synthetic events, without a display."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backend_bases import KeyEvent, MouseEvent
from numpy.testing import assert_array_equal
from PIL import Image

from src import cache, discover, pictures
from src.loading import SettingError
from src.records import Prediction

PRED = {0: ("road", (128, 64, 128)), 13: ("car", (0, 0, 142))}
LABEL = {**PRED, 30: ("sofa", (200, 100, 50)), 31: ("boat", (20, 180, 90))}
SHADES = [20, 60, 100, 140, 180, 220]  # the grey of each segment and of its thumbnail
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
        where = (folder, "narrow", "streets", index)
        cache.write_prediction(cache.prediction_path(*where), prediction, {})
        cache.write_components(cache.components_path(*where), components, {})
    table = {
        "image_path": [str(folder / f"picture{index}.png") for index in range(2)],
        "dataset": ["streets"] * 2,
        "model_name": ["narrow"] * 2,
        "image_index": np.arange(2),
        "iou_pred": [np.array([0.9, 0.1, 0.2, 0.3], np.float32)] * 2,
        "box": np.array(boxes * 2),
        "component_index": np.array([2, 3, 4] * 2),
        "image_level_index": np.repeat([0, 1], 3),
        "gt": np.array([30, 30, 31, 31, 13, 255]),
        "pred": np.array([0, 13, 0, 13, 0, 13]),
        "iou": np.array([0.1, 0.2, 0.3] * 2, np.float32),
        "thumbnail": [
            pictures.thumbnail(np.full((20, 20, 3), shade, np.uint8), (0, 0, 20, 20))
            for shade in SHADES
        ],
        "nn_embeddings": PLACES,
        "plot_embeddings": PLACES,
    }
    return folder, table


class Hand:
    """An explorer and a hand on its mouse and keyboard."""

    def __init__(self, folder, table, out_dir, **settings):
        self.opened = []
        files = discover.ImageFiles(folder)
        self.explorer = discover.Explorer(
            table, LABEL, PRED, files, out_dir, new_figure=self._new_figure, **settings
        )
        self.out_dir = out_dir

    def _new_figure(self, size_in, title):
        self.opened.append((title, discover.picture_figure(size_in, title)))
        self.opened[-1][1].set_dpi(60)  # small pictures are drawn faster
        return self.opened[-1][1]

    @property
    def map(self):
        return self.explorer.map

    @property
    def grid(self):
        return self.explorer.grids[-1]

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

    def down(self, key, view=None):
        view = view or self.map
        self.send(view, KeyEvent("key_press_event", view.figure.canvas, key))

    def up(self, key, view=None):
        view = view or self.map
        self.send(view, KeyEvent("key_release_event", view.figure.canvas, key))

    def send(self, view, event):
        view.figure.canvas.callbacks.process(event.name, event)

    def message(self, view=None):
        return (view or self.map).message.get_text()

    def point_colours(self):
        return np.rint(self.map.scatter.get_facecolors()[:, :3] * 255).astype(int)

    def legend(self):
        legend = self.map._legend_axes.get_legend()
        return legend.get_title().get_text(), [text.get_text() for text in legend.get_texts()]

    def saved(self):
        return sorted(path.name for path in self.out_dir.glob("*"))


@pytest.fixture
def hand(results, tmp_path):
    return Hand(*results, tmp_path / "saved")


def shade_of(view):
    """Row whose grey the thumbnail beside the pointer has."""
    return int(np.argmin(np.abs(np.subtract(SHADES, view.tip.images[0].get_array().mean()))))


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
    left, lower, right, upper = hand.map.tip.bbox.extents
    width, height = hand.map.figure.bbox.size
    assert 0 <= left < right <= width
    assert 0 <= lower < upper <= height
    assert not hand.map.tip.bbox.contains(*hand.place(row, hand.map))


def test_hovering_over_nothing_shows_nothing(hand):
    hand.hover(0)
    hand.send(hand.map, MouseEvent("motion_notify_event", hand.map.figure.canvas, 400, 400))
    assert not hand.map.tip.get_visible()
    assert hand.map.status.get_text() == ""


def test_the_thumbnail_is_drawn_and_goes_without_a_trace(hand):
    empty = np.array(hand.map.figure.canvas.buffer_rgba())
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
    assert "image 1  ·  segment 3" in figure.texts[0].get_text()


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
    assert "segment 2" in figure.get_suptitle()


def test_right_click_opens_the_neighbours_nearest_first(hand):
    hand.click(0, 3)
    assert hand.titles() == ["Nearest neighbours"]
    assert_array_equal(hand.grid.rows, [0, 1, 2, 3, 4, 5])
    captions = [text.get_text() for text in hand.grid.axes.texts]
    assert captions[:2] == ["sofa\nquery", "sofa\n→ car  1"]
    assert captions[5].startswith("no label") or captions[5] == "car\n12.7"
    title = "(euclid) of image 0, segment 2 (predicted road, true sofa)"
    assert title in hand.grid.title.get_text()


def test_a_right_click_in_the_grid_goes_on_from_there(hand):
    hand.click(0, 3)
    hand.click(5, 3, hand.grid)
    assert len(hand.explorer.grids) == 1
    assert hand.grid.rows[0] == 5


def test_the_buttons_work_in_the_grid_too(hand):
    hand.click(0, 3)
    hand.click(3, 1, hand.grid)
    hand.click(2, 2, hand.grid)
    hand.click(4, 1, hand.grid, modifiers=["ctrl"])
    assert hand.titles() == ["Nearest neighbours", "Image", "Overview"]
    assert "image 1  ·  segment 2" in hand.opened[-2][1].texts[0].get_text()
    assert hand.saved() == ["streets_image1_segment3_image.png"]


def test_hovering_in_the_grid_tells_the_facts_and_the_distance(hand):
    hand.click(0, 3)
    hand.hover(2, hand.grid)
    assert hand.grid.status.get_text().endswith("distance 3")
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
    assert not hand.explorer.held


def test_the_toolbars_pan_and_zoom_keep_their_clicks(hand):
    class Toolbar:
        mode = "pan/zoom"

    hand.map.figure.canvas.toolbar = Toolbar()
    hand.click(0, 1)
    assert hand.titles() == []
    hand.map.figure.canvas.toolbar.mode = ""
    hand.click(0, 1)
    hand.click(0, 1, dblclick=True)
    assert hand.titles() == ["Image"]


def test_a_missing_image_is_told_and_the_rest_goes_on(results, tmp_path):
    folder, table = results
    missing = str(tmp_path / "gone.png")
    hand = Hand(folder, {**table, "image_path": [missing] * 2}, tmp_path)
    hand.click(0, 1)
    assert "cannot show this" in hand.message()
    assert "gone.png" in hand.message()
    hand.hover(1)
    assert shade_of(hand.map) == 1


# wheel, m, #


def test_the_wheel_changes_the_number_of_neighbours_within_what_exists(hand):
    assert hand.explorer.n_neighbours == 5
    hand.click(0, 3)
    for expected in (4, 3):
        hand.wheel(-1, hand.grid)
        assert hand.explorer.n_neighbours == expected
        assert len(hand.grid.rows) == expected + 1
    for _ in range(3):
        hand.wheel(-1)
    assert hand.explorer.n_neighbours == 1
    for _ in range(5):
        hand.wheel(1)
    assert hand.explorer.n_neighbours == 5
    assert hand.message() == "neighbours: 5 (of at most 5)"


def test_the_segment_under_the_pointer_is_right_after_the_grid_changed_size(hand):
    hand.click(0, 3)
    for _ in range(3):
        hand.wheel(-1)
    hand.click(1, 1, hand.grid)
    assert "image 0  ·  segment 3" in hand.opened[-1][1].texts[0].get_text()


def test_m_goes_to_the_next_metric_and_searches_open_grids_anew(hand):
    hand.click(1, 3)
    assert hand.grid.rows[1] == 0
    hand.press("m", view=hand.grid)
    assert hand.explorer.metric == "cos"
    assert "(cos)" in hand.grid.title.get_text()
    assert hand.grid.rows[1] == 3  # the same direction, farther away
    assert "metric: cos" in hand.map.state.get_text()
    hand.press("m")
    assert hand.explorer.metric == "euclid"


def test_the_number_sign_goes_round_the_clustering_algorithms(hand):
    seen = []
    for _ in range(3):
        hand.press("#")
        seen.append(hand.explorer.algorithm)
        assert hand.message() == f"clustering algorithm: {seen[-1]}"
    assert seen == ["spectral", "agglomerative", "k-means"]


# colours


def test_g_h_and_b_colour_the_points_and_explain_it(hand):
    hand.press("h")
    assert_array_equal(hand.point_colours(), [PRED[i][1] for i in (0, 13, 0, 13, 0, 13)])
    assert hand.legend() == ("Predicted class", ["road  3", "car  3"])
    hand.press("g")
    true = [LABEL[i][1] for i in (30, 30, 31, 31, 13)]
    assert_array_equal(hand.point_colours(), [*true, discover.GREY])
    assert hand.legend() == ("True class", ["sofa  2", "boat  2", "car  1", "no label  1"])
    hand.press("b")
    assert_array_equal(hand.point_colours(), [discover.BLUE] * 6)
    assert hand.legend()[1] == ["all segments  6"]


def test_frames_in_the_grid_and_beside_the_pointer_follow_the_colours(hand):
    hand.click(0, 3)
    for key, colour in (("g", LABEL[30][1]), ("b", discover.BLUE)):
        hand.press(key)
        sheet = hand.grid.axes.images[0].get_array()
        side = hand.grid.cell[1]
        assert_array_equal(sheet[side // 2, side // 20 + 1], colour)
        hand.hover(0)
        edge = np.array(hand.map.tip.spines["left"].get_edgecolor()[:3]) * 255
        assert_array_equal(np.rint(edge), colour)


def test_without_ground_truth_the_map_shows_predictions_and_g_says_why(results, tmp_path):
    folder, table = results
    hand = Hand(folder, {**table, "gt": np.full(6, 255)}, tmp_path)
    assert hand.explorer.colouring == discover.BY_PREDICTION
    hand.press("g")
    assert hand.explorer.colouring == discover.BY_PREDICTION
    assert "no segment has a ground truth" in hand.message()


def test_keys_with_ctrl_are_no_commands(hand):
    hand.press("ctrl+b")
    assert hand.explorer.colouring == discover.BY_TRUTH


# density and clusters


def test_d_lays_the_density_behind_the_points_and_takes_it_away(hand):
    limits = hand.map.axes.get_xlim()
    hand.press("d")
    assert hand.map.density.get_zorder() < hand.map.scatter.get_zorder()
    assert hand.map.axes.get_xlim() == limits
    assert hand.message() == "density on"
    hand.press("d")
    assert hand.map.density is None
    assert not hand.map.axes.images


def test_c_asks_in_the_window_and_clusters(hand):
    hand.press("c")
    assert "Number of clusters (k-means)" in hand.map.banner.get_text()
    hand.press("4", "backspace", "3", "enter")
    assert not hand.map.banner.get_visible()
    assert hand.explorer.colouring == discover.BY_CLUSTER
    assert len(set(map(tuple, hand.point_colours()))) == 3
    assert hand.legend()[0] == "Cluster"
    assert hand.message() == "3 clusters by k-means"


def test_typed_letters_are_an_answer_and_no_commands(hand):
    hand.press("c", "b", "#")
    assert hand.explorer.colouring == discover.BY_TRUTH
    assert hand.explorer.algorithm == "k-means"
    assert "b#" in hand.map.banner.get_text()


def test_escape_cancels_the_question(hand):
    hand.press("c", "2", "escape")
    assert hand.explorer.answer is None
    assert not hand.map.banner.get_visible()
    assert hand.explorer.clusters is None
    hand.press("b")
    assert hand.explorer.colouring == discover.ALL_BLUE


@pytest.mark.parametrize("answer", ["0", "7", "x", "-1", "2.5", ""])
def test_a_wrong_answer_says_what_is_expected_and_asks_again(hand, answer):
    hand.press("c", *answer, "enter")
    banner = hand.map.banner.get_text()
    assert f"{answer!r} is not a number of clusters" in banner
    assert "a whole number from 1 to 6 or `elbow`" in banner
    hand.press("2", "enter")
    assert hand.explorer.clusters.max() == 1


def test_elbow_draws_the_curve_and_asks_again(hand):
    hand.press("c", *"elbow", "enter")
    assert hand.titles() == ["Elbow"]
    curve = hand.opened[-1][1].axes[0].lines[0]
    assert_array_equal(curve.get_xdata(), [1, 2, 3, 4, 5, 6])
    assert (np.diff(curve.get_ydata()) < 0).all()
    figure = hand.opened[-1][1]  # the keyboard may be there now
    for key in ("2", "enter"):
        event = KeyEvent("key_press_event", figure.canvas, key)
        figure.canvas.callbacks.process(event.name, event)
    assert hand.explorer.clusters.max() == 1


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
    assert hand.explorer.colouring == discover.BY_CLUSTER


def test_question_mark_shows_every_command_until_asked_again(hand):
    hand.press("?")
    banner = hand.map.banner.get_text()
    for word in ("left", "middle", "right", "wheel", "Ctrl", "t + left", "g / h / b", "#", "?"):
        assert word in banner
    hand.press("?")
    assert not hand.map.banner.get_visible()


# pictures without a display, and windows


def test_map_neighbours_and_overview_are_written_without_a_display(hand, tmp_path):
    hand.explorer.save(tmp_path / "new" / "map.png")
    hand.explorer.save_neighbours(0, tmp_path / "neighbours.png")
    hand.explorer.save_overview(0, tmp_path / "overview.png")
    assert hand.titles() == []
    for name in ("new/map.png", "neighbours.png", "overview.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 500


def test_hovering_goes_on_after_the_map_was_saved(hand, tmp_path):
    before = np.array(hand.map.figure.canvas.buffer_rgba())
    hand.explorer.save(tmp_path / "map.png")
    hand.hover(0)
    hand.send(hand.map, MouseEvent("motion_notify_event", hand.map.figure.canvas, 400, 400))
    assert_array_equal(np.asarray(hand.map.figure.canvas.buffer_rgba()), before)


@pytest.mark.parametrize("n_rows", [1, 2])
def test_one_or_two_segments_are_a_map(results, tmp_path, n_rows):
    folder, table = results
    few = {
        key: values[:n_rows]
        for key, values in table.items()
        if key not in ("image_path", "dataset", "model_name", "image_index", "iou_pred")
    }
    hand = Hand(folder, {**table, **few}, tmp_path)
    hand.press("d", "c", "1", "enter")
    hand.click(0, 3)
    assert len(hand.explorer.grids) == n_rows - 1


def test_an_empty_table_and_a_wrong_metric_are_named(results, tmp_path):
    folder, table = results
    with pytest.raises(ValueError, match="no segment"):
        Hand(folder, {**table, "plot_embeddings": PLACES[:0]}, tmp_path)
    with pytest.raises(ValueError, match="got 'taxi'"):
        Hand(folder, table, tmp_path, metric="taxi")


def test_matplotlibs_own_keys_are_off_in_the_explorers_windows_only(results, tmp_path):
    matplotlib.use("agg")
    folder, table = results
    files = discover.ImageFiles(folder)
    explorer = discover.Explorer(
        table, LABEL, PRED, files, tmp_path, new_figure=discover.window_figure
    )
    explorer.map.figure.canvas.draw()
    theirs = plt.figure().add_subplot()
    for axes in (explorer.map.axes, theirs):  # matplotlib's l: logarithmic scale
        event = KeyEvent("key_press_event", axes.figure.canvas, "l", *axes.bbox.get_points()[1] - 9)
        axes.figure.canvas.callbacks.process(event.name, event)
    assert explorer.map.axes.get_yscale() == "linear"
    assert theirs.get_yscale() == "log"
    plt.close("all")


def test_without_a_display_the_way_on_is_told():
    matplotlib.use("agg")
    with pytest.raises(SettingError, match="mainplot.save_path=map.png"):
        discover.require_display()
