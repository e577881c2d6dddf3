"""Networks that turn pictures of segments into feature vectors, in batches."""

import difflib
import logging
import operator
import re
import textwrap
from collections import OrderedDict, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from scipy import ndimage
from torch import nn

from src import registry
from src.datasets import IMAGENET_MEAN, IMAGENET_STD
from src.errors import SettingError, reason_of
from src.run.settings import SIZE
from src.segmentation.class_maps import RawOutput, fit_input
from src.segmentation.features import features_of
from src.segmentation.inference import Computing, device_of
from src.store.provenance import identity
from src.store.weights import load_weights, read_state

_log = logging.getLogger(__name__)
_HEADS = ("avgpool", "classifier", "fc", "head", "heads")  # what follows the last feature map
_OLD_DENSE_KEY = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True)
class EmbeddingNetwork:
    """A network without its head, and what it wants its crops to be."""

    module: nn.Module  # (N, 3, h, w) normalised -> (N, F), or (N, F, h', w') to be averaged
    mean: tuple  # of red, green and blue in 0..1
    std: tuple
    crop_size: tuple | None  # (height, width) in pixels that every crop is scaled to; None: as is
    min_size: tuple  # (height, width) in pixels; smaller crops are enlarged, their shape kept
    device: torch.device


def choose_entry(entries, name):
    """Entry of an embedding network by its name; those of torchvision, timm and hf/ need none.

    The name is one of `entries`, those of the configuration, at least one; a classification network
    of `torchvision.models`, whose default weights are chosen; "timm/" and a name of
    `timm.list_models()`, with its published weights; or "hf/" and the folder or name on
    huggingface.co of a network that reads words too. Another is a SettingError.
    """
    name, weights_file = str(name), None
    if name in entries:
        return entries[name]
    package, _, which = name.partition("/")
    if package == "timm" and which:
        module_name, class_name, kwargs = "timm", which, {}
    elif package == "hf" and which:
        folder = Path(which).expanduser().absolute()
        weights_file = folder if folder.is_dir() else None
        kwargs = {"name": str(weights_file or which)}
        module_name, class_name = "src.model.clip", "Clip"
    elif name in _torchvision_names():
        weights = torchvision.models.get_model_weights(name).DEFAULT.name
        module_name, class_name, kwargs = "torchvision.models", name, {"weights": weights}
    else:
        try:
            return registry.choose(entries, name, "embedding network")
        except SettingError as error:
            others = (
                "torchvision's classification networks, timm/<name> and hf/<name or folder> need "
                "no entry"
            )
            raise SettingError(f"{error}; {others}") from None
    return next(iter(entries.values()))._replace(
        name=name,
        module_name=module_name,
        class_name=class_name,
        kwargs=kwargs,
        model_weights=weights_file,
    )


def load_embedding_network(entry, device, crop_size=None):
    """Build the feature network of an entry, with its weights.

    Parameters
    ----------
    entry : ModelConfig
        Which kind it is, its `module_name` says:

        - "torchvision.models", with the name of a classification network as `class_name` and
          kwargs such as {"weights": "IMAGENET1K_V1"}. The vector is the mean of the last feature
          map: 512 values for vgg16 and resnet18, 2048 for the larger ResNets, 1920 for densenet201
          (the map as the last norm leaves it; torchvision's classifier would put a ReLU behind).
          Of a vision transformer it is what the head sees.
        - "timm", with a name of `timm.list_models()` as `class_name` and kwargs of
          `timm.create_model`; the vector is what `num_classes=0` gives.
        - Any other is your own: a module whose output is (N, F), or (N, F, h, w) to be averaged.
          Attributes `mean` and `std` (3 numbers; ImageNet's if missing) and `crop_size`
          ((height, width) in pixels, where it takes no other) are heeded, and `has_weights`: True
          where it comes filled. `context` of the class, see `pictures.crop`, lets it see more than
          the box.

        `model_weights`: a file to read (see `weights.read_state`); None: torchvision and timm
        download the published weights on first use, your own class sees to it itself.
    device : torch.device
    crop_size : (int, int), optional
        Height and width in pixels that every crop is to be scaled to. None: what the network
        needs, and where it needs nothing, crops stay as they are.

    Returns
    -------
    network : EmbeddingNetwork
        In evaluation mode, on `device`.

    Raises
    ------
    SettingError
        If the weights can be neither downloaded nor read (says which file to put where), the
        network or its package does not exist, or it takes another size of crops only.
    """
    build = _BUILDERS.get(entry.module_name, _own_network)
    module, mean, std, own_size, min_size = build(entry)
    if build is not _own_network:  # whose code may want its maps as usual
        module = module.to(memory_format=torch.channels_last)  # faster
    return EmbeddingNetwork(
        module=module.eval().to(device),
        mean=_colour(mean, "mean", entry),
        std=_colour(std, "std", entry),
        crop_size=_crop_size(crop_size, own_size, min_size, entry),
        min_size=min_size,
        device=device,
    )


