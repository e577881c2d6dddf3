"""Segment metrics: what one image's class probabilities say about each predicted segment.

After Rottmann et al., "Prediction Error Meta Classification in Semantic Segmentation: Detection
via Aggregated Dispersion Measures of Softmax Probabilities", arXiv 1811.00648.
`compute_metrics_components` defines every metric; the loops are in _segments.pyx.
"""

import functools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from src.MetaSeg import _segments

VOID = 255  # ground truth id that means no label
NOTHING = 2**16 - 1  # where no true class is missed; no predicted class has this id
EPSILON = 2.0**-23  # float32 machine epsilon: keeps the logarithm finite at p = 0
ROUNDING = 1e-4  # how far outside [0, 1] a probability may lie
MAX_CLASSES = MAX_ID = 2**16 - 1
STEPS = 2**16 - 1  # from 0 to 1, where probabilities come in steps
MAX_PIXELS = 2**31 - 1  # segments are numbered in int32
STRIP_BYTES, STRIP_PIXELS = 2**24, 2**18  # at most: what is known of them stays in the cache
MIN_STRIP_ROWS = 16  # each strip looks at two rows more
SLACK = 15  # numbers that the kernel may write beyond an image


def heatmaps(probabilities):
    """How uncertain the prediction is at each pixel, in three ways.

    With p_1 >= p_2 the two largest of a pixel's C probabilities, equal ones counted twice:

    - entropy E = -1 / ln C * sum_c p_c ln(p_c + 2^-23), 0 for C = 1; about -1e-7 where one class
      has it all, because of the small constant that keeps the logarithm finite;
    - probability difference D = 1 - p_1 + p_2, with p_2 = 0 for C = 1;
    - variation ratio V = 1 - p_1.

    0 is certain and 1 undecided, for probabilities that sum to 1 (not asked for, not enforced).
    Source: Rottmann et al., arXiv 1811.00648.

    Parameters
    ----------
    probabilities : array_like of shape (H, W, C)
        Softmax output as in `compute_metrics_components`.

    Returns
    -------
    entropy, difference, variation : ndarray of shape (H, W), float32

    Raises
    ------
    ValueError
        If `probabilities` is refused by `compute_metrics_components`.
    """
    probabilities = _check_probabilities(probabilities)
    height, width, _ = probabilities.shape
    maps = np.empty((3, height, width), np.float32)
    for top, bottom in _strip_rows(probabilities.shape):
        block = _read(probabilities, slice(top, bottom))
        scored = np.empty((*block.shape[:2], 4), np.float32)
        classes = np.empty(block.shape[:2], np.uint16)
        if not _segments.score_pixels(block, *_scales(probabilities), classes, scored):
            _refuse_probabilities(probabilities)
        maps[:, top:bottom] = np.moveaxis(scored[:, :, :3], 2, 0)
    return tuple(maps)


