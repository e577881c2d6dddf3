"""The pictures that an evaluation looks at, and what it counts of each."""

from dataclasses import dataclass

import numpy as np

from src import entries, registry
from src.errors import SettingError
from src.MetaSeg import stage
from src.model_card import ModelCard, known_card
from src.store.paths import Results


@dataclass(frozen=True)
class Pictures:
    """Those of a dataset that a segmentation network has seen."""

    results: Results
    data: tuple  # a DatasetConfig: theirs
    card: ModelCard  # of the network
    num_images: int | None = None  # only the first so many; None: all

    @classmethod
    def from_args(cls, args, configuration):
        """Those that the settings of a script name; `configuration` has the entries."""
        io_path = args["io_path"]
        data = entries.choose_dataset(configuration.datasets, args["dataset"], io_path)
        model = entries.choose_model(configuration.models, args["model_name"], io_path)
        card = known_card(io_path, model, configuration.CONFIG.TRAIN_DATASET)
        return cls(Results(io_path, model.name, data.name), data, card, args["num_images"])

    @property
    def name(self):
        """That of their dataset."""
        return self.data.name

    def indices(self, kind):
        """Their indices, ascending; see `Results.indices`."""
        return self.results.indices(kind)[: self.num_images]


def meta_model_of(args, configuration, log=None):
    """The MetaModel that the settings of a script name.

    With a `log` None where it does not fit the segmentation network, which the log is told.
    """
    from src.MetaSeg import meta_models  # needs torch, whose import takes seconds

    entry = registry.choose(configuration.meta_models, args["meta_model"], "meta model")
    path = args["meta_weights"] or entry.model_weights
    model = entries.choose_model(configuration.models, args["model_name"], args["io_path"])
    if log and not meta_models.fits(path, model):
        log.info("without predicted_iou: %s is not there, or is of another network", path)
        return None
    return meta_models.load_meta_model(path, entry)


def read_judged(results, index, meta_model):
    """A picture's Prediction, and the predicted IoU of each pixel's segment, (H, W) float32.

    In place of that None where there is no ground truth, so that nothing can be compared.
    """
    prediction, metrics, components = stage.read_measured(results, index)
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
