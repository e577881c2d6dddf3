"""A2D2, the Audi Autonomous Driving Dataset: street scenes with 55 classes, labelled by colour."""

import warnings
from functools import cache

import numpy as np

from src.datasets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LabelledImages,
    check_choice,
    list_images,
    read_colours,
)
from src.records import NO_LABEL

mean, std = IMAGENET_MEAN, IMAGENET_STD
min_segment_size = min_crop_size = (128, 128)  # height, width in pixels

POSITIONS = (
    "front_center",
    "front_left",
    "front_right",
    "side_left",
    "side_right",
    "rear_center",
)
# name, colour in the label files, and what Cityscapes calls it: also classes that no network learns
# there. The id of a class is its place in this list.
_CLASSES = [
    ("Animals", (204, 255, 153), "dynamic"),
    ("Bicycle 1", (182, 89, 6), "bicycle"),
    ("Bicycle 2", (150, 50, 4), "bicycle"),
    ("Bicycle 3", (90, 30, 1), "bicycle"),
    ("Bicycle 4", (90, 30, 30), "bicycle"),
    ("Blurred area", (96, 69, 143), None),
    ("Buildings", (241, 230, 255), "building"),
    ("Car 1", (255, 0, 0), "car"),
    ("Car 2", (200, 0, 0), "car"),
    ("Car 3", (150, 0, 0), "car"),
    ("Car 4", (128, 0, 0), "car"),
    ("Curbstone", (128, 128, 0), "sidewalk"),
    ("Dashed line", (128, 0, 255), "road"),
    ("Drivable cobblestone", (180, 50, 180), "road"),
    ("Ego car", (72, 209, 204), "ego vehicle"),
    ("Electronic traffic", (255, 70, 185), None),
    ("Grid structure", (238, 162, 173), "fence"),
    ("Irrelevant signs", (64, 0, 64), None),
    ("Nature object", (147, 253, 194), "vegetation"),
    ("Non-drivable street", (139, 99, 108), None),
    ("Obstacles / trash", (255, 0, 128), None),
    ("Painted driv. instr.", (200, 125, 210), "road"),
    ("Parking area", (150, 150, 200), "parking"),
    ("Pedestrian 1", (204, 153, 255), "person"),
    ("Pedestrian 2", (189, 73, 155), "person"),
    ("Pedestrian 3", (239, 89, 191), "person"),
    ("Poles", (255, 246, 143), "pole"),
    ("RD normal street", (255, 0, 255), "road"),
    ("RD restricted area", (150, 0, 150), "road"),
    ("Rain dirt", (53, 46, 82), None),
    ("Road blocks", (185, 122, 87), "fence"),
    ("Sidebars", (233, 100, 0), "traffic sign"),
    ("Sidewalk", (180, 150, 200), "sidewalk"),
    ("Signal corpus", (33, 44, 177), "traffic light"),
    ("Sky", (135, 206, 255), "sky"),
    ("Slow drive area", (238, 233, 191), "road"),
    ("Small vehicles 1", (0, 255, 0), "motorcycle"),
    ("Small vehicles 2", (0, 200, 0), "motorcycle"),
    ("Small vehicles 3", (0, 150, 0), "motorcycle"),
    ("Solid line", (255, 193, 37), "road"),
    ("Speed bumper", (110, 110, 0), "road"),
    ("Tractor", (0, 0, 100), None),
    ("Traffic guide obj.", (159, 121, 238), "traffic sign"),
    ("Traffic sign 1", (0, 255, 255), "traffic sign"),
    ("Traffic sign 2", (30, 220, 220), "traffic sign"),
    ("Traffic sign 3", (60, 157, 199), "traffic sign"),
    ("Traffic signal 1", (0, 128, 255), "traffic light"),
    ("Traffic signal 2", (30, 28, 158), "traffic light"),
    ("Traffic signal 3", (60, 28, 100), "traffic light"),
    ("Truck 1", (255, 128, 0), "truck"),
    ("Truck 2", (200, 128, 0), "truck"),
    ("Truck 3", (150, 128, 0), "truck"),
    ("Utility vehicle 1", (255, 255, 0), "trailer"),
    ("Utility vehicle 2", (255, 255, 200), "trailer"),
    ("Zebra crossing", (210, 50, 115), "road"),
]
_NO_LABEL_COLOUR = (0, 0, 0)
_UNKNOWN = 254


class A2D2(LabelledImages):
    """Images and labels, in the ids 0 to 54 of the class list; black is "no label".

    Images without a label file are left out.

    Parameters
    ----------
    root : path
        Folder that holds `camera_lidar_semantic`.
    positions : sequence of str
        Cameras to use, from `POSITIONS`.
    """

    label_mapping = {index: (name, colour) for index, (name, colour, _) in enumerate(_CLASSES)}
    train_ids = {index: known for index, (_, _, known) in enumerate(_CLASSES) if known}
    kinds = {  # "Car 1" to "Car 4" only tell apart cars that touch
        index: "Traffic signal" if name == "Signal corpus" else name[:-2]
        for index, (name, _, _) in enumerate(_CLASSES)
        if name == "Signal corpus" or name[-1].isdigit()
    }
    # no objects but what the camera or its car does to the picture
    anomaly_ids = {
        index: NO_LABEL
        for index, (name, _, _) in enumerate(_CLASSES)
        if name in ("Blurred area", "Ego car", "Rain dirt")
    }

    def __init__(self, root, positions=("front_center",), transform=None):
        for position in positions:
            check_choice("positions", position, POSITIONS)
        wanted = {f"cam_{position}" for position in positions}
        images = list_images(root, "*/camera/cam_*/*.png", folder="camera_lidar_semantic")
        samples = [(path, _label_path(path)) for path in images if path.parent.name in wanted]
        samples = [(image, labels) for image, labels in samples if labels.is_file()]
        if not samples:
            raise FileNotFoundError(f"no picture of {sorted(wanted)} in {root} has a label file")
        super().__init__(samples, transform)
        self._warned = False

    def read_labels(self, path):
        """Labels of one file as (H, W) uint8; colours of no class become 255, with one warning."""
        red, green, blue = np.moveaxis(read_colours(path).astype(np.int32), 2, 0)
        ids = _ids_of_colours()[red << 16 | green << 8 | blue]
        unknown = ids == _UNKNOWN
        if unknown.any() and not self._warned:
            self._warned = True
            warnings.warn(
                f"{path} has {unknown.sum()} pixels in a colour of no class; such pixels count "
                "as not labelled, in other files too",
                stacklevel=3,
            )
        ids[unknown] = NO_LABEL
        return ids


@cache
def _ids_of_colours():
    """Look-up table (2^24,) uint8 from 0xRRGGBB to ids: 16 MB, made once a process."""
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    colours = {index: colour for index, (_, colour, _) in enumerate(_CLASSES)}
    for index, (red, green, blue) in {**colours, NO_LABEL: _NO_LABEL_COLOUR}.items():
        table[red << 16 | green << 8 | blue] = index
    return table


def _label_path(image):
    recording, camera = image.parents[2], image.parent.name
    return recording / "label" / camera / image.name.replace("camera", "label")
