"""What each kind of file depends on, in the order of the pipeline, and when it is stale.

Files of the user are told apart by their content, wherever they lie and whenever they were copied.
"""

import hashlib
from pathlib import Path

from src.errors import missing_weights
from src.store import arrays, tables
from src.store.files import check_file
from src.store.sealed import as_json, as_stored, existing

FORMATS = {  # of each kind of file; one of another number is made again
    "prediction": 3,
    "segments": 3,  # metrics and component maps
    "vectors": 4,  # of one picture, and the table of all
    "classes": 3,  # of one picture, and the overview of all
}
OTHER_FORMAT = "made by another version of this project"
_SEEN = "seen"  # what is noted only to save reading a file again


# what files depend on


def of_prediction(settings, image, labels, output=None, known=None):
    """What a prediction depends on.

    Parameters
    ----------
    settings : dict
        The network, what its inputs are normalised by, how it computes, what is stored.
    image, labels : path or None
        The picture and its label file; None: there is none.
    output : path, optional
        The file of what another program predicted.
    known : dict, optional
        What a file of the same picture says that it was made from, see `content`.
    """
    known = known or {}
    paths = {"image": image, "labels": labels} | ({"output": output} if output else {})
    files = {name: path and content(path, known.get(name)) for name, path in paths.items()}
    return _stored("prediction", **settings, **files)


def of_segments(prediction, predicted_ids, heatmaps=None, known=None):
    """What metrics and component map of a picture depend on.

    Parameters
    ----------
    prediction : dict
        What its prediction was made from.
    predicted_ids : ndarray of shape (256,), uint8
        From true to predicted ids.
    heatmaps : dict of str to path, optional
        Files of further heat maps.
    known
        As of `of_prediction`.
    """
    facts = {"prediction": prediction, "predicted_ids": predicted_ids}
    if heatmaps:
        known = (known or {}).get("heatmaps", {})
        facts["heatmaps"] = {name: content(heatmaps[name], known.get(name)) for name in heatmaps}
    return _stored("segments", **facts)


def of_vectors(segments, selection, network):
    """What the vectors of a picture depend on.

    Parameters
    ----------
    segments : str
        Digest of what its segments were made from.
    selection : dict
        What chooses among them: the meta model, thresholds and sizes.
    network : dict
        What embeds them (`net`), and the size that it scales crops to (`crop_size`).
    """
    return _stored("vectors", segments=segments, selection=selection, **network)


def of_embeddings(network, datasets):
    """What the table of all objects depends on: the network, and the pictures of each dataset."""
    return _stored("vectors", datasets=datasets, **network)


def of_known(network, selection, dataset, segments):
    """What the vectors of known segments depend on.

    `network` and `selection` are as of `of_vectors`, the latter without thresholds; `segments` are
    the index of each picture of the dataset, and the digest of what its segments were made from.
    """
    facts = {"selection": selection, "dataset": dataset, "pictures": digest(segments)}
    return _stored("vectors", **facts, **network)


def of_classes(dataset, labels, known=None):
    """What the list of the classes in a picture depends on: class of the dataset, label file."""
    labels = labels and content(labels, (known or {}).get("labels"))
    return _stored("classes", dataset=dataset, labels=labels)


def of_overview(dataset, images):
    """What the overview of a dataset depends on: its class, and the names of its pictures."""
    return _stored("classes", dataset=dataset, images=digest([Path(name).name for name in images]))


def _stored(kind, **facts):
    return as_stored({**facts, "format": FORMATS[kind]})


def content(path, known=None):
    """What tells the content of a file from every other: its size, and the SHA-256 of its bytes.

    A dict of `size`, `sha256`, and `seen`, which is not compared. Where `known`, what this function
    has given before, has the same path, size and time of change, that stands; where not, the bytes
    decide. What is no file, such as a pipe, is a ValueError.
    """
    check_file(path)
    state = Path(path).stat()
    seen = [str(path), state.st_mtime_ns]
    if known and (known.get(_SEEN), known.get("size")) == (seen, state.st_size):
        return known
    return {"size": state.st_size, "sha256": _sha256(path), _SEEN: seen}


def check_inputs(prediction):
    """Refuse a prediction of which a file has changed since; one that is not here says nothing.

    `prediction` is what it says that it was made from. Another file there is a ValueError.
    """
    for noted in _inputs_of(prediction):
        try:
            now = content(path_of(noted), noted)
        except OSError:
            continue
        if why_differs(noted, now):
            raise ValueError(
                f"{path_of(noted)} has changed since the picture was predicted; run pred_images.py "
                "again"
            )


