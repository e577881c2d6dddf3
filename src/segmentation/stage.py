"""One image on its way through stage 1: from the picture to its prediction on disk."""

import logging
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from src import registry
from src.datasets import LabelledImages
from src.MetaSeg import stage as measuring
from src.MetaSeg.metrics import heatmaps
from src.run import parallel
from src.run.kept import Kept
from src.segmentation import inference
from src.store import cache

_log = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()  # others' datasets may not be made for threads


@dataclass(eq=False)
class Predictor(Kept):
    """What stage 1 does with the images of a dataset, here or in another process.

    Parameters
    ----------
    io_path : path
        Folder of all results.
    model : ModelConfig
        The segmentation network.
    data : DatasetConfig
    mean, std : sequence of 3 float
        Of the network's input.
    device : torch.device or None
        None: the first GPU of the process that predicts, or its CPU.
    speed : dict
        Settings of `inference.speed_up`.
    options : dict
        Settings of `inference.predict_images`.
    probabilities : {"compact", "float32", "none"}
        How they are stored; "none" measures the segments as well.
    predicted_ids : ndarray of shape (256,), uint8
        See `class_ids.predicted_ids`.
    source : dict
        What all predictions depend on, beside their files.
    loaders : int
        Processes that load images; with 1 the process that predicts does it.
    """

    io_path: str | Path
    model: tuple
    data: tuple
    mean: tuple
    std: tuple
    device: torch.device | None
    speed: dict
    options: dict
    probabilities: str
    predicted_ids: np.ndarray
    source: dict
    loaders: int

    @cached_property
    def samples(self):
        """The dataset; images become inputs of the network."""
        return registry.build(self.data, transform=inference.to_input(self.mean, self.std))

    @cached_property
    def network(self):
        """The segmentation network, on its device."""
        network = inference.load_network(self.model, self._device)
        return inference.speed_up(network, **self.speed)

    @cached_property
    def _sources(self):
        """What the images depend on that are being predicted, by index."""
        return {}

    @cached_property
    def _device(self):
        return self.device or inference.choose_device(0, _log)

    def why_stale(self, index):
        """Why an image must be predicted, as text; None: it need not."""
        path, scores = cache.prediction_path(*self._place(index)), self.options["scores"]
        kept = () if scores else ("scores",)  # those of an earlier run stay
        reason = cache.why_stale(path, self._made_from(index), ignored=kept)
        if reason is None and self.probabilities == "none":
            reason = measuring.why_stale(self._place(index), self.predicted_ids)
        return reason

    def load(self, index):
        """What the prediction of an image depends on, as it is before it is read, and the sample.

        The sample is image, float32 tensor (3, H, W), ground truth, and path.
        """
        return self._made_from(index), self.samples[index]

    def predict(self, indices):
        """Yield (index, Prediction or the exception) of some images, in their order."""
        with closing(parallel.results(self.load, indices, self.loaders)) as loaded:
            samples = (self._with_source_kept(*result) for result in loaded)
            yield from inference.predict_images(self.network, samples, **self.options)

    def _with_source_kept(self, index, result):
        if isinstance(result, Exception):
            return index, result
        self._sources[index], sample = result
        return index, sample

    def store(self, index, prediction):
        """Write a prediction, and with probabilities="none" what stage 2 makes of it."""
        is_measured = self.probabilities == "none"
        if is_measured:
            maps = np.stack(heatmaps(prediction.probabilities), axis=2)
            prediction = replace(prediction, heatmaps=maps)
        place, source = self._place(index), self._sources.pop(index)
        path = cache.prediction_path(*place)
        cache.write_prediction(path, prediction, source, self.probabilities)
        if is_measured:
            source = cache.as_stored(source)
            measuring.store_segments(prediction, place, self.predicted_ids, source=source)

    def folders(self):
        """Where predictions are written, and what comes with them."""
        paths = [cache.prediction_path]
        if self.probabilities == "none":
            paths += [cache.metrics_path, cache.components_path]
        return [path(*self._place(0)).parent for path in paths]

    def _place(self, index):
        return self.io_path, self.model.name, self.data.name, index

    def _made_from(self, index):
        """All that a prediction depends on, its picture and label file as they are now.

        Only a dataset without a list of both must load the image for that.
        """
        if isinstance(self.samples, LabelledImages):
            image, labels = self.samples.samples[index]
        else:
            with _one_at_a_time:
                image, labels = self.samples[index][2], None
        labels = labels and cache.state_of(labels)
        return {**self.source, "image": cache.state_of(image), "labels": labels}
