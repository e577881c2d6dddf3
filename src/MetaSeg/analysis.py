"""How well meta models judge segments: figures over random splits, tables and pictures.

Meta classification tells segments of IoU 0 from the others, meta regression predicts the IoU
(Rottmann et al., arXiv 1811.00648). A model is a function here: from a training table to a function
from a table to (S,) predictions, which are IoUs or probabilities of IoU = 0.
"""

import inspect
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    r2_score,
    roc_auc_score,
    roc_curve,
    root_mean_squared_error,
)
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from src.errors import SettingError
from src.records import SegmentTable
from src.store import reports

MIN_IMAGES = 3  # training, choosing among models, validation
PENALTIES = np.logspace(-4.2, 0.8, 40)  # `C`, the inverse of the L1 penalty's weight
BEST_METRICS = 6  # in the scatter plots
MAX_POINTS = 5000  # in a plot
_L1 = (  # scikit-learn 1.8 renamed it
    {"l1_ratio": 1}
    if inspect.signature(LogisticRegression).parameters["penalty"].default == "deprecated"
    else {"penalty": "l1"}
)


@dataclass(frozen=True)
class Score:
    """A figure of merit of one model on each of n random splits."""

    task: str  # "classification" or "regression"
    model: str  # such as "entropy"
    figure: str  # such as "AUROC"
    training: np.ndarray  # (n,) float64, on the segments that the model was fitted to
    validation: np.ndarray  # (n,) float64, on those of the other images

    def statistics(self):
        """Mean and standard deviation over the splits, by side: a dict of pairs of float."""
        sides = {"training": self.training, "validation": self.validation}
        return {side: (float(v.mean()), float(v.std())) for side, v in sides.items()}


@dataclass(frozen=True)
class Analysis:
    """All that is known of the models on one table."""

    scores: list[Score]
    correlations: dict[str, float]  # see `correlations`
    predictions: dict[tuple[str, str], np.ndarray]  # by task and model, of `validation`
    validation: SegmentTable  # the validation segments of the first split
    coefficients: np.ndarray  # (P, F) float64, see `_penalty_path`; of all segments
    table: SegmentTable


def analyze(table, splits, neural, regressors):
    """Compare the models; gives the Analysis.

    Parameters
    ----------
    table : SegmentTable
        With known IoU, see `check`.
    splits : list of (SegmentTable, SegmentTable)
        Training and validation; no image on both sides.
    neural : function
        A model that predicts what the column `true_iou` of its training table holds.
    regressors : dict of str to function
        Further models of the IoU, by a name for tables in text and LaTeX.
    """
    logistic = StandardScaler(), LogisticRegression(C=np.inf, max_iter=10_000)
    boosting = HistGradientBoostingClassifier(random_state=0)
    classifiers = {
        "entropy": _classifier(_entropy_of, *logistic),
        "logistic": _classifier(attrgetter("features"), *logistic),
        "logistic, L1": _fit_l1,
        "gradient boosting": _classifier(attrgetter("features"), boosting),
        "neural": lambda training: neural(replace(training, true_iou=_is_wrong(training))),
    }
    regressors = {"entropy": _fit_entropy_line, **regressors, "neural": neural}
    scores, predictions = [], {}
    for task, models, truth, figures in (
        ("classification", classifiers, _is_wrong, _classification_figures),
        ("regression", regressors, attrgetter("true_iou"), _regression_figures),
    ):
        for name, model in models.items():
            rows, predictions[task, name] = _score(model, splits, truth, figures)
            scores += [Score(task, name, *row) for row in rows]
    return Analysis(
        scores=scores,
        correlations=correlations(table),
        predictions=predictions,
        validation=splits[0][1],
        coefficients=_penalty_path(table.features, _is_wrong(table))[1],
        table=table,
    )


def check(table):
    """Refuse segments that no model can be compared on.

    Raises
    ------
    SettingError
        If they are those of too few images, or all have IoU 0, or none has.
    """
    images = len(np.unique(table.image_index))
    if images < MIN_IMAGES:
        raise SettingError(
            f"the analysis needs {MIN_IMAGES} images with ground truth and segments at least: to "
            f"train, to choose and to judge by; there are {images}"
        )
    for side, what in (((table.true_iou == 0), "IoU 0"), ((table.true_iou > 0), "an IoU above 0")):
        if side.all():
            raise SettingError(
                f"all {len(side)} segments have {what}: there is nothing to tell apart; choose a "
                "dataset in whose classes the network is sometimes right and sometimes wrong"
            )


def check_splits(splits):
    """Refuse, by a SettingError, splits with a side where every segment has IoU 0, or none has."""
    for pair in splits:
        for side, table in zip(("training", "validation"), pair, strict=True):
            if len(np.unique(_is_wrong(table))) < 2:
                raise SettingError(
                    f"a random split has {len(table.true_iou)} {side} segments in "
                    f"{len(np.unique(table.image_index))} image(s), and not both with IoU 0 and "
                    "above it: these are too few images; measure more"
                )


# what is predicted, and how well


