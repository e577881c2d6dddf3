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
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner

ex = create_experiment("eval_iou")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets`; needs ground truth
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        meta_model=CONFIG.META_MODEL_NAME,  # entry of `meta_models` that predicts the IoU
        meta_weights=None,  # its weights file; None: `model_weights` of its entry
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        num_thresholds=51,  # predicted IoUs from 0 to 1 to divide the pixels at
        num_cores=CONFIG.NUM_CORES,  # processes to use
        num_images=CONFIG.NUM_IMAGES,  # only the first so many images; None: all
    )


@ex.automain
def main(args, _log, _run):
    counts = "num_thresholds", "num_cores", "num_images"
    choice.check_counts(**{name: args[name] for name in counts})
    run = Runner.from_args(args, _log)
    pictures = Pictures.from_args(args, configuration)
    thresholds = np.linspace(0, 1, args["num_thresholds"])
    trust, tally = iou.judge(run, pictures, meta_model_of(args, configuration), thresholds)
    iou.report(_log, pictures.results.analysis, trust)
    run.close(tally)
    _run.info.update(trust.curves())
    return trust.figures()
