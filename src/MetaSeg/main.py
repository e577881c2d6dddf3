"""Stage 2: split the predictions of a dataset into segments and measure each of them.

    python src/MetaSeg/main.py with args.dataset=streets_val

Writes metrics/<model>/<dataset>/metrics<i>.p and components/<model>/<dataset>/components<i>.hdf5
below the results folder.
"""

import functools

from configuration import CONFIG, datasets, models
from src import cache, loading, parallel
from src.experiment import create_experiment
from src.MetaSeg.metrics import compute_metrics_components

ex = create_experiment("metaseg")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets` whose predictions to measure
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        num_cores=CONFIG.NUM_CORES,  # processes to use
        num_images=CONFIG.NUM_IMAGES,  # only the first so many images; None: all
        overwrite=False,  # measure again what is already there
    )


def compute_metrics(
    log, *, dataset, model_name, io_path, num_cores, num_images, overwrite, predicted_ids
):
    """Measure the segments of the images that have no up-to-date metrics yet.

    Parameters
    ----------
    predicted_ids : ndarray of shape (256,), uint8
        From the ids of the ground truth to those of the predictions; see `loading.match_ids`.

    Returns
    -------
    tally : Tally
    """
    folder = cache.prediction_path(io_path, model_name, dataset, 0).parent
    indices = cache.image_indices(folder, "input")[:num_images]
    options = dict(
        io_path=io_path, model_name=model_name, dataset=dataset, predicted_ids=predicted_ids
    )
    return parallel.for_each_image(
        functools.partial(measure_image, ahead=num_cores, **options),
        indices,
        num_cores=num_cores,
        description=f"measuring {dataset}",
        is_done=lambda index: not overwrite and is_measured(index, **options),
        log=log,
    )


def measure_image(index, *, io_path, model_name, dataset, predicted_ids, ahead):
    """Read the prediction of one image, write its metrics and its component map.

    The image so many places `ahead`, which comes next in this process, is fetched meanwhile.
    """
    place = io_path, model_name, dataset, index
    made_from = _made_from(place, predicted_ids)
    prediction = cache.read_prediction(cache.prediction_path(*place))
    cache.read_ahead(cache.prediction_path(io_path, model_name, dataset, index + ahead))
    ground_truth = prediction.ground_truth
    if ground_truth is not None:
        known = (predicted_ids != cache.NO_LABEL).any()
        ground_truth = predicted_ids[ground_truth] if known else None
    metrics, components = compute_metrics_components(prediction.probabilities, ground_truth)
    cache.write_components(cache.components_path(*place), components, made_from)
    cache.write_table(cache.metrics_path(*place), metrics, made_from)


def is_measured(index, *, io_path, model_name, dataset, predicted_ids):
    """Whether metrics and component map were made from the prediction as it is now."""
    place = io_path, model_name, dataset, index
    made_from = _made_from(place, predicted_ids)
    paths = cache.metrics_path(*place), cache.components_path(*place)
    return all(cache.is_made_from(path, made_from) for path in paths)


def _made_from(place, predicted_ids):
    prediction = cache.made_from(cache.prediction_path(*place))
    return {"prediction": prediction, "predicted_ids": predicted_ids.tolist()}


@ex.automain
def main(args, _log):
    loading.check_counts(num_cores=args["num_cores"], num_images=args["num_images"])
    loading.choose(models, args["model_name"], "model")
    data = loading.choose(datasets, args["dataset"], "dataset")
    predicted_ids = loading.match_ids(
        loading.class_mapping(data, "label_mapping"),
        loading.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping"),
    )
    parallel.close(_log, compute_metrics(_log, **args, predicted_ids=predicted_ids))
