"""Stage 1: predict the class probabilities of every image of a dataset.

    python pred_images.py with args.dataset=streets_val

Writes input/<model>/<dataset>/input<i>.hdf5 below the results folder; with args.probabilities=none
also what stage 2 writes. With args.fit_scores=True and the pictures that the network was trained on
(no labels needed) it writes scores/<model>/fitted_scores.pth instead, for scores that learn.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from configuration import CONFIG, datasets, models
from src import class_ids, entries, model_card
from src.errors import ClassCountError
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner, said_once
from src.run.settings import HOW_TO_RUN, PATH, SHARE, SIZE, setting, shared_settings
from src.scores import FITTED, OF_LOGITS
from src.segmentation import fitting, inference
from src.segmentation.class_maps import KINDS
from src.segmentation.inference import Computing
from src.segmentation.search import read_classes
from src.segmentation.stage import Predictor, loaders_of, predict_dataset
from src.store import provenance
from src.store.arrays import FORMS
from src.store.paths import Results

ex = create_experiment("pred_images")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets`, or a folder of pictures"),
        model_name=setting(
            CONFIG.MODEL_NAME,
            "segmentation network: entry of `models`, or hf/, torchvision/, onnx/, learnt/...",
        ),
        **shared_settings(CONFIG, "io_path", "gpu"),
        precision=setting(
            "float32", "16 bits are faster and less exact", choices=inference.PRECISIONS
        ),
        channels_last=setting(False, "order in memory, on a GPU faster with 16 bits"),
        outputs=setting(
            None, "what the network gives", none="told by range and sum", choices=KINDS
        ),
        compile=setting(False, "takes a minute, then images of one size are faster"),
        tile=setting(None, "parts to predict where an image does not fit", none="whole", kind=SIZE),
        context=setting(0.4, "weight of smaller whole pictures beside parts", kind=SHARE),
        **shared_settings(CONFIG, "num_images"),
        classindex=setting(None, "class that images must show, by name or id", none="any"),
        subset_file=setting(None, "file with an index a line to predict", none="all", kind=PATH),
        probabilities=setting(CONFIG.PROBABILITIES, "how they are stored", choices=FORMS),
        scores=setting([], "anomaly scores to keep as maps", choices=[*OF_LOGITS, *FITTED]),
        fit_scores=setting(
            False, "fit the scores that learn to these pictures, and predict nothing"
        ),
        forget=setting(False, "delete results of pictures that the dataset does not have any more"),
        stray_ids=setting(
            "ignore",
            "label ids without a class: no label, or a reason to stop",
            choices=("ignore", "stop"),
        ),
        **shared_settings(CONFIG, *HOW_TO_RUN),
    )


def predictor_of(args, run, count=None):
    """What the settings ask for: a Predictor; `count` is the number of classes, where it is known.

    It keeps what later stages need to know of the network and the pictures.
    """
    io_path, keeps = Path(args["io_path"]).resolve(), not run.dry_run
    model = entries.choose_model(models, args["model_name"], io_path, keeps)
    data = entries.choose_dataset(datasets, args["dataset"], io_path, keeps)
    told = model_card.ask(model)
    says = told or model_card.kept(io_path, model)
    says |= {"classes": count} if count else {}
    card = model_card.card_of(model, CONFIG.TRAIN_DATASET, says)
    if keeps and says:
        model_card.keep(io_path, model, says)
    run.log.info("%s: %s", model.name, card.origin)
    names = "precision", "tile", "context", "channels_last", "compile", "outputs"
    computing = Computing(
        device=inference.choose_device(args["gpu"], run.log, elsewhere=run.is_elsewhere()),
        scores=sorted(args["scores"]),
        size=card.size,
        multiple_of=card.multiple_of,
        classes=len(card.classes),
        **{name: args[name] for name in names},
    )
    inference.check_precision(computing.device, computing.precision)
    source = {"network": provenance.identity(model), "mean": card.mean, "std": card.std}
    source |= {name: args[name] for name in ("precision", "tile", "probabilities")}
    asked = {"scores": computing.scores, "outputs": args["outputs"], "size": card.size}
    asked |= {"context": args["tile"] and args["context"]}
    asked |= {"multiple_of": card.multiple_of if card.multiple_of > 1 else None}
    asked |= {"classes": card.count if "classes" in told else None}  # told apart from its weights
    source |= {name: value for name, value in asked.items() if value}
    results = Results(io_path, model.name, data.name)
    if FITTED.keys() & set(args["scores"]) and not args["fit_scores"]:
        there = fitting.fitted_for(results, source)
        computing = replace(computing, fitted=there["fitted"])
        source |= {"fitted_scores": provenance.digest(there["made_from"])}
    return Predictor(
        results=results,
        model=model,
        data=data,
        card=card,
        computing=computing,
        form=args["probabilities"],
        predicted_ids=class_ids.predicted_ids(data, card.classes, run.log),
        source=source,
        loaders=loaders_of(run),
        may_stray=args["stray_ids"] == "ignore",
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
    """Predict what the settings ask for, or fit scores to it; gives the Tally."""
    own = partial(predict_dataset, forget=args["forget"])
    work = fitting.fit_scores if args["fit_scores"] else own
    with said_once(run.log):
        predictor = predictor_of(args, run)
        indices = chosen_images(args, predictor)
        try:
            return work(run, predictor, indices)
        except ClassCountError as error:
            said = model_card.ask(predictor.model)
            if model_card.card_of(predictor.model, CONFIG.TRAIN_DATASET, said).count is not None:
                raise
            return work(run, predictor_of(args, run, error.count), indices)


@ex.automain
def main(args, _log):
    run = Runner.from_args(args, _log)
    run.close(predict(args, run))
