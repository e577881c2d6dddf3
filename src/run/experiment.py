"""The one way to make a sacred experiment: explained settings, strict keys, a clean stop.

On the command line the exit code is 0 after a complete run, 1 after an error, 130 after Ctrl-C and
143 after SIGTERM. A main function that must end with a failure raises `SettingError`, or
`SystemExit("3 of 500 images failed")`: status FAILED, exit code 1, one line and no traceback.
"""

import ast
import difflib
import inspect
import io
import json
import logging
import os
import re
import signal
import sys
import textwrap
import threading
import tokenize
import warnings
from contextlib import contextmanager
from pathlib import Path, PurePath

from tqdm import tqdm

from src.errors import RunError
from src.registry import REPOSITORY

with warnings.catch_warnings():  # sacred imports pkg_resources, which announces its end
    warnings.simplefilter("ignore")
    from sacred import Experiment
    from sacred.config.config_scope import ConfigScope
    from sacred.config.utils import chain_evaluate_config_scopes
    from sacred.dependencies import gather_sources_and_dependencies
    from sacred.utils import (
        SacredError,
        get_by_dotted_path,
        iterate_flattened,
        set_by_dotted_path,
    )


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; sacred closes the run as INTERRUPTED, as it does after Ctrl-C."""


def create_experiment(name):
    """Experiment of the script that calls this function.

    The script's docstring becomes the description in its help. Its settings are the entries of the
    config scope; the comment on the line of a setting is its explanation in `-h` and in
    `print_config`, also below a `dict(...)`::

        @ex.config
        def config():
            args = dict(
                gpu=0,  # index of the GPU; None: the CPU
            )

    `with name=value` takes the settings that exist and values of the default's type, and stops
    otherwise before a run is started: an int may stand for a float, and None for a default whose
    explanation mentions None; a default of None takes any value, one of `{}` any keys. Where the
    default is a list or None, `with args.names=[one,two]` is a list of text, without quotes.
    Settings from configuration files (`with settings.json`) are held to the same,
    and `-f` lets everything pass. Paths are text.

    Parameters
    ----------
    name : str
        Shown in messages and stored with the run.

    Returns
    -------
    experiment : sacred.Experiment
    """
    return _StrictExperiment(name, script=inspect.currentframe().f_back.f_globals)


class _ExplainedScope(ConfigScope):
    """A config scope that explains nested settings and turns paths into text, for JSON."""

    def __init__(self, function):
        super().__init__(function)
        own = {key: _without_noqa(text) for key, text in self._var_docs.items()}
        self._var_docs = {**own, **explanations(function)}

    def __call__(self, *args, **kwargs):
        summary = super().__call__(*args, **kwargs)
        for key, value in summary.items():
            summary[key] = _paths_as_text(value)
        return summary


class _StrictExperiment(Experiment):
    def __init__(self, name, script):
        base_dir = _base_folder(script.get("__file__"))
        super().__init__(name, base_dir=base_dir, save_git_info=False)
        # sacred takes whoever calls it, this module, for the script: say who it is
        self.doc = script.get("__doc__")
        self.base_dir = str(base_dir)
        self.mainfile, self.sources, self.dependencies = _gather(script, self.base_dir)
        self._on_command_line = False

    def config(self, function):
        """Add a config scope (a decorator), with the explanations beside its nested settings."""
        self.configurations.append(_ExplainedScope(function))
        return self.configurations[-1]

    def get_usage(self, program_name=None):
        """Short usage, help text, and usage text for the parser."""
        short, full, internal = super().get_usage(program_name)
        return short, f"{full}\n{self._settings_help()}", internal

    def run_commandline(self, argv=None):
        """Run from the command line; SIGTERM and Ctrl-C end the run cleanly."""
        self._on_command_line = True
        try:
            with _sigterm_raises():
                return super().run_commandline(argv)
        except KeyboardInterrupt as stop:
            number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
            sys.exit(128 + number)  # what a shell reports after that signal
        finally:
            self._on_command_line = False

    def run(self, *args, **kwargs):
        """Run the main function or a command, and return the finished run."""
        try:
            return super().run(*args, **kwargs)
        except SacredError as error:
            wants_more = error.print_traceback or error.print_usage
            if self.current_run is not None:
                wants_more = wants_more or self.current_run.debug or self.current_run.pdb
            if wants_more or not self._on_command_line:
                raise
            raise SystemExit(f"{self.path}: {error}") from error

    def _create_run(
        self,
        command_name=None,
        config_updates=None,
        named_configs=(),
        info=None,
        meta_info=None,
        options=None,
    ):
        self.logger = _logger(self.path)
        options = dict(options or {})
        forced = bool(options.get("--force"))
        named_configs, from_files = _without_files(named_configs)
        config_updates = self._with_lists({**from_files, **_flat(config_updates or {})})
        _check_seed(config_updates.get("seed"))
        run = super()._create_run(
            command_name,
            config_updates,
            named_configs,
            info,
            meta_info,
            {**options, "--force": True},  # `_check_settings` speaks in place of sacred's warnings
        )
        run.force = run.meta_info["options"]["--force"] = forced
        run.unobserved = run.unobserved or not run.observers  # or sacred warns of having none
        if run.observers and run.capture_mode is None:
            run.capture_mode = "sys"  # sacred's default reads before the last lines have arrived
        if not forced:
            asked = {name for f in self.captured_functions for name in f.signature.arguments}
            asked = {name for name in asked if not name.startswith("_")}  # sacred's own
            _check_settings(run.config, run.config_modifications, asked)
        return run

    def _with_lists(self, updates):
        """The updates, nested, with the lists that sacred took for text."""
        config, _ = chain_evaluate_config_scopes(self.configurations)
        defaults = dict(iterate_flattened(config))
        nested = {}
        for key, value in iterate_flattened(updates):
            if isinstance(value, str) and isinstance(defaults.get(key, ""), list | None):
                value = _list_of(value)
            set_by_dotted_path(nested, key, value)
        return nested

    def _settings_help(self):
        config, summaries = chain_evaluate_config_scopes(self.configurations)
        docs = {key: text for summary in summaries for key, text in summary.docs.items()}
        settings = {f"{key}={value!r}": key for key, value in iterate_flattened(config)}
        width = min(50, max(map(len, settings), default=0))
        lines = ["Settings and their defaults (change them by `with NAME=VALUE ...`):"]
        lines += [f"  {text:{width}}  {docs.get(key, '')}" for text, key in settings.items()]
        return "\n".join(map(str.rstrip, lines))


def explanations(function):
    """One-line comments beside the nested settings of a config scope.

    Parameters
    ----------
    function : function
        Body of assignments such as `args = dict(gpu=0)  # comment`; `dict` calls with keywords and
        dictionary displays may nest.

    Returns
    -------
    docs : dict of str to str
        Comment by dotted name, such as `args.gpu`; a name without comment is left out.
    """
    source = textwrap.dedent(inspect.getsource(function))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {
        token.start[0]: _without_noqa(token.string.lstrip("# "))
        for token in tokens
        if token.type == tokenize.COMMENT
    }
    docs = {}
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Assign):
            comments.pop(statement.lineno, None)  # of the whole; sacred reads it
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    _explain(target.id, statement.value, comments, docs)
    return docs


def _without_noqa(comment):
    """What a comment says to people."""
    return re.split("#? ?noqa", comment)[0].strip()


def _explain(name, node, comments, docs):
    """Collect the comments of the entries of one dictionary; each serves one entry."""
    for key, line, value in _entries(node):
        last = line if _entries(value) else value.end_lineno
        found = [comments.pop(number, "") for number in range(line, last + 1)]
        text = next((text for text in found if text), None)
        if text:
            docs[f"{name}.{key}"] = text
        _explain(f"{name}.{key}", value, comments, docs)


def _entries(node):
    """(key, line, value node) of every entry of a `dict(...)` call or a dictionary display."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return [(k.arg, k.lineno, k.value) for k in node.keywords if k.arg]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [(k.value, k.lineno, v) for k, v in pairs if isinstance(k, ast.Constant)]
    return []


