"""Evaluation: IoU of every class, and their mean, of one or several networks side by side.

    python eval_segmentation.py
    python eval_segmentation.py with args.model_names=[deeplabv3plus_streets,learnt/cow]

Needs stage 1 of every network, on the same pictures, and ground truth. Classes meet by their names;
one that a network does not know is shown as - and does not count in its mean. Of new classes, which
not all of the networks know, it tells what they are taken for. Writes segmentation.csv, with LaTeX
and bars, segmentation_confusion.csv, and pictures of the best and worst cases, to
analysis/<models>/<dataset> below the results folder.
"""

import configuration
from configuration import CONFIG
from src.evaluation import cases, segmentation
from src.evaluation.pictures import Pictures
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import NAMES, setting, shared_settings
from src.store.paths import Results

ex = create_experiment("eval_segmentation")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        model_names=setting([CONFIG.MODEL_NAME], "networks to compare, as in stage 1", kind=NAMES),
        datasets=setting(
            [CONFIG.VAL_DATASET.name], "entries of `datasets`; need ground truth", kind=NAMES
        ),
        **shared_settings(CONFIG, "io_path", "num_images", "num_cores"),
    )


@ex.automain
def main(args, _log):
    run = Runner.from_args(args, _log)
    figures = {}
    for dataset in args["datasets"]:
        models = [
            Pictures.from_args(args | {"dataset": dataset, "model_name": name}, configuration)
            for name in dict.fromkeys(args["model_names"])
        ]
        judged, tally = segmentation.judge(run, models)
        name, results = models[0].name, [pictures.results for pictures in models]
        folder = Results(args["io_path"], "+".join(judged.models), name).analysis
        segmentation.report(_log, folder, judged, name)
        cases.report(_log, folder, judged, results, name)
        run.close(tally)
        figures[name] = judged.figures()
    return figures
