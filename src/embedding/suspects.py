"""Which segments of which images are suspicious: found anew, or read from an earlier file."""

import hashlib
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from src import class_ids, registry
from src.embedding import crops
from src.errors import SettingError
from src.MetaSeg import meta_models as meta
from src.MetaSeg import segment_tables
from src.MetaSeg import stage as measuring
from src.MetaSeg.meta_models import MetaModel
from src.records import FoundSegments, ImageName, JudgedImage
from src.run import choice, parallel
from src.run.kept import Kept
from src.store import cache


def measured_images(io_path, model_name, dataset):
    """Images of a dataset whose segments stage 2 has measured: a list of ImageName, ascending."""
    folder = cache.metrics_path(io_path, model_name, dataset, 0).parent
    return [ImageName(dataset, index) for index in cache.image_indices(folder, "metrics")]


def find_segments(log, search, num_cores, *, fail_fast, executor=None, images_per_job=1):
    """Predict the IoU of every segment of the searched images and choose the suspicious ones.

    Parameters
    ----------
    log : logging.Logger
    search : Search
    num_cores : int
        Processes that read the images' files.
    fail_fast : bool
        End at the first image that fails.
    executor, images_per_job
        See `parallel.for_each_image`.

    Returns
    -------
    found : FoundSegments

    Raises
    ------
    SettingError
        If the meta model or the weights of a network are missing.
    SacredError
        If no image could be judged; names each and says why.
    """
    meta_model = load_meta_model(log, search)
    networks = {
        "model": registry.identity(search.model),
        "meta_model": registry.identity(search.meta_model),
    }
    images = []
    judge = Judge(
        search.io_path, search.model_name, meta_model, _rule(search), search.min_size,
        search.min_crop,
    )  # fmt: skip
    tally = parallel.for_each_image(
        judge.judge_image,
        search.images,
        num_cores=num_cores,
        executor=executor,
        images_per_job=images_per_job,
        description="judging",
        consume=lambda _, judged: images.append(judged),
        fail_fast=fail_fast,
        log=log,
    )
    if tally.failed and not images:
        raise parallel.failure(tally)
    facts = {**_rule(search), "crop": search.min_crop, **networks}
    return FoundSegments(
        table=table_of(images, search.model_name),
        model_name=search.model_name,
        min_size=search.min_size,
        made_from={
            entry.name: facts | _state_of(images, entry.name, is_part=bool(search.others))
            for entry in search.datasets
        },
        figures=report(log, images, search) if images else {"segments": 0, "kept": 0},
        folders=search.folders,
        failed=tally.failed,
        not_searched=search.others.union(search.images) - {image.name for image in images},
    )


