"""Stage 4: turn the segments with low predicted IoU into crops and feature vectors.

    python compute_embeddings.py with args.dataset=streets_ood args.iou_threshold=0.5

Writes embeddings/<model>/<dataset>/embeddings_<min_height>_<min_width>_<net>.p below the results
folder.
"""

import functools
from dataclasses import replace

import numpy as np
from sklearn.metrics import roc_auc_score

from configuration import CONFIG, datasets, embedding_networks, meta_models, models
from src import cache, crops, inference, loading, parallel, pictures
from src import embedding_networks as embedding
from src.datasets import read_image
from src.experiment import create_experiment
from src.MetaSeg import meta_models as meta
from src.records import JudgedImage

SMALLEST_CROP = 32  # pixels; the ImageNet networks take nothing smaller

ex = create_experiment("compute_embeddings")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets` to search
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        meta_model=CONFIG.META_MODEL_NAME,  # entry of `meta_models` that predicts the IoU
        meta_weights=None,  # its weights file; None: `model_weights` of its entry
        net=CONFIG.EMBEDDING_NETWORK,  # entry of `embedding_networks`
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        iou_threshold=CONFIG.IOU_THRESHOLD,  # segments with a predicted IoU below it are suspects
        min_height=CONFIG.MIN_HEIGHT,  # pixels, of a segment; None: what suits the dataset
        min_width=CONFIG.MIN_WIDTH,  # pixels, of a segment; None: what suits the dataset
        min_crop_height=CONFIG.MIN_CROP_HEIGHT,  # pixels; None: what suits the dataset
        min_crop_width=CONFIG.MIN_CROP_WIDTH,  # pixels; None: what suits the dataset
        batch_size=16,  # crops of one size that go through the network together
        gpu=CONFIG.GPU_ID,  # index of the GPU; None: the CPU
        overwrite=False,  # embed again what is already there
    )


def embed_dataset(
    log, *, dataset, model_name, meta_model, meta_weights, net, io_path, iou_threshold, min_height,
    min_width, min_crop_height, min_crop_width, batch_size, gpu, overwrite,
):  # fmt: skip
    """Find the suspicious segments of a dataset, and embed them unless that is done already.

    Returns
    -------
    figures : dict of str to number
        See `report`.
    """
    loading.check_counts(
        min_height=min_height, min_width=min_width, min_crop_height=min_crop_height,
        min_crop_width=min_crop_width, batch_size=batch_size,
    )  # fmt: skip
    model = loading.choose(models, model_name, "model")
    net_entry = loading.choose(embedding_networks, net, "embedding network")
    data = loading.choose(datasets, dataset, "dataset")
    meta_entry = loading.choose(meta_models, meta_model, "meta model")
    meta_entry = meta_entry._replace(model_weights=meta_weights or meta_entry.model_weights)
    device = inference.choose_device(gpu, log)
    min_height, min_width = loading.size_for(data, "min_segment_size", min_height, min_width)
    crop_size = loading.size_for(data, "min_crop_size", min_crop_height, min_crop_width)
    rule = dict(
        iou_threshold=iou_threshold,
        classes=loading.module_attribute(CONFIG.TRAIN_DATASET, "pred_class_selection", None),
        min_height=min_height,
        min_width=min_width,
    )
    is_own = net == "segmentation"  # the segmentation network's own features
    identity = loading.identity(model)
    if not is_own:
        crop_size = [max(size, SMALLEST_CROP) for size in crop_size]
    images, tally = judge_images(log, io_path, model_name, dataset, meta_entry, identity, rule)
    if not images:
        parallel.close(log, tally)
    figures = report(log, images, data, (min_height, min_width))

    path = cache.embeddings_path(io_path, model_name, dataset, min_height, min_width, net)
    made_from = dict(
        rule,
        crop_size=crop_size,
        net=identity if is_own else loading.identity(net_entry),
        segments=cache.digest([image.made_from for image in images]),
    )
    if not overwrite and cache.is_made_from(path, made_from):
        log.info("%s is up to date: not embedded again", path)
        parallel.close(log, tally)
        return figures
    if is_own:
        embed = _own_features(inference.load_network(model, device), io_path, model_name, dataset)
    else:
        network = embedding.load_embedding_network(net_entry, device)
        embed = functools.partial(_crop_features, network, device, batch_size)
    parts, embedded = embed_images(log, images, embed, crop_size)
    failed = tally.failed + embedded.failed
    if failed:  # not the same as the whole: the next run tries again
        made_from["failed"] = [name for name, _ in failed]
    cache.write_table(path, embeddings_table(parts, dataset, model_name), made_from)
    log.info("wrote %s", path)
    parallel.close(log, replace(embedded, failed=failed))
    return figures


def judge_images(log, io_path, model_name, dataset, meta_entry, network, rule):
    """Predict the IoU of every segment of a dataset and choose the suspicious ones.

    Parameters
    ----------
    network : dict
        Identity of the segmentation network; a meta model trained on another one is warned of.
    rule : dict
        Arguments of `crops.select_segments`.

    Returns
    -------
    images : list of JudgedImage
        In the order of their index, without those that could not be read.
    tally : Tally
    """
    folder = cache.metrics_path(io_path, model_name, dataset, 0).parent
    indices = cache.image_indices(folder, "metrics")
    meta_model = meta.load_meta_model(meta_entry.model_weights, meta_entry)
    weights = loading.identity(meta_entry)
    trained = meta.made_from(meta_entry.model_weights)
    if trained and trained["network"] != network:
        log.warning(
            "%s was trained on another segmentation network than %r as it is now: its IoUs are "
            "guesses until train_meta_nn.py has run", meta_entry.model_weights, model_name,
        )  # fmt: skip
    images = []

    def judge(index):
        place = io_path, model_name, dataset, index
        measured = cache.made_from(cache.metrics_path(*place))
        if measured and measured["prediction"] != cache.made_from(cache.prediction_path(*place)):
            raise ValueError("predicted again since it was measured; run src/MetaSeg/main.py again")
        metrics = cache.read_table(cache.metrics_path(*place))
        components = cache.read_components(cache.components_path(*place))
        prediction = cache.read_prediction(cache.prediction_path(*place), probabilities=False)
        iou_pred, boxes = meta_model.predict(metrics), crops.segment_boxes(components)
        numbers = np.arange(1, len(iou_pred) + 1)
        images.append(
            JudgedImage(
                index=index,
                path=prediction.image_path,
                size=components.shape,
                iou_pred=iou_pred,
                predicted_class=np.asarray(metrics["class"]),
                label=crops.majority_label(components, prediction.ground_truth, numbers),
                boxes=boxes,
                selection=crops.select_segments(
                    iou_pred=iou_pred, predicted_class=metrics["class"], boxes=boxes, **rule
                ),
                made_from=[measured, weights],
            )
        )

    tally = parallel.for_each_image(
        judge, indices, num_cores=1, description=f"judging {dataset}", log=log
    )
    return images, tally


def report(log, images, data, min_size):
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
    for class_id in np.unique(classes):
        of_class = classes == class_id
        name = known.get(class_id, (f"class {class_id}",))[0]
        log.info("%-16s %8d %8d", name, (chosen & of_class).sum(), of_class.sum())
    log.info("%-16s %8d %8d", "all", chosen.sum(), len(chosen))
    for reason in ("high_iou", "other_class", "too_small"):
        count = sum(getattr(image.selection, reason) for image in images)
        log.info("left out, %s: %d", reason.replace("_", " "), count)
    figures = {"segments": len(chosen), "kept": int(chosen.sum())}

    labels, boxes, iou_pred = (
        np.concatenate([getattr(image, name) for image in images])
        for name in ("label", "boxes", "iou_pred")
    )
    predicted_ids = loading.predicted_ids(data, CONFIG.TRAIN_DATASET, log)
    labelled = labels != cache.NO_LABEL
    unknown = predicted_ids[np.where(labelled, labels, 0)] == cache.NO_LABEL
    left, upper, right, lower = boxes.T
    large = (lower - upper >= min_size[0]) & (right - left >= min_size[1])
    for name, counted, what in (
        ("auroc", labelled, "all segments"),
        ("auroc_large", labelled & large, "segments of at least {} x {} pixels".format(*min_size)),
    ):
        if 0 < unknown[counted].sum() < counted.sum():
            figures[name] = float(roc_auc_score(unknown[counted], 1 - iou_pred[counted]))
            log.info(
                "AUROC of out of distribution by 1 - predicted IoU, %s: %.3f (%d of %d)",
                what, figures[name], unknown[counted].sum(), counted.sum(),
            )  # fmt: skip
    return figures


def embed_images(log, images, embed, crop_size):
    """Vectors, boxes and thumbnails of the chosen segments.

    Parameters
    ----------
    embed : function of (JudgedImage, PIL image, numbers (n,), boxes (n, 4)) -> (n, F) float32

    Returns
    -------
    parts : list of (JudgedImage, numbers, boxes, vectors, thumbnails)
        One an image with at least one chosen segment.
    tally : Tally
    """
    images = [image for image in images if image.selection.chosen.any()]
    parts = []

    def embed_image(position):
        judged = images[position]
        picture = read_image(judged.path)
        if picture.size != judged.size[::-1]:
            raise ValueError(
                f"{judged.path} is {picture.height} x {picture.width} pixels now, and was "
                f"{judged.size[0]} x {judged.size[1]} when it was predicted; predict it again"
            )
        numbers = np.flatnonzero(judged.selection.chosen) + 1
        boxes = crops.grow_boxes(judged.boxes[numbers - 1], judged.size, *crop_size)
        vectors = embed(judged, picture, numbers, boxes)
        thumbnails = [pictures.thumbnail(np.asarray(picture), box) for box in boxes]
        parts.append((judged, numbers, boxes, vectors, thumbnails))

    tally = parallel.for_each_image(
        embed_image, range(len(images)), num_cores=1, description="embedding", log=log
    )
    return parts, tally


def embeddings_table(parts, dataset, model_name):
    """The table of stage 4, with the keys of the original system."""
    judged, numbers, boxes, vectors, thumbnails = zip(*parts, strict=True) if parts else [()] * 5
    rows = [(image, number - 1) for image, number in zip(judged, numbers, strict=True)]

    def column(values, dtype):
        return np.concatenate([np.zeros(0, dtype), *values]).astype(dtype)

    return {
        "image_path": [image.path for image in judged],
        "dataset": [dataset] * len(judged),
        "model_name": [model_name] * len(judged),
        "image_index": np.array([image.index for image in judged], np.int64),
        "iou_pred": [image.iou_pred for image in judged],
        "embeddings": np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32),
        "box": np.concatenate([np.zeros((0, 4), np.int64), *boxes]),
        "component_index": column(numbers, np.int64),
        "image_level_index": np.repeat(np.arange(len(judged)), [len(n) for n in numbers]),
        "gt": column([image.label[at] for image, at in rows], np.int64),
        "pred": column([image.predicted_class[at] for image, at in rows], np.int64),
        "iou": column([image.iou_pred[at] for image, at in rows], np.float32),
        "thumbnail": [jpeg for jpegs in thumbnails for jpeg in jpegs],
    }


def _own_features(network, io_path, model_name, dataset):
    """Embed by the segmentation network's features, averaged over the segment's pixels."""
    mean, std = (loading.module_attribute(CONFIG.TRAIN_DATASET, name) for name in ("mean", "std"))
    to_input = inference.to_input(mean, std)

    def embed(judged, picture, numbers, boxes):
        path = cache.components_path(io_path, model_name, dataset, judged.index)
        image, _ = to_input(picture, None)
        return embedding.segment_features(network, image, cache.read_components(path), numbers)

    return embed


def _crop_features(network, device, batch_size, judged, picture, numbers, boxes):
    """Embed by a classification network, from the crop of each segment."""
    cut = [picture.crop(box) for box in boxes.tolist()]
    return embedding.embed_crops(network, cut, device, batch_size)


@ex.automain
def main(args, _log):
    return embed_dataset(_log, **args)
