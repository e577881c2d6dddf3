"""Files that would run code, or claim what is not so: every reader refuses them by name."""

import hashlib
import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from functools import partial
from operator import methodcaller
from pathlib import Path

import h5py
import numpy as np
import pytest
import skops.io
import torch
import torchvision
from conftest import REPOSITORY
from factories import object_table, store_image
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor

import compute_embeddings
import discover_embedding_space
import eval_anomaly
import eval_budget
import eval_groups
import eval_iou
import eval_retrieval
import eval_selection
from configuration import CONFIG, ModelConfig
from src import pictures
from src.datasets import read_image
from src.datasets.custom import CustomDataset
from src.discover.segments import Segments
from src.embedding import networks as embedding_networks
from src.embedding import suspects
from src.embedding.table import read_table as read_objects_table
from src.errors import RunError, SettingError
from src.MetaSeg import main as stage_2
from src.MetaSeg import meta_models, meta_training, segment_tables
from src.MetaSeg import stage as measuring
from src.model import classes_json
from src.records import Prediction
from src.store import arrays, names, provenance, tables, tags
from src.store.paths import Results, name_path
from src.store.weights import load_weights, read_torch

CPU = torch.device("cpu")
NAMES = CONFIG.MODEL_NAME, CONFIG.DATASET.name
RESNET = ModelConfig("resnet18", "torchvision.models", "resnet18", {"weights": None}, None)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def hidden(tmp_path):
    """A trap deep inside what a file may hold; afterwards it must not have snapped."""
    yield {"S": [1, {"deep": [Trap(tmp_path / "trap")]}]}
    assert not (tmp_path / "trap").exists()


# Tables

TABLES = {
    tables.read_table: "metrics0.p",
    provenance.made_from: "metrics0.p",
    arrays.read_components: "components0.p",
    tables.read_embeddings: "embeddings_1_1_a.p",
    read_objects_table: "embeddings_1_1_a.p",
    partial(suspects.load_objects, model_name="net", io_path="."): "embeddings_1_1_a.p",
    tables.read_objects: "vectors0.p",
}


def sealed(content):
    """The content with the checksum that files of this system have at their end."""
    return content + b"crc32 of all before: %08x" % zlib.crc32(content)


@pytest.mark.promise(12)
@pytest.mark.parametrize("finish", [bytes, sealed])
@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("read", TABLES)
def test_a_pickle_that_would_run_code_is_refused_by_name(read, protocol, finish, hidden, tmp_path):
    path = tmp_path / TABLES[read]
    path.write_bytes(finish(pickle.dumps(hidden, protocol)))
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read .*mkdir, which is refused"):
        read(path)


@pytest.mark.promise(12)
@pytest.mark.parametrize("script", [compute_embeddings, discover_embedding_space])
def test_a_hostile_load_file_is_refused_by_the_scripts(script, hidden, tmp_path):
    path = tmp_path / "embeddings_1_1_a.p"
    path.write_bytes(pickle.dumps(hidden))
    changes = {"args": {"load_file": str(path), "io_path": str(tmp_path)}}
    if script is discover_embedding_space:
        changes["mainplot"] = {"save_path": str(tmp_path / "map.png")}
    with pytest.raises(RunError, match="embeddings_1_1_a.p cannot be read .*refused"):
        script.ex.run(config_updates=changes)


@pytest.mark.promise(12)
@pytest.mark.parametrize("script", [eval_budget, eval_groups, eval_retrieval, eval_selection])
def test_a_hostile_table_is_refused_by_the_evaluation(script, hidden, tmp_path):
    size = dict(min_height=9, min_width=9)
    path = Results(tmp_path, NAMES[0]).embeddings((9, 9), CONFIG.EMBEDDING_NETWORK)
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(hidden))
    with pytest.raises(RunError, match=f"{path.name} cannot be read .*refused"):
        script.ex.run(config_updates={"args": {"io_path": str(tmp_path), **size}})


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_pickles_of_either_numpy_are_read_in_every_protocol(core, protocol, tmp_path):
    kinds = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "<U3", "S3"]
    table = {kind: np.ones((2, 3), kind) for kind in [*kinds, ">f4", ">i8"]}
    table |= {f"of {kind}": [np.ones(1, kind)[0]] for kind in kinds}
    table |= {
        "none": np.zeros((0, 4)),
        "columns": np.ones((2, 3), order="F"),
        "bytes": [b"", b"\xff"],
    }
    (tmp_path / "metrics0.p").write_bytes(as_named(pickle.dumps(table, protocol), core))
    again = tables.read_table(tmp_path / "metrics0.p")
    np.testing.assert_equal(again, table)
    for kind in kinds:
        assert again[kind].dtype == table[kind].dtype
        assert type(again[f"of {kind}"][0]) is type(table[f"of {kind}"][0])


