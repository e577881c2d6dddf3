"""Numbers that the tests are held to everywhere: worked out by slow twins, or written by hand.

They come in the layout of the numbers recorded from the original system, which only a development
checkout has beside it, so that the same tests read both. A module of this package makes the folder
of its name.
"""

import importlib


class Twins:
    """A folder whose parts, `twins / "metaseg"`, are made when they are asked for."""

    def __init__(self, folder):
        self._folder, self._made = folder, {}

    def __truediv__(self, part):
        if part not in self._made:
            path = self._folder / part
            path.mkdir()
            importlib.import_module(f"twins.{part}").write(path)
            self._made[part] = path
        return self._made[part]
