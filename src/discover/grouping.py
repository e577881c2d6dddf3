"""The overview of the groups in a window: a row each, to select, name, join and take apart."""

from dataclasses import replace

import numpy as np
from matplotlib.patches import Rectangle

from src import pictures
from src.discover import state
from src.discover.display import PAPER
from src.discover.overview import title_of
from src.discover.panel import ACTIVE, FAINT, INK, MUTED, between_lines, counted
from src.discover.quick import FillingImage, Words
from src.discover.views import MARGIN, View
from src.embedding.groups import NOISE, ORDERS, find_groups

SIZE_IN = (12.6, 8.4)
ROW, WORDS, HEAD = 82, 262, 24  # here and below in points of 1/100 inch: height, width, height
LINE = 16  # from one line of words to the next
FRAME = (201, 207, 219)  # of a crop
HINT = "click: select, then type a name  ·  Shift+click: join to it  ·  Delete: no group"
IN_WORDS = {"suspicion": "most suspicious first", "size": "largest first"}


class StoppedError(Exception):
    """The user has ended a search."""


class GroupsView(View):
    """Rows of groups: in words what each is, and its most typical objects."""

    def __init__(self, figure):
        super().__init__(figure)
        self.axes, self.crop_axes = (figure.add_axes((0, 0, 1, 1), zorder=z) for z in (1, 2))
        for axes in (self.axes, self.crop_axes):
            axes.set_axis_off()
            axes.set_navigate(False)
        self.title.set_fontsize(12)
        self.place()
        self.first = 0  # of the groups that show
        self._boxes = []  # around the words of these
        self.rows = []  # of the table: for each group that shows, those whose crops show

    def place(self):
        """Put the parts where the window's size wants them."""
        super().place()
        lower, height = between_lines(self.figure)
        room = MARGIN, lower, 1 - 2 * MARGIN, height
        self.axes.set_position(room)
        self.width, self.height = self.figure.get_size_inches() * room[2:] * 100
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        self.columns = max(1, int((self.width - WORDS) // ROW))  # crops of a group
        self.fitting = max(1, int((self.height - HEAD) // ROW))  # groups that show at a time

    def fill(self, title, order, groups, active):
        """Show as many groups as fit, from `first` on.

        Parameters
        ----------
        title, order : str
            What the window is called, and in words how the groups are sorted.
        groups : list of (list of str, (int, int, int), sequence of int)
            Of each the lines that describe it, its colour from 0 to 255, and rows of the table.
        active : int or None
            Which of them is marked.
        """
        for artist in (*self.axes.texts, *self.axes.patches, *self.axes.lines):
            artist.remove()
        self.tip.set_visible(False)
        self.title.set_text(title)
        self.first = max(0, min(self.first, len(groups) - self.fitting))
        shown = groups[self.first : self.first + self.fitting]
        self.rows = [crops[: self.columns] for _, _, crops in shown]
        self._write(0, HEAD / 2, order)
        self._write(self.width, HEAD / 2, HINT, horizontalalignment="right")
        self._boxes = [
            self._show(HEAD + place * ROW, lines, colour)
            for place, (lines, colour, _) in enumerate(shown)
        ]
        self.mark(active)

    def mark(self, active):
        """Mark the group of a number, or with None none; `redraw` shows it."""
        for place, box in enumerate(self._boxes, self.first):
            ground, edge = (ACTIVE, "#7aa5dd") if place == active else (PAPER, FAINT)
            box.set(facecolor=ground, edgecolor=edge)

    def show_crops(self, thumbnail_of):
        """Show the crops of the groups in `rows`; the function gives the picture of one, bytes."""
        side = max(8, round(ROW * self.figure.dpi / 100))
        strips = [
            pictures.thumbnail_sheet(
                [thumbnail_of(row) for row in rows], self.columns, [FRAME] * len(rows), side, 0,
                ground=PAPER,
            )
            for rows in self.rows
        ]  # fmt: skip
        for image in list(self.crop_axes.images):
            image.remove()
        if strips:
            self._lay_over(self.crop_axes, WORDS, HEAD, self.columns * ROW, len(strips) * ROW)
            self.crop_axes.add_image(FillingImage(self.crop_axes, np.concatenate(strips)))
        self.redraw()

    def _lay_over(self, axes, left, top, width, height):
        """Put axes over a part of the rows."""
        x, y, room_x, room_y = self.axes.get_position().bounds
        x, y = x + left / self.width * room_x, y + (1 - (top + height) / self.height) * room_y
        axes.set_position((x, y, width / self.width * room_x, height / self.height * room_y))

    def _show(self, top, lines, colour):
        """Show the words of a group; gives the box around them."""
        box = self.axes.add_patch(Rectangle((0, top), WORDS - 6, ROW - 4, lw=0.8))
        middle = top + 15
        self.axes.plot(
            12, middle, marker="o", markersize=8, color=np.array(colour) / 255, scalex=False,
            scaley=False,
        )  # fmt: skip
        for number, line in enumerate(lines):
            weight, ink = ("bold", INK) if number == 0 else ("normal", MUTED)
            self._write(
                24, middle + number * LINE, line, color=ink, fontweight=weight,
                room=(WORDS - 34) / self.width * self.axes.get_position().width,
            )  # fmt: skip
        return box

    def _write(self, x, y, text, room=None, **style):
        style = {"color": MUTED, "fontsize": 9, "verticalalignment": "center"} | style
        words = self.axes.add_artist(Words(x, y, text, **style))
        words.room = room

    def group_at(self, x, y):
        """Which group is at pixel (x, y); None: none."""
        x, y = self.axes.transData.inverted().transform((x, y))
        place = int((y - HEAD) // ROW)
        is_inside = 0 <= x < self.width and 0 <= place < len(self.rows)
        return self.first + place if is_inside else None

    def row_at(self, x, y):
        """Row of the table whose crop is at pixel (x, y), or None."""
        group = self.group_at(x, y)
        x, _ = self.axes.transData.inverted().transform((x, y))
        column = int((x - WORDS) // ROW)
        rows = [] if group is None else self.rows[group - self.first]
        return int(rows[column]) if 0 <= column < len(rows) else None

    def distance_of(self, row):
        """Distance of a row from a query: there is none here."""

    def wants_tip(self):
        """Whether the crops are too small to see."""
        return True


class Grouping:
    """The groups of an Explorer's objects, and the window that shows them."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.views = []  # the window, while it is open
        self.order = ORDERS[0]
        self.groups = []  # as they show
        self._told = None  # clusters, tags and order that these are of

    def show(self):
        """Show an overview of groups that look alike, found without a given number."""
        explorer, before = self.explorer, self.explorer.state
        are_new = explorer.here in self.views or before.clusters is None
        if are_new and not self._find():
            return
        explorer.colour_by(state.BY_CLUSTER)
        if not self.views:
            self.views = [GroupsView(explorer.new_figure(SIZE_IN, "Groups"))]
            explorer.events.connect(self.views[0])
        explorer.windows.present(self.views[0].figure)
        self.fill(self.views[0])
        explorer.say(f"{HINT}  ·  0 here: find them anew")
        if are_new:
            explorer.keeping.keep(before, "grouping")

    def _find(self):
        """Find groups and colour by them; whether that was not stopped."""
        explorer = self.explorer
        try:
            with explorer.working("finding groups ..."):
                vectors = explorer.table["embeddings"]
                labels = find_groups(vectors, explorer.seed, self._announce)
        except StoppedError:
            explorer.say("no groups were found: stopped")
            return False
        new = replace(state.grouped(explorer.state, labels), colouring=state.BY_CLUSTER)
        explorer.change("grouping", **vars(new))
        return True

    def _announce(self, done, total):
        self.explorer.announce(f"finding groups: {done:,} of {total:,}   Escape: stop")
        if self.explorer.events.is_stopped():
            raise StoppedError

    def follow(self, view, same_frames):
        """Show what has changed; `same_frames`: none of the groups or their tags has."""
        if same_frames:
            view.mark(self._place())
            view.redraw()
        else:
            self.fill(view)

    def fill(self, view):
        """Show the groups as they are now."""
        explorer, chosen = self.explorer, self.explorer.state
        if chosen.clusters is None:  # undone
            explorer.close_figure(view.figure)
            explorer.forget(view.figure)
            return
        segments = explorer.segments
        told = chosen.clusters, chosen.tags, self.order
        if self._told is None or any(a is not b for a, b in zip(told, self._told, strict=True)):
            tags, self._told = state.tags_of(chosen), told
            self.groups = segments.describe_groups(chosen.clusters, tags, self.order)
        colours = segments.groups(state.BY_CLUSTER, chosen)
        rows = [
            (self._lines(group), colours.colours[colours.codes[group.medoid]], group.typical)
            for group in self.groups
        ]
        found = [group for group in self.groups if group.label >= 0]
        named = sum(bool(group.tag) for group in found)
        title = f"{counted(len(found), 'group')} of {counted(len(segments), 'object')}"
        order = f"{IN_WORDS[self.order]} (Tab)"
        view.fill(f"{title}, {named} with a name", order, rows, self._place())
        view.show_crops(segments.thumbnail_or_blank)
        explorer.events.look(view)

    def _lines(self, group):
        scales = self.explorer.segments.scales
        numbers = [f"suspicion {scales[state.BY_SUSPICION].text(group.suspicion)}"]
        if group.novelty is not None:
            numbers.append(f"novelty {scales[state.BY_NOVELTY].text(group.novelty)}")
        return [
            title_of(group),
            f"{counted(len(group.rows), 'object')} in {counted(group.n_images, 'image')}",
            " · ".join(numbers),
            f"pred. {group.predicted}" + (f", true {group.true}" if group.true else ""),
        ]

    def _place(self):
        """Which of the groups is active: the one that is selected, and nothing else; or None."""
        chosen, kept = self.explorer.selecting.chosen(), self.explorer.map.kept
        count = np.count_nonzero(chosen)
        for place, group in enumerate(self.groups):
            rows = group.rows[kept[group.rows]]
            if len(rows) == count > 0 and chosen[rows].all():
                return place
        return None

    def turn_page(self, view, by):
        """Show other groups."""
        view.first = max(view.first + by * view.fitting, 0)
        self.fill(view)

    def next_order(self, view):
        """Sort the groups by something else; gives it in words."""
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        view.first = 0
        self.fill(view)
        return self.order

    # what is done with a group

    def click(self, number, joins):
        """Select a group; or join it to the one that is active."""
        place, group = self._place(), self.groups[number]
        if not joins or place in (None, number):
            self._activate(group)
        elif min(group.label, self.groups[place].label) < 0:
            self.explorer.say("only groups can be joined; others are named by l on the map, then n")
        else:
            self._join(group, self.groups[place])

    def _activate(self, group):
        explorer = self.explorer
        explorer.selecting.select(self._mask(group.rows))
        for view in self.views:
            explorer.windows.present(view.figure)  # the selection's sheet opens behind it
            explorer.here = view
        explorer.say("type its name, Enter; Ctrl+z undoes")

    def _mask(self, rows):
        mask = np.zeros(len(self.explorer.segments), bool)
        mask[rows] = True
        return mask & self.explorer.map.kept

    def _join(self, group, other):
        """Make a group a part of another; both are selected then."""
        selected = self._mask(np.union1d(group.rows, other.rows))
        told = f"joined {counted(len(group.rows), 'object')} to {title_of(other)}"
        self._regroup(group.rows, other.label, "joining", told, selected)

    def _take_apart(self, group):
        told = f"{title_of(group)} is no group any more"
        self._regroup(group.rows, NOISE, "taking a group apart", told, self._mask([]))

    def _regroup(self, rows, label, what, told, selected):
        before = self.explorer.state
        clusters = before.clusters.copy()
        clusters[rows] = label
        self.explorer.change(what, clusters=clusters, selected=selected)
        self.explorer.say(told)
        self.explorer.keeping.keep(before, what)

    def press(self, key):
        """Take a key while a group is active; whether it was for this window."""
        place = self._place()
        if place is None:
            return False
        group = self.groups[place]
        if key in ("delete", "backspace") and group.label >= 0:
            self._take_apart(group)
        elif key in ("up", "down"):
            self._step(place, 1 if key == "down" else -1)
        elif key == "escape":
            self.explorer.selecting.clear()
        elif len(key) == 1 and key.isprintable():
            self.explorer.selecting.ask_name()
            if self.explorer.question is not None:
                self.explorer.answer(key)
        else:
            return False
        return True

    def _step(self, place, by):
        """Make the group above or below the active one, and let it show."""
        place = min(max(place + by, 0), len(self.groups) - 1)
        for view in self.views:
            if not view.first <= place < view.first + view.fitting:
                view.first = place if by < 0 else place + 1 - view.fitting
                self.fill(view)
        self._activate(self.groups[place])