def as_named(content, core):
    """A pickle with NumPy's modules under the name that another version has for them."""
    frames = [at for opcode, _, at in pickletools.genops(content) if opcode.name == "FRAME"]
    for at in reversed(frames):  # their lengths would not fit any more
        content = content[:at] + content[at + 9 :]
    here = np.zeros(1).__reduce__()[0].__module__.removesuffix(".multiarray").encode()
    for module in (b".multiarray", b".numeric"):
        old, new = here + module, core + module
        content = content.replace(old + b"\n", new + b"\n")  # protocols 2 and 3
        content = content.replace(bytes([len(old)]) + old, bytes([len(new)]) + new)
    assert content.count(core + b".")
    return content


LIES = {  # pickles that ask for nothing unknown
    # bytes of a table that are taken for pointers: a dtype whose state says so
    "scalar": b"\x80\x03cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n"
    b"X\x01\x00\x00\x00O\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbC\x08AAAAAAAA\x86R.",
    "field": b"\x80\x03cnumpy\ndtype\nX\x02\x00\x00\x00V8\x89\x88\x87R(K\x03X\x01\x00\x00\x00|N"
    b"X\x01\x00\x00\x00a\x85}X\x01\x00\x00\x00acnumpy\ndtype\nX\x01\x00\x00\x00O\x89\x88\x87R"
    b"K\x00\x86sK\x08K\x01K\x00tb.",
    # lengths, shapes and numbers far beyond the file
    "memo": b"\x80\x04Nr\xff\xff\xff\xff.",
    "bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",
    "bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",
    "text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00.",
    "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\x00\x00\x00.",
    "shape": b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    b"\x8a\x06\xff\xff\xff\xff\xff\x00\x85C\x01d\x87R.",
    # a function of NumPy is given another attribute
    "function": b"\x80\x03cnumpy.core.numeric\n_frombuffer\n}X\x01\x00\x00\x00aK\x01sb.",
}


