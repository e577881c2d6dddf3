"""Data sets as plug-ins: sequences of (image, ground_truth, path).

The common part is here: pictures and label files from a folder of the user.
"""

import os
import stat
import warnings
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EXTENSIONS = {  # in lower case, by format; some are read only where Pillow has what they need
    # not all that it knows: for some, such as EPS, it starts another program on the file
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "PNG": (".png",),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}

# texts in a PNG, such as how it was generated, may be as long as all together
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

_ORIENTATION = 0x0112  # tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_END = b"\xaeB`\x82"  # checksum of its last chunk
_LOSSY = ("AVIF", "HEIF", "JPEG")
_NO_RANGE = "its values have no known range; save it with 8 or 16 bits a channel"


class LabelledImages:
    """Pictures with their label files; the base of the data sets.

    Parameters
    ----------
    samples : list of (path, path or None)
        Each picture and its label file; None: no ground truth.
    transform : callable, optional
        Takes image and ground truth, gives both back changed.
    """

    label_mapping = {}  # id: (name, RGB)
    train_ids = {}  # id: name that networks have learnt it by, where that is another
    kinds = {}  # id: name of the kind of thing, where several classes are one
    categories = {}  # name of a class: that of its category, for coarser figures
    anomaly_ids = {}  # id: 0 normal, 1 anomaly, 255 not judged, where the names do not tell

    def __init__(self, samples, transform=None):
        self.samples = samples
        self.transform = transform

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        """Image (PIL, RGB), ground truth (H, W) in the ids of `label_mapping` or None, path.

        The ground truth is uint8 or uint16; ids that `label_mapping` lacks are told by stage 1.
        Pictures and label files are turned as their own EXIF data say, so labels without any
        must be drawn for the upright picture.

        Raises
        ------
        OSError, ValueError
            A file is missing; it cannot be read, or the sizes of image and labels differ.
        """
        image_path, label_path = self.samples[index]
        image, ground_truth = read_image(image_path), self.ground_truth(index)
        if ground_truth is not None and ground_truth.shape != (image.height, image.width):
            raise ValueError(
                f"labels must be of the size of their upright image: {label_path} has (height, "
                f"width) {ground_truth.shape}, {image_path} has {(image.height, image.width)}"
            )
        if self.transform is not None:
            image, ground_truth = self.transform(image, ground_truth)
        return image, ground_truth, str(image_path)

    def ground_truth(self, index):
        """Ground truth of an image as it is on disk, or None; the image itself is not read."""
        _, label_path = self.samples[index]
        return None if label_path is None else self.read_labels(label_path)

    def read_labels(self, path):
        """Labels of one file as (H, W) uint8, or uint16; here its values are the ids."""
        return read_ids(path)


def read_image(path):
    """Read a picture of any kind as a PIL image in RGB, upright.

    Colours are taken as they are in the file: transparency and colour profiles are left out, and of
    16 bits a channel the upper 8 are kept. Of several frames or pages the first is the picture.

    Parameters
    ----------
    path : path
        The content tells the format, not the name: one of `readable_formats`.

    Raises
    ------
    OSError
        The file is missing or may not be read.
    ValueError
        It holds no whole picture; or one whose values have no known range, as 32 bits of grey; or
        it claims more than 2 * `PIL.Image.MAX_IMAGE_PIXELS` (179 million, if nobody changes it) and
        could fill the memory. Larger real ones need that raised in the module of their data set.
    """
    with _opened(path) as (image, upright):
        if image.mode.startswith("I"):
            image = _upper_bits(image)
        elif image.mode == "F":
            raise ValueError(_NO_RANGE)
        if image.mode in ("P", "PA"):  # directly to RGB a palette with transparency warns
            image = image.convert("RGBA")
        return upright(image.convert("RGB"))


def _upper_bits(image):
    """The upper 8 bits of 16 bits of grey, which `convert` would clip to white."""
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # in these it holds 16 bits
        raise ValueError(_NO_RANGE)
    bits, black = (getattr(image, "tag_v2", {}).get(tag) for tag in (258, 262))  # of a TIFF file
    if bits not in (None, (16,)) or black not in (None, 1):
        raise ValueError("grey in a TIFF file must have 8 or 16 bits, and 0 where it is black")
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def read_ids(path):
    """Read a label file of ids, grey or with a palette: (H, W) uint8, or uint16 of a 16-bit PNG.

    Others raise a ValueError; a file that cannot be read what `read_image` does.
    """
    with _opened(path, are_labels=True) as (image, upright):
        is_wide = image.format == "PNG" and image.mode.startswith("I")
        if image.mode not in ("L", "P") and not is_wide:
            raise ValueError(
                f"must hold label ids, grey of 8 or 16 bits, got a picture of mode {image.mode!r}"
            )
        return np.array(upright(image)).astype(np.uint16 if is_wide else np.uint8)


