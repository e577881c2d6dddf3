"""Stage 3 (optional): train the model that predicts the IoU of a segment from its metrics.

    python train_meta_nn.py with args.meta_model=meta_nn args.epochs=50

Writes the model to `args.meta_weights`, the losses of a network beside it as a picture, and prints
how well it predicts on other images. A training that was interrupted is gone on with.
"""

from pathlib import Path

import numpy as np
from sklearn.metrics import r2_score

from configuration import CONFIG, datasets, meta_models, models
from src import registry
from src.errors import SettingError
from src.MetaSeg import analysis, stage
from src.MetaSeg import meta_models as fitting
from src.run.experiment import create_experiment
from src.run.settings import PATH, POSITIVE, setting, shared_settings
from src.store import provenance
from src.store.files import prepare
from src.store.paths import Results
from src.store.tables import read_table

ex = create_experiment("train_meta_nn")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.TRAIN_DATASET.name, "entry of `datasets` to learn from"),
        val_dataset=setting(CONFIG.VAL_DATASET.name, "entry of `datasets` to judge by"),
        **shared_settings(CONFIG, "model_name"),
        meta_model=setting(CONFIG.META_MODEL_NAME, "entry of `meta_models` to train"),
        meta_weights=setting(
            None, "file to write", none="`model_weights` of the meta model's entry", kind=PATH
        ),
        **shared_settings(CONFIG, "io_path"),
        epochs=setting(50, "times that a network sees every segment", at_least=1),
        batch_size=setting(256, "segments a step of a network", at_least=1),
        learning_rate=setting(CONFIG.META_LEARNING_RATE, "of a network's Adam", kind=POSITIVE),
        patience=setting(
            None,
            "stop after so many epochs without a smaller validation loss",
            none="never",
            at_least=1,
        ),
        **shared_settings(CONFIG, "seed", "overwrite", "dry_run"),
    )


def train_meta_model(
    log, run, *, dataset, val_dataset, model_name, meta_model, meta_weights, io_path, overwrite,
    dry_run, **training,
):  # fmt: skip
    """Train the meta model unless it is there already, and judge it.

    Returns
    -------
    r2 : float or None
        Coefficient of determination of the predicted IoU on `val_dataset`; None without its
        segments, which training needs and a trained model does not, and in a dry run.
    """
    model = registry.choose(models, model_name, "model")
    entry = registry.choose(meta_models, meta_model, "meta model")
    for name in (dataset, val_dataset):
        registry.choose(datasets, name, "dataset")
    path = Path(meta_weights or entry.model_weights)
    tables = {
        name: measured_tables(Results(io_path, model_name, name)) for name in (dataset, val_dataset)
    }
    segments = {
        "images": {name: len(found) for name, found in tables.items()},
        "metrics": metric_names(tables[dataset]),
        "tables": provenance.digest([sources_of(tables[name]) for name in tables]),
    }
    made_from = {
        "network": provenance.identity(model),
        "meta_model": provenance.identity(entry._replace(model_weights=None)),
        "datasets": [dataset, val_dataset],
        **training,
    }

    def read(name):
        return read_segments(name, tables[name], made_from["network"])

    reason = "args.overwrite" if overwrite else why_stale(path, made_from, segments)
    if reason is None:
        log.info("%s was made from the same: not trained again", path)
    elif dry_run:
        log.info("%s would be trained: %s", path, reason)
    else:
        made_from |= segments
        prepare(path.parent)
        losses, progress = [], f".{path.name}.{provenance.digest(made_from)[:16]}.training"
        trained = fitting.fit(
            entry, read(dataset), read(val_dataset), report=_reporting_to(run, losses),
            progress_path=path.with_name(progress), **training,
        )  # fmt: skip
        fitting.save_meta_model(path, trained, made_from)
        for other in path.parent.glob(f".{path.name}.*.training"):  # of trainings given up
            other.unlink(missing_ok=True)
        if losses:
            analysis.draw_losses(path.with_suffix(".png"), losses)
        log.info("wrote %s", path)
    if dry_run or not tables[val_dataset]:
        return None
    table = read(val_dataset)
    r2 = float(r2_score(table.iou, fitting.load_meta_model(path, entry).predict_table(table)))
    log.info("R^2 of the predicted IoU on %s: %.3f (%d segments)", val_dataset, r2, len(table.iou))
    return r2


def why_stale(path, made_from, segments):
    """Why the meta model must be trained, as text; None: it need not.

    Parameters
    ----------
    path : path
        Of its weights file.
    made_from : dict
        The settings that it depends on.
    segments : dict
        The segments likewise; where there are none to learn from, it does not matter.
    """
    there = fitting.made_from(path)
    if there is None:
        return "missing or broken" if path.is_file() else "missing"
    has_segments = segments["images"][made_from["datasets"][0]]
    # the file that this project comes with was trained elsewhere, on tables that differ by rounding
    compared = {key: segments[key] for key in segments if has_segments and key in there}
    others = {key: value for key, value in there.items() if key not in segments}
    others |= {key: there[key] for key in compared}
    return provenance.why_differs(others, made_from | compared)


def measured_tables(results):
    """Index, what it was made from, and table of each measured image; may be empty.

    Raises
    ------
    SettingError
        A table is broken, or the image was predicted again since.
    """
    found = []
    for index in results.indices("metrics", missing_ok=True):
        try:
            table = read_table(results.metrics(index))
            found.append((index, stage.source_of(results, index), table))
        except (FileNotFoundError, ValueError) as error:
            raise SettingError(f"image {index} of {results.dataset!r}: {error}") from error
    return found


def sources_of(tables):
    """Index of each measured image, and a digest of what it was made from."""
    return [(index, provenance.digest(source or {})) for index, source, _ in tables]


def metric_names(tables):
    """Names of the metrics of the first measured image; may be empty."""
    return list(fitting.feature_names(tables[0][2])) if tables else []


def read_segments(dataset, tables, network):
    """Table of all segments of a dataset; every one has a known IoU, by this network."""
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
    metrics = [(index, table) for index, _, table in tables]
    table = fitting.with_known_iou(fitting.segment_table(metrics))
    if np.ptp(table.iou) == 0:
        raise SettingError(
            f"all {len(table.iou)} segments of {dataset!r} have the IoU {table.iou[0]}: there is "
            "nothing to learn or to judge by; measure more images"
        )
    return table


def _reporting_to(run, losses):
    def report(epoch, training_loss, validation_loss):
        losses.append((training_loss, validation_loss))
        run.log_scalar("training.loss", training_loss, epoch)
        run.log_scalar("validation.loss", validation_loss, epoch)

    return report


@ex.automain
def main(args, _log, _run):
    return train_meta_model(_log, _run, **args)