@pytest.mark.promise(12)
def test_a_table_that_lies_about_itself_is_named_and_does_no_harm(tmp_path):
    contents = LIES | {f"{name}_sealed": sealed(content) for name, content in LIES.items()}
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics0.p").write_bytes(content)
    code = """
import resource, sys
from pathlib import Path
from src.store import tables
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
for path in sorted(Path(sys.argv[1]).glob("*/metrics0.p")):
    try:
        tables.read_table(path)
    except ValueError as error:
        assert str(path) in str(error), error
        print(path.parent.name)
"""
    read = [sys.executable, "-c", code, tmp_path]  # where it does harm, it ends the process
    done = subprocess.run(read, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(contents)


BOMBS = {  # what takes no place in a file, and much time or memory where it is read
    "a memo": b"\x80\x04Nr\x80\xf0\xfa\x02.",  # that would be 0.8 GB
    "deep lists": b"\x80\x04" + b"]" * 500 + b"a" * 499 + b".",
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "dicts": b"\x80\x04}\x94" + b"".join(b"}\x94(K\x00h%cK\x01h%cu" % (k, k) for k in range(40)),
    "lists": b"\x80\x04]\x94" + b"".join(b"]\x94(h%ch%ce" % (k, k) for k in range(40)),
    "tuples": b"\x80\x04)\x94" + b"".join(b"h%ch%c\x86\x94" % (k, k) for k in range(40)),
}


@pytest.mark.promise(18)
@pytest.mark.parametrize("finish", [bytes, sealed])
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_table_that_would_grow_without_end_is_refused(name, finish, tmp_path):
    path = tmp_path / "metrics0.p"
    path.write_bytes(finish(BOMBS[name].removesuffix(b".") + b"."))
    tracemalloc.start()
    # what is only remembered is nothing in the end
    why = "must hold a dict" if name == "a memo" else "cannot be read"
    with pytest.raises(ValueError, match=f"metrics0.p {why}"):
        tables.read_table(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10e6


@pytest.mark.promise(18)
@pytest.mark.parametrize("finish", [bytes, sealed])
def test_nested_keys_whose_hash_never_ends_are_refused(finish, tmp_path):
    path = tmp_path / "metrics0.p"
    tuples = BOMBS["tuples"].removeprefix(b"\x80\x04")
    path.write_bytes(finish(b"\x80\x04" + tuples + b"}h\x28Ns."))
    with pytest.raises(ValueError, match="metrics0.p cannot be read .*nested keys"):
        tables.read_table(path)


def one_object(**columns):
    """A table of one object, in the form that files have, with some columns of a stranger's."""
    columns = {name: [value] for name, value in columns.items()}
    return {
        "image_path": ["a.png"], "dataset": ["streets"], "model_name": ["net"],
        "image_index": np.array([0]), "image_size": np.array([[9, 9]]),
        "iou_pred": [np.array([0.5], np.float32)], "embeddings": np.zeros((1, 3), np.float32),
        "box": np.array([[0, 0, 4, 4]]), "component_index": np.array([1]),
        "image_level_index": np.array([0]), "gt": np.array([1]), "pred": np.array([0]),
    } | columns  # fmt: skip


STRANGE = {
    "a dataset above": dict(dataset="../../x"),
    "an absolute dataset": dict(dataset="/etc"),
    "a dataset of folders": dict(dataset="a/b"),
    "no dataset": dict(dataset=""),
    "the folder above": dict(dataset=".."),
    "a dataset that is none": dict(dataset=5),
    "a model above": dict(model_name="../x"),
    "half a surrogate": dict(image_path="\ud800.png"),
    "a path that ends early": dict(image_path="a\0.png"),
    "a picture below 0": dict(image_index=-1),
    "a row below 0": dict(image_level_index=-1),
    "a row of no picture": dict(image_level_index=1),
    "a segment of none": dict(component_index=2),
    "half a segment": dict(component_index=1.5),
    "no number for a class": dict(gt=np.nan),
    "a class beyond all numbers": dict(gt=np.inf),
    "complex vectors": dict(embeddings=np.full(3, 1j)),
    "segment 0": dict(component_index=0),
    "a segment beyond all numbers": dict(component_index=2**70),
    "a box below 0": dict(box=[-9, 0, 4, 4]),
    "a dataset that is no text": dict(dataset="\udcff"),
    "a thumbnail in words": dict(thumbnail="x"),
    "a thumbnail beyond the end": dict(thumbnail_sizes=10**6),
    "a thumbnail before the beginning": dict(thumbnail_sizes=-1),
}


@pytest.mark.promise(18)
@pytest.mark.parametrize("name", STRANGE)
def test_a_table_that_leads_elsewhere_is_refused_by_name(name, tmp_path):
    path = tmp_path / "embeddings_1_1_a.p"
    tables.write_table(path, one_object(), {})
    assert len(tables.read_embeddings(path)) == 1
    tables.write_table(path, one_object(**STRANGE[name]), {})
    with pytest.raises(SettingError, match="embeddings_1_1_a.p cannot be read"):
        tables.read_embeddings(path)


@pytest.mark.promise(18)
@pytest.mark.parametrize("facts", [{"reduced_by": 5}, {"made_from": [1]}])
def test_a_table_that_says_nonsense_of_its_origin_is_refused_by_name(facts, tmp_path):
    path = tmp_path / "embeddings_1_1_a.p"
    path.write_bytes(pickle.dumps(one_object() | facts))
    with pytest.raises(SettingError, match="embeddings_1_1_a.p cannot be read"):
        tables.read_embeddings(path)


@pytest.mark.promise(18)
def test_the_explorer_shows_a_table_of_odd_thumbnails_boxes_and_counts(tmp_path):
    pictures.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    table = object_table(
        2,
        plot_embeddings=np.zeros((2, 2), np.float32),
        image_path=str(tmp_path / "a.png"),
        image_predicted_iou=[np.ones(2, np.float32)] * 2,
        box=[[0, 0, 4, 4], [20, 20, 24, 24]],
        thumbnail=[b"\xff\xd8\xffx", None],
    )
    segments = Segments(table, {}, {}, tmp_path)
    for row in (0, 1):
        assert segments.thumbnail_or_blank(row) == pictures.blank_thumbnail()
    assert [crop is None for _, crop in segments.crops([0, 1])] == [False, True]
    with pytest.raises(ValueError, match="lies outside its picture"):
        segments.crop(1)
    path = Results(tmp_path, "net", "streets").components(0)
    arrays.write_components(path, np.full((8, 8), 3, np.int32), {})
    with pytest.raises(ValueError, match="2 segments of image 0, stage 2 others"):
        segments.overview(0)


@pytest.mark.promise(18)
@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "..", ".", "", "a\0"])
def test_no_name_leads_out_of_the_results(name, tmp_path):
    for places in (dict(dataset=name), dict(model=name)):
        with pytest.raises(SettingError, match="no name of a dataset or model"):
            Results(tmp_path, **places)
    with pytest.raises(SettingError, match="no name of a dataset or model"):
        name_path(tmp_path, "datasets", name)


