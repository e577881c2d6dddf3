"""The selected segments as files for other tools, with a word now and then on how far it is."""

import contextlib
import itertools
import time

from src.discover import figures
from src.discover.panel import counted
from src.errors import SettingError
from src.store import exports

NEWS_S = 0.2  # between two words


def export_segments(segments, rows, tags, out_dir, announce):
    """Write segments as CSV, COCO JSON and crops into a new folder.

    That is `selection_1` in `out_dir`, or the next number that is free. `tags` has the tag of each
    row that has one, `announce` is told how far it is. Gives in words how many segments went where,
    and what could not be written.
    """
    folder = _new_folder(out_dir)
    names = segments.pred_mapping, segments.label_mappings
    exports.write_csv(folder / "segments.csv", segments.table, rows, names, tags)
    problems = [
        _write_coco(folder / "segments.json", segments, rows, names, tags, announce),
        _write_crops(folder / "crops", segments, rows, announce),
    ]
    return "; ".join(
        [f"exported {counted(len(rows), 'object')} to {folder}", *filter(None, problems)]
    )


def _write_coco(path, segments, rows, names, tags, announce):
    n_images = len(set(segments.table.take(rows).image_names()))
    news = _news("masks of images", n_images, announce)

    def components(*place):
        next(news)
        return segments.components(*place)

    try:
        exports.write_coco(path, segments.table, rows, names, tags, components=components)
    except (OSError, ValueError, SettingError) as error:
        return f"no COCO file: {error}"
    return ""


def _write_crops(folder, segments, rows, announce):
    news, failed = _news("crops", len(rows), announce), 0
    for row, crop in segments.crops(rows):
        next(news)
        if crop is None:
            failed += 1
        else:
            figures.save_picture(crop, folder / segments.file_name(row, "crop"))
    return f"{failed:,} without a crop: their images cannot be read" if failed else ""


def _news(what, total, announce):
    """Announces at a `next` how far it is, unless it has just done so."""
    told = 0.0
    for number in range(total):
        if time.monotonic() > told + NEWS_S:
            told = time.monotonic()
            announce(f"exporting {what}: {number:,} of {total:,}")
        yield


def _new_folder(parent):
    for number in itertools.count(1):
        folder = parent / f"selection_{number}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder
