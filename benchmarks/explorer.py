"""How quick the explorer is: 100,000 generated segments with thumbnails, and 1,000,000.

Start and memory are those of `discover_embedding_space.py` as a whole, from a file with maps to the
picture it writes. All else is drawn to the end on a raster of 1200 x 800 pixels, as windows show.

    python benchmarks/explorer.py --map

measures instead how long it takes to make the map, which are minutes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.backend_bases import KeyEvent, MouseEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from measuring import timed, with_peak
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from configuration import CONFIG
from src import class_ids, pictures
from src.discover import state
from src.discover.display import Windows
from src.discover.explorer import Explorer
from src.discover.segments import Segments
from src.embedding import duplicates
from src.embedding.groups import find_groups
from src.embedding.maps import Reduction
from src.embedding.ranking import more_like
from src.embedding.space import MAX_PCA_COLUMNS, nearest, principal_columns, reduce
from src.embedding.table import read_table
from src.records import ObjectTable
from src.store.tables import write_embeddings
from tests.factories import object_table

SCRIPT = Path(__file__).resolve().parents[1] / "discover_embedding_space.py"
SEGMENTS, POINTS = 100_000, 1_000_000
FEATURES = 1920  # as densenet201 gives them
RANKED_FEATURES = 384  # as dinov2_small gives them
IN_IMAGE = 20  # segments
REDUCTION = Reduction("tsne", 2, CONFIG.SEED)  # of the stored maps
NEIGHBOURS = 49
GROUPS = 50
TIMES = 15
KEPT, SAMPLE = 10, 2000  # neighbours that a map should keep, of so many segments
# by a process between, as what a child is said to have held begins with the memory of its parent
MEASURE = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""


class IdleCanvas(FigureCanvasAgg):
    """Draws when it is told to, as a window does once it has nothing else to do."""

    def draw_idle(self):
        pass


def new_figure(size_in, title):
    """Figure on a raster; `title` has nowhere to show."""
    figure = Figure(size_in)
    IdleCanvas(figure)
    return figure


def make_picture(rng):
    """Something like a photograph, (128, 100, 3) uint8: patches, with fine noise."""
    patches = Image.fromarray(rng.integers(0, 256, (16, 12, 3), np.uint8)).resize((100, 128))
    return np.clip(patches + rng.normal(0, 6, (128, 100, 3)), 0, 255).astype(np.uint8)


def make_table(count, features, rng):
    """ObjectTable of `count` segments in 60 heaps, noise as thumbnails."""
    images = count // IN_IMAGE
    kind = rng.integers(0, 60, count)
    points = (rng.normal(size=(60, 2)) * 30)[kind] + rng.normal(size=(count, 2)) * 4
    pieces = [pictures.thumbnail(make_picture(rng), (0, 0, 100, 128)) for _ in range(100)]
    return object_table(
        count,
        {"reduced_by": asdict(REDUCTION)},
        dataset=CONFIG.DATASET.name,
        model_name=CONFIG.MODEL_NAME,
        image_predicted_iou=[np.zeros(IN_IMAGE, np.float32)] * count,
        image_index=np.repeat(np.arange(images), IN_IMAGE),
        embeddings=rng.random((count, features), np.float32),
        box=np.tile([0, 0, 100, 128], (count, 1)),
        component_index=np.tile(np.arange(1, IN_IMAGE + 1), images),
        true_id=kind % 30,
        predicted_id=kind % 19,
        predicted_iou=rng.random(count, np.float32) / 2,
        # bytes of their own for each: a list of the same objects would take no memory
        thumbnail=[pieces[k % 100] + k.to_bytes(4, "little") for k in range(count)],
        nn_embeddings=points.astype(np.float32),
        plot_embeddings=points.astype(np.float32),
    )


def heaps(count, features, rng):
    """Vectors (count, features) float32: 60 heaps in 30 dimensions, three of ten in none; noise."""
    heap = np.where(rng.random(count) < 0.3, 60, rng.integers(0, 60, count))
    middles = np.vstack([rng.normal(size=(60, 30)) * 2, np.zeros(30)])
    widths = np.append(rng.uniform(0.5, 1.2, 60), 2.5)
    points = middles[heap] + rng.normal(size=(count, 30)) * widths[heap, None]
    vectors = rng.random((count, features), np.float32)
    vectors += points.astype(np.float32) @ (rng.normal(size=(30, features)).astype(np.float32) / 5)
    return vectors


def start(folder, table):
    """Seconds of the whole script from the stored maps to a picture, and its peak memory in GB."""
    path = Path(folder, "embeddings_1_1_none.p")
    write_embeddings(path, table, {})
    place = f"mainplot.save_path={folder}/map.png"
    command = [sys.executable, SCRIPT, "with", f"args.load_file={path}", place]
    measured = [sys.executable, "-c", MEASURE, *command]
    done, seconds = timed(subprocess.run, measured, check=True, capture_output=True)
    return seconds, int(done.stdout) * 1024 / 1e9


class Bench:
    """An explorer, and how long its answers take."""

    def __init__(self, table):
        mapping = class_ids.class_mapping(CONFIG.DATASET, "label_mapping")
        known = class_ids.class_mapping(CONFIG.TRAIN_DATASET, "pred_mapping")
        self.folder = tempfile.TemporaryDirectory()
        segments = Segments(table, {CONFIG.DATASET.name: mapping}, known, self.folder.name)
        self.explorer = Explorer(
            segments, self.folder.name, n_neighbours=NEIGHBOURS, windows=Windows(new_figure, None)
        )
        self.map = self.explorer.map
        self.canvas = self.map.figure.canvas
        self.canvas.draw()
        self.rows = cycle(np.random.default_rng(1).integers(0, len(segments), 999))
        self.keys = cycle("ghib")
        self.ends = cycle(np.linspace(0, 0.2, 20))

    def send(self, event):
        self.canvas.callbacks.process(event.name, event)

    def hover(self):
        x, y = self.map.axes.transData.transform(self.map.points[next(self.rows)])
        self.send(MouseEvent("motion_notify_event", self.canvas, x, y))

    def press(self, key):
        self.send(KeyEvent("key_press_event", self.canvas, key))
        self.send(KeyEvent("key_release_event", self.canvas, key))
        self.canvas.draw()

    def recolour(self):
        self.press(next(self.keys))

    def filter(self):
        self.explorer.filtering.toggle(self.explorer.groups().names[0])
        self.canvas.draw()

    def slide(self):
        self.map.panel.ranges[state.BY_IOU].slider.set_val((next(self.ends), 0.45))
        self.canvas.draw()

    def neighbours(self):
        sheets = self.explorer.sheets.views
        self.explorer.show_neighbours(int(next(self.rows)), sheets[0] if sheets else None)
        sheets[0].figure.canvas.draw()

    def density(self):
        self.press("d")

    def no_density(self):
        if self.map.density is not None:
            self.press("d")

    def group(self):
        labels = np.arange(len(self.explorer.segments)) % (GROUPS + 1) - 1
        self.explorer.change("grouping", **vars(state.grouped(self.explorer.state, labels)))
        self.explorer.here = self.map

    def overview(self):
        grouping = self.explorer.grouping
        grouping.show()
        grouping.views[0].figure.canvas.draw()

    def select_nothing(self):
        self.explorer.selecting.clear()
        self.explorer.here = self.map

    def select_shown(self):
        self.press("*")

    def redraw(self):
        self.canvas.draw()


def report_rankings(rng):
    """Print how long it takes to put all segments in order."""
    vectors = rng.random((SEGMENTS, RANKED_FEATURES), np.float32)
    words = rng.normal(size=RANKED_FEATURES)
    print(f"{SEGMENTS:,} vectors of {RANKED_FEATURES} values")
    report_calls("re-rank by 10 examples", lambda: more_like(vectors, range(10)), 300)
    many = range(10), range(10, 20)
    report_calls("by 10 counter-examples, too", lambda: more_like(vectors, *many), 300)
    report_calls("text query, encoded", lambda: nearest(vectors, words, SEGMENTS, "cos"), 300)


def report_map(rng):
    """Print how long it takes to make a map, by all threads together too, and what it keeps."""
    vectors = heaps(SEGMENTS, RANKED_FEATURES, rng)
    columns = principal_columns(vectors, MAX_PCA_COLUMNS, CONFIG.SEED)
    start = time.process_time()
    points, seconds = timed(reduce, columns, seed=CONFIG.SEED)
    used = time.process_time() - start
    print(f"{SEGMENTS:,} vectors of {columns.shape[1]} values")
    report("map made", seconds, 120, "s")
    report("processor time of that", used, 240, "s")
    rows = rng.choice(SEGMENTS, SAMPLE, replace=False)
    ones, others = (neighbours_of(rows, table) for table in (columns, points))
    kept = [np.isin(*pair).mean() for pair in zip(ones, others, strict=True)]
    print(f"{KEPT} nearest neighbours that are so on the map, too: {np.mean(kept):.2f}")


def neighbours_of(rows, table):
    """The nearest others (len(rows), KEPT) of rows of a table without duplicates."""
    search = NearestNeighbors(n_neighbors=KEPT + 1).fit(table)
    return search.kneighbors(table[rows], return_distance=False)[:, 1:]


def report_opening(table):
    """Print how long it takes to read a table, and its memory.

    It is stored without thumbnails, which would stay in the file, and make that longer.
    """
    columns = {name: values for name, values in table.columns.items() if name != "thumbnail"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "embeddings_1_1_none.p")
        write_embeddings(path, ObjectTable(columns), {})
        (_, seconds), peak = with_peak(timed, read_table, path)
    report("table opened", seconds, 10, "s")
    report("memory of that", peak / 1e9, 3, "GB")


def report(what, value, goal, unit, told=""):
    """Print a line of the table."""
    print(f"{what:46} {value:8.2f} {unit:2}   goal {goal:6g}{told}", flush=True)


def report_calls(what, function, goal, prepare=lambda: None):
    """Print the median time of a call, and that of the first one."""
    times = []
    for _ in range(TIMES):
        prepare()
        times.append(1000 * timed(function)[1])
    report(what, np.median(times), goal, "ms", f"   the first {times[0]:7.1f}")


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", action="store_true", help="only make a map")
    rng = np.random.default_rng(0)
    if parser.parse_args().map:
        report_map(rng)
        return
    table = make_table(SEGMENTS, FEATURES, rng)
    with tempfile.TemporaryDirectory() as folder:
        seconds, gigabytes = start(folder, table)
    print(f"{SEGMENTS:,} segments of {FEATURES} values")
    report("start from stored maps, the picture included", seconds, 5, "s")
    report("memory of that", gigabytes, 1.5, "GB")
    bench = Bench(table)
    report_calls("hover", bench.hover, 20)
    report_calls("recolour", bench.recolour, 150)
    report_calls("filter by class", bench.filter, 150)
    report_calls("filter by predicted IoU", bench.slide, 150)
    report_calls(f"{NEIGHBOURS} neighbours with thumbnails", bench.neighbours, 300)
    report_calls("density", bench.density, 100, prepare=bench.no_density)
    report_calls("select all that shows", bench.select_shown, 150, prepare=bench.select_nothing)
    bench.select_nothing()
    report_calls(f"overview of {GROUPS} groups", bench.overview, 1000, prepare=bench.group)
    vectors = heaps(SEGMENTS, FEATURES, rng)
    _, seconds = timed(find_groups, vectors)
    report("groups found", seconds, 60, "s")
    _, seconds = timed(duplicates.find, vectors)
    report("near duplicates found", seconds, 60, "s")
    report_rankings(rng)
    table = make_table(POINTS, RANKED_FEATURES, rng)
    print(f"{POINTS:,} segments of {RANKED_FEATURES} values")
    report_opening(table)
    bench = Bench(table)
    report_calls("hover", bench.hover, 30)
    report_calls("redraw", bench.redraw, 1000)
    report_calls("recolour", bench.recolour, 1000)


if __name__ == "__main__":
    main()
