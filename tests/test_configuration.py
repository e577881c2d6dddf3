"""The defaults that a clone starts with."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import configuration
from configuration import CONFIG, datasets, embedding_networks, meta_models, models
from src import registry
from src.errors import SettingError

REPOSITORY = Path(configuration.__file__).parent


@pytest.mark.parametrize("entries", [models, meta_models, datasets, embedding_networks])
def test_entries_are_found_by_their_name(entries):
    assert all(entry.name == key for key, entry in entries.items())


def test_the_choices_are_entries_that_exist():
    assert CONFIG.MODEL_NAME in models
    assert CONFIG.META_MODEL_NAME in meta_models
    assert CONFIG.EMBEDDING_NETWORK in embedding_networks
    for entry in (CONFIG.TRAIN_DATASET, CONFIG.VAL_DATASET, CONFIG.DATASET):
        assert datasets[entry.name] is entry


def test_a_clone_starts_with_the_demo_and_its_own_weights():
    assert CONFIG.DATASET.name == "streets_ood"
    for entry in (models[CONFIG.MODEL_NAME], meta_models[CONFIG.META_MODEL_NAME]):
        assert entry.model_weights.parent == REPOSITORY / "weights"


@pytest.mark.parametrize(
    "entry", [entry for entry in datasets.values() if "/path/to" in str(entry.kwargs)]
)
def test_a_dataset_that_is_not_there_says_which_root_to_set(entry):
    root = entry.kwargs["root"]
    with pytest.raises(SettingError, match=f"'{entry.name}': there is no folder {root}; set the"):
        registry.build(entry)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, str(REPOSITORY / "results")),
        ("/elsewhere", "/elsewhere"),
        ("~/elsewhere", "/home/me/elsewhere"),
        ("$HOME/elsewhere", "/home/me/elsewhere"),
    ],
)
def test_one_environment_variable_moves_the_results(variable, expected):
    environment = {k: v for k, v in os.environ.items() if k != "OODRETRIEVAL_IO_PATH"}
    environment["HOME"] = "/home/me"
    if variable:
        environment["OODRETRIEVAL_IO_PATH"] = variable
    code = (
        "import configuration as c; print(c.CONFIG.metaseg_io_path);"
        "print(c.datasets['streets'].kwargs['root'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [expected, f"{expected}/streets"]


def test_every_choice_is_explained_on_its_line():
    lines = inspect.getsource(configuration).splitlines()
    (choices,) = (
        node
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.ClassDef) and node.name == "CONFIG"
    )
    for statement in choices.body:
        if isinstance(statement, ast.Assign):
            assert "  # " in lines[statement.lineno - 1], lines[statement.lineno - 1]