def compute_metrics_components(
    probabilities, ground_truth=None, heatmaps=None, *, prediction=None, threads=1
):
    """Split the predicted classes into segments and measure each of them.

    Parameters
    ----------
    probabilities : array_like of shape (H, W, C)
        Probability of each class, finite and in [0, 1] but for rounding. Read as float32; a
        float32 array in C order is not copied and may be read-only or memory-mapped.
        uint16 means steps of 1 / 65535, read quickest where each class is a map of its own in
        memory. At most 65535 classes and 2^31 - 1 pixels.
    ground_truth : array_like of shape (H, W), optional
        True class of each pixel as whole numbers 0 to 65535 in the ids of the prediction;
        255 = no label, and an id from C on is a class that is never predicted.
        None: unknown, `iou` and `iou0` are NaN.
    heatmaps : dict of str to array_like of shape (H, W), optional
        Further finite maps to aggregate like E, D and V.
    prediction : array_like of shape (H, W), optional
        Class of each pixel, 0 to C - 1, where it is known better than from `probabilities`, for
        example because these were rounded. None: the most probable one.
    threads : int
        How many share the work, from 1. The result is the same to the bit for any number.

    Returns
    -------
    metrics : dict of str to ndarray of shape (S,)
        One value a segment in the order of the segment numbers; `class` int64, all else float64.
        In the order of the list below.
    components : ndarray of shape (H, W), int32
        +k on the inner pixels of segment k, -k on its boundary; k = 1, 2, ..., S.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or holds values that are not allowed, with how many
        and where the first one is; if a map's name makes a metric that exists already.

    Notes
    -----
    A pixel's class s is the most probable one, the lowest of equal ones, or its `prediction`.
    A segment K is a maximal 8-connected set of pixels of one class; segments are numbered in the
    order in which reading row by row meets them. A pixel is on the boundary when one of its up to 8
    neighbours within the image has another class; the edge of the image makes no boundary.
    x is the row and y the column of a pixel.

    - `iou`: adjusted intersection over union. With c the class of K, I the number of its pixels
      whose true class is c, and T the pixels of true class c that are predicted otherwise,
      iou = I / (|K| + |L|), where L is the union of the 8-connected regions of T that touch K.
      So what another segment of the class confirms does not count against K, a region of T
      counts against every segment of its class that it touches, and pixels without a label
      stay in |K|. 0 if I = 0.
    - `iou0`: 1 if iou = 0, else 0.
    - `class`: the class of K.
    - `mean_x`, `mean_y`: mean row and mean column of K, in pixels from 0.
    - For h each of E, D, V (see `heatmaps` in this module) and the further maps, with means over
      all, inner (in) and boundary (bd) pixels of K, and 0 as the mean over no pixel:
      `h`, `h_in`, `h_bd` = mean h;
      `h_rel` = h S_rel and `h_rel_in` = h_in S_rel_in;
      `h_var`, `h_var_in`, `h_var_bd` = mean h^2 - (mean h)^2, which rounding may leave a trace
      below 0; `h_var_rel` = h_var S_rel and `h_var_rel_in` = h_var_in S_rel_in
      (listed as h, h_in, h_bd, h_rel, h_rel_in, h_var, h_var_in, h_var_bd, h_var_rel,
      h_var_rel_in; a map h alone is called by its own name).
    - `S`, `S_in`, `S_bd`: number of all, inner and boundary pixels.
    - `S_rel` = S / S_bd and `S_rel_in` = S_in / S_bd: large for wide, compact segments.
      S_bd = 0, one class everywhere, counts as 1 here: the least that a boundary can have.
    - `cprob0` ... `cprob<C-1>`: mean probability of each class over K.
    - `ndist0` ... `ndist<C-1>`: of all pairs of a pixel in K and a neighbour of another class,
      the share whose neighbour has that class; 0 throughout when there is no such pair.

    Sums are taken in float64, but for probabilities of up to 16 pixels side by side: in float32.
    Source: Rottmann et al., arXiv 1811.00648.
    """
    probabilities = _check_probabilities(probabilities)
    height, width, class_count = probabilities.shape
    if ground_truth is not None:
        ground_truth = _check_ids("ground_truth", ground_truth, (height, width), MAX_ID)
    if prediction is not None:
        prediction = _check_ids("prediction", prediction, (height, width), class_count - 1)
    further = {} if heatmaps is None else heatmaps
    further = {name: _check_map(name, further[name], (height, width)) for name in further}
    names = metric_names(further, class_count)
    if threads < 1:
        raise ValueError(f"`threads` must be at least 1, got {threads}")

    components = np.empty((height, width), np.int32)
    measure = functools.partial(
        _measure, components, probabilities, prediction, ground_truth, further.values()
    )
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map if threads > 1 else map  # a thread beside this one costs 5%
        strips = list(each(measure, _strip_rows(probabilities.shape)))
        segments = _join([strip.segments for strip in strips])
        missed = _missed_sizes(strips, segments).astype(np.float64)
        _gather_sums(strips, segments)
        values = np.empty((len(names), segments.count))
        finish = functools.partial(_finish, components, values, segments, missed, len(further))
        list(each(finish, range(len(strips)), strips))
    metrics = dict(zip(names, values, strict=True))
    metrics["class"] = metrics["class"].astype(np.int64)
    return metrics, components


def metric_names(further, class_count):
    """Names of all metrics in order; refuses further maps whose metrics would not be new."""
    suffixes = ("", "_in", "_bd", "_rel", "_rel_in")
    suffixes += ("_var", "_var_in", "_var_bd", "_var_rel", "_var_rel_in")
    names = ["iou", "iou0", "class", "mean_x", "mean_y"]
    names += [name + suffix for name in ("E", "D", "V", *further) for suffix in suffixes]
    names += ["S", "S_in", "S_bd", "S_rel", "S_rel_in"]
    names += [f"cprob{c}" for c in range(class_count)] + [f"ndist{c}" for c in range(class_count)]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"`heatmaps` would give these metrics twice: {twice}; rename the map")
    return names


