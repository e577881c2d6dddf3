"""The explorer: a map of all segments, the windows that open from it, and their commands."""

from src.discover.display import Windows, require_display, show_explorer
from src.discover.explorer import Explorer
from src.discover.query import Query
from src.discover.segments import Segments
from src.discover.views import OUTSIDE

__all__ = [
    "OUTSIDE",
    "Explorer",
    "Query",
    "Segments",
    "Windows",
    "require_display",
    "show_explorer",
]
