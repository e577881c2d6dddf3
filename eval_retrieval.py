"""Evaluation: how well neighbours in the embedding space find segments of the same class.

    python eval_retrieval.py
    python eval_retrieval.py with args.method=pca args.embedding_size=10

Needs stage 4, and stage 5 for its own space. Writes retrieval_<net>_<space>.csv (each class),
retrieval_<net>_<space>_means.csv, and the average precision of the classes (PNG, PDF) to
analysis/<model>/<datasets> below the results folder.
"""

import numpy as np
from matplotlib.figure import Figure

from configuration import CONFIG, models
from configuration import datasets as known_datasets
from src import class_ids, registry
from src.embedding import space as embedding_space
from src.errors import SettingError
from src.evaluation import metrics as evaluation
from src.records import NO_LABEL
from src.run.experiment import create_experiment
from src.run.settings import NAMES, list_of, one_of, setting, shared_settings
from src.store import cache, reports

METHODS = ("stored", *embedding_space.METHODS, "none", "size")
COLOURS = {"known": "#4c72b0", "unknown": "#c44e52"}
MARKERS = {"euclid": "o", "cos": "D"}

ex = create_experiment("eval_retrieval")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=setting(None, "datasets in the embeddings file to take", none="all", kind=NAMES),
        **shared_settings(CONFIG, "model_name", "net", "io_path", "min_height", "min_width"),
        method=setting("stored", "space, `none` as it is, `size` of the crop", choices=METHODS),
        embedding_size=setting(2, "dimensions that tsne, isomap or pca reduce to", at_least=1),
        metrics=setting(
            ["euclid", "cos"],
            "distances to compare",
            kind=list_of(one_of(*embedding_space.METRICS), at_least=1),
        ),
        counts=setting([1, 10, 100], "k of precision and recall at k", at_least=1),
        min_query_count=setting(2, "segments that a class must have", at_least=2),
        annotated=setting(False, "find only rows marked in the column `annotated`"),
        **shared_settings(CONFIG, "seed"),
    )


def evaluate_file(
    log, run, *, datasets, model_name, net, io_path, min_height, min_width, method, embedding_size,
    metrics, counts, min_query_count, annotated, seed,
):  # fmt: skip
    """Judge the embeddings of one file.

    Parameters
    ----------
    run : sacred.run.Run
        Its `info` gets the average precision of each class by metric, None: too few queries.

    Returns
    -------
    figures : dict of str to dict
        See `plain_figures`.
    """
    for name in datasets or ():
        registry.choose(known_datasets, name, "dataset")
    registry.choose(models, model_name, "model")
    data = known_datasets[datasets[0]] if datasets else CONFIG.DATASET
    size = registry.size_for(data, "min_segment_size", min_height, min_width)
    path = cache.embeddings_path(io_path, model_name, *size, net)
    if not path.is_file():
        raise SettingError(
            f"{path} is missing; run compute_embeddings.py with args.net={net} first"
        )
    table = cache.read_embeddings(path)
    datasets = datasets or sorted(set(table["dataset"]))
    chosen = rows_of(table, datasets)
    if annotated and "annotated" not in table:
        raise SettingError(f"args.annotated: {path} has no column `annotated`; set it to False")

    names, is_known = classes_of(log, table, chosen)
    labelled = names != ""
    if not labelled.any():
        raise SettingError(f"no segment of {', '.join(datasets)} in {path} has a true class")
    vectors = vectors_of(log, table, chosen, method, embedding_size, seed)[labelled]
    marked = np.asarray(table["annotated"])[chosen][labelled] != 0 if annotated else None
    log.info("%d segments, %d of them without label", len(chosen), (~labelled).sum())
    names, is_known = names[labelled], is_known[labelled]
    classes = judge(vectors, names, is_known, metrics, counts, min_query_count, marked)
    if not any(row[metrics[0]] is not None for row in classes):
        raise SettingError(
            f"no class has {min_query_count} segments in {path}: there is nothing to find"
        )
    folder = cache.analysis_folder(io_path, model_name, "+".join(datasets))
    space = f"{method}_{embedding_size}" if method in embedding_space.METHODS else method
    report(log, folder / f"retrieval_{net}_{space}", classes, metrics, counts)
    run.info["average precision"] = {
        metric: {row["name"]: _average_precision(row, metric) for row in classes}
        for metric in metrics
    }
    return plain_figures(classes, metrics, counts)


