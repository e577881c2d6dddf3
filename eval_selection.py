"""Evaluation: which of the true objects do the crops of stage 4 show, and which does it find?

    python eval_selection.py with args.dataset=streets_ood

Needs ground truth and stage 4. Writes selection_<net>.csv with bars, and objects_<net>.csv
with curves (PNG, PDF), to analysis/<model>/<dataset> below the results folder.
"""

import configuration
from configuration import CONFIG
from src.evaluation import objects, selection
from src.evaluation.pictures import Pictures
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import setting, shared_settings
from src.store.paths import min_size_of, net_of

ex = create_experiment("eval_selection")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets`; needs ground truth"),
        **shared_settings(CONFIG, "model_name", "net", "io_path", "min_height", "min_width"),
        **shared_settings(CONFIG, "num_images", "num_cores"),
    )


@ex.automain
def main(args, _log, _run):
    run = Runner.from_args(args, _log)
    pictures = Pictures.from_args(args, configuration)
    path = choice.embeddings_file(args, pictures.results.model, _log)
    rows, tally = selection.judge(run, pictures, path, min_size_of(path))
    folder, name = pictures.results.analysis, pictures.name
    selection.report(_log, folder / f"selection_{net_of(path)}", rows, name)
    found, _ = objects.eval_objects(run, pictures, path, min_size_of(path))
    if found:
        objects.report(_log, folder / f"objects_{net_of(path)}", found, name)
    run.close(tally)
    _run.info.update(selection.by_class(rows))
    return selection.figures(rows) | objects.merits(found)
