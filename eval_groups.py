"""Evaluation: how well the groups of the embedding space are the true classes.

    python eval_groups.py

Judges the groups that stage 5 keeps beside the embeddings (discover_embedding_space.py with
args.groups=True, and what was joined since), or finds them where there are none. Needs stage 4.
Writes groups_<net>.csv to analysis/<model>/<datasets> below the results folder.
"""

from configuration import CONFIG, datasets, models
from src import entries
from src.embedding.table import only_datasets, read_table
from src.evaluation import groups
from src.model_card import known_card
from src.run import choice
from src.run.experiment import create_experiment
from src.run.settings import NAMES, setting, shared_settings
from src.store.paths import Results, net_of

ex = create_experiment("eval_groups")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=setting(None, "datasets in the embeddings file to take", none="all", kind=NAMES),
        **shared_settings(
            CONFIG, "model_name", "net", "io_path", "min_height", "min_width", "seed"
        ),
    )


@ex.automain
def main(args, _log):
    io_path = args["io_path"]
    names = entries.dataset_names(datasets, args["datasets"], io_path)
    model = entries.choose_model(models, args["model_name"], io_path)
    known = known_card(io_path, model, CONFIG.TRAIN_DATASET).classes
    path = choice.embeddings_file(args, model.name, _log)
    table = only_datasets(path, read_table(path), names)
    origins = {
        name: entries.choose_dataset(datasets, name, io_path) for name in set(table["dataset"])
    }
    labels = groups.groups_of(_log, table, path, args["seed"])
    judged = groups.evaluate(_log, table, labels, origins, known)
    results = Results(io_path, model.name, "+".join(names or sorted(set(table["dataset"]))))
    groups.report(_log, results.analysis / f"groups_{net_of(path)}", judged)
    return {side: vars(of_side) for side, of_side in judged.items()}
