"""Anomaly scores of pixels and segments, all with one sign: higher = stranger."""

import math

import numpy as np
import torch
from torch.nn.functional import conv2d, grid_sample, interpolate, normalize, pad

from src.errors import SettingError

PIXELS = 2**15  # of a picture that scores of `FITTED` are worked out at, at most; linear between
FEW = 100  # pixels are too few to tell the spread of a class
REFERENCES = 2000  # pixels that others are compared with
AT_ONCE = 2**12  # pixels that are compared: 32 MB
FIELDS = 12, 16  # rows and columns of a picture
RARE = 0.002  # share of a field that a class has which was never seen there
BEST = "nearest_logits"  # of what is known here, to tell suspicious segments by
ORDINARY = 0.9  # share of normal pixels that have less of it than suspicious segments
SMOOTHED = 1 / 32  # of the height of a picture: 8 of 256 pixels


def max_logit(logits):
    """The largest logit with its sign turned (Hendrycks et al., arXiv 1911.11132).

    Parameters
    ----------
    logits : Tensor of shape (..., C), float32

    Returns
    -------
    score : Tensor of shape (...), float32
    """
    return -logits.amax(-1)


def energy(logits):
    """The free energy of the logits (Liu et al., arXiv 2010.03759); shapes as of `max_logit`."""
    return -logits.logsumexp(-1)


def rejected_by_all(logits):
    """No class wants the pixel: minus the sum of the classes' tanh (Nayal et al., 2211.14293).

    Made for mask networks, whose class scores are at least 0; shapes as of `max_logit`.
    """
    return -logits.tanh().sum(-1)


class StandardisedMaxLogit:
    """The max logit, standardised by its mean and spread in its class (Jung et al., 2107.11264).

    Without their suppression of borders and smoothing.
    """

    @staticmethod
    def fit(logits, _places):
        """Mean and spread, (C,) each, of a class, of all where it has under `FEW` pixels."""
        score, classes = max_logit(logits), logits.argmax(-1)
        mean, std = score.mean().repeat(logits.shape[-1]), score.std().repeat(logits.shape[-1])
        for k in classes.unique():
            own = score[classes == k]
            if len(own) >= FEW:
                mean[k], std[k] = own.mean(), own.std()
        return {"mean": mean, "std": std.clamp(min=1e-6)}

    @staticmethod
    def score(logits, _places, mean, std):
        classes = logits.argmax(-1)
        return (max_logit(logits) - mean[classes]) / std[classes]


class NearestLogits:
    """How far the logits point from where those of normal pixels do: 1 - cosine, 0 to 2.

    The mean over the three nearest of `REFERENCES` pixels, after Galesso et al. (2211.06660), who
    compare features of an inner layer.
    """

    @staticmethod
    def fit(logits, _places):
        """Directions (K, C) of chance pixels."""
        some = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))
        return {"references": normalize(logits[some[:REFERENCES]], dim=-1)}

    @staticmethod
    def score(logits, _places, references):
        count = min(3, len(references))
        parts = normalize(logits, dim=-1).flatten(0, -2).split(AT_ONCE)
        nearest = [(part @ references.T).topk(count).values.mean(-1) for part in parts]
        return 1 - torch.cat(nearest).reshape(logits.shape[:-1])


class OutOfPlace:
    """Minus the log of how often the predicted classes are where the pixel is in its picture."""

    @staticmethod
    def fit(logits, places):
        """Share of each class in each field of the picture (C, `FIELDS`), and around it."""
        rows, columns = FIELDS
        row, column = (places * torch.tensor(FIELDS)).long().unbind(-1)
        counts = torch.zeros(logits.shape[-1], rows * columns)
        counts.index_add_(1, row * columns + column, logits.softmax(-1).T)
        counts = counts.unflatten(1, FIELDS) / len(logits) * rows * columns
        counts = torch.stack([_smoothed(of_class, 1) for of_class in counts]) + RARE
        return {"shares": counts / counts.sum(0)}

    @staticmethod
    def score(logits, places, shares):
        at = (2 * places.flip(-1) - 1).reshape(1, 1, -1, 2)  # x, y from -1 to 1
        shares = grid_sample(shares[None], at, padding_mode="border", align_corners=False)
        shares = shares[0, :, 0].T.reshape(logits.shape)
        return -(logits.softmax(-1) * shares).sum(-1).log()


class Combined:
    """Energy, nearest logits and out of place, each standardised on normal pixels: their mean.

    Smoothed by a Gaussian of `SMOOTHED` of the height of the picture. A rule of this project, which
    learns nothing of what is strange.
    """

    PARTS = {"nearest_logits": NearestLogits, "out_of_place": OutOfPlace}

    @classmethod
    def fit(cls, logits, places):
        """Of each part what it needs itself, and of all the mean and spread, (3,)."""
        fitted = {name: part.fit(logits, places) for name, part in cls.PARTS.items()}
        state = {f"{name}.{key}": own[key] for name, own in fitted.items() for key in own}
        parts = cls._parts(logits, places, state).flatten(0, -2)
        return state | {"mean": parts.mean(0), "std": parts.std(0).clamp(min=1e-6)}

    @classmethod
    def score(cls, logits, places, mean, std, **state):
        parts = (cls._parts(logits, places, state) - mean) / std
        return _smoothed(parts.mean(-1), SMOOTHED * len(logits))

    @classmethod
    def _parts(cls, logits, places, state):
        """Energy and the `PARTS`, side by side in the last dimension."""
        found = [energy(logits)]
        for name, part in cls.PARTS.items():
            keys = [key for key in state if key.startswith(f"{name}.")]
            own = {key.removeprefix(f"{name}."): state[key] for key in keys}
            found.append(part.score(logits, places, **own))
        return torch.stack(found, dim=-1)