# strips of rows, one after the other or side by side


@dataclass(frozen=True)
class _Labels:
    """What hangs together within a strip, numbered from 0 in raster order."""

    count: int
    values: np.ndarray | None  # (count,) uint16, class of each
    upper: np.ndarray  # labels of the runs in the first two rows, which the strip above has too
    lower: np.ndarray  # labels of the runs in the last two rows, which the strip below has too


@dataclass(frozen=True)
class _Strip:
    """What is known of a strip of rows by itself."""

    rows: slice  # of the image
    segments: _Labels
    sums: np.ndarray  # (S, 7 + 4 M + 2 C) sums over M maps and C classes, see `define_segments`
    regions: _Labels | None  # of true classes that were missed; None without a ground truth
    region_sizes: np.ndarray | None  # (R,) in pixels
    touching: np.ndarray | None  # (n, 2) pairs of a region and a segment of its class


def _strip_rows(shape):
    """First row and first row below of each strip; the same whoever does the work."""
    height, width, class_count = shape
    pixels = min(STRIP_BYTES // (4 * class_count), STRIP_PIXELS)
    rows = max(pixels // width, MIN_STRIP_ROWS)
    rows = math.ceil(height / math.ceil(height / rows))  # all alike, for threads
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _read(probabilities, rows):
    """Probabilities of some rows as the kernel reads them, (h, W, C)."""
    if probabilities.dtype.type is np.uint16:
        planes = np.moveaxis(np.asarray(probabilities[rows], np.uint16), 2, 0)
        if planes.strides[2] != planes.itemsize:
            planes = np.ascontiguousarray(planes)
        block = _scratch("block", (*planes.shape[1:], len(planes)), np.float32)
        _segments.join_planes(planes, 1 / STEPS, block)
        return block
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        return np.ascontiguousarray(probabilities[rows], np.float32)


def _scales(probabilities):
    """Scale of the entropy, what keeps it finite, and which probabilities are allowed."""
    class_count = probabilities.shape[2]
    scale = 1 / np.log2(class_count) if class_count > 1 else 0.0
    return scale, EPSILON, -ROUNDING, 1 + ROUNDING


class _Scratch(threading.local):
    """Arrays of each thread, used again for every strip: new memory has to be cleared first."""

    def __init__(self):
        self.kept = {}

    def __call__(self, name, shape, dtype):
        """The array of that name, with whatever it holds."""
        count = math.prod(shape)
        if name not in self.kept or len(self.kept[name]) < count:
            self.kept[name] = np.empty(count, dtype)
        return self.kept[name][:count].reshape(shape)


_scratch = _Scratch()


def _label(classes, starts, rows):
    """Labels of runs, what they make up, and which of them touch, row by row."""
    size, count = classes.size, rows[-1]
    pairs, row_pairs = _scratch("pairs", (4 * size, 3), np.int32), np.empty(len(classes), np.int32)
    pairs = pairs[: _segments.find_touching(starts, rows, pairs, row_pairs)]
    labels = _scratch("labels", (size,), np.int32)[:count]
    values = _scratch("values", (size,), np.uint16)[:count]
    number = _segments.label_runs(classes, starts, pairs, labels, values)
    return labels, _ends(number, labels, rows, values[:number].copy()), (pairs, row_pairs)


def _ends(count, labels, rows, values=None):
    """What `_join` must know of the labels of runs."""
    height = len(rows) - 1
    upper, lower = labels[: rows[min(2, height)]], labels[rows[max(height - 2, 0)] : rows[height]]
    return _Labels(count, values, upper.copy(), lower.copy())


def _measure(components, probabilities, prediction, truth, further, rows):
    """Find the segments of a strip, sum over them and draw them with the strip's own numbers."""
    top, bottom = rows
    above, below = max(top - 1, 0), min(bottom + 1, len(probabilities))
    around = slice(above, below)
    own = top - above, bottom - above
    block = _read(probabilities, around)
    height, width, class_count = block.shape
    shape, size = (height, width), height * width
    known = None if prediction is None else np.ascontiguousarray(prediction[around], np.uint16)
    classes, maps = _scratch("classes", shape, np.uint16), _scratch("maps", (*shape, 4), np.float32)
    starts, row_runs = _scratch("starts", (size + 1,), np.int32), np.empty(height + 1, np.int32)
    class_sums = _scratch("class sums", (size, class_count), np.float32)
    if not _segments.read_strip(
        block, *_scales(probabilities), known, *own, classes, maps, starts, row_runs, class_sums
    ):
        _refuse_probabilities(probabilities)
    labels, segments, pairs = _label(classes, starts, row_runs)
    runs = starts, row_runs, labels
    segment = _scratch("segment", (size + SLACK,), np.int32)
    _segments.fill_segments(*runs, segment)
    boundary = _scratch("boundary", shape, np.uint8)
    _segments.find_boundary(classes, *own, boundary)
    _segments.sketch_segments(segment, boundary, *own, components[top:bottom])
    hits = _scratch("hits", shape, np.uint8)
    hits[:] = 0
    regions = region_sizes = touching = None
    if truth is not None:
        truth = np.ascontiguousarray(truth[around], np.uint16)
        missed = _scratch("missed", shape, np.uint16)
        _segments.compare_truth(classes, truth, class_count, VOID, NOTHING, missed, hits)
        regions, region_sizes, touching = _find_missed(missed, classes, segment, own)

    column = _segments.FURTHER_COLUMN + 4 * len(further)
    sums = np.zeros((segments.count, column + 2 * class_count))
    _segments.measure_segments(
        *(maps, classes, *runs, *pairs, boundary, hits, class_sums, *own, above, sums, column)
    )
    if further:
        maps = np.stack([values[around] for values in further])
        _segments.sum_further(maps, *runs, boundary, *own, sums, _segments.FURTHER_COLUMN)
    return _Strip(slice(top, bottom), segments, sums, regions, region_sizes, touching)


def _find_missed(missed, classes, segment, own):
    """Regions of missed true classes in a strip, their sizes and the segments they touch."""
    (height, width), size = missed.shape, missed.size
    places, row_runs = np.empty(width + 1, np.int32), np.empty(width, np.int32)
    marks = np.zeros(width + SLACK, np.uint8)
    run, rows = _scratch("missed run", (size + SLACK,), np.int32), np.empty(height + 1, np.int32)
    labels, lengths = _scratch("regions", (size,), np.int32), _scratch("lengths", (size,), np.int32)
    count = _segments.find_regions(
        missed, NOTHING, places, row_runs, marks, *own, run, rows, labels, lengths
    )
    lengths = lengths[: rows[-1]]
    last, sizes = np.full(count + 1, -1, np.int32), np.zeros(count + 1)
    pairs = _scratch("touching", (6 * size + 1, 2), np.int32)
    found = _segments.pair_regions(
        *(missed, NOTHING, run, labels, lengths, classes, segment, *own, places, marks),
        *(last, sizes, pairs),
    )
    sizes = sizes[:count]
    return _ends(count, labels, rows), sizes, pairs[:found].copy()


@dataclass(frozen=True)
class _Joined:
    """Labels of all strips, one strip after the other, and what they are in the whole image."""

    first: np.ndarray  # index of the first label of each strip, then the number of labels
    roots: np.ndarray  # (N,) index of the label that stands for the same thing, the first of all
    numbers: np.ndarray  # (N,) its number in the image, from 0 in raster order
    count: int


def _join(strips):
    """Join the `_Labels` of neighbouring strips over the rows that they share."""
    first = np.cumsum([0, *(labels.count for labels in strips)])
    parent = np.arange(first[-1])
    for above, below, *firsts in zip(strips, strips[1:], first, first[1:], strict=False):
        _segments.join_labels(parent, above.lower, below.upper, *firsts)
    roots, numbers = np.empty_like(parent), np.empty_like(parent)
    count = _segments.find_roots(parent, roots, numbers)
    return _Joined(first, roots, numbers, count)


def _gather_sums(strips, segments):
    """Add the sums of each segment to those in the first strip that knows it."""
    for strip, begin, end in zip(strips, segments.first, segments.first[1:], strict=False):
        moved = np.flatnonzero(segments.roots[begin:end] != np.arange(begin, end))
        targets = segments.roots[begin:end][moved]
        homes = np.searchsorted(segments.first, targets, side="right") - 1
        for home in np.unique(homes):
            there = homes == home
            _segments.add_rows(
                strip.sums, moved[there], strips[home].sums, targets[there] - segments.first[home]
            )


def _missed_sizes(strips, segments):
    """Pixels of the missed regions that touch each segment, (S,); NaN without a ground truth."""
    if strips[0].regions is None:
        return np.full(segments.count, np.nan)
    regions = _join([strip.regions for strip in strips])
    sizes = np.concatenate([strip.region_sizes for strip in strips])
    sizes = np.bincount(regions.numbers, sizes, regions.count)
    pairs = [
        (regions.numbers[i + strip.touching[:, 0]], segments.numbers[j + strip.touching[:, 1]])
        for strip, i, j in zip(strips, regions.first, segments.first, strict=False)
    ]
    touching, touched = np.concatenate(pairs, axis=1)
    pairs = np.sort(touching * segments.count + touched)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return np.bincount(
        pairs % segments.count, sizes[pairs // segments.count], minlength=segments.count
    )


def _finish(components, values, segments, missed, further, index, strip):
    """Give the segments of a strip their final numbers, and work out those that start there."""
    begin, end = segments.first[index : index + 2]
    numbers = segments.numbers[begin:end]
    of_inner = (numbers + 1).astype(np.int32)
    of_all = np.concatenate([-of_inner[::-1], [0], of_inner], dtype=np.int32)
    _segments.renumber(components[strip.rows], of_all)
    own = np.flatnonzero(segments.roots[begin:end] == np.arange(begin, end))
    if len(own) > 0:
        first = numbers[own[0]]
        own_missed = missed[first : first + len(own)]
        _segments.define_segments(
            strip.sums, own, strip.segments.values, own_missed, further, first, values
        )


def _check_probabilities(probabilities):
    """The probabilities as an array, or a ValueError; `_score` looks at the values."""
    probabilities = _real_array("probabilities", probabilities)
    if probabilities.ndim != 3 or probabilities.size == 0:
        raise ValueError(
            "`probabilities` must have the shape (H, W, C) with no side 0, "
            f"got {probabilities.shape}"
        )
    height, width, class_count = probabilities.shape
    if class_count > MAX_CLASSES:
        raise ValueError(
            f"`probabilities` must have at most {MAX_CLASSES} classes on the last axis, "
            f"got {class_count}"
        )
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"`probabilities` must have at most {MAX_PIXELS} pixels, got {height} x {width}; "
            "cut the image"
        )
    return probabilities


def _refuse_probabilities(probabilities):
    allowed = (probabilities >= -ROUNDING) & (probabilities <= 1 + ROUNDING)
    raise ValueError(
        "`probabilities` must be finite and in [0, 1]; "
        f"{_describe(~allowed, probabilities, 'row, column, class')}; "
        "pass the softmax output, not logits"
    )


def _check_ids(name, ids, shape, highest):
    """Class ids as an array of whole numbers that fit in uint16, or a ValueError."""
    ids = _real_array(name, ids, shape, "; pass None where it is unknown")
    if ids.dtype in (np.uint8, np.uint16) and ids.max() <= highest:
        return ids
    allowed = (ids >= 0) & (ids <= highest) & (ids == np.floor(ids))
    if not allowed.all():
        hint = f"; use {VOID} for no label" if name == "ground_truth" else ""
        raise ValueError(
            f"`{name}` must hold whole numbers from 0 to {highest}; "
            f"{_describe(~allowed, ids, 'row, column')}{hint}"
        )
    return ids.astype(np.uint16)


def _check_map(name, values, shape):
    """A further heat map as float64, or a ValueError."""
    name = f"heatmaps[{name!r}]"
    values = _real_array(name, values, shape)
    refused = ~np.isfinite(values)
    if refused.any():
        raise ValueError(f"`{name}` must be finite; {_describe(refused, values, 'row, column')}")
    return values.astype(np.float64, copy=False)


def _real_array(name, values, shape=None, hint=""):
    values = np.asarray(values)
    if values.dtype.kind not in "buif":
        raise ValueError(f"`{name}` must hold real numbers, got dtype {values.dtype}")
    if shape not in (None, values.shape):
        raise ValueError(f"`{name}` must have the image's shape {shape}, got {values.shape}{hint}")
    return values


def _describe(refused, values, axes):
    """How many values are refused, where the first is and what it holds."""
    first = tuple(int(i) for i in np.unravel_index(refused.argmax(), refused.shape))
    number = int(refused.sum())
    return f"{number} of {values.size} are not, the first at ({axes}) {first}: {values[first]}"
