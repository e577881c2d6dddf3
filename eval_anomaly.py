"""Evaluation: how well scores tell pixels, and objects, that are out of distribution.

    python eval_anomaly.py with args.dataset=streets_ood

Needs stages 1 and 2. Scores: entropy, margin, max_softmax (1 - largest probability), predicted_iou
(1 - that of the segment) where a meta model fits the network, those that stage 1 kept (args.scores)
and maps of your own that stage 2 took (args.heatmaps). Writes anomaly_pixels.csv,
anomaly_components.csv and the curves (PNG, PDF) to analysis/<model>/<dataset> below the results
folder. Objects are those of the pixels at the threshold with the best F1, worked out from all
scores; SegmentMeIfYouCan's own program takes that threshold from histograms, which differ a little.
"""

import configuration
from configuration import CONFIG
from src.evaluation import anomaly
from src.evaluation.pictures import Pictures, meta_model_of
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import setting, shared_settings

ex = create_experiment("eval_anomaly")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets`; needs ground truth"),
        **shared_settings(CONFIG, "model_name", "meta_model", "meta_weights", "io_path"),
        **shared_settings(CONFIG, "num_images", "num_cores"),
    )


@ex.automain
def main(args, _log):
    run = Runner.from_args(args, _log)
    pictures = Pictures.from_args(args, configuration)
    meta_model = meta_model_of(args, configuration, _log)
    judged, tally = anomaly.judge(run, pictures, meta_model)
    anomaly.report(_log, pictures.results.analysis, judged, pictures.name)
    run.close(tally)
    return judged.figures()
