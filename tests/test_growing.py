"""Networks with room for further classes: what stays, what is added, and who cannot grow."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import model_card
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate
from torchvision.models import segmentation

import pred_images
from configuration import CONFIG, ModelConfig, models
from src import entries
from src import model_card as cards
from src.errors import SettingError, WriteError
from src.learning.growing import decoder_of, grow, last_layers, widen
from src.model.deepv3 import DeepWV3Plus
from src.segmentation.class_maps import find_maps
from src.segmentation.inference import load_network
from src.store.arrays import read_prediction
from src.store.learnt import has_weights, read_learnt, write_learnt
from src.store.paths import Results, learnt_facts, learnt_folder

ADDED = {"tent": (154, 205, 50), "cow": (150, 75, 0)}
MADE_FROM = {"network": "tiny", "tags": {"tent": 12, "cow": 9}}
CPU = torch.device("cpu")
WIDTH = 0.0625


def entry_of(network, folder, **facts):
    """An entry for a network of torchvision or of this project, with random weights in a file."""
    torch.manual_seed(0)
    module, class_name, kwargs = network
    made = ModelConfig("tiny", module, class_name, kwargs, None, **facts)
    state = load_network(made, CPU).state_dict()
    torch.save(state, folder / "tiny.pth")
    return made._replace(model_weights=folder / "tiny.pth")


OURS = "src.model.deepv3", "DeepWV3Plus", {"num_classes": 19, "width": WIDTH}
NO_DOWNLOAD = {"weights_backbone": None, "num_classes": 5}
TORCHVISION = [
    ("torchvision.models.segmentation", "lraspp_mobilenet_v3_large", NO_DOWNLOAD),
    ("torchvision.models.segmentation", "deeplabv3_mobilenet_v3_large", NO_DOWNLOAD),
    ("torchvision.models.segmentation", "deeplabv3_mobilenet_v3_large",
     NO_DOWNLOAD | {"aux_loss": True}),
]  # fmt: skip
LAST = [
    ["network.classifier.low_classifier", "network.classifier.high_classifier"],
    ["network.classifier.4"],
    ["network.classifier.4", "network.aux_classifier.4"],
]


@torch.no_grad()
def assert_grows(entry, card, size=(64, 96), rounding=0):
    """Old logits stay bit by bit, new ones are there; gives the grown network and its facts."""
    torch.manual_seed(1)
    images, old = torch.rand(2, 3, *size), load_network(entry, CPU)
    expected = find_maps(old, old(images))
    network, facts = grow(entry, card, ADDED)
    maps = find_maps(network, network(images))
    assert maps.shape[1] == len(card.classes) + 2
    torch.testing.assert_close(maps[:, :-2], expected, rtol=0, atol=rounding)
    assert maps[:, -1].std() > 0 and not torch.equal(maps[:, -1], maps[:, -2])
    return network, facts


def test_the_old_classes_of_this_projects_network_are_unchanged(tmp_path):
    network, facts = assert_grows(entry_of(OURS, tmp_path), model_card(19))
    assert facts["layers"] == ["final.6"]
    assert facts["classes"][18] == ("class 18", (18, 18, 18))
    assert facts["classes"][20] == ("cow", (150, 75, 0))
    assert network.features(torch.rand(1, 3, 64, 64)).shape[1] == 24  # those of its own


@pytest.mark.parametrize(("network", "last"), list(zip(TORCHVISION, LAST, strict=True)))
def test_the_old_classes_of_torchvisions_networks_are_unchanged(network, last, tmp_path):
    grown, facts = assert_grows(entry_of(network, tmp_path), model_card(5))
    assert [f"network.{name}" for name in facts["layers"]] == last
    every = dict(grown.named_modules())
    assert [every[name].out_channels for name in last] == [7] * len(last)


@pytest.mark.parametrize("family", ["segformer", "upernet", "dpt", "beit", "mobilevit"])
def test_the_old_classes_of_hugging_faces_networks_of_pixels_are_unchanged(family, tmp_path):
    hugging = pytest.importorskip("test_huggingface", exc_type=ImportError)
    hugging.build(family).save_pretrained(tmp_path)
    entry = ModelConfig("hf", "src.model.huggingface", "HuggingFace", {"name": str(tmp_path)}, None)
    size = (64, 64) if family in hugging.OF_ONE_SIZE else None
    rounding = 1e-6 if family == "upernet" else 0  # it resizes five maps in another way than three
    grown, _ = assert_grows(entry, model_card(3, size=size), size or (64, 96), rounding)
    assert not any(name.startswith(f"network.network.{family}") for name in decoder_of(grown))


def test_networks_that_classify_masks_are_refused(tmp_path):
    hugging = pytest.importorskip("test_huggingface", exc_type=ImportError)
    hugging.build("mask2former").save_pretrained(tmp_path)
    entry = ModelConfig("hf", "src.model.huggingface", "HuggingFace", {"name": str(tmp_path)}, None)
    with pytest.raises(SettingError, match="sum of masks.*choose a network .* SegFormer"):
        grow(entry, model_card(3), ADDED)


def test_what_has_no_weights_here_is_refused(tmp_path):
    entry = ModelConfig("net", "torch.nn", "Identity", {}, None)
    with pytest.raises(SettingError, match="'net' runs outside of torch"):
        grow(entry, model_card(3), ADDED)
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 5), np.float16))
    stored = ("src.model.predictions", "Predictions", {"folder": str(tmp_path)})
    with pytest.raises(SettingError, match="'net' is what another program predicted"):
        grow(ModelConfig("net", *stored, None), model_card(3), ADDED)


class Odd(nn.Module):
    """Its last layer gives three classes; one inside has as many outputs, and one is of no use."""

    def __init__(self, probabilities=False):
        super().__init__()
        self.inside, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.head, self.probabilities = nn.Linear(3, 3), probabilities

    def forward(self, images):
        small = interpolate(images, scale_factor=0.5)
        maps = self.head(self.inside(small).movedim(1, -1)).movedim(-1, 1)
        return maps.softmax(1) if self.probabilities else maps


def test_a_layer_inside_that_has_as_many_outputs_is_no_last_one():
    assert last_layers(Odd(), model_card(3)) == ["head"]


def test_a_network_without_such_a_layer_says_what_its_entry_can_name():
    with pytest.raises(SettingError, match=r"Odd has no .* its 3 classes.*last_layers=\[...\]"):
        last_layers(Odd(probabilities=True), model_card(3))


@pytest.mark.parametrize("name", ["haed", "", "final.5"])
def test_what_is_no_layer_of_outputs_is_told(name, tmp_path):
    entry = entry_of(OURS, tmp_path, last_layers=[name])
    with pytest.raises(SettingError, match=f"DeepWV3Plus: '{name}' is no convolution or linear"):
        grow(entry, model_card(19), ADDED)


def test_new_weights_begin_as_those_of_the_paper():
    network = nn.Sequential(nn.Conv2d(8, 3, 1))
    old = [tensor.clone() for tensor in network.parameters()]
    widen(network, "0", 100)
    new = network[0].weight[3:].detach()
    assert torch.equal(network[0].weight[:3], old[0]) and torch.equal(network[0].bias[:3], old[1])
    assert not network[0].bias[3:].any()
    assert new.min() >= 0 and 0.45 < new.max() <= 0.5  # the root of 2 / 8
    assert new.mean() == pytest.approx(0.25, abs=0.03)


def test_the_same_seed_gives_the_same_weights(tmp_path):
    entry, states = entry_of(OURS, tmp_path), []
    for seed in (0, 0, 1):
        states.append(grow(entry, model_card(19), ADDED, seed)[0].state_dict())
    key = "network.final.6.weight"
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


def test_decoders_are_what_networks_say_or_all_but_the_encoder():
    assert decoder_of(DeepWV3Plus(19, WIDTH)) == ["bot_fine", "bot_aspp", "final"]
    wrapped = nn.Module()
    wrapped.network = segmentation.lraspp_mobilenet_v3_large(weights_backbone=None)
    assert decoder_of(wrapped) == ["network.classifier"]


# kept


@pytest.fixture
def learnt(tmp_path):
    """Folder of results with a network learnt/camp, of the demo's as it is at the start."""
    entry = entry_of(OURS, tmp_path)
    card = cards.card_of(entry, CONFIG.TRAIN_DATASET, {})
    network, facts = grow(entry, card, ADDED)
    folder = learnt_folder(tmp_path, "camp")
    write_learnt(folder, network.state_dict(), facts | {"made_from": MADE_FROM})
    return tmp_path


