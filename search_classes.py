"""Find out in which images of a dataset each class occurs.

    python search_classes.py with args.dataset=a2d2

Writes overviews/<dataset>/overview.json below the results folder, and beside it a small file an
image, so that an interrupted search goes on where it was. Only label files are read.
"""

from configuration import CONFIG, datasets
from src import entries
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import setting, shared_settings
from src.segmentation.search import ClassSearch, search_dataset
from src.store.paths import Results

ex = create_experiment("search_classes")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets` to search"),
        **shared_settings(CONFIG, "io_path", "num_cores", "overwrite"),
    )


@ex.automain
def main(args, _log):
    data = entries.choose_dataset(datasets, args["dataset"], args["io_path"])
    run = Runner.from_args(args, _log)
    results = Results(args["io_path"], dataset=data.name)
    run.close(search_dataset(run, ClassSearch(results, data)))
