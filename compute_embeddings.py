"""Stage 4: turn the segments with low predicted IoU into crops and feature vectors.

    python compute_embeddings.py with args.datasets=[streets,streets_ood] args.iou_threshold=0.5
    python compute_embeddings.py with args.load_file=FILE args.net=resnet18

Writes embeddings/<model>/embeddings_<min_height>_<min_width>_<net>.p below the results folder. What
is there already stays, only what is new is computed.
"""

import functools
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np

from configuration import CONFIG, embedding_networks, meta_models, models
from configuration import datasets as known_datasets
from src import class_ids, registry
from src.embedding import networks as embedding
from src.embedding import suspects
from src.embedding import table as embedding_table
from src.embedding.vectors import CropEmbedder, WholeEmbedder
from src.errors import SettingError
from src.records import Search
from src.run import choice, parallel
from src.run.experiment import create_experiment
from src.run.settings import HOW_TO_RUN, PATH, POSITIVE, SIZE, setting, shared_settings
from src.segmentation import inference
from src.store import cache, exports, files

ex = create_experiment("compute_embeddings")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=setting(
            [CONFIG.TRAIN_DATASET.name, CONFIG.DATASET.name],
            "entries of `datasets`: first what the networks learnt on, then those to search",
        ),
        **shared_settings(CONFIG, "model_name", "meta_model", "meta_weights"),
        net=setting(
            CONFIG.EMBEDDING_NETWORK, "entry of `embedding_networks`, torchvision name, timm/NAME"
        ),
        net_weights=setting(None, "its weights file", none="as its entry has it", kind=PATH),
        load_file=setting(
            None, "file of stage 4 whose segments to embed", none="find them", kind=PATH
        ),
        **shared_settings(CONFIG, "io_path"),
        iou_threshold=setting(
            CONFIG.IOU_THRESHOLD, "suspects have a lower predicted IoU, above 1 all", kind=POSITIVE
        ),
        pred_classes=setting(
            None, "names or ids of predicted classes to look at", none="those of the model"
        ),
        **shared_settings(CONFIG, "min_height", "min_width", "min_crop_height", "min_crop_width"),
        crop_size=setting(None, "scale crops to this", none="each as it is", kind=SIZE),
        batch_size=setting(16, "crops that go through the network together", at_least=1),
        **shared_settings(CONFIG, "gpu", *HOW_TO_RUN),
        coco=setting(None, "COCO file (.json) to write the segments to", none="none", kind=PATH),
        csv=setting(None, "CSV file to write them to", none="none", kind=PATH),
        parquet=setting(None, "Parquet file to write them to", none="none", kind=PATH),
    )


def embed_segments(
    log, *, datasets, model_name, meta_model, meta_weights, net, net_weights, load_file, io_path,
    iou_threshold, pred_classes, min_height, min_width, min_crop_height, min_crop_width, crop_size,
    batch_size, num_cores, gpu, scheduler, images_per_job, shard, overwrite, dry_run, fail_fast,
    coco, csv, parquet,
):  # fmt: skip
    """Find the suspicious segments of some datasets, and embed those that are not embedded yet.

    Returns
    -------
    figures : dict of str to number
        See `suspects.report`; empty with `load_file`.
    """
    exported = dict(coco=coco, csv=csv, parquet=parquet)
    exports.check_files(**exported)
    io_path = Path(io_path).resolve()  # others may work in another folder
    net_entry = choose_network(net, net_weights, crop_size)
    if load_file is None:
        wanted = choose_search(
            datasets=datasets, model_name=model_name, meta_model=meta_model,
            meta_weights=meta_weights, io_path=io_path, iou_threshold=iou_threshold,
            pred_classes=pred_classes, min_size=(min_height, min_width),
            min_crop=(min_crop_height, min_crop_width), shard=shard,
        )  # fmt: skip
    else:
        wanted = suspects.load_segments(load_file, model_name, io_path)
        wanted = suspects.part_of(wanted, shard) if shard else wanted
    if net == "segmentation":
        net_entry = registry.choose(models, wanted.model_name, "model")
    made_from = {"net": registry.identity(net_entry), "crop_size": crop_size}
    path = cache.embeddings_path(io_path, wanted.model_name, *wanted.min_size, net)
    device = inference.choose_device(gpu, log, elsewhere=bool(scheduler))
    if net == "segmentation":
        embedder = WholeEmbedder(net_entry, to_input(), wanted.folders, device)
    else:
        embedder = CropEmbedder(net_entry, crop_size, batch_size, device)
    if not dry_run:
        if not scheduler and not embedding_table.is_of(path, made_from):
            embedder.network  # noqa: B018 (what is wrong with it shows before images are searched)
        files.prepare(path.parent)
    scheduler = None if dry_run else scheduler
    with parallel.open_executor(scheduler, io_path, log, gpu=device is None) as executor:
        work = dict(executor=executor, images_per_job=images_per_job, fail_fast=fail_fast)
        found = wanted if load_file else suspects.find_segments(log, wanted, num_cores, **work)
        growing = embedding_table.GrowingTable(log, path, found, made_from, overwrite)
        if growing.is_up_to_date:
            log.info("%s is up to date: not embedded again", path)
        tally = growing.fill(embedder, num_cores, **work, dry_run=dry_run)
    if not dry_run:
        export(log, growing.complete(), found, exported)
    parallel.close(log, replace(tally, failed=found.failed + tally.failed))
    return found.figures


