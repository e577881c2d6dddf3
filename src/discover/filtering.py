"""Which objects are filtered out: groups of the legend, ranges of numbers."""

import numpy as np

from src.discover import state


class Filtering:
    """Filters the objects of an Explorer."""

    def __init__(self, explorer):
        self.explorer = explorer

    def toggle(self, name, alone=False):
        """Filter one group of the present colouring out, or in again; `alone`: all others instead.

        It is called by its name in the legend.
        """
        explorer, hidden = self.explorer, self.explorer.state.hidden
        way = explorer.state.colouring
        if alone:
            hidden = state.only(hidden, way, name, explorer.groups().names)
        else:
            hidden = state.toggled(hidden, way, name)
        explorer.change("filter", hidden=hidden)
        self._tell()

    def limit(self, way, low, high, goes_on=False):
        """Filter out what has a number outside a range, `way` being that of its Scale.

        `goes_on`: part of the same movement as the last change, and with it one step back.
        """
        explorer = self.explorer
        at_end = np.isclose((low, high), explorer.segments.scales[way].extent)  # no limit there
        wanted = (-np.inf if at_end[0] else float(low), np.inf if at_end[1] else float(high))
        ranges = {other: its for other, its in explorer.state.ranges.items() if other != way}
        if not at_end.all():
            ranges[way] = wanted
        explorer.change(f"filter by {way}", goes_on, ranges=ranges)
        self._tell()

    def reset(self):
        """Take all filters off."""
        if self.explorer.state.filtered():
            self.explorer.change("filter", hidden=frozenset(), ranges={})
        self.explorer.say("no filters")

    def _tell(self):
        out = [told for way in state.WAYS if (told := self._filtered_out(way))]
        for way, ends in self.explorer.state.ranges.items():
            scale = self.explorer.segments.scales[way]
            low, high = map(scale.text, np.clip(ends, *scale.extent))
            out.append(f"only {way} from {low} to {high}")
        self.explorer.say("; ".join(out) or "no filters")

    def _filtered_out(self, way):
        """In words which groups of one way are filtered out; empty where none is."""
        hidden = sorted(name for its_way, name in self.explorer.state.hidden if its_way == way)
        if not hidden:
            return ""
        shown = [name for name in self.explorer.groups(way).names if name not in hidden]
        if len(shown) == 1 < len(hidden):
            return f"only {shown[0]}"
        return f"filtered out: {way}: {', '.join(hidden)}"
