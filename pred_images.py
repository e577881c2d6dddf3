"""Stage 1: predict the class probabilities of every image of a dataset.

    python pred_images.py with args.dataset=streets_val

Writes input/<model>/<dataset>/input<i>.hdf5 below the results folder; with args.probabilities=none
also what stage 2 writes.
"""

import threading
from dataclasses import replace

import numpy as np

from configuration import CONFIG, datasets, models
from src import cache, files, inference, loading, parallel
from src.datasets import LabelledImages
from src.experiment import create_experiment
from src.loading import SettingError
from src.MetaSeg import measuring
from src.MetaSeg.metrics import heatmaps

ex = create_experiment("pred_images")
_one_at_a_time = threading.Lock()  # others' datasets may not be made for threads


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets` to predict
        model_name=CONFIG.MODEL_NAME,  # entry of `models`: the segmentation network
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        gpu=CONFIG.GPU_ID,  # index of the GPU; None: the CPU
        precision="float32",  # or bfloat16, or on a GPU float16: faster, less memory, less exact
        channels_last=False,  # another order in memory, on a GPU faster with half precision
        compile=False,  # compile the network first: a minute, then faster; for images of one size
        tile=None,  # [height, width] of parts to predict where an image does not fit; None: whole
        num_cores=CONFIG.NUM_CORES,  # processes that load and threads that write, together
        num_images=CONFIG.NUM_IMAGES,  # only the first so many images; None: all
        classindex=None,  # name or id of a class: only images with it (search_classes.py)
        subset_file=None,  # text file with one index a line: only these images
        probabilities=CONFIG.PROBABILITIES,  # how they are stored: compact, float32, or none
        scores=[],  # anomaly scores of the logits to keep as maps: max_logit, energy
        shard=None,  # 0/4 to 3/4: the images of one of four machines; None: all
        overwrite=False,  # predict again what is already there
        dry_run=False,  # only say what would be predicted, and why
        fail_fast=False,  # stop at the first image that fails
    )


def predict_dataset(
    log, *, dataset, model_name, io_path, gpu, precision, channels_last, compile, tile, num_cores,
    num_images, classindex, subset_file, probabilities, scores, shard, overwrite, dry_run,
    fail_fast,
):  # fmt: skip
    """Predict the images that have no up-to-date prediction yet.

    Returns
    -------
    tally : Tally
    """
    loading.check_counts(num_cores=num_cores, num_images=num_images)
    if probabilities not in cache.FORMS:
        raise SettingError(
            f"`args.probabilities` must be one of {', '.join(cache.FORMS)}, got {probabilities!r}"
        )
    model = loading.choose(models, model_name, "model")
    source = {"network": loading.identity(model), "precision": precision, "tile": tile}
    data = loading.choose(datasets, dataset, "dataset")
    device = inference.choose_device(gpu, log)
    inference.check_options(device, precision=precision, tile=tile, scores=scores)
    trained_on = CONFIG.TRAIN_DATASET
    mean, std = (loading.module_attribute(trained_on, name) for name in ("mean", "std"))
    samples = loading.build(data, transform=inference.to_input(mean, std))
    source |= {"mean": mean, "std": std, "probabilities": probabilities}
    if scores:
        source["scores"] = sorted(scores)
    predicted_ids = loading.predicted_ids(data, trained_on, log)
    loaders = max(num_cores // 4, 1) if num_cores > 1 else 0  # to decode is less than to write

    def place_of(index):
        return io_path, model_name, dataset, index

    def made_from_of(index):
        return {**source, **files_of(samples, index)}

    def why(index):
        if overwrite:
            return "args.overwrite"
        path = cache.prediction_path(*place_of(index))
        kept = () if scores else ("scores",)  # those of an earlier run stay
        reason = cache.why_stale(path, made_from_of(index), ignored=kept)
        if reason is None and probabilities == "none":
            reason = measuring.why_stale(place_of(index), predicted_ids)
        return reason

    def predict_images(indices):
        network = inference.load_network(model, device)
        network = inference.speed_up(network, channels_last=channels_last, compile=compile)
        loaded = inference.load_images(samples, indices, workers=loaders, device=device)
        options = dict(precision=precision, tile=tile, scores=sorted(scores))
        yield from inference.predict_images(network, loaded, **options)

    def store(index, prediction):
        path = cache.prediction_path(*place_of(index))
        if probabilities == "none":
            maps = np.stack(heatmaps(prediction.probabilities), axis=2)
            prediction = replace(prediction, heatmaps=maps)
        cache.write_prediction(path, prediction, made_from_of(index), probabilities)
        if probabilities == "none":
            measuring.store_segments(prediction, place_of(index), predicted_ids)

    indices = chosen_images(samples, data, io_path, num_images, classindex, subset_file)
    indices = loading.in_shard(indices, shard)
    folder = cache.prediction_path(*place_of(0)).parent
    if not dry_run:
        files.prepare(folder)
    if any(k >= len(samples) for k in cache.image_indices(folder, "input", missing_ok=True)):
        log.warning(
            "%s holds predictions of more images than the %d of %r; delete them, and what later "
            "stages made of them", folder, len(samples), dataset,
        )  # fmt: skip
    return parallel.for_each_result(
        predict_images,
        store,
        indices,
        num_cores=max(num_cores - loaders, 1),
        description=f"predicting {dataset}",
        why=why,
        dry_run=dry_run,
        fail_fast=fail_fast,
        log=log,
    )


def chosen_images(samples, data, io_path, num_images, classindex, subset_file):
    """Indices of the images to predict; see `loading.chosen_indices`."""
    classes = None
    if classindex is not None:
        made_from = {"dataset": loading.identity(data), "images": len(samples)}
        classes = cache.read_overview(cache.overview_path(io_path, data.name), made_from)
    return loading.chosen_indices(
        len(samples), num_images, classindex=classindex, classes=classes, subset_file=subset_file
    )


def files_of(samples, index):
    """Picture and label file of an image, as they are now; None: there is none.

    Only a dataset without a list of both must load the image for that.
    """
    if isinstance(samples, LabelledImages):
        image, labels = samples.samples[index]
    else:
        with _one_at_a_time:
            image, labels = samples[index][2], None
    return {"image": cache.state_of(image), "labels": labels and cache.state_of(labels)}


@ex.automain
def main(args, _log):
    parallel.close(_log, predict_dataset(_log, **args))
