"""Segment metrics: what one image's class probabilities say about each predicted segment.

After Rottmann et al., "Prediction Error Meta Classification in Semantic Segmentation: Detection
via Aggregated Dispersion Measures of Softmax Probabilities", arXiv 1811.00648.
`compute_metrics_components` defines every metric; the loops are in _segments.pyx.
"""

import numpy as np

from src.MetaSeg import _segments

VOID = 255  # ground truth id that means no label
EPSILON = 2.0**-23  # float32 machine epsilon: keeps the logarithm finite at p = 0
ROUNDING = 1e-4  # how far outside [0, 1] a probability may lie
MAX_CLASSES = MAX_ID = 2**16 - 1
MAX_PIXELS = 2**31 - 1  # segments are numbered in int32


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
    _, maps = _classify(_check_probabilities(probabilities))
    return tuple(maps.values())


def compute_metrics_components(probabilities, ground_truth=None, heatmaps=None):
    """Split the predicted classes into segments and measure each of them.

    Parameters
    ----------
    probabilities : array_like of shape (H, W, C)
        Probability of each class, finite and in [0, 1] but for rounding. Read as float32; a
        float32 array in C order is not copied and may be read-only or memory-mapped.
        At most 65535 classes and 2^31 - 1 pixels.
    ground_truth : array_like of shape (H, W), optional
        True class of each pixel as whole numbers 0 to 65535 in the ids of the prediction;
        255 = no label, and an id from C on is a class that is never predicted.
        None: unknown, `iou` and `iou0` are NaN.
    heatmaps : dict of str to array_like of shape (H, W), optional
        Further finite maps to aggregate like E, D and V.

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
    A pixel's class s is the most probable one, the lowest of equal ones. A segment K is a maximal
    8-connected set of pixels of one class; segments are numbered in the order in which reading
    row by row meets them. A pixel is on the boundary when one of its up to 8 neighbours within
    the image has another class; the edge of the image makes no boundary.
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

    Sums are taken in float64. Source: Rottmann et al., arXiv 1811.00648.
    """
    probabilities = _check_probabilities(probabilities)
    height, width, class_count = probabilities.shape
    truth = None if ground_truth is None else _check_truth(ground_truth, (height, width))
    further = {} if heatmaps is None else heatmaps
    further = {name: _check_map(name, further[name], (height, width)) for name in further}
    names = _metric_names(further, class_count)

    classes, maps = _classify(probabilities)
    components = np.empty((height, width), np.int32)
    count = _segments.label_segments(classes, components)

    segment_classes = np.empty(count, np.int64)
    sizes, positions = np.zeros((2, count)), np.zeros((2, count))
    neighbours, class_sums = np.zeros((count, class_count)), np.zeros((count, class_count))
    _segments.measure_segments(classes, components, segment_classes, sizes, positions, neighbours)
    _segments.sum_probabilities(probabilities, components, class_sums)

    inner, boundary = sizes
    size = inner + boundary
    size_rel, inner_rel = size / np.maximum(boundary, 1), inner / np.maximum(boundary, 1)
    iou = _adjusted_iou(classes, truth, components, size, class_count)
    columns = [iou, np.where(np.isnan(iou), np.nan, iou == 0), segment_classes, *positions / size]
    for values in (maps | further).values():
        columns += _aggregate(values, components, sizes)
    columns += [size, inner, boundary, size_rel, inner_rel]
    columns += [*np.ascontiguousarray(class_sums.T) / size]
    columns += [*np.ascontiguousarray(neighbours.T) / np.maximum(neighbours.sum(axis=1), 1)]
    return dict(zip(names, columns, strict=True)), components


def _metric_names(further, class_count):
    """Names of all metrics in order; refuses a map whose metrics would not be new."""
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


def _classify(probabilities):
    """Class (H, W) int32 of each pixel and its heat maps by name, (H, W) float32."""
    *shape, class_count = probabilities.shape
    classes = np.empty(shape, np.int32)
    maps = {name: np.empty(shape, np.float32) for name in "EDV"}
    scale = 1 / np.log(class_count) if class_count > 1 else 0.0
    _segments.score_pixels(probabilities, scale, EPSILON, classes, *maps.values())
    return classes, maps


