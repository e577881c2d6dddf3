"""Copies of objects on other pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from src.learning import pasting
from src.learning.pasting import Pasted, paste, vary

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
CARD = SimpleNamespace(classes={0: None, 1: None}, mean=MEAN, std=STD)
GREY, RED = torch.zeros(3, 40, 60), torch.tensor([2.5, -4 / 3, -0.75])[:, None, None]  # 1, 0, 0


def rgb_of(image):
    return image * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def lesson():
    """A red object of class 2, 12 x 10 pixels, on a picture of class 0; a corner has no label."""
    image, labels = GREY.clone(), torch.zeros((40, 60), dtype=torch.int64)
    image[:, 20:32, 30:40], labels[20:32, 30:40] = RED, 2
    labels[0, 0] = 255
    return image, labels


def replayed():
    return GREY.clone(), torch.ones((40, 60), dtype=torch.int64)


def test_labels_go_with_the_copies():
    pictures = Pasted([lesson()], [replayed()], CARD, 20)
    assert len(pictures) == 20
    for image, labels in pictures:
        copies, rgb = labels == 2, rgb_of(image)
        vivid = rgb.amax(0) - rgb.amin(0) > 0.5  # the ground has 0.2, in any hue the red has 1
        assert copies.any()
        assert vivid[copies].float().mean() > 0.8  # at edges colours are mixed
        assert not vivid[~copies].any()
    assert {labels.min().item() for _, labels in pictures} == {0, 1}  # on pictures of both kinds


def test_a_picture_depends_on_seed_epoch_and_number_alone():
    pictures = Pasted([lesson()], [replayed()], CARD, 4)
    again = Pasted([lesson()], [replayed()], CARD, 9)
    for k in (3, 0):
        assert_close(pictures[k], again[k], rtol=0, atol=0)
    assert not torch.equal(pictures[0][1], pictures[1][1])
    assert not torch.equal(Pasted([lesson()], [replayed()], CARD, 4, seed=1)[0][1], pictures[0][1])
    again.set_epoch(1)
    assert not torch.equal(again[0][1], pictures[0][1])


def test_what_is_copied_from_stays_as_it_is():
    source = lesson()
    before = [part.clone() for part in source]
    Pasted([source], [], CARD, 1)[0]
    assert_close(list(source), before, rtol=0, atol=0)


def test_objects_look_otherwise_within_bounds():
    rng, heights, colours = np.random.default_rng(0), [], []
    rgb = torch.tensor([0.9, 0.1, 0.1])[:, None, None].expand(3, 40, 40)
    for _ in range(200):
        seen, mask = vary(rgb, torch.ones(40, 40, dtype=torch.bool), (50, 90), rng)
        heights.append(len(mask.any(1).nonzero()))
        colours.append(seen[:, mask.shape[0] // 2, mask.shape[1] // 2])
        assert seen.shape[1:] == mask.shape and mask.shape[0] <= 50
    assert 19 <= min(heights) <= 22 and max(heights) == 50  # half of 40; turned up to 49; 1.6 times
    assert {int(colour.argmax()) for colour in colours} == {0, 1, 2}  # red, green and blue
    least, most = torch.stack(colours).amax(1).aminmax()
    assert least >= 0.9 * 0.8 and most <= 1


def test_copies_lie_low_and_may_be_cut_by_a_side():
    rng, bottoms, widths = np.random.default_rng(0), [], []
    for _ in range(200):
        image, labels = replayed()
        paste(image, labels, RED.expand(3, 20, 10), torch.ones(20, 10, dtype=torch.bool), 7, rng)
        copies = labels == 7
        assert_close(image[:, copies], RED[:, 0].expand(3, copies.sum()), rtol=0, atol=0)
        bottoms.append(copies.any(1).nonzero().max().item() + 1)
        widths.append(len(copies.any(0).nonzero()))
    assert min(bottoms) == 20 and max(bottoms) == 40  # as high as it is
    assert min(widths) == 5 and max(widths) == 10
    assert pasting.HIGHEST * 40 < 20


def test_an_object_as_large_as_the_picture_fits():
    image, labels = replayed()
    mask = torch.ones(40, 60, dtype=torch.bool)
    paste(image, labels, RED.expand(3, 40, 60), mask, 7, np.random.default_rng(0))
    assert (labels == 7).all(0).sum() >= 30


def test_there_are_no_more_pictures_than_said():
    with pytest.raises(IndexError):
        Pasted([lesson()], [], CARD, 3)[3]
