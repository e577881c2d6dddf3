"""Segmentation networks with room for further classes."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.functional import linear

from src import registry
from src.errors import SettingError
from src.segmentation.class_maps import find_maps, fit_input, name_of, stored_outputs
from src.segmentation.inference import load_network

CPU = torch.device("cpu")
_TRIAL = 64  # pixels, height and width of a picture that shows which layers are the last
_ENCODERS = "backbone", "encoder"  # what libraries call the part before the decoder


class Learnt(nn.Module):
    """The network of an entry, with more classes in its last layers.

    Parameters
    ----------
    base : dict
        `module_name`, `class_name` and `kwargs` of that entry.
    layers : list of str
        Names of its last layers, as `named_modules` has them.
    added : list of int
        How many outputs they were given, each time that it learnt.
    network : torch.nn.Module, optional
        What `base` builds, where it is there already; it is changed.
    """

    def __init__(self, base, layers, added, network=None):
        super().__init__()
        self.base, self.layers, self.added = base, list(layers), []
        self.network = network or registry.build(SimpleNamespace(name="learnt", **base))
        for count in added:
            self.widen(count)
        for name in ("outputs", "features"):  # what networks may say of themselves
            if hasattr(self.network, name):
                self.__dict__[name] = getattr(self.network, name)  # not a second time as a module

    def widen(self, count):
        """Give the last layers so many outputs more; see `widen`."""
        for layer in self.layers if count else ():
            widen(self.network, layer, count)
        self.added = [*self.added, count]

    def forward(self, images):
        """What the network gives."""
        return self.network(images)


def grow(entry, card, added, seed=0):
    """A network that has learnt nothing yet, with room for further classes.

    Parameters
    ----------
    entry : ModelConfig
        The network as it is; it may have grown before.
    card : ModelCard
        What is known of it.
    added : dict of str to (int, int, int)
        Names and RGB colours of the new classes; their ids follow those of the old.
    seed : int
        Of the new weights.

    Returns
    -------
    network : Learnt
        In evaluation mode, on the CPU; the logits of the old classes are what they were. `input`
        has the `size` and `multiple_of` of the card.
    facts : dict
        What `store.learnt` keeps of it: base, layers, added, classes, mean, std, size, multiple_of.

    Raises
    ------
    SettingError
        It has no last layer to which new classes could be added.
    """
    if stored_outputs(entry) is not None:
        raise SettingError(f"{entry.name!r} is what another program predicted: nothing can learn")
    network, count = load_network(entry, CPU), len(card.classes)
    if next(network.parameters(), None) is None:
        raise SettingError(
            f"{entry.name!r} runs outside of torch, and has no weights to learn with"
        )
    if not isinstance(network, Learnt):
        base = {key: getattr(entry, key) for key in ("module_name", "class_name", "kwargs")}
        named = getattr(entry, "last_layers", None)
        network = Learnt(base, named or last_layers(network, card), [], network)
    torch.manual_seed(seed)
    network.widen(len(added))
    classes = card.classes | dict(enumerate(added.items(), start=count))
    facts = {key: getattr(network, key) for key in ("base", "layers", "added")}
    network.input = {key: getattr(card, key) for key in ("size", "multiple_of")}
    facts |= {"mean": card.mean, "std": card.std, **network.input}
    return network.eval(), facts | {"classes": classes}


class _InParts:
    """A layer whose outputs are computed part by part: what is added changes no bit of the old."""

    @classmethod
    def like(cls, old, count):
        """An old layer with `count` outputs more."""
        settings = {key: getattr(old, key) for key in cls.settings}
        inputs, outputs = (getattr(old, key) for key in cls.sizes)
        facts = dict(bias=old.bias is not None, device=old.weight.device, dtype=old.weight.dtype)
        new = cls(inputs, outputs + count, **settings, **facts)
        new.parts = [*getattr(old, "parts", [outputs]), count]
        return new

    def forward(self, values):
        """As of the layer it is."""
        biases = [None] * len(self.parts) if self.bias is None else self.bias.split(self.parts)
        parts = zip(self.weight.split(self.parts), biases, strict=True)
        return torch.cat([self.part(values, *part) for part in parts], self.axis)


class _Convolution(_InParts, nn.Conv2d):
    axis, sizes = 1, ("in_channels", "out_channels")
    settings = "kernel_size", "stride", "padding", "dilation", "padding_mode"
    part = nn.Conv2d._conv_forward


class _Linear(_InParts, nn.Linear):
    axis, sizes, settings = -1, ("in_features", "out_features"), ()
    part = staticmethod(linear)


def widen(network, name, count):
    """Replace a layer by one with more outputs: the old as they are, the new as they begin.

    Their weights are drawn evenly from 0 to the root of 2 / inputs, as in the code published with
    Uhlemeyer et al., arXiv 2201.01073 (`extend.py`); a bias, which theirs has not, begins with 0.

    Parameters
    ----------
    network : torch.nn.Module
    name : str
        Of a Conv2d or Linear layer, as `named_modules` has it.
    count : int
        Of the new outputs.

    Raises
    ------
    SettingError
        There is no such layer, or of another kind.
    """
    old = dict(network.named_modules()).get(name)
    if not _is_wide(old):
        raise SettingError(
            f"`last_layers` of {name_of(network)}: {name!r} is no convolution or linear layer"
        )
    new = (_Linear if isinstance(old, nn.Linear) else _Convolution).like(old, count)
    with torch.no_grad():
        new.weight.uniform_(0, (2 / new.weight.shape[1]) ** 0.5)
        if new.bias is not None:
            new.bias.zero_()
        for key, value in old.named_parameters():
            getattr(new, key)[: len(value)] = value
    parent, _, key = name.rpartition(".")
    setattr(network.get_submodule(parent), key, new)


def _is_wide(layer):
    """Whether more outputs can be given to a layer."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


