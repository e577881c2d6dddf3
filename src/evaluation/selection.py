"""Which of the true objects do the crops of stage 4 show?"""

from collections import defaultdict
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from src import class_ids
from src.embedding import crops
from src.embedding.table import only_datasets, read_table
from src.errors import SettingError
from src.evaluation.pictures import total
from src.records import NO_LABEL
from src.store import reports
from src.store.arrays import read_prediction

EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are one object
COLOURS = "#d9d9d9", "#7fb3d5", "#1b4f72"  # of the counts
COUNTS = "objects", "covered", "shown"


class CropsOfImage(NamedTuple):
    """An image, and of its crops the boxes (left, upper, right, lower) and what they lie on."""

    index: int
    boxes: list
    ids: list  # the true id that most pixels of a crop's own segments have

    def __str__(self):
        return str(self.index)


class Shown(NamedTuple):
    """How many true objects of a class there are, and how many of them a crop shows."""

    name: str
    side: str  # "known" or "unknown" to the network
    objects: int
    covered: int  # by any crop
    shown: int  # by a crop whose own segments are mostly of that class


def judge(run, pictures, path, min_size):
    """Count the true objects of each class, and those that a crop shows.

    `path` is that of a table of the objects that stage 4 has embedded, those of the pictures'
    dataset among them; objects count from a height and width `min_size` in pixels on. Gives a list
    of Shown, only of classes with an object, unknown ones first, then the most frequent; and the
    Tally.
    """
    data, results = pictures.data, pictures.results
    if not class_ids.class_mapping(data, "label_mapping"):
        raise SettingError(f"{data.name!r} has no ground truth: there are no objects to count")
    table = only_datasets(path, read_table(path), [data.name])
    there, searched = len(results.indices("input")), searched_images(table, data.name)
    if searched not in (None, there):
        run.log.warning(
            "stage 4 searched %d of the %d images of %r: objects in the others count as not "
            "covered; run compute_embeddings.py again", searched, there, data.name,
        )  # fmt: skip
    boxes, ids = defaultdict(list), defaultdict(list)
    columns = (table[name].tolist() for name in ("image_index", "box", "true_id"))
    for index, box, true_id in zip(*columns, strict=True):
        boxes[index].append(box)
        ids[index].append(true_id)
    counts, tally = total(
        run,
        partial(count_image, results=results, min_size=min_size),
        [CropsOfImage(index, boxes[index], ids[index]) for index in pictures.indices("input")],
        f"counting {data.name}",
        f"no image of {data.name!r} has ground truth with an object of {min_size[0]} x "
        f"{min_size[1]} pixels",
    )
    predicted_ids = class_ids.predicted_ids(data, pictures.card.classes, run.log)
    return rows_by_class(counts, data, predicted_ids), tally


def searched_images(table, dataset):
    """How many images of a dataset stage 4 has searched; None: the table does not say."""
    made_from = table.facts.get("made_from") or {}
    return made_from.get("datasets", {}).get(dataset, {}).get("count")


def count_image(image, results, min_size):
    """By true id (256, 3) what `count_objects` finds in one image; zeros without ground truth."""
    counts = np.zeros((NO_LABEL + 1, 3), np.int64)
    truth = read_prediction(results.prediction(image.index), probabilities=False).ground_truth
    if truth is not None:
        found = count_objects(truth, image.boxes, image.ids, min_size)
        counts[found[:, 0]] = found[:, 1:]
    return counts


def count_objects(truth, boxes, ids, min_size):
    """How many objects of each class there are, and how many of them a box covers by half.

    An object is an 8-connected region of one true id in `truth` (H, W), 255 being none. It counts
    if the box around it has at least `min_size`, height and width in pixels. Each of the `boxes`
    (n, 4) is left, upper, right, lower in pixels, the last two exclusive; `ids` (n,) are those of
    what is in them.

    Returns
    -------
    counts : ndarray of shape (K, 4), int64
        Id; objects; those of which one box holds at least half of the pixels; those of which one
        of the same id does.
    """
    found = []
    for class_id in np.setdiff1d(truth, NO_LABEL).tolist():
        numbers, count = ndimage.label(truth == class_id, EIGHT)
        large = crops.are_large(crops.segment_boxes(numbers), len(truth), *min_size)
        pixels = np.bincount(numbers.ravel(), minlength=count + 1)
        # in the box with the most of them: of all boxes, and of those of the same id
        inside = np.zeros((2, count + 1), np.int64)
        for (left, upper, right, lower), own_id in zip(boxes, ids, strict=True):
            held = numbers[upper:lower, left:right]
            held = np.bincount(held.ravel(), minlength=count + 1)
            inside = np.maximum(inside, [held, held * (own_id == class_id)])
        covered, shown = (large & (2 * inside >= pixels)[:, 1:]).sum(axis=1)
        found.append((class_id, large.sum(), covered, shown))
    return np.array(found, np.int64).reshape(-1, 4)