def rows_of(table, datasets):
    """Rows of the segments of some datasets, (N,) int64."""
    there = sorted(set(table["dataset"]))
    missing = sorted(set(datasets) - set(there))
    if missing:
        raise SettingError(
            f"`args.datasets`: the embeddings file has no segments of {', '.join(missing)}, only "
            f"of {', '.join(there) or 'nothing'}; run compute_embeddings.py with them first"
        )
    return np.flatnonzero(np.isin(table["dataset"], datasets)[table["image_level_index"]])


def classes_of(log, table, rows):
    """What the segments in some rows show.

    Returns
    -------
    names : ndarray of shape (N,), str
        Name of the true class, or of the kind that it is one of; classes of the same name in two
        datasets are one. "": no label.
    is_known : ndarray of shape (N,), bool
        Whether the network predicts the class.
    """
    images = table["image_level_index"][rows]
    origin, labels = np.asarray(table["dataset"])[images], table["gt"][rows]
    names, is_known = np.full(len(rows), "", object), np.zeros(len(rows), bool)
    spelling = {}
    for dataset in np.unique(origin).tolist():
        entry = registry.choose(known_datasets, dataset, "dataset")
        name_of = class_ids.class_names(entry)
        predicted = class_ids.predicted_ids(entry, CONFIG.TRAIN_DATASET, log)
        for label in np.setdiff1d(labels[origin == dataset], NO_LABEL).tolist():
            of_class = (origin == dataset) & (labels == label)
            name = name_of.get(label, f"class {label}")
            names[of_class] = spelling.setdefault(name.casefold(), name)
            is_known[of_class] = label < len(predicted) and predicted[label] != NO_LABEL
    return names.astype(str), is_known


def vectors_of(log, table, rows, method, embedding_size, seed):
    """The vectors (N, D) whose distances are judged."""
    if method == "size":  # of the crop: what is known without looking at it
        left, upper, right, lower = table["box"][rows].T
        return np.column_stack([lower - upper, right - left])
    if method != "stored":
        vectors = table["embeddings"][rows]
        if method == "none":
            return vectors
        log.info("reducing %d vectors of %d values by %s", *vectors.shape, method)
        return embedding_space.reduce(vectors, method, embedding_size, seed)
    advice = "run discover_embedding_space.py first, or choose another args.method"
    if "nn_embeddings" not in table:
        raise SettingError(f"the embeddings file has no neighbour space yet: {advice}")
    vectors = table["nn_embeddings"][rows]
    lost = np.isnan(vectors).any(axis=1).sum()
    if lost:
        raise SettingError(f"{lost} segments have come since the space was made: {advice}")
    return vectors


def judge(vectors, names, is_known, metrics, counts, min_query_count=2, annotated=None):
    """Average precision, precision and recall at k of each class.

    Parameters
    ----------
    vectors : ndarray of shape (N, D), float
    names : ndarray of shape (N,), str
        Class of each row.
    is_known : ndarray of shape (N,), bool
    metrics : sequence of {"euclid", "cos"}
    counts : sequence of int, length K
    min_query_count : int
        Classes with fewer rows (annotated ones) are not asked for.
    annotated : ndarray of shape (N,), bool, optional
        Rows with False are neither queries nor to be found.

    Returns
    -------
    classes : list of dict
        By name: `name`, `known`, `queries`, and for each metric means over the queries, float64
        (1 + 2 K,): average precision, precision at each k, recall at each k; see
        `evaluation.retrieval`. None where there are too few queries.
    """
    class_names, classes = np.unique(names, return_inverse=True)
    asked = np.ones(len(names), bool) if annotated is None else annotated
    sizes = np.bincount(classes[asked], minlength=len(class_names))
    queries = np.flatnonzero(asked & (sizes >= min_query_count)[classes])
    result = [
        {"name": str(name), "known": bool(is_known[classes == c].any()), "queries": int(sizes[c])}
        for c, name in enumerate(class_names)
    ]
    for metric in metrics:
        found = evaluation.retrieval(vectors, classes, queries, metric, annotated, counts)
        figures = np.column_stack([found.average_precision, found.precision, found.recall])
        for c, row in enumerate(result):
            own = figures[classes[queries] == c]
            row[metric] = own.mean(axis=0) if len(own) else None
    return result


def means(classes, metric):
    """Means over the classes and, weighted, over their queries, of all, known, unknown classes.

    Returns
    -------
    rows : list of (str, int, int, ndarray, ndarray)
        Which classes, their number, that of their queries, and both means of the figures that
        `judge` gives. Only groups with a class.
    """
    rows = []
    for group, wanted in (("all", (True, False)), ("known", (True,)), ("unknown", (False,))):
        some = [row for row in classes if row["known"] in wanted and row[metric] is not None]
        if some:
            figures, queries = [row[metric] for row in some], [row["queries"] for row in some]
            weighted = np.average(figures, axis=0, weights=queries)
            rows.append((group, len(some), sum(queries), np.mean(figures, axis=0), weighted))
    return rows


