"""Signals that ask a run to end: the first is an exception in its main thread, others are none."""

import os
import signal
import sys
import threading
from contextlib import contextmanager

_NAMES = "SIGINT", "SIGTERM", "SIGHUP"  # the last is not everywhere
STOPS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal arrived, of this `number`; sacred closes the run as INTERRUPTED."""

    def __init__(self, number):
        super().__init__()
        self.number = number


@contextmanager
def stops_raise():
    """Turn the first of `STOPS` into `Stopped` in the main thread of this process.

    From then on all are ignored, for good: what is said and left while the process ends is the
    same whatever else arrives. What was ignored before, as SIGHUP under `nohup`, stays so.
    """
    owner = os.getpid()

    def stop(number, _frame):
        if os.getpid() != owner:  # a forked worker inherits this function: end as usual
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    def stop_again(lost):
        """Python drops what is raised while an object is deleted: raise it once more."""
        if isinstance(lost.exc_value, Stopped):
            number = lost.exc_value.number
            signal.signal(number, stop)
            threading.Timer(0.1, os.kill, (owner, number)).start()
        else:
            report(lost)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    before = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    report, sys.unraisablehook = sys.unraisablehook, stop_again
    try:
        yield
    except Stopped:
        raise
    except BaseException:
        _restore(before)
        raise
    else:
        _restore(before)
    finally:
        sys.unraisablehook = report


def _restore(before):
    for number, old in before.items():
        signal.signal(number, old or signal.SIG_DFL)
