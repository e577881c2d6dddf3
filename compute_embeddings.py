"""Stage 4: turn the segments with low predicted IoU into crops and feature vectors.

    python compute_embeddings.py with args.datasets=[streets,streets_ood] args.iou_threshold=0.5
    python compute_embeddings.py with args.load_file=FILE args.net=resnet18

Writes embeddings/<model>/embeddings_<min_height>_<min_width>_<net>.p below the results folder. What
is there already stays, only what is new is computed.
"""

import functools
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from configuration import CONFIG, embedding_networks, meta_models, models
from configuration import datasets as known_datasets
from src import cache, crops, exports, inference, loading, parallel, pictures
from src import embedding_networks as embedding
from src.datasets import read_image
from src.embedding_table import GrowingTable
from src.experiment import create_experiment
from src.loading import SettingError
from src.MetaSeg import meta_models as meta
from src.records import FoundSegments, ImageName, JudgedImage, MeasuredImage

ex = create_experiment("compute_embeddings")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=[  # entries of `datasets`: first what the networks learnt on, then those to search
            CONFIG.TRAIN_DATASET.name,
            CONFIG.DATASET.name,
        ],
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        meta_model=CONFIG.META_MODEL_NAME,  # entry of `meta_models` that predicts the IoU
        meta_weights=None,  # its weights file; None: `model_weights` of its entry
        net=CONFIG.EMBEDDING_NETWORK,  # entry of `embedding_networks`, or a name of torchvision
        net_weights=None,  # its weights file; None: as its entry has it
        load_file=None,  # file of stage 4 whose segments to embed by another `net`; None: find them
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        iou_threshold=CONFIG.IOU_THRESHOLD,  # segments with a predicted IoU below it are suspects
        pred_classes=None,  # names or ids of predicted classes to look at; None: those of the model
        min_height=CONFIG.MIN_HEIGHT,  # pixels, of a segment; None: what suits the datasets
        min_width=CONFIG.MIN_WIDTH,  # pixels, of a segment; None: what suits the datasets
        min_crop_height=CONFIG.MIN_CROP_HEIGHT,  # pixels; None: what suits the datasets
        min_crop_width=CONFIG.MIN_CROP_WIDTH,  # pixels; None: what suits the datasets
        crop_size=None,  # [height, width] in pixels to scale every crop to; None: each as it is
        batch_size=16,  # crops of one size that go through the network together
        num_cores=CONFIG.NUM_CORES,  # processes that find the segments and cut the crops
        gpu=CONFIG.GPU_ID,  # index of the GPU; None: the CPU
        overwrite=False,  # embed again what is already there
        coco=None,  # write the segments to this COCO file (.json) too; None: do not
        csv=None,  # write them to this CSV file too; None: do not
        parquet=None,  # write them to this Parquet file too; None: do not
    )


def embed_segments(
    log, *, datasets, model_name, meta_model, meta_weights, net, net_weights, load_file, io_path,
    iou_threshold, pred_classes, min_height, min_width, min_crop_height, min_crop_width, crop_size,
    batch_size, num_cores, gpu, overwrite, coco, csv, parquet,
):  # fmt: skip
    """Find the suspicious segments of some datasets, and embed those that are not embedded yet.

    Returns
    -------
    figures : dict of str to number
        See `report`; empty with `load_file`.
    """
    loading.check_counts(
        min_height=min_height, min_width=min_width, min_crop_height=min_crop_height,
        min_crop_width=min_crop_width, batch_size=batch_size, num_cores=num_cores,
    )  # fmt: skip
    net_entry = embedding.choose_entry(embedding_networks, net)
    net_entry = net_entry._replace(model_weights=net_weights or net_entry.model_weights)
    if net == "segmentation" and (net_weights or crop_size):
        raise SettingError(
            "args.net_weights and args.crop_size go with networks that see crops; args.net="
            "segmentation takes its features of whole images from the network args.model_name"
        )
    device = inference.choose_device(gpu, log)
    if load_file is None:
        found = find_segments(
            log, datasets=datasets, model_name=model_name, meta_model=meta_model,
            meta_weights=meta_weights, io_path=io_path, iou_threshold=iou_threshold,
            pred_classes=pred_classes, min_size=(min_height, min_width),
            min_crop=(min_crop_height, min_crop_width), num_cores=num_cores,
        )  # fmt: skip
    else:
        found = load_segments(load_file, model_name)
    place = io_path, found.model_name
    if net == "segmentation":  # the segmentation network's own features
        net_entry = loading.choose(models, found.model_name, "model")
        cut = functools.partial(read_whole, place=place)
        embed = functools.partial(own_vectors, net_entry, device)
    else:
        cut = cut_crops
        embed = functools.partial(crop_vectors, net_entry, device, crop_size, batch_size)
    path = cache.embeddings_path(*place, *found.min_size, net)
    made_from = {"net": loading.identity(net_entry), "crop_size": crop_size}
    growing = GrowingTable(log, path, found, made_from, overwrite)
    if growing.is_up_to_date:
        log.info("%s is up to date: not embedded again", path)
    tally = growing.fill(cut, embed, num_cores)
    export(log, growing.complete(), list(found.made_from), io_path, coco, csv, parquet)
    parallel.close(log, replace(tally, failed=found.failed + tally.failed))
    return found.figures


