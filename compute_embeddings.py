"""Stage 4: turn the segments with low predicted IoU into crops and feature vectors.

    python compute_embeddings.py with args.datasets=[streets,streets_ood] args.iou_threshold=0.5
    python compute_embeddings.py with args.load_file=FILE args.net=resnet18

Writes embeddings/<model>/embeddings_<min_height>_<min_width>_<net>.p below the results folder. What
is there already stays, only what is new is computed.
"""

import functools
from pathlib import Path

from configuration import CONFIG, embedding_networks, meta_models, models
from configuration import datasets as known_datasets
from src import class_ids, registry
from src.embedding import networks as embedding_nets
from src.embedding.report import report
from src.embedding.stage import Embedding, embed_dataset
from src.embedding.suspects import Judge, load_objects
from src.embedding.vectors import CropEmbedder, WholeEmbedder
from src.errors import SettingError
from src.MetaSeg import meta_models as meta
from src.MetaSeg import segment_tables
from src.run.experiment import create_experiment
from src.run.runner import Runner
from src.run.settings import HOW_TO_RUN, PATH, POSITIVE, SIZE, setting, shared_settings
from src.segmentation import inference
from src.store import exports
from src.store.arrays import read_components
from src.store.paths import Results, find_components
from src.store.provenance import identity
from src.store.tables import read_table

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


def judge_of(args, run):
    """What the settings ask for: a Judge."""
    datasets, iou_threshold = args["datasets"], args["iou_threshold"]
    if len(set(map(str, datasets))) < 2:
        raise SettingError(
            "`args.datasets` must name first what the networks learnt on, then the datasets to "
            f"search, such as [streets,streets_ood]; got {datasets!r}"
        )
    names = dict.fromkeys(map(str, datasets))
    source, *searched = (registry.choose(known_datasets, name, "dataset") for name in names)
    entry = registry.choose(meta_models, args["meta_model"], "meta model")
    entry = entry._replace(model_weights=args["meta_weights"] or entry.model_weights)
    model = registry.choose(models, args["model_name"], "model")
    height, width = common_size(searched, "min_segment_size", args["min_height"], args["min_width"])
    crop_size = args["min_crop_height"], args["min_crop_width"]
    rule = {
        "iou_threshold": iou_threshold,
        "classes": classes_to_search(args["pred_classes"]),
        "min_height": height,
        "min_width": width,
    }
    min_crop = common_size(searched, "min_crop_size", *crop_size)
    results = Results(args["io_path"], model.name, source.name)
    return Judge(
        io_path=Path(args["io_path"]).resolve(),  # others may work in another folder
        model_name=model.name,
        meta_model=load_meta_model(run.log, entry, model, results),
        rule=rule,
        min_crop=min_crop,
        datasets={entry.name: entry for entry in searched},
        selection={**rule, "min_crop": min_crop, "meta_model": identity(entry)},
    )


def load_meta_model(log, entry, model, results):
    """MetaModel of an entry; warns where it was trained on another segmentation network.

    `results` are those of the dataset that a meta model without statistics takes them from.
    """

    def training():
        indices = results.indices("metrics")
        return segment_tables.segment_table((k, read_table(results.metrics(k))) for k in indices)

    meta_model = meta.load_meta_model(entry.model_weights, entry, training)
    trained = meta.made_from(entry.model_weights)
    if trained and trained["network"] != identity(model):
        log.warning(
            "%s was trained on another segmentation network than %r as it is now: its IoUs are "
            "guesses until train_meta_nn.py has run", entry.model_weights, model.name,
        )  # fmt: skip
    return meta_model


def embedding_of(args, run, source):
    """What the settings ask for: an Embedding of what a Judge finds, or of what was loaded."""
    net, crop_size = args["net"], args["crop_size"]
    entry = choose_network(net, args["net_weights"], crop_size)
    device = inference.choose_device(args["gpu"], run.log, elsewhere=bool(run.scheduler))
    if net == "segmentation":
        entry = registry.choose(models, source.model_name, "model")
        embedder = WholeEmbedder(entry, CONFIG.TRAIN_DATASET, device)
    else:
        embedder = CropEmbedder(entry, crop_size, args["batch_size"], device)
    io_path = Path(args["io_path"]).resolve()
    return Embedding(
        source=source,
        embedder=embedder,
        network={"net": identity(entry), "crop_size": crop_size},
        io_path=io_path,
        path=Results(io_path, source.model_name).embeddings(source.min_size, net),
        num_cores=1 if run.scheduler else run.num_cores,
        overwrite=run.overwrite,
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
    entry = embedding_nets.choose_entry(embedding_networks, net)
    if net == "segmentation" and (net_weights or crop_size):
        raise SettingError(
            "args.net_weights and args.crop_size go with networks that see crops; args.net="
            "segmentation takes its features of whole images from the network args.model_name"
        )
    return entry._replace(model_weights=net_weights or entry.model_weights)


# for other tools


def export(log, collection, source, files):
    """Write the objects of this run's pictures to files for other tools, where asked to.

    Parameters
    ----------
    collection : Collection
    source : Judge or Loaded
    files : dict of str to path or None
        What to write as `coco`, `csv` and `parquet`.
    """
    table, rows = collection.table, collection.rows
    mappings = (
        class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping"),
        {
            name: class_ids.class_mapping(known_datasets[name], "label_mapping")
            for name in set(table["dataset"]) & known_datasets.keys()
        },
    )

    def components(_model, dataset, index):
        return read_components(find_components(source.places(dataset), index))

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


def embed_segments(args, log):
    """Find and embed the suspicious segments that the settings ask for, and export them.

    Returns
    -------
    figures : dict of str to number
        See `report`; empty with `load_file`.
    """
    exported = {name: args[name] for name in ("coco", "csv", "parquet")}
    exports.check_files(**exported)
    choose_network(args["net"], args["net_weights"], args["crop_size"])
    run, is_loaded = Runner.from_args(args, log), args["load_file"] is not None
    if is_loaded:
        io_path = Path(args["io_path"]).resolve()
        source = load_objects(args["load_file"], args["model_name"], io_path)
    else:
        source = judge_of(args, run)
    embedding = embedding_of(args, run, source)
    tally, collection = embed_dataset(run, embedding)
    figures = {}
    if collection:
        if not is_loaded:
            figures = report(log, collection, source, CONFIG.TRAIN_DATASET)
        export(log, collection, source, exported)
    run.close(tally)
    return figures


@ex.automain
def main(args, _log):
    return embed_segments(args, _log)
