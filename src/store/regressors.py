"""A fitted regressor of scikit-learn as bytes and back; nothing in them is run.

The form is that of skops, which names every type in it and makes none that is not trusted. Arrays
of our own would be half as large and as safe, but each regressor's private fields would have to be
known here, and its prediction written anew. What skops does not look at is checked here: numbers
that the compiled code of scikit-learn believes, and would follow out of its memory.
"""

import warnings
import zipfile

import numpy as np
from sklearn.base import RegressorMixin

from src.errors import SettingError

TRUSTED = (  # beside what skops trusts: estimators of scikit-learn, arrays and ufuncs
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
)
_LEAF = -1  # child of a leaf of a `Tree`


def dump(regressor, features):
    """The bytes of a regressor, which `load` is sure to read.

    Parameters
    ----------
    regressor : fitted regressor of scikit-learn
        May be of a class of the user's own.
    features : int
        Number of features that it was fitted to.

    Raises
    ------
    SettingError
        If it holds a function, or another type that is not trusted; names it.
    """
    try:
        content = _skops_io().dumps(regressor, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
        load(content, features, type(regressor))
    except (TypeError, ValueError) as error:
        raise SettingError(
            f"{type(regressor).__name__} cannot be stored in a file that runs no code: {error}; "
            "choose another regressor in configuration.py, or other `kwargs`"
        ) from error
    return content


def load(content, features, own=None):
    """The regressor in the bytes that `dump` gave.

    Parameters
    ----------
    content : bytes
    features : int
    own : type, optional
        A further type to trust: the user's own class.

    Raises
    ------
    ValueError
        If they hold a type that is not trusted, which is named, no regressor, or one that would
        read or write elsewhere in the memory. Other bytes raise nearly any exception.
    """
    trusted = [*TRUSTED, *([f"{own.__module__}.{own.__name__}"] if own else [])]
    skops_io = _skops_io()
    refused = set(skops_io.get_untrusted_types(data=content)) - set(trusted)
    if refused:
        raise ValueError(f"it holds {', '.join(sorted(refused))}, which is refused")
    regressor = skops_io.loads(content, trusted)
    if not isinstance(regressor, RegressorMixin):
        raise ValueError(f"it holds a {type(regressor).__name__}, which is no regressor")
    for part in _parts(regressor, {}):
        if not _stays_within(part, features):
            raise ValueError(f"a {type(part).__name__} in it leads out of its own arrays")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as: no neighbour there
        shape = regressor.predict(np.zeros((1, features), np.float32)).shape
    if shape != (1,):
        raise ValueError(f"its prediction for a segment has the shape {shape}")
    return regressor


def _skops_io():
    """Imported here: it imports all of scikit-learn, which who has a network need not wait for."""
    import skops.io

    return skops.io


def _parts(value, seen):
    """A value and all that is in it, each once."""
    if id(value) in seen or isinstance(value, type):
        return
    seen[id(value)] = value
    yield value
    if isinstance(value, np.ndarray):
        inner = value.flat if value.dtype == object else ()
    elif isinstance(value, list | tuple | set):
        inner = value
    else:
        inner = (value if isinstance(value, dict) else getattr(value, "__dict__", {})).values()
    for part in inner:
        yield from _parts(part, seen)


def _stays_within(part, features):
    """Whether what compiled code reads of a part of a regressor fits together."""
    within = True
    bound = min(getattr(part, "n_features_in_", 0), features)
    if hasattr(part, "tree_"):  # of decision trees and forests
        tree = part.tree_
        branches = tree.children_left, tree.children_right, tree.feature
        within &= _ends_in_leaves(tree.children_left == _LEAF, *branches, bound)
        within &= tree.value.shape == (len(tree.feature), 1, 1)
    for predictor in (tree for trees in getattr(part, "_predictors", ()) for tree in trees):
        nodes = predictor.nodes  # of gradient boosting with histograms
        branches = (nodes[name] for name in ("left", "right", "feature_idx"))
        within &= _ends_in_leaves(nodes["is_leaf"] != 0, *branches, bound)
        within &= not nodes["is_categorical"].any()
    if hasattr(part, "estimators_") and hasattr(part, "n_trees_per_iteration_"):  # of boosting
        within &= part.estimators_.shape[1:] == (part.n_trees_per_iteration_,) == (1,)
    if hasattr(part, "_dual_coef_"):  # of support vectors
        vectors, count = part.support_vectors_, len(part.support_)
        within &= isinstance(vectors, np.ndarray) and vectors.shape == (count, bound)
        within &= part._dual_coef_.shape == (1, count)
        within &= (part._intercept_.shape, part._n_support.shape) == ((1,), (2,))
    return bool(within)


def _ends_in_leaves(is_leaf, left, right, feature, features):
    """Whether every way down a tree ends in a leaf of it: children come after their parent."""
    inner = np.flatnonzero(~is_leaf)
    children, asked = np.stack([left, right])[:, inner].astype(np.int64), feature[inner]
    return (
        len(is_leaf) > 0
        and (inner < children).all()
        and (children < len(is_leaf)).all()
        and ((asked >= 0) & (asked < features)).all()
    )
