"""A question asked in a window: what is typed there is the answer."""

import time
import traceback
from textwrap import fill

from src.discover.commands import UNDOING
from src.discover.figures import show_question
from src.errors import RunError

TICK_MS = 50
REMARK_LETTERS = 80  # in a line
HAS_FAILED = "that has failed; the terminal says how"

ASKED_ALREADY = "the question that is asked comes first: Enter or Escape ends it"


class Question:
    """Shows itself as the banner of a view and takes keys until it is answered or cancelled.

    `prompt` and `hint` say what is asked and expected. `take` gets the answer and gives None where
    it was good, or a text: it is asked again, with this above it. `answer` and `remark` are what is
    there from the beginning.
    """

    def __init__(self, view, prompt, hint, take, answer="", remark=""):
        self.view, self.prompt, self.hint, self.take = view, prompt, hint, take
        self.answer, self.remark = answer, remark
        self.copy = None  # figure of `draw_elbow` that shows it too
        self.show()

    def press(self, key):
        """Take a key; "answered", "cancelled" or None while the question stays open.

        Undoing takes back what was typed, or else the question.
        """
        if key == "escape" or (key == UNDOING and not self.answer):
            self.hide()
            return "cancelled"
        if key == "enter":
            remark = self.take(self.answer.strip())
            if remark is None:
                self.hide()
                return "answered"
            self.answer, self.remark = "", remark
        elif key == UNDOING:
            self.answer = self.remark = ""
        elif key == "backspace":
            self.answer, self.remark = self.answer[:-1], ""
        elif len(key) == 1 and key.isprintable():
            self.answer, self.remark = self.answer + key, ""
        self.show()
        return None

    def show(self):
        """Ask, again where something else has taken the place."""
        lines = [f"{self.prompt}: {self.answer}▏", self.hint, "Enter: go   Escape: cancel"]
        self._put("\n".join([self.remark, *lines] if self.remark else lines))

    def hide(self):
        """Take the question from where it shows."""
        self._put("")

    def _put(self, text):
        self.view.show_banner(text)
        if self.copy is not None:
            show_question(self.copy, text)


class Waiting(Question):
    """Stands in the place of a question while another thread works something out.

    The window goes on meanwhile. `take` gets the result of a Future, `job`, or `refuse` in words
    why there is none; `doing` gives in words what takes its time. Escape leaves it: the job goes
    on, but nobody takes its result.
    """

    def __init__(self, explorer, job, doing, take, refuse):
        self.explorer, self.job, self.doing, self.refuse = explorer, job, doing, refuse
        self._since = time.monotonic()
        self._timer = explorer.map.figure.canvas.new_timer(interval=TICK_MS)
        self._timer.add_callback(self.work)
        self._timer.start()
        super().__init__(explorer.here, "", "", take)

    def press(self, key):
        """As of a Question; only Escape counts, and undoing."""
        return super().press(key) if key in ("escape", UNDOING) else None

    def show(self):
        """Tell what it waits for, and how long it has."""
        seconds = int(time.monotonic() - self._since)
        text = f"{self.doing()} ...  {seconds} s\nEscape: leave it"
        if text != self.view.banner.get_text():
            self._put(text)

    def work(self):
        """Go on waiting, or take what is there."""
        if self.explorer.question is not self:  # left, or its window was closed
            self._timer.stop()
        elif not self.job.done():
            self.show()
        else:
            self._timer.stop()
            self.hide()
            self.explorer.question = None
            self._end()

    def _end(self):
        try:
            result = self.job.result()
        except RunError as error:
            self.refuse(fill(str(error), REMARK_LETTERS))
        except Exception:  # the window goes on, whatever has failed
            traceback.print_exc()
            self.refuse(HAS_FAILED)
        else:
            self.take(result)
