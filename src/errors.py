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


class WriteError(RunError):
    """A place takes no file, whatever it holds."""
