"""From an entry of the configuration to the object it names.

The only module that imports by string. `configuration` itself is never imported here: whoever calls
hands over the entry, which has the fields `name`, `module_name`, `class_name` and `kwargs`.
"""

import difflib
import hashlib
import importlib
import inspect
import json
import sys
from pathlib import Path

from src.errors import SettingError, missing_weights

REPOSITORY = Path(__file__).parents[1]
_REQUIRED = object()


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
        raise missing_weights(entry.name, path)
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
