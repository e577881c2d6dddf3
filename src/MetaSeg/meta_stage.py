"""Stage 3: from the tables of measured pictures to a meta model, and how well it predicts."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import r2_score

from src.errors import SettingError
from src.MetaSeg import analysis, meta_training, segment_tables, stage
from src.MetaSeg import meta_models as meta
from src.records import NO_LABEL
from src.store import arrays, provenance
from src.store.paths import Results
from src.store.tables import read_table

FAR_BELOW = 0.25  # of predicted IoUs that do not reach the true ones


@dataclass(frozen=True)
class Training:
    """What is to be learnt, and from what."""

    entry: tuple  # of the meta model
    path: Path  # where it is stored
    # identity of the segmentation network; None: its weights are not here
    network: dict | None
    learnt: Results  # of the dataset to learn from
    judged: Results  # of the dataset to judge by
    options: dict  # `seed` and others of `meta_training.fit`
    least: int  # pixels of a segment that counts as large
    labels: tuple = (None, None)  # of both datasets, see `measured_tables`


class MeasuredTable(NamedTuple):
    """The segments of a measured image."""

    index: int
    made_from: dict | None  # None: the original's file
    metrics: dict[str, np.ndarray]
    unlabelled: int = 0  # segments whose IoU is unknown only as they lie on unlabelled ground


def train(run, training, report):
    """Train the meta model unless it is there already, and judge it; `report`: see `fit`.

    Returns
    -------
    figures : dict of str to float, or None
        See `judge`, on the dataset to judge by; None without its segments, which training needs and
        a trained model does not, and in a dry run.
    """
    log, path, entry = run.log, training.path, training.entry
    learnt, judged = (
        measured_tables(results, results.indices("metrics", missing_ok=True), labels)
        for results, labels in zip((training.learnt, training.judged), training.labels, strict=True)
    )
    if training.network is None:
        log.info("the weights of %s are not here: taking its predictions as they are",
                 training.learnt.model)  # fmt: skip
        training = replace(training, network=noted_network([*learnt, *judged]))
    made_from, segments = made_from_of(training, learnt, judged)
    read = partial(read_segments, training.network)
    if not run.overwrite:
        _refuse_another_networks(path, training)
    reason = "args.overwrite" if run.overwrite else why_stale(path, made_from, segments)
    if reason is None:
        log.info("%s was made from the same: not trained again", path)
    elif run.dry_run:
        log.info("%s would be trained: %s", path, reason)
    else:
        made_from |= segments
        run.prepare(path.parent)
        tables = read(training.learnt, learnt), read(training.judged, judged)
        _fit_and_store(training, tables, made_from, report)
        log.info("wrote %s", path)
    if run.dry_run or not judged:
        return None
    table = read(training.judged, judged)
    predicted_iou = meta.load_meta_model(path, entry).predict_table(table)
    return judge(log, training.judged.dataset, table, predicted_iou, training.least)


def judge(log, dataset, table, predicted_iou, least):
    """Log how well the IoU of segments is predicted, of all and of large ones.

    Gives `r2` and, where there are some of at least `least` pixels that differ, `r2_large`:
    coefficients of determination. It is a warning where the largest predicted IoUs (95th
    percentiles) of large segments are far below the true ones.
    """
    figures, true_iou = {}, table.true_iou
    is_large = table.features[:, table.feature_names.index("S")] >= least
    for name, rows, what in (
        ("r2", np.ones(len(true_iou), bool), "all"),
        ("r2_large", is_large, f"those of {least} pixels and more"),
    ):
        if rows.any() and np.ptp(true_iou[rows]) > 0:
            figures[name] = float(r2_score(true_iou[rows], predicted_iou[rows]))
            log.info(
                "R^2 of the predicted IoU on %s: %.3f (%d segments, %s)",
                dataset, figures[name], rows.sum(), what,
            )  # fmt: skip
    if is_large.any():
        largest, possible = (np.quantile(iou[is_large], 0.95) for iou in (predicted_iou, true_iou))
        if possible - largest > FAR_BELOW:
            log.warning(
                "the predicted IoU of segments of %d pixels and more ends at %.2f, their true IoU "
                "at %.2f (95th percentiles): choose args.iou_threshold of stage 4 well below %.2f, "
                "or learn from more pictures with such segments",
                least, largest, possible, largest,
            )  # fmt: skip
    return figures


def _refuse_another_networks(path, training):
    """Keep a meta model that another segmentation network still needs."""
    of_network = (meta.made_from(path) or {}).get("network")
    if not (of_network and training.network):  # nobody knows
        return
    its, ours = (
        {key: of[key] for key in ("class", "kwargs")} for of in (of_network, training.network)
    )
    if its != ours:
        raise SettingError(
            f"{path} is the meta model of another network ({its['class']}, {its['kwargs']}): name "
            "a file for this one by args.meta_weights=..., here and in later stages, or replace it "
            "by args.overwrite=True"
        )


def _fit_and_store(training, tables, made_from, report):
    path, losses = training.path, []

    def note(epoch, *both):
        losses.append(both)
        report(epoch, *both)

    progress = path.with_name(f".{path.name}.{provenance.digest(made_from)[:16]}.training")
    trained = meta_training.fit(
        training.entry, *tables, report=note, progress_path=progress, **training.options
    )
    if losses:  # drawn first: once the model is there, this is not done again
        learnt, judged = training.learnt.dataset, training.judged.dataset
        analysis.draw_losses(path.with_suffix(""), losses, learnt, judged)
    meta.save_meta_model(path, trained, made_from)
    for other in path.parent.glob(f".{path.name}.*.training"):  # of trainings given up
        other.unlink(missing_ok=True)


def made_from_of(training, learnt, judged):
    """What the meta model depends on: the settings, and the segments of `measured_tables`."""
    names = [results.dataset for results in (training.learnt, training.judged)]
    tables = dict(zip(names, (learnt, judged), strict=True))
    segments = {
        "images": {name: len(found) for name, found in tables.items()},
        "metrics": list(segment_tables.feature_names(learnt[0].metrics)) if learnt else [],
        "unlabelled": sum(image.unlabelled for image in (*learnt, *judged)),
        "tables": provenance.digest(
            [
                [(image.index, provenance.digest(image.made_from or {})) for image in found]
                for found in tables.values()
            ]
        ),
    }
    made_from = {
        "network": training.network,
        "meta_model": provenance.identity(training.entry._replace(model_weights=None)),
        "datasets": names,
        **training.options,
    }
    return made_from, segments


def why_stale(path, made_from, segments):
    """Why the meta model must be trained, as text; None: it need not.

    It depends on what `made_from_of` gives; on the segments only where there are any to learn from.
    """
    there = meta.made_from(path)
    if there is None:
        return "missing or broken" if path.is_file() else "missing"
    there = {"unlabelled": 0} | there  # an earlier version learnt that their IoU is 0
    has_segments = segments["images"][made_from["datasets"][0]]
    # the file that this project comes with was trained elsewhere, on tables that differ by rounding
    compared = {key: segments[key] for key in segments if has_segments and key in there}
    others = {key: value for key, value in there.items() if key not in segments}
    others |= {key: there[key] for key in compared}
    return provenance.why_differs(others, made_from | compared)


def measured_tables(results, indices, labels=None):
    """The MeasuredTable of some images.

    Where segments lie wholly on ground without a label, there is no telling whether they are right:
    their `iou` and `iou0` become NaN. `labels` (256,) bool says which true ids are classes, see
    `class_ids.are_classes`; None: they stay 0, as in the original, and in files of the original.

    Raises
    ------
    SettingError
        A table is broken, or the image was predicted again since.
    """
    found = []
    for index in indices:
        try:
            table, source = read_table(results.metrics(index)), stage.source_of(results, index)
            image = MeasuredTable(index, source, table)
            is_told = labels is None or source is None
            found.append(image if is_told else _without_unlabelled(results, image, labels))
        except (FileNotFoundError, ValueError) as error:
            raise SettingError(f"image {index} of {results.dataset!r}: {error}") from error
    return found


def _without_unlabelled(results, image, labels):
    iou = np.asarray(image.metrics["iou"], np.float64)
    if not (iou == 0).any():
        return image
    prediction = arrays.read_prediction(results.prediction(image.index), probabilities=False)
    numbers = np.abs(arrays.read_components(results.components(image.index)))
    has_label = labels[np.minimum(prediction.ground_truth, NO_LABEL)]
    is_bare = np.bincount(numbers[has_label], minlength=len(iou) + 1)[1:] == 0
    unknown = {name: np.where(is_bare, np.nan, image.metrics[name]) for name in ("iou", "iou0")}
    return image._replace(metrics=image.metrics | unknown, unlabelled=int(is_bare.sum()))


def noted_network(tables):
    """Identity of the network that predicted the first image; None where that is the original's."""
    source = tables[0].made_from if tables else None
    return ((source or {}).get("prediction") or {}).get("network")


def known_segments(tables):
    """One table of `measured_tables`, of the segments whose IoU is known."""
    metrics = [(image.index, image.metrics) for image in tables]
    return segment_tables.with_known_iou(segment_tables.segment_table(metrics))


def read_segments(network, results, tables):
    """The `known_segments` of a dataset; refuses those of another network."""
    dataset = results.dataset
    if not tables:
        raise SettingError(
            f"{dataset!r} has no metrics files; run src/MetaSeg/main.py with args.dataset={dataset}"
        )
    for index, made_from, *_ in tables:
        prediction = (made_from or {}).get("prediction")  # None: the original's file
        if prediction and prediction["network"] != network:
            raise SettingError(
                f"image {index} of {dataset!r} was predicted with other weights or another class; "
                f"run pred_images.py, then src/MetaSeg/main.py with args.dataset={dataset} again"
            )
    table = known_segments(tables)
    true_iou = table.true_iou
    if np.ptp(true_iou) == 0:
        raise SettingError(
            f"all {len(true_iou)} segments of {dataset!r} have the IoU {true_iou[0]}: there is "
            "nothing to learn or to judge by; measure more images"
        )
    return table
