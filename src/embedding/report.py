"""What stage 4 says of its choice, and how well its suspicion finds what no network has seen."""

import logging

import numpy as np
from sklearn.metrics import roc_auc_score

from src import class_ids
from src.embedding.crops import in_pixels
from src.records import NO_LABEL


def report(log, collection, judge, known):
    """Log what was chosen, and how well its suspicion finds what is out of distribution.

    Gives the numbers `segments`, `kept` of them, and `objects`; and `auroc` and `auroc_large`, see
    `detection`.
    """
    judged = collection.judged
    if not judged:
        return {"segments": 0, "kept": 0, "objects": 0}
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
    if not chosen.all():
        level = logging.INFO if chosen.any() else logging.WARNING
        log.log(level, "%s", judge.advice(judged.values()))
    small = _small_images(collection.table.take(collection.rows), judge.min_crop)
    if small:
        log.info(
            "images smaller than the least crop, %s, whose crops show the whole height or "
            "width: %d", in_words(judge.min_crop), small,
        )  # fmt: skip
    figures = {
        "segments": len(chosen),
        "kept": int(chosen.sum()),
        "objects": len(collection.rows),
    }
    if judge.rule.join:
        log.info("joined to objects: %d", figures["objects"])
    return figures | detection(log, judged, judge, known)


def detection(log, judged, judge, known):
    """Log how well the suspicion finds what is out of distribution.

    Most segments are fragments of a few pixels, which are wrong whatever they lie on; so that is
    told for all segments and for those of at least the least size. Segments without a true class or
    a suspicion do not count. Gives the numbers `auroc` (all segments) and `auroc_large`, each
    where the ground truth has both classes that the network predicts and others.
    """
    labels = {
        name: class_ids.anomaly_labels(entry, known, log) for name, entry in judge.datasets.items()
    }
    truth = np.concatenate(
        # an id above 255 is that of no class
        [
            labels[name.dataset][np.minimum(facts["segments"]["true_id"], NO_LABEL)]
            for name, facts in judged.items()
        ]
    )
    is_large, suspicion = (_all(judged, name) for name in ("is_large", "suspicion"))
    counts, unknown = (truth != NO_LABEL) & np.isfinite(suspicion), truth == 1
    large = f"segments of at least {in_words(judge.min_size)}"
    by = judge.rule.suspicion.replace("predicted_iou", "1 - predicted IoU")
    figures = {}
    for name, counted, what in (
        ("auroc", counts, "all segments"),
        ("auroc_large", counts & is_large, large),
    ):
        if 0 < unknown[counted].sum() < counted.sum():
            figures[name] = float(roc_auc_score(unknown[counted], suspicion[counted]))
            log.info(
                "AUROC of out of distribution by %s, %s: %.3f (%d of %d)",
                by, what, figures[name], unknown[counted].sum(), counted.sum(),
            )  # fmt: skip
    return figures


def _all(judged, name):
    """A column of the segments of all pictures."""
    return np.concatenate([facts["segments"][name] for facts in judged.values()])


def _small_images(table, min_crop):
    """How many pictures with an object have less than a height or width in pixels."""
    sizes = dict(zip(table.image_names(), table["image_size"].tolist(), strict=True))
    return sum(
        height < in_pixels(min_crop[0], height) or width < in_pixels(min_crop[1], height)
        for height, width in sizes.values()
    )


def in_words(size):
    """A least size as people read it; see `crops.in_pixels`."""
    height, width = size
    if isinstance(height, int) and isinstance(width, int):
        return f"{height} x {width} pixels"
    return f"{height:g} x {width:g} of the picture's height"
