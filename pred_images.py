"""Stage 1: predict the class probabilities of every image of a dataset.

    python pred_images.py with args.dataset=streets_val

Writes input/<model>/<dataset>/input<i>.hdf5 below the results folder; with args.probabilities=none
also what stage 2 writes.
"""

from pathlib import Path

from configuration import CONFIG, datasets, models
from src import class_ids, registry
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import HOW_TO_RUN, PATH, SIZE, setting, shared_settings
from src.scores import OF_LOGITS
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
        probabilities=setting(CONFIG.PROBABILITIES, "how they are stored", choices=FORMS),
        scores=setting([], "anomaly scores to keep as maps", choices=OF_LOGITS),
        **shared_settings(CONFIG, *HOW_TO_RUN),
    )


def predictor_of(args, run):
    """What the settings ask for: a Predictor."""
    model = registry.choose(models, args["model_name"], "model")
    data = registry.choose(datasets, args["dataset"], "dataset")
    trained_on, scores = CONFIG.TRAIN_DATASET, sorted(args["scores"])
    mean, std = (registry.module_attribute(trained_on, name) for name in ("mean", "std"))
    computing = Computing(
        device=inference.choose_device(args["gpu"], run.log, elsewhere=bool(run.scheduler)),
        scores=scores,
        **{name: args[name] for name in ("precision", "tile", "channels_last", "compile")},
    )
    inference.check_precision(computing.device, computing.precision)
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
    run = Runner.from_args(args, _log)
    run.close(predict(args, run))
