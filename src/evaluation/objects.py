"""Which true objects does stage 4 find, whole or in pieces, and how much else does it offer?

`eval_objects` judges the objects that each way of joining makes, of the same suspicious segments:
at the threshold of stage 4, at others, and with fewer candidates.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage, sparse

from src import class_ids
from src.embedding import crops, objects
from src.embedding.suspects import Rule
from src.records import NO_LABEL
from src.store import reports, tables
from src.store.arrays import read_components, read_prediction

EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are one object
WAYS = {"fragments": None} | {way: way for way in objects.WAYS}  # by what tables call them
FOUND = "any", "mask_25", "mask_50", "box_50"
STEPS = 20  # thresholds of a curve
BUDGETS = 0.5, 1, 2, 3, 5, 8, 12, 20  # candidates a picture


class SegmentsOfImage(NamedTuple):
    """An image, and what stage 4 knows of its S segments: columns (S,), see `Judge.objects_of`."""

    index: int
    segments: dict

    def __str__(self):
        return str(self.index)


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates for unknown objects in some pictures, and the true objects there."""

    picture: np.ndarray  # (n,) int64, of each candidate
    suspicion: np.ndarray  # (n,) float32, likewise
    finds: np.ndarray  # (n,) bool, an unknown object by a mask IoU of 0.25
    is_false: np.ndarray  # (n,) bool: most of its pixels are of no unknown class
    true_picture: np.ndarray  # (m,) int64, of each true object
    is_unknown: np.ndarray  # (m,) bool
    # (m, 4) float32: the highest suspicion of the candidates that find it, in the ways of FOUND;
    # minus infinity where there is none
    found_at: np.ndarray

    @classmethod
    def of_all(cls, parts):
        """Those of several pictures together."""
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def only(self, pictures):
        """Those in some pictures: a mask by index."""
        of_candidates, of_objects = pictures[self.picture], pictures[self.true_picture]
        columns = self.picture, self.suspicion, self.finds, self.is_false
        true = self.true_picture, self.is_unknown, self.found_at
        return Judged(*(c[of_candidates] for c in columns), *(c[of_objects] for c in true))


@dataclass(frozen=True, eq=False)
class Truth:
    """The true objects of a picture: 8-connected regions of one id."""

    regions: np.ndarray  # (H, W) int64: number of the object, from 1; 0: not judged
    ids: np.ndarray  # (m,) int64
    boxes: np.ndarray  # (m, 4) int64, see `crops.segment_boxes`
    is_unknown: np.ndarray  # (m,) bool
    is_large: np.ndarray  # (m,) bool: whether it counts

    @classmethod
    def of_picture(cls, truth, labels, least):
        """Of the ids (H, W), by `class_ids.anomaly_labels`; `least` as of `objects.are_large`."""
        regions, ids = np.zeros(truth.shape, np.int64), [np.zeros(0, np.int64)]
        truth = np.minimum(truth, NO_LABEL)  # no larger id has a class
        for key in np.unique(truth[labels[truth] != NO_LABEL]).tolist():
            numbers, count = ndimage.label(truth == key, EIGHT)
            regions[numbers > 0] = numbers[numbers > 0] + sum(map(len, ids))
            ids.append(np.full(count, key))
        ids, boxes = np.concatenate(ids), crops.segment_boxes(regions)
        is_large = crops.are_large(boxes, len(truth), *least)
        return cls(regions, ids, boxes, labels[ids] == 1, is_large)


def judge_candidates(index, truth, pixels, sizes, boxes, found, suspicion):
    """Hold candidates against the true objects of a picture: Judged.

    Candidates of which less than half is judged do not count.

    Parameters
    ----------
    index : int
        Of the picture.
    truth : Truth
    pixels : sparse array of shape (S, m)
        How many each segment has in common with each true object.
    sizes, boxes
        Of the segments, (S,) and (S, 4).
    found : list of n ndarray of int64
        Segment numbers of each candidate.
    suspicion : ndarray of shape (n,)
    """
    row_of = np.repeat(np.arange(len(found)), [len(numbers) for numbers in found])
    members = np.concatenate([np.zeros(0, np.int64), *found]) - 1
    ones = np.ones(len(members), np.int64)
    is_member = sparse.coo_array((ones, (row_of, members)), (len(found), len(sizes))).tocsr()
    common = (is_member @ pixels).toarray()
    judged = common.sum(axis=1)
    counts = 2 * judged >= objects.sizes_of(sizes, found)
    common, judged, suspicion = common[counts], judged[counts], np.float32(suspicion)[counts]
    boxes = objects.boxes_of(boxes, found)[counts]
    of_ids = common @ (truth.ids[:, None] == np.arange(NO_LABEL))
    majority = of_ids.argmax(axis=1) if len(of_ids) else np.zeros(0, np.int64)
    unknown_ids = np.unique(truth.ids[truth.is_unknown])
    iou = common / (judged[:, None] + pixels.sum(axis=0) - common)
    finds = np.stack(
        [
            (common > 0) & (majority[:, None] == truth.ids),
            iou >= 0.25,
            iou >= 0.5,
            box_ious(boxes, truth.boxes) >= 0.5,
        ],
        axis=-1,
    )  # (n, m, 4)
    found_at = np.where(finds, suspicion[:, None, None], -np.inf).max(axis=0, initial=-np.inf)
    large = truth.is_large
    return Judged(
        picture=np.full(len(common), index),
        suspicion=suspicion,
        finds=finds[:, truth.is_unknown, 1].any(axis=1),
        is_false=~np.isin(majority, unknown_ids),
        true_picture=np.full(large.sum(), index),
        is_unknown=truth.is_unknown[large],
        found_at=found_at[large].astype(np.float32),
    )


