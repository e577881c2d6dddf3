"""How well neighbours in the embedding space find segments of the same class."""

from dataclasses import dataclass, replace

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
GROUPS = {"all": (True, False), "known": (True,), "unknown": (False,)}  # by `is_known`
COLOURS = {"known": "#4c72b0", "unknown": "#c44e52"}
MARKERS = {"euclid": "o", "cos": "D"}


@dataclass(frozen=True)
class Space:
    """Where neighbours are looked for.

    Attributes
    ----------
    method : str
        One of `METHODS`: the space that stage 5 has stored, the vectors as they are ("none"), the
        size of the crop, or how to reduce the vectors.
    dimensions : int
        That a reduction leaves.
    seed : int
    """

    method: str = "stored"
    dimensions: int = 2
    seed: int = 0

    def __str__(self):
        is_reduced = self.method in embedding_space.METHODS
        return f"{self.method}_{self.dimensions}" if is_reduced else self.method


@dataclass(frozen=True)
class Question:
    """What is asked of every class.

    Attributes
    ----------
    metrics : sequence of {"euclid", "cos"}
        Distances to compare.
    counts : sequence of int, length K
        The k of precision and recall among the k nearest neighbours.
    min_query_count : int
        A class with fewer segments (annotated ones) is not asked for.
    annotated : bool
        Only rows that are marked in the table's column `annotated` are asked for, and to be found.
    """

    metrics: tuple = ("euclid", "cos")
    counts: tuple = (1, 10, 100)
    min_query_count: int = 2
    annotated: bool = False


@dataclass(frozen=True)
class ClassFound:
    """How well the segments of a class are found.

    Attributes
    ----------
    name : str
    is_known : bool
    queries : int
        Its segments that may be asked for.
    figures : dict of str to ndarray of shape (1 + 2 K,), float64, or None
        By metric, means over the queries: average precision, precision at each k, recall at each
        k; see `ranking.retrieval`. None: there are too few queries.
    """

    name: str
    is_known: bool
    queries: int
    figures: dict[str, np.ndarray | None]

    @property
    def side(self):
        """ "known" or "unknown"."""
        return "known" if self.is_known else "unknown"

    def average_precision(self, metric):
        """A float, or None."""
        figures = self.figures[metric]
        return None if figures is None else float(figures[0])


@dataclass(frozen=True)
class Means:
    """Means of the figures of some classes.

    Attributes
    ----------
    group : str
        Which classes: "all", "known", "unknown".
    classes, queries : int
        Their number, and that of their queries.
    over_classes, over_queries : ndarray of shape (1 + 2 K,), float64
        As of `ClassFound.figures`.
    """

    group: str
    classes: int
    queries: int
    over_classes: np.ndarray
    over_queries: np.ndarray


@dataclass(frozen=True)
class Found:
    """How well the segments of all classes are found.

    Attributes
    ----------
    question : Question
    classes : list of ClassFound
        By name.
    """

    question: Question
    classes: list[ClassFound]

    def means(self, metric):
        """A list of Means of all, known, and unknown classes; only groups with a class."""
        rows = []
        for group, wanted in GROUPS.items():
            asked = [row for row in self.classes if row.figures[metric] is not None]
            some = [row for row in asked if row.is_known in wanted]
            if some:
                figures = [row.figures[metric] for row in some]
                queries = [row.queries for row in some]
                mean = np.mean(figures, axis=0)
                weighted = np.average(figures, axis=0, weights=queries)
                rows.append(Means(group, len(some), sum(queries), mean, weighted))
        return rows

    def figures(self):
        """By metric a dict of floats.

        `map` and `map_weighted` of all, `map_known` and so on of known and unknown classes,
        `precision_at_<k>` and `recall_at_<k>` as means over all classes.
        """
        at_k = self.at_k("{}_at_{}")
        figures = {}
        for metric in self.question.metrics:
            own = figures[metric] = {}
            for means in self.means(metric):
                name = "map" if means.group == "all" else f"map_{means.group}"
                own[name] = float(means.over_classes[0])
                own[f"{name}_weighted"] = float(means.over_queries[0])
                if means.group == "all":
                    own |= dict(zip(at_k, means.over_classes[1:].tolist(), strict=True))
        return figures

    def average_precisions(self):
        """That of each class by metric and name; None: too few queries."""
        return {
            metric: {found.name: found.average_precision(metric) for found in self.classes}
            for metric in self.question.metrics
        }

    def at_k(self, form, words=("precision", "recall")):
        """Names of the figures after the first, such as "precision_at_1"."""
        return [form.format(word, k) for word in words for k in self.question.counts]


