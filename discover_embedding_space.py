"""Stage 5: explore the embedding space: a map of all segments, their neighbours and clusters.

    python discover_embedding_space.py
    python discover_embedding_space.py with args.query=photo.jpg args.query_box=[10,20,200,180]

Opens a window; `with args.browser=True` serves it to a web browser, and
`with mainplot.save_path=map.png` writes the map as a picture instead.
"""

from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from configuration import CONFIG, embedding_networks, models
from configuration import datasets as known_datasets
from src import class_ids, pictures, registry
from src.datasets import read_image
from src.discover import OUTSIDE, Explorer, Query, Segments, require_display, show_explorer
from src.discover.browser import listen, serve_explorer
from src.embedding import space as embedding_space
from src.errors import SettingError, WriteError
from src.run.experiment import create_experiment
from src.run.settings import NAMES, PATH, setting, shared_settings, some_whole_numbers
from src.store import cache
from src.store.files import locked

ex = create_experiment("discover_embedding_space")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        datasets=setting(None, "entries of `datasets` to show", none="all in the file", kind=NAMES),
        **shared_settings(CONFIG, "model_name", "net"),
        load_file=setting(
            None,
            "a file of stage 4 anywhere",
            none="the one that the settings here name",
            kind=PATH,
        ),
        **shared_settings(CONFIG, "io_path", "min_height", "min_width"),
        method=setting("tsne", "how to reduce the vectors", choices=embedding_space.METHODS),
        embedding_size=setting(
            2, "dimensions to find neighbours in", none="the vectors as they are", at_least=1
        ),
        metric=setting("euclid", "distance between neighbours", choices=embedding_space.METRICS),
        neighbours=setting(24, "number of neighbours shown at first", at_least=1),
        **shared_settings(CONFIG, "seed", "overwrite"),
        query=setting(
            None,
            "a picture to find neighbours of, embedded like the segments",
            none="none",
            kind=PATH,
        ),
        query_box=setting(
            None,
            "its part that counts",
            none="all",
            kind=some_whole_numbers("[left, upper, right, lower] in pixels", 4, at_least=0),
        ),
        browser=setting(
            False, "explore in a web browser instead of a window, also from another computer"
        ),
        address=setting("127.0.0.1", "network interface that browsers reach; this one is local"),
        port=setting(
            8988,
            "of the page for browsers, or the next one that is free",
            at_least=0,
            at_most=65535,
        ),
    )
    tsne = setting(  # noqa: F841
        {}, "options of scikit-learn's TSNE, such as tsne.perplexity=50"
    )
    mainplot = dict(  # noqa: F841
        save_path=setting(
            None,
            "write the map to this file, without a window",
            none="open a window",
            kind=PATH,
        ),
        segment=setting(
            None,
            "row of a segment whose neighbours and overview are written, too",
            none="none",
            at_least=0,
        ),
    )


def discover(
    log, *, datasets, model_name, net, load_file, io_path, min_height, min_width, method,
    embedding_size, metric, neighbours, seed, overwrite, query, query_box, browser, address, port,
    tsne, mainplot,
):  # fmt: skip
    """Reduce the vectors unless that is done already, then show or write the map."""
    registry.choose(models, model_name, "model")
    check_options(method, tsne, browser, **mainplot)
    picture = read_query(query, query_box)
    server = listen(address, port) if browser else None
    path = Path(load_file or table_path(datasets, model_name, net, io_path, min_height, min_width))
    version, table = cache.version_of(path), read_table(path)
    settings = dict(method=method, size=embedding_size, seed=seed, tsne=tsne)
    table = with_maps(log, path, version, table, settings, overwrite)
    table = only_datasets(path, table, datasets)
    check_segment(path, len(table["embeddings"]), mainplot["segment"])
    entries = entries_of(log, table)
    segments = Segments(
        table,
        {name: class_ids.class_mapping(entry, "label_mapping") for name, entry in entries.items()},
        class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping"),
        io_path,
    )
    make = partial(
        Explorer,
        segments,
        Path(io_path) / "pictures" / "explorer",
        tags_path=cache.tags_path(path),
        query=None if picture is None else embed_query(log, picture, table, net, model_name),
        metric=metric,
        n_neighbours=neighbours,
        seed=seed,
    )
    if mainplot["save_path"]:
        write_pictures(log, make(), **mainplot)
    elif browser:
        serve_explorer(make, server)
    else:
        show_explorer(make)


# the table


def table_path(datasets, model_name, net, io_path, min_height, min_width):
    """Path of the file that the settings name; sizes that are None are those of the dataset."""
    name = CONFIG.DATASET.name if datasets is None else datasets[0]
    entry = registry.choose(known_datasets, name, "dataset")
    size = registry.size_for(entry, "min_segment_size", min_height, min_width)
    return cache.embeddings_path(io_path, model_name, *size, net)


