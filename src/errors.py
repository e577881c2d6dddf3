"""The errors that end a run with one sentence: sacred prints no traceback and exits with 1."""

import warnings

with warnings.catch_warnings():  # sacred imports pkg_resources, which announces its end
    warnings.simplefilter("ignore")
    from sacred.utils import SacredError


class RunError(SacredError):
    """Ends a run; the message says what happened and what to do."""

    def __init__(self, message):
        super().__init__(message, print_traceback=False)


class SettingError(RunError, ValueError):
    """A setting that cannot work; the message says what is allowed, what came and what to do."""


class ClassCountError(SettingError):
    """A network gives another number of classes, `count`, than it was said to."""

    def __init__(self, message, count):
        super().__init__(message)
        self.count = count

    def __reduce__(self):  # other processes raise it
        return type(self), (str(self), self.count)


class WriteError(RunError):
    """A place takes no file, whatever it holds."""


def missing_weights(name, path):
    """The SettingError for the weights file of an entry of the configuration that is not there."""
    return SettingError(
        f"the weights of {name!r} are missing: put them at {path}, or change `model_weights` in "
        "configuration.py. The demo's lie in the repository: this project is run from its clone "
        "(git clone, make setup), not from an installed copy. docs/networks.md says where the "
        "published ones are to be had; train_meta_nn.py trains those of a meta model"
    )


def reason_of(error):
    """What an error says; of torch not its advice to let a file run the code in it."""
    if "weights_only" in str(error):
        return "it holds more than tensors and plain values, which is refused"
    return str(error)
