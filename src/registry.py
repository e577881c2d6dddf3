"""From an entry of the configuration to the object it names.

The only module that imports by string. `configuration` itself is never imported here: whoever calls
hands over the entry, which has the fields `name`, `module_name`, `class_name` and `kwargs`.
"""

import difflib
import hashlib
import importlib
import inspect
import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from src.records import NO_LABEL

with warnings.catch_warnings():  # sacred imports pkg_resources, which announces its end
    warnings.simplefilter("ignore")
    from sacred.utils import SacredError

REPOSITORY = Path(__file__).parents[1]
_REQUIRED = object()


class SettingError(SacredError, ValueError):
    """A setting that cannot work; the message says what is allowed, what came and what to do.

    Raised inside a run, sacred prints the message without a traceback and exits with 1.
    """

    def __init__(self, message):
        super().__init__(message, print_traceback=False)


def choose(entries, name, kind):
    """Entry of a dictionary of the configuration by its name.

    Parameters
    ----------
    entries : dict of str to entry
    name : str
        Key to look up.
    kind : str
        What the entries are, in the singular and for the message: "dataset", "model", ...

    Raises
    ------
    SettingError
        If there is no such entry; lists those that exist and the nearest one.
    """
    if name in entries:
        return entries[name]
    nearest = difflib.get_close_matches(str(name), entries, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    known = ", ".join(map(repr, entries)) or "none"
    raise SettingError(
        f"there is no {kind} {name!r}.{hint} Entries in configuration.py: {known}; "
        "choose one of them or add yours there"
    )


def build(entry, *args, **kwargs):
    """Import the class of an entry and make an object of it.

    The module may live anywhere on the Python path, in the current folder or in the repository.

    Parameters
    ----------
    entry : ModelConfig or DatasetConfig
        Has `name`, `module_name`, `class_name` and `kwargs`.
    *args, **kwargs
        Passed to the class; `kwargs` take precedence over `entry.kwargs`.

    Raises
    ------
    SettingError
        If the module or the class does not exist, the class does not take the arguments, or it
        raises a FileNotFoundError or ValueError: a wrong root, say. Its other errors stay.
    """
    factory = find_class(entry)
    kwargs = {**entry.kwargs, **kwargs}
    _check_arguments(entry, factory, args, kwargs)
    try:
        return factory(*args, **kwargs)
    except SettingError:
        raise
    except (FileNotFoundError, ValueError) as error:
        raise SettingError(f"configuration entry {entry.name!r}: {error}") from error


def find_class(entry):
    """The class of an entry, or the function that builds the object, as in `torchvision.models`.

    Raises
    ------
    SettingError
        If the module or the class does not exist.
    """
    module = _module_of(entry)
    factory = getattr(module, entry.class_name, None)
    if callable(factory):
        return factory
    defined = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    raise SettingError(
        f"configuration entry {entry.name!r}: module {entry.module_name!r} has no class "
        f"{entry.class_name!r}; it defines {', '.join(map(repr, defined)) or 'none'}"
    )


def identity(entry):
    """What a network or a dataset depends on: its class, arguments and weights.

    Parameters
    ----------
    entry : ModelConfig or DatasetConfig

    Returns
    -------
    identity : dict
        Plain values; the weights as the SHA-256 of their file, None where the entry has none.

    Raises
    ------
    SettingError
        If the weights file is missing.
    """
    has_weights = getattr(entry, "model_weights", None) is not None
    identity = {
        "class": f"{entry.module_name}.{entry.class_name}",
        "kwargs": entry.kwargs,
        "weights": _sha256_of_weights(entry) if has_weights else None,
    }
    return json.loads(json.dumps(identity, default=str))  # equal to what comes back from a file


def _sha256_of_weights(entry):
    path = Path(entry.model_weights)
    if not path.is_file():
        raise SettingError(
            f"the weights of {entry.name!r} are missing: put them at {path} (README.md says where "
            "the published ones are to be had; train_meta_nn.py trains those of a meta model), or "
            "change `model_weights` in configuration.py"
        )
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def module_attribute(entry, name, default=_REQUIRED):
    """Value of a module-level name beside the class of an entry, such as `mean` or `std`.

    Parameters
    ----------
    entry : ModelConfig or DatasetConfig
    name : str
    default : optional
        Returned where the module does not define `name`.

    Raises
    ------
    SettingError
        If the module does not exist, or does not define `name` and no default was given.
    """
    value = getattr(_module_of(entry), name, default)
    if value is _REQUIRED:
        raise SettingError(
            f"configuration entry {entry.name!r}: module {entry.module_name!r} must define `{name}`"
        )
    return value


def class_mapping(entry, name):
    """`label_mapping` or `pred_mapping` of the class of an entry, or another of its dictionaries.

    Returns
    -------
    mapping : dict of int to (str, (int, int, int))
        Class name and RGB colour by id; `train_ids`, `kinds`: int to str; `anomaly_ids`: int to
        int; `categories`: str to str. What a class does not have is empty.

    Raises
    ------
    SettingError
        If a class that a network was trained on has no `pred_mapping`.
    """
    mapping = getattr(find_class(entry), name, None)
    if mapping is None and name == "pred_mapping":
        raise SettingError(
            f"{entry.class_name} of dataset {entry.name!r} has no `pred_mapping`, so it cannot be "
            "the TRAIN_DATASET: add one, id -> (name, RGB colour), or choose another"
        )
    return mapping or {}


def class_names(entry):
    """Names of the true classes of a dataset entry, those of one kind (`kinds`) called alike.

    Returns
    -------
    names : dict of int to str
    """
    mapping = class_mapping(entry, "label_mapping")
    return {key: name for key, (name, _) in mapping.items()} | class_mapping(entry, "kinds")


def as_names(value, setting):
    """A setting of `args` that is one name, a list of names or None, as a list or None.

    Raises
    ------
    SettingError
    """
    names = [value] if isinstance(value, str) else value
    is_list = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if names is not None and not (is_list and names):
        raise SettingError(
            f"`args.{setting}` must be a name or a list of names, such as [streets,streets_ood], "
            f"got {value!r}"
        )
    return names if names is None else [*names]


def check_counts(**settings):
    """Refuse settings of `args` that are neither None nor a whole number from 1 on.

    Raises
    ------
    SettingError
    """
    for name, value in settings.items():
        if value is not None and (type(value) is not int or value < 1):
            raise SettingError(f"`args.{name}` must be a whole number >= 1, got {value!r}")


def in_shard(images, shard, index_of=int):
    """Those of some images that one of several machines works on.

    Parameters
    ----------
    images : list
    shard : str or None
        "k/n": machine k of n, from 0; image i falls to machine i % n. None: all.
    index_of : callable
        Gives the index of an image; by default images are indices.

    Returns
    -------
    images : list
        May be empty.

    Raises
    ------
    SettingError
        If `shard` is something else.
    """
    if shard is None:
        return images
    numbers = re.fullmatch(r"(\d+)/(\d+)", str(shard))
    machine, count = map(int, numbers.groups()) if numbers else (0, 0)
    if machine >= count:
        raise SettingError(
            f"`args.shard` must be k/n with k in 0..n-1, such as 0/4 to 3/4, or None, got {shard!r}"
        )
    return [image for image in images if index_of(image) % count == machine]


def size_for(entry, name, height, width):
    """Height and width in pixels: as given, or where None as the dataset's module has them.

    Parameters
    ----------
    entry : DatasetConfig
    name : str
        Optional module-level name of a pair (height, width), such as `min_segment_size`; without
        it 128 x 128.
    height, width : int or None

    Returns
    -------
    size : list of two int
    """
    own = module_attribute(entry, name, (128, 128))
    return [own[0] if height is None else height, own[1] if width is None else width]


def predicted_ids(entry, trained_on, log):
    """Look-up table from the ids of a dataset's ground truth to the predicted ones: `match_ids`.

    Parameters
    ----------
    entry, trained_on : DatasetConfig
        The dataset, and the one that the network was trained on.
    log : logging.Logger
        Warned where no class has a counterpart, which leaves the true IoU unknown.

    Returns
    -------
    table : ndarray of shape (256,), uint8
        255: no counterpart.
    """
    label_mapping = class_mapping(entry, "label_mapping")
    known = class_mapping(trained_on, "pred_mapping")
    table = match_ids(label_mapping, known, class_mapping(entry, "train_ids"))
    if label_mapping and (table == NO_LABEL).all():
        log.warning(
            "the true IoU of segments of %r is unknown: neither the names of its classes nor the "
            "`train_ids` of %s name a class that is predicted (%s)",
            entry.name, entry.class_name, ", ".join(name for name, _ in known.values()),
        )  # fmt: skip
    return table


def anomaly_labels(entry, trained_on, log):
    """Look-up table from the ids of a dataset's ground truth to what an anomaly score is judged by.

    A class that the network does not predict is an anomaly, unless the class of the dataset says
    something else in its optional `anomaly_ids`: {id: 0, 1 or 255}.

    Parameters
    ----------
    entry, trained_on, log
        As for `predicted_ids`.

    Returns
    -------
    table : ndarray of shape (256,), uint8
        0 = normal, 1 = anomaly, 255 = not judged: an id without a class among them.
    """
    known = predicted_ids(entry, trained_on, log) != NO_LABEL
    table = np.full(256, NO_LABEL, np.uint8)
    ids = [key for key in class_mapping(entry, "label_mapping") if key != NO_LABEL]
    table[ids] = np.where(known[ids], 0, 1)
    for key, label in class_mapping(entry, "anomaly_ids").items():
        table[key] = label
    return table


def match_ids(label_mapping, pred_mapping, train_ids=None):
    """Look-up table from ground-truth ids to the predicted ids of the same class.

    A class has the name that its dataset gives it, or the one in `train_ids`: what is learnt of a
    dataset is found again in it, whatever others call it. Upper and lower case are not told apart.

    Parameters
    ----------
    label_mapping, pred_mapping : dict of int to (str, (int, int, int))
        Class name and RGB colour by id: those of the ground truth and those of the predictions.
    train_ids : dict of int to str, optional
        Name of the predicted class by ground-truth id. Names that are not predicted do no harm.

    Returns
    -------
    table : ndarray of shape (256,), uint8
        `table[label id]` is the predicted id of that class; 255, "no label", where the network
        does not predict the class or the id is not in `label_mapping`. `table[255]` is 255.

    Raises
    ------
    ValueError
        If an id lies outside 0..255, two predicted ids share a name, or `train_ids` has an id that
        `label_mapping` lacks or something else than a name.
    """
    for mapping, what in ((label_mapping, "label_mapping"), (pred_mapping, "pred_mapping")):
        wrong = [key for key in mapping if not 0 <= key <= NO_LABEL]
        if wrong:
            raise ValueError(f"ids of `{what}` must lie in 0..255, got {wrong}")
    train_ids = train_ids or {}
    for key, name in train_ids.items():
        if key not in label_mapping or not isinstance(name, str):
            raise ValueError(
                "`train_ids` must map ids of `label_mapping` to names of predicted classes, and "
                f"leave out ids without counterpart; got {key!r}: {name!r}"
            )
    predicted = {}
    for key, (name, _) in pred_mapping.items():
        if predicted.setdefault(name.casefold(), key) != key:
            raise ValueError(f"`pred_mapping` must name each class once, got {name!r} twice")
    table = np.full(256, NO_LABEL, np.uint8)
    for key, (name, _) in label_mapping.items():
        learnt_as = predicted.get(train_ids.get(key, "").casefold(), NO_LABEL)
        table[key] = predicted.get(name.casefold(), learnt_as)
    table[NO_LABEL] = NO_LABEL
    return table


def chosen_indices(count, num_images=None, *, classindex=None, classes=None, subset_file=None):
    """Indices of the images to work on, from the settings `args.<name>` of a script.

    Parameters
    ----------
    count : int
        Images in the dataset.
    num_images : int or None
        Only the first so many of those that the other settings leave.
    classindex : str or int, optional
        Name (upper or lower case) or id of a class: only the images where it occurs.
    classes : list of dict, optional
        With `classindex`: `id`, `name` and `images` (ascending indices) of each class, as
        `search_classes.py` finds them.
    subset_file : path, optional
        Text file, one index a line: only these images.

    Returns
    -------
    indices : list of int
        Ascending, each once; at least one, unless the dataset has none.

    Raises
    ------
    SettingError
        If there is no such class or file, the file holds anything but indices of images, or no
        image is left.
    """
    indices = set(range(count))
    if classindex is not None:
        indices &= _images_with(classindex, classes)
    if subset_file is not None:
        indices &= _read_indices(subset_file, count)
    if not indices and count:
        raise SettingError(
            f"no image is left to work on: none of the {count} images fits "
            f"`args.classindex` {classindex!r} and `args.subset_file` {subset_file!r}"
        )
    return sorted(indices)[:num_images]


def _images_with(classindex, classes):
    """Indices of the images with a class; classes of one name count together."""

    def is_meant(row):
        if isinstance(classindex, str):
            return row["name"].casefold() == classindex.casefold()
        return row["id"] == classindex

    rows = [row for row in classes if is_meant(row)]
    if not rows:
        names = {row["name"].casefold(): row["name"] for row in classes}
        nearest = difflib.get_close_matches(str(classindex).casefold(), names)
        hint = " or ".join(repr(names[name]) for name in nearest)
        known = ", ".join(f"{row['id']} {row['name']!r}" for row in classes)
        raise SettingError(
            f"`args.classindex` must be the name or id of a class, got {classindex!r}."
            f"{f' Did you mean {hint}?' if hint else ''} Classes: {known}"
        )
    return {index for row in rows for index in row["images"]}


def _read_indices(path, count):
    """Indices in a text file, one a line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"`args.subset_file` must be a text file with one index a line: {path}: {error}"
        ) from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    wrong = [
        f"{line!r} (line {number})"
        for number, line in numbered
        if not line.isdecimal() or int(line) >= count
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise SettingError(
            f"`args.subset_file` {path} must hold one index a line, from 0 to {count - 1}; got "
            f"{', '.join(wrong[:5])}{more}"
        )
    return {int(line) for _, line in numbered}


def _module_of(entry):
    for folder in (str(Path.cwd()), str(REPOSITORY)):  # a script's own folder is there already
        if folder not in sys.path:
            sys.path.append(folder)
    module_name = entry.module_name
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            message = (
                f"configuration entry {entry.name!r}: there is no module {module_name!r}; looked "
                f"in the current folder {Path.cwd()}, in {REPOSITORY} and on the Python path"
            )
        else:
            message = (
                f"configuration entry {entry.name!r}: module {module_name!r} needs "
                f"{error.name!r}, which is not installed"
            )
        raise SettingError(message) from error


def _check_arguments(entry, factory, args, kwargs):
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a class written in C need not say what it takes
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SettingError(
            f"configuration entry {entry.name!r}: {entry.class_name}{signature} does not take "
            f"its `kwargs`: {error}"
        ) from error
