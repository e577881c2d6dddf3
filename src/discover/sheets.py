"""The windows of thumbnails: what belongs into each, and how it is captioned."""

import numpy as np

from src import pictures
from src.discover import state
from src.discover.display import PAPER
from src.discover.panel import PINK, counted, short
from src.discover.views import OUTSIDE
from src.embedding import space as embedding_space
from src.store.reports import one_line

PAGE = 96  # thumbnails of a selection that show at a time
SLOW_VALUES = 2e7  # of a table whose search for neighbours is announced
DIGITS = 3  # of the largest distance of a sheet; all have as many after the point


class Sheets:
    """The open sheets of an Explorer: nearest neighbours, and at most one with the selection."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.views = []

    def selection(self):
        """The sheet with the selection; None where there is none."""
        return next((sheet for sheet in self.views if sheet.query is None), None)

    def fill_neighbours(self):
        """Search the neighbours of all open sheets anew."""
        for sheet in self.views:
            if sheet.query is not None:
                self.fill(sheet)

    def fill(self, sheet):
        """Show in a sheet what belongs there now."""
        if sheet.query is None:
            self._fill_selection(sheet)
        else:
            self._fill_neighbours(sheet)

    def turn_page(self, sheet, by):
        """Show other thumbnails of a selection that is too large for one sheet."""
        sheet.page = max(sheet.page + by, 0)
        self.fill(sheet)

    def points(self):
        """Vectors (N, D) of the segments in the space where neighbours are found."""
        return np.asarray(self.explorer.table[self._space_name()])

    def _space_name(self):
        return "nn_embeddings" if self.explorer.space == "reduced" else "embeddings"

    def _fill_neighbours(self, sheet):
        explorer, row = self.explorer, sheet.query
        search = row, explorer.space, explorer.metric, explorer.n_neighbours
        if sheet.search != search:  # new colours alone are no reason to search again
            rows, distances = self._nearest(row)
            sheet.search, sheet.rows = search, np.r_[row, rows]
            sheet.distances = np.r_[0.0, distances]
        what = one_line(explorer.query.name) if row == OUTSIDE else explorer.segments.named(row)
        title = f"Nearest neighbours ({explorer.metric}, {explorer.space} space) of {what}"
        self._show(sheet, title, ["query", *as_texts(sheet.distances[1:])])

    def _nearest(self, row):
        explorer, points = self.explorer, self.points()
        how = explorer.n_neighbours, explorer.metric
        with explorer.working("searching neighbours ...", points.size > SLOW_VALUES):
            if row == OUTSIDE:
                vector = getattr(explorer.query, self._space_name())
                return embedding_space.nearest(points, vector, *how)
            return embedding_space.neighbours(points, row, *how)

    def _fill_selection(self, sheet):
        segments, rows = self.explorer.segments, np.flatnonzero(self.explorer.chosen())
        is_by_novelty = self.explorer.state.colouring == state.BY_NOVELTY
        rows = segments.table.by_suspicion(rows, "novelty" if is_by_novelty else "suspicion")
        way = state.BY_NOVELTY if is_by_novelty else segments.told[-1]
        sheet.page = min(sheet.page, max(0, (len(rows) - 1) // PAGE))
        start = sheet.page * PAGE
        sheet.rows = page = rows[start : start + PAGE]
        title = f"Selection: {counted(len(rows), 'object')}, with their {way}"
        if len(rows) > PAGE:
            title += f", {start + 1:,} to {start + len(page):,} here (wheel: the others)"
        self._show(sheet, title, [segments.number(row, way) for row in page])

    def _show(self, sheet, title, captions):
        explorer, rows = self.explorer, sheet.rows
        columns, side, height = cell = sheet.layout(max(1, len(rows)))
        picture = pictures.thumbnail_sheet(
            [self._picture(row) for row in rows],
            columns,
            [PINK if row == OUTSIDE else explorer.colour_of(row) for row in rows],
            side,
            height,
            ground=PAPER,
        )
        captions = [self._caption(row, text) for row, text in zip(rows, captions, strict=True)]
        sheet.fill(title, picture, captions, cell)
        if sheet.pointer is not None:
            explorer.events.look(sheet)
        elif sheet.query not in (None, OUTSIDE):
            sheet.status.set_text(explorer.describe(sheet.query))

    def _picture(self, row):
        explorer = self.explorer
        is_query = row == OUTSIDE
        return explorer.query.thumbnail if is_query else explorer.segments.thumbnail_or_blank(row)

    def _caption(self, row, last):
        """Two lines below a thumbnail: what it is; its tag or predicted class, and a number."""
        if row == OUTSIDE:
            return f"{short(one_line(self.explorer.query.name), 15)}\n{last}"
        segments = self.explorer.segments
        true, predicted = segments.true_name(row), segments.predicted_name(row)
        if tag := self.explorer.tag_of(row):
            second = f"{short(one_line(tag), 12)}  {last}"
        else:
            alone = true is None or last == "query"
            second = last if alone else f"→ {short(predicted, 15)}  {last}"
        return f"{short(true or predicted, 15)}\n{second}"


def as_texts(distances):
    """Distances (M,) as a list of M str with equally many digits after the point."""
    largest = np.max(distances, initial=0, where=np.isfinite(distances))
    whole = int(np.floor(np.log10(largest))) + 1 if largest > 0 else 1
    decimals = min(max(DIGITS - whole, 0), 6)
    return [f"{distance:.{decimals}f}" for distance in distances]
