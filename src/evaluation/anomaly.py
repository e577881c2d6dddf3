"""How well scores tell pixels, and objects, that are out of distribution."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from src import class_ids, scores
from src.errors import SettingError
from src.evaluation.components import judge_components, sum_components
from src.evaluation.pixels import ScoreCounts
from src.MetaSeg import stage
from src.MetaSeg.metrics import heatmaps
from src.store import reports

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


@dataclass(frozen=True)
class Judged:
    """What scores are worth, by their name."""

    counts: dict[str, ScoreCounts]
    pixels: dict[str, dict]  # see `pixel_anomaly_metrics`
    # pixels with a score above belong to objects: those that reach the threshold of the best F1
    thresholds: dict[str, np.float32]
    objects: dict[str, dict[str, dict]]  # by track and name, see `component_anomaly_metrics`

    def figures(self):
        """By score: the pixel metrics, and by track the component metrics; plain numbers."""
        return {
            name: {
                **self.pixels[name],
                "object_threshold": float(self.thresholds[name]),
                **{track: _numbers(self.objects[track][name]) for track in TRACKS},
            }
            for name in self.pixels
        }


def judge(run, pictures, meta_model):
    """Judge every score on all images with ground truth: a Judged, and the Tally.

    `meta_model` is a MetaModel, or None: predicted IoUs are unknown.
    """
    labels = class_ids.anomaly_labels(pictures.data, pictures.card.classes, run.log)
    if not (labels == 1).any():
        raise SettingError(
            f"{pictures.name!r} has no class that the network does not predict: choose a dataset "
            "with unknown objects, or name them in `anomaly_ids` of its class"
        )
    results = pictures.results
    load = partial(load_frame, results=results, anomaly_labels=labels, meta_model=meta_model)
    counts, labelled = defaultdict(ScoreCounts), {}

    def count(index, frame):
        if frame is not None:
            labelled[index] = tuple(frame[0])
            for name, values in frame[0].items():
                counts[name].add(values, frame[1])

    tally = run.each(load, pictures.indices("metrics"), "counting pixels", count)
    if not labelled:
        run.close(tally)
        raise SettingError(
            f"no image of {pictures.name!r} has ground truth, so nothing can be judged"
        )
    check_scores(pictures.name, labelled)
    if len(labelled) < tally.done:
        run.log.info("left out without ground truth: %d images", tally.done - len(labelled))
    pixels = pixel_metrics(run.log, counts, f"{len(labelled)} images of {pictures.name!r}")
    thresholds = {
        # objects count what lies above, and scores that reach the best threshold are meant
        name: np.nextafter(np.float32(metrics["best_f1_threshold"]), np.float32(-np.inf))
        for name, metrics in pixels.items()
    }
    objects, again = judge_objects(run, load, labelled, thresholds)
    failed, seconds = tally.failed + again.failed, tally.seconds + again.seconds
    judged = Judged(dict(counts), pixels, thresholds, objects)
    return judged, replace(again, failed=failed, seconds=seconds)


def check_scores(dataset, names):
    """Refuse images of a dataset that do not have the same scores: a tuple of str by index."""
    every = set().union(*names.values())
    for image, own in names.items():
        if len(own) < len(every):
            raise SettingError(
                f"image {image} of {dataset!r} has the scores {', '.join(own)}, others also have "
                f"{', '.join(sorted(every - set(own)))}: to compare them, run pred_images.py and "
                "src/MetaSeg/main.py for all images with the same args.scores and args.heatmaps"
            )


def pixel_metrics(log, counts, images):
    """Pixel metrics by score, of a dict of ScoreCounts; refuses `images` that are of one kind."""
    if any(counted.steps is not None for counted in counts.values()):
        log.info("more pixels than are kept: scores are counted in steps between quantiles")
    try:
        return {name: counted.metrics() for name, counted in counts.items()}
    except ValueError as error:
        raise SettingError(f"{images}: {error}") from error


def load_frame(index, results, anomaly_labels, meta_model):
    """Scores of an image by name, (H, W) float32, and labels (H, W); None without ground truth.

    Labels are 0 = normal, 1 = anomaly, 255 = not judged.
    """
    prediction, metrics, components = stage.read_measured(results, index, probabilities=True)
    if prediction.ground_truth is None:
        return None
    predicted_iou = meta_model and meta_model.predict(metrics)[np.abs(components) - 1]
    if prediction.probabilities is None:
        maps = np.moveaxis(prediction.heatmaps, 2, 0)
    else:
        maps = heatmaps(prediction.probabilities)
    kept = prediction.scores | stage.own_maps(results, index)
    found = scores.of_picture(maps, predicted_iou, kept)
    return found, anomaly_labels[prediction.ground_truth]


def judge_objects(run, load, images, thresholds):
    """Component metrics by track and score, and the tally; `load` as for `judge_frame`."""
    frames = []
    tally = run.each(
        partial(judge_frame, load=load, thresholds=thresholds),
        images,
        "judging objects",
        lambda _, frame: frames.append(frame),
    )
    objects = {
        track: {
            name: sum_components([frame[track][name] for frame in frames]) for name in thresholds
        }
        for track in TRACKS
    }
    return objects, tally


def judge_frame(index, load, thresholds):
    """Components of one image by track and score, see `judge_components`."""
    found, labels = load(index)
    return {
        track: {
            name: judge_components(found[name], labels, threshold, *sizes)
            for name, threshold in thresholds.items()
        }
        for track, sizes in TRACKS.items()
    }


# telling


def report(log, folder, judged, dataset):
    """Log both tables; write them, and the curves, which name the dataset, to a folder."""
    pixels, objects = judged.pixels, judged.objects
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
    reports.save_figure(folder / "anomaly_curves", draw_curves(judged, dataset))
    log.info("wrote tables and curves to %s", folder)


def draw_curves(judged, dataset):
    """Precision by recall, and true by false positive rate, of each score."""
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    figure.suptitle(f"{reports.label(dataset)}: anomalous pixels found")
    precision_axes, roc_axes = figure.subplots(1, 2)
    for name, counted in judged.counts.items():
        _, tp, fp = counted.curve()
        some = np.unique(np.linspace(0, len(tp) - 1, CURVE_POINTS).astype(int))
        tp, fp = tp[some], fp[some]
        metrics = judged.pixels[name]
        label = f"{reports.label(name)} (AP {metrics['average_precision']:.3f})"
        precision_axes.plot(tp / tp[-1], tp / (tp + fp), label=label)
        label = f"{reports.label(name)} (AUROC {metrics['auroc']:.3f})"
        roc_axes.plot(np.r_[0, fp / fp[-1]], np.r_[0, tp / tp[-1]], label=label)
    precision_axes.set(xlabel="recall", ylabel="precision", title="precision and recall")
    roc_axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    share = metrics["positives"] / (metrics["positives"] + metrics["negatives"])
    chance = {"color": "grey", "linestyle": ":", "label": "chance"}
    precision_axes.axhline(share, **chance)
    roc_axes.plot([0, 1], [0, 1], **chance)
    for axes in (precision_axes, roc_axes):
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return figure


def _numbers(metrics):
    """The numbers of component metrics, without the lists."""
    return {key: value for key, value in metrics.items() if not isinstance(value, list)}
