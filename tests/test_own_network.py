"""Any network, any folder of pictures, no labels: the scripts as they come, from both to a map."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from clone import DISCOVER, EMBED, MEASURE, PREDICT, REPOSITORY, Checkout, written_at
from PIL import Image
from torch import nn

from src.datasets import streets
from src.segmentation import fitting
from src.store.arrays import read_components
from src.store.paths import Results

PICTURES = "a.jpg", "town/b.PNG", "town/old/c.webp", "town/old/d.bmp", "e.tif", "f.jpeg"
HEIGHT, WIDTH = 67, 101  # no multiples of anything
NAMES = ["Wiese", "Himmel", "Kuh"]
ORANGE = (255, 120, 7)
OWN = '''
"""Networks that somebody has, for better or worse."""

import torch
from torch import nn


class Own(nn.Module):
    def __init__(self, num_outputs, answer="logits"):
        super().__init__()
        torch.manual_seed(num_outputs)
        self.head, self.answer = nn.Conv2d(3, num_outputs, 5, stride=2), answer
        with torch.no_grad():
            self.head.weight *= 6

    def forward(self, images):
        logits = self.head(images)
        if self.answer == "ids":
            return logits.argmax(1, keepdim=True)
        return logits.mean((2, 3)) if self.answer == "vector" else logits
'''
ENTRIES = """
def _net(name, module, class_name, kwargs, weights=None, **facts):
    return ModelConfig(name, module, class_name, kwargs, weights, **facts)


models |= _by_name(
    _net("own_21", "own", "Own", {"num_outputs": 21}),
    _net("lraspp", "torchvision.models.segmentation", "lraspp_mobilenet_v3_large",
         {"num_classes": 4, "weights_backbone": None}, HERE / "lraspp.pth",
         classes=["road", "Meer", ("Boot", (255, 120, 7)), "sky"]),
    _net("unet", "segmentation_models_pytorch", "Unet",
         {"encoder_name": "mobilenet_v2", "encoder_weights": None, "classes": 5},
         multiple_of=32),
    _net("one_channel", "own", "Own", {"num_outputs": 1}),
    _net("ids", "own", "Own", {"num_outputs": 21, "answer": "ids"}),
    _net("vector", "own", "Own", {"num_outputs": 21, "answer": "vector"}),
    _net("two_names", "own", "Own", {"num_outputs": 21}, classes=["a", "b"]),
    _net("other_weights", "own", "Own", {"num_outputs": 21}, HERE / "lraspp.pth"),
)
"""


def paint(number):
    """A street (H, W, 3) uint8 with three boxes of chance colours on it."""
    rng = np.random.default_rng(number)
    pixels = np.full((HEIGHT, WIDTH, 3), (70, 130, 180), np.uint8)
    pixels[30:] = 128, 64, 128
    for row, column in rng.integers(2, (40, 70), (3, 2)):
        pixels[row : row + 20, column : column + 26] = rng.integers(0, 256, 3)
    return pixels


def save_pictures(folder, names=PICTURES):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint(number)).save(folder / name)
    return folder


def logits_of(path, classes):
    """Logits (C, h, w) of a picture at a third of its size: how near its colours are to some."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)[1::3, 1::3] / 255
    colours = np.random.default_rng(1).random((classes, 3))
    return -np.square(pixels - colours[:, None, None]).sum(-1) / 0.1


def save_predictions(folder, photos, count, **described):
    for picture in (path for path in photos.rglob("*") if path.is_file()):
        path = (folder / picture.relative_to(photos)).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, logits_of(picture, count).astype(np.float16))
    if described:
        (folder / "classes.json").write_text(json.dumps(described))


def with_settings(**settings):
    """Words of a command line."""
    return ["with", *(f"args.{name}={value}" for name, value in settings.items())]


