"""How much of what is unknown do the pictures hold that are labelled first, and at what effort?"""

from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from src import class_ids
from src.embedding.budget import choose_pictures
from src.embedding.groups import find_groups
from src.embedding.space import MAX_PCA_COLUMNS, principal_columns
from src.embedding.table import only_datasets, read_table
from src.errors import SettingError
from src.evaluation.selection import count_objects
from src.records import NO_LABEL
from src.store import reports
from src.store.arrays import read_prediction

SEEDS = 5  # of the choice by chance
PARTS = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
FIGURES = "kinds", "objects", "pixels"  # shares of those that are unknown
AXES = "pictures", "effort"  # shares
COLOURS = "#d6336c", "#4c72b0", "#e69f00", "#6c757d"  # of the ways
BUDGETS = 0.1, 0.25, 0.5  # of the pictures, in the log


class Held(NamedTuple):
    """What a picture holds, by its ground truth."""

    objects: np.ndarray  # (256,) int64, by true id; those of the least size and more
    pixels: np.ndarray  # (256,) int64, by true id
    effort: int  # pixels on the borders between classes: outlines to draw


def judge(run, pictures, path, min_size, part="all", seed=0):
    """Choose pictures to label in several ways, and count what is labelled with them.

    Parameters
    ----------
    run, pictures, path, min_size
        See `selection.judge`.
    part : one of `PARTS`
        Of the pictures' indices, by which to choose and judge: all, or every second one.
    seed : int
        See `choose_pictures`, and of the first choice by chance.

    Returns
    -------
    curves : dict of str to ndarray of shape (R, P, 5), float
        By way R curves, after each of P pictures: shares of `AXES` and of `FIGURES`.
    tally : Tally
    """
    data, indices = pictures.data, pictures.indices("input")[PARTS[part]]
    if not class_ids.class_mapping(data, "label_mapping"):
        raise SettingError(f"{data.name!r} has no ground truth: there is nothing to count")
    table = only_datasets(path, read_table(path), [data.name])
    table = table.take(np.isin(table["image_index"], indices))
    held = {}
    tally = run.each(
        partial(look, results=pictures.results, min_size=min_size),
        indices, f"counting {data.name}", held.__setitem__,
    )  # fmt: skip
    held = {index: of for index, of in held.items() if of is not None}
    kinds = unknown_kinds(data, pictures.card.classes, run.log)
    if not len(table) or not any(of.objects[ids].any() for of in held.values() for ids in kinds):
        run.close(tally)
        raise SettingError(
            f"the {part} pictures of {data.name!r} have no object to choose by, or no unknown one "
            f"of {min_size[0]} x {min_size[1]} pixels in their ground truth"
        )
    orders = ways(table, list(held), seed)
    curves = {
        way: np.stack([curve([held[index] for index in order], kinds) for order in of_way])
        for way, of_way in orders.items()
    }
    return curves, tally


def unknown_kinds(data, known, log):
    """True ids of each class that is never predicted, those of one kind together: list of lists."""
    predicted, names = class_ids.predicted_ids(data, known, log), class_ids.class_names(data)
    ids = {}
    for key in np.flatnonzero(class_ids.are_classes(data) & (predicted == NO_LABEL)).tolist():
        ids.setdefault(names[key], []).append(key)
    return list(ids.values())


def look(index, results, min_size):
    """The Held of a picture; None without ground truth."""
    truth = read_prediction(results.prediction(index), probabilities=False).ground_truth
    if truth is None:
        return None
    objects = np.zeros(NO_LABEL + 1, np.int64)
    found = count_objects(truth, [], [], min_size)
    objects[found[:, 0]] = found[:, 1]
    pixels = np.bincount(truth.ravel(), minlength=NO_LABEL + 1)
    return Held(objects, pixels, border_length(truth))


def border_length(truth):
    """How many pixels have another class on their left or above: int."""
    is_border = np.zeros(truth.shape, bool)
    is_border[:, 1:] |= truth[:, 1:] != truth[:, :-1]
    is_border[1:] |= truth[1:] != truth[:-1]
    return int(is_border.sum())


