"""The overview of groups without a window: pictures with a row a group, tables, the groups file."""

from pathlib import Path

import numpy as np

from src import pictures
from src.discover import state
from src.discover.display import PAPER, picture_figure
from src.discover.figures import save_figure
from src.discover.panel import INK, MUTED, counted
from src.discover.quick import FillingImage, Words
from src.discover.segments import group_name
from src.embedding.groups import NOISE, TYPICAL, find_groups
from src.progress import progress
from src.store import exports
from src.store.groups import write_groups
from src.store.paths import groups_path, tags_path
from src.store.reports import DPI
from src.store.tags import read_tags

ROWS_ON_PAGE = 20
SIDE_PX, FRAME = 160, (201, 207, 219)  # of a crop on a page
TEXT_IN, TITLE_IN = 3.4, 0.45  # left of the crops, above the rows


def write_overview(log, segments, table_path, folder, seed, order):
    """Find the groups of a table and write them: the file of groups, pictures, CSV and JSON.

    Parameters
    ----------
    log : logging.Logger
    segments : Segments
    table_path : path
        The table's file, beside which its tags and groups are.
    folder : path
        Of `groups.csv`, `groups.json` and `groups_1.png`, ...: made as needed.
    seed, order
        See `find_groups`, `describe_groups`.

    Raises
    ------
    SettingError, WriteError
        The file with the tags, or with the groups, is broken; the disk takes no file.
    """
    with progress(total=len(segments), desc="finding groups", unit="object") as bar:
        labels = find_groups(
            segments.table["embeddings"], seed, lambda done, total: bar.update(done - bar.n)
        )
    write_groups(groups_path(table_path), dict(zip(segments.tag_keys(), labels, strict=True)))
    tag_of = {tuple(key): tag for *key, tag in read_tags(tags_path(table_path))}
    tags = np.array([tag_of.get(key, "") for key in segments.tag_keys()], object)
    groups = segments.describe_groups(labels, tags, order)
    path = Path(folder, "groups")
    exports.write_groups(path, [_record(segments, group) for group in groups])
    _remove_pages(path)
    for number, start in enumerate(range(0, len(groups), ROWS_ON_PAGE), 1):
        page = groups[start : start + ROWS_ON_PAGE]
        save_figure(draw_groups(segments, page), f"{path}_{number}.png")
    found = sum(group.label != NOISE for group in groups)
    log.info(
        "%s, %s in none; wrote %s (.csv, .json, _1.png to _%d.png), %s",
        counted(found, "group"), counted(np.count_nonzero(labels == NOISE), "object"),
        path, number, groups_path(table_path),
    )  # fmt: skip


def _remove_pages(path):
    """Pages of an overview that had more of them would be taken for some of this one."""
    for page in path.parent.glob(f"{path.name}_*.png"):
        page.unlink()


def _record(segments, group):
    """What CSV and JSON say of a group."""
    keys = segments.tag_keys(group.rows)
    paths = segments.table["image_path"][group.rows]
    names = "dataset", "image_index", "component_index", "box"
    return dict(
        name=title_of(group),
        group=group.label,  # as in the file of groups
        objects=len(group.rows),
        images=group.n_images,
        suspicion=group.suspicion if np.isfinite(group.suspicion) else None,
        novelty=group.novelty,
        predicted_class=group.predicted,
        true_class=group.true,
        tag=group.tag,
        medoid_row=group.medoid,
        members=[
            dict(zip(names, key, strict=True), row=int(row), image_path=path)
            for key, row, path in zip(keys, group.rows, paths, strict=True)
        ],
    )


def title_of(group):
    """What a group is called: as in the legend, and its tag."""
    name = group_name(group.label)
    return f"{group.tag} ({name})" if group.tag else name


def lines_of(segments, group):
    """What is said of a group below its name: a list of str."""
    numbers = [(state.BY_SUSPICION, group.suspicion), (state.BY_NOVELTY, group.novelty)]
    classes = [("predicted", group.predicted), ("true", group.true)]
    return [
        f"{counted(len(group.rows), 'object')} in {counted(group.n_images, 'image')}",
        "   ".join(
            f"{way} {segments.scales[way].text(value)}"
            for way, value in numbers
            if value is not None and np.isfinite(value)
        ),
        "   ".join(f"{what} {name}" for what, name in classes if name),
    ]


def draw_groups(segments, groups):
    """Figure with a row of words and typical crops for each group, the medoid on the left."""
    row_in = SIDE_PX / DPI
    width, height = size = TEXT_IN + TYPICAL * row_in, TITLE_IN + len(groups) * row_in
    figure = picture_figure(size, "Groups")
    _write(figure, 0.14, "typical objects of each group, the one in its middle first")
    for number, group in enumerate(groups):
        upper = TITLE_IN + number * row_in
        for line, text in enumerate([title_of(group), *lines_of(segments, group)]):
            _write(figure, upper + (0.14 + 0.2 * line) * row_in, text, is_title=line == 0)
        crops = [segments.thumbnail_or_blank(row) for row in group.typical]
        frames = [FRAME] * len(crops)
        picture = pictures.thumbnail_sheet(crops, TYPICAL, frames, SIDE_PX, 0, ground=PAPER)
        place = TEXT_IN / width, 1 - (upper + row_in) / height, 1 - TEXT_IN / width, row_in / height
        axes = figure.add_axes(place, xlim=(0, picture.shape[1]), ylim=(picture.shape[0], 0))
        axes.set_axis_off()
        axes.add_image(FillingImage(axes, picture))
    return figure


def _write(figure, below_top_in, text, is_title=False):
    width, height = figure.get_size_inches()
    style = {"color": INK, "fontweight": "bold"} if is_title else {"color": MUTED}
    words = Words(
        0.12 / width, 1 - below_top_in / height, text, fontsize=8, verticalalignment="top",
        parse_math=False, **style,
    )  # fmt: skip
    figure.add_artist(words).room = (TEXT_IN - 0.2) / width
