"""Your own pictures: a folder of images, without ground truth."""

from src.datasets import IMAGENET_MEAN, IMAGENET_STD, LabelledImages, list_images

mean, std = IMAGENET_MEAN, IMAGENET_STD
EXTENSIONS = {  # of pictures that Pillow reads on every machine
    *(".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".tga", ".tif", ".tiff", ".webp"),
}


class CustomDataset(LabelledImages):
    """All pictures in a folder, by their extension; no ground truth.

    Parameters
    ----------
    root : path
        Folder that holds the pictures.
    recursive : bool
        Look in the folders below as well.
    """

    def __init__(self, root, recursive=False, transform=None):
        images = list_images(root, "**/*" if recursive else "*", readable=EXTENSIONS)
        super().__init__([(image, None) for image in images], transform)