@pytest.mark.promise(18)
def test_a_picture_that_is_a_pipe_or_a_device_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="cannot be used: it is no file"):
            read_image(path)
    assert CustomDataset(tmp_path).samples == [(tmp_path / "a.png", None)]  # and will be named


def pipe(path):
    os.mkfifo(path)


NO_FILES = {  # in the place of a file: what never begins, never ends, or cannot be opened
    "a pipe": pipe,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a link in a circle": lambda path: path.symlink_to(path.name),
}
READERS = {
    "tags.json": tags.read_tags,
    "overview.json": partial(tables.read_overview, made_from={}),
    "classes.json": lambda path: classes_json.describe_by(path.parent),
    "0.npy": arrays.read_map,
    "a.pth": read_torch,
    "a.png": provenance.content,
    "names/datasets/x.json": lambda path: names.read(path.parents[2], "datasets", "x"),
}


@pytest.mark.promise(18)
@pytest.mark.parametrize("what", NO_FILES)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_not_opened(name, what, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    NO_FILES[what](path)
    with pytest.raises((SettingError, ValueError, OSError), match=name):
        READERS[name](path)


# Arrays


def outside_storage(file):
    del file["prediction"]
    outer = [("/etc/passwd", 0, 72)]
    file.create_dataset("prediction", (8, 9), "u1", external=outer)


def external_link(file):
    with h5py.File(Path(file.filename).with_name("other.hdf5"), "w") as other:
        other["prediction"] = np.zeros((8, 9), np.uint8)
    del file["prediction"]
    file["prediction"] = h5py.ExternalLink("other.hdf5", "/prediction")


def soft_link(file):
    del file["prediction"]
    file["prediction"] = h5py.SoftLink("/ground_truths")


def virtual(file):
    del file["prediction"]
    layout = h5py.VirtualLayout((8, 9), "u1")
    layout[:] = h5py.VirtualSource("other.hdf5", "prediction", (8, 9))
    file.create_virtual_dataset("prediction", layout)


def declared(name, shape, **how):
    """Replaces a dataset by one that only says how large it is."""

    def change(file):
        del file[name]
        file.create_dataset(name, shape, "u1", **how)

    return change


def constant(file):
    """Compresses 4 billion zeros to hardly a byte."""
    del file["prediction"], file["ground_truths"]
    for name in ("prediction", "ground_truths"):
        shape = 2**16, 2**16
        made = file.create_dataset(name, shape, "u1", chunks=shape[:1] + (2**15,), compression=1)
        for at in (0, 2**15):
            made.id.write_direct_chunk((0, at), b"x")


def replaced(name, values):
    """Replaces a dataset by other values."""

    def change(file):
        del file[name]
        file[name] = values

    return change


def one_probability(value):
    values = np.full((8, 9, 2), 0.5, np.float32)
    values[3, 4, 1] = value
    return replaced("probabilities", values)


def scores_between(low, high):
    def change(file):
        file["scores"] = np.zeros((1, 8, 9), np.uint16)
        file["scores"].attrs.update(names=["energy"], low=[low], high=[high])

    return change


OUTSIDE = {
    "storage elsewhere": outside_storage,
    "a link to another file": external_link,
    "a link inside": soft_link,
    "a virtual array": virtual,
    "nothing behind a shape": declared("prediction", (8, 9), chunks=(8, 9)),
    "a large shape": declared("ground_truths", (2**20, 2**20), chunks=(2**10, 2**10)),
    "4 billion values in a few bytes": constant,
    "another picture's size": lambda file: file.move("wide", "prediction"),
    "classes of another size": lambda file: file.move("wide", "probabilities"),
    "a group": lambda file: file.create_group("prediction"),
    "a probability above 1": one_probability(7),
    "a probability below 0": one_probability(-1),
    "no number for a probability": one_probability(np.nan),
    "steps below 0": replaced("probabilities", np.full((2, 8, 9), -1, np.int8)),
    "no classes": replaced("probabilities", np.zeros((8, 9, 0), np.float32)),
    "scores without end": scores_between(0.0, np.inf),
    "a path that ends early": replaced("file_names", np.array([b"a\0.png"])),
    "no path": replaced("file_names", np.zeros(0, "S3")),
}


@pytest.mark.promise(19)
@pytest.mark.parametrize("name", OUTSIDE)
def test_an_array_that_is_not_in_its_file_is_refused_by_name(name, tmp_path):
    path = tmp_path / "input0.hdf5"
    with h5py.File(path, "w") as file:  # without a checksum, as the original's
        file["prediction"] = file["ground_truths"] = np.zeros((8, 9), np.uint8)
        file["probabilities"] = np.ones((8, 9, 2), np.float32)
        file["file_names"] = np.array([b"a.png"])
    assert arrays.read_prediction(path).prediction.shape == (8, 9)
    with h5py.File(path, "a") as file:
        file["wide"] = np.zeros((9, 8), np.uint8)
        if name in ("another picture's size", "a group"):
            del file["prediction"]
        if name == "classes of another size":
            del file["probabilities"]
        OUTSIDE[name](file)
    with pytest.raises(ValueError, match="input0.hdf5 cannot be read"):
        arrays.read_prediction(path)


@pytest.mark.promise(19)
@pytest.mark.parametrize(
    "values",
    [np.full((8, 9), 0.5), np.full((8, 9), 2**40), np.zeros((8, 9, 2), int), np.array(["a"])],
    ids=["halves", "beyond all numbers", "three axes", "texts"],
)
@pytest.mark.parametrize("suffix", [".hdf5", ".p"])
def test_a_component_map_that_is_none_is_refused_by_name(suffix, values, tmp_path):
    path = tmp_path / f"components0{suffix}"
    if suffix == ".p":
        path.write_bytes(pickle.dumps(values))
    else:
        with h5py.File(path, "w") as file:
            file["components"] = values.astype("S" if values.dtype.kind == "U" else values.dtype)
    with pytest.raises(ValueError, match=f"{path.name} cannot be read"):
        arrays.read_components(path.with_suffix(".hdf5"))


# Weights


KINDS = [f"{kind} {protocol}" for kind in ("pickle", "zip") for protocol in range(2, 6)]
KINDS += ["old", "state_dict", "beside", "safetensors", "array", "script"]


def hostile_files(folder, hidden):
    """Files by the names of KINDS: what may be called weights and is a trap."""
    paths = {}

    def path(name, suffix=".pth"):
        paths[name] = folder / f"{name}{suffix}"
        return paths[name]

    for protocol in range(2, 6):
        path(f"pickle {protocol}").write_bytes(pickle.dumps(hidden, protocol))
        torch.save(hidden, path(f"zip {protocol}"), pickle_protocol=protocol)
    torch.save(hidden, path("old"), _use_new_zipfile_serialization=False)
    torch.save({"state_dict": hidden}, path("state_dict"))
    torch.save({"weight": torch.zeros(1), "beside": hidden}, path("beside"))
    path("safetensors", ".safetensors").write_bytes(pickle.dumps(hidden))
    with path("array").open("wb") as file:
        np.save(file, np.array([hidden]), allow_pickle=True)
    with warnings.catch_warnings():  # torch says that its scripts are old
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path("script"))
    return paths


