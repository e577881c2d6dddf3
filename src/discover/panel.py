"""The panel beside the map: ways to colour, the legend that filters, a range of numbers, tools."""

from dataclasses import dataclass

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch
from matplotlib.widgets import RangeSlider

from src.discover import state
from src.discover.quick import Words

INK, MUTED, FAINT = "#1f2430", "#6b7280", "#c9cfdb"
ACTIVE = "#dce7f7"  # ground of what is chosen
PINK = "#d6336c"  # what the user adds: a line being drawn, a query
TITLE_IN, LINES_IN = 0.55, 0.5  # heights of a window's title and status lines
TOP_IN = 0.2  # above the panel
WIDTH, MARGIN = 0.2, 0.01  # of the window's width: of the panel, and right of it
LEAST_WIDTH = 225  # of the panel; here and below in points of 1/100 inch
ROW, CHIP, GAP = 20, 21, 4  # heights and distances
CHIPS_IN_ROW, NARROW = 4, 240  # smaller ones in a narrower panel
BARS_HEIGHT, SLIDER_HEIGHT, HANDLE = 34, 16, 16
LEAST_FOR_BARS, LEAST_FOR_RANGE, LEAST_FOR_TOOLS = 420, 350, 300  # heights of a panel with these
N_BARS = state.STEPS
MARKERS = {False: "o", True: "D"}  # of classes that the network knows; of others
SHORT = {state.BY_TRUTH: "true", state.BY_PREDICTION: "predicted", state.BY_IOU: "IoU"}  # of ways
TOOL_CHIPS = (  # label, command
    ("select", "selecting.next_tool"),
    ("all shown", "selecting.select_all"),
    ("more like", "selecting.more_like_these"),
    ("words…", "asking.words"),
    ("tag…", "selecting.ask_name"),
    ("export", "selecting.export"),
    ("undo", "undo"),
    ("groups", "grouping.show"),
    ("density", "toggle_density"),
    ("cluster…", "clustering.ask"),
    ("show all", "filtering.reset"),
    ("help", "helping.toggle"),
)


@dataclass(frozen=True)
class Chip:
    """A button: its text, the command it gives, and whether that is on."""

    label: str
    command: str
    on: bool = False


@dataclass(frozen=True)
class Entry:
    """A line of the legend; `shown` is false where its segments are filtered out."""

    name: str
    colour: tuple
    count: int
    shown: bool = True
    unknown: bool = False  # a class that the network lacks


@dataclass(frozen=True)
class Content:
    """What a panel shows."""

    title: str  # what the colours mean
    entries: tuple[Entry, ...]  # the legend; for a scale, only what has no place on it
    scale: np.ndarray | None  # (STEPS, 3) uint8: its colours from low to high, where one is shown
    ways: tuple[Chip, ...]
    tools: tuple[Chip, ...]
    counts: str  # how many segments show; in a second line, how many are selected
    range_of: str  # way whose numbers the slider filters
    range: tuple[float, float] | None  # of these; None: all


def panel_content(chosen, groups, kept, tool, density, range_of):
    """What the panel shows for a State: a Content.

    Parameters
    ----------
    groups : Groups
        Of its colouring.
    kept : ndarray of shape (N,), bool
        Segments that are not filtered out.
    tool : str
        With which segments are selected; empty: none.
    density : bool
        Whether it shows.
    range_of : str
        Way whose numbers the slider filters.
    """
    way, counts = chosen.colouring, groups.counts()
    is_scale = way in (state.BY_IOU, state.BY_SUSPICION, state.BY_NOVELTY)
    order = np.arange(state.STEPS if is_scale else 0, len(counts))
    if way not in (state.BY_CLUSTER, state.BY_TAG) and not is_scale:
        order = groups.largest_first()
    names, colours = groups.names, groups.colours
    unknown = np.zeros(len(names), bool) if groups.unknown is None else groups.unknown
    entries = [
        Entry(
            names[i],
            tuple(colours[i]),
            int(counts[i]),
            (way, names[i]) not in chosen.hidden,
            bool(unknown[i]),
        )  # fmt: skip
        for i in order[np.argsort(~unknown[order], kind="stable")]
        if counts[i]
    ]
    is_on = {
        "selecting.next_tool": tool,
        "toggle_density": density,
        "filtering.reset": chosen.filtered(),
    }
    shown = f"{_share(kept)} shown"
    if chosen.sets is not None:
        points = np.count_nonzero(np.bincount(chosen.sets[kept]))
        shown += f" in {points:,} points"
    return Content(
        title="Segments" if way == state.ALL_BLUE else f"{way[0].upper()}{way[1:]}",
        entries=tuple(entries),
        scale=colours[: state.STEPS] if is_scale else None,
        ways=tuple(Chip(SHORT.get(its, its), its, its == way) for its in state.WAYS),
        tools=tuple(
            Chip(tool if tool and do == "selecting.next_tool" else label, do, bool(is_on.get(do)))
            for label, do in TOOL_CHIPS
        ),
        counts=f"{shown}\n{_share(kept[chosen.selected])} selected"
        if chosen.selected.any()
        else shown,
        range_of=range_of,
        range=chosen.ranges.get(range_of),
    )


