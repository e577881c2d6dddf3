"""From the segments of one image to crops, thumbnails and feature vectors."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from src import pictures
from src.datasets import read_image
from src.embedding import crops
from src.embedding.networks import embed_stream, load_embedding_network, segment_features
from src.run.kept import Kept
from src.segmentation import inference
from src.store import cache

_log = logging.getLogger(__name__)


class Embedder(Kept):
    """What stage 4 does with the n segments of a CropTask, here or in another process."""

    device: torch.device | None  # None: the first GPU of the process that embeds, or its CPU

    def cut(self, task):
        """Read what the vectors are made from, and the thumbnails: n bytes, JPEG."""
        raise NotImplementedError

    def embed(self, cut):
        """Make vectors of an iterator of (CropTask, what `cut` gave first).

        Yields
        ------
        row : int
            Of the table of embedded segments; in any order.
        vector : ndarray of shape (F,), float32
        """
        raise NotImplementedError

    def embed_image(self, task):
        """Vectors (n, F) float32 and thumbnails of one CropTask."""
        content, thumbnails = self.cut(task)
        vectors = dict(self.embed(iter([(task, content)])))
        return np.stack([vectors[row] for row in task.rows]), thumbnails

    def choose_device(self):
        """The device to compute on."""
        return self.device or inference.choose_device(0, _log)


@dataclass(eq=False)
class CropEmbedder(Embedder):
    """By a network that sees crops.

    Parameters
    ----------
    entry : ModelConfig
    crop_size : sequence of (int, int) or None
        See `embedding_networks.load_embedding_network`.
    batch_size : int
        Crops of one size that go through the network together.
    device
        See `Embedder`.
    """

    entry: tuple
    crop_size: list | None
    batch_size: int
    device: torch.device | None

    @cached_property
    def network(self):
        """The EmbeddingNetwork, on its device."""
        return load_embedding_network(self.entry, self.choose_device(), self.crop_size)

    def cut(self, task):
        """Crops (h, w, 3) uint8, and thumbnails."""
        picture = read_picture(task)
        cut = [picture[upper:lower, left:right].copy() for left, upper, right, lower in task.boxes]
        return cut, thumbnails_of(picture, task)

    def embed(self, cut):
        """See `Embedder`."""
        by_row = (
            (row, crop) for task, found in cut for row, crop in zip(task.rows, found, strict=True)
        )
        yield from embed_stream(self.network, by_row, self.batch_size)


@dataclass(eq=False)
class WholeEmbedder(Embedder):
    """By the segmentation network's own features, the mean over the segment.

    Parameters
    ----------
    entry : ModelConfig
    to_input : callable
        See `inference.to_input`.
    folders : list of path
        Where the component map may lie; see `cache.find_components`.
    device
        See `Embedder`.
    """

    entry: tuple
    to_input: object
    folders: list[str | Path]
    device: torch.device | None

    @cached_property
    def network(self):
        """The segmentation network, on its device."""
        return inference.load_network(self.entry, self.choose_device())

    def cut(self, task):
        """Picture (H, W, 3) uint8 and component map (H, W) int32, and thumbnails.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no component map; it is broken, or lacks segments of the task.
        """
        picture = read_picture(task)
        path = cache.find_components(self.folders, self.entry.name, *task.name)
        components = cache.read_components(path)
        known = task.numbers <= len(crops.segment_boxes(components))
        if components.shape != picture.shape[:2] or not known.all():
            raise ValueError(
                f"{path} has other segments than were chosen; run src/MetaSeg/main.py, then this "
                "stage without args.load_file"
            )
        return (picture, components), thumbnails_of(picture, task)

    def embed(self, cut):
        """See `Embedder`."""
        for task, (picture, components) in cut:
            image, _ = self.to_input(Image.fromarray(picture), None)
            vectors = segment_features(self.network, image, components, task.numbers)
            yield from zip(task.rows, vectors, strict=True)


def thumbnails_of(picture, task):
    """JPEG of each segment of a task."""
    return [pictures.thumbnail(picture, box) for box in task.boxes]


def read_picture(task):
    """Picture (H, W, 3) uint8 of a task, of the size that it had when it was predicted."""
    picture = np.asarray(read_image(task.path))
    height, width = picture.shape[:2]
    right, lower = task.boxes[:, 2:].max(axis=0)
    if task.size not in ((height, width), (-1, -1)) or right > width or lower > height:
        raise ValueError(
            f"{task.path} is {height} x {width} pixels now, and was {task.size[0]} x "
            f"{task.size[1]} when it was predicted; predict it again"
        )
    return picture
