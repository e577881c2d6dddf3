"""What the user has chosen, and by what segments are coloured, listed and filtered; no windows."""

from dataclasses import dataclass, field, fields, replace

import numpy as np
from matplotlib.path import Path as Outline

BY_TRUTH, BY_PREDICTION, BY_IOU = "true class", "predicted class", "predicted IoU"
BY_SUSPICION, BY_NOVELTY = "suspicion", "novelty"
BY_DATASET, BY_CLUSTER, BY_TAG, ALL_BLUE = "dataset", "cluster", "tag", "blue"
WAYS = {  # to colour; what each does
    BY_TRUTH: "Colour by the most frequent true class of each segment.",
    BY_PREDICTION: "Colour by predicted class.",
    BY_IOU: "Colour by predicted IoU.",
    BY_SUSPICION: "Colour by suspicion, whatever it was in stage 4; higher is stranger.",
    BY_NOVELTY: "Colour by distance to vectors of segments that are known; higher is stranger.",
    BY_DATASET: "Colour by dataset.",
    BY_CLUSTER: "Colour by cluster; the first time, ask for their number.",
    BY_TAG: "Colour by tag.",
    ALL_BLUE: "Give all points one blue.",
}
FINDING = "clustering", "grouping"  # steps after which numbers of groups mean others
STEPS = 32  # colours of a scale
UNKNOWN = "unknown"  # a value that is NaN


@dataclass(frozen=True)
class Groups:
    """One way to sort all N segments into G groups."""

    codes: np.ndarray  # (N,) integer: group of each segment, in [0, G)
    names: tuple[str, ...]
    colours: np.ndarray  # (G, 3) uint8
    unknown: np.ndarray | None = None  # (G,) bool: classes that the network lacks; None: no classes

    def counts(self, rows=None):
        """Segments of each group, (G,) int64; of all rows or of those given by index or mask."""
        codes = self.codes if rows is None else self.codes[rows]
        return np.bincount(codes, minlength=len(self.names))

    def largest_first(self):
        """The groups by the number of their segments, (G,) int64."""
        return np.argsort(-self.counts(), kind="stable")


def group_by_name(values, name_of):
    """Group N segments by the names of their values: one name, one group, whatever the value.

    `name_of` gives name and colour for a value; of equal names the first colour counts.
    """
    values, positions = np.unique(values, return_inverse=True)
    entries = [name_of(value) for value in values]
    colours = {}
    for name, colour in entries:
        colours.setdefault(name, colour)
    at = {name: number for number, name in enumerate(colours)}
    codes = np.array([at[name] for name, _ in entries], np.int64)[positions.reshape(-1)]
    return Groups(codes, tuple(colours), np.array(list(colours.values()), np.uint8).reshape(-1, 3))


@dataclass(frozen=True)
class Scale:
    """A number of each of N segments, and where all of them lie."""

    values: np.ndarray  # (N,) float64; NaN: unknown
    extent: tuple[float, float]  # round numbers below and above

    @classmethod
    def of(cls, values):
        """The Scale of values (N,)."""
        values = np.asarray(values, np.float64)
        known = values[np.isfinite(values)]
        if not known.size:
            return cls(values, (0.0, 1.0))
        ends = known.min(), known.max()
        step = 10.0 ** np.floor(np.log10(np.ptp(ends) / 2 or 0.1) + 1e-6)  # float32 came in
        low, high = np.round(np.divide(ends, step), 4)
        low, high = float(np.floor(low) * step), float(np.ceil(high) * step)
        return cls(values, (low, high) if high > low else (low, low + float(step)))

    def is_known(self):
        """Whether any segment has a number."""
        return bool(np.isfinite(self.values).any())

    def text(self, value):
        """A number with as many digits as tell it from others on the scale."""
        span = self.extent[1] - self.extent[0]
        return f"{value:.{max(2, 1 - int(np.floor(np.log10(span) + 1e-6)))}f}"


def group_by_step(scale, colours, unknown):
    """Group a Scale from low to high into equal steps, one for each of the colours (G, 3).

    NaN is the last group, of the colour `unknown`.
    """
    low, high = scale.extent
    count = len(colours)
    steps = np.clip((scale.values - low) / (high - low) * count, 0, count - 1)
    codes = np.where(np.isnan(steps), count, np.nan_to_num(steps)).astype(np.int64)
    edges = list(map(scale.text, np.linspace(low, high, count + 1)))
    names = tuple(f"{edges[i]} to {edges[i + 1]}" for i in range(count))
    return Groups(codes, (*names, UNKNOWN), np.vstack([colours, unknown]).astype(np.uint8))


