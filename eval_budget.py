"""Evaluation: is more of the unknown labelled with the pictures that stage 5 lists for a budget?

    python eval_budget.py with args.datasets=[streets_ood]

Labels pictures by their ground truth, in the order of `args.budget` of stage 5 and, to compare,
others and by chance. Needs ground truth and stage 4. Writes budget_<net>.csv with curves (PNG, PDF)
to analysis/<model>/<datasets> below the results folder.
"""

import configuration
from configuration import CONFIG, datasets
from src import entries
from src.evaluation import budget
from src.evaluation.pictures import Pictures
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import NAMES, setting, shared_settings
from src.store.paths import Results, min_size_of, net_of

ex = create_experiment("eval_budget")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=setting(
            [CONFIG.DATASET.name], "entries of `datasets` with ground truth", kind=NAMES
        ),
        part=setting("all", "which of their pictures", choices=tuple(budget.PARTS)),
        **shared_settings(CONFIG, "model_name", "net", "io_path", "min_height", "min_width"),
        **shared_settings(CONFIG, "num_images", "num_cores", "seed"),
    )


@ex.automain
def main(args, _log):
    run = Runner.from_args(args, _log)
    names = entries.dataset_names(datasets, args["datasets"], args["io_path"])
    pictures = [Pictures.from_args(args | {"dataset": name}, configuration) for name in names]
    path = choice.embeddings_file(args, pictures[0].results.model, _log)
    how = min_size_of(path), args["part"], args["seed"]
    curves, tally = budget.judge(run, pictures, path, *how)
    results = Results(args["io_path"], pictures[0].results.model, "+".join(names))
    budget.report(_log, results.analysis / f"budget_{net_of(path)}", curves, results.dataset)
    run.close(tally)
    return {way: budget.at_budgets(of_way).mean(axis=0).tolist() for way, of_way in curves.items()}
