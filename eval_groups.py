"""Evaluation: how well the groups of the embedding space are the true classes.

    python eval_groups.py

Judges the groups that stage 5 keeps beside the embeddings (discover_embedding_space.py with
args.groups=True, and what was joined since), or finds them where there are none. Needs stage 4.
Writes groups_<net>.csv to analysis/<model>/<datasets> below the results folder.
"""

import configuration
from configuration import CONFIG
from src.evaluation import groups
from src.evaluation.embedded import Embedded
from src.run.experiment import create_experiment
from src.run.settings import NAMES, setting, shared_settings
from src.store.paths import net_of

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
    objects = Embedded.from_args(args, configuration, _log)
    labels = groups.groups_of(_log, objects.table, objects.path, args["seed"])
    judged = groups.evaluate(_log, objects.table, labels, objects.datasets, objects.known)
    groups.report(_log, objects.results.analysis / f"groups_{net_of(objects.path)}", judged)
    return {side: vars(of_side) for side, of_side in judged.items()}
