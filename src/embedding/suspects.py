"""Which objects of a picture are suspicious: found among its segments, or read from a file."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from src import registry, scores
from src.datasets import LabelledImages, item_of
from src.embedding import crops, objects
from src.errors import SettingError
from src.MetaSeg import stage
from src.MetaSeg.meta_models import MetaModel
from src.progress import progress
from src.records import ImageName, ObjectTable
from src.run import processes
from src.run.kept import Kept
from src.store import provenance, tables
from src.store.paths import Results, min_size_of


@dataclass(frozen=True)
class Rule:
    """Which segments are suspicious."""

    suspicion: str  # "predicted_iou", or a score of `scores.of_segments`
    iou_threshold: float | None  # with "predicted_iou": suspects have a lower one
    least: float | None  # suspicion that they have at least; None: any
    classes: list | None  # ids of predicted classes to look at; None: all
    min_size: tuple  # smallest height and width of an object, see `crops.in_pixels`
    join: str | None = None  # how suspicious segments become objects, see `objects.join`
    least_of_objects: float | None = None  # suspicion that these have at least; None: any

    def suspicion_of(self, metrics, predicted_iou):
        """Suspicion of the S segments of a picture: (S,) float32, higher = stranger."""
        if self.suspicion == "predicted_iou":
            return 1 - predicted_iou
        return scores.of_segments(metrics, self.suspicion)

    def is_suspicious(self, suspicion, predicted_iou):
        """Whether each segment is suspicious enough: (S,) bool."""
        enough = np.ones(len(suspicion), bool) if self.least is None else suspicion >= self.least
        if self.suspicion == "predicted_iou":
            enough &= predicted_iou < self.iou_threshold
        return enough


@dataclass(eq=False)
class Judge(Kept):
    """Finds the suspicious objects of pictures whose segments stage 2 has measured."""

    io_path: str | Path  # folder of all results
    model_name: str  # the segmentation network
    meta_model: MetaModel | None  # None: predicted IoUs are unknown
    rule: Rule
    min_crop: tuple  # smallest height and width of a crop, see `crops.in_pixels`
    datasets: dict  # entries of those that are searched, by name
    selection: dict  # what the choice depends on, see `provenance.of_vectors`

    @property
    def min_size(self):
        """Smallest height and width of an object."""
        return self.rule.min_size

    def places(self, dataset):
        """Results where the component maps may lie, the likeliest first."""
        return [Results(self.io_path, self.model_name, dataset)]

    def measured_images(self):
        """A list of ImageName: those whose segments are measured."""
        return [
            ImageName(dataset, index)
            for dataset in self.datasets
            for index in self.places(dataset)[0].indices("metrics")
        ]

    def files(self, name):
        """Paths of all files that tell `made_from`, and that `objects_of` reads."""
        results = self.places(name.dataset)[0]
        own = [of(name.index) for of in (results.metrics, results.components, results.prediction)]
        with suppress(Exception):  # of others' datasets, any
            samples = self._samples(name.dataset)
            if isinstance(samples, LabelledImages):
                picture, labels = samples.samples[name.index]
                own += [path for path in (picture, labels) if path and Path(path).exists()]
        return own

    def inputs(self, name):
        """Paths of the files that the prediction of a picture was made from."""
        return provenance.inputs_of(self.places(name.dataset)[0].prediction(name.index))

    def made_from(self, name):
        """Digest of what the segments of a picture were made from, and what chooses among them.

        Raises
        ------
        FileNotFoundError, ValueError
            See `stage.source_of`.
        """
        results = self.places(name.dataset)[0]
        components = results.components(name.index)  # say it without being read to the end
        path = components if components.is_file() else None
        source = stage.source_of(results, name.index, path)
        return provenance.digest(source or {}), self.selection

    def objects_of(self, name):
        """Predict the IoU of the S segments of a picture and choose the n suspicious ones.

        Returns
        -------
        table : ObjectTable
            n rows, without vectors. Its facts have "segments", what is known of all: `predicted_id`
            and `true_id`, uint16, `predicted_iou` and `suspicion`, float32, `is_chosen` and
            `is_large`, bool, (S,) each; and "left_out", counts of those that are not chosen by
            reason.

        Raises
        ------
        FileNotFoundError, ValueError
            See `stage.read_measured`.
        """
        results = self.places(name.dataset)[0]
        source, _ = self.made_from(name)  # before it is read: it may be measured anew meanwhile
        prediction, metrics, components = stage.read_measured(results, name.index)
        numbers = np.arange(1, len(metrics["class"]) + 1)
        labels = crops.majority_label(components, prediction.ground_truth, numbers)
        boxes, predicted_iou = crops.segment_boxes(components), self._predicted_iou(metrics)
        suspicion = self.rule.suspicion_of(metrics, predicted_iou)
        segments = {
            "predicted_id": np.asarray(metrics["class"], np.uint16),
            "true_id": labels.astype(np.uint16),
            "predicted_iou": predicted_iou,
            "suspicion": suspicion,
            "is_large": crops.are_large(boxes, len(components), *self.min_size),
        }
        sizes = np.asarray(metrics["S"], np.int64)
        found, chosen, left_out = self._join(components, segments, boxes, sizes)
        boxes, count = objects.boxes_of(boxes, found), len(found)
        labels = objects.label_map(components, found)
        columns = {
            "dataset": name.dataset,
            "model_name": self.model_name,
            "image_path": self.path_of(name, prediction.image_path),
            "image_predicted_iou": segments["predicted_iou"],
            "image_made_from": source,
        }
        columns = {key: tables.as_column([value] * count) for key, value in columns.items()}
        columns |= {
            "image_index": np.full(count, name.index, np.int64),
            "image_size": np.tile(np.array(components.shape, np.int64), (count, 1)),
            "component_index": np.array([numbers[0] for numbers in found], np.int64),
            "segments": tables.as_column(found),
            "box": crops.grow_boxes(boxes, components.shape, *self.min_crop),
            "true_id": crops.majority_label(labels, prediction.ground_truth, range(1, count + 1)),
            "predicted_id": objects.class_by_pixels(segments["predicted_id"], sizes, found),
            "predicted_iou": objects.mean_by_pixels(predicted_iou, sizes, found),
            "suspicion": objects.mean_by_pixels(suspicion, sizes, found),
            "segment_size": objects.sizes_of(sizes, found),
        }
        facts = {"segments": segments | {"is_chosen": chosen}, "left_out": left_out}
        return ObjectTable(columns, facts)

    def _join(self, components, segments, boxes, sizes):
        """Segment numbers of each object; which segments are in one, and why others are not."""
        rule, suspicion = self.rule, segments["suspicion"]
        asked = dict(
            suspicion=suspicion,
            is_suspicious=rule.is_suspicious(suspicion, segments["predicted_iou"]),
            predicted_class=segments["predicted_id"],
            classes=rule.classes,
        )
        everything = np.ones(len(suspicion), bool)
        candidates, _ = crops.select_segments(**asked, is_large=everything)
        shared = rule.join and objects.borders(components, len(suspicion))
        of_segments = candidates, segments["is_large"], sizes, boxes, shared
        found = objects.find(*of_segments, len(components), rule.min_size, rule.join)
        in_large = _members(found, len(suspicion))
        if rule.least_of_objects is not None:
            means = objects.mean_by_pixels(suspicion, sizes, found)
            enough = means >= rule.least_of_objects
            found = [numbers for numbers, is_kept in zip(found, enough, strict=True) if is_kept]
            asked["is_suspicious"] &= ~in_large | _members(found, len(suspicion))
        return found, *crops.select_segments(**asked, is_large=in_large)

    def least_of(self, names, most, num_cores):
        """Suspicion of the last of the `most` suspicious objects in some images: a float, or None.

        None: there are no more. Several objects may have it.
        """
        found = []
        found_in = processes.results(self._suspicions, names, num_cores)
        shown = {"desc": "ranking", "total": len(names), "unit": "image", "delay": 2}
        for _, result in progress(found_in, **shown):
            if not isinstance(result, Exception):  # will be named when it is embedded
                found.append(result)
        suspicions = np.concatenate([np.zeros(0, np.float32), *found])
        return float(np.partition(suspicions, -most)[-most]) if len(suspicions) > most else None

    def advice(self, judged):
        """What to change where too few objects are chosen, by what most segments fell to.

        Where none is chosen it is what the last of them fell to, whom nothing else had left out.
        `judged` are the facts of `objects_of` of some pictures.
        """
        judged = list(judged)
        reasons = sum((Counter(facts["left_out"]) for facts in judged), Counter())
        if not reasons.total():
            return "no picture that was searched has a segment"
        most = reason = max(reasons, key=reasons.get)
        if not any(facts["segments"]["is_chosen"].any() for facts in judged):
            reason = [filter_ for filter_ in judged[0]["left_out"] if reasons[filter_]][-1]
        which = "most segments" if reason == most else "all that pass the other filters"
        rule, (height, width) = self.rule, self.min_size
        is_iou = rule.suspicion == "predicted_iou"
        threshold = f"lower args.threshold, now {rule.least:g}" if rule.least is not None else ""
        return f"{which} ({reasons[reason]} of {reasons.total()}) are left out as {reason}: " + {
            "unknown suspicion": "their predicted IoU or score is not known; measure them anew",
            "not suspicious": f"raise args.iou_threshold, now {rule.iou_threshold:g}, or take "
            "args.suspicion=entropy" if is_iou else threshold,
            "other class": "name the classes to look at by args.pred_classes",
            "too small": f"lower args.min_height, now {height:g}, and args.min_width, now "
            f"{width:g}; below 1 they are shares of the picture's height",
        }[reason]  # fmt: skip

    def _suspicions(self, name):
        return self.objects_of(name)["suspicion"]

    def _predicted_iou(self, metrics):
        if self.meta_model is None:
            return np.full(len(metrics["class"]), np.nan, np.float32)
        return self.meta_model.predict(metrics)

    def path_of(self, name, noted):
        """Where a picture lies: where its dataset lists it now, else where it was once seen."""
        is_there = Path(noted).is_file()
        try:
            samples = self._samples(name.dataset)
            if isinstance(samples, LabelledImages):
                lies = samples.samples[name.index][0]
            elif is_there:
                return noted
            else:  # only its item tells
                lies = item_of(samples, name.index)[2]
        except Exception:  # of others' datasets, any; whoever reads the picture will name it
            return noted
        # where one is missing, those after it have other indices
        is_same = Path(lies).name == Path(noted).name and (Path(lies).is_file() or not is_there)
        return str(lies) if is_same else noted

    @cached_property
    def _samples(self):
        """Function from the name of a dataset to the dataset, each made once."""
        return cache(lambda dataset: registry.build(self.datasets[dataset]))


def _members(found, count):
    """Which of so many segments are in an object: (S,) bool."""
    members = np.zeros(count, bool)
    members[np.concatenate([np.zeros(0, np.int64), *found]) - 1] = True
    return members


@dataclass(eq=False)
class Loaded(Kept):
    """The objects in a file of stage 4, of this system or of the original."""

    path: Path  # of the file
    table: ObjectTable  # without vectors and thumbnails
    model_name: str  # the segmentation network
    min_size: tuple[int, int]  # smallest height and width of an object in pixels
    io_paths: list  # folders of results where component maps may lie, the likeliest first
    selection = None  # as of `Judge`: the file says it

    def places(self, dataset):
        """As of `Judge`."""
        return [Results(io_path, self.model_name, dataset) for io_path in self.io_paths]

    def measured_images(self):
        """A list of ImageName: those that have an object."""
        return list(self._rows)

    def files(self, _name):
        """As of `Judge`."""
        return [self.path]

    def inputs(self, _name):
        """As of `Judge`: the file says nothing of them."""
        return []

    def made_from(self, name):
        """As of `Judge`."""
        of_image = self.objects_of(name)
        names = "component_index", "box"
        chosen = provenance.digest([of_image[column] for column in names])
        return of_image["image_made_from"][0], {"chosen": chosen}

    def objects_of(self, name):
        """The objects of a picture: an ObjectTable."""
        return self.table.take(self._rows[name])

    def path_of(self, _name, noted):
        """Where a picture lies."""
        return noted

    @cached_property
    def _rows(self):
        rows = {}
        for row, name in enumerate(self.table.image_names()):
            rows.setdefault(name, []).append(row)
        return rows


def load_objects(path, model_name, io_path):
    """The objects in a file of stage 4: Loaded.

    Relative picture paths are looked up from here, else from the folders above the file; component
    maps in the folders above the file, then in `io_path`. `model_name` is that of the segmentation
    network where the file has no object and so does not say.

    Raises
    ------
    SettingError
        If the file is missing, broken or something else.
    """
    if not Path(path).is_file():
        raise SettingError(
            f"`args.load_file` {path} is missing: name a file that compute_embeddings.py wrote"
        )
    try:
        table = tables.read_embeddings(path)
    except (OSError, ValueError) as error:
        raise SettingError(f"`args.load_file` {path}: {error}") from error
    above = [*Path(path).resolve().parents]
    folders = [Path.cwd(), *above]
    found = {picture: _found_in(folders, picture) for picture in set(table["image_path"])}
    columns = {
        name: column
        for name, column in table.columns.items()
        if name not in (*tables.VECTORS, "novelty", "thumbnail", "annotated")
    }
    columns["image_path"] = tables.as_column([found[picture] for picture in table["image_path"]])
    return Loaded(
        path=Path(path).resolve(),
        table=ObjectTable(columns),
        model_name=next(iter(table["model_name"]), model_name),
        min_size=min_size_of(path),
        io_paths=[*above, io_path],
    )


def _found_in(folders, picture):
    """Path of a picture in the first folder that has it, else as it came; absolute ones stay."""
    places = [folder / picture for folder in folders]
    return str(next((place for place in places if place.is_file()), picture))