def box_ious(boxes, others):
    """Intersection over union of each two boxes, (n, 4) and (m, 4): (n, m) float64."""
    upper = np.maximum(boxes[:, None, :2], others[None, :, :2])
    lower = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = (lower - upper).clip(0).prod(axis=-1)
    areas = [(of[:, 2:] - of[:, :2]).prod(axis=-1) for of in (boxes, others)]
    return common / (areas[0][:, None] + areas[1] - common)


def figures(judged, pictures, least=-np.inf):
    """What the candidates from a suspicion `least` on are worth: a dict of numbers.

    `candidates` and `false` ones a picture; of the unknown objects the shares that are found, by
    `FOUND`, and of the known ones (`known_any`, ...); `f1` = 2 tp / (2 tp + fn + fp) at a mask IoU
    of 0.25: tp = unknown objects found, fn = the others, fp = candidates that find none. None where
    there is nothing to divide by.
    """
    there = judged.suspicion >= least
    found = np.isfinite(judged.found_at) & (judged.found_at >= least)
    values = {
        "candidates": float(there.sum() / pictures),
        "false": float((judged.is_false & there).sum() / pictures),
    }
    for prefix, side in (("", judged.is_unknown), ("known_", ~judged.is_unknown)):
        for k, name in enumerate(FOUND):
            values[prefix + name] = float(found[side, k].mean()) if side.any() else None
    tp, fp = found[judged.is_unknown, 1].sum(), (there & ~judged.finds).sum()
    both = tp + judged.is_unknown.sum() + fp
    return values | {"f1": float(2 * tp / both) if both else None}


def judge_image(image, results, labels, rule, thresholds):
    """Judged by (way, threshold) of one picture; threshold None is the rule's own.

    An empty dict where there is no ground truth.
    """
    truth = read_prediction(results.prediction(image.index), probabilities=False).ground_truth
    if truth is None:
        return {}
    truth = Truth.of_picture(truth, labels, rule.min_size)
    components = read_components(results.components(image.index))
    suspicion, count = image.segments["suspicion"], len(image.segments["suspicion"])
    numbers, inside = np.abs(components) - 1, truth.regions > 0
    places = numbers[inside], truth.regions[inside] - 1
    ones = np.ones(len(places[0]), np.int64)
    pixels = sparse.coo_array((ones, places), (count, len(truth.ids))).tocsr()
    sizes, boxes = np.bincount(numbers.ravel(), minlength=count), crops.segment_boxes(components)
    shared = objects.borders(components, count)
    wanted = np.isfinite(suspicion)
    if rule.classes is not None:
        wanted &= np.isin(image.segments["predicted_id"], rule.classes)
    judged = {}
    for threshold in (None, *thresholds):
        suspects = wanted & (
            rule.is_suspicious(suspicion, image.segments["predicted_iou"])
            if threshold is None
            else suspicion >= threshold
        )
        for name, way in WAYS.items():
            of_segments = suspects, image.segments["is_large"], sizes, boxes, shared
            found = objects.find(*of_segments, len(components), rule.min_size, way)
            means = objects.mean_by_pixels(suspicion, sizes, found)
            candidates = truth, pixels, sizes, boxes, found, means
            judged[name, threshold] = judge_candidates(image.index, *candidates)
    return judged


def rule_of(selection, min_size):
    """The Rule that stage 4 has noted in `provenance.of_vectors`, without its budget."""
    is_iou = "iou_threshold" in selection
    return Rule(
        suspicion="predicted_iou" if is_iou else selection["suspicion"],
        iou_threshold=selection.get("iou_threshold"),
        least=selection.get("least"),
        classes=selection["classes"],
        min_size=min_size,
    )


