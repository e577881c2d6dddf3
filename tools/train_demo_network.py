"""Train the demo's segmentation network further, on freshly rendered street scenes.

It begins with the weights in `weights/`, and 1,600 steps take about 40 minutes on two CPU cores
without a GPU. Interrupt it at will: the same command goes on from the last checkpoint. The running
mean of the weights (half precision, 4.4 MB) replaces those in `weights/`, and the IoU of each class
on `streets_val` is printed.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset
from tqdm import trange

if __name__ == "__main__":  # this checkout comes first, whichever is installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configuration import CONFIG, datasets, models
from src import registry
from src.datasets import streets
from src.datasets.demo import scene as street_scene
from src.evaluation.confusion import class_iou, confusion_matrix
from src.segmentation import inference

CROP_HEIGHT, CROP_WIDTH, CROPS_A_SCENE, BATCH_SIZE = 192, 256, 3, 6
CHECKPOINT_EVERY = 50  # steps
DECAY = 0.99  # a step, of the running mean of the weights


class SceneCrops(IterableDataset):
    """Endless random crops of scenes that no split holds, as (image, labels) tensors.

    Parameters
    ----------
    seed, first_scene : int
        Scene n is a function of the seed and n; rendering starts at `first_scene`.
    """

    def __init__(self, seed, first_scene):
        self.seed, self.first_scene = seed, first_scene

    def __iter__(self):
        to_input = inference.to_input(streets.mean, streets.std)
        scene, buffer = self.first_scene, []
        while True:
            rng = np.random.default_rng([self.seed, len(streets.SPLITS), scene])
            picture, labels = street_scene.render(rng, streets.HEIGHT, streets.WIDTH)
            for _ in range(CROPS_A_SCENE):
                buffer.append(self._crop(rng, picture, labels))
            scene += 1
            while len(buffer) > 10 * CROPS_A_SCENE:  # crops of one scene come far apart
                picture, labels = buffer.pop(rng.integers(len(buffer)))
                yield to_input(Image.fromarray(picture), labels)

    @staticmethod
    def _crop(rng, picture, labels):
        top = rng.integers(streets.HEIGHT - CROP_HEIGHT + 1)
        left = rng.integers(streets.WIDTH - CROP_WIDTH + 1)
        window = slice(top, top + CROP_HEIGHT), slice(left, left + CROP_WIDTH)
        picture, labels = picture[window], labels[window]
        if rng.random() < 0.5:
            picture, labels = picture[:, ::-1], labels[:, ::-1]
        return picture.copy(), labels.copy()


def train(steps, seed, checkpoint, device):
    """Train for `steps` batches, going on from `checkpoint` if it exists."""
    torch.manual_seed(seed)
    network = inference.load_network(models["deeplabv3plus_streets"], device)
    network.to(memory_format=torch.channels_last).train()
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps, pct_start=0.15)
    parts = {"network": network, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    done, losses, plan = 0, [], {"steps": steps, "seed": seed}
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["plan"] != plan:
            sys.exit(f"{checkpoint} belongs to {state['plan']}: finish it or delete it")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        done = state["step"]
    crops = SceneCrops(seed, done * BATCH_SIZE // CROPS_A_SCENE)
    batches = iter(DataLoader(crops, BATCH_SIZE, num_workers=1, prefetch_factor=4))
    with trange(steps, initial=done, desc="training", mininterval=10) as progress:
        for step in range(done + 1, steps + 1):
            images, labels = next(batches)
            images = images.to(device, memory_format=torch.channels_last)
            loss = cross_entropy(network(images), labels.to(device), ignore_index=255)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            averaged.update_parameters(network)
            losses.append(loss.item())
            progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
            progress.update()
            if step % CHECKPOINT_EVERY == 0 or step == steps:
                state = {name: part.state_dict() for name, part in parts.items()}
                save({**state, "step": step, "plan": plan}, checkpoint)
    return averaged.module.eval()


def save(content, path):
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def validation_iou(network):
    """IoU of each class in `streets_val`, (C,), NaN where it does not occur."""
    samples = registry.build(
        datasets["streets_val"], transform=inference.to_input(streets.mean, streets.std)
    )
    classes = len(streets.KNOWN)
    confusion = np.zeros((classes, classes), np.int64)
    for image, ground_truth, _ in samples:
        prediction = inference.predict(network, image).argmax(-1)
        confusion += confusion_matrix(prediction, ground_truth.numpy(), classes)
    return class_iou(confusion)


def main():
    """Train, save, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1600, help="batches of 6 crops")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes: another for each run")
    options = parser.parse_args()
    start = time.perf_counter()
    checkpoint = Path(CONFIG.metaseg_io_path) / "train_demo_network.pth"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = train(options.steps, options.seed, checkpoint, device)
    state = {key: value.half() for key, value in network.state_dict().items()}
    entry = models["deeplabv3plus_streets"]
    save(state, Path(entry.model_weights))
    iou = validation_iou(inference.load_network(entry, device))
    for label, (name, _) in streets.KNOWN.items():
        print(f"{name:15}{iou[label]:.3f}")
    print(f"mIoU {np.nanmean(iou):.3f}, {time.perf_counter() - start:.0f} s, {entry.model_weights}")


if __name__ == "__main__":
    main()