def _adjusted_iou(classes, truth, components, size, class_count):
    """The metric `iou`, (S,) float64; NaN without a ground truth."""
    count = len(size)
    if truth is None:
        return np.full(count, np.nan)
    hits, missed_sizes = np.zeros(count), np.zeros(count)
    missed, regions = np.empty_like(classes), np.empty_like(classes)
    _segments.compare_truth(classes, truth, components, class_count, VOID, hits, missed)
    region_count = _segments.label_segments(missed, regions)
    ends, charged = np.zeros(region_count + 2, np.int32), np.zeros(count, np.int32)
    pixels = np.empty(classes.size, np.int32)
    _segments.sum_touching_regions(
        classes, components, missed, regions, ends, pixels, charged, missed_sizes
    )
    return hits / (size + missed_sizes)


def _aggregate(values, components, sizes):
    """The ten metrics of one map in order, each (S,) float64."""
    sums = np.zeros((2, 2, sizes.shape[1]))
    _segments.sum_map(values, components, sums)
    counts = np.maximum([sizes.sum(axis=0), *sizes], 1)  # all, inner, boundary
    sums, squares = np.stack([sums.sum(axis=0), *sums], axis=1)
    means = sums / counts
    variances = squares / counts - means**2
    size_rel, inner_rel = counts[0] / counts[2], sizes[0] / counts[2]
    return [
        *(*means, means[0] * size_rel, means[1] * inner_rel),
        *(*variances, variances[0] * size_rel, variances[1] * inner_rel),
    ]


def _check_probabilities(probabilities):
    """The probabilities as float32 in C order, or a ValueError."""
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
    # NaN passes through minimum and maximum, so the common case makes no temporary array.
    if not (probabilities.min() >= -ROUNDING and probabilities.max() <= 1 + ROUNDING):
        allowed = (probabilities >= -ROUNDING) & (probabilities <= 1 + ROUNDING)
        raise ValueError(
            "`probabilities` must be finite and in [0, 1]; "
            f"{_describe(~allowed, probabilities, 'row, column, class')}; "
            "pass the softmax output, not logits"
        )
    return np.ascontiguousarray(probabilities, np.float32)


def _check_truth(ground_truth, shape):
    """The true classes as uint16 in C order, or a ValueError."""
    truth = _real_array("ground_truth", ground_truth)
    if truth.shape != shape:
        raise ValueError(
            f"`ground_truth` must have the image's shape {shape}, got {truth.shape}; "
            "pass None where it is unknown"
        )
    allowed = (truth >= 0) & (truth <= MAX_ID) & (truth == np.floor(truth))
    if not allowed.all():
        raise ValueError(
            f"`ground_truth` must hold whole numbers from 0 to {MAX_ID}; "
            f"{_describe(~allowed, truth, 'row, column')}; use {VOID} for no label"
        )
    return np.ascontiguousarray(truth, np.uint16)


def _check_map(name, values, shape):
    """A further heat map as float32 or float64 in C order, or a ValueError."""
    values = _real_array(f"heatmaps[{name!r}]", values)
    if values.shape != shape:
        raise ValueError(
            f"`heatmaps[{name!r}]` must have the image's shape {shape}, got {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"`heatmaps[{name!r}]` must be finite; "
            f"{_describe(~np.isfinite(values), values, 'row, column')}"
        )
    return np.ascontiguousarray(values, np.float32 if values.dtype == np.float32 else np.float64)


def _real_array(name, values):
    values = np.asarray(values)
    if values.dtype.kind not in "buif":
        raise ValueError(f"`{name}` must hold real numbers, got dtype {values.dtype}")
    return values


def _describe(refused, values, axes):
    """How many values are refused, where the first is and what it holds."""
    first = tuple(int(i) for i in np.unravel_index(refused.argmax(), refused.shape))
    number = int(refused.sum())
    return f"{number} of {values.size} are not, the first at ({axes}) {first}: {values[first]}"
