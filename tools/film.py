"""Film the explorer at work on the demo, in a real window: the pictures of the README.

    make demo
    .venv/bin/python -m tools.film

It needs a screen of its own (Debian, Ubuntu: apt install xvfb xdotool), and writes explorer.png,
neighbours.png, groups.png and explorer.webp into docs/. What it types as a name is the class that
most objects of the group have. The tags of the demo stay as they are.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageGrab

from configuration import CONFIG, HERE, models
from discover_embedding_space import segments_of
from src.discover.display import PAPER
from src.discover.explorer import Explorer
from src.discover.grouping import HEAD, ROW
from src.embedding.maps import Reduction, read_with_maps
from src.model_card import known_card
from src.store.paths import Results
from tools.demo import largest_unknown

SCREEN = 1280, 920  # pixels, as large as the windows at most
FILM_WIDTH, CAPTION = 960, 44  # pixels
LOOK_MS = 1900  # that a frame stays
STILL = 4  # equal screenshots in a row: the window has drawn what there is to draw
GEOMETRY = "getwindowgeometry", "--shell"
POINTER = ((0, 0), (0, 20), (5, 16), (9, 24), (13, 22), (9, 14), (15, 14))
DOCS = HERE / "docs"


class Camera:
    """A screen with a hand on its mouse and keyboard, and the frames taken of it."""

    def __init__(self, display):
        self.display, self.frames = display, []
        self.place = self.size = SCREEN  # of the pointer, and of the window in front, in pixels

    def do(self, *words):
        """Standard output of one xdotool command; empty where it finds nothing."""
        environment = {**os.environ, "DISPLAY": self.display}
        command = ["xdotool", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout

    def show(self, title):
        """Wait for a window and bring it to the front; gives its height in pixels."""
        found = ""
        while not found:
            found = self.do("search", "--onlyvisible", "--name", f"^{title}$").strip()
            time.sleep(0.2)
        window = found.split()[0]
        self.do("windowmove", window, 0, 0, "windowraise", window, "windowfocus", window)
        geometry = dict(word.split("=") for word in self.do(*GEOMETRY, window).split())
        self.size = int(geometry["WIDTH"]), int(geometry["HEIGHT"])
        return self.size[1]

    def point(self, x, y, *then):
        """Move the mouse, and perhaps click."""
        self.place = round(x), round(y)
        self.do("mousemove", *self.place, *then)

    def still(self):
        """The window in front once nothing moves there: (H, W, 3) uint8."""
        shots = []
        while len(shots) < STILL or any((shot != shots[-1]).any() for shot in shots[-STILL:]):
            time.sleep(0.4)
            picture = ImageGrab.grab((0, 0, *self.size), xdisplay=self.display)
            shots.append(np.array(picture.convert("RGB")))
        return shots[-1]

    def keep(self, caption):
        """Take a frame with words below; gives the window in front."""
        shot = self.still()
        frame = Image.new("RGB", (SCREEN[0], SCREEN[1] + CAPTION), PAPER)
        frame.paste(Image.fromarray(shot))
        draw = ImageDraw.Draw(frame)
        if self.place[0] < self.size[0]:
            x, y = self.place
            draw.polygon([(x + dx, y + dy) for dx, dy in POINTER], fill="black", outline="white")
        middle = SCREEN[0] // 2, SCREEN[1] + CAPTION // 2
        draw.text(middle, caption, "#1f2937", ImageFont.load_default(22), anchor="mm")
        height = round(frame.height * FILM_WIDTH / frame.width)
        self.frames.append(frame.resize((FILM_WIDTH, height), Image.Resampling.LANCZOS))
        return shot

    def write(self, path):
        """Write the frames as an animated picture."""
        first, *others = self.frames
        first.save(path, save_all=True, append_images=others, duration=LOOK_MS, loop=0, quality=80)


@contextmanager
def screen():
    """A virtual screen, and a Camera before it."""
    ours, theirs = os.pipe()
    size = "x".join(map(str, (*SCREEN, 24)))
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(theirs), "-screen", "0", size, "-nolisten", "tcp", "-noreset"],
        pass_fds=[theirs], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    try:
        with os.fdopen(ours) as reader:
            yield Camera(f":{reader.readline().strip()}")
    finally:
        server.terminate()
        server.wait()


@contextmanager
def copied_results():
    """The results, in a folder where tags and exports can be written."""
    with tempfile.TemporaryDirectory() as folder:
        for path in Path(CONFIG.metaseg_io_path).iterdir():
            if path.name not in ("embeddings", "pictures"):
                Path(folder, path.name).symlink_to(path.resolve())
        table = Results(CONFIG.metaseg_io_path, CONFIG.MODEL_NAME).all_embeddings()[0]
        copy = Path(folder, "embeddings", CONFIG.MODEL_NAME, table.name)
        copy.parent.mkdir(parents=True)
        shutil.copy(table, copy)
        yield Path(folder)


@contextmanager
def running(folder, display):
    """The explorer in a window on that screen."""
    environment = {
        **os.environ,
        "DISPLAY": display,
        "MPLBACKEND": "qtagg",
        "OODRETRIEVAL_IO_PATH": str(folder),
    }
    script = HERE / "discover_embedding_space.py"
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def twin(folder):
    """The same explorer without a window, which knows where on the screen things are."""
    path = Results(folder, CONFIG.MODEL_NAME).all_embeddings()[0]
    log = logging.getLogger(__name__)
    table = read_with_maps(log, path, Reduction())
    card = known_card(folder, models[CONFIG.MODEL_NAME], CONFIG.TRAIN_DATASET)
    return Explorer(segments_of(log, table, card, folder), folder)


def look_around(camera, explorer, row):
    """The map, an unknown object on it, and what is like it."""
    height = camera.show("Embedding space")
    camera.point(*SCREEN)
    camera.keep("discover_embedding_space.py: each point is an object that looks strange")
    point = explorer.map.axes.transData.transform(explorer.table["plot_embeddings"][row])
    camera.point(point[0], height - point[1])
    write(camera.keep("hover: what is it?"), "explorer")
    camera.do("click", 3)
    camera.show("Nearest neighbours")
    camera.point(*SCREEN)
    write(camera.keep("right click: what is like it?"), "neighbours")
    camera.do("key", "Escape")


def name_groups(camera, explorer):
    """The overview of the groups, of which two get a name."""
    camera.show("Embedding space")
    camera.do("key", "0")
    height = camera.show("Groups")
    camera.keep("0: groups of objects that look alike, the most suspicious first")
    explorer.grouping.show()
    view, groups = explorer.grouping.views[0], explorer.grouping.groups
    for k in purest(explorer, groups[: view.fitting]):
        x, y = view.axes.transData.transform((130, HEAD + ROW * (k + 0.8)))
        camera.point(x, height - y, "click", 1)
        camera.still()
        camera.show("Groups")
        name = groups[k].true
        camera.do("type", name)
        camera.keep(f"click a group, type its name: {name} ...")
        camera.do("key", "Return")
    write(camera.keep("... Enter: all its objects carry it"), "groups")


def purest(explorer, groups):
    """Which two of the groups hold one class alone, most of all, that the network does not know."""
    of_class = explorer.segments.true_name
    known = {name for name, _ in explorer.segments.pred_mapping.values()}
    share = [
        np.mean([of_class(row) == group.true for row in group.rows]) * (group.true not in known)
        for group in groups
    ]
    return sorted(np.argsort(share)[-2:])


def find_more(camera):
    """More like the group that was named last, and its export."""
    camera.show("Embedding space")
    camera.do("key", "j")
    camera.show("More like these")
    camera.keep("j: more like these; a click ticks what belongs to them")
    camera.do("key", "e")
    camera.keep("e: exported, as COCO and for annotation tools, CSV and crops")


def write(shot, name):
    """Write a picture of a window as a PNG."""
    picture = Image.fromarray(shot)
    picture.quantize(128, dither=Image.Dither.NONE).save(DOCS / f"{name}.png", optimize=True)


def main():
    """Film, and say where."""
    missing = [program for program in ("Xvfb", "xdotool") if shutil.which(program) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} not installed: apt install xvfb xdotool")
    row = largest_unknown()
    with copied_results() as folder, screen() as camera:
        explorer = twin(folder)
        with running(folder, camera.display):
            look_around(camera, explorer, row)
            name_groups(camera, explorer)
            find_more(camera)
    camera.write(DOCS / "explorer.webp")
    size = (DOCS / "explorer.webp").stat().st_size / 1e6
    print(f"{len(camera.frames)} frames, {size:.1f} MB, {DOCS / 'explorer.webp'}")


if __name__ == "__main__":
    main()