def ways(table, indices, seed):
    """Orders in which to label the pictures with some indices: a dict of lists of lists.

    Pictures without an object in the table come last.
    """
    labels = find_groups(table["embeddings"], seed)
    choices = choose_pictures(table, labels, len(indices), seed)
    chosen = {
        "expected gain": [choice.row for choice in choices],
        "farthest first": farthest_first(table, seed),
        "most suspicious first": table.by_suspicion(np.arange(len(table))),
    }
    orders = {
        way: [list(dict.fromkeys([*table["image_index"][rows].tolist(), *indices]))]
        for way, rows in chosen.items()
    }
    rngs = [np.random.default_rng(seed + number) for number in range(SEEDS)]
    orders["at random"] = [rng.permutation(indices).tolist() for rng in rngs]
    return orders


def farthest_first(table, seed):
    """Rows, from the most suspicious on always that with most distance to those before x share.

    The share is that of the objects that are no more suspicious, as in `choose_pictures`; with a
    row all of its picture are taken.
    """
    points = principal_columns(table["embeddings"], MAX_PCA_COLUMNS, seed)
    order = table.by_suspicion(np.arange(len(table)))
    share = np.empty(len(table))
    share[order] = 1 - np.arange(len(table)) / len(table)
    picture, away = table["image_index"], np.full(len(table), np.inf)
    worth, rows = share, []
    while worth.max() >= 0:
        rows.append(int(np.argmax(worth)))
        for point in points[picture == picture[rows[-1]]]:
            away = np.minimum(away, np.linalg.norm(points - point, axis=1))
        worth = np.where(np.isin(picture, picture[rows]), -1, share * away)
    return rows


def curve(held, kinds):
    """Shares of `AXES` and of `FIGURES` after each of some pictures, in their order: (P, 5).

    `kinds` are the ids of each, see `unknown_kinds`.
    """
    objects = np.array([[of.objects[ids].sum() for ids in kinds] for of in held]).cumsum(axis=0)
    pixels = [sum(of.pixels[ids].sum() for ids in kinds) for of in held]
    columns = [
        np.arange(1, len(held) + 1),
        np.cumsum([of.effort for of in held]),
        (objects > 0).sum(axis=1),
        objects.sum(axis=1),
        np.cumsum(pixels),
    ]
    return np.stack(columns, axis=1) / [column[-1] for column in columns]


# telling


def at_budgets(curves):
    """Figures of some curves at `BUDGETS` of each of `AXES`: (R, 2, 3, 3), in between straight."""
    start = np.zeros((1, curves.shape[2]))
    return np.array(
        [
            [
                [np.interp(BUDGETS, of[:, axis], of[:, column]) for column in range(2, 5)]
                for axis in range(2)
            ]
            for of in (np.concatenate([start, curve]) for curve in curves)
        ]
    )


def report(log, path, curves, dataset):
    """Log the figures at some budgets; write the curves, and the picture that names the dataset."""
    header = [f"{figure} at {budget:.0%}" for figure in FIGURES for budget in BUDGETS]
    for number, axis in enumerate(AXES):
        rows = [
            [way, *at_budgets(of_way)[:, number].mean(axis=0).ravel().tolist()]
            for way, of_way in curves.items()
        ]
        log.info(
            "share of what is unknown, labelled with a part of all %s\n%s",
            axis, reports.text_table(["way", *header], rows),
        )  # fmt: skip
    rows = [
        [way, number, *values]
        for way, of_way in curves.items()
        for number, of_seed in enumerate(of_way)
        for values in of_seed.tolist()
    ]
    reports.write_csv(f"{path}.csv", ["way", "seed", *AXES, *FIGURES], rows)
    reports.save_figure(path, draw(curves, dataset))
    log.info("wrote %s (.csv, .png, .pdf)", path)


def draw(curves, dataset):
    """The figures over the pictures, and over the effort: mean and spread of each way."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(f"{reports.label(dataset)}: what of the unknown is labelled")
    axes = figure.subplots(len(AXES), len(FIGURES), sharex=True, sharey=True)
    places = np.linspace(0, 1, 201)
    for (row, column), ax in np.ndenumerate(axes):
        for (way, of_way), colour in zip(curves.items(), COLOURS, strict=True):
            values = [
                np.interp(places, [0, *of[:, row]], [0, *of[:, len(AXES) + column]])
                for of in of_way
            ]
            mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
            ax.plot(places, mean, color=colour, label=way)
            if len(values) > 1:
                ax.fill_between(
                    places, mean - spread, mean + spread, color=colour, alpha=0.25, linewidth=0
                )
        ax.set(xlim=(0, 1), ylim=(0, 1), title=f"{FIGURES[column]}")
        ax.set_xlabel(f"share of the {AXES[row]}")
        ax.grid(alpha=0.3)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