# which segments


def find_segments(
    log, *, datasets, model_name, meta_model, meta_weights, io_path, iou_threshold, pred_classes,
    min_size, min_crop, num_cores,
):  # fmt: skip
    """Predict the IoU of every segment of the searched datasets and choose the suspicious ones.

    Parameters
    ----------
    min_size, min_crop : (int or None, int or None)
        Height and width in pixels, of segments and crops; None: what suits the datasets.

    Returns
    -------
    found : FoundSegments
    """
    source, *searched = dict.fromkeys(datasets) if datasets else [None]
    if not searched:
        raise SettingError(
            "`args.datasets` must name first what the networks learnt on, then the datasets to "
            f"search, such as [streets,streets_ood]; got {datasets!r}"
        )
    entries = [loading.choose(known_datasets, name, "dataset") for name in (source, *searched)][1:]
    model = loading.choose(models, model_name, "model")
    meta_entry = loading.choose(meta_models, meta_model, "meta model")
    meta_entry = meta_entry._replace(model_weights=meta_weights or meta_entry.model_weights)
    min_size = common_size(entries, "min_segment_size", *min_size)
    min_crop = common_size(entries, "min_crop_size", *min_crop)
    rule = dict(
        iou_threshold=iou_threshold,
        classes=classes_to_search(pred_classes),
        min_height=min_size[0],
        min_width=min_size[1],
    )
    place = io_path, model_name
    names = [
        ImageName(dataset, index) for dataset in searched for index in indices_of(place, dataset)
    ]
    meta_model = load_meta_model(log, meta_entry, model, lambda: segments_of(place, source))
    judge = functools.partial(judge_image, meta_model=meta_model, rule=rule, min_crop=min_crop)
    images, tally = judge_images(log, names, place, judge, num_cores)
    if not images:
        parallel.close(log, tally)
    figures = report(log, images, min_size, min_crop)
    facts = dict(
        rule, model=loading.identity(model), meta_model=loading.identity(meta_entry), crop=min_crop
    )
    made_from = {dataset: {**facts, "images": digest_of(images, dataset)} for dataset in searched}
    table = table_of(images, model_name)
    return FoundSegments(table, model_name, min_size, made_from, figures, tally.failed)


def common_size(entries, name, height, width):
    """Height and width in pixels, as given or as the modules of all datasets have them."""
    sizes = {entry.name: loading.size_for(entry, name, height, width) for entry in entries}
    size, *others = sizes.values()
    if any(other != size for other in others):
        what = "crop_" if name == "min_crop_size" else ""
        raise SettingError(
            f"the datasets have different `{name}` ({sizes}): choose one for all by "
            f"args.min_{what}height and args.min_{what}width"
        )
    return size


