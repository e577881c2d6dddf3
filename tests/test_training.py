"""How grown networks learn: what they learn, what they keep, and what survives a kill."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from configuration import CONFIG, ModelConfig, models
from src import entries
from src import model_card as cards
from src.errors import SettingError
from src.learning.growing import Learnt
from src.learning.training import Epoch, Schedule, draw_curves, losses_of, teach, train, trainable
from src.segmentation.inference import load_network
from src.store.learnt import read_learnt
from src.store.paths import learnt_checkpoint, learnt_curves, learnt_folder
from src.store.weights import read_torch

RED, GREEN, BLUE = torch.eye(3)[:, :, None, None]
QUICK = Schedule(epochs=6, batch_size=4, learning_rate=0.1, crop=(8, 8))
CPU = torch.device("cpu")


class Painted(nn.Module):
    """A decoder of 1 x 1 behind a backbone; its classes are red and green."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3))
        self.head = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.backbone[0].weight[:] = torch.eye(3)[:, :, None, None]
            self.head.weight[:] = 9 * torch.eye(3)[:2, :, None, None]
            self.head.bias[:] = 0

    def forward(self, images):
        return self.head(self.backbone(images))


def grown(kind=Painted):
    torch.manual_seed(0)
    base = {"module_name": "test_training", "class_name": kind.__name__, "kwargs": {}}
    network = Learnt(base, ["head"], [1], kind())
    network.input = {"size": None, "multiple_of": 1}
    return network


def lesson(label, size=(10, 12)):
    """Above red with its label, below blue with the label 2, or what is given."""
    image, labels = RED.expand(3, *size).clone(), torch.zeros(size, dtype=torch.int64)
    image[:, 6:], labels[6:] = BLUE, label
    return image, labels


def green(size=(7, 9)):
    return GREEN.expand(3, *size).clone(), torch.ones(size, dtype=torch.int64)


LESSONS, REPLAYED, VALIDATION = [lesson(2)] * 3, [green()] * 2, [lesson(2), green()]


def test_a_new_class_is_learnt_and_the_old_ones_are_kept(tmp_path):
    network = grown()
    epochs = train(network, 2, LESSONS, REPLAYED, VALIDATION, QUICK, tmp_path)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].cross_entropy < epochs[0].cross_entropy / 2
    assert max(epochs, key=Epoch.merit).iou == [1, 1, 1]
    with torch.no_grad():
        found = network(torch.cat([RED, GREEN, BLUE], 1)[None]).argmax(1)
    assert found.flatten().tolist() == [0, 1, 2]


def test_what_does_not_learn_stays_and_so_do_the_statistics_of_batch_norms(tmp_path):
    network = grown()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    train(network, 2, LESSONS, REPLAYED, [], QUICK, tmp_path)
    changed = {key for key, value in network.state_dict().items() if not value.equal(before[key])}
    assert changed == {"network.head.weight", "network.head.bias"}


def test_of_old_classes_what_is_kept_goes_back_a_part_of_the_way(tmp_path):
    network, one_step = grown(), Schedule(epochs=1, learning_rate=0.1, weight_decay=0)
    train(network, 2, LESSONS, [], [], one_step, tmp_path)
    # the first step of Adam is the rate, ten times that in the first epoch: of it the mean has 0.9,
    # and of that what is kept of old classes 0.6
    changes = network.network.head.bias.abs().tolist()
    assert changes == pytest.approx([0.54, 0.54, 0.9], rel=1e-4)


class Killed:
    """Lessons whose reading fails once, after some of them."""

    def __init__(self, lessons, after):
        self.lessons, self.left = lessons, after

    def __len__(self):
        return len(self.lessons)

    def __getitem__(self, index):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.lessons[index]