class User(Checkout):
    """Somebody in a folder with pictures, and with scripts that nobody has edited."""

    def __init__(self, home):
        super().__init__(home)
        shutil.copytree(REPOSITORY / "weights", self.folder / "weights")
        self.photos = save_pictures(self.elsewhere / "photos")

    def run(self, script, *words, fails=False, **settings):
        """Run a script with settings; gives what it says."""
        call = self.call(script, *with_settings(**settings), *words)
        assert "Traceback" not in call.stderr, call.stderr
        assert bool(call.returncode) == fails, call.stderr
        return call.stderr

    def map(self, model, **predicting):
        """From a network and the folder of pictures to a map.

        Returns
        -------
        said : dict of str to str
            What each stage has said.
        rows : list of dict
            What stage 4 has exported.
        picture : Path
            The map.
        """
        name, of_model = re.sub(r"\W", "_", model), {"model_name": model}
        said = {
            "predict": self.run(PREDICT, dataset="./photos", **of_model, **predicting),
            "measure": self.run(MEASURE, dataset="photos", **of_model),
            "embed": self.run(EMBED, datasets="[photos]", join=None, csv=f"{name}.csv", **of_model),
            "discover": self.run(DISCOVER, f"mainplot.save_path={name}.png", **of_model),
        }
        assert "high entropy" in said["embed"]
        rows = self.rows(f"{name}.csv")
        assert rows
        return said, rows, self.elsewhere / f"{name}.png"

    def rows(self, name):
        """What stage 4 has exported: a list of dict of str to str."""
        with (self.elsewhere / name).open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    return User(tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def real():
    """Folder of photographs beside a development checkout."""
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip("there are no photographs beside this checkout")
    return folder


@pytest.fixture(scope="module")
def owner(tmp_path_factory):
    """One who has added networks to the configuration."""
    owner = User(tmp_path_factory.mktemp("owner"))
    with (owner.folder / "configuration.py").open("a") as file:
        file.write(ENTRIES)
    (owner.folder / "own.py").write_text(OWN)
    torch.manual_seed(0)
    lraspp = pytest.importorskip("torchvision.models.segmentation").lraspp_mobilenet_v3_large(
        num_classes=4, weights_backbone=None
    )
    torch.save({"epoch": 3, "model": lraspp.state_dict()}, owner.folder / "lraspp.pth")
    return owner


def has_colour(path, colour):
    return (np.asarray(Image.open(path).convert("RGB")) == colour).all(-1).any()


# from a network and a folder to a map


@pytest.fixture(scope="module")
def hugging_face(user):
    """A function: family -> the word for a tiny network of it, with random weights."""
    transformers = pytest.importorskip("transformers")
    from test_huggingface import build

    def save(family):
        build(family, NAMES).save_pretrained(user.elsewhere / family)
        processor = transformers.SegformerImageProcessor(size={"shortest_edge": 64})
        processor.save_pretrained(user.elsewhere / family)
        return f"hf/{family}"

    return save


def test_a_folder_of_hugging_face(user, hugging_face):
    said, rows, picture = user.map(hugging_face("segformer"))
    assert "3 classes, mean, std, " in said["predict"]
    assert {row["predicted_class"] for row in rows} <= set(NAMES) and picture.is_file()


def test_mask_queries_and_a_budget_of_what_no_class_wants(user, hugging_face):
    model = hugging_face("mask2former")
    said, rows, _ = user.map(model, scores="[rejected_by_all]")
    assert "3 classes, mean, std, " in said["predict"]
    chosen = dict(datasets="[photos]", model_name=model, suspicion="rejected_by_all")
    user.run(EMBED, **chosen, threshold=-100, csv="all.csv")
    user.run(EMBED, **chosen, most=5, csv="most.csv")
    rows = user.rows("all.csv")
    suspicion = [float(row["suspicion"]) for row in rows]
    assert len(rows) >= len(PICTURES) and suspicion == sorted(suspicion, reverse=True)
    assert user.rows("most.csv") == rows[:5]  # of all pictures together


def test_suspicious_is_what_an_own_map_says(user):
    save_predictions(user.elsewhere / "seven", user.photos, 7)
    user.map("predictions/./seven")
    model = dict(model_name="predictions_elsewhere_seven")
    marked = np.zeros((HEIGHT, WIDTH), np.float32)
    marked[:20, :20] = 1  # in the sky
    (user.elsewhere / "mine").mkdir()
    for index in range(len(PICTURES)):
        np.save(user.elsewhere / "mine" / f"{index}.npy", marked)
    user.run(MEASURE, "args.heatmaps.mine=mine", dataset="photos", **model)
    mine = dict(datasets="[photos]", suspicion="mine", **model)
    user.run(EMBED, **mine, threshold=0.01, csv="mine.csv")
    rows = user.rows("mine.csv")
    assert len(rows) >= len(PICTURES)
    assert all(0.01 <= float(row["suspicion"]) <= 1 for row in rows)


def test_a_file_of_onnx_with_classes_beside_it(user):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    with torch.no_grad():
        network[0].weight *= 4
    folder = user.elsewhere / "net"
    folder.mkdir()
    with warnings.catch_warnings():  # torch's exporters announce each other's end
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.rand(1, 3, 64, 96),), folder / "net.onnx", dynamo=False,
            input_names=["x"], dynamic_axes={"x": {2: "h", 3: "w"}},
        )  # fmt: skip
    (folder / "classes.json").write_text(json.dumps(NAMES))
    said, rows, _ = user.map("onnx/net/net.onnx")
    assert re.search(r"3 classes \(.*classes.json", said["predict"])
    assert {row["predicted_class"] for row in rows} <= set(NAMES)