WEIGHTS = {
    "a network": lambda path: load_weights(torch.nn.Linear(1, 1), path, "net"),
    "a meta model": meta_models.load_meta_model,
    "torchvision": lambda path: embed(compute_embeddings.choose_network("resnet18", path, None)),
    "timm": lambda path: embed(compute_embeddings.choose_network("timm/resnet10t", path, None)),
}


def embed(entry):
    return embedding_networks.load_embedding_network(entry, CPU)


@pytest.mark.promise(12)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loader", WEIGHTS)
def test_weights_that_would_run_code_are_refused_by_name(loader, kind, hidden, tmp_path):
    if loader == "timm":
        pytest.importorskip("timm")
    path = hostile_files(tmp_path, hidden)[kind]
    with pytest.raises(SettingError, match=rf"{path.name} "):
        WEIGHTS[loader](path)
    assert meta_models.made_from(path) is None


def checkpoint_of(content, path):
    """A meta model of two features that claims to hold a regressor as these bytes."""
    statistics = {name: torch.ones(2, dtype=torch.float64) for name in ("mean", "std")}
    regressor = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    entries = {"kind": "regressor", "regressor": regressor, "feature_names": ["E", "S"]}
    torch.save({"format": 2, "made_from": {}, **entries, **statistics}, path)


