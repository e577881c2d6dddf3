"""The windows of thumbnails: what belongs into each, and how it is captioned."""

import numpy as np

from src import pictures
from src.discover import state
from src.discover.display import PAPER
from src.discover.panel import PINK, counted, short
from src.discover.views import NEIGHBOURS, RANKING, SELECTION
from src.embedding import space as embedding_space
from src.store.reports import one_line

PAGE, RANKING_PAGE = 96, 48  # thumbnails of a selection that show at a time; of a ranking
PICTURE, SIZE = "picture", "size"  # what a sheet may be sorted by, besides what is coloured by
FIRST_ORDERS = {NEIGHBOURS: "distance", SELECTION: "suspicion", RANKING: "likeness"}
SLOW_VALUES = 2e7  # of a table whose search for neighbours is announced
COLUMNS = {"reduced": "nn_embeddings", "full": "embeddings"}  # of the table, by space
DIGITS = 3  # of the largest distance of a sheet; all have as many after the point


class Sheets:
    """The open sheets of an Explorer: nearest neighbours, the selection, what is more of its like.

    Of the last two there is one each.
    """

    def __init__(self, explorer):
        self.explorer = explorer
        self.views = []

    def of_kind(self, kind):
        """The sheets of a kind, a list."""
        return [sheet for sheet in self.views if sheet.kind == kind]

    def the(self, kind, title):
        """The sheet of a kind that there is one of; opened where it is not open."""
        return next(iter(self.of_kind(kind)), None) or self.explorer.new_sheet(title, kind)

    def free(self):
        """A sheet of neighbours that others may take; None where there is none."""
        return next((its for its in self.of_kind(NEIGHBOURS) if not its.is_kept), None)

    def fill_neighbours(self):
        """Search the neighbours of all open sheets anew."""
        for sheet in self.of_kind(NEIGHBOURS):
            self.fill(sheet)

    def fill(self, sheet):
        """Show in a sheet what belongs there now."""
        fill = {
            NEIGHBOURS: self._fill_neighbours,
            SELECTION: self._fill_selection,
            RANKING: self._fill_ranking,
        }
        fill[sheet.kind](sheet)

    def follow(self, sheet, same_frames):
        """Show in a sheet what has changed; `same_frames`: none has another colour or tag."""
        is_other = sheet.kind == SELECTION and not self._shows_chosen(sheet)
        if is_other or not same_frames:
            self.fill(sheet)
        else:
            self._show_ticks(sheet)

    def turn_page(self, sheet, by):
        """Show other thumbnails of what is too much for one sheet."""
        sheet.page = max(sheet.page + by, 0)
        self.fill(sheet)

    def next_order(self, sheet):
        """Sort a sheet by something else; gives it in words."""
        known = [way for way in self.explorer.segments.described if way != state.BY_IOU]
        orders = [None, *known, PICTURE, SIZE]
        sheet.order = orders[(orders.index(sheet.order) + 1) % len(orders)]
        self.fill(sheet)
        return sheet.order or FIRST_ORDERS[sheet.kind]

    def points(self):
        """Vectors (N, D) of the segments in the space where neighbours are found."""
        return np.asarray(self.explorer.table[COLUMNS[self.explorer.space]])

    def how(self, row):
        """Space and metric in which neighbours of a row are found; words have only one of each."""
        explorer = self.explorer
        is_words = row < 0 and explorer.asking.query(row).is_words
        return ("full", "cos") if is_words else (explorer.space, explorer.metric)

    def _fill_neighbours(self, sheet):
        explorer, row = self.explorer, sheet.query
        space, metric = self.how(row)
        search = row, space, metric, explorer.n_neighbours, sheet.order
        if sheet.search != search:  # new colours alone are no reason to search again
            rows, distances = self._nearest(row, space, metric)
            ordered = self._ordered(sheet, rows)
            sheet.search, sheet.rows = search, np.r_[row, rows[ordered]]
            sheet.distances = np.r_[0.0, distances[ordered]]
        query = explorer.asking.query(row) if row < 0 else None
        what = explorer.segments.named(row) if query is None else one_line(query.name)
        title = f"Nearest neighbours ({metric}, {space} space) of {what}"
        self._show(sheet, title, ["query", *as_texts(sheet.distances[1:])])
        if query is not None and query.is_words:
            sheet.write_words(query.name)

    def _nearest(self, row, space, metric):
        explorer, column = self.explorer, COLUMNS[space]
        points, how = np.asarray(explorer.table[column]), (explorer.n_neighbours, metric)
        with explorer.working("searching neighbours ...", points.size > SLOW_VALUES):
            if row < 0:
                vector = getattr(explorer.asking.query(row), column)
                return embedding_space.nearest(points, vector, *how)
            return embedding_space.neighbours(points, row, *how)

    def _shows_chosen(self, sheet):
        return np.array_equal(sheet.chosen, self.explorer.selecting.chosen())

    def _fill_selection(self, sheet):
        order = sheet.order or self._first_way()
        if sheet.search != order or not self._shows_chosen(sheet):
            sheet.search, sheet.chosen = order, self.explorer.selecting.chosen()
            rows = np.flatnonzero(sheet.chosen)
            column = "novelty" if self._first_way() == state.BY_NOVELTY else "suspicion"
            rows = self.explorer.table.by_suspicion(rows, column)
            sheet.all_rows = rows[self._ordered(sheet, rows)]
        self._fill_page(sheet, f"Selection: {counted(len(sheet.all_rows), 'object')}", PAGE)

    def _first_way(self):
        """The way whose numbers are shown, and sorted by, where nothing else is chosen."""
        is_by_novelty = self.explorer.state.colouring == state.BY_NOVELTY
        return state.BY_NOVELTY if is_by_novelty else self.explorer.segments.told[-1]

    def _fill_ranking(self, sheet):
        count = np.count_nonzero(self.explorer.selecting.chosen())
        told = [f"Most like the {counted(count, 'selected object')}", sheet.accepted]
        self._fill_page(sheet, "; ".join(filter(None, told)), RANKING_PAGE)

    def _fill_page(self, sheet, title, size):
        rows = sheet.all_rows
        sheet.page = min(sheet.page, max(0, (len(rows) - 1) // size))
        start = sheet.page * size
        sheet.rows = page = rows[start : start + size]
        if sheet.kind == RANKING:
            sheet.rows = page = page[self._ordered(sheet, page)]
        told = sheet.order or self._first_way()
        title += f", with their {told}"
        if len(rows) > size:
            title += f", {start + 1:,} to {start + len(page):,} here (wheel: the others)"
        self._show(sheet, title, [self._told(row, told) for row in page])

    def _ordered(self, sheet, rows):
        """Where the rows (n,) of a sheet come in its order: indices (n,)."""
        table, scales, order = self.explorer.table, self.explorer.segments.scales, sheet.order
        if order is None:
            return np.arange(len(rows))
        if order == PICTURE:
            _, datasets = np.unique(table["dataset"][rows], return_inverse=True)
            return np.lexsort((table["image_index"][rows], datasets))
        values = table["segment_size"] if order == SIZE else scales[order].values
        return np.argsort(-values[rows], kind="stable")

    def _told(self, row, order):
        """In a few words what a row is sorted by."""
        table = self.explorer.table
        if order == PICTURE:
            return f"image {table['image_index'][row]}"
        if order == SIZE:
            return f"{table['segment_size'][row]:,} px"
        return self.explorer.segments.number(row, order)

    def _show(self, sheet, title, captions):
        explorer, rows = self.explorer, sheet.rows
        columns, side, height = cell = sheet.layout(max(1, len(rows)))
        picture = pictures.thumbnail_sheet(
            [self._picture(row) for row in rows],
            columns,
            [PINK if row < 0 else explorer.colour_of(row) for row in rows],
            side,
            height,
            ground=PAPER,
        )
        captions = [self._caption(row, text) for row, text in zip(rows, captions, strict=True)]
        sheet.fill(title, picture, captions, cell)
        self._show_ticks(sheet)
        if sheet.pointer is not None:
            explorer.events.look(sheet)
        elif sheet.kind == NEIGHBOURS and sheet.query >= 0:
            sheet.show_facts(explorer.describe(sheet.query), explorer.path_of(sheet.query))

    def _show_ticks(self, sheet):
        selected = self.explorer.state.selected
        sheet.show_ticks([row >= 0 and bool(selected[row]) for row in sheet.rows])

    def _picture(self, row):
        explorer = self.explorer
        if row < 0:
            return explorer.asking.query(row).thumbnail
        return explorer.segments.thumbnail_or_blank(row)

    def _caption(self, row, last):
        """Two lines below a thumbnail; and one, for where two would be too small.

        They tell the true class, the tag or else the predicted class, and a number.
        """
        if row < 0:
            name = short(one_line(self.explorer.asking.query(row).name), 15)
            return f"{name}\n{last}", name
        segments = self.explorer.segments
        predicted = f"pred. {short(segments.predicted_name(row), 15)}"
        first, second = segments.true_name(row), predicted
        if first is None:
            first, second = predicted, ""
        if tag := self.explorer.tag_of(row):
            second = f"“{short(one_line(tag), 12)}”"
        second = last if last == "query" else f"{second}  {last}".strip()
        return f"{short(first, 21)}\n{second}", f"{first} {last}"


def as_texts(distances):
    """Distances (M,) as a list of M str with equally many digits after the point."""
    largest = np.max(distances, initial=0, where=np.isfinite(distances))
    whole = int(np.floor(np.log10(largest))) + 1 if largest > 0 else 1
    decimals = min(max(DIGITS - whole, 0), 6)
    return [f"{distance:.{decimals}f}" for distance in distances]
