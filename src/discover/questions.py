"""A question asked in a window: what is typed there is the answer."""


class Question:
    """Shows itself as the banner of a view and takes keys until it is answered or cancelled.

    Parameters
    ----------
    view : View
        Where it is asked.
    prompt, hint : str
        What is asked, and what is expected.
    take : function of str -> str or None
        Gets the answer. None: it was good; a text: it is asked again, with this above it.
    """

    def __init__(self, view, prompt, hint, take):
        self.view, self.prompt, self.hint, self.take = view, prompt, hint, take
        self.answer = ""
        self.show()

    def press(self, key):
        """Take a key; "answered", "cancelled" or None while the question stays open."""
        if key == "escape":
            self.view.show_banner("")
            return "cancelled"
        if key == "enter":
            remark = self.take(self.answer.strip())
            if remark is None:
                self.view.show_banner("")
                return "answered"
            self.answer = ""
            self.show(remark)
        elif key == "backspace":
            self.answer = self.answer[:-1]
            self.show()
        elif len(key) == 1 and key.isprintable():
            self.answer += key
            self.show()
        return None

    def show(self, remark=""):
        lines = [f"{self.prompt}: {self.answer}▏", self.hint, "Enter: go   Escape: cancel"]
        self.view.show_banner("\n".join([remark, *lines] if remark else lines))
