"""Stage 6: teach a segmentation network the classes that objects were tagged with.

    python learn_classes.py with args.tags=[cow,tent] args.datasets=[streets,streets_ood]
    python learn_classes.py with args.tags=[cow,tent] args.dry_run=True
    python learn_classes.py with args.coco=annotations.json

Writes learnt/<name> below the results folder: labels of the pictures with such objects, contact
sheets of them to look at (args.dry_run=True stops there), and the network that has learnt them,
which every script takes as args.model_name=learnt/<name>. Needs stages 1, 2 and 4; tags are given
in stage 5. The same command goes on after a kill; the old network stays as it is.
"""

from functools import partial
from pathlib import Path

from configuration import CONFIG, datasets, models
from src import class_ids, entries
from src.embedding.table import only_datasets, read_table
from src.errors import SettingError
from src.learning import lessons, rounds
from src.learning.growing import grow
from src.learning.pasting import Pasted
from src.learning.sheets import write_sheets
from src.learning.training import Epoch, Schedule, teach, trainable
from src.model_card import known_card
from src.run import choice
from src.run.experiment import create_experiment
from src.run.settings import NAME, NAMES, PATH, RATE, SIZE, setting, shared_settings
from src.segmentation.inference import choose_device
from src.store.files import locked, prepare
from src.store.groups import read_groups
from src.store.of_objects import keys_of
from src.store.paths import groups_path, learnt_curves, learnt_folder, tags_path
from src.store.provenance import identity
from src.store.tags import read_tags

ex = create_experiment("learn_classes")
SCHEDULE = Schedule()


@ex.config
def config():
    args = dict(  # noqa: F841 (sacred reads it)
        tags=setting(
            None, "tags to learn as classes", none="with args.coco all its categories", kind=NAMES
        ),
        datasets=setting(
            [CONFIG.TRAIN_DATASET.name, CONFIG.DATASET.name],
            "those with the objects; of several the first entry is not, but what the network "
            "learnt on, and is seen again",
            kind=NAMES,
        ),
        coco=setting(
            None, "COCO file of objects, polygons or RLE", none="those of args.tags", kind=PATH
        ),
        name=setting(
            None, "what the network is called: learnt/<name>", none="like the tags", kind=NAME
        ),
        extend=setting(False, "take tags that are classes already, and add their objects to these"),
        **shared_settings(
            CONFIG, "model_name", "net", "io_path", "min_height", "min_width", "gpu", "seed"
        ),
        train=setting(
            None, "names of the network's modules that learn", none="its decoder", kind=NAMES
        ),
        epochs=setting(SCHEDULE.epochs, "times that every picture is seen", at_least=1),
        batch_size=setting(SCHEDULE.batch_size, "pictures a step", at_least=1),
        learning_rate=setting(SCHEDULE.learning_rate, "of Adam at the beginning", kind=RATE),
        crop_size=setting(list(SCHEDULE.crop), "part of a picture that a step sees", kind=SIZE),
        pasted=setting(
            None,
            "pictures an epoch on which objects are pasted; helps where there are few",
            none="pictures as they are",
            at_least=1,
        ),
        **shared_settings(CONFIG, "overwrite"),
        dry_run=setting(False, "only write the labels and their contact sheets"),
    )


def schedule_of(args):
    """How the network is trained."""
    return Schedule(
        seed=args["seed"],
        epochs=args["epochs"],
        batch_size=args["batch_size"],
        learning_rate=float(args["learning_rate"]),
        crop=tuple(args["crop_size"]),
        modules=args["train"] and tuple(args["train"]),
    )


def objects_of(args, path, samples, log):
    """Objects to learn by their pictures, their names in order, and what is told of them."""
    wanted = args["tags"] and [*dict.fromkeys(args["tags"])]
    if args["coco"]:
        objects = lessons.drawn_objects(log, args["coco"], samples, wanted)
        names = wanted or sorted({name for of in objects.values() for name, _ in of.objects})
        return objects, names, {"coco": Path(args["coco"]).name}
    if not wanted:
        raise SettingError("`args.tags` must name what to learn, such as [cow,tent]")
    table, tags = only_datasets(path, read_table(path), [*samples]), read_tags(tags_path(path))
    objects = lessons.tagged_objects(table, tags, wanted)
    groups, told = read_groups(groups_path(path)), {}
    tag_of = {tuple(key): tag for *key, tag in tags}
    for key in keys_of(table):
        if tag_of.get(key) in wanted and groups.get(key, -1) >= 0:
            told.setdefault(tag_of[key], set()).add(groups[key])
    return objects, wanted, {"groups": {tag: sorted(of) for tag, of in told.items()}}


