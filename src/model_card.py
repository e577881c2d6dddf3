"""What a segmentation network says of itself: its classes, and what its input must be."""

from collections import Counter
from dataclasses import dataclass

from src import registry
from src.class_ids import class_mapping
from src.errors import SettingError
from src.pictures import distinct_colours
from src.records import NO_LABEL
from src.run.settings import NUMBER, Kind, number
from src.store import names
from src.store.sealed import as_stored


def _are_classes(value):
    if isinstance(value, dict):
        keys, names = map(str, value), value.values()
        return all(map(str.isdecimal, keys)) and all(map(_is_class, names))
    return number(2).fits(value) or (isinstance(value, list | tuple) and all(map(_is_class, value)))


def _is_class(value):
    return isinstance(value, str) or (
        isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)
    )


def _is_size(value):
    edges = value.values() if isinstance(value, dict) else value if _is_pair(value) else [None]
    is_known = not isinstance(value, dict) or "shortest_edge" in value
    return is_known and all(map(number(1).fits, edges))


def _is_pair(value):
    return isinstance(value, list | tuple) and len(value) == 2


def _are_three(value):
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(NUMBER.fits, value))


_THREE = Kind("3 numbers, of red, green and blue in 0..1", _are_three)
_FIELDS = {  # of an entry, and of what `describe` gives
    "classes": Kind("a number >= 2, names in the order of ids, or {id: (name, RGB)}", _are_classes),
    "mean": _THREE,
    "std": _THREE,
    "size": Kind('(height, width) in pixels, or {"shortest_edge": pixels}', _is_size),
    "multiple_of": number(1),
}


@dataclass(frozen=True)
class ModelCard:
    """What is known of a network without its weights.

    Attributes
    ----------
    classes : dict of int to (str, (int, int, int))
        Name and RGB colour by id, 0, 1, ...
    count : int or None
        Number of classes; None: nobody has said it, and `classes` are those of TRAIN_DATASET.
    mean, std : tuple of 3 float
        That its input is normalised by, of red, green and blue in 0..1.
    size : (int, int), dict or None
        Height and width in pixels that pictures are scaled to, or {"shortest_edge": pixels,
        "longest_edge": pixels}, of which one may be missing; None: they stay as they are.
    multiple_of : int
        Pixels that height and width must be a multiple of.
    trained_on : DatasetConfig or None
        The dataset that names the classes.
    origin : str
        In words, where all this was taken from.
    """

    classes: dict[int, tuple]
    count: int | None
    mean: tuple
    std: tuple
    size: tuple | dict | None
    multiple_of: int
    trained_on: tuple | None
    origin: str


def ask(model):
    """What the network of an entry says of itself, without its weights: a dict, may be empty.

    Its class says it in a static method `describe`, which takes the `kwargs` of the entry and gives
    any of `classes` (names in the order of their ids, or by id, with colours or without), `mean`,
    `std`, `size`, `multiple_of`, and `from`, words that say where they were read.
    """
    describe = getattr(registry.find_class(model), "describe", None)
    return describe(**model.kwargs) if describe else {}


def keep(io_path, model, says):
    """Keep beside the results what the network of an entry says, for later stages."""
    names.note(io_path, "models", model.name, says=says, of=_told_by(model))


def kept(io_path, model):
    """What stage 1 has kept of the network of an entry; empty where there is nothing."""
    facts = names.read(io_path, "models", model.name)
    return facts["says"] if facts.get("of") == _told_by(model) else {}


def known_card(io_path, model, trained_on):
    """The ModelCard of an entry, as stages after the first know it; see `card_of`."""
    return card_of(model, trained_on, kept(io_path, model))