def context_of(entry):
    """How much of what is around a box the network of an entry sees, see `pictures.crop`."""
    if entry.module_name in _BUILDERS:
        return 0.0
    return getattr(registry.find_class(entry), "context", 0.0)


def reads_words(entry):
    """Whether the network of an entry reads words: its class says so, before it is built."""
    own = entry.module_name not in _BUILDERS
    return own and hasattr(registry.find_class(entry), "encode_text")


def embed_stream(network, pictures, batch_size):
    """Feature vectors of crops; those of one picture and size go through the network together.

    Those of several pictures never do: the last bits of a vector depend on how many it is computed
    with, and a run may be cut between any two pictures. Nothing is padded, scaled or cut, unless
    the network has a `crop_size` or a crop is smaller than its `min_size`.

    Parameters
    ----------
    network : EmbeddingNetwork
    pictures : iterable of (key, list of ndarray of shape (h, w, 3), uint8)
        Crops of each picture, at least one: RGB, of any sizes.
    batch_size : int
        Most crops at a time, from 1.

    Yields
    ------
    key : object
        In the order in which they came.
    vectors : ndarray of shape (n, F), float32
        As the network gives them: what is NaN or infinite stays.

    Raises
    ------
    ValueError
        If a crop is no array of such a kind.
    SettingError
        If the network gives something else than vectors or feature maps.
    """
    with _threads(network.device) as (pool, count):
        begun = deque()
        try:
            for key, crops in pictures:
                rows, batches = _batches(network, crops, batch_size)
                futures = [pool.submit(_embed_batch, network, batch) for batch in batches]
                begun.append((key, rows, futures))
                if len(begun) > count:
                    yield _embedded(*begun.popleft())
            while begun:
                yield _embedded(*begun.popleft())
        except GeneratorExit:
            raise
        except BaseException:  # an interrupt, say: nothing that is computed is lost
            for key, rows, futures in begun:
                if all(future.exception() is None for future in futures):
                    yield _embedded(key, rows, futures)
            raise


def _embedded(key, rows, futures):
    """A picture's key, and its vectors in the order of its crops."""
    return key, np.concatenate([future.result() for future in futures])[np.argsort(rows)]


@torch.inference_mode()
def segment_features(network, image, components, chosen, computing=None):
    """Features of the segmentation network itself, averaged over each chosen segment's pixels.

    The same as enlarging the feature map to the image, bilinearly with the corner pixels kept in
    the corners, and taking the mean over the segment, its boundary included. The enlargement is
    linear, so the mean's weights go down to the cells of the feature map instead; memory beside
    the feature map: one (h, w) map a chosen segment.

    Parameters
    ----------
    network : torch.nn.Module
    image : Tensor of shape (3, H, W), float32, or RawOutput
        Normalised as the network wants it; or what it gave, see `features_of`.
    components : ndarray of shape (H, W), int32
        Segment number from 1; negative on the segment's own boundary.
    chosen : sequence of n int
        Segment numbers.
    computing : Computing, optional
        Its `size`, `multiple_of` and `classes` are heeded, as where the classes are predicted.

    Returns
    -------
    features : ndarray of shape (n, F), float32
        In the order of `chosen`.

    Raises
    ------
    SettingError
        If the network has no such features, see `features_of`.
    ValueError
        If the sizes differ or a chosen segment does not exist.
    """
    computing = computing or Computing()
    is_raw = isinstance(image, RawOutput)
    size = tuple(image.size if is_raw else image.shape[1:])
    if size != components.shape:
        raise ValueError(f"`components` must be of the image's size {size}, got {components.shape}")
    inputs, shares = image, (1, 1)
    if not is_raw:
        images = image[None].to(device_of(network, image))
        inputs, inside = fit_input(images, computing.size, computing.multiple_of)
        shares = [(a - 1) / max(b - 1, 1) for a, b in zip(inside, inputs.shape[2:], strict=True)]
    maps = features_of(network, inputs, computing.classes)[0].float()
    weights = torch.from_numpy(_cell_weights(components, chosen, maps.shape[1:], shares))
    return (weights.to(maps.device).flatten(1) @ maps.flatten(1).T).cpu().numpy()


