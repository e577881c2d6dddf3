"""The paper's network from standardised segment metrics to the logit of the IoU."""

from torch import nn


class MetaNN(nn.Module):
    """Fully connected network with layers of 50, 40, 30, 20, 10 and 1 values, ReLU between them.

    Parameters
    ----------
    input_size : int
        Number of features of a segment.
    """

    def __init__(self, input_size):
        super().__init__()
        sizes = [input_size, 50, 40, 30, 20, 10]
        layers = []
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, features):
        """Logits (N, 1) of the IoU from standardised features (N, input_size)."""
        return self.layers(features)