@dataclass(frozen=True)
class State:
    """All that `undo` brings back; each command makes a new one."""

    colouring: str  # one of `WAYS`
    selected: np.ndarray  # (N,) bool
    tags: np.ndarray  # (N,) int64; 0: no tag, k: `tag_names[k - 1]`
    tag_names: tuple[str, ...] = ()
    hidden: frozenset = frozenset()  # groups that are filtered out, (way, name) each
    ranges: dict = field(default_factory=dict)  # by way, (low, high): outside, filtered out
    clusters: np.ndarray | None = None  # (N,) int64, see `embedding.groups`; None: not looked for
    sets: np.ndarray | None = None  # (N,) int64: that of its near duplicates; None: not joined
    rejected: np.ndarray | None = None  # (N,) bool: seen among what is like those selected, not so

    def filtered(self):
        """Whether anything may be filtered out."""
        return bool(self.hidden or self.ranges)


def kept_rows(state, groups_of, scales):
    """Which segments pass the filters of a State, a mask (N,).

    `groups_of` gives the Groups of a way, `scales` are a Scale by way.
    """
    kept = np.ones(len(state.selected), bool)
    for way in {way for way, _ in state.hidden}:
        groups = groups_of(way)
        shown = np.array([(way, name) not in state.hidden for name in groups.names], bool)
        kept &= shown[groups.codes]
    for way, (low, high) in state.ranges.items():
        values = scales[way].values
        kept &= (values >= low) & (values <= high)
    return kept


def standing(sets, kept, order):
    """Which row stands for each: the first of its set that is kept, or else the first, (N,) int64.

    `sets` (N,) are numbers from 0, `kept` is a mask (N,), `order` has all rows, the first first.
    """
    count = len(sets)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    place[~kept] += count
    first = np.full(sets.max() + 1, 2 * count)
    np.minimum.at(first, sets, place)
    return order[first % count][sets]


def same(one, other):
    """Whether two States show the same; what was rejected shows only where it is ranked next."""
    names = [its.name for its in fields(State) if its.name != "rejected"]
    return all(_equal(getattr(one, name), getattr(other, name)) for name in names)


def _equal(one, other):
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one is other or np.array_equal(one, other)
    return one is other or (type(one) is type(other) and one == other)


def toggled(hidden, way, name):
    """`hidden` with one group taken out, or put back in."""
    return hidden ^ {(way, name)}


def only(hidden, way, name, names):
    """`hidden` with all groups of a way out but one; with none out where that is so already."""
    others = {(way, other) for other in names if other != name}
    rest = frozenset(entry for entry in hidden if entry[0] != way)
    return rest if hidden - rest == others else rest | others


def tagged(state, rows, name):
    """The state with a tag, or with none where the name is empty, on some rows (index or mask)."""
    names = state.tag_names
    if name and name not in names:
        names = (*names, name)
    tags = state.tags.copy()
    tags[rows] = names.index(name) + 1 if name else 0
    return replace(state, tags=tags, tag_names=names)


def retagged(state, rows, names):
    """The state with the tags (R,) str on the rows (R,) int64; "" is none."""
    for name in dict.fromkeys(names):
        state = tagged(state, rows[names == name], name)
    return state


def grouped(state, clusters):
    """The state with other groups, (N,) int64 or None, whose numbers mean others than before."""
    hidden = frozenset(pair for pair in state.hidden if pair[0] != BY_CLUSTER)
    is_lost = clusters is None and state.colouring == BY_CLUSTER
    way = BY_PREDICTION if is_lost else state.colouring
    return replace(state, clusters=clusters, hidden=hidden, colouring=way)


def tags_of(state):
    """The tag of each row, empty where it has none: (N,) str objects."""
    return np.array(["", *state.tag_names], object)[state.tags]


def combined(selected, found, how):
    """Selection after `found` came to it: how is "replace", "add" or "remove"; (N,) bool each."""
    if how == "add":
        return selected | found
    return selected & ~found if how == "remove" else found


def inside(points, outline):
    """Which of the points (N, 2) lie inside a polygon, a mask (N,).

    `outline` (V, 2) has the corners in order; the last is joined to the first. Fewer than 3 hold
    nothing.
    """
    within = np.zeros(len(points), bool)
    if len(outline) < 3:
        return within
    low, high = outline.min(axis=0), outline.max(axis=0)
    near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    within[near] = Outline(np.asarray(outline)).contains_points(points[near])
    return within