def _cell_weights(components, chosen, size, shares):
    """Share of each cell of the feature map in the mean over each segment: (n, h, w) float32.

    The components lie in the upper left corner of what the map shows, and take such `shares` of its
    height and width, from the middle of the first pixel to that of the last.
    """
    numbers = np.abs(components)
    boxes = ndimage.find_objects(numbers)
    row_shares, column_shares = map(_linear_shares, numbers.shape, size, shares)
    weights = np.empty((len(chosen), *size), np.float32)
    for weight, k in zip(weights, chosen, strict=True):
        if not 1 <= k <= len(boxes) or boxes[k - 1] is None:
            raise ValueError(f"`chosen` must name segments of `components`, got {k}")
        rows, columns = boxes[k - 1]
        inside = (numbers[rows, columns] == k).astype(np.float32)
        weight[:] = row_shares[rows].T @ inside @ column_shares[columns] / inside.sum()
    return weights


def _linear_shares(pixels, cells, share):
    """Linear enlargement from that share of `cells` to `pixels`, the ends kept: float32.

    Of shape (pixels, cells).
    """
    position = np.linspace(0, share * (cells - 1), pixels)  # one pixel: the first cell
    distance = np.abs(position[:, None] - np.arange(cells))
    return np.maximum(0, 1 - distance).astype(np.float32)


@contextmanager
def _threads(device):
    """Threads that embed batches, and their number.

    On a CPU each computes by itself: a crop on every core is faster than every core on a crop. Of
    two on a GPU one hands it the next batch while the other waits for its vectors.
    """
    cores = torch.get_num_threads()
    on_cpu = device.type == "cpu"
    alone = dict(initializer=torch.set_num_threads, initargs=(1,)) if on_cpu else {}
    pool = ThreadPoolExecutor(cores if on_cpu else 2, **alone)
    try:
        yield pool, cores if on_cpu else 2
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # the threads set what later ones begin with


@torch.inference_mode()
def _embed_batch(network, crops):
    """Vectors (n, F) float32 of n crops of one size."""
    mean, std = (
        torch.tensor(values, device=network.device)[:, None, None]
        for values in (network.mean, network.std)
    )
    pixels = torch.from_numpy(np.stack(crops)).to(network.device)
    images = pixels.permute(0, 3, 1, 2).float().contiguous().div_(255).sub_(mean).div_(std)
    features = network.module(images)
    if features.ndim not in (2, 4) or len(features) != len(crops):
        raise SettingError(
            "an embedding network must give (N, F) or (N, F, h, w), got "
            f"{tuple(features.shape)} for images {tuple(images.shape)}"
        )
    return _average(features).float().cpu().numpy()


def _batches(network, crops, batch_size):
    """Lists of crops of one size, and the number of each crop among those that came."""
    numbers = defaultdict(list)
    crops = [_fit(crop, network) for crop in crops]
    for number, crop in enumerate(crops):
        numbers[crop.shape].append(number)
    parts = [
        same[start : start + batch_size]
        for same in numbers.values()
        for start in range(0, len(same), batch_size)
    ]
    return sum(parts, []), [[crops[number] for number in part] for part in parts]


def _average(features):
    """Mean of feature maps (N, F, h, w); vectors (N, F) stay."""
    return features.mean((2, 3)) if features.ndim == 4 else features


def _fit(crop, network):
    """The one place where crops are scaled: to the one size of a network, or up to its least."""
    if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3:
        raise ValueError(f"a crop must be (h, w, 3) uint8, got {crop.shape} {crop.dtype}")
    size = crop.shape[:2]
    factor = max(1, *(least / length for least, length in zip(network.min_size, size, strict=True)))
    wanted = network.crop_size or tuple(round(factor * length) for length in size)
    if wanted == size:
        return crop
    return np.asarray(Image.fromarray(crop).resize(wanted[::-1], Image.Resampling.BICUBIC))