# settings


def choose_search(
    *, datasets, model_name, meta_model, meta_weights, io_path, iou_threshold, pred_classes,
    min_size, min_crop, shard,
):  # fmt: skip
    """What the settings ask for: a Search.

    Parameters
    ----------
    min_size, min_crop : (int or None, int or None)
        Height and width in pixels, of segments and crops; None: what suits the datasets.
    shard : str or None
        See `choice.in_shard`.
    """
    if len(set(map(str, datasets))) < 2:
        raise SettingError(
            "`args.datasets` must name first what the networks learnt on, then the datasets to "
            f"search, such as [streets,streets_ood]; got {datasets!r}"
        )
    names = dict.fromkeys(map(str, datasets))
    source, *searched = (registry.choose(known_datasets, name, "dataset") for name in names)
    meta_entry = registry.choose(meta_models, meta_model, "meta model")
    model = registry.choose(models, model_name, "model")
    classes = classes_to_search(pred_classes)
    images = [
        name
        for entry in searched
        for name in suspects.measured_images(io_path, model.name, entry.name)
    ]
    ours = choice.in_shard(images, shard, attrgetter("index"))
    return Search(
        io_path=io_path,
        model=model,
        meta_model=meta_entry._replace(model_weights=meta_weights or meta_entry.model_weights),
        source=source,
        trained_on=CONFIG.TRAIN_DATASET,
        datasets=searched,
        iou_threshold=iou_threshold,
        classes=classes,
        min_size=common_size(searched, "min_segment_size", *min_size),
        min_crop=common_size(searched, "min_crop_size", *min_crop),
        images=ours,
        others=frozenset(images) - frozenset(ours),
    )


def common_size(entries, name, height, width):
    """Height and width in pixels, as given or as the modules of all datasets have them."""
    sizes = {entry.name: registry.size_for(entry, name, height, width) for entry in entries}
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
        selection = registry.module_attribute(CONFIG.TRAIN_DATASET, "pred_class_selection", None)
        return None if selection is None else sorted(selection)
    known = class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping")
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


def choose_network(net, net_weights, crop_size):
    """Entry of the network that makes the vectors, with the weights that are asked for."""
    entry = embedding.choose_entry(embedding_networks, net)
    if net == "segmentation" and (net_weights or crop_size):
        raise SettingError(
            "args.net_weights and args.crop_size go with networks that see crops; args.net="
            "segmentation takes its features of whole images from the network args.model_name"
        )
    return entry._replace(model_weights=net_weights or entry.model_weights)


def to_input():
    """What makes of a picture an input of the segmentation network."""
    mean, std = (registry.module_attribute(CONFIG.TRAIN_DATASET, name) for name in ("mean", "std"))
    return inference.to_input(mean, std)


# for other tools


def export(log, table, found, files):
    """Write the segments that were found to files for other tools, where asked to.

    Parameters
    ----------
    table : dict
        As `cache.read_embeddings` gives it.
    found : FoundSegments
    files : dict of str to path or None
        What to write as `coco`, `csv` and `parquet`.
    """
    names = zip(table["dataset"], table["image_index"].tolist(), strict=True)
    is_found = [name[0] in found.made_from and name not in found.not_searched for name in names]
    rows = np.flatnonzero(np.array(is_found, bool)[table["image_level_index"]])
    mappings = (
        class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping"),
        {
            name: class_ids.class_mapping(known_datasets[name], "label_mapping")
            for name in found.made_from.keys() & known_datasets.keys()
        },
    )

    def components(*where):
        return cache.read_components(cache.find_components(found.folders, *where))

    writers = dict(
        coco=functools.partial(exports.write_coco, components=components),
        csv=exports.write_csv,
        parquet=exports.write_parquet,
    )
    for name, path in files.items():
        if path is None:
            continue
        try:
            writers[name](path, table, rows, mappings)
        except (OSError, ValueError) as error:
            raise SettingError(f"{path} cannot be written: {error}") from error
        log.info("wrote %s: %d segments", path, len(rows))


@ex.automain
def main(args, _log):
    return embed_segments(_log, **args)