def learn(args, log):
    """Write the labels that the settings ask for, and train the network; gives its figures."""
    io_path = args["io_path"]
    model = entries.choose_model(models, args["model_name"], io_path)
    card = known_card(io_path, model, CONFIG.TRAIN_DATASET)
    source, searched = entries.searched_datasets(datasets, args["datasets"], io_path)
    samples = lessons.with_transform([*searched, *([source] if source else [])], card)
    with_objects = {entry.name: samples[entry.name] for entry in searched}
    path = choice.embeddings_file(args, model.name, log)
    objects, names, told = objects_of(args, path, with_objects, log)
    ids, added = lessons.choose_classes(names, card.classes, args["extend"])
    if args["pasted"] and not added:
        raise SettingError(
            "args.pasted pastes objects of new classes, and these are classes already: leave it out"
        )
    counts = lessons.count_objects(log, objects)
    found = lessons.Found(io_path, model, path, CONFIG.IOU_THRESHOLD, samples)
    made_from = {
        "network": model.name,
        "identity": identity(model),
        "round": rounds.round_of(model),
        "tags": counts,
        "datasets": list(args["datasets"]),
        "pictures": lessons.indices_of(objects),
        "objects": found.digest(objects),
        "learnt_on": source and identity(source),
        "pasted": args["pasted"],
        **told,
    }
    schedule = schedule_of(args)
    naming = made_from, schedule, args["overwrite"]
    name, is_made = rounds.choose_name(io_path, args["name"], names, *naming)
    folder = learnt_folder(io_path, name)
    if is_made:
        log.info("learnt/%s is up to date: %s", name, folder)
        return {}
    device = choose_device(args["gpu"], log)
    if not args["dry_run"]:  # what cannot learn is told before anything is written
        trainable(grow(model, card, added)[0], schedule.modules)
    classes = card.classes | dict(enumerate(added.items(), start=len(card.classes)))
    prepare(folder.parent)
    images = partial(lessons.image_of, with_objects, card)
    refusal = f"another run is making learnt/{name}: wait for its end, or choose another args.name"
    with locked(folder, refusal):
        lessons.write_pseudo_labels(found, objects, ids, classes, folder, images)
        pictures = lessons.learnt_pictures(folder, with_objects, objects)
        sheets = write_sheets(pictures, card.mean, card.std, classes, ids, counts, folder)
        log.info("wrote labels of %d pictures, and %s to look at", len(objects), sheets[0])
        if args["dry_run"]:
            return {}
        replayed = replayed_of(found, source, samples, with_objects, objects, card, log)
        parts = lessons.split(pictures, replayed, objects)
        if args["pasted"]:
            new, old, judged = parts
            parts = Pasted(new, old, card, args["pasted"], args["seed"]), old, judged
        epochs = teach(model, card, added, parts, schedule, folder, made_from, device)
    best = max(epochs, key=Epoch.merit)
    log.info(
        "learnt/%s is there, as of epoch %d of %d; take it by args.model_name=learnt/%s in all "
        "stages; how it learnt: %s.png", name, best.number, len(epochs), name, learnt_curves(folder)
    )  # fmt: skip
    return {"epoch": best.number, "merit": best.merit()}


def replayed_of(found, source, samples, with_objects, objects, card, log):
    """Pictures of old classes: see `lessons.replayed_pictures`."""
    if source is None:
        return lessons.replayed_pictures(found, None, with_objects, None, objects)
    ids = class_ids.predicted_ids(source, card.classes, log)
    return lessons.replayed_pictures(found, source.name, samples, ids, objects)


@ex.automain
def main(args, _log):
    return learn(args, _log)
