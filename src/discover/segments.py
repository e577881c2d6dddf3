"""The segments of an embeddings table as the explorer asks for them: facts, pictures, groups."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from src import pictures
from src.datasets import read_image
from src.discover import state
from src.discover.colours import BLUE, GREY, palette
from src.discover.state import Scale
from src.embedding import duplicates
from src.embedding.groups import LATER, NOISE, describe_groups
from src.errors import RunError
from src.records import NO_LABEL
from src.store.arrays import read_components, read_prediction
from src.store.of_objects import keys_of
from src.store.paths import Results
from src.store.reports import one_line

KEPT_THUMBNAILS = 2000  # of those that are cut on demand
GLANCE_PX = 260
UNREADABLE = (OSError, ValueError)
NO_LABEL_NAME, NO_TAG = "no label", "no tag"
NO_GROUP = {NOISE: "in no group", LATER: "in no group yet"}


class Segments:
    """Reads a table; pictures and what else belongs to whole images come from disk on demand.

    Parameters
    ----------
    table : ObjectTable
        N rows, with `plot_embeddings` and `nn_embeddings`.
    label_mappings : dict of str to dict of int to (str, (int, int, int))
        Names and RGB colours of the true classes of each dataset, see `class_ids.joined_classes`.
    pred_mapping : dict of int to (str, (int, int, int))
        The same of the predicted classes.
    io_path : path
        The results folder that stages 1 and 2 wrote to.
    """

    def __init__(self, table, label_mappings, pred_mapping, io_path):
        self.table, self.io_path = table, Path(io_path)
        self.label_mappings, self.pred_mapping = label_mappings, pred_mapping
        iou, suspicion = table["predicted_iou"], table["suspicion"]
        novelty = table["novelty"] if "novelty" in table else np.full(len(iou), np.nan)
        self.scales = {
            state.BY_IOU: Scale.of(iou),
            state.BY_SUSPICION: Scale.of(suspicion),
            state.BY_NOVELTY: Scale.of(novelty),
        }
        is_same = np.allclose(suspicion, 1 - iou, atol=1e-6, equal_nan=True)
        # which of the scales tell something of their own
        self.told = [state.BY_IOU] if is_same or self.scales[state.BY_IOU].is_known() else []
        self.told += [] if is_same else [state.BY_SUSPICION]
        self.described = self.told + [state.BY_NOVELTY] * self.scales[state.BY_NOVELTY].is_known()
        self._cut_thumbnail = lru_cache(KEPT_THUMBNAILS)(self._cut_thumbnail)
        self._groups = {}
        self._duplicates = None

    def __len__(self):
        return len(self.table["plot_embeddings"])

    # facts

    def predicted_name(self, row):
        return _class_name(self.table["predicted_id"][row], self.pred_mapping)

    def true_name(self, row):
        """Name of the true class; None where there is none."""
        if self.table["true_id"][row] == NO_LABEL:
            return None
        mapping = self.label_mappings.get(self.table["dataset"][row], {})
        return _class_name(self.table["true_id"][row], mapping)

    def describe(self, row):
        """One line about a segment: where it comes from, its classes, how strange it is."""
        parts = [
            one_line(self.table["dataset"][row]),
            f"image {self.table['image_index'][row]}",
            self._segments(row),
            self.classes(row),
            *(f"{way} {self.number(row, way)}" for way in self.described),
        ]
        return "  ·  ".join(parts)

    def number(self, row, way):
        """Its predicted IoU, suspicion or novelty in words."""
        scale = self.scales[way]
        value = scale.values[row]
        return scale.text(value) if np.isfinite(value) else state.UNKNOWN

    def named(self, row):
        """A segment in a few words, for a title."""
        return (
            f"image {self.table['image_index'][row]}, {self._segments(row)} ({self.classes(row)})"
        )

    def _segments(self, row):
        """Which segments it is, the largest by its number."""
        number, *others = self.table["segments"][row]
        return f"segment {number}" + (f" and {len(others)} more" if others else "")

    def classes(self, row):
        """Predicted and true class in words."""
        return f"predicted {self.predicted_name(row)}, true {self.true_name(row) or NO_LABEL_NAME}"

    def file_name(self, row, what):
        """Name for a picture of a segment, such as `streets_image3_segment7_crop.png`."""
        dataset, index = self.table["dataset"][row], self.table["image_index"][row]
        return f"{dataset}_image{index}_segment{self.table['component_index'][row]}_{what}.png"

    def tag_keys(self, rows=None):
        """What a tag is stored with: dataset, image index, component and box of each row."""
        return self._keys if rows is None else keys_of(self.table, rows)

    @cached_property
    def _keys(self):
        return keys_of(self.table)

    @cached_property
    def row_of(self):
        """The row of each of `tag_keys`, a dict."""
        return {key: row for row, key in enumerate(self.tag_keys())}

    # pictures

    def thumbnail(self, row):
        """The segment as a small JPEG (bytes); cut from its image where the table has none.

        One of `UNREADABLE` is raised if the image is needed and cannot be read.
        """
        stored = self.table["thumbnail"][row] if "thumbnail" in self.table else None
        return stored or self._cut_thumbnail(row)

    def thumbnail_or_blank(self, row):
        """The thumbnail, or a grey picture where it cannot be had or is none."""
        try:
            thumbnail = self.thumbnail(row)
            pictures.decode(thumbnail)
            return thumbnail
        except UNREADABLE:
            return pictures.blank_thumbnail()

    def _cut_thumbnail(self, row):
        image = self.image(row)
        self._cut(image, row)  # which may be nothing
        return pictures.thumbnail(image, self.table["box"][row])

    def image(self, row):
        """The picture that was segmented, (H, W, 3) uint8."""
        return np.array(read_image(self.table["image_path"][row]))

    def boxed_image(self, row):
        """The picture with the segment in a red box, (H, W, 3) uint8."""
        return pictures.draw_box(self.image(row), self.table["box"][row])

    def in_context(self, row):
        """The segment with what is around it, (h, w, 3) uint8, of `GLANCE_PX` on the longer side.

        Its outline is red, or its box where stage 2's file is gone or another. One of
        `UNREADABLE` is raised if the image cannot be read.
        """
        image, box = self.image(row), self.table["box"][row]
        self._cut(image, row)  # which may be nothing
        return pictures.in_context(image, box, self._mask(row, image.shape[:2]), GLANCE_PX)

    def _mask(self, row, shape):
        """The pixels of a segment, of shape (H, W); None where that is not known any more."""
        count = len(self.table["image_predicted_iou"][row])
        try:
            components = np.abs(self.components(*self._where(row)))
        except (OSError, RunError, ValueError):
            return None
        if components.shape != shape or components.max(initial=0) > count:
            return None
        return np.isin(components, self.table["segments"][row])

    def _where(self, row):
        """Network, dataset and index of its image."""
        return [self.table[key][row] for key in ("model_name", "dataset", "image_index")]

    def crop(self, row):
        """The segment's box cut out of its image, (h, w, 3) uint8."""
        return self._cut(self.image(row), row)

    def _cut(self, image, row):
        crop = pictures.crop(image, self.table["box"][row])
        if not crop.size:
            raise ValueError(f"the box of {self.named(row)} lies outside its picture")
        return crop

    def crops(self, rows):
        """Give (row, crop), image by image, each read once; None where it cannot be read."""
        names = self.table.image_names()
        last, image = None, None
        for row in sorted(map(int, rows), key=lambda row: names[row]):
            if names[row] != last:
                last = names[row]
                try:
                    image = self.image(row)
                except UNREADABLE:
                    image = None
            try:
                yield row, None if image is None else self._cut(image, row)
            except ValueError:
                yield row, None

    def components(self, model, dataset, index):
        """Stage 2's component map of one image, (H, W) int32."""
        return read_components(Results(self.io_path, model, dataset).components(index))

    def overview(self, row):
        """The four panels that explain a segment: title -> picture, in reading order."""
        where = self._where(row)
        components, count = self.components(*where), len(self.table["image_predicted_iou"][row])
        if np.abs(components).max(initial=0) > count:
            raise ValueError(f"the table has {count} segments of image {where[2]}, stage 2 others")
        return pictures.overview_panels(
            self.image(row),
            read_prediction(Results(self.io_path, *where[:2]).prediction(where[2])),
            components,
            self.table["image_predicted_iou"][row],
            self.table["box"][row],
            self.label_mappings.get(where[1], {}),
            self.pred_mapping,
            self.table["segments"][row],
        )

    # groups

    def near_duplicates(self):
        """A Future of the near duplicates, see `duplicates.find`; they are looked for once."""
        if self._duplicates is None:
            look = ThreadPoolExecutor(1).submit
            self._duplicates = look(duplicates.find, self.table["embeddings"])
        return self._duplicates

    def groups(self, way, chosen):
        """The segments sorted in one of `state.WAYS`; clusters and tags are those of a State."""
        if way == state.BY_CLUSTER:
            return _by_cluster(chosen.clusters)
        if way == state.BY_TAG:
            return _by_tag(chosen.tags, chosen.tag_names)
        if way not in self._groups:
            self._groups[way] = self._sorted_by(way)
        return self._groups[way]

    def describe_groups(self, labels, tags=None, order="suspicion"):
        """What groups of all objects are, with the names of their classes: a list of Group.

        See `embedding.groups.describe_groups`; `tags` are as `state.tags_of` gives them.
        """
        true = self._names(state.BY_TRUTH)
        true[np.asarray(self.table["true_id"]) == NO_LABEL] = ""
        predicted = self._names(state.BY_PREDICTION)
        return describe_groups(
            self.table, labels, predicted=predicted, true=true, tags=tags, order=order
        )

    def _names(self, way):
        groups = self.groups(way, None)
        return np.array(groups.names, object)[groups.codes]

    def has_truth(self):
        return bool((np.asarray(self.table["true_id"]) != NO_LABEL).any())

    def _sorted_by(self, way):
        if way in self.scales:
            colours = pictures.scale_colours(state.STEPS)
            strange_alike = colours if way == state.BY_IOU else colours[::-1]
            return state.group_by_step(self.scales[way], strange_alike, GREY)
        if way == state.ALL_BLUE:
            return state.group_by_name(np.zeros(len(self), int), lambda _: ("all segments", BLUE))
        if way in self._classes:
            return self._classes[way]
        datasets, dataset_of = np.unique(self.table["dataset"], return_inverse=True)
        colours = palette(len(datasets))
        return state.group_by_name(dataset_of, lambda k: (one_line(datasets[k]), colours[k]))

    @cached_property
    def _classes(self):
        """The Groups by true and by predicted class; of one name, the colour is the same.

        The most frequent true classes, which nothing else tells apart, have the first colours.
        """
        datasets, dataset_of = np.unique(self.table["dataset"], return_inverse=True)
        pairs = np.asarray(self.table["true_id"], np.int64) * len(datasets) + dataset_of

        def true_name(pair):
            class_id, dataset = divmod(int(pair), len(datasets))
            return _class_name(class_id, self.label_mappings.get(str(datasets[dataset]), {}))

        def predicted_name(class_id):
            return _class_name(class_id, self.pred_mapping)

        ways = {
            state.BY_TRUTH: state.group_by_name(pairs, lambda pair: (true_name(pair), GREY)),
            state.BY_PREDICTION: state.group_by_name(
                self.table["predicted_id"], lambda class_id: (predicted_name(class_id), GREY)
            ),
        }
        names = [groups.names[code] for groups in ways.values() for code in groups.largest_first()]
        names = [name for name in dict.fromkeys(names) if name != NO_LABEL_NAME]
        colour_of = dict(zip(names, palette(len(names)), strict=True)) | {NO_LABEL_NAME: GREY}
        known = {predicted_name(class_id) for class_id in self.pred_mapping} | {NO_LABEL_NAME}
        known = {name.casefold() for name in (*known, *ways[state.BY_PREDICTION].names)}
        return {
            way: replace(
                groups,
                colours=np.array([colour_of[name] for name in groups.names], np.uint8),
                unknown=np.array([name.casefold() not in known for name in groups.names]),
            )
            for way, groups in ways.items()
        }


def _by_cluster(clusters):
    count = max(int(clusters.max()), -1) + 1
    names = tuple(group_name(label) for label in (*range(count), *NO_GROUP))
    codes = np.where(clusters < 0, count - 1 - clusters, clusters)
    return state.Groups(codes, names, np.vstack([palette(count), *[GREY] * len(NO_GROUP)]))


def group_name(label):
    """What a group is called: its number from 1; objects in none: why."""
    return NO_GROUP.get(label) or f"group {label + 1}"


def _by_tag(tags, names):
    colours = np.vstack([np.uint8(GREY), palette(len(names))])
    return state.Groups(tags, (NO_TAG, *map(one_line, names)), colours)


def _class_name(class_id, mapping):
    """Name of a class, also of one that the mapping does not have."""
    class_id = int(class_id)
    if class_id in mapping:
        return one_line(mapping[class_id][0])
    return NO_LABEL_NAME if class_id == NO_LABEL else f"class {class_id}"