def read_table(path):
    """The table of a file of stage 4; a SettingError where there is none, or nothing in it."""
    if not path.is_file():
        files = path.parent.glob("embeddings_*.p") if path.parent.is_dir() else ()
        there = ", ".join(sorted(file.name for file in files))
        raise SettingError(
            f"{path} is missing; run compute_embeddings.py first; "
            f"{path.parent} has {there or 'no such file'}"
        )
    table = cache.read_embeddings(path)
    if not len(table["embeddings"]):
        raise SettingError(f"{path} holds no segment: raise args.iou_threshold in stage 4")
    return table


def only_datasets(path, table, datasets):
    """The table's segments of some datasets; None: all."""
    if datasets is None:
        return table
    there = list(dict.fromkeys(table["dataset"]))
    if set(datasets) - set(there):
        raise SettingError(
            f"`args.datasets` must name datasets in {path}, which has {', '.join(there)}; "
            f"got {datasets!r}"
        )
    dataset_of = np.array(table["dataset"], np.str_)[table["image_level_index"]]
    return cache.take_segments(table, np.flatnonzero(np.isin(dataset_of, datasets)))


def check_segment(path, count, segment):
    """Refuse a `mainplot.segment` that is no row."""
    if segment is not None and segment not in range(count):
        raise SettingError(
            f"`mainplot.segment` must be a row from 0 to {count - 1} of {path}, got {segment!r}"
        )


def entries_of(log, table):
    """Entry in `datasets` by name, for those of the table's datasets that have one."""
    names = dict.fromkeys(table["dataset"])
    for name in names.keys() - known_datasets.keys():
        log.warning("no entry in `datasets` is called %r: its true classes have no names", name)
    return {name: known_datasets[name] for name in names if name in known_datasets}


# the maps


def with_maps(log, path, version, table, settings, overwrite):
    """The table with `plot_embeddings` and `nn_embeddings` made by the settings; stored with them.

    Segments that have come since the maps were made are placed on them, without moving others. A
    file that is no longer the one that was read (`cache.version_of`) stays as it is.
    """
    if overwrite or table.get("reduced_by") != settings:
        maps = reduce_table(log, table["embeddings"], **settings)
    else:
        maps = place_new(log, table)
    if not maps:
        return table
    table = table | maps | {"reduced_by": settings}
    if table["made_from"] is None:
        log.warning("the map is not kept in %s: that is a file of the original system", path)
        return table
    try:
        with locked(path):
            if cache.version_of(path) == version:
                cache.write_table(path, table, table["made_from"])
            else:
                log.warning("the map is not kept: another run has written %s meanwhile", path)
    except (OSError, WriteError) as error:
        log.warning("the map cannot be kept, and will be made again next time: %s", error)
    return table


def reduce_table(log, embeddings, *, method, size, seed, tsne):
    """Columns `nn_embeddings` (N, size), for neighbours, and `plot_embeddings` (N, 2)."""
    log.info("reducing %d vectors of %d values by %s", *embeddings.shape, method)
    reduce = partial(embedding_space.reduce, embeddings, method, seed=seed, **tsne)
    try:
        plot = reduce(dimensions=2)
        neighbour = embeddings if size is None else plot if size == 2 else reduce(dimensions=size)
    except (TypeError, ValueError) as error:  # of the library that does it
        given = ", ".join(f"tsne.{name}={value!r}" for name, value in tsne.items())
        raise SettingError(
            f"args.method={method} cannot reduce {len(embeddings):,} vectors"
            f"{' with ' * bool(given)}{given}: {error}"
        ) from error
    return {"nn_embeddings": neighbour, "plot_embeddings": plot}


def place_new(log, table):
    """The columns of `reduce_table` without their NaN; empty where there are none."""
    new = np.isnan(table["plot_embeddings"]).any(axis=1)
    if not new.any():
        return {}
    log.info("placing %d new segments on the map", np.count_nonzero(new))
    vectors, maps = table["embeddings"], {}
    for name in ("plot_embeddings", "nn_embeddings"):
        points = np.array(table[name], np.float32)
        if points.shape == vectors.shape and table["reduced_by"]["size"] is None:
            points = vectors
        else:
            points[new] = embedding_space.place(vectors[new], vectors[~new], points[~new])
        maps[name] = points
    return maps


# a picture from outside


