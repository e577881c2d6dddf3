"""The small records that pass between the stages; NumPy only."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

NO_LABEL = 255  # ground truth id that means unknown


@dataclass(frozen=True)
class Prediction:
    """What stage 1 knows about one image of H x W pixels, for C classes.

    Attributes
    ----------
    probabilities : ndarray of shape (H, W, C), float32, or None
        Softmax output, in [0, 1]. None: not stored, or left out on reading.
    prediction : ndarray of shape (H, W), uint8 or uint16
        Most probable class, in the ids of the training set's `pred_mapping`.
    ground_truth : ndarray of shape (H, W), uint8 or uint16, or None
        True class in the ids of the dataset's `label_mapping`; 255 = no label. None: unknown.
    image_path : str
        The picture that was segmented.
    heatmaps : ndarray of shape (H, W, 3), float32, or None
        Entropy, probability difference and variation ratio, in [0, 1], where they are stored in
        the place of the probabilities.
    scores : dict of str to ndarray of shape (H, W), float32
        Anomaly scores of the logits that stage 1 was asked to keep; higher = more anomalous.
    """

    probabilities: np.ndarray | None
    prediction: np.ndarray
    ground_truth: np.ndarray | None
    image_path: str
    heatmaps: np.ndarray | None = None
    scores: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentTable:
    """The segments of many images as rows: S rows of F features.

    Attributes
    ----------
    features : ndarray of shape (S, F), float64
        Segment metrics, not standardised, in the order of `feature_names`.
    feature_names : tuple of str
        One name a column.
    image_index, component_index : ndarray of shape (S,), int64
        The image within its dataset (from 0) and the component within the image (from 1).
    predicted_class : ndarray of shape (S,), int64
        Id in the training set's `pred_mapping`.
    true_iou : ndarray of shape (S,), float64
        Adjusted IoU with the ground truth, in [0, 1]; NaN = unknown.
    """

    features: np.ndarray
    feature_names: tuple[str, ...]
    image_index: np.ndarray
    component_index: np.ndarray
    predicted_class: np.ndarray
    true_iou: np.ndarray


@dataclass(frozen=True)
class Tally:
    """How a run over many images ended.

    Attributes
    ----------
    done, skipped : int
        Images worked on now, and images found done.
    failed : tuple of (str, str)
        Name of each image that failed, and why.
    seconds : float
        Time the run took.
    planned : int
        Images that a dry run would have worked on.
    """

    done: int
    skipped: int
    failed: tuple[tuple[str, str], ...]
    seconds: float
    planned: int = 0


@dataclass(frozen=True)
class Selection:
    """Which segments of an image are looked at further; each of the others fell to one filter.

    Attributes
    ----------
    chosen : ndarray of shape (S,), bool
        Entry k - 1 is segment k.
    unknown_iou, high_iou, other_class, too_small : int
        Segments whose predicted IoU is NaN, or not below the threshold; of the rest, those of a
        class that is not selected; of the rest, those that are too small.
    """

    chosen: np.ndarray
    unknown_iou: int
    high_iou: int
    other_class: int
    too_small: int


class ImageName(NamedTuple):
    """An image by its dataset and its index there."""

    dataset: str
    index: int

    def __str__(self):
        return f"{self.index} of {self.dataset}"


@dataclass(frozen=True)
class JudgedImage:
    """One image's S segments with their predicted IoU, and the n suspicious ones among them.

    Attributes
    ----------
    name : ImageName
    path : str
        The picture.
    size : tuple of (int, int)
        Height and width in pixels.
    made_from : str
        Another one if the image is segmented anew.
    iou_pred : ndarray of shape (S,), float32
        In [0, 1]; NaN = unknown.
    predicted_class, label : ndarray of shape (S,), uint16
        Predicted id, and most frequent true id; 255 = no label.
    is_large : ndarray of shape (S,), bool
        Whether the segment is large enough to be looked at.
    selection : Selection
        Which n segments were chosen.
    boxes : ndarray of shape (n, 4), int64
        The crop of each: left, upper, right, lower in pixels; right and lower exclusive.
    segment_size : ndarray of shape (n,), int64
        Pixels of each.
    """

    name: ImageName
    path: str
    size: tuple[int, int]
    made_from: str
    iou_pred: np.ndarray
    predicted_class: np.ndarray
    label: np.ndarray
    is_large: np.ndarray
    selection: Selection
    boxes: np.ndarray
    segment_size: np.ndarray


@dataclass(frozen=True, eq=False)
class CropTask:
    """The n segments of one image that are still to be embedded.

    Attributes
    ----------
    name : ImageName
    path : str
        The picture.
    size : tuple of (int, int)
        Height and width in pixels when it was predicted; -1: unknown.
    rows : ndarray of shape (n,), int64
        Their rows in the table of embedded segments.
    numbers : ndarray of shape (n,), int64
        Their numbers in the component map, from 1.
    boxes : ndarray of shape (n, 4), int64
        Left, upper, right, lower in pixels; right and lower exclusive.
    """

    name: ImageName
    path: str
    size: tuple[int, int]
    rows: np.ndarray
    numbers: np.ndarray
    boxes: np.ndarray

    def __str__(self):
        return str(self.name)


@dataclass(frozen=True)
class Search:
    """Where stage 4 looks for suspicious segments, and what makes one.

    Attributes
    ----------
    io_path : path
        Folder of all results.
    model, meta_model : ModelConfig
        The segmentation network, and what predicts the IoU of its segments.
    source, trained_on : DatasetConfig
        What a meta model without statistics takes them from; what names the predicted classes.
    datasets : list of DatasetConfig
        Those to search, each once.
    iou_threshold : float
        Above 0; segments with a predicted IoU below it are suspicious.
    classes : list of int, or None
        Predicted ids to look at; None: all.
    min_size, min_crop : (int, int)
        Smallest height and width in pixels, of a segment and of a crop.
    images : list of ImageName
        Those to search.
    others : frozenset of ImageName
        Those of the same datasets that other machines search.
    """

    io_path: str | Path
    model: tuple
    meta_model: tuple
    source: tuple
    trained_on: tuple
    datasets: list
    iou_threshold: float
    classes: list[int] | None
    min_size: tuple[int, int]
    min_crop: tuple[int, int]
    images: list[ImageName]
    others: frozenset[ImageName] = frozenset()

    @property
    def model_name(self):
        """Name of the segmentation network, as in the names of folders."""
        return self.model.name

    @property
    def folders(self):
        """Where the component maps lie, as `FoundSegments` has it."""
        return [self.io_path]


@dataclass(frozen=True)
class FoundSegments:
    """What stage 4 is to embed.

    Attributes
    ----------
    table : dict
        The table of embedded segments (`cache.read_embeddings`) without vectors and thumbnails.
    model_name : str
        The segmentation network that predicted them.
    min_size : sequence of (int, int)
        Smallest height and width in pixels.
    made_from : dict of str to dict
        What the segments of each dataset depend on.
    figures : dict of str to number
        How well the search went.
    folders : list of path
        Where the component maps may lie: folders of all results, the likeliest first.
    failed : tuple of (str, str)
        Name of each image that could not be searched, and why.
    not_searched : frozenset of ImageName
        The same images, and those that other machines search.
    """

    table: dict
    model_name: str
    min_size: tuple[int, int]
    made_from: dict
    figures: dict
    folders: list
    failed: tuple[tuple[str, str], ...] = ()
    not_searched: frozenset = frozenset()


@dataclass(frozen=True)
class Retrieval:
    """How well the nearest neighbours of Q queries carry their label.

    Attributes
    ----------
    average_precision : ndarray of shape (Q,), float64
        In (0, 1]; NaN for a query without any relevant row.
    precision, recall : ndarray of shape (Q, K), float64
        At each of the K counts of neighbours; in [0, 1], `recall` NaN likewise.
    """

    average_precision: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


class Measured(NamedTuple):
    """What stages 1 and 2 know of an image of H x W pixels with S segments.

    Attributes
    ----------
    prediction : Prediction
    metrics : dict of str to ndarray of shape (S,)
    components : ndarray of shape (H, W), int32
        +k inside segment k, -k on its boundary.
    """

    prediction: Prediction
    metrics: dict[str, np.ndarray]
    components: np.ndarray
