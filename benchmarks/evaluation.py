"""Time and memory of the figures of merit at the sizes of published datasets.

python benchmarks/evaluation.py
"""

import resource
import time

import numpy as np

from src.evaluation.pixels import ScoreCounts
from src.evaluation.ranking import retrieval

QUERIES = 20_000  # each against all others, in two dimensions
FRAMES, HEIGHT, WIDTH = 40, 1024, 2048


def peak_mb():
    """Most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rank():
    """Seconds to judge `QUERIES` queries."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(QUERIES, 2))
    labels = generator.integers(0, 12, QUERIES)
    start = time.perf_counter()
    retrieval(points, labels, np.arange(QUERIES), counts=(1, 10, 100))
    return time.perf_counter() - start


def pixels():
    """Seconds to count the pixels of a frame, and to work out the metrics of all."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    labels = (generator.random((HEIGHT, WIDTH)) < 0.02).astype(np.uint8)
    counts = ScoreCounts()
    start = time.perf_counter()
    for _ in range(FRAMES):
        counts.add(scores + labels, labels)
    middle = time.perf_counter()
    counts.metrics()
    return (middle - start) / FRAMES, time.perf_counter() - middle


def main():
    """Print the table."""
    base = peak_mb()
    seconds = rank()
    print(f"retrieval, {QUERIES:,} queries x {QUERIES:,} rows: {seconds:.1f} s (goal 30 s), "
          f"{peak_mb():.0f} MB in all, {base:.0f} before (goal 2,000)")  # fmt: skip
    frame, rest = pixels()
    print(f"pixel metrics, {FRAMES} frames of {HEIGHT} x {WIDTH}: {1000 * frame:.0f} ms a frame, "
          f"{rest:.1f} s at the end, {peak_mb():.0f} MB in all")  # fmt: skip


if __name__ == "__main__":
    main()
