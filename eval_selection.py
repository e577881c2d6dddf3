"""Evaluation: which of the true objects do the crops of stage 4 show?

    python eval_selection.py with args.dataset=streets_ood

Needs ground truth and stage 4. Writes selection_<net>.csv and pie charts (PNG, PDF) to
analysis/<model>/<dataset> below the results folder.
"""

import functools

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from configuration import CONFIG, datasets, models
from src import class_ids, registry
from src.embedding import crops
from src.errors import SettingError
from src.records import NO_LABEL
from src.run import parallel
from src.run.experiment import create_experiment
from src.run.settings import setting, shared_settings
from src.store import cache, reports

EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are one object
COLOURS = matplotlib.color_sequences["tab20"]
SMALLEST_SLICE = 0.03  # of a pie; smaller ones are one slice together

ex = create_experiment("eval_selection")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets`; needs ground truth"),
        **shared_settings(CONFIG, "model_name", "net", "io_path", "min_height", "min_width"),
        **shared_settings(CONFIG, "num_images", "num_cores"),
    )


def evaluate(
    log, run, *, dataset, model_name, net, io_path, min_height, min_width, num_cores, num_images
):
    """Count the true objects of each class, and those that a crop shows.

    Parameters
    ----------
    run : sacred.run.Run
        Its `info` gets both counts of each class.

    Returns
    -------
    figures : dict of str to number
        `objects`, `covered`, and the same of unknown classes: `objects_unknown`,
        `covered_unknown`.
    """
    data = registry.choose(datasets, dataset, "dataset")
    registry.choose(models, model_name, "model")
    if not class_ids.class_mapping(data, "label_mapping"):
        raise SettingError(f"{dataset!r} has no ground truth: there are no objects to count")
    min_size = registry.size_for(data, "min_segment_size", min_height, min_width)
    path = cache.embeddings_path(io_path, model_name, *min_size, net)
    boxes, searched = boxes_of_images(path, dataset)
    indices = cache.image_indices(
        cache.prediction_path(io_path, model_name, dataset, 0).parent, "input"
    )
    if searched not in (None, len(indices)):
        log.warning(
            "stage 4 searched %d of the %d images of %r: objects in the others count as not "
            "covered; run compute_embeddings.py again", searched, len(indices), dataset,
        )  # fmt: skip
    count = functools.partial(count_image, place=(io_path, model_name, dataset), min_size=min_size)
    counts = np.zeros((NO_LABEL + 1, 2), np.int64)

    def produce(todo):
        images = [(index, boxes.get(index, ())) for index in todo]
        for (index, _), result in parallel.results(count, images, num_cores):
            yield index, result

    def add(_index, of_image):
        np.add.at(counts, of_image[:, 0], of_image[:, 1:])

    tally = parallel.for_each_result(
        produce,
        add,
        indices[:num_images],
        num_cores=1,
        description=f"counting {dataset}",
        log=log,
    )
    if not counts.any():
        parallel.close(log, tally)
        raise SettingError(
            f"no image of {dataset!r} has ground truth with an object of {min_size[0]} x "
            f"{min_size[1]} pixels"
        )
    rows = rows_by_class(counts, data, class_ids.predicted_ids(data, CONFIG.TRAIN_DATASET, log))
    report(log, cache.analysis_folder(io_path, model_name, dataset) / f"selection_{net}", rows)
    parallel.close(log, tally)
    for number, what in ((2, "objects"), (3, "covered")):
        run.info[what] = {row[0]: row[number] for row in rows}
    sums = totals(rows)
    return {
        "objects": sums["all"][0],
        "covered": sums["all"][1],
        "objects_unknown": sums["unknown"][0],
        "covered_unknown": sums["unknown"][1],
    }


def boxes_of_images(path, dataset):
    """What stage 4 found in a dataset.

    Returns
    -------
    boxes : dict of int to ndarray of shape (n, 4), int64
        Boxes of the crops of each image that has any, by its index.
    searched : int or None
        How many images it searched; None: the file does not say.
    """
    if not path.is_file():
        raise SettingError(f"{path} is missing; run compute_embeddings.py for {dataset!r} first")
    table = cache.read_embeddings(path)
    if dataset not in table["dataset"]:
        there = ", ".join(sorted(set(table["dataset"]))) or "nothing"
        raise SettingError(
            f"{path} has no segments of {dataset!r}, only of {there}; run compute_embeddings.py "
            "with it first"
        )
    searched = (table["made_from"] or {}).get("datasets", {}).get(dataset, {}).get("count")
    boxes = {
        int(table["image_index"][image]): table["box"][table["image_level_index"] == image]
        for image, name in enumerate(table["dataset"])
        if name == dataset
    }
    return boxes, searched


def count_image(task, *, place, min_size):
    """Count the objects of one image; see `count_objects`.

    Parameters
    ----------
    task : tuple of (int, ndarray)
        Index of the image, and the boxes (n, 4) of its crops.
    place : tuple
        The first arguments of `cache.prediction_path`.
    min_size : (int, int)
    """
    index, boxes = task
    path = cache.prediction_path(*place, index)
    truth = cache.read_prediction(path, probabilities=False).ground_truth
    if truth is None:
        return np.zeros((0, 3), np.int64)
    return count_objects(truth, boxes, min_size)


def count_objects(truth, boxes, min_size):
    """How many objects of each class there are, and how many of them a box covers by half.

    Parameters
    ----------
    truth : ndarray of shape (H, W), int
        True ids; 255: no label. An object is an 8-connected region of one id.
    boxes : array-like of shape (n, 4), int
        Left, upper, right, lower in pixels; right and lower exclusive.
    min_size : (int, int)
        Height and width in pixels that the box around an object must have for it to count.

    Returns
    -------
    counts : ndarray of shape (K, 3), int64
        Id, objects, and those of which one box holds at least half of the pixels.
    """
    found = []
    for class_id in np.setdiff1d(truth, NO_LABEL).tolist():
        numbers, count = ndimage.label(truth == class_id, EIGHT)
        left, upper, right, lower = crops.segment_boxes(numbers).T
        large = (lower - upper >= min_size[0]) & (right - left >= min_size[1])
        inside = np.zeros(count + 1, np.int64)  # pixels in the box with the most of them
        for a, b, c, d in np.asarray(boxes).tolist():
            held = np.bincount(numbers[b:d, a:c].ravel(), minlength=count + 1)
            inside = np.maximum(inside, held)
        covered = 2 * inside >= np.bincount(numbers.ravel(), minlength=count + 1)
        found.append((class_id, large.sum(), (large & covered[1:]).sum()))
    return np.array(found, np.int64).reshape(-1, 3)


def rows_by_class(counts, data, predicted_ids):
    """The counts by name.

    Parameters
    ----------
    counts : ndarray of shape (256, 2), int64
        Objects and covered ones by true id.
    data : DatasetConfig
        Classes of one kind (`kinds`) are counted together.
    predicted_ids : ndarray of shape (256,)
        See `class_ids.predicted_ids`.

    Returns
    -------
    rows : list of (str, str, int, int)
        Name, "known" or "unknown", objects and covered ones; unknown classes first, then the most
        frequent. Only classes with an object.
    """
    names = class_ids.class_names(data)
    sums = {}
    for key in np.flatnonzero(counts[:, 0]).tolist():
        name = names.get(key, f"class {key}")
        side = "unknown" if predicted_ids[key] == NO_LABEL else "known"
        sums[name, side] = sums.get((name, side), 0) + counts[key]
    rows = [(*key, *value.tolist()) for key, value in sums.items()]
    return sorted(rows, key=lambda row: (row[1] == "known", -row[2], row[0]))


def totals(rows):
    """Objects and covered ones of "unknown", "known" and "all" classes: dict of str to list."""
    sides = {"unknown": ("unknown",), "known": ("known",), "all": ("known", "unknown")}
    return {
        name: [sum(row[column] for row in rows if row[1] in wanted) for column in (2, 3)]
        for name, wanted in sides.items()
    }


def report(log, path, rows):
    """Log the table; write it and the pie charts."""
    sums = [(name, "", *values) for name, values in totals(rows).items()]
    table = [(*row, row[3] / row[2] if row[2] else None) for row in [*rows, *sums]]
    header = ["class", "", "objects", "covered", "share"]
    log.info("objects that a crop covers by half\n%s", reports.text_table(header, table))
    header[1] = "known"
    reports.write_csv(f"{path}.csv", header, table[: len(rows)])
    reports.save_figure(path, draw_pies(rows))
    log.info("wrote %s (.csv, .png, .pdf)", path)


def draw_pies(rows):
    """A row of pies for unknown and for known classes: objects, and covered ones."""
    sides = [side for side in ("unknown", "known") if any(row[1] == side for row in rows)]
    figure = Figure(figsize=(13, 5.5 * len(sides)), layout="constrained")
    axes = figure.subplots(len(sides), 2, squeeze=False)
    for side, pair in zip(sides, axes, strict=True):
        slices = grouped([row for row in rows if row[1] == side])
        colours = {name: COLOURS[k % len(COLOURS)] for k, (name, *_) in enumerate(slices)}
        for column, (what, pie) in enumerate(zip(("objects", "covered"), pair, strict=True), 1):
            shown = [(row[0], row[column]) for row in slices if row[column]]
            pie.axis("off")
            if shown:
                pie.pie(
                    [value for _, value in shown],
                    labels=[f"{name} ({value})" for name, value in shown],
                    colors=[colours[name] for name, _ in shown],
                    startangle=90,
                    counterclock=False,
                    wedgeprops={"edgecolor": "white"},
                )
            pie.set_title(f"{sum(value for _, value in shown)} {what} of {side} classes")
    return figure


def grouped(rows):
    """(name, objects, covered) of each class; those of few objects together, at the end."""
    few = [row for row in rows if row[2] < SMALLEST_SLICE * sum(row[2] for row in rows)]
    slices = [(row[0], row[2], row[3]) for row in rows if row not in few]
    if few:
        slices.append((f"{len(few)} others", sum(r[2] for r in few), sum(r[3] for r in few)))
    return slices


@ex.automain
def main(args, _log, _run):
    return evaluate(_log, _run, **args)
