"""Segment metrics in plain Python, straight from the definitions, and images of every kind."""

from functools import cache
from math import fsum, log

import numpy as np

VOID = 255


def neighbours_of(pixel, shape):
    rows = range(max(pixel[0] - 1, 0), min(pixel[0] + 2, shape[0]))
    columns = range(max(pixel[1] - 1, 0), min(pixel[1] + 2, shape[1]))
    return [(r, c) for r in rows for c in columns if (r, c) != pixel]


def flood(start, allowed, shape):
    """Pixels of the set `allowed` that an 8-connected path within it links to `start`."""
    found, waiting = {start}, [start]
    while waiting:
        for neighbour in neighbours_of(waiting.pop(), shape):
            if neighbour in allowed and neighbour not in found:
                found.add(neighbour)
                waiting.append(neighbour)
    return found


def slow_heatmaps(p):
    """E, D and V of one pixel."""
    scale = 1 / log(len(p)) if len(p) > 1 else 0
    entropy = -scale * fsum(x * log(x + 2**-23) for x in p)
    first, second = sorted([*p, 0.0] if len(p) == 1 else p)[:-3:-1]
    return entropy, 1 - first + second, 1 - first


def slow_iou(segment, own, s, truth, shape):
    hits = sum(truth[q] == own for q in segment)
    if hits == 0:
        return 0.0
    missed = {q for q in s if truth[q] == own and s[q] != own}
    linked = set()
    for pixel in segment:
        for neighbour in neighbours_of(pixel, shape):
            if neighbour in missed and neighbour not in linked:
                linked |= flood(neighbour, missed, shape)
    return hits / (len(segment) + len(linked))


def mean(values):
    values = list(values)
    return fsum(values) / len(values) if values else 0.0


def slow_metrics(probabilities, ground_truth, further):
    """Rows of metrics, one dict a segment, and the signed component map."""
    shape, class_count = probabilities.shape[:2], probabilities.shape[2]
    pixels = [(r, c) for r in range(shape[0]) for c in range(shape[1])]
    p = {q: [float(x) for x in probabilities[q]] for q in pixels}
    s = {q: p[q].index(max(p[q])) for q in pixels}
    maps = dict(zip("EDV", [{}, {}, {}], strict=True))
    for q in pixels:
        maps["E"][q], maps["D"][q], maps["V"][q] = slow_heatmaps(p[q])
    maps |= {name: {q: float(values[q]) for q in pixels} for name, values in further.items()}

    rows, components = [], np.zeros(shape, int)
    for start in pixels:
        if components[start]:
            continue
        own = s[start]
        segment = flood(start, {q for q in pixels if s[q] == own}, shape)
        around = [(q, s[n]) for q in segment for n in neighbours_of(q, shape) if s[n] != own]
        boundary = {q for q, _ in around}
        inner = segment - boundary
        for q in segment:
            components[q] = (len(rows) + 1) * (-1 if q in boundary else 1)

        row = {"iou": np.nan, "iou0": np.nan, "class": own}
        if ground_truth is not None:
            row["iou"] = slow_iou(segment, own, s, ground_truth, shape)
            row["iou0"] = float(row["iou"] == 0)
        row["mean_x"], row["mean_y"] = mean(q[0] for q in segment), mean(q[1] for q in segment)
        divisor = max(1, len(boundary))
        rel, rel_in = len(segment) / divisor, len(inner) / divisor
        for name, h in maps.items():
            for suffix, part in (("", segment), ("_in", inner), ("_bd", boundary)):
                average = row[name + suffix] = mean(h[q] for q in part)
                row[f"{name}_var{suffix}"] = mean((h[q] - average) ** 2 for q in part)
            for kind in (name, f"{name}_var"):
                row[f"{kind}_rel"] = row[kind] * rel
                row[f"{kind}_rel_in"] = row[f"{kind}_in"] * rel_in
        row |= {"S": len(segment), "S_in": len(inner), "S_bd": len(boundary)}
        row |= {"S_rel": rel, "S_rel_in": rel_in}
        for c in range(class_count):
            row[f"cprob{c}"] = mean(p[q][c] for q in segment)
            row[f"ndist{c}"] = sum(n == c for _, n in around) / max(1, len(around))
        rows.append(row)
    return rows, components


