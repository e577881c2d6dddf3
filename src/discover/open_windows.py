"""The windows beside the map: pictures, one of them used again and again, and sheets."""

from src.discover import figures
from src.discover.views import NEIGHBOURS


class OpenWindows:
    """Which windows an Explorer has opened; what shows a picture, and what may be shown anew."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.row_of = {}  # by figure with a picture, the segment that it shows
        self.picture = None  # the one that was used last, where that was no map and no sheet
        self._free = None  # the one that the next picture takes
        self._figures = []  # all that are open, the one shown last at the end

    def show_image(self, row):
        """Show the full image with the segment in a red box."""
        picture = self.explorer.segments.boxed_image(row)
        self._show(row, figures.draw_image(self._figure, picture, self.explorer.told(row)))

    def show_overview(self, row):
        """Show the four-panel overview of a segment."""
        with self.explorer.working("drawing the overview ..."):
            panels = self.explorer.segments.overview(row)
            self._show(row, figures.draw_overview(self._figure, panels, self.explorer.told(row)))

    def present(self, figure):
        """Bring a window to the front."""
        self._figures = [its for its in self._figures if its is not figure] + [figure]
        figures.present(figure)

    def keep_top(self):
        """Leave the top window as it is from now on, or let the next of its kind take its place.

        Whether it is kept; None where it is neither a picture nor neighbours.
        """
        figure = self._top()
        if figure in self.row_of:
            is_kept = figure is self._free
            self._free = None if is_kept else figure
            return is_kept
        for sheet in self.explorer.sheets.views:
            if sheet.figure is figure and sheet.kind == NEIGHBOURS:
                sheet.is_kept = not sheet.is_kept
                return sheet.is_kept
        return None

    def close_top(self):
        """Close the top window, but never the map."""
        figure = self._top()
        if figure is not None:
            self.explorer.close_figure(figure)
            self.explorer.forget(figure)  # not every toolkit tells

    def forget(self, figure):
        """Take note that a window was closed."""
        self._figures = [its for its in self._figures if its is not figure]
        self.row_of.pop(figure, None)
        if self.picture is figure:
            self.picture = None
        if self._free is figure:
            self._free = None

    def _top(self):
        """Figure of the window that was used last; where that was the map, of the one on top."""
        explorer = self.explorer
        if self.picture is not None:
            return self.picture
        if explorer.here is not explorer.map:
            return explorer.here.figure
        return self._figures[-1] if self._figures else None

    def _show(self, row, figure):
        self._free, self.row_of[figure] = figure, row
        self.present(figure)

    def _figure(self, size_in, title):
        """Figure for a picture: the one that may be used again, emptied, or a new one."""
        figure = self._free
        if figure is None:
            figure = self.explorer.new_figure(size_in, title)
            self.explorer.events.connect_picture(figure)
            return figure
        figure.clear()
        figure.set_layout_engine("none")
        if figure.canvas.manager is not None:
            figure.canvas.manager.set_window_title(title)
        return figure
