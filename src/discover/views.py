"""What a window shows: the map, or a sheet of thumbnails, and what moves over them."""

import math

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.transforms import IdentityTransform
from scipy.spatial import KDTree

from src.discover.panel import INK, MUTED, PINK, Panel
from src.discover.quick import Backdrop, Thumbnail, Words
from src.discover.state import inside

DENSITY_COLOURS = LinearSegmentedColormap.from_list("density", ["#5b8fd600", "#5b8fd6b0"])
HIDDEN, EDGE = "#dfe2e8", "#1f243066"  # filtered points; the rim of the others
MAP_ROOM = (0.012, 0.075, 0.766, 0.85)  # left, lower, width, height in the window
SHEET_ROOM = np.array((0.012, 0.075, 0.976, 0.855))
MAX_CELL_PX, CAPTION_SHARE = 200, 0.27  # of a thumbnail in a sheet; its caption's height
TIP_PX, TIP_GAP_PX = 150, 18
MESSAGE_BESIDE = 105  # letters that leave the room for what is chosen
MIN_RIM_PT = 4  # smaller points have none
OUTSIDE = -1  # row of a query that is no segment


class View:
    """One window: a figure and what changes over it without redrawing it.

    Over the picture lie a thumbnail beside the pointer, two status lines, the line that a
    selection draws, and a banner in the middle. They are drawn onto a copy of the finished
    picture, which takes milliseconds however many points there are.
    """

    def __init__(self, figure):
        self.figure = figure
        self.status = self._line(0.012, 0.038, color=INK)
        self.message = self._line(0.012, 0.013)
        self.state = self._line(0.988, 0.013, horizontalalignment="right")
        paper = {"boxstyle": "round,pad=1", "facecolor": "white", "edgecolor": MUTED}
        self.banner = figure.text(
            0.5, 0.52, "", ha="center", va="center", ma="left", bbox=paper, visible=False,
            fontsize=11, family="monospace", linespacing=1.5, color=INK, parse_math=False,
            animated=True,
        )  # fmt: skip
        self.stroke = Line2D(
            [], [], transform=IdentityTransform(), color=PINK, linewidth=1.6, animated=True
        )
        self.tip = Thumbnail()
        self.tip.set(animated=True, visible=False)
        for artist in (self.stroke, self.tip):
            figure.add_artist(artist)
        self.pointer = None  # where it was last, pixels; None: outside
        self._picture = None  # the finished one
        self._ground = None  # the same with message, state and banner, which change less often
        figure.canvas.mpl_connect("draw_event", self._keep_picture)

    def _line(self, x, y, **style):
        style = {"fontsize": 9.5, "color": MUTED, "verticalalignment": "baseline"} | style
        return self.figure.add_artist(Words(x, y, "", animated=True, **style))

    def refresh(self):
        """Draw anew what lies over the picture."""
        canvas = self.figure.canvas
        if self._picture is None:
            canvas.draw_idle()
            return
        if self._ground is None:
            canvas.restore_region(self._picture)
            self._draw(self.message, self.state, self.banner)
            self._ground = canvas.copy_from_bbox(self.figure.bbox)
        canvas.restore_region(self._ground)
        self._draw(self.status, self.stroke, self.tip)
        canvas.blit(self.figure.bbox)

    def redraw(self):
        """Draw everything anew."""
        self._picture = None
        self.figure.canvas.draw_idle()

    def show_banner(self, text):
        """Put a text into the middle of the window; an empty one takes it away."""
        self.banner.set_text(text)
        self.banner.set_visible(bool(text))
        self.tip.set_visible(self.tip.get_visible() and not text)
        self._ground = None
        self.refresh()

    def tell(self, message, state):
        """Say what happened, and what is chosen now."""
        self.message.set_text(message)
        self.state.set_text(state)
        self.state.set_visible(len(message) <= MESSAGE_BESIDE)  # they share a line
        self._ground = None
        self.refresh()

    def show_tip(self, picture, frame):
        """Put a picture (h, w, 3) uint8 beside the pointer, inside the window."""
        ratio = self.figure.canvas.device_pixel_ratio
        x, y = self.pointer
        height, width = picture.shape[:2]
        scale = min(TIP_PX / max(height, width), 4) * ratio
        width, height = width * scale, height * scale
        room_x, room_y = self.figure.bbox.size
        gap = TIP_GAP_PX * ratio
        left = x + gap if x + gap + width <= room_x - gap else max(x - gap - width, gap)
        lower = min(max(y - height / 2, gap), room_y - gap - height)
        self.tip.picture, self.tip.frame, self.tip.frame_px = picture, frame, round(3 * ratio)
        self.tip.extent = tuple(map(round, (left, lower, left + width, lower + height)))
        self.tip.set_visible(True)

    def _keep_picture(self, event):
        if not self.figure.canvas.is_saving():
            self._picture = self.figure.canvas.copy_from_bbox(self.figure.bbox)
            self._ground = None
            self.refresh()

    def _draw(self, *artists):
        for artist in artists:
            if artist.get_visible():
                self.figure.draw_artist(artist)