def _share(mask):
    """How many of a mask are true, and of how many where that is not all."""
    count = np.count_nonzero(mask)
    return f"{count:,}" if count == len(mask) else f"{count:,} of {len(mask):,}"


class Range:
    """The slider of a Scale, and bars over it of how many segments lie where."""

    def __init__(self, figure, scale):
        self.scale, extent, values = scale, scale.extent, scale.values
        self.bars_axes = figure.add_axes((0, 0, 0.1, 0.1))
        self.bars_axes.set_axis_off()
        heights, edges = np.histogram(values[np.isfinite(values)], N_BARS, extent)
        corners = [
            [(left, 0), (left, high), (right, high), (right, 0)]
            for left, right, high in zip(edges[:-1], edges[1:], np.sqrt(heights), strict=True)
        ]
        self.bars = self.bars_axes.add_collection(PolyCollection(corners))
        self.bars_axes.set_ylim(0, max(1, np.sqrt(heights.max())))
        self._bar_middles = (edges[:-1] + edges[1:]) / 2
        self.slider = RangeSlider(
            figure.add_axes((0, 0, 0.1, 0.1)), "", *extent, valinit=extent,
            track_color="#e6e9ef", facecolor="#7aa5dd",
            handle_style={"facecolor": "white", "edgecolor": "#4f7fbf", "size": 11},
        )  # fmt: skip
        self.slider.valtext.set_visible(False)
        margin = 0.04 * (extent[1] - extent[0])  # for the handles at the ends
        for axes in (self.bars_axes, self.slider.ax):
            axes.set_xlim(extent[0] - margin, extent[1] + margin)
            axes.set_navigate(False)
        self.slider.drawon = False  # the map shows the change, once
        # its own hand would take the nearer handle again at every movement of the pointer
        self.slider.disconnect_events()
        self._held = 0  # the handle that moves: 0 low, 1 high
        self._offset = 0.0  # from the pointer to its middle

    def set_visible(self, visible, bars):
        """Show it, or not, and with or without bars; what does not show hears nothing."""
        self.bars_axes.set_visible(visible and bool(bars))
        self.slider.ax.set_visible(visible)
        self.slider.set_active(visible)

    def grab(self, x):
        """Take the handle that is nearer to pixel x; beside both, bring it there."""
        away = np.subtract(self.slider.val, self._value(x))
        self._held = int(np.argmin(np.abs(away)))
        reach = HANDLE / 2 * np.diff(self.slider.ax.get_xlim())[0] / self.slider.ax.bbox.width
        reach *= self.slider.ax.figure.dpi / 100
        self._offset = away[self._held] if abs(away[self._held]) < reach else 0.0
        self.drag(x)

    def drag(self, x):
        """Bring the handle that was taken to pixel x, as far as the other one lets it."""
        (low, high), value = self.slider.val, self._value(x) + self._offset
        if low == high != value:  # one above the other: the way it goes says which it is
            self._held = int(value > low)
        before, after = self.scale.extent
        if self._held == 0:
            ends = float(np.clip(value, before, high)), high
        else:
            ends = low, float(np.clip(value, low, after))
        if not np.allclose(ends, (low, high), rtol=0, atol=1e-9 * (after - before)):
            self.slider.set_val(ends)

    def _value(self, x):
        return self.slider.ax.transData.inverted().transform((x, 0))[0]

    def show(self, ends, colours):
        """Show which part is chosen, low and high, and give the bars the colours (N_BARS, 3)."""
        self.slider.eventson = False
        self.slider.set_val(ends)
        self.slider.eventson = True
        faces = np.ones((N_BARS, 4))
        faces[:, :3] = colours
        faces[(self._bar_middles < ends[0]) | (self._bar_middles > ends[1]), 3] = 0.3
        self.bars.set_facecolors(faces)