def test_what_was_learnt_is_a_network_by_its_name(learnt):
    entry = entries.choose_model(models, "learnt/camp", learnt, keeps=True)
    assert entry.name == "learnt_camp"
    assert entries.choose_model(models, "learnt_camp", learnt) == entry
    card = cards.card_of(entry, CONFIG.TRAIN_DATASET, {})
    assert card.classes[13] == ("car", (0, 0, 142))
    assert card.classes[19] == ("tent", (154, 205, 50))
    assert card.mean == (0.485, 0.456, 0.406)
    network = load_network(entry, CPU)
    state = torch.load(entry.model_weights, weights_only=True)
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert read_learnt(learnt, "camp")["made_from"] == MADE_FROM


def test_what_was_learnt_can_learn_more(learnt):
    entry = entries.choose_model(models, "learnt/camp", learnt)
    card = cards.card_of(entry, CONFIG.TRAIN_DATASET, {})
    network, facts = grow(entry, card, {"boat": (1, 2, 3)})
    assert (facts["base"]["class_name"], facts["layers"]) == ("DeepWV3Plus", ["final.6"])
    assert facts["added"] == [2, 1]
    assert [facts["classes"][k][0] for k in (19, 20, 21)] == ["tent", "cow", "boat"]
    facts["made_from"] = MADE_FROM
    write_learnt(learnt_folder(learnt, "boats"), network.state_dict(), facts)
    again = load_network(entries.choose_model(models, "learnt/boats", learnt), CPU)
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(images)[:, :21], load_network(entry, CPU)(images))