def read_colours(path):
    """Read a label file that shows classes as colours, as (H, W, 3) uint8; see `read_image`."""
    with _opened(path, are_labels=True) as (image, upright):
        return np.array(upright(image.convert("RGB")))


@cache
def readable_formats():
    """Those of `EXTENSIONS` that Pillow reads here, by itself or by the plug-in of pillow-heif."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    lacking = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
    return [
        name
        for name in EXTENSIONS
        if name in Image.OPEN and (name not in lacking or features.check(lacking[name]))
    ]


@contextmanager
def _opened(path, are_labels=False):
    """Give the picture in a file, and what turns it upright; errors are one line with its name.

    Of labels nothing may be wrong, where photographs may have something behind their end.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a device never ends, a pipe never begins
            raise ValueError("it is no file")
        with Path(path).open("rb") as file:  # by its name Pillow may map it, and die if it shrinks
            with warnings.catch_warnings():  # half of what is refused
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                # looks at the size before it reads on
                image = Image.open(file, formats=readable_formats())
                if are_labels and image.format in _LOSSY:
                    raise ValueError(f"{image.format} changes ids and colours; save labels as PNG")
                image.load()
                if image.format == "PNG":
                    _check_png(file, may_go_on=not are_labels)
            yield image, _upright(image)
    except Exception as error:  # a broken picture raises nearly anything
        if isinstance(error, OSError) and error.filename:
            raise
        raise ValueError(f"{path} cannot be used: {_reason(error, path)}") from error


def _check_png(file, may_go_on):
    """Raise an error unless a PNG is what was once written: loading it looks at no checksum."""
    file.seek(0)
    Image.open(file, formats=["PNG"]).verify()  # up to the name of its last chunk
    if file.read(4) != _PNG_END:
        raise ValueError("it is cut off")
    if not may_go_on and file.read(1):
        raise ValueError("it goes on after its end: it is damaged, or two files in one")


def _upright(image):
    """What turns a loaded picture as its EXIF data say; others of their tags may be broken."""
    turn = None
    with suppress(Exception):  # nearly any
        turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    return lambda picture: picture if turn is None else picture.transpose(turn)


def _reason(error, path):
    """Why a picture cannot be read, in one line."""
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"it claims more than {2 * Image.MAX_IMAGE_PIXELS} pixels; if they are real, cut it "
            "into parts, or raise PIL.Image.MAX_IMAGE_PIXELS in the module of the data set"
        )
    if isinstance(error, UnidentifiedImageError):
        is_empty = Path(path).stat().st_size == 0
        return "it is empty" if is_empty else f"it is no picture ({', '.join(readable_formats())})"
    return " ".join(str(error).split()) or type(error).__name__


def list_images(root, pattern, *, folder=".", readable=(".png",)):
    """List the pictures below the root of a data set.

    Parameters
    ----------
    root : path
        Of the data set.
    pattern : str
        Glob pattern of the pictures in `folder`.
    folder : str
        Where in the root to look.
    readable : collection of str
        File name extensions that count, in lower case, with the dot.

    Returns
    -------
    paths : list of Path
        Sorted, so that the index of an image is the same on every machine. Without hidden files
        and folders; with links to what is missing, which keep their index while it is away.

    Raises
    ------
    FileNotFoundError
        There is no such root, or no such picture.
    """
    root = Path(root)
    check_root(root)
    paths = [
        path
        for path in (root / folder).glob(pattern)
        if path.suffix.lower() in readable
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not paths:
        raise FileNotFoundError(f"there are no pictures {root / folder / pattern}")
    return sorted(paths, key=Path.as_posix)


def check_root(root):
    """Raise a FileNotFoundError if the root of a data set is no folder."""
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}; set the root of the data set in configuration.py: "
            "`kwargs` of its entry in `datasets`"
        )


def with_labels(images, label_of):
    """Pair pictures with their label files: a list of pairs of paths.

    `label_of` takes the path of a picture and gives that of its labels. Where one is missing, its
    picture fails; where all are, that is a FileNotFoundError.
    """
    samples = [(image, label_of(image)) for image in images]
    if samples and not any(label.is_file() for _, label in samples):
        raise FileNotFoundError(
            f"none of {len(samples)} pictures has labels, the first: {samples[0][1]}"
        )
    return samples


def item_of(samples, index):
    """Image, ground truth or None, and path of an image in anybody's dataset.

    Another item is a ValueError.
    """
    item = samples[index]
    is_item = isinstance(item, tuple | list) and len(item) == 3
    if not is_item or not isinstance(item[2], str | os.PathLike):
        values = item if isinstance(item, tuple | list) else [item]
        raise ValueError(
            f"an item of {type(samples).__name__} must be (image, ground truth or None, path of "
            f"the picture), got ({', '.join(type(value).__name__ for value in values)})"
        )
    return item


def check_choice(name, value, allowed):
    """Raise a ValueError that lists what is allowed if `value` is not."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}")
