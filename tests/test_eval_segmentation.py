"""IoU of every class of networks side by side: figures worked out by hand, through files."""

import csv
import logging

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import eval_segmentation
from configuration import CONFIG, datasets, models
from src.datasets.streets import KNOWN
from src.errors import SettingError
from src.evaluation import cases, segmentation
from src.evaluation.pictures import Pictures
from src.model_card import card_of
from src.pictures import BLANK
from src.records import Prediction
from src.run.runner import Runner
from src.store.arrays import write_prediction
from src.store.paths import Results

BASE, GROWN = CONFIG.MODEL_NAME, "grown"
LOG = logging.getLogger(__name__)
R, B, C = 0, 2, 13  # road, building, car
COW, BOAT = 100, 107  # true ids; the grown network has learnt 19 as cow
TRUTH = [[R, R, R, R, COW, COW, BOAT], [B, B, C, C, COW, 255, BOAT]]
SEEN = {
    BASE: [[R, R, R, B, C, C, C], [B, B, C, R, R, R, B]],
    GROWN: [[R, R, R, R, 19, 19, 19], [B, C, C, 19, C, R, 19]],
}
BOTH = [BASE, GROWN]


@pytest.fixture(autouse=True, scope="module")
def grown():
    with pytest.MonkeyPatch.context() as patch:
        classes = {**KNOWN, 19: ("Cow", (150, 75, 0))}
        patch.setitem(models, GROWN, models[BASE]._replace(name=GROWN, classes=classes))
        yield


@pytest.fixture(scope="module")
def compared(grown, tmp_path_factory):
    """The figures of both networks, and the folder of the tables."""
    io_path = tmp_path_factory.mktemp("results")
    for model in BOTH:
        store(io_path, model)
    figures = call(io_path, model_names=BOTH)["streets_ood"]
    return figures, Results(io_path, f"{BASE}+{GROWN}", "streets_ood").analysis


def store(io_path, model, index=0, truth=TRUTH, seen=None, photograph="away.png"):
    """Write what stage 1 knows of an image."""
    ids = np.array(seen or SEEN[model], np.uint8)
    truth = truth and np.array(truth, np.uint8)
    maps = np.zeros((*ids.shape, 3), np.float32)
    prediction = Prediction(None, ids, truth, str(photograph), maps)
    path = Results(io_path, model, "streets_ood").prediction(index)
    write_prediction(path, prediction, {"image": index}, "none")


def call(io_path, **settings):
    """The figures of the script by network, on one dataset."""
    args = {"io_path": str(io_path), "datasets": ["streets_ood"], "num_cores": 1} | settings
    return eval_segmentation.ex.run(config_updates={"args": args}).result


def judged(io_path, *names, num_images=None):
    """What the script judges, and the Results of each network."""
    data, places = datasets["streets_ood"], [Results(io_path, n, "streets_ood") for n in names]
    cards = [card_of(models[name], datasets["streets"], {}) for name in names]
    pictures = [
        Pictures(at, data, card, num_images) for at, card in zip(places, cards, strict=True)
    ]
    return segmentation.judge(Runner(LOG), pictures)[0], places


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_networks_are_compared_on_the_same_pixels_and_unknown_classes_do_not_count(compared):
    figures, _ = compared
    old, new = (
        {name: value for name, value in figures[model].items() if value is not None}
        for model in BOTH
    )
    # boats, which neither knows, and 255 are left out; cows count against whoever sees a car there
    base = {"iou_road": 3 / 6, "iou_building": 2 / 3, "iou_car": 1 / 4}
    grown = {"iou_road": 1, "iou_building": 1 / 2, "iou_car": 1 / 4, "iou_Cow": 2 / 4}
    # both boats are a cow to the second
    means = {"miou_old": 17 / 36, "miou": 17 / 36, "unknown_as_new": 0}
    assert old == pytest.approx(base | means)
    means = {"miou_old": 7 / 12, "miou": 9 / 16, "unknown_as_new": 1}
    assert new == pytest.approx(grown | means)


