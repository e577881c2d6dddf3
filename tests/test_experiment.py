"""Experiments as a user of the scripts meets them: on the command line, and by `run`."""

import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from src.errors import SettingError
from src.run.experiment import HELP_WIDTH, SacredError, create_experiment
from src.run.settings import PATH, setting

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = '''
"""Stage 9: count the images of a data set."""

import time
from pathlib import Path

from tqdm import tqdm

from src.run.experiment import create_experiment
from src.run.settings import setting
from src.errors import SettingError

ex = create_experiment("count")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting("streets", "entry of `datasets` to run on"),
        gpu=setting(0, "index of the GPU", none="the CPU", at_least=0),
        rate=setting(0.5, "share of the images", at_least=0, at_most=1),
        num_images=setting(None, "only the first so many", none="all", at_least=1),
        folder=setting(Path("/results"), "folder of all results"),
        tsne=dict(perplexity=setting(30, "neighbours that a point has on the map")),
    )


@ex.automain
def main(args, _log):
    if args["dataset"] == "wrong":
        raise SettingError("there is no dataset 'wrong'")
    if args["dataset"] == "partial":
        raise SystemExit("3 of 500 images failed")
    if args["dataset"] == "broken":
        raise RuntimeError("broken inside")
    if args["dataset"] == "endless":
        print("waiting", flush=True)
        while True:
            time.sleep(60)
    for _ in tqdm(range(2)):
        _log.info("counting on %s", args["gpu"])
'''


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts") / "count.py"
    path.write_text(SCRIPT)
    return path


def start(script, *words, under=()):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [*under, sys.executable, script.name, *map(str, words)],
        cwd=script.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(script, *words):
    """Exit code, standard output and standard error of a command line."""
    process = start(script, *words)
    out, err = process.communicate()
    return process.returncode, out, err


def run_entry(runs):
    return json.loads((runs / "1" / "run.json").read_text())


def test_help_shows_what_the_script_does_its_options_and_its_settings(script):
    code, out, err = call(script, "-h")
    assert (code, err) == (0, "")
    assert "count.py" in out
    assert "Stage 9: count the images of a data set." in out
    assert max(map(len, out.splitlines())) <= HELP_WIDTH
    _, settings, options, further = re.split("\n(?:Settings|Options|Further options)", out)
    settings = [" ".join(line.split()) for line in settings.splitlines()[1:] if line]
    assert settings == [  # in the order of the script
        "args.dataset='streets' entry of `datasets` to run on",
        "args.gpu=0 index of the GPU: a whole number >= 0; None: the CPU",
        "args.rate=0.5 share of the images: a number from 0 to 1",
        "args.num_images=None only the first so many: a whole number >= 1; None: all",
        "args.folder='/results' folder of all results",
        "args.tsne.perplexity=30 neighbours that a point has on the map",
    ]
    assert [line.split()[0] for line in options.splitlines()[1:] if line] == [
        "print_config", "-F,", "-l,", "-f,", "-h,",
    ]  # fmt: skip
    assert "--mongo_db" in further and "save_config" in further


def test_a_long_default_has_its_explanation_below(tmp_path):
    folder = "/folder" * 9
    (tmp_path / "count.py").write_text(SCRIPT.replace("/results", folder))
    code, out, _ = call(tmp_path / "count.py", "-h")
    lines = [line.strip() for line in out.splitlines()]
    assert (code, lines[lines.index(f"args.folder='{folder}'") + 1]) == (0, "folder of all results")


def test_the_terminal_shows_our_messages_and_no_warnings(script):
    code, _, err = call(script, "with", "args.gpu=3", "args.num_images=5")
    assert code == 0
    assert "INFO counting on 3" in err
    assert "arning" not in err


