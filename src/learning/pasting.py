"""More pictures of few objects: copies of them that look otherwise, on other pictures."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import adjust_hue, normalize, rotate

from src.model_card import ModelCard
from src.records import NO_LABEL

FROM_LESSONS = 1 / 3  # share of the pictures that are lessons, the others are replayed ones
MOST = 2  # copies in a picture
HUE = 0.5  # how far colours are turned, at most: 0.5 is all
SHADE = 0.2  # how far copies are darker or brighter, each channel by itself, at most
TILT_DEG = 15  # at most
SCALES = 0.5, 1.6  # smallest and largest factor on height and width of an object
LEAST_PX = 8  # height and width of a copy
HIGHEST = 0.35  # share of the picture's height that no copy ends in


@dataclass
class Pasted:
    """Pictures with labels, on which objects of the new classes are pasted: a sequence.

    Simple copy and paste (Ghiasi et al., arXiv 2012.07177): a class by chance, and of it an object;
    for how it changes see `vary`. Picture k depends on the seed, the epoch and k alone.

    Attributes
    ----------
    lessons, replayed : sequence of (Tensor, Tensor)
        Image (3, H, W), float32, normalised, and labels (H, W), int64; the first show new classes.
    card : ModelCard
        Of the network as it was: ids from its number of classes on are new, 255 = no label.
    count : int
        Number of pictures.
    seed, epoch : int
    """

    lessons: list
    replayed: list
    card: ModelCard
    count: int
    seed: int = 0
    epoch: int = 0

    def set_epoch(self, epoch):
        """From now on the pictures are those of another epoch."""
        self.epoch = epoch

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, self.epoch, index])
        is_lesson = not len(self.replayed) or rng.random() < FROM_LESSONS
        source = self.lessons if is_lesson else self.replayed
        image, labels = (part.clone() for part in source[int(rng.integers(len(source)))])
        for _ in range(rng.integers(1, MOST + 1)):
            label = int(rng.choice(list(self.objects)))
            of_class = self.objects[label]
            rgb, mask = vary(*of_class[int(rng.integers(len(of_class)))], labels.shape, rng)
            paste(image, labels, normalize(rgb, self.card.mean, self.card.std), mask, label, rng)
        return image, labels

    @cached_property
    def objects(self):
        """Colours (3, h, w) in [0, 1] and masks (h, w) of new classes in each lesson, by id."""
        mean, std = (torch.tensor(of)[:, None, None] for of in (self.card.mean, self.card.std))
        found = {}
        for image, labels in (self.lessons[k] for k in range(len(self.lessons))):
            new = labels[(labels >= len(self.card.classes)) & (labels != NO_LABEL)]
            for label in new.unique().tolist():
                mask = labels == label
                rows, columns = (mask.any(axis).nonzero() for axis in (1, 0))
                box = np.s_[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                rgb = (image[box] * std + mean).clamp(0, 1)
                found.setdefault(label, []).append((rgb, mask[box]))
        return found


def vary(rgb, mask, most, rng):
    """An object (3, h, w) in [0, 1] with its mask (h, w), as it might look too.

    In another colour, shade, tilt and size, up to that of the picture, `most` (height, width), and
    mirrored half of the time.
    """
    shade = torch.from_numpy(rng.uniform(1 - SHADE, 1 + SHADE, (3, 1, 1)).astype(np.float32))
    rgb = (adjust_hue(rgb, float(rng.uniform(-HUE, HUE))) * shade).clamp(0, 1)
    tilt = float(rng.uniform(-TILT_DEG, TILT_DEG))
    rgb = rotate(rgb, tilt, InterpolationMode.BILINEAR, expand=True)
    mask = rotate(mask[None].float(), tilt, InterpolationMode.BILINEAR, expand=True)
    factor = np.exp(rng.uniform(*np.log(SCALES)))
    lengths = [max(LEAST_PX, round(length * factor)) for length in mask.shape[1:]]
    size = [min(pair) for pair in zip(lengths, most, strict=True)]
    rgb = interpolate(rgb[None], size, mode="bilinear", antialias=True)[0]
    mask = interpolate(mask[None], size, mode="bilinear")[0, 0] > 0.5
    return (rgb.flip(-1), mask.flip(-1)) if rng.random() < 0.5 else (rgb, mask)


def paste(image, labels, pixels, mask, label, rng):
    """Paste an object (3, h, w) where its mask (h, w) is true, by chance, on a picture in place.

    Up to half of it may lie beyond the left or the right side.
    """
    (height, width), (of_height, of_width) = labels.shape, mask.shape
    bottom = int(rng.integers(max(of_height, int(HIGHEST * height)), height + 1))
    left = int(rng.integers(-(of_width // 2), width - of_width // 2))
    first, end = max(left, 0), min(left + of_width, width)
    shown = np.s_[..., first - left : end - left]
    area = np.s_[..., bottom - of_height : bottom, first:end]
    image[area] = torch.where(mask[shown], pixels[shown], image[area])
    labels[area] = torch.where(mask[shown], label, labels[area])
