"""Stage 2: split the predictions of a dataset into segments and measure each of them.

    python src/MetaSeg/main.py with args.dataset=streets_val
    python src/MetaSeg/main.py with args.dataset=streets_val args.analyze_metrics=True

Writes metrics/<model>/<dataset>/metrics<i>.p and components/<model>/<dataset>/components<i>.hdf5
below the results folder. `visualize_rating` adds pictures/rating/<model>/<dataset>/rating<i>.png:
ground truth and prediction, below them true and predicted IoU, red (0) to green (1).
`analyze_metrics` adds tables and plots to analysis/<model>/<dataset>/.
"""

from pathlib import Path

import numpy as np

from configuration import CONFIG, datasets, meta_models, models
from src import class_ids, registry
from src.errors import SettingError
from src.MetaSeg import analysis, stage
from src.MetaSeg import meta_models as meta
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.store.paths import Results
from src.store.tables import read_table

ex = create_experiment("metaseg")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets` whose predictions to measure
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        num_cores=CONFIG.NUM_CORES,  # processes to use
        num_images=CONFIG.NUM_IMAGES,  # only the first so many images; None: all
        scheduler=None,  # tcp://host:8786: a Dask cluster; local:N: one of N processes; None: none
        images_per_job=16,  # on a cluster
        shard=None,  # 0/4 to 3/4: the images of one of four machines; None: all
        overwrite=False,  # measure again what is already there
        dry_run=False,  # only say what would be measured, and why
        fail_fast=False,  # stop at the first image that fails
        heatmaps={},  # name=folder: maps <i>.npy, (H, W), to aggregate for image i like entropy
        compute_metrics=CONFIG.COMPUTE_METRICS,  # measure the segments
        visualize_rating=CONFIG.VISUALIZE_RATING,  # draw true and predicted IoU
        analyze_metrics=CONFIG.ANALYZE_METRICS,  # compare meta models; needs ground truth
        meta_model=CONFIG.META_MODEL_NAME,  # entry of `meta_models` to draw and to compare
        meta_weights=None,  # its weights file; None: `model_weights` of its entry
        learning_rate=CONFIG.META_LEARNING_RATE,  # of the network in the comparison
        num_averages=CONFIG.NUM_AVERAGES,  # random splits by image that the comparison averages
        seed=CONFIG.SEED,  # same seed, same comparison
    )


def analyze_metrics(args, run, results, neural_entry):
    """Compare meta models on random splits by image; write tables and pictures, log the table.

    Parameters
    ----------
    args : dict
        Settings of the script.
    run : Runner
    results : Results
    neural_entry : ModelConfig
        The network among the models.

    Returns
    -------
    result : Analysis
    """
    indices = results.indices("metrics")[: args["num_images"]]
    table = meta.with_known_iou(
        meta.segment_table((index, _current_table(results, index)) for index in indices)
    )
    analysis.check(table)
    splits = meta.split_by_image(table, args["num_averages"], args["seed"])
    analysis.check_splits(splits)

    def model(entry, **options):
        return lambda training: (
            meta.fit(entry, training, seed=args["seed"], **options).predict_table
        )

    names = {"linear": "linear", "gradient boosting": "gradient_boosting"}
    regressors = {name: model(meta_models[key]) for name, key in names.items()}
    neural = model(neural_entry, learning_rate=args["learning_rate"])
    result = analysis.analyze(table, splits, neural, regressors)
    analysis.write_report(results.analysis, result)
    run.log.info(
        "%d segments of %d images, %d splits by image\n%s",
        len(table.iou), len(np.unique(table.image_index)), args["num_averages"],
        "\n".join(analysis.text_table(result)),
    )  # fmt: skip
    run.log.info("wrote tables and pictures to %s", results.analysis)
    return result


def _current_table(results, index):
    try:
        stage.source_of(results, index)
        return read_table(results.metrics(index))
    except (FileNotFoundError, ValueError) as error:
        raise SettingError(f"image {index} of {results.dataset!r}: {error}") from error


def _check_heatmaps(heatmaps):
    for name, folder in heatmaps.items():
        if not name.isidentifier() or not Path(folder).is_dir():
            raise SettingError(
                f"`args.heatmaps.{name}` must be a name of letters and digits and a folder of "
                f"<image index>.npy, got {folder!r}"
            )


@ex.automain
def main(args, _log, _run):
    counts = "num_cores", "num_images", "num_averages", "images_per_job"
    choice.check_counts(**{name: args[name] for name in counts})
    registry.choose(models, args["model_name"], "model")
    data = registry.choose(datasets, args["dataset"], "dataset")
    entry = registry.choose(meta_models, args["meta_model"], "meta model")
    _check_heatmaps(args["heatmaps"])
    # others may work in another folder
    results = Results(Path(args["io_path"]).resolve(), args["model_name"], data.name)
    run, num_images = Runner.from_args(args, _log), args["num_images"]
    if args["visualize_rating"]:  # what it needs is missed before the work begins
        meta_model = meta.load_meta_model(args["meta_weights"] or entry.model_weights, entry)
    if args["compute_metrics"]:
        predicted_ids = class_ids.predicted_ids(data, CONFIG.TRAIN_DATASET, _log)
        run.close(stage.measure_dataset(run, results, predicted_ids, args["heatmaps"], num_images))
    if args["dry_run"]:
        if args["visualize_rating"] or args["analyze_metrics"]:
            _log.info("then pictures would be drawn and tables written, which are always made anew")
        return None
    if args["visualize_rating"]:
        mappings = (
            class_ids.class_mapping(data, "label_mapping"),
            class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping"),
        )
        run.close(stage.draw_ratings(run, results, meta_model, mappings, num_images))
    if args["analyze_metrics"]:
        neural_entry = entry if meta.kind_of(entry) == "neural" else meta_models["meta_nn"]
        result = analyze_metrics(args, run, results, neural_entry)
        _run.info["analysis"] = analysis.plain_numbers(result)
        return analysis.main_figures(result)
    return None
