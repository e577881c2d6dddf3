"""Stage 4: turn objects, of segments with low predicted IoU, into crops and feature vectors.

    python compute_embeddings.py with args.datasets=[streets,streets_ood] args.iou_threshold=0.5
    python compute_embeddings.py with args.load_file=FILE args.net=resnet18

Writes embeddings/<model>/embeddings_<min_height>_<min_width>_<net>.p below the results folder. What
is there already stays, only what is new is computed.
"""

import functools
from dataclasses import replace
from pathlib import Path

from configuration import CONFIG, embedding_networks, meta_models, models
from configuration import datasets as known_datasets
from src import class_ids, entries, registry
from src.embedding import networks as embedding_nets
from src.embedding import objects
from src.embedding.report import report
from src.embedding.stage import Embedding, embed_dataset
from src.embedding.suspects import Judge, Rule, load_objects
from src.embedding.suspicion import choose_suspicion, least_score, only_most
from src.embedding.trusted import Trusted
from src.embedding.vectors import CropEmbedder, WholeEmbedder
from src.errors import SettingError
from src.learning import rounds
from src.MetaSeg import meta_models as meta
from src.MetaSeg import segment_tables
from src.model_card import known_card
from src.run.experiment import create_experiment
from src.run.gone import keep_up
from src.run.runner import Runner
from src.run.settings import (
    HOW_TO_RUN,
    NAMES,
    NUMBER,
    PATH,
    POSITIVE,
    SIZE,
    setting,
    shared_settings,
)
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
            "entries of `datasets`, or folders, to search; of several the first entry is not "
            "searched, but what the networks learnt on",
            kind=NAMES,
        ),
        **shared_settings(CONFIG, "model_name", "meta_model", "meta_weights"),
        net=setting(
            CONFIG.EMBEDDING_NETWORK,
            "entry of `embedding_networks`, torchvision name, timm/NAME, hf/NAME",
        ),
        net_weights=setting(None, "its weights file", none="as its entry has it", kind=PATH),
        load_file=setting(
            None, "file of stage 4 whose segments to embed", none="find them", kind=PATH
        ),
        **shared_settings(CONFIG, "io_path"),
        suspicion=setting(
            None,
            "what makes suspects: predicted_iou, entropy, another score, or a map of your own",
            none="nearest_logits where stage 1 has kept it, else predicted_iou where a meta model "
            "fits the network, else entropy",
        ),
        iou_threshold=setting(
            None,
            "suspects have a lower predicted IoU, above 1 all; asks for predicted_iou",
            none=f"{CONFIG.IOU_THRESHOLD}",
            kind=POSITIVE,
        ),
        threshold=setting(
            None,
            "suspects have at least this score",
            none=f"{CONFIG.ENTROPY_THRESHOLD} of the entropy, of nearest_logits what one in ten "
            "ordinary pixels exceeds; other scores need this, or args.most",
            kind=NUMBER,
        ),
        join=setting(
            "border",
            "which suspicious segments are one object: all that touch, or of large ones only those "
            "that share enough border",
            none="each is an object of its own",
            choices=objects.WAYS,
        ),
        most=setting(None, "only so many, the most suspicious", none="all suspects", at_least=1),
        pred_classes=setting(
            None,
            "names or ids of predicted classes to look at",
            none="those of the model, without what it has learnt in rounds",
        ),
        **shared_settings(CONFIG, "min_height", "min_width", "min_crop_height", "min_crop_width"),
        crop_size=setting(None, "scale crops to this", none="each as it is", kind=SIZE),
        batch_size=setting(16, "crops that go through the network together", at_least=1),
        **shared_settings(CONFIG, "gpu", *HOW_TO_RUN),
        coco=setting(None, "COCO file (.json) to write the segments to", none="none", kind=PATH),
        csv=setting(None, "CSV file to write them to", none="none", kind=PATH),
        parquet=setting(None, "Parquet file to write them to", none="none", kind=PATH),
    )


def judge_of(args, run, model, card):
    """What the settings ask for: a Judge; `card` is the ModelCard of the network."""
    source, searched = entries.searched_datasets(known_datasets, args["datasets"], args["io_path"])
    entry = registry.choose(meta_models, args["meta_model"], "meta model")
    entry = entry._replace(model_weights=args["meta_weights"] or entry.model_weights)
    places = [Results(args["io_path"], model.name, data.name) for data in searched]
    for data, results in zip(searched, places, strict=True):
        keep_up(run, results, data)
    fits = meta.fits(entry.model_weights, model)
    chosen = choose_suspicion(args, run.log, entry.model_weights, fits, places)
    is_iou = chosen == "predicted_iou"
    meta_model = None
    if fits or is_iou:
        meta_model = meta_model_of(args, run.log, entry, model, source)
    min_size = common_size(searched, "min_segment_size", args["min_height"], args["min_width"])
    crop_size = args["min_crop_height"], args["min_crop_width"]
    rule = Rule(
        suspicion=chosen,
        iou_threshold=(args["iou_threshold"] or CONFIG.IOU_THRESHOLD) if is_iou else None,
        least=least_score(args, chosen, places, CONFIG.ENTROPY_THRESHOLD),
        classes=classes_to_search(args["pred_classes"], model, card),
        min_size=tuple(min_size),
        join=args["join"],
    )
    judge = Judge(
        io_path=Path(args["io_path"]).resolve(),  # others may work in another folder
        model_name=model.name,
        meta_model=meta_model,
        rule=rule,
        min_crop=common_size(searched, "min_crop_size", *crop_size),
        datasets={entry.name: entry for entry in searched},
        selection={},
    )
    if args["most"]:
        judge = replace(judge, rule=only_most(run, judge, args["most"]))
    return replace(judge, selection=selection_of(judge, meta_model and identity(entry)))


