"""The embedded demo: rendered street scenes with ground truth, written once as PNG files."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from src.datasets import IMAGENET_MEAN, IMAGENET_STD, LabelledImages, check_choice
from src.datasets.demo import scene as street_scene
from src.datasets.demo.things import UNSEEN
from src.progress import progress
from src.store.files import prepare, whole_file

mean, std = IMAGENET_MEAN, IMAGENET_STD
min_segment_size = min_crop_size = (16, 16)  # height, width in pixels: 1/8 of the usual 128

HEIGHT, WIDTH = 256, 512  # pixels
SPLITS = {"train": 100, "val": 40, "ood": 80}  # number of scenes
FIRST_UNSEEN_ID = 100
DRAWING = 1  # raise it with every change of how scenes look: they are then drawn anew
_DRAWN_AT = 1_000_000_000  # modification time of the files, the same whoever draws them when

# Cityscapes train ids, names and colours
KNOWN = {
    0: ("road", (128, 64, 128)),
    1: ("sidewalk", (244, 35, 232)),
    2: ("building", (70, 70, 70)),
    3: ("wall", (102, 102, 156)),
    4: ("fence", (190, 153, 153)),
    5: ("pole", (153, 153, 153)),
    6: ("traffic light", (250, 170, 30)),
    7: ("traffic sign", (220, 220, 0)),
    8: ("vegetation", (107, 142, 35)),
    9: ("terrain", (152, 251, 152)),
    10: ("sky", (70, 130, 180)),
    11: ("person", (220, 20, 60)),
    12: ("rider", (255, 0, 0)),
    13: ("car", (0, 0, 142)),
    14: ("truck", (0, 0, 70)),
    15: ("bus", (0, 60, 100)),
    16: ("train", (0, 80, 100)),
    17: ("motorcycle", (0, 0, 230)),
    18: ("bicycle", (119, 11, 32)),
}
CATEGORIES = {  # of Cityscapes
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
UNKNOWN = {
    FIRST_UNSEEN_ID + k: (kind, colour) for k, (kind, (_, colour)) in enumerate(UNSEEN.items())
}


class Streets(LabelledImages):
    """Scenes of one split; those not on disk yet are rendered first, the same for the same seed.

    Parameters
    ----------
    root : path
        Folder for all splits; made if missing.
    split : {"train", "val", "ood"}
        The scenes of "ood" also hold objects that are in no other split.
    seed : int
    """

    pred_mapping = KNOWN
    label_mapping = {**KNOWN, **UNKNOWN}
    categories = {name: category for category, names in CATEGORIES.items() for name in names}

    def __init__(self, root, split="train", seed=0, transform=None):
        check_choice("split", split, SPLITS)
        folder = Path(root) / f"{split}_seed{seed}_drawing{DRAWING}"
        names = [f"{index:04d}" for index in range(SPLITS[split])]
        samples = [(folder / f"{name}_image.png", folder / f"{name}_labels.png") for name in names]
        _render_missing(samples, split, seed)
        super().__init__(samples, transform)


def _render_missing(samples, split, seed):
    missing = [k for k, files in enumerate(samples) if not all(file.exists() for file in files)]
    if missing:
        prepare(samples[0][0].parent)
    for index in progress(missing, desc=f"rendering {split}", unit="scene", disable=not missing):
        for array, path in zip(scene(split, seed, index), samples[index], strict=True):
            if not path.exists():
                _save(array, path)


def scene(split, seed, index):
    """Picture (H, W, 3) uint8 and labels (H, W) uint8 of one scene of a split."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    unseen = ()
    if split == "ood":
        kinds = rng.choice(len(UNSEEN), rng.integers(2, 5), replace=False)
        unseen = [(FIRST_UNSEEN_ID + int(k), list(UNSEEN)[k]) for k in kinds]
    return street_scene.render(rng, HEIGHT, WIDTH, unseen)


def _save(array, path):
    with whole_file(path) as part:
        Image.fromarray(array).save(part, format="PNG")
        # another run may draw it too: results made from either stay up to date
        os.utime(part, (_DRAWN_AT, _DRAWN_AT))
