"""Networks from standardised segment metrics to IoU: the paper's, and boosted trees as arrays."""

import torch
from torch import nn

BLOCK_ROWS = 4096  # segments that go down all trees at once


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


class Trees(nn.Module):
    """Boosted regression trees: a start value plus that of one leaf of each of T trees.

    The M nodes of all trees are numbered through; both children of a leaf are the leaf itself.
    Being arrays only, such a model is stored and loaded like the weights of a network.

    Parameters
    ----------
    roots : Tensor of shape (T,), int64
        Node that each tree begins with.
    feature, left, right : Tensor of shape (M,), int64
        Feature that a node asks for, and the nodes that follow.
    threshold, value : Tensor of shape (M,), float64
        Features up to the threshold go left; what a leaf adds.
    start, depth : Tensor of shape ()
        Start value; steps from a root to the lowest leaf.
    """

    def __init__(self, *, roots, feature, threshold, left, right, value, start, depth):
        super().__init__()
        self.register_buffer("roots", roots)
        self.register_buffer("feature", feature)
        self.register_buffer("threshold", threshold)
        self.register_buffer("left", left)
        self.register_buffer("right", right)
        self.register_buffer("value", value)
        self.register_buffer("start", start)
        self.register_buffer("depth", depth)

    def forward(self, features):
        """Values (N, 1), float64, from standardised features (N, F)."""
        return torch.cat([self._add_leaves(block) for block in features.split(BLOCK_ROWS)])

    def _add_leaves(self, features):
        node = self.roots.expand(len(features), -1)
        for _ in range(int(self.depth)):
            goes_left = features.gather(1, self.feature[node]) <= self.threshold[node]
            node = torch.where(goes_left, self.left[node], self.right[node])
        return self.start + self.value[node].sum(dim=1, keepdim=True)
