"""From objects that carry tags, or were drawn, to pictures with labels to learn from."""

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from src import registry
from src.datasets import LabelledImages, item_of, read_ids
from src.errors import SettingError
from src.evaluation.objects import rule_of
from src.learning.pseudo_labels import labels_around, pseudo_labels
from src.MetaSeg.stage import source_of
from src.pictures import distinct_colours
from src.progress import progress
from src.records import NO_LABEL, ImageName
from src.segmentation.inference import to_input, to_rgb
from src.store import provenance, tables
from src.store.arrays import read_components
from src.store.files import prepare, remove
from src.store.labels import Drawn, match_names, read_coco, write_labels
from src.store.of_objects import keys_of
from src.store.paths import Results, learnt_from, learnt_labels, min_size_of

FEW = 10  # objects of a class, of which fewer are hardly enough to learn from
HELD_OUT = 10  # one in so many pictures of each new class is validated by, where there are
ENOUGH = 30  # pictures of it: of fewer, those held out would be missed, and say little
REPLAYED_HELD_OUT = 8  # pictures of old classes that are validated by, at most


# objects


@dataclass(frozen=True)
class Tagged:
    """The objects of a picture that carry one of the tags."""

    objects: list[tuple]  # (tag, segment numbers, the largest segment first)

    def labels(self, known, ids, image):
        """Labels (H, W) of a picture (H, W, 3), of which a Segments is known; `ids` by name."""
        learnt = [(segments, ids[name]) for name, segments in self.objects]
        return pseudo_labels(
            known.components, known.classes, known.is_trusted, known.predicted_iou, learnt, image
        )


@dataclass(frozen=True)
class DrawnByHand:
    """The objects of a picture that came back from an annotation tool."""

    drawn: Drawn

    @property
    def objects(self):
        """As of `Tagged`, with shapes."""
        return self.drawn.objects

    def labels(self, known, ids, _image):
        """As of `Tagged`."""
        pairs = zip(self.drawn.masks(), self.objects, strict=True)
        masks = [(mask, ids[name]) for mask, (name, _) in pairs]
        return labels_around(known.components, known.classes, known.is_trusted, masks)


def tagged_objects(table, tags, wanted):
    """The objects of a table that carry some tags.

    Parameters
    ----------
    table : ObjectTable
        Of the pictures to look at.
    tags : list of tuple
        See `store.tags.read_tags`.
    wanted : sequence of str

    Returns
    -------
    objects : dict of ImageName to Tagged

    Raises
    ------
    SettingError
        Nothing carries one of them.
    """
    tag_of = {tuple(key): tag for *key, tag in tags}
    of_rows = [tag_of.get(key, "") for key in keys_of(table)]
    _check_wanted(wanted, of_rows, "args.tags", "object of the datasets carries the tag")
    found = defaultdict(lambda: Tagged([]))
    rows = zip(table.image_names(), of_rows, table["segments"], strict=True)
    for name, tag, segments in rows:
        if tag in wanted:
            found[name].objects.append((tag, segments))
    return dict(found)


def drawn_objects(log, path, samples, wanted=None):
    """The objects in a COCO file, by the pictures of datasets that they are drawn in.

    Parameters
    ----------
    log : logging.Logger
    path : path
    samples : dict of str to dataset
        The datasets that the pictures may be of.
    wanted : sequence of str, optional
        Categories; None: all that occur.

    Returns
    -------
    objects : dict of ImageName to DrawnByHand
        Of the pictures that have any.

    Raises
    ------
    SettingError
        The file is none; its pictures are none of these, or it has no object of a category.
    """
    drawn = {name: of for name, of in read_coco(path).items() if of.objects}
    there = [category for of in drawn.values() for category, _ in of.objects]
    wanted = list(dict.fromkeys(there)) if wanted is None else wanted
    if not there:
        raise SettingError(f"`args.coco` {path}: no picture in it has an object: export it again")
    _check_wanted(wanted, there, "args.tags", f"object in {path} is of the category")
    pictures = {
        ImageName(dataset, index): picture
        for dataset, of in samples.items()
        for index, picture in enumerate(_paths_of(of))
    }
    named = match_names(drawn, pictures)
    if not named:
        raise SettingError(
            f"`args.coco` {path}: none of its {len(drawn)} pictures with objects, such as "
            f"{next(iter(drawn), 'none')}, is one of {', '.join(samples)}: name their dataset in "
            "args.datasets"
        )
    if len(named) < len(drawn):
        log.warning("%s: %d pictures are in no dataset", path, len(drawn) - len(named))
    found = {}
    for name, picture in named.items():
        shapes = [shape for shape in drawn[name].objects if shape[0] in wanted]
        if shapes:
            found[picture] = DrawnByHand(replace(drawn[name], objects=shapes))
    return found


