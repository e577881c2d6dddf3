"""Measure on the demo how its network learns what was found; `make demo` comes first.

What is suspicious in the pictures from 20 on of `streets_ood` is grouped by its looks. A group of
ten or more objects, nearly all of one unknown kind, gets its name as a tag: the only use of the
ground truth. The network learns these tags. Pictures 0 to 19 judge the new classes, `streets_val`
the old ones. All is done by the scripts, in a copy of the demo's results, the folder `learning` in
them.
"""

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.preprocessing import normalize

import compute_embeddings
import eval_segmentation
import learn_classes
import pred_images
from configuration import CONFIG, models
from src import class_ids
from src.datasets import read_image, streets
from src.embedding.groups import NOISE, find_groups
from src.embedding.table import read_table
from src.entries import choose_model
from src.evaluation.pixels import pixel_anomaly_metrics
from src.learning.lessons import FEW
from src.MetaSeg import main as metaseg
from src.model_card import known_card
from src.pictures import overlay_classes
from src.records import NO_LABEL
from src.store.arrays import read_prediction
from src.store.of_objects import keys_of
from src.store.paths import Results, learnt_curves, learnt_folder, tags_path
from src.store.reports import save_figure, text_table
from src.store.tags import change_tags, read_tags
from tools.steps import run

IO_PATH = Path(CONFIG.metaseg_io_path)
COPY = IO_PATH / "learning"
NAME = "demo"
OLD, NEW = CONFIG.MODEL_NAME, f"learnt/{NAME}"
TRAIN, VAL, OOD = CONFIG.TRAIN_DATASET.name, CONFIG.VAL_DATASET.name, CONFIG.DATASET.name
JUDGED = 20  # pictures of `streets_ood`, the first ones; the others are learnt from
NETS = "segmentation", "efficientnet_lite0"  # whose vectors, joined, are grouped
LESSON = {  # settings of learn_classes.py
    "name": NAME,
    "net": NETS[0],
    "datasets": [TRAIN, OOD],
    "train": [*(f"mod{k}" for k in range(2, 8)), "aspp", "bot_fine", "bot_aspp", "final"],
    "learning_rate": 2e-3,
    "batch_size": 6,
    "crop_size": [192, 256],
    "overwrite": True,
}
PURE = 0.8  # share of a group that is of one kind
SCORES = ["max_logit", "energy", "nearest_logits", "combined"]


def copy_results():
    """Copy what the demo has made for its network."""
    for kind in ("input", "metrics", "components", "embeddings", "scores"):
        folder = Path(kind, OLD)
        shutil.copytree(IO_PATH / folder, COPY / folder, dirs_exist_ok=True)


def call(script, **settings):
    """Run a script on the copy; gives what it returns."""
    texts = {k: f"[{','.join(map(str, v))}]" for k, v in settings.items() if isinstance(v, list)}
    named = (f"args.{name}={value}" for name, value in (settings | texts).items())
    name = f"{script.__name__.replace('.', '/')}.py"
    return run(script.ex, name, f"args.io_path={COPY}", *named)


def tag_groups(results):
    """Tag the pure groups of what may be learnt from, and nothing else; gives their names."""
    paths = [results.embeddings(streets.min_segment_size, net) for net in NETS]
    tables = map(read_table, paths)
    tables = [t.take((t["dataset"] == OOD) & (t["image_index"] >= JUDGED)) for t in tables]
    vectors = np.hstack([normalize(table["embeddings"]) for table in tables])
    tags = tags_of(tables[0], find_groups(vectors, CONFIG.SEED))
    path = tags_path(paths[0])
    earlier = {tuple(key): "" for *key, _ in read_tags(path)}
    change_tags(path, earlier | dict(zip(keys_of(tables[0]), tags, strict=True)))
    return [*dict.fromkeys(tags[tags != ""])]


def tags_of(table, groups):
    """Names (N,) of the objects in groups that are nearly all of one unknown kind, "" elsewhere.

    Groups of fewer objects than learn_classes.py asks for get none.
    """
    tags = np.full(len(table), "", object)
    for group in set(groups.tolist()) - {NOISE}:
        rows = np.flatnonzero(groups == group)
        (kind, count), *_ = Counter(table["true_id"][rows].tolist()).most_common(1)
        if kind in streets.UNKNOWN and count >= PURE * len(rows) >= PURE * FEW:
            tags[rows] = streets.UNKNOWN[kind][0]
            print(f"{tags[rows[0]]:12}{count} of {len(rows)} objects of a group")
    return tags


def precisions_of(model, learnt):
    """Average precision of each of `SCORES` at pixels of kinds that are still unknown, a list.

    Pixels of what has been learnt are left out, of the old network too.
    """
    labels = class_ids.anomaly_labels(CONFIG.DATASET, streets.KNOWN, None)
    labels[[key for key, (name, _) in streets.UNKNOWN.items() if name in learnt]] = NO_LABEL
    results = Results(COPY, model, OOD)
    paths = [results.prediction(index) for index in results.indices("input")[:JUDGED]]
    stored = [read_prediction(path, probabilities=False) for path in paths]
    frames = ([(each.scores[s], labels[each.ground_truth]) for each in stored] for s in SCORES)
    return [pixel_anomaly_metrics(of_score)["average_precision"] for of_score in frames]


