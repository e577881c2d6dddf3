"""Copies of objects on other pictures."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from src.learning import pasting
from src.learning.pasting import Pasted, paste

GREY, RED = torch.full((3, 40, 60), 0.5), torch.tensor([9.0, 0, 0])[:, None, None]


def lesson():
    """A red object of class 2, 12 x 10 pixels, on a picture of class 0; a corner has no label."""
    image, labels = GREY.clone(), torch.zeros((40, 60), dtype=torch.int64)
    image[:, 20:32, 30:40], labels[20:32, 30:40] = RED, 2
    labels[0, 0] = 255
    return image, labels


def replayed():
    return GREY.clone(), torch.ones((40, 60), dtype=torch.int64)


def test_labels_go_with_the_copies():
    pictures = Pasted([lesson()], [replayed()], 2, 20)
    assert len(pictures) == 20
    for image, labels in pictures:
        copies = labels == 2
        assert copies.any()
        assert (image[0][copies] > 5).float().mean() > 0.8  # at edges colours are mixed
        assert (image[0][~copies] < 1).all()
    assert {labels.min().item() for _, labels in pictures} == {0, 1}  # on pictures of both kinds


def test_a_picture_depends_on_the_seed_and_its_number_alone():
    pictures = Pasted([lesson()], [replayed()], 2, 4)
    again = Pasted([lesson()], [replayed()], 2, 9)
    for k in (3, 0):
        assert_close(pictures[k], again[k], rtol=0, atol=0)
    assert not torch.equal(pictures[0][1], pictures[1][1])
    assert not torch.equal(Pasted([lesson()], [replayed()], 2, 4, seed=1)[0][1], pictures[0][1])


def test_what_is_copied_from_stays_as_it_is():
    source = lesson()
    before = [part.clone() for part in source]
    Pasted([source], [], 2, 1)[0]
    assert_close(list(source), before, rtol=0, atol=0)


def test_sizes_and_places_stay_in_their_bounds():
    rng, heights, bottoms = np.random.default_rng(0), [], []
    for _ in range(200):
        image, labels = replayed()
        paste(image, labels, RED.expand(3, 20, 10), torch.ones(20, 10, dtype=torch.bool), 7, rng)
        rows = (labels == 7).any(1).nonzero()
        heights.append(len(rows))
        bottoms.append(rows[-1].item() + 1)
    assert (min(heights), max(heights)) == (10, 32)  # 0.5 and 1.6 times 20
    assert min(bottoms) >= pasting.HIGHEST * 40 and max(bottoms) == 40


def test_an_object_larger_than_the_picture_is_made_to_fit():
    image, labels = replayed()
    mask = torch.ones(200, 300, dtype=torch.bool)
    paste(image, labels, RED.expand(3, 200, 300), mask, 7, np.random.default_rng(0))
    assert (labels == 7).all()


def test_there_are_no_more_pictures_than_said():
    with pytest.raises(IndexError):
        Pasted([lesson()], [], 2, 3)[3]
