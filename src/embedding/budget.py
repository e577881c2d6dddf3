"""Which pictures to label first: those from which most is learnt for little effort."""

from dataclasses import dataclass

import numpy as np

from src.embedding.space import MAX_PCA_COLUMNS, principal_columns

UNITS = "pictures", "objects"  # of a budget


@dataclass(frozen=True)
class Choice:
    """A picture that is worth labelling, by the object for whose sake it is most of all."""

    row: int  # of that object
    place: int  # of its suspicion among all objects, from 1
    group: int  # its label; below 0: none
    group_size: int  # objects; 1 for one in no group
    labelled: int  # of these, in pictures chosen before
    n_objects: int  # in the picture
    gain: float  # of the picture, see `choose_pictures`


def choose_pictures(table, labels, budget, seed=0, unit="pictures"):
    """Choose pictures to label, again and again the one with most expected gain for its effort.

    In the spirit of MetaBox+ (Colling et al., arXiv 2010.01884), which weighs how badly a region is
    predicted against the clicks that its labels take. Of a picture with K objects it is

        gain = sum over its objects of  u * d / sqrt(1 + c)  /  sqrt(1 + K)

    - u = -ln(place / (N + 1)), of the object's place by suspicion among N, from 1: how surprising
      so much suspicion would be of an ordinary object.
    - c objects of its group are in pictures chosen before, so that groups take turns. One in no
      group is a group by itself.
    - d is the distance to the nearest of those, in half radii of the group, at most 1: a twin of
      what is labelled teaches nothing.
    - A look at the picture and K outlines are the effort; its root did better than itself, and
      than none: docs/evaluation.md has the figures.

    Parameters
    ----------
    table : ObjectTable
        N >= 1 rows with `embeddings`; of unknown suspicion are the least suspicious.
    labels : ndarray of shape (N,), int64
        Group of each row, see `find_groups`; below 0: none.
    budget : int
        Pictures, or objects in all of them, at most.
    seed : int
        Of the search for the 50 principal components, in which distances are taken.
    unit : one of `UNITS`
        Of the budget.

    Returns
    -------
    choices : list of Choice
        The most worthwhile first; all pictures where they are no more than the budget.
    """
    count = len(table)
    points = principal_columns(table["embeddings"], MAX_PCA_COLUMNS, seed)
    picture = _numbers(table.image_names())
    place = np.empty(count, np.int64)
    place[table.by_suspicion(np.arange(count))] = np.arange(1, count + 1)
    surprise = -np.log(place / (count + 1))
    group = _numbers(np.where(labels < 0, -1 - np.arange(count), labels).tolist())
    rows_of, members = _rows_by(picture), _rows_by(group)
    sizes, n_objects = np.bincount(group), np.bincount(picture)
    effort = np.sqrt(1 + n_objects)
    half = np.array([_radius(points[rows]) / 2 for rows in members])[group]
    away, labelled = np.full(count, np.inf), np.zeros(len(sizes), np.int64)
    cost = n_objects if unit == "objects" else np.ones_like(n_objects)
    is_left, choices = cost <= budget, []
    while is_left.any():
        gains = surprise * np.minimum(away / half, 1) / np.sqrt(1 + labelled)[group]
        gain = np.where(is_left, np.bincount(picture, gains) / effort, -1)
        best = np.argmax(gain)
        rows = rows_of[best]
        row = int(rows[np.argmax(gains[rows])])
        of_group = int(sizes[group[row]]), int(labelled[group[row]])
        found = int(labels[row]), *of_group, len(rows), float(gain[best])
        choices.append(Choice(row, int(place[row]), *found))
        is_left[best], budget = False, budget - cost[best]
        is_left &= cost <= budget
        for row in rows:
            labelled[group[row]] += 1
            near = members[group[row]]
            away[near] = np.minimum(away[near], np.linalg.norm(points[near] - points[row], axis=1))
    return choices


def reason(table, choice):
    """Why a picture is chosen, in words."""
    suspicion = table["suspicion"][choice.row]
    known = "unknown" if np.isnan(suspicion) else f"{suspicion:.3f}"
    place = f"suspicion {known}, place {choice.place:,} of {len(table):,}"
    if choice.group < 0:
        return f"{place}; in no group"
    size = f"{choice.group_size:,} objects, {choice.labelled:,} of them in images above"
    return f"{place}; group {choice.group + 1} of {size}"


def _numbers(names):
    """Number of each name, from 0, in the order in which they come."""
    numbers = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def _rows_by(numbers):
    """The rows with each number, from 0: a list of arrays."""
    ends = np.cumsum(np.bincount(numbers))[:-1]
    return np.split(np.argsort(numbers, kind="stable"), ends)


def _radius(points):
    """Root of the mean squared distance to the mean; 1 for twins."""
    return np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()) or 1
