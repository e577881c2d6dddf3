"""Stage 1: predict the class probabilities of every image of a dataset.

    python pred_images.py with args.dataset=streets_val

Writes input/<model>/<dataset>/input<i>.hdf5 below the results folder; with args.probabilities=none
also what stage 2 writes.
"""

from pathlib import Path

from configuration import CONFIG, datasets, models
from src import class_ids, registry
from src.errors import SettingError
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.segmentation import inference
from src.segmentation.inference import Computing
from src.segmentation.search import read_classes
from src.segmentation.stage import Predictor, loaders_of, predict_dataset
from src.store.arrays import FORMS
from src.store.paths import Results
from src.store.provenance import identity

ex = create_experiment("pred_images")


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
        scheduler=None,  # tcp://host:8786: a Dask cluster; local:N: one of N processes; None: none
        images_per_job=16,  # on a cluster
        shard=None,  # 0/4 to 3/4: the images of one of four machines; None: all
        overwrite=False,  # predict again what is already there
        dry_run=False,  # only say what would be predicted, and why
        fail_fast=False,  # stop at the first image that fails
    )


def predictor_of(args, run):
    """What the settings ask for: a Predictor."""
    if args["probabilities"] not in FORMS:
        raise SettingError(
            f"`args.probabilities` must be one of {', '.join(FORMS)}, got {args['probabilities']!r}"
        )
    model = registry.choose(models, args["model_name"], "model")
    data = registry.choose(datasets, args["dataset"], "dataset")
    trained_on, scores = CONFIG.TRAIN_DATASET, sorted(args["scores"])
    mean, std = (registry.module_attribute(trained_on, name) for name in ("mean", "std"))
    computing = Computing(
        device=inference.choose_device(args["gpu"], run.log, elsewhere=bool(run.scheduler)),
        scores=scores,
        **{name: args[name] for name in ("precision", "tile", "channels_last", "compile")},
    )
    inference.check_options(computing)
    names = "precision", "tile", "probabilities"
    source = {"network": identity(model), "mean": mean, "std": std}
    source |= {name: args[name] for name in names} | ({"scores": scores} if scores else {})
    return Predictor(
        results=Results(Path(args["io_path"]).resolve(), model.name, data.name),
        model=model,
        data=data,
        mean=mean,
        std=std,
        computing=computing,
        form=args["probabilities"],
        predicted_ids=class_ids.predicted_ids(data, trained_on, run.log),
        source=source,
        loaders=loaders_of(run),
    )


def chosen_images(args, predictor):
    """Indices of the images to predict; see `choice.chosen_indices`."""
    samples, classes = predictor.samples, None
    if args["classindex"] is not None:
        classes = read_classes(predictor.results, predictor.data, samples)
    return choice.chosen_indices(
        len(samples),
        args["num_images"],
        classindex=args["classindex"],
        classes=classes,
        subset_file=args["subset_file"],
    )


def predict(args, run):
    """Predict what the settings ask for; gives the Tally."""
    predictor = predictor_of(args, run)
    return predict_dataset(run, predictor, chosen_images(args, predictor))


@ex.automain
def main(args, _log):
    choice.check_counts(
        **{name: args[name] for name in ("num_cores", "num_images", "images_per_job")}
    )
    run = Runner.from_args(args, _log)
    run.close(predict(args, run))
