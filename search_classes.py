"""Find out in which images of a dataset each class occurs.

    python search_classes.py with args.dataset=a2d2

Writes overviews/<dataset>/overview.json below the results folder, and beside it a small file an
image, so that an interrupted search goes on where it was. Only label files are read.
"""

import functools
from collections import defaultdict

import numpy as np

from configuration import CONFIG, datasets
from src import class_ids, registry
from src.datasets import LabelledImages
from src.errors import SettingError
from src.records import NO_LABEL
from src.run import parallel
from src.run.experiment import create_experiment
from src.run.settings import setting, shared_settings
from src.store import cache, files

ex = create_experiment("search_classes")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=setting(CONFIG.DATASET.name, "entry of `datasets` to search"),
        **shared_settings(CONFIG, "io_path", "num_cores", "overwrite"),
    )


def search_dataset(log, *, dataset, io_path, num_cores, overwrite):
    """Search the images that have not been searched yet, and write the overview of all.

    Returns
    -------
    tally : Tally
    """
    data = registry.choose(datasets, dataset, "dataset")
    count = len(samples_of(dataset))
    options = dict(io_path=io_path, dataset=dataset)
    files.prepare(cache.classes_path(io_path, dataset, 0).parent)
    tally = parallel.for_each_image(
        functools.partial(search_image, **options),
        range(count),
        num_cores=num_cores,
        description=f"searching {dataset}",
        why=lambda index: "args.overwrite" if overwrite else why_stale(index, **options),
        log=log,
    )
    images = defaultdict(list)
    for index in range(count):
        if why_stale(index, **options) is None:
            table = cache.read_table(cache.classes_path(io_path, dataset, index))
            for class_id in table["classes"]:
                images[class_id].append(index)
    if not images and not tally.failed:
        raise SettingError(f"no image of {dataset!r} has labels; there is nothing to search")
    classes = [
        {"id": class_id, "name": name, "images": images[class_id]}
        for class_id, (name, _) in class_ids.class_mapping(data, "label_mapping").items()
    ]
    log.info("%4s  %-24s %8s", "id", "class", "images")
    for row in classes:
        log.info("%4d  %-24s %8d", row["id"], row["name"], len(row["images"]))
    path = cache.overview_path(io_path, dataset)
    cache.write_overview(path, classes, {"dataset": registry.identity(data), "images": count})
    log.info("wrote %s", path)
    return tally


def search_image(index, *, io_path, dataset):
    """Write which classes occur in the ground truth of one image."""
    samples = samples_of(dataset)
    if isinstance(samples, LabelledImages):
        truth = samples.ground_truth(index)
    else:  # cannot tell without the image
        truth = samples[index][1]
    present = [] if truth is None else np.setdiff1d(truth, NO_LABEL).tolist()
    path = cache.classes_path(io_path, dataset, index)
    cache.write_table(path, {"classes": present}, _made_from(dataset, index))


def why_stale(index, *, io_path, dataset):
    """Why an image must be searched; None: its classes are known, from the labels it has now."""
    path = cache.classes_path(io_path, dataset, index)
    return cache.why_stale(path, _made_from(dataset, index))


def _made_from(dataset, index):
    samples = samples_of(dataset)
    labels = samples.samples[index][1] if isinstance(samples, LabelledImages) else None
    state = labels and cache.state_of(labels)
    return {"dataset": registry.identity(datasets[dataset]), "labels": state}


@functools.cache
def samples_of(dataset):
    """The dataset, listed once in each process."""
    return registry.build(datasets[dataset])


@ex.automain
def main(args, _log):
    parallel.close(_log, search_dataset(_log, **args))