def _flat(settings):
    return dict(iterate_flattened(settings))


def _without_files(named_configs):
    """The names that are no files, and the settings in those that are: dotted name -> value.

    Sacred itself would read pickles, and JSON that stands for any object: both can run code.
    """
    names, settings = [], {}
    for name in named_configs:
        if Path(name).is_file():
            settings |= _flat(_read_settings(Path(name)))
        else:
            names.append(name)
    return names, settings


def _read_settings(path):
    """The settings in a JSON file, nested."""
    if path.suffix != ".json":
        raise RunError(f"{path} must be a file of settings in JSON, called *.json")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"), object_hook=_plain)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is no file of settings: {error}") from error
    if not isinstance(settings, dict):
        raise RunError(f"{path} must hold settings by their names, got {settings!r}")
    return settings


def _plain(entries):
    """Entries of a JSON object, unless sacred would make something else of them."""
    for key in entries:
        if key.startswith(("py/", "json://")):
            raise ValueError(f"it has the key {key!r}, which stands for objects")
    return entries


def _list_of(text):
    """A list of what stands in square brackets: numbers, None, words; any other text as it is."""
    inside = re.fullmatch(r"\s*\[(.+)\]\s*", text)
    return [_literal(word.strip()) for word in inside[1].split(",")] if inside else text


