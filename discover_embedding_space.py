"""Stage 5: explore the embedding space: a map of all segments, their neighbours and clusters.

    python discover_embedding_space.py

Opens a window; `with mainplot.save_path=map.png` writes the map as a picture instead.
"""

import inspect
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from configuration import CONFIG, datasets, embedding_networks, models
from src import cache, embedding_space, loading
from src.discover import Explorer, ImageFiles, require_display, show_explorer
from src.evaluation import retrieval_average_precision
from src.experiment import create_experiment
from src.loading import SettingError

ex = create_experiment("discover_embedding_space")


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        dataset=CONFIG.DATASET.name,  # entry of `datasets` whose segments to show
        model_name=CONFIG.MODEL_NAME,  # entry of `models` that made the predictions
        net=CONFIG.EMBEDDING_NETWORK,  # entry of `embedding_networks` that made the vectors
        io_path=CONFIG.metaseg_io_path,  # folder of all results
        min_height=CONFIG.MIN_HEIGHT,  # pixels, as in stage 4; None: what suits the dataset
        min_width=CONFIG.MIN_WIDTH,  # pixels, as in stage 4; None: what suits the dataset
        method="tsne",  # how to reduce the vectors: tsne, isomap or pca
        embedding_size=2,  # dimensions to find neighbours in; None: the vectors as they are
        metric="euclid",  # distance between neighbours: euclid or cos
        neighbours=24,  # number of neighbours shown at first
        seed=CONFIG.SEED,  # same seed, same map
    )
    tsne = {}  # options of scikit-learn's TSNE, such as tsne.perplexity=50  # noqa: F841
    mainplot = dict(  # noqa: F841
        save_path=None,  # write the map to this file, without a window; None: open a window
        segment=None,  # row of a segment: its neighbours and overview are written too; None: none
    )


def discover(
    log, *, dataset, model_name, net, io_path, min_height, min_width, method, embedding_size,
    metric, neighbours, seed, tsne, mainplot,
):  # fmt: skip
    """Reduce the vectors unless that is done already, then show or write the map.

    Returns
    -------
    figures : dict of str to number
        See `report_retrieval`.
    """
    data = loading.choose(datasets, dataset, "dataset")
    loading.choose(models, model_name, "model")
    loading.choose(embedding_networks, net, "embedding network")
    loading.check_counts(
        min_height=min_height, min_width=min_width, neighbours=neighbours,
        embedding_size=embedding_size,
    )  # fmt: skip
    check_options(method, metric, tsne, **mainplot)
    height, width = loading.size_for(data, "min_segment_size", min_height, min_width)
    path = cache.embeddings_path(io_path, model_name, dataset, height, width, net)
    if not path.is_file():
        raise SettingError(f"{path} is missing; run compute_embeddings.py for {dataset!r} first")
    table = cache.read_table(path)
    if not len(table["embeddings"]):
        raise SettingError(f"{path} holds no segment: raise args.iou_threshold in stage 4")
    segment = mainplot["segment"]
    if segment is not None and segment not in range(len(table["embeddings"])):
        raise SettingError(
            f"`mainplot.segment` must be a row from 0 to {len(table['embeddings']) - 1} of {path}, "
            f"got {segment!r}"
        )
    settings = dict(method=method, size=embedding_size, seed=seed, tsne=tsne)
    if table.get("reduced_by") != settings:
        made_from = cache.made_from(path)
        table |= reduce_table(log, table["embeddings"], **settings)
        table["reduced_by"] = settings
        cache.write_table(path, table, made_from)
    known = loading.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping")
    label_mapping = loading.class_mapping(data, "label_mapping")
    predicted_ids = loading.predicted_ids(data, CONFIG.TRAIN_DATASET, log)
    figures = report_retrieval(log, table, label_mapping, predicted_ids, metric)
    options = dict(metric=metric, n_neighbours=neighbours, seed=seed)
    out_dir = Path(io_path) / "pictures" / dataset
    parts = table, label_mapping, known, ImageFiles(io_path), out_dir
    if mainplot["save_path"]:
        write_pictures(log, Explorer(*parts, **options), **mainplot)
    else:
        show_explorer(*parts, **options)
    return figures


