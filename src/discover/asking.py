"""Objects found by what is typed in the window: words, or a picture from outside."""

import time
import traceback
from functools import partial
from textwrap import fill

from src.discover.panel import printable, short
from src.discover.query import typed_part
from src.discover.questions import Question
from src.errors import RunError

TICK_MS = 50
REMARK_LETTERS = 80  # in a line
NO_NETWORK = "no network is at hand here to embed what is asked"
HAS_FAILED = "the network has failed; the terminal says how"


class SlowQuestion(Question):
    """A Question whose answer is found in another thread, while the window goes on.

    `begin` gives a Future for what was typed, and `take` gets its result. A RunError is told above
    the question, which keeps what was typed; `doing` gives in words what takes its time.
    """

    def __init__(self, view, prompt, hint, take, explorer, begin, doing):
        self.explorer, self.begin, self.doing = explorer, begin, doing
        self._job, self._since = None, 0.0
        self._timer = explorer.map.figure.canvas.new_timer(interval=TICK_MS)
        self._timer.add_callback(self.work)
        super().__init__(view, prompt, hint, take)

    def press(self, key):
        """As of any Question; while it waits only Escape counts, which leaves the answer alone."""
        if key == "escape" or (self._job is None and key != "enter"):
            return super().press(key)
        if key == "enter" and self._job is None and self.answer.strip():
            self._begin()
        elif key == "enter" and self._job is not None and self._job.done():
            return self._end()
        return None

    def work(self):
        """Show how long it takes, and take the answer once it is there."""
        if self.explorer.question is not self:  # left, or its window was closed
            self._timer.stop()
            self._job.cancel()
        elif self._job.done():
            self._timer.stop()
            self.explorer.answer("enter")
        else:
            self.show()

    def show(self):
        """Ask, or say what it waits for."""
        if self._job is None:
            super().show()
            return
        seconds = int(time.monotonic() - self._since)
        text = f"{self.doing()} ...  {seconds} s\nEscape: leave it"
        if text != self.view.banner.get_text() or not self.view.banner.get_visible():
            self._put(text)

    def _begin(self):
        self._job, self._since = self.begin(self.answer.strip()), time.monotonic()
        self._timer.start()
        self.show()

    def _end(self):
        job, self._job = self._job, None
        try:
            result = job.result()
        except RunError as error:
            self.remark = fill(str(error), REMARK_LETTERS)
        except Exception:  # the window goes on, whatever the network does
            traceback.print_exc()
            self.remark = HAS_FAILED
        else:
            self.hide()
            self.take(result)
            return "answered"
        self.show()
        return None


class Asking:
    """Asks in the windows of an Explorer for words or a picture, and ranks all objects by them.

    `queries` makes Queries of them; None: there is no network.
    """

    def __init__(self, explorer, queries):
        self.explorer, self.queries = explorer, queries
        self._shown = []  # Queries

    def words(self):
        """Find the objects that look most like a line of words."""
        hint = "what they show, such as: a cow on the road"
        self._ask("Find by words", hint, lambda line: self.queries.of_words(line))

    def picture(self):
        """Find the objects that look most like a picture from outside."""
        hint = "its path; of a part of it: photo.jpg [left, upper, right, lower] in pixels"
        self._ask("Find by a picture", hint, lambda text: self.queries.of_part(typed_part(text)))

    def _ask(self, prompt, hint, make_query):
        if self.queries is None:
            self.explorer.say(NO_NETWORK)
            return
        begin, doing = partial(self.queries.later, make_query), self.queries.doing
        how = partial(SlowQuestion, explorer=self.explorer, begin=begin, doing=doing)
        self.explorer.ask(prompt, hint, self.show, how)

    def show(self, query):
        """Mark a Query on the map, and show the objects nearest to it."""
        explorer = self.explorer
        self._shown.append(query)
        explorer.map.mark(query.plot_embeddings, short(printable(query.name), 40))
        explorer.map.redraw()
        explorer.show_neighbours(-len(self._shown))

    def has_shown(self):
        """Whether there is a Query yet."""
        return bool(self._shown)

    def query(self, row):
        """The Query that stands for a row below 0; OUTSIDE is that of the first."""
        return self._shown[-1 - row]
