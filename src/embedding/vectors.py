"""From the objects of a picture to thumbnails and feature vectors."""

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from src import pictures
from src.datasets import read_image
from src.embedding import objects as joined
from src.embedding.networks import (
    context_of,
    embed_stream,
    load_embedding_network,
    reads_words,
    segment_features,
)
from src.errors import SettingError
from src.model_card import ModelCard
from src.run.kept import Kept
from src.segmentation import inference
from src.segmentation.class_maps import RawOutput, read_output, stored_outputs
from src.store import arrays
from src.store.paths import find_components

_log = logging.getLogger(__name__)


class Embedder(Kept):
    """What makes vectors of the objects of pictures, here or in another process.

    `cut(picture, objects, places)` gives what the vectors of the n objects, an ObjectTable, of a
    picture (H, W, 3) uint8 are made from; its component map lies in one of `places`, Results.
    `cut_box(picture, box)` gives that of a box in a picture from outside, for one vector.
    `embed(cuts)` takes (key, cut) and yields (key, vectors (n, F) float32), in any order.
    `encode_text(line)` gives the vector (F,) float32 of some words, as near to what they say.
    """

    device: torch.device | None  # None: the first GPU of the process that embeds, or its CPU

    def choose_device(self):
        """The device to compute on."""
        return self.device or inference.choose_device(0, _log)

    def encode_text(self, line):
        """See above; a SettingError where the network reads no words."""
        raise SettingError(
            f"the network {self.entry.name!r} that embedded the objects reads no words: embed them "
            "by one that does: args.net=clip, args.net=siglip or args.net=hf/<name>"
        )


@dataclass(eq=False)
class CropEmbedder(Embedder):
    """By a network that sees crops; see `networks.load_embedding_network`."""

    entry: tuple
    crop_size: list | None
    batch_size: int  # crops of one size that go through the network together
    device: torch.device | None

    @cached_property
    def network(self):
        """The EmbeddingNetwork, on its device."""
        return load_embedding_network(self.entry, self.choose_device(), self.crop_size)

    def cut(self, picture, objects, places):
        """Crops (h, w, 3) uint8."""
        context = context_of(self.entry)
        return [pictures.crop(picture, box, context).copy() for box in objects["box"]]

    def cut_box(self, picture, box):
        """As `cut`."""
        return self.cut(picture, {"box": [box]}, None)

    def embed(self, cut):
        """See `Embedder`."""
        yield from embed_stream(self.network, cut, self.batch_size)

    def encode_text(self, line):
        """See `Embedder`."""
        if not reads_words(self.entry):
            return super().encode_text(line)
        with torch.inference_mode():
            return self.network.module.encode_text(line).cpu().numpy()


@dataclass(eq=False)
class WholeEmbedder(Embedder):
    """By the segmentation network's own features, the mean over the object."""

    entry: tuple
    card: ModelCard  # of the network
    device: torch.device | None

    @cached_property
    def network(self):
        """The segmentation network, on its device."""
        return inference.load_network(self.entry, self.choose_device())

    @cached_property
    def outputs(self):
        """The Predictions that lie in files; None: the network makes them."""
        return stored_outputs(self.entry)

    def cut(self, picture, objects, places):
        """Picture (H, W, 3) uint8, map of the objects (H, W) int32, and their numbers in it.

        In the place of the picture a RawOutput, where the class values lie in files.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no component map; it is broken, or lacks segments of the objects.
        """
        segments = objects["segments"]
        path = find_components(places, objects["image_index"][0])
        components = arrays.read_components(path)
        there = np.unique(np.abs(components))
        known = np.isin(np.concatenate(segments), there).all()
        if components.shape != picture.shape[:2] or not known:
            raise ValueError(
                f"{path} has other segments than were chosen; run src/MetaSeg/main.py, then this "
                "stage without args.load_file"
            )
        if self.outputs is not None:
            path, count = objects["image_path"][0], self.card.count
            picture = read_output(self.outputs, path, components.shape, count)
        return picture, joined.label_map(components, segments), range(1, len(segments) + 1)

    def cut_box(self, picture, box):
        """As `cut`; the box is the object."""
        if self.outputs is not None:
            raise SettingError(
                f"a picture from outside has no prediction in {self.outputs.folder}: embed the "
                "segments by a network that sees crops, such as args.net=resnet18"
            )
        left, upper, right, lower = box
        components = np.zeros(picture.shape[:2], np.int32)
        components[upper:lower, left:right] = 1
        return picture, components, [1]

    def embed(self, cut):
        """See `Embedder`."""
        card = self.card
        to_input = inference.to_input(card.mean, card.std)
        computing = inference.Computing(
            size=card.size, multiple_of=card.multiple_of, classes=len(card.classes)
        )
        for key, (picture, components, numbers) in cut:
            is_raw = isinstance(picture, RawOutput)
            image = picture if is_raw else to_input(Image.fromarray(picture), None)[0]
            yield key, segment_features(self.network, image, components, numbers, computing)


def read_picture(objects):
    """Picture (H, W, 3) uint8 of some objects, of the size that it had when it was predicted."""
    path, size = objects["image_path"][0], tuple(objects["image_size"][0].tolist())
    picture = np.asarray(read_image(path))
    height, width = picture.shape[:2]
    right, lower = objects["box"][:, 2:].max(axis=0)
    if size not in ((height, width), (-1, -1)) or right > width or lower > height:
        raise ValueError(
            f"{path} is {height} x {width} pixels now, and was {size[0]} x {size[1]} when it was "
            "predicted; predict it again"
        )
    return picture
