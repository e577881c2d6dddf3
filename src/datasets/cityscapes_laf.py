"""Lost and Found: small lost cargo on the road, in the layout of Cityscapes."""

from src.datasets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LabelledImages,
    check_choice,
    list_images,
    with_labels,
)

mean, std = IMAGENET_MEAN, IMAGENET_STD
min_segment_size = min_crop_size = (128, 128)  # height, width in pixels

# numbered objects that are no hazard: they are flat, or part of the scene
NON_HAZARD_IDS = (31, 33, 34, 36, 37, 38, 39)


def _label_mapping():
    """Background, free road, and the objects "01" to "42" with the ids 2 to 43."""
    hazard, other = (0, 0, 142), (0, 0, 0)
    objects = {
        number + 1: (f"{number:02d}", other if number + 1 in NON_HAZARD_IDS else hazard)
        for number in range(1, 43)
    }
    return {0: ("background", other), 1: ("free", (128, 64, 128)), **objects}


class CityscapesLAF(LabelledImages):
    """Images and labels, in the ids of the label files.

    Parameters
    ----------
    root : path
        Folder that holds `leftImg8bit` and `gtCoarse`.
    split : {"train", "test"}
    """

    label_mapping = _label_mapping()
    train_ids = {1: "road"}  # the background may be anything, and the objects are unknown
    anomaly_ids = {0: 255, **dict.fromkeys(NON_HAZARD_IDS, 255)}

    def __init__(self, root, split="test", transform=None):
        check_choice("split", split, ("train", "test"))
        images = list_images(root, "*/*_leftImg8bit.png", folder=f"leftImg8bit/{split}")
        super().__init__(with_labels(images, _label_path), transform)


def _label_path(image):
    root, (split, scene, name) = image.parents[3], image.parts[-3:]
    stem = name.removesuffix("_leftImg8bit.png")
    return root / "gtCoarse" / split / scene / f"{stem}_gtCoarse_labelIds.png"
