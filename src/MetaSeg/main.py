"""Stage 2: split the predictions of a dataset into segments and measure each of them.

    python src/MetaSeg/main.py with args.dataset=streets_val
    python src/MetaSeg/main.py with args.dataset=streets_val args.analyze_metrics=True

Writes metrics/<model>/<dataset>/metrics<i>.p and components/<model>/<dataset>/components<i>.hdf5
below the results folder. `visualize_rating` adds pictures/rating/<model>/<dataset>/rating<i>.png:
ground truth and prediction, below them true and predicted IoU, red (0) to blue (1).
`analyze_metrics` adds tables and plots to analysis/<model>/<dataset>/.
"""

import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # this checkout comes first, whichever is installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configuration import CONFIG, datasets, meta_models, models
from src import class_ids, entries, registry, scores
from src.errors import SettingError
from src.MetaSeg import analysis, meta_stage, meta_training, segment_tables, stage
from src.MetaSeg import meta_models as meta
from src.model_card import known_card
from src.run.experiment import create_experiment
from src.run.gone import keep_up
from src.run.runner import Runner
from src.run.settings import HOW_TO_RUN, PATH, POSITIVE, setting, shared_settings
from src.store.paths import Results

ex = create_experiment("metaseg")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(
            CONFIG.DATASET.name, "entry of `datasets`, or a folder, whose predictions to measure"
        ),
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
        **shared_settings(CONFIG, "unlabelled"),
        num_averages=setting(CONFIG.NUM_AVERAGES, "random splits to average", at_least=1),
        **shared_settings(CONFIG, "seed", *HOW_TO_RUN),
    )


def analyze_metrics(args, run, results, entry, labels=None):
    """Compare meta models on random splits by image; write tables and pictures, log the table.

    `entry` is the network among the models, or a regressor to compare beside linear regression,
    gradient boosting and the network "meta_nn"; for `labels` see `meta_stage.measured_tables`.
    Gives the Analysis.
    """
    indices, seed = results.indices("metrics")[: args["num_images"]], args["seed"]
    table = meta_stage.known_segments(meta_stage.measured_tables(results, indices, labels))
    analysis.check(table)
    splits = segment_tables.split_by_image(table, args["num_averages"], seed)
    analysis.check_splits(splits)

    def model(entry, **options):
        return lambda rows: meta_training.fit(entry, rows, seed=seed, **options).predict_table

    is_network = not meta.is_regressor(entry)
    compared = ["linear", "gradient_boosting", *([] if is_network else [entry.name])]
    regressors = {name.replace("_", " "): model(meta_models[name]) for name in compared}
    network = entry if is_network else meta_models["meta_nn"]
    neural = model(network, learning_rate=args["learning_rate"])
    result = analysis.analyze(table, splits, neural, regressors)
    analysis.write_report(results.analysis, result, results.dataset)
    run.log.info(
        "%d segments of %d images, %d splits by image\n%s",
        len(table.true_iou), len(np.unique(table.image_index)), args["num_averages"],
        "\n".join(analysis.text_table(result)),
    )  # fmt: skip
    run.log.info("wrote tables and pictures to %s", results.analysis)
    return result


def _check_heatmaps(heatmaps):
    """The absolute folders of further maps, by name."""
    for name, folder in heatmaps.items():
        if name in scores.NAMES:
            raise SettingError(
                f"`args.heatmaps.{name}` has the name of a score: name the map otherwise than "
                f"{', '.join(scores.NAMES)}"
            )
        if not name.isidentifier() or not Path(folder).is_dir():
            raise SettingError(
                f"`args.heatmaps.{name}` must be a name of letters and digits and a folder of "
                f"<image index>.npy, got {folder!r}"
            )
    return {name: Path(folder).absolute() for name, folder in heatmaps.items()}


@ex.automain
def main(args, _log, _run):
    io_path = Path(args["io_path"]).resolve()  # others may work in another folder
    model = entries.choose_model(models, args["model_name"], io_path)
    data = entries.choose_dataset(datasets, args["dataset"], io_path)
    known = known_card(io_path, model, CONFIG.TRAIN_DATASET).classes
    entry = registry.choose(meta_models, args["meta_model"], "meta model")
    heatmaps = _check_heatmaps(args["heatmaps"])
    results = Results(io_path, model.name, data.name)
    run, num_images = Runner.from_args(args, _log), args["num_images"]
    if args["analyze_metrics"]:  # what is wrong is said before the work begins
        meta_training.check(entry)
    if args["visualize_rating"]:
        meta_model = meta.load_meta_model(args["meta_weights"] or entry.model_weights, entry)
    if args["compute_metrics"]:
        predicted_ids = class_ids.predicted_ids(data, known, _log)
        keep_up(run, results, data)
        run.close(stage.measure_dataset(run, results, predicted_ids, heatmaps, num_images))
    if args["dry_run"]:
        if args["visualize_rating"] or args["analyze_metrics"]:
            _log.info("then pictures would be drawn and tables written, which are always made anew")
        return None
    if args["visualize_rating"]:
        mappings = class_ids.class_mapping(data, "label_mapping"), known
        run.close(stage.draw_ratings(run, results, meta_model, mappings, num_images))
    if args["analyze_metrics"]:
        labels = class_ids.are_classes(data) if args["unlabelled"] == "unknown" else None
        result = analyze_metrics(args, run, results, entry, labels)
        _run.info["analysis"] = analysis.plain_numbers(result)
        return analysis.main_figures(result)
    return None
