"""How well neighbours in the embedding space find segments of the same class."""

from dataclasses import dataclass

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
COLOURS = {"known": "#4c72b0", "unknown": "#c44e52"}
MARKERS = {"euclid": "o", "cos": "D"}


@dataclass(frozen=True)
class Space:
    """Where neighbours are looked for."""

    # one of `METHODS`: the space that stage 5 has stored, the vectors as they are ("none"), the
    # size of the crop, or how to reduce the vectors
    method: str = "stored"
    dimensions: int = 2  # that a reduction leaves
    seed: int = 0

    def __str__(self):
        is_reduced = self.method in embedding_space.METHODS
        return f"{self.method}_{self.dimensions}" if is_reduced else self.method


@dataclass(frozen=True)
class Question:
    """What is asked of every class."""

    metrics: tuple = ("euclid", "cos")  # distances to compare
    counts: tuple = (1, 10, 100)  # K times k, of precision and recall among the k nearest
    min_query_count: int = 2  # a class with fewer segments (annotated ones) is not asked for
    # only rows that are marked in the table's column `annotated` are asked for, and to be found
    annotated: bool = False

    def at_k(self, form, words=("precision", "recall")):
        """Names of the figures after the first, such as "precision_at_1"."""
        return [form.format(word, k) for word in words for k in self.counts]


@dataclass(frozen=True)
class Found:
    """How well the segments of C classes are found: unknown classes first, each by name."""

    question: Question
    names: np.ndarray  # (C,) str
    sides: np.ndarray  # (C,) str: "known" or "unknown" to the network
    queries: np.ndarray  # (C,) int64: segments that may be asked for
    # (C, 1 + 2 K) float64 by metric: means over the queries of each class of what
    # `ranking.retrieval` gives; NaN: there are too few queries
    figures: dict[str, np.ndarray]

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

    def means(self, metric, mask):
        """Means (1 + 2 K,) of the figures over the classes of a mask, and over their queries."""
        figures = self.figures[metric][mask]
        return figures.mean(axis=0), np.average(figures, axis=0, weights=self.queries[mask])

    def merits(self):
        """By metric a dict of floats.

        `map` and `map_weighted` of all, `map_known` and so on of known and unknown classes,
        `precision_at_<k>` and `recall_at_<k>` as means over all classes.
        """
        merits = {metric: {} for metric in self.question.metrics}
        for metric, own in merits.items():
            for group, mask in self.groups().items():
                over_classes, over_queries = self.means(metric, mask)
                name = "map" if group == "all" else f"map_{group}"
                own[name], own[f"{name}_weighted"] = float(over_classes[0]), float(over_queries[0])
                if group == "all":
                    at_k = self.question.at_k("{}_at_{}")
                    own |= dict(zip(at_k, over_classes[1:].tolist(), strict=True))
        return merits

    def average_precisions(self):
        """That of each class by metric and name; None: too few queries."""
        return {
            metric: dict(zip(self.names.tolist(), reports.plain(figures[:, 0]), strict=True))
            for metric, figures in self.figures.items()
        }


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
    vectors = vectors_of(log, table, space)[labelled]
    marked = table["annotated"][labelled] != 0 if question.annotated else None
    log.info("%d segments, %d of them without label", len(table), (~labelled).sum())
    found = judge(vectors, names[labelled], is_known[labelled], question, marked)
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
    """Average precision, precision and recall at k of each class: a Found.

    `vectors` (N, D) are those of rows with a label, see `classes_of`; rows where `annotated` (N,)
    is False are neither queries nor to be found.
    """
    class_names, classes = np.unique(names, return_inverse=True)
    asked = np.ones(len(classes), bool) if annotated is None else annotated
    sizes = np.bincount(classes[asked], minlength=len(class_names))
    queries = np.flatnonzero(asked & (sizes >= question.min_query_count)[classes])
    known = np.bincount(classes, is_known) > 0
    order = sorted(range(len(sizes)), key=lambda k: (known[k], class_names[k].casefold()))
    figures = {}
    for metric in question.metrics:
        found = retrieval(vectors, classes, queries, metric, annotated, question.counts)
        of_class = np.full((len(sizes), found.shape[1]), np.nan)
        for k in np.unique(classes[queries]):
            of_class[k] = found[classes[queries] == k].mean(axis=0)
        figures[metric] = of_class[order]
    sides = np.where(known, "known", "unknown")
    return Found(question, class_names[order], sides[order], sizes[order], figures)


