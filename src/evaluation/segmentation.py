"""How well networks segment: IoU of every class, side by side, and what new ones are taken for."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from src import class_ids
from src.errors import SettingError
from src.evaluation.confusion import class_iou, confusion_matrix, mean_iou
from src.records import NO_LABEL
from src.store import reports
from src.store.arrays import read_prediction

MAX_IDS = 2**16
LISTED = 4  # classes that a new one is mixed up with, in tables
WAYS = "predicted as", "truly"
UNKNOWN = "no class"  # what a network predicts that has not said all its classes


@dataclass(frozen=True)
class Classes:
    """The C classes that M networks know, then other true ones, then `UNKNOWN`: N in all."""

    names: list[str]
    colours: list[tuple]
    known: np.ndarray  # (M, C) bool: whether a network knows a class
    # (M, 65536) and (65536,) uint16: place in `names` of each predicted id and of each true id; N
    # is no label
    predicted: np.ndarray
    true: np.ndarray

    @property
    def count(self):
        """C, the number of classes that any network knows."""
        return self.known.shape[1]

    @property
    def is_new(self):
        """Whether one of the networks does not know a class, (C,) bool; the others are old."""
        return ~self.known.all(axis=0)


@dataclass(frozen=True)
class Judged:
    """What M networks are worth on the pictures of a dataset."""

    models: list[str]
    classes: Classes
    confusion: np.ndarray  # (M, N, N) int64, pixels; row = true class, column = predicted one
    scores: dict[int, np.ndarray]  # of each picture, see `scores_of`

    @property
    def pixels(self):
        """Labelled pixels of each class that a network knows, (C,) int64."""
        return self.confusion[0].sum(axis=1)[: self.classes.count]

    @property
    def iou(self):
        """IoU of each class by each network, (M, C) float64; see `iou_of`."""
        return iou_of(self.confusion, self.classes)

    def means(self):
        """Mean IoU of each network over the old classes, and over all that it knows: (M,) each.

        Only classes that occur in the ground truth count; NaN: none does.
        """
        return mean_iou(self.iou[:, ~self.classes.is_new]), mean_iou(self.iou)

    def unknown_as_new(self):
        """Share of the pixels of classes that no network knows that each takes for new ones, (M,).

        NaN where there is no such pixel.
        """
        unknown = self.confusion[:, self.classes.count :]
        pixels = unknown.sum(axis=(1, 2))
        taken = unknown[..., np.flatnonzero(self.classes.is_new)].sum(axis=(1, 2))
        return np.where(pixels > 0, taken / np.maximum(pixels, 1), np.nan)

    def figures(self):
        """By network `miou_old`, `miou`, `unknown_as_new` and `iou_<class>`: a dict of numbers."""
        names = "miou_old", "miou", "unknown_as_new", *(f"iou_{n}" for n in self.classes.names)
        rows = reports.plain(np.column_stack([*self.means(), self.unknown_as_new(), self.iou]))
        return {
            model: dict(zip(names, row, strict=False))
            for model, row in zip(self.models, rows, strict=True)
        }


def judge(run, models):
    """Compare networks: a Judged, and the Tally.

    `models` are the Pictures of one dataset as each of the networks has seen them. Pixels count
    whose true class any of them knows, the same for all.
    """
    data, names = models[0].data, [pictures.results.model for pictures in models]
    if not class_ids.class_mapping(data, "label_mapping"):
        raise SettingError(
            f"{data.name!r} has no ground truth, so nothing can be judged: choose another dataset"
        )
    indices, classes = same_indices(models), classes_of(run.log, models)
    count = partial(count_image, results=[pictures.results for pictures in models], classes=classes)
    confusion, scores = 0, {}

    def add(index, of_image):
        nonlocal confusion
        confusion = confusion + of_image
        scores[index] = scores_of(of_image, classes)

    tally = run.each(count, indices, f"counting {data.name}", add)
    if not np.any(confusion):
        run.close(tally)
        raise SettingError(f"no image of {data.name!r} has ground truth, so nothing can be judged")
    if not confusion[0, : classes.count].any():
        raise SettingError(
            f"{data.name!r} has none of the classes that {' or '.join(names)} predicts: choose "
            "another dataset, or give its class `train_ids`"
        )
    return Judged(names, classes, confusion, scores), tally


def same_indices(models):
    """Indices of the pictures that all networks have segmented; a SettingError if they differ."""
    indices = {pictures.results.model: pictures.indices("input") for pictures in models}
    every, dataset = sorted(set().union(*indices.values())), models[0].name
    for model, own in indices.items():
        if len(own) < max(len(every), 1):
            raise SettingError(
                f"{model!r} has results of {len(own)} image(s) of {dataset!r}, all networks "
                f"together of {len(every)}: run pred_images.py with args.model_name={model} "
                f"args.dataset={dataset} for the same images, or lower args.num_images"
            )
    return every


def classes_of(log, models):
    """The Classes of networks and of their pictures; those of one name are one."""
    data, union = models[0].data, {}
    for pictures in models:
        for name, colour in pictures.card.classes.values():
            union.setdefault(name.casefold(), (name, tuple(colour)))
    if len(union) > NO_LABEL:
        raise SettingError(
            f"the networks know {len(union)} classes together, and {NO_LABEL} can be told apart: "
            "compare fewer networks at a time"
        )
    places = {name: place for place, name in enumerate(union)}
    table = class_ids.predicted_ids(data, dict(enumerate(union.values())), log)
    joined = class_ids.joined_classes(data)
    joined.pop(NO_LABEL, None)
    others = dict.fromkeys(named for key, named in joined.items() if table[key] == NO_LABEL)
    every = [*union.values(), *others, (UNKNOWN, (0, 0, 0))]
    true = np.full(MAX_IDS, len(every), np.uint16)
    for key, named in joined.items():
        is_other = table[key] == NO_LABEL
        true[key] = every.index(named, len(union)) if is_other else table[key]
    known = np.zeros((len(models), len(union)), bool)
    predicted = np.full((len(models), MAX_IDS), len(every) - 1, np.uint16)
    for row, pictures in enumerate(models):
        for key, (name, _) in pictures.card.classes.items():
            predicted[row, key] = places[name.casefold()]
            known[row, places[name.casefold()]] = True
    return Classes(*map(list, zip(*every, strict=True)), known, predicted, true)


def read_image(index, results, classes):
    """What networks predict of an image, what is true, and the path of the photograph.

    `results` are those of the networks, a list. Predictions (M, H, W) and truth (H, W) are uint16,
    places in the names of the classes.
    """
    found = [read_prediction(each.prediction(index), probabilities=False) for each in results]
    truth = found[0].ground_truth
    if truth is None:
        truth = np.full(found[0].prediction.shape, NO_LABEL, np.uint8)
    for prediction, own in zip(found[1:], results[1:], strict=True):
        other = prediction.ground_truth
        other = np.full(prediction.prediction.shape, NO_LABEL) if other is None else other
        if not np.array_equal(truth, other):
            raise SettingError(
                f"image {index} of {own.dataset!r} had other labels when {own.model!r} "
                f"segmented it than for {results[0].model!r}: run pred_images.py again for both"
            )
    tables = zip(classes.predicted, found, strict=True)
    predicted = np.stack([table[each.prediction] for table, each in tables])
    return predicted, classes.true[truth], found[0].image_path


def count_image(index, results, classes):
    """Pixels (M, N, N) of an image by true and predicted class; arguments as for `read_image`."""
    predicted, truth, _ = read_image(index, results, classes)
    return np.array([confusion_matrix(each, truth, len(classes.names)) for each in predicted])


def of_known(confusion, classes):
    """A confusion (..., N, N) with only the pixels whose true class a network knows."""
    is_known = np.arange(len(classes.names)) < classes.count
    return np.where(is_known[:, None], confusion, 0)


def iou_of(confusion, classes):
    """IoU of each class by each network.

    `confusion` (M, N, N) is as in `Judged`. Gives (M, C) float64, NaN where a network does not know
    a class, or where it does not occur in the ground truth.
    """
    iou = class_iou(of_known(confusion, classes))[:, : classes.count]
    return np.where(classes.known, iou, np.nan)


def overlap_of(confusion, place):
    """IoU of one class of a picture, 0 where it is only predicted, and the pixels that it is of.

    `confusion` (N, N) is that of `of_known`. Without a pixel the IoU is NaN.
    """
    hits = confusion[place, place]
    union = confusion[place].sum() + confusion[:, place].sum() - hits
    return (hits / union if union else np.nan), union


def scores_of(confusion, classes):
    """How well an image is segmented by M networks together.

    `confusion` (M, N, N) is that of the image. Gives (1 + K, 2) float64: the mean IoU of the old
    classes, then that of each of the K new ones by the networks that know it, see `overlap_of`;
    beside it the pixels that it is of.
    """
    old = mean_iou(mean_iou(iou_of(confusion, classes)[:, ~classes.is_new]))
    counted = of_known(confusion, classes)
    new = [
        overlap_of(counted[classes.known[:, place]].sum(axis=0), place)
        for place in np.flatnonzero(classes.is_new)
    ]
    return np.array([(old, counted[0].sum()), *new], np.float64)


def shares_of(confusion, place):
    """What the true pixels of a class are predicted as, and what the predicted ones truly are.

    `confusion` is that (N, N) of a network, `place` that of the class in it. Gives two arrays (N,)
    float64 that add up to 1, zeros where there is no such pixel; as `WAYS` has it.
    """
    counts = confusion[place], confusion[:, place]
    return tuple(of_way / max(of_way.sum(), 1) for of_way in counts)


# telling


def report(log, folder, judged, dataset):
    """Log the tables; write them as CSV and LaTeX, and the bars, which name the dataset."""
    path = folder / "segmentation"
    header, rows = ["class", "pixels", *judged.models], iou_rows(judged)
    reports.write_csv(f"{path}.csv", header, rows)
    rows = shown_rows(judged)
    log.info("%s, IoU\n%s", dataset, reports.text_table(header, rows))
    reports.write_latex(f"{path}.tex", header, rows)
    reports.save_figure(path, draw_bars(judged, dataset))
    if judged.classes.is_new.any():
        report_new(log, f"{path}_confusion", judged, dataset)
    log.info("wrote tables and bars to %s", folder)


def report_new(log, path, judged, dataset):
    """The same of what the new classes are mixed up with: no bars."""
    mixed = mixed_up(judged)
    reports.write_csv(
        f"{path}.csv",
        ["new class", "network", "its pixels are", "class", "share"],
        [
            [name, model, way, other, share]
            for (name, model), ways in mixed.items()
            for way, shares in zip(WAYS, ways, strict=True)
            for other, share in shares.items()
        ],
    )
    header = "new class", "network", "true pixels are predicted as", "predicted pixels truly are"
    rows = [[*key, *map(_listed, ways)] for key, ways in mixed.items()]
    log.info("%s, what new classes are taken for\n%s", dataset, reports.text_table(header, rows))
    reports.write_latex(f"{path}.tex", header, rows)
    shares = judged.unknown_as_new().tolist()
    if np.isfinite(shares).all():
        rows = zip(judged.models, shares, strict=True)
        text = reports.text_table(("network", "share of its pixels"), [*rows])
        log.info("%s, what no network knows is taken for a new class\n%s", dataset, text)


def iou_rows(judged):
    """Name, labelled pixels and IoU by each network of each class; then the means."""
    columns = judged.pixels.tolist(), *reports.plain(judged.iou)
    rows = [list(row) for row in zip(judged.classes.names, *columns, strict=False)]
    old, every = map(reports.plain, judged.means())
    means = [["mean", None, *every]]
    if judged.classes.is_new.any():
        means.append(["mean of old classes", None, *old])
    return rows + means


def shown_rows(judged):
    """The rows of `iou_rows` for people: of classes that occur, new ones marked."""
    is_new = [*judged.classes.is_new, False, False]
    return [
        [f"{name} (new)" if marked else name, pixels, *values]
        for (name, pixels, *values), marked in zip(iou_rows(judged), is_new, strict=False)
        if pixels != 0
    ]


def mixed_up(judged):
    """By the name of a new class and of a network two dicts: see `WAYS`.

    Each has the shares of other classes by their names, the largest first, as far as there are any.
    """
    found = {}
    for place in np.flatnonzero(judged.classes.is_new):
        for model, confusion in zip(judged.models, judged.confusion, strict=True):
            ways = [_by_name(judged, shares) for shares in shares_of(confusion, place)]
            if any(ways):
                found[judged.classes.names[place], model] = ways
    return found


def draw_bars(judged, dataset):
    """A bar for the IoU of each class that occurs, and for the mean, by each network."""
    rows, count = shown_rows(judged), len(judged.models)
    thick = 0.8 / count
    figure = Figure((9, 1.6 + 0.13 * len(rows) * (1 + count)), layout="constrained")
    figure.suptitle(f"{reports.label(dataset)}: IoU of each class")
    axes = figure.add_subplot(xlabel="IoU", xlim=(0, 1.06), ylim=(len(rows) - 0.4, -0.6))
    for number, model in enumerate(judged.models):
        heights = np.arange(len(rows)) + (number - (count - 1) / 2) * thick
        values, name, colour = [row[2 + number] for row in rows], reports.label(model), f"C{number}"
        axes.barh(heights, [value or 0 for value in values], thick, color=colour, label=name)
        for height, value in zip(heights, values, strict=True):
            text = " -" if value is None else f" {value:.2f}"
            axes.text(value or 0, height, text, va="center", fontsize=7, color=colour)
    axes.set_yticks(range(len(rows)), [reports.label(row[0]) for row in rows])
    axes.axhline(sum(row[1] is not None for row in rows) - 0.5, color="black", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.grid(axis="x", alpha=0.3)
    if count > 1:
        figure.legend(loc="outside lower center", ncols=min(count, 3))
    return figure


def _by_name(judged, shares):
    """Shares above 0 by the names of their classes, the largest first."""
    order = np.argsort(-shares, kind="stable")
    return {judged.classes.names[k]: float(shares[k]) for k in order if shares[k] > 0}


def _listed(shares):
    """Shares by name as one line."""
    some = [f"{name} {share:.2f}" for name, share in list(shares.items())[:LISTED]]
    rest = list(shares.values())[LISTED:]
    more = [f"{len(rest)} others {sum(rest):.2f}"] if rest else []
    return ", ".join([*some, *more]) or "-"
