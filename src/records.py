"""The small records that pass between the stages; NumPy only."""

from dataclasses import dataclass

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
    """

    probabilities: np.ndarray | None
    prediction: np.ndarray
    ground_truth: np.ndarray | None
    image_path: str
    heatmaps: np.ndarray | None = None


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
    iou : ndarray of shape (S,), float64
        Adjusted IoU with the ground truth, in [0, 1]; NaN = unknown.
    """

    features: np.ndarray
    feature_names: tuple[str, ...]
    image_index: np.ndarray
    component_index: np.ndarray
    predicted_class: np.ndarray
    iou: np.ndarray


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
    """

    done: int
    skipped: int
    failed: tuple[tuple[str, str], ...]
    seconds: float


@dataclass(frozen=True)
class Selection:
    """Which segments of an image are looked at further; each of the others fell to one filter.

    Attributes
    ----------
    chosen : ndarray of shape (S,), bool
        Entry k - 1 is segment k.
    high_iou, other_class, too_small : int
        Segments with a predicted IoU not below the threshold; of the rest, those of a class that
        is not selected; of the rest, those that are too small.
    """

    chosen: np.ndarray
    high_iou: int
    other_class: int
    too_small: int


@dataclass(frozen=True)
class JudgedImage:
    """One image's S segments with their predicted IoU, and which of them are suspicious.

    Attributes
    ----------
    index : int
        Of the image in its dataset.
    path : str
        The picture.
    size : tuple of (int, int)
        Height and width in pixels.
    iou_pred : ndarray of shape (S,), float32
        In [0, 1].
    predicted_class, label : ndarray of shape (S,), int64
        Predicted id, and most frequent true id; 255 = no label.
    boxes : ndarray of shape (S, 4), int64
        Left, upper, right, lower in pixels; right and lower exclusive.
    selection : Selection
        Which segments were chosen.
    made_from : list
        What all this depends on, in values that JSON can hold.
    """

    index: int
    path: str
    size: tuple[int, int]
    iou_pred: np.ndarray
    predicted_class: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    selection: Selection
    made_from: list


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
