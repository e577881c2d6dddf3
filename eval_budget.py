"""Evaluation: is more of the unknown labelled with the pictures that stage 5 lists for a budget?

    python eval_budget.py with args.dataset=streets_ood

Labels pictures by their ground truth, in the order of `args.budget` of stage 5 and, to compare,
others and by chance. Needs ground truth and stage 4. Writes budget_<net>.csv with curves (PNG, PDF)
to analysis/<model>/<dataset> below the results folder.
"""

import configuration
from configuration import CONFIG
from src.evaluation import budget
from src.evaluation.pictures import Pictures
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import setting, shared_settings
from src.store.paths import min_size_of, net_of

ex = create_experiment("eval_budget")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets`; needs ground truth"),
        part=setting("all", "which pictures: every second one?", choices=tuple(budget.PARTS)),
        **shared_settings(CONFIG, "model_name", "net", "io_path", "min_height", "min_width"),
        **shared_settings(CONFIG, "num_images", "num_cores", "seed"),
    )


@ex.automain
def main(args, _log):
    run = Runner.from_args(args, _log)
    pictures = Pictures.from_args(args, configuration)
    path = choice.embeddings_file(args, pictures.results.model, _log)
    how = min_size_of(path), args["part"], args["seed"]
    curves, tally = budget.judge(run, pictures, path, *how)
    budget.report(_log, pictures.results.analysis / f"budget_{net_of(path)}", curves, pictures.name)
    run.close(tally)
    return {way: budget.at_budgets(of_way).mean(axis=0).tolist() for way, of_way in curves.items()}
