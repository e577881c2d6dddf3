"""Clusters of a number that is asked for in the window."""

from dataclasses import replace
from functools import cached_property

import numpy as np

from src.discover import figures, state
from src.discover.panel import counted
from src.embedding import space as embedding_space

MAX_ELBOW_CLUSTERS = 20
ON_MAP = "map"  # behind a number of clusters: where they are looked for


class Clustering:
    """Clusters the objects of an Explorer."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.algorithm = embedding_space.ALGORITHMS[0]

    def next_algorithm(self):
        """Go to the next clustering algorithm."""
        algorithms = embedding_space.ALGORITHMS
        self.algorithm = algorithms[(algorithms.index(self.algorithm) + 1) % len(algorithms)]
        self.explorer.say(f"clustering algorithm: {self.algorithm}")

    def ask(self):
        """Ask in the window for the number of clusters."""
        hint = " or `elbow`" if self.algorithm == "k-means" else ""
        highest = f"{len(self.explorer.segments):,}"
        hint = f"a whole number from 1 to {highest}{hint}; `8 {ON_MAP}`: in its plane"
        self.explorer.ask(f"Number of clusters ({self.algorithm})", hint, self._take)

    def _take(self, answer):
        if answer == "elbow":
            return self._show_elbow() if self.algorithm == "k-means" else "`elbow` needs k-means"
        explorer = self.explorer
        number, *place = answer.split() or [""]
        is_number = number.isdecimal() and 1 <= int(number) <= len(explorer.segments)
        if not is_number or place not in ([], [ON_MAP]):
            return f"{answer!r} is not a number of clusters"
        try:
            with explorer.working(f"clustering with {self.algorithm} ..."):
                points = explorer.map.points if place else self._reduced
                how = self.algorithm, int(number), explorer.seed
                clusters = embedding_space.cluster(points, *how)
        except ValueError as error:  # too many points for the algorithm
            return str(error)
        before, new = explorer.state, state.grouped(explorer.state, clusters)
        explorer.change("clustering", **vars(replace(new, colouring=state.BY_CLUSTER)))
        where = f"on the {ON_MAP}" if place else f"in {self._reduced.shape[1]} principal components"
        explorer.say(f"{counted(clusters.max() + 1, 'cluster')} by {self.algorithm} {where}")
        explorer.keeping.keep(before, "clustering")
        return None

    @cached_property
    def _reduced(self):
        """Where clusters are looked for: on a map of two dimensions some fall together."""
        vectors, columns = self.explorer.table["embeddings"], embedding_space.MAX_PCA_COLUMNS
        return embedding_space.principal_columns(vectors, columns, self.explorer.seed)

    def _show_elbow(self):
        explorer = self.explorer
        counts = np.arange(1, min(MAX_ELBOW_CLUSTERS, len(explorer.segments)) + 1)
        with explorer.working("drawing the elbow curve ..."):
            inertias = embedding_space.elbow(self._reduced, counts, explorer.seed)
        question = explorer.question
        if question.copy is not None:
            explorer.close_figure(question.copy)
        question.copy = figures.draw_elbow(explorer.new_figure, counts, inertias)
        explorer.events.connect_picture(question.copy)
        explorer.windows.present(question.copy)
        return ""
