"""A small tree of results as the original writes it, with boxes and labels worked out by hand."""

import json
import pickle

import h5py
import numpy as np
from PIL import Image

from src.MetaSeg.metrics import compute_metrics_components

HEIGHT, WIDTH, CLASSES = 100, 160, 19
MODEL, DATASET = "deeplabv3plus", "cityscapes_val"
ROAD, SIGN, PLANTS, PERSON, CAR, BUS, MOTORCYCLE = 0, 7, 8, 11, 13, 15, 17
VOID = 255
# Predicted segments on a road, (class, rows, columns), numbered as a scan row by row meets them
IMAGES = (
    # the road is 1, the car 2, fifteen plants of a pixel 3 to 17, the other car 18
    [
        (CAR, slice(0, 40), slice(1, 72)),
        *((PLANTS, slice(45, 46), slice(column, column + 1)) for column in range(5, 65, 4)),
        (CAR, slice(50, 98), slice(80, 136)),
    ],
    # the person is 1, the road 2, the bus 3
    [(PERSON, slice(0, 80), slice(0, 46)), (BUS, slice(0, 37), slice(52, 96))],
    # the road is 1, the car 2, the bus 3, the motorcycle 4, the sign 5
    [
        (CAR, slice(5, 60), slice(5, 60)),
        (BUS, slice(10, 81), slice(120, 160)),
        (MOTORCYCLE, slice(20, 60), slice(70, 104)),
        (SIGN, slice(85, 95), slice(20, 30)),
    ],
)
IOU = (  # predicted; of the last image's car 0.5, which is not below the threshold
    [0.9, 0.25, *[0.1] * 15, 0.125],
    [0.375, 0.8, 0.0625],
    [0.9, 0.5, 0.3, 0.2, 0.1],
)
TRUTH = (  # what differs from the prediction: (id, rows, columns)
    [(SIGN, slice(0, 10), slice(0, 80)), (VOID, slice(60, 100), slice(70, 140))],
    [(MOTORCYCLE, slice(0, 50), slice(0, 50))],
    [(ROAD, slice(0, 40), slice(100, 160))],
)
# What the original's rule chooses: boxes of inner pixels, of which the last row and column are not
# in the box, made as large as 48 x 44 pixels at the borders only. Of the last image, the car is too
# good, the inner pixels of the motorcycle are 32 wide, one less from the first to the last, and the
# sign is too small.
CHOSEN = {
    "image_level_index": [0, 0, 1, 1, 2],
    "component_index": [2, 18, 1, 3, 3],
    "pred": [CAR, CAR, PERSON, BUS, BUS],
    "gt": [CAR, VOID, MOTORCYCLE, BUS, BUS],
    "box": [(2, 0, 70, 44), (81, 51, 134, 96), (0, 0, 48, 78), (53, 0, 94, 44), (112, 11, 160, 79)],
}
SETTINGS = {
    "iou_threshold": 0.5,
    "min_height": 32,
    "min_width": 32,
    "min_crop_height": 44,
    "min_crop_width": 48,
    "pred_class_selection": [3, 4, 6, 7, 11, 12, 13, 14, 15, 16, 17, 18],
}


def write(folder):
    """Write the tree, and what is known of its segments."""
    tree = folder / "tree"
    for kind in ("input", "metrics", "components"):
        (tree / kind / MODEL / DATASET).mkdir(parents=True)
    (tree / "images").mkdir()
    classes = [write_image(tree, index) for index in range(len(IMAGES))]
    embeddings = np.random.default_rng(5).normal(size=(5, 1920)).astype(np.float32)
    write_embeddings(tree / "embeddings_32_32_densenet201.p", embeddings)
    expected = {
        **{name: values for name, values in CHOSEN.items() if name != "box"},
        "boxes_left_upper_right_lower": CHOSEN["box"],
        "image_index": [*range(len(IMAGES))],
        "image_path": [picture(index) for index in range(len(IMAGES))],
        "embeddings_check": {"first8": embeddings[:, :8].tolist()},
        **SETTINGS,
    }
    (folder / "expected_selection.json").write_text(json.dumps(expected))
    np.savez(
        folder / "expected_features_and_iou.npz",
        start=np.cumsum([0, *map(len, IOU)]),
        iou_pred=np.concatenate(IOU).astype(np.float32),
        segment_class=np.concatenate(classes),
    )


def picture(index):
    """Name of a picture below the tree."""
    return f"images/{DATASET}_{index:06}.png"


def write_image(tree, index):
    """Write a picture and what stages 1 and 2 know of it; gives the class of each segment."""
    prediction = np.full((HEIGHT, WIDTH), ROAD)
    for label, rows, columns in IMAGES[index]:
        prediction[rows, columns] = label
    truth = prediction.copy()
    for label, rows, columns in TRUTH[index]:
        truth[rows, columns] = label
    random = np.random.default_rng(index)
    colours = random.integers(0, 256, (CLASSES, 3))[prediction]
    pixels = np.clip(colours + random.normal(0, 5, colours.shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tree / picture(index))

    probabilities = random.dirichlet(np.ones(CLASSES), prediction.shape)
    probabilities = ((probabilities + np.eye(CLASSES)[prediction]) / 2).astype(np.float32)
    stem = "probs_" if index == 2 else "input"  # an older name
    with h5py.File(tree / "input" / MODEL / DATASET / f"{stem}{index}.hdf5", "w") as file:
        file["probabilities"] = probabilities
        file["prediction"], file["ground_truths"] = prediction, truth
        file["image_path"] = [picture(index)]
    metrics, components = compute_metrics_components(probabilities, truth)
    dump(tree / "components" / MODEL / DATASET / f"components{index}.p", components.astype("i2"))
    lists = {name: [*values] for name, values in metrics.items()}  # of NumPy's scalars
    lists["S"] = [float(size) for size in lists["S"]]
    lists["class"] = [int(label) for label in lists["class"]]
    dump(tree / "metrics" / MODEL / DATASET / f"metrics{index}.p", lists)
    return lists["class"]


def write_embeddings(path, embeddings):
    """Write the table of chosen segments: lists of one entry an image, or a segment."""
    whole = range(len(IMAGES))
    iou = [np.array(values, np.float32) for values in IOU]
    table = {
        "image_path": [picture(index) for index in whole],
        "dataset": [DATASET for _ in whole],
        "model_name": [MODEL for _ in whole],
        "image_index": [np.int64(index) for index in whole],
        "iou_pred": iou,
        "embeddings": [*embeddings],
        **CHOSEN,
    }
    for name in ("component_index", "gt", "pred"):
        table[name] = [*np.array(table[name])]
    dump(path, table)


def dump(path, content):
    """Pickle as Python 3.7 did with NumPy 1."""
    written = pickle.dumps(content, protocol=3)
    here = np.zeros(1).__reduce__()[0].__module__.encode()  # numpy._core.multiarray since NumPy 2
    path.write_bytes(written.replace(b"c" + here + b"\n", b"cnumpy.core.multiarray\n"))
