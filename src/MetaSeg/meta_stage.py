"""Stage 3: from the tables of measured pictures to a meta model, and how well it predicts."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.metrics import r2_score

from src.errors import SettingError
from src.MetaSeg import analysis, meta_training, segment_tables, stage
from src.MetaSeg import meta_models as meta
from src.store import provenance
from src.store.paths import Results
from src.store.tables import read_table


@dataclass(frozen=True)
class Training:
    """What is to be learnt, and from what."""

    entry: tuple  # of the meta model
    path: Path  # where it is stored
    network: dict  # identity of the segmentation network
    learnt: Results  # of the dataset to learn from
    judged: Results  # of the dataset to judge by
    options: dict  # `seed` and others of `meta_training.fit`


def train(run, training, report):
    """Train the meta model unless it is there already, and judge it; `report`: see `fit`.

    Returns
    -------
    r2 : float or None
        Coefficient of determination of the predicted IoU on the dataset to judge by; None without
        its segments, which training needs and a trained model does not, and in a dry run.
    """
    log, path, entry = run.log, training.path, training.entry
    learnt, judged = (
        measured_tables(results, results.indices("metrics", missing_ok=True))
        for results in (training.learnt, training.judged)
    )
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
    r2, name = float(r2_score(table.true_iou, predicted_iou)), training.judged.dataset
    log.info("R^2 of the predicted IoU on %s: %.3f (%d segments)", name, r2, len(predicted_iou))
    return r2


def _refuse_another_networks(path, training):
    """Keep a meta model that another segmentation network still needs."""
    of_network = (meta.made_from(path) or {}).get("network", training.network)
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
    meta.save_meta_model(path, trained, made_from)
    for other in path.parent.glob(f".{path.name}.*.training"):  # of trainings given up
        other.unlink(missing_ok=True)
    if losses:
        analysis.draw_losses(path.with_suffix(".png"), losses)


def made_from_of(training, learnt, judged):
    """What the meta model depends on: the settings, and the segments of `measured_tables`."""
    names = [results.dataset for results in (training.learnt, training.judged)]
    tables = dict(zip(names, (learnt, judged), strict=True))
    segments = {
        "images": {name: len(found) for name, found in tables.items()},
        "metrics": list(segment_tables.feature_names(learnt[0][2])) if learnt else [],
        "tables": provenance.digest(
            [
                [(index, provenance.digest(source or {})) for index, source, _ in found]
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
    has_segments = segments["images"][made_from["datasets"][0]]
    # the file that this project comes with was trained elsewhere, on tables that differ by rounding
    compared = {key: segments[key] for key in segments if has_segments and key in there}
    others = {key: value for key, value in there.items() if key not in segments}
    others |= {key: there[key] for key in compared}
    return provenance.why_differs(others, made_from | compared)


def measured_tables(results, indices):
    """Index, what it was made from, and table of some measured images.

    Raises
    ------
    SettingError
        A table is broken, or the image was predicted again since.
    """
    found = []
    for index in indices:
        try:
            table = read_table(results.metrics(index))
            found.append((index, stage.source_of(results, index), table))
        except (FileNotFoundError, ValueError) as error:
            raise SettingError(f"image {index} of {results.dataset!r}: {error}") from error
    return found


def known_segments(tables):
    """One table of `measured_tables`, of the segments whose IoU is known."""
    metrics = [(index, table) for index, _, table in tables]
    return segment_tables.with_known_iou(segment_tables.segment_table(metrics))


def read_segments(network, results, tables):
    """The `known_segments` of a dataset; refuses those of another network."""
    dataset = results.dataset
    if not tables:
        raise SettingError(
            f"{dataset!r} has no metrics files; run src/MetaSeg/main.py with args.dataset={dataset}"
        )
    for index, made_from, _ in tables:
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