def fitted(regressor):
    rng = np.random.default_rng(0)
    return regressor.fit(rng.random((60, 2)), rng.random(60) > 0.5)


def changed(content, member, change):
    """A zip file with one member changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith(member) else data)
    return buffer.getvalue()


def pickled_array(trap):
    buffer = io.BytesIO()
    np.save(buffer, np.array([trap]), allow_pickle=True)
    return lambda data: buffer.getvalue()


def calling_mkdir(data):
    """The schema of a regressor with a function where its penalty was, as an old skops wrote it."""
    schema = json.loads(data) | {"protocol": 0}
    function = {"module_path": "os", "function": "mkdir"}
    schema["content"]["content"]["alpha"] = {
        "__class__": "function", "__module__": "builtins", "__loader__": "FunctionNode",
        "content": function,
    }  # fmt: skip
    return json.dumps(schema).encode()


REGRESSORS = {  # what a trap becomes, and what the refusal names
    "a call": (lambda trap: skops.io.dumps(partial(os.mkdir, trap.folder)), "posix.mkdir"),
    "a method": (lambda trap: skops.io.dumps(Path(trap.folder).mkdir), "Path.mkdir"),
    "an operator": (lambda trap: skops.io.dumps(methodcaller("mkdir")), "operator.methodcaller"),
    "an object": (lambda trap: skops.io.dumps(trap), "Trap, which is refused"),
    "an attribute": (lambda trap: skops.io.dumps(Ridge(alpha=os.mkdir)), "posix.mkdir"),
    "deep inside": (lambda trap: skops.io.dumps({"S": [1, {"deep": [trap]}]}), "Trap, which is"),
    "an old function": (
        lambda trap: changed(skops.io.dumps(fitted(Ridge())), "schema.json", calling_mkdir),
        "os.mkdir",
    ),
    "a pickled array": (
        lambda trap: changed(skops.io.dumps(fitted(Ridge())), ".npy", pickled_array(trap)),
        "allow_pickle=False",
    ),
    "a pickle": (pickle.dumps, "not a zip file"),
    "a classifier": (lambda trap: skops.io.dumps(fitted(LogisticRegression())), "is no regressor"),
}


@pytest.mark.promise(12)
@pytest.mark.parametrize("what", REGRESSORS)
def test_a_regressor_that_would_run_code_is_refused_by_name(what, hidden, tmp_path):
    make, named = REGRESSORS[what]
    content, path = make(hidden["S"][1]["deep"][0]), tmp_path / "meta.pth"
    checkpoint_of(content, path)
    with pytest.raises(SettingError, match=rf"meta\.pth is no checkpoint .*{named}"):
        meta_models.load_meta_model(path)
    path.write_bytes(content)  # without the checkpoint around it
    with pytest.raises(SettingError, match=r"meta\.pth is no checkpoint"):
        meta_models.load_meta_model(path)
    assert meta_models.made_from(path) is None


def far_child(tree, name):
    """A decision tree with a child that lies far beyond its nodes."""
    state = tree.__getstate__()
    state["nodes"][name][0] = 10**9
    tree.__setstate__(state)


def lie_of(regressor):
    """Make a fitted regressor's compiled code read or write where nothing of it is."""
    match regressor:
        case RandomForestRegressor():
            far_child(regressor.estimators_[-1].tree_, "right_child")
        case ExtraTreesRegressor():
            far_child(regressor.estimators_[0].tree_, "feature")
        case DecisionTreeRegressor():  # round in circles
            state = regressor.tree_.__getstate__()
            state["nodes"]["left_child"][0] = state["nodes"]["right_child"][0] = 0
            regressor.tree_.__setstate__(state)
        case HistGradientBoostingRegressor():
            regressor._predictors[-1][0].nodes["left"][0] = 2**31
        case GradientBoostingRegressor():  # of two outputs, where there is one
            regressor.estimators_ = regressor.estimators_.repeat(2, axis=1)
        case SVR():
            regressor._dual_coef_ = regressor._dual_coef_[:, :1].copy()
    return regressor


