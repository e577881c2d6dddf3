"""Before stage 1: what scores that learn have to know of normal pictures."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from src import scores
from src.errors import SettingError
from src.segmentation.inference import logits_of
from src.store import provenance
from src.store.sealed import as_stored
from src.store.weights import read_torch, write_torch

FORMAT = 2  # of the file; raise it when `scores.FITTED` learn something else
PIXELS = 100_000  # of all pictures together
_OF_NETWORK = "network", "mean", "std", "size", "multiple_of", "outputs"


def fit_scores(run, predictor, indices):
    """Fit the scores of `scores.FITTED` to some pictures, unless that is done; gives the Tally.

    Parameters
    ----------
    run : Runner
    predictor : Predictor
        Of the pictures, which should hold nothing strange; they need no labels.
    indices : sequence of int
    """
    path, made_from = predictor.results.fitted_scores, _made_from(predictor, indices)
    there = read(path)
    reason = "args.overwrite" if run.overwrite else _why_stale(there, made_from)
    if reason is None:
        run.log.info("%s was made from the same: not fitted again", path)
    todo, kept = list(indices) if reason else [], {}
    count = -(-PIXELS // max(len(todo), 1))
    samples = partial(_samples, predictor, count)
    tally = run.stream(samples, kept.__setitem__, todo, "fitting scores")
    if kept and not tally.failed:
        run.prepare(path.parent)
        parts = [kept[index] for index in sorted(kept)]
        logits, places = (torch.cat(part) for part in zip(*parts, strict=True))
        fitted = scores.fit(logits, places)
        limit = scores.limit_of(logits, places, fitted)
        write_torch(path, {"made_from": made_from, "fitted": fitted, "limit": limit})
        run.log.info("wrote %s, from %d pixels of %d pictures", path, len(logits), len(kept))
    return tally


def _samples(predictor, count, indices):
    """Yield (index, (logits (P, C), places (P, 2))) of `count` pixels of each picture."""
    computing = replace(predictor.computing, scores=tuple(scores.FITTED))  # which need logits
    for index in indices:
        try:
            _, (image, _, _) = predictor.load(index)
            logits = logits_of(predictor.network, image, computing)
            if not logits.isfinite().all():
                raise ValueError("the network gave NaN or infinite logits")
            yield index, _some(logits, count, index)
        except Exception as error:  # the others go on
            yield index, error


def _some(logits, count, seed):
    size = logits.shape[:2]
    pixels = np.random.default_rng(seed).choice(size.numel(), min(count, size.numel()), False)
    at = np.stack(np.unravel_index(np.sort(pixels), size), axis=-1)
    places = torch.from_numpy((at + 0.5) / size).float()
    row, column = torch.from_numpy(at).to(logits.device).unbind(-1)
    return logits[row, column].cpu(), places


def read(path):
    """What `fit_scores` wrote: a dict of `made_from`, `fitted` and `limit`, see `scores.limit_of`.

    None: the file is missing, broken, or of another version.
    """
    try:
        content = read_torch(path)
        return content if content["made_from"]["format"] == FORMAT else None
    except Exception:  # a broken file raises nearly anything
        return None


def fitted_for(results, source):
    """What was fitted for the network of some predictions: a dict of `made_from` and `fitted`.

    `source` is what the predictions depend on. Raises a SettingError where nothing was fitted, or
    for another network.
    """
    path = results.fitted_scores
    there = read(path)
    again = (
        f"run pred_images.py with args.fit_scores=True args.model_name={results.model} and, as "
        "args.dataset, what the network was trained on, or a folder of other normal pictures"
    )
    if there is None:
        state = "broken or of another version" if path.is_file() else "missing"
        raise SettingError(f"{path} is {state}; {', '.join(scores.FITTED)} must learn: {again}")
    own = as_stored(_network_of(source))
    differs = provenance.why_differs(_network_of(there["made_from"]), own)
    if differs:
        raise SettingError(f"{path} was fitted for another network ({differs}): {again}")
    return there


def limit_for(results, source):
    """The `scores.limit_of` of what has scored some predictions, as their `source` says.

    Raises a SettingError where that is not there any more.
    """
    there = read(results.fitted_scores)
    if there is None or provenance.digest(there["made_from"]) != source.get("fitted_scores"):
        raise SettingError(
            f"{results.fitted_scores} is not what has scored the pictures of {results.dataset}: "
            "run pred_images.py and src/MetaSeg/main.py for them again, or say args.threshold"
        )
    return there["limit"]


def _made_from(predictor, indices):
    data = {"dataset": provenance.identity(predictor.data), "pictures": list(indices)}
    return as_stored({**_network_of(predictor.source), **data, "format": FORMAT})


def _network_of(source):
    return {key: source[key] for key in _OF_NETWORK if key in source}


def _why_stale(there, made_from):
    if there is None:
        return "missing or broken"
    return provenance.why_differs(there["made_from"], made_from)