def _crop_size(wanted, own, least, entry):
    """Size of all crops: the user's, or the network's own; None: any."""
    name = f"embedding network {entry.name!r}"
    own = None if own is None else _size(own, f"`crop_size` of {name}")
    if wanted is None:
        return own
    wanted = _size(wanted, "`args.crop_size`")
    if own not in (None, wanted):
        raise SettingError(
            f"{name} takes crops of {own[0]} x {own[1]} pixels only: `args.crop_size` must be None "
            f"or [{own[0]},{own[1]}], got {wanted}"
        )
    if own is None and any(map(operator.lt, wanted, least)):
        raise SettingError(
            f"{name} takes no crops below {least[0]} x {least[1]} pixels, `args.crop_size` is "
            f"{wanted}"
        )
    return wanted


def _size(value, what):
    if not SIZE.fits(value):
        raise SettingError(f"{what} must be {SIZE.words}, or None, got {value!r}")
    return tuple(value)


def _colour(values, name, entry):
    values = tuple(map(float, np.ravel(values)))
    if len(values) != 3:
        raise SettingError(
            f"`{name}` of embedding network {entry.name!r} must be 3 numbers, got {values}"
        )
    return values


class _Mean(nn.Module):
    """Stands in for a head: feature maps become vectors."""

    def forward(self, features):
        return _average(features)


def _torchvision_network(entry):
    """Module, mean, std, fixed and least size of a classification network of torchvision."""
    published = _published_weights(entry)
    is_fetched = published and entry.kwargs.get("weights") and entry.model_weights is None
    network = registry.build(entry, **_architecture(entry, published))
    network = network if is_fetched else _without_head(network)
    network.register_load_state_dict_pre_hook(_rename_old_keys)
    if is_fetched:  # not by torchvision, which would run code in the file
        load_weights(network, _download(entry, published), entry.name)
        network = _without_head(network)
    else:
        _load_file(network, entry)
    mean, std, least = IMAGENET_MEAN, IMAGENET_STD, (1, 1)
    if published:
        rule = published.transforms()
        mean, std, least = rule.mean, rule.std, published.meta["min_size"]
    fixed = None
    if isinstance(network, torchvision.models.VisionTransformer):
        fixed = (network.image_size, network.image_size)
    elif isinstance(network, torchvision.models.MaxVit):
        fixed = entry.kwargs.get("input_size", (224, 224))
    return network, mean, std, fixed, least


def _without_head(network):
    """The network up to its last feature map, averaged; a vision transformer up to its head."""
    if isinstance(network, torchvision.models.DenseNet):  # its own way on has a ReLU
        return nn.Sequential(OrderedDict(features=network.features, mean=_Mean()))
    for name in _HEADS:
        if hasattr(network, name):
            setattr(network, name, _Mean())
    return network


def _torchvision_names():
    return torchvision.models.list_models(module=torchvision.models)


def _published_weights(entry):
    """The weights that an entry of torchvision names, or the default ones; None: there are none."""
    if entry.class_name not in _torchvision_names():
        return None
    offered = torchvision.models.get_model_weights(entry.class_name)
    choice = entry.kwargs.get("weights") or "DEFAULT"
    if choice not in offered.__members__:
        raise SettingError(
            f"`weights` of embedding network {entry.name!r} must be one of "
            f"{[*offered.__members__]}, got {choice!r}"
        )
    return offered[choice]


def _architecture(entry, published):
    """Arguments that build what the published weights belong to, without fetching these."""
    if published is None:
        return {}
    arguments = {}
    if entry.class_name.startswith("vit_"):
        arguments["image_size"] = published.meta["min_size"][0]
    if entry.class_name in ("googlenet", "inception_v3"):
        arguments.update(transform_input=True, init_weights=False)
    return {**arguments, **entry.kwargs, "weights": None}


def _download(entry, published):
    """File of the published weights, in torchvision's own folder; it is whole."""
    file = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
    begins = file.stem.rpartition("-")[2]  # the SHA-256, as the name says
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(published.url, str(file), begins)
        digest = identity(entry._replace(model_weights=file))["weights"]
    except (OSError, HTTPException, RuntimeError) as error:
        raise SettingError(
            f"the weights of embedding network {entry.name!r} could not be downloaded or read "
            f"({error}): fetch {published.url} where that is possible and put the file {file.name} "
            f"into {file.parent}, or anywhere and name it by `args.net_weights`"
        ) from error
    if not digest.startswith(begins):
        raise SettingError(
            f"{file} is damaged or something else: the SHA-256 of these weights of embedding "
            f"network {entry.name!r} begins with {begins}, that of the file with {digest[:8]}; "
            "delete it, or name weights of your own by `args.net_weights`"
        )
    return file