@pytest.mark.promise(12)
@pytest.mark.parametrize(
    "kind",
    [RandomForestRegressor, ExtraTreesRegressor, DecisionTreeRegressor,
     HistGradientBoostingRegressor, GradientBoostingRegressor, SVR],
)  # fmt: skip
def test_a_regressor_that_leads_out_of_its_arrays_is_refused(kind, tmp_path):
    regressor, path = fitted(kind()), tmp_path / "meta.pth"
    checkpoint_of(skops.io.dumps(regressor), path)
    assert meta_models.load_meta_model(path).regressor.predict([[0, 0]]).shape == (1,)
    checkpoint_of(skops.io.dumps(lie_of(regressor)), path)
    with pytest.raises(SettingError, match=r"meta\.pth is no .* leads out of its own arrays"):
        meta_models.load_meta_model(path)


@pytest.mark.promise(12)
def test_published_weights_that_would_run_code_are_refused_by_name(hidden, tmp_path, monkeypatch):
    """A file in torchvision's folder, with the right checksum in its name."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(hidden, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    path = (folder / "new.pth").rename(folder / f"resnet18-{digest[:8]}.pth")
    published = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(published, "url", f"https://example.org/{path.name}")
    with pytest.raises(SettingError, match=f"{path.name} .*must be a state dict"):
        embed(RESNET._replace(kwargs={"weights": "IMAGENET1K_V1"}))


@pytest.mark.promise(12)
@pytest.mark.parametrize("script", [eval_anomaly, eval_iou, compute_embeddings, stage_2])
def test_hostile_meta_weights_are_refused_by_the_scripts(script, hidden, tmp_path):
    measure(tmp_path)
    torch.save(hidden, tmp_path / "meta.pth")
    changes = {"io_path": str(tmp_path), "meta_weights": str(tmp_path / "meta.pth")}
    if script is stage_2:
        changes["visualize_rating"] = True
    with pytest.raises(SettingError, match="meta.pth is no checkpoint"):
        script.ex.run(config_updates={"args": changes})


def measure(folder):
    """Stages 1 and 2 of an image, without further maps."""
    results = Results(folder, *NAMES)
    p = np.full((8, 9, 19), 0.01, np.float32)
    p[:, :4, 3] = p[:, 4:, 5] = 0.82
    prediction = Prediction(p, p.argmax(-1), np.zeros((8, 9), np.uint8), "x.png")
    store_image(results, 0, prediction, np.zeros(256, np.uint8))
    return results


@pytest.mark.parametrize("damage", ["hostile", "cut", "flipped", "empty", "another"])
def test_a_training_whose_progress_cannot_be_read_begins_anew(damage, tmp_path, caplog, hidden):
    path = tmp_path / "progress"
    interrupted(path)
    content = bytearray(path.read_bytes())
    if damage == "hostile":
        torch.save(hidden, path)
    elif damage == "another":
        torch.save({**torch.load(path), "random": None}, path)
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(dict(cut=content[:-900], flipped=content, empty=b"")[damage])
    again, whole = training(progress_path=path), training()
    ours, expected = again.regressor.state_dict(), whole.regressor.state_dict()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path} cannot be read, the training begins anew")


def interrupted(path):
    def stop(epoch, *losses):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(progress_path=path, report=stop)


def training(**options):
    rng = np.random.default_rng(0)
    metrics = {name: rng.random(40) for name in ("S", "E", "class", "iou")}
    table = segment_tables.segment_table([(0, metrics)])
    entry = ModelConfig("meta_nn", "src.MetaSeg.meta_nn", "MetaNN", {}, None)
    return meta_training.fit(entry, table, table, seed=0, epochs=4, batch_size=16, **options)


# Damage


@settings(max_examples=300)
@given(st.data())
def test_damaged_weights_are_named_or_the_very_same(tmp_path_factory, data):
    torch.manual_seed(0)
    saved = torch.nn.Linear(9, 7)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(saved.state_dict(), folder / "weights.pth")
    content = bytearray((folder / "weights.pth").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    bit = data.draw(st.integers(-1, 7))
    content[at:] = (
        content[at:at] if bit < 0 else bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
    )
    (folder / "weights.pth").write_bytes(content)
    loaded = torch.nn.Linear(9, 7)
    try:
        load_weights(loaded, folder / "weights.pth", "net")
    except SettingError as error:
        assert str(folder / "weights.pth") in str(error)
    else:
        assert torch.equal(loaded.weight, saved.weight) and torch.equal(loaded.bias, saved.bias)


def test_a_damaged_meta_model_is_named_and_counts_as_made_from_nothing(tmp_path):
    path = tmp_path / "meta.pth"
    meta_models.save_meta_model(path, training(), {"datasets": ["streets"]})
    content, mean = bytearray(path.read_bytes()), torch.load(path)["mean"].numpy().tobytes()
    content[content.index(mean)] ^= 1  # torch would not notice
    path.write_bytes(content)
    with pytest.raises(SettingError, match="meta.pth is no checkpoint .*checksums do not fit"):
        meta_models.load_meta_model(path)
    assert meta_models.made_from(path) is None


# Maps of the user's own, tags, lists


@pytest.mark.parametrize("what", ["objects", "a pickle", "text", "cut", "names"])
def test_a_heat_map_that_holds_no_numbers_is_refused_by_name(what, hidden, tmp_path):
    results = measure(tmp_path)
    path = tmp_path / "0.npy"
    if what == "objects":
        np.save(path, np.full((8, 9), hidden), allow_pickle=True)
    else:
        np.save(path, np.full((8, 9), "a") if what == "names" else np.ones((8, 9)))
        content = dict(text=b"1 2", cut=path.read_bytes()[:150], names=path.read_bytes())
        path.write_bytes(content.get(what, pickle.dumps(hidden)))
    with pytest.raises(ValueError, match="0.npy must hold a map of numbers"):
        measuring.measure_image(0, results, np.zeros(256, np.uint8), {"own": tmp_path}, ahead=1)


@pytest.mark.promise(12)
def test_a_hostile_heat_map_fails_its_image_in_stage_2(hidden, tmp_path):
    measure(tmp_path)
    np.save(tmp_path / "0.npy", np.full((8, 9), hidden), allow_pickle=True)
    own = {"io_path": str(tmp_path), "heatmaps": {"own": str(tmp_path)}, "num_cores": 1}
    with pytest.raises(RunError, match="image 0: .*0.npy must hold a map of numbers"):
        stage_2.ex.run(config_updates={"args": own})


TAG = dict(dataset="a", image_index=0, component_index=1, box=[0] * 4, tag="b")
WRONG = [
    {"box": [1, 2]}, {"box": [1, 2, 3, "4"]}, {"tag": 5}, {"image_index": 1.5}, {"dataset": None},
    {"image_index": float("inf")}, {"component_index": True},
]  # fmt: skip
BROKEN_TAGS = [
    "", "{", "[]", "null", '{"tags": null}', '{"tags": ""}', '{"tags": {}}', '{"tags": [1]}',
    '{"tags": [{}]}', "\xff", "[" * 100_000, *(json.dumps({"tags": [TAG | w]}) for w in WRONG),
]  # fmt: skip


@pytest.mark.parametrize("content", BROKEN_TAGS, ids=range(len(BROKEN_TAGS)))
def test_broken_tags_are_named_and_stay_as_they_are(content, tmp_path):
    path = tmp_path / "embeddings_1_1_a_tags.json"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(SettingError, match=f"{path.name} is broken .*mend it or move it away"):
        tags.read_tags(path)
    assert path.read_bytes() == content.encode("latin1")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "5", '{"classes": []}', "[" * 100_000, '{"classes": 5, "made_from": {}}'],
)
def test_a_broken_list_of_classes_is_named(content, tmp_path):
    path = tmp_path / "overview.json"
    path.write_text(content)
    with pytest.raises(SettingError, match=r"overview.json .*; run search_classes.py"):
        tables.read_overview(path, {})


@pytest.mark.promise(12)
@pytest.mark.parametrize("suffix", ["json", "pickle", "yaml"])
def test_a_file_of_settings_that_would_run_code_is_refused_by_name(suffix, hidden, tmp_path):
    path = tmp_path / f"settings.{suffix}"
    call = {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": [str(tmp_path / "trap")]}]}
    content = {
        "json": json.dumps({"args": {"dataset": call}}).encode(),
        "pickle": pickle.dumps({"args": hidden}),
        "yaml": f"args: !!python/object/apply:os.mkdir [{tmp_path / 'trap'}]".encode(),
    }
    path.write_bytes(content[suffix])
    with pytest.raises(SystemExit, match=path.name):
        eval_iou.ex.run_commandline(["eval_iou.py", "with", str(path)])


@pytest.mark.promise(12)
def test_a_thumbnail_is_a_jpeg_and_nothing_that_starts_other_programs():
    with pytest.raises(OSError, match="cannot identify image file"):
        pictures.decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