def test_a_kill_costs_an_epochs_part_and_leads_to_the_same_weights(tmp_path):
    whole, killed, reads = grown(), grown(), Killed(LESSONS, after=math.inf)
    expected = train(whole, 2, LESSONS, REPLAYED, VALIDATION, QUICK, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):  # in the third epoch
        train(killed, 2, Killed(LESSONS, 8), REPLAYED, VALIDATION, QUICK, tmp_path / "killed")
    again = grown()
    reads.left = 4 * len(LESSONS)
    epochs = train(again, 2, reads, REPLAYED, VALIDATION, QUICK, tmp_path / "killed")
    assert epochs == expected and reads.left == 0
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_other_lessons_begin_anew_after_a_kill(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(grown(), 2, Killed(LESSONS, 8), [], [], QUICK, tmp_path, {"tags": ["tent"]})
    lessons = Killed(LESSONS, QUICK.epochs * len(LESSONS))
    train(grown(), 2, lessons, [], [], QUICK, tmp_path, {"tags": ["cow"]})
    assert lessons.left == 0


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_checkpoint_that_is_broken_or_of_something_else_is_no_obstacle(content, tmp_path):
    expected = train(grown(), 2, LESSONS, REPLAYED, [], QUICK, tmp_path)
    if content:
        learnt_checkpoint(tmp_path).write_bytes(content)
    else:  # of other settings
        train(grown(), 2, LESSONS, REPLAYED, [], Schedule(epochs=1), tmp_path)
    assert train(grown(), 2, LESSONS, REPLAYED, [], QUICK, tmp_path) == expected


class Broken(Killed):
    """Lessons whose pictures hold no numbers after some of them."""

    def __getitem__(self, index):
        self.left -= 1
        image, labels = self.lessons[index]
        return (image * math.nan if self.left < 0 else image), labels


def test_a_loss_that_is_no_number_ends_the_training_with_the_best_epoch(tmp_path, caplog):
    network = grown()
    short = train(network, 2, Broken(LESSONS, 7), [], [], QUICK, tmp_path / "broken")
    assert [epoch.number for epoch in short] == [1, 2]
    assert "the loss of epoch 3 is not finite: the training ends here" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        train(grown(), 2, Killed(LESSONS, 6), [], [], QUICK, tmp_path / "killed")
    best = max(short, key=Epoch.merit)
    assert best == short[-1]  # so that the parameters are those after the second epoch
    kept = read_torch(learnt_checkpoint(tmp_path / "killed"))["means"]
    for key, value in trainable(network).items():
        assert torch.equal(value, kept[key])


def test_a_loss_that_is_no_number_from_the_start_is_an_error(tmp_path):
    with pytest.raises(SettingError, match="loss of epoch 1 is not finite: choose a smaller"):
        train(grown(), 2, Broken(LESSONS, 0), [], [], QUICK, tmp_path)
    assert not learnt_checkpoint(tmp_path).exists()


class Rooted(Painted):
    """Its output is that of Painted, and its gradient no number."""

    def forward(self, images):
        return super().forward(images) + (0 * self.head.bias[0]).sqrt()


def test_weights_that_are_no_numbers_after_a_finite_loss_are_an_error(tmp_path):
    network, one_step = grown(Rooted), Schedule(epochs=1, batch_size=4)
    with pytest.raises(SettingError, match="epoch 1 is not finite"):
        train(network, 2, LESSONS, [], [], one_step, tmp_path)
    assert not learnt_checkpoint(tmp_path).exists()


class Greedy(Painted):
    """Takes more memory than any machine has."""

    def forward(self, images):
        return super().forward(images) + torch.empty(2**52)[0]


def test_too_little_memory_names_the_settings_that_need_less(tmp_path):
    with pytest.raises(SettingError, match="4 parts of 8 x 8 pixels a step: lower args.batch_size"):
        train(grown(Greedy), 2, LESSONS, [], [], QUICK, tmp_path)


def test_without_lessons_there_is_nothing_to_learn(tmp_path):
    with pytest.raises(SettingError, match="no picture with labels of a new class"):
        train(grown(), 2, [], REPLAYED, [], QUICK, tmp_path)


def test_the_modules_that_learn_can_be_named():
    network = grown()
    assert trainable(network).keys() == {"head.weight", "head.bias"}
    assert trainable(network, ["backbone.0"]).keys() == {
        "backbone.0.weight", "head.weight", "head.bias"
    }  # fmt: skip
    learns = [key for key, value in network.named_parameters() if value.requires_grad]
    assert "network.backbone.1.weight" not in learns and len(learns) == 3
    with pytest.raises(SettingError, match="no module 'back'.*it has backbone, head"):
        trainable(network, ["back"])


def test_losses_are_those_of_the_paper():
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 2, 0, 0] = math.log(2)  # probabilities 1/4, 1/4, 1/2
    labels = torch.tensor([[[2, 0, 0, 255]]])
    old = torch.zeros(1, 2, 1, 4)
    old[0, 0] = math.log(3)  # probabilities 3/4, 1/4
    hard, soft = losses_of(logits, labels, old)
    new, known = 1 / (1 + 1 / 4 * 3 / 4), 1 / (1 + 1 / 2 * 1 / 2)
    assert hard.item() == pytest.approx((new * math.log(2) + 2 * known * math.log(3)) / 4)
    # of two old classes that are alike; three where the label is an old class
    assert soft.item() == pytest.approx((2 * math.log(2) + 2 * math.log(3)) / 4)