def rows_by_class(counts, data, predicted_ids):
    """The counts (256, 3) by name, those of one kind (`kinds`) together; rows as from `judge`."""
    names = class_ids.class_names(data)
    sums = {}
    for key in np.flatnonzero(counts[:, 0]).tolist():
        name = names.get(key, f"class {key}")
        side = "unknown" if predicted_ids[key] == NO_LABEL else "known"
        sums[name, side] = sums.get((name, side), 0) + counts[key]
    rows = [Shown(*key, *value.tolist()) for key, value in sums.items()]
    return sorted(rows, key=lambda row: (row.side == "known", -row.objects, row.name))


def figures(rows):
    """`objects`, `covered` and `shown` ones, and the same with `_unknown`: a dict of numbers."""
    sums = totals(rows)
    return {
        name + suffix: count
        for suffix, side in (("", "all"), ("_unknown", "unknown"))
        for name, count in zip(COUNTS, sums[side], strict=True)
    }


def by_class(rows):
    """`objects`, `covered` and `shown` by name of the class: a dict of dicts."""
    return {what: {row.name: getattr(row, what) for row in rows} for what in COUNTS}


def totals(rows):
    """The `COUNTS` of "unknown", "known" and "all" classes: dict of str to list."""
    sides = {"unknown": ("unknown",), "known": ("known",), "all": ("known", "unknown")}
    chosen = {name: [row for row in rows if row.side in wanted] for name, wanted in sides.items()}
    return {
        name: [sum(getattr(row, what) for row in some) for what in COUNTS]
        for name, some in chosen.items()
    }


# telling


def report(log, path, rows, dataset):
    """Log the table; write it and the bars, which name the dataset."""
    sums = [Shown(name, "", *values) for name, values in totals(rows).items()]
    table = [
        (*row, *(count / row.objects if row.objects else None for count in row[3:]))
        for row in [*rows, *sums]
    ]
    header = ["class", "", *COUNTS, "share", "share_shown"]
    log.info(
        "objects that a crop covers by half: any, and one whose own segments are mostly of the "
        "class (shown)\n%s", reports.text_table(header, table),
    )  # fmt: skip
    header[1] = "known"
    reports.write_csv(f"{path}.csv", header, table[: len(rows)])
    reports.save_figure(path, draw_bars(rows, dataset))
    log.info("wrote %s (.csv, .png, .pdf)", path)


def draw_bars(rows, dataset):
    """A bar for each class: of its objects the covered, and of those the shown ones are darker."""
    sides = {side: [row for row in rows if row.side == side] for side in ("unknown", "known")}
    sides = {side: of_side for side, of_side in sides.items() if of_side}
    figure = Figure(figsize=(10, 1.6 + 0.7 * len(sides) + 0.26 * len(rows)), layout="constrained")
    figure.suptitle(f"{reports.label(dataset)}: true objects that a crop covers by half")
    heights = [len(of_side) + 1 for of_side in sides.values()]
    axes = figure.subplots(len(sides), squeeze=False, height_ratios=heights)[:, 0]
    for (side, of_side), ax in zip(sides.items(), axes, strict=True):
        places = range(len(of_side))
        for what, colour in zip(COUNTS, COLOURS, strict=True):
            ax.barh(places, [getattr(row, what) for row in of_side], color=colour, label=what)
        ax.set_yticks(places, [reports.label(row.name) for row in of_side])
        for place, row in enumerate(of_side):
            ax.text(row.objects, place, f" {_counts(row[2:])}", va="center", fontsize=8)
        ax.set_title(f"{side} classes, in all {_counts(totals(rows)[side])}")
        ax.margins(x=0.17)  # for the counts
        ax.set_ylim(len(of_side) - 0.4, -0.6)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_axisbelow(True)
        ax.grid(axis="x", alpha=0.3)
    ax.set_xlabel("objects")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        ["shown", "covered by a crop of another class", "not covered"],
        loc="outside lower center",
        ncols=3,
        title="shown / covered / objects",
    )
    return figure


def _counts(counts):
    return " / ".join(map(str, reversed(counts)))