def _is_wrong(table):
    """1.0 where the IoU is 0, else 0.0."""
    return (table.true_iou == 0).astype(np.float64)


def _score(model, splits, truth, figures):
    """Rows (figure, training, validation), and the predictions on the first validation side."""
    values, first = [], None
    for pair in splits:
        predict = model(pair[0])
        predicted = [predict(table) for table in pair]
        values.append([figures(truth(t), p) for t, p in zip(pair, predicted, strict=True)])
        first = predicted[1] if first is None else first
    columns = {
        name: np.array([[side[name] for side in sides] for sides in values]).T
        for name in values[0][0]
    }
    return [(name, *sides) for name, sides in columns.items()], first


def _classification_figures(wrong, probability):
    return {
        "accuracy": accuracy_score(wrong, probability > 0.5),
        "AUROC": roc_auc_score(wrong, probability),
        "AUPRC": average_precision_score(wrong, probability),
    }


def _regression_figures(true_iou, predicted):
    return {
        "R^2": r2_score(true_iou, predicted),
        "RMSE": root_mean_squared_error(true_iou, predicted),
    }


def correlations(table):
    """Pearson's r of each metric with the IoU, strongest first; 0 for a constant metric."""
    centred = table.features - table.features.mean(axis=0)
    true_iou = table.true_iou - table.true_iou.mean()
    lengths = np.linalg.norm(centred, axis=0) * np.linalg.norm(true_iou)
    r = np.divide(true_iou @ centred, lengths, out=np.zeros(len(lengths)), where=lengths > 1e-12)
    order = np.argsort(-np.abs(r), kind="stable")
    return {table.feature_names[i]: float(r[i]) for i in order}


# models


def _entropy_of(table):
    return table.features[:, [table.feature_names.index("E")]]


def _classifier(columns, *steps):
    """A classifier of scikit-learn, after other steps, on some columns."""

    def fit(training):
        model = clone(make_pipeline(*steps)).fit(columns(training), _is_wrong(training))
        return lambda table: model.predict_proba(columns(table))[:, 1]

    return fit


def _fit_l1(training):
    """A logistic regression with the L1 penalty that is best on a fifth of the training images."""
    groups, wrong = training.image_index, _is_wrong(training)
    shuffle = GroupShuffleSplit(1, test_size=0.2, random_state=0)
    inner, held = next(shuffle.split(groups, groups=groups))
    best = len(PENALTIES) - 1
    if all(len(np.unique(wrong[side])) == 2 for side in (inner, held)):
        scaler, weights, intercepts = _penalty_path(training.features[inner], wrong[inner])
        scores = scaler.transform(training.features[held]) @ weights.T + intercepts
        best = np.argmax([roc_auc_score(wrong[held], score) for score in scores.T])
    model = _classifier(attrgetter("features"), StandardScaler(), _sparse_logistic(PENALTIES[best]))
    return model(training)


def _fit_entropy_line(training):
    line = LinearRegression().fit(_entropy_of(training), training.true_iou)
    return lambda table: np.clip(line.predict(_entropy_of(table)), 0, 1)


def _penalty_path(features, wrong):
    """Scaler, coefficients (P, F) and intercepts (P,) for each of `PENALTIES`."""
    scaler = StandardScaler().fit(features)
    inputs = scaler.transform(features)
    fits = [_sparse_logistic(penalty).fit(inputs, wrong) for penalty in PENALTIES]
    return scaler, np.vstack([f.coef_ for f in fits]), np.concatenate([f.intercept_ for f in fits])


def _sparse_logistic(penalty):
    return LogisticRegression(
        C=penalty, solver="liblinear", random_state=0, tol=1e-3, max_iter=1000, **_L1
    )


# numbers out


def plain_numbers(analysis):
    """The figures as nested dicts of numbers, for sacred's result.

    task -> model -> figure -> side -> {"mean", "std"}; "correlation" -> metric -> r.
    """
    numbers = {"correlation": analysis.correlations}
    for score in analysis.scores:
        models = numbers.setdefault(score.task, {})
        models.setdefault(score.model, {})[score.figure] = {
            side: {"mean": mean, "std": std} for side, (mean, std) in score.statistics().items()
        }
    return numbers


def main_figures(analysis):
    """AUROC or R^2 of each model, mean over the validation images of all splits: dict of float."""
    scores = [score for score in analysis.scores if score.figure in ("AUROC", "R^2")]
    return {f"{score.figure} {score.model}": float(score.validation.mean()) for score in scores}


def text_table(analysis):
    """The figures as lines of text, mean and standard deviation over the splits."""
    form = "{:15} {:18} {:9} {:>15} {:>15}".format
    lines = [form("task", "model", "figure", "training", "validation")]
    for score in analysis.scores:
        sides = (f"{mean:.3f} +- {std:.3f}" for mean, std in score.statistics().values())
        lines.append(form(score.task, score.model, score.figure, *sides))
    lines += ["", "correlation with the IoU, the strongest"]
    strongest = list(analysis.correlations.items())[:10]
    return lines + [f"{name:15} {r:6.3f}" for name, r in strongest]


