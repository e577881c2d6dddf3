"""Find out in which images of a dataset each class occurs.

    python search_classes.py with args.dataset=a2d2

Writes overviews/<dataset>/overview.json below the results folder, and beside it a small file an
image, so that an interrupted search goes on where it was. Only label files are read.
"""

from configuration import CONFIG, datasets
from src import registry
from src.run import choice
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.segmentation.search import ClassSearch, search_dataset
from src.store.paths import Results

ex = create_experiment("search_classes")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets` to search
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        num_cores=CONFIG.NUM_CORES,  # processes to use
        overwrite=False,  # search again what is already there
    )


@ex.automain
def main(args, _log):
    choice.check_counts(num_cores=args["num_cores"])
    data = registry.choose(datasets, args["dataset"], "dataset")
    run = Runner.from_args(args, _log)
    results = Results(args["io_path"], dataset=data.name)
    run.close(search_dataset(run, ClassSearch(results, data)))
