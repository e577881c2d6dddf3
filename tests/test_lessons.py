"""From tagged and drawn objects to labels, and to a network that has learnt: learn_classes.py."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from factories import object_table, same_ids
from numpy.testing import assert_array_equal
from PIL import Image
from torch import nn

import compute_embeddings
import discover_embedding_space
import learn_classes
import pred_images
from configuration import CONFIG, DatasetConfig, ModelConfig
from src.datasets import LabelledImages, list_images, read_ids, with_labels
from src.errors import SettingError, WriteError
from src.learning import lessons, rounds
from src.learning.lessons import (
    Tagged,
    choose_classes,
    count_objects,
    held_out_of,
    tagged_objects,
)
from src.learning.training import Schedule
from src.MetaSeg import main as stage_2
from src.MetaSeg.stage import store_segments
from src.records import ImageName, Prediction
from src.segmentation.inference import load_network
from src.store import provenance, tables
from src.store.arrays import read_components, write_prediction
from src.store.files import locked
from src.store.learnt import has_weights, read_learnt
from src.store.of_objects import keys_of
from src.store.paths import Results, learnt_checkpoint, learnt_folder, learnt_labels, tags_path
from src.store.tags import change_tags

LOG = logging.getLogger(__name__)
RED, GREEN, BLUE = 0, 1, 2
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
SIZE = 8, 12
mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
min_segment_size = min_crop_size = (1, 1)


class Fields(LabelledImages):
    """Red above green; some with blue objects, which a network takes for red."""

    pred_mapping = {RED: ("red", (200, 0, 0)), GREEN: ("green", (0, 200, 0))}
    label_mapping = {**pred_mapping, 9: ("blue", (0, 0, 200))}

    def __init__(self, root, is_labelled=True, transform=None):
        images = list_images(root, "*.jpg.png")
        pairs = with_labels(images, lambda image: image.with_suffix(".labels"))
        super().__init__([(one, two if is_labelled else None) for one, two in pairs], transform)


class TwoColours(nn.Module):
    """Knows red and green by a convolution behind a backbone that changes nothing."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.backbone.weight[:] = torch.eye(3)[:, :, None, None]
            self.head.weight[:] = 9 * torch.eye(3)[:2, :, None, None]
            self.head.bias[:] = torch.tensor([0.1, 0])  # blue is red

    def forward(self, images):
        return self.head(self.backbone(images))


class MeanColour(nn.Module):
    """The vector of a crop."""

    def forward(self, crops):
        return crops.mean((2, 3))


