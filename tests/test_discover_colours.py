"""The palette of the map, measured as it is seen."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from src.discover import colours

COLOR = pytest.importorskip("skimage.color")
SEEN = {  # what is seen of linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1)
    "by most": np.eye(3),
    "without green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "without red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


def seen(rgb, how):
    """CIELAB of colours (N, 3) uint8 as they are seen."""
    values = rgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ SEEN[how].T, 0, 1)
    values = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return COLOR.rgb2lab(values)


def least_distance(rgb, how):
    lab = seen(np.asarray(rgb, np.float64), how)
    distances = COLOR.deltaE_ciede2000(lab[:, None], lab[None])
    return distances[~np.eye(len(lab), dtype=bool)].min()


@pytest.mark.parametrize(
    ("how", "of_30", "of_12"),
    [("by most", 14, 17.5), ("without green", 7, 9.5), ("without red", 6.6, 8.4)],
)
def test_thirty_classes_are_told_apart_and_the_first_ones_best(how, of_30, of_12):
    assert least_distance(colours.palette(30), how) >= of_30
    assert least_distance(colours.palette(12), how) >= of_12


def test_no_colour_is_near_the_grey_of_what_has_no_label_or_is_filtered_out():
    greys = [colours.GREY, (223, 226, 232), (255, 255, 255)]
    for colour in colours.palette(30):
        for grey in greys:
            assert least_distance([colour, grey], "by most") >= 14


def test_after_thirty_the_colours_come_again():
    assert_array_equal(colours.palette(31)[30], colours.palette(1)[0])
    assert colours.palette(0).shape == (0, 3)
