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
from src.records import NO_LABEL, ImageName
from src.store import reports
from src.store.arrays import read_prediction

SEEDS = 5  # of the choice by chance
PARTS = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
FIGURES = "kinds", "objects", "pixels"  # shares of those that are unknown
AXES = "pictures", "effort"  # shares
COLOURS = "#d6336c", "#e69f00", "#4c72b0", "#6c757d"  # of the ways
BUDGETS = 0.1, 0.25, 0.5  # of the pictures, in the log


class Held(NamedTuple):
    """What a picture holds, by its ground truth."""

    objects: np.ndarray  # (K,) int64, of each unknown kind; those of the least size and more
    pixels: int  # of all unknown kinds
    effort: int  # pixels on the borders between classes: outlines to draw


def judge(run, pictures, path, min_size, part="all", seed=0):
    """Choose pictures to label in several ways, and count what is labelled with them.

    Parameters
    ----------
    run : Runner
    pictures : list of Pictures
        Of datasets with ground truth whose objects are in the table.
    path, min_size
        See `selection.judge`.
    part : one of `PARTS`
        Of the pictures of each dataset, by which to choose and judge: all, or every second one.
    seed : int
        See `choose_pictures`, and of the first choice by chance.

    Returns
    -------
    curves : dict of str to ndarray of shape (R, P, 5), float
        By way R curves, after each of P pictures: shares of `AXES` and of `FIGURES`.
    tally : Tally
    """
    table = only_datasets(path, read_table(path), [of.name for of in pictures])
    kinds = unknown_kinds(pictures, run.log)
    results = {of.name: of.results for of in pictures}
    names = [
        ImageName(of.name, index) for of in pictures for index in of.indices("input")[PARTS[part]]
    ]
    held = {}
    tally = run.each(
        partial(look, results=results, kinds=kinds, min_size=min_size),
        names, "counting unknown objects", held.__setitem__,
    )  # fmt: skip
    held = {name: of for name, of in held.items() if of is not None}
    table = table.take([name in held for name in table.image_names()])
    if not len(table) or not any(of.objects.any() for of in held.values()):
        run.close(tally)
        raise SettingError(
            f"there is nothing to choose: {len(table)} objects of stage 4, and in the ground truth "
            f"none of an unknown class with {min_size[0]} x {min_size[1]} pixels"
        )
    return {
        way: np.stack([curve([held[name] for name in order]) for order in orders])
        for way, orders in ways(table, list(held), seed).items()
    }, tally


def unknown_kinds(pictures, log):
    """By dataset the true ids of each of K unknown kinds, a list of lists; K and order are one."""
    ids = {}
    for of in pictures:
        predicted = class_ids.predicted_ids(of.data, of.card.classes, log)
        is_unknown = class_ids.are_classes(of.data) & (predicted == NO_LABEL)
        for key in np.flatnonzero(is_unknown).tolist():
            kind = ids.setdefault(class_ids.class_names(of.data)[key], {})
            kind.setdefault(of.name, []).append(key)
    return {of.name: [kind.get(of.name, []) for kind in ids.values()] for of in pictures}


def look(name, results, kinds, min_size):
    """The Held of a picture; None without ground truth."""
    stored = results[name.dataset].prediction(name.index)
    truth = read_prediction(stored, probabilities=False).ground_truth
    if truth is None:
        return None
    objects, pixels = np.zeros((2, NO_LABEL + 1), np.int64)
    found = count_objects(truth, [], [], min_size)
    objects[found[:, 0]] = found[:, 1]
    pixels += np.bincount(truth.ravel(), minlength=NO_LABEL + 1)
    of_kinds = np.array([objects[ids].sum() for ids in kinds[name.dataset]], np.int64)
    unknown = sum(pixels[ids].sum() for ids in kinds[name.dataset])
    return Held(of_kinds, int(unknown), border_length(truth))


