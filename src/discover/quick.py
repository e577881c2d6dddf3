"""Artists that are quickly drawn on a raster: words, a thumbnail, a picture.

matplotlib's own text and images take several milliseconds each, which a pointer in motion and a
legend of thirty lines do not leave. Where a picture is no raster (PDF, SVG) its text takes over.
"""

import warnings
from functools import lru_cache

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.font_manager import findfont, get_font
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from PIL import Image
from scipy.ndimage import maximum_filter

from src.store.reports import drawable, fonts

ASCENT = 0.76  # above the base line, of the font size
MIDDLE, LINE = 0.37, 1.2  # where letters have their middle; from line to line
KEPT_STAMPS = 4000
HALO_PX = 2
NUMBER_COLOUR = "#1f2430"
NUMBER_PT, NUMBER_LETTERS = 8, 4  # size; width of the room that a number has, in letters' heights


class Words(Text):
    """Horizontal text without a box, every line of it drawn as one kept stamp.

    Base lines lie where the font puts them, not where the letters of a line happen to end. A line
    longer than `room`, a share of the figure's width, has a gap in its middle.
    """

    room = None  # as long as it is
    halo = False  # white around the letters

    def __init__(self, *place_and_text, **style):
        super().__init__(*place_and_text, **{"family": fonts(), "parse_math": False, **style})

    def set_text(self, s):
        super().set_text(drawable(s))

    def width_px(self):
        """Pixels that the longest line takes without a gap."""
        return max(map(self._width_px, self.get_text().split("\n")))

    def fitted(self):
        """The lines as they are drawn, a list of str."""
        lines = self.get_text().split("\n")
        return lines if self.room is None else [self._shortened(line) for line in lines]

    def _shortened(self, line):
        room_px = self.room * self.get_figure(root=True).bbox.width
        short, left = line, len(line)
        while left > 1 and self._width_px(short) > room_px:
            left = min(left - 1, int(left * room_px / self._width_px(short)) + 1)
            short = f"{line[: left // 2].rstrip()}…{line[len(line) - left // 2 + 1 :].lstrip()}"
        return short

    def _width_px(self, line):
        size_px = self.get_fontsize() * self.get_figure(root=True).dpi / 72
        return _width(line, _paths(self.get_fontproperties()), round(size_px, 2))

    def draw(self, renderer):
        if not self.get_visible() or not self.get_text():
            return
        if not isinstance(renderer, RendererAgg):
            super().draw(renderer)
            return
        size_px = renderer.points_to_pixels(self.get_fontsize())
        lines = self.fitted()
        x, y = self.get_transform().transform(self.get_unitless_position())
        last = (len(lines) - 1) * LINE * size_px  # from the first base line to the last
        first = {
            "top": y - ASCENT * size_px,
            "baseline": y + last,
        }.get(self.get_verticalalignment(), y + last / 2 - MIDDLE * size_px)
        paths, context = _paths(self.get_fontproperties()), renderer.new_gc()
        for number, line in enumerate(lines):
            colour, halo = to_rgb(self.get_color()), HALO_PX * self.halo
            image, left, below = _stamp(line, paths, round(size_px, 2), colour, halo)
            shift = {"left": 0.0, "right": 1.0}.get(self.get_horizontalalignment(), 0.5)
            x_px = round(x - shift * image.shape[1] + (left if shift == 0 else 0))
            y_px = round(first - number * LINE * size_px) - below
            renderer.draw_image(context, x_px, y_px, image)
        context.restore()


def _width(line, paths, size_px):
    return _mask(line, paths, size_px)[-1]


@lru_cache(KEPT_STAMPS)
def _stamp(line, paths, size_px, colour, halo):
    """A line as a picture (h, w, 4) uint8, lowest row first; pixels from its origin right, down.

    `halo` are pixels of white around it.
    """
    mask, left, below, _ = _mask(line, paths, size_px)
    mask = np.pad(mask, halo)
    image = np.empty((*mask.shape, 4), np.uint8)
    share = mask[..., None] / 255 if halo else 1
    image[..., :3] = np.rint(255 * (1 - share * (1 - np.array(colour))))
    image[..., 3] = maximum_filter(mask, 2 * halo + 1) if halo else mask
    return image[::-1], left - halo, below + halo


