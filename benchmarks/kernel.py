"""Measure the speed and the memory of `compute_metrics_components` on images of 1024 x 2048.

The images are smooth noise: field f0 has about 16,000 segments of 19 classes, field f2 is smoother
and surer of itself, as a network is, and has about 4,000. The ground truth is the prediction moved
by some columns, with a strip that has no label.

1. Against NumPy's entropy, a single metric that is not even summed by segment, and against two
   ways to get all metrics from libraries, which must give the same.
2. By number of classes.
3. Salt and pepper with about a million segments, and the memory beyond input and output.

Times are medians of calls that take turns, so a change of the machine's speed meets all of them.
Only what says 2 threads uses more than one. It all takes two to three minutes and 5 GB of memory.
"""

import multiprocessing
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from measuring import F0, make_image, median_ms, with_peak
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.sparse import csc_array

from src.MetaSeg.metrics import EPSILON, compute_metrics_components

F2 = dict(class_count=19, sigma=16, confidence=3.5)
SALT_AND_PEPPER = dict(class_count=19, sigma=0.68, confidence=1)
CLASS_COUNTS = 2, 19, 150
TOLERANCE = 1e-5  # times 1 + |value|
CHUNK_ROWS = 16  # of pixels that the fastest libraries score at once, within the cache
MB = 1e6

ENTROPY = "NumPy's entropy alone"


def main():
    """Print the tables."""
    torch.set_num_threads(1)
    compare_opponents()
    compare_class_counts()
    measure_memory()


# tables


def compare_opponents():
    """Time all metrics, by this project and by libraries, against NumPy's entropy."""
    opponents, times = find_opponents(), {}
    for name, settings in ("f0", F0), ("f2", F2):
        calls = prepare_calls(name, opponents, *make_image(**settings))
        times[name] = dict(zip(calls, median_ms(*calls.values()), strict=True))
    f0, f2 = times["f0"], times["f2"]
    print(f"\n{'':40}f0 ms    f2 ms    times NumPy's entropy")
    for who in f0:
        ratios = f"{f0[who] / f0[ENTROPY]:9.2f}{f2[who] / f2[ENTROPY]:9.2f}"
        print(f"{who:36}{f0[who]:9.0f}{f2[who]:9.0f}   {ratios}")


def prepare_calls(name, opponents, field, truth):
    """What is to be timed on an image, by name, after a look at the results."""
    expected = compute_metrics_components(field, truth)
    segments, runs = len(expected[0]["S"]), len(run_starts(field.argmax(-1)))
    print(f"{name}: {segments:,} segments, {runs:,} runs", flush=True)
    for who, compute in opponents.items():
        check_agreement(who, compute(field, truth), expected)
    return {
        ENTROPY: partial(numpy_entropy, field),
        **{who: partial(compute, field, truth) for who, compute in opponents.items()},
        "compute_metrics_components": partial(compute_metrics_components, field, truth),
        "the same with 2 threads": partial(compute_metrics_components, field, truth, threads=2),
    }


def compare_class_counts():
    """Time all metrics against NumPy's entropy by number of classes."""
    print("\nclasses  segments  entropy ms  metrics ms  ratio")
    for class_count in CLASS_COUNTS:
        field, truth = make_image(**F0 | dict(class_count=class_count))
        compute = partial(compute_metrics_components, field, truth)
        entropy, metrics = median_ms(partial(numpy_entropy, field), compute)
        row = f"{class_count:7}{len(compute()[0]['S']):10,}{entropy:12.0f}{metrics:12.0f}"
        print(f"{row}{metrics / entropy:7.2f}", flush=True)


def measure_memory():
    """Time and memory of many segments, beside the memory of few."""
    print("\n                                     beyond input and output:")
    print("field             segments     ms      MB  bytes a pixel  bytes a segment")
    for name, settings in ("salt and pepper", SALT_AND_PEPPER), ("f0", F0):
        field, truth = make_image(**settings)
        [milliseconds] = median_ms(partial(compute_metrics_components, field, truth))
        with (
            tempfile.TemporaryDirectory() as folder,
            multiprocessing.get_context("spawn").Pool(1) as pool,
        ):
            paths = [Path(folder, "field.npy"), Path(folder, "truth.npy")]
            for array, path in zip((field, truth), paths, strict=True):
                np.save(path, array)
            segments, extra = pool.apply(measure_call, paths)
        print(
            f"{name:15}{segments:11,}{milliseconds:7.0f}{extra / MB:8.0f}"
            f"{extra / truth.size:15.1f}{extra / segments:17.0f}",
            flush=True,
        )


def measure_call(*paths):
    """Number of segments, and the bytes that a call needs beyond its input and output."""
    field, truth = map(np.load, paths)
    compute_metrics_components(field[:2], truth[:2])  # whatever is set up once
    (metrics, components), peak = with_peak(compute_metrics_components, field, truth)
    output = components.nbytes + sum(values.nbytes for values in metrics.values())
    return len(metrics["S"]), peak - output


# opponents


