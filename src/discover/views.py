"""What a window shows: the map, or a sheet of thumbnails, and what moves over them."""

import math
from textwrap import fill, shorten

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from matplotlib.transforms import IdentityTransform
from scipy.spatial import KDTree

from src.discover.figures import no_coordinates
from src.discover.panel import INK, MARKERS, MUTED, PINK, Panel, between_lines
from src.discover.quick import FillingImage, Numbers, Thumbnail, Words
from src.discover.state import inside
from src.store.reports import fonts, one_line

DENSITY_SHARES = 0.9, 0.7, 0.5, 0.3, 0.1  # of the points, above each level
DENSITY_COLOURS, DENSITY_LINE = ("#eaf1fa", "#d5e3f4", "#b8d0ec", "#94b8e0", "#6d9cd2"), "#4f7fbf"
ZOOMS = 0.5, 5000.0  # of the size at which the whole map shows
HIDDEN, EDGE = "#dfe2e8", "#1f243066"  # filtered points; the rim of the others
MARGIN = 0.012  # of the window's width, on each side
MAX_CELL_PX, CAPTION_SHARE = 200, 0.27  # of a thumbnail in a sheet; its caption's height
TIP_PX, TIP_GAP_PX = 150, 18
MIN_RIM_PT = 4  # smaller points have none, and go back where the density shows
OVER_DENSITY = 0.5  # share of their width, and how much of the density they hide
BANNER_PT, LETTER, LINE = 11, 0.6, 1.5  # font size; its letters' width, its lines' distance
LEAST_BANNER_PT = 8  # that can be read
DIAMOND = 0.85  # of a circle's width; the area is about the same
LETTERS = 13  # of a line of words in a cell
MIN_CAPTION_PT = 6.5  # of two lines; smaller ones would be one
OUTSIDE = -1  # row of the first query that is no segment; -2 of the next, and so on
NEIGHBOURS, SELECTION, RANKING = "neighbours", "selection", "ranking"  # kinds of sheets
TICK = Outline([(-0.5, 0.05), (-0.15, -0.35), (0.5, 0.4)])


def levels_holding(shares, values):
    """Levels of a density (h, w) on equal cells, ascending: above each lies a share of the whole.

    Levels that fall together are one.
    """
    highest = np.sort(values, axis=None)[::-1]
    held = np.cumsum(highest) / highest.sum()
    return np.unique(highest[np.searchsorted(held, shares)])