@lru_cache(KEPT_STAMPS)
def _mask(line, paths, size_px):
    """What a line covers (h, w) uint8, pixels from its origin right, down, and its width."""
    font = _font_of(line, paths, size_px)
    width = font.get_width_height()[0] / 64
    font.draw_glyphs_to_bitmap(antialiased=True)
    left, _ = font.get_bitmap_offset()
    return np.array(font.get_image()), left / 64, int(np.ceil(font.get_descent() / 64)), width


@lru_cache
def _paths(properties):
    """The font files of its families; the later ones are for letters that the first lacks."""
    found = []
    for family in properties.get_family():
        of_family = properties.copy()
        of_family.set_family(family)
        found.append(findfont(of_family))
    return tuple(found)


def _font_of(line, paths, size_px):
    """The font, with a line set; letters that none of the files has are boxes, without a word."""
    font = get_font(paths)
    font.set_size(size_px, 72)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        font.set_text(line, 0.0)
    return font


class Numbers(Artist):
    """Numbers beside points: the largest first, and those that have room."""

    def __init__(self, **style):
        super().__init__()
        self.set(**style)
        self.points, self.values, self._gap_pt = np.empty((0, 2)), np.empty(0, int), 0.0
        self._words = Words(
            0, 0, "", fontsize=NUMBER_PT, fontweight="bold", verticalalignment="baseline",
            color=NUMBER_COLOUR,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
        self._words.halo = True

    def show(self, points, values, size_pt):
        """Take points (n, 2) of the axes, their numbers (n,), and their size, all of them drawn."""
        self.points, self.values, self._gap_pt = points, values, size_pt / 2

    def draw(self, renderer):
        """Draw them."""
        if not self.get_visible() or not len(self.values):
            return
        self._words.set_figure(self.get_figure())
        for (x, y), value in self._placed(renderer):
            self._words.set(position=(x, y), text=f"{value:,}")
            self._words.draw(renderer)

    def _placed(self, renderer):
        """Where a number begins, in pixels, and the number; no two in each other's way."""
        gap, size = map(renderer.points_to_pixels, (self._gap_pt, NUMBER_PT))
        places = self.axes.transData.transform(self.points) + 0.8 * gap
        cell = np.array([NUMBER_LETTERS * size, LINE * size])  # the room of a number
        lower, upper = self.axes.bbox.min, self.axes.bbox.max - cell
        there = np.flatnonzero(((places > lower) & (places < upper)).all(axis=1))
        there = there[np.argsort(-self.values[there], kind="stable")]
        cells = np.floor((places[there] - lower) / cell).astype(int)
        _, first = np.unique(cells, axis=0, return_index=True)
        taken = {}
        for k in np.sort(first):
            (column, row), place = cells[k], places[there[k]]
            around = [(column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            others = [taken[its] for its in around if its in taken]
            if not others or (np.abs(np.subtract(others, place)) >= cell).any(axis=1).all():
                taken[column, row] = place
                yield place, self.values[there[k]]


class Thumbnail(Artist):
    """A picture with a frame, put down pixel by pixel."""

    def __init__(self):
        super().__init__()
        self.picture = None  # (h, w, 3) uint8, as it was given
        self.frame, self.frame_px = (0, 0, 0), 3  # colour, 0 to 255, and width
        self.extent = 0, 0, 1, 1  # left, lower, right, upper: whole pixels of the window

    def draw(self, renderer):
        if not self.get_visible() or self.picture is None:
            return
        left, lower, right, upper = self.extent
        size = right - left - 2 * self.frame_px, upper - lower - 2 * self.frame_px
        image = np.empty((upper - lower, right - left, 4), np.uint8)
        image[:] = (*self.frame, 255)
        inner = slice(self.frame_px, -self.frame_px)
        image[inner, inner, :3] = Image.fromarray(self.picture).resize(
            size, Image.Resampling.BICUBIC
        )
        context = renderer.new_gc()
        renderer.draw_image(context, left, lower, image[::-1])
        context.restore()


class FillingImage(AxesImage):
    """A picture (h, w, 3) uint8 that fills its axes, the first row on top.

    It is resampled only where it does not fit.
    """

    def __init__(self, axes, picture):
        super().__init__(axes)
        self.set_data(picture)

    def make_image(self, renderer, magnification=1.0, unsampled=False):
        """Picture (h, w, 4) uint8, lowest row first, and its left lower corner, for matplotlib."""
        box = self.axes.bbox
        size = tuple(np.rint(box.size * magnification).astype(int))
        picture = Image.fromarray(self.get_array()).convert("RGBA")
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        return np.array(picture)[::-1], round(box.x0), round(box.y0), None