def test_predictions_of_another_program(user):
    classes = ["Wiese", {"name": "Himmel", "color": ORANGE}, "Kuh", "Zaun"]
    classes = {str(k): value for k, value in enumerate(classes)}
    save_predictions(user.elsewhere / "logits", user.photos, 4, classes=classes)
    said, rows, _ = user.map("predictions/./logits")
    assert re.search(r"4 classes \(.*classes.json", said["predict"])
    assert {row["predicted_class"] for row in rows} == {"Wiese", "Himmel", "Kuh", "Zaun"}
    places = [(int(row["image_index"]), int(row["component"])) for row in rows]
    of_sky = [row["predicted_class"] for row in rows].index("Himmel")
    sky = sorted(places).index(places[of_sky])  # its row in the table
    pictures = "mainplot.save_path=own.png", f"mainplot.segment={sky}"
    user.run(DISCOVER, *pictures, model_name="predictions/./logits")
    assert has_colour(user.elsewhere / f"own_overview_{sky}.png", ORANGE)


def test_a_change_of_the_number_of_classes_is_noticed_beside_predictions_that_are_done(user):
    folder = user.elsewhere / "changing"
    save_predictions(folder, user.photos, 4, classes=["a", "b", "c", "d"])
    asked = dict(dataset="./photos", model_name="predictions/./changing")
    user.run(PREDICT, **asked)
    assert "6 skipped" in user.run(PREDICT, **asked)
    (folder / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    said = user.run(PREDICT, **asked, fails=True)
    assert re.search(r"is of shape \(4, 22, 34\), but there are 3 classes", said)
    (folder / "classes.json").write_text(json.dumps(["A", "b", "c", "d"]))  # another name alone
    assert "6 skipped" in user.run(PREDICT, **asked)


@pytest.fixture(scope="module")
def five(user):
    """What `User.map` gives of predictions of five classes without names."""
    save_predictions(user.elsewhere / "five", user.photos, 5)
    return user.map("predictions/five")


FIVE = {"model_name": "predictions_elsewhere_five"}  # the name of its results


def test_predictions_without_a_word_about_their_classes(five):
    said, rows, _ = five
    resized = r"\d INFO Predictions gives maps of 22 x 34 for 67 x 101 pixels: resized"
    assert len(re.findall(resized, said["predict"])) == 1
    assert "5 classes (nobody's names)" in said["predict"]
    messages = [line[9:] for line in said["predict"].splitlines()]  # without the time
    assert sorted({*messages}) == sorted(messages)
    assert {row["predicted_class"] for row in rows} <= {f"class {k}" for k in range(5)}


def test_second_runs_do_nothing_and_take_the_names_of_the_results(user, five):
    before = written_at(user.results)
    for script, dataset in (
        (PREDICT, {"dataset": "photos"}),
        (MEASURE, {"dataset": "photos"}),
        (EMBED, {"datasets": "[photos]", "join": None}),
    ):
        assert "0 done, 6 skipped" in user.run(script, **dataset, **FIVE)
    assert written_at(user.results) == before


def test_results_and_pictures_are_understood_where_they_are_moved_to(user, five, tmp_path):
    moved, photos = shutil.copytree(user.results, tmp_path / "moved"), tmp_path / "pictures"
    elsewhere = dict(io_path=moved, **FIVE)
    name = moved / "names" / "datasets" / "photos.json"
    name.write_text(name.read_text().replace(str(user.photos), str(photos)))
    said = user.run(MEASURE, dataset="photos", **elsewhere, fails=True)
    assert f"'photos': there is no folder {photos}; if it lies elsewhere now, say so in" in said
    shutil.copytree(user.photos, photos)
    assert "0 done, 6 skipped" in user.run(MEASURE, dataset="photos", **elsewhere)
    said = user.run(EMBED, datasets="[photos]", join=None, csv=tmp_path / "moved.csv", **elsewhere)
    assert "0 done, 6 skipped" in said
    moved_to = [
        row | {"image_path": row["image_path"].replace(str(user.photos), str(photos))}
        for row in five[1]
    ]
    assert user.rows(tmp_path / "moved.csv") == moved_to
    user.run(DISCOVER, f"mainplot.save_path={tmp_path}/map.png", **elsewhere)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"suspicion": "margin"}, r"args.suspicion=margin needs args.threshold, .*args.most=2000"),
        (
            {"suspicion": "weird", "threshold": 1},
            r"no score 'weird' .*, but predicted_iou, entropy",
        ),
        (
            {"suspicion": "energy", "most": 3},
            r"no score 'energy'.*pred_images.py with args.scores=",
        ),
        ({"suspicion": "predicted_iou"}, r"train_meta_nn.py"),
        ({"threshold": 2}, r"most segments .* not suspicious: lower args.threshold, now 2"),
    ],
)
def test_a_score_that_cannot_choose_is_told(user, five, settings, sentence):
    said = user.run(
        EMBED,
        datasets="[photos]",
        **settings,
        **FIVE,
        fails="threshold" not in settings or len(settings) > 1,
    )
    print(said)
    assert re.search(sentence, said)


