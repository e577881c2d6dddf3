"""The pictures that an evaluation looks at, and what it counts of each."""

from dataclasses import dataclass

import numpy as np

from src import registry
from src.errors import SettingError
from src.MetaSeg import stage
from src.store.paths import Results


@dataclass(frozen=True)
class Pictures:
    """Those of a dataset that a segmentation network has seen."""

    results: Results
    data: tuple  # a DatasetConfig: theirs
    trained_on: tuple  # a DatasetConfig: the one whose classes the network predicts
    num_images: int | None = None  # only the first so many; None: all

    @classmethod
    def from_args(cls, args, configuration):
        """Those that the settings of a script name; `configuration` has the entries."""
        data = registry.choose(configuration.datasets, args["dataset"], "dataset")
        model = registry.choose(configuration.models, args["model_name"], "model")
        results = Results(args["io_path"], model.name, data.name)
        return cls(results, data, configuration.CONFIG.TRAIN_DATASET, args["num_images"])

    @property
    def name(self):
        """That of their dataset."""
        return self.data.name

    def indices(self, kind):
        """Their indices, ascending; see `Results.indices`."""
        return self.results.indices(kind)[: self.num_images]


def meta_model_of(args, configuration):
    """The MetaModel that the settings of a script name."""
    from src.MetaSeg.meta_models import load_meta_model  # needs torch, whose import takes seconds

    entry = registry.choose(configuration.meta_models, args["meta_model"], "meta model")
    return load_meta_model(args["meta_weights"] or entry.model_weights, entry)


def read_judged(results, index, meta_model, probabilities=False):
    """A picture's Prediction, and the predicted IoU of each pixel's segment, (H, W) float32.

    In place of that None where there is no ground truth, so that nothing can be compared.
    """
    prediction, metrics, components = stage.read_measured(results, index, probabilities)
    if prediction.ground_truth is None:
        return prediction, None
    return prediction, meta_model.predict(metrics)[np.abs(components) - 1]


def total(run, count, images, what, nothing):
    """Add up what a function counts of each picture: an array, and the Tally.

    Parameters
    ----------
    run, images, what
        See `Runner.each`.
    count : callable
        Takes a picture, gives an array of counts, of one shape for all.
    nothing : str
        The error where all counts are 0; pictures that failed are named first.
    """
    counts = 0

    def add(_image, of_image):
        nonlocal counts
        counts = counts + of_image

    tally = run.each(count, images, what, add)
    if not np.any(counts):
        run.close(tally)
        raise SettingError(nothing)
    return counts, tally
