"""DeepLabv3+ with WideResNet-38 as a list of tensors and plain functions of them, in float64."""

import json
from math import prod, sqrt

import numpy as np
import torch
from torch.nn import functional

CLASSES = 19
STAGES = (  # name, blocks, channels after each convolution, stride, dilation
    ("mod2", 3, (128, 128), 1, 1),
    ("mod3", 3, (256, 256), 1, 1),
    ("mod4", 6, (512, 512), 2, 1),
    ("mod5", 3, (512, 1024), 1, 2),
    ("mod6", 1, (512, 1024, 2048), 1, 4),
    ("mod7", 1, (1024, 2048, 4096), 1, 4),
)
DILATIONS = {1: 12, 2: 24, 3: 36}  # of the branches of the pyramid; 0 is a convolution of 1 x 1
FORMULA = {"seed": 1, "gain": 1.15, "bn_w": 0.25, "bn_b": 0.1, "rm": 0.1, "rv": 0.3}
WIDTH = 1 / 16  # of the network that is filled


def write(folder):
    """Write the tensors of the whole network; those and the logits of a narrow one."""
    total = sum(prod(shape) for name, shape in tensors(1) if is_learnt(name))
    keys = [[name, shape, "float32" if shape else "int64"] for name, shape in tensors(1)]
    state = {
        name: filled(number, name, shape) for number, (name, shape) in enumerate(tensors(WIDTH))
    }
    checks = {
        name: {"first": values.flatten()[:4].tolist(), "sum": values.sum().item()}
        for name, values in state.items()
    }
    formula = {**FORMULA, "phase": 0, "width": WIDTH}
    for name, content in (
        ("keys", {"keys": keys, "total_parameters": total}),
        ("fill_check", checks),
        ("stages_64x128", {"formula": formula}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    image = waves(64, 128)
    np.savez(folder / "logits_64x128.npz", input=image, logits=forward(state, image))
    large = forward(state, waves(384, 512))
    np.savez(
        folder / "logits_384x512_every8.npz",
        logits_every8=large[:, :, ::8, ::8],
        logits_mean=large.mean(),
        logits_std=large.std(),
    )


# --- tensors


def tensors(width):
    """Name and shape of every tensor in order."""

    def wide(channels):
        return round(channels * width)

    def conv(name, outputs, inputs, size):
        return [(f"{name}.weight", (outputs, inputs, size, size))]

    def norm(name, channels):
        named = ("weight", "bias", "running_mean", "running_var")
        return [
            *((f"{name}.{kind}", (channels,)) for kind in named),
            (f"{name}.num_batches_tracked", ()),
        ]

    found, inputs = conv("mod1.conv1", wide(64), 3, 3), wide(64)
    for stage, blocks, channels, _, _ in STAGES:
        channels = [wide(n) for n in channels]
        for block in range(1, blocks + 1):
            name, before = f"{stage}.block{block}", inputs
            found += norm(f"{name}.bn1.0", inputs)
            for number, outputs in enumerate(channels, 1):
                if number > 1:
                    found += norm(f"{name}.convs.bn{number}.0", inputs)
                size = 1 if len(channels) == 3 and number != 2 else 3
                found += conv(f"{name}.convs.conv{number}", outputs, inputs, size)
                inputs = outputs
            if block == 1:
                found += conv(f"{name}.proj_conv", inputs, before, 1)
    branch, fine, reduced = wide(256), wide(128), wide(48)
    for name, size in (*((f"features.{n}", 3 if n else 1) for n in range(4)), ("img_conv", 1)):
        found += conv(f"aspp.{name}.0", branch, inputs, size) + norm(f"aspp.{name}.1", branch)
    found += conv("bot_fine", reduced, fine, 1) + conv("bot_aspp", branch, 5 * branch, 1)
    found += conv("final.0", branch, reduced + branch, 3) + norm("final.1", branch)
    found += conv("final.3", branch, branch, 3) + norm("final.4", branch)
    return found + conv("final.6", CLASSES, branch, 1)


def is_learnt(name):
    return name.endswith(("weight", "bias"))


def filled(number, name, shape):
    """Tensor of some place in the list, with the values that a formula has for it."""
    if not shape:
        return torch.zeros((), dtype=torch.float64)
    values = torch.tensor([unit(j, number) for j in range(prod(shape))], dtype=torch.float64)
    values = values.reshape(shape)
    if len(shape) == 4:
        values = FORMULA["gain"] * sqrt(3 / prod(shape[1:])) * values
    elif name.endswith("weight"):
        values = 1 + FORMULA["bn_w"] * values
    elif name.endswith("bias"):
        values = FORMULA["bn_b"] * values
    elif name.endswith("mean"):
        values = FORMULA["rm"] * values
    else:
        values = 1 + FORMULA["rv"] * values
    return values.float().double()


def unit(element, number):
    """A number in (-1, 1) that looks random; whole numbers of 32 bits up to the last line."""
    x = (element + 0x9E3779B9 * (number + 1) + 0x85EBCA6B * FORMULA["seed"]) % 2**32
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * factor % 2**32
    return ((x ^ x >> 16) + 0.5) / 2**31 - 1


def waves(height, width):
    """An image (1, 3, height, width) float32."""
    c, h, w = np.indices((3, height, width))
    values = np.sin(0.11 * (c + 1) * h + 0.5 * c) + np.cos(0.07 * (c + 1) * w - 0.3 * c)
    return values[None].astype(np.float32)


# --- the network


def forward(state, image):
    """Logits (1, C, H, W) float32 of an image."""

    def conv(x, name, stride=1, dilation=1):
        weight = state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return functional.conv2d(x, weight, None, stride, padding, dilation)

    def norm_relu(x, name):
        mean, var, weight, bias = (
            state[f"{name}.{kind}"][:, None, None]
            for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu((x - mean) / torch.sqrt(var + 1e-5) * weight + bias)

    def block(x, name, convolutions, stride, dilation):
        strides = {2: (stride, 1), 3: (1, stride, 1)}[convolutions]
        first = norm_relu(x, f"{name}.bn1.0")
        shortcut, main = x, first
        if f"{name}.proj_conv.weight" in state:
            shortcut = conv(first, f"{name}.proj_conv", stride)
        for number, step in enumerate(strides, 1):
            if number > 1:
                main = norm_relu(main, f"{name}.convs.bn{number}.0")
            is_wide = state[f"{name}.convs.conv{number}.weight"].shape[-1] == 3
            main = conv(main, f"{name}.convs.conv{number}", step, dilation if is_wide else 1)
        return main + shortcut

    def enlarge(x, size):
        return functional.interpolate(x, size, mode="bilinear", align_corners=True)

    def halve(x):
        return functional.max_pool2d(x, 3, stride=2, padding=1)

    x = conv(torch.from_numpy(image).double(), "mod1.conv1")
    for stage, blocks, channels, stride, dilation in STAGES:
        x = halve(x) if stage in ("mod2", "mod3") else x
        for number in range(1, blocks + 1):
            step = stride if number == 1 else 1
            x = block(x, f"{stage}.block{number}", len(channels), step, dilation)
        if stage == "mod2":
            fine = x
    mean = norm_relu(conv(x.mean((2, 3), keepdim=True), "aspp.img_conv.0"), "aspp.img_conv.1")
    branches = [mean.expand(-1, -1, *x.shape[2:])]
    for number in range(4):
        name = f"aspp.features.{number}"
        branch = conv(x, f"{name}.0", dilation=DILATIONS.get(number, 1))
        branches.append(norm_relu(branch, f"{name}.1"))
    coarse = enlarge(conv(torch.cat(branches, 1), "bot_aspp"), fine.shape[2:])
    x = torch.cat([conv(fine, "bot_fine"), coarse], 1)
    x = norm_relu(conv(x, "final.0"), "final.1")
    x = norm_relu(conv(x, "final.3"), "final.4")
    return enlarge(conv(x, "final.6"), image.shape[2:]).float().numpy()