def card_of(model, trained_on, says):
    """The ModelCard of an entry.

    The entry counts first, then what the network says, then TRAIN_DATASET: its class names, where
    it has as many, and its `mean` and `std`. What nobody names is called "class 0", "class 1", ...

    Parameters
    ----------
    model : ModelConfig
    trained_on : DatasetConfig
        TRAIN_DATASET.
    says : dict
        See `ask`.

    Raises
    ------
    SettingError
        What the entry or the network says is no such thing, or there are too many classes.
    """
    own = {key: value for key in _FIELDS if (value := getattr(model, key, None)) is not None}
    facts = says | own
    for key in facts.keys() & _FIELDS.keys():
        _FIELDS[key].check(f"{key} of model {model.name}", facts[key])
    origins = dict.fromkeys(says, says.get("from", "the network"))
    origins |= dict.fromkeys(own, "its entry")
    wanted = facts.get("classes", _count_in(model.kwargs))
    known = class_mapping(trained_on, "pred_mapping")
    count = wanted if wanted is None or isinstance(wanted, int) else len(wanted)
    is_named = wanted is not None and not isinstance(wanted, int)
    if is_named:
        classes, origin = _named(model, wanted, known), origins["classes"]
    elif count in (None, len(known)):
        classes, origin = known, f"TRAIN_DATASET {trained_on.name}"
    else:
        classes, origin = _named(model, [f"class {k}" for k in range(count)], {}), "nobody's names"
    norm = {
        key: facts.get(key) or registry.module_attribute(trained_on, key) for key in ("mean", "std")
    }
    size = facts.get("size")
    told = {f"{len(classes)} classes": origin}
    told |= {key: origins.get(key, f"TRAIN_DATASET {trained_on.name}") for key in ("mean", "std")}
    told |= {_scaling(size): origins["size"]} if size else {}
    return ModelCard(
        classes=classes,
        count=count,
        mean=tuple(norm["mean"]),
        std=tuple(norm["std"]),
        size=size if size is None or isinstance(size, dict) else tuple(size),
        multiple_of=facts.get("multiple_of", 1),
        trained_on=trained_on if classes is known else None,
        origin=_by_origin(told),
    )


def _scaling(size):
    """What becomes of pictures, in words; see `ModelCard.size`."""
    if not isinstance(size, dict):
        return f"pictures scaled to {size[0]} x {size[1]}"
    edges = [f"a {key.replace('_', ' ')} of {pixels} pixels" for key, pixels in size.items()]
    return f"pictures scaled to {' and at most '.join(edges)}"


def _by_origin(told):
    """One line of what was taken from where, by the origin."""
    origins = dict.fromkeys(told.values())
    lines = (
        f"{', '.join(what for what, origin in told.items() if origin == each)} ({each})"
        for each in origins
    )
    return "; ".join(lines)


def _told_by(model):
    return as_stored({"class": f"{model.module_name}.{model.class_name}", "kwargs": model.kwargs})


def _count_in(kwargs):
    """The number of classes in the arguments of a network's class, by its usual names, or None."""
    found = (kwargs.get(name) for name in ("num_classes", "classes"))
    return next((count for count in found if isinstance(count, int)), None)


def _named(model, classes, known):
    """Classes with distinct names and colours; those of TRAIN_DATASET where it has all of them."""
    by_id = dict(classes) if isinstance(classes, dict) else dict(enumerate(classes))
    by_id = {int(key): value for key, value in sorted(by_id.items(), key=lambda item: int(item[0]))}
    if len(by_id) > NO_LABEL:
        raise SettingError(
            f"model {model.name!r} has {len(by_id)} classes; at most {NO_LABEL} can be told apart "
            f"here, as {NO_LABEL} means no label: add up the probabilities of those that are alike"
        )
    if list(by_id) != list(range(len(by_id))):
        raise SettingError(
            f"the classes of model {model.name!r} must have the ids 0, 1, ..., got {[*by_id]}"
        )
    words = [value if isinstance(value, str) else value[0] for value in by_id.values()]
    words = [_as_line(word) or f"class {key}" for key, word in enumerate(words)]
    colour_of = {name.casefold(): colour for name, colour in known.values()}
    colours = [colour_of.get(word.casefold()) for word in words]
    if None in colours:
        colours = distinct_colours(len(words))
    colours = [
        own if isinstance(value, str) else tuple(value[1])
        for own, value in zip(colours, by_id.values(), strict=True)
    ]
    return dict(enumerate(zip(_told_apart(words), colours, strict=True)))


def _as_line(name):
    """A name as one line, without what cannot be printed, such as half of a surrogate."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def _told_apart(names):
    """Names that are all different, in upper and lower case too: those that were not get ids."""
    count = Counter(map(str.casefold, names))
    while max(count.values()) > 1:
        names = [
            name if count[name.casefold()] == 1 else f"{name} ({key})"
            for key, name in enumerate(names)
        ]
        count = Counter(map(str.casefold, names))
    return names
