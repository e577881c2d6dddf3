"""The segments of many images as one table, for all that learns from them."""

import re
from dataclasses import fields, replace

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from src.errors import SettingError
from src.MetaSeg.metrics import metric_names
from src.records import SegmentTable

HELD_OUT = 0.2  # share of the images on the validation side of a split
_NO_FEATURES = {"class", "iou", "iou0"}


def feature_names(names):
    """The metrics that are features, in the order of the published meta network's inputs.

    A tuple: all but `class`, `iou` and `iou0` as text, then `cprob0`, `cprob1`, ... by number.
    """
    shares = [name for name in names if re.fullmatch(r"cprob\d+", name)]
    others = [name for name in names if name not in _NO_FEATURES and name not in shares]
    return (*sorted(others), *sorted(shares, key=lambda name: int(name.removeprefix("cprob"))))


def original_names(classes):
    """Features of the original for so many classes: the metrics without further heat maps."""
    return feature_names(metric_names((), classes))


def segment_table(metrics_of_images):
    """A SegmentTable of the segments of many images.

    Parameters
    ----------
    metrics_of_images : iterable of (int, dict)
        Image index and its metrics: name -> S values. Images without segments are fine.

    Raises
    ------
    ValueError
        If there is no image, or two images have different metrics.
    """
    images = list(metrics_of_images)
    if not images:
        raise ValueError("there are no segment metrics; run src/MetaSeg/main.py first")
    names = feature_names(images[0][1])
    for index, metrics in images:
        if feature_names(metrics) != names:
            differ = sorted(set(feature_names(metrics)) ^ set(names))
            raise SettingError(
                f"image {index} has other metrics than image {images[0][0]}: one of them lacks "
                f"{differ}; run src/MetaSeg/main.py for all images with the same args.heatmaps, "
                "and predictions of one network with the same args.scores"
            )
    counts = [len(metrics["class"]) for _, metrics in images]

    def column(name, dtype):
        return np.concatenate([np.asarray(metrics[name], dtype) for _, metrics in images])

    return SegmentTable(
        features=np.stack([column(name, np.float64) for name in names], axis=1),
        feature_names=names,
        image_index=np.repeat([index for index, _ in images], counts),
        component_index=np.concatenate([np.arange(1, count + 1) for count in counts]),
        predicted_class=column("class", np.int64),
        true_iou=column("iou", np.float64),
    )


def with_known_iou(table):
    """The rows of a SegmentTable that have a known IoU; a SettingError if there is none."""
    known = ~np.isnan(table.true_iou)
    if not known.any():
        raise SettingError(
            "no segment has a known IoU: choose a dataset with ground truth in classes that the "
            "network predicts"
        )
    return _take_rows(table, known)


def split_by_image(table, count, seed):
    """Random splits of a table in which no image has segments on both sides.

    Parameters
    ----------
    table : SegmentTable
    count : int
        Number of splits, each drawn anew.
    seed : int
        Same seed, same splits.

    Returns
    -------
    splits : list of (SegmentTable, SegmentTable)
        Training and validation; a fifth of the images, rounded up, are on the validation side.

    Raises
    ------
    SettingError
        If the segments are those of one image.
    """
    images = len(np.unique(table.image_index))
    if images < 2:
        raise SettingError(
            f"a split into training and validation images needs 2 images at least, got {images}"
        )
    shuffle = GroupShuffleSplit(count, test_size=HELD_OUT, random_state=seed)
    pairs = shuffle.split(table.features, groups=table.image_index)
    return [(_take_rows(table, training), _take_rows(table, held)) for training, held in pairs]


def _take_rows(table, rows):
    columns = {
        field.name: getattr(table, field.name)[rows]
        for field in fields(table)
        if field.name != "feature_names"
    }
    return replace(table, **columns)
