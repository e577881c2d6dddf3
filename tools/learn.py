"""Measure on the demo how its network learns what was found; `make demo` comes first.

What is suspicious in the pictures from 40 on of `streets_ood` is grouped by its looks. A group of
which most objects are of one unknown kind gets its name: the only use of the ground truth. The
objects become pseudo-labels, which the network learns from, beside `streets` with its labels.
Pictures 0 to 39 judge the new classes, `streets_val` the old ones. All is done in a copy of the
demo's results, the folder `learning` in them.
"""

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

import compute_embeddings
import pred_images
from configuration import CONFIG, models
from src import class_ids, entries, model_card, registry
from src.datasets import streets
from src.embedding.groups import NOISE, find_groups
from src.embedding.table import read_table
from src.evaluation.confusion import class_iou, confusion_matrix
from src.evaluation.pixels import ScoreCounts
from src.learning.pasting import Pasted
from src.learning.pseudo_labels import pseudo_labels
from src.learning.training import Schedule, teach
from src.records import NO_LABEL
from src.segmentation.inference import to_input
from src.store.arrays import read_components, read_prediction
from src.store.of_objects import keys_of
from src.store.paths import Results, learnt_folder, tags_path
from src.store.reports import text_table
from src.store.tags import change_tags
from tools.steps import run

IO_PATH = Path(CONFIG.metaseg_io_path)
COPY = IO_PATH / "learning"
NAME = "demo"
TRAIN, VAL, OOD = CONFIG.TRAIN_DATASET, CONFIG.VAL_DATASET, CONFIG.DATASET
JUDGED = 40  # pictures of `streets_ood`, the first ones; the others are learnt from
REPLAYED, HELD_OUT = 70, 8  # pictures of `streets`; others, the last, to choose the best epoch by
NETS = "segmentation", "efficientnet_lite0"  # whose vectors, joined, are grouped
PURE = 0.8  # share of a group that is of one kind
SCORES = "max_logit", "energy", "nearest_logits", "combined"
SUSPICION = f"args.scores=[{','.join(SCORES)}]"


def copy_results():
    """Copy what the demo has made for its network, but for what is copied already."""
    for kind in ("input", "metrics", "components", "embeddings", "scores", "names"):
        source, copy = (Path(path, kind) for path in (IO_PATH, COPY))
        if source.is_dir() and not copy.is_dir():
            shutil.copytree(source, copy)


def found_objects(results):
    """The objects to learn from, and the vectors (N, F) of all networks, joined."""
    tables = [read_table(results.embeddings(streets.min_segment_size, net)) for net in NETS]
    tables = [table.take(table["image_index"] >= JUDGED) for table in tables]
    vectors = [table["embeddings"] for table in tables]
    lengths = [np.linalg.norm(of_net, axis=1, keepdims=True) for of_net in vectors]
    parts = [of_net / length for of_net, length in zip(vectors, lengths, strict=True)]
    return tables[0], np.hstack(parts)


def tags_of(table, groups):
    """Names (N,) of the objects in groups that are nearly all of one unknown kind, "" elsewhere."""
    tags = np.full(len(table), "", object)
    for group in set(groups.tolist()) - {NOISE}:
        rows = np.flatnonzero(groups == group)
        (kind, count), *_ = Counter(table["true_id"][rows].tolist()).most_common(1)
        if kind in streets.UNKNOWN and count >= PURE * len(rows):
            tags[rows] = streets.UNKNOWN[kind][0]
            print(f"{tags[rows[0]]:12}{count} of {len(rows)} objects of a group")
    return tags