def _smoothed(score, sigma):
    """A map (H, W) after a Gaussian of `sigma` pixels; beyond its edge it goes on as there."""
    reach = math.ceil(3 * sigma)
    at = torch.arange(-reach, reach + 1, device=score.device)
    weights = (-0.5 * (at / sigma) ** 2).exp()
    weights = (weights / weights.sum())[None, None, :, None]
    for _ in range(2):  # along the rows, then along the columns
        padded = pad(score[None, None], (0, 0, reach, reach), mode="replicate")
        score = conv2d(padded, weights)[0, 0].T
    return score


# of logits, or of the class scores of mask networks: what stage 1 may keep
OF_LOGITS = {"max_logit": max_logit, "energy": energy, "rejected_by_all": rejected_by_all}
# the same, learnt from pictures without anything strange, labels or not
FITTED = {
    "standardised_max_logit": StandardisedMaxLogit,
    "nearest_logits": NearestLogits,
    "out_of_place": OutOfPlace,
    "combined": Combined,
}
# of probabilities, in the order of `MetaSeg.metrics.heatmaps`: what metrics call their means
OF_PROBABILITIES = {"entropy": "E", "margin": "D", "max_softmax": "V"}
# which no map of one's own may have
NAMES = *OF_PROBABILITIES, "predicted_iou", *OF_LOGITS, *FITTED


def fit(logits, places):
    """What the scores of `FITTED` have to know: by name a dict of Tensor.

    Parameters
    ----------
    logits : Tensor of shape (P, C), float32
        Of pixels that are typical of what the network was trained on; no labels are needed.
    places : Tensor of shape (P, 2), float32
        Row and column of each in its picture, in 0..1.
    """
    return {name: score.fit(logits, places) for name, score in FITTED.items()}


def limit_of(logits, places, fitted):
    """The score `BEST` that one in ten normal pixels exceeds: a float.

    Arguments are those of `fit`, and what it gave.
    """
    return float(FITTED[BEST].score(logits, places, **fitted[BEST]).quantile(ORDINARY))


def of_logits(name, logits, fitted):
    """A score of a picture by its name, one of `OF_LOGITS` and `FITTED`.

    Parameters
    ----------
    name : str
    logits : Tensor of shape (H, W, C), float32
    fitted : dict
        What `fit` gives; only those of `FITTED` look at it.

    Returns
    -------
    score : Tensor of shape (H, W), float32
    """
    if name in OF_LOGITS:
        return OF_LOGITS[name](logits)
    size = logits.shape[:2]
    step = math.ceil(math.sqrt(size.numel() / PIXELS))
    centres = [  # in 0..1, of so many equal parts
        (torch.arange(count, device=logits.device) + 0.5) / count
        for count in (math.ceil(length / step) for length in size)
    ]
    rows, columns = ((at * length).long() for at, length in zip(centres, size, strict=True))
    places = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1)
    state = {key: tensor.to(logits.device) for key, tensor in fitted[name].items()}
    score = FITTED[name].score(logits[rows[:, None], columns], places, **state)
    return interpolate(score[None, None], tuple(size), mode="bilinear")[0, 0]


def of_picture(heatmaps, predicted_iou, kept):
    """All scores of the pixels of a picture.

    Parameters
    ----------
    heatmaps : sequence of three ndarray of shape (H, W), float32
        Entropy, probability difference (the margin) and variation ratio (1 - largest probability):
        `MetaSeg.metrics.heatmaps` defines them.
    predicted_iou : ndarray of shape (H, W), float32, or None
        That of each pixel's segment; None: unknown.
    kept : dict of str to ndarray of shape (H, W), float32
        Those that stage 1 has kept, see `OF_LOGITS`, and heat maps of one's own.

    Returns
    -------
    scores : dict of str to ndarray of shape (H, W), float32
        By the names that settings have for them; "predicted_iou" is 1 - predicted IoU, where known.
    """
    of_segments = {} if predicted_iou is None else {"predicted_iou": 1 - predicted_iou}
    return dict(zip(OF_PROBABILITIES, heatmaps, strict=True)) | of_segments | kept


def names_in(metrics):
    """Names of the scores that a table of metrics has means of: a list."""
    own = [
        name
        for name in metrics
        if f"{name}_var" in metrics and name not in OF_PROBABILITIES.values()
    ]
    return [*OF_PROBABILITIES, *own]


def of_segments(metrics, name):
    """Mean of a score over each segment's inner pixels, over all where there are none inside.

    Parameters
    ----------
    metrics : dict of str to ndarray of shape (S,)
        As stage 2 writes them.
    name : str
        One of `names_in`.

    Returns
    -------
    score : ndarray of shape (S,), float32

    Raises
    ------
    SettingError
        The table has no such score.
    """
    known = names_in(metrics)
    if name not in known:
        raise SettingError(
            f"there is no score {name!r} of segments here, but predicted_iou, {', '.join(known)}; "
            f"those of logits ({', '.join([*OF_LOGITS, *FITTED])}) are kept by pred_images.py with "
            "args.scores=[...], maps of your own by src/MetaSeg/main.py with args.heatmaps"
        )
    key = OF_PROBABILITIES.get(name, name)
    means = np.where(np.asarray(metrics["S_in"]) > 0, metrics[f"{key}_in"], metrics[key])
    return means.astype(np.float32)
