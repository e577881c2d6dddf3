"""What every run is held to, and the files that it leaves."""

import re

import numpy as np
import torch
from clone import LEARN
from PIL import Image

from src.store import arrays, provenance, tables
from src.store.learnt import read_learnt
from src.store.stored_bytes import StoredBytes

SUFFIXES = ".hdf5", ".p", ".pth"
READERS = {  # by what a file's name begins with, and the kind whose format number it has
    "input": (lambda path: vars(arrays.read_prediction(path)), "prediction"),
    "metrics": (tables.read_table, "segments"),
    "components": (arrays.read_components, "segments"),
    "vectors": (lambda path: vars(tables.read_objects(path)[0]), "vectors"),
    "judged": (lambda path: tables.read_judged(path)[0], "vectors"),
    "embeddings": (lambda path: vars(tables.read_embeddings(path)), "vectors"),
}


def end(run, exitcode=0, counts=None, says=()):
    """It ended with this code, this summary (done, skipped, failed), these words, no traceback."""
    last = run.log[-1500:]
    assert run.exitcode == exitcode, f"exit code {run.exitcode} instead of {exitcode}: {last}"
    assert counts in (None, run.counts), f"{run.counts} instead of {counts}: {last}"
    for words in says:
        assert words in run.log, f"{words!r} is not in the log: {last}"
    assert "Traceback" not in run.log, f"a traceback: {last}"


def whole(*folders):
    """All files below some folders that have their final name open, validate, are of our format."""
    for path in (path for folder in folders for path in finals(folder)):
        content(path)


def undisturbed(place, io_path, step):
    """A step has written the same files as in the reference, of the same content, and no other."""
    outputs = (place.outputs(folder, step) for folder in (io_path, place.reference))
    for tops in zip(*outputs, strict=True):
        ours, theirs = ({path.relative_to(top): path for path in finals(top)} for top in tops)
        assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
        for name, path in ours.items():
            np.testing.assert_equal(content(path), content(theirs[name]), str(path))
    left = [path for path in io_path.rglob(".*") if path.suffix != ".lock"]
    assert not left, left


def images_done(place, io_path, step):
    """How many images of a step have all that it writes about them; 1 for a trained model."""
    if step == LEARN:
        return len([*io_path.glob("learnt/*/learnt.json")])
    numbers = [
        {found[1] for path in finals(folder) if (found := re.fullmatch(r"[a-z]+(\d*)", path.stem))}
        for folder in place.outputs(io_path, step)
    ]
    return len(set.intersection(*numbers))


def finals(folder):
    """All files of the pipeline below a folder that have their final name; no pictures of it."""
    files = [path for path in folder.rglob("[!.]*") if path.suffix in SUFFIXES]
    learnt = [*folder.rglob("learnt.json"), *folder.rglob("labels/**/[!.]*.png")]
    return sorted(files + learnt)


def state(folder):
    """What changes with a file below a folder: its content's place, time and size."""
    stats = {path: path.stat() for path in finals(folder)}
    return {path: (s.st_ino, s.st_mtime_ns, s.st_size) for path, s in stats.items()}


def content(path):
    """All that a file of the pipeline holds, as its reader gives it, with what it was made from."""
    if path.suffix == ".json":
        return read_learnt(path.parents[2], path.parent.name)
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    if path.suffix == ".pth":
        return _plain(torch.load(path, weights_only=True))
    read, kind = READERS[re.match("[a-z]+", path.name)[0]]
    made_from = provenance.made_from(path)
    assert made_from["format"] == provenance.FORMATS[kind], path
    return {"made_from": made_from, "content": _plain(read(path))}


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, torch.Tensor):
        return value.numpy()
    is_mixed = isinstance(value, np.ndarray) and value.dtype.hasobject
    return value.tolist() if is_mixed or isinstance(value, StoredBytes) else value
