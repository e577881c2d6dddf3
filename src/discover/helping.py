"""The list of commands over a window: as much at a time as can be read."""

import textwrap

from src.discover.commands import COMMANDS
from src.discover.questions import ASKED_ALREADY

INDENT = 27  # letters, of what a command does
LEAST_LINES = 6  # of a page, however low the window is


class Helping:
    """Shows the commands of an Explorer."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.view = None  # the window that shows them
        self._page = 0

    def toggle(self):
        """Show all commands, where they have no room page by page, or hide them."""
        if self.explorer.question is not None:
            self.explorer.say(ASKED_ALREADY)
        elif self.view is None:
            self.view, self._page = self.explorer.here, 0
            self.show()
        else:
            self._page += 1
            self.show()

    def show(self):
        """Show the page, in the window's size of now; after the last one, none."""
        pages = pages_of(*self.view.room_for_banner())
        if self._page < len(pages):
            self.view.show_banner(pages[self._page])
        else:
            self.hide()

    def hide(self):
        """Hide the commands; whether they were shown."""
        view, self.view = self.view, None
        if view is not None:
            view.show_banner("")
            self.explorer.events.look(view)
        return view is not None


def pages_of(columns, lines):
    """All commands as pages of text, a list of str, for so many letters a line, and lines."""
    how = {"width": max(columns, 2 * INDENT), "subsequent_indent": INDENT * " "}
    entries = [
        textwrap.wrap(does, initial_indent=f"{press:<{INDENT}}", **how)
        for press, _, does in COMMANDS
    ]
    pages, room = [[]], max(lines, LEAST_LINES)
    if sum(map(len, entries)) > room:
        room -= 2  # for what tells that there are more
    for entry in entries:
        if len(pages[-1]) + len(entry) > room:
            pages.append([])
        pages[-1] += entry
    if len(pages) == 1:
        return ["\n".join(pages[0])]
    return [
        "\n".join([*page, "", f"page {number} of {len(pages)}; ? turns it"])
        for number, page in enumerate(pages, 1)
    ]