def classes_to_search(pred_classes):
    """Sorted ids of the predicted classes to look at, None for all.

    Parameters
    ----------
    pred_classes : None, or name, id or list of both
        None: `pred_class_selection` beside the class of the dataset that the networks learnt on.
    """
    if pred_classes is None:
        selection = loading.module_attribute(CONFIG.TRAIN_DATASET, "pred_class_selection", None)
        return None if selection is None else sorted(selection)
    known = loading.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping")
    id_of = {name.casefold(): key for key, (name, _) in known.items()}
    wanted = pred_classes if isinstance(pred_classes, list | tuple) else [pred_classes]
    ids = [id_of.get(str(word).casefold(), word) for word in wanted]
    wrong = [word for word in ids if type(word) is not int or word not in known]
    if wrong or not ids:
        classes = ", ".join(f"{key} {name!r}" for key, (name, _) in known.items())
        raise SettingError(
            f"`args.pred_classes` must be names or ids of predicted classes, such as "
            f"[person,rider], got {', '.join(map(repr, wrong)) or 'none'}. Classes: {classes}"
        )
    return sorted(ids)


def indices_of(place, dataset):
    """Indices of the images of a dataset whose segments stage 2 has measured."""
    return cache.image_indices(cache.metrics_path(*place, dataset, 0).parent, "metrics")


def segments_of(place, dataset):
    """SegmentTable of a dataset."""
    return meta.segment_table(
        (index, cache.read_table(cache.metrics_path(*place, dataset, index)))
        for index in indices_of(place, dataset)
    )


def load_meta_model(log, entry, model, training):
    """The meta model of an entry; warns where it was trained on another segmentation network."""
    meta_model = meta.load_meta_model(entry.model_weights, entry, training)
    trained = meta.made_from(entry.model_weights)
    if trained and trained["network"] != loading.identity(model):
        log.warning(
            "%s was trained on another segmentation network than %r as it is now: its IoUs are "
            "guesses until train_meta_nn.py has run", entry.model_weights, model.name,
        )  # fmt: skip
    return meta_model


def judge_images(log, names, place, judge, num_cores):
    """What `judge` makes of the MeasuredImage of each name, and how that ended: a Tally."""
    images = []
    tally = parallel.for_each_result(
        lambda todo: parallel.results(
            functools.partial(measure_image, place=place), todo, num_cores
        ),
        lambda _, measured: images.append(judge(measured)),
        names,
        num_cores=1,
        description="judging",
        log=log,
    )
    return images, tally


def measure_image(name, place):
    """What the stages before know of the segments of an image.

    Parameters
    ----------
    name : ImageName
    place : (path, str)
        Folder of all results, and name of the segmentation network.

    Returns
    -------
    measured : MeasuredImage
    """
    metrics_path = cache.metrics_path(*place, *name)
    prediction_path = cache.prediction_path(*place, *name)
    made_from = cache.made_from(metrics_path)
    if made_from and made_from["prediction"] != cache.made_from(prediction_path):
        raise ValueError("predicted again since it was measured; run src/MetaSeg/main.py again")
    metrics = cache.read_table(metrics_path)
    components = cache.read_components(cache.components_path(*place, *name))
    prediction = cache.read_prediction(prediction_path, probabilities=False)
    numbers = np.arange(1, len(metrics["class"]) + 1)
    return MeasuredImage(
        name=name,
        path=prediction.image_path,
        size=components.shape,
        metrics=metrics,
        label=crops.majority_label(components, prediction.ground_truth, numbers).astype(np.uint16),
        boxes=crops.segment_boxes(components),
        made_from=cache.digest(made_from),
    )


def judge_image(measured, meta_model, rule, min_crop):
    """Predict the IoU of the segments of an image and choose the suspicious ones.

    Parameters
    ----------
    measured : MeasuredImage
    meta_model : MetaModel
    rule : dict
        Arguments of `crops.select_segments`.
    min_crop : (int, int)
        Smallest height and width of a crop in pixels.

    Returns
    -------
    judged : JudgedImage
    """
    boxes, size = measured.boxes, measured.size
    predicted_class = np.asarray(measured.metrics["class"], np.uint16)
    iou_pred = meta_model.predict(measured.metrics)
    selection = crops.select_segments(
        iou_pred=iou_pred, predicted_class=predicted_class, boxes=boxes, **rule
    )
    chosen = selection.chosen
    return JudgedImage(
        name=measured.name,
        path=measured.path,
        size=size,
        made_from=measured.made_from,
        iou_pred=iou_pred,
        predicted_class=predicted_class,
        label=measured.label,
        is_large=crops.are_large(boxes, rule["min_height"], rule["min_width"]),
        selection=selection,
        boxes=crops.grow_boxes(boxes[chosen], size, *min_crop),
        segment_size=np.asarray(measured.metrics["S"], np.int64)[chosen],
    )


