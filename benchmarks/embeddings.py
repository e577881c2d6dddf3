"""Measure how fast crops become vectors, against one crop a forward pass, one after the other.

Both run densenet201 with random weights, in float32, on the same device: a GPU where there is one.
The crops are noise: of many sizes, as segments have them, and all of one size, as small ones have
that grew to the least crop. The two take turns, and medians are compared; both give the same
vectors, which is checked.
"""

import logging
from functools import partial

import numpy as np
import torch
import torchvision
from measuring import median_ms

from configuration import embedding_networks
from src.embedding.networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    embed_stream,
    load_embedding_network,
)
from src.segmentation import inference

CROPS = 24
BATCH_SIZE = 16  # the default of stage 4
ROUNDS = 3
SIZES = 128, 600  # pixels, of each side


def main():
    """Print the table."""
    device = inference.choose_device(0, logging.getLogger())
    torch.manual_seed(0)
    entry = embedding_networks["densenet201"]._replace(kwargs={"weights": None})
    network = load_embedding_network(entry, device)
    first = torchvision.models.densenet201(weights=None).features.eval().to(device)
    first.load_state_dict(network.module.features.state_dict())
    print(f"{CROPS} crops, densenet201 on {device}, {torch.get_num_threads()} threads\n")
    print(f"{'pixels':12}{'one by one':>12}{'embed_stream':>14}{'ratio':>8}   (seconds)")
    random = np.random.default_rng(0)
    for name, sizes in (
        ("{} to {}".format(*SIZES), random.integers(SIZES[0], SIZES[1] + 1, (CROPS, 2))),
        ("{0} x {0}".format(SIZES[0]), np.full((CROPS, 2), SIZES[0])),
    ):
        crops = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        compare(name, crops, partial(one_by_one, first, device), partial(stream, network))


def compare(name, crops, first, ours):
    """Print a row: medians of both, and how many times faster ours is."""
    expected, got = first(crops), ours(crops)  # also warms both up
    if np.abs(got - expected).max() > 1e-5 * np.abs(expected).max():
        raise RuntimeError("the vectors differ")
    times = median_ms(partial(first, crops), partial(ours, crops), repeats=ROUNDS)
    first_s, ours_s = (ms / 1000 for ms in times)
    print(f"{name:12}{first_s:12.2f}{ours_s:14.2f}{first_s / ours_s:8.2f}")


@torch.inference_mode()
def one_by_one(features, device, crops):
    """The loop that one would write first."""
    to_tensor = torchvision.transforms.ToTensor()
    normalise = torchvision.transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    vectors = []
    for crop in crops:
        image = normalise(to_tensor(crop))[None].to(device)
        vectors.append(features(image).mean((2, 3)).flatten().cpu().numpy())
    return np.array(vectors)


def stream(network, crops):
    """Ours."""
    ((_, vectors),) = embed_stream(network, [("picture", crops)], BATCH_SIZE)
    return vectors


if __name__ == "__main__":
    main()