class MapView(View):
    """The scatter plot of all segments, with the panel of colours and filters.

    A group of points is one artist, whose markers are drawn from one stamp: the time a colour for
    each point would take is a hundred times as long.
    """

    def __init__(self, figure, points, title, iou, iou_extent):
        super().__init__(figure)
        self.points = np.asarray(points, np.float64)
        self.title = figure.text(
            0.012, 0.972, title, fontsize=13, color=INK, weight="bold", va="top", parse_math=False
        )
        self.axes = figure.add_axes(MAP_ROOM, xticks=[], yticks=[])
        self.axes.set_facecolor("white")
        for spine in self.axes.spines.values():
            spine.set_color("#d9dce3")
        self.axes.set_aspect("equal", adjustable="datalim")
        self.size_pt = float(np.clip(36 / len(self.points) ** 0.25, 1.2, 9))
        self._corners = self.points.min(axis=0), self.points.max(axis=0)
        self.axes.update_datalim(self._corners)
        self._show_all()
        self.kept = np.ones(len(self.points), bool)
        self.density = None
        self.panel = Panel(figure, iou, iou_extent)
        self._groups = []
        # nothing is drawn larger in one direction, so nearest is nearest at every zoom
        self._tree = KDTree(self.points, balanced_tree=False)

    def paint(self, groups, kept, selected):
        """Colour the points by their groups; `redraw` shows it.

        Parameters
        ----------
        groups : Groups
        kept, selected : ndarray of shape (N,), bool
            The others go grey; these have a dark ring.
        """
        self.kept = kept
        for artist in self._groups:
            artist.remove()
        rim = 0.4 if self.size_pt >= MIN_RIM_PT else 0
        self._groups = [self._points(~kept, HIDDEN, zorder=2)] if not kept.all() else []
        rows = np.flatnonzero(kept)
        rows = rows[np.argsort(groups.codes[rows], kind="stable")]
        counts = groups.counts(kept)
        parts = np.split(rows, np.cumsum(counts)[:-1])
        for code in np.argsort(-counts, kind="stable"):  # small groups lie on top
            if len(parts[code]):
                colour = groups.colours[code] / 255
                self._groups.append(self._points(parts[code], colour, zorder=3, edge=rim))
        if selected.any():
            ring = {"fillstyle": "none", "markeredgewidth": max(0.8, 0.14 * self.size_pt)}
            self._groups.append(self._points(selected, INK, zorder=4, size=1.5, **ring))

    def _points(self, rows, colour, zorder, edge=0.0, size=1.0, **style):
        style = {"markeredgewidth": edge, "markeredgecolor": EDGE if edge else colour} | style
        artist = Line2D(
            *self.points[rows].T, linestyle="", marker="o",
            markersize=size * self.size_pt, markerfacecolor=colour, zorder=zorder, **style,
        )  # fmt: skip
        return self.axes.add_artist(artist)

    def around(self, margin):
        """Corners (x, y) around all points, with a share of their span on each side."""
        lower, upper = self._corners
        span = upper - lower
        span[span == 0] = span.max() or 1.0
        return lower - margin * span, upper + margin * span

    def show_density(self, values, extent):
        """Lay a density (h, w) behind the points; None takes it away. `redraw` shows it.

        `extent` is its left, right, lower and upper edge; the lowest row comes first.
        """
        if self.density is not None:
            self.density.remove()
            self.density = None
        if values is not None:
            colours = DENSITY_COLOURS(values / values.max(), bytes=True)
            self.density = self.axes.add_artist(Backdrop(colours, extent))
            self.density.set_zorder(1)

    def mark(self, point, text):
        """Put a star on the map."""
        self.axes.plot(
            *point, marker="*", markersize=20, color=PINK, markeredgecolor="white", zorder=6,
            scalex=False, scaley=False,
        )  # fmt: skip
        self.axes.annotate(
            text, point, (10, 8), textcoords="offset points", fontsize=10, color=INK, zorder=6,
            weight="bold", parse_math=False,
        )  # fmt: skip

    def row_at(self, x, y):
        """Row of the point at pixel (x, y), or None; points that are not filtered out win."""
        if not self.axes.bbox.contains(x, y):
            return None
        spot = self.axes.transData.inverted().transform((x, y))
        reach_px = (self.size_pt / 2 + 3) * self.figure.dpi / 72
        reach = reach_px * np.diff(self.axes.get_xlim())[0] / self.axes.bbox.width
        rows = np.array(self._tree.query_ball_point(spot, reach), np.int64)
        kept = rows[self.kept[rows]]
        rows = kept if kept.size else rows
        if not rows.size:
            return None
        return int(rows[np.argmin(np.square(self.points[rows] - spot).sum(axis=1))])

    def rows_in(self, outline):
        """Mask (N,) of the points, not filtered out, inside a polygon of pixels (V, 2)."""
        outline = self.axes.transData.inverted().transform(outline)
        return inside(self.points, outline) & self.kept

    def _show_all(self):
        """Limits around all points that need no widening for both axes to have one scale."""
        lower, upper = self.around(0.06)
        room = self.axes.bbox.size
        span = room * ((upper - lower) / room).max()
        middle = (lower + upper) / 2
        self._set_limits(*np.transpose([middle - span / 2, middle + span / 2]))

    def _set_limits(self, x, y):
        self.axes.set_xlim(x, auto=True)  # not fixed: widened to keep both axes at one scale
        self.axes.set_ylim(y, auto=True)