def test_an_own_network_with_other_classes_than_those_that_are_known(owner):
    said, rows, _ = owner.map("own_21")
    assert "21 classes (nobody's names); mean, std (TRAIN_DATASET streets)" in said["predict"]
    assert {row["predicted_class"] for row in rows} <= {f"class {k}" for k in range(21)}


def test_a_network_of_torchvision_with_own_weights(owner):
    said, rows, _ = owner.map("lraspp")
    assert "4 classes (its entry)" in said["predict"]
    assert {row["predicted_class"] for row in rows} <= {"road", "Meer", "Boot", "sky"}


def test_a_network_that_takes_multiples_of_32_only(owner):
    pytest.importorskip("segmentation_models_pytorch")
    said, rows, _ = owner.map("unet")
    assert "5 classes (nobody's names)" in said["predict"]
    messages = [line[9:] for line in said["predict"].splitlines()]  # without the time
    assert sorted({*messages}) == sorted(messages)
    assert {row["predicted_class"] for row in rows} <= {f"class {k}" for k in range(5)}


def test_an_unknown_object_that_the_meta_model_trusts_is_found_by_its_entropy(user):
    folder = user.elsewhere / "scenes"
    folder.mkdir()
    labels = []
    for index in (16, 20, 23):  # of a cow, a tent and a dumpster, among others
        picture, ground_truth = streets.scene("ood", 0, index)
        Image.fromarray(picture).save(folder / f"{index}.png")
        labels.append(ground_truth)
    user.run(PREDICT, dataset="./scenes")
    user.run(MEASURE, dataset="scenes")
    scenes = {"datasets": "[scenes]", "join": None}
    user.run(EMBED, **scenes, iou_threshold=0.5, csv="iou.csv")
    user.run(EMBED, **scenes, suspicion="entropy", csv="entropy.csv")
    places = Results(user.results, "deeplabv3plus_streets", "scenes")

    def is_unknown(row):
        index, segment = int(row["image_index"]), int(row["component"])
        segments = abs(read_components(places.components(index)))
        return (labels[index][segments == segment] >= streets.FIRST_UNSEEN_ID).mean() > 0.8

    by_iou, by_entropy = user.rows("iou.csv"), user.rows("entropy.csv")
    assert all(float(row["predicted_iou"]) < 0.5 for row in by_iou)
    trusted = [
        row
        for row in by_entropy
        if float(row["predicted_iou"]) >= 0.5 and int(row["segment_size"]) >= 1000
    ]
    found = [row for row in trusted if is_unknown(row) and float(row["suspicion"]) >= 0.25]
    assert found
    names = "image_index", "component"
    chosen = [[row[name] for name in names] for row in by_iou]
    assert not any([row[name] for name in names] in chosen for row in found)