def read_query(query, box):
    """Name, picture (H, W, 3) uint8 and box of the query; None where there is none."""
    if query is None:
        if box is not None:
            raise SettingError("args.query_box goes with args.query: the picture that has the box")
        return None
    try:
        picture = np.array(read_image(query))
    except (OSError, ValueError) as error:
        raise SettingError(f"args.query cannot be read: {error}") from error
    height, width = picture.shape[:2]
    left, upper, right, lower = box = [0, 0, width, height] if box is None else box
    if not (0 <= left < right <= width and 0 <= upper < lower <= height):
        raise SettingError(
            f"`args.query_box` must lie inside {query} ({width} x {height} pixels, width x height) "
            f"and hold something, got {box!r}"
        )
    return Path(query).name, picture, box


def embed_query(log, named_picture, table, net, model_name):
    """The query as the segments are embedded, with its place on the maps."""
    name, picture, box = named_picture
    made_from = table["made_from"] or {}
    vector, identity = query_vector(log, picture, box, net, model_name, made_from.get("crop_size"))
    if made_from.get("net") not in (None, identity):
        log.warning("the segments were embedded by other weights than args.net=%s has now", net)
    vectors = np.asarray(table["embeddings"])
    if vector.shape != vectors.shape[1:]:
        raise SettingError(
            f"args.net={net} gives {len(vector)} values, the segments have {vectors.shape[1]}: "
            "name the network that embedded them"
        )
    places = {
        key: embedding_space.place(vector[None], vectors, table[key])[0]
        for key in ("nn_embeddings", "plot_embeddings")
    }
    if table["nn_embeddings"].shape == vectors.shape:  # the vectors as they are
        places["nn_embeddings"] = vector
    return Query(name, pictures.thumbnail(picture, box), vector, **places)


def query_vector(log, picture, box, net, model_name, crop_size):
    """Vector (F,) float32 of a part of a picture, and the identity of the network."""
    # the one place that needs torch, whose import takes seconds
    from PIL import Image

    from src.embedding import networks as embedding
    from src.segmentation import inference

    left, upper, right, lower = box
    device = inference.choose_device(None, log)  # one picture
    if net == "segmentation":
        entry = registry.choose(models, model_name, "model")
        network = inference.load_network(entry, device)
        statistics = (
            registry.module_attribute(CONFIG.TRAIN_DATASET, key) for key in ("mean", "std")
        )
        image, _ = inference.to_input(*statistics)(Image.fromarray(picture), None)
        components = np.zeros(picture.shape[:2], np.int32)
        components[upper:lower, left:right] = 1
        vector = embedding.segment_features(network, image, components, [1])[0]
    else:
        entry = embedding.choose_entry(embedding_networks, net)
        network = embedding.load_embedding_network(entry, device, crop_size)
        crop = picture[upper:lower, left:right]
        ((_, vector),) = embedding.embed_stream(network, [(None, crop)], 1)
    return vector, registry.identity(entry)


# before, beside and without a window


def check_options(method, tsne, browser, save_path, segment):
    """Refuse options that do not fit together or do not exist, before any work."""
    known = embedding_space.tsne_options() if tsne else set()
    if set(tsne) - known:
        raise SettingError(f"tsne has {', '.join(sorted(known))}; got {', '.join(tsne)}")
    if tsne and method != "tsne":
        raise SettingError(f"tsne.* goes with args.method=tsne, got args.method={method}")
    if save_path is None:
        if segment is not None:
            raise SettingError("mainplot.segment goes with mainplot.save_path: where to write")
        if not browser:
            require_display()
    elif browser:
        raise SettingError("args.browser shows what mainplot.save_path writes: choose one of them")
    else:
        suffixes = Figure().canvas.get_supported_filetypes()
        if Path(save_path).suffix.removeprefix(".") not in suffixes:
            raise SettingError(
                f"`mainplot.save_path` must end in one of {', '.join(suffixes)}, got {save_path!r}"
            )


def write_pictures(log, explorer, save_path, segment):
    """Write the map, and beside it the neighbours and overview of a segment, those of the query."""
    path, todo = Path(save_path), [(explorer.save, (), "")]
    if segment is not None:
        todo.append((explorer.save_neighbours, (segment,), f"_neighbours_{segment}"))
        todo.append((explorer.save_overview, (segment,), f"_overview_{segment}"))
    if explorer.query is not None:
        todo.append((explorer.save_neighbours, (OUTSIDE,), "_query"))
    for save, row, what in todo:
        place = path.with_name(f"{path.stem}{what}{path.suffix}")
        try:
            save(*row, place)
        except OSError as error:
            raise SettingError(
                f"{place} of `mainplot.save_path` cannot be written: {error}"
            ) from error
        log.info("wrote %s", place)


@ex.automain
def main(args, tsne, mainplot, _log):
    discover(_log, **args, tsne=dict(tsne), mainplot=mainplot)
