"""The one way to make a sacred experiment: explained settings, strict keys, a clean stop.

On the command line the exit code is 0 after a complete run, 1 after an error, 130 after Ctrl-C,
143 after SIGTERM and 129 after SIGHUP. A main function that must end with a failure raises
`SettingError`, or `SystemExit("3 of 500 images failed")`: status FAILED, exit code 1, one line and
no traceback.
"""

import difflib
import inspect
import json
import logging
import os
import re
import signal
import sys
import textwrap
import warnings
from pathlib import Path

from tqdm import tqdm

from src.errors import RunError
from src.registry import REPOSITORY
from src.run.settings import by_name, setting
from src.run.signals import stops_raise

with warnings.catch_warnings():  # sacred imports pkg_resources, which announces its end
    warnings.simplefilter("ignore")
    from sacred import Experiment
    from sacred.config import ConfigDict
    from sacred.config.config_scope import ConfigScope
    from sacred.config.utils import normalize_or_die
    from sacred.dependencies import gather_sources_and_dependencies
    from sacred.utils import SacredError, iter_prefixes, iterate_flattened, set_by_dotted_path

HELP_WIDTH = 100  # characters
_SEED = setting(None, "the random seed for this experiment", none="another each time", at_least=0)
_GROUP = setting({}, "")
_OPTIONS = (  # that people use
    ("print_config", "show the settings with all changes, and run nothing"),
    ("-F, --file_storage=FOLDER", "keep a record of the run: its settings, output and figures"),
    ("-l, --loglevel=LEVEL", "what is logged: DEBUG, INFO, WARNING or ERROR"),
    ("-f, --force", "take settings that do not exist, and values that do not fit"),
    ("-h, --help", "this help"),
)
_OF_SACRED = re.compile(r"Running command |Started$|Result: ")
_HERE = Path(__file__).relative_to(REPOSITORY)
_MANUAL = "https://sacred.readthedocs.io/en/stable/command_line.html"


def create_experiment(name):
    """The sacred.Experiment of the script that calls this function; messages have its name.

    The script's docstring becomes the description in its help. Its settings are the entries of the
    config scope, which say their rules by `setting` and stand in the help in that order::

        @ex.config
        def config():
            args = dict(
                gpu=setting(0, "index of the GPU", none="the CPU", at_least=0),
            )

    `with name=value` takes the settings that exist and values that fit, and stops otherwise before
    a run is started. `with args.names=[one,two]` is a list of text, without quotes, and paths begin
    with ~ or variables if they like. Settings from configuration files (`with settings.json`) are
    held to the same, and `-f` lets everything pass.
    """
    return _StrictExperiment(name, script=inspect.currentframe().f_back.f_globals)


class _Scope:
    """A config scope of settings with rules; sacred gets to see their defaults."""

    def __init__(self, function):
        self._body = ConfigScope(function)

    def settings(self):
        """The settings by their dotted names, as they are now."""
        return by_name(self._body())

    def __call__(self, *args, **kwargs):
        defaults = {name: rules.default for name, rules in self.settings().items()}
        return ConfigDict(_nested(defaults))(*args, **kwargs)


class _StrictExperiment(Experiment):
    def __init__(self, name, script):
        _refuse_other_checkout(script.get("__file__"))
        base_dir = _base_folder(script.get("__file__"))
        super().__init__(name, base_dir=base_dir, save_git_info=False)
        # sacred takes whoever calls it, this module, for the script: say who it is
        self.doc = script.get("__doc__")
        self.base_dir = str(base_dir)
        self.mainfile, self.sources, self.dependencies = _gather(script, self.base_dir)
        self._on_command_line = False

    def config(self, function):
        """Add a config scope (a decorator), whose settings may have rules."""
        self.configurations.append(_Scope(function))
        return self.configurations[-1]

    def get_usage(self, program_name=None):
        """Short usage, help text, and usage text for the parser."""
        short, _, internal = super().get_usage(program_name)
        return short, self._help(short), internal

    def run_commandline(self, argv=None):
        """Run from the command line; Ctrl-C, SIGTERM and SIGHUP end the run cleanly."""
        self._on_command_line = True
        _open_streams()
        try:
            with stops_raise():
                return super().run_commandline(argv)
        except KeyboardInterrupt as stop:
            sys.exit(128 + getattr(stop, "number", signal.SIGINT))  # as a shell reports it
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

    def _create_run(self, command_name, config_updates, named_configs, info, meta_info, options):
        self.logger = _logger(self.path)
        options = dict(options or {})
        forced = bool(options.get("--force"))
        named_configs, from_files = _without_files(named_configs)
        settings = {"seed": _SEED, **self._settings()}
        updates = _read({**from_files, **_flat(config_updates or {})}, settings)
        if not forced:
            asked = {name for f in self.captured_functions for name in f.signature.arguments}
            _check(updates, settings, {name for name in asked if not name.startswith("_")})
        run = super()._create_run(
            command_name,
            normalize_or_die(_nested(updates)),
            named_configs,
            info,
            meta_info,
            {**options, "--force": True},  # `_check` speaks in place of sacred's warnings
        )
        run.force = run.meta_info["options"]["--force"] = forced
        run.unobserved = run.unobserved or not run.observers  # or sacred warns of having none
        if run.observers and run.capture_mode is None:
            run.capture_mode = "sys"  # sacred's default reads before the last lines have arrived
        run.config_modifications.docs |= {
            name: rules.description() for name, rules in settings.items()
        }
        return run

    def _settings(self):
        """The settings of all scopes by their dotted names."""
        scopes = (scope for scope in self.configurations if isinstance(scope, _Scope))
        return {name: rules for scope in scopes for name, rules in scope.settings().items()}

    def _help(self, usage):
        by = "`with NAME=VALUE ...` or `with FILE.json`"
        own = self._settings().items()
        settings = [(f"{name}={rules.default!r}", rules.description()) for name, rules in own]
        used = {self.default_command, *(words.partition(",")[0] for words, _ in _OPTIONS)}
        further = [
            (", ".join(option.get_flags()), option.get_description().partition(".")[0])
            for option in self.all_cli_options
            if option.get_flags()[0] not in used
        ]
        commands = ", ".join(name for name, _ in self.gather_commands() if name not in used)
        return "\n".join(
            [
                f"{usage}\n\n{(self.doc or '').strip()}\n",
                f"Settings and their defaults (change them by {by}):",
                *_columns(settings),
                "\nOptions:",
                *_columns(_OPTIONS),
                f"\nFurther options, of sacred ({_MANUAL}):",
                *_columns(further),
                f"  commands: {commands}",
            ]
        )


