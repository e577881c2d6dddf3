"""What stage 4 says of its choice, and how well predicted IoUs find what no network has seen."""

import numpy as np
from sklearn.metrics import roc_auc_score

from src import class_ids
from src.records import NO_LABEL


def report(log, collection, judge, trained_on):
    """Log what was chosen, and how well 1 - predicted IoU finds what is out of distribution.

    Gives the numbers `segments` and `kept`; and `auroc` and `auroc_large`, see `detection`.
    """
    judged = collection.judged
    if not judged:
        return {"segments": 0, "kept": 0}
    known = class_ids.class_mapping(trained_on, "pred_mapping")
    classes, chosen = (_all(judged, name) for name in ("predicted_id", "is_chosen"))
    log.info("%-16s %8s %8s", "predicted class", "kept", "total")
    for class_id in np.unique(classes).tolist():
        of_class = classes == class_id
        name = known.get(class_id, (f"class {class_id}",))[0]
        log.info("%-16s %8d %8d", name, (chosen & of_class).sum(), of_class.sum())
    log.info("%-16s %8d %8d", "all", chosen.sum(), len(chosen))
    for reason in next(iter(judged.values()))["left_out"]:
        count = sum(facts["left_out"][reason] for facts in judged.values())
        log.info("left out, %s: %d", reason, count)
    if not chosen.any():
        log.warning("no segment is left: raise args.iou_threshold, or lower args.min_height/width")
    small = _small_images(collection.table.take(collection.rows), judge.min_crop)
    if small:
        log.info(
            "images smaller than the least crop, %d x %d pixels, whose crops show the whole height "
            "or width: %d", *judge.min_crop, small,
        )  # fmt: skip
    figures = {"segments": len(chosen), "kept": int(chosen.sum())}
    return figures | detection(log, judged, judge, trained_on)


def detection(log, judged, judge, trained_on):
    """Log how well 1 - predicted IoU finds what is out of distribution.

    Most segments are fragments of a few pixels, which are wrong whatever they lie on; so that is
    told for all segments and for those of at least the least size. Segments without a true class or
    a predicted IoU do not count. Gives the numbers `auroc` (all segments) and `auroc_large`, each
    where the ground truth has both classes that the network predicts and others.
    """
    labels = {
        name: class_ids.anomaly_labels(entry, trained_on, log)
        for name, entry in judge.datasets.items()
    }
    truth = np.concatenate(
        # an id above 255 is that of no class
        [
            labels[name.dataset][np.minimum(facts["segments"]["true_id"], NO_LABEL)]
            for name, facts in judged.items()
        ]
    )
    is_large, predicted_iou = (_all(judged, name) for name in ("is_large", "predicted_iou"))
    counts, unknown = (truth != NO_LABEL) & np.isfinite(predicted_iou), truth == 1
    large = "segments of at least {} x {} pixels".format(*judge.min_size)
    figures = {}
    for name, counted, what in (
        ("auroc", counts, "all segments"),
        ("auroc_large", counts & is_large, large),
    ):
        if 0 < unknown[counted].sum() < counted.sum():
            figures[name] = float(roc_auc_score(unknown[counted], 1 - predicted_iou[counted]))
            log.info(
                "AUROC of out of distribution by 1 - predicted IoU, %s: %.3f (%d of %d)",
                what, figures[name], unknown[counted].sum(), counted.sum(),
            )  # fmt: skip
    return figures


def _all(judged, name):
    """A column of the segments of all pictures."""
    return np.concatenate([facts["segments"][name] for facts in judged.values()])


def _small_images(table, min_crop):
    """How many pictures with an object have less than a height or width in pixels."""
    sizes = dict(zip(table.image_names(), table["image_size"].tolist(), strict=True))
    return sum(bool(np.less(size, min_crop).any()) for size in sizes.values())
