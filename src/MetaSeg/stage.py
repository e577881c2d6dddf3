"""Stage 2: from the predictions of a dataset to its segments on disk.

Stage 1 measures a picture itself where the probabilities are not stored.
"""

from functools import cache, partial
from pathlib import Path

import numpy as np

from src import pictures
from src.errors import SettingError
from src.MetaSeg.metrics import compute_metrics_components
from src.records import NO_LABEL, Measured
from src.store import arrays, files, provenance, tables
from src.store.seen import Seen

SUM_TOLERANCE = 1e-3


def measure_dataset(run, results, predicted_ids, heatmaps, num_images=None):
    """Measure the segments of the images that have no up-to-date metrics yet; gives the Tally.

    Parameters
    ----------
    run : Runner
    results : Results
    predicted_ids : ndarray of shape (256,), uint8
        From the ids of the ground truth to those of the predictions; see `class_ids.match_ids`.
    heatmaps : dict of str to path
        Folder of each further heat map to aggregate, with a file <index>.npy an image.
    num_images : int, optional
        Only the first so many images; None: all.
    """
    indices = run.in_shard(results.indices("input")[:num_images])
    run.prepare(results.folder("metrics"), results.folder("components"))
    options = dict(results=results, predicted_ids=predicted_ids, heatmaps=heatmaps)
    ahead = 1 if run.scheduler else run.num_cores  # jobs elsewhere are images one after the other
    with run.on_cluster(results.io_path) as run:
        return run.each(
            partial(measure_image, ahead=ahead, **options),
            indices,
            f"measuring {results.dataset}",
            why=seen(results, predicted_ids, heatmaps),
        )


def measure_image(index, results, predicted_ids, heatmaps, ahead):
    """Read the prediction of one image, write its metrics and its component map.

    The image so many places `ahead`, which comes next in this process, is fetched meanwhile.
    """
    path = results.prediction(index)
    # before it is read: stage 1 may write another one meanwhile
    made_from = _made_from(results, index, predicted_ids, heatmaps)
    prediction = arrays.read_prediction(path, as_stored=True)
    files.read_ahead(results.prediction(index + ahead))
    if prediction.probabilities is None:
        raise SettingError(
            f"{path} was stored without probabilities: only stage 1 can measure its segments, and "
            f"without args.heatmaps; run pred_images.py with args.dataset={results.dataset} and "
            "args.probabilities=none args.overwrite=True, or args.probabilities=compact"
        )
    maps = {name: arrays.read_map(path) for name, path in _map_paths(heatmaps, index).items()}
    store_segments(results, index, prediction, made_from, maps)


def store_segments(results, index, prediction, made_from, maps=None):
    """Write the metrics and the component map of an image whose prediction is stored.

    Parameters
    ----------
    prediction : Prediction
        With probabilities; its scores are aggregated like the further heat maps.
    made_from : dict
        See `provenance.of_segments`.
    maps : dict of str to ndarray of shape (H, W), optional
        Further heat maps.

    Raises
    ------
    ValueError
        The probabilities are none, or another map does not fit; nothing is written.
    """
    ground_truth = prediction.ground_truth
    if ground_truth is not None:
        predicted_ids = np.array(made_from["predicted_ids"], np.uint8)
        known = (predicted_ids != NO_LABEL).any()
        ids = np.minimum(ground_truth, NO_LABEL)  # no mapping has larger ones
        ground_truth = predicted_ids[ids] if known else None
    metrics, components = compute_metrics_components(
        prediction.probabilities,
        ground_truth,
        {**prediction.scores, **(maps or {})},
        prediction=prediction.prediction,
    )
    _check_sums(metrics, prediction.probabilities.shape[-1])
    arrays.write_components(results.components(index), components, made_from)
    tables.write_table(results.metrics(index), metrics, made_from)


def _check_sums(metrics, classes):
    """Refuse what other programs have stored as probabilities and is none."""
    sums = sum(metrics[f"cprob{k}"] for k in range(classes))
    if not (abs(sums - 1) < SUM_TOLERANCE).all():
        raise ValueError(
            f"the class probabilities of a pixel must sum to 1; over segments the mean sum is "
            f"{sums.min():.4g} to {sums.max():.4g}: store the softmax output"
        )


def read_measured(results, index, probabilities=False):
    """What stages 1 and 2 know of an image: Measured, see `arrays.read_prediction`.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing; it is broken, or the image was predicted again since it was measured.
    """
    source = source_of(results, index)
    if source and source != provenance.made_from(results.components(index)):
        raise ValueError("measured in part only; run src/MetaSeg/main.py again")
    measured = Measured(
        arrays.read_prediction(results.prediction(index), probabilities),
        tables.read_table(results.metrics(index)),
        arrays.read_components(results.components(index)),
    )
    lengths = {len(column) for column in measured.metrics.values()}
    if lengths != {max(measured.components.max(), -measured.components.min())}:
        raise ValueError(
            f"{results.metrics(index)} has other segments than {results.components(index)}; delete "
            "both and run src/MetaSeg/main.py again"
        )
    if source != source_of(results, index):
        raise ValueError("measured again meanwhile; run this again")
    return measured


