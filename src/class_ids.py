"""Ids of classes: the true ones of a dataset, the predicted ones of a network, and between them."""

import numpy as np

from src.errors import SettingError
from src.records import NO_LABEL
from src.registry import find_class


def class_mapping(entry, name):
    """`label_mapping` or `pred_mapping` of the class of an entry, or another of its dictionaries.

    Returns
    -------
    mapping : dict of int to (str, (int, int, int))
        Class name and RGB colour by id; `train_ids`, `kinds`: int to str; `anomaly_ids`: int to
        int; `categories`: str to str. What a class does not have is empty.

    Raises
    ------
    SettingError
        If a class that a network was trained on has no `pred_mapping`.
    """
    mapping = getattr(find_class(entry), name, None)
    if mapping is None and name == "pred_mapping":
        raise SettingError(
            f"{entry.class_name} of dataset {entry.name!r} has no `pred_mapping`, so it cannot be "
            "the TRAIN_DATASET: add one, id -> (name, RGB colour), or choose another"
        )
    return mapping or {}


def class_names(entry):
    """Names of a dataset's true classes by id, those of one kind (`kinds`) called alike: a dict."""
    mapping = class_mapping(entry, "label_mapping")
    return {key: name for key, (name, _) in mapping.items()} | class_mapping(entry, "kinds")


def joined_classes(entry):
    """Name and RGB colour of a dataset's true classes by id, those of one kind (`kinds`) alike.

    Their colour is that of the first.
    """
    names, colours = class_names(entry), {}
    return {
        key: (names[key], colours.setdefault(names[key], colour))
        for key, (_, colour) in class_mapping(entry, "label_mapping").items()
    }


def are_classes(entry):
    """Whether each id from 0 to 255 is a class of a dataset's ground truth: (256,) bool."""
    ids = [key for key in class_mapping(entry, "label_mapping") if key != NO_LABEL]
    return np.isin(np.arange(256), ids)


def stray_ids(ground_truth, are_known):
    """Ids in a ground truth that have no class, with the number of their pixels: a dict.

    Parameters
    ----------
    ground_truth : ndarray of shape (H, W), int
        255: no label.
    are_known : ndarray of shape (256,), bool
        See `are_classes`.
    """
    ids, counts = np.unique(ground_truth, return_counts=True)
    is_stray = (ids != NO_LABEL) & ~are_known[np.clip(ids, 0, NO_LABEL)]
    return dict(zip(ids[is_stray].tolist(), counts[is_stray].tolist(), strict=True))


def predicted_ids(entry, known, log):
    """Look-up table from the ids of a dataset's ground truth to the predicted ones: `match_ids`.

    Parameters
    ----------
    entry : DatasetConfig
    known : dict of int to (str, (int, int, int))
        Name and colour of each class that the network predicts; see `ModelCard.classes`.
    log : logging.Logger
        Warned where no class has a counterpart, which leaves the true IoU unknown.

    Returns
    -------
    table : ndarray of shape (256,), uint8
        255: no counterpart.
    """
    label_mapping = class_mapping(entry, "label_mapping")
    others = (class_mapping(entry, name) for name in ("train_ids", "kinds"))
    table = match_ids(label_mapping, known, *others)
    if label_mapping and (table == NO_LABEL).all():
        log.warning(
            "the true IoU of segments of %r is unknown: neither the names of its classes nor the "
            "`train_ids` of %s name a class that is predicted (%s)",
            entry.name, entry.class_name, ", ".join(name for name, _ in known.values()),
        )  # fmt: skip
    return table


def anomaly_labels(entry, known, log):
    """Look-up table from the ids of a dataset's ground truth to what an anomaly score is judged by.

    A class that the network does not predict is an anomaly, unless the class of the dataset says
    something else in its optional `anomaly_ids`: {id: 0, 1 or 255}. See `predicted_ids`.

    Returns
    -------
    table : ndarray of shape (256,), uint8
        0 = normal, 1 = anomaly, 255 = not judged: an id without a class among them.
    """
    is_known = predicted_ids(entry, known, log) != NO_LABEL
    table = np.full(256, NO_LABEL, np.uint8)
    ids = [key for key in class_mapping(entry, "label_mapping") if key != NO_LABEL]
    table[ids] = np.where(is_known[ids], 0, 1)
    for key, label in class_mapping(entry, "anomaly_ids").items():
        table[key] = label
    return table


def match_ids(label_mapping, pred_mapping, train_ids=None, kinds=None):
    """Look-up table from ground-truth ids to the predicted ids of the same class.

    A class has the name that its dataset gives it, or that of its kind, or the one in `train_ids`:
    what is learnt of a dataset is found again in it, whatever others call it. Upper and lower case
    are not told apart.

    Parameters
    ----------
    label_mapping, pred_mapping : dict of int to (str, (int, int, int))
        Class name and RGB colour by id: those of the ground truth and those of the predictions.
    train_ids : dict of int to str, optional
        Name of the predicted class by ground-truth id. Names that are not predicted do no harm.
    kinds : dict of int to str, optional
        Name of the kind of thing by ground-truth id, where several classes are one.

    Returns
    -------
    table : ndarray of shape (256,), uint8
        `table[label id]` is the predicted id of that class; 255, "no label", where the network
        does not predict the class or the id is not in `label_mapping`. `table[255]` is 255.

    Raises
    ------
    SettingError
        An id lies outside 0..255.
    ValueError
        If two predicted ids share a name, or `train_ids` has an id that
        `label_mapping` lacks or something else than a name.
    """
    for mapping, what in ((label_mapping, "label_mapping"), (pred_mapping, "pred_mapping")):
        wrong = [key for key in mapping if not 0 <= key <= NO_LABEL]
        if wrong:
            raise SettingError(
                f"ids of `{what}` must lie in 0..{NO_LABEL}, got {wrong}, and {NO_LABEL} means no "
                "label: give classes that are alike one id"
            )
    train_ids, kinds = train_ids or {}, kinds or {}
    for key, name in train_ids.items():
        if key not in label_mapping or not isinstance(name, str):
            raise ValueError(
                "`train_ids` must map ids of `label_mapping` to names of predicted classes, and "
                f"leave out ids without counterpart; got {key!r}: {name!r}"
            )
    predicted = {}
    for key, (name, _) in pred_mapping.items():
        if predicted.setdefault(name.casefold(), key) != key:
            raise ValueError(f"`pred_mapping` must name each class once, got {name!r} twice")
    table = np.full(256, NO_LABEL, np.uint8)
    for key, (name, _) in label_mapping.items():
        names = (called.casefold() for called in (name, kinds.get(key, ""), train_ids.get(key, "")))
        table[key] = next((predicted[name] for name in names if name in predicted), NO_LABEL)
    table[NO_LABEL] = NO_LABEL
    return table
