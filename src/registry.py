"""From an entry of the configuration to the object it names.

The only module that imports by string. `configuration` itself is never imported here: whoever calls
hands over the entry, which has the fields `name`, `module_name`, `class_name` and `kwargs`.
"""

import difflib
import importlib
import inspect
import sys
from pathlib import Path

from src.errors import SettingError

REPOSITORY = Path(__file__).parents[1]
LEAST = {  # shares of a picture's height, where its dataset says nothing
    "min_segment_size": 1 / 16,
    "min_crop_size": 1 / 8,  # 128 of 1024 pixels, as in the paper
}
_REQUIRED = object()


def choose(entries, name, kind):
    """Entry of a dictionary of the configuration by its name.

    A SettingError if there is none; it lists those that exist and the nearest one, and calls them
    by their `kind`: "dataset", "model", ...
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

    Further arguments are passed to the class; those by name take precedence over `entry.kwargs`.

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
        raise _wrong(entry, error) from error


def find_class(entry):
    """The class of an entry, or the function that builds the object, as in `torchvision.models`.

    A SettingError if the module or the class does not exist.
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
    raise _wrong(
        entry,
        f"module {entry.module_name!r} has no class {entry.class_name!r}; it defines "
        f"{', '.join(map(repr, defined)) or 'none'}",
    )


def module_attribute(entry, name, default=_REQUIRED):
    """Value of a module-level name beside the class of an entry, such as `mean` or `std`.

    A SettingError if the module does not exist, or does not define it and there is no default.
    """
    value = getattr(_module_of(entry), name, default)
    if value is _REQUIRED:
        raise _wrong(entry, f"module {entry.module_name!r} must define `{name}`")
    return value


def size_for(entry, name, height, width):
    """List of height and width: as given, or where None as the dataset's module has them.

    Whole numbers are pixels, others shares of a picture's height. There a pair (height, width) has
    the `name`, such as `min_segment_size`; without it the share is that of `LEAST`.
    """
    own = module_attribute(entry, name, (LEAST[name], LEAST[name]))
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
                f"there is no module {module_name!r}; looked in the current folder {Path.cwd()}, "
                f"in {REPOSITORY} and on the Python path"
            )
        else:
            message = f"module {module_name!r} needs {error.name!r}, which is not installed"
        raise _wrong(entry, message) from error


def _check_arguments(entry, factory, args, kwargs):
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a class written in C need not say what it takes
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        problem = f"{entry.class_name}{signature} does not take its `kwargs`: {error}"
        raise _wrong(entry, problem) from error


def _wrong(entry, problem):
    # of the configuration, or one made of a folder or of a kind of networks
    what = f"{entry.module_name}.{entry.class_name}"
    return SettingError(f"{what}, called {entry.name!r}: {problem}")
