"""What is selected: drawn on the map, ticked in sheets, or found to be like what is."""

from functools import partial

import numpy as np

from src.discover import state
from src.discover.export import export_segments
from src.discover.panel import counted, short
from src.discover.segments import NO_TAG
from src.discover.sheets import SLOW_VALUES
from src.discover.views import NEIGHBOURS, RANKING, SELECTION
from src.embedding.ranking import more_like
from src.errors import RunError
from src.store.reports import one_line
from src.store.tags import is_text

TOOLS = ("", "lasso", "rectangle")  # "": clicks are clicks
NOTHING_SELECTED = "nothing is selected: press l, then draw around segments, or * for all that show"


class Selecting:
    """Selects objects of an Explorer."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.tool = TOOLS[0]
        self._last = None  # row that was ticked last

    def next_tool(self):
        """Select by lasso, by rectangle, or not at all."""
        self._take_tool(TOOLS[(TOOLS.index(self.tool) + 1) % len(TOOLS)])

    def stop(self):
        """Select no longer by drawing; whether that was so."""
        was_on = bool(self.tool)
        if was_on:
            self._take_tool(TOOLS[0])
        return was_on

    def _take_tool(self, tool):
        self.tool = tool
        self.explorer.events.drop_stroke()
        self.explorer.show_panel()
        how = f"{tool}: draw around segments; Shift adds, Ctrl or x removes"
        self.explorer.say(how if tool else "selecting ended")

    # what is selected

    def chosen(self):
        """Mask (N,) of the selected segments that commands take: those not filtered out."""
        return self.explorer.state.selected & self.explorer.map.kept

    def any_chosen(self):
        """Whether there are any; tells where not."""
        if not self.explorer.state.selected.any():
            self.explorer.say(NOTHING_SELECTED)
        elif not self.chosen().any():
            self.explorer.say("all that is selected is filtered out; r takes the filters off")
        return bool(self.chosen().any())

    def select(self, found, how="replace"):
        """Select, of a mask (N,), what is not filtered out; `how` as for `state.combined`."""
        explorer = self.explorer
        selected = explorer.state.selected
        selected = state.combined(selected, found & explorer.map.kept, how)
        explorer.change("selection", selected=selected, rejected=self._mask([]))
        if self.chosen().any() and not explorer.sheets.of_kind(SELECTION):
            self.show()
        count = np.count_nonzero(self.chosen())
        explorer.say(f"{count:,} selected; n: tag, e: export, v: sheet, j: more like these")

    def select_all(self):
        """Select all that the window shows: a sheet's thumbnails, or on the map all that passes."""
        explorer, view = self.explorer, self.explorer.here
        if view not in explorer.sheets.views:
            self.select(explorer.map.kept)
        elif view.kind == NEIGHBOURS:
            self.select(self._mask(view.rows))
        else:
            self._tick(view, view.rows, True)

    def select_group(self, name):
        """Select a group of the present colouring, by its name in the legend."""
        groups = self.explorer.groups()
        self.select(groups.codes == groups.names.index(name))

    def clear(self):
        """Select nothing; whether anything was selected."""
        was_any = bool(self.explorer.state.selected.any())
        if was_any:
            nothing = self._mask([])
            self.explorer.change("selection", selected=nothing, rejected=nothing)
            self.explorer.say("selection cleared")
        return was_any

    def show(self):
        """Show the selected segments as a sheet of thumbnails."""
        if self.any_chosen():
            sheet = self.explorer.sheets.the(SELECTION, "Selection")
            sheet.chosen = None  # without what was unticked
            self.explorer.windows.present(sheet.figure)
            self.explorer.sheets.fill(sheet)

    def _mask(self, rows):
        """Mask (N,) of rows, those of no segment left out."""
        mask = np.zeros(len(self.explorer.segments), bool)
        mask[[row for row in rows if row >= 0]] = True
        return mask

    # what is done with the selection

    def ask_name(self):
        """Ask in the window for a tag for the selected segments."""
        if not self.any_chosen():
            return
        explorer, rows = self.explorer, np.flatnonzero(self.chosen())
        known = short(", ".join(map(one_line, explorer.state.tag_names)), 60)
        hint = (f"so far: {known}; " if known else "") + "nothing typed: take the tag away"
        prompt = f"Tag of {counted(len(rows), 'selected object')}"
        explorer.ask(prompt, hint, partial(self._take_name, rows))

    def _take_name(self, rows, answer):
        if answer == NO_TAG:
            return f"{NO_TAG!r} stands for none; choose another name"
        if not is_text(answer):
            return f"{answer!r} has a sign that UTF-8 lacks; choose another name"
        explorer, before = self.explorer, self.explorer.state
        explorer.change("tag", **vars(state.tagged(before, rows, answer)))
        told = f"tagged {len(rows):,} as {answer!r}"
        explorer.say(told if answer else f"took {counted(len(rows), 'tag')} away")
        explorer.keeping.keep(before, "tag")
        return None

    def export(self):
        """Write the selected segments for other tools, and hand them to who looks from afar."""
        if not self.any_chosen():
            return
        explorer, rows = self.explorer, np.flatnonzero(self.chosen())
        tags = {int(row): explorer.tag_of(row) for row in rows if explorer.state.tags[row]}
        with explorer.working("exporting ..."):
            try:
                how = explorer.out_dir, explorer.announce
                folder, told = export_segments(explorer.segments, rows, tags, *how)
            except (OSError, RunError) as error:
                told = f"cannot export: {error}"
            else:
                explorer.hand_out(folder)
        explorer.say(told)

    # ticks

    def click(self, sheet, row, is_range):
        """Tick a row of a sheet, or untick it; a range: all from the row that was last, like it."""
        shown, last = list(map(int, sheet.rows)), self._last
        if is_range and last in shown:
            first, end = sorted((shown.index(last), shown.index(row)))
            rows, on = shown[first : end + 1], self.explorer.state.selected[last]
        else:
            rows, on = [row], not self.explorer.state.selected[row]
        self._last = row
        self._tick(sheet, rows, on)

    def _tick(self, sheet, rows, on):
        """Select rows of a sheet, or no longer; the sheet goes on to show them."""
        explorer = self.explorer
        how = "add" if on else "remove"
        selected = state.combined(explorer.state.selected, self._mask(rows), how)
        if sheet.kind == SELECTION:
            sheet.chosen = selected & explorer.map.kept
        explorer.change("tick", selected=selected)
        explorer.say(f"{np.count_nonzero(self.chosen()):,} selected")

    # more like these

    def more_like_these(self):
        """Rank all by how alike they are to those selected; in that sheet, go on to the next page.

        What was not ticked on the page counts against what is like it from then on.
        """
        explorer = self.explorer
        if not self.any_chosen():
            return
        accepted = self._accept(explorer.here) if explorer.here.kind == RANKING else ""
        rows = self._ranked()
        if not len(rows):
            explorer.say("nothing is left to rank: all that shows is selected, or was not ticked")
            return
        sheet = explorer.sheets.the(RANKING, "More like these")
        sheet.all_rows, sheet.page, sheet.accepted = rows, 0, accepted
        explorer.windows.present(sheet.figure)
        explorer.sheets.fill(sheet)
        explorer.say("click: tick  ·  *: tick all here  ·  j: accept what is ticked, and go on")

    def _accept(self, sheet):
        """Reject what is not ticked; how many were, in words."""
        page, selected = self._mask(sheet.rows), self.explorer.state.selected
        rejected = self.explorer.state.rejected & ~selected | page & ~selected
        self.explorer.change("page", rejected=rejected)
        return f"{np.count_nonzero(page & selected)} of the last {len(sheet.rows)} accepted"

    def _ranked(self):
        """Rows that are neither selected nor rejected, the most alike first."""
        explorer, chosen, vectors = self.explorer, self.chosen(), self.explorer.table["embeddings"]
        rejected = explorer.state.rejected & ~chosen
        with explorer.working("ranking ...", vectors.size > SLOW_VALUES):
            scores = more_like(vectors, np.flatnonzero(chosen), np.flatnonzero(rejected))
        rows = np.flatnonzero(explorer.map.kept & ~chosen & ~rejected)
        return rows[np.argsort(-scores[rows], kind="stable")]
