"""From the segments of one image to crops, thumbnails and feature vectors."""

import numpy as np
from PIL import Image

from src import cache, crops, pictures
from src.datasets import read_image
from src.embedding_networks import embed_stream, segment_features


def cut_crops(task):
    """Cut the n segments of one CropTask out of its picture.

    Returns
    -------
    crops : list of n ndarray of shape (h, w, 3), uint8
    thumbnails : list of n bytes
        JPEG.
    """
    picture = read_picture(task)
    cut = [picture[upper:lower, left:right].copy() for left, upper, right, lower in task.boxes]
    return cut, [pictures.thumbnail(picture, box) for box in task.boxes]


def read_whole(task, folders, model_name):
    """Read what the segmentation network's own features of one CropTask are taken from.

    Parameters
    ----------
    folders : list of path
        Where the component map may lie; see `cache.find_components`.
    model_name : str

    Returns
    -------
    image : tuple
        Picture (H, W, 3) uint8, and component map (H, W) int32.
    thumbnails : list of n bytes
        JPEG, of each segment.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no component map; it is broken, or lacks segments of the task.
    """
    picture = read_picture(task)
    path = cache.find_components(folders, model_name, *task.name)
    components = cache.read_components(path)
    known = task.numbers <= len(crops.segment_boxes(components))
    if components.shape != picture.shape[:2] or not known.all():
        raise ValueError(
            f"{path} has other segments than were chosen; run src/MetaSeg/main.py, then this stage "
            "without args.load_file"
        )
    return (picture, components), [pictures.thumbnail(picture, box) for box in task.boxes]


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


def crop_vectors(load, batch_size, cut):
    """Vectors of a network that sees crops.

    Parameters
    ----------
    load : callable
        Gives the EmbeddingNetwork.
    batch_size : int
    cut : iterator of (CropTask, list of ndarray of shape (h, w, 3), uint8)
        See `cut_crops`.

    Yields
    ------
    row : int
        Of the table of embedded segments; in any order.
    vector : ndarray of shape (F,), float32
    """
    network = load()
    by_row = (
        (row, crop) for task, found in cut for row, crop in zip(task.rows, found, strict=True)
    )
    yield from embed_stream(network, by_row, batch_size)


def own_vectors(load, to_input, cut):
    """Vectors of the segmentation network's own features, the mean over the segment.

    Parameters
    ----------
    load : callable
        Gives the network.
    to_input : callable
        See `inference.to_input`.
    cut : iterator of (CropTask, (ndarray of shape (H, W, 3), uint8, ndarray (H, W), int32))
        See `read_whole`.

    Yields
    ------
    row, vector
        As for `crop_vectors`.
    """
    network = load()
    for task, (picture, components) in cut:
        image, _ = to_input(Image.fromarray(picture), None)
        vectors = segment_features(network, image, components, task.numbers)
        yield from zip(task.rows, vectors, strict=True)
