"""Stage 1: from the pictures of a dataset to their predictions on disk."""

import logging
import os
import threading
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from src import class_ids, registry
from src.datasets import LabelledImages, item_of
from src.datasets.custom import counted
from src.errors import SettingError
from src.MetaSeg import stage as measuring
from src.MetaSeg.metrics import heatmaps
from src.model_card import ModelCard
from src.records import NO_LABEL
from src.run import processes
from src.run.gone import keep_up
from src.run.kept import Kept
from src.segmentation import inference
from src.segmentation.class_maps import RawOutput, read_output, stored_outputs
from src.store import arrays, provenance, tables
from src.store.paths import Results, indices_in
from src.store.seen import Seen

_log = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()  # others' datasets may not be made for threads


def predict_dataset(run, predictor, indices, forget=False):
    """Predict those of some images that have no up-to-date prediction yet; gives the Tally.

    `forget` is that of `gone.keep_up`.
    """
    results = predictor.results
    keep_up(run, results, predictor.data, forget)
    left_out = getattr(predictor.samples, "left_out", None)
    if left_out:
        run.log.info("no pictures, left out of %s: %s", results.dataset, counted(left_out))
    if predictor.outputs is not None:
        predictor.outputs.paths_of(path for path, _ in predictor.samples.samples)
    run.prepare(*predictor.folders())
    loaders = predictor.loaders
    with run.on_cluster(results.io_path, gpu=predictor.computing.device is None) as run:
        tally = run.stream(
            predictor.predict,
            predictor.store,
            run.in_shard(indices),
            f"predicting {results.dataset}",
            predictor.seen,
            threads=run.num_cores - loaders if loaders > 1 else run.num_cores,
        )
    for name, _ in tally.failed:  # later stages look again at what is left of another picture
        with suppress(OSError):
            os.utime(results.prediction(int(name.removeprefix("image "))))
    predictor.tell_stray_ids(run.log)
    return tally