def selection_of(judge, meta_model):
    """What the choice of a Judge depends on; `meta_model` is the identity of the meta model."""
    rule = judge.rule
    height, width = rule.min_size
    by_score = {"suspicion": rule.suspicion, "least": rule.least}
    return {
        **({"iou_threshold": rule.iou_threshold} if rule.iou_threshold else by_score),
        **({"least": rule.least} if rule.least is not None else {}),
        "join": rule.join,
        "least_of_objects": rule.least_of_objects,
        "classes": rule.classes,
        "min_height": height,
        "min_width": width,
        "min_crop": judge.min_crop,
        "meta_model": meta_model,
    }


def meta_model_of(args, log, entry, model, source):
    """The MetaModel of an entry; a warning where it belongs to another network.

    `source` is the dataset that one without statistics takes them from.
    """
    if not meta.fits(entry.model_weights, model) and meta.made_from(entry.model_weights):
        log.warning(
            "%s was trained on another segmentation network than %r as it is now: its IoUs are "
            "guesses until train_meta_nn.py has run", entry.model_weights, model.name,
        )  # fmt: skip

    def training():
        if source is None:
            raise SettingError(
                f"{entry.model_weights} has no statistics of the segments that it was trained on: "
                "name the dataset that it learnt on first, as in args.datasets=[streets,photos]"
            )
        results = Results(args["io_path"], model.name, source.name)
        indices = results.indices("metrics")
        return segment_tables.segment_table((k, read_table(results.metrics(k))) for k in indices)

    return meta.load_meta_model(entry.model_weights, entry, training)


def embedding_of(args, run, source, model, card):
    """What the settings ask for: an Embedding of what a Judge finds, or of what was loaded."""
    net, crop_size = args["net"], args["crop_size"]
    entry = choose_network(net, args["net_weights"], crop_size)
    device = inference.choose_device(args["gpu"], run.log, elsewhere=run.is_elsewhere())
    if net == "segmentation":
        entry, embedder = model, WholeEmbedder(model, card, device)
    else:
        embedder = CropEmbedder(entry, crop_size, args["batch_size"], device)
    io_path = Path(args["io_path"]).resolve()
    words = args["datasets"] if args["load_file"] is None else []
    learnt, _ = entries.searched_datasets(known_datasets, words, args["io_path"])
    return Embedding(
        source=source,
        embedder=embedder,
        network={"net": identity(entry), "crop_size": crop_size},
        io_path=io_path,
        path=Results(io_path, source.model_name).embeddings(source.min_size, net),
        num_cores=1 if run.scheduler else run.num_cores,
        overwrite=run.overwrite,
        trusted=learnt and Trusted.of(source, learnt),
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


def classes_to_search(pred_classes, model, card):
    """Sorted ids of the predicted classes to look at, None for all.

    Parameters
    ----------
    pred_classes : None, or name, id or list of both
        None: `pred_class_selection` beside the class of the dataset that names the classes, and
        never a class that the network has learnt from what was found.
    model : ModelConfig
    card : ModelCard
    """
    known = card.classes
    if pred_classes is None:
        learnt, source = rounds.learnt_ids(model), card.trained_on
        before = {key: value for key, value in known.items() if key not in learnt}
        if learnt and before == class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping"):
            source = CONFIG.TRAIN_DATASET
        selection = source and registry.module_attribute(source, "pred_class_selection", None)
        if selection is None:
            return sorted(before) if learnt else None
        return sorted(selection)
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


def export(log, collection, source, known, files):
    """Write the objects of this run's pictures to files for other tools, where asked to.

    Parameters
    ----------
    collection : Collection
    source : Judge or Loaded
    known : dict
        The classes that the network predicts, see `ModelCard.classes`.
    files : dict of str to path or None
        What to write as `coco`, `csv` and `parquet`.
    """
    table, rows = collection.table, collection.rows
    mappings = (
        known,
        {
            name: class_ids.joined_classes(known_datasets[name])
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
            raise SettingError(f"{path} cannot be made: {error}") from error
        log.info("wrote %s: %d objects", path, len(rows))


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
    io_path, word = Path(args["io_path"]).resolve(), args["model_name"]
    loaded = load_objects(args["load_file"], word, io_path) if is_loaded else None
    if is_loaded and args["net"] == "segmentation":
        word = loaded.model_name
    model = entries.choose_model(models, word, io_path)
    card = known_card(io_path, model, CONFIG.TRAIN_DATASET)
    source = loaded or judge_of(args, run, model, card)
    embedding = embedding_of(args, run, source, model, card)
    tally, collection = embed_dataset(run, embedding)
    figures = {}
    if collection:
        if not is_loaded:
            figures = report(log, collection, source, card.classes)
        export(log, collection, source, card.classes, exported)
    run.close(tally)
    return figures


@ex.automain
def main(args, _log):
    return embed_segments(args, _log)