def _check_wanted(wanted, there, setting, what):
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        known = Counter(filter(None, there))
        told = ", ".join(f"{name} ({count})" for name, count in known.most_common())
        raise SettingError(
            f"`{setting}`: no {what} {', '.join(map(repr, missing)) or 'asked for'}; there are: "
            f"{told or 'none; give objects a tag in discover_embedding_space.py first'}"
        )


def _paths_of(samples):
    return [_path_of(samples, index) for index in range(len(samples))]


def _path_of(samples, index):
    if index >= len(samples):
        raise ValueError("its dataset does not have it any more; run pred_images.py again")
    if isinstance(samples, LabelledImages):
        return samples.samples[index][0]
    return item_of(samples, index)[2]


def count_objects(log, objects):
    """Number of objects of each name to learn, a dict; a warning where there are few."""
    counts = Counter(name for of_picture in objects.values() for name, _ in of_picture.objects)
    for name, count in counts.items():
        if count < FEW:
            log.warning(
                "objects that are called %r: only %d; with fewer than %d a class is hardly learnt, "
                "more of them may be beside those that are tagged",
                name, count, FEW,
            )  # fmt: skip
    return dict(counts)


def indices_of(objects):
    """Indices of the pictures with objects to learn, ascending lists by dataset: a dict."""
    indices = defaultdict(list)
    for name in sorted(objects):
        indices[name.dataset].append(name.index)
    return dict(indices)


# classes


def choose_classes(names, classes, extends=False):
    """Ids of the classes to learn, and those that are new.

    Parameters
    ----------
    names : sequence of str
        Of the objects; upper and lower case are not told apart.
    classes : dict of int to (str, (int, int, int))
        Those that the network predicts.
    extends : bool
        Whether objects may be called like one of these, and are added to it.

    Returns
    -------
    ids : dict of str to int
        By each of `names`.
    added : dict of str to (int, int, int)
        Names and colours of the new classes, in the order of their ids.

    Raises
    ------
    SettingError
        A class is called like that, or there are too many.
    """
    id_of = {name.casefold(): key for key, (name, _) in classes.items()}
    old = [name for name in names if name.casefold() in id_of]
    if old and not extends:
        raise SettingError(
            f"the network has a class {', '.join(map(repr, old))} already: choose another tag, or "
            "args.extend=True to add these objects to it"
        )
    new = {}
    for name in names:
        if name.casefold() not in id_of:
            id_of[name.casefold()] = len(classes) + len(new)
            new[name] = None
    if len(classes) + len(new) > NO_LABEL:
        raise SettingError(f"a network can have {NO_LABEL} classes, and {len(classes)} are there")
    colours = _new_colours([colour for _, colour in classes.values()], len(new))
    return {name: id_of[name.casefold()] for name in names}, dict(zip(new, colours, strict=True))


def _new_colours(old, count):
    """RGB colours as far from the old ones, and from each other, as there are."""
    taken, candidates = [tuple(colour) for colour in old], distinct_colours(60)
    for _ in range(count):
        away = np.subtract(np.array(candidates)[:, None], np.array([*taken, (128, 128, 128)]))
        taken.append(candidates[int((away**2).sum(-1).min(-1).argmax())])
    return taken[len(old) :]


# labels


@dataclass(frozen=True, eq=False)
class Segments:
    """What stages 2 and 4 know of the S segments of a picture."""

    components: np.ndarray  # (H, W) int32, +k inside segment k, -k on its boundary
    classes: np.ndarray  # (S,) predicted ids
    is_trusted: np.ndarray  # (S,) bool
    predicted_iou: np.ndarray  # (S,) float32, NaN where unknown