def labels_of(results, table, groups, tags, new_ids):
    """Pseudo-labels of the pictures to learn from: (H, W) uint8 by index.

    Objects of groups without a name are something else: they keep their prediction. Those in no
    group may be of a new class.
    """
    labels = {}
    for index in sorted(set(table["image_index"].tolist())):
        components = read_components(results.components(index))
        classes = read_prediction(results.prediction(index), probabilities=False).prediction
        rows = np.flatnonzero(table["image_index"] == index)
        predicted_iou = table["image_predicted_iou"][rows[0]]
        of_segments = np.zeros(len(predicted_iou), np.int64)
        of_segments[np.abs(components) - 1] = classes
        is_trusted = predicted_iou >= CONFIG.IOU_THRESHOLD
        for row in rows:
            is_trusted[table["segments"][row] - 1] = groups[row] != NOISE
        tagged = [(table["segments"][row], new_ids[tags[row]]) for row in rows if tags[row]]
        labels[index] = pseudo_labels(components, of_segments, is_trusted, predicted_iou, tagged)
    return labels


class Known:
    """Pictures of `streets` with their labels, and others: a sequence of (Tensor, Tensor)."""

    def __init__(self, samples, indices, others=()):
        self.samples, self.indices, self.others = samples, indices, others

    def __len__(self):
        return len(self.indices) + len(self.others)

    def __getitem__(self, index):
        if index >= len(self.indices):
            return self.others[index - len(self.indices)]
        return self.samples[self.indices[index]][:2]


def lessons_of(labels, old_count, options):
    """What is learnt, replayed and validated by, of pseudo-labels by index; see `train`."""
    transform = to_input(streets.mean, streets.std)
    ood, known = (registry.build(entry, transform=transform) for entry in (OOD, TRAIN))
    lessons, others = [], []
    for index, ids in labels.items():
        is_new = ((ids >= old_count) & (ids != NO_LABEL)).any()
        pair = ood[index][0], torch.from_numpy(ids.astype(np.int64))
        (lessons if is_new else others).append(pair)
    print(f"{len(lessons)} pictures with new classes, {len(others)} with other objects")
    first_held_out = len(known) - HELD_OUT
    pasted = Pasted(
        lessons, Known(known, range(first_held_out)), old_count, options.pictures, options.seed
    )
    held_out = Known(known, range(first_held_out, len(known)))
    validation = Pasted(lessons, held_out, old_count, HELD_OUT, options.seed + 1)
    return pasted, Known(known, range(REPLAYED), others), validation


def iou_of(results, data, classes, count=None):
    """IoU of each class by its name, NaN where it does not occur.

    Pixels of what the network does not know have no label.
    """
    ids, confusion = class_ids.predicted_ids(data, classes, None), 0
    for index in results.indices("input")[:count]:
        stored = read_prediction(results.prediction(index), probabilities=False)
        truth = ids[stored.ground_truth]
        confusion = confusion + confusion_matrix(stored.prediction, truth, len(classes))
    names = [name for name, _ in classes.values()]
    return dict(zip(names, class_iou(confusion).tolist(), strict=True))


def precision_of(results, learnt):
    """Average precision of each score at pixels of kinds that are still unknown, a dict.

    Pixels of what has been learnt are left out, of the old network too.
    """
    labels = np.full(256, NO_LABEL, np.uint8)
    labels[list(streets.KNOWN)] = 0
    labels[[key for key, (name, _) in streets.UNKNOWN.items() if name not in learnt]] = 1
    counts = {name: ScoreCounts() for name in SCORES}
    for index in results.indices("input")[:JUDGED]:
        stored = read_prediction(results.prediction(index), probabilities=False)
        for name, counted in counts.items():
            counted.add(stored.scores[name], labels[stored.ground_truth])
    return {name: counted.metrics()["average_precision"] for name, counted in counts.items()}


def mistaken_share(results, learnt, old_count):
    """Share of the pixels of kinds that are still unknown where a new class is predicted."""
    unknown = [key for key, (name, _) in streets.UNKNOWN.items() if name not in learnt]
    mistaken = pixels = 0
    for index in results.indices("input")[:JUDGED]:
        stored = read_prediction(results.prediction(index), probabilities=False)
        is_unknown = np.isin(stored.ground_truth, unknown)
        pixels += is_unknown.sum()
        mistaken += (stored.prediction[is_unknown] >= old_count).sum()
    return float(mistaken / pixels)


