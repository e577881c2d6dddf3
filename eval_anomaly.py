"""Evaluation: how well scores tell pixels, and objects, that are out of distribution.

    python eval_anomaly.py with args.dataset=streets_ood

Needs stages 1 and 2. Scores: entropy, 1 - largest probability, margin, 1 - predicted IoU of the
segment, and those that stage 1 kept (args.scores). Writes anomaly_pixels.csv,
anomaly_components.csv and the curves (PNG, PDF) to analysis/<model>/<dataset> below the results
folder. Objects are those of the pixels at the threshold with the best F1, worked out from all
scores; SegmentMeIfYouCan's own program takes that threshold from histograms, which differ a little.
"""

import functools
from collections import defaultdict
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from configuration import CONFIG, datasets, meta_models, models
from src import class_ids, registry
from src.errors import SettingError
from src.evaluation import metrics as evaluation
from src.MetaSeg import meta_models as meta
from src.MetaSeg import stage as measuring
from src.MetaSeg.metrics import heatmaps
from src.run import parallel
from src.run.experiment import create_experiment
from src.run.settings import setting, shared_settings
from src.store import cache, reports

PIXEL_FIGURES = {
    "average_precision": "AP",
    "auroc": "AUROC",
    "fpr_at_95_tpr": "FPR95",
    "best_f1": "F1*",
}
OBJECT_FIGURES = {"sIoU_gt": "sIoU", "prec_pred": "PPV", "f1_mean": "F1"}
TRACKS = {  # SegmentMeIfYouCan's smallest predicted and true components, in pixels
    "anomaly": (500, 100),
    "obstacle": (50, 10),
}
CURVE_POINTS = 1000  # of a curve in the picture