def find_opponents():
    """Ways to get all metrics from libraries, by name, if these are installed."""
    opponents = {}
    for who, compute, modules in (
        ("NumPy and scikit-image", numpy_and_skimage, ["skimage"]),
        ("the fastest libraries", fastest_libraries, ["cc3d", "cv2"]),
    ):
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            print(f"{who}: not timed without {', '.join(missing)}; pip install '.[bench]'")
        else:
            opponents[who] = compute
    return opponents


def check_agreement(who, result, expected):
    """Refuse an opponent whose result is not that of `compute_metrics_components`."""
    (metrics, components), (expected_metrics, expected_components) = result, expected
    for name, values in expected_metrics.items():
        np.testing.assert_allclose(
            metrics[name], values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=f"{who}: {name}"
        )
    np.testing.assert_array_equal(components, expected_components, err_msg=who)


def numpy_entropy(probabilities):
    """The entropy of each pixel, without the factor 1 / ln C."""
    return -(probabilities * np.log(probabilities + np.float32(EPSILON))).sum(-1)


def numpy_and_skimage(probabilities, truth):
    """All metrics as one would write them down: whole arrays, then bincount by segment."""
    from skimage.measure import label

    height, width, class_count = probabilities.shape
    classes = probabilities.argmax(-1).astype(np.uint8)
    second, best = np.partition(probabilities, -2)[..., -2:].reshape(-1, 2).T
    entropy = numpy_entropy(probabilities).ravel() / np.log(class_count)
    maps = entropy, 1 - best + second, 1 - best
    number, count = label(classes, background=-1, connectivity=2, return_num=True)
    regions = label(find_missed(classes, truth), connectivity=2)
    boundary = maximum_filter(classes, 3) != minimum_filter(classes, 3)
    components = np.where(boundary, -number, number)

    number = number.ravel() - 1
    part = 2 * number + boundary.ravel()  # inner and boundary pixels apart
    row, column = np.divmod(np.arange(number.size), width)
    channels = probabilities.reshape(-1, class_count).T
    moments = [np.bincount(part, h**power, 2 * count) for power in (1, 2) for h in maps]
    metrics = define_metrics(
        classes=classes.ravel()[np.unique(number, return_index=True)[1]],
        hits=np.bincount(number, (truth == classes).ravel()),
        rows=np.bincount(number, row),
        columns=np.bincount(number, column),
        sizes=np.bincount(part, minlength=2 * count),
        moments=np.stack(moments, axis=-1),
        probabilities=np.stack([np.bincount(number, channel) for channel in channels], axis=-1),
        surroundings=look_around(classes, truth, number, regions, count, class_count),
    )
    return metrics, components


