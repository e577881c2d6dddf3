"""How well neighbours in the embedding space find segments of the same class."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from src import class_ids, registry
from src.embedding import space as embedding_space
from src.errors import SettingError
from src.evaluation.ranking import retrieval
from src.records import NO_LABEL
from src.store import reports

METHODS = ("stored", *embedding_space.METHODS, "none", "size")
METRICS = embedding_space.METRICS
FEATURES = "features"  # the space of the vectors as they are
NOISE = 1e-6  # relative: what another processor or library may do to the vectors
COLOURS = {"known": "#4c72b0", "unknown": "#c44e52"}
MARKERS = "oDs"


@dataclass(frozen=True)
class Space:
    """Where neighbours are looked for, beside the space of the vectors as they are."""

    # one of `METHODS`: the space that stage 5 has stored, no other ("none"), the size of the crop,
    # or how to reduce the vectors
    method: str = "stored"
    dimensions: int = 2  # that a reduction leaves
    seed: int = 0
    # to take means and spreads over: the space itself, and others made as it was, of vectors that
    # are moved by `NOISE`
    maps: int = 1

    def __str__(self):
        is_reduced = self.method in embedding_space.METHODS
        return f"{self.method}_{self.dimensions}" if is_reduced else self.method


class Way(NamedTuple):
    """Where neighbours are looked for, and by which distance."""

    space: str  # `FEATURES`, or the name of a Space
    metric: str

    def __str__(self):
        return f"{self.space}, {self.metric}"


@dataclass(frozen=True)
class Question:
    """What is asked of every class."""

    # distances to compare between vectors; in other spaces, where angles mean nothing because their
    # origin lies anywhere, it is the Euclidean one
    metrics: tuple = ("euclid", "cos")
    counts: tuple = (1, 10, 100)  # K times k, of precision and recall among the k nearest
    min_query_count: int = 2  # a class with fewer segments (annotated ones) is not asked for
    # only rows that are marked in the table's column `annotated` are asked for, and to be found
    annotated: bool = False

    def at_k(self, form, words=("precision", "recall")):
        """Names of the figures after the first two, such as "precision_at_1"."""
        return [form.format(word, k) for word in words for k in self.counts]


@dataclass(frozen=True)
class Found:
    """How well the segments of C classes are found: unknown classes first, each by name."""

    question: Question
    names: np.ndarray  # (C,) str
    sides: np.ndarray  # (C,) str: "known" or "unknown" to the network
    queries: np.ndarray  # (C,) int64: segments that may be asked for
    # (M, C, 2 + 2 K) float64 by Way, for each of its M maps: means over the queries of each class
    # that have something to find, of the average precision among other pictures, the same with the
    # query's own picture, and of precision and recall at k among other pictures; NaN: there is no
    # such query, or there are too few
    figures: dict[Way, np.ndarray]

    def heads(self):
        """Name, side and number of queries of each class: a list of tuples."""
        columns = self.names.tolist(), self.sides.tolist(), self.queries.tolist()
        return list(zip(*columns, strict=True))

    def is_asked(self):
        """Mask (C,) of the classes with enough queries."""
        return self.queries >= self.question.min_query_count

    def groups(self):
        """Masks (C,) of all, known, and unknown classes with a figure; only those with a class."""
        asked = self.is_asked()
        masks = {"all": asked} | {side: asked & (self.sides == side) for side in COLOURS}
        return {name: mask for name, mask in masks.items() if mask.any()}

    def of_classes(self, way):
        """The figures (C, 2 + 2 K) of each class, means over the maps."""
        return self.figures[way].mean(axis=0)

    def means(self, way, mask):
        """Means (2 + 2 K,) over the classes of a mask, and over them by their queries."""
        figures = self.of_classes(way)[mask]
        return _mean(figures, np.ones(len(figures))), _mean(figures, self.queries[mask])

    def spread(self, way, mask):
        """Standard deviation over the maps of the mean average precision; NaN for one map."""
        means = [_mean(figures[mask], np.ones(mask.sum()))[0] for figures in self.figures[way]]
        return float(np.std(means, ddof=1)) if len(means) > 1 else np.nan

    def merits(self):
        """By space and metric a dict of floats; NaN: nothing was to be found.

        `map` and `map_weighted` of all, `map_known` and so on of known and unknown classes; each
        with neighbours from the query's own picture as `map_own_picture`, its spread as
        `map_spread`; `precision_at_<k>` and `recall_at_<k>` as means over all classes.
        """
        merits = {way.space: {} for way in self.figures}
        for way in self.figures:
            own = merits[way.space][way.metric] = {}
            for group, mask in self.groups().items():
                over_classes, over_queries = self.means(way, mask)
                name = "map" if group == "all" else f"map_{group}"
                own[name], own[f"{name}_own_picture"] = over_classes[:2].tolist()
                own[f"{name}_weighted"] = float(over_queries[0])
                own[f"{name}_own_picture_weighted"] = float(over_queries[1])
                own[f"{name}_spread"] = self.spread(way, mask)
                if group == "all":
                    at_k = self.question.at_k("{}_at_{}")
                    own |= dict(zip(at_k, over_classes[2:].tolist(), strict=True))
        return merits

    def average_precisions(self, own_picture=False):
        """That of each class by way and name; None: nothing was to be found, or by too few."""
        column = int(own_picture)
        return {
            str(way): dict(
                zip(
                    self.names.tolist(),
                    reports.plain(self.of_classes(way)[:, column]),
                    strict=True,
                )
            )
            for way in self.figures
        }


def _mean(figures, weights):
    """Means over the rows of each column without its NaN; NaN where nothing is left."""
    weights = np.isfinite(figures) * weights[:, None]
    total = weights.sum(axis=0)
    sums = (np.nan_to_num(figures) * weights).sum(axis=0)
    return np.where(total > 0, sums / np.maximum(total, 1), np.nan)


def evaluate(log, table, space, question, datasets, known):
    """Judge the vectors of a table of embedded objects: a Found.

    `datasets` are all entries that the table may have objects of, `known` the classes that the
    network predicts, see `ModelCard.classes`.
    """
    origin = ", ".join(sorted(set(table["dataset"])))
    if question.annotated and "annotated" not in table:
        raise SettingError(
            "args.annotated: the embeddings file has no column `annotated`; set it to False"
        )
    names, is_known = classes_of(log, table, datasets, known)
    labelled = names != ""
    if not labelled.any():
        raise SettingError(f"no segment of {origin} in the embeddings file has a true class")
    spaces = {
        name: [vectors[labelled] for vectors in maps]
        for name, maps in spaces_of(log, table, space).items()
    }
    table, names, is_known = table.take(labelled), names[labelled], is_known[labelled]
    log.info("%d segments, %d of them without label", len(labelled), (~labelled).sum())
    found = judge(spaces, table, names, is_known, question)
    if not found.groups():
        raise SettingError(
            f"no class has {question.min_query_count} segments of {origin} in the embeddings file: "
            "there is nothing to find"
        )
    return found


def classes_of(log, table, datasets, known):
    """What the N segments of a table show; arguments as for `evaluate`.

    Returns
    -------
    names : ndarray of shape (N,), str
        Name of the true class, or of the kind that it is one of; classes of the same name in two
        datasets are one. "": no label.
    is_known : ndarray of shape (N,), bool
        Whether the network predicts the class.
    """
    origin, true_ids = table["dataset"], table["true_id"]
    names, is_known = np.full(len(table), "", object), np.zeros(len(table), bool)
    spelling = {}
    for dataset in sorted(set(origin)):
        entry = registry.choose(datasets, dataset, "dataset")
        name_of = class_ids.class_names(entry)
        predicted = class_ids.predicted_ids(entry, known, log)
        of_dataset = origin == dataset
        for true_id in np.setdiff1d(true_ids[of_dataset], NO_LABEL).tolist():
            of_class = of_dataset & (true_ids == true_id)
            name = name_of.get(true_id, f"class {true_id}")
            names[of_class] = spelling.setdefault(name.casefold(), name)
            is_known[of_class] = true_id < len(predicted) and predicted[true_id] != NO_LABEL
    return names.astype(str), is_known


def spaces_of(log, table, space):
    """The spaces that are judged, each a list of its maps, (N, D), by name; `FEATURES` first."""
    spaces = {FEATURES: [table["embeddings"]]}
    if space.method == "size":  # of the crop: what is known without looking at it
        left, upper, right, lower = table["box"].T
        spaces[str(space)] = [np.column_stack([lower - upper, right - left])]
    elif space.method != "none":
        spaces[str(space)] = maps_of(log, table, space)
    return spaces


def maps_of(log, table, space):
    """The maps of a space that is not the features: a list of arrays (N, D)."""
    how = {"method": space.method, "size": space.dimensions, "seed": space.seed, "tsne": {}}
    maps = []
    if space.method == "stored":
        maps, how = [_stored_map(table)], table.facts.get("reduced_by")
        if how is None and space.maps > 1:
            raise SettingError(
                "args.maps: the embeddings file does not say how its map was made; make it again "
                "by discover_embedding_space.py with args.overwrite=True, or leave args.maps at 1"
            )
    vectors, generator = table["embeddings"], np.random.default_rng(space.seed)
    for number in range(len(maps), space.maps):
        log.info("reducing %d vectors of %d values by %s", *vectors.shape, how["method"])
        moved = 1 + NOISE * generator.standard_normal(vectors.shape) * (number > 0)
        maps.append(_reduced((vectors * moved).astype(np.float32), how))
    return maps


def _reduced(vectors, how):
    if how["size"] is None:
        return vectors
    return embedding_space.reduce(vectors, how["method"], how["size"], how["seed"], **how["tsne"])


def _stored_map(table):
    advice = "run discover_embedding_space.py first, or choose another args.method"
    if "nn_embeddings" not in table:
        raise SettingError(f"the embeddings file has no neighbour space yet: {advice}")
    points = table["nn_embeddings"]
    lost = np.isnan(points).any(axis=1).sum()
    if lost:
        raise SettingError(f"{lost} segments have come since the space was made: {advice}")
    return points


def judge(spaces, table, names, is_known, question):
    """Average precision, precision and recall at k of each class: a Found.

    Parameters
    ----------
    spaces : dict of str to list of ndarray of shape (N, D)
        See `spaces_of`.
    table : ObjectTable
        N rows with a label; rows where its column `annotated` is 0 are neither queries nor to be
        found, where the question says so.
    names, is_known
        See `classes_of`.
    question : Question
    """
    class_names, classes = np.unique(names, return_inverse=True)
    annotated = table["annotated"] != 0 if question.annotated else np.ones(len(classes), bool)
    sizes = np.bincount(classes[annotated], minlength=len(class_names))
    queries = np.flatnonzero(annotated & (sizes >= question.min_query_count)[classes])
    known = np.bincount(classes, is_known) > 0
    order = sorted(range(len(sizes)), key=lambda k: (known[k], class_names[k].casefold()))
    numbers = {}
    pictures = [numbers.setdefault(name, len(numbers)) for name in table.image_names()]

    def of_classes(points, metric):
        find = partial(retrieval, points, classes, queries, metric, annotated)
        found = find(counts=question.counts, pictures=pictures)
        found[np.isnan(found[:, 0])] = np.nan  # nothing to find in other pictures
        found = np.insert(found, 1, find()[:, 0], axis=1)
        of_class = [found[classes[queries] == k] for k in order]
        return np.array([_mean(rows, np.ones(len(rows))) for rows in of_class])

    figures = {
        Way(name, metric): np.array([of_classes(points, metric) for points in maps])
        for name, maps in spaces.items()
        for metric in (question.metrics if name == FEATURES else ["euclid"])
    }
    sides = np.where(known, "known", "unknown")
    return Found(question, class_names[order], sides[order], sizes[order], figures)


# telling


def report(log, path, found, dataset):
    """Log both tables; write them as CSV, the average precisions as a picture of `dataset`."""
    ways, at_k, heads = list(found.figures), found.question.at_k, found.heads()
    figures = {way: reports.plain(found.of_classes(way)) for way in ways}
    log.info("average precision, neighbours from other pictures\n%s", reports.text_table(
        ["class", "", "segments", *map(str, ways)],
        [
            [*head, *(_digits(way, figures[way][k][0]) for way in ways)]
            for k, head in enumerate(heads)
        ],
    ))  # fmt: skip
    left_out = np.count_nonzero(~found.is_asked())
    if left_out:
        log.info("%d classes have too few segments: nothing to find, no figure (-)", left_out)
    means = [
        (
            [group, mask.sum(), found.queries[mask].sum(), *way],
            reports.plain(found.spread(way, mask)),
            *map(reports.plain, found.means(way, mask)),
        )
        for way in ways
        for group, mask in found.groups().items()
    ]
    log.info("means over classes; mAP and the rest with neighbours from other pictures\n%s",
        reports.text_table(
            ["classes", "number", "queries", "space", "distance", "mAP", "+-", "own picture too",
             "weighted", *at_k("{}@{}", "PR")],
            [
                [*head, *(_digits(Way(*head[3:]), value)
                          for value in (over[0], spread, over[1], weighted[0], *over[2:]))]
                for head, spread, over, weighted in means
            ],
        ),
    )  # fmt: skip
    if {way.space for way in ways} != {FEATURES}:
        log.info(
            "figures of a map have two digits: vectors a millionth away give another map, and "
            "args.maps=5 tells the spread (+-)"
        )

    names = ["average precision", "own picture too", *at_k("{} at {}")]
    reports.write_csv(
        f"{path}.csv",
        ["class", "known", "segments", "space", "distance", *names],
        [
            [*head, *way, *of_class]
            for way in ways
            for head, of_class in zip(heads, figures[way], strict=True)
        ],
    )
    reports.write_csv(
        f"{path}_means.csv",
        ["classes", "number", "queries", "space", "distance", "mean over", *names, "spread"],
        [
            [*head, over, *mean, spread]
            for head, spread, *both in means
            for over, mean in zip(("classes", "queries"), both, strict=True)
        ],
    )
    reports.save_figure(path, draw_classes(found, dataset))
    log.info("wrote %s (.csv, _means.csv, .png, .pdf)", path)


def _digits(way, value):
    """A figure for the log, with as many digits as it deserves."""
    return value if way.space == FEATURES or value is None else f"{value:.2f}"


def draw_classes(found, dataset):
    """The average precision of each class, best first, and the means as lines."""
    ways = list(found.figures)
    average_precision = {way: found.of_classes(way)[:, 0] for way in ways}
    in_order = np.argsort(average_precision[ways[0]], kind="stable")  # NaN comes last
    shown = in_order[: np.count_nonzero(np.isfinite(average_precision[ways[0]]))]
    heads = [found.heads()[k] for k in shown]
    figure = Figure(figsize=(8, 2.8 + 0.24 * len(shown)), layout="constrained")
    figure.suptitle(f"{reports.label(dataset)}: neighbours of the same class")
    label = "average precision among other pictures, mean over the queries"
    axes = figure.add_subplot(xlabel=label, xlim=(0, 1))
    for place, (k, (_, side, _)) in enumerate(zip(shown, heads, strict=True)):
        colour = COLOURS[side]
        values = [average_precision[way][k] for way in ways]
        axes.plot([0, max(values)], [place, place], color=colour, linewidth=0.8, alpha=0.5)
        for way, marker, value in zip(ways, MARKERS, values, strict=False):
            face = colour if way == ways[0] else "white"
            axes.plot(value, place, marker, color=colour, markerfacecolor=face)
    for group, mask in found.groups().items():
        mean = found.means(ways[0], mask)[0][0]
        if group != "all" and np.isfinite(mean):
            label = f"{group}: {mean:.3f} by {ways[0]}"
            axes.axvline(mean, color=COLOURS[group], linestyle="--", label=label)
    for way, marker in zip(ways, MARKERS, strict=False):
        face = "grey" if way == ways[0] else "white"
        axes.plot([], [], marker, color="grey", markerfacecolor=face, label=str(way))
    labels = [f"{reports.label(name)} ({count})" for name, _, count in heads]
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(-0.8, len(shown) - 0.2)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, title="mean over classes, dashed")
    return figure
