"""The small records that pass between the stages; NumPy only."""

from dataclasses import dataclass, field, replace
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
    """The segments of many images as rows: S rows of F features."""

    features: np.ndarray  # (S, F) float64, segment metrics, not standardised
    feature_names: tuple[str, ...]  # one name a column
    image_index: np.ndarray  # (S,) int64, the image within its dataset, from 0
    component_index: np.ndarray  # (S,) int64, the component within the image, from 1
    predicted_class: np.ndarray  # (S,) int64, id in the training set's `pred_mapping`
    true_iou: np.ndarray  # (S,) float64, adjusted, in [0, 1]; NaN = unknown


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """Objects as rows: columns of N entries each, by name.

    `dataset`, `image_index` and `component_index` tell a row from every other.

    Attributes
    ----------
    columns : dict of str to ndarray of shape (N, ...)
        Of the picture: `dataset`, `model_name`, `image_path`, str; `image_index`, int64;
        `image_size` (N, 2), int64, height and width in pixels, -1 where unknown;
        `image_predicted_iou`, float32 arrays with the predicted IoU of all its segments;
        `image_made_from`, str, which changes when it is segmented anew.

        Of the object: `segments`, int64 arrays with the numbers of its segments, from 1 within the
        picture, the largest first; `component_index`, int64, that one; `box` (N, 4), int64, left,
        upper, right, lower of the crop in pixels, right and lower exclusive; `true_id`, int64, the
        most frequent id of its dataset (255: none); `predicted_id`, int64, the class that most of
        its pixels have; means over its pixels: `predicted_iou`, float32, NaN where unknown, and
        `suspicion`, float32, higher = stranger, by what stage 4 was asked for, 1 - predicted IoU in
        older tables; `segment_size`, int64, in pixels, -1 where unknown.

        Of a whole table: `novelty`, float32, how far its vector is from those of known segments,
        see `embedding.novelty`; NaN where none are there.

        Some tables also have `embeddings` (N, F), float32; `thumbnail`, bytes (JPEG),
        which may be `store.stored_bytes.StoredBytes`;
        `annotated`; and from stage 5 `nn_embeddings` (N, D) and `plot_embeddings` (N, 2), float32,
        NaN where an object has come since.
    facts : dict
        What is said of the table as a whole, such as "reduced_by" and "made_from".
    """

    columns: dict[str, np.ndarray]
    facts: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.columns["component_index"])

    def __contains__(self, name):
        return name in self.columns

    def __getitem__(self, name):
        return self.columns[name]

    def take(self, rows):
        """The table with only some of its rows, in the order of `rows`: numbers or a mask."""
        rows = np.asarray(rows)
        rows = rows if rows.dtype == bool else rows.astype(np.int64)
        return replace(self, columns={name: values[rows] for name, values in self.columns.items()})

    def with_columns(self, **columns):
        """The table with further columns, or others."""
        return replace(self, columns=self.columns | columns)

    def with_facts(self, **facts):
        """The table with further facts, or others."""
        return replace(self, facts=self.facts | facts)

    def by_suspicion(self, rows, column="suspicion"):
        """Numbers of rows with the most suspicious first, the unknown last; equal ones stay.

        `column` is another one to rank by, such as `novelty`.
        """
        rows = np.asarray(rows, np.int64)
        return rows[np.argsort(-self[column][rows], kind="stable")]

    def image_names(self):
        """Dataset and index of the picture of each row: a list of ImageName."""
        pairs = zip(self["dataset"], self["image_index"].tolist(), strict=True)
        return [ImageName(*pair) for pair in pairs]


class ImageName(NamedTuple):
    """An image by its dataset and its index there."""

    dataset: str
    index: int

    def __str__(self):
        return f"{self.index} of {self.dataset}"


class Measured(NamedTuple):
    """What stages 1 and 2 know of an image of H x W pixels with S segments."""

    prediction: Prediction
    metrics: dict[str, np.ndarray]  # (S,) each
    components: np.ndarray  # (H, W) int32, +k inside segment k, -k on its boundary
