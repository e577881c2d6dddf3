"""One image through stage 2: from its prediction to its segments on disk.

Stage 1 does it itself where the probabilities are not stored.
"""

from pathlib import Path

import numpy as np

from src.errors import SettingError
from src.MetaSeg.metrics import compute_metrics_components
from src.records import Measured
from src.store import cache

SUM_TOLERANCE = 1e-3


def measure_image(index, *, io_path, model_name, dataset, predicted_ids, heatmaps, ahead):
    """Read the prediction of one image, write its metrics and its component map.

    The image so many places `ahead`, which comes next in this process, is fetched meanwhile.

    Parameters
    ----------
    predicted_ids : ndarray of shape (256,), uint8
        From the ids of the ground truth to those of the predictions; see `class_ids.match_ids`.
    heatmaps : dict of str to path
        Folder of each further heat map to aggregate, with a file <index>.npy an image.
    """
    place = io_path, model_name, dataset, index
    path = cache.prediction_path(*place)
    source = cache.made_from(path)  # before it is read: stage 1 may write another one meanwhile
    prediction = cache.read_prediction(path)
    cache.read_ahead(cache.prediction_path(io_path, model_name, dataset, index + ahead))
    if prediction.probabilities is None:
        raise SettingError(
            f"{path} was stored without probabilities: only stage 1 can measure its segments, and "
            f"without args.heatmaps; run pred_images.py with args.dataset={dataset} and "
            "args.probabilities=none args.overwrite=True, or args.probabilities=compact"
        )
    store_segments(prediction, place, predicted_ids, heatmaps, source)


def store_segments(prediction, place, predicted_ids, heatmaps=(), source=None):
    """Write the metrics and the component map of an image whose prediction is stored.

    Parameters
    ----------
    prediction : Prediction
        With probabilities; its scores are aggregated like the further heat maps.
    place : tuple
        What `cache.prediction_path` takes.
    predicted_ids, heatmaps
        As for `measure_image`.
    source : dict, optional
        What the prediction was made from; None: what its file says now.

    Raises
    ------
    ValueError
        The probabilities are none, or another map does not fit; nothing is written.
    """
    made_from = _made_from(place, predicted_ids, heatmaps, source)
    ground_truth = prediction.ground_truth
    if ground_truth is not None:
        known = (predicted_ids != cache.NO_LABEL).any()
        ids = np.minimum(ground_truth, cache.NO_LABEL)  # no mapping has larger ones
        ground_truth = predicted_ids[ids] if known else None
    maps = {name: cache.read_map(path) for name, path in _map_paths(heatmaps, place).items()}
    maps = {**prediction.scores, **maps}
    metrics, components = compute_metrics_components(
        prediction.probabilities, ground_truth, maps, prediction=prediction.prediction
    )
    _check_sums(metrics, prediction.probabilities.shape[-1])
    cache.write_components(cache.components_path(*place), components, made_from)
    cache.write_table(cache.metrics_path(*place), metrics, made_from)


def _check_sums(metrics, classes):
    """Refuse what other programs have stored as probabilities and is none."""
    sums = sum(metrics[f"cprob{k}"] for k in range(classes))
    if not (abs(sums - 1) < SUM_TOLERANCE).all():
        raise ValueError(
            f"the class probabilities of a pixel must sum to 1; over segments the mean sum is "
            f"{sums.min():.4g} to {sums.max():.4g}: store the softmax output"
        )


def read_measured(place, probabilities=False):
    """What stages 1 and 2 know of an image.

    Parameters
    ----------
    place : tuple
        What `cache.prediction_path` takes.
    probabilities : bool
        False: leave out the probabilities, which are nearly all of the file.

    Returns
    -------
    measured : Measured

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing; it is broken, or the image was predicted again since it was measured.
    """
    paths = (cache.prediction_path, cache.metrics_path, cache.components_path)
    prediction_path, metrics_path, components_path = (path(*place) for path in paths)
    source = source_of(place)
    if source and source != cache.made_from(components_path):
        raise ValueError("measured in part only; run src/MetaSeg/main.py again")
    measured = Measured(
        cache.read_prediction(prediction_path, probabilities),
        cache.read_table(metrics_path),
        cache.read_components(components_path),
    )
    if source != source_of(place):
        raise ValueError("measured again meanwhile; run this again")
    return measured


def source_of(place):
    """What the metrics of an image were made from: a dict, None for the original's file.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing; it is broken, or the image was predicted again since it was measured.
    """
    source = cache.made_from(cache.metrics_path(*place))
    if source and source["prediction"] != cache.made_from(cache.prediction_path(*place)):
        raise ValueError("predicted again since it was measured; run src/MetaSeg/main.py again")
    return source


def why_stale(place, predicted_ids, heatmaps=()):
    """Why the segments must be measured, or measured again, as text; None: they need not.

    Metrics of further heat maps that are there are kept where none are asked for.
    """
    made_from = _made_from(place, predicted_ids, heatmaps)
    paths = cache.metrics_path(*place), cache.components_path(*place)
    ignored = () if heatmaps else ("heatmaps",)
    reasons = (cache.why_stale(path, made_from, ignored) for path in paths)
    return next(filter(None, reasons), None)


def _made_from(place, predicted_ids, heatmaps, source=None):
    source = source or cache.made_from(cache.prediction_path(*place))
    made_from = {"prediction": source, "predicted_ids": predicted_ids.tolist()}
    if heatmaps:
        paths = _map_paths(heatmaps, place)
        made_from["heatmaps"] = {name: cache.state_of(path) for name, path in paths.items()}
    return made_from


def _map_paths(heatmaps, place):
    return {name: Path(heatmaps[name], f"{place[-1]}.npy") for name in heatmaps}
