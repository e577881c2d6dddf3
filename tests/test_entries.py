"""Names on the command line: entries, folders, kinds of networks, and names of earlier results."""

import pytest
from PIL import Image

from configuration import CONFIG, datasets, models
from src import entries, model_card
from src.errors import SettingError, WriteError
from src.store import names


def photos(folder):
    folder.mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(folder / "a.png")
    return folder


def test_an_entry_is_itself(tmp_path):
    assert entries.choose_dataset(datasets, "streets", tmp_path) is datasets["streets"]
    assert entries.choose_model(models, "deeplabv3plus", tmp_path) is models["deeplabv3plus"]


@pytest.mark.parametrize("word", ["./photos", "photos/", "{}/photos", "~/photos", "$HOME/photos"])
def test_a_folder_takes_the_place_of_an_entry(tmp_path, monkeypatch, word):
    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    entry = entries.choose_dataset(datasets, word.format(tmp_path), tmp_path / "results")
    assert (entry.name, entry.class_name) == ("photos", "CustomDataset")
    assert entry.kwargs == {"root": str(tmp_path / "photos"), "recursive": True}
    assert not (tmp_path / "results").exists()


def test_two_folders_of_one_name_have_two_names_which_later_stages_take(tmp_path):
    first, second = photos(tmp_path / "a" / "photos"), photos(tmp_path / "b" / "photos")
    results = tmp_path / "results"
    for folder, name in ((first, "photos"), (second, "photos_2"), (first, "photos")):
        assert entries.choose_dataset(datasets, str(folder), results, keeps=True).name == name
    for name, folder in (("photos", first), ("photos_2", second)):
        assert entries.choose_dataset(datasets, name, results).kwargs["root"] == str(folder)
    assert entries.dataset_names(datasets, [f"{second}/", "streets"], results) == [
        "photos_2",
        "streets",
    ]


def test_a_folder_never_takes_the_name_of_an_entry(tmp_path):
    folder = photos(tmp_path / "streets")
    assert entries.choose_dataset(datasets, str(folder), tmp_path, keeps=True).name == "streets_2"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("my photos (2)", "my_photos__2_"), ("2024", "_2024"), (".hidden", "hidden"), ("1e5", "_1e5")],
)
def test_a_name_stays_itself_on_a_command_line(tmp_path, folder, name):
    path = photos(tmp_path / folder)
    assert entries.choose_dataset(datasets, str(path), tmp_path).name == name


def test_what_is_no_dataset_is_told_with_what_could_be(tmp_path, monkeypatch):
    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=r"no dataset 'photos'.*'streets'.*here is ./photos"):
        entries.choose_dataset(datasets, "photos", tmp_path)
    with pytest.raises(SettingError, match="'./nowhere': there is no folder .*nowhere"):
        entries.choose_dataset(datasets, "./nowhere", tmp_path)


@pytest.mark.parametrize(
    ("word", "name", "kwargs"),
    [
        ("hf/nvidia/b0", "hf_nvidia_b0", {"name": "nvidia/b0"}),
        ("torchvision/fcn_resnet50", "torchvision_fcn_resnet50", {"name": "fcn_resnet50"}),
        ("hf/{}/own/model", "hf_own_model", {"name": "{}/own/model"}),
        ("onnx/{}/own/net.onnx", "onnx_own_net", {"path": "{}/own/net.onnx"}),
        ("predictions/{}/own/model", "predictions_own_model", {"folder": "{}/own/model"}),
    ],
)
def test_a_network_is_named_by_its_kind(tmp_path, word, name, kwargs):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "net.onnx").touch()
    results = tmp_path / "results"
    entry = entries.choose_model(models, word.format(tmp_path), results, keeps=True)
    assert entry.name == name
    assert entry.kwargs == {key: value.format(tmp_path) for key, value in kwargs.items()}
    assert entries.choose_model(models, name, results) == entry


def test_what_is_no_model_is_told_with_what_could_be(tmp_path):
    with pytest.raises(SettingError, match=r"no model 'segformer'.*hf/<name or folder>, .*onnx/"):
        entries.choose_model(models, "segformer", tmp_path)
    with pytest.raises(SettingError, match="'onnx/net.onnx': there is no file or folder .*net"):
        entries.choose_model(models, "onnx/net.onnx", tmp_path)


