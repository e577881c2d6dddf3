"""Logits or probabilities: by range and sums, for arrays and tensors alike."""

import numpy as np
import pytest
import torch

from src.model.outputs import kind_by, kind_of


@pytest.mark.parametrize("make", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        ([[0.25, 0.75], [1.0, 0.0]], "probabilities"),
        ([[0.25, 0.75], [2.0, -1.0]], "logits"),  # they sum to 1, outside of [0, 1]
        ([[3.0, 5.0], [0.0, 1.0]], "logits"),
        ([[-0.1, -2.4], [-1.0, -0.5]], "logits"),  # logarithms of probabilities
        ([[0.9, 0.9], [0.1, 0.2]], None),  # of sigmoids
    ],
)
def test_range_and_sums_tell_logits_from_probabilities(make, pixels, kind):
    values = make(pixels)
    assert kind_of(values, 1) == kind_of(values.T, 0) == kind


def test_probabilities_of_half_precision_stay_probabilities():
    torch.manual_seed(0)
    values = (3 * torch.randn(1, 19, 20, 30)).softmax(1)
    for dtype in (torch.float16, torch.bfloat16):
        assert kind_of(values.to(dtype), 1) == "probabilities"
    assert kind_of(values.half().numpy().astype(np.float32), 1) == "probabilities"


def test_values_that_are_no_numbers_are_never_probabilities():
    assert kind_by(float("nan"), 1.0, 0.0) == "logits"
