"""Stage 5: explore the embedding space: a map of all segments, their neighbours and clusters.

    python discover_embedding_space.py
    python discover_embedding_space.py with args.query=photo.jpg args.query_box=[10,20,200,180]
    python discover_embedding_space.py with args.net=clip args.text="a cow on the road"

Opens a window; `with args.browser=True` serves it to a web browser, and
`with mainplot.save_path=map.png` writes the map as a picture instead, `with args.groups=True` an
overview of the groups, and `with args.budget=200` a list of 200 pictures to label.
"""

import asyncio
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from configuration import CONFIG, datasets, embedding_networks, models
from src import class_ids, entries
from src.discover.browser import listen, serve
from src.discover.display import require_display, show_explorer, write_pictures
from src.discover.explorer import Explorer
from src.discover.overview import write_overview
from src.discover.query import Queries, read_part
from src.discover.segments import Segments
from src.embedding import duplicates, space
from src.embedding.budget import UNITS, choose_pictures, reason
from src.embedding.groups import ORDERS
from src.embedding.maps import Reduction, read_with_maps
from src.embedding.table import only_datasets, read_table
from src.errors import SettingError
from src.evaluation.groups import groups_of
from src.learning.rounds import carry_tags
from src.model_card import known_card
from src.run import choice
from src.run.experiment import create_experiment
from src.run.settings import NAMES, PATH, Kind, setting, shared_settings, some_whole_numbers
from src.store import exports
from src.store import names as kept_names
from src.store.paths import groups_path, net_of

BOX = some_whole_numbers("[left, upper, right, lower] in pixels", 4, at_least=0)
WORDS = Kind("a line of words", lambda value: isinstance(value, str) and value.strip() != "")

ex = create_experiment("discover_embedding_space")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=setting(None, "entries of `datasets` to show", none="all in the file", kind=NAMES),
        **shared_settings(CONFIG, "model_name", "net"),
        load_file=setting(None, "any file of stage 4", none="as the settings say", kind=PATH),
        **shared_settings(CONFIG, "io_path", "min_height", "min_width"),
        method=setting("tsne", "how to reduce the vectors", choices=space.METHODS),
        embedding_size=setting(
            2, "dimensions to find neighbours in", none="the vectors as they are", at_least=1
        ),
        metric=setting("euclid", "distance between neighbours", choices=space.METRICS),
        neighbours=setting(24, "number of neighbours shown at first", at_least=1),
        **shared_settings(CONFIG, "seed", "overwrite"),
        keep_map=setting(
            False, "keep the map also where more than a third of the segments have come since"
        ),
        query=setting(None, "picture to find neighbours of", none="no picture", kind=PATH),
        query_box=setting(None, "its part that counts", none="all of it", kind=BOX),
        groups=setting(False, "write an overview of groups that look alike; opens no window"),
        groups_by=setting("suspicion", "which of them come first", choices=ORDERS),
        text=setting(
            None,
            "words to find objects by; the network must read them",
            none="no words",
            kind=WORDS,
        ),
        duplicates=setting(
            False, "write a picture of the near duplicates beside the file, and open no window"
        ),
        budget=setting(
            None, "how many pictures to list for labelling, no window", none="no list", at_least=1
        ),
        budget_of=setting("pictures", "what args.budget counts", choices=UNITS),
        browser=setting(False, "explore in a web browser, also from another computer"),
        address=setting("127.0.0.1", "network interface that browsers reach; this one is local"),
        port=setting(8988, "their port, or the next that is free", at_least=0, at_most=65535),
    )
    tsne = setting(  # noqa: F841
        {}, "options of scikit-learn's TSNE, such as tsne.perplexity=50"
    )
    mainplot = dict(  # noqa: F841
        save_path=setting(None, "file to write the map to", none="open a window", kind=PATH),
        segment=setting(None, "row to write the neighbours of, too", none="no row", at_least=0),
    )


def check_options(method, tsne, browser, save_path, segment, groups=False):
    """Refuse options that do not fit together or do not exist, before any work."""
    known = space.tsne_options() if tsne else set()
    if set(tsne) - known:
        raise SettingError(f"tsne has {', '.join(sorted(known))}; got {', '.join(tsne)}")
    if tsne and method != "tsne":
        raise SettingError(f"tsne.* goes with args.method=tsne, got args.method={method}")
    if browser and groups:
        raise SettingError("args.browser shows what args.groups writes: choose one of them")
    if save_path is None:
        if segment is not None:
            raise SettingError("mainplot.segment goes with mainplot.save_path: where to write")
        if not (browser or groups):
            require_display()
    elif browser:
        raise SettingError("args.browser shows what mainplot.save_path writes: choose one of them")
    else:
        suffixes = Figure().canvas.get_supported_filetypes()
        if Path(save_path).suffix.removeprefix(".") not in suffixes:
            raise SettingError(
                f"`mainplot.save_path` must end in one of {', '.join(suffixes)}, got {save_path!r}"
            )


def check_segment(path, table, segment):
    """Refuse a `mainplot.segment` that is no row."""
    last = len(table) - 1
    if segment is not None and segment not in range(len(table)):
        raise SettingError(
            f"`mainplot.segment` must be a row from 0 to {last} of {path}, got {segment!r}"
        )