def _columns(rows):
    """Lines of names, with a text beside each, or below those that are long."""
    width = min(max((len(name) for name, _ in rows), default=0), 40)
    indent, lines = " " * (width + 4), []
    for name, text in rows:
        start = f"  {name:{width}}  "
        if len(name) > width:
            lines.append(start.rstrip())
            start = indent
        lines += textwrap.wrap(
            text, HELP_WIDTH, initial_indent=start, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return lines


def _flat(settings):
    return dict(iterate_flattened(settings))


def _nested(settings):
    nested = {}
    for name, value in settings.items():
        set_by_dotted_path(nested, name, value)
    return nested


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


def _rules_for(name, settings):
    """The Setting of a name; None where there is none."""
    if name in settings:
        return settings[name]
    if any(known.startswith(f"{name}.") for known in settings):
        return _GROUP
    for above in iter_prefixes(name):
        if above in settings and settings[above].entries is not None:
            return settings[above].of_entry()
    return None


def _read(updates, settings):
    """The updates as the program works with them: lists without quotes, paths without ~."""
    rules = {name: _rules_for(name, settings) for name in updates}
    return {n: v if rules[n] is None else rules[n].kind.read(v) for n, v in updates.items()}


def _check(updates, settings, asked):
    """Refuse settings that do not exist, and values that do not fit, defaults included.

    A command may ask for names without default, such as `config_filename` of `save_config`.
    """
    rules = {name: _rules_for(name, settings) for name in sorted({*settings, *updates})}
    for name, found in rules.items():
        if found is None and name not in asked:
            raise RunError(
                f"`{name}` is not a setting; did you mean `{_nearest(name, settings)}`? "
                f"Settings: {', '.join(sorted(settings))}"
            )
    for name, found in rules.items():
        if found is not None:
            found.check(name, updates.get(name, found.default))


def _nearest(key, known):
    """The known key whose last part is most like that of `key`: `gpu` means `args.gpu`."""

    def likeness(name):
        last_parts = (text.rpartition(".")[2] for text in (name, key))
        return (
            difflib.SequenceMatcher(None, *last_parts).ratio(),
            difflib.SequenceMatcher(None, name, key).ratio(),
        )

    return max(known, key=likeness)


def _refuse_other_checkout(script_file):
    """End a script that lies in one checkout and has imported the `src` of another one.

    `python -P` does that, where the other one is installed: its settings and results would be used.
    """
    folders = Path(script_file).resolve().parents if script_file else ()
    own = next((folder for folder in folders if (folder / _HERE).is_file()), None)
    if own is not None and not own.samefile(REPOSITORY):
        raise SystemExit(
            f"{script_file} has found the `src` of {REPOSITORY} in the place of its own: start it "
            f"by `python {script_file}`, without -P and the variables PYTHONSAFEPATH and PYTHONPATH"
        )


def _base_folder(script_file):
    """Folder whose Python files count as the experiment's own sources."""
    folder = Path(script_file or ".").resolve().parent
    repository = REPOSITORY.resolve()
    return repository if repository in (folder, *folder.parents) else folder


def _open_streams():
    """Let what is printed go nowhere where it has no place to go, as in some daemons."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (stays open)


def _gather(script, base_dir):
    try:
        return gather_sources_and_dependencies(script, True, base_dir)
    except Exception:  # no git program, no commit yet, a repository that belongs to another user
        return gather_sources_and_dependencies(script, False, base_dir)


class _BarFriendlyHandler(logging.Handler):
    """Writes to the present `sys.stderr`, above the progress bars that are on it."""

    def __init__(self):
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))

    def filter(self, record):
        """Leave out what sacred says of a run, unless somebody watches: our messages say more."""
        is_shown = sys.stderr.isatty() or not _OF_SACRED.match(str(record.msg))
        return is_shown and super().filter(record)

    def emit(self, record):
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


def _logger(name):
    """Logger of an experiment, level INFO; what `src` has to say goes where its messages go.

    The root logger is left alone.
    """
    logger, ours = logging.getLogger(name), logging.getLogger("src")
    logger.propagate = False
    for each in (logger, ours):
        each.setLevel(logging.INFO)
        if not any(isinstance(handler, _BarFriendlyHandler) for handler in each.handlers):
            each.addHandler(_BarFriendlyHandler())
    return logger