def eval_objects(run, pictures, path, min_size):
    """Judge the objects of a dataset's pictures in each way of joining.

    Arguments are those of `selection.judge`.

    Returns
    -------
    rows : list of dict
        `way`, `chosen` ("stage 4", "curve" or "budget"), `value` (the threshold of suspicion, or
        the candidates a picture), and the `figures`; for each way first that at the threshold of
        stage 4, with `f1_other_half`: the F1 where the threshold is chosen on pictures of even
        number and counted on those of odd, and the other way round, the mean. None where stage 4
        has not noted what it knows of the segments.
    tally : Tally
    """
    images, made_from = [], None
    for index in pictures.indices("input"):
        file = pictures.results.vectors(index, path)
        if file.is_file():
            table, made_from = tables.read_objects(file)
            if "segments" in table.facts:
                images.append(SegmentsOfImage(index, table.facts["segments"]))
    if not images or "selection" not in made_from:
        run.log.info("objects are not judged: %s has none of these pictures", path.with_suffix(""))
        return None, None
    thresholds = steps_of(images)
    labels = class_ids.anomaly_labels(pictures.data, pictures.card.classes, run.log)
    function = partial(
        judge_image,
        results=pictures.results,
        labels=labels,
        rule=rule_of(made_from["selection"], min_size),
        thresholds=thresholds,
    )
    parts, judged_images = {}, []

    def keep(image, judged):
        if judged:
            judged_images.append(image.index)
        for key, part in judged.items():
            parts.setdefault(key, []).append(part)

    tally = run.each(function, images, f"judging objects of {pictures.name}", keep)
    judged = {key: Judged.of_all(of_key) for key, of_key in parts.items()}
    return rows_of(judged, thresholds, judged_images), tally


def steps_of(images):
    """Thresholds of suspicion, ascending, between which equally many large segments lie."""
    known = [image.segments["suspicion"][image.segments["is_large"]] for image in images]
    known = np.concatenate(known)
    known = known[np.isfinite(known)]
    return np.unique(np.quantile(known, np.arange(1, STEPS) / STEPS)).tolist() if len(known) else []


def rows_of(judged, thresholds, images):
    """The rows of `eval_objects`, of Judged by (way, threshold) and the indices of pictures."""
    rows = []
    count, is_even = len(images), np.arange(max(images, default=0) + 1) % 2 == 0
    for way in WAYS if judged else ():
        own = judged[way, None]
        curve = [judged[way, threshold] for threshold in thresholds]
        other = [_f1_of_other_half(curve, half) for half in (is_even, ~is_even)]
        mean = None if None in other else float(np.mean(other))
        first = {"way": way, "chosen": "stage 4", "value": None, **figures(own, count)}
        rows.append(first | {"f1_other_half": mean})
        for threshold, at in zip(thresholds, curve, strict=True):
            rows.append(dict(way=way, chosen="curve", value=threshold, **figures(at, count)))
        ranked = np.sort(own.suspicion)[::-1]
        for budget in BUDGETS:
            last = round(budget * count) - 1
            if 0 <= last < len(ranked):
                at = figures(own, count, ranked[last])
                rows.append(dict(way=way, chosen="budget", value=budget, **at))
    return rows


def _f1_of_other_half(curve, half):
    """F1 in the pictures outside a half, (P,) bool, at the threshold that is best inside."""
    inside = [figures(at.only(half), 1)["f1"] or 0 for at in curve]
    return figures(curve[int(np.argmax(inside))].only(~half), 1)["f1"] if curve else None


# telling


def merits(rows):
    """`f1` and `f1_other_half` of each way at the threshold of stage 4: a dict of numbers."""
    return {
        f"{name}_{row['way']}": row[name]
        for row in rows or ()
        if row["chosen"] == "stage 4"
        for name in ("f1", "f1_other_half")
    }


def report(log, path, rows, dataset):
    """Log the ways side by side; write all rows, and the curves, which name the dataset."""
    names = ["candidates", "false", *FOUND, "f1", "f1_other_half"]
    names += [f"known_{name}" for name in FOUND]
    first = [row for row in rows if row["chosen"] == "stage 4"]
    table = [[row["way"], *(row[name] for name in names)] for row in first]
    log.info("objects found\n%s", reports.text_table(["way", *names], table))
    header = ["way", "chosen", "value", *names]
    reports.write_csv(f"{path}.csv", header, [[row.get(key) for key in header] for row in rows])
    reports.save_figure(path, draw_curves(rows, dataset))
    log.info("wrote %s (.csv, .png, .pdf)", path)


def draw_curves(rows, dataset):
    """F1 and the share of unknown objects found, over the threshold and over the budget."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    figure.suptitle(f"{reports.label(dataset)}: unknown objects found, by the way of joining")
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    figures = ("f1", "F1 at mask IoU 0.25"), ("mask_25", "share found at mask IoU 0.25")
    for row_of_axes, (name, label) in zip(axes, figures, strict=True):
        for ax, chosen in zip(row_of_axes, ("curve", "budget"), strict=True):
            for way in WAYS:
                of_way = [row for row in rows if (row["way"], row["chosen"]) == (way, chosen)]
                values = np.array([row[name] for row in of_way], float)  # None: NaN
                ax.plot([row["value"] for row in of_way], values, marker=".", label=way)
            ax.set_ylim(0, None)
            ax.grid(alpha=0.3)
        row_of_axes[0].set_ylabel(label)
    axes[1, 0].set_xlabel("threshold of suspicion")
    axes[1, 1].set_xlabel("candidates a picture, the most suspicious")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
