"""Which pictures to label first: those of suspicious objects that lie far from one another."""

from dataclasses import dataclass

import numpy as np

from src.embedding.space import MAX_PCA_COLUMNS, principal_columns


@dataclass(frozen=True)
class Choice:
    """A picture that is worth labelling, by the object for whose sake it is."""

    row: int  # of that object
    place: int  # of its suspicion among all objects, from 1
    n_objects: int  # in the picture
    nearest: int | None  # row of the object nearest to it in pictures chosen before; None: first
    distance: float  # to that, on the principal components; NaN: first


def choose_pictures(table, budget, seed=0):
    """Choose pictures to label: the most suspicious one, then again and again the farthest first.

    Farthest is the object with the largest product of its distance to what is chosen already, as
    vectors (on at most 50 principal components), and of the share of objects that are no more
    suspicious than it. With its picture all objects there are chosen.

    Parameters
    ----------
    table : ObjectTable
        N >= 1 rows with `embeddings`; of unknown suspicion are the least suspicious.
    budget : int
        Pictures, at most.
    seed : int
        Of the search for the principal components.

    Returns
    -------
    choices : list of Choice
        The most worthwhile first; all pictures where they are no more than the budget.
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    points = principal_columns(table["embeddings"], MAX_PCA_COLUMNS, seed)
    count, names = len(points), {}
    picture = np.array([names.setdefault(name, len(names)) for name in table.image_names()])
    order = table.by_suspicion(np.arange(count))
    place = np.empty(count, np.int64)
    place[order] = np.arange(1, count + 1)
    share = (count + 1 - place) / count
    nearest, distance = np.full(count, -1), np.full(count, np.inf)
    is_left, choices = np.ones(count, bool), []
    row = int(order[0])
    while True:
        rows = np.flatnonzero(picture == picture[row])
        known = (int(nearest[row]), float(distance[row])) if choices else (None, np.nan)
        choices.append(Choice(row, int(place[row]), len(rows), *known))
        is_left[rows] = False
        if len(choices) == budget or not is_left.any():
            return choices
        which, away = pairwise_distances_argmin_min(points, points[rows])
        nearest = np.where(away < distance, rows[which], nearest)
        distance = np.minimum(away, distance)
        # of twins of what is chosen the most suspicious
        worth = np.where(is_left, share * np.maximum(distance, 1e-9 * distance.max()), -1)
        row = int(np.argmax(worth if distance.max() > 0 else np.where(is_left, share, -1)))


def reason(table, choice):
    """Why a picture is chosen, in words."""
    suspicion = table["suspicion"][choice.row]
    known = "unknown" if np.isnan(suspicion) else f"{suspicion:.3f}"
    place = f"suspicion {known}, place {choice.place:,} of {len(table):,}"
    if choice.nearest is None:
        return f"{place}: where to begin"
    near = table.image_names()[choice.nearest]
    return f"{place}; {choice.distance:.3g} from the nearest object above, in image {near}"