def paint(index, is_new):
    ids = np.zeros(SIZE, np.uint8)
    ids[4:] = GREEN
    if is_new:
        ids[5:7, 2 + index % 4 : 5 + index % 4] = BLUE
    return ids


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Pictures known and new, a network, and what stages 1, 2 and 4 say: the tagged table's path.

    Six new pictures have a blue object each, called `thing`.
    """
    places = {"known": (4, False), "new": (6, True)}
    for name, (count, is_new) in places.items():
        (tmp_path / name).mkdir()
        for index in range(count):
            ids = paint(index, is_new)
            Image.fromarray(COLOURS[ids]).save(tmp_path / name / f"{index:02}.jpg.png")
            file = tmp_path / name / f"{index:02}.jpg.labels"
            Image.fromarray(np.where(ids == BLUE, 9, ids).astype(np.uint8)).save(file, "PNG")
    entries = {
        name: DatasetConfig(name, "test_lessons", "Fields", {"root": tmp_path / name})
        for name in places
    }
    model = ModelConfig("two", "test_lessons", "TwoColours", {}, tmp_path / "two.pth")
    torch.save(TwoColours().state_dict(), model.model_weights)
    for name, value in {"datasets": entries, "models": {"two": model}}.items():
        monkeypatch.setattr(learn_classes, name, value)
    monkeypatch.setattr(CONFIG, "TRAIN_DATASET", entries["known"])
    return store_stages(tmp_path / "results", model, entries["new"])


def store_stages(io_path, model, entry):
    results = Results(io_path, model.name, entry.name)
    path, parts, pictures = results.embeddings((1, 1), "net"), [], []
    selection = {"suspicion": "entropy", "least": 0.5, "classes": None, "meta_model": None}
    for index, (picture, _) in enumerate(Fields(entry.kwargs["root"]).samples):
        ids = paint(index, True)
        predicted = np.where(ids == BLUE, RED, ids).astype(np.uint8)
        probabilities = np.eye(2, dtype=np.float32)[predicted]
        prediction = Prediction(probabilities, predicted, None, str(picture))
        image = provenance.content(picture)
        made_from = {"network": provenance.identity(model), "image": image}
        write_prediction(results.prediction(index), prediction, made_from, "float32")
        of_segments = provenance.of_segments(made_from, same_ids(2))
        store_segments(results, index, prediction, of_segments)
        components = abs(read_components(results.components(index)))
        number = int(components[5, 2 + index % 4])
        iou = np.full(components.max(), np.nan, np.float32)
        is_chosen = np.arange(1, len(iou) + 1) == number
        facts = {
            "predicted_id": np.array(
                [predicted[components == k][0] for k in range(1, len(iou) + 1)], np.uint16
            ),
            "predicted_iou": iou,
            "suspicion": is_chosen.astype(np.float32),
            "is_chosen": is_chosen,
        }
        left = 2 + index % 4
        table = object_table(
            1,
            dataset="new",
            model_name="two",
            image_path=str(picture),
            image_index=np.array([index]),
            component_index=np.array([number]),
            segments=[np.array([number])],
            image_predicted_iou=[iou],
            box=np.array([[left, 5, left + 3, 7]]),
            predicted_iou=np.full(1, np.nan, np.float32),
            suspicion=np.ones(1, np.float32),
        )
        made = provenance.of_vectors(provenance.digest(of_segments), selection, {"net": "net"})
        tables.write_objects(
            results.vectors(index, path), table.with_facts(**{"segments": facts}), made
        )
        parts.append(table)
        pictures.append([index, provenance.digest(made)])
    columns = {k: np.concatenate([p[k] for p in parts]) for k in parts[0].columns}
    table = parts[0].__class__(columns)
    facts = provenance.of_embeddings(
        {"net": "net"}, {"new": {"pictures": provenance.digest(pictures)}}
    )
    tables.write_embeddings(path, table, facts)
    change_tags(tags_path(path), dict.fromkeys(keys_of(table), "thing"))
    return path


def learn(path, **settings):
    args = {"io_path": str(path.parents[2]), "model_name": "two", "datasets": ["known", "new"]}
    quick = {"epochs": 4, "learning_rate": 0.5, "batch_size": 3, "gpu": None}
    args |= quick | {"tags": ["thing"]} | settings
    return learn_classes.ex.run(config_updates={"args": args}).result


def labels_at(path, index, name="thing"):
    return read_ids(learnt_labels(learnt_folder(path.parents[2], name), "new", index))


def expected_labels(index):
    """What is called a thing has its class, what is trusted around it the one it has."""
    return np.where(paint(index, True) == BLUE, 2, paint(index, False))


# labels


def test_a_dry_run_writes_the_labels_of_all_tagged_objects_and_a_sheet(world):
    learn(world, dry_run=True)
    for index in range(6):
        assert_array_equal(labels_at(world, index), expected_labels(index))
    folder = learnt_folder(world.parents[2], "thing")
    with Image.open(folder / "sheet_1.png") as sheet:
        assert sheet.width > sheet.height / 2
    assert sorted(path.name for path in folder.iterdir()) == ["labels", "sheet_1.png"]


def test_what_has_another_tag_has_no_label(world):
    keys = keys_of(tables.read_embeddings(world))
    other = (*keys[3][:3], (0, 0, 1, 1))  # of no object in the table
    change_tags(tags_path(world), {keys[3]: "else", other: "thing", keys[4]: "third"})
    learn(world, tags=["thing", "third"], dry_run=True)
    assert not learnt_labels(learnt_folder(world.parents[2], "thing_third"), "new", 3).exists()
    assert_array_equal(np.unique(labels_at(world, 0, "thing_third")), [RED, GREEN, 2])
    assert_array_equal(np.unique(labels_at(world, 4, "thing_third")), [RED, GREEN, 3])


@pytest.mark.parametrize("form", ["polygons", "runs"])
def test_a_coco_file_gives_the_same_labels(world, tmp_path, form):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "drawn"}]}
    for index in range(6):
        mask, left = paint(index, True) == BLUE, 2 + index % 4
        counts = np.diff(np.flatnonzero(np.diff(mask.ravel("F"), prepend=0, append=1))).tolist()
        start = int(mask.ravel("F").argmax())
        counts = [start, *counts]
        shape = {
            "polygons": [[left, 5, left + 3, 5, left + 3, 7, left, 7]],
            "runs": {"size": SIZE, "counts": [*counts[:-1], mask.size - sum(counts[:-1])]},
        }[form]
        name = f"upload/{index:02}.jpg.png"
        content["images"].append(dict(id=index, file_name=name, height=8, width=12))
        content["annotations"].append(
            dict(id=index, image_id=index, category_id=1, segmentation=shape)
        )
    file = tmp_path / "drawn.json"
    file.write_text(json.dumps(content))
    learn(world, tags=None, coco=str(file), dry_run=True)
    for index in range(6):
        assert_array_equal(labels_at(world, index, "drawn"), expected_labels(index))
    content["categories"].append({"id": 2, "name": "other"})
    content["annotations"][1]["category_id"] = 2
    file.write_text(json.dumps(content))
    learn(world, tags=["drawn"], coco=str(file), dry_run=True)
    assert not learnt_labels(learnt_folder(world.parents[2], "drawn"), "new", 1).exists()
    with pytest.raises(
        SettingError, match=r"of the category 'cow'; there are: drawn \(5\), other \(1\)"
    ):
        learn(world, tags=["cow"], coco=str(file))
    file.write_text(file.read_text().replace("upload/", "upload/far_"))
    with pytest.raises(SettingError, match="is one of new: name their dataset"):
        learn(world, tags=None, coco=str(file))


def test_new_ids_follow_the_old_and_the_colours_are_others():
    classes = {0: ("red", (200, 0, 0)), 1: ("green", (0, 200, 0))}
    ids, added = choose_classes(["cow", "tent", "Cow"], classes)
    assert ids == {"cow": 2, "tent": 3, "Cow": 2}
    assert list(added) == ["cow", "tent"]
    assert len({*added.values(), (200, 0, 0), (0, 200, 0)}) == 4
    with pytest.raises(SettingError, match=r"class 'Red' already.*args.extend=True"):
        choose_classes(["Red", "cow"], classes)
    ids, added = choose_classes(["Red", "cow"], classes, extends=True)
    assert (ids, list(added)) == ({"Red": 0, "cow": 2}, ["cow"])
    with pytest.raises(SettingError, match="can have 255 classes"):
        choose_classes(["cow"], {k: (f"class {k}", (0, 0, 0)) for k in range(255)})


def test_objects_are_counted_and_few_are_warned_of(caplog):
    table = object_table(11, image_index=np.arange(11) // 4)
    tags = [(*key, tag) for key, tag in zip(keys_of(table), "a" * 10 + "b", strict=True)]
    objects = tagged_objects(table, tags, ["a", "b"])
    assert [len(of.objects) for of in objects.values()] == [4, 4, 3]
    assert count_objects(LOG, objects) == {"a": 10, "b": 1}
    assert "called 'b': only 1" in caplog.text
    assert "'a'" not in caplog.text


# learning


def test_no_class_loses_more_than_a_tenth_of_its_pictures_to_validation():
    tags = {0: "ab"} | dict.fromkeys(range(1, 31), "a") | dict.fromkeys(range(31, 60), "b")
    objects = {
        ImageName("new", index): Tagged([(tag, None) for tag in of * 2])
        for index, of in tags.items()
    }
    held_out = [0, 1, 2, 31, 32]  # three of 31 pictures of a, three of 30 of b
    assert held_out_of(sorted(objects), objects) == [("new", index) for index in held_out]
    del objects["new", 59]
    assert held_out_of(sorted(objects), objects) == [("new", index) for index in (1, 2, 3)]
    del objects["new", 30], objects["new", 29]
    assert held_out_of(sorted(objects), objects) == []  # too few of both


def test_the_script_makes_a_network_that_has_learnt_from_tags(world):
    io_path = world.parents[2]
    first = learn(world)
    facts = read_learnt(io_path, "thing")
    assert facts["classes"]["2"][0] == "thing"
    told = facts["made_from"]
    assert (told["network"], told["tags"], told["round"]) == ("two", {"thing": 6}, 1)
    assert told["pictures"] == {"new": [0, 1, 2, 3, 4, 5]}
    assert not learnt_checkpoint(learnt_folder(io_path, "thing")).exists()
    entry = learn_classes.entries.choose_model(learn_classes.models, "learnt/thing", io_path)
    network = load_network(entry, torch.device("cpu"))
    with torch.inference_mode():
        colours = torch.eye(3).T[None, :, :, None]
        assert network(colours)[0, :, :, 0].argmax(0).tolist() == [RED, GREEN, 2]
    assert first["epoch"] == facts["made_from"]["schedule"]["epochs"]  # the last
    before = learnt_labels(learnt_folder(io_path, "thing"), "new", 0).stat().st_mtime_ns
    assert learn(world) == {}  # it is there
    assert learnt_labels(learnt_folder(io_path, "thing"), "new", 0).stat().st_mtime_ns == before
    assert (rounds.round_of(entry), rounds.learnt_ids(entry)) == (2, range(2, 3))
    with pytest.raises(SettingError, match="choose another args.name"):
        learn(world, name="thing", seed=5)
    how = io_path, None, ["thing"], told, Schedule(seed=5)
    assert rounds.choose_name(*how) == ("thing_2", False)
    how = io_path, "thing", ["thing"], told, Schedule(seed=5)
    assert rounds.choose_name(*how, overwrite=True) == ("thing", False)
    assert rounds.choose_name(io_path, None, ["a/ b", "ü"], {}, Schedule())[0] == "a_b_ü"


@pytest.mark.parametrize("datasets", [["new"], ["unlabelled", "new"]])
def test_without_labels_the_pictures_that_were_searched_are_seen_again(world, datasets):
    known = learn_classes.datasets["known"]
    learn_classes.datasets["unlabelled"] = known._replace(
        name="unlabelled", kwargs=known.kwargs | {"is_labelled": False}
    )
    if len(datasets) == 2:
        with pytest.raises(SettingError, match=r"args.datasets=\[unlabelled\] first, or leave"):
            learn(world, datasets=datasets)
        return
    keys = [key for key in keys_of(tables.read_embeddings(world)) if key[1] >= 4]
    change_tags(tags_path(world), dict.fromkeys(keys, ""))
    found = lessons.Found(world.parents[2], learn_classes.models["two"], world, iou_threshold=0.5)
    card = learn_classes.known_card(world.parents[2], found.model, CONFIG.TRAIN_DATASET)
    samples = lessons.with_transform([learn_classes.datasets["new"]], card)
    names = {ImageName("new", index) for index in range(4)}
    replayed = lessons.replayed_pictures(found, None, samples, None, names)
    assert replayed.names == [("new", 4), ("new", 5)]
    image, labels = replayed[0]
    assert_array_equal(labels, np.where(paint(4, True) == BLUE, 255, paint(4, False)))
    assert_array_equal(image.argmax(0), paint(4, True))
    learn(world, datasets=datasets, epochs=1)


def test_objects_are_added_to_a_class_that_is_there(world):
    keys = keys_of(tables.read_embeddings(world))
    change_tags(tags_path(world), dict.fromkeys(keys, "Green"))
    with pytest.raises(SettingError, match="args.pasted pastes objects of new classes"):
        learn(world, tags=["Green"], extend=True, pasted=4)
    learn(world, tags=["Green"], extend=True, epochs=1)
    assert len(read_learnt(world.parents[2], "Green")["classes"]) == 2
    assert labels_at(world, 0, "Green")[5, 3] == GREEN


# what cannot be learnt


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tags": ["cow"]}, r"carries the tag 'cow'; there are: thing \(6\)"),
        ({"tags": None}, r"`args.tags` must name what to learn"),
        ({"datasets": ["known"]}, "has no objects of known"),
        ({"name": "../thing"}, "must be a name without slashes"),
        ({"train": ["neck"]}, "no module 'neck'"),
        ({"gpu": 99}, "must be the index of a GPU"),
        ({"coco": "/nowhere.json"}, "must be a COCO file"),
    ],
)
def test_settings_that_cannot_work_are_refused_and_no_network_is_written(world, settings, words):
    with pytest.raises(SettingError, match=words):
        learn(world, **settings)
    assert not [*world.parents[2].glob("learnt/*/*")]


def test_pictures_that_are_not_there_are_named(world):
    entries = learn_classes.datasets
    entries["new"] = entries["new"]._replace(kwargs={"root": "/nowhere"})
    with pytest.raises(SettingError, match="there is no folder /nowhere"):
        learn(world)


def test_a_picture_that_is_gone_is_named_before_the_training(world):
    picture, _ = Fields(learn_classes.datasets["new"].kwargs["root"]).samples[2]
    content = picture.read_bytes()
    picture.write_bytes(b"")
    with pytest.raises(SettingError, match="picture 2 of new .*02.jpg.png has changed since"):
        learn(world)
    assert not learnt_checkpoint(learnt_folder(world.parents[2], "thing")).exists()
    picture.unlink()  # those behind it move up
    with pytest.raises(SettingError, match="picture 2 of new .*03.jpg.png is in its place now"):
        learn(world)
    picture.write_bytes(content)
    (picture.parent / "05.jpg.png").unlink()
    with pytest.raises(SettingError, match="picture 5 of new .*does not have it any more"):
        learn(world)


def test_what_fails_leaves_the_network_that_it_was_to_replace(world):
    learn(world, epochs=1)
    io_path, content = world.parents[2], read_learnt(world.parents[2], "thing")
    (learn_classes.datasets["known"].kwargs["root"] / "00.jpg.labels").unlink()
    with pytest.raises(SettingError, match="picture 0 of known cannot be read"):
        learn(world, name="thing", epochs=2, overwrite=True)
    assert read_learnt(io_path, "thing") == content
    assert has_weights(io_path, "thing")


def test_a_place_that_takes_no_file_is_named(world):
    folder = learnt_folder(world.parents[2], "thing")
    folder.mkdir(parents=True)
    (folder / "labels").write_text("no folder")
    with pytest.raises(WriteError, match="cannot be written"):
        learn(world)


def test_labels_that_may_not_be_replaced_are_named_and_stay(world):
    learn(world, dry_run=True)
    folder = learnt_folder(world.parents[2], "thing")
    (folder / "labels" / "new" / "77.png").mkdir()  # as of an earlier look
    with pytest.raises(WriteError, match="77.png cannot be written"):
        learn(world)
    assert_array_equal(labels_at(world, 5), expected_labels(5))


def test_two_runs_do_not_make_one_network(world):
    learn(world, dry_run=True)
    folder = learnt_folder(world.parents[2], "thing")
    with locked(folder), pytest.raises(SettingError, match="another run is making learnt/thing"):
        learn(world, epochs=1)
    learn(world, epochs=1)


def test_a_network_whose_weights_are_damaged_is_made_again(world):
    learn(world, epochs=1)
    folder = learnt_folder(world.parents[2], "thing")
    (weights,) = folder.glob("weights_*.pth")
    content = weights.read_bytes()
    weights.write_bytes(content[:-9])
    assert learn(world, epochs=1)
    assert weights.read_bytes() == content
    assert learn(world, epochs=1) == {}


def test_a_tag_that_is_named_twice_is_one(world):
    learn(world, tags=["thing", "thing"], dry_run=True)
    assert_array_equal(labels_at(world, 0), expected_labels(0))


def test_labels_of_an_earlier_look_go(world):
    learn(world, name="it", dry_run=True)
    keys = keys_of(tables.read_embeddings(world))
    change_tags(tags_path(world), dict.fromkeys(keys[1:], ""))
    learn(world, name="it", dry_run=True)
    folder = learnt_folder(world.parents[2], "it")
    assert [*folder.glob("labels/*/*")] == [learnt_labels(folder, "new", 0)]


def test_objects_of_another_network_are_refused(world):
    weights = learn_classes.models["two"].model_weights
    other = TwoColours()
    other.head.weight.data += 1
    torch.save(other.state_dict(), weights)
    with pytest.raises(SettingError, match="of another network than 'two' as it is now"):
        learn(world)


def test_objects_that_were_measured_again_are_refused(world):
    results = Results(world.parents[2], "two", "new")
    file = results.vectors(4, world)
    table, made_from = tables.read_objects(file)
    tables.write_objects(file, table, made_from | {"segments": "of another day"})
    with pytest.raises(SettingError, match=r"picture 4 of new .*measured again.*datasets=\[new\]"):
        learn(world)


# rounds


def test_tags_go_on_where_the_object_is_found_again():
    table = object_table(
        3,
        box=np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 0, 60, 10]]),
        image_index=np.array([0, 1, 0]),
    )
    tags = [("streets", 0, (0, 0, 10, 5), "half"), ("streets", 0, (50, 0, 60, 4), "less")]
    assert rounds.carried_tags(table, tags) == {keys_of(table)[0]: "half"}
    assert rounds.carried_tags(table, []) == {}


@pytest.fixture
def explored(world, monkeypatch):
    """A function that searches `new` with a network, in all stages, and gives the Explorer.

    Pictures 0 to 3 have a yellow object, too, which is hard to tell from red and from green.
    """
    known = {name: getattr(learn_classes, name) for name in ("datasets", "models")}
    nets = {"colour": ModelConfig("colour", "test_lessons", "MeanColour", {}, None)}
    for script in (pred_images, stage_2, discover_embedding_space):
        for name, value in known.items():
            monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(compute_embeddings, "known_datasets", known["datasets"])
    monkeypatch.setattr(compute_embeddings, "models", known["models"])
    monkeypatch.setattr(compute_embeddings, "embedding_networks", nets)
    shown = []
    monkeypatch.setattr(
        discover_embedding_space, "write_pictures", lambda log, explorer, *_: shown.append(explorer)
    )
    for picture, _ in Fields(known["datasets"]["new"].kwargs["root"]).samples[:4]:
        pixels = np.array(Image.open(picture))
        pixels[5:7, 9:11] = 255, 240, 0
        Image.fromarray(pixels).save(picture)

    def explore(model):
        common = {"model_name": model, "io_path": str(world.parents[2])}
        one = common | {"dataset": "new", "num_cores": 1}
        found = {"datasets": ["new"], "net": "colour", "suspicion": "entropy", "num_cores": 1}
        pred_images.ex.run(config_updates={"args": one | {"gpu": None}})
        stage_2.ex.run(config_updates={"args": one})
        compute_embeddings.ex.run(config_updates={"args": common | found | {"gpu": None}})
        settings = {"args": common | {"method": "pca"}, "mainplot": {"save_path": "map.png"}}
        discover_embedding_space.ex.run(config_updates=settings)
        return shown[-1]

    return explore


def test_every_round_searches_for_what_is_left_with_the_tags_of_the_one_before(world, explored):
    first = explored("two")
    assert first.map.subtitle.get_text() == ""
    path, keys = first.keeping.table_path, keys_of(first.table)
    tags = {key: "hole" if key[3][0] == 9 else "thing" for key in keys}  # by their left edges
    assert Counter(tags.values()) == {"thing": 6, "hole": 4}
    change_tags(tags_path(path), tags)
    learn(path, net="colour")
    second = explored("learnt/thing")
    learnt = "round 2: learnt/thing has learnt thing (6 objects)"
    assert second.map.subtitle.get_text() == f"{learnt}; 4 tags of round 1 carried"
    assert [second.tag_of(row) for row in range(len(second.table))] == ["hole"] * 4
    change_tags(tags_path(second.keeping.table_path), {keys_of(second.table)[0]: ""})
    again = explored("learnt/thing")
    assert again.map.subtitle.get_text() == learnt
    assert [again.tag_of(row) for row in range(4)] == ["", "hole", "hole", "hole"]
    settings = {"tags": ["hole"], "epochs": 1, "learning_rate": 1e-9}  # so as to learn nothing
    learn(path, net="colour", model_name="learnt/thing", **settings)
    told = read_learnt(world.parents[2], "hole")["made_from"]
    assert (told["network"], told["tags"], told["round"]) == ("learnt_thing", {"hole": 3}, 2)
    third = explored("learnt/hole")
    learnt = "round 3: learnt/hole has learnt hole (3 objects) after thing"
    assert third.map.subtitle.get_text() == f"{learnt}; 3 tags of round 2 carried"
    assert [third.tag_of(row) for row in range(4)] == ["", "hole", "hole", "hole"]
