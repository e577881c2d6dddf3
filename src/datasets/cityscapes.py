"""Cityscapes: street scenes of German cities, 19 training classes."""

import numpy as np
from torchvision import datasets as tables

from src.datasets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LabelledImages,
    check_choice,
    list_images,
    read_ids,
    with_labels,
)
from src.records import NO_LABEL

mean, std = IMAGENET_MEAN, IMAGENET_STD
min_segment_size = min_crop_size = (128, 128)  # height, width in pixels

_TRAINED = [label for label in tables.Cityscapes.classes if not label.ignore_in_eval]
# wall, fence, traffic light, traffic sign, person, rider and all vehicles
pred_class_selection = [3, 4, 6, 7, 11, 12, 13, 14, 15, 16, 17, 18]


def _train_ids():
    """Look-up table (65536,) uint8 from the ids in the label files to train ids."""
    table = np.full(2**16, NO_LABEL, np.uint8)
    for label in _TRAINED:
        table[label.id] = label.train_id
    return table


class Cityscapes(LabelledImages):
    """Images and labels, in train ids; the test split has no ground truth.

    Parameters
    ----------
    root : path
        Folder that holds `leftImg8bit` and `gtFine`.
    split : {"train", "val", "test"}
    """

    pred_mapping = {label.train_id: (label.name, label.color) for label in _TRAINED}
    label_mapping = pred_mapping
    categories = {  # of all classes, also of those that are not trained
        label.name: label.category
        for label in tables.Cityscapes.classes
        if label.category != "void"
    }
    _table = _train_ids()

    def __init__(self, root, split="val", transform=None):
        check_choice("split", split, ("train", "val", "test"))
        images = list_images(root, "*/*_leftImg8bit.png", folder=f"leftImg8bit/{split}")
        if split == "test":
            samples = [(image, None) for image in images]
        else:
            samples = with_labels(images, _label_path)
        super().__init__(samples, transform)

    def read_labels(self, path):
        return self._table[read_ids(path)]


def _label_path(image):
    root, (split, city, name) = image.parents[3], image.parts[-3:]
    stem = name.removesuffix("_leftImg8bit.png")
    return root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