def own_maps(results, index):
    """The further heat maps that the metrics of an image have means of: (H, W) float32 by name.

    Raises
    ------
    FileNotFoundError, ValueError
        See `source_of`; a map is missing, or is another one now.
    """
    noted = (source_of(results, index) or {}).get("heatmaps", {})
    maps = {}
    for name, of_map in noted.items():
        path = provenance.path_of(of_map)
        if provenance.why_differs(of_map, provenance.content(path, of_map)):
            raise ValueError(f"{path} has changed since; run src/MetaSeg/main.py again")
        maps[name] = np.asarray(arrays.read_map(path), np.float32)
    return maps


def source_of(results, index, path=None):
    """What the metrics of an image were made from: a dict, None for the original's file.

    `path` is another file of its segments to ask.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing; it is broken, or the image was predicted again since it was measured, or
        would have to be, as it has changed.
    """
    source = provenance.made_from(path or results.metrics(index))
    if source:
        prediction = provenance.made_from(results.prediction(index)) or {}
        if provenance.why_differs(source["prediction"] or {}, prediction):
            raise ValueError("predicted again since it was measured; run src/MetaSeg/main.py again")
        provenance.check_inputs(prediction)
    return source


def seen(results, predicted_ids, heatmaps):
    """Tells which images need not be measured: a Seen."""
    facts = {"predicted_ids": predicted_ids, "heatmaps": [*heatmaps]}

    def paths(index):
        measured = results.metrics(index), results.components(index)
        return [*measured, results.prediction(index), *_map_paths(heatmaps, index).values()]

    def why(index):
        return why_stale(results, index, predicted_ids, heatmaps)

    def inputs(index):
        return provenance.inputs_of(results.prediction(index))

    return Seen(results.folder("metrics") / "seen.json", facts, paths, why, inputs)


def why_stale(results, index, predicted_ids, heatmaps=None):
    """Why the segments must be measured, or measured again, as text; None: they need not.

    Metrics of further heat maps that are there are kept where none are asked for.
    """
    prediction = cache(partial(_prediction_from, results, index))  # read once

    def made_from(known):
        maps = _map_paths(heatmaps, index)
        return provenance.of_segments(prediction(), predicted_ids, maps, known)

    ignored = () if heatmaps else ("heatmaps",)
    paths = results.metrics(index), results.components(index)
    reasons = (provenance.why_stale(path, made_from, ignored) for path in paths)
    return next(filter(None, reasons), None)


def _made_from(results, index, predicted_ids, heatmaps):
    prediction = _prediction_from(results, index)
    maps = _map_paths(heatmaps, index)
    return provenance.of_segments(prediction, predicted_ids, maps)


def _prediction_from(results, index):
    prediction = provenance.made_from(results.prediction(index))
    provenance.check_inputs(prediction or {})
    return prediction


def _map_paths(heatmaps, index):
    return {name: Path(folder, f"{index}.npy") for name, folder in (heatmaps or {}).items()}


def draw_ratings(run, results, meta_model, mappings, num_images=None):
    """Draw true and predicted IoU of the segments of every measured image; gives the Tally.

    `mappings` are `label_mapping` of the dataset and `pred_mapping` of the predictions; the others
    as of `measure_dataset`.
    """
    run.prepare(results.folder("pictures/rating"))
    return run.each(
        partial(draw_rating, results=results, meta_model=meta_model, mappings=mappings),
        run.in_shard(results.indices("metrics")[:num_images]),
        f"drawing {results.dataset}",
    )


def draw_rating(index, results, meta_model, mappings):
    """Draw true and predicted IoU of the segments of one image; see `pictures.rating_panels`."""
    from src.MetaSeg import ratings  # needs matplotlib's figures, whose import takes long

    prediction, metrics, components = read_measured(results, index)
    true_iou = np.asarray(metrics["iou"], np.float64)
    panels = pictures.rating_panels(
        prediction, components, true_iou, meta_model.predict(metrics), *mappings
    )
    classes = pictures.legend_of(prediction.prediction, mappings[1])
    if prediction.ground_truth is not None:
        classes = pictures.legend_of(prediction.ground_truth, mappings[0]) + classes
    ratings.write(results, index, prediction.image_path, panels, list(dict.fromkeys(classes)))
