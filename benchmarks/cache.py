"""What each form of an image's class probabilities costs: bytes, time, and error of the metrics.

Images of 1024 x 2048 pixels and 19 classes: smooth noise, unsure and sure, and four predictions of
the demo, side by side, where stage 1 has made them (`make demo`). The errors are the largest over
all segments of the means of E, of D and V, and of the class probabilities.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from measuring import F0, make_image, median_ms

from configuration import CONFIG
from src.MetaSeg.metrics import compute_metrics_components, heatmaps
from src.records import Prediction
from src.store import arrays
from src.store.paths import Results

SURE = F0 | dict(sigma=16, confidence=10)


def demo_image():
    """Predictions of the demo repeated to the size of the others; None where there is none."""
    results = Results(CONFIG.metaseg_io_path, CONFIG.MODEL_NAME, CONFIG.DATASET.name)
    indices = results.indices("input", missing_ok=True)[:16]
    images = [arrays.read_prediction(results.prediction(i)).probabilities for i in indices]
    if len(images) < 16 or any(image is None for image in images):
        return None
    return np.vstack([np.hstack(images[k : k + 4]) for k in range(0, 16, 4)])


def errors(path, exact):
    """Largest error of the means of E, of D and V, and of the class probabilities."""
    prediction = arrays.read_prediction(path)
    if prediction.probabilities is None:
        return [np.nan] * 3
    rounded, _ = compute_metrics_components(
        prediction.probabilities, prediction=prediction.prediction
    )
    shares = [name for name in exact if name.startswith("cprob")]
    groups = ["E"], ["D", "V"], shares
    return [max(abs(rounded[n] - exact[n]).max() for n in names) for names in groups]


def main():
    """Print the table."""
    images = {"unsure": make_image(**F0)[0], "sure": make_image(**SURE)[0], "demo": demo_image()}
    print("image   form         MB  write ms  read ms   error of E      D and V        class")
    for name, probabilities in images.items():
        if probabilities is None:
            print(f"{name}: not measured, run `make demo` with args.probabilities=compact first")
            continue
        ids = probabilities.argmax(-1).astype(np.uint8)
        maps = np.stack(heatmaps(probabilities), axis=-1)
        prediction = Prediction(probabilities, ids, ids, "noise.png", maps)
        exact, _ = compute_metrics_components(probabilities)
        for form in arrays.FORMS:
            print(f"{name:8}{form:8}{measure(form, prediction, exact)}", flush=True)


def measure(form, prediction, exact):
    """The columns of the table for one form of one image."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "input0.hdf5")
        write, read = median_ms(
            partial(arrays.write_prediction, path, prediction, {}, form),
            partial(arrays.read_prediction, path),
        )
        e, dv, share = errors(path, exact)
        megabytes = path.stat().st_size / 1e6
    return f"{megabytes:7.1f}{write:10.0f}{read:9.0f}{e:13.1e}{dv:13.1e}{share:13.1e}"


if __name__ == "__main__":
    main()
