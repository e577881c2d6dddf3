"""One image on its way through stage 1, its network and dataset built in this process or others."""

import logging
import os
import pickle
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import model_card
from PIL import Image

from configuration import DatasetConfig, ModelConfig
from src.errors import SettingError
from src.records import Prediction
from src.registry import REPOSITORY
from src.run import kept, processes
from src.run.runner import Runner
from src.segmentation.inference import Computing
from src.segmentation.stage import Predictor, predict_dataset
from src.store import seen
from src.store.arrays import read_prediction
from src.store.paths import Results

LOG = logging.getLogger(__name__)
MODULE = """
import os, signal
from pathlib import Path
import torch
from src.datasets import LabelledImages


class Pictures(LabelledImages):
    def __init__(self, root, transform=None):
        super().__init__([(path, None) for path in sorted(Path(root).glob("*.png"))], transform)

    def __getitem__(self, index):
        if index == 2:
            raise LoadingError("one", "two")
        died = Path(self.samples[index][0]).with_suffix(".died")
        if index == 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Labelled(Pictures):
    label_mapping = {0: ("road", (0, 0, 0)), 1: ("car", (9, 9, 9))}


class LoadingError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
"""


@pytest.fixture
def predictor(tmp_path, monkeypatch):
    """Five pictures of one colour: image 1 kills its process once, image 2 cannot be loaded."""
    (tmp_path / "own_pictures.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(processes, "_LOOK", -1)
    monkeypatch.setattr(processes, "_STARTING", 0)
    for index in range(5):
        Image.new("RGB", (4, 3), (50 * index,) * 3).save(tmp_path / f"{index}.png")
    torch.save(torch.nn.Conv2d(3, 2, 1).state_dict(), tmp_path / "weights.pth")
    kwargs = dict(in_channels=3, out_channels=2, kernel_size=1)
    yield Predictor(
        results=Results(tmp_path / "results", "net", "grey"),
        model=ModelConfig("net", "torch.nn", "Conv2d", kwargs, tmp_path / "weights.pth"),
        data=DatasetConfig("grey", "own_pictures", "Pictures", {"root": tmp_path}),
        card=model_card(),
        computing=Computing(torch.device("cpu")),
        form="float32",
        predicted_ids=np.full(256, 255, np.uint8),
        source={"network": "net"},
        loaders=2,
    )
    sys.modules.pop("own_pictures", None)


@pytest.mark.promise(8)
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_loading_process_that_is_killed_costs_no_image_and_a_failure_stops_no_other(predictor):
    predicted = dict(predictor.predict([4, 1, 2, 0]))
    assert [*predicted] == [4, 1, 2, 0]
    assert "one and two" in str(predicted.pop(2))
    network = predictor.network
    for index, prediction in predicted.items():
        grey = torch.full((1, 3, 3, 4), np.float32(50 * index) / 255)
        expected = network(grey).softmax(1)[0].permute(1, 2, 0).detach().numpy()
        np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-6)
        assert prediction.image_path.endswith(f"{index}.png")


def test_a_prediction_is_stale_as_soon_as_its_picture_is_another(predictor):
    assert predictor.why_stale(0) == "missing"
    for index, prediction in predictor.predict([0]):
        predictor.store(index, prediction)
    assert predictor.why_stale(0) is None
    path = predictor.samples.samples[0][0]
    os.utime(path, ns=(0, 1))
    assert predictor.why_stale(0) is None  # the bytes are what counts
    Image.new("RGB", (4, 3), (7, 7, 7)).save(path)
    assert predictor.why_stale(0) == "other image.sha256, image.size"


@pytest.mark.promise(4)
def test_what_was_seen_is_predicted_again_as_soon_as_a_file_is_another(predictor, monkeypatch):
    monkeypatch.setattr(seen, "_SETTLED_NS", 0)
    predictor = replace(predictor, loaders=1)
    path = predictor.samples.samples[3][0]

    def counts(**how):
        tally = predict_dataset(Runner(LOG, **how), predictor, [0, 3, 4])
        return tally.done, tally.skipped

    assert [counts() for _ in range(3)] == [(3, 0), (0, 3), (0, 3)]
    Image.new("RGB", (4, 3), (7, 7, 7)).save(path)
    assert [counts() for _ in range(3)] == [(1, 2), (0, 3), (0, 3)]
    file = predictor.results.prediction(4)
    file.write_bytes(file.read_bytes()[:-1])
    with replace(predictor.seen, why=lambda index: None).looking() as note_as_it_is:
        note_as_it_is(4)
    assert [counts(), counts(verify=True), counts()] == [(0, 3), (1, 2), (0, 3)]


