"""Evaluation: how well neighbours in the embedding space find segments of the same class.

    python eval_retrieval.py
    python eval_retrieval.py with args.method=pca args.embedding_size=10

Needs stage 4, and stage 5 for its own space. Writes retrieval_<net>_<space>.csv (each class),
retrieval_<net>_<space>_means.csv, and the average precision of the classes (PNG, PDF) to
analysis/<model>/<datasets> below the results folder.
"""

from configuration import CONFIG, datasets, models
from src import registry
from src.embedding.table import only_datasets, read_table
from src.errors import SettingError
from src.evaluation import retrieval
from src.run import choice
from src.run.experiment import create_experiment
from src.store.paths import Results

ex = create_experiment("eval_retrieval")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=None,  # datasets of the embeddings file whose segments to take; None: all
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        net=CONFIG.EMBEDDING_NETWORK,  # embedding network that made the vectors
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        min_height=CONFIG.MIN_HEIGHT,  # pixels, as in stage 4; None: what suits the dataset
        min_width=CONFIG.MIN_WIDTH,  # pixels, as in stage 4; None: what suits the dataset
        method="stored",  # space: stored (by stage 5), tsne, isomap, pca, none (as it is), size
        embedding_size=2,  # dimensions that tsne, isomap or pca reduce to
        metrics=["euclid", "cos"],  # distances to compare
        counts=[1, 10, 100],  # k of precision and recall among the k nearest neighbours
        min_query_count=2,  # a class with fewer segments is not asked for
        annotated=False,  # only rows marked in the file's column `annotated` are to be found
        seed=CONFIG.SEED,  # same seed, same reduction
    )


def question_of(args):
    """What the settings ask for: Space and Question; refuses what cannot work."""
    method, metrics = args["method"], args["metrics"]
    if method not in retrieval.METHODS:
        known = ", ".join(retrieval.METHODS)
        raise SettingError(f"`args.method` must be one of {known}, got {method!r}")
    if not metrics or not set(metrics) <= set(retrieval.METRICS):
        known = ", ".join(retrieval.METRICS)
        raise SettingError(f"`args.metrics` must be a list of {known}, got {metrics!r}")
    counts = "embedding_size", "min_query_count", "min_height", "min_width"
    choice.check_counts(**{name: args[name] for name in counts})
    for count in args["counts"]:
        choice.check_counts(counts=count or 0)
    if args["min_query_count"] < 2:
        raise SettingError(
            "`args.min_query_count` must be 2 or more, got 1: a segment alone of its class has "
            "nothing to find"
        )
    space = retrieval.Space(method, args["embedding_size"], args["seed"])
    names = "metrics", "counts", "min_query_count", "annotated"
    return space, retrieval.Question(**{name: args[name] for name in names})


@ex.automain
def main(args, _log, _run):
    names = choice.as_names(args["datasets"], "datasets")
    data = [registry.choose(datasets, name, "dataset") for name in names or ()] or [CONFIG.DATASET]
    space, question = question_of(args)
    model = registry.choose(models, args["model_name"], "model")
    _, path = choice.embeddings_file(args, data[0])
    table = only_datasets(path, read_table(path), names)
    found = retrieval.evaluate(_log, table, space, question, datasets, CONFIG.TRAIN_DATASET)
    folder = Results(args["io_path"], model.name, "+".join(names or sorted(set(table["dataset"]))))
    retrieval.report(_log, folder.analysis / f"retrieval_{args['net']}_{space}", found)
    _run.info["average precision"] = found.average_precisions()
    return found.figures()