def test_a_batch_without_labels_teaches_by_the_old_network_alone():
    hard, soft = losses_of(
        torch.zeros(1, 3, 1, 2), torch.full((1, 1, 2), 255), torch.ones(1, 2, 1, 2)
    )
    assert hard.item() == 0 and soft.item() == pytest.approx(math.log(2))


def test_the_best_epoch_is_that_of_the_highest_mean_iou_or_the_last():
    assert Epoch(1, 0.5, 0.25, [1.0, math.nan, 1.0, 0.5], 3).merit() == 0.75  # old, new: half each
    assert Epoch(1, 0.5, 0.25, [1.0, math.nan], 1).merit() == 1
    assert Epoch(3, 0.5, 0.25, None, 2).merit() == 3


def test_networks_of_one_size_see_whole_pictures(tmp_path):
    network, seen = grown(), []
    network.input = {"size": (4, 4), "multiple_of": 1}
    network.network.register_forward_hook(lambda _, given, made: seen.append(given[0].shape[2:]))
    train(network, 2, LESSONS, [], [], Schedule(epochs=1, crop=(2, 2)), tmp_path)
    assert {tuple(size) for size in seen} == {(4, 4)}


def test_learning_curves_are_a_picture(tmp_path):
    epochs = [Epoch(k, 1 / k, 1, [0.5, math.nan, k / 3], 2) for k in (1, 2, 3)]
    draw_curves(epochs, ["road", "sky", "tent"], 2, tmp_path / "a")
    draw_curves([Epoch(1, 0.5, 0.5, None, 2)], ["road", "sky", "tent"], 2, tmp_path / "b")
    assert (tmp_path / "a.png").is_file() and (tmp_path / "b.png").is_file()


def test_what_was_taught_is_a_network_by_its_name(tmp_path):
    entry = ModelConfig(
        "tiny", "src.model.deepv3", "DeepWV3Plus", {"num_classes": 19, "width": 0.0625}, None
    )
    torch.manual_seed(0)
    torch.save(load_network(entry, CPU).state_dict(), tmp_path / "tiny.pth")
    entry = entry._replace(model_weights=tmp_path / "tiny.pth")
    card = cards.card_of(entry, CONFIG.TRAIN_DATASET, {})
    folder = learnt_folder(tmp_path, "blue")
    image, labels = torch.rand(3, 16, 24), torch.full((16, 24), 19)
    lessons = [(image, labels)], [(image, labels % 19)], [(image, labels)]
    plan, made_from = Schedule(epochs=2), {"network": "tiny", "tags": {"blue": 1}}
    added = {"blue": (0, 0, 255)}
    epochs = teach(entry, card, added, lessons, plan, folder, made_from, CPU)
    facts = read_learnt(tmp_path, "blue")
    assert facts["made_from"]["tags"] == {"blue": 1}
    assert facts["made_from"]["schedule"]["weight_decay"] == 1e-4
    assert [epoch["number"] for epoch in facts["made_from"]["epochs"]] == [1, 2] == [
        epoch.number for epoch in epochs
    ]  # fmt: skip
    assert learnt_curves(folder).with_suffix(".png").is_file()
    assert not learnt_checkpoint(folder).exists()
    network = load_network(entries.choose_model(models, "learnt/blue", tmp_path), CPU)
    assert network(image[None]).shape == (1, 20, 16, 24)
    assert np.isfinite(epochs[-1].iou[19])


def test_the_defaults_are_those_of_the_paper():
    plan = Schedule()
    assert (plan.learning_rate, plan.weight_decay, plan.power) == (5e-5, 1e-4, 0.9)
    assert (plan.epochs, plan.batch_size, plan.distillation) == (70, 5, 0.5)