# telling


def report(log, path, found):
    """Log both tables; write them as CSV and the average precisions as a picture."""
    metrics, at_k, heads = found.question.metrics, found.question.at_k, found.heads()
    figures = {metric: reports.plain(values) for metric, values in found.figures.items()}
    log.info("average precision\n%s", reports.text_table(
        ["class", "", "segments", *metrics],
        [[*head, *(figures[metric][k][0] for metric in metrics)] for k, head in enumerate(heads)],
    ))  # fmt: skip
    left_out = np.count_nonzero(~found.is_asked())
    if left_out:
        log.info("%d classes have too few segments: nothing to find, no figure (-)", left_out)
    means = [
        ([group, mask.sum(), found.queries[mask].sum(), metric], *found.means(metric, mask))
        for metric in metrics
        for group, mask in found.groups().items()
    ]
    log.info("means over classes\n%s", reports.text_table(
        ["classes", "number", "queries", "distance", "mAP", "weighted", *at_k("{}@{}", "PR")],
        [[*head, over[0], weighted[0], *over[1:]] for head, over, weighted in means],
    ))  # fmt: skip

    names = ["average precision", *at_k("{} at {}")]
    reports.write_csv(
        f"{path}.csv",
        ["class", "known", "segments", "distance", *names],
        [
            [*head, metric, *of_class]
            for metric in metrics
            for head, of_class in zip(heads, figures[metric], strict=True)
        ],
    )
    reports.write_csv(
        f"{path}_means.csv",
        ["classes", "number", "queries", "distance", "mean over", *names],
        [
            [*head, over, *mean]
            for head, *both in means
            for over, mean in zip(("classes", "queries"), both, strict=True)
        ],
    )
    reports.save_figure(path, draw_classes(found))
    log.info("wrote %s (.csv, _means.csv, .png, .pdf)", path)


def draw_classes(found):
    """The average precision of each class, best first, and the means as lines."""
    metrics = found.question.metrics
    average_precision = {metric: found.figures[metric][:, 0] for metric in metrics}
    in_order = np.argsort(average_precision[metrics[0]], kind="stable")  # NaN comes last
    shown = in_order[: np.count_nonzero(found.is_asked())]
    heads = [found.heads()[k] for k in shown]
    figure = Figure(figsize=(8, 1.6 + 0.24 * len(shown)), layout="constrained")
    axes = figure.add_subplot(xlabel="average precision, mean over the queries", xlim=(0, 1))
    for place, (k, (_, side, _)) in enumerate(zip(shown, heads, strict=True)):
        colour = COLOURS[side]
        values = [average_precision[metric][k] for metric in metrics]
        axes.plot([0, max(values)], [place, place], color=colour, linewidth=0.8, alpha=0.5)
        for metric, value in zip(metrics, values, strict=True):
            face = colour if metric == metrics[0] else "white"
            axes.plot(value, place, MARKERS[metric], color=colour, markerfacecolor=face)
    for group, mask in found.groups().items():
        if group != "all":
            mean = found.means(metrics[0], mask)[0][0]
            label = f"{group}: {mean:.3f} by {metrics[0]}"
            axes.axvline(mean, color=COLOURS[group], linestyle="--", label=label)
    for metric in metrics:
        face = "grey" if metric == metrics[0] else "white"
        axes.plot([], [], MARKERS[metric], color="grey", markerfacecolor=face, label=metric)
    axes.set_yticks(range(len(shown)), [f"{name} ({count})" for name, _, count in heads])
    axes.set_ylim(-0.8, len(shown) - 0.2)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right", title="mean over classes, dashed")
    return figure
