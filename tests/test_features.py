"""Features of segmentation networks that offer none of their own."""

from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import interpolate

from src.errors import SettingError
from src.model.deepv3 import DeepWV3Plus
from src.segmentation.class_maps import RawOutput
from src.segmentation.features import features_of


@pytest.fixture(autouse=True)
def inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


class Small(nn.Module):
    """Stride 4, six features, three classes; further layers have three channels too."""

    def __init__(self, last, ends=()):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.ReLU())
        self.last, self.end = last, nn.Sequential(*ends)
        self.aux = nn.Conv2d(6, 3, 1)

    def forward(self, images):
        self.seen = self.body(self.stem(images))
        logits = interpolate(self.end(self.last(self.seen)), images.shape[2:], mode="bilinear")
        return {"out": logits, "aux": self.aux(-self.seen)}


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize(
    ("last", "ends"),
    [
        (partial(nn.Conv2d, 6, 3, 1), []),
        (partial(nn.Conv2d, 6, 3, 3, padding=1), [nn.Softmax(1)]),
        (partial(nn.ConvTranspose2d, 6, 3, 2, stride=2), []),
    ],
)
def test_the_features_are_what_the_last_layer_of_the_main_output_is_given(last, ends, classes):
    network = Small(last(), ends)
    features = features_of(network, torch.randn(1, 3, 32, 48), classes)
    torch.testing.assert_close(features, network.seen)
    assert features.shape == (1, 6, 8, 12)


class Tokens(nn.Module):
    """Patches of 4 x 4 pixels as tokens, and so many more in front of them."""

    def __init__(self, more=0, width=16):
        super().__init__()
        self.patches, self.last = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 5)
        self.more, self.width = more, width

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.new_zeros(1, self.more, 6), tokens], dim=1)
        logits = self.last(tokens)[:, self.more :].transpose(1, 2)
        maps = logits.unflatten(2, (-1, self.width // 4))
        return interpolate(maps, images.shape[2:], mode="bilinear")


def test_tokens_become_a_map_where_squares_on_the_image_are_as_many():
    network, images = Tokens(), torch.randn(1, 3, 24, 16)
    torch.testing.assert_close(features_of(network, images), network.patches(images))


def test_tokens_that_are_no_grid_are_refused_with_what_to_do():
    message = r"the last layer of Tokens gives \(1, 25, 5\) for \(24, 16\) pixels.*`features\(im"
    with pytest.raises(SettingError, match=message):
        features_of(Tokens(more=1), torch.randn(1, 3, 24, 16))


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 4)

    def forward(self, images):
        return self.last(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_linear_layer_over_a_map_of_features_is_a_last_layer_too():
    images = torch.randn(1, 3, 6, 5)
    torch.testing.assert_close(features_of(ChannelsLast(), images), images)


class Plain(nn.Module):
    def forward(self, images):
        return images[:, :2]


def test_without_such_a_layer_the_class_values_are_the_features_which_is_said_once(caplog):
    network, images = Plain(), torch.randn(1, 3, 4, 4)
    for _ in range(2):
        torch.testing.assert_close(features_of(network, images), images[:, :2])
    (message,) = caplog.messages
    assert message.startswith("Plain has neither a method `features` nor a last layer")


def test_a_network_of_its_own_features_is_asked_and_a_raw_output_is_its_own():
    network, images = DeepWV3Plus(num_classes=3, width=1 / 64).eval(), torch.randn(1, 3, 32, 40)
    torch.testing.assert_close(features_of(network, images, 3), network.features(images))
    raw = RawOutput(torch.randn(2, 3, 4), (12, 16))
    torch.testing.assert_close(features_of(network, raw), raw.tensor[None])


def test_layers_are_left_as_they_were():
    network = Small(nn.Conv2d(6, 3, 1))
    features_of(network, torch.randn(1, 3, 32, 48), 3)
    assert not any(module._forward_hooks for module in network.modules())


def test_features_of_networks_of_torchvision_are_those_of_their_main_head():
    build = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large
    network = build(weights=None, weights_backbone=None, num_classes=4, aux_loss=True).eval()
    images = torch.randn(1, 3, 64, 96)
    features = features_of(network, images, 4)
    expected = nn.Sequential(*[*network.classifier][:-1])(network.backbone(images)["out"])
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_features_of_networks_of_smp_are_those_of_their_decoder():
    smp = pytest.importorskip("segmentation_models_pytorch")
    network = smp.Unet("resnet18", encoder_weights=None, classes=5).eval()
    images = torch.randn(1, 3, 32, 64)
    expected = network.decoder(network.encoder(images))
    np.testing.assert_allclose(features_of(network, images, 5), expected, atol=1e-6)