def write_report(folder, analysis, dataset):
    """Write the tables as CSV and LaTeX, and the pictures, to a folder that is made as needed.

    It gets scores.csv, scores.tex, correlations.csv, penalty_path.csv, roc.png, correlated.png,
    predicted.png and penalty_path.png, which name the dataset.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header = "task,model,figure,training mean,training std,validation mean,validation std"
    rows = [(s.task, s.model, s.figure, *sum(s.statistics().values(), ())) for s in analysis.scores]
    reports.write_csv(folder / "scores.csv", header.split(","), rows)
    (folder / "scores.tex").write_text(_latex(analysis.scores))
    reports.write_csv(folder / "correlations.csv", ("metric", "r"), analysis.correlations.items())
    path = np.column_stack([PENALTIES, analysis.coefficients])
    reports.write_csv(folder / "penalty_path.csv", ("C", *analysis.table.feature_names), path)
    for name, draw, title in (
        ("roc", _draw_roc, "meta classification, validation segments of the first split"),
        ("correlated", _draw_correlated, "the metrics that tell most of the IoU, all segments"),
        ("predicted", _draw_predicted, "meta regression, validation segments of the first split"),
        ("penalty_path", _draw_penalty_path, "logistic regression with L1 penalty, all segments"),
    ):
        figure = Figure(figsize=(12, 8), layout="constrained")
        figure.suptitle(f"{reports.label(dataset)}: {title}")
        draw(figure, analysis)
        reports.save_figure(folder / name, figure, ["png"])


def _latex(scores):
    """A tabular with mean and standard deviation, a line for each figure of a model."""
    lines = [r"\begin{tabular}{lllrr}", r"task & model & figure & training & validation \\ \hline"]
    for score in scores:
        figure = score.figure.replace("R^2", "$R^2$")
        model = reports.latex(score.model)
        sides = (rf"${mean:.3f} \pm {std:.3f}$" for mean, std in score.statistics().values())
        lines.append(" & ".join([score.task, model, figure, *sides]) + r" \\")
    return "\n".join([*lines, r"\end{tabular}", ""])


# pictures


def draw_losses(path, losses, learnt, judged):
    """Draw the training and validation loss of each epoch, pairs of float, to <path>.png.

    Those are of the datasets called `learnt` and `judged`.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="binary cross entropy")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    epochs = range(1, len(losses) + 1)
    labels = f"training: {reports.label(learnt)}", f"validation: {reports.label(judged)}"
    for values, label in zip(np.transpose(losses), labels, strict=True):
        axes.plot(epochs, values, marker=".", label=label)
    axes.legend()
    reports.save_figure(path, figure, ["png"])


def _draw_roc(figure, analysis):
    axes = figure.add_subplot(
        xlabel="share of the segments with IoU > 0 that are called wrong",
        ylabel="share of the segments with IoU = 0 that are found",
    )
    wrong = _is_wrong(analysis.validation)
    for (task, model), predicted in analysis.predictions.items():
        if task == "classification":
            x, y, _ = roc_curve(wrong, predicted)
            label = f"{reports.label(model)}, AUROC {roc_auc_score(wrong, predicted):.3f}"
            axes.plot(x, y, label=label)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    axes.legend(loc="lower right")


def _draw_correlated(figure, analysis):
    table = analysis.table
    strongest = list(analysis.correlations.items())[:BEST_METRICS]
    for position, (name, r) in enumerate(strongest, 1):
        axes = figure.add_subplot(2, -(-BEST_METRICS // 2), position)
        axes.set(xlabel=reports.label(name), ylabel="IoU", title=f"r = {r:.2f}")
        _scatter(axes, table.features[:, table.feature_names.index(name)], table.true_iou)


def _draw_predicted(figure, analysis):
    true_iou = analysis.validation.true_iou
    regressors = [model for task, model in analysis.predictions if task == "regression"]
    for position, model in enumerate(regressors, 1):
        axes = figure.add_subplot(
            2, -(-len(regressors) // 2), position, xlabel="true IoU", ylabel="predicted IoU"
        )
        predicted = analysis.predictions["regression", model]
        _scatter(axes, true_iou, predicted)
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
        r2 = r2_score(true_iou, predicted)
        axes.set_title(f"{reports.label(model)}, R² {r2:.3f}")


def _draw_penalty_path(figure, analysis):
    axes = figure.add_subplot(
        xlabel="C: inverse of the penalty's weight",
        ylabel="coefficient of the standardised metric; positive: speaks for IoU = 0",
    )
    largest = np.argsort(-np.abs(analysis.coefficients).max(axis=0))
    for rank, column in enumerate(largest):
        label = reports.label(analysis.table.feature_names[column]) if rank < 10 else None
        values = analysis.coefficients[:, column]
        axes.plot(
            PENALTIES, values, label=label, color=None if label else "lightgrey", zorder=-rank
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="upper left", title="the 10 largest")


def _scatter(axes, x, y):
    """Draw points, at most so many as a plot can show."""
    some = np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).astype(int)
    axes.scatter(x[some], y[some], s=4, alpha=0.3, linewidths=0)
