"""The explorer: its commands and what they change; numbers and pictures are made elsewhere."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.discover import figures, state
from src.discover.asking import Asking
from src.discover.clustering import Clustering
from src.discover.display import NO_WINDOWS, picture_figure
from src.discover.events import Events
from src.discover.filtering import Filtering
from src.discover.grouping import Grouping
from src.discover.helping import Helping
from src.discover.joining import Joining
from src.discover.keeping import Keeping
from src.discover.open_windows import OpenWindows
from src.discover.panel import counted, panel_content, printable
from src.discover.questions import ASKED_ALREADY, Question
from src.discover.selecting import Selecting
from src.discover.sheets import Sheets
from src.discover.views import NEIGHBOURS, MapView, SheetView
from src.embedding import space as embedding_space
from src.store.reports import one_line

MAP_SIZE_IN = SHEET_SIZE_IN = (12.0, 8.0)
DENSITY_GRID = 200  # cells a side
DENSITY_BANDWIDTH = 0.4  # of Scott's, which is meant for a single heap
SLOW_POINTS = 300_000  # of a map whose density and colours are announced
HISTORY = 100  # steps back
SPACES = ("reduced", "full")


class Explorer:
    """The map of all segments, the windows that open from it, and what the user has chosen.

    Parameters
    ----------
    segments : Segments
        N >= 1 of them.
    out_dir : path
        Folder for what is saved by mouse or exported.
    table_path : path, optional
        The table's file, beside which tags and groups are kept; None: they are forgotten at the
        end.
    queries : Queries, optional
        What embeds words and pictures that are asked for; None: nothing does.
    metric : {"euclid", "cos"}
    n_neighbours : int
        Neighbours shown at first.
    seed : int
        Of the clustering.
    windows : Windows
        Where figures show; by default nowhere.

    Raises
    ------
    ValueError
        If there is no segment, or the metric is unknown.
    SettingError
        If the file with the tags is broken.
    """

    def __init__(
        self,
        segments,
        out_dir,
        *,
        table_path=None,
        queries=None,
        metric="euclid",
        n_neighbours=24,
        seed=0,
        windows=NO_WINDOWS,
    ):
        if not len(segments):
            raise ValueError("the embeddings table has no segment, so there is nothing to show")
        if metric not in embedding_space.METRICS:
            raise ValueError(f"`metric` must be one of {embedding_space.METRICS}, got {metric!r}")
        self.segments, self.table, self.out_dir = segments, segments.table, Path(out_dir)
        self.keeping = Keeping(self, table_path)
        self.metric, self.seed, self.space = metric, seed, SPACES[0]
        self.n_neighbours = max(1, min(n_neighbours, len(segments) - 1))
        self.question = None  # while one is asked
        self.sheets, self.selecting, self.grouping = Sheets(self), Selecting(self), Grouping(self)
        self.asking, self.joining = Asking(self, queries), Joining(self)
        self.filtering, self.clustering = Filtering(self), Clustering(self)
        self.is_working = False  # on something that takes its time
        self.close_figure, self.new_figure = windows.close, windows.new
        self._copy_text, self.hand_out = windows.copy, windows.hand_out
        self.windows = OpenWindows(self)
        self.helping = Helping(self)
        self._history = []  # (state before, what changed it)
        self.state = self._first_state()
        self.map = MapView(
            windows.new(MAP_SIZE_IN, "Embedding space"),
            self.table["plot_embeddings"],
            self._map_title(),
            segments.scales,
            self._map_subtitle(),
        )
        self.here = self.map  # the window that was used last
        self.events = Events(self)
        self.events.connect(self.map)
        self._show_state()
        self.map.keep_home()
        self.say("? shows all commands")
        if self.keeping.told:
            self.say(self.keeping.told)

    def _first_state(self):
        none = np.zeros(len(self.segments), bool)
        way = state.BY_TRUTH if self.segments.has_truth() else state.BY_PREDICTION
        tags = np.zeros(len(self.segments), np.int64)
        return self.keeping.first(state.State(way, none, tags, rejected=none))

    def _map_title(self):
        names = ", ".join(map(one_line, dict.fromkeys(self.table["dataset"])))
        images = len(set(self.table.image_names()))
        what = f"{counted(len(self.segments), 'object')} of {counted(images, 'image')}"
        return f"Embedding space of {names}: {what}"

    def _map_subtitle(self):
        """What the network has learnt in earlier rounds; empty for one that never has."""
        told = self.table.facts.get("round", "")
        return told and one_line(told)

    # pictures without a window

    def save(self, path):
        """Write the map with its legend as a picture; the suffix names the format."""
        self.show_panel(tools=False)
        figures.save_figure(self.map.figure, path)
        self.show_panel()

    def save_neighbours(self, row, path):
        """Write a sheet of nearest neighbours as a picture; OUTSIDE: those of the first Query."""
        sheet = SheetView(picture_figure(SHEET_SIZE_IN, ""), NEIGHBOURS)
        sheet.query = row
        self.sheets.fill(sheet)
        figures.save_figure(sheet.figure, path)

    def save_overview(self, row, path):
        """Write the four-panel overview of a segment as a picture."""
        panels = self.segments.overview(row)
        figures.save_figure(figures.draw_overview(picture_figure, panels, self.told(row)), path)

    def save_image(self, row, path):
        """Write the full image with the segment in a red box, pixel by pixel."""
        figures.save_picture(self.segments.boxed_image(row), path)

    def save_crop(self, row, path):
        """Write the segment's box cut out of its image, pixel by pixel."""
        figures.save_picture(self.segments.crop(row), path)

    # pictures in windows

    def show_neighbours(self, row, sheet=None):
        """Show nearest neighbours, in their window or in the one given; below 0: of a Query."""
        if len(self.segments) == 1 and row >= 0:
            self.say("this is the only segment: it has no neighbours")
            return
        if sheet is None or sheet.kind != NEIGHBOURS:
            sheet = self.sheets.free() or self.new_sheet("Nearest neighbours", NEIGHBOURS)
        if sheet.query not in (None, row):
            sheet.trail.append(sheet.query)
        sheet.query = row
        self.sheets.fill(sheet)
        self.windows.present(sheet.figure)
        count = counted(self.n_neighbours, "nearest neighbour")
        space, metric = self.sheets.how(row)
        self.say(f"{count} ({metric}, {space} space)")

    def go_back(self):
        """Go back to the neighbours that this window has shown before."""
        trail = getattr(self.here, "trail", [])
        if trail:
            self.here.query = trail.pop()
            self.sheets.fill(self.here)
            self.say("back")
        else:
            self.say("nothing to go back to: it is for neighbours of neighbours")

    # windows

    def next_order(self):
        """Sort the sheet that was used last by something else."""
        if self.here is self.map:
            self.say("only sheets and the overview of groups can be sorted")
        else:
            self.say(f"sorted by {self.shows(self.here).next_order(self.here)}")

    def keep_window(self):
        """Keep the top window as it is, or let the next of its kind take its place again."""
        told = {
            True: "this window is kept: the next opens beside it",
            False: "the next takes the place of this window",
            None: "only windows with a picture or with neighbours can be kept",
        }
        self.say(told[self.windows.keep_top()])

    def copy_path(self):
        """Copy the path of the picture that is shown, or of the segment under the pointer."""
        row = self.windows.row_of.get(self.windows.picture, self.events.row_here())
        if row is None:
            self.say("there is no segment under the pointer")
            return
        is_copied = self._copy_text(self.map.figure, str(self.table["image_path"][row]))
        self.say(f"{'copied' if is_copied else 'no clipboard here:'} {self.path_of(row)}")

    # colours

    def colour_by(self, way):
        """Colour in one of `state.WAYS`."""
        if way == state.BY_TRUTH and not self.segments.has_truth():
            self.say("no segment has a ground truth, so there is nothing to colour by")
            return
        if way in self.segments.scales and not self.segments.scales[way].is_known():
            self.say(f"no segment has a {way}, so there is nothing to colour by")
            return
        if way == state.BY_CLUSTER and self.state.clusters is None:
            self.clustering.ask()
            return
        if way != self.state.colouring:
            self.map.panel.first = 0
            self.change("colouring", colouring=way)
        self.say("all segments blue" if way == state.ALL_BLUE else f"coloured by {way}")

    def show_whole(self):
        """Show the whole map again."""
        self.map.show_whole()
        self.map.redraw()
        self.events.look(self.map)

    # neighbours, density

    def next_metric(self):
        """Go to the next distance metric; open sheets are searched anew."""
        self.metric = _next(embedding_space.METRICS, self.metric)
        self.sheets.fill_neighbours()
        self.say(f"distance metric: {self.metric}")

    def next_space(self):
        """Find neighbours in the reduced space, or in that of the features as they are."""
        self.space = _next(SPACES, self.space)
        self.sheets.fill_neighbours()
        columns = self.sheets.points().shape[1]
        self.say(f"neighbours in the {self.space} feature space ({columns} values)")

    def more_neighbours(self):
        """Show one neighbour more from now on, and in the open sheets."""
        self.change_neighbours(1)

    def fewer_neighbours(self):
        """Show one neighbour less."""
        self.change_neighbours(-1)

    def change_neighbours(self, by):
        """Show more or fewer neighbours from now on, and in the open sheets."""
        highest = max(1, len(self.segments) - 1)
        count = min(max(self.n_neighbours + by, 1), highest)
        if count != self.n_neighbours:
            self.n_neighbours = count
            self.sheets.fill_neighbours()
        self.say(f"neighbours: {self.n_neighbours:,} (of at most {highest:,})")

    def toggle_density(self):
        """Lay the density behind the points, or take it away."""
        if self.map.density:
            self.map.show_density(None, None, None)
            self.show_panel()
            self.say("density off")
            return
        with self.working("estimating the density ...", len(self.map.points) > SLOW_POINTS):
            lower, upper = self.map.around(0.5)
            x, y = np.linspace(lower, upper, DENSITY_GRID).T
            values = embedding_space.density(self.map.points, (x, y), DENSITY_BANDWIDTH)
        self.map.show_density(values, x, y)
        self.show_panel()
        self.say("density on")

    # back, questions

    def undo(self):
        """Undo the last colouring, clustering, selection, filter or tag."""
        while self._history and state.same(self._history[-1][0], self.state):
            self._history.pop()  # a step that has changed nothing is none
        if not self._history:
            self.say("nothing to undo")
            return
        before, what = self._history.pop()
        undone, self.state = self.state, before
        self._show_state()
        self.say(f"undone: {what}")
        self.keeping.keep(undone, what)

    def ask(self, *question):
        """Ask a Question in the window that was used last, unless something is asked already."""
        if self.question is None:
            self.question = Question(self.here, *question)
        else:
            self.say(ASKED_ALREADY)

    def answer(self, key):
        """Pass a typed key on to the question that is asked."""
        question, how = self.question, self.question.press(key)
        if how is not None:
            if self.question is question:
                self.question = None
            else:  # what waits for its answer
                self.question.show()
            if question.copy is not None:  # the elbow curve lies before what it was drawn for
                figures.present(question.view.figure)
            self.events.look(question.view)
        if how == "cancelled":
            self.say("cancelled")

    def forget(self, figure):
        """Take note that a window was closed."""
        self.windows.forget(figure)
        if self.question is not None and self.question.copy is figure:
            self.question.copy = None
        for view in [view for view in self.views()[1:] if view.figure is figure]:
            self.shows(view).views.remove(view)
            self._forget_view(view)

    def _forget_view(self, view):
        self.here = self.map
        if self.helping.view is view:
            self.helping.view = None
        if self.question is not None and self.question.view is view:
            if self.question.copy is not None:
                figures.show_question(self.question.copy, "")
            self.question = None
            self.say("cancelled: the window that asked was closed")

    def show_asking(self):
        """Bring a window that asks or explains to the front, unless one in front asks the same."""
        view = self.here if self.question is None else self.question.view
        is_copied = self.question is not None and self.question.copy is not None
        if view.banner.get_visible() and not is_copied:
            figures.present(view.figure)

    def escape(self):
        """Hide the commands; close this window, but not the map; end or clear a selection there."""
        if self.helping.hide():
            return
        is_on_map = self.windows.picture is None and self.here is self.map
        if not (is_on_map and (self.selecting.stop() or self.selecting.clear())):
            self.windows.close_top()

    def views(self):
        """The map, and the windows of many segments that are open: a list, the map first."""
        return [self.map, *self.sheets.views, *self.grouping.views]

    def shows(self, view):
        """What fills a window of many segments: the sheets, or the overview of groups."""
        return self.grouping if view in self.grouping.views else self.sheets

    # facts about a segment

    def describe(self, row):
        """One line about a segment, its tag included."""
        text = self.segments.describe(row)
        tag = self.tag_of(row)
        return f"{text}  ·  tag {one_line(tag)}" if tag else text

    def path_of(self, row):
        """Path of a segment's picture, to be read."""
        return printable(str(self.table["image_path"][row]))

    def told(self, row):
        """Two lines about a segment: its facts, the path of its picture."""
        return f"{self.describe(row)}\n{self.path_of(row)}"

    def colour_of(self, row):
        """The colour of a segment now, (r, g, b) from 0 to 255."""
        groups = self.groups()
        return tuple(map(int, groups.colours[groups.codes[row]]))

    def tag_of(self, row):
        """The tag of a segment; empty where it has none."""
        code = self.state.tags[row]
        return self.state.tag_names[code - 1] if code else ""

    # showing what has changed

    def change(self, what, goes_on=False, **changes):
        """Go to a new state; `what` names it for `undo`, where a step that goes on is one."""
        if goes_on and self._history and self._history[-1][1] == what:
            self.state = self._history.pop()[0]
        self._history = [*self._history[1 - HISTORY :], (self.state, what)]
        before, self.state = self.state, replace(self.state, **changes)
        with self.working("drawing ...", len(self.segments) > SLOW_POINTS):
            self._show_state(before)

    def catch_up(self, way, caught_up):
        """Bring what others have changed into the state, and into those that `undo` goes back to.

        `caught_up` gives a State for one; the map shows it where colours or filters are by `way`.
        """
        history = [(caught_up(one), what) for one, what in self._history]
        before, self.state, self._history = self.state, caught_up(self.state), history
        if way in (before.colouring, *(its for its, _ in before.hidden)):
            self._show_state(before)
            return
        for view in self.views()[1:]:
            self.shows(view).follow(view, same_frames=False)
        self.events.look(self.map)

    def _show_state(self, before=None):
        """Draw the map and panel; of the sheets, those whose frames or rows may be others."""
        groups = self.groups()
        kept = state.kept_rows(self.state, self.groups, self.segments.scales)
        self.map.paint(groups, kept, self.state.selected & kept, self.joining.stands(kept))
        self.show_panel()
        same_frames = before is not None and all(
            getattr(before, name) is getattr(self.state, name)
            for name in ("colouring", "clusters", "tags")
        )
        for view in self.views()[1:]:
            self.shows(view).follow(view, same_frames)
        self.events.look(self.map)

    def groups(self, way=None):
        """The segments sorted in one way, a `Groups`; None: as they are coloured."""
        return self.segments.groups(way or self.state.colouring, self.state)

    def show_panel(self, tools=True):
        """Draw the map with its panel anew; without tools for a picture."""
        kept, density = self.map.kept, bool(self.map.density)
        way, tool = self.state.colouring, self.selecting.tool
        range_of = way if way in self.segments.scales else self.segments.told[0]
        content = panel_content(self.state, self.groups(), kept, tool, density, range_of)
        self.map.panel.show(content, tools)
        self.map.redraw()

    def new_sheet(self, title, kind):
        """Open a sheet of a kind, still empty."""
        sheet = SheetView(self.new_figure(SHEET_SIZE_IN, title), kind)
        self.sheets.views.append(sheet)
        self.events.connect(sheet)
        self.windows.present(sheet.figure)
        return sheet

    # small things

    def save_here(self, save, row, what):
        """Save a picture of a segment into the folder for that, under a name of its own."""
        path = self.out_dir / self.segments.file_name(row, what)
        save(row, path)
        self.say(f"saved {path}")

    @contextmanager
    def working(self, text, slow=True):
        """Show a banner while something takes its time; then again a question that is open."""
        view, before = self.here, self.is_working
        self.is_working = slow
        try:
            if slow:
                self.announce(text)
            yield
        finally:
            self.is_working = before
            if slow:
                view.show_banner("")
                self.events.look(view)
                if self.question is not None:
                    self.question.show()

    def announce(self, text):
        """Show how far something is that takes its time."""
        self.here.show_banner(text)
        self.here.figure.canvas.flush_events()

    def say(self, text):
        """Tell in every window what happened, and what is chosen now."""
        for view in self.views():
            view.tell(
                text,
                f"metric: {self.metric}   neighbours: {self.n_neighbours} ({self.space})   "
                f"clustering: {self.clustering.algorithm}   commands: ?",
            )


def _next(values, value):
    return values[(values.index(value) + 1) % len(values)]