def plain_figures(classes, metrics, counts):
    """The figures as plain numbers.

    Returns
    -------
    figures : dict of str to dict
        By metric: `map` and `map_weighted` of all, `map_known` and so on of known and unknown
        classes, `precision_at_<k>` and `recall_at_<k>` as means over all classes.
    """
    at_k = [f"{what}_at_{k}" for what in ("precision", "recall") for k in counts]
    figures = {}
    for metric in metrics:
        own = figures[metric] = {}
        for group, _, _, mean, weighted in means(classes, metric):
            name = "map" if group == "all" else f"map_{group}"
            own |= {name: float(mean[0]), f"{name}_weighted": float(weighted[0])}
            if group == "all":
                own |= dict(zip(at_k, mean[1:].tolist(), strict=True))
    return figures


def report(log, path, classes, metrics, counts):
    """Log both tables; write them as CSV and the average precisions as a picture."""
    classes = sorted(classes, key=lambda row: (row["known"], row["name"].casefold()))
    log.info("average precision\n%s", reports.text_table(
        ["class", "", "segments", *metrics],
        [
            [*_head(row), *(_average_precision(row, metric) for metric in metrics)]
            for row in classes
        ],
    ))  # fmt: skip
    left_out = sum(row[metrics[0]] is None for row in classes)
    if left_out:
        log.info("%d classes have too few segments: nothing to find, no figure (-)", left_out)
    columns = [f"P@{k}" for k in counts] + [f"R@{k}" for k in counts]
    groups = [(metric, *row) for metric in metrics for row in means(classes, metric)]
    log.info("means over classes\n%s", reports.text_table(
        ["classes", "number", "queries", "distance", "mAP", "weighted", *columns],
        [[g, n, q, m, *(mean[0], weighted[0], *mean[1:])] for m, g, n, q, mean, weighted in groups],
    ))  # fmt: skip

    at_k = [f"{what} at {k}" for what in ("precision", "recall") for k in counts]
    header = ["class", "known", "segments", "distance", "average precision", *at_k]
    empty = [None] * (1 + len(at_k))
    reports.write_csv(
        f"{path}.csv", header,
        [[*_head(r), m, *(empty if r[m] is None else r[m])] for m in metrics for r in classes],
    )  # fmt: skip
    header = ["classes", "number", "queries", "distance", "mean over", "average precision", *at_k]
    reports.write_csv(
        f"{path}_means.csv", header,
        [
            [g, n, q, m, over, *figures]
            for m, g, n, q, mean, weighted in groups
            for over, figures in (("classes", mean), ("queries", weighted))
        ],
    )  # fmt: skip
    reports.save_figure(path, draw_classes(classes, metrics))
    log.info("wrote %s (.csv, _means.csv, .png, .pdf)", path)


def _average_precision(row, metric):
    return None if row[metric] is None else float(row[metric][0])


def _head(row):
    return row["name"], "known" if row["known"] else "unknown", row["queries"]


def draw_classes(classes, metrics):
    """The average precision of each class, best first, and the means as lines."""
    shown = [row for row in classes if row[metrics[0]] is not None]
    shown.sort(key=lambda row: row[metrics[0]][0])
    figure = Figure(figsize=(8, 1.6 + 0.24 * len(shown)), layout="constrained")
    axes = figure.add_subplot(xlabel="average precision, mean over the queries", xlim=(0, 1))
    for place, row in enumerate(shown):
        colour = COLOURS["known" if row["known"] else "unknown"]
        values = [row[metric][0] for metric in metrics]
        axes.plot([0, max(values)], [place, place], color=colour, linewidth=0.8, alpha=0.5)
        for metric, value in zip(metrics, values, strict=True):
            face = colour if metric == metrics[0] else "white"
            axes.plot(value, place, MARKERS[metric], color=colour, markerfacecolor=face)
    for group, _, _, mean, _ in means(classes, metrics[0]):
        if group != "all":
            label = f"{group}: {mean[0]:.3f} by {metrics[0]}"
            axes.axvline(mean[0], color=COLOURS[group], linestyle="--", label=label)
    for metric in metrics:
        face = "grey" if metric == metrics[0] else "white"
        axes.plot([], [], MARKERS[metric], color="grey", markerfacecolor=face, label=metric)
    names = [f"{row['name']} ({row['queries']})" for row in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(-0.8, len(shown) - 0.2)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right", title="mean over classes, dashed")
    return figure


@ex.automain
def main(args, _log, _run):
    return evaluate_file(_log, _run, **args)
