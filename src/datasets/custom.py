"""Your own pictures: a folder of images, without ground truth."""

from PIL import Image

from src.datasets import IMAGENET_MEAN, IMAGENET_STD, LabelledImages, list_images

mean, std = IMAGENET_MEAN, IMAGENET_STD


class CustomDataset(LabelledImages):
    """All pictures in a folder, of any format that Pillow reads; no ground truth.

    Parameters
    ----------
    root : path
        Folder that holds the pictures.
    recursive : bool
        Look in the folders below as well.
    transform : callable, optional
        Takes image and ground truth (None), gives both back changed.
    """

    def __init__(self, root, recursive=False, transform=None):
        extensions = Image.registered_extensions()
        readable = {extension for extension, name in extensions.items() if name in Image.OPEN}
        images = list_images(root, "**/*" if recursive else "*", readable=readable)
        super().__init__([(image, None) for image in images], transform)