def test_in_a_pipe_a_run_says_no_more_than_what_it_does_and_that_it_is_done(ex, capsys):
    ex.main(lambda: {"a": 1})
    assert ex.run().result == {"a": 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO Completed after 0:00:0\d", line)


def test_a_stored_run_has_its_settings_sources_and_output(script, tmp_path):
    code, _, _ = call(script, "with", "args.gpu=None", "-F", tmp_path, "-n", "mine")
    assert code == 0
    entry = run_entry(tmp_path)
    assert entry["status"] == "COMPLETED"
    assert entry["experiment"]["name"] == "mine"
    assert [name for name, _ in entry["experiment"]["sources"]] == ["count.py"]
    config = json.loads((tmp_path / "1" / "config.json").read_text())
    assert config["args"]["gpu"] is None
    assert config["args"]["folder"] == "/results"
    output = (tmp_path / "1" / "cout.txt").read_text()
    assert output.count("counting on None") == 2 and "Completed" in output


def test_a_wrong_key_stops_before_a_run_is_started(script, tmp_path):
    code, out, err = call(script, "with", "args.gpuu=1", "-F", tmp_path / "runs")
    assert (code, out) == (1, "")
    assert err == (
        "count: `args.gpuu` is not a setting; did you mean `args.gpu`? Settings: args.dataset, "
        "args.folder, args.gpu, args.num_images, args.rate, args.tsne.perplexity, seed\n"
    )
    assert not (tmp_path / "runs").exists()


def test_a_run_that_must_fail_says_so_in_one_line(script, tmp_path):
    code, _, err = call(script, "with", "args.dataset=wrong", "-F", tmp_path)
    assert code == 1
    assert err.splitlines()[-1] == "count: there is no dataset 'wrong'"
    assert "Traceback" not in err
    assert run_entry(tmp_path)["status"] == "FAILED"


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_stopped_run_is_closed_as_interrupted(script, tmp_path, number, expected):
    process = start(script, "with", "args.dataset=endless", "-F", tmp_path)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == expected
    assert "Traceback" not in err
    assert run_entry(tmp_path)["status"] == "INTERRUPTED"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_arrives_during_the_exit_changes_neither_code_nor_words(script, first):
    process = start(script, "with", "args.dataset=endless")
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(first)
    while "Aborted" not in process.stderr.readline():  # sacred's word
        pass
    while process.poll() is None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + first
    assert "Traceback" not in err


def test_a_run_under_nohup_goes_on_after_its_terminal_has_gone(script):
    process = start(script, "with", "args.dataset=endless", under=["nohup"])
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143


# ---- In this process ----------------------------------------------------------------------------
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture(scope="module")
def counting(script):
    """The experiment of the script, imported instead of started."""
    specification = importlib.util.spec_from_file_location("count_script", script)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.ex


def test_print_config_shows_each_setting_with_its_explanation(counting, capsys):
    counting.run_commandline("count.py print_config with args.gpu=3")
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if "gpu" in line)
    assert "gpu = 3" in line
    assert "# index of the GPU: a whole number >= 0; None: the CPU" in line
    assert "neighbours that a point has on the map" in out
    assert "the random seed for this experiment" in out
    assert "noqa" not in out


def test_a_run_works_where_nothing_can_be_printed(counting, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it where the stream is closed
    assert counting.run_commandline("count.py").status == "COMPLETED"
    sys.stderr.close()


def test_the_log_level_can_be_set_for_one_run(counting, capsys):
    counting.run_commandline("count.py -l WARNING")
    assert "INFO" not in capsys.readouterr().err
    counting.run_commandline("count.py")
    assert "INFO counting on 0" in capsys.readouterr().err


def test_a_run_may_end_as_failed_with_a_message_of_its_own(counting):
    with pytest.raises(SystemExit, match="3 of 500 images failed"):  # Python prints it, exits 1
        counting.run_commandline("count.py with args.dataset=partial")
    assert counting.current_run.status == "FAILED"


def test_other_errors_keep_their_traceback(counting, capsys):
    with pytest.raises(SystemExit, match="1"):
        counting.run_commandline("count.py with args.dataset=broken")
    err = capsys.readouterr().err
    assert "Traceback" in err and "RuntimeError: broken inside" in err


def test_the_debug_option_keeps_the_traceback_of_a_wrong_setting(counting):
    with pytest.raises(SacredError, match="there is no dataset 'wrong'"):
        counting.run_commandline("count.py -d with args.dataset=wrong")


def test_settings_from_a_file_are_read_and_checked(counting, tmp_path):
    (tmp_path / "good.json").write_text('{"args": {"gpu": 2}}')
    (tmp_path / "bad.json").write_text('{"args": {"gpuu": 2}}')
    run = counting.run_commandline(["count.py", "with", str(tmp_path / "good.json")])
    assert run.config["args"]["gpu"] == 2
    with pytest.raises(SystemExit, match="did you mean `args.gpu`?"):
        counting.run_commandline(["count.py", "with", str(tmp_path / "bad.json")])


@pytest.fixture
def ex():
    """An experiment whose run returns its settings."""
    experiment = create_experiment("small")

    @experiment.config
    def config():
        args = dict(  # noqa: C408, F841
            gpu=setting(0, "index of the GPU", none="the CPU"),
            rate=setting(0.5, "share"),
            name="a",
            flag=False,
            sizes=(1, 2),
            datasets=["streets"],
            limit=None,
            folder=Path("/results"),
            table=setting(None, "file to write", none="none", kind=PATH),
            tsne=dict(perplexity=30),
            options={},
            maps=setting({}, "name=folder", kind=PATH),
        )
        iterations = 3  # noqa: F841
        free = setting({}, "options of the map")  # noqa: F841

    @experiment.main
    def main(args, free):
        return {**args, "free": free}

    return experiment


GOOD = [
    ("gpu", 3),
    ("gpu", None),  # it says what None means
    ("rate", 1),
    ("rate", 0.25),
    ("name", "b"),
    ("flag", True),
    ("sizes", [3]),
    ("limit", 7),
    ("limit", "anything"),
    ("folder", "/elsewhere"),
    ("tsne.perplexity", 5),
    ("options.anything", 1),
    ("options.any.depth", 1),
    ("maps.depth", "/depth"),
]


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_values_that_fit_are_taken(ex, key, value):
    found = ex.run(config_updates={f"args.{key}": value}).result
    for part in key.split("."):
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("args.datasets=[streets,streets_ood]", ["streets", "streets_ood"]),
        ("args.datasets=[streets]", ["streets"]),
        ("args.datasets=[ my data, 'b', 3,None ]", ["my data", "b", 3, None]),
        ("args.datasets=[]", []),
        ("args.limit=[a,b]", ["a", "b"]),  # a default of None takes any value
        ("args.limit=[1,2]", [1, 2]),
        ("args.limit=a,b", "a,b"),
        ("args.name=[a,b]", "[a,b]"),  # its default is text
    ],
)
def test_a_list_needs_no_quotes_on_the_command_line(ex, word, value):
    run = ex.run_commandline(["small.py", "with", word])
    assert run.result[word.partition("=")[0].removeprefix("args.")] == value


