"""A meta network in the form of the published one, and its predictions worked out step by step."""

import json

import numpy as np
import torch

from twins import metaseg

AGGREGATES = ("", "_bd", "_in", "_rel", "_rel_in")
AGGREGATES += ("_var", "_var_bd", "_var_in", "_var_rel", "_var_rel_in")
NAMES = (  # sorted as text, upper case first, and the shares of the classes by number
    *(f"{name}{suffix}" for name in "DE" for suffix in AGGREGATES),
    *("S", "S_bd", "S_in", "S_rel", "S_rel_in"),
    *(f"V{suffix}" for suffix in AGGREGATES),
    *("mean_x", "mean_y", "ndist0", "ndist1"),
    *(f"ndist{c}" for c in (10, 11, 12, 13, 14, 15, 16, 17, 18, 2, 3, 4, 5, 6, 7, 8, 9)),
    *(f"cprob{c}" for c in range(19)),
)
SIZES = (75, 50, 40, 30, 20, 10, 1)


def write(folder):
    """Write the network, the names of its features, and <image>.npz for images of 19 classes."""
    random = np.random.default_rng(0)
    layers = [
        (random.normal(0, (2 / n) ** 0.5, (m, n)).astype(np.float32), random.normal(0, 0.1, m))
        for n, m in zip(SIZES, SIZES[1:], strict=False)
    ]
    images = [name for name, (p, _) in metaseg.images().items() if p.shape[-1] == 19]
    features = {name: features_of(metaseg.results()[name][0]) for name in images}
    seen = np.concatenate([*features.values()])
    mean, std = seen.mean(axis=0), seen.std(axis=0)
    save_as_the_original(folder / "meta_nn.pth", layers, mean, std)
    (folder / "feature_names.json").write_text(json.dumps(NAMES))
    for name in images:
        standard = (features[name] - mean) / (std + 1e-10)
        np.savez(folder / f"{name}.npz", features=standard, predictions=run(layers, standard))


def features_of(rows):
    """(S, 75) in the order of the names."""
    return np.array([[row[name] for name in NAMES] for row in rows], np.float64)


def run(layers, features):
    """Linear layers with ReLU between them, then the logistic function: (S,) float32."""
    values = features.T
    for number, (weight, bias) in enumerate(layers):
        values = weight.astype(np.float64) @ (values if number == 0 else np.maximum(values, 0))
        values += bias.astype(np.float32)[:, None]
    return (1 / (1 + np.exp(-values[0]))).astype(np.float32)


def save_as_the_original(path, layers, mean, std):
    """An old file of torch: weights, and statistics as NumPy arrays, classes by themselves."""
    state = {}
    for number, (weight, bias) in enumerate(layers):
        state[f"layers.{2 * number}.weight"] = torch.from_numpy(weight)
        state[f"layers.{2 * number}.bias"] = torch.from_numpy(bias.astype(np.float32))
    content = {"state_dict": state}
    for name, values in (("mean", mean), ("std", std)):
        content[f"train_xa_{name}"] = values[:-19]
        content[f"train_classes_{name}"] = values[-19:]
    torch.save(content, path, _use_new_zipfile_serialization=False)