def evaluate(log, table, space, question, datasets, trained_on):
    """Judge the vectors of a table of embedded objects.

    Parameters
    ----------
    log : logging.Logger
    table : ObjectTable
    space : Space
    question : Question
    datasets : dict of str to DatasetConfig
        All that the table may have objects of.
    trained_on : DatasetConfig
        Names the classes that the network predicts.

    Returns
    -------
    found : Found
    """
    origin = ", ".join(sorted(set(table["dataset"])))
    if question.annotated and "annotated" not in table:
        raise SettingError(
            "args.annotated: the embeddings file has no column `annotated`; set it to False"
        )
    names, is_known = classes_of(log, table, datasets, trained_on)
    labelled = names != ""
    if not labelled.any():
        raise SettingError(f"no segment of {origin} in the embeddings file has a true class")
    vectors = vectors_of(log, table, space)[labelled]
    marked = table["annotated"][labelled] != 0 if question.annotated else None
    log.info("%d segments, %d of them without label", len(table), (~labelled).sum())
    found = judge(vectors, names[labelled], is_known[labelled], question, marked)
    if not found.means(question.metrics[0]):
        raise SettingError(
            f"no class has {question.min_query_count} segments of {origin} in the embeddings file: "
            "there is nothing to find"
        )
    return found


def classes_of(log, table, datasets, trained_on):
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
        predicted = class_ids.predicted_ids(entry, trained_on, log)
        of_dataset = origin == dataset
        for true_id in np.setdiff1d(true_ids[of_dataset], NO_LABEL).tolist():
            of_class = of_dataset & (true_ids == true_id)
            name = name_of.get(true_id, f"class {true_id}")
            names[of_class] = spelling.setdefault(name.casefold(), name)
            is_known[of_class] = true_id < len(predicted) and predicted[true_id] != NO_LABEL
    return names.astype(str), is_known


def vectors_of(log, table, space):
    """The vectors (N, D) whose distances are judged."""
    if space.method == "size":  # of the crop: what is known without looking at it
        left, upper, right, lower = table["box"].T
        return np.column_stack([lower - upper, right - left])
    if space.method != "stored":
        vectors = table["embeddings"]
        if space.method == "none":
            return vectors
        log.info("reducing %d vectors of %d values by %s", *vectors.shape, space.method)
        return embedding_space.reduce(vectors, space.method, space.dimensions, space.seed)
    advice = "run discover_embedding_space.py first, or choose another args.method"
    if "nn_embeddings" not in table:
        raise SettingError(f"the embeddings file has no neighbour space yet: {advice}")
    vectors = table["nn_embeddings"]
    lost = np.isnan(vectors).any(axis=1).sum()
    if lost:
        raise SettingError(f"{lost} segments have come since the space was made: {advice}")
    return vectors


def judge(vectors, names, is_known, question, annotated=None):
    """Average precision, precision and recall at k of each class.

    Parameters
    ----------
    vectors : ndarray of shape (N, D), float
    names, is_known : ndarray of shape (N,)
        See `classes_of`; every row has a label.
    question : Question
    annotated : ndarray of shape (N,), bool, optional
        Rows with False are neither queries nor to be found.

    Returns
    -------
    found : Found
    """
    class_names, classes = np.unique(names, return_inverse=True)
    asked = np.ones(len(classes), bool) if annotated is None else annotated
    sizes = np.bincount(classes[asked], minlength=len(class_names))
    queries = np.flatnonzero(asked & (sizes >= question.min_query_count)[classes])
    figures = [{} for _ in class_names]
    for metric in question.metrics:
        found = retrieval(vectors, classes, queries, metric, annotated, question.counts)
        values = np.column_stack([found.average_precision, found.precision, found.recall])
        for number, of_class in enumerate(figures):
            own = values[classes[queries] == number]
            of_class[metric] = own.mean(axis=0) if len(own) else None
    rows = [
        ClassFound(str(name), bool(is_known[classes == k].any()), int(sizes[k]), figures[k])
        for k, name in enumerate(class_names)
    ]
    return Found(question, rows)


