"""The segmentation networks that torchvision publishes, by name, with their weights."""

import difflib
import hashlib
from http.client import HTTPException
from pathlib import Path

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models, segmentation

from src.errors import SettingError


class Torchvision(nn.Module):
    """A network of torchvision.models.segmentation with its published weights.

    They are taken from torch's cache, which the environment variable TORCH_HOME moves, or
    downloaded into it. Nothing in the file is run.

    Parameters
    ----------
    name : str
        As torchvision calls it, such as "deeplabv3_resnet50".

    Raises
    ------
    SettingError
        If torchvision publishes no such weights, or they can be neither downloaded nor read.
    """

    outputs = "logits"
    has_weights = True

    def __init__(self, name):
        super().__init__()
        published = _published(name)
        self.network = get_model(
            name, weights=None, weights_backbone=None, num_classes=len(published.meta["categories"])
        )
        state = _read(published, name)
        used = {key: t for key, t in state.items() if not key.startswith("aux_classifier.")}
        self.network.load_state_dict(used)

    def forward(self, images):
        """Logits (N, C, H, W) of images (N, 3, H, W) float32."""
        return self.network(images)["out"]

    @staticmethod
    def describe(name):
        """Classes, mean and std of the published weights: a dict; a SettingError as above.

        There is no "size": these networks take any, and pictures keep theirs.
        """
        published = _published(name)
        transforms = published.transforms()
        return {
            "classes": list(published.meta["categories"]),
            "mean": tuple(transforms.mean),
            "std": tuple(transforms.std),
            "from": (
                f"torchvision's {published}; published for pictures whose shorter side has "
                f"{transforms.resize_size[0]} pixels, given them at their own size"
            ),
        }


def _published(name):
    """The default weights of a network by its name."""
    names = list_models(module=segmentation)
    if name in names:
        return get_model_weights(name).DEFAULT
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise SettingError(
        f"torchvision publishes no weights of a segmentation network {name!r}.{hint} "
        f"It does of: {', '.join(names)}; weights of your own need an entry with `model_weights` "
        "in configuration.py"
    )


def _read(published, name):
    """The state dict of published weights, downloaded where they are not there yet."""
    file = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
    begins = file.stem.rpartition("-")[2]  # the SHA-256, as the name says
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(published.url, str(file), begins, progress=False)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, HTTPException, RuntimeError) as error:
        raise SettingError(
            f"the weights of torchvision's {name!r} could not be downloaded or read ({error}): "
            f"fetch {published.url} where that is possible and put the file {file.name} into "
            f"{file.parent}, or use an entry with `model_weights` in configuration.py"
        ) from error
    if not digest.startswith(begins):
        raise SettingError(
            f"{file} is damaged or something else: the SHA-256 of the weights of torchvision's "
            f"{name!r} begins with {begins}, that of the file with {digest[:8]}; delete it"
        )
    return torch.load(file, map_location="cpu", weights_only=True)
