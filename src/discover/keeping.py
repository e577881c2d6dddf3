"""What an explorer keeps beside its table: the tags and the groups of the objects."""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from src.discover import state
from src.discover.panel import counted
from src.embedding.groups import LATER
from src.errors import RunError, SettingError
from src.store.groups import change_groups, read_groups, write_groups
from src.store.paths import groups_path, tags_path
from src.store.tags import change_tags, read_tags

TAGS, GROUPS = "tags", "groups"
SLOW_GROUPS = 20_000  # objects whose file of groups takes its time


class Keeping:
    """Writes what an Explorer changes, and takes in what others have written to the same files.

    `kept` is told what a file has after it was written, by the names that `take` has for it.
    """

    def __init__(self, explorer, table_path):
        self.explorer, self.table_path = explorer, table_path
        self.kept = lambda **what: None
        self.told = ""  # what is odd about the groups that were there at first
        self._unkept_tags = {}  # that could not be written so far
        self._is_behind = False  # the file of groups, as it could not be written

    def first(self, of_state):
        """A State with the tags and groups that there are; a SettingError where tags are broken."""
        if self.table_path is None:
            return of_state
        of_state = self._with_tags(of_state, read_tags(tags_path(self.table_path)))
        try:
            clusters = self._labels(read_groups(groups_path(self.table_path)))
        except SettingError as error:
            self.told = f"without the groups of before: {error}"
            return of_state
        count = 0 if clusters is None else np.count_nonzero(clusters == LATER)
        if count:
            self.told = f"{counted(count, 'object')} came after the groups were found; 0 shows them"
        return replace(of_state, clusters=clusters)

    def _with_tags(self, of_state, entries):
        """A State with the tags of a file, and no others; those of no segment here are left out."""
        segments, rows = self.explorer.segments, defaultdict(list)
        tags = {tuple(key): tag for *key, tag in entries} | self._unkept_tags
        for key, tag in tags.items():
            if key in segments.row_of:
                rows[tag].append(segments.row_of[key])
        of_state = replace(of_state, tags=np.zeros(len(segments), np.int64))
        for tag in rows:
            of_state = state.tagged(of_state, rows[tag], tag)
        return of_state

    def _labels(self, groups):
        """The groups in a file as those of the rows, (N,) int64; None where no row has one."""
        if not groups:
            return None
        labels = [groups.get(key, LATER) for key in self.explorer.segments.tag_keys()]
        labels = np.array(labels, np.int64)
        return None if (labels == LATER).all() else labels

    # what was changed here

    def keep(self, before, step):
        """Write the tags and groups that are others than in the State before a step, by its name.

        What cannot be written is told, and comes into the file with the next change.
        """
        if self.table_path is None:
            return
        now = self.explorer.state
        changed = {TAGS: now.tags is not before.tags, GROUPS: now.clusters is not before.clusters}
        for name, keep in ((TAGS, self._keep_tags), (GROUPS, self._keep_groups)):
            try:
                if changed[name]:
                    keep(before, step)
            except (OSError, RunError) as error:
                self.explorer.say(f"the {name} cannot be kept: {error}")

    def _keep_tags(self, before, _step):
        explorer = self.explorer
        rows = np.flatnonzero(state.tags_of(before) != state.tags_of(explorer.state))
        tags = map(explorer.tag_of, rows)
        self._unkept_tags |= dict(zip(explorer.segments.tag_keys(rows), tags, strict=True))
        entries = change_tags(tags_path(self.table_path), self._unkept_tags)
        self._unkept_tags = {}
        self._share(tags=entries)

    def _keep_groups(self, before, step):
        explorer, path = self.explorer, groups_path(self.table_path)
        are_new, self._is_behind = self._is_behind or step in state.FINDING, True
        with explorer.working("keeping the groups ...", len(explorer.segments) > SLOW_GROUPS):
            now = self._by_object(explorer.state.clusters)
            if are_new:
                groups = write_groups(path, now)
            else:
                known = self._by_object(before.clusters)
                changes = {key: group for key, group in now.items() if group != known[key]}
                groups = change_groups(path, changes, known)
                are_new = any(groups.get(key) != group for key, group in changes.items())
        self._is_behind = False
        if are_new and step not in state.FINDING:
            explorer.say("not done: these groups were changed in another window, as they show now")
        self._share(groups=groups, are_new=are_new)

    def _by_object(self, clusters):
        keys = self.explorer.segments.tag_keys()
        if clusters is None:
            return dict.fromkeys(keys)
        labels = [None if label == LATER else label for label in clusters.tolist()]
        return dict(zip(keys, labels, strict=True))

    def _share(self, **what):
        self.take(**what)
        self.kept(**what)

    # what others have changed

    def take(self, tags=None, groups=None, are_new=False):
        """Show the tags of a file, see `read_tags`, or its groups, see `read_groups`.

        What is not in it has none. `undo` does not take those of others away. `are_new`: the
        numbers of groups mean others than before.
        """
        if tags is not None:
            self._take_tags(tags)
        if groups is not None and not self._is_behind:
            self._take_groups(self._labels(groups), are_new)

    def _take_tags(self, entries):
        explorer = self.explorer
        theirs = state.tags_of(self._with_tags(explorer.state, entries))
        rows = np.flatnonzero(theirs != state.tags_of(explorer.state))
        if not len(rows):
            return
        new = {}  # many states have one array of tags

        def caught_up(one):
            key = id(one.tags)
            if key not in new:
                new[key] = state.retagged(one, rows, theirs[rows])
            return replace(one, tags=new[key].tags, tag_names=new[key].tag_names)

        explorer.catch_up(state.BY_TAG, caught_up)

    def _take_groups(self, theirs, are_new):
        ours = self.explorer.state.clusters
        if ours is theirs or (ours is not None and np.array_equal(ours, theirs)):
            return
        if ours is None or theirs is None or are_new:
            self.explorer.catch_up(state.BY_CLUSTER, lambda one: state.grouped(one, theirs))
            return
        rows, new = np.flatnonzero(ours != theirs), {None: None}

        def caught_up(one):
            key = None if one.clusters is None else id(one.clusters)
            if key not in new:
                new[key] = one.clusters.copy()
                new[key][rows] = theirs[rows]
            return replace(one, clusters=new[key])

        self.explorer.catch_up(state.BY_CLUSTER, caught_up)
