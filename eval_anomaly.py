"""Evaluation: how well scores tell pixels, and objects, that are out of distribution.

    python eval_anomaly.py with args.dataset=streets_ood

Needs stages 1 and 2. Scores: entropy, 1 - largest probability, margin, 1 - predicted IoU of the
segment, and those that stage 1 kept (args.scores). Writes anomaly_pixels.csv,
anomaly_components.csv and the curves (PNG, PDF) to analysis/<model>/<dataset> below the results
folder. Objects are those of the pixels at the threshold with the best F1, worked out from all
scores; SegmentMeIfYouCan's own program takes that threshold from histograms, which differ a little.
"""

import configuration
from configuration import CONFIG
from src.evaluation import anomaly
from src.evaluation.pictures import Pictures, meta_model_of
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner

ex = create_experiment("eval_anomaly")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets`; needs ground truth
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        meta_model=CONFIG.META_MODEL_NAME,  # entry of `meta_models` that predicts the IoU
        meta_weights=None,  # its weights file; None: `model_weights` of its entry
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        num_cores=CONFIG.NUM_CORES,  # processes to use
        num_images=CONFIG.NUM_IMAGES,  # only the first so many images; None: all
    )


@ex.automain
def main(args, _log):
    choice.check_counts(**{name: args[name] for name in ("num_cores", "num_images")})
    run = Runner.from_args(args, _log)
    pictures = Pictures.from_args(args, configuration)
    judged, tally = anomaly.judge(run, pictures, meta_model_of(args, configuration))
    anomaly.report(_log, pictures.results.analysis, judged)
    run.close(tally)
    return judged.figures()
