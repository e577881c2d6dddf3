"""From a folder of pictures and a segmentation network to a map of what looks strange in them.

Each step is a command that can be typed as well; it is printed before it runs. What is there
already is not computed again. A picture that fails is named, and the others go on.
"""

import os
import shlex
import sys

import compute_embeddings
import discover_embedding_space
import pred_images
from configuration import CONFIG, datasets, models
from src import entries
from src.errors import SettingError
from src.MetaSeg import main as metaseg
from src.store.paths import Results
from tools.steps import run

IO_PATH = CONFIG.metaseg_io_path
USAGE = (
    "make map PICTURES=~/photos MODEL=hf/nvidia/segformer-b2-finetuned-cityscapes-1024-1024: name "
    "a folder of pictures, and a network as docs/networks.md has it"
)


def main():
    """Run the stages, print where the map is and how to open it."""
    pictures, model = sys.argv[1:]
    if not pictures or not model:
        sys.exit(USAGE)
    try:
        data = entries.choose_dataset(datasets, pictures, IO_PATH)
        network = entries.choose_model(models, model, IO_PATH)
    except SettingError as error:
        sys.exit(f"{error}\n{USAGE}")
    results = Results(IO_PATH, network.name, data.name)
    dataset, model_name = f"args.dataset={pictures}", f"args.model_name={model}"
    embedded = f"args.datasets={pictures}"

    def are_measured():
        return results.indices("metrics", missing_ok=True)

    predicted = dataset, model_name, "args.probabilities=none"
    without_failed(are_measured, pred_images, "pred_images.py", *predicted)
    without_failed(are_measured, metaseg, "src/MetaSeg/main.py", dataset, model_name)
    embedding = compute_embeddings, "compute_embeddings.py", embedded, model_name
    without_failed(results.all_embeddings, *embedding)
    picture = results.analysis / "map.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    shown = "discover_embedding_space.py", embedded, model_name
    run(discover_embedding_space.ex, *shown, f"mainplot.save_path={picture}")
    script, *settings = shown
    command = shlex.join([os.path.relpath(sys.executable), script, "with", *settings])
    print(f"\nthe map   {picture}\nExplore it in a window:\n  {command}")


def without_failed(made, script, path, *settings):
    """Run a stage; what it could not do for some pictures does not end the rest.

    `made` gives what there is of its results.
    """
    try:
        run(script.ex, path, *settings)
    except SystemExit:
        if not made():
            raise
        print("going on with the others", flush=True)


if __name__ == "__main__":
    main()
