"""Evaluation: how well neighbours in the embedding space find segments of the same class.

    python eval_retrieval.py
    python eval_retrieval.py with args.method=pca args.embedding_size=10

Judges the vectors themselves, and beside them the map of stage 5 or another space. Neighbours come
from other pictures than the query; the figure with its own picture stands beside. Needs stage 4,
and stage 5 for its map. Writes retrieval_<net>_<space>.csv (each class),
retrieval_<net>_<space>_means.csv, and the average precision of the classes (PNG, PDF) to
analysis/<model>/<datasets> below the results folder.
"""

import configuration
from configuration import CONFIG
from src.evaluation import retrieval
from src.evaluation.embedded import Embedded
from src.run.experiment import create_experiment
from src.run.settings import NAMES, list_of, one_of, setting, shared_settings
from src.store.paths import net_of

ex = create_experiment("eval_retrieval")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=setting(None, "datasets in the embeddings file to take", none="all", kind=NAMES),
        **shared_settings(CONFIG, "model_name", "net", "io_path", "min_height", "min_width"),
        method=setting(
            "stored",
            "space to judge beside the vectors; `none`, or the `size` of the crop",
            choices=retrieval.METHODS,
        ),
        embedding_size=setting(2, "dimensions that tsne, isomap or pca reduce to", at_least=1),
        metrics=setting(
            ["euclid", "cos"],
            "distances between vectors to compare; in other spaces it is euclid",
            kind=list_of(one_of(*retrieval.METRICS), at_least=1),
        ),
        counts=setting([1, 10, 100], "k of precision and recall at k", at_least=1),
        min_query_count=setting(2, "segments that a class must have", at_least=2),
        annotated=setting(False, "find only rows marked in the column `annotated`"),
        maps=setting(
            1, "maps to take mean and spread of: more are of vectors a millionth away", at_least=1
        ),
        **shared_settings(CONFIG, "seed"),
    )


def question_of(args):
    """What the settings ask for: Space and Question."""
    space = retrieval.Space(*(args[key] for key in ("method", "embedding_size", "seed", "maps")))
    names = "metrics", "counts", "min_query_count", "annotated"
    return space, retrieval.Question(**{name: args[name] for name in names})


@ex.automain
def main(args, _log, _run):
    space, question = question_of(args)
    objects = Embedded.from_args(args, configuration, _log)
    table, datasets, known = objects.table, objects.datasets, objects.known
    found = retrieval.evaluate(_log, table, space, question, datasets, known)
    path = objects.results.analysis / f"retrieval_{net_of(objects.path)}_{space}"
    retrieval.report(_log, path, found, objects.results.dataset)
    _run.info["average precision"] = found.average_precisions()
    _run.info["own picture too"] = found.average_precisions(own_picture=True)
    return found.merits()
