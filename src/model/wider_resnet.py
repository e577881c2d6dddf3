"""WideResNet-38 (A2 variant): the trunk of DeepLabv3+, at 1/8 of the image's resolution."""

from collections import OrderedDict

from torch import nn


def scaled(channels, width):
    """Number of channels of a layer in a network `width` times as wide; at least 1."""
    return max(1, round(channels * width))


def norm_relu(channels):
    """Batch norm and ReLU as one unit; the ReLU may overwrite what the norm has just made."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def conv3x3(inputs, outputs, stride=1, dilation=1):
    """3x3 convolution without bias that keeps the size of the map, but for the stride."""
    return nn.Conv2d(
        inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


def conv1x1(inputs, outputs, stride=1):
    """1x1 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: two 3x3 convolutions, or a bottleneck of 1x1, 3x3, 1x1.

    Parameters
    ----------
    inputs : int
        Channels of the input.
    channels : sequence of two or three int
        Channels after each convolution; three make a bottleneck.
    stride, dilation : int
        Stride of the first 3x3 convolution, dilation of every 3x3 convolution.
    dropout : float
        Share of the channels dropped before a bottleneck's last convolution while training.
    """

    def __init__(self, inputs, channels, stride=1, dilation=1, dropout=0.0):
        super().__init__()
        self.bn1 = norm_relu(inputs)
        if len(channels) == 2:
            layers = [
                ("conv1", conv3x3(inputs, channels[0], stride, dilation)),
                ("bn2", norm_relu(channels[0])),
                ("conv2", conv3x3(channels[0], channels[1], dilation=dilation)),
            ]
        else:
            layers = [
                ("conv1", conv1x1(inputs, channels[0])),
                ("bn2", norm_relu(channels[0])),
                ("conv2", conv3x3(channels[0], channels[1], stride, dilation)),
                ("bn3", norm_relu(channels[1])),
                ("dropout", nn.Dropout2d(dropout)),
                ("conv3", conv1x1(channels[1], channels[2])),
            ]
        self.convs = nn.Sequential(OrderedDict(layers))
        changes_shape = stride != 1 or inputs != channels[-1]
        self.proj_conv = conv1x1(inputs, channels[-1], stride) if changes_shape else None

    def forward(self, x):
        activated = self.bn1(x)
        shortcut = x if self.proj_conv is None else self.proj_conv(activated)
        return self.convs(activated).add_(shortcut)


def stage(inputs, channels, blocks=1, stride=1, dilation=1, dropout=0.0):
    """`blocks` residual blocks in a row; the first has the stride and changes the channels."""
    first = ResidualBlock(inputs, channels, stride, dilation, dropout)
    others = [ResidualBlock(channels[-1], channels, 1, dilation, dropout) for _ in range(1, blocks)]
    return nn.Sequential(
        OrderedDict((f"block{i}", block) for i, block in enumerate([first, *others], start=1))
    )


class WiderResNet38(nn.Module):
    """The convolutions of WideResNet-38 (A2) with output stride 8, without its classifier.

    Wu, Shen, van den Hengel: Wider or Deeper: Revisiting the ResNet Model for Visual Recognition,
    arXiv 1611.10080; pre-activation blocks, dilation in place of the last strides.

    Parameters
    ----------
    width : float
        Factor on all channel counts but the 3 of the input.
    """

    def __init__(self, width=1.0):
        super().__init__()

        def c(*channels):
            return [scaled(n, width) for n in channels]

        self.mod1 = nn.Sequential(OrderedDict(conv1=conv3x3(3, *c(64))))
        self.pool2 = nn.MaxPool2d(3, stride=2, padding=1)
        self.mod2 = stage(*c(64), c(128, 128), blocks=3)
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1)
        self.mod3 = stage(*c(128), c(256, 256), blocks=3)
        self.mod4 = stage(*c(256), c(512, 512), blocks=6, stride=2)
        self.mod5 = stage(*c(512), c(512, 1024), blocks=3, dilation=2)
        self.mod6 = stage(*c(1024), c(512, 1024, 2048), dilation=4, dropout=0.3)
        self.mod7 = stage(*c(2048), c(1024, 2048, 4096), dilation=4, dropout=0.5)

    def encode(self, images):
        """Fine and deep feature map of a batch.

        Parameters
        ----------
        images : Tensor of shape (N, 3, H, W), float
            RGB, normalised.

        Returns
        -------
        fine : Tensor of shape (N, 128 * width, ceil(H / 2), ceil(W / 2))
        deep : Tensor of shape (N, 4096 * width, ceil(H / 8), ceil(W / 8))
            The sizes are halved step by step, each time rounded up.
        """
        fine = self.mod2(self.pool2(self.mod1(images)))
        deep = self.mod4(self.mod3(self.pool3(fine)))
        return fine, self.mod7(self.mod6(self.mod5(deep)))
