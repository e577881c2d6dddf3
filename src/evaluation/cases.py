"""Pictures that networks segment best and worst, side by side with the ground truth."""

import re

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from src import datasets, pictures
from src.evaluation.confusion import confusion_matrix, mean_iou
from src.evaluation.segmentation import iou_of, of_known, overlap_of, read_image
from src.store import reports

EACH = 3  # of the best, and of the worst pictures
MOST_NEW = 6  # new classes that are drawn: those with the most pixels
PANEL_IN = 3.2  # width
SPARE_IN = 0.22  # height of the lines of text below a panel
LEGEND_IN = 1.6  # width of a class in the legend
NO_LABEL = "no label", pictures.BLANK


def report(log, folder, judged, results, dataset):
    """Draw the cases by the mean IoU of old classes, and by that of each of the largest new ones.

    `judged` is of `segmentation.judge`, `results` are those of its networks, a list. Writes
    segmentation_cases.png and segmentation_cases_<class>.png.
    """
    classes = judged.classes
    new = np.flatnonzero(classes.is_new)
    there = new[judged.pixels[new] > 0]
    largest = there[np.argsort(-judged.pixels[there], kind="stable")][:MOST_NEW]
    path = folder / "segmentation_cases"
    for place in (None, *largest.tolist()):
        column = 0 if place is None else 1 + np.flatnonzero(new == place)[0]
        cases = choose({index: scores[column] for index, scores in judged.scores.items()})
        if cases:
            name = "" if place is None else f"_{_plain(classes.names[place])}"
            figure = draw(judged, place, cases, results, dataset)
            reports.save_figure(f"{path}{name}", figure, ["png"])
    log.info("drew the best and worst pictures: %s*.png", path)


def choose(scores):
    """The best and the worst pictures: a list of ("best" or "worst", index).

    `scores` are IoU and pixels by index, see `segmentation.scores_of`; of equal IoUs that of more
    pixels tells more. No picture is both.
    """
    known = [index for index, (iou, _) in scores.items() if np.isfinite(iou)]
    best = sorted(known, key=lambda index: (-scores[index][0], -scores[index][1]))
    best = best[: min(EACH, -(-len(known) // 2))]
    rest = [index for index in known if index not in best]
    worst = sorted(rest, key=lambda index: (scores[index][0], -scores[index][1]))[:EACH]
    return [*(("best", index) for index in best), *(("worst", index) for index in worst)]


def draw(judged, place, cases, results, dataset):
    """A row for each picture: the photograph, its true classes, and those that networks predict.

    `place` is that of a new class, whose IoU is told and whose true pixels are outlined; None: the
    mean of the old ones is told.
    """
    classes = judged.classes
    about = "mean IoU" if place is None else f"IoU of {reports.label(classes.names[place])}"
    panels = [panels_of(index, classes, place, results) for _, index in cases]
    height = max(len(row[0]) / row[0].shape[1] for row, _, _ in panels) * PANEL_IN
    occurring = sorted(set().union(*(ids for _, _, ids in panels)))
    width = PANEL_IN * (2 + len(results))
    columns = int(width / LEGEND_IN)
    lines = -(-len(occurring) // columns)
    figure = Figure(
        (width, (height + SPARE_IN) * len(cases) + 0.8 + 0.2 * lines), layout="constrained"
    )
    figure.suptitle(f"{reports.label(dataset)}: best and worst images by {about}")
    axes = figure.subplots(len(cases), 2 + len(results), squeeze=False)
    titles = "photograph", "ground truth", *map(reports.label, judged.models)
    for row, (which, index), (images, ious, _) in zip(axes, cases, panels, strict=True):
        row[0].set_ylabel(f"{which}: image {index}")
        for ax, image, text in zip(row, images, ["", "", *_texts(about, ious)], strict=True):
            ax.set(xticks=[], yticks=[], xlabel=text)
            ax.imshow(image, interpolation="nearest")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    mapping = _mapping(classes)
    figure.legend(
        handles=[
            Patch(facecolor=np.divide(mapping[key][1], 255), edgecolor="black") for key in occurring
        ],
        labels=[reports.label(mapping[key][0]) for key in occurring],
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
    )
    return figure


def panels_of(index, classes, place, results):
    """RGB pictures of a row of `draw`, the IoU that is told of each network, and ids of colours."""
    predicted, truth, path = read_image(index, results, classes)
    confusion = np.array([confusion_matrix(each, truth, len(classes.names)) for each in predicted])
    if place is None:
        ious = mean_iou(iou_of(confusion, classes)[:, ~classes.is_new])
    else:
        counted = of_known(confusion, classes)
        ious = [overlap_of(each, place)[0] for each in counted]
        ious = np.where(classes.known[:, place], ious, np.nan)
    maps = [_shrunk(ids) for ids in (truth, *predicted)]
    images = [_photograph(path, maps[0].shape)]
    images += [pictures.colour_classes(ids, _mapping(classes)) for ids in maps]
    if place is not None:
        outline = pictures.outline_of(maps[0] == place)
        for image in images:
            image[outline] = pictures.WHITE
    return images, ious, set(np.unique(maps).tolist())


def _photograph(path, size):
    """A photograph of a height and width in pixels; grey where it cannot be read."""
    try:
        return np.array(datasets.read_image(path).resize(size[::-1], Image.Resampling.LANCZOS))
    except (OSError, ValueError):
        return np.full((*size, 3), pictures.BLANK, np.uint8)


def _shrunk(ids):
    """A map of ids, no more of it than a panel shows."""
    step = max(1, -(-max(ids.shape) // int(PANEL_IN * reports.DPI)))
    return ids[::step, ::step]


def _mapping(classes):
    """Name and colour by place; N: no label."""
    return dict(enumerate([*zip(classes.names, classes.colours, strict=True), NO_LABEL]))


def _texts(about, ious):
    return [f"{about}: -" if np.isnan(iou) else f"{about}: {iou:.2f}" for iou in ious]


def _plain(name):
    """The name of a class as a part of one of a file."""
    return re.sub(r"[^\w.+-]+", "_", name)[:60]
