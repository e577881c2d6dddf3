"""From label files to the images with a class."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import search_classes
from configuration import DatasetConfig, datasets
from src import registry
from src.datasets.cityscapes_laf import CityscapesLAF
from src.errors import SettingError
from src.run import choice
from src.run.runner import Runner
from src.segmentation.search import ClassSearch, read_classes, search_dataset
from src.store import tables
from src.store.paths import Results

REPOSITORY = Path(search_classes.__file__).parent
LOG = logging.getLogger("test")
IDS = [[0, 1, 255], [1, 43, 43], [255, 255, 255]]  # of three images
OBJECT = "42"  # its id is 43


@pytest.fixture
def root(tmp_path):
    """Lost and Found with three images; they are empty files, which nobody may read."""
    stem = "{root}/{kind}/test/street/street_000000_00000{k}_{kind}{end}.png"
    for k, ids in enumerate(IDS):
        for kind, end in (("leftImg8bit", ""), ("gtCoarse", "_labelIds")):
            path = Path(stem.format(root=tmp_path / "laf", kind=kind, k=k, end=end))
            path.parent.mkdir(parents=True, exist_ok=True)
            if end:
                Image.fromarray(np.array([ids], np.uint8)).save(path)
            else:
                path.touch()
    return tmp_path / "laf"


@pytest.fixture
def entry(root, monkeypatch):
    entry = DatasetConfig("laf", "src.datasets.cityscapes_laf", "CityscapesLAF", {"root": root})
    monkeypatch.setitem(datasets, "laf", entry)
    return entry


def search(io_path, dataset="laf", **options):
    results = Results(io_path, dataset=dataset)
    return search_dataset(Runner(LOG, **options), ClassSearch(results, datasets[dataset]))


def overview(io_path, entry):
    samples = registry.build(entry)
    return read_classes(Results(io_path, dataset=entry.name), entry, samples)


def labels_of(root, k):
    (path,) = root.rglob(f"*{k}_gtCoarse_labelIds.png")
    return path


def test_every_class_gets_its_images_in_order(tmp_path, entry):
    assert search(tmp_path).done == 3
    rows = overview(tmp_path, entry)
    assert [(row["id"], row["name"]) for row in rows] == [
        (class_id, name) for class_id, (name, _) in CityscapesLAF.label_mapping.items()
    ]
    assert {row["id"]: row["images"] for row in rows if row["images"]} == {
        0: [0],
        1: [0, 1],
        43: [1],
    }
    assert choice.chosen_indices(3, classindex=OBJECT, classes=rows) == [1]


def test_the_overview_is_plain_json(tmp_path, entry):
    search(tmp_path)
    content = json.loads((tmp_path / "overviews" / "laf" / "overview.json").read_text())
    assert content["classes"][1] == {"id": 1, "name": "free", "images": [0, 1]}
    assert content["made_from"]["dataset"] == "src.datasets.cityscapes_laf.CityscapesLAF"


def test_an_interrupted_search_goes_on_where_it_was(tmp_path, entry, monkeypatch):
    def interrupt(self, index):
        if index == 2:
            raise KeyboardInterrupt
        search_one(self, index)

    search_one = ClassSearch.search
    with monkeypatch.context() as patch:
        patch.setattr(ClassSearch, "search", interrupt)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path)
    assert not Results(tmp_path, dataset="laf").overview.exists()
    tally = search(tmp_path)
    assert (tally.done, tally.skipped) == (1, 2)
    assert choice.chosen_indices(3, classindex="free", classes=overview(tmp_path, entry)) == [0, 1]
    assert search(tmp_path, overwrite=True).done == 3


def test_images_that_have_come_are_searched_and_an_older_overview_is_refused(tmp_path, entry, root):
    search(tmp_path)
    for path in [*root.rglob("*2_leftImg8bit.png"), labels_of(root, 2)]:
        shutil.copy(path, path.with_name(path.name.replace("00002_", "00003_")))
    with pytest.raises(SettingError, match="other images; run search_classes.py .*dataset=laf "):
        overview(tmp_path, entry)
    assert search(tmp_path).done == 1
    assert overview(tmp_path, entry)


def test_a_dataset_that_has_moved_is_not_searched_again(tmp_path, entry, root, monkeypatch):
    search(tmp_path)
    moved = shutil.copytree(
        root, tmp_path / "moved", copy_function=shutil.copyfile
    )  # without times
    shutil.rmtree(root)
    monkeypatch.setitem(datasets, "laf", entry._replace(kwargs={"root": moved}))
    assert (search(tmp_path).done, search(tmp_path).skipped) == (0, 3)
    assert overview(tmp_path, datasets["laf"])


def test_unreadable_labels_are_named_and_tried_again(tmp_path, entry, root):
    whole = labels_of(root, 1).read_bytes()
    labels_of(root, 1).write_bytes(whole[:40])
    ((name, reason),) = search(tmp_path).failed
    assert name == "image 1" and "1_gtCoarse_labelIds.png cannot be used" in reason
    labels_of(root, 1).write_bytes(whole)
    assert search(tmp_path).done == 1
    rows = overview(tmp_path, entry)
    assert choice.chosen_indices(3, classindex=OBJECT, classes=rows) == [1]


def test_a_dataset_without_labels_has_nothing_to_search(tmp_path, monkeypatch):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    kwargs = {"root": tmp_path}
    entry = DatasetConfig("own", "src.datasets.custom", "CustomDataset", kwargs)
    monkeypatch.setitem(datasets, "own", entry)
    with pytest.raises(SettingError, match="no image of 'own' has labels"):
        search(tmp_path, dataset="own")


def test_any_sequence_of_samples_will_do(tmp_path, monkeypatch):
    (tmp_path / "own_sequence.py").write_text(
        "import numpy as np\n\n\n"
        "class Sequence(list):\n"
        "    label_mapping = {3: ('car', (0, 0, 0))}\n\n"
        "    def __init__(self):\n"
        "        super().__init__([(None, None, 'a'), (None, np.full((2, 2), 3), 'b')])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(datasets, "own", DatasetConfig("own", "own_sequence", "Sequence", {}))
    search(tmp_path, dataset="own")
    assert overview(tmp_path, datasets["own"]) == [{"id": 3, "name": "car", "images": [1]}]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_missing_or_broken_overview_says_what_to_run(tmp_path, content):
    path = Results(tmp_path, dataset="a2d2").overview
    advice = r"run search_classes.py with args.dataset=a2d2 first$"
    with pytest.raises(SettingError, match=f"overview.json is missing; {advice}"):
        tables.read_overview(path, {})
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(SettingError, match=f"overview.json is broken .*{advice}"):
        tables.read_overview(path, {})


def test_the_script_searches_in_several_processes(tmp_path, root):
    clone = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "src", clone / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "search_classes.py", clone)
    default = (REPOSITORY / "configuration.py").read_text()
    assert "/path/to/cityscapes_laf" in default
    (clone / "configuration.py").write_text(default.replace("/path/to/cityscapes_laf", str(root)))
    labels_of(root, 2).write_bytes(b"")
    words = ["with", "args.dataset=cityscapes_laf", "args.num_cores=2", f"args.io_path={tmp_path}"]
    done = subprocess.run(
        [sys.executable, str(clone / "search_classes.py"), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(clone)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "2 done, 0 skipped (already there), 1 failed, 3 in total" in done.stderr
    content = json.loads((tmp_path / "overviews/cityscapes_laf/overview.json").read_text())
    assert content["classes"][1] == {"id": 1, "name": "free", "images": [0, 1]}
