"""Run the stages and evaluations on the embedded demo and gather their figures into one table.

Each step is a command that can be typed as well; it is printed before it runs. What is there
already is not computed again.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import compute_embeddings
import discover_embedding_space
import eval_anomaly
import eval_budget
import eval_groups
import eval_iou
import eval_retrieval
import eval_segmentation
import eval_selection
import pred_images
import train_meta_nn
from configuration import CONFIG, datasets
from src import registry
from src.embedding.table import read_table
from src.MetaSeg import main as metaseg
from src.store.paths import Results
from tools.steps import run

STREETS = datasets["streets"], datasets["streets_val"], datasets["streets_ood"]
IO_PATH = Path(CONFIG.metaseg_io_path)
PICTURES = IO_PATH / "pictures"
SUSPICION = "nearest_logits"  # what stage 4 takes where stage 1 has kept it
SCORES = "args.scores=[max_logit,energy,nearest_logits,combined]"


def largest_unknown():
    """Row of the largest embedded segment of `streets_ood` on an object never seen in training."""
    results = Results(IO_PATH, CONFIG.MODEL_NAME)
    table = read_table(results.all_embeddings()[0])
    left, upper, right, lower = table["box"].T
    known = registry.find_class(CONFIG.TRAIN_DATASET).pred_mapping
    area = (right - left) * (lower - upper)
    return int(np.where(np.isin(table["true_id"], list(known)), 0, area).argmax())


def write_contact_sheet():
    """Six scenes of `streets_val` above six of `streets_ood`."""
    scenes = []
    for entry in (CONFIG.VAL_DATASET, CONFIG.DATASET):
        samples = registry.build(entry)
        scenes += [np.asarray(samples[index][0]) for index in range(6)]
    rows = [np.hstack(scenes[start : start + 3]) for start in range(0, 12, 3)]
    Image.fromarray(np.vstack(rows)).save(PICTURES / "streets.jpg", quality=88)


def main():
    """Run the stages, print the table."""
    start = time.perf_counter()
    if (CONFIG.TRAIN_DATASET, CONFIG.VAL_DATASET, CONFIG.DATASET) != STREETS:
        sys.exit("the demo needs TRAIN_DATASET, VAL_DATASET and DATASET as configuration.py came")
    val = CONFIG.VAL_DATASET.name
    learnt = f"args.dataset={CONFIG.TRAIN_DATASET.name}"
    run(pred_images.ex, "pred_images.py", learnt, "args.fit_scores=True")
    for dataset in (entry.name for entry in STREETS):
        scores = [SCORES] if dataset == CONFIG.DATASET.name else []
        run(pred_images.ex, "pred_images.py", f"args.dataset={dataset}", *scores)
        run(metaseg.ex, "src/MetaSeg/main.py", f"args.dataset={dataset}")
    fitted = run(train_meta_nn.ex, "train_meta_nn.py")
    found = run(compute_embeddings.ex, "compute_embeddings.py")
    run(
        discover_embedding_space.ex,
        "discover_embedding_space.py",
        f"mainplot.save_path={PICTURES / 'map.png'}",
        f"mainplot.segment={largest_unknown()}",
    )
    write_contact_sheet()
    retrieved = run(eval_retrieval.ex, "eval_retrieval.py", "args.maps=5")
    features, on_map = (retrieved[space]["euclid"] for space in ("features", "stored"))
    spread = on_map["map_unknown_spread"]
    trusted = run(eval_iou.ex, "eval_iou.py", f"args.dataset={val}")
    segmented = run(eval_segmentation.ex, "eval_segmentation.py")[val][CONFIG.MODEL_NAME]
    classes = sum(name.startswith("iou_") and iou is not None for name, iou in segmented.items())
    shown = run(eval_selection.ex, "eval_selection.py")
    run(eval_groups.ex, "eval_groups.py")
    run(eval_budget.ex, "eval_budget.py")
    judged = run(eval_anomaly.ex, "eval_anomaly.py")
    best = max(judged, key=lambda score: judged[score]["average_precision"])
    part = shown["shown_unknown"] / shown["objects_unknown"]
    print(f"""
Segmentation, mIoU over the {classes} classes of {val}: {segmented["miou"]:.3f}
Meta network, R^2 of the predicted IoU on {val}:    {fitted["r2"]:.3f}
  of segments of 16 x 16 pixels and more:               {fitted["r2_large"]:.3f}
Out of distribution, AUROC of the suspicion, {SUSPICION}
  over segments large enough to be looked at:           {found["auroc_large"]:.3f}
  over all, fragments of a few pixels included:         {found["auroc"]:.3f}
Retrieval of unknown kinds from other pictures, mAP
  by the features:                                      {features["map_unknown"]:.3f}
  the same, the own picture too:                        {features["map_unknown_own_picture"]:.3f}
  on the map, mean and spread of 5 maps:                {on_map["map_unknown"]:.2f} +- {spread:.2f}
IoU of categories on {val}, mean:                {trusted["miou"]:.3f}
Unknown objects that a crop of their kind shows by half: {part:.0%}
  found at a mask IoU of 0.25, F1:                      {shown["f1_border"]:.3f}
  the same, by single segments:                         {shown["f1_fragments"]:.3f}
Unknown pixels, average precision of the best score,
  {best + ":":<54}{judged[best]["average_precision"]:.3f}

tables    {IO_PATH / "analysis"}
pictures  {PICTURES}
caches    {IO_PATH}
time      {time.perf_counter() - start:.0f} s

Explore it in a window:
  {os.path.relpath(sys.executable)} discover_embedding_space.py""")


if __name__ == "__main__":
    main()