@cache
def results():
    """Rows of metrics and the signed component map of each image of `images`."""
    return {name: slow_metrics(p, truth, {}) for name, (p, truth) in images().items()}


def columns(rows):
    """name -> values, one a segment."""
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def write(folder):
    """Write <image>.npz: probabilities, ground truth, heat maps, component map and metrics."""
    for name, (p, truth) in images().items():
        rows, components = results()[name]
        maps = np.array([[slow_heatmaps([float(x) for x in pixel]) for pixel in row] for row in p])
        np.savez(
            folder / f"{name}.npz",
            probs=p,
            gt=truth,
            components=components,
            **dict(zip("EDV", np.moveaxis(maps, 2, 0), strict=True)),
            **{f"metric_{metric}": values for metric, values in columns(rows).items()},
        )


# --- images

LAYOUT = (  # at every border and corner, a ring, chains along the diagonal, two that truth bridges
    "1110000000000000022",
    "1000000000000000002",
    "0000033333000000000",
    "0000030003000004000",
    "0000030503000040000",
    "4000030003000400005",
    "4000033333000000005",
    "0000000000000000000",
    "0600660006600000000",
    "0000000000000000000",
    "0000000000000000000",
    "7700000008880000099",
)
LAYOUT_TRUTH = (
    "1110000000000000022",
    "1110000000000000002",
    "0000033333000000000",
    "00000333330000.4000",
    "0000033533000040000",
    "4400033333000400005",
    "4000033333004000005",
    "0000000000000000000",
    "0600666666600000000",
    "0000000000000000...",
    "7700000008000000...",
    "0000000008880000..9",
)


@cache
def images():
    """name -> probabilities (H, W, C) float32, of as many classes as it says, and ground truth."""
    random = np.random.default_rng(0)

    def noise(height, width, classes=19, cell=1, scale=3):
        """Probabilities that are nearly the same in squares of `cell` pixels."""
        coarse = random.normal(0, scale, (-(-height // cell), -(-width // cell), classes))
        logits = coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
        p = np.exp(logits + random.normal(0, 0.5, logits.shape))
        return (p / p.sum(-1, keepdims=True)).astype(np.float32)

    def likely(classes, count=19):
        """Probabilities of known most probable classes (H, W)."""
        one_hot = np.eye(count)[classes]
        return ((3 * one_hot + noise(*classes.shape, count)) / 4).astype(np.float32)

    def shifted(p):
        return np.roll(p.argmax(-1), (2, 2), axis=(0, 1)).astype(np.uint8)

    one = np.full((24, 40), 4)
    near = one.copy()
    near[-1, -1] = 5
    layout, layout_truth = (
        np.array([[VOID if pixel == "." else int(pixel) for pixel in row] for row in drawing])
        for drawing in (LAYOUT, LAYOUT_TRUTH)
    )
    ties = random.integers(0, 3, (16, 24, 7)).repeat(2, 0).astype(np.float32) / 2
    ties[:4], ties[4:8] = 1 / 7, np.eye(7)[3]
    found = {
        "smooth19": noise(32, 48, cell=8),
        "noisy19": noise(20, 28),
        "single_class": likely(one),
        "near_single_class": likely(near),
        "two_classes": noise(20, 28, 2, cell=4),
        "classes35": noise(24, 36, 35, cell=6),
        "void_regions": noise(24, 36, cell=6),
        "gt_all_void": noise(12, 20, cell=4),
        "gt_far_iou0": noise(16, 24, cell=4),
        "ties7": ties,
        "row_1xN": noise(1, 96, cell=4),
        "column_Nx1": noise(96, 1, cell=4),
        "layout_borders": likely(layout),
    }
    truths = {name: shifted(p) for name, p in found.items()}
    truths["smooth19"][:3] = VOID
    truths["void_regions"][random.random((24, 36)) < 1 / 3] = VOID
    truths["gt_all_void"][:] = VOID
    truths["gt_far_iou0"] = (found["gt_far_iou0"].argmax(-1) + 1).astype(np.uint8) % 19
    truths["layout_borders"] = layout_truth.astype(np.uint8)
    return {name: (found[name], truths[name]) for name in found}
