"""How good the segmentation is where its predicted IoU is low, and where it is high."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from src import class_ids
from src.errors import SettingError
from src.evaluation.confusion import class_iou, confusion_by_iou, mean_iou
from src.evaluation.pictures import read_judged, total
from src.store import reports

SIDES = ("below", "at or above")
STYLES = [(f"C{k}", dashes) for dashes in ("-", "--", ":", "-.") for k in range(10)]
ROWS = 24  # of a legend
MAX_IDS = 2**16


@dataclass(frozen=True)
class Categories:
    """Classes that belong together: C categories."""

    names: list[str]
    # (65536,) uint16: place in `names` of each predicted id and of each true id; C: no category
    predicted: np.ndarray
    true: np.ndarray


@dataclass(frozen=True)
class Side:
    """The pixels whose segment has a predicted IoU on one side of each of T thresholds."""

    share: np.ndarray  # (T,) float64, of all pixels
    iou: np.ndarray  # (T, C) float64; NaN where a category does not occur in the ground truth
    # (T,) float64, over the categories that occur; NaN without any pixel. (The paper's counts a
    # category that does not occur as 0.)
    mean: np.ndarray


@dataclass(frozen=True)
class Trust:
    """What predicted IoUs say of the segmentation."""

    thresholds: np.ndarray  # (T,) float64
    names: list[str]  # of the C categories
    sides: dict[str, Side]  # by `SIDES`
    iou: np.ndarray  # (C,) float64, on all pixels

    def figures(self):
        """`miou`, the mean over the categories, and `iou_<category>`: a dict of numbers."""
        of_categories = zip(self.names, reports.plain(self.iou), strict=True)
        return {
            "miou": float(np.nanmean(self.iou)),
            **{f"iou_{name}": value for name, value in of_categories},
        }

    def curves(self):
        """The thresholds, and what each side has, as numbers that JSON knows."""
        sides = {
            name: {what: reports.plain(values) for what, values in vars(side).items()}
            for name, side in self.sides.items()
        }
        return {"thresholds": self.thresholds.tolist(), "curves": sides}


def judge(run, pictures, meta_model, thresholds):
    """Work out the IoU of the categories on both sides of every threshold.

    `thresholds` (T,) are predicted IoUs to divide the pixels at, ascending. Gives a Trust, and the
    Tally.
    """
    categories = categories_of(pictures.data, pictures.card)
    if (categories.true == len(categories.names)).all():
        raise SettingError(
            f"no class of {pictures.name!r} is in a category of the predicted ones "
            f"({', '.join(categories.names)}): choose a dataset with ground truth whose classes are"
        )
    options = dict(meta_model=meta_model, categories=categories, thresholds=thresholds)
    below, tally = total(
        run,
        partial(count_image, results=pictures.results, **options),
        pictures.indices("metrics"),
        f"counting {pictures.name}",
        f"no image of {pictures.name!r} has ground truth in a category",
    )
    return Trust(thresholds, categories.names, sides_of(below), class_iou(below[-1])), tally


def categories_of(data, card):
    """The categories of predicted and true classes.

    The dataset that names the network's classes says in `categories`, {class name: category name},
    what belongs together; without it every predicted class is its own category. True classes are
    found there by their name, or by the one that `train_ids` gives them.
    """
    predicted = {key: (name,) for key, (name, _) in card.classes.items()}
    train_ids = class_ids.class_mapping(data, "train_ids")
    true = {
        key: (name, train_ids.get(key, ""))
        for key, (name, _) in class_ids.class_mapping(data, "label_mapping").items()
    }
    named = card.trained_on and class_ids.class_mapping(card.trained_on, "categories")
    category_of = named or {name: name for (name,) in predicted.values()}
    place = {name: number for number, name in enumerate(dict.fromkeys(category_of.values()))}
    of_class = {name.casefold(): place[category] for name, category in category_of.items()}
    tables = np.full((2, MAX_IDS), len(place), np.uint16)
    for table, mapping in zip(tables, (predicted, true), strict=True):
        for key, class_names in mapping.items():
            found = [of_class[n.casefold()] for n in class_names if n.casefold() in of_class]
            table[key] = found[0] if found else len(place)
    return Categories(list(place), *tables)


def count_image(index, results, meta_model, categories, thresholds):
    """Counts (T + 1, C, C) of one image, see `confusion_by_iou`; zeros without ground truth."""
    count = len(categories.names)
    prediction, predicted_iou = read_judged(results, index, meta_model)
    if predicted_iou is None:
        return np.zeros((len(thresholds) + 1, count, count), np.int64)
    return confusion_by_iou(
        categories.predicted[prediction.prediction],
        categories.true[prediction.ground_truth],
        predicted_iou,
        thresholds,
        count,
    )


def sides_of(below):
    """What is on both sides of each threshold, by `SIDES`; `below` is of `confusion_by_iou`."""
    found = {}
    for side, confusions in zip(SIDES, (below[:-1], below[-1] - below[:-1]), strict=True):
        iou = class_iou(confusions)
        share = confusions.sum(axis=(1, 2)) / below[-1].sum()
        found[side] = Side(share, iou, mean_iou(iou))
    return found


# telling


def report(log, folder, trust, dataset):
    """Log a table of at most eleven thresholds, write the whole one and a picture of `dataset`."""
    thresholds = trust.thresholds
    some = np.unique(np.linspace(0, len(thresholds) - 1, 11).astype(int))
    log.info("mean IoU over %d categories\n%s", len(trust.names), reports.text_table(
        ["threshold", *(f"{what} {side}" for side in SIDES for what in ("pixels", "mIoU"))],
        [[thresholds[t], *(v for s in trust.sides.values() for v in _at(s, t))] for t in some],
    ))  # fmt: skip
    path = folder / "iou_by_predicted_iou"
    reports.write_csv(
        f"{path}.csv",
        ["threshold", "pixels", "share of pixels", "mean IoU", *trust.names],
        [
            [threshold, name, *_at(side, t), *reports.plain(side.iou[t])]
            for name, side in trust.sides.items()
            for t, threshold in enumerate(thresholds)
        ],
    )
    reports.save_figure(path, draw_curves(trust, dataset))
    log.info("wrote %s (.csv, .png, .pdf)", path)


def draw_curves(trust, dataset):
    """IoU by threshold on each side, and the share of the pixels that is there."""
    columns = -(-min(len(trust.names), len(STYLES)) // ROWS)
    figure = Figure(figsize=(10 + 2.6 * columns, 6.5), layout="constrained")
    figure.suptitle(f"{reports.label(dataset)}: IoU by predicted IoU")
    upper, lower = figure.subplots(
        2, 2, sharex=True, sharey="row", gridspec_kw={"height_ratios": (4, 1)}
    )
    marker = "." if len(trust.thresholds) == 1 else ""
    for (name, side), axes, share in zip(trust.sides.items(), upper, lower, strict=True):
        for number in range(len(trust.names)):
            colour, dashes = STYLES[number] if number < len(STYLES) else ("lightgrey", "-")
            axes.plot(trust.thresholds, side.iou[:, number], dashes, color=colour, marker=marker)
        axes.plot(trust.thresholds, side.mean, color="black", linewidth=3, marker=marker)
        axes.set_title(f"predicted IoU {name} the threshold")
        share.fill_between(trust.thresholds, side.share, color="grey", alpha=0.5)
        share.set_xlabel("threshold")
        for panel in (axes, share):
            panel.set(xlim=(0, 1), ylim=(0, 1))
            panel.grid(alpha=0.3)
    upper[0].set_ylabel("IoU")
    lower[0].set_ylabel("share of pixels")
    lines, named = upper[0].lines, trust.names[: len(STYLES)]
    labels = ["mean", *map(reports.label, named)]
    figure.legend(
        [lines[-1], *lines[: len(named)]], labels, loc="outside right upper", ncols=columns
    )
    return figure


def _at(side, t):
    """Share and mean at a threshold."""
    return reports.plain([side.share[t], side.mean[t]])