@torch.no_grad()
def last_layers(network, card):
    """Names of the layers that make one value a class: a list.

    They are found by a trial: what is added to the first output of such a layer changes the map of
    the first class and no other, or, in a head that only training needs, none.

    Parameters
    ----------
    network : torch.nn.Module
        On the CPU, in evaluation mode.
    card : ModelCard

    Raises
    ------
    SettingError
        There is none that more outputs can be given to.
    """
    if getattr(network, "outputs", None) == "scores":
        raise SettingError(
            f"{name_of(network)} gives each class the sum of masks, and has no last layer a pixel: "
            "choose a network with logits of pixels, such as DeepLab, SegFormer, UperNet or DPT"
        )
    images = torch.rand(1, 3, _TRIAL, _TRIAL, generator=torch.Generator().manual_seed(0))
    images, count = fit_input(images, card.size, card.multiple_of)[0], len(card.classes)

    def maps():
        return find_maps(network, network(images), count)

    before, found = maps(), {}
    for name, layer in network.named_modules():
        if _is_wide(layer) and len(layer.weight) == count:
            calls = []
            hook = layer.register_forward_hook(_add_to_first(calls))
            changed = (maps() != before).any(3).any(2).any(0).nonzero().flatten().tolist()
            hook.remove()
            if calls and changed in ([], [0]):
                found[name] = changed
    if [0] not in found.values():
        raise SettingError(
            f"{name_of(network)} has no convolution or linear layer of which each output is the "
            f"value of one of its {count} classes, so no new ones can be added: name its last "
            "layers in its entry in configuration.py, last_layers=[...], as `named_modules` of the "
            "network does; what comes behind them must take any number of classes"
        )
    return list(found)


def _add_to_first(calls):
    def hook(layer, _, output):
        calls.append(layer)
        output = output.clone()
        output.select(-1 if isinstance(layer, nn.Linear) else 1, 0).add_(1)
        return output

    return hook


def decoder_of(network):
    """Names of the modules that learn where nobody names others: a list.

    Those that the network has as `decoder_modules`, or all but its encoder.

    Parameters
    ----------
    network : torch.nn.Module
    """
    path = []
    while not hasattr(network, "decoder_modules") and len(children := _children(network)) == 1:
        path.append(next(iter(children)))
        network = children[path[-1]]
    own = getattr(network, "decoder_modules", None)
    encoders = *_ENCODERS, getattr(network, "base_model_prefix", None)
    names = own or [name for name in _children(network) if name not in encoders]
    return [".".join([*path, name]) for name in names]


def _children(network):
    """Modules right below a network that have parameters, by their names."""
    children = network.named_children()
    return {name: child for name, child in children if next(child.parameters(), None) is not None}