class SheetView(View):
    """Thumbnails of segments row by row: the nearest neighbours of one, or a selection."""

    def __init__(self, figure):
        super().__init__(figure)
        self.axes = figure.add_axes(SHEET_ROOM)
        self.axes.set_axis_off()
        self.title = figure.text(
            0.012, 0.972, "", fontsize=12, color=INK, weight="bold", va="top", parse_math=False
        )
        self.query = None  # row whose neighbours show, or OUTSIDE; None: a selection
        self.search = None  # what its neighbours were searched by
        self.page = 0  # of a selection
        self.rows = []  # of the table, as they show
        self.distances = None  # of these rows from the query
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

    def fill(self, title, sheet, captions, cell):
        """Show a sheet of the thumbnails of `rows`, pixel by pixel.

        `cell` is (columns, side, caption height) of the sheet, as from `layout`.
        """
        self.cell = cell
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
            bold = self.query is not None and number == 0
            self.axes.add_artist(Words(
                x + side / 2, y + side + 0.7 * height, caption, horizontalalignment="center",
                verticalalignment="baseline", fontsize=font_pt, color=INK,
                fontweight="bold" if bold else "normal",
            ))  # fmt: skip
        self.redraw()

    def row_at(self, x, y):
        """Row of the table whose thumbnail is at pixel (x, y), or None."""
        if not self.axes.bbox.contains(x, y):
            return None
        x, y = self.axes.transData.inverted().transform((x, y))
        columns, side, height = self.cell
        number = int(y // (side + height)) * columns + min(int(x // side), columns - 1)
        if number >= len(self.rows) or self.rows[number] == OUTSIDE:
            return None
        return int(self.rows[number])

    def distance_of(self, row):
        """Distance of a shown row from the query; None in a selection."""
        if self.distances is None:
            return None
        return float(self.distances[list(self.rows).index(row)])

    def wants_tip(self):
        """Whether the sheet's own thumbnails have become too small to see."""
        return self.cell[1] < 0.6 * TIP_PX * self.figure.canvas.device_pixel_ratio
