"""Scores of pixels and segments: one sign, one name each."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import pred_images
from src import scores
from src.errors import SettingError
from src.MetaSeg import main as stage_2
from src.MetaSeg.metrics import compute_metrics_components, heatmaps

SURE, UNSURE = [8.0, 0.0, 0.0], [1.0, 0.5, 0.5]  # logits: a known thing, a strange one


@pytest.mark.parametrize("name", scores.OF_LOGITS)
def test_a_score_of_logits_is_higher_where_no_class_is_sure(name):
    sure, unsure = scores.OF_LOGITS[name](torch.tensor([SURE, [-value for value in SURE]]))
    assert sure < unsure
    sure, unsure = scores.OF_LOGITS[name](torch.tensor([SURE, [0.25, 0.25, 0.25]]))
    assert sure < unsure or name == "rejected_by_all"  # which asks how many classes want it


def test_rejected_by_all_is_minus_the_sum_of_tanh():
    found = scores.rejected_by_all(torch.tensor([[[0.5, 2.0, 0.0], [0.0, 0.0, 0.0]]]))
    assert_allclose(found, [[-(0.46211716 + 0.96402758), 0]], rtol=1e-6)
    # class scores of mask networks: one query that wants a class, none that does
    wanted, rejected = scores.rejected_by_all(torch.tensor([[0.9, 0.01], [0.02, 0.01]]))
    assert wanted < rejected < 0


def test_max_logit_and_energy_are_what_their_papers_have():
    logits = torch.tensor([[1.0, 3.0]])
    assert_allclose(scores.max_logit(logits), [-3])
    assert_allclose(scores.energy(logits), [-np.log(np.exp(1) + np.exp(3))], rtol=1e-6)


def test_every_score_of_probabilities_is_higher_where_the_network_is_unsure():
    probabilities = torch.tensor([[SURE, UNSURE]]).softmax(-1).numpy()
    iou = np.array([[0.9, 0.2]], np.float32)
    found = scores.of_picture(heatmaps(probabilities), iou, {})
    assert list(found) == ["entropy", "margin", "max_softmax", "predicted_iou"]
    for name, values in found.items():
        assert values[0, 0] < values[0, 1], name
    assert "predicted_iou" not in scores.of_picture(heatmaps(probabilities), None, {})


def test_a_segment_has_the_mean_of_its_inner_pixels_or_of_all_where_there_are_none():
    probabilities = np.zeros((5, 6, 2), np.float32)
    probabilities[:, :5, 0] = probabilities[:, 5, 1] = 1
    own = np.zeros((5, 6))
    own[2, 2], own[0, 4], own[0, 5] = 20, 100, 15  # inside; on both sides of the boundary
    metrics, _ = compute_metrics_components(probabilities, heatmaps={"own": own})
    assert scores.names_in(metrics) == ["entropy", "margin", "max_softmax", "own"]
    assert_allclose(scores.of_segments(metrics, "own"), [20 / 20, 15 / 5])
    with pytest.raises(SettingError, match="no score 'owl' .* entropy, margin, max_softmax, own;"):
        scores.of_segments(metrics, "owl")


def test_stage_1_keeps_the_scores_of_logits_by_their_names():
    words = ["pred_images.py", "with", "args.scores=[entropy]"]
    with pytest.raises(SystemExit, match="one of max_logit, energy, rejected_by_all"):
        pred_images.ex.run_commandline(words)


@pytest.mark.parametrize("name", scores.NAMES)
def test_a_heat_map_of_one_s_own_has_no_name_of_a_score(name, tmp_path):
    words = ["main.py", "with", f"args.heatmaps.{name}={tmp_path}", f"args.io_path={tmp_path}"]
    with pytest.raises(SystemExit, match=f"`args.heatmaps.{name}` has the name of a score: name"):
        stage_2.ex.run_commandline(words)