def test_what_was_fitted_to_ordinary_pictures_tells_what_is_suspicious_and_from_where_on(user):
    for name, split in (("ordinary", "val"), ("strange", "ood")):
        (user.elsewhere / name).mkdir()
        for index in range(2):
            picture, _ = streets.scene(split, 0, index)
            Image.fromarray(picture).save(user.elsewhere / name / f"{index}.png")
    user.run(PREDICT, dataset="./ordinary", fit_scores=True)
    user.run(PREDICT, dataset="./strange", scores="[nearest_logits]")
    user.run(MEASURE, dataset="strange")
    strange = {"datasets": "[strange]", "join": None}
    assert "high nearest_logits, which stage 1 has kept" in user.run(EMBED, **strange, csv="a.csv")
    limit = fitting.read(Results(user.results, "deeplabv3plus_streets").fitted_scores)["limit"]
    rows = user.rows("a.csv")
    assert rows and min(float(row["suspicion"]) for row in rows) >= limit
    user.run(EMBED, **strange, suspicion="nearest_logits", threshold=limit, csv="b.csv")
    assert user.rows("b.csv") == rows
    user.run(PREDICT, dataset="./ordinary", fit_scores=True, num_images=1)
    assert "is not what has scored the pictures of strange" in user.run(
        EMBED, **strange, fails=True
    )


