"""Average precision and confusion by predicted IoU, counted one by one."""

from math import dist, fsum, hypot, nan

import numpy as np

from twins import labels
from twins.metaseg import slow_metrics

VOID = 255
CATEGORIES = 8  # void is the first
THRESHOLDS = np.linspace(0, 1, 21)


def write(folder):
    """Write map_<case>.npz and iou_by_threshold_<dataset>.npz."""
    for case in ("plain", "annotated"):
        np.savez(folder / f"map_{case}.npz", **retrieval(case == "annotated"))
    for dataset in ("cityscapes_val", "a2d2"):
        np.savez(folder / f"iou_by_threshold_{dataset}.npz", **confusions(dataset))


# --- retrieval


def euclid(one, other):
    return dist(one, other)


def cos(one, other):
    return 1 - fsum(a * b for a, b in zip(one, other, strict=True)) / hypot(*one) / hypot(*other)


def average_precision(vectors, classes, counts, query, distance):
    """Of one query, with what `counts`: of the others that are relevant, how soon they come."""
    others = [row for row in range(len(vectors)) if row != query]
    others.sort(key=lambda row: distance(vectors[query], vectors[row]))
    hits, total = 0, 0.0
    for rank, row in enumerate(others, 1):
        if classes[row] == classes[query] and counts[row]:
            hits += 1
            total += hits / rank
    return total / hits if hits else nan


def retrieval(annotated):
    """Segments of A2D2 in space, some without a label, and every average precision."""
    random = np.random.default_rng(1)
    kinds = labels.mappings()["a2d2_id_to_train_id"]
    ids = random.choice([7, 8, 9, 10, 34, 46, 33, 18, 0, VOID], 70)
    kept = np.flatnonzero(ids != VOID)
    classes = [kinds[i] for i in ids[kept]]
    embeddings = random.normal(0, 2, (256, 6))[ids] + random.normal(0, 1, (len(ids), 6))
    embeddings = embeddings.astype(np.float32)
    counts = random.random(len(kept)) < (0.7 if annotated else 1)
    asked = [row for row in range(len(kept)) if counts[row]]
    number = {c: sum(classes[row] == c for row in asked) for c in sorted(set(classes))}
    judged = [c for c, queries in number.items() if queries >= 2]
    queries = [row for row in asked if classes[row] in judged]
    found = {
        "embeddings": embeddings,
        "gt_ids": ids,
        "kept_rows": kept,
        "train_ids": classes,
        "query_indices": queries,
    }
    vectors = embeddings[kept].astype(np.float64).tolist()
    for distance in (euclid, cos):
        values = [average_precision(vectors, classes, counts, q, distance) for q in queries]
        of_class = [
            np.mean([v for q, v in zip(queries, values, strict=True) if classes[q] == c])
            for c in judged
        ]
        name = distance.__name__
        found[f"ap_{name}"] = values
        found[f"map_per_class_{name}"] = of_class
        found[f"map_average_{name}"] = np.mean(of_class)
        found[f"map_weighted_{name}"] = np.average(of_class, weights=[number[c] for c in judged])
    return found | ({"annotated": counts} if annotated else {})


# --- IoU by predicted IoU


def category_tables():
    """Category by id: {"cityscapes_val": of train ids, "a2d2": of A2D2's ids}.

    As in the original a rider is a vehicle.
    """
    known = {
        row["train_id"]: labels.CATEGORIES.index(row["category"])
        for row in labels.cityscapes()
        if row["train_id"] != VOID
    }
    known[12] = labels.CATEGORIES.index("vehicle")
    a2d2 = labels.mappings()["a2d2_id_to_cityscapes_category_id"]
    return {"cityscapes_val": known | {VOID: 0}, "a2d2": a2d2 | {VOID: 0}}


def confusions(dataset):
    """An image of squares, and its confusion matrices below each threshold and from it on."""
    random = np.random.default_rng(2)
    tables = category_tables()
    prediction = random.integers(0, 19, (9, 12)).repeat(3, 0).repeat(3, 1)
    if dataset == "cityscapes_val":
        truth = np.where(random.random(prediction.shape) < 0.6, prediction, np.roll(prediction, 3))
        truth[:3] = VOID
    else:
        truth = random.integers(0, 55, (9, 12)).repeat(3, 0).repeat(3, 1)
        truth[:, :3] = VOID
    _, components = slow_metrics(np.eye(19)[prediction], None, {})
    values = random.random(abs(components).max()).astype(np.float32)
    values[:3] = 0, 0.5, 1
    categories = [
        [[table[i] for i in row] for row in ids.tolist()]
        for ids, table in (
            (prediction, tables["cityscapes_val"]),
            (truth, tables[dataset]),
        )
    ]
    below, above = (np.zeros((len(THRESHOLDS), CATEGORIES, CATEGORIES)) for _ in range(2))
    for pixel in np.ndindex(components.shape):
        predicted, true = (table[pixel[0]][pixel[1]] for table in categories)
        if predicted == 0 or true == 0:
            continue
        for t, threshold in enumerate(THRESHOLDS.astype(np.float32)):
            is_below = values[abs(components[pixel]) - 1] < threshold
            (below if is_below else above)[t, predicted, true] += 1
    found = {
        "prediction_train_ids": prediction,
        "gt_ids": truth,
        "components": components,
        "iou_pred": values,
        "thresholds": THRESHOLDS,
        "prediction_categories": categories[0],
        "gt_categories": categories[1],
    }
    for name, confusion in (("below", below), ("at_or_above", above)):
        iou = [[iou_of(matrix, c) for c in range(1, CATEGORIES)] for matrix in confusion]
        found[f"confusion_{name}"] = confusion
        found[f"class_iou_{name}"] = iou
        found[f"miou_percent_{name}"] = 100 * np.mean(iou, axis=1)
    return found


def iou_of(matrix, c):
    """Of one category, row = predicted; 0 where there is none."""
    hits = matrix[c, c]
    return hits / (matrix[c].sum() + matrix[:, c].sum() - hits + 1e-6)