BAD = [
    ("gpu", 1.5, r"must be a whole number, or None \(the CPU\), got 1.5 \[index of the GPU\]"),
    ("gpu", True, "must be a whole number, or None .*, got True"),
    ("rate", "x", "must be a number, got 'x'"),
    ("rate", None, "must be a number, got None"),
    ("rate", True, "must be a number, got True"),
    ("name", 2020, "must be text, got 2020; .*'args.name=\"2020\"'"),
    ("name", 1e5, "must be text, got 100000.0; .*'args.name=\"...\"'"),  # 1e5 was typed
    ("flag", 1, "must be True or False, got 1"),
    ("sizes", 3, "must be a list, got 3"),
    ("datasets", "streets", r"must be a list, got 'streets'; write args.datasets=\[streets\]"),
    ("folder", 3, "must be the path of a file or folder, got 3; .*'args.folder=\"3\"'"),
    ("table", 3, r"must be the path of a file or folder, or None \(none\), got 3"),
    ("tsne", 3, "must be a dict, got 3"),
    ("options", 3, "must be a dict, got 3"),
    ("maps.depth", 3, "`args.maps.depth` must be the path of a file or folder, got 3"),
    ("maps.depth", None, "`args.maps.depth` must be the path of a file or folder, got None"),
    ("gpu.x", 3, "is not a setting"),
    ("limit.x", 3, "is not a setting"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD)
def test_values_of_the_wrong_type_are_refused(ex, key, value, message):
    with pytest.raises(SacredError, match=message):
        ex.run(config_updates={f"args.{key}": value})


@pytest.mark.parametrize("value", [3, "text", [1]])
def test_a_dict_is_not_replaced_by_something_else(ex, value):
    for name in ("args", "free"):  # which the main function asks for, too
        with pytest.raises(SettingError, match=f"`{name}` must be a dict"):
            ex.run(config_updates={name: value})


def test_a_default_that_does_not_fit_is_refused_unless_another_value_is_given():
    experiment = create_experiment("wrong_default")

    @experiment.config
    def config():
        cores = setting(0, "processes to use", at_least=1)  # noqa: F841

    @experiment.main
    def main(cores):
        return cores

    with pytest.raises(SettingError, match="`cores` must be a whole number >= 1, got 0"):
        experiment.run()
    assert experiment.run(config_updates={"cores": 2}).result == 2


def test_defaults_are_those_at_the_time_of_the_run(monkeypatch):
    experiment = create_experiment("late")

    @experiment.config
    def config():
        name = setting(DEFAULT, "what the configuration says")  # noqa: F841

    @experiment.main
    def main(name):
        return name

    assert experiment.run().result == "early"
    monkeypatch.setitem(globals(), "DEFAULT", "late")
    assert experiment.run().result == "late"


DEFAULT = "early"


def test_paths_may_begin_with_the_home_folder_or_a_variable(ex, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    changes = {"folder": "~/results", "table": "$DATA/a.csv", "maps": {"depth": "${DATA}/depth"}}
    result = ex.run(config_updates={"args": {**changes, "name": "~"}}).result
    assert result["folder"] == "/home/me/results"
    assert result["table"] == "/data/a.csv"
    assert result["maps"] == {"depth": "/data/depth"}
    assert result["name"] == "~"  # is no path
    run = ex.run_commandline(["small.py", "with", "args.table=~/a.csv", "args.maps.x=~/x"])
    assert run.result["table"] == "/home/me/a.csv"
    assert run.result["maps"] == {"x": "/home/me/x"}
    assert ex.run(config_updates={"args": {"folder": Path("~/a")}}).result["folder"] == "/home/me/a"


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("args.gup", "args.gpu"),
        ("gpu", "args.gpu"),
        ("args.tsne.perplexty", "args.tsne.perplexity"),
        ("perplexity", "args.tsne.perplexity"),
        ("iteration", "iterations"),
        ("sed", "seed"),
    ],
)
def test_a_wrong_key_names_the_nearest_one(ex, wrong, nearest):
    with pytest.raises(SacredError, match=f"`{wrong}` is not a setting; did you mean `{nearest}`"):
        ex.run(config_updates={wrong: 1})