def digest_of(images, dataset):
    """What the segments of a dataset and their predicted IoU are made from."""
    digest = hashlib.sha256()
    for image in images:
        if image.name.dataset == dataset:
            digest.update(image.made_from.encode() + image.iou_pred.tobytes())
    return digest.hexdigest()


def report(log, images, min_size, min_crop):
    """Log what was chosen, and how well 1 - predicted IoU finds what is out of distribution.

    Most segments are fragments of a few pixels, which are wrong whatever they lie on; so that is
    told for all segments and for those of at least `min_size` (height, width in pixels).

    Returns
    -------
    figures : dict of str to number
        `segments`, `kept`; and `auroc` (all segments) and `auroc_large`, where the ground truth
        has classes that the network does not predict.
    """
    known = loading.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping")
    classes = np.concatenate([image.predicted_class for image in images])
    chosen = np.concatenate([image.selection.chosen for image in images])
    log.info("%-16s %8s %8s", "predicted class", "kept", "total")
    for class_id in np.unique(classes).tolist():
        of_class = classes == class_id
        name = known.get(class_id, (f"class {class_id}",))[0]
        log.info("%-16s %8d %8d", name, (chosen & of_class).sum(), of_class.sum())
    log.info("%-16s %8d %8d", "all", chosen.sum(), len(chosen))
    for reason in ("high_iou", "other_class", "too_small"):
        count = sum(getattr(image.selection, reason) for image in images)
        log.info("left out, %s: %d", reason.replace("_", " "), count)
    if not chosen.any():
        log.warning("no segment is left: raise args.iou_threshold, or lower args.min_height/width")
    small = [image for image in images if len(image.boxes) and np.less(image.size, min_crop).any()]
    if small:
        log.info("crops that show the whole height or width: %d images are smaller", len(small))
    return {
        "segments": len(chosen),
        "kept": int(chosen.sum()),
        **report_detection(log, images, min_size),
    }


def report_detection(log, images, min_size):
    """`auroc` and `auroc_large` of `report`, where they are known."""
    judged_by = {
        dataset: loading.anomaly_labels(known_datasets[dataset], CONFIG.TRAIN_DATASET, log)
        for dataset in dict.fromkeys(image.name.dataset for image in images)
    }
    truth = np.concatenate([judged_by[image.name.dataset][image.label] for image in images])
    is_large, iou_pred = (
        np.concatenate([getattr(image, name) for image in images])
        for name in ("is_large", "iou_pred")
    )
    labelled, unknown = truth != cache.NO_LABEL, truth == 1
    figures = {}
    for name, counted, what in (
        ("auroc", labelled, "all segments"),
        (
            "auroc_large",
            labelled & is_large,
            "segments of at least {} x {} pixels".format(*min_size),
        ),
    ):
        if 0 < unknown[counted].sum() < counted.sum():
            figures[name] = float(roc_auc_score(unknown[counted], 1 - iou_pred[counted]))
            log.info(
                "AUROC of out of distribution by 1 - predicted IoU, %s: %.3f (%d of %d)",
                what, figures[name], unknown[counted].sum(), counted.sum(),
            )  # fmt: skip
    return figures


