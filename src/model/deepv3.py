"""DeepLabv3+ on WideResNet-38, the segmentation network of the paper, at any width."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from src.model.wider_resnet import WiderResNet38, conv1x1, conv3x3, scaled


def enlarge(maps, size):
    """Bilinear to `size` (height, width), the corner pixels kept in the corners."""
    return interpolate(maps, size=size, mode="bilinear", align_corners=True)


def norm_relu_after(convolution):
    """The convolution, batch norm and ReLU in a row."""
    return nn.Sequential(
        convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)
    )


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: one map seen at five ranges.

    The dilations are the paper's 6, 12, 18 doubled, because the output stride is 8 (Chen et al.,
    arXiv 1802.02611).

    Parameters
    ----------
    inputs, outputs : int
        Channels of the map, channels of each of the five branches.
    """

    def __init__(self, inputs, outputs, dilations=(12, 24, 36)):
        super().__init__()
        convolutions = [conv3x3(inputs, outputs, dilation=dilation) for dilation in dilations]
        self.features = nn.ModuleList(
            norm_relu_after(conv) for conv in [conv1x1(inputs, outputs), *convolutions]
        )
        self.img_conv = norm_relu_after(conv1x1(inputs, outputs))

    def forward(self, x):
        whole = self.img_conv(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return torch.cat([whole, *(branch(x) for branch in self.features)], dim=1)


class DeepWV3Plus(WiderResNet38):
    """DeepLabv3+ with WideResNet-38, output stride 8, 137 million parameters at width 1.

    Chen et al.: Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation,
    arXiv 1802.02611; published Cityscapes weights: Zhu et al., arXiv 1812.01593. A training batch
    has at least two images: batch norm sees one value per image and channel in the image pooling.

    Parameters
    ----------
    num_classes : int
        Channels of the logits.
    width : float
        Factor on all channel counts but the 3 of the input and the `num_classes` of the output.
    """

    decoder_modules = "bot_fine", "bot_aspp", "final"  # what learns further classes

    def __init__(self, num_classes, width=1.0):
        super().__init__(width)
        deep, branch, fine, reduced = (scaled(n, width) for n in (4096, 256, 128, 48))
        self.aspp = AtrousPyramid(deep, branch)
        self.bot_fine = conv1x1(fine, reduced)
        self.bot_aspp = conv1x1(5 * branch, branch)
        self.final = nn.Sequential(
            *norm_relu_after(conv3x3(reduced + branch, branch)),
            *norm_relu_after(conv3x3(branch, branch)),
            conv1x1(branch, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images):
        """Logits of a batch.

        Parameters
        ----------
        images : Tensor of shape (N, 3, H, W), float
            RGB in 0..1, minus mean (0.485, 0.456, 0.406), divided by std (0.229, 0.224, 0.225).

        Returns
        -------
        logits : Tensor of shape (N, num_classes, H, W), in the dtype of `images`
        """
        _, decoded = self._decode(images)
        return enlarge(self.final[-1](decoded), images.shape[2:])

    def features(self, images):
        """A map to tell objects apart by: (N, (128 + 256) * width, ceil(H / 2), ceil(W / 2)).

        The fine map, which keeps the colour and texture of unknown things as well, and the map
        that the last layer classifies.
        """
        fine, decoded = self._decode(images)
        return torch.cat([fine.relu(), decoded], dim=1)

    def _decode(self, images):
        fine, deep = self.encode(images)
        coarse = enlarge(self.bot_aspp(self.aspp(deep)), fine.shape[2:])
        return fine, self.final[:-1](torch.cat([self.bot_fine(fine), coarse], dim=1))
