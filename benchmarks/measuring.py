"""What the benchmarks share: times, memory, and an image."""

import sys
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout comes first

from src.MetaSeg.metrics import VOID

HEIGHT, WIDTH = 1024, 2048
F0 = dict(class_count=19, sigma=12, confidence=1)
WHITE_NOISE = 0.05  # standard deviation on the logits
SHIFT_COLUMNS = 9  # of the ground truth against the prediction
VOID_ROWS = 64  # without a label, at the bottom


def timed(function, *args, **kwargs):
    """Result of a call, and its seconds."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def median_ms(*calls, repeats=7):
    """Median time of each call in milliseconds; they take turns."""
    times = [[timed(call)[1] for call in calls] for _ in range(repeats)]
    return (1000 * np.median(times, axis=0)).tolist()


def with_peak(function, *args, **kwargs):
    """Result of a call, and the most bytes that it made the process hold beyond those before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is held now
    before = _peak_bytes()
    result = function(*args, **kwargs)
    return result, _peak_bytes() - before


def _peak_bytes():
    """The most memory that this process has held, as Linux counts it."""
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def make_image(class_count, sigma, confidence, seed=0):
    """Softmax of smooth noise (H, W, C) float32, and true classes (H, W) uint8 that fit roughly.

    `sigma` is the smoothness in pixels, `confidence` the standard deviation of the logits.
    """
    rng = np.random.default_rng(seed)
    field = np.empty((HEIGHT, WIDTH, class_count), np.float32)
    for c in range(class_count):
        smooth = gaussian_filter(rng.standard_normal((HEIGHT, WIDTH), np.float32), sigma)
        white = rng.standard_normal((HEIGHT, WIDTH), np.float32)
        field[:, :, c] = smooth * (confidence / smooth.std()) + WHITE_NOISE * white
    np.exp(field, out=field)
    field /= field.sum(-1, keepdims=True)
    truth = np.roll(field.argmax(-1), SHIFT_COLUMNS, axis=1).astype(np.uint8)
    truth[-VOID_ROWS:] = VOID
    return field, truth
