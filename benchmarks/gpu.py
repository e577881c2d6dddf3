"""Measure all that a GPU does, in one run of at most 8 minutes, and print one table.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --tiny

Where there is no GPU, or with --tiny, it does the same with small networks and pictures: that shows
that it works, and nothing else. What fails is named and the rest goes on; what comes after the time
is over is left out. Networks have random weights. What happens once, such as loading weights, does
not count: the time of a short run is subtracted from that of a long one. `times` compares with the
first of a part. Stage 3 computes on the CPU everywhere.
"""

import argparse
import logging
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import inference as stage_1
import numpy as np
import torch
from embeddings import BATCH_SIZE, one_by_one, stream
from measuring import timed, with_peak
from torch.nn.functional import cross_entropy, interpolate

from configuration import embedding_networks, meta_models
from src.embedding.networks import load_embedding_network, segment_features
from src.MetaSeg import meta_training
from src.model.deepv3 import DeepWV3Plus
from src.records import SegmentTable
from src.segmentation import inference

MOST_SECONDS = 8 * 60
CLASSES, METRICS = stage_1.CLASSES, 75
HALF = dict(precision="bfloat16", channels_last=True)


@dataclass(frozen=True)
class Sizes:
    """How much is measured; pairs of counts are a short run and a long one."""

    width: float  # of DeepLabv3+
    size: tuple[int, int]  # of pictures, height and width in pixels
    tile: tuple[int, int]
    images: tuple[int, int]
    cores: int  # beside the GPU
    crops: int
    sides: tuple[int, int]  # of crops, pixels
    segments: int  # of a picture, to average features over
    rows: int  # segments that a meta model learns from
    epochs: tuple[int, int]
    batch: tuple[int, int, int]  # crops, height and width of a training step
    steps: tuple[int, int]
    segformer: dict  # its configuration; B0 by default


FULL = Sizes(
    width=1, size=(1024, 2048), tile=(512, 1024), images=(2, 26), cores=8, crops=96,
    sides=(128, 600), segments=50, rows=200_000, epochs=(1, 4), batch=(6, 192, 256), steps=(5, 55),
    segformer={},
)  # fmt: skip
TINY = Sizes(
    width=1 / 16, size=(32, 48), tile=(24, 24), images=(1, 2), cores=1, crops=2,
    sides=(32, 40), segments=3, rows=600, epochs=(1, 2), batch=(2, 32, 32), steps=(1, 2),
    segformer=dict(depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
                   decoder_hidden_size=16),
)  # fmt: skip


class Measurement(NamedTuple):
    """A line of the table."""

    part: str  # whose first line the others are compared with
    what: str
    unit: str
    speed: Callable[[], float]  # in that unit: higher is better


class Line(NamedTuple):
    """What is known of a measurement."""

    figure: str
    times: str = ""
    gpu: str = ""  # most memory, GB
    main: str = ""


def main(arguments=None):
    """Print the table; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="only show that it works")
    options = parser.parse_args(arguments)
    device = inference.choose_device(0, logging.getLogger())
    is_tiny = options.tiny or device.type == "cpu"
    sizes, start = TINY if is_tiny else FULL, time.perf_counter()
    name = "the CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(f"On {name}, torch {torch.__version__}{', in tiny form' if is_tiny else ''}.\n")
    print("| | | times | GB on the GPU | GB beside |\n|---|---|---|---|---|", flush=True)
    speeds, failed = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for each in measurements(sizes, device, Path(folder), is_tiny):
            line = Line("left out: no time")
            if time.perf_counter() - start < MOST_SECONDS:
                line = measured(each, device, speeds)
            failed += line.figure.startswith("failed")
            print("| " + " | ".join([f"{each.part}: {each.what}", *line]) + " |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")
    return int(failed > 0)


def measured(each, device, speeds):
    """The Line of a measurement; `speeds` are the first of the parts, by their names."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        speed, beside = with_peak(each.speed)
    except Exception as error:
        traceback.print_exc()
        return Line(f"failed: {type(error).__name__}")
    figure, times = "too short to tell", ""
    if not math.isnan(speed):
        first = speeds.setdefault(each.part, speed)
        figure, times = f"{speed:.3g} {each.unit}", f"{speed / first:.1f}"
    gpu = f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f}" if on_gpu else "-"
    return Line(figure, times, gpu, f"{beside / 1e9:.1f}")


def measurements(sizes, device, folder, is_tiny):
    """All that is measured, in the order of the table."""
    stage_1.draw_pictures(folder / "pictures", sizes.images[1], *sizes.size)
    stage_1.register(folder, sizes.width)
    yield from of_stage_1(sizes, device, folder, is_tiny)
    yield from of_crops(sizes, device)
    yield from of_features(sizes, device)
    epoch = partial(epochs_a_second, sizes)
    yield Measurement("stage 3", f"{sizes.rows} segments, on the CPU", "epochs/s", epoch)
    for precision in inference.PRECISIONS[:2]:
        step = partial(steps_a_second, sizes, device, precision)
        yield Measurement("a training step", precision, "steps/s", step)


def speed(run, counts):
    """How many things a second a run does, beyond what happens once; `run` takes their number."""
    few, many = counts
    run(few)  # warms up
    seconds = [timed(run, count)[1] for count in counts]
    more = seconds[1] - seconds[0]
    return (many - few) / more if more > 0 else math.nan  # as small as chance: tiny runs


# stage 1


