"""Stage 2: split the predictions of a dataset into segments and measure each of them.

    python src/MetaSeg/main.py with args.dataset=streets_val
    python src/MetaSeg/main.py with args.dataset=streets_val args.analyze_metrics=True

Writes metrics/<model>/<dataset>/metrics<i>.p and components/<model>/<dataset>/components<i>.hdf5
below the results folder. `visualize_rating` adds pictures/rating/<model>/<dataset>/rating<i>.png:
ground truth and prediction, below them true and predicted IoU, red (0) to green (1).
`analyze_metrics` adds tables and plots to analysis/<model>/<dataset>/.
"""

import functools
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # this checkout comes first, whichever is installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configuration import CONFIG, datasets, meta_models, models
from src import class_ids, pictures, registry
from src.errors import SettingError
from src.MetaSeg import analysis
from src.MetaSeg import meta_models as meta
from src.MetaSeg import stage as measuring
from src.run import choice, parallel
from src.run.experiment import create_experiment
from src.run.settings import HOW_TO_RUN, PATH, POSITIVE, setting, shared_settings
from src.store import cache, files

ex = create_experiment("metaseg")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets` whose predictions to measure"),
        **shared_settings(CONFIG, "model_name", "io_path", "num_images"),
        heatmaps=setting({}, "name=folder of further maps <i>.npy, (H, W)", kind=PATH),
        compute_metrics=setting(CONFIG.COMPUTE_METRICS, "measure the segments"),
        visualize_rating=setting(CONFIG.VISUALIZE_RATING, "draw true and predicted IoU"),
        analyze_metrics=setting(CONFIG.ANALYZE_METRICS, "compare meta models; needs ground truth"),
        meta_model=setting(CONFIG.META_MODEL_NAME, "entry of `meta_models` to draw and to compare"),
        **shared_settings(CONFIG, "meta_weights"),
        learning_rate=setting(
            CONFIG.META_LEARNING_RATE, "of the network in the comparison", kind=POSITIVE
        ),
        num_averages=setting(CONFIG.NUM_AVERAGES, "random splits to average", at_least=1),
        **shared_settings(CONFIG, "seed", *HOW_TO_RUN),
    )


def compute_metrics(
    log, *, dataset, model_name, io_path, num_cores, num_images, scheduler, images_per_job, shard,
    overwrite, predicted_ids, heatmaps, dry_run, fail_fast,
):  # fmt: skip
    """Measure the segments of the images that have no up-to-date metrics yet.

    Parameters
    ----------
    predicted_ids : ndarray of shape (256,), uint8
        From the ids of the ground truth to those of the predictions; see `class_ids.match_ids`.
    heatmaps : dict of str to path
        Folder of each further heat map to aggregate, with a file <index>.npy an image.

    Returns
    -------
    tally : Tally
    """
    folder = cache.prediction_path(io_path, model_name, dataset, 0).parent
    indices = choice.in_shard(cache.image_indices(folder, "input")[:num_images], shard)
    io_path = Path(io_path).resolve()  # others may work in another folder
    images = dict(io_path=io_path, model_name=model_name, dataset=dataset)
    options = dict(predicted_ids=predicted_ids, heatmaps=heatmaps)
    paths = cache.metrics_path, cache.components_path
    if not dry_run:
        files.prepare(*(path(io_path, model_name, dataset, 0).parent for path in paths))

    def why(index):
        place = io_path, model_name, dataset, index
        return "args.overwrite" if overwrite else measuring.why_stale(place, **options)

    ahead = 1 if scheduler else num_cores  # jobs elsewhere are images one after the other
    scheduler = None if dry_run else scheduler
    with parallel.open_executor(scheduler, io_path, log) as executor:
        return parallel.for_each_image(
            functools.partial(measuring.measure_image, ahead=ahead, **images, **options),
            indices,
            num_cores=num_cores,
            executor=executor,
            images_per_job=images_per_job,
            description=f"measuring {dataset}",
            why=why,
            dry_run=dry_run,
            fail_fast=fail_fast,
            log=log,
        )


def visualize_rating(
    log, *, dataset, model_name, io_path, num_cores, num_images, shard, fail_fast, meta_model,
    mappings,
):  # fmt: skip
    """Draw true and predicted IoU of the segments of every measured image.

    Parameters
    ----------
    meta_model : MetaModel
    mappings : tuple of (dict, dict)
        `label_mapping` of the dataset, `pred_mapping` of the predictions.

    Returns
    -------
    tally : Tally
    """
    place = io_path, model_name, dataset
    files.prepare(cache.rating_path(*place, 0).parent)
    return parallel.for_each_image(
        functools.partial(draw_rating, place=place, meta_model=meta_model, mappings=mappings),
        choice.in_shard(_measured(*place)[:num_images], shard),
        num_cores=num_cores,
        description=f"drawing {dataset}",
        fail_fast=fail_fast,
        log=log,
    )


def draw_rating(index, *, place, meta_model, mappings):
    """Draw true and predicted IoU of the segments of one image; see `pictures.rating_picture`."""
    prediction, metrics, components = measuring.read_measured((*place, index))
    iou = np.asarray(metrics["iou"], np.float64)
    picture = pictures.rating_picture(
        prediction, components, iou, meta_model.predict(metrics), *mappings
    )
    cache.write_picture(cache.rating_path(*place, index), picture)


def analyze_metrics(
    log, run, *, dataset, model_name, io_path, num_images, neural_entry, learning_rate,
    num_averages, seed,
):  # fmt: skip
    """Compare meta models on random splits by image; write tables and pictures, log the table.

    Parameters
    ----------
    run : sacred.run.Run
        All figures go to its `info`; see `analysis.plain_numbers`.
    neural_entry : ModelConfig
        The network among the models.

    Returns
    -------
    figures : dict of str to float
        AUROC or R^2 of each model, mean over the validation images of all splits.
    """
    place = io_path, model_name, dataset
    table = meta.with_known_iou(
        meta.segment_table(
            (index, _current_table((*place, index))) for index in _measured(*place)[:num_images]
        )
    )
    analysis.check(table)
    splits = meta.split_by_image(table, num_averages, seed)
    analysis.check_splits(splits)

    def model(entry, **options):
        return lambda training: meta.fit(entry, training, seed=seed, **options).predict_table

    names = {"linear": "linear", "gradient boosting": "gradient_boosting"}
    regressors = {name: model(meta_models[key]) for name, key in names.items()}
    neural = model(neural_entry, learning_rate=learning_rate)
    result = analysis.analyze(table, splits, neural, regressors)
    folder = cache.analysis_folder(*place)
    analysis.write_report(folder, result)
    log.info(
        "%d segments of %d images, %d splits by image\n%s",
        len(table.iou), len(np.unique(table.image_index)), num_averages,
        "\n".join(analysis.text_table(result)),
    )  # fmt: skip
    log.info("wrote tables and pictures to %s", folder)
    run.info["analysis"] = analysis.plain_numbers(result)
    main_scores = [score for score in result.scores if score.figure in ("AUROC", "R^2")]
    return {
        f"{score.figure} {score.model}": float(score.validation.mean()) for score in main_scores
    }


def _measured(io_path, model_name, dataset):
    folder = cache.metrics_path(io_path, model_name, dataset, 0).parent
    return cache.image_indices(folder, "metrics")


def _current_table(place):
    try:
        measuring.source_of(place)
        return cache.read_table(cache.metrics_path(*place))
    except (FileNotFoundError, ValueError) as error:
        raise SettingError(f"image {place[-1]} of {place[-2]!r}: {error}") from error


def _check_heatmaps(heatmaps):
    for name, folder in heatmaps.items():
        if not name.isidentifier() or not Path(folder).is_dir():
            raise SettingError(
                f"`args.heatmaps.{name}` must be a name of letters and digits and a folder of "
                f"<image index>.npy, got {folder!r}"
            )


@ex.automain
def main(args, _log, _run):
    registry.choose(models, args["model_name"], "model")
    data = registry.choose(datasets, args["dataset"], "dataset")
    entry = registry.choose(meta_models, args["meta_model"], "meta model")
    _check_heatmaps(args["heatmaps"])
    mappings = (
        class_ids.class_mapping(data, "label_mapping"),
        class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping"),
    )
    place = {name: args[name] for name in ("dataset", "model_name", "io_path", "num_images")}
    if args["visualize_rating"]:  # what it needs is missed before the work begins
        path = args["meta_weights"] or entry.model_weights
        drawing = {"meta_model": meta.load_meta_model(path, entry), "mappings": mappings}
    if args["compute_metrics"]:
        names = "num_cores", "scheduler", "images_per_job", "shard", "overwrite", "heatmaps"
        own = {name: args[name] for name in (*names, "dry_run", "fail_fast")}
        predicted_ids = class_ids.predicted_ids(data, CONFIG.TRAIN_DATASET, _log)
        parallel.close(_log, compute_metrics(_log, **place, **own, predicted_ids=predicted_ids))
    if args["dry_run"]:
        if args["visualize_rating"] or args["analyze_metrics"]:
            _log.info("then pictures would be drawn and tables written, which are always made anew")
        return None
    if args["visualize_rating"]:
        own = {name: args[name] for name in ("num_cores", "shard", "fail_fast")}
        tally = visualize_rating(_log, **place, **own, **drawing)
        parallel.close(_log, tally)
    if args["analyze_metrics"]:
        neural_entry = entry if meta.kind_of(entry) == "neural" else meta_models["meta_nn"]
        own = {name: args[name] for name in ("learning_rate", "num_averages", "seed")}
        return analyze_metrics(_log, _run, **place, **own, neural_entry=neural_entry)
    return None
