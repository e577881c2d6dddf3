"""Stage 1: predict the class probabilities of every image of a dataset.

    python pred_images.py with args.dataset=streets_val

Writes input/<model>/<dataset>/input<i>.hdf5 below the results folder.
"""

import numpy as np

from configuration import CONFIG, datasets, models
from src import cache, inference, loading, parallel
from src.datasets import LabelledImages
from src.experiment import create_experiment
from src.records import Prediction

ex = create_experiment("pred_images")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets` to predict
        model_name=CONFIG.MODEL_NAME,  # entry of `models`: the segmentation network
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        gpu=CONFIG.GPU_ID,  # index of the GPU; None: the CPU
        num_images=CONFIG.NUM_IMAGES,  # only the first so many images; None: all
        overwrite=False,  # predict again what is already there
    )


def predict_dataset(log, *, dataset, model_name, io_path, gpu, num_images, overwrite):
    """Predict the images that have no up-to-date prediction yet.

    Returns
    -------
    tally : Tally
    """
    loading.check_counts(num_images=num_images)
    model = loading.choose(models, model_name, "model")
    source = {"network": loading.identity(model)}
    data = loading.choose(datasets, dataset, "dataset")
    device = inference.choose_device(gpu, log)
    trained_on = CONFIG.TRAIN_DATASET
    mean, std = (loading.module_attribute(trained_on, name) for name in ("mean", "std"))
    samples = loading.build(data, transform=inference.to_input(mean, std))
    source |= {"mean": mean, "std": std}
    network = None  # loaded when the first image needs it

    def path_of(index):
        return cache.prediction_path(io_path, model_name, dataset, index)

    def is_done(index):
        made_from = {**source, "image": image_path(samples, index)}
        return not overwrite and cache.is_made_from(path_of(index), made_from)

    def predict_image(index):
        nonlocal network
        network = network or inference.load_network(model, device)
        image, ground_truth, path = samples[index]
        if ground_truth is not None:
            ground_truth = np.asarray(ground_truth)
        probabilities = inference.predict(network, image)
        prediction = Prediction(probabilities, probabilities.argmax(-1), ground_truth, path)
        cache.write_prediction(path_of(index), prediction, {**source, "image": path})

    folder = path_of(0).parent
    if any(k >= len(samples) for k in cache.image_indices(folder, "input", missing_ok=True)):
        log.warning(
            "%s holds predictions of more images than the %d of %r; delete them, and what later "
            "stages made of them", folder, len(samples), dataset,
        )  # fmt: skip
    return parallel.for_each_image(
        predict_image,
        range(len(samples))[:num_images],
        num_cores=1,
        description=f"predicting {dataset}",
        is_done=is_done,
        log=log,
    )


def image_path(samples, index):
    """Path of one image; only a dataset that has no list of its `samples` must load it."""
    if isinstance(samples, LabelledImages):
        return str(samples.samples[index][0])
    return samples[index][2]


@ex.automain
def main(args, _log):
    parallel.close(_log, predict_dataset(_log, **args))
