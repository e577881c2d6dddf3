"""Objects found by what is typed in the window: words, or a picture from outside."""

from functools import partial

from src.discover.panel import printable, short
from src.discover.query import typed_part
from src.discover.questions import Waiting

NO_NETWORK = "no network is at hand here to embed what is asked"


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

    def _ask(self, prompt, hint, make_query, *before):
        """Ask; `before` are what was typed then, and why that was refused."""
        if self.queries is None:
            self.explorer.say(NO_NETWORK)
            return
        again = partial(self._ask, prompt, hint, make_query)
        self.explorer.ask(prompt, hint, partial(self._begin, make_query, again), *before)

    def _begin(self, make_query, again, text):
        if not text:
            return "nothing was typed"
        job, doing = self.queries.later(make_query, text), self.queries.doing
        self.explorer.question = Waiting(self.explorer, job, doing, self.show, partial(again, text))
        return None

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
