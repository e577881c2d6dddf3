"""Pictures of segments in their surroundings, made while the pointer rests, beside other work."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from src.discover.segments import UNREADABLE
from src.errors import RunError

REST_MS = 120  # until the picture of what is under the pointer is made
KEPT = 200


class Glances:
    """Gives pictures that are there at once, and has others made.

    Parameters
    ----------
    make : function of a row that gives its picture; called in another thread
    new_timer : function of an interval in ms that gives a timer, as a canvas has it
    made : function of a row, called once `get` gives something for it
    """

    def __init__(self, make, new_timer, made):
        self._make, self._made = make, made
        self._pictures = OrderedDict()  # by row, the one made last at the end; None: has none
        self._wanted = None  # row
        self._job = None  # (row, Future) that is being made
        self._pool = ThreadPoolExecutor(1)
        self._timer = new_timer(interval=REST_MS)
        self._timer.add_callback(self.work)

    def get(self, row):
        """The picture of a row; None where there is none yet, or none at all."""
        if row not in self._pictures and row != self._wanted:
            self._wanted = row
            self._timer.stop()
            self._timer.start()
        return self._pictures.get(row)

    def work(self):
        """Take the picture that has been made, and have the next one made."""
        if self._job is not None:
            row, future = self._job
            if not future.done():
                return
            self._job = None
            self._pictures[row] = _result(future)
            if len(self._pictures) > KEPT:
                self._pictures.popitem(last=False)
            if self._pictures[row] is not None:
                self._made(row)
        if self._wanted is None or self._wanted in self._pictures:
            self._timer.stop()
            self._wanted = None
        else:
            self._job = self._wanted, self._pool.submit(self._make, self._wanted)


def _result(future):
    """The picture; None where files lack or do not fit."""
    try:
        return future.result()
    except (*UNREADABLE, RunError):
        return None