@dataclass(frozen=True, eq=False)
class Found:
    """What stage 4 has found with a network in the pictures of a table."""

    io_path: str
    model: object  # entry of the network
    path: str  # of the table of embedded objects
    iou_threshold: float  # segments of a lower predicted IoU are not trusted
    samples: dict = field(default_factory=dict)  # datasets by name, to see that pictures are these

    def segments(self, name):
        """The Segments of a picture, an ImageName.

        Those are trusted that are neither suspicious nor of a low predicted IoU.

        Raises
        ------
        SettingError
            Stage 4 does not know the picture, or knew it as it was before, or by another network;
            another picture is in its place.
        """
        results = Results(self.io_path, self.model.name, name.dataset)
        again = f"run compute_embeddings.py with args.datasets=[{name.dataset}] again"
        try:
            table, made_from = tables.read_objects(results.vectors(name.index, self.path))
            source = source_of(results, name.index, results.components(name.index)) or {}
            prediction = source.get("prediction") or {}
            self._check_network(prediction.get("network"))
            if name.dataset in self.samples:
                path = _path_of(self.samples[name.dataset], name.index)
                provenance.check_image(prediction, path)
            if made_from["segments"] != provenance.digest(source):
                raise ValueError(f"its segments were measured again since it was searched; {again}")
            of = table.facts["segments"]
            components = read_components(results.components(name.index))
        except SettingError:
            raise
        except (KeyError, TypeError) as error:  # of another version, or of nobody knows what
            raise SettingError(
                f"picture {name} cannot be learnt from: stage 4 has kept too little of it; {again}"
            ) from error
        except (OSError, ValueError) as error:
            raise SettingError(f"picture {name} cannot be learnt from: {error}") from error
        rule, iou = rule_of(made_from["selection"], min_size_of(self.path)), of["predicted_iou"]
        is_doubtful = rule.is_suspicious(of["suspicion"], iou) | of["is_chosen"]
        is_trusted = ~(is_doubtful | (iou < self.iou_threshold))
        return Segments(components, of["predicted_id"], is_trusted, iou)

    def digest(self, objects):
        """What the labels of pictures with objects depend on: text that changes with it.

        `objects` are Tagged or DrawnByHand by ImageName.
        """
        table = tables.read_embeddings(self.path)
        pictures = (table.facts["made_from"] or {}).get("datasets", {})
        named = [[str(name), objects[name].objects] for name in sorted(objects)]
        datasets = {name.dataset: pictures.get(name.dataset) for name in objects}
        return provenance.digest([named, datasets, self.iou_threshold])

    def trusted_labels(self, name, _truth=None):
        """Labels (H, W) of a picture: its trusted segments."""
        known = self.segments(name)
        return labels_around(known.components, known.classes, known.is_trusted, [])

    def pictures(self, dataset):
        """A list of ImageName: those of a dataset that have been searched."""
        indices = Results(self.io_path, self.model.name, dataset).indices("metrics", True)
        names = [ImageName(dataset, index) for index in indices]
        results = Results(self.io_path, self.model.name, dataset)
        return [name for name in names if results.vectors(name.index, self.path).is_file()]

    def _check_network(self, network):
        now = provenance.identity_if_there(self.model)
        if network is not None and now is not None and network != now:
            raise SettingError(
                f"the objects in {self.path} are of another network than {self.model.name!r} as it "
                "is now: run pred_images.py, src/MetaSeg/main.py and compute_embeddings.py again"
            )


def write_pseudo_labels(found, objects, ids, classes, folder, images):
    """Write the labels of all pictures with objects to learn; others that are there go.

    Parameters
    ----------
    found : Found
    objects : dict of ImageName to Tagged or DrawnByHand
    ids : dict of str to int
    classes : dict of int to (str, (int, int, int))
        Those of the network that is to be made.
    folder : path
        See `paths.learnt_folder`.
    images : callable
        Gives the picture (H, W, 3), uint8, of an ImageName.

    Raises
    ------
    SettingError, WriteError
        See `Found.segments`; a picture was drawn in another size; the disk takes no more.
    """
    paths = {name: learnt_labels(folder, name.dataset, name.index) for name in objects}
    prepare(*{path.parent for path in paths.values()})
    for name in progress(sorted(objects), desc="labels", unit="image", delay=2):
        known, of_picture = found.segments(name), objects[name]
        drawn = of_picture.drawn if isinstance(of_picture, DrawnByHand) else None
        if drawn and drawn.size != known.components.shape:
            raise SettingError(
                f"`args.coco`: picture {name} has {known.components.shape} (height, width) pixels, "
                f"the file says {drawn.size}: export it in the size of the pictures"
            )
        write_labels(paths[name], of_picture.labels(known, ids, images(name)), classes)
    remove(*{*learnt_from(folder)} - {*paths.values()})