def test_it_is_told_what_a_new_class_is_taken_for_and_what_for_it(compared):
    _, folder = compared
    header, *rows = read_csv(folder / "segmentation_confusion.csv")
    assert header == ["new class", "network", "its pixels are", "class", "share"]
    assert [(*row[1:4], float(row[4])) for row in rows] == [
        (BASE, "predicted as", "car", pytest.approx(2 / 3)),
        (BASE, "predicted as", "road", pytest.approx(1 / 3)),
        (GROWN, "predicted as", "Cow", pytest.approx(2 / 3)),
        (GROWN, "predicted as", "car", pytest.approx(1 / 3)),
        (GROWN, "truly", "Cow", pytest.approx(2 / 5)),
        (GROWN, "truly", "boat", pytest.approx(2 / 5)),
        (GROWN, "truly", "car", pytest.approx(1 / 5)),
    ]
    latex = (folder / "segmentation_confusion.tex").read_text()
    assert r"Cow & grown & Cow 0.67, car 0.33 & Cow 0.40, boat 0.40, car 0.20 \\" in latex


def test_tables_have_every_class_and_a_dash_where_a_network_does_not_know_it(compared):
    _, folder = compared
    header, *rows = read_csv(folder / "segmentation.csv")
    assert header == ["class", "pixels", BASE, GROWN]
    assert len(rows) == 20 + 2  # classes, and means
    assert rows[0] == ["road", "4", "0.5", "1.0"] and rows[1] == ["sidewalk", "0", "", ""]
    assert rows[19] == ["Cow", "3", "", "0.5"]
    lines = (folder / "segmentation.tex").read_text().splitlines()
    assert lines[1] == r"class & pixels & deeplabv3plus\_streets & grown \\ \hline"
    assert lines[5:] == [
        r"Cow (new) & 3 & - & 0.500 \\",
        r"mean & - & 0.472 & 0.562 \\",
        r"mean of old classes & - & 0.472 & 0.583 \\",
        r"\end{tabular}",
    ]
    for name in ("segmentation.png", "segmentation.pdf", "segmentation_cases.png"):
        assert (folder / name).stat().st_size
    assert (folder / "segmentation_cases_Cow.png").stat().st_size


def test_one_network_alone_counts_only_what_it_knows(tmp_path):
    store(tmp_path, BASE)
    figures = call(tmp_path)["streets_ood"][BASE]
    # without the cows: road 3 / 5, building 2 / 3, car 1 / 2
    assert figures["miou"] == figures["miou_old"] == pytest.approx((3 / 5 + 2 / 3 + 1 / 2) / 3)
    folder = Results(tmp_path, BASE, "streets_ood").analysis
    assert not list(folder.glob("*_confusion*"))


def test_a_class_learnt_by_the_name_of_a_kind_is_that_of_all_its_ids():
    entry = models[BASE]._replace(classes=["car", "utility vehicle"])
    card = card_of(entry, datasets["streets"], {})
    pictures = Pictures(Results("a", BASE, "a2d2"), datasets["a2d2"], card)
    classes = segmentation.classes_of(LOG, [pictures])
    assert classes.names[:2] == ["car", "utility vehicle"]
    assert_array_equal(
        classes.true[[7, 10, 52, 53]], [0, 0, 1, 1]
    )  # Car 1, 4, Utility vehicle 1, 2
    pedestrians = classes.true[[23, 24, 25]]  # which it does not know, are one class too
    assert set(pedestrians) == {classes.names.index("Pedestrian")}
    assert len(classes.names) == 37 + 1 and classes.true[255] == 38  # kinds, "no class"; no label


def test_a_predicted_id_without_a_class_is_wrong(tmp_path):
    store(tmp_path, BASE, truth=[[R, R, C]], seen=[[R, 40, C]])
    found, _ = judged(tmp_path, BASE)
    assert found.figures()[BASE]["iou_road"] == 1 / 2 and found.figures()[BASE]["iou_car"] == 1


def test_the_best_and_worst_pictures_are_chosen_once_each_and_large_mistakes_first():
    scores = {0: (0.5, 9), 1: (0, 5), 2: (1, 3), 3: (np.nan, 0), 4: (0, 7), 5: (1, 4), 6: (0.9, 1)}
    assert cases.choose(scores) == [
        ("best", 5), ("best", 2), ("best", 6), ("worst", 4), ("worst", 1), ("worst", 0),
    ]  # fmt: skip
    assert cases.choose({0: (0.4, 9), 1: (0.5, 9)}) == [("best", 1), ("worst", 0)]