def file_of(args, model, log):
    """Path of the file of stage 4 that the settings ask for."""
    named = args["load_file"]
    return Path(named) if named else choice.embeddings_file(args, model.name, log)


def report_duplicates(args, names, model, card, log):
    """Write the picture of the near duplicates of the data sets called `names`; None: of all."""
    path = file_of(args, model, log)
    table = only_datasets(path, read_table(path), names)
    segments = segments_of(log, table, card, args["io_path"])
    duplicates.report(log, path, table, segments.thumbnail_or_blank)


def list_pictures(args, names, model, log):
    """Write which pictures to label first, with reasons, see `budget.choose_pictures`."""
    path, budget, unit = file_of(args, model, log), args["budget"], args["budget_of"]
    table = only_datasets(path, read_table(path), names)
    labels = groups_of(log, table, path, args["seed"])
    choices = choose_pictures(table, labels, budget, args["seed"], unit)
    if not choices:
        raise SettingError(f"every picture has more than args.budget={budget} objects: raise it")
    name = f"{path.stem}_to_label_{budget}{'_objects' if unit == 'objects' else ''}"
    folder = Path(args["io_path"], "pictures", "explorer", name)
    rows = [choice.row for choice in choices]
    objects = [choice.n_objects for choice in choices]
    reasons = [reason(table, choice) for choice in choices]
    gains = [round(choice.gain, 3) for choice in choices]
    try:
        exports.write_pictures(folder, table, rows, objects=objects, gain=gains, reason=reasons)
    except OSError as error:
        raise SettingError(f"{folder} cannot be made: {error}") from error
    log.info("wrote %s: %d pictures to label with %d objects", folder, len(rows), sum(objects))


def segments_of(log, table, card, io_path):
    """The table with names and colours of classes: Segments."""
    names = dict.fromkeys(table["dataset"])
    for name in names.keys() - datasets.keys():
        if kept_names.read(io_path, "datasets", name):  # a folder, whose pictures have no labels
            continue
        log.warning("no entry in `datasets` is called %r: its true classes have no names", name)
    labels = {name: class_ids.joined_classes(datasets[name]) for name in names if name in datasets}
    return Segments(table, labels, card.classes, io_path)


def embedder_of(net, table, model, card, log):
    """What embeds words and pictures like the objects of the table: an Embedder."""
    # the one place that needs torch, whose import takes seconds
    from src.embedding import networks, vectors
    from src.segmentation import inference

    device = inference.choose_device(None, log)  # one picture
    if net == "segmentation":
        return vectors.WholeEmbedder(model, card, device)
    entry = networks.choose_entry(embedding_networks, net)
    crop_size = (table.facts["made_from"] or {}).get("crop_size")
    return vectors.CropEmbedder(entry, crop_size, 1, device)


def asked(make, query, **how):
    """An Explorer that shows a Query."""
    explorer = make(**how)
    explorer.asking.show(query)
    return explorer


@ex.automain
def main(args, tsne, mainplot, _log):
    names = entries.dataset_names(datasets, args["datasets"], args["io_path"])
    io_path = args["io_path"]
    model = entries.choose_model(models, args["model_name"], io_path)
    card = known_card(io_path, model, CONFIG.TRAIN_DATASET)
    if args["duplicates"]:
        report_duplicates(args, names, model, card, _log)
        return
    if args["budget"]:
        list_pictures(args, names, model, _log)
        return
    check_options(args["method"], tsne, args["browser"], **mainplot, groups=args["groups"])
    if args["query"] and args["text"]:
        raise SettingError("args.query and args.text are two questions: choose one of them")
    part = read_part(args["query"], args["query_box"])
    server = listen(args["address"], args["port"]) if args["browser"] else None
    path = file_of(args, model, _log)
    reduction = Reduction(args["method"], args["embedding_size"], args["seed"], dict(tsne))
    how = args["overwrite"], args["keep_map"]
    table = only_datasets(path, read_with_maps(_log, path, reduction, *how), names)
    check_segment(path, table, mainplot["segment"])
    table = carry_tags(_log, model, table, path)
    net = args["net"] or net_of(path)
    queries = Queries(_log, table, net, partial(embedder_of, net, table, model, card, _log))
    segments = segments_of(_log, table, card, io_path)
    out_dir = Path(io_path, "pictures", "explorer")
    make = partial(
        Explorer,
        segments,
        out_dir,
        table_path=path,
        queries=queries,
        metric=args["metric"],
        n_neighbours=args["neighbours"],
        seed=args["seed"],
    )
    if part or args["text"]:
        query = queries.of_part(part) if part else queries.of_words(args["text"])
        make = partial(asked, make, query)
    if args["groups"]:
        folder = out_dir / groups_path(path).stem
        write_overview(_log, segments, path, folder, args["seed"], args["groups_by"])
    if server is not None:
        asyncio.run(serve(make, server))
    elif mainplot["save_path"]:
        write_pictures(_log, make(), mainplot["save_path"], mainplot["segment"])
    elif not args["groups"]:
        show_explorer(make)
