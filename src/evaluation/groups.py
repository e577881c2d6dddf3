"""How well groups of objects, found without any truth, are the true classes."""

from dataclasses import dataclass

import numpy as np

from src.embedding.groups import NOISE, find_groups
from src.errors import SettingError
from src.evaluation.retrieval import classes_of
from src.store import reports
from src.store.groups import read_groups
from src.store.of_objects import keys_of
from src.store.paths import groups_path

SIDES = ("all", "known", "unknown")


@dataclass(frozen=True)
class Judged:
    """Groups against true classes, of the labelled objects on one side; NaN: there is none."""

    objects: int
    groups: int  # that hold any of them
    grouped: float  # share of them in a group
    purity: float  # of those, share whose class is the most frequent one of their group
    completeness: float  # share of all of them that are in the group with most of their class
    adjusted_rand: float  # of those in a group
    adjusted_rand_all: float  # of all, where those in no group are one


def groups_of(log, table, path, seed):
    """The group of each object in the table of a file, (N,) int64: kept ones, or found now."""
    kept = read_groups(groups_path(path))
    if not kept:
        log.info("%s has no groups: they are found now", groups_path(path))
        return find_groups(table["embeddings"], seed)
    labels = np.array([kept.get(key, NOISE) for key in keys_of(table)], np.int64)
    missing = sum(key not in kept for key in keys_of(table))
    if missing:
        log.warning(
            "%d of %d objects have come since %s was made; they count as in no group",
            missing, len(table), groups_path(path),
        )  # fmt: skip
    return labels


def judge(labels, names, chosen):
    """Judge groups on some objects: a Judged.

    Parameters
    ----------
    labels : ndarray of shape (N,), int64
        Group of each object from 0; -1: none.
    names : ndarray of shape (N,), str
        True class of each; what is most frequent in a group is counted over all of them.
    chosen : ndarray of shape (N,), bool
        Those that are judged.
    """
    from sklearn.metrics import adjusted_rand_score

    classes = np.unique(names, return_inverse=True)[1]
    grouped = labels >= 0
    counts = np.zeros((labels.max(initial=0) + 1, classes.max(initial=0) + 1), np.int64)
    np.add.at(counts, (labels[grouped], classes[grouped]), 1)
    is_right = grouped & (counts.argmax(axis=1)[labels] == classes)
    is_together = grouped & (counts.argmax(axis=0)[classes] == labels)
    both = chosen & grouped
    return Judged(
        int(chosen.sum()),
        len(np.unique(labels[both])),
        _share(grouped, chosen),
        _share(is_right, both),
        _share(is_together, chosen),
        adjusted_rand_score(classes[both], labels[both]) if both.any() else np.nan,
        adjusted_rand_score(classes[chosen], labels[chosen]) if chosen.any() else np.nan,
    )


def _share(mask, among):
    return float(mask[among].mean()) if among.any() else np.nan


def evaluate(log, table, labels, datasets, known):
    """Judge the groups of a table of embedded objects: a dict of Judged by side, see `SIDES`.

    `datasets` and `known` as for `retrieval.evaluate`.
    """
    names, is_known = classes_of(log, table, datasets, known)
    labelled = names != ""
    if not labelled.any():
        raise SettingError("no object in the embeddings file has a true class")
    labels, names, is_known = labels[labelled], names[labelled], is_known[labelled]
    sides = zip(SIDES, (np.ones(len(names), bool), is_known, ~is_known), strict=True)
    return {side: judge(labels, names, chosen) for side, chosen in sides}


def report(log, path, judged):
    """Log what `evaluate` gives, and write it as CSV."""
    header = [
        "objects of classes", "objects", "groups", "in a group", "purity", "completeness",
        "adjusted Rand", "with the others",
    ]  # fmt: skip
    rows = [
        [side, *reports.plain(list(vars(of_side).values()))] for side, of_side in judged.items()
    ]
    for row in rows:
        row[1:3] = map(int, row[1:3])
    log.info("groups against true classes\n%s", reports.text_table(header, rows))
    reports.write_csv(f"{path}.csv", header, rows)
    log.info("wrote %s.csv", path)