def test_what_arrives_again_in_a_process_is_the_same_and_keeps_its_network(predictor, monkeypatch):
    monkeypatch.setattr(kept, "_here", {})
    sent = pickle.dumps(predictor)
    first = pickle.loads(sent)
    network = first.network
    assert pickle.loads(sent) is first and pickle.loads(pickle.dumps(first)).network is network
    assert len(sent) < 3000  # neither network nor dataset is sent
    other = pickle.loads(pickle.dumps(replace(predictor, form="compact")))
    assert other is not first and other.form == "compact"
    assert pickle.loads(sent) is not first  # the other one has taken its place


STRAY = np.array([[0, 200, 200, 255], [1, 1, 1, 1], [24005, 1, 0, 0]], np.uint16)


def labelled(index, labels):
    """A prediction of the fixture's size with such labels."""
    sure = np.broadcast_to(np.float32([1, 0]), (3, 4, 2))
    return Prediction(sure, np.zeros((3, 4), np.uint8), labels, f"{index}.png")


def test_label_ids_without_a_class_are_counted_and_named(predictor, tmp_path):
    predictor.data = DatasetConfig("grey", "own_pictures", "Labelled", {"root": tmp_path})
    for index in range(2):
        predictor._sources[index] = {}
        predictor.store(index, labelled(index, STRAY))
    assert predictor.stray_ids == {200: 4, 24005: 2}
    kept = read_prediction(predictor.results.prediction(0)).ground_truth
    np.testing.assert_array_equal(kept, [[0, 255, 255, 255], [1, 1, 1, 1], [255, 1, 0, 0]])
    predictor._sources[2] = {}
    predictor.store(2, labelled(2, np.full((3, 4), 200, np.uint8)))
    assert read_prediction(predictor.results.prediction(2)).ground_truth is None  # IoUs are unknown
    told = predictor.told_stray_ids(predictor.stray_ids)
    assert "labels of grey have ids that are no class" in told
    assert "200 (16 pixels), 24005 (2 pixels); they count as no label" in told
    predictor._sources[0] = {}
    predictor.store(0, labelled(0, np.zeros((3, 4), np.uint8)))  # its labels were mended
    assert predictor.stray_ids == {200: 14, 24005: 1}


def test_label_ids_without_a_class_are_named_by_a_run_that_skips_their_pictures(
    predictor, tmp_path, caplog
):
    predictor.data = DatasetConfig("grey", "own_pictures", "Labelled", {"root": tmp_path})
    predictor._sources[0] = {}
    predictor.store(0, labelled(0, STRAY))
    another = replace(predictor)  # as another process has it
    another.tell_stray_ids(logging.getLogger())
    assert "24005 (1 pixels); they count as no label" in caplog.text
    another.may_stray = False
    with pytest.raises(SettingError, match="200 .2 pixels., 24005"):
        another.tell_stray_ids(logging.getLogger())


def test_a_label_id_without_a_class_ends_the_run_where_that_is_asked_for(predictor, tmp_path):
    predictor.data = DatasetConfig("grey", "own_pictures", "Labelled", {"root": tmp_path})
    predictor.may_stray = False
    with pytest.raises(SettingError, match=r"200 \(2 pixels\), 24005 \(1 pixels\)"):
        predictor.store(0, labelled(0, STRAY))
    assert not predictor.results.prediction(0).exists()


IN_PROCESSES = """
import sys
from pathlib import Path
from src.run import processes
processes._LOOK, processes._STARTING = -1, 0  # however short the work is
import pred_images
pred_images.ex.run_commandline(["pred_images.py", "with", *sys.argv[1:]])
"""
SHARED_MEMORY = {
    "small": "mount -t tmpfs -o size=64k none /dev/shm",
    "read-only": "mount -t tmpfs -o ro none /dev/shm",
}


@pytest.mark.promise(20)
@pytest.mark.parametrize("kind", SHARED_MEMORY)
def test_stage_1_works_where_processes_can_share_little_memory_or_none(tmp_path, kind):
    change = SHARED_MEMORY[kind]
    if subprocess.run(["unshare", "-m", "sh", "-c", change], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    photos, net = tmp_path / "photos", tmp_path / "net"
    photos.mkdir(), net.mkdir()
    for index in range(6):
        Image.new("RGB", (300, 200), (40 * index,) * 3).save(photos / f"{index}.png")
        np.save(net / f"{index}.npy", np.zeros((3, 50, 75), np.float32))
    settings = dict(dataset=photos, model_name=f"predictions/{net}", io_path=tmp_path / "results")
    words = [f"args.{key}={value}" for key, value in {**settings, "num_cores": 4}.items()]
    call = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{change} && exec "$0" "$@"']
        + [sys.executable, "-c", IN_PROCESSES, *words],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert call.returncode == 0 and "6 done" in call.stderr, call.stderr
    assert call.stderr.count("processes cannot be started") == (kind == "read-only")


def test_more_processes_than_files_may_be_open_for_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (32, 32))
    with pytest.raises(SettingError, match=r"3 processes need 40 open files, and 32 are allowed"):
        processes._check_open_files(3)
    processes._check_open_files(2)