def load_segments(path, model_name, io_path):
    """The segments in a file of stage 4, of this system or of the original, without vectors.

    Parameters
    ----------
    path : path
    model_name : str
        The segmentation network, where the file has no segment and so does not say.
    io_path : path
        Folder of all results: component maps are looked up in the folders above the file, then
        there.

    Returns
    -------
    found : FoundSegments
        Relative picture paths are looked up from here, else from the folders above the file.

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
        table = cache.read_embeddings(path)
    except (OSError, ValueError) as error:
        raise SettingError(f"`args.load_file` {path}: {error}") from error
    made_from = (table["made_from"] or {}).get("datasets", {})
    above = [*Path(path).resolve().parents]
    pictures = [_found_in([Path.cwd(), *above], picture) for picture in table["image_path"]]
    return FoundSegments(
        table=cache.without_vectors(table) | {"image_path": pictures},
        model_name=next(iter(table["model_name"]), model_name),
        min_size=cache.min_size_of(path),
        made_from={name: made_from.get(name, {}) for name in set(table["dataset"])},
        figures={},
        folders=[*above, io_path],
    )


def part_of(found, shard):
    """FoundSegments of the images that one of several machines works on; see `choice.in_shard`."""
    names = [
        ImageName(*name)
        for name in zip(found.table["dataset"], found.table["image_index"].tolist(), strict=True)
    ]
    ours = set(choice.in_shard(names, shard, attrgetter("index")))
    is_ours = np.array([name in ours for name in names], bool)
    rows = np.flatnonzero(is_ours[found.table["image_level_index"]])
    return replace(
        found,
        table=cache.take_segments(found.table, rows),
        not_searched=frozenset(names) - ours,
        made_from={name: facts | {"count": None} for name, facts in found.made_from.items()},
    )


def load_meta_model(log, search):
    """MetaModel of a Search; warns where it was trained on another segmentation network."""

    def training():
        place = search.io_path, search.model_name, search.source.name
        return segment_tables.segment_table(
            (name.index, cache.read_table(cache.metrics_path(*place[:2], *name)))
            for name in measured_images(*place)
        )

    entry = search.meta_model
    meta_model = meta.load_meta_model(entry.model_weights, entry, training)
    trained = meta.made_from(entry.model_weights)
    if trained and trained["network"] != registry.identity(search.model):
        log.warning(
            "%s was trained on another segmentation network than %r as it is now: its IoUs are "
            "guesses until train_meta_nn.py has run", entry.model_weights, search.model_name,
        )  # fmt: skip
    return meta_model


@dataclass(eq=False)
class Judge(Kept):
    """What stage 4 does with each image first, here or in another process.

    Parameters
    ----------
    io_path : path
        Folder of all results.
    model_name : str
        The segmentation network.
    meta_model : MetaModel
    rule : dict
        Which segments are suspicious: arguments of `crops.select_segments`.
    min_size, min_crop : (int, int)
        Smallest height and width in pixels, of a segment and of a crop.
    """

    io_path: str | Path
    model_name: str
    meta_model: MetaModel
    rule: dict
    min_size: tuple[int, int]
    min_crop: tuple[int, int]

    def judge_image(self, name):
        """Predict the IoU of the S segments of an image and choose the n suspicious ones.

        Parameters
        ----------
        name : ImageName

        Returns
        -------
        judged : JudgedImage

        Raises
        ------
        FileNotFoundError, ValueError
            See `measuring.read_measured`.
        """
        place = self.io_path, self.model_name, *name
        source = measuring.source_of(place)  # before it is read: it may be measured anew meanwhile
        prediction, metrics, components = measuring.read_measured(place)
        numbers = np.arange(1, len(metrics["class"]) + 1)
        labels = crops.majority_label(components, prediction.ground_truth, numbers)
        labels, boxes = labels.astype(np.uint16), crops.segment_boxes(components)
        predicted_class = np.asarray(metrics["class"], np.uint16)
        iou_pred = self.meta_model.predict(metrics)
        selection = crops.select_segments(
            iou_pred=iou_pred, predicted_class=predicted_class, boxes=boxes, **self.rule
        )
        chosen, size = selection.chosen, components.shape
        return JudgedImage(
            name=name,
            path=prediction.image_path,
            size=size,
            made_from=cache.digest(source),
            iou_pred=iou_pred,
            predicted_class=predicted_class,
            label=labels,
            is_large=crops.are_large(boxes, *self.min_size),
            selection=selection,
            boxes=crops.grow_boxes(boxes[chosen], size, *self.min_crop),
            segment_size=np.asarray(metrics["S"], np.int64)[chosen],
        )


def table_of(images, model_name):
    """The N chosen segments of judged images as a table, without vectors and thumbnails.

    Parameters
    ----------
    images : list of JudgedImage
    model_name : str

    Returns
    -------
    table : dict
        As `cache.read_embeddings` gives it; I images that have a chosen segment.
    """
    images = [image for image in images if len(image.boxes)]

    def column(values, dtype, *shape):
        return np.concatenate([np.zeros((0, *shape), dtype), *values]).astype(dtype)

    chosen = [np.flatnonzero(image.selection.chosen) for image in images]
    pairs = list(zip(images, chosen, strict=True))
    return {
        "image_path": [image.path for image in images],
        "dataset": [image.name.dataset for image in images],
        "model_name": [model_name] * len(images),
        "image_index": np.array([image.name.index for image in images], np.int64),
        "image_size": np.array([image.size for image in images], np.int64).reshape(-1, 2),
        "iou_pred": [image.iou_pred for image in images],
        "image_made_from": [image.made_from for image in images],
        "box": column([image.boxes for image in images], np.int64, 4),
        "component_index": column([at + 1 for at in chosen], np.int64),
        "image_level_index": np.repeat(np.arange(len(images)), [len(at) for at in chosen]),
        "gt": column([image.label[at] for image, at in pairs], np.int64),
        "pred": column([image.predicted_class[at] for image, at in pairs], np.int64),
        "iou": column([image.iou_pred[at] for image, at in pairs], np.float32),
        "segment_size": column([image.segment_size for image in images], np.int64),
    }


def report(log, images, search):
    """Log what was chosen, and how well 1 - predicted IoU finds what is out of distribution.

    Parameters
    ----------
    log : logging.Logger
    images : list of JudgedImage
        At least one.
    search : Search

    Returns
    -------
    figures : dict of str to number
        `segments`, `kept`; and `auroc` and `auroc_large`, see `report_detection`.
    """
    known = class_ids.class_mapping(search.trained_on, "pred_mapping")
    classes = np.concatenate([image.predicted_class for image in images])
    chosen = np.concatenate([image.selection.chosen for image in images])
    log.info("%-16s %8s %8s", "predicted class", "kept", "total")
    for class_id in np.unique(classes).tolist():
        of_class = classes == class_id
        name = known.get(class_id, (f"class {class_id}",))[0]
        log.info("%-16s %8d %8d", name, (chosen & of_class).sum(), of_class.sum())
    log.info("%-16s %8d %8d", "all", chosen.sum(), len(chosen))
    for reason in ("unknown_iou", "high_iou", "other_class", "too_small"):
        count = sum(getattr(image.selection, reason) for image in images)
        log.info("left out, %s: %d", reason.replace("_", " "), count)
    if not chosen.any():
        log.warning("no segment is left: raise args.iou_threshold, or lower args.min_height/width")
    small = sum(
        bool(len(image.boxes) and np.less(image.size, search.min_crop).any()) for image in images
    )
    if small:
        log.info(
            "images smaller than the least crop, %d x %d pixels, whose crops show the whole height "
            "or width: %d", *search.min_crop, small,
        )  # fmt: skip
    figures = {"segments": len(chosen), "kept": int(chosen.sum())}
    return figures | report_detection(log, images, search)


def report_detection(log, images, search):
    """Log how well 1 - predicted IoU finds what is out of distribution.

    Most segments are fragments of a few pixels, which are wrong whatever they lie on; so that is
    told for all segments and for those of at least `search.min_size`. Segments without a true
    class or a predicted IoU do not count.

    Returns
    -------
    figures : dict of str to float
        `auroc` (all segments) and `auroc_large`, each where the ground truth has both classes that
        the network predicts and others.
    """
    judged_by = {
        entry.name: class_ids.anomaly_labels(entry, search.trained_on, log)
        for entry in search.datasets
    }
    truth = np.concatenate(
        # an id above 255 is that of no class
        [judged_by[image.name.dataset][np.minimum(image.label, cache.NO_LABEL)] for image in images]
    )
    is_large, iou_pred = (
        np.concatenate([getattr(image, name) for image in images])
        for name in ("is_large", "iou_pred")
    )
    counts, unknown = (truth != cache.NO_LABEL) & np.isfinite(iou_pred), truth == 1
    figures = {}
    for name, counted, what in (
        ("auroc", counts, "all segments"),
        (
            "auroc_large",
            counts & is_large,
            "segments of at least {} x {} pixels".format(*search.min_size),
        ),
    ):
        if 0 < unknown[counted].sum() < counted.sum():
            figures[name] = float(roc_auc_score(unknown[counted], 1 - iou_pred[counted]))
            log.info(
                "AUROC of out of distribution by 1 - predicted IoU, %s: %.3f (%d of %d)",
                what, figures[name], unknown[counted].sum(), counted.sum(),
            )  # fmt: skip
    return figures


def _found_in(folders, picture):
    """Path of a picture in the first folder that has it, else as it came; absolute ones stay."""
    places = [folder / picture for folder in folders]
    return str(next((place for place in places if place.is_file()), picture))


def _rule(search):
    """Arguments of `crops.select_segments`, the same for every image."""
    return dict(
        iou_threshold=search.iou_threshold,
        classes=search.classes,
        min_height=search.min_size[0],
        min_width=search.min_size[1],
    )


def _state_of(images, dataset, is_part):
    """How many images of a dataset were judged, and from what, predicted IoU included.

    Of a part of them the number is None: the file may have others.
    """
    digest, count = hashlib.sha256(), 0
    for image in images:
        if image.name.dataset == dataset:
            digest.update(image.made_from.encode() + image.iou_pred.tobytes())
            count += 1
    return {"images": digest.hexdigest(), "count": None if is_part else count}
