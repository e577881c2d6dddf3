"""Near duplicates on the map: one point stands for all of a set."""

from functools import cached_property

import numpy as np

from src.discover import state
from src.discover.panel import counted
from src.discover.questions import Waiting


class Joining:
    """Joins near duplicates on the map of an Explorer, and takes them apart."""

    def __init__(self, explorer):
        self.explorer = explorer

    def toggle(self):
        """Join near duplicates to one point with their number beside it, or take them apart."""
        explorer = self.explorer
        if explorer.state.sets is not None:
            explorer.change("taking near duplicates apart", sets=None)
            explorer.say("near duplicates are points of their own again")
            return
        job, doing = explorer.segments.near_duplicates(), lambda: "looking for near duplicates"
        explorer.question = Waiting(explorer, job, doing, self._join, explorer.say)
        explorer.question.work()  # it may be done already

    def _join(self, found):
        explorer, sizes = self.explorer, np.bincount(found.labels)
        sizes = sizes[sizes > 1]
        if not len(sizes):
            explorer.say(f"no objects are near duplicates: nearer than {found.threshold:.3g}")
            return
        explorer.change("joining near duplicates", sets=found.labels)
        explorer.say(
            f"{counted(sizes.sum(), 'near duplicate')} in {counted(len(sizes), 'point')}: "
            f"nearer than {found.threshold:.3g}; = takes them apart"
        )

    def stands(self, kept):
        """The row whose point stands for each on the map, (N,) int64; None: its own.

        It is the most suspicious of its set, of those that are not filtered out, a mask (N,).
        """
        sets = self.explorer.state.sets
        return None if sets is None else state.standing(sets, kept, self._order)

    @cached_property
    def _order(self):
        return self.explorer.table.by_suspicion(np.arange(len(self.explorer.segments)))

    def told(self, row):
        """In words how many objects a point of the map stands for; empty where it is one."""
        sets = self.explorer.state.sets
        if sets is None:
            return ""
        count = np.count_nonzero(self.explorer.map.kept[sets == sets[row]])
        return f"  ·  {count:,} near duplicates" if count > 1 else ""
