"""The explorer: a map of all segments, the windows that open from it, and their commands."""

from src.discover.display import picture_figure, require_display, show_explorer, window_figure
from src.discover.explorer import Explorer
from src.discover.segments import Query, Segments
from src.discover.views import OUTSIDE

__all__ = [
    "OUTSIDE",
    "Explorer",
    "Query",
    "Segments",
    "picture_figure",
    "require_display",
    "show_explorer",
    "window_figure",
]
