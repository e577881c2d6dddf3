"""Stage 3 (optional): train the model that predicts the IoU of a segment from its metrics.

    python train_meta_nn.py with args.meta_model=meta_nn args.epochs=50

Writes the model to `args.meta_weights`, the losses of a network beside it as a picture, and prints
how well it predicts on other images, for all segments and for large ones. A training that was
interrupted is gone on with.
"""

from pathlib import Path

from configuration import CONFIG, datasets, meta_models, models
from src import class_ids, entries, registry
from src.MetaSeg import meta_training
from src.MetaSeg.meta_stage import Training, train
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import PATH, POSITIVE, setting, shared_settings
from src.store.paths import Results
from src.store.provenance import identity_if_there

LARGE = 16, 16  # least height and width of a large segment where the dataset has none in pixels

ex = create_experiment("train_meta_nn")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.TRAIN_DATASET.name, "entry of `datasets` to learn from"),
        val_dataset=setting(CONFIG.VAL_DATASET.name, "entry of `datasets` to judge by"),
        **shared_settings(CONFIG, "model_name"),
        meta_model=setting(CONFIG.META_MODEL_NAME, "entry of `meta_models` to train"),
        meta_weights=setting(None, "file to write", none="as its entry has it", kind=PATH),
        **shared_settings(CONFIG, "io_path"),
        **shared_settings(CONFIG, "unlabelled"),
        epochs=setting(50, "times that a network sees every segment", at_least=1),
        batch_size=setting(256, "segments a step of a network", at_least=1),
        learning_rate=setting(CONFIG.META_LEARNING_RATE, "of a network's Adam", kind=POSITIVE),
        patience=setting(
            None, "epochs to go on without a better validation loss", none="all", at_least=1
        ),
        **shared_settings(CONFIG, "seed", "overwrite", "dry_run"),
    )


def training_of(args):
    """What the settings ask for: a Training."""
    model = entries.choose_model(models, args["model_name"], args["io_path"])
    entry = registry.choose(meta_models, args["meta_model"], "meta model")
    meta_training.check(entry)
    learnt, judged = (
        entries.choose_dataset(datasets, args[key], args["io_path"])
        for key in ("dataset", "val_dataset")
    )
    own = registry.size_for(judged, "min_segment_size", None, None)
    height, width = own if all(isinstance(length, int) for length in own) else LARGE
    is_unknown = args["unlabelled"] == "unknown"
    labels = tuple(class_ids.are_classes(data) if is_unknown else None for data in (learnt, judged))
    names = "epochs", "batch_size", "learning_rate", "patience", "seed"
    return Training(
        entry=entry,
        path=Path(args["meta_weights"] or entry.model_weights),
        network=identity_if_there(model),
        learnt=Results(args["io_path"], model.name, learnt.name),
        judged=Results(args["io_path"], model.name, judged.name),
        options={name: args[name] for name in names},
        least=height * width,
        labels=labels,
    )


@ex.automain
def main(args, _log, _run):
    def report(epoch, training_loss, validation_loss):
        _run.log_scalar("training.loss", training_loss, epoch)
        _run.log_scalar("validation.loss", validation_loss, epoch)

    return train(Runner.from_args(args, _log), training_of(args), report)