def check_options(method, metric, tsne, save_path, segment):
    """Refuse options that do not fit together or do not exist, before any work."""
    for name, value, allowed in (
        ("args.method", method, embedding_space.METHODS),
        ("args.metric", metric, embedding_space.METRICS),
    ):
        if value not in allowed:
            raise SettingError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}")
    known = set(inspect.signature(TSNE).parameters)
    if set(tsne) - known:
        raise SettingError(f"tsne has {', '.join(sorted(known))}; got {', '.join(tsne)}")
    if tsne and method != "tsne":
        raise SettingError(f"tsne.* goes with args.method=tsne, got args.method={method}")
    if save_path is None:
        if segment is not None:
            raise SettingError("mainplot.segment goes with mainplot.save_path: where to write")
        require_display()
    else:
        suffixes = Figure().canvas.get_supported_filetypes()
        if Path(save_path).suffix.removeprefix(".") not in suffixes:
            raise SettingError(
                f"`mainplot.save_path` must end in one of {', '.join(suffixes)}, got {save_path!r}"
            )


def reduce_table(log, embeddings, *, method, size, seed, tsne):
    """Columns `nn_embeddings` (N, size), for neighbours, and `plot_embeddings` (N, 2)."""
    options = tsne if method == "tsne" else {}
    log.info("reducing %d vectors of %d values by %s", *embeddings.shape, method)
    plot = embedding_space.reduce(embeddings, method, 2, seed, **options)
    if size is None:
        neighbour = embeddings
    elif size == 2:
        neighbour = plot
    else:
        neighbour = embedding_space.reduce(embeddings, method, size, seed, **options)
    return {"nn_embeddings": neighbour, "plot_embeddings": plot}


def report_retrieval(log, table, label_mapping, predicted_ids, metric):
    """Log how well neighbours find the same kind of unknown object.

    Returns
    -------
    figures : dict of str to number
        `map`, the mean average precision over the kinds that the network does not predict and
        that have two segments or more; empty where there are none.
    """
    labels = np.asarray(table["gt"])
    labelled = labels != cache.NO_LABEL
    embeddings, labels = np.asarray(table["nn_embeddings"])[labelled], labels[labelled]
    unknown = predicted_ids[labels] == cache.NO_LABEL
    kinds, counts = np.unique(labels[unknown], return_counts=True)
    kinds = kinds[counts > 1]
    if not kinds.size:
        return {}
    queries = np.flatnonzero(np.isin(labels, kinds))
    precision = retrieval_average_precision(embeddings, labels, queries, metric)
    means = {kind: precision[labels[queries] == kind].mean() for kind in kinds}
    for kind, mean in means.items():
        count = (labels == kind).sum()
        log.info("average precision %-12s %.3f (%d segments)", label_mapping[kind][0], mean, count)
    mean = float(np.mean(list(means.values())))
    log.info("mAP over %d kinds of unknown objects: %.3f", len(kinds), mean)
    return {"map": mean}


def write_pictures(log, explorer, save_path, segment):
    """Write the map, and beside it the neighbours and the overview of one segment."""
    path = Path(save_path)
    explorer.save(path)
    log.info("wrote %s", path)
    if segment is not None:
        for save, what in (
            (explorer.save_neighbours, "neighbours"),
            (explorer.save_overview, "overview"),
        ):
            beside = path.with_name(f"{path.stem}_{what}_{segment}{path.suffix}")
            save(segment, beside)
            log.info("wrote %s", beside)


@ex.automain
def main(args, tsne, mainplot, _log):
    return discover(_log, **args, tsne=dict(tsne), mainplot=mainplot)
