"""What other programs cost: each stage of the demo alone, and beside one and two busy loops.

Every time is that of the whole command, its start included, on 16 pictures; they take turns, and
the medians are printed with their ratio to the time alone.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from measuring import timed

REPOSITORY = Path(__file__).resolve().parents[1]
ROUNDS = 3
LOOPS = 0, 1, 2  # programs that keep a core busy each
FEW = "args.num_images=16"
LEARNT = "args.dataset=streets", FEW
STAGES = {  # that are measured, in the order in which they need each other
    "1 pred_images.py": ("pred_images.py", FEW, "args.overwrite=True"),
    "2 src/MetaSeg/main.py": ("src/MetaSeg/main.py", FEW, "args.overwrite=True"),
    "3 train_meta_nn.py": (
        "train_meta_nn.py", "args.val_dataset=streets", "args.meta_weights=meta.pth",
        "args.epochs=10", "args.overwrite=True",
    ),
    "4 compute_embeddings.py": ("compute_embeddings.py", "args.overwrite=True"),
    "5 discover_embedding_space.py": (
        "discover_embedding_space.py", "mainplot.save_path=map.png", "args.overwrite=True",
    ),
}  # fmt: skip


def run(folder, script, *settings):
    """Run a stage on results in a folder; a RuntimeError says what it said where it failed."""
    environment = {**os.environ, "OODRETRIEVAL_IO_PATH": folder}
    command = [sys.executable, str(REPOSITORY / script), "with", *settings]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


@contextmanager
def busy(count):
    """So many programs that do nothing but compute."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main():
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        run(folder, "pred_images.py", *LEARNT)
        run(folder, "src/MetaSeg/main.py", *LEARNT)
        print(f"{'seconds':32}alone   beside one   beside two   {os.cpu_count()} cores")
        for stage, command in STAGES.items():
            times = np.empty((ROUNDS, len(LOOPS)))
            for number in range(ROUNDS):
                for place, count in enumerate(LOOPS):
                    with busy(count):
                        times[number, place] = timed(run, folder, *command)[1]
            alone, *beside = np.median(times, axis=0)
            ratios = "".join(f"{time:7.1f} {time / alone:3.1f} x" for time in beside)
            print(f"{stage:32}{alone:5.1f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