def test_all_wrong_settings_can_be_forced(ex):
    run = ex.run(config_updates={"args.gpuu": 1}, options={"--force": True})
    assert run.result["gpuu"] == 1


@pytest.mark.parametrize("seed", ["abc", -1, 0.5])
def test_a_seed_must_be_a_whole_number(ex, seed):
    with pytest.raises(SacredError, match="`seed` must be a whole number >= 0"):
        ex.run(config_updates={"seed": seed})


def test_a_run_leaves_the_root_logger_and_the_signals_alone(ex, capsys):
    handlers, level = [*logging.root.handlers], logging.root.level
    before = signal.getsignal(signal.SIGTERM)
    ex.run()
    ex.run()
    assert logging.root.handlers == handlers and logging.root.level == level
    assert signal.getsignal(signal.SIGTERM) is before
    assert (
        capsys.readouterr().err.count("Completed") == 2
    )  # one handler, whatever the number of runs


def test_the_command_line_gives_the_signals_back(ex):
    before = signal.getsignal(signal.SIGTERM)
    ex.run_commandline("small.py with args.gpu=1")
    assert signal.getsignal(signal.SIGTERM) is before


def test_creating_an_experiment_adds_no_handler():
    create_experiment("silent")
    assert not logging.getLogger("silent").handlers


def test_an_experiment_belongs_to_the_script_that_makes_it():
    experiment = create_experiment("own")
    assert experiment.doc == __doc__
    assert experiment.mainfile.filename == str(Path(__file__).resolve())
    assert experiment.base_dir == str(REPOSITORY)


@pytest.mark.parametrize("state", ["no repository", "no commit", "changed file"])
def test_an_experiment_works_in_any_state_of_git(tmp_path, state):
    script = tmp_path / "count.py"
    script.write_text(SCRIPT)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y.z", "-C", tmp_path]
    if state != "no repository":
        subprocess.run([*git, "init", "-q"], check=True)
    if state == "changed file":
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
        script.write_text(SCRIPT + "# changed\n")
    code, _, err = call(script, "-F", tmp_path / "runs")
    assert code == 0, err
    repositories = run_entry(tmp_path / "runs")["experiment"]["repositories"]
    assert [entry["dirty"] for entry in repositories] == [True] * (state == "changed file")


def test_a_repeated_sigterm_and_a_forked_worker_do_no_harm(tmp_path):
    code = """
        import os, signal, sys, time
        from src.run.signals import Stopped, stops_raise
        worker = None
        try:
            with stops_raise():
                worker = os.fork()
                if worker == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                    os._exit(0)  # the default action ends it before
                assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)  # while the first one is dealt with
                    print("cleaned up")
        except Stopped:
            print("terminated once")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["cleaned up", "terminated once"], done.stderr


def test_a_sigterm_that_arrives_while_an_object_is_deleted_is_not_lost():
    code = """
        import os, signal, threading
        from src.run.signals import Stopped, stops_raise

        class Deleted:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)  # what is raised here goes no further

        try:
            with stops_raise():
                Deleted()
                threading.Event().wait()
        except Stopped:
            print("terminated")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("terminated\n", "")
