"""The rating picture of stage 2: a photograph, its classes and IoUs, true beside predicted."""

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from src import pictures
from src.datasets import read_image
from src.store import reports

LEAST_IN, MOST_IN = 4, 6  # the longer side of a panel
NAME_IN, ROW_IN = 2.8, 0.2  # of a class in the legend
SPARE_IN = 1.2  # of the height, for titles


def write(results, index, photograph, panels, classes):
    """Write the panels beside a photograph, with their titles and legends, to `results.rating`.

    Parameters
    ----------
    results : Results
    index : int
        Of the picture.
    photograph : path
        Of any size; grey where it cannot be read.
    panels : dict of str to ndarray of shape (H, W, 3), uint8, or None
        See `pictures.rating_panels`.
    classes : sequence of (str, (r, g, b))
        Their names and colours.
    """
    size = np.array(panels["Predicted classes"].shape[1::-1])
    width, height = size / max(size) * np.clip(max(size) / reports.DPI, LEAST_IN, MOST_IN)
    room = tuple(np.ceil([width * reports.DPI, height * reports.DPI]))
    width = 3 * max(width, 3)
    columns = int(width / NAME_IN)
    rows = -(-len(classes) // columns)
    figure = Figure((width, 2 * height + SPARE_IN + ROW_IN * rows), layout="constrained")
    name = reports.label(Path(photograph).name)
    figure.suptitle(f"{reports.label(results.dataset)}, image {index}: {name}")
    axes = figure.subplots(2, 3)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    shown = [("Photograph", _read(photograph)), *panels.items()]
    for ax, (name, picture) in zip([axes[0, 0], *axes[:, 1:].flat], shown, strict=True):
        if picture is None:
            name, picture = f"{name}: missing", np.full((*size[::-1], 3), pictures.BLANK)
        ax.set_title(name)
        small = Image.fromarray(np.asarray(picture, np.uint8))
        small.thumbnail(room, Image.Resampling.BOX)  # in a fifth of matplotlib's time
        ax.imshow(small, interpolation="nearest")
    axes[1, 0].axis("off")
    scale = axes[1, 0].inset_axes((0.1, 0.5, 0.8, 0.1))
    colours = ScalarMappable(cmap=pictures.IOU_COLOURS)
    figure.colorbar(colours, cax=scale, orientation="horizontal", label="IoU of each segment")
    figure.legend(
        handles=[Patch(facecolor=np.divide(rgb, 255), edgecolor="black") for _, rgb in classes],
        labels=[reports.label(name) for name, _ in classes],
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
    )
    reports.save_figure(results.rating(index).with_suffix(""), figure, ["png"])


def _read(photograph):
    try:
        return np.asarray(read_image(photograph))
    except (OSError, ValueError):
        return None