def table_of(images, model_name):
    """The chosen segments of judged images as a table, without vectors and thumbnails.

    Parameters
    ----------
    images : list of JudgedImage

    Returns
    -------
    table : dict
        As `cache.read_embeddings` gives it.
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


def load_segments(path, model_name):
    """The segments in a file of stage 4, of this system or of the original, without vectors.

    Returns
    -------
    found : FoundSegments
        Relative picture paths are looked up from here, else from the folders above the file.
    """
    try:
        table = cache.read_embeddings(path)
    except (OSError, ValueError) as error:
        raise SettingError(f"`args.load_file` {path}: {error}") from error
    made_from = (table["made_from"] or {}).get("datasets", {})
    pictures_at = [found_from(path, picture) for picture in table["image_path"]]
    return FoundSegments(
        table=cache.without_vectors(table) | {"image_path": pictures_at},
        model_name=next(iter(table["model_name"]), model_name),
        min_size=cache.min_size_of(path),
        made_from={name: made_from.get(name, {}) for name in set(table["dataset"])},
        figures={},
        failed=(),
    )


def found_from(file, picture):
    """Absolute path of a picture that a file may name relative to a folder above it."""
    folders = [Path.cwd(), *Path(file).resolve().parents]
    places = [folder / picture for folder in folders]
    return str(next((place for place in places if place.is_file()), picture))


# crops, thumbnails and vectors


def cut_crops(task):
    """Crops (h, w, 3) uint8 and thumbnails of the segments of one image."""
    picture = read_picture(task)
    cut = [picture[upper:lower, left:right].copy() for left, upper, right, lower in task.boxes]
    return cut, [pictures.thumbnail(picture, box) for box in task.boxes]


def read_whole(task, place):
    """Picture (H, W, 3) uint8 and component map of one image, and thumbnails of its segments."""
    picture = read_picture(task)
    components = cache.read_components(cache.components_path(*place, *task.name))
    boxes = crops.segment_boxes(components)
    known = task.numbers <= len(boxes)
    if components.shape != picture.shape[:2] or not known.all():
        raise ValueError(
            f"{cache.components_path(*place, *task.name)} has other segments than were chosen; "
            "run src/MetaSeg/main.py, then this stage without args.load_file"
        )
    return (picture, components), [pictures.thumbnail(picture, box) for box in task.boxes]


def read_picture(task):
    """Picture (H, W, 3) uint8 of a task, of the size that it had when it was predicted."""
    picture = np.asarray(read_image(task.path))
    height, width = picture.shape[:2]
    right, lower = task.boxes[:, 2:].max(axis=0)
    if task.size not in ((height, width), (-1, -1)) or right > width or lower > height:
        raise ValueError(
            f"{task.path} is {height} x {width} pixels now, and was {task.size[0]} x "
            f"{task.size[1]} when it was predicted; predict it again"
        )
    return picture


def crop_vectors(entry, device, crop_size, batch_size, cut):
    """Yield (row, vector) of a network that sees crops; what it is given by `GrowingTable.fill`."""
    network = embedding.load_embedding_network(entry, device, crop_size)
    by_row = (
        (row, crop) for task, found in cut for row, crop in zip(task.rows, found, strict=True)
    )
    yield from embedding.embed_stream(network, by_row, batch_size)


def own_vectors(model, device, cut):
    """Yield (row, vector) of the segmentation network's features, the mean over the segment."""
    network = inference.load_network(model, device)
    mean, std = (loading.module_attribute(CONFIG.TRAIN_DATASET, name) for name in ("mean", "std"))
    to_input = inference.to_input(mean, std)
    for task, (picture, components) in cut:
        image, _ = to_input(Image.fromarray(picture), None)
        vectors = embedding.segment_features(network, image, components, task.numbers)
        yield from zip(task.rows, vectors, strict=True)


# for other tools


def export(log, table, searched, io_path, coco, csv, parquet):
    """Write the segments of the searched datasets to files for other tools, where asked to."""
    dataset = np.asarray(table["dataset"], np.str_)[table["image_level_index"]]
    rows = np.flatnonzero(np.isin(dataset, searched))
    known = [known_datasets[name] for name in searched if name in known_datasets]
    names = (
        loading.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping"),
        {entry.name: loading.class_mapping(entry, "label_mapping") for entry in known},
    )

    def components(*where):
        return cache.read_components(cache.components_path(io_path, *where))

    for path, write in (
        (coco, functools.partial(exports.write_coco, components=components)),
        (csv, exports.write_csv),
        (parquet, exports.write_parquet),
    ):
        if path is None:
            continue
        try:
            write(path, table, rows, names)
        except (OSError, ValueError) as error:
            raise SettingError(f"{path} cannot be written: {error}") from error
        log.info("wrote %s: %d segments", path, len(rows))


@ex.automain
def main(args, _log):
    return embed_segments(_log, **args)
