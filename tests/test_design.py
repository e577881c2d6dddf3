"""The design's table of floors, held by reading the imports of every module."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

FLOORS = (  # a folder, or a module beside them, imports only from floors below its own
    ["src.errors", "src.records", "src.progress"],
    ["src.model"],
    ["src.store", "src.registry"],
    ["src.class_ids", "src.scores", "src.pictures", "src.datasets", "src.run", "src.entries"],
    ["src.MetaSeg", "src.model_card"],
    ["src.segmentation"],
    ["src.embedding"],
    ["src.evaluation", "src.discover", "src.notebook"],
    ["src.learning"],
    ["configuration"],
)
ROOM = {name: floor for floor, names in enumerate(FLOORS) for name in names}
SCRIPTS = len(FLOORS)


def module_name(path):
    """Dotted name of a Python file of the repository."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def own_modules():
    """Dotted names of the scripts, of `configuration` and of everything below `src`."""
    paths = [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("src/**/*.py")]
    return {module_name(path): path for path in paths if path.stat().st_size}


def room_of(name):
    """The folder or module of the table that a module belongs to; a script is a room by itself."""
    room = ".".join(name.split(".")[:2])
    if room in ROOM and name != "src.MetaSeg.main":
        return room
    assert not name.startswith("src.") or name == "src.MetaSeg.main", f"{name} has no floor"
    return name


def floor_of(name):
    return ROOM.get(room_of(name), SCRIPTS)


def imported_names(source, importer):
    """Dotted names that a module's source imports, functions' own imports included."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = importer.split(".")[: -node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def own_imports(name, path, modules):
    """Modules of the repository that a module imports."""
    found = set()
    for imported in imported_names(path.read_text(), name):
        candidates = (imported, imported.rpartition(".")[0])
        known = [c for c in candidates if c in modules]
        found.update(known[:1])
        if not known and imported.split(".")[0] == "src" and imported != EXTENSION:
            raise AssertionError(f"{name} imports {imported}, which does not exist")
    return found - {name}


MODULES = own_modules()
EXTENSION = "src.MetaSeg._segments"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_from_its_own_room_and_from_floors_below(name):
    for imported in own_imports(name, MODULES[name], MODULES):
        same_room = room_of(imported) == room_of(name)
        assert same_room or floor_of(imported) < floor_of(name), f"{name} imports {imported}"


def test_no_imports_run_in_circles():
    imports = {name: own_imports(name, path, MODULES) for name, path in MODULES.items()}
    graphlib.TopologicalSorter(imports).prepare()  # raises a CycleError


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_function_takes_more_than_eight_parameters(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            own = [argument for argument in taken if argument.arg not in ("self", "cls")]
            assert len(own) <= 8, f"{name}.{node.name} takes {len(own)}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_only_scripts_see_the_configuration(name):
    if "configuration" in own_imports(name, MODULES[name], MODULES):
        assert floor_of(name) == SCRIPTS


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"src.run.cluster"}))
def test_only_one_module_knows_dask(name):
    imported = imported_names(MODULES[name].read_text(), name)
    assert not {part.split(".")[0] for part in imported} & {"dask", "distributed"}


def test_dask_is_not_imported_before_it_is_asked_for():
    code = "import sys, src.run.runner; assert not {'dask', 'distributed'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys; before = {*sys.modules}; import src; assert {*sys.modules} - before == {'src'}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_the_configuration_needs_the_standard_library_only():
    imported = imported_names((REPOSITORY / "configuration.py").read_text(), "configuration")
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_importing_the_configuration_touches_no_disk():
    code = """
import os, sys, pathlib, typing
source = open("configuration.py").read()  # not by import, which reads the file itself
touched = []
sys.addaudithook(lambda event, args: touched.append((event, args))
                 if event.split(".")[0] in ("open", "os", "shutil", "glob", "pathlib") else None)
for name in ("stat", "lstat", "access"):  # these raise no audit event
    setattr(os, name, lambda *args, name=name, **kwargs: touched.append((name, args)))
exec(compile(source, "configuration.py", "exec"), {"__name__": "x", "__file__": "/a/b.py"})
sys.stdout.write(repr(touched))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]"


def test_the_explorer_starts_without_torch():
    code = "import discover_embedding_space, sys; sys.stdout.write(str('torch' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False"


def test_imports_are_read_in_every_spelling():
    source = """
import src.pictures
from src import registry, records as r
from src.MetaSeg.metrics import compute
def late():
    from . import crops
"""
    expected = {"src.pictures", "src.registry", "src.records", "src.MetaSeg.metrics.compute"}
    assert imported_names(source, "src.here") == expected | {"src.crops"}
