"""Evaluation: how good the segmentation is where its predicted IoU is low, and where it is high.

    python eval_iou.py with args.dataset=streets_val

Needs stages 1 and 2, the meta model and ground truth. Writes iou_by_predicted_iou.csv and the
curves (PNG, PDF) to analysis/<model>/<dataset> below the results folder.
"""

import numpy as np

import configuration
from configuration import CONFIG
from src.evaluation import iou
from src.evaluation.pictures import Pictures, meta_model_of
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import setting, shared_settings

ex = create_experiment("eval_iou")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets`; needs ground truth"),
        **shared_settings(CONFIG, "model_name", "meta_model", "meta_weights", "io_path"),
        num_thresholds=setting(51, "predicted IoUs to divide the pixels at", at_least=1),
        **shared_settings(CONFIG, "num_images", "num_cores"),
    )


@ex.automain
def main(args, _log, _run):
    run = Runner.from_args(args, _log)
    pictures = Pictures.from_args(args, configuration)
    thresholds = np.linspace(0, 1, args["num_thresholds"])
    trust, tally = iou.judge(run, pictures, meta_model_of(args, configuration), thresholds)
    iou.report(_log, pictures.results.analysis, trust, pictures.name)
    run.close(tally)
    _run.info.update(trust.curves())
    return trust.figures()
