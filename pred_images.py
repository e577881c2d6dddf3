"""Stage 1: predict the class probabilities of every image of a dataset.

    python pred_images.py with args.dataset=streets_val

Writes input/<model>/<dataset>/input<i>.hdf5 below the results folder; with args.probabilities=none
also what stage 2 writes.
"""

from pathlib import Path

from configuration import CONFIG, datasets, models
from src import class_ids, registry
from src.run import choice, parallel
from src.run.experiment import create_experiment
from src.run.settings import HOW_TO_RUN, PATH, SIZE, setting, shared_settings
from src.segmentation import inference
from src.segmentation.stage import Predictor
from src.store import cache, files

ex = create_experiment("pred_images")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets` to predict"),
        model_name=setting(CONFIG.MODEL_NAME, "entry of `models`: the segmentation network"),
        **shared_settings(CONFIG, "io_path", "gpu"),
        precision=setting(
            "float32", "16 bits are faster and less exact", choices=inference.PRECISIONS
        ),
        channels_last=setting(False, "order in memory, on a GPU faster with 16 bits"),
        compile=setting(False, "takes a minute, then images of one size are faster"),
        tile=setting(None, "parts to predict where an image does not fit", none="whole", kind=SIZE),
        **shared_settings(CONFIG, "num_images"),
        classindex=setting(None, "class that images must show, by name or id", none="any"),
        subset_file=setting(None, "file with an index a line to predict", none="all", kind=PATH),
        probabilities=setting(CONFIG.PROBABILITIES, "how they are stored", choices=cache.FORMS),
        scores=setting([], "anomaly scores to keep as maps", choices=inference.SCORES),
        **shared_settings(CONFIG, *HOW_TO_RUN),
    )


def predict_dataset(
    log, *, dataset, model_name, io_path, gpu, precision, channels_last, compile, tile, num_cores,
    num_images, classindex, subset_file, probabilities, scores, scheduler, images_per_job, shard,
    overwrite, dry_run, fail_fast,
):  # fmt: skip
    """Predict the images that have no up-to-date prediction yet.

    Returns
    -------
    tally : Tally
    """
    model = registry.choose(models, model_name, "model")
    source = {"network": registry.identity(model), "precision": precision, "tile": tile}
    data = registry.choose(datasets, dataset, "dataset")
    device = inference.choose_device(gpu, log, elsewhere=bool(scheduler))
    inference.check_precision(device, precision)
    trained_on = CONFIG.TRAIN_DATASET
    mean, std = (registry.module_attribute(trained_on, name) for name in ("mean", "std"))
    source |= {"mean": mean, "std": std, "probabilities": probabilities}
    if scores:
        source["scores"] = sorted(scores)
    # to decode is less than to write; a job elsewhere is too short to start processes for it
    loaders = max(num_cores // 4, 2) if num_cores > 2 and not scheduler else 1
    predictor = Predictor(
        io_path=Path(io_path).resolve(), model=model, data=data, mean=mean, std=std, device=device,
        speed=dict(channels_last=channels_last, compile=compile),
        options=dict(precision=precision, tile=tile, scores=sorted(scores)),
        probabilities=probabilities, source=source, loaders=loaders,
        predicted_ids=class_ids.predicted_ids(data, trained_on, log),
    )  # fmt: skip
    indices = chosen_images(predictor.samples, data, io_path, num_images, classindex, subset_file)
    indices = choice.in_shard(indices, shard)
    check_leftovers(log, predictor)
    if not dry_run:
        files.prepare(*predictor.folders())
    scheduler = None if dry_run else scheduler
    with parallel.open_executor(scheduler, io_path, log, gpu=device is None) as executor:
        return parallel.for_each_result(
            predictor.predict,
            predictor.store,
            indices,
            num_cores=num_cores - loaders if loaders > 1 else num_cores,
            executor=executor,
            images_per_job=images_per_job,
            description=f"predicting {dataset}",
            why=lambda index: "args.overwrite" if overwrite else predictor.why_stale(index),
            dry_run=dry_run,
            fail_fast=fail_fast,
            log=log,
        )


def check_leftovers(log, predictor):
    """Warn of predictions of images that the dataset does not have, or no longer."""
    folder, count = predictor.folders()[0], len(predictor.samples)
    if any(k >= count for k in cache.image_indices(folder, "input", missing_ok=True)):
        log.warning(
            "%s holds predictions of more images than the %d of %r; delete them, and what later "
            "stages made of them", folder, count, predictor.data.name,
        )  # fmt: skip


def chosen_images(samples, data, io_path, num_images, classindex, subset_file):
    """Indices of the images to predict; see `choice.chosen_indices`."""
    classes = None
    if classindex is not None:
        made_from = {"dataset": registry.identity(data), "images": len(samples)}
        classes = cache.read_overview(cache.overview_path(io_path, data.name), made_from)
    return choice.chosen_indices(
        len(samples), num_images, classindex=classindex, classes=classes, subset_file=subset_file
    )


@ex.automain
def main(args, _log):
    parallel.close(_log, predict_dataset(_log, **args))