def fastest_libraries(probabilities, truth):
    """All metrics as fast as libraries allow: OpenCV, connected-components-3d, torch, SciPy.

    What can be told from runs, stretches of a row that belong together, is not told from pixels.
    """
    import cc3d
    import cv2

    cv2.setNumThreads(1)
    class_count = probabilities.shape[-1]
    classes, maps = score_planes(probabilities, cv2)
    number = cc3d.connected_components(classes + 1, connectivity=8, out_dtype=np.uint32)
    regions = cc3d.connected_components(find_missed(classes, truth), connectivity=8)
    boundary = cv2.morphologyEx(classes, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    components = number.view(np.int32) * (1 - 2 * boundary.view(np.int8))
    number = number.view(np.int32).ravel() - 1
    count = number.max() + 1

    run, run_of_part = run_starts(classes), run_starts(components)
    segment = number[run]
    part = 2 * number[run_of_part] + boundary.ravel()[run_of_part]
    row, column = np.divmod(run, classes.shape[1])
    length = np.diff(run, append=number.size)
    hits_so_far = np.cumsum(truth == classes, dtype=np.int32)[run + length - 1]
    segment_classes = np.empty(count, np.uint8)
    segment_classes[segment] = classes.ravel()[run]
    metrics = define_metrics(
        classes=segment_classes,
        hits=np.bincount(segment, np.diff(hits_so_far, prepend=0)),
        rows=np.bincount(segment, length * row),
        columns=np.bincount(segment, length * (column + (length - 1) / 2)),
        sizes=np.bincount(part, np.diff(run_of_part, append=number.size), 2 * count),
        moments=sum_runs(maps, run_of_part, part, 2 * count),
        probabilities=sum_runs(probabilities.reshape(-1, class_count), run, segment, count),
        surroundings=look_around(classes, truth, number, regions, count, class_count),
    )
    return metrics, components


def score_planes(probabilities, cv2):
    """Classes (H, W), and E, D, V and their squares (H * W, 6), in planes of one class each."""
    height, width, class_count = probabilities.shape
    pixels = CHUNK_ROWS * width
    classes, maps = np.empty((height, width), np.uint8), np.empty((height * width, 6), np.float32)
    planes, logarithm = np.empty((2, class_count, pixels), np.float32)
    best, second, lower = np.empty((3, pixels), np.float32)
    moments = np.empty((6, pixels), np.float32)
    entropy, difference, variation = moments[:3]
    rank = np.empty((class_count, pixels), np.uint8)
    for top in range(0, height, CHUNK_ROWS):
        cv2.transpose(probabilities[top : top + CHUNK_ROWS].reshape(pixels, -1), dst=planes)
        best[:], second[:] = planes[0], 0
        for plane in planes[1:]:
            np.minimum(best, plane, out=lower)
            np.maximum(second, lower, out=second)
            np.maximum(best, plane, out=best)
        np.equal(planes, best, out=rank.view(bool))
        rank *= np.arange(class_count, 0, -1, dtype=np.uint8)[:, None]  # the first of equals wins
        classes[top : top + CHUNK_ROWS] = (class_count - rank.max(0)).reshape(-1, width)
        cv2.log(np.add(planes, np.float32(EPSILON), out=logarithm), dst=logarithm)
        np.einsum("cp,cp->p", planes, logarithm, out=entropy)
        entropy /= -np.log(class_count)
        np.subtract(1, best, out=variation)
        np.add(variation, second, out=difference)
        np.square(moments[:3], out=moments[3:])
        cv2.transpose(moments, dst=maps[top * width : top * width + pixels])
    return classes, maps


def run_starts(values):
    """Flat index of each pixel that differs from the one to its left, or has none there."""
    starts = np.ones(values.shape, bool)
    np.not_equal(values[:, 1:], values[:, :-1], out=starts[:, 1:])
    return np.flatnonzero(starts)


def sum_runs(values, starts, groups, count):
    """Sums of the rows of `values` by the groups of the runs: float32 in a run, then float64."""
    pixels, values, bags = torch.arange(len(values)), *map(torch.from_numpy, (values, starts))
    sums = torch.nn.functional.embedding_bag(pixels, values, bags, mode="sum")
    members = np.ones(len(starts)), groups, np.arange(len(starts) + 1)
    return csc_array(members, shape=(count, len(starts))) @ sums.numpy()


# what the opponents share


def find_missed(classes, truth):
    """1 + true class where another is predicted, else 0; the void 255 becomes 0 too."""
    return (truth + np.uint8(1)) * (truth != classes)


def look_around(classes, truth, number, regions, count, class_count):
    """Neighbour pairs by class (S, C), and pixels of the missed regions that touch (S,)."""
    width = classes.shape[1]
    classes, truth, regions = classes.ravel(), truth.ravel(), regions.ravel()
    neighbours, touching = np.zeros(count * class_count), []
    # by the flat distance to the neighbour, with the column that has none there
    for distance, edge in (1, width - 1), (width - 1, 0), (width, None), (width + 1, width - 1):
        differ = classes[distance:] != classes[:-distance]
        if edge is not None:
            differ[edge::width] = False
        first = np.flatnonzero(differ)
        for pixel, other in (first, first + distance), (first + distance, first):
            own, theirs, their_class = number.take(pixel), number.take(other), classes.take(other)
            neighbours += np.bincount(own * class_count + their_class, minlength=neighbours.size)
            touch = np.flatnonzero(truth.take(pixel) == their_class)
            pair = regions.take(pixel.take(touch)).astype(np.int64) * count + theirs.take(touch)
            touching.append(pair[np.diff(pair, prepend=-1) != 0])
    pair = np.sort(np.concatenate(touching))
    region, segment = np.divmod(pair[np.diff(pair, prepend=-1) > 0], count)
    missed = np.bincount(segment, np.bincount(regions)[region], count)
    return neighbours.reshape(count, class_count), missed


def define_metrics(*, classes, hits, rows, columns, sizes, moments, probabilities, surroundings):
    """All metrics from the sums over each segment's pixels.

    `sizes` (2 S,) counts inner and boundary pixels in turn, `moments` (2 S, 6) are the sums of
    E, D, V and of their squares over these; `rows` and `columns` sum the coordinates.
    """
    inner, boundary = sizes.reshape(-1, 2).T
    moments_in, moments_bd = moments.reshape(-1, 2, 6).swapaxes(0, 1)
    neighbours, missed = surroundings
    size = inner + boundary
    metrics = {"iou": hits / (size + missed), "iou0": hits == 0, "class": classes}
    metrics |= {"mean_x": rows / size, "mean_y": columns / size}
    metrics |= {"S": size, "S_in": inner, "S_bd": boundary}
    for part, sums, pixels in (
        ("", moments_in + moments_bd, size),
        ("_in", moments_in, inner),
        ("_bd", moments_bd, boundary),
    ):
        means = sums.T / np.maximum(pixels, 1)
        for name, mean, square in zip("EDV", means[:3], means[3:], strict=True):
            metrics |= {f"{name}{part}": mean, f"{name}_var{part}": square - mean**2}
    for part in "", "_in":
        metrics[f"S_rel{part}"] = relative = metrics[f"S{part}"] / np.maximum(boundary, 1)
        for name in "E", "D", "V", "E_var", "D_var", "V_var":
            metrics[f"{name}_rel{part}"] = metrics[f"{name}{part}"] * relative
    neighbours = neighbours.T / np.maximum(neighbours.sum(1), 1)
    metrics |= {f"cprob{c}": sums / size for c, sums in enumerate(probabilities.T)}
    metrics |= {f"ndist{c}": share for c, share in enumerate(neighbours)}
    return metrics


if __name__ == "__main__":
    main()
