"""Evaluation: how good the segmentation is where its predicted IoU is low, and where it is high.

    python eval_iou.py with args.dataset=streets_val

Needs stages 1 and 2, the meta model and ground truth. Writes iou_by_predicted_iou.csv and the
curves (PNG, PDF) to analysis/<model>/<dataset> below the results folder.
"""

import functools

import numpy as np
from matplotlib.figure import Figure

from configuration import CONFIG, datasets, meta_models, models
from src import class_ids, registry
from src.errors import SettingError
from src.evaluation import metrics as evaluation
from src.MetaSeg import meta_models as meta
from src.MetaSeg import stage as measuring
from src.run import parallel
from src.run.experiment import create_experiment
from src.run.settings import setting, shared_settings
from src.store import cache, reports

SIDES = ("below", "at or above")
HEADLINES = ("share", "mean")
COLOURS = [f"C{k}" for k in range(10)]  # of matplotlib; more categories are all grey
MAX_IDS = 2**16

ex = create_experiment("eval_iou")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets`; needs ground truth"),
        **shared_settings(CONFIG, "model_name", "meta_model", "meta_weights", "io_path"),
        num_thresholds=setting(51, "predicted IoUs to divide the pixels at", at_least=1),
        **shared_settings(CONFIG, "num_images", "num_cores"),
    )


def evaluate(
    log, run, *, dataset, model_name, meta_model, meta_weights, io_path, num_thresholds, num_cores,
    num_images,
):  # fmt: skip
    """Work out the IoU of the categories on both sides of every threshold.

    Parameters
    ----------
    run : sacred.run.Run
        Its `info` gets the curves: see `curves`.

    Returns
    -------
    figures : dict of str to number
        `miou`, the mean over the categories, and `iou_<category>`, on all pixels.
    """
    data = registry.choose(datasets, dataset, "dataset")
    registry.choose(models, model_name, "model")
    entry = registry.choose(meta_models, meta_model, "meta model")
    names, tables = category_tables(data, CONFIG.TRAIN_DATASET)
    if (tables[1] == len(names)).all():
        raise SettingError(
            f"no class of {dataset!r} is in a category of {CONFIG.TRAIN_DATASET.name!r} "
            f"({', '.join(names)}): choose a dataset with ground truth whose classes are"
        )
    thresholds = np.linspace(0, 1, num_thresholds)
    folder = cache.metrics_path(io_path, model_name, dataset, 0).parent
    count = functools.partial(
        count_image,
        place=(io_path, model_name, dataset),
        meta_model=meta.load_meta_model(meta_weights or entry.model_weights, entry),
        thresholds=thresholds,
        tables=tables,
        categories=len(names),
    )
    below = np.zeros((num_thresholds + 1, len(names), len(names)), np.int64)

    def add(_index, of_image):
        below[...] += of_image

    tally = parallel.for_each_image(
        count,
        cache.image_indices(folder, "metrics")[:num_images],
        num_cores=num_cores,
        description=f"counting {dataset}",
        consume=add,
        log=log,
    )
    if not below.any():
        parallel.close(log, tally)
        raise SettingError(f"no image of {dataset!r} has ground truth in a category")
    found = curves(below)
    report(log, cache.analysis_folder(io_path, model_name, dataset), thresholds, found, names)
    parallel.close(log, tally)
    run.info["thresholds"] = thresholds.tolist()
    run.info["curves"] = {
        side: {name: _plain(values) for name, values in curve.items()}
        for side, curve in found.items()
    }
    iou = evaluation.class_iou(below[-1])
    return {
        "miou": float(np.nanmean(iou)),
        **{f"iou_{name}": _plain(value) for name, value in zip(names, iou, strict=True)},
    }


def category_tables(data, trained_on):
    """The categories, and look-up tables from predicted and true ids to them.

    The dataset that the network was trained on says in `categories`, {class name: category name},
    what belongs together; without it every predicted class is its own category. True classes are
    found there by their name, or by the one that `train_ids` gives them.

    Returns
    -------
    names : list of str, C
    tables : ndarray of shape (2, 65536), uint16
        Place in `names` of each predicted id and of each true id; C: no category.
    """
    pred_mapping = class_ids.class_mapping(trained_on, "pred_mapping")
    predicted = {key: (name,) for key, (name, _) in pred_mapping.items()}
    train_ids = class_ids.class_mapping(data, "train_ids")
    true = {
        key: (name, train_ids.get(key, ""))
        for key, (name, _) in class_ids.class_mapping(data, "label_mapping").items()
    }
    categories = class_ids.class_mapping(trained_on, "categories") or {
        name: name for (name,) in predicted.values()
    }
    place = {name: number for number, name in enumerate(dict.fromkeys(categories.values()))}
    of_class = {name.casefold(): place[category] for name, category in categories.items()}
    tables = np.full((2, MAX_IDS), len(place), np.uint16)
    for table, mapping in zip(tables, (predicted, true), strict=True):
        for key, class_names in mapping.items():
            found = [of_class[n.casefold()] for n in class_names if n.casefold() in of_class]
            table[key] = found[0] if found else len(place)
    return list(place), tables


def count_image(index, *, place, meta_model, thresholds, tables, categories):
    """Pixels of one image by true and predicted category and predicted IoU.

    Parameters
    ----------
    place : tuple
        The first arguments of `cache.prediction_path`.
    thresholds : ndarray of shape (T,), float
    tables : ndarray of shape (2, 65536)
        See `category_tables`.
    categories : int
        C, their number.

    Returns
    -------
    below : ndarray of shape (T + 1, C, C), int64
        See `evaluation.confusion_by_iou`; zeros without ground truth.
    """
    prediction, metrics, components = measuring.read_measured((*place, index))
    if prediction.ground_truth is None:
        return np.zeros((len(thresholds) + 1, categories, categories), np.int64)
    iou_pred = meta_model.predict(metrics)
    predicted, true = tables
    return evaluation.confusion_by_iou(
        predicted[prediction.prediction],
        true[prediction.ground_truth],
        iou_pred[np.abs(components) - 1],
        thresholds,
        categories,
    )


def curves(below):
    """IoUs on both sides of each threshold.

    The mean is that over the categories that occur there in the ground truth. (The paper's
    counts one that does not occur as 0.)

    Parameters
    ----------
    below : ndarray of shape (T + 1, C, C), int64
        See `evaluation.confusion_by_iou`.

    Returns
    -------
    curves : dict of str to dict
        For each of `SIDES`: `share` (T,) of the pixels; `iou` (T, C), NaN where a category does
        not occur; `mean` (T,), NaN without any pixel.
    """
    found = {}
    for side, confusions in zip(SIDES, (below[:-1], below[-1] - below[:-1]), strict=True):
        iou = np.array([evaluation.class_iou(confusion) for confusion in confusions])
        occurring = np.isfinite(iou).sum(axis=1)
        mean = np.where(occurring > 0, np.nansum(iou, axis=1) / np.maximum(occurring, 1), np.nan)
        share = confusions.sum(axis=(1, 2)) / below[-1].sum()
        found[side] = {"share": share, "iou": iou, "mean": mean}
    return found


def _plain(values):
    """Numbers as JSON knows them: None for NaN."""
    values = np.asarray(values)
    return np.where(np.isnan(values), None, values).tolist()


def report(log, folder, thresholds, found, names):
    """Log a table of at most eleven thresholds, write the whole one and the picture."""
    some = np.unique(np.linspace(0, len(thresholds) - 1, 11).astype(int))
    log.info("mean IoU over %d categories\n%s", len(names), reports.text_table(
        ["threshold", *(f"{what} {side}" for side in SIDES for what in ("pixels", "mIoU"))],
        [
            [float(thresholds[t]), *(_plain(c[k][t]) for c in found.values() for k in HEADLINES)]
            for t in some
        ],
    ))  # fmt: skip
    path = folder / "iou_by_predicted_iou"
    reports.write_csv(
        f"{path}.csv",
        ["threshold", "pixels", "share of pixels", "mean IoU", *names],
        [
            [threshold, side, *_plain([*(curve[key][t] for key in HEADLINES), *curve["iou"][t]])]
            for side, curve in found.items()
            for t, threshold in enumerate(thresholds)
        ],
    )
    reports.save_figure(path, draw_curves(thresholds, found, names))
    log.info("wrote %s (.csv, .png, .pdf)", path)


def draw_curves(thresholds, found, names):
    """IoU by threshold on each side, and the share of the pixels that is there."""
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    upper, lower = figure.subplots(
        2, 2, sharex=True, sharey="row", gridspec_kw={"height_ratios": (4, 1)}
    )
    many = len(names) > len(COLOURS)
    for side, axes, share in zip(SIDES, upper, lower, strict=True):
        curve = found[side]
        for number, name in enumerate(names):
            colour = "lightgrey" if many else COLOURS[number]
            axes.plot(thresholds, curve["iou"][:, number], color=colour, label=name)
        axes.plot(thresholds, curve["mean"], color="black", linewidth=3, label="mean")
        axes.set_title(f"predicted IoU {side} the threshold")
        share.fill_between(thresholds, curve["share"], color="grey", alpha=0.5)
        share.set_xlabel("threshold")
        for panel in (axes, share):
            panel.set(xlim=(0, 1), ylim=(0, 1))
            panel.grid(alpha=0.3)
    upper[0].set_ylabel("IoU")
    lower[0].set_ylabel("share of pixels")
    handles, labels = upper[0].get_legend_handles_labels()
    shown = [-1] if many else range(-1, len(names))
    figure.legend(
        [handles[k] for k in shown], [labels[k] for k in shown], loc="outside right upper"
    )
    return figure


@ex.automain
def main(args, _log, _run):
    return evaluate(_log, _run, **args)
