"""Contact sheets of labels: each picture beside what a network is to learn of it."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from src.pictures import BLANK, colour_classes, outline_of
from src.records import NO_LABEL
from src.segmentation.inference import to_rgb
from src.store.paths import learnt_sheet
from src.store.reports import label, save_figure

ROWS, COLUMNS = 6, 2  # pictures on a sheet, each beside its labels
SIDE_PX = 640  # of the longer side of a picture
WIDTH_IN, TOP_IN, LINE_IN = 12, 0.5, 0.22
STRENGTH = 0.6  # of the colours of old classes


def draw_labels(image, labels, classes, new):
    """Labels as a picture (H, W, 3) uint8: new classes in full colour and outlined.

    Old classes lie pale over a grey picture; where no label is it shows hardly.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
    labels : ndarray of shape (H, W), uint8
    classes : dict of int to (str, (int, int, int))
    new : collection of int
        Ids of what is to be learnt.
    """
    is_new, no_label = np.isin(labels, [*new]), labels == NO_LABEL
    grey = image.mean(-1, keepdims=True)
    colours = colour_classes(labels, classes).astype(float)
    pale = STRENGTH * (0.5 * colours + 0.5 * 255) + (1 - STRENGTH) * grey
    shown = np.where(is_new[..., None], 0.85 * colours + 0.15 * grey, pale)
    shown[no_label] = (0.85 * np.array(BLANK) + 0.15 * grey)[no_label]
    shown[outline_of(is_new)] = 0
    return shown.astype(np.uint8)


def write_sheets(pictures, mean, std, classes, ids, counts, folder):
    """Draw all pictures to learn from on contact sheets; gives the paths of the sheets.

    Parameters
    ----------
    pictures : Pictures
    mean, std : tuple of 3 float
        That their images are normalised by.
    classes : dict of int to (str, (int, int, int))
    ids : dict of str to int
        Of what is to be learnt.
    counts : dict of str to int
        Number of objects of each name.
    folder : path
    """
    on_sheet, paths = ROWS * COLUMNS, []
    total = math.ceil(len(pictures) / on_sheet)
    for number in range(1, total + 1):
        of_sheet = range((number - 1) * on_sheet, min(number * on_sheet, len(pictures)))
        panels = []
        for k in of_sheet:
            image, labels = pictures[k]
            rgb, labels = to_rgb(image, mean, std), labels.numpy()
            drawn = draw_labels(rgb, labels, classes, ids.values())
            panels.append((str(pictures.names[k]), _small(rgb), _small(drawn), np.unique(labels)))
        title = f"What is to be learnt: {len(pictures)} pictures"
        title += f", sheet {number} of {total}" if total > 1 else ""
        figure = _sheet(panels, title, classes, ids, counts)
        path = learnt_sheet(folder, number)
        save_figure(path, figure, ("png",))
        paths.append(path.with_name(f"{path.name}.png"))
    return paths


def _small(picture):
    image = Image.fromarray(picture)
    image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _sheet(panels, title, classes, ids, counts):
    """Figure of (name, picture, labels, ids that occur) each, below a legend."""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    shape = np.array([picture.shape[:2] for _, picture, _, _ in panels], float)
    panel_in = WIDTH_IN / (2 * COLUMNS)
    row_in = panel_in * (shape[:, 0] / shape[:, 1]).max() + LINE_IN
    patches = _legend(panels, classes, ids, counts)
    in_line = 3 * columns
    top_in = TOP_IN + LINE_IN * math.ceil(len(patches) / in_line)
    height_in = top_in + rows * row_in + 0.1
    width_in = panel_in * 2 * columns
    figure = Figure(figsize=(width_in, height_in))
    figure.text(0.1 / width_in, 1 - 0.12 / height_in, title, va="top", fontweight="bold")
    figure.legend(
        handles=patches,
        loc="upper left",
        bbox_to_anchor=(0.02 / width_in, 1 - (TOP_IN - 0.15) / height_in),
        ncols=in_line,
        frameon=False,
        fontsize=8,
        borderaxespad=0,
    )
    for number, (name, picture, labels, _) in enumerate(panels):
        row, column = divmod(number, columns)
        upper = 1 - (top_in + row * row_in) / height_in
        figure.text(
            (2 * column * panel_in + 0.1) / width_in, upper, f"picture {name}",
            va="top", fontsize=7, color="0.35",
        )  # fmt: skip
        for part, shown in enumerate((picture, labels)):
            left = ((2 * column + part) * panel_in + (0.1 if part == 0 else 0.04)) / width_in
            size = (panel_in - 0.1) / width_in, (row_in - LINE_IN) / height_in
            axes = figure.add_axes((left, upper - row_in / height_in + 0.04 / height_in, *size))
            axes.imshow(shown)
            axes.set_anchor("N")
            axes.set_axis_off()
    return figure


def _legend(panels, classes, ids, counts):
    """Patches of the classes to learn, then of those that occur beside them."""
    there = sorted(set(np.concatenate([found for *_, found in panels]).tolist()))
    totals = dict.fromkeys(ids.values(), 0)
    for name, count in counts.items():
        totals[ids[name]] += count
    patches = [
        Patch(
            facecolor=np.array(classes[key][1]) / 255,
            edgecolor="black",
            label=f"{label(classes[key][0])}, to learn: {count}",
        )
        for key, count in totals.items()
    ]
    for key in there:
        if key in classes and key not in totals:
            pale = STRENGTH * (0.5 * np.array(classes[key][1]) / 255 + 0.5) + (1 - STRENGTH) * 0.5
            patches.append(Patch(facecolor=pale, label=label(classes[key][0])))
    if NO_LABEL in there:
        patches.append(Patch(facecolor=np.array(BLANK) / 255, label="no label"))
    return patches
