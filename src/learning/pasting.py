"""More pictures of few objects: copies of them, in other sizes and places, on other pictures."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn.functional import interpolate

from src.records import NO_LABEL

FROM_LESSONS = 1 / 3  # share of the pictures that are lessons, the others are replayed ones
MOST = 2  # copies in a picture
SCALES = 0.5, 1.6  # smallest and largest factor on height and width of an object
SHADE = 0.2  # how far copies are darker or brighter, each channel by itself, at most
LEAST_PX = 8  # height and width of a copy
HIGHEST = 0.35  # share of the picture's height that no copy ends in


@dataclass(frozen=True)
class Pasted:
    """Pictures with labels, on which objects of the new classes are pasted: a sequence.

    Simple copy and paste (Ghiasi et al., arXiv 2012.07177): a class by chance, and of it an object,
    in another size and shade, mirrored half of the time. Picture k depends on the seed and k alone.

    Attributes
    ----------
    lessons, replayed : sequence of (Tensor, Tensor)
        Image (3, H, W), float32, and labels (H, W), int64; the first show new classes.
    old_count : int
        Ids from here on are those of new classes; 255 = no label.
    count : int
        Number of pictures.
    seed : int
    """

    lessons: list
    replayed: list
    old_count: int
    count: int
    seed: int = 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        is_lesson = not len(self.replayed) or rng.random() < FROM_LESSONS
        source = self.lessons if is_lesson else self.replayed
        image, labels = (part.clone() for part in source[int(rng.integers(len(source)))])
        for _ in range(rng.integers(1, MOST + 1)):
            label = int(rng.choice(list(self.objects)))
            of_class = self.objects[label]
            paste(image, labels, *of_class[int(rng.integers(len(of_class)))], label, rng)
        return image, labels

    @cached_property
    def objects(self):
        """Pixels (3, h, w) and masks (h, w) of the new classes in each lesson: lists by id."""
        found = {}
        for image, labels in (self.lessons[k] for k in range(len(self.lessons))):
            new = labels[(labels >= self.old_count) & (labels != NO_LABEL)]
            for label in new.unique().tolist():
                mask = labels == label
                rows, columns = (mask.any(axis).nonzero() for axis in (1, 0))
                box = np.s_[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                found.setdefault(label, []).append((image[box], mask[box]))
        return found


def paste(image, labels, pixels, mask, label, rng):
    """Paste an object (3, h, w) where its mask (h, w) is true, by chance, on a picture in place."""
    height, width = labels.shape
    factor = np.exp(rng.uniform(*np.log(SCALES)))
    size = [
        min(max(LEAST_PX, round(length * factor)), most)
        for length, most in zip(mask.shape, labels.shape, strict=True)
    ]
    pixels = interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    mask = interpolate(mask[None, None].float(), size, mode="bilinear")[0, 0] > 0.5
    if rng.random() < 0.5:
        pixels, mask = pixels.flip(-1), mask.flip(-1)
    shade = torch.from_numpy(rng.uniform(1 - SHADE, 1 + SHADE, (3, 1, 1)).astype(np.float32))
    bottom = int(rng.integers(max(size[0], int(HIGHEST * height)), height + 1))
    left = int(rng.integers(width - size[1] + 1))
    area = np.s_[..., bottom - size[0] : bottom, left : left + size[1]]
    image[area] = torch.where(mask, pixels * shade, image[area])
    labels[area] = torch.where(mask, label, labels[area])