def border_length(truth):
    """How many pixels have another class on their left or above: int."""
    is_border = np.zeros(truth.shape, bool)
    is_border[:, 1:] |= truth[:, 1:] != truth[:, :-1]
    is_border[1:] |= truth[1:] != truth[:-1]
    return int(is_border.sum())


def ways(table, names, seed):
    """Orders in which to label the pictures with some names: a dict of lists of lists.

    Pictures without an object in the table come last.
    """
    labels = find_groups(table["embeddings"], seed)
    choices = choose_pictures(table, labels, len(names), seed)
    chosen = {
        "expected gain": [choice.row for choice in choices],
        "most suspicious first": table.by_suspicion(np.arange(len(table))),
        "farthest first": farthest_first(table, seed),
    }
    of_rows = table.image_names()
    orders = {
        way: [list(dict.fromkeys([*(of_rows[row] for row in rows), *names]))]
        for way, rows in chosen.items()
    }
    rngs = [np.random.default_rng(seed + number) for number in range(SEEDS)]
    orders["at random"] = [[names[at] for at in rng.permutation(len(names))] for rng in rngs]
    return orders


def farthest_first(table, seed):
    """Rows: always that with the largest product of distance to those before and share.

    The share is that of the objects that are no more suspicious; the first row is the most
    suspicious. With a row all of its picture are taken.
    """
    points = principal_columns(table["embeddings"], MAX_PCA_COLUMNS, seed)
    share = np.empty(len(table))
    share[table.by_suspicion(np.arange(len(table)))] = 1 - np.arange(len(table)) / len(table)
    picture = np.unique([str(name) for name in table.image_names()], return_inverse=True)[1]
    away, worth, rows = np.full(len(table), np.inf), share, []
    while worth.max() >= 0:
        rows.append(int(np.argmax(worth)))
        for point in points[picture == picture[rows[-1]]]:
            away = np.minimum(away, np.linalg.norm(points - point, axis=1))
        worth = np.where(np.isin(picture, picture[rows]), -1, share * away)
    return rows


def curve(held):
    """Shares of `AXES` and of `FIGURES` after each of some pictures, in their order: (P, 5)."""
    objects = np.cumsum([of.objects for of in held], axis=0)
    columns = [
        np.arange(1, len(held) + 1),
        np.cumsum([of.effort for of in held]),
        (objects > 0).sum(axis=1),
        objects.sum(axis=1),
        np.cumsum([of.pixels for of in held]),
    ]
    return np.stack(columns, axis=1) / [max(column[-1], 1) for column in columns]


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


def report(log, path, curves, names):
    """Log the figures at some budgets; write the curves, and a picture called after `names`."""
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
    reports.save_figure(path, draw(curves, names))
    log.info("wrote %s (.csv, .png, .pdf)", path)


def draw(curves, names):
    """The figures over the pictures, and over the effort: mean and spread of each way."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(f"{reports.label(names)}: what is labelled first")
    axes = figure.subplots(len(AXES), len(FIGURES), sharex=True, sharey=True)
    places = np.linspace(0, 1, 201)
    for (row, column), ax in np.ndenumerate(axes):
        for (way, of_way), colour in zip(curves.items(), COLOURS, strict=True):
            values = [
                np.interp(places, [0, *of[:, row]], [0, *of[:, len(AXES) + column]])
                for of in of_way
            ]
            mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
            label = f"{way}, mean and spread of {len(values)}" if len(values) > 1 else way
            ax.plot(places, mean, color=colour, label=label)
            if len(values) > 1:
                ax.fill_between(
                    places, mean - spread, mean + spread, color=colour, alpha=0.25, linewidth=0
                )
        ax.set(xlim=(0, 1), ylim=(0, 1), title=f"unknown {FIGURES[column]}")
        ax.set_xlabel(f"share of all {AXES[row]}")
        ax.grid(alpha=0.3)
    for ax in axes[:, 0]:
        ax.set_ylabel("share that is labelled")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