def test_a_false_alarm_is_a_worst_case_of_a_new_class(tmp_path):
    for index, truth in enumerate(([[R, COW]], [[R, R]], [[R, R]])):
        store(tmp_path, BASE, index, truth, [[R, R]])
        store(tmp_path, GROWN, index, truth, [[R, [19, 19, R][index]]])
    found, _ = judged(tmp_path, *BOTH)
    # mean IoU of the old classes: road 1 / 2 and 1; 1 and 1 / 2; 1 and 1
    assert [scores[0].tolist() for scores in found.scores.values()] == [
        [0.75, 2],
        [0.75, 2],
        [1, 2],
    ]
    of_cow = [scores[1] for scores in found.scores.values()]
    assert_array_equal(of_cow, [[1, 1], [0, 1], [np.nan, 0]])


def test_a_case_shows_the_photograph_the_classes_and_each_iou(tmp_path):
    Image.new("RGB", (7, 2), (1, 2, 3)).save(tmp_path / "a.png")
    for model in BOTH:
        store(tmp_path, model, photograph=tmp_path / "a.png")
    found, places = judged(tmp_path, *BOTH)
    cow = found.classes.names.index("Cow")
    figure = cases.draw(found, cow, [("best", 0)], places, "streets_ood")
    assert [ax.get_title() for ax in figure.axes] == ["photograph", "ground truth", *BOTH]
    texts = [ax.get_xlabel() for ax in figure.axes]
    assert texts == ["", "", "IoU of Cow: -", "IoU of Cow: 0.50"]
    assert figure.axes[0].get_ylabel() == "best: image 0"
    photograph, truth, _, predicted = (ax.images[0].get_array() for ax in figure.axes)
    assert_array_equal(photograph[0, 0], (1, 2, 3))
    assert_array_equal(photograph[0, 4], (255, 255, 255))  # the outline of the true cow
    assert_array_equal(truth[:, 0], [KNOWN[R][1], KNOWN[B][1]])
    assert_array_equal(truth[1, 5], BLANK)  # no label
    assert_array_equal(predicted[0, 6], (150, 75, 0))
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.texts]
    assert names == ["road", "building", "car", "Cow", "boat", "no label"]


def test_the_picture_of_a_case_may_be_away(tmp_path):
    store(tmp_path, BASE)
    found, places = judged(tmp_path, BASE)
    figure = cases.draw(found, None, [("best", 0)], places, "streets_ood")
    assert (figure.axes[0].images[0].get_array() == BLANK).all()
    assert figure.axes[2].get_xlabel() == "mean IoU: 0.59"  # (3 / 5 + 2 / 3 + 1 / 2) / 3


def test_only_the_first_pictures_must_be_there_where_no_more_are_asked_for(tmp_path):
    for model, count in ((BASE, 2), (GROWN, 1)):
        for index in range(count):
            store(tmp_path, model, index)
    found, _ = judged(tmp_path, *BOTH, num_images=1)
    assert found.scores.keys() == {0}
    with pytest.raises(SettingError, match="'grown' has results of 1 image.* together of 2:"):
        judged(tmp_path, *BOTH)


def test_the_order_of_the_networks_changes_no_figure(compared, tmp_path):
    for model in BOTH:
        store(tmp_path, model)
    assert judged(tmp_path, GROWN, BASE)[0].figures() == compared[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_names": BOTH}, "grown/streets_ood has no input files; run pred_images.py with "
         "args.model_name=grown args.dataset=streets_ood first"),
        ({"model_names": ["nobody"]}, "there is no model 'nobody'"),
        ({"datasets": ["custom_dataset"]}, "'custom_dataset' has no ground truth"),
        ({"model_names": []}, "`args.model_names` must be a name or a list of names"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_named(tmp_path, settings, message):
    store(tmp_path, BASE)
    with pytest.raises(SettingError, match=message):
        call(tmp_path, **settings)


def test_images_without_labels_or_known_classes_are_nothing_to_judge(tmp_path):
    store(tmp_path, BASE, truth=None)
    with pytest.raises(SettingError, match="no image of 'streets_ood' has ground truth"):
        judged(tmp_path, BASE)
    store(tmp_path, BASE, truth=[[BOAT]], seen=[[R]])
    with pytest.raises(SettingError, match="none of the classes that deeplabv3plus_streets pred"):
        judged(tmp_path, BASE)


def test_networks_that_were_given_other_labels_are_not_compared(tmp_path):
    store(tmp_path, BASE)
    store(tmp_path, GROWN, truth=[[R] * 7] * 2)
    with pytest.raises(
        SettingError, match="image 0 of 'streets_ood' had other labels when 'grown'"
    ):
        call(tmp_path, model_names=BOTH)