class View:
    """One window: a figure and what changes over it without redrawing it.

    Over the picture lie a thumbnail beside the pointer, two status lines, the line that a
    selection draws, and a banner in the middle. They are drawn onto a copy of the finished
    picture, which takes milliseconds however many points there are.
    """

    kind = ""  # of a sheet

    def __init__(self, figure):
        self.figure = figure
        self.title = self._line(
            MARGIN, fontsize=13, color=INK, fontweight="bold", verticalalignment="top",
            animated=False,
        )  # fmt: skip
        self.status = self._line(MARGIN, color=INK)
        self.message = self._line(MARGIN)
        self.state = self._line(1 - MARGIN, horizontalalignment="right")
        paper = {"boxstyle": "round,pad=1", "facecolor": "white", "edgecolor": MUTED}
        self.banner = figure.text(
            0.5, 0.5, "", ha="center", va="center", ma="left", bbox=paper, visible=False,
            family=("monospace", *fonts()), linespacing=LINE, color=INK, parse_math=False,
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
        self._is_closed = False  # which may happen while something takes its time
        figure.canvas.mpl_connect("draw_event", self._keep_picture)
        figure.canvas.mpl_connect("close_event", self._take_leave)

    def place(self):
        """Put the parts where the window's size wants them."""
        height = self.figure.get_figheight()
        self.title.set_y(1 - 0.22 / height)
        self.status.set_y(0.3 / height)
        for words in (self.message, self.state):
            words.set_y(0.1 / height)

    def _line(self, x, **style):
        style = {"fontsize": 9.5, "color": MUTED, "verticalalignment": "baseline"} | style
        style = {"animated": True} | style
        words = self.figure.add_artist(Words(x, 0, "", **style))
        words.room = 1 - 2 * MARGIN
        return words

    def refresh(self):
        """Draw anew what lies over the picture."""
        canvas = self.figure.canvas
        if self._is_closed:
            return
        if self._picture is None:
            canvas.draw_idle()
            return
        if self._ground is None:
            canvas.restore_region(self._picture)
            self._draw_ground()
        else:
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
        self._ground = None
        self.refresh()

    def show_facts(self, facts, path):
        """Tell facts in the status line, and as much of a path's end as has room beside them."""
        room_px = self.status.room * self.figure.bbox.width
        shown = f"  ·  {path}"
        while path:
            self.status.set_text(facts + shown)
            if self.status.width_px() <= room_px:
                return
            path = path.partition("/")[2]
            shown = f"  ·  …/{path}"
        self.status.set_text(facts)

    def show_tip(self, picture, frame, longest_px=TIP_PX):
        """Put a picture (h, w, 3) uint8 beside the pointer, inside the window."""
        ratio = self.figure.canvas.device_pixel_ratio
        x, y = self.pointer
        height, width = picture.shape[:2]
        scale = min(longest_px / max(height, width), 4) * ratio
        width, height = width * scale, height * scale
        room_x, room_y = self.figure.bbox.size
        gap = TIP_GAP_PX * ratio
        left = x + gap if x + gap + width <= room_x - gap else max(x - gap - width, gap)
        lower = min(max(y - height / 2, gap), room_y - gap - height)
        self.tip.picture, self.tip.frame, self.tip.frame_px = picture, frame, round(3 * ratio)
        self.tip.extent = tuple(map(round, (left, lower, left + width, lower + height)))
        self.tip.set_visible(True)

    def _take_leave(self, event):
        self._is_closed = True

    def _keep_picture(self, event):
        if not self.figure.canvas.is_saving():
            # no blitting here: the canvas is about to show what has been drawn
            self._picture = self.figure.canvas.copy_from_bbox(self.figure.bbox)
            self._draw_ground()
            self._draw(self.status, self.stroke, self.tip)

    def _draw_ground(self):
        """Draw what changes less often than the pointer moves, and keep the picture with it."""
        self._fit_banner()
        both = self.message.width_px() + self.state.width_px()  # they share a line
        self.state.set_visible(both < (1 - 3 * MARGIN) * self.figure.bbox.width)
        self._draw(self.message, self.state, self.banner)
        self._ground = self.figure.canvas.copy_from_bbox(self.figure.bbox)

    def room_for_banner(self):
        """How many letters a line, and lines, a banner may have and still be read: two int."""
        width, height = self.figure.bbox.size
        size_px = LEAST_BANNER_PT * self.figure.dpi / 72
        return int(width // math.ceil(LETTER * size_px)) - 5, int((height / size_px - 3) / LINE)

    def _fit_banner(self):
        """As large as it may be inside the window; letters are whole pixels apart."""
        width, height = self.figure.bbox.size
        lines = self.banner.get_text().split("\n")
        letter = width // (max(map(len, lines)) + 5)
        size_px = min(0.99 * letter / LETTER, height / (LINE * len(lines) + 3))
        self.banner.set_fontsize(min(BANNER_PT, max(size_px, 1) * 72 / self.figure.dpi))

    def _draw(self, *artists):
        for artist in artists:
            if artist.get_visible():
                self.figure.draw_artist(artist)


class MapView(View):
    """The scatter plot of all segments, with the panel of colours and filters.

    A group of points is one artist, whose markers are drawn from one stamp: the time a colour for
    each point would take is a hundred times as long.
    """

    def __init__(self, figure, points, title, scales, subtitle=""):
        super().__init__(figure)
        self.points = np.asarray(points, np.float64)
        self.title.set_text(title)
        self.subtitle = self._line(MARGIN, verticalalignment="top", animated=False)
        self.subtitle.set_text(subtitle)
        self.panel = Panel(figure, scales)
        self.axes = figure.add_axes((0, 0, 1, 1), xticks=[], yticks=[])
        self._room_px = None  # width and height of the axes where they were placed last
        self.place()
        self.axes.set_facecolor("white")
        self.axes.format_coord = no_coordinates
        for spine in self.axes.spines.values():
            spine.set_color("#d9dce3")
        self.axes.set_aspect("equal", adjustable="datalim")
        self.size_pt = float(np.clip(36 / len(self.points) ** 0.25, 1.2, 9))
        self._corners = self.points.min(axis=0), self.points.max(axis=0)
        self.axes.update_datalim(self._corners)
        self.show_whole()
        self.kept = np.ones(len(self.points), bool)
        self.density = []  # its fills and lines, while it shows
        self._groups = []  # (artist, size in points) of each
        self._mark = []  # the star of the last query, and its name
        self.numbers = self.axes.add_artist(Numbers(zorder=6))  # of near duplicates
        # nothing is drawn larger in one direction, so nearest is nearest at every zoom
        self._tree = KDTree(self.points, balanced_tree=False)

    def place(self):
        """Put the parts where the window's size wants them; the same is in the middle as before."""
        super().place()
        width = self.panel.room()[0] - 2 * MARGIN
        lower, height = between_lines(self.figure)
        self.axes.set_position((MARGIN, lower, width, height))
        self.title.room = self.subtitle.room = width
        if self.subtitle.get_text():
            self.title.set_y(1 - 0.14 / self.figure.get_figheight())
            self.subtitle.set_y(1 - 0.36 / self.figure.get_figheight())
        before, self._room_px = self._room_px, self.axes.bbox.size.copy()
        if before is not None:
            lower, upper = self._limits()
            zoom = self._whole(before)[1] / ((upper - lower) / before).max()
            self._show((lower + upper) / 2, self._whole(self._room_px)[1] / zoom)

    def paint(self, groups, kept, selected, stands=None):
        """Colour the points by their Groups; `redraw` shows it.

        Of the masks `kept` and `selected` (N,): points that are not kept go grey; those selected,
        all of them kept, have a dark ring. `stands` (N,) int64 is the row whose point stands for
        each, of those kept a kept one; None: its own.
        """
        rows = np.arange(len(self.points))
        self.kept, self._stands = kept, rows if stands is None else stands
        self._drawn = self._stands == rows
        ringed = np.zeros(len(rows), bool)
        ringed[self._stands[selected]] = True
        for artist, _ in self._groups:
            artist.remove()
        rim = 0.4 if self.size_pt >= MIN_RIM_PT else 0
        self._groups = []
        if not kept[self._drawn].all():
            self._add_points(~kept & self._drawn, HIDDEN, zorder=2)
        self._add_groups(groups, kept & self._drawn & ~ringed, 3, rim)
        if ringed.any():  # their rings lie below them, or many would cover the colours
            ring = {"fillstyle": "none", "markeredgewidth": max(0.8, 0.14 * self.size_pt)}
            self._add_points(ringed, INK, zorder=4, size=1.5, **ring)
            self._add_groups(groups, ringed, 5, rim)
        self._size_points()
        counts = np.bincount(self._stands[kept], minlength=len(rows))
        joined = np.flatnonzero(counts > 1)
        self.numbers.show(self.points[joined], counts[joined], self.size_pt)

    def _add_groups(self, groups, mask, zorder, rim):
        """Add the points of a mask (N,), those of small groups on top."""
        rows = np.flatnonzero(mask)
        rows = rows[np.argsort(groups.codes[rows], kind="stable")]
        counts = groups.counts(mask)
        parts = np.split(rows, np.cumsum(counts)[:-1])
        for code in np.argsort(-counts, kind="stable"):
            if len(parts[code]):
                is_unknown = groups.unknown is not None and bool(groups.unknown[code])
                marker = {"marker": MARKERS[is_unknown], "size": DIAMOND if is_unknown else 1.0}
                self._add_points(
                    parts[code], groups.colours[code] / 255, zorder, edge=rim, **marker
                )

    def _add_points(self, rows, colour, zorder, edge=0.0, size=1.0, **style):
        style = {"markeredgewidth": edge, "markeredgecolor": EDGE if edge else colour} | style
        style = {"marker": "o"} | style
        artist = Line2D(
            *self.points[rows].T, linestyle="", markerfacecolor=colour, zorder=zorder, **style
        )
        self._groups.append((self.axes.add_artist(artist), size * self.size_pt))

    def around(self, margin):
        """Corners (x, y) around all points, with a share of their span on each side."""
        lower, upper = self._corners
        span = upper - lower
        span[span == 0] = span.max() or 1.0
        return lower - margin * span, upper + margin * span

    def _size_points(self):
        """Give many points less room while the density behind them shows."""
        share = OVER_DENSITY if self.density and self.size_pt < MIN_RIM_PT else 1
        for artist, size_pt in self._groups:
            artist.set(markersize=share * size_pt, alpha=None if share == 1 else OVER_DENSITY)

    def show_density(self, values, x, y):
        """Lay levels of a density (h, w) at x (w,) and y (h,) behind the points; None: none.

        Above the lines lie 90, 70, 50, 30 and 10 % of all points. `redraw` shows it.
        """
        for artist in self.density:
            artist.remove()
        self.density = []
        levels = [] if values is None else levels_holding(DENSITY_SHARES, values)
        if len(levels) > 1:
            limits = self._limits()
            fills = {"colors": DENSITY_COLOURS, "zorder": 1, "extend": "max"}
            lines = {"colors": [DENSITY_LINE], "linewidths": 0.7, "zorder": 1.1}
            self.density = [
                self.axes.contourf(x, y, values, levels, **fills),
                self.axes.contour(x, y, values, levels, **lines),
            ]
            self.axes.set(xlim=limits[:, 0], ylim=limits[:, 1])
        self._size_points()

    def mark(self, point, text):
        """Put the star on the map, with a text beside it."""
        for artist in self._mark:
            artist.remove()
        self._mark = self.axes.plot(
            *point, marker="*", markersize=20, color=PINK, markeredgecolor="white", zorder=7,
            scalex=False, scaley=False,
        )  # fmt: skip
        self._mark.append(self.axes.annotate(
            one_line(text), point, (10, 8), textcoords="offset points", fontsize=10, color=INK,
            zorder=7, weight="bold", parse_math=False, family=fonts(),
            path_effects=[withStroke(linewidth=3, foreground="white")],
        ))  # fmt: skip

    def row_at(self, x, y):
        """Row of the point at pixel (x, y), or None; points that are not filtered out win."""
        if not self.axes.bbox.contains(x, y):
            return None
        spot = self.axes.transData.inverted().transform((x, y))
        reach_px = (self.size_pt / 2 + 3) * self.figure.dpi / 72
        reach = reach_px * np.diff(self.axes.get_xlim())[0] / self.axes.bbox.width
        rows = np.array(self._tree.query_ball_point(spot, reach), np.int64)
        rows = rows[self._drawn[rows]]
        kept = rows[self.kept[rows]]
        rows = kept if kept.size else rows
        if not rows.size:
            return None
        return int(rows[np.argmin(np.square(self.points[rows] - spot).sum(axis=1))])

    def rows_in(self, outline):
        """Mask (N,) of those, not filtered out, whose points lie in a polygon of pixels (V, 2)."""
        outline = self.axes.transData.inverted().transform(outline)
        return inside(self.points, outline)[self._stands] & self.kept

    # what of the map shows

    def show_whole(self):
        """Show all points; `redraw` shows it."""
        self._show(*self._whole(self._room_px))

    def zoom(self, x, y, factor):
        """Enlarge the map by a factor; what is at pixel (x, y) stays there."""
        lower, upper = self._limits()
        units = ((upper - lower) / self._room_px).max()
        factor = np.clip(factor, *np.multiply(ZOOMS, units / self._whole(self._room_px)[1]))
        spot = self.axes.transData.inverted().transform((x, y))
        self._show(spot + ((lower + upper) / 2 - spot) / factor, units / factor)

    def pan(self, x, y):
        """Move the map by pixels right and up."""
        lower, upper = self._limits()
        units = ((upper - lower) / self._room_px).max()
        self._show((lower + upper) / 2 - np.multiply(units, (x, y)), units)

    def keep_home(self):
        """Let the toolbar's Home button bring the whole map back, in the window's size of now."""
        toolbar = self.figure.canvas.toolbar
        if toolbar is not None:
            lower, upper = self._limits()
            toolbar.update()
            self.show_whole()
            toolbar.push_current()
            self._show((lower + upper) / 2, ((upper - lower) / self._room_px).max())

    def _limits(self):
        """Lower and upper corner (x, y) of what shows."""
        return np.transpose([self.axes.get_xlim(), self.axes.get_ylim()])

    def _whole(self, room_px):
        """Middle of all points, and units of the map a pixel where all of them show."""
        lower, upper = self.around(0.06)
        return (lower + upper) / 2, ((upper - lower) / room_px).max()

    def _show(self, middle, units):
        """Limits that need no widening for both axes to have one scale: `units` a pixel."""
        x, y = np.transpose(
            [middle - units * self._room_px / 2, middle + units * self._room_px / 2]
        )
        self.axes.set(xlim=x, ylim=y)


class SheetView(View):
    """Thumbnails of segments row by row: neighbours of one, a selection, or a ranking."""

    def __init__(self, figure, kind):
        super().__init__(figure)
        self.kind = kind
        self.axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_navigate(False)
        self.title.set_fontsize(12)
        self.place()
        self.query = None  # row whose neighbours show, below 0 of a Query; of a sheet of neighbours
        self.trail = []  # queries before
        self.is_kept = False  # neighbours of others come into another window
        self.search = None  # what its neighbours were searched by
        self.all_rows = None  # of a selection or a ranking
        self.page = 0  # of these
        self.order = None  # what they are sorted by; None: by what they were found by
        self.accepted = ""  # in words, of the page of a ranking before
        self.chosen = None  # mask (N,) that a selection shows, with what was ticked since
        self.rows = []  # of the table, as they show
        self.distances = None  # of these rows from the query
        self.cell = (1, 1, 0)  # columns, thumbnail side and caption height in pixels

    def layout(self, count):
        """Columns, thumbnail side and caption height (pixels) that show `count` cells largest."""
        width, height = self.figure.bbox.size * self._room()[2:]

        def side(columns):
            rows = math.ceil(count / columns)
            return int(min(width / columns, height / rows / (1 + CAPTION_SHARE)))

        columns = max(range(1, count + 1), key=side)
        largest = MAX_CELL_PX * self.figure.canvas.device_pixel_ratio
        side_px = max(8, int(min(side(columns), largest)))
        return columns, side_px, int(CAPTION_SHARE * side_px)

    def _room(self):
        lower, height = between_lines(self.figure)
        return MARGIN, lower, 1 - 2 * MARGIN, height

    def fill(self, title, sheet, captions, cell):
        """Show a sheet of the thumbnails of `rows`, pixel by pixel.

        `captions` have two lines each, and one line for where two would be too small to read.
        `cell` is (columns, side, caption height) of the sheet, as from `layout`.
        """
        self.cell = cell
        self.title.set_text(title)
        self.tip.set_visible(False)
        for artist in (*self.axes.images, *self.axes.texts):
            artist.remove()
        size = sheet.shape[1::-1] / self.figure.bbox.size
        left, lower, width, height = self._room()
        self.axes.set_position((left + (width - size[0]) / 2, lower + height - size[1], *size))
        self.axes.set(xlim=(0, sheet.shape[1]), ylim=(sheet.shape[0], 0))
        self.axes.add_image(FillingImage(self.axes, sheet))
        columns, side, height = cell
        font_pt = min(0.33 * height * 72 / self.figure.dpi, 11)
        is_small = font_pt < MIN_CAPTION_PT
        for number, (lines, line) in enumerate(captions):
            x, y = number % columns * side, number // columns * (side + height)
            bold = self.kind == NEIGHBOURS and number == 0
            words = self.axes.add_artist(Words(
                x + side / 2, y + side + (0.45 if is_small else 0.7) * height,
                line if is_small else lines, horizontalalignment="center",
                verticalalignment="baseline", fontsize=1.5 * font_pt if is_small else font_pt,
                color=INK, fontweight="bold" if bold else "normal",
            ))  # fmt: skip
            words.room = 0.96 * side / self.figure.bbox.width

    def write_words(self, text):
        """Write into the first cell, for words that have no picture."""
        side = self.cell[1]
        size_pt = 0.11 * side * 72 / self.figure.dpi
        lines = shorten(text, LETTERS * 4, placeholder=" …")
        self.axes.add_artist(Words(
            side / 2, side / 2, f"“{fill(lines, LETTERS)}”", fontsize=size_pt, color=INK,
            horizontalalignment="center", verticalalignment="center",
        ))  # fmt: skip

    def show_ticks(self, ticked):
        """Mark some of the thumbnails, a bool for each, and show the sheet."""
        for artist in list(self.axes.lines):
            artist.remove()
        columns, side, height = self.cell
        numbers = np.flatnonzero(ticked)
        x = (numbers % columns + 0.88) * side
        y = numbers // columns * (side + height) + 0.12 * side
        size = 0.17 * side * 72 / self.figure.dpi
        style = {"linestyle": "", "markeredgecolor": "white", "scalex": False, "scaley": False}
        self.axes.plot(x, y, marker="o", markersize=size, color=INK, **style)
        self.axes.plot(
            x, y, marker=TICK, markersize=0.5 * size, markerfacecolor="none",
            markeredgewidth=0.13 * size, **style,
        )  # fmt: skip
        self.redraw()

    def row_at(self, x, y):
        """Row of the table whose thumbnail is at pixel (x, y), or None."""
        if not self.axes.bbox.contains(x, y):
            return None
        x, y = self.axes.transData.inverted().transform((x, y))
        columns, side, height = self.cell
        number = int(y // (side + height)) * columns + min(int(x // side), columns - 1)
        if number >= len(self.rows) or self.rows[number] < 0:
            return None
        return int(self.rows[number])

    def distance_of(self, row):
        """Distance of a shown row from the query; None in a selection."""
        if self.distances is None:
            return None
        return float(self.distances[list(self.rows).index(row)])

    def wants_tip(self):
        """Whether the sheet's own thumbnails have become too small to see."""
        return self.cell[1] < 0.7 * TIP_PX * self.figure.canvas.device_pixel_ratio
