"""Scores that learn from normal pictures: by hand, and through stage 1."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image

import pred_images
from src import scores
from src.segmentation import fitting
from src.store import arrays
from src.store.paths import Results
from src.store.weights import read_torch, write_torch

CENTRES = torch.stack(
    torch.meshgrid((torch.arange(12) + 0.5) / 12, (torch.arange(16) + 0.5) / 16, indexing="ij"), -1
)


def test_the_max_logit_is_standardised_within_its_class():
    logits = torch.tensor([[12.0, 0], [10, 0]] * 50 + [[0, 3]] * 2)  # two are too few
    state = scores.StandardisedMaxLogit.fit(logits, None)
    std = np.sqrt(100 / 99)  # of 10 and 12, fifty of each
    every = torch.tensor([-12.0, -10] * 50 + [-3, -3])
    assert_allclose(state["mean"], [-11, every.mean()], rtol=1e-6)
    assert_allclose(state["std"], [std, every.std()], rtol=1e-6)
    found = scores.StandardisedMaxLogit.score(torch.tensor([[[9.0, 0], [11, 0]]]), None, **state)
    assert_allclose(found, [[(11 - 9) / std, 0]], rtol=1e-5)


def test_nearest_logits_is_one_minus_the_mean_cosine_of_the_three_nearest():
    references = torch.tensor([[1.0, 0], [0, 1]])
    logits = torch.tensor([[[9.0, 0], [0, 0.1], [2, 2], [-3, -4]]])
    found = scores.NearestLogits.score(logits, None, references)
    assert_allclose(found, [[0.5, 0.5, 1 - np.sqrt(0.5), 1 + 0.7]], atol=1e-6)  # of two, the mean
    references = torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8], [-1, 0]])
    found = scores.NearestLogits.score(logits, None, references)  # of four, the nearest three
    means = np.array([1 + 0.6 + 0, 1 + 0.8 + 0, 1.4 / np.sqrt(2) + 2 / np.sqrt(2), 0.6 - 0.6 - 0.8])
    assert_allclose(found, [1 - means / 3], atol=1e-6)


def test_nearest_logits_keeps_directions_of_normal_pixels():
    normal = torch.tensor([[5.0, 0, 1], [0, 2, 0]]).repeat_interleave(1500, 0)
    normal *= torch.linspace(0.5, 2, len(normal))[:, None]  # lengths do not matter
    state = scores.NearestLogits.fit(normal, None)
    assert state["references"].shape == (2000, 3)
    assert_allclose(scores.NearestLogits.score(normal, None, **state), 0, atol=1e-6)
    found = scores.NearestLogits.score(torch.tensor([[0.0, 0, 1]]), None, **state)
    assert_allclose(found, 1 - 1 / np.sqrt(26), rtol=1e-5)


def test_one_in_ten_normal_pixels_exceeds_the_limit():
    angles = torch.linspace(0, 1, 3000)[torch.randperm(3000)]
    normal = torch.stack([angles.cos(), angles.sin()], -1)
    fitted = {"nearest_logits": {"references": torch.tensor([[1.0, 0]])}}  # 1 - cosine of the angle
    assert_allclose(scores.limit_of(normal, None, fitted), 1 - np.cos(0.9), rtol=1e-3)


def test_a_class_is_out_of_place_where_normal_pictures_never_have_it():
    above = (CENTRES[..., 0] < 0.5).flatten()
    normal = torch.where(above[:, None], torch.tensor([40.0, 0]), torch.tensor([0, 40.0]))
    state = scores.OutOfPlace.fit(normal, CENTRES.flatten(0, 1))
    assert state["shares"].shape == (2, 12, 16)
    found = scores.OutOfPlace.score(torch.tensor([40.0, 0]).expand(12, 16, 2), CENTRES, **state)
    # far from where it changes; neighbouring fields count too
    assert_allclose(found[:3], -np.log(1.002 / 1.004), rtol=1e-3)
    assert_allclose(found[9:], -np.log(0.002 / 1.004), rtol=1e-3)
    assert (found[:-1] < found[1:] + 1e-6).all()  # further down it is stranger


def test_combined_is_the_mean_of_its_standardised_parts():
    state = {
        "nearest_logits.references": torch.tensor([[1.0, 0]]),
        "out_of_place.shares": torch.full((2, 12, 16), 0.5),
        "mean": torch.tensor([-1.0, 0.5, 0]),
        "std": torch.tensor([2.0, 0.25, 1]),
    }
    logits = torch.zeros(12, 16, 2) + torch.tensor([0.0, 1000])
    found = scores.Combined.score(logits, CENTRES, **state)
    parts = (-1000 + 1) / 2, (1 - 0.5) / 0.25, np.log(2)
    assert_allclose(found, np.mean(parts), rtol=1e-5)


def test_combined_is_standardised_on_the_pixels_that_it_is_fitted_to():
    rng = torch.Generator().manual_seed(0)
    logits, places = torch.randn(2000, 3, generator=rng) * 4, torch.rand(2000, 2, generator=rng)
    state = scores.Combined.fit(logits, places)
    own = {key: state[key] for key in state if "." in key}
    parts = scores.Combined._parts(logits, places, own)
    assert_allclose(((parts - state["mean"]) / state["std"]).mean(0), 0, atol=1e-5)
    assert_allclose(parts[:, 0], scores.energy(logits))


def test_smoothing_is_a_gaussian_and_goes_on_beyond_the_edge():
    spike = torch.zeros(9, 11)
    spike[4, 5] = 1
    found = scores._smoothed(spike, 1.0)
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    weights /= weights.sum()
    assert_allclose(found[1:8, 2:9], np.outer(weights, weights), rtol=1e-5)
    assert_allclose(found.sum(), 1, rtol=1e-5)
    assert_allclose(scores._smoothed(torch.full((2, 3), 7.0), 1.0), 7, rtol=1e-6)


def test_a_large_picture_is_looked_at_in_steps_and_scored_at_every_pixel():
    logits = torch.zeros(500, 601, 2)
    logits[..., 0] = 1  # normal; and a strange half
    logits[:, 300:] = torch.tensor([0.0, 1])
    fitted = {"nearest_logits": {"references": torch.tensor([[1.0, 0]])}}
    found = scores.of_logits("nearest_logits", logits, fitted)
    assert found.shape == (500, 601)
    assert_allclose(found[:, :296], 0, atol=1e-6)
    assert_allclose(found[:, 304:], 1, atol=1e-6)


# through stage 1


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures, one of predictions of them, and a function that runs stage 1."""
    rng = np.random.default_rng(0)
    photos, logits = tmp_path / "photos", tmp_path / "net"
    photos.mkdir(), logits.mkdir()
    for name in "abc":
        Image.new("RGB", (24, 16)).save(photos / f"{name}.png")
        np.save(logits / f"{name}.npy", rng.normal(0, 4, (3, 16, 24)).astype(np.float32))
    (logits / "classes.json").write_text(json.dumps({"classes": ["road", "sky", "car"]}))

    def run(*words):
        own = f"args.dataset={photos}", f"args.model_name=predictions/{logits}"
        own = *own, f"args.io_path={tmp_path / 'results'}", "args.num_cores=1", "args.gpu=None"
        pred_images.ex.run_commandline(["pred_images.py", "with", *own, *words])
        (folder,) = (tmp_path / "results" / "scores").iterdir()
        return Results(tmp_path / "results", folder.name, "photos")

    return run


