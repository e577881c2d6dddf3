"""Evaluation: which of the true objects do the crops of stage 4 show?

    python eval_selection.py with args.dataset=streets_ood

Needs ground truth and stage 4. Writes selection_<net>.csv and pie charts (PNG, PDF) to
analysis/<model>/<dataset> below the results folder.
"""

import configuration
from configuration import CONFIG
from src.evaluation import selection
from src.evaluation.pictures import Pictures
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner

ex = create_experiment("eval_selection")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets`; needs ground truth
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        net=CONFIG.EMBEDDING_NETWORK,  # embedding network that made the vectors
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        min_height=CONFIG.MIN_HEIGHT,  # pixels, of an object too; None: what suits the dataset
        min_width=CONFIG.MIN_WIDTH,  # pixels, of an object too; None: what suits the dataset
        num_cores=CONFIG.NUM_CORES,  # processes to use
        num_images=CONFIG.NUM_IMAGES,  # only the first so many images; None: all
    )


@ex.automain
def main(args, _log, _run):
    counts = "min_height", "min_width", "num_cores", "num_images"
    choice.check_counts(**{name: args[name] for name in counts})
    run = Runner.from_args(args, _log)
    pictures = Pictures.from_args(args, configuration)
    min_size, path = choice.embeddings_file(args, pictures.data)
    rows, tally = selection.judge(run, pictures, path, min_size)
    selection.report(_log, pictures.results.analysis / f"selection_{args['net']}", rows)
    run.close(tally)
    _run.info.update(selection.by_class(rows))
    return selection.figures(rows)
