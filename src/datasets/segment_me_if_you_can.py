"""SegmentMeIfYouCan: the two tracks of the benchmark for anomalies and obstacles on the road.

Ground truth is public for the validation images only; the others have none.
"""

from pathlib import Path

from src.datasets import LabelledImages, list_images


class _Track(LabelledImages):
    """Images and labels, in the ids of the label files; 255 is not evaluated.

    Parameters
    ----------
    root : path
        Folder that holds `images` and `labels_masks`.
    """

    def __init__(self, root, transform=None):
        images = list_images(root, "*", folder="images", readable={".jpg", ".png", ".webp"})
        masks = Path(root) / "labels_masks"
        labels = [masks / f"{image.stem}_labels_semantic.png" for image in images]
        samples = [
            (image, label if label.is_file() else None)
            for image, label in zip(images, labels, strict=True)
        ]
        super().__init__(samples, transform)


class RoadAnomaly21(_Track):
    """Anything that does not belong into traffic, anywhere in the image; 1 is anomalous."""

    label_mapping = {0: ("not anomalous", (128, 128, 128)), 1: ("anomaly", (255, 102, 0))}
    anomaly_ids = {0: 0}


class RoadObstacle21(_Track):
    """Obstacles on the road; what lies beside the road is 255."""

    label_mapping = {0: ("road", (128, 64, 128)), 1: ("obstacle", (255, 102, 0))}