def make_map(results, pictures, model):
    """What `make map` says, with its exit code."""
    words = [sys.executable, "-m", "tools.map", str(pictures), model]
    where = dict(cwd=REPOSITORY, env=os.environ | {"OODRETRIEVAL_IO_PATH": str(results)})
    run = subprocess.run(words, **where, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def test_one_command_leads_from_a_folder_to_a_map_though_a_picture_is_broken(user, tmp_path):
    photos = shutil.copytree(user.photos, tmp_path / "photos")
    save_predictions(tmp_path / "logits", photos, 4)
    (photos / "broken.jpg").write_bytes(b"no picture")
    code, said = make_map(tmp_path / "results", photos, f"predictions/{tmp_path}/logits")
    assert code == 0, said
    assert "broken.jpg" in said and "going on with the others" in said
    (picture,) = (tmp_path / "results" / "analysis").rglob("map.png")
    assert f"the map   {picture}" in said and "discover_embedding_space.py with args.data" in said


def test_one_command_ends_with_the_reason_where_no_picture_can_be_predicted(user, tmp_path):
    code, said = make_map(tmp_path / "results", user.photos, "torchvision/resnet18")
    assert code == 1 and "publishes no weights of a segmentation network 'resnet18'" in said
    assert "Traceback" not in said and "compute_embeddings" not in said
    code, said = make_map(tmp_path / "results", tmp_path / "gone", "deeplabv3plus_streets")
    assert code == 1 and f"there is no folder {tmp_path}/gone\nmake map PICTURES=" in said


def test_photographs_and_what_a_network_said_of_them_elsewhere(user, real):
    folder = user.elsewhere / "anomalies"
    folder.mkdir()
    for path in sorted((real / "road_anomaly" / "images").iterdir())[:8]:
        (folder / path.name).symlink_to(path)
    model = {"model_name": f"predictions/{real}/road_anomaly/logits"}
    said = user.run(PREDICT, dataset="./anomalies", **model)
    assert "8 done" in said and "19 classes" in said
    user.run(MEASURE, dataset="anomalies", **model)
    user.run(EMBED, datasets="[anomalies]", join=None, csv="anomalies.csv", **model)
    assert len(user.rows("anomalies.csv")) > 50
    user.run(DISCOVER, "mainplot.save_path=anomalies.png", **model)


# what cannot work, and what a user reads then

REFUSED = {
    "class ids as pictures": (
        PREDICT,
        dict(model_name="predictions/argmax"),
        r"argmax has no \.npy or \.npz file.*the class of each pixel alone, as after arg-max, does "
        r"not say how sure the network was: store what it gave before",
    ),
    "class ids in arrays": (
        PREDICT,
        dict(model_name="predictions/whole"),
        r"the first 3 failed alike.*has whole numbers \(uint8\): the class of each pixel alone",
    ),
    "predictions of one channel": (
        PREDICT, dict(model_name="predictions/one"), r"one/a\.npy has one channel, \(1, 22, 34\)",
    ),
    "predictions of other classes than are named": (
        PREDICT,
        dict(model_name="predictions/misnamed"),
        r"is of shape \(4, 22, 34\), but there are 3 classes: .* classes\.json",
    ),
    "a missing prediction": (
        PREDICT,
        dict(model_name="predictions/gaps"),
        r"5 done.*1 failed; the others are done:\n.*there is no prediction of .*town/b\.PNG",
    ),
    "two pictures for one prediction": (
        PREDICT,
        dict(model_name="predictions/five", dataset="./twins"),
        r"twins/a\.bmp and \S*twins/a\.jpg would both have the prediction \S*five/a\.npy",
    ),
    "one channel": (
        PREDICT,
        dict(model_name="one_channel"),
        r"Own gave one channel \(\(1, 1, 32, 49\) float32\): it must give a value for each of two",
    ),
    "class ids": (PREDICT, dict(model_name="ids"), r"Own gave whole numbers \(.* int64\)"),
    "no map": (PREDICT, dict(model_name="vector"), r"Own gave \(1, 21\) float32: a segmentation"),
    "other classes than are named": (
        PREDICT, dict(model_name="two_names"), r"Own gave 21 classes .*, and 2 are named",
    ),
    "weights of another network": (
        PREDICT, dict(model_name="other_weights"), r"lraspp\.pth.*head\.weight",
    ),
    "no such folder of pictures": (
        PREDICT, dict(dataset="./nowhere"), r"dataset './nowhere': there is no folder .*nowhere",
    ),
    "a folder without pictures": (
        PREDICT,
        dict(dataset="./texts"),
        r"pred_images: src.datasets.custom.CustomDataset, called 'texts': there are no "
        r"pictures \S*texts/\S*, but 2 \.txt",
    ),
    "no such folder of predictions": (
        PREDICT,
        dict(model_name="predictions/nowhere"),
        r"'predictions/nowhere': there is no file or folder .*nowhere",
    ),
    "no such file": (
        PREDICT, dict(model_name="onnx/no.onnx"), r"'onnx/no.onnx': there is no file or folder",
    ),
    "a kind alone": (
        PREDICT, dict(model_name="hf/"), r"there is no model 'hf/'.*hf/<name or folder>",
    ),
    "an unknown kind": (
        PREDICT, dict(model_name="keras/net"), r"there is no model 'keras/net'.*onnx/<file>",
    ),
    "an unknown network of torchvision": (
        PREDICT,
        dict(model_name="torchvision/fcn_resnet51"),
        r"no weights of a segmentation network 'fcn_resnet51'\. Did you mean 'fcn_resnet50'",
    ),
    "a score that stage 1 does not know": (
        PREDICT, dict(scores="[strangeness]"), r"`args\.scores` must be .*rejected_by_all",
    ),
    "pictures not predicted": (
        MEASURE, dict(dataset="./texts"), r"run pred_images\.py .* args\.dataset=texts first",
    ),
}  # fmt: skip


def save_what_is_wrong(folder, photos):
    """Pictures and predictions of the kinds that are refused."""
    for kind, count in (("one", 1), ("misnamed", 4), ("gaps", 4), ("whole", 4), ("five", 5)):
        save_predictions(folder / kind, photos, count)
    (folder / "misnamed" / "classes.json").write_text(json.dumps(NAMES))
    (folder / "gaps" / "town" / "b.npy").unlink()
    for path in (folder / "whole").rglob("*.npy"):
        ids = np.load(path).argmax(0).astype(np.uint8)
        np.save(path, ids)
        (folder / "argmax").mkdir(exist_ok=True)
        Image.fromarray(ids).save(folder / "argmax" / f"{path.stem}.png")
    save_pictures(folder / "twins", ("a.bmp", "a.jpg"))
    (folder / "texts").mkdir()
    for name in ("a.txt", "b.TXT"):
        (folder / "texts" / name).write_text("no picture")


def test_a_network_of_hugging_face_that_cannot_segment_ends_with_a_sentence(user):
    transformers = pytest.importorskip("transformers")
    tiny = dict(
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8
    )  # fmt: skip
    config = transformers.SegformerConfig(**tiny)
    classifier = transformers.SegformerForImageClassification(config)
    classifier.save_pretrained(user.elsewhere / "classifier")
    transformers.SegformerModel(config).save_pretrained(user.elsewhere / "trunk")
    trunk = json.loads((user.elsewhere / "trunk" / "config.json").read_text())
    trunk["architectures"] = ["SegformerForSemanticSegmentation"]  # as training begins with it
    (user.elsewhere / "trunk" / "config.json").write_text(json.dumps(trunk))
    for name, sentence in {
        "classifier": r"its config\.json says SegformerForImageClassification",
        "trunk": r"trunk would segment by random numbers.*lacking are decode_head",
        "nobody/nothing": r"no folder nobody/nothing.*`hf download nobody/nothing --local-dir <f",
    }.items():
        said = user.run(PREDICT, dataset="./photos", model_name=f"hf/{name}", fails=True)
        assert re.search(sentence, said), said


@pytest.fixture(scope="module")
def refusals(owner):
    """What each of the command lines has come to: a finished process by name."""
    save_what_is_wrong(owner.elsewhere, owner.photos)
    usual = {"dataset": "./photos", "model_name": "own_21"}
    return owner.call_all(
        **{
            name: (script, *with_settings(**usual | settings))
            for name, (script, settings, _) in REFUSED.items()
        }
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_ends_with_a_sentence(name, refusals):
    call = refusals[name]
    assert call.returncode == 1
    assert "Traceback" not in call.stderr
    assert re.search(REFUSED[name][-1], call.stderr, re.DOTALL), call.stderr


def test_on_demand_every_picture_is_tried_although_the_first_fail_alike(owner, refusals):
    of_ids = {"dataset": "photos", "model_name": "predictions/whole", "fail_fast": False}
    said = owner.run(PREDICT, **of_ids, fails=True)
    assert "6 failed; none is done" in said