def predict(model, io_path):
    """Stage 1 of the learnt network: what it is judged by."""
    common = f"args.model_name={model}", f"args.io_path={io_path}"
    fitted = "args.fit_scores=True", f"args.dataset={TRAIN.name}"
    run(pred_images.ex, "pred_images.py", *common, *fitted)
    run(pred_images.ex, "pred_images.py", *common, f"args.dataset={VAL.name}")
    judged = f"args.dataset={OOD.name}", f"args.num_images={JUDGED}", SUSPICION
    run(pred_images.ex, "pred_images.py", *common, *judged)


def main():
    """Find, tag, learn, judge, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--classes", nargs="*", help="names to learn; all that are found if none is given")
    add("--pictures", type=int, default=90, help="with pasted objects, an epoch")
    add("--epochs", type=int, default=9)
    add("--learning-rate", type=float, default=1e-3)
    add("--modules", nargs="*", default=["mod7", "aspp", "bot_fine", "bot_aspp", "final"])
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    if not Results(IO_PATH, CONFIG.MODEL_NAME, OOD.name).all_embeddings():
        sys.exit(f"{IO_PATH} has no results of the demo: run `make demo` first")
    copy_results()
    old = models[CONFIG.MODEL_NAME]
    results = Results(COPY, old.name, OOD.name)
    for net in NETS:
        made = f"args.net={net}", f"args.io_path={COPY}"
        run(compute_embeddings.ex, "compute_embeddings.py", *made)
    table, vectors = found_objects(results)
    groups = find_groups(vectors, CONFIG.SEED)
    tags = tags_of(table, groups)
    if options.classes:
        tags[~np.isin(tags, options.classes)] = ""
    tagged = dict(zip(keys_of(table), tags, strict=True))
    change_tags(tags_path(results.embeddings(streets.min_segment_size, NETS[0])), tagged)
    card = model_card.card_of(old, TRAIN, {})
    colours = dict(streets.UNKNOWN.values())
    added = {name: colours[name] for name in dict.fromkeys(tags[tags != ""])}
    schedule = Schedule(
        seed=options.seed,
        epochs=options.epochs,
        batch_size=6,
        learning_rate=options.learning_rate,
        crop=(192, 256),
        modules=tuple(options.modules),
    )
    new_ids = {name: len(card.classes) + k for k, name in enumerate(added)}
    labels = labels_of(results, table, groups, tags, new_ids)
    lessons = lessons_of(labels, len(card.classes), options)
    made_from = {"network": old.name, "tags": dict(Counter(tags[tags != ""].tolist()))}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begun = time.perf_counter()
    teach(old, card, added, lessons, schedule, learnt_folder(COPY, NAME), made_from, device)
    learning = time.perf_counter() - begun
    predict(f"learnt/{NAME}", COPY)
    grown = entries.choose_model(models, f"learnt/{NAME}", COPY)
    classes = model_card.card_of(grown, TRAIN, {}).classes
    new = iou_of(Results(COPY, grown.name, OOD.name), OOD, classes, JUDGED)
    rows = [(f"IoU of {name}, pictures 0 to {JUDGED - 1}", None, new[name]) for name in added]
    kept = [
        np.nanmean(
            [*iou_of(Results(COPY, name, VAL.name), VAL, known).values()][: len(card.classes)]
        )
        for name, known in ((old.name, card.classes), (grown.name, classes))
    ]
    rows.append((f"mIoU of old classes, {VAL.name}", *map(float, kept)))
    share = mistaken_share(Results(COPY, grown.name, OOD.name), added, len(card.classes))
    rows.append(("share of what is still unknown taken for a new class", None, share))
    before, after = (
        precision_of(Results(COPY, name, OOD.name), added) for name in (old.name, grown.name)
    )
    rows += [(f"AP of what is still unknown, {key}", before[key], after[key]) for key in SCORES]
    print("\n" + text_table(("", "before", "after"), rows))
    print(f"\nlearning {learning:.0f} s, all {time.perf_counter() - start:.0f} s")
    print(f"curves   {os.path.relpath(learnt_folder(COPY, NAME))}/curves.png")


if __name__ == "__main__":
    main()
