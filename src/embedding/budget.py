"""Which pictures to label first: those from which much is learnt for little effort."""

from dataclasses import dataclass

import numpy as np

from src.embedding.groups import NOISE
from src.embedding.space import MAX_PCA_COLUMNS, principal_columns


@dataclass(frozen=True)
class Choice:
    """A picture that is worth labelling, by the object for whose sake it is most of all."""

    row: int  # of that object
    place: int  # of its suspicion among all objects, from 1
    group: int  # its label, or NOISE
    group_size: int  # objects
    labelled: int  # of these, in pictures chosen before
    n_objects: int  # in the picture
    gain: float  # of the picture, see `choose_pictures`


def choose_pictures(table, labels, budget, seed=0):
    """Choose pictures to label, again and again the one with most expected gain for its effort.

    After Colling et al., MetaBox+, arXiv 2010.01884, which multiplies how badly a part of a
    picture is predicted with how few clicks its labels take. With the objects o of a picture,

        gain = sum_o s(o) * n(o) / (1 + c(o)) * d(o)  /  (1 + number of o)

    s is the share of all objects that are no more suspicious than o. n is the size of its group,
    and c how many of the group are in pictures chosen before: groups share the labels as parties
    share seats (D'Hondt). d is the distance from o to the nearest of those, as a share of its
    group's radius, 1 at most: a twin teaches nothing. The effort is an outline an object, and one
    look at the picture.

    Parameters
    ----------
    table : ObjectTable
        N >= 1 rows with `embeddings`; of unknown suspicion are the least suspicious.
    labels : ndarray of shape (N,), int64
        Group of each row, see `find_groups`; those in no group count as one.
    budget : int
        Pictures, at most.
    seed : int
        Of the search for the 50 principal components, in which distances are taken.

    Returns
    -------
    choices : list of Choice
        The most worthwhile first; all pictures where they are no more than the budget.
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    points = principal_columns(table["embeddings"], MAX_PCA_COLUMNS, seed)
    picture = _numbers(table.image_names())
    order = table.by_suspicion(np.arange(len(table)))
    place = np.empty(len(table), np.int64)
    place[order] = np.arange(1, len(table) + 1)
    share = (len(table) + 1 - place) / len(table)
    group = np.unique(labels, return_inverse=True)[1]
    rows_of, members = _rows_by(picture), _rows_by(group)
    sizes, n_objects = np.bincount(group), np.bincount(picture)
    radius = np.array([_radius(points[rows]) for rows in members])[group]
    labelled, away = np.zeros(len(sizes), np.int64), np.full(len(table), np.inf)
    is_left, choices = np.ones(len(n_objects), bool), []
    for _ in range(min(budget, len(n_objects))):
        gains = share * (sizes / (1 + labelled))[group] * np.minimum(away / radius, 1)
        gain = np.where(is_left, np.bincount(picture, gains) / (1 + n_objects), -1)
        best = np.argmax(gain)
        rows = rows_of[best]
        row = int(rows[np.argmax(gains[rows])])
        of_group = int(sizes[group[row]]), int(labelled[group[row]])
        found = int(labels[row]), *of_group, len(rows), float(gain[best])
        choices.append(Choice(row, int(place[row]), *found))
        is_left[best] = False
        labelled += np.bincount(group[rows], minlength=len(sizes))
        for number in np.unique(group[rows]):
            near = members[number]
            known = points[rows[group[rows] == number]]
            away[near] = np.minimum(away[near], pairwise_distances_argmin_min(points[near], known)[1])
    return choices


def _numbers(names):
    """Number of each name, from 0, in the order in which they come."""
    numbers = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def _rows_by(numbers):
    """Rows with each number, from 0: a list of arrays."""
    return np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])


def _radius(points):
    """Root of the mean squared distance to the mean; 1 for twins."""
    return np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()) or 1


def reason(table, choice):
    """Why a picture is chosen, in words."""
    suspicion = table["suspicion"][choice.row]
    known = "unknown" if np.isnan(suspicion) else f"{suspicion:.3f}"
    name = "in no group, as are" if choice.group == NOISE else f"group {choice.group + 1}, of"
    return (
        f"{name} {choice.group_size:,} objects, {choice.labelled:,} of them above; "
        f"suspicion {known}, place {choice.place:,} of {len(table):,}"
    )
