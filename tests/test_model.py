"""The segmentation network: keys, filling and logits as recorded, and any width and size."""

import json

import numpy as np
import pytest
import torch

from src.model.deepv3 import DeepWV3Plus

BLOCK = 1 << 18  # elements filled at a time: what fits the processor's cache


def hash_to_unit(size, number, seed):
    """`size` values in (-1, 1), float64, the `number`-th tensor's row of the recorded formula."""
    values = np.empty(size)
    start = (0x9E3779B9 * (number + 1) + 0x85EBCA6B * seed) % 2**32
    for first in range(0, size, BLOCK):
        x = np.arange(first, min(first + BLOCK, size), dtype=np.uint32) + np.uint32(start)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x ^= x >> np.uint32(shift)
            x *= np.uint32(factor)
        x ^= x >> np.uint32(16)
        values[first : first + BLOCK] = (x + 0.5) / 2**31 - 1
    return values


def fill(network, seed, gain, bn_w, bn_b, rm, rv):
    """Give every tensor of the network the value of the recorded formula."""
    state = network.state_dict()
    for number, (key, tensor) in enumerate(state.items()):
        if key.endswith("num_batches_tracked"):
            tensor.zero_()
            continue
        u = hash_to_unit(tensor.numel(), number, seed).reshape(tensor.shape)
        if tensor.ndim > 1:
            u *= gain * np.sqrt(3 / tensor[0].numel())
        elif key.endswith("running_mean"):
            u *= rm
        elif key.endswith("running_var"):
            u = 1 + rv * u
        elif key.endswith("bias"):
            u *= bn_b
        else:
            u = 1 + bn_w * u
        tensor.copy_(torch.from_numpy(u))
    return network


def wave_image(height, width):
    """The recorded input, (1, 3, height, width) float32."""
    c, h, w = np.ogrid[:3, :height, :width]
    waves = np.sin(0.11 * (c + 1) * h + 0.5 * c) + np.cos(0.07 * (c + 1) * w - 0.3 * c)
    return torch.from_numpy(waves[None].astype(np.float32))


@pytest.fixture(scope="module")
def narrow():
    torch.manual_seed(0)
    return DeepWV3Plus(num_classes=5, width=1 / 8).eval()


@pytest.fixture(scope="module")
def facts(reference):
    return reference / "deeplabv3plus"


@pytest.fixture(scope="module")
def filled(facts):
    """The network, filled by the formula; about 0.5 GB at full width."""
    formula = json.loads((facts / "stages_64x128.json").read_text())["formula"]
    assert formula.pop("phase") == 0
    with torch.device("meta"):
        network = DeepWV3Plus(num_classes=19, width=formula.pop("width", 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield fill(network.to_empty(device="cpu").eval(), **formula)
    torch.set_num_threads(threads)


def test_keys_and_shapes_are_those_of_the_published_weights_in_order(facts):
    with torch.device("meta"):
        network = DeepWV3Plus(num_classes=19)
    recorded = json.loads((facts / "keys.json").read_text())
    entries = [
        [key, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for key, tensor in network.state_dict().items()
    ]
    assert entries == recorded["keys"]
    assert sum(p.numel() for p in network.parameters()) == recorded["total_parameters"]


def test_filled_tensors_are_the_recorded_ones(filled, facts):
    recorded = json.loads((facts / "fill_check.json").read_text())
    for key, tensor in filled.state_dict().items():
        values = tensor.flatten()
        assert values[:4].tolist() == pytest.approx(recorded[key]["first"], rel=1e-6), key
        total = values.sum(dtype=torch.float64).item()
        assert total == pytest.approx(recorded[key]["sum"], rel=1e-6, abs=1e-6), key


@torch.inference_mode()
def test_logits_of_a_small_image_are_the_recorded_ones(filled, facts):
    recorded = np.load(facts / "logits_64x128.npz")
    image = wave_image(64, 128)
    np.testing.assert_allclose(image, recorded["input"], atol=1e-6)
    np.testing.assert_allclose(filled(image), recorded["logits"], rtol=0, atol=1e-4)


@torch.inference_mode()
def test_logits_that_need_every_dilation_are_the_recorded_ones(filled, facts):
    recorded = np.load(facts / "logits_384x512_every8.npz")
    logits = filled(wave_image(384, 512))
    every8 = recorded["logits_every8"]
    np.testing.assert_allclose(logits[:, :, ::8, ::8], every8, rtol=0, atol=1e-3)
    assert logits.mean().item() == pytest.approx(recorded["logits_mean"], abs=1e-4)
    assert logits.std().item() == pytest.approx(recorded["logits_std"], abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (97, 13), (64, 128)])
@torch.inference_mode()
def test_any_image_size_gives_logits_of_that_size(narrow, size):
    image = torch.zeros(1, 3, *size)
    assert narrow(image).shape == (1, 5, *size)
    assert narrow.features(image).shape == (1, 48, -(-size[0] // 2), -(-size[1] // 2))


def test_every_parameter_learns_from_one_step():
    torch.manual_seed(0)
    network = DeepWV3Plus(num_classes=5, width=1 / 16)
    logits = network(torch.randn(2, 3, 40, 48))
    torch.nn.functional.cross_entropy(logits, torch.randint(5, (2, 40, 48))).backward()
    silent = [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert silent == []


@torch.inference_mode()
def test_an_untrained_network_gives_logits_of_the_order_of_one():
    torch.manual_seed(0)
    network = DeepWV3Plus(num_classes=5, width=1 / 8)
    assert 0.2 < network(torch.randn(2, 3, 64, 64)).std().item() < 5


def test_building_leaves_plain_dropout_as_it_was():
    before = torch.nn.Dropout, torch.get_default_dtype()
    DeepWV3Plus(num_classes=2, width=1 / 64)
    assert (torch.nn.Dropout, torch.get_default_dtype()) == before


def test_training_drops_whole_channels_in_the_last_two_stages_only(narrow):
    dropouts = {n: m for n, m in narrow.named_modules() if "dropout" in n}
    assert {name: module.p for name, module in dropouts.items()} == {
        "mod6.block1.convs.dropout": 0.3,
        "mod7.block1.convs.dropout": 0.5,
    }
    assert all(isinstance(module, torch.nn.Dropout2d) for module in dropouts.values())