# what a network is given


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with labels, each read when it is asked for: a sequence of (Tensor, Tensor).

    An image (3, H, W), float32, as a network takes it, and labels (H, W), int64, 255 = no label.
    """

    samples: dict  # datasets by name, with the transform of `inference.to_input`
    names: list[ImageName]
    labels: Callable  # of an ImageName and the true ids (H, W), Tensor or None: (H, W) uint8

    def __len__(self):
        return len(self.names)

    def __getitem__(self, number):
        name = self.names[number]
        with _told(name):
            image, truth, _ = item_of(self.samples[name.dataset], name.index)
            labels = self.labels(name, truth)
        if labels.shape != tuple(image.shape[1:]):
            raise SettingError(
                f"picture {name} has {tuple(image.shape[1:])} (height, width) pixels, and had "
                f"{labels.shape}: run all stages again"
            )
        return image, torch.from_numpy(labels.astype(np.int64))

    def only(self, names):
        """Some of these pictures."""
        return Pictures(self.samples, names, self.labels)


@contextmanager
def _told(name):
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"picture {name} cannot be read: {error}") from error


def image_of(samples, card, name):
    """The picture (H, W, 3), uint8, of an ImageName; `samples` and `card` as in `with_transform`.

    One that cannot be read is a SettingError.
    """
    with _told(name):
        image, *_ = item_of(samples[name.dataset], name.index)
    return to_rgb(image, card.mean, card.std)


def with_transform(entries, card):
    """Datasets by their names, of entries, with pictures as a network of this card takes them."""
    transform = to_input(card.mean, card.std)
    return {entry.name: registry.build(entry, transform=transform) for entry in entries}


def learnt_pictures(folder, samples, names):
    """The pictures whose labels are in a folder; see `write_pseudo_labels`."""

    def labels(name, _truth):
        return read_ids(learnt_labels(folder, name.dataset, name.index))

    return Pictures(samples, sorted(names), labels)


def replayed_pictures(found, source, samples, ids, names):
    """Pictures of the old classes: those that the network learnt on, with their labels.

    Where these have none, or nobody says which they are, those that stage 4 has searched, with what
    the network is sure of.

    Parameters
    ----------
    found : Found
    source : str or None
        The dataset that the network learnt on.
    samples : dict of str to dataset
        See `with_transform`.
    ids : ndarray of shape (256,), uint8
        From the true ids of `source` to the predicted ones.
    names : collection of ImageName
        Those with new objects, which are not replayed.
    """

    def true_labels(_name, truth):
        return ids[np.minimum(truth.numpy(), NO_LABEL)]

    every = [ImageName(source, index) for index in range(len(samples[source]) if source else 0)]
    if every:
        with _told(every[0]):
            truth = item_of(samples[source], 0)[1]
        if truth is not None:
            return Pictures(samples, every, true_labels)
    datasets = samples if source is None else [source]
    there = [name for dataset in datasets for name in found.pictures(dataset)]
    if source is not None and not there:
        raise SettingError(
            f"{source!r} has no labels, and stage 4 has not searched it: run compute_embeddings.py "
            f"with args.datasets=[{source}] first, or leave it out of args.datasets"
        )
    return Pictures(samples, [n for n in there if n not in names], found.trusted_labels)


def split(lessons, replayed, objects):
    """What is learnt, what is replayed, what is validated by: three sequences in a tuple.

    `objects` are those of `write_pseudo_labels`. Where no class is in enough pictures, none is held
    out: an empty tuple.
    """
    held_out = held_out_of(lessons.names, objects)
    if not held_out:
        return lessons, replayed, ()
    count = min(REPLAYED_HELD_OUT, len(replayed) // HELD_OUT)
    of_old = replayed.names[len(replayed) - count :]
    kept = [name for name in lessons.names if name not in held_out]
    rest = replayed.only(replayed.names[: len(replayed) - count])
    validation = Both(lessons.only(held_out), replayed.only(of_old))
    return lessons.only(kept), rest, validation


def held_out_of(names, objects):
    """The pictures to validate by, a list: of those of each class at most one in `HELD_OUT`.

    Of a class in fewer than `ENOUGH` pictures there is none.
    """
    classes = {name: {tag for tag, _ in objects[name].objects} for name in names}
    left = Counter(tag for of_picture in classes.values() for tag in of_picture)
    left = {tag: count // HELD_OUT if count >= ENOUGH else 0 for tag, count in left.items()}
    held_out = []
    for name in names:
        if all(left[tag] for tag in classes[name]):
            held_out.append(name)
            for tag in classes[name]:
                left[tag] -= 1
    return held_out


@dataclass(frozen=True)
class Both:
    """Two sequences, one after the other."""

    first: Pictures
    second: Pictures

    def __len__(self):
        return len(self.first) + len(self.second)

    def __getitem__(self, number):
        if number < len(self.first):
            return self.first[number]
        return self.second[number - len(self.first)]
