"""Which classes occur in which images of a dataset; only label files are read."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from src import class_ids, registry
from src.datasets import LabelledImages, item_of
from src.errors import SettingError
from src.records import NO_LABEL
from src.run.kept import Kept
from src.store import provenance, tables
from src.store.paths import Results


@dataclass(eq=False)
class ClassSearch(Kept):
    """What is done with the images of a dataset, here or in another process."""

    results: Results  # without a model
    data: tuple  # entry of the dataset

    @cached_property
    def samples(self):
        """The dataset."""
        return registry.build(self.data)

    def search(self, index):
        """Write which classes occur in the ground truth of one image."""
        made_from = self._made_from(index)  # before the labels are read
        if isinstance(self.samples, LabelledImages):
            truth = self.samples.ground_truth(index)
        else:  # cannot tell without the image
            truth = item_of(self.samples, index)[1]
        present = [] if truth is None else np.setdiff1d(truth, NO_LABEL).tolist()
        tables.write_table(self.results.classes(index), {"classes": present}, made_from)

    def why_stale(self, index):
        """Why an image must be searched; None: its classes are known, from its labels of now."""
        made_from = partial(self._made_from, index)
        return provenance.why_stale(self.results.classes(index), made_from)

    def _made_from(self, index, known=None):
        has_files = isinstance(self.samples, LabelledImages)
        labels = self.samples.samples[index][1] if has_files else None
        return provenance.of_classes(_kind(self.data), labels, known)


def search_dataset(run, search):
    """Search images that have not been searched yet, write the overview of all; gives the Tally."""
    results, count, log = search.results, len(search.samples), run.log
    name = results.dataset
    run.prepare(results.overview.parent)
    tally = run.each(search.search, range(count), f"searching {name}", why=search.why_stale)
    images = defaultdict(list)
    for index in range(count):
        if search.why_stale(index) is None:
            for class_id in tables.read_table(results.classes(index))["classes"]:
                images[class_id].append(index)
    if not images and not tally.failed:
        raise SettingError(f"no image of {name!r} has labels; there is nothing to search")
    classes = [
        {"id": class_id, "name": name, "images": images[class_id]}
        for class_id, (name, _) in class_ids.class_mapping(search.data, "label_mapping").items()
    ]
    log.info("%4s  %-24s %8s", "id", "class", "images")
    for row in classes:
        log.info("%4d  %-24s %8d", row["id"], row["name"], len(row["images"]))
    tables.write_overview(results.overview, classes, _of_overview(search.data, search.samples))
    log.info("wrote %s", results.overview)
    return tally


def read_classes(results, data, samples):
    """The overview that `search_dataset` wrote of a dataset as it is now; see `read_overview`."""
    return tables.read_overview(results.overview, _of_overview(data, samples))


def _of_overview(data, samples):
    has_files = isinstance(samples, LabelledImages)
    images = [path for path, _ in samples.samples] if has_files else map(str, range(len(samples)))
    return provenance.of_overview(_kind(data), images)


def _kind(data):
    return f"{data.module_name}.{data.class_name}"
