"""Time and memory of the figures of merit at the sizes of published datasets."""

import numpy as np
from measuring import timed, with_peak

from src.evaluation.pixels import ScoreCounts
from src.evaluation.ranking import retrieval

QUERIES = 20_000  # each against all others, in two dimensions
FRAMES, HEIGHT, WIDTH = 40, 1024, 2048


def rank():
    """Seconds to judge `QUERIES` queries."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(QUERIES, 2))
    labels = generator.integers(0, 12, QUERIES)
    return timed(retrieval, points, labels, np.arange(QUERIES), counts=(1, 10, 100))[1]


def pixels():
    """Seconds to count the pixels of a frame, and to work out the metrics of all."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    labels = (generator.random((HEIGHT, WIDTH)) < 0.02).astype(np.uint8)
    counts = ScoreCounts()
    counting = sum(timed(counts.add, scores + labels, labels)[1] for _ in range(FRAMES))
    return counting / FRAMES, timed(counts.metrics)[1]


def main():
    """Print the table."""
    seconds, peak = with_peak(rank)
    print(f"retrieval, {QUERIES:,} queries x {QUERIES:,} rows: {seconds:.1f} s (goal 30 s), "
          f"{peak / 1e6:.0f} MB (goal 2,000)")  # fmt: skip
    (frame, rest), peak = with_peak(pixels)
    print(f"pixel metrics, {FRAMES} frames of {HEIGHT} x {WIDTH}: {1000 * frame:.0f} ms a frame, "
          f"{rest:.1f} s at the end, {peak / 1e6:.0f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
