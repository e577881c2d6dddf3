"""Colours of the points on the map: of classes, groups and tags; those of pictures are elsewhere.

The palette was searched among RGB colours of middle lightness, each as far as can be from all
others, from grey and from white, by CIEDE2000, as seen by most people and as seen without the
cones for green or for red (Machado, Oliveira and Fernandes, 2009). Of 30 colours any two are at
least 14 apart, 7 without green and 6.6 without red; the first ones are farthest apart.
"""

import numpy as np
from matplotlib.colors import to_rgb

BLUE = (31, 119, 180)
GREY = (170, 174, 182)  # without a label or a tag
# fmt: off
PALETTE = (
    "#0099bb", "#cc0066", "#ffbb55", "#004400", "#3300bb", "#99ccaa", "#778800", "#8899ff",
    "#665599", "#770066", "#dd8855", "#997799", "#337777", "#007700", "#ff6688", "#dd99dd",
    "#004488", "#cccc88", "#3355ff", "#997755", "#669977", "#885544", "#bb22cc", "#00ccff",
    "#115544", "#555522", "#885566", "#bbaa00", "#9966ff", "#ee44bb",
)
# fmt: on


def palette(count):
    """Colours (count, 3) uint8 that are easy to tell apart; after 30 they come again."""
    colours = np.array([to_rgb(name) for name in PALETTE])
    return np.rint(255 * colours[np.arange(count) % len(colours)]).astype(np.uint8)
