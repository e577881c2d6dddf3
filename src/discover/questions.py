"""A question asked in a window: what is typed there is the answer."""

from src.discover.commands import UNDOING
from src.discover.figures import show_question

ASKED_ALREADY = "the question that is asked comes first: Enter or Escape ends it"


class Question:
    """Shows itself as the banner of a view and takes keys until it is answered or cancelled.

    `prompt` and `hint` say what is asked and expected. `take` gets the answer and gives None where
    it was good, or a text: it is asked again, with this above it.
    """

    def __init__(self, view, prompt, hint, take):
        self.view, self.prompt, self.hint, self.take = view, prompt, hint, take
        self.answer = self.remark = ""
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