class Panel:
    """Draws a `Content`, and tells what lies under a click; `scales` are a Scale by way."""

    def __init__(self, figure, scales):
        self.figure = figure
        self.axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_navigate(False)
        self.ranges = {way: Range(figure, scale) for way, scale in scales.items()}
        self.first = 0  # of the entries that show
        self._content = None
        self._artists = []
        self._targets = []  # ((left, upper, right, lower), kind, what)

    def show(self, content, tools=True):
        """Draw the content; without tools for a picture, in which nothing can be clicked."""
        for artist in self._artists:
            artist.remove()
        self._artists, self._targets, self._content = [], [], content
        width, height = self._place(tools, content.range_of)
        top = 0
        if tools:
            heading = "COLOUR AND FILTER BY" if height >= LEAST_FOR_BARS else ""
            self._text(0, 0, heading, 7.5, color=MUTED)
            top = self._show_chips(content.ways, width, 14 if heading else 0) + 12
        self._text(0, top, content.title, 10.5, fontweight="bold")
        if any(entry.unknown for entry in content.entries):
            self._text(width, top + 2, "◆ unknown to the net", 8.5, ha="right", color=MUTED)
        top += 26
        bottom = self._show_bottom(content, width, height) if tools else height
        if content.scale is not None:
            top = self._show_scale(content, top, bottom - ROW * len(content.entries))
        self._show_entries(content.entries, width, top, bottom)

    def room(self):
        """Left, lower, width and height of the panel in the window: not too small to read."""
        width = max(WIDTH, LEAST_WIDTH / 100 / self.figure.get_figwidth())
        lower, height = between_lines(self.figure)
        beside_title = (TITLE_IN - TOP_IN) / self.figure.get_figheight()
        return 1 - MARGIN - width, lower, width, height + beside_title

    def scroll(self, step):
        """Move the legend by some entries; it must be drawn again afterwards."""
        last = max(0, len(self._content.entries) - 1)
        self.first = min(max(self.first + step, 0), last)

    def contains(self, x, y):
        """Whether pixel (x, y) lies on the panel."""
        return bool(self.axes.bbox.contains(x, y))

    def target_at(self, x, y):
        """What a click at pixel (x, y) means: ("command" or "entry", its name), or None."""
        x, y = self.axes.transData.inverted().transform((x, y))
        for (left, upper, right, lower), *target in self._targets:
            if left <= x < right and upper <= y < lower:
                return tuple(target)
        return None

    # the parts, from above

    def _place(self, tools, range_of):
        """Put the axes where the window's size wants them; the panel's width and height."""
        width, height = self.figure.get_size_inches() * self.room()[2:] * 100
        self.axes.set_position(self.room())
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self._has_range = height >= LEAST_FOR_RANGE
        bars = BARS_HEIGHT if height >= LEAST_FOR_BARS else 0
        self._range_height = (20 + bars + SLIDER_HEIGHT) * self._has_range
        self._has_tools = height >= LEAST_FOR_TOOLS
        bottom = self._bottom_height() - 20
        for way, its in self.ranges.items():
            its.set_visible(tools and self._has_range and way == range_of, bars)
            self._put(its.bars_axes, height, bottom, BARS_HEIGHT)
            self._put(its.slider.ax, height, bottom - bars, SLIDER_HEIGHT)
        return width, height

    def _put(self, axes, panel_height, above_bottom, height):
        left, lower, width, whole = self.room()
        share = whole / panel_height
        axes.set_position((left, lower + (above_bottom - height) * share, width, height * share))

    def _bottom_height(self):
        rows = -(-len(TOOL_CHIPS) // CHIPS_IN_ROW) * self._has_tools
        return self._range_height + 38 + rows * (CHIP + GAP)

    def _show_entries(self, entries, width, top, bottom):
        room = max(0, int((bottom - top - 10) // ROW))
        if 0 < room < len(entries):
            room -= 1  # for the line that says so
        self.first = max(0, min(self.first, len(entries) - room))
        shown = entries[self.first : self.first + room]
        middles = top + (np.arange(len(shown)) + 0.5) * ROW
        unknown = np.array([entry.unknown for entry in shown], bool)
        for is_unknown, marker in MARKERS.items():
            its = np.flatnonzero(unknown == is_unknown)
            face = ["white" if not shown[i].shown else np.divide(shown[i].colour, 255) for i in its]
            edge = [FAINT if not shown[i].shown else "#1f243066" for i in its]
            if its.size:
                self._keep(self.axes.scatter(
                    np.full(its.size, 8), middles[its], s=64, marker=marker, c=face,
                    edgecolors=edge, linewidths=1,
                ))  # fmt: skip
        for entry, middle in zip(shown, middles, strict=True):
            colour = INK if entry.shown else "#9aa1ad"
            count = self._text(
                width, middle, f"{entry.count:,}", 8.5, "right", "center", color=MUTED
            )
            name = self._text(
                22, middle, " ".join(entry.name.split()), 9.5, va="center", color=colour
            )
            name.room = (
                self.room()[2] * (1 - 32 / width) - count.width_px() / self.figure.bbox.width
            )
            self._aim((0, middle - ROW / 2, width, middle + ROW / 2), "entry", entry.name)
        rest = len(entries) - len(shown)
        if rest and bottom - top > ROW:
            middle = top + (len(shown) + 0.5) * ROW
            self._text(22, middle, f"{rest} more: wheel", 8.5, color=MUTED, va="center")

    def _show_scale(self, content, top, bottom):
        """The colours from low to high, with numbers; gives where it ends."""
        scale = self.ranges[content.range_of].scale
        height = min(260, bottom - top - 30)
        if height < ROW:
            return top
        self._keep(self.axes.imshow(
            content.scale[::-1, None], extent=(0, 16, top + height, top), aspect="auto", zorder=1
        ))  # fmt: skip
        shares = np.linspace(0, 1, 6 if height > 100 else 2)
        for share, value in zip(shares, np.linspace(*scale.extent, len(shares)), strict=True):
            self._text(24, top + (1 - share) * height, scale.text(value), 9, va="center")
        return top + height + ROW / 2

    def _show_bottom(self, content, width, height):
        """The range, the counts and the tools; gives where they begin."""
        top = height - self._bottom_height()
        if self._has_range:
            self._show_range(content, width, top)
        counts_top = top + self._range_height + 4
        for line, text in enumerate(content.counts.split("\n")):
            self._text(0, counts_top + 14 * line, text, 8.5, color=MUTED)
        if self._has_tools:
            self._show_chips(content.tools, width, counts_top + 34)
        return top

    def _show_range(self, content, width, top):
        its = self.ranges[content.range_of]
        ends = np.clip(content.range or its.scale.extent, *its.scale.extent)
        self._text(0, top, content.range_of.upper(), 7.5, color=MUTED)
        words = " to ".join(map(its.scale.text, ends))
        self._text(width, top - 2, words, 8.5, color=INK, ha="right")
        its.show(ends, to_rgb(FAINT) if content.scale is None else content.scale / 255)

    def _show_chips(self, chips, width, top):
        """Rows of buttons; gives where they end."""
        step, size = (width + GAP) / CHIPS_IN_ROW, 8 if width >= NARROW else 7
        for number, chip in enumerate(chips):
            left = number % CHIPS_IN_ROW * step
            upper = top + number // CHIPS_IN_ROW * (CHIP + GAP)
            box = FancyBboxPatch(
                (left + 4, upper + 4), step - GAP - 8, CHIP - 8, boxstyle="round,pad=4",
                facecolor=ACTIVE if chip.on else "white", edgecolor="#7aa5dd" if chip.on else FAINT,
                linewidth=0.8, mutation_aspect=1,
            )  # fmt: skip
            self._keep(self.axes.add_artist(box))
            middle = left + (step - GAP) / 2, upper + CHIP / 2
            self._text(*middle, chip.label, size, ha="center", va="center")
            self._aim((left, upper, left + step - GAP, upper + CHIP), "command", chip.command)
        return top + -(-len(chips) // CHIPS_IN_ROW) * (CHIP + GAP)

    def _text(self, x, y, text, size, ha="left", va="top", **style):
        style = {"color": INK, "fontsize": size} | style
        place = {"horizontalalignment": ha, "verticalalignment": va}
        words = self.axes.add_artist(Words(x, y, text, **place, **style))
        self._keep(words)
        return words

    def _keep(self, artist):
        self._artists.append(artist)

    def _aim(self, room, kind, what):
        self._targets.append((room, kind, what))


def between_lines(figure):
    """Lower edge and height, shares of the window, of the room between title and status lines."""
    height = figure.get_figheight()
    return LINES_IN / height, max(0.1, 1 - (TITLE_IN + LINES_IN) / height)


def short(text, length):
    """The text, cut to a length."""
    return text if len(text) <= length else text[: length - 1] + "…"


def printable(text):
    """The text with signs that no font has, such as line ends and bytes that are no UTF-8, as �."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def counted(number, noun):
    """Such as "1 image" and "2,000 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