def _rename_old_keys(module, state, *_):
    """torchvision's published DenseNets still write norm.1 for norm1."""
    for key in [*state]:
        state[_OLD_DENSE_KEY.sub(r"\1\2", key)] = state.pop(key)


def _load_file(module, entry):
    if entry.model_weights is not None:
        load_weights(module, entry.model_weights, entry.name)
    else:
        _log.warning(
            "embedding network %r has neither `model_weights` nor `weights` in its kwargs: its "
            "weights are what its class makes of them",
            entry.name,
        )


def _own_network(entry):
    """Module, mean, std, fixed and least size of a class of the user's own."""
    module = registry.build(entry)
    if not isinstance(module, nn.Module):
        raise SettingError(
            f"embedding network {entry.name!r} must be a torch.nn.Module, got {type(module)}"
        )
    if not getattr(module, "has_weights", False):
        _load_file(module, entry)
    mean, std = getattr(module, "mean", IMAGENET_MEAN), getattr(module, "std", IMAGENET_STD)
    return module, mean, std, getattr(module, "crop_size", None), (1, 1)


def _timm_network(entry):
    """Module, mean, std, fixed and least size of a network of timm.

    What timm calls of fixed size, most transformers, gets one: their position embeddings belong
    to it, and what they accept instead (`dynamic_img_size`) either pads crops or wants multiples of
    the patch. With that in the entry's kwargs crops stay as they are.
    """
    try:
        import timm  # optional, and slow to import
    except ImportError as error:
        raise SettingError(
            f"embedding network {entry.name!r} needs timm: `pip install .[timm]`"
        ) from error
    kwargs = {"pretrained": True, **entry.kwargs, "num_classes": 0}
    if entry.model_weights is not None:
        kwargs |= {"pretrained": True, "pretrained_cfg_overlay": _timm_file(timm, entry)}
    try:
        module = timm.create_model(entry.class_name, **kwargs)
    except Exception as error:  # a damaged file raises nearly anything
        raise SettingError(_timm_problem(timm, entry, error)) from error
    known = module.pretrained_cfg
    known.pop("state_dict", None)  # a second copy of the weights
    rule = timm.data.resolve_data_config(entry.kwargs, model=module)
    is_fixed = known.get("fixed_input_size") and not kwargs.get("dynamic_img_size")
    fixed = rule["input_size"][1:] if is_fixed else None
    return module, rule["mean"], rule["std"], fixed, known.get("min_input_size", (3, 1, 1))[1:]


_BUILDERS = {"torchvision.models": _torchvision_network, "timm": _timm_network}


def _timm_file(timm, entry):
    """What makes timm read a file in place of the published weights; a head in it is left out."""
    heads = getattr(timm.models.get_pretrained_cfg(entry.class_name), "classifier", None) or ()
    heads = (heads,) if isinstance(heads, str) else heads
    state = read_state(entry.model_weights, entry.name)
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    state = {key: t for key, t in state.items() if key.rpartition(".")[0] not in heads}
    if not state:  # which timm would take for no file at all
        raise SettingError(f"{entry.model_weights} has no weights but those of a head")
    return {"state_dict": state, "num_classes": 0, "label_offset": 0}  # 0: no weight may be missing


def _timm_problem(timm, entry, error):
    """Why a network of timm could not be built, and what to do."""
    what = f"embedding network {entry.name!r} of timm, {entry.class_name!r}, could not be"
    reason = textwrap.shorten(reason_of(error), 300, placeholder=" ...")
    if entry.model_weights is not None:
        return f"{what} filled from {entry.model_weights}: {reason}"
    from huggingface_hub.constants import HF_HUB_CACHE  # both come with timm
    from safetensors import SafetensorError

    if isinstance(error, OSError | SafetensorError):
        published = timm.models.get_pretrained_cfg(entry.class_name)
        source = published.hf_hub_id or published.url
        return (
            f"{what} downloaded or read ({reason}): fetch its weights, model.safetensors of "
            f"{source!r} on the Hugging Face hub, where that is possible, put the file anywhere "
            "and name it by `args.net_weights`, or copy another machine's cache of that hub to "
            f"{HF_HUB_CACHE}"
        )
    near = difflib.get_close_matches(entry.class_name, timm.list_models(pretrained=True))
    others = f": near it are {', '.join(near)}" if near else ", which timm does not know"
    return f"{what} built ({reason}); check its `kwargs`, and its name{others}"
