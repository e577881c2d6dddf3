"""Published networks of torchvision: their weights, what they say of themselves, and what fails."""

import hashlib

import pytest
import torch
from torchvision.models import get_model, get_model_weights

from src.errors import SettingError
from src.model.torchvision_models import Torchvision

NAME = "lraspp_mobilenet_v3_large"  # the smallest


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder where torch keeps what it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return tmp_path / "hub" / "hub" / "checkpoints"


def publish(network, name, folder, monkeypatch):
    """Publish weights in a folder, by their SHA-256 as torchvision does; gives the file."""
    torch.save(network.state_dict(), folder / "weights.pth")
    digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    file = (folder / "weights.pth").rename(folder / f"{name}-{digest[:8]}.pth")
    monkeypatch.setattr(get_model_weights(name).DEFAULT.value, "url", file.as_uri())
    return file


def untrained(name, **kwargs):
    torch.manual_seed(0)
    return get_model(name, weights=None, weights_backbone=None, **kwargs).eval()


@pytest.mark.parametrize(
    ("name", "kwargs"), [(NAME, {}), ("deeplabv3_mobilenet_v3_large", {"aux_loss": True})]
)
def test_published_weights_are_fetched_once_and_give_the_logits_of_torchvision(
    name, kwargs, hub, tmp_path, monkeypatch
):
    expected = untrained(name, **kwargs)
    file = publish(expected, name, tmp_path, monkeypatch)
    images = torch.rand(1, 3, 40, 56)
    for _ in range(2):  # the second finds it in the cache alone
        network = Torchvision(name).eval()
        file.unlink(missing_ok=True)
        with torch.inference_mode():
            torch.testing.assert_close(network(images), expected(images)["out"])
    assert [path.name for path in hub.iterdir()] == [file.name]


def test_classes_mean_and_std_are_those_of_the_published_weights():
    said = Torchvision.describe(NAME)
    assert len(said["classes"]) == 21
    assert said["classes"][:2] == ["__background__", "aeroplane"]
    assert (said["mean"], said["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert "size" not in said and "COCO_WITH_VOC_LABELS_V1" in said["from"]


@pytest.mark.parametrize("what", [Torchvision, Torchvision.describe])
def test_a_name_without_published_weights_is_an_error_with_a_near_one(what):
    with pytest.raises(SettingError, match="'deeplabv3_resnet5'.* mean 'deeplabv3_resnet50'"):
        what("deeplabv3_resnet5")
    with pytest.raises(SettingError, match="no weights .*'segformer'.* It does of: deeplabv3_"):
        what("segformer")


def test_a_failed_download_says_which_file_to_put_where(hub, tmp_path, monkeypatch):
    gone = tmp_path / "gone-01234567.pth"
    monkeypatch.setattr(get_model_weights(NAME).DEFAULT.value, "url", gone.as_uri())
    expected = f"fetch {gone.as_uri()} .* gone-01234567.pth into {hub}, .*`model_weights`"
    with pytest.raises(SettingError, match=expected):
        Torchvision(NAME)


def test_a_damaged_file_is_named(hub, tmp_path, monkeypatch):
    file = publish(untrained(NAME), NAME, tmp_path, monkeypatch)
    hub.mkdir(parents=True)
    (hub / file.name).write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SettingError, match=rf"{file.name} is damaged .* delete it"):
        Torchvision(NAME)