ex = create_experiment("eval_anomaly")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets`; needs ground truth"),
        **shared_settings(CONFIG, "model_name", "meta_model", "meta_weights", "io_path"),
        **shared_settings(CONFIG, "num_images", "num_cores"),
    )


def evaluate(log, *, dataset, model_name, meta_model, meta_weights, io_path, num_cores, num_images):
    """Judge every score on all images with ground truth.

    Returns
    -------
    figures : dict of str to dict
        By score: the pixel metrics, and by track the component metrics at the score's best F1.
    """
    data = registry.choose(datasets, dataset, "dataset")
    registry.choose(models, model_name, "model")
    entry = registry.choose(meta_models, meta_model, "meta model")
    labels = class_ids.anomaly_labels(data, CONFIG.TRAIN_DATASET, log)
    if not (labels == 1).any():
        raise SettingError(
            f"{dataset!r} has no class that the network does not predict: choose a dataset with "
            "unknown objects, or name them in `anomaly_ids` of its class"
        )
    folder = cache.metrics_path(io_path, model_name, dataset, 0).parent
    indices = cache.image_indices(folder, "metrics")[:num_images]
    load = functools.partial(
        load_frame,
        place=(io_path, model_name, dataset),
        anomaly_labels=labels,
        meta_model=meta.load_meta_model(meta_weights or entry.model_weights, entry),
    )
    run = functools.partial(parallel.for_each_image, num_cores=num_cores, log=log)
    counts, labelled = defaultdict(evaluation.ScoreCounts), {}

    def count(index, frame):
        if frame is not None:
            labelled[index] = tuple(frame[0])
            for name, values in frame[0].items():
                counts[name].add(values, frame[1])

    tally = run(load, indices, consume=count, description="counting pixels")
    pixels = pixel_metrics(log, counts, labelled, tally, dataset)

    # scores that reach the best threshold are meant, and objects count what lies above theirs
    thresholds = {
        name: np.nextafter(np.float32(metrics["best_f1_threshold"]), np.float32(-np.inf))
        for name, metrics in pixels.items()
    }
    judge = functools.partial(judge_frame, load=load, thresholds=thresholds)
    frames = {}
    again = run(judge, labelled, consume=frames.__setitem__, description="judging objects")
    objects = {
        track: {
            n: evaluation.sum_components([frame[track][n] for frame in frames.values()])
            for n in pixels
        }
        for track in TRACKS
    }
    report(log, cache.analysis_folder(io_path, model_name, dataset), counts, pixels, objects)
    failed, seconds = tally.failed + again.failed, tally.seconds + again.seconds
    parallel.close(log, replace(again, failed=failed, seconds=seconds))
    return {
        name: {
            **pixels[name],
            "object_threshold": float(thresholds[name]),
            **{track: _numbers(objects[track][name]) for track in TRACKS},
        }
        for name in pixels
    }


def pixel_metrics(log, counts, labelled, tally, dataset):
    """Pixel metrics by score; refuses images that leave nothing to judge by.

    Parameters
    ----------
    counts : dict of str to ScoreCounts
    labelled : dict of int to tuple of str
        Names of the scores of each image with ground truth.
    """
    if not labelled:
        parallel.close(log, tally)
        raise SettingError(f"no image of {dataset!r} has ground truth, so nothing can be judged")
    if len(set(labelled.values())) > 1:
        image, names = next((k, v) for k, v in labelled.items() if len(v) < len(counts))
        more = ", ".join(sorted(counts.keys() - set(names)))
        raise SettingError(
            f"image {image} of {dataset!r} has the scores {', '.join(names)}, others also have "
            f"{more}: to compare them, run pred_images.py and src/MetaSeg/main.py for all images "
            "with the same args.scores"
        )
    if any(counted.steps is not None for counted in counts.values()):
        log.info("more pixels than are kept: scores are counted in steps between quantiles")
    if len(labelled) < tally.done:
        log.info("left out without ground truth: %d images", tally.done - len(labelled))
    try:
        return {name: counted.metrics() for name, counted in counts.items()}
    except ValueError as error:
        raise SettingError(f"{len(labelled)} images of {dataset!r}: {error}") from error


def load_frame(index, *, place, anomaly_labels, meta_model):
    """Scores of an image by name, (H, W) float32, and labels (H, W); None without ground truth.

    Higher scores are more anomalous; labels are 0 = normal, 1 = anomaly, 255 = not judged.
    """
    prediction, metrics, components = measuring.read_measured((*place, index), probabilities=True)
    if prediction.ground_truth is None:
        return None
    if prediction.probabilities is None:
        maps = np.moveaxis(prediction.heatmaps, 2, 0)
    else:
        maps = heatmaps(prediction.probabilities)
    entropy, margin, variation = maps
    scores = {
        "entropy": entropy,
        "1 - largest probability": variation,
        "margin": margin,
        "1 - predicted IoU": (1 - meta_model.predict(metrics))[np.abs(components) - 1],
        **{name.replace("_", " "): values for name, values in prediction.scores.items()},
    }
    return scores, anomaly_labels[prediction.ground_truth]


def judge_frame(index, *, load, thresholds):
    """Components of one image by track and score, see `evaluation.judge_components`."""
    scores, labels = load(index)
    return {
        track: {
            name: evaluation.judge_components(scores[name], labels, threshold, *sizes)
            for name, threshold in thresholds.items()
        }
        for track, sizes in TRACKS.items()
    }


def report(log, folder, counts, pixels, objects):
    """Log both tables, and write them and the curves to a folder."""
    rows = [[name, *(metrics[key] for key in PIXEL_FIGURES)] for name, metrics in pixels.items()]
    log.info("pixels\n%s", reports.text_table(["score", *PIXEL_FIGURES.values()], rows))
    reports.write_csv(
        folder / "anomaly_pixels.csv",
        ["score", *next(iter(pixels.values()))],
        [[name, *metrics.values()] for name, metrics in pixels.items()],
    )
    rows = [
        [name, *(objects[track][name][key] for track in TRACKS for key in OBJECT_FIGURES)]
        for name in pixels
    ]
    header = [f"{figure} {track}" for track in TRACKS for figure in OBJECT_FIGURES.values()]
    log.info(
        "objects, at the threshold of the best F1\n%s", reports.text_table(["score", *header], rows)
    )
    reports.write_csv(
        folder / "anomaly_components.csv",
        ["track", "score", *_numbers(objects["anomaly"][rows[0][0]])],
        [
            [track, name, *_numbers(metrics).values()]
            for track in TRACKS
            for name, metrics in objects[track].items()
        ],
    )
    figure = Figure(figsize=(11, 5), layout="constrained")
    draw_curves(figure, counts, pixels)
    reports.save_figure(folder / "anomaly_curves", figure)
    log.info("wrote tables and curves to %s", folder)


def draw_curves(figure, counts, pixels):
    """Precision by recall, and true by false positive rate, of each score."""
    precision_axes, roc_axes = figure.subplots(1, 2)
    for name, counted in counts.items():
        _, tp, fp = counted.curve()
        some = np.unique(np.linspace(0, len(tp) - 1, CURVE_POINTS).astype(int))
        tp, fp = tp[some], fp[some]
        metrics = pixels[name]
        label = f"{name} (AP {metrics['average_precision']:.3f})"
        precision_axes.plot(tp / tp[-1], tp / (tp + fp), label=label)
        label = f"{name} (AUROC {metrics['auroc']:.3f})"
        roc_axes.plot(np.r_[0, fp / fp[-1]], np.r_[0, tp / tp[-1]], label=label)
    precision_axes.set(xlabel="recall", ylabel="precision", title="Anomalous pixels found")
    roc_axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    share = metrics["positives"] / (metrics["positives"] + metrics["negatives"])
    chance = {"color": "grey", "linestyle": ":", "label": "chance"}
    precision_axes.axhline(share, **chance)
    roc_axes.plot([0, 1], [0, 1], **chance)
    for axes in (precision_axes, roc_axes):
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)


def _numbers(metrics):
    """The numbers of component metrics, without the lists."""
    return {key: value for key, value in metrics.items() if not isinstance(value, list)}


@ex.automain
def main(args, _log):
    return evaluate(_log, **args)