def loaders_of(run):
    """Processes that load images for the one that predicts; with 1 it does that itself."""
    # to decode is less than to write; a job elsewhere is too short to start processes for it
    return max(run.num_cores // 4, 2) if run.num_cores > 2 and not run.scheduler else 1


@dataclass(eq=False)
class Predictor(Kept):
    """What stage 1 does with the images of a dataset, here or in another process."""

    results: Results  # where predictions go
    model: tuple  # entry of the segmentation network
    data: tuple  # entry of the dataset
    card: ModelCard  # of the network
    computing: inference.Computing
    form: str  # see `arrays.write_prediction`; "none" measures the segments as well
    predicted_ids: np.ndarray  # see `class_ids.predicted_ids`
    source: dict  # what all predictions depend on, see `provenance.of_prediction`
    loaders: int  # see `loaders_of`
    may_stray: bool = True  # whether labels may have ids without a class, which are no label then

    @cached_property
    def samples(self):
        """The dataset; images become inputs of the network."""
        to_input = inference.to_input(self.card.mean, self.card.std)
        return registry.build(self.data, transform=to_input)

    @cached_property
    def network(self):
        """The segmentation network, on its device."""
        device = self.computing.device or inference.choose_device(0, _log)
        return inference.speed_up(inference.load_network(self.model, device), self.computing)

    @cached_property
    def outputs(self):
        """The Predictions that lie in files; None: the network predicts."""
        return stored_outputs(self.model)

    @cached_property
    def _sources(self):
        """What the images depend on that are being predicted, by index."""
        return {}

    @property
    def seen(self):
        """Tells which images need not be predicted."""
        results, is_measured = self.results, self.form == "none"
        facts = {"source": self.source, "predicted_ids": is_measured and self.predicted_ids}

        def files(index):
            measured = [results.metrics(index), results.components(index)] if is_measured else []
            inputs = [path for path in self._inputs(index).values() if path]
            return [results.prediction(index), *measured, *inputs]

        return Seen(results.folder("input") / "seen.json", facts, files, self.why_stale)

    def why_stale(self, index):
        """Why an image must be predicted, as text; None: it need not."""
        kept = (
            () if self.computing.scores else ("scores", "fitted_scores")
        )  # those of an earlier run stay
        made_from = partial(self._made_from, index)
        reason = provenance.why_stale(self.results.prediction(index), made_from, ignored=kept)
        if reason is None and self.form == "none":
            reason = measuring.why_stale(self.results, index, self.predicted_ids)
        return reason

    def load(self, index):
        """What the prediction of an image depends on, as it is before it is read, and the sample.

        The sample is image, float32 tensor (3, H, W) or RawOutput, ground truth, and path.
        """
        made_from = self._made_from(index)
        image, ground_truth, path = item_of(self.samples, index)
        if self.outputs is not None:
            image = read_output(self.outputs, path, image.shape[1:], self.card.count)
        return made_from, (image, ground_truth, path)

    def _load_to_send(self, index):
        """As `load`; where memory cannot be shared, tensors go to another process as arrays."""
        made_from, sample = self.load(index)
        if processes.is_worker():
            sample = tuple(map(_as_array, sample))
        return made_from, sample

    def predict(self, indices):
        """Yield (index, Prediction or the exception) of some images, in their order."""
        with closing(processes.results(self._load_to_send, indices, self.loaders)) as loaded:
            samples = (self._with_source_kept(*result) for result in loaded)
            yield from inference.predict_images(self.network, samples, self.computing)

    def _with_source_kept(self, index, result):
        if isinstance(result, Exception):
            return index, result
        self._sources[index], sample = result
        return index, tuple(map(_as_tensor, sample))

    @cached_property
    def _are_classes(self):
        return class_ids.are_classes(self.data)

    @property
    def stray_ids(self):
        """Pixels by label id, of ids without a class, in all pictures that are predicted."""
        counts, folder = Counter(), self.results.folder("input")
        for index in indices_in(folder, "stray"):
            with suppress(OSError, ValueError):  # it is only told
                counts.update(tables.read_table(self.results.stray_ids(index))["pixels"])
        return counts

    def _without_stray_ids(self, index, ground_truth):
        """Note them, and make them no label; a SettingError where they may not be."""
        path, found = self.results.stray_ids(index), {}
        if ground_truth is not None and self._are_classes.any():
            found = class_ids.stray_ids(ground_truth, self._are_classes)
        if not found:
            if (
                path.exists()
            ):  # of other labels; a full or read-only disk is told by what is written
                path.unlink()
            return ground_truth
        if not self.may_stray:
            raise SettingError(self.told_stray_ids(found))
        tables.write_table(path, {"pixels": found}, {})
        return np.where(np.isin(ground_truth, list(found)), NO_LABEL, ground_truth)

    def tell_stray_ids(self, log):
        """Warn of label ids without a class; a SettingError where there may be none."""
        counts = self.stray_ids
        if counts and not self.may_stray:
            raise SettingError(self.told_stray_ids(counts))
        if counts:
            log.warning("%s", self.told_stray_ids(counts))

    def told_stray_ids(self, counts):
        """A sentence about label ids without a class, `counts` of pixels by id."""
        most = sorted(counts, key=counts.get, reverse=True)[:10]
        ids = ", ".join(f"{key} ({counts[key]:,} pixels)" for key in most)
        more = f" and {len(counts) - len(most)} more" if len(counts) > len(most) else ""
        return (
            f"labels of {self.data.name} have ids that are no class in `label_mapping` of "
            f"{self.data.class_name}: {ids}{more}; they count as no label, or end the run with "
            "args.stray_ids=stop"
        )

    def store(self, index, prediction):
        """Write a prediction, and with form="none" what stage 2 makes of it."""
        truth = self._without_stray_ids(index, prediction.ground_truth)
        prediction = replace(prediction, ground_truth=truth)
        is_measured = self.form == "none"
        if is_measured:
            maps = np.stack(heatmaps(prediction.probabilities), axis=2)
            prediction = replace(prediction, heatmaps=maps)
        path, source = self.results.prediction(index), self._sources.pop(index)
        arrays.write_prediction(path, prediction, source, self.form)
        if is_measured:
            made_from = provenance.of_segments(source, self.predicted_ids)
            measuring.store_segments(self.results, index, prediction, made_from)

    def folders(self):
        """Where predictions are written, and what comes with them."""
        measured = ["metrics", "components"] if self.form == "none" else []
        return [self.results.folder(kind) for kind in ("input", *measured)]

    def _made_from(self, index, known=None):
        """All that a prediction depends on, its picture and label file as they are now."""
        return provenance.of_prediction(self.source, **self._inputs(index), known=known)

    def _inputs(self, index):
        """Paths of the picture, its label file (None: there is none) and what else is read.

        Only a dataset without a list must load the image for that.
        """
        if isinstance(self.samples, LabelledImages):
            image, labels = self.samples.samples[index]
        else:
            with _one_at_a_time:
                image, labels = item_of(self.samples, index)[2], None
        output = None if self.outputs is None else self.outputs.path_of(image)
        return {"image": image, "labels": labels, "output": output}


def _as_array(value):
    """A tensor as an array, also in a RawOutput, where there is little memory to share."""
    if isinstance(value, RawOutput):
        return replace(value, tensor=_as_array(value.tensor))
    if isinstance(value, torch.Tensor) and not processes.has_shared_memory(value.nbytes):
        return value.numpy()
    return value


def _as_tensor(value):
    if isinstance(value, RawOutput):
        return replace(value, tensor=_as_tensor(value.tensor))
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