def _literal(word):
    try:
        return ast.literal_eval(word)
    except (SyntaxError, ValueError):
        return word


def _paths_as_text(value):
    if isinstance(value, dict):
        return {key: _paths_as_text(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_paths_as_text(entry) for entry in value]
    return str(value) if isinstance(value, PurePath) else value


def _check_settings(config, modifications, asked):
    """Refuse settings that do not exist and values of the wrong type.

    Parameters
    ----------
    config : dict
        The run's configuration, updates included.
    modifications : sacred.config.config_summary.ConfigSummary
        What sacred noticed: added keys, changed types; and the explanations.
    asked : set of str
        Names without default that a command asks for, such as `config_filename` of `save_config`.
    """
    set_here = {key for key, _ in iterate_flattened(config)} - modifications.added
    known = sorted(set_here)
    for key in sorted(modifications.added - asked):
        if not _below_open_dict(key, known, config):
            raise RunError(
                f"`{key}` is not a setting; did you mean `{_nearest(key, known)}`? "
                f"Settings: {', '.join(known)}"
            )
    for key, (expected, _) in sorted(modifications.typechanged.items()):
        value = get_by_dotted_path(config, key)
        explanation = modifications.docs.get(key, "")
        if not _fits(value, expected, explanation):
            raise RunError(_type_message(key, value, expected, explanation))


def _below_open_dict(key, known, config):
    """Whether the dictionary that holds the key has no entries of its own: its default is {}."""
    parent = key.rpartition(".")[0]
    is_dict = isinstance(get_by_dotted_path(config, parent), dict) if parent else False
    return is_dict and not any(name.startswith(f"{parent}.") for name in known)


def _fits(value, expected, explanation):
    if expected is type(None):
        return True
    if value is None:
        return re.search(r"\bNone\b", explanation) is not None
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected in (list, tuple):
        return isinstance(value, list | tuple)
    if issubclass(expected, PurePath):
        return isinstance(value, str)
    return type(value) is expected or (expected is not int and isinstance(value, expected))


def _type_message(key, value, expected, explanation):
    allowed = expected.__name__
    if issubclass(expected, PurePath):
        allowed = "str"
    if re.search(r"\bNone\b", explanation):
        allowed += " or None"
    message = f"`{key}` must be {allowed}, got {value!r} ({type(value).__name__})"
    if expected is str:
        message += f"; quote it to keep it text: '{key}=\"{value}\"'"
    if expected is list:
        message += f"; write {key}=[{value}], and commas between several"
    return f"{message} [{explanation}]" if explanation else message


def _check_seed(seed):
    """Sacred draws from the seed before anything else can look at it."""
    if seed is not None and (type(seed) is not int or seed < 0):
        raise RunError(f"`seed` must be an int >= 0, got {seed!r}")


def _nearest(key, known):
    """The known key whose last part is most like that of `key`: `gpu` means `args.gpu`."""

    def likeness(name):
        last_parts = (text.rpartition(".")[2] for text in (name, key))
        return (
            difflib.SequenceMatcher(None, *last_parts).ratio(),
            difflib.SequenceMatcher(None, name, key).ratio(),
        )

    return max(known, key=likeness)


def _base_folder(script_file):
    """Folder whose Python files count as the experiment's own sources."""
    folder = Path(script_file or ".").resolve().parent
    repository = REPOSITORY.resolve()
    return repository if repository in (folder, *folder.parents) else folder


def _gather(script, base_dir):
    try:
        return gather_sources_and_dependencies(script, True, base_dir)
    except Exception:  # no git program, no commit yet, a repository that belongs to another user
        return gather_sources_and_dependencies(script, False, base_dir)


class _BarFriendlyHandler(logging.Handler):
    """Writes to the present `sys.stderr`, above the progress bars that are on it."""

    def emit(self, record):
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


def _logger(name):
    """Logger of an experiment, level INFO; the root logger is left alone."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        handler = _BarFriendlyHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    return logger


@contextmanager
def _sigterm_raises():
    """Turn SIGTERM into `Terminated` in the main thread of this process."""
    owner = os.getpid()

    def stop(number, _frame):
        if os.getpid() != owner:  # a forked worker inherits this function: end as usual
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(number, signal.SIG_IGN)  # some senders repeat it; let the first one finish
        raise Terminated

    def stop_again(lost):
        """Python drops what is raised while an object is deleted: raise it once more."""
        if isinstance(lost.exc_value, Terminated):
            signal.signal(signal.SIGTERM, stop)
            threading.Timer(0.1, os.kill, (owner, signal.SIGTERM)).start()
        else:
            report(lost)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    before, report = signal.signal(signal.SIGTERM, stop), sys.unraisablehook
    sys.unraisablehook = stop_again
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
