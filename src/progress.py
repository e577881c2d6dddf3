"""How far work has come: a bar on a terminal, a line every so often in a file or a pipe."""

import io
import logging
import sys

from tqdm import tqdm

EVERY_S = 30  # a line of work that takes longer
_LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f}%), {rate_fmt}, {remaining} left"
_log = logging.getLogger(__name__)


def progress(iterable=None, **options):
    """What tqdm makes of an iterable or a `total`, which writes lines where nobody watches.

    Options are those of tqdm, `desc` and `unit` among them. Lines go to the log of this package.
    """
    return (tqdm if sys.stderr.isatty() else _Lines)(iterable, **options)


class _Lines(tqdm):
    def __init__(self, iterable, **options):
        """As tqdm's, whose own writing goes nowhere."""
        lines = {"file": io.StringIO(), "bar_format": _LINE, "leave": False, "miniters": 1}
        super().__init__(iterable, **options | lines | {"mininterval": EVERY_S, "delay": EVERY_S})

    def display(self, msg=None, pos=None):
        """Log how far it is; called where a bar would be drawn anew, with "" where it ends."""
        if msg is None:
            _log.info("%s", str(self))  # as it is now