def suspects_of(results, names):
    """Number of suspicious objects of the judged pictures: learnt, still unknown, known; a list."""
    table = read_table(results.embeddings(streets.min_segment_size, NETS[0]))
    table = table.take((table["dataset"] == OOD) & (table["image_index"] < JUDGED))
    learnt = [key for key, (name, _) in streets.UNKNOWN.items() if name in names]
    is_learnt, is_unknown = (np.isin(table["true_id"], of) for of in (learnt, [*streets.UNKNOWN]))
    return [is_learnt.sum(), (is_unknown & ~is_learnt).sum(), (~is_unknown).sum()]


def judge(names):
    """The rows of a table: what, before, after."""
    call(pred_images, model_name=NEW, dataset=TRAIN, fit_scores=True)
    call(pred_images, model_name=NEW, dataset=VAL)
    call(pred_images, model_name=NEW, dataset=OOD, num_images=JUDGED, scores=SCORES)
    call(metaseg, model_name=NEW, dataset=OOD)
    call(compute_embeddings, model_name=NEW, net=NETS[0])
    both = {"model_names": [OLD, NEW]}
    on_val = call(eval_segmentation, datasets=[VAL], **both)[VAL].values()
    on_ood = call(eval_segmentation, datasets=[OOD], num_images=JUDGED, **both)[OOD]
    precisions = [precisions_of(model, names) for model in on_ood]
    suspects = [suspects_of(Results(COPY, model, OOD), names) for model in on_ood]
    on_ood = on_ood.values()
    kinds = "of what is learnt", "of what is still unknown", "of old classes"
    still = "what is still unknown"
    return [
        *((f"IoU of {name}", *(of[f"iou_{name}"] for of in on_ood)) for name in names),
        (f"mIoU of old classes, {VAL}", *(of["miou_old"] for of in on_val)),
        (f"share of {still} taken for a new class", *(of["unknown_as_new"] for of in on_ood)),
        *((f"AP of {still}, {s}", *of) for s, *of in zip(SCORES, *precisions, strict=True)),
        *((f"suspicious objects {of}", *n) for of, *n in zip(kinds, *suspects, strict=True)),
    ]


def draw(names):
    """Draw the judged picture in which most of the new classes is found; gives its path."""
    learnt = choose_model(models, NEW, COPY)
    classes = known_card(COPY, learnt, CONFIG.TRAIN_DATASET).classes
    before, after = (Results(COPY, model, OOD) for model in (OLD, learnt.name))
    id_of = {name: key for key, (name, _) in classes.items()}
    new_ids = np.full(256, NO_LABEL)  # by true ids
    for key, (name, _) in streets.UNKNOWN.items():
        new_ids[key] = id_of.get(name, NO_LABEL)

    def found(index):
        stored = read_prediction(after.prediction(index), probabilities=False)
        return (stored.prediction == new_ids[stored.ground_truth]).sum()

    best = max(after.indices("input"), key=found)
    stored = [read_prediction(of.prediction(best), probabilities=False) for of in (before, after)]
    image = np.array(read_image(stored[0].image_path))
    figure = Figure(figsize=(12, 2.3), layout="constrained")
    shown = [image, *(overlay_classes(image, each.prediction, classes) for each in stored)]
    titles = "a street", "before", f"after: {' and '.join(names)}"
    for axes, picture, title in zip(figure.subplots(1, 3), shown, titles, strict=True):
        axes.imshow(picture)
        axes.set_title(title)
        axes.set_axis_off()
    path = learnt_folder(COPY, NAME) / "before_after"
    save_figure(path, figure, ("png",))
    return f"{os.path.relpath(path)}.png"


def main():
    """Find, tag, learn, judge, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--pictures", dest="pasted", type=int, default=90, help="with pasted objects, an epoch")
    add("--epochs", type=int, default=14)
    add("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    start = time.perf_counter()
    if not Results(IO_PATH, OLD, OOD).all_embeddings():
        sys.exit(f"{IO_PATH} has no results of the demo: run `make demo` first")
    copy_results()
    for net in NETS:
        call(compute_embeddings, net=net)
    names = tag_groups(Results(COPY, OLD, OOD))
    begun = time.perf_counter()
    call(learn_classes, tags=names, **LESSON, **options)
    learning = time.perf_counter() - begun
    print("\n" + text_table(("", "before", "after"), judge(names)))
    print(f"\nlearning {learning:.0f} s, all {time.perf_counter() - start:.0f} s")
    print(f"picture  {draw(names)}")
    print(f"curves   {os.path.relpath(learnt_curves(learnt_folder(COPY, NAME)))}.png")


if __name__ == "__main__":
    main()