# telling


def report(log, path, found):
    """Log both tables; write them as CSV and the average precisions as a picture."""
    metrics = found.question.metrics
    classes = sorted(found.classes, key=lambda row: (row.is_known, row.name.casefold()))
    found = replace(found, classes=classes)
    log.info("average precision\n%s", reports.text_table(
        ["class", "", "segments", *metrics],
        [[*_head(row), *(row.average_precision(metric) for metric in metrics)] for row in classes],
    ))  # fmt: skip
    left_out = sum(row.figures[metrics[0]] is None for row in classes)
    if left_out:
        log.info("%d classes have too few segments: nothing to find, no figure (-)", left_out)
    groups = [(metric, row) for metric in metrics for row in found.means(metric)]
    log.info("means over classes\n%s", reports.text_table(
        ["classes", "number", "queries", "distance", "mAP", "weighted", *found.at_k("{}@{}", "PR")],
        [
            [*_counts(row), metric, row.over_classes[0], row.over_queries[0], *row.over_classes[1:]]
            for metric, row in groups
        ],
    ))  # fmt: skip

    names = ["average precision", *found.at_k("{} at {}")]
    none = [None] * len(names)
    reports.write_csv(
        f"{path}.csv",
        ["class", "known", "segments", "distance", *names],
        [
            [*_head(row), metric, *(none if row.figures[metric] is None else row.figures[metric])]
            for metric in metrics
            for row in classes
        ],
    )
    reports.write_csv(
        f"{path}_means.csv",
        ["classes", "number", "queries", "distance", "mean over", *names],
        [
            [*_counts(row), metric, over, *figures]
            for metric, row in groups
            for over, figures in (("classes", row.over_classes), ("queries", row.over_queries))
        ],
    )
    reports.save_figure(path, draw_classes(found))
    log.info("wrote %s (.csv, _means.csv, .png, .pdf)", path)


def _head(row):
    return row.name, row.side, row.queries


def _counts(means):
    return means.group, means.classes, means.queries


def draw_classes(found):
    """The average precision of each class, best first, and the means as lines."""
    metrics = found.question.metrics
    shown = [row for row in found.classes if row.figures[metrics[0]] is not None]
    shown.sort(key=lambda row: row.average_precision(metrics[0]))
    figure = Figure(figsize=(8, 1.6 + 0.24 * len(shown)), layout="constrained")
    axes = figure.add_subplot(xlabel="average precision, mean over the queries", xlim=(0, 1))
    for place, row in enumerate(shown):
        colour = COLOURS[row.side]
        values = [row.average_precision(metric) for metric in metrics]
        axes.plot([0, max(values)], [place, place], color=colour, linewidth=0.8, alpha=0.5)
        for metric, value in zip(metrics, values, strict=True):
            face = colour if metric == metrics[0] else "white"
            axes.plot(value, place, MARKERS[metric], color=colour, markerfacecolor=face)
    for means in found.means(metrics[0]):
        if means.group != "all":
            mean = means.over_classes[0]
            label = f"{means.group}: {mean:.3f} by {metrics[0]}"
            axes.axvline(mean, color=COLOURS[means.group], linestyle="--", label=label)
    for metric in metrics:
        face = "grey" if metric == metrics[0] else "white"
        axes.plot([], [], MARKERS[metric], color="grey", markerfacecolor=face, label=metric)
    names = [f"{row.name} ({row.queries})" for row in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(-0.8, len(shown) - 0.2)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right", title="mean over classes, dashed")
    return figure
