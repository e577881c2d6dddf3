"""Which segments are known things: those that are trusted, of what the networks learnt on."""

from dataclasses import dataclass, fields, replace

import numpy as np

from src.embedding.suspects import Judge
from src.records import ImageName

LEAST_IOU = 0.5  # predicted, of segments that are trusted
PICTURES = 50  # that known segments come from, spread evenly over the dataset
OF_PICTURE = 20  # of whose segments at most so many are known, the largest


@dataclass(eq=False)
class Trusted(Judge):
    """Finds the known segments of pictures of the one dataset that the networks learnt on.

    Each is an object of its own, has at least the least size, and a predicted IoU of at least
    `LEAST_IOU`, or an unknown one.
    """

    @classmethod
    def of(cls, judge, entry):
        """For the objects that a Judge finds; `entry` is that of the dataset."""
        rule = replace(
            judge.rule, suspicion="entropy", iou_threshold=None, least=None, classes=None,
            join=None, least_of_objects=None,
        )  # fmt: skip
        chosen = {"least_iou": LEAST_IOU, "of_picture": OF_PICTURE}
        kept = "min_height", "min_width", "min_crop", "meta_model"
        values = {field.name: getattr(judge, field.name) for field in fields(judge)} | {
            "rule": rule,
            "datasets": {entry.name: entry},
            "selection": chosen | {key: judge.selection[key] for key in kept},
        }
        return cls(**values)

    def measured_images(self):
        """A list of at most `PICTURES` ImageName; empty where none is measured."""
        ((dataset, _),) = self.datasets.items()
        indices = self.places(dataset)[0].indices("metrics", missing_ok=True)
        some = np.linspace(0, len(indices) - 1, min(PICTURES, len(indices))).round().astype(int)
        return [ImageName(dataset, indices[at]) for at in some]

    def objects_of(self, name):
        """As of `Judge`, only the known ones."""
        table = super().objects_of(name)
        rows = np.flatnonzero(~(table["predicted_iou"] < LEAST_IOU))
        largest = np.argsort(-table["segment_size"][rows], kind="stable")[:OF_PICTURE]
        return table.take(rows[np.sort(largest)])
