"""By what segments are suspicious, and from which value on, where settings leave it open."""

from dataclasses import replace

from src import scores
from src.errors import SettingError
from src.MetaSeg import stage
from src.segmentation import fitting
from src.store.tables import read_table


def choose_suspicion(args, log, meta_weights, fits, places):
    """What makes a segment suspicious: "predicted_iou", or a score of `scores.of_segments`.

    As `args.suspicion` says; else the predicted IoU where `args.iou_threshold` is given, the score
    `scores.BEST` where stage 1 has kept it, the predicted IoU where there is one, the entropy.

    Parameters
    ----------
    args : dict
        Settings of stage 4.
    log : logging.Logger
    meta_weights : path or None
        Of the meta model, for the log.
    fits : bool
        Whether it belongs to the segmentation network.
    places : list of Results
        Of the datasets that are searched.

    Raises
    ------
    SettingError
        `args.iou_threshold` is given for something else than the predicted IoU.
    """
    wanted, is_iou = args["suspicion"], args["iou_threshold"] is not None
    if is_iou and wanted not in (None, "predicted_iou"):
        raise SettingError(
            f"args.iou_threshold={args['iou_threshold']:g} goes with args.suspicion=predicted_iou; "
            f"the least {wanted} is args.threshold"
        )
    if wanted or is_iou:
        return wanted or "predicted_iou"
    if all(map(_has_best, places)):
        log.info(
            "suspicious is what has a high %s, which stage 1 has kept; "
            "args.suspicion=predicted_iou asks for a low predicted IoU instead", scores.BEST,
        )  # fmt: skip
        return scores.BEST
    if fits:
        return "predicted_iou"
    log.info(
        "suspicious is what has a high entropy, as %s is not there, or of another network. Better "
        "are %s (pred_images.py with args.fit_scores=True on ordinary pictures, then with "
        "args.scores=%s on these) and predicted_iou (train_meta_nn.py on labelled pictures of "
        "classes that the network knows)", meta_weights, scores.BEST, scores.BEST,
    )  # fmt: skip
    return "entropy"


def _has_best(results):
    indices = results.indices("metrics", missing_ok=True)
    try:
        return bool(indices) and scores.BEST in read_table(results.metrics(indices[0]))
    except (OSError, ValueError):  # will be named when it is judged
        return False


def least_score(args, suspicion, places, least_entropy):
    """The least score of suspects, or None: of the predicted IoU, or where `args.most` tells.

    Raises
    ------
    SettingError
        The score has none of its own, and `args` says none; what that of `scores.BEST` comes from
        is gone.
    """
    if suspicion == "predicted_iou":
        return None
    if args["threshold"] is not None or args["most"]:
        return args["threshold"]
    if suspicion == scores.BEST:
        results = places[0]
        measured = stage.source_of(results, results.indices("metrics")[0]) or {}
        return fitting.limit_for(results, measured.get("prediction", {}))
    if suspicion != "entropy":
        raise SettingError(
            f"args.suspicion={suspicion} needs args.threshold, its least value for suspects, or "
            "args.most, how many suspects there may be, such as args.most=2000"
        )
    return least_entropy


def only_most(run, judge, most):
    """The Rule of a Judge, with a least suspicion that only the `most` suspicious objects have.

    Where no threshold says which segments to join, only so many segments have it, and are joined.
    """
    rule, is_joined = judge.rule, judge.rule.join is not None
    is_of_objects = is_joined and (rule.least is not None or rule.iou_threshold is not None)
    if is_joined and not is_of_objects:
        judge = replace(judge, rule=replace(rule, join=None))
    cores = 1 if run.scheduler else run.num_cores
    least = judge.least_of(judge.measured_images(), most, cores)
    if is_of_objects:
        return replace(rule, least_of_objects=least)
    return replace(rule, least=rule.least if least is None else least)
