"""The selected segments as files for other tools, with a word now and then on how far it is."""

import contextlib
import itertools
import re
import time

from src.discover import figures
from src.discover.panel import counted
from src.errors import SettingError
from src.store import exports

NEWS_S = 0.2  # between two words
LONGEST_NAME = 100  # of a folder, in bytes of UTF-8


def export_segments(segments, rows, tags, out_dir, announce):
    """Write segments for other tools into a new folder: CSV, COCO JSON, Label Studio, crops, ...

    That is called after the tag where all have the same one, else `selection_1`, or by the next
    number that is free in `out_dir`. `tags` has the tag of each row that has one, `announce` is
    told how far it is. Gives the folder, and in words how many segments went there and what could
    not be written.
    """
    table, names = segments.table, (segments.pred_mapping, segments.label_mappings)
    folder = _new_folder(out_dir, {tags.get(int(row)) for row in rows})
    exports.write_csv(folder / "segments.csv", table, rows, names, tags)
    exports.write_image_list(folder / "images.txt", table, rows)
    gone = exports.link_pictures(folder / "data", table, rows)
    problems = [
        _write_masks(folder, segments, rows, tags, announce),
        f"{counted(gone, 'image')} missing in data" if gone else "",
        _write_crops(folder / "crops", segments, rows, announce),
    ]
    told = f"exported {counted(len(rows), 'object')} to {folder}"
    return folder, "; ".join([told, *filter(None, problems)])


def _write_masks(folder, segments, rows, tags, announce):
    """Write COCO, beside `data` as FiftyOne has it, and from that Label Studio's tasks."""
    n_images = len(set(segments.table.take(rows).image_names()))
    names = segments.pred_mapping, segments.label_mappings
    news = _news("masks of images", n_images, announce)

    def components(*place):
        next(news)
        return segments.components(*place)

    path = folder / "labels.json"
    try:
        coco = exports.write_coco(path, segments.table, rows, names, tags, components=components)
        tasks, config = folder / "label_studio.json", folder / "label_studio.xml"
        exports.write_label_studio(tasks, config, coco)
        exports.name_for_datumaro(folder)
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


def _new_folder(parent, tags):
    tag = tags.pop() if len(tags) == 1 else None
    name = _folder_name(tag) if tag else ""
    names = (f"{name or 'selection'}_{number}" for number in itertools.count(1))
    for folder in map(parent.joinpath, itertools.chain([name] if name else [], names)):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def _folder_name(tag):
    """A tag as a folder of any system can be called; empty where nothing is left of it."""
    name = re.sub(r"[^\w.,+()-]+", "_", tag).strip("._")
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")