def test_stage_1_takes_a_learnt_network(learnt):
    (learnt / "photos").mkdir()
    Image.new("RGB", (48, 40), (90, 120, 60)).save(learnt / "photos" / "a.png")
    settings = {"model_name": "learnt/camp", "dataset": f"{learnt}/photos", "io_path": str(learnt)}
    pred_images.ex.run(config_updates={"args": settings | {"num_cores": 1}})
    prediction = read_prediction(Results(learnt, "learnt_camp", "photos").prediction(0))
    assert prediction.probabilities.shape == (40, 48, 21)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no learnt network 'camp'; there are: none"),
        ("{", "learnt.json is broken"),
        ("[]", "learnt.json is broken"),
        ('{"format": 99}', "its format is 99, not 2"),
        ('{"format": 2, "base": {}, "layers": []}', "it lacks added, classes, made_from, mean"),
        ({"base": {}}, "its `base` is '{}'"),
        ({"base": {"module_name": 1, "class_name": "A", "kwargs": {}}}, "its `base` is"),
        ({"layers": 5}, "its `layers` is '5'"),
        ({"added": ["a"]}, "its `added` is"),
        ({"classes": {}}, "its `classes` is '{}'"),
        ({"made_from": None}, "its `made_from` is 'None'"),
        ({"sha256": "../../a"}, "its `sha256` is"),
    ],
)
def test_what_is_no_learnt_network_is_told(content, message, learnt):
    path = learnt_facts(learnt_folder(learnt, "camp"))
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SettingError, match=message):
        entries.choose_model(models, "learnt/camp", learnt)


@pytest.mark.promise(12)
def test_what_was_learnt_names_no_code_that_the_configuration_does_not(learnt, tmp_path):
    path = learnt_facts(learnt_folder(learnt, "camp"))
    call = {"command": f"touch {tmp_path / 'hacked'}"}
    base = {"module_name": "os", "class_name": "system", "kwargs": call}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": base}))
    with pytest.raises(SettingError, match="made from os.system, which no entry of `models`"):
        load_network(entries.choose_model(models, "learnt/camp", learnt), CPU)
    assert not (tmp_path / "hacked").exists()


def full(place):
    """What takes the place of Path.replace on a disk with no room for files called like that."""
    replace = Path.replace

    def move(path, to):
        if to.name.startswith(place):
            raise OSError(errno.ENOSPC, "", str(path))
        return replace(path, to)

    return move


def test_where_the_disk_takes_no_weights_the_network_before_stays(learnt, monkeypatch):
    folder = learnt_folder(learnt, "camp")
    for place in (learnt_facts(folder).name, "weights_"):
        with monkeypatch.context() as patch, pytest.raises(WriteError, match="No space left"):
            patch.setattr(Path, "replace", full(place))
            write_learnt(folder, {"a": torch.ones(1)}, {"base": {}})
        assert has_weights(learnt, "camp")


def test_a_network_by_its_name_needs_no_torch(learnt):
    code = (
        "import sys; from configuration import models; from src import entries; "
        f"print(entries.choose_model(models, 'learnt/camp', {str(learnt)!r}).classes['19'][0], "
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tent", "False"]


def test_facts_are_json_that_people_can_read(learnt):
    facts = json.loads(learnt_facts(learnt_folder(learnt, "camp")).read_text())
    assert facts["base"]["kwargs"] == {"num_classes": 19, "width": WIDTH}
    assert facts["classes"]["20"] == ["cow", [150, 75, 0]]