def test_a_name_is_not_given_away_twice(tmp_path):
    names.note(tmp_path, "datasets", "photos", stands_for="/a/photos")
    with pytest.raises(SettingError, match="'photos' has come to stand for /a/photos"):
        names.note(tmp_path, "datasets", "photos", stands_for="/b/photos")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stands_for": 5}', "[" * 100_000])
def test_a_broken_file_of_a_name_is_told_with_the_way_out(tmp_path, content):
    path = tmp_path / "names" / "models" / "hf_x.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(SettingError, match="hf_x.json is broken .* delete it"):
        names.read(tmp_path, "models", "hf_x")


def test_the_folder_above_all_has_a_name_too(tmp_path):
    (tmp_path / "results").mkdir()
    assert entries.choose_model(models, "predictions//", tmp_path / "results").kwargs == {
        "folder": "/"
    }


def test_where_no_name_can_be_kept_that_is_said(tmp_path):
    (tmp_path / "results").touch()
    assert names.read(tmp_path / "results", "models", "net") == {}
    with pytest.raises(WriteError, match="results/names/models cannot be written .Not a directory"):
        names.note(tmp_path / "results", "models", "net", stands_for="a")


# cards

NET = models["deeplabv3plus_streets"]
TRAINED_ON = CONFIG.TRAIN_DATASET


def own_network(**changed):
    return NET._replace(kwargs={}, **changed)


def test_without_a_word_from_anybody_the_classes_are_those_of_the_training_dataset():
    card = model_card.card_of(own_network(), TRAINED_ON, {})
    assert (len(card.classes), card.count, card.trained_on) == (19, None, TRAINED_ON)
    assert card.classes[13] == ("car", (0, 0, 142))
    assert card.mean == (0.485, 0.456, 0.406)


def test_names_of_classes_are_different_and_one_line_whatever_a_file_calls_them():
    odd = ["car", "Car", "car (0)", "two\nlines", "\x1b[31mred", "\ud800", "\u202eright"]
    card = model_card.card_of(own_network(), TRAINED_ON, {"classes": odd})
    assert [name for name, _ in card.classes.values()] == [
        *("car (0) (0)", "Car (1)", "car (0) (2)", "two lines", "[31mred", "class 5", "right"),
    ]


def test_another_number_of_classes_has_numbers_for_names_and_colours_of_its_own():
    card = model_card.card_of(own_network(), TRAINED_ON, {"classes": 21})
    assert [name for name, _ in card.classes.values()] == [f"class {k}" for k in range(21)]
    assert len({colour for _, colour in card.classes.values()}) == 21
    assert card.trained_on is None


def test_the_entry_counts_more_than_the_network_and_that_more_than_the_training_dataset():
    says = {"classes": ["sky", "sea"], "mean": [0.1] * 3, "size": [4, 6], "from": "config.json"}
    card = model_card.card_of(own_network(), TRAINED_ON, says)
    assert [name for name, _ in card.classes.values()] == ["sky", "sea"]
    assert (card.mean, card.std, card.size) == ((0.1,) * 3, (0.229, 0.224, 0.225), (4, 6))
    assert "config.json" in card.origin
    entry = own_network(classes=[("a", (1, 2, 3)), "b"], mean=(0.5,) * 3, multiple_of=32)
    card = model_card.card_of(entry, TRAINED_ON, says)
    assert card.classes[0] == ("a", (1, 2, 3)) and card.classes[1][0] == "b"
    assert (card.mean, card.multiple_of) == ((0.5,) * 3, 32)


def test_more_classes_than_ids_are_refused():
    with pytest.raises(SettingError, match="has 256 classes; at most 255 can be told apart"):
        model_card.card_of(own_network(), TRAINED_ON, {"classes": 256})


def test_classes_of_known_names_have_their_known_colours():
    card = model_card.card_of(own_network(), TRAINED_ON, {"classes": ["Car", "road"]})
    assert card.classes == {0: ("Car", (0, 0, 142)), 1: ("road", (128, 64, 128))}


def test_classes_of_one_name_are_told_apart_by_their_ids():
    card = model_card.card_of(own_network(), TRAINED_ON, {"classes": ["a", "b", "a"]})
    assert [name for name, _ in card.classes.values()] == ["a (0)", "b", "a (2)"]


def test_ids_with_gaps_are_refused():
    with pytest.raises(SettingError, match=r"must have the ids 0, 1, ..., got \[0, 2\]"):
        model_card.card_of(own_network(), TRAINED_ON, {"classes": {"0": "a", "2": "b"}})


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("classes", {"road": "a"}, "names in the order of ids"),
        ("classes", ["a", 3], "names in the order of ids"),
        ("classes", "abc", "names in the order of ids"),
        ("classes", 1, "a number >= 2"),
        ("mean", 0.5, "3 numbers"),
        ("size", 64, "in pixels"),
        ("size", {"longest_edge": 9}, "shortest_edge"),
        ("multiple_of", 32.0, "a whole number >= 1"),
    ],
)
def test_what_an_entry_says_wrongly_is_told_with_what_is_allowed(field, value, allowed):
    message = f"`{field} of model deeplabv3plus_streets` must be .*{allowed}.*, got "
    with pytest.raises(SettingError, match=message):
        model_card.card_of(own_network(**{field: value}), TRAINED_ON, {})


def test_later_stages_know_what_stage_1_has_kept_of_the_same_network(tmp_path):
    model_card.keep(tmp_path, NET, {"classes": {0: ("a", (1, 2, 3)), 1: ("b", (3, 2, 1))}})
    assert model_card.known_card(tmp_path, NET, TRAINED_ON).classes == {
        0: ("a", (1, 2, 3)),
        1: ("b", (3, 2, 1)),
    }
    other = NET._replace(kwargs={"num_classes": 19})
    assert len(model_card.known_card(tmp_path, other, TRAINED_ON).classes) == 19
