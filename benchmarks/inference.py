"""Measure stage 1 against the loop that one would write first.

The first loop loads an image, runs the network in float32, computes the softmax on the CPU and
writes the result, one after the other. Stage 1 is `pred_images.py` as it stands. Both go from the
same PNG files, which are drawn here, to the same files, with the same network: DeepLabv3+ filled by
the formula of its tests. On a GPU at width 1, on the CPU an eighth as wide and on small images.

Speeds leave out what happens once, such as loading the weights and starting processes: the time of
a run over two images is subtracted; each time is the best of three. The runs write over each
other's files, on a GPU 12 GB.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from measuring import timed
from PIL import Image

import configuration
import pred_images
from src import registry
from src.datasets import cityscapes
from src.model.deepv3 import DeepWV3Plus
from src.records import Prediction
from src.run.runner import Runner
from src.segmentation import inference
from src.store import arrays
from src.store.paths import Results
from tests.test_model import fill

ON_GPU = dict(width=1, size=(1024, 2048), images=64)
ON_CPU = dict(width=1 / 8, size=(256, 512), images=40)
FEW = 2
ROUNDS = 3
CLASSES = 19
FORMULA = dict(seed=1, gain=1.15, bn_w=0.25, bn_b=0.1, rm=0.1, rv=0.3)
NAME = "benchmark"


def main():
    """Print the table."""
    device = inference.choose_device(0, logging.getLogger())
    on_gpu = device.type == "cuda"
    setting = ON_GPU if on_gpu else ON_CPU
    height, width = setting["size"]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        draw_pictures(folder / "pictures", setting["images"], height, width)
        register(folder, setting["width"])
        name = torch.cuda.get_device_name(device) if on_gpu else "the CPU"
        print(
            f"{setting['images']} images of {height} x {width}, width {setting['width']:g}, "
            f"on {name}, {configuration.CONFIG.NUM_CORES} cores"
        )
        print(f"\n{'':40}images/s  times", flush=True)
        first_speed = None
        for what, run in runs(folder, device):
            few, many = (
                min(timed(run, count)[1] for _ in range(ROUNDS))
                for count in (FEW, setting["images"])
            )
            speed = (setting["images"] - FEW) / (many - few)
            first_speed = first_speed or speed
            print(f"{what:40}{speed:8.2f}{speed / first_speed:7.1f}", flush=True)


def runs(folder, device):
    """What is compared: name, and a function of the number of images."""
    yield "the first loop, float32", lambda count: first_loop(folder, device, count)
    yield "stage 1", stage_1(folder, device)
    yield "the same, probabilities=none", stage_1(folder, device, probabilities="none")
    if device.type == "cuda":
        half = dict(probabilities="none", precision="bfloat16", channels_last=True)
        yield "the same in bfloat16, channels_last", stage_1(folder, device, **half)


def first_loop(folder, device, count):
    """Load, forward, softmax on the CPU, write; one after the other."""
    network = inference.load_network(configuration.models[NAME], device)
    to_input = inference.to_input(cityscapes.mean, cityscapes.std)
    samples = registry.build(configuration.datasets[NAME], transform=to_input)
    for index in range(count):
        image, ground_truth, path = samples[index]
        with torch.inference_mode():
            logits = network(image[None].to(device)).cpu()
        probabilities = logits[0].softmax(0).permute(1, 2, 0).contiguous().numpy()
        prediction = Prediction(probabilities, probabilities.argmax(-1), ground_truth, path)
        path = Results(folder, NAME, NAME).prediction(index)
        arrays.write_prediction(path, prediction, {}, "float32")


def stage_1(folder, device, **options):
    """The stage with these options, as a function of the number of images."""
    places = dict(dataset=NAME, model_name=NAME, io_path=folder, gpu=device.index)
    defaults = pred_images.ex.configurations[0]()["args"]
    settings = {**defaults, **places, **options, "overwrite": True}

    def run(count):
        args = {**settings, "num_images": count}
        tally = pred_images.predict(args, Runner.from_args(args, logging.getLogger()))
        if tally.done != count:
            raise RuntimeError(f"{tally.done} of {count} images were predicted: {tally.failed}")

    return run


def register(folder, width):
    """Give the scripts an entry for the network and one for the pictures."""
    weights = folder / "weights.pth"
    kwargs = {"num_classes": CLASSES, "width": width}
    torch.save(fill(DeepWV3Plus(**kwargs), **FORMULA).state_dict(), weights)
    configuration.models[NAME] = configuration.ModelConfig(
        NAME, "src.model.deepv3", "DeepWV3Plus", kwargs, weights
    )
    configuration.datasets[NAME] = configuration.DatasetConfig(
        NAME, "src.datasets.custom", "CustomDataset", {"root": folder / "pictures"}
    )


def draw_pictures(folder, count, height, width):
    """PNG files as hard to read as photographs: waves of colour, and noise of a few grey levels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:height, :width]
    for index in range(count):
        waves = [
            np.sin(rows / (20 + 9 * c) + index) + np.cos(columns / (30 + 7 * c)) for c in range(3)
        ]
        picture = 128 + 50 * np.stack(waves, axis=-1) + rng.normal(0, 3, (height, width, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{index:03}.png")


if __name__ == "__main__":
    main()