def check_image(prediction, path):
    """Refuse a picture, by a ValueError, that is another than the predicted one.

    `prediction` is as for `check_inputs`; `path` is where the dataset has the picture now.
    """
    noted = prediction.get("image")
    if isinstance(noted, dict) and _SEEN in noted and why_differs(noted, content(path, noted)):
        raise ValueError(f"{path} is in its place now; run pred_images.py again")


def _inputs_of(prediction):
    noted = (prediction.get(name) for name in ("image", "labels", "output"))
    return [of_file for of_file in noted if isinstance(of_file, dict) and _SEEN in of_file]


def inputs_of(path):
    """Paths of what a prediction was made from, as its file says; none where that is broken."""
    try:
        return [path_of(noted) for noted in _inputs_of(made_from(path) or {})]
    except (OSError, ValueError):
        return []


def path_of(noted):
    """Where a file lay whose `content` was noted."""
    return Path(noted[_SEEN][0])


def identity(entry):
    """What an entry, of a network or a dataset, depends on: its class, arguments and weights.

    A dict of plain values; the weights as the SHA-256 of their file, or of all files of their
    folder; None where the entry has none.
    A weights file that is missing is a SettingError.
    """
    weights = getattr(entry, "model_weights", None)
    if weights is not None and not Path(weights).exists():
        raise missing_weights(entry.name, weights)
    return as_stored(
        {
            "class": f"{entry.module_name}.{entry.class_name}",
            "kwargs": entry.kwargs,
            "weights": weights and _sha256_of_all(weights),
        }
    )


def identity_if_there(entry):
    """The `identity` of an entry; None where its weights file is missing."""
    weights = entry.model_weights
    return identity(entry) if weights is None or Path(weights).exists() else None


def _sha256_of_all(path):
    """SHA-256 of a file; of a folder that of the names and SHA-256 of the files in it."""
    if not Path(path).is_dir():
        return _sha256(path)
    files = sorted(file for file in Path(path).iterdir() if file.is_file())
    return digest([[file.name, _sha256(file)] for file in files])


def _sha256(path):
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# comparing


def made_from(path, is_checked=False):
    """What a file says it was made from: a dict, or None where it does not say.

    Parameters
    ----------
    path : path
    is_checked : bool
        Whether it must be whole to its last byte; tables always must.

    Raises
    ------
    FileNotFoundError, ValueError
        It is missing; it is broken.
    """
    if existing(path).suffix == ".hdf5":
        source = arrays.made_from_of(path, is_checked)
    else:
        table = tables.read_pickle(path)
        source = table.get("made_from") if isinstance(table, dict) else None
    return source if isinstance(source, dict) else None


def why_stale(path, expected, ignored=()):
    """Why a file has to be made, or made again.

    Parameters
    ----------
    path : path
    expected : dict or callable
        What it should be made from; or gives that, of what the file says.
    ignored : collection of str
        Keys of which it does not matter what the file says.

    Returns
    -------
    reason : str or None
        None: it is there, whole to its last byte, and made from `expected`.
    """
    try:
        there = made_from(path, is_checked=True) or {}
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError):
        return "broken"
    expected = as_stored(expected(there) if callable(expected) else expected)
    if there.get("format", expected.get("format")) != expected.get("format"):
        return OTHER_FORMAT
    return why_differs({key: there[key] for key in there.keys() - set(ignored)}, expected)


def why_differs(there, expected):
    """Which keys tell two `made_from` apart: "other image.size, network.weights"; None: none."""
    there, expected = _flat(there), _flat(expected)
    missing = object()
    keys = there.keys() | expected.keys()
    others = sorted(key for key in keys if there.get(key, missing) != expected.get(key, missing))
    return f"other {', '.join(others)}" if others else None


def _flat(made_from, prefix=""):
    """Values of nested dicts under dotted keys, without what is not compared."""
    flat = {}
    for key, value in made_from.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        elif key != _SEEN:
            flat[f"{prefix}{key}"] = value
    return flat


def digest(facts):
    """SHA-256, as text, of plain values; what is not compared does not count."""
    facts = _flat(facts) if isinstance(facts, dict) else facts
    return hashlib.sha256(as_json(facts).encode()).hexdigest()
