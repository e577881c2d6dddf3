"""One picture at a time, for notebooks and the Python prompt; nothing is written.

The work is that of the stages, by the same functions. docs/notebook.md shows how to use it.
"""

import logging
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import nn

from src import pictures
from src.datasets import read_image
from src.embedding.crops import segment_boxes
from src.MetaSeg.meta_models import MetaModel, load_meta_model
from src.MetaSeg.metrics import compute_metrics_components
from src.model_card import ModelCard, ask, card_of
from src.segmentation import inference

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A segmentation network with all that its input and output need."""

    network: nn.Module  # in evaluation mode, on its device
    card: ModelCard  # its classes, and what its input must be
    meta_model: MetaModel | None


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of one picture of H x W pixels: columns of S rows each, and where they are."""

    number: np.ndarray  # (S,) int64: 1, 2, ..., S; row k - 1 is segment k
    class_name: np.ndarray  # (S,) str, of the predicted class
    predicted_iou: np.ndarray  # (S,) float32 in [0, 1]; NaN without a meta model
    size: np.ndarray  # (S,) int64, in pixels
    box: np.ndarray  # (S, 4) int64: left, upper, right, lower in pixels; the last two exclusive
    # (S,) each, see `compute_metrics_components`; the true IoU (`iou`) is unknown here, NaN
    metrics: dict[str, np.ndarray]
    components: np.ndarray  # (H, W) int32: the segment of each pixel, by its number


def load(model, trained_on, meta_model=None, gpu=0):
    """Load a network and its meta model: a Loaded.

    Parameters
    ----------
    model : ModelConfig
        Entry of `models` in configuration.py.
    trained_on : DatasetConfig
        What it learnt on, an entry of `datasets`: names its classes, and has its mean and std,
        where it does not say them itself.
    meta_model : ModelConfig, optional
        Entry of `meta_models`; None: predicted IoUs are unknown.
    gpu : int or None
        Index of the GPU, where there is one; None: the CPU.

    Raises
    ------
    SettingError
        A class cannot be found; weights are missing, or do not fit.
    """
    return Loaded(
        network=inference.load_network(model, inference.choose_device(gpu, _log)),
        card=card_of(model, trained_on, ask(model)),
        meta_model=meta_model and load_meta_model(meta_model.model_weights, meta_model),
    )


def predict(loaded, path):
    """Predict the classes of one picture: a Prediction with probabilities, without ground truth.

    Raises
    ------
    OSError, ValueError
        The picture cannot be read, or what the network gives are no logits of its size.
    """
    card = loaded.card
    image, _ = inference.to_input(card.mean, card.std)(read_image(path), None)
    computing = inference.Computing(size=card.size, multiple_of=card.multiple_of)
    sample = image, None, str(path)
    ((_, prediction),) = inference.predict_images(loaded.network, [(0, sample)], computing)
    if isinstance(prediction, Exception):
        raise prediction
    return prediction


def segments(loaded, prediction):
    """Split a prediction with probabilities into its segments, measure them, and predict their IoU.

    A meta model that was trained on another network's metrics is a SettingError.
    """
    metrics, components = compute_metrics_components(
        prediction.probabilities, heatmaps=prediction.scores, prediction=prediction.prediction
    )
    count = len(metrics["class"])
    names = [
        loaded.card.classes.get(key, (f"class {key}",))[0] for key in metrics["class"].tolist()
    ]
    unknown = np.full(count, np.nan, np.float32)
    return Segments(
        number=np.arange(1, count + 1),
        class_name=np.array(names, np.str_),
        predicted_iou=loaded.meta_model.predict(metrics) if loaded.meta_model else unknown,
        size=metrics["S"].astype(np.int64),
        box=segment_boxes(components),
        metrics=metrics,
        components=np.abs(components),
    )


def show(loaded, prediction, segments, boxed=()):
    """Draw a picture in four views: as it is, its classes, its entropy, its predicted IoUs.

    The segments whose numbers are in `boxed` have a red box around them.

    Returns
    -------
    picture : PIL.Image
        Of twice the height and width. Below the picture its entropy, dark where the network is
        sure; to the right the predicted classes, below them their IoU, red (0) to blue (1).
    """
    image = np.asarray(read_image(prediction.image_path))
    panels = [
        image,
        pictures.colour_classes(prediction.prediction, loaded.card.classes),
        pictures.entropy_heatmap(prediction),
        pictures.iou_map(segments.components, segments.predicted_iou),
    ]
    for number in boxed:
        box = segments.box[number - 1]
        panels = [pictures.draw_box(panel, box) for panel in panels]
    rows = [np.hstack(panels[:2]), np.hstack(panels[2:])]
    return Image.fromarray(np.vstack(rows))