def test_a_score_that_learns_is_refused_before_it_has_learnt(pictures):
    with pytest.raises(SystemExit, match="fitted_scores.pth is missing; .* args.fit_scores=True"):
        pictures("args.scores=[combined]")


def test_stage_1_keeps_what_the_fitted_scores_say(pictures, tmp_path):
    pictures("args.fit_scores=True")
    results = pictures(f"args.scores=[{','.join(scores.FITTED)}]")
    kept = arrays.read_prediction(results.prediction(1)).scores
    assert set(kept) == set(scores.FITTED)
    logits = torch.from_numpy(np.load(tmp_path / "net" / "b.npy")).permute(1, 2, 0)
    fitted = fitting.read(results.fitted_scores)["fitted"]
    for name, values in kept.items():
        expected = scores.of_logits(name, logits, fitted)
        assert_allclose(values, expected, rtol=1e-3, atol=1e-3, err_msg=name)


def test_scores_are_fitted_once_and_anew_for_other_pictures(pictures):
    path = pictures("args.fit_scores=True").fitted_scores
    first = path.stat().st_mtime_ns
    pictures("args.fit_scores=True")
    assert path.stat().st_mtime_ns == first
    results = pictures("args.scores=[combined]")
    predicted = results.prediction(0).stat().st_mtime_ns
    pictures("args.scores=[combined]")
    assert results.prediction(0).stat().st_mtime_ns == predicted
    pictures("args.fit_scores=True", "args.num_images=2")
    assert read_torch(path)["made_from"]["pictures"] == [0, 1]
    pictures("args.scores=[combined]")  # what was kept is of another fit
    assert results.prediction(0).stat().st_mtime_ns > predicted


def test_scores_that_were_fitted_for_another_network_are_refused(pictures):
    path = pictures("args.fit_scores=True").fitted_scores
    content = read_torch(path)
    content["made_from"]["network"]["weights"] = "other"
    write_torch(path, content)
    with pytest.raises(SystemExit, match=r"fitted for another network \(other network.weights\)"):
        pictures("args.scores=[combined]")
    path.write_bytes(b"broken")
    with pytest.raises(SystemExit, match="is broken or of another version"):
        pictures("args.scores=[combined]")


def test_a_dry_run_fits_nothing(pictures, tmp_path):
    with pytest.raises(FileNotFoundError):  # no folder of scores was made
        pictures("args.fit_scores=True", "args.dry_run=True")
    assert not (tmp_path / "results" / "scores").exists()