def of_stage_1(sizes, device, folder, is_tiny):
    """DeepLabv3+ one after the other, and by stage 1 in all its ways; a network of Hugging Face."""
    height, width = sizes.size
    part = f"DeepLabv3+, {height} x {width}"
    tile = "{} x {}".format(*sizes.tile)
    loop = partial(stage_1.first_loop, folder, device)
    yield Measurement(
        part, "a simple loop, float32", "images/s", partial(speed, loop, sizes.images)
    )
    ways = {
        "float32, none": dict(probabilities="none"),
        "bfloat16, none": dict(probabilities="none", precision="bfloat16"),
        "bfloat16, channels last, none": dict(probabilities="none", **HALF),
        "the same, compiled": dict(probabilities="none", compile=True, **HALF),
        "bfloat16, channels last, compact": dict(probabilities="compact", **HALF),
        "bfloat16, channels last, float32": dict(probabilities="float32", **HALF),
        f"the same, none, tiles of {tile}": dict(probabilities="none", tile=[*sizes.tile], **HALF),
    }
    if is_tiny:
        del ways["the same, compiled"]  # a minute for a compiler
    for what, options in ways.items():
        run = stage_1.stage_1(folder, device, num_cores=sizes.cores, **options)
        yield Measurement(part, what, "images/s", partial(speed, run, sizes.images))
    if find_spec("transformers"):
        run = partial(hugging_face, sizes, device, folder)
        yield Measurement("Segformer of Hugging Face", "bfloat16, none", "images/s", run)


def hugging_face(sizes, device, folder):
    """Images a second of stage 1 with a network that transformers saves."""
    import transformers

    names = {k: f"class {k}" for k in range(CLASSES)}
    config = transformers.SegformerConfig(id2label=names, label2id={}, **sizes.segformer)
    place = folder / "segformer"
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(place)
    options = dict(model_name=f"hf/{place}", probabilities="none", precision="bfloat16")
    run = stage_1.stage_1(folder, device, num_cores=sizes.cores, **options)
    return speed(run, sizes.images)


# stage 4


def of_crops(sizes, device):
    """Vectors of crops of many sizes by densenet201, one crop a forward pass, and in batches."""
    random = np.random.default_rng(0)
    shapes = random.integers(sizes.sides[0], sizes.sides[1] + 1, (sizes.crops, 2))
    crops = [random.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]

    def crops_a_second(is_ours):
        entry = embedding_networks["densenet201"]._replace(kwargs={"weights": None})
        network = load_embedding_network(entry, device)
        plain = network.module.features.to(memory_format=torch.contiguous_format)
        embed = partial(stream, network) if is_ours else partial(one_by_one, plain, device)
        embed(crops)  # warms up
        return len(crops) / timed(embed, crops)[1]

    part = "densenet201, crops of {} to {} pixels".format(*sizes.sides)
    yield Measurement(part, "one by one", "crops/s", partial(crops_a_second, False))
    yield Measurement(part, f"in batches of {BATCH_SIZE}", "crops/s", partial(crops_a_second, True))


def of_features(sizes, device):
    """Vectors of segments by the segmentation network's own features."""
    random = np.random.default_rng(0)
    height, width = sizes.size
    image = torch.from_numpy(random.normal(size=(3, height, width)).astype(np.float32))
    bands = 1 + np.arange(height) * sizes.segments // height
    components = np.repeat(bands.astype(np.int32), width).reshape(height, width)
    chosen = range(1, sizes.segments + 1)

    def pictures_a_second(function):
        network = DeepWV3Plus(num_classes=CLASSES, width=sizes.width).eval().to(device)
        run = partial(repeat, partial(function, network, image, components, chosen))
        return speed(run, sizes.images)

    part = f"network's features, {sizes.segments} segments a picture"
    for what, function in (
        ("maps enlarged, segments one by one", enlarged_features),
        ("stage 4", segment_features),
    ):
        yield Measurement(part, what, "pictures/s", partial(pictures_a_second, function))


def repeat(function, count):
    """Call a function so many times."""
    for _ in range(count):
        function()


@torch.inference_mode()
def enlarged_features(network, image, components, chosen):
    """The means of `segment_features` as one would write them first."""
    maps = network.features(image[None].to(inference.device_of(network, image)))
    size = components.shape
    maps = interpolate(maps, size=size, mode="bilinear", align_corners=True)[0]
    numbers = torch.from_numpy(np.abs(components)).to(maps.device)
    return np.array([maps[:, numbers == number].mean(1).cpu().numpy() for number in chosen])


# trainings


def epochs_a_second(sizes):
    """Of the meta network of stage 3."""
    random = np.random.default_rng(0)
    table = SegmentTable(
        features=random.normal(size=(sizes.rows, METRICS)),
        feature_names=tuple(f"metric {k}" for k in range(METRICS)),
        image_index=np.arange(sizes.rows) // 100,
        component_index=1 + np.arange(sizes.rows) % 100,
        predicted_class=np.zeros(sizes.rows, np.int64),
        true_iou=random.random(sizes.rows),
    )
    fit = partial(meta_training.fit, meta_models["meta_nn"], table, table, seed=0)
    return speed(lambda epochs: fit(epochs=epochs), sizes.epochs)


def steps_a_second(sizes, device, precision):
    """Of the demo's network, on crops as its training has them; drawing them does not count."""
    count, height, width = sizes.batch
    torch.manual_seed(0)
    network = DeepWV3Plus(num_classes=CLASSES, width=1 / 8).to(device).train()
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters())
    images = torch.randn(count, 3, height, width, device=device)
    labels = torch.randint(CLASSES, (count, height, width), device=device)

    def step():
        is_half = precision != "float32"
        with torch.autocast(device.type, getattr(torch, precision), enabled=is_half):
            loss = cross_entropy(network(images).float(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()  # waits for the GPU

    return speed(partial(repeat, step), sizes.steps)


if __name__ == "__main__":
    sys.exit(main())
