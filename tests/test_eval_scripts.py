"""Retrieval, IoU by predicted IoU, and selection: the scripts on recorded and hand-made files."""

import csv
import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from factories import object_table, same_ids, store_image
from numpy.testing import assert_allclose, assert_array_equal

import eval_budget
import eval_groups
import eval_iou
import eval_retrieval
import eval_selection
from configuration import CONFIG, datasets, models
from src import model_card
from src.datasets.cityscapes import Cityscapes
from src.datasets.streets import Streets
from src.errors import RunError, SettingError
from src.evaluation import iou, retrieval, selection
from src.records import Prediction
from src.store import arrays, tables
from src.store.paths import Results

MODEL, NET = CONFIG.MODEL_NAME, CONFIG.EMBEDDING_NETWORK
LOG = logging.getLogger(__name__)
COW, BOAT = 100, 107  # ids in Streets.label_mapping
KNOWN = {"road": 0, "building": 2, "car": 13}


def call(script, io_path, **settings):
    """A script as sacred runs it; gives the finished run."""
    return script.ex.run(config_updates={"args": {"io_path": str(io_path), **settings}})


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_embeddings(io_path, vectors, *, dataset="streets_ood", size=(16, 16), **columns):
    """An embeddings file of one image; columns that are None are left out."""
    vectors = np.asarray(vectors, np.float32)
    columns = {"embeddings": vectors, "nn_embeddings": vectors} | columns
    columns = {name: values for name, values in columns.items() if values is not None}
    table = object_table(len(vectors), model_name=MODEL, dataset=dataset, **columns)
    tables.write_embeddings(Results(io_path, MODEL).embeddings(size, NET), table, {})


# --- retrieval


@pytest.mark.parametrize("case", ["plain", "annotated"])
def test_recorded_mean_average_precisions_are_met(reference, tmp_path, case):
    recorded = np.load(reference / "retrieval" / f"map_{case}.npz")
    columns = {}
    if case == "annotated":
        columns["annotated"] = np.ones(len(recorded["gt_ids"]), np.int64)
        columns["annotated"][recorded["kept_rows"]] = recorded["annotated"]
    write_embeddings(
        tmp_path, recorded["embeddings"], true_id=recorded["gt_ids"],
        dataset="a2d2", size=(128, 128), **columns,
    )  # fmt: skip
    settings = dict(min_height=128, min_width=128, annotated=case == "annotated")
    run = call(eval_retrieval, tmp_path, **settings)
    for metric in ("euclid", "cos"):
        found = run.info["own picture too"][f"features, {metric}"].values()
        per_class = sorted(value for value in found if value is not None)
        assert_allclose(per_class, sorted(recorded[f"map_per_class_{metric}"]), rtol=1e-6)
        figures = run.result["features"][metric]
        average, weighted = (recorded[f"map_{name}_{metric}"] for name in ("average", "weighted"))
        assert figures["map_own_picture"] == pytest.approx(float(average), rel=1e-6)
        assert figures["map_own_picture_weighted"] == pytest.approx(float(weighted), rel=1e-6)
        assert np.isnan(figures["map"])  # all rows are of one picture


LINE = [[0.0, 1], [1, 1], [3, 1], [6, 1], [50, 1]]  # row 0 sees 1, 2, 3, 4 in order
APART = np.arange(5)  # each in a picture of its own


def test_classes_are_averaged_alone_and_by_known_and_unknown(tmp_path):
    # cow 0: ranks 2; cow 2: rank 2 (1 is nearer); cars 1 and 3 likewise; a boat alone.
    true_id = [COW, KNOWN["car"], COW, KNOWN["car"], BOAT]
    write_embeddings(tmp_path, LINE, true_id=true_id, image_index=APART)
    run = call(eval_retrieval, tmp_path, metrics=["euclid"], counts=[1, 2])
    assert run.info["average precision"] == {
        # row 0: 1, 2 -> 1/2; row 2: 1, 0 or 3 at equal distance, the lower first -> 1/2;
        # row 1: 0, 2, 3 -> 1/3; row 3: 2, 1 -> 1/2
        way: {"boat": None, "car": pytest.approx(5 / 12), "cow": pytest.approx(1 / 2)}
        for way in ("features, euclid", "stored, euclid")
    }
    figures = run.result["features"]["euclid"]
    assert figures["map"] == pytest.approx((5 / 12 + 1 / 2) / 2)
    assert (figures["map_known"], figures["map_unknown"]) == pytest.approx((5 / 12, 1 / 2))
    assert (figures["precision_at_1"], figures["recall_at_2"]) == pytest.approx((0, 3 / 4))
    folder = Results(tmp_path, MODEL, "streets_ood").analysis
    rows = read_csv(folder / f"retrieval_{NET}_stored.csv")
    assert [(row["space"], row["class"], row["known"], row["segments"]) for row in rows] == [
        (space, *row)
        for space in ("features", "stored")
        for row in [("boat", "unknown", "1"), ("cow", "unknown", "2"), ("car", "known", "2")]
    ]
    assert [row["average precision"] for row in rows[:2]] == ["", "0.5"]
    for suffix in ("_means.csv", ".png", ".pdf"):
        assert (folder / f"retrieval_{NET}_stored{suffix}").stat().st_size


def test_pieces_of_the_same_picture_are_no_find_and_their_figure_stands_beside(tmp_path):
    # Pictures 0, 0, 1, 1, 2. Cow 0 finds cow 2 first among 2, 3, 4 (with its own picture: cow 1);
    # cow 1 likewise; cow 2 finds 1 and 0, ranks 1 and 2 among 1, 0, 4 (3 is of its own picture).
    true_id = [COW, COW, COW, BOAT, BOAT]
    write_embeddings(tmp_path, LINE, true_id=true_id, image_index=[0, 0, 1, 1, 2])
    run = call(eval_retrieval, tmp_path, method="none", metrics=["euclid"], counts=[1])
    # with its own picture: row 3 sees 2, 1, 0, 4; row 4 sees 3 first
    assert run.info == {
        "average precision": {"features, euclid": {"boat": pytest.approx(2 / 3), "cow": 1}},
        "own picture too": {"features, euclid": {"boat": pytest.approx(5 / 8), "cow": 1}},
    }
    figures = run.result["features"]["euclid"]
    assert figures["map"] == pytest.approx(5 / 6)
    assert figures["map_own_picture"] == pytest.approx(13 / 16)
    (rows,) = Results(tmp_path, MODEL, "streets_ood").analysis.glob("*_means.csv")
    assert read_csv(rows)[0]["own picture too"] == str(13 / 16)


def test_angles_are_not_measured_on_a_map(tmp_path):
    write_embeddings(tmp_path, LINE, true_id=[COW] * 5, image_index=APART)
    figures = call(eval_retrieval, tmp_path).result
    assert {space: [*by_metric] for space, by_metric in figures.items()} == {
        "features": ["euclid", "cos"],
        "stored": ["euclid"],
    }


def test_the_spread_of_a_map_is_that_over_maps_of_vectors_a_millionth_away(tmp_path):
    rng = np.random.default_rng(0)
    columns = dict(true_id=[COW, BOAT] * 10, image_index=np.arange(20))
    write_embeddings(tmp_path, rng.normal(size=(20, 6)), **columns)
    maps = dict(method="pca", maps=3)
    figures = call(eval_retrieval, tmp_path, **maps).result["pca_2"]["euclid"]
    assert 0 <= figures["map_spread"] < 1e-3  # pca hardly heeds it
    assert np.isnan(call(eval_retrieval, tmp_path).result["stored"]["euclid"]["map_spread"])
    with pytest.raises(SettingError, match="args.maps: .* does not say how its map was made"):
        call(eval_retrieval, tmp_path, maps=2)


def test_frequent_classes_count_more_in_the_weighted_average():
    names = np.array(["a", "a", "b", "b", "b"])
    known = np.ones(5, bool)
    question = retrieval.Question(metrics=["euclid"], counts=[])
    spaces = {"features": [np.array([[0.0], [9], [1], [2], [3]])]}
    table = object_table(5, image_index=APART)
    found = retrieval.judge(spaces, table, names, known, question)
    (way,) = found.figures
    a, b = found.of_classes(way)[:, 0]
    groups = found.groups()
    assert list(groups) == ["all", "known"] and groups["all"].sum() == 2
    assert found.queries.tolist() == [2, 3] and a < b
    over_classes, over_queries = found.means(way, groups["all"])
    assert_allclose(over_classes, [(a + b) / 2] * 2)
    assert_allclose(over_queries, [(2 * a + 3 * b) / 5] * 2)


def card_of(trained_on):
    """The ModelCard of a network that does not say its classes."""
    return model_card.card_of(models[CONFIG.MODEL_NAME], datasets[trained_on], {})


def test_variants_are_one_class_and_names_meet_across_datasets():
    origin = ["a2d2"] * 3 + ["cityscapes_val"] * 2
    table = object_table(5, dataset=origin, true_id=[7, 10, 34, 10, 255])  # Car 1, Car 4, Sky; sky
    names, is_known = retrieval.classes_of(LOG, table, datasets, card_of("streets").classes)
    assert_array_equal(names, ["Car", "Car", "Sky", "Sky", ""])
    assert_array_equal(is_known, [True, True, True, True, False])


def test_other_spaces_are_made_from_the_features(tmp_path):
    rng = np.random.default_rng(0)
    gt = [COW, BOAT] * 10
    features = rng.normal(size=(20, 6)) + np.array(gt)[:, None]
    box = np.array([[0, 0, 10 if label == COW else 20, 20] for label in gt])
    columns = dict(true_id=gt, box=box, nn_embeddings=None, image_index=np.arange(20))
    write_embeddings(tmp_path, features, **columns)
    for method, space in (("none", "features"), ("pca", "pca_2"), ("size", "size")):
        figures = call(eval_retrieval, tmp_path, method=method, metrics=["euclid"]).result
        assert figures[space]["euclid"]["map_unknown"] > 0.99, method
    with pytest.raises(SettingError, match="no neighbour space yet: run discover_embedding_space"):
        call(eval_retrieval, tmp_path)


def test_segments_that_came_after_the_space_are_counted(tmp_path):
    nn = np.array(LINE)
    nn[3:] = np.nan
    write_embeddings(tmp_path, LINE, true_id=[COW] * 5, nn_embeddings=nn.astype(np.float32))
    with pytest.raises(SettingError, match="2 segments have come since the space was made"):
        call(eval_retrieval, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "umap"}, "`args.method` must be one of stored, tsne, .*got 'umap'"),
        ({"metrics": ["taxi"]}, r"`args.metrics` must be .* euclid, cos, got \['taxi'\]"),
        (
            {"counts": [1, 0]},
            r"`args.counts` must be a list, each a whole number >= 1, got \[1, 0\]",
        ),
        ({"min_query_count": 1}, "`args.min_query_count` must be a whole number >= 2"),
        ({"datasets": ["street"]}, "no objects of street, only of streets_ood"),
        ({"datasets": ["streets"]}, "no objects of streets, only of streets_ood"),
        ({"annotated": True}, "has no column `annotated`"),
        ({"min_height": 7}, r"no embeddings_7_\*_\*.p .*; run compute_embeddings"),
        ({"min_query_count": 6}, "no class has 6 segments"),
    ],
)
def test_settings_of_retrieval_that_cannot_work_are_named(tmp_path, settings, message):
    write_embeddings(tmp_path, LINE, true_id=[COW] * 5)
    with pytest.raises(SettingError, match=message):
        call(eval_retrieval, tmp_path, **settings)


# --- IoU by predicted IoU


@pytest.mark.parametrize("dataset", ["cityscapes_val", "a2d2"])
def test_recorded_confusions_by_threshold_are_met_through_files(
    reference, tmp_path, monkeypatch, dataset
):
    # The recorded numbers count a rider as a vehicle; officially, and here, it is human.
    monkeypatch.setitem(Cityscapes.categories, "rider", "vehicle")
    recorded = np.load(reference / "retrieval" / f"iou_by_threshold_{dataset}.npz")
    results = Results(tmp_path, MODEL, dataset)
    maps = np.zeros((*recorded["gt_ids"].shape, 3), np.float32)
    ids = (recorded[name].astype(np.uint8) for name in ("prediction_train_ids", "gt_ids"))
    prediction, source = Prediction(None, *ids, "a.png", maps), {"a": 1}
    arrays.write_prediction(results.prediction(0), prediction, source, "none")
    measured = {"prediction": source}
    arrays.write_components(results.components(0), recorded["components"], measured)
    metrics = {"class": np.zeros(len(recorded["iou_pred"]))}
    tables.write_table(results.metrics(0), metrics, measured)
    below = iou.count_image(
        0,
        results,
        meta_model=SimpleNamespace(predict=lambda metrics: recorded["iou_pred"]),
        categories=iou.categories_of(datasets[dataset], card_of("cityscapes_train")),
        thresholds=recorded["thresholds"],
    )
    # Recorded with the predicted category as row, and with void, which is not counted, first.
    assert_array_equal(below[:-1].transpose(0, 2, 1), recorded["confusion_below"][:, 1:, 1:])
    rest = (below[-1] - below[:-1]).transpose(0, 2, 1)
    assert_array_equal(rest, recorded["confusion_at_or_above"][:, 1:, 1:])
    for name, side in iou.sides_of(below).items():
        name, some = name.replace(" ", "_"), side.share > 0
        class_iou = np.nan_to_num(side.iou[some])  # the paper counts what is absent as 0
        assert_allclose(class_iou, recorded[f"class_iou_{name}"][some], atol=1e-5)
        assert_allclose(100 * class_iou.mean(1), recorded[f"miou_percent_{name}"][some], atol=1e-3)


def test_a_rider_is_human_and_trailers_have_a_category_though_nobody_predicts_them():
    categories = iou.categories_of(datasets["a2d2"], card_of("cityscapes_val"))
    names, predicted, true = categories.names, categories.predicted, categories.true
    assert names == ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
    assert names[predicted[12]] == "human"  # rider
    utility_vehicle, animals = 52, 0
    assert names[true[utility_vehicle]] == "vehicle"
    assert true[animals] == true[255] == predicted[255] == len(names)  # in none


def test_without_categories_every_predicted_class_is_its_own(monkeypatch):
    monkeypatch.delattr(Streets, "categories")
    categories = iou.categories_of(datasets["streets_ood"], card_of("streets"))
    assert categories.names == [name for name, _ in Streets.pred_mapping.values()]
    assert_array_equal(categories.predicted[:19], np.arange(19))
    assert_array_equal(categories.true[[0, 18, COW]], [0, 18, 19])


def test_curves_are_worked_out_by_hand():
    below = np.zeros((3, 2, 2), int)  # thresholds 0.5 and 0.9; row = true category
    below[0] = [[1, 1], [0, 0]]
    below[1] = [[2, 1], [0, 0]]
    below[2] = [[2, 1], [0, 1]]
    sides = iou.sides_of(below)
    assert_allclose(sides["below"].share, [2 / 4, 3 / 4])
    assert_allclose(sides["below"].iou, [[1 / 2, np.nan], [2 / 3, np.nan]])
    assert_allclose(sides["below"].mean, [1 / 2, 2 / 3])  # of what occurs
    assert_allclose(sides["at or above"].iou, [[1, 1], [np.nan, 1]])
    assert_allclose(sides["at or above"].share, [2 / 4, 1 / 4])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Results of stages 1 and 2 for two images of `streets_ood`, the second without labels."""
    folder = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    classes = np.zeros((32, 48), np.uint8)
    classes[:16, :24], classes[20:, 30:] = KNOWN["building"], KNOWN["car"]
    truth = classes.copy()
    truth[20:, 10:28] = COW
    for index, labels in enumerate((truth, None)):
        results, source = Results(folder, MODEL, "streets_ood"), {"image": index}
        probabilities = rng.dirichlet(np.full(19, 0.05), classes.shape).astype(np.float32)
        probabilities = (probabilities + 4 * np.eye(19, dtype=np.float32)[classes]) / 5
        prediction = Prediction(probabilities, classes, labels, f"{index}.png")
        store_image(results, index, prediction, same_ids(256), source)
    return folder


def test_the_iou_script_writes_the_curve_of_every_category(tree):
    run = call(eval_iou, tree, num_thresholds=5, num_cores=1)
    # The cow has no category, so that nothing is wrong: all of the three categories is met.
    assert run.result["miou"] == 1
    assert (run.result["iou_flat"], run.result["iou_sky"]) == (1, None)
    curve = run.info["curves"]["at or above"]
    assert (curve["mean"][0], curve["share"][0]) == (1, 1)
    folder = Results(tree, MODEL, "streets_ood").analysis
    rows = read_csv(folder / "iou_by_predicted_iou.csv")
    assert [row["threshold"] for row in rows] == ["0.0", "0.25", "0.5", "0.75", "1.0"] * 2
    assert (rows[0]["mean IoU"], rows[4]["vehicle"], rows[4]["sky"]) == ("", "1.0", "")
    for suffix in (".png", ".pdf"):
        assert (folder / f"iou_by_predicted_iou{suffix}").stat().st_size


def test_an_image_predicted_anew_fails_by_name_and_the_others_count(tree, tmp_path):
    results = Results(tmp_path, MODEL, "streets_ood")
    for kind in ("input", "components", "metrics"):
        shutil.copytree(tree / kind, tmp_path / kind)
    path = results.prediction(1)
    arrays.write_prediction(path, arrays.read_prediction(path), {"image": "another"})
    with pytest.raises(RunError, match="image 1: .*predicted again since it was measured"):
        call(eval_iou, tmp_path, num_cores=1)
    assert (results.analysis / "iou_by_predicted_iou.csv").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_thresholds": 0}, "`args.num_thresholds` must be a whole number >= 1, got 0"),
        ({"dataset": "custom_dataset"}, "no class of 'custom_dataset' is in a category .*flat"),
        ({"dataset": "streets"}, "has no metrics files; run src/MetaSeg/main.py"),
        ({"meta_model": "meta"}, "there is no meta model 'meta'"),
    ],
)
def test_settings_of_the_iou_script_that_cannot_work_are_named(tree, settings, message):
    with pytest.raises(SettingError, match=message):
        call(eval_iou, tree, **settings)


# --- selection


def test_objects_are_counted_from_a_size_on_and_covered_by_half():
    truth = np.zeros((6, 10), np.uint8)
    truth[0:2, 0:2] = truth[2:4, 2:4] = COW  # touch at a corner: one object of 8 pixels
    truth[0:2, 7:9] = COW
    truth[5, 9] = BOAT  # too small
    truth[4:6, 0:3] = 255
    size = 2, 2
    ids = [0, COW, BOAT]
    none = selection.count_objects(truth, [], [], size)
    assert_array_equal(none, [[0, 1, 0, 0], [COW, 2, 0, 0], [BOAT, 0, 0, 0]])
    # Half of the first cow, a quarter of the second, and all of the boat.
    boxes, of = [[0, 0, 2, 2], [8, 0, 9, 1], [9, 5, 10, 6]], [COW, COW, BOAT]
    assert_array_equal(
        selection.count_objects(truth, boxes, of, size),
        [[0, 1, 0, 0], [COW, 2, 1, 1], [BOAT, 0, 0, 0]],
    )
    # Two boxes with a quarter each are no box with a half.
    boxes = [[7, 0, 8, 1], [8, 1, 9, 2]]
    assert_array_equal(selection.count_objects(truth, boxes, [COW] * 2, size)[:, 2], [0, 0, 0])
    assert_array_equal(selection.count_objects(truth, [], [], (1, 1))[:, 0], ids)


def test_an_object_is_shown_by_a_crop_that_lies_on_its_class_only():
    truth = np.full((4, 8), 255, np.uint8)
    truth[0:2, 0:2], truth[0:2, 4:6] = COW, BOAT
    boxes = [[0, 0, 6, 2], [4, 0, 5, 1]]  # both objects; a quarter of the boat
    for ids, shown in (([COW, BOAT], (1, 0)), ([BOAT, COW], (0, 1)), ([255, BOAT], (0, 0))):
        counts = selection.count_objects(truth, boxes, ids, (2, 2))
        assert_array_equal(counts, [[COW, 1, 1, shown[0]], [BOAT, 1, 1, shown[1]]])


def test_variants_are_counted_as_one_class():
    counts = np.zeros((256, 3), int)
    counts[[7, 10, 34]] = [[2, 1, 1], [3, 0, 0], [1, 0, 0]]  # Car 1, Car 4, Sky
    predicted = np.full(256, 255)
    predicted[[7, 10]] = 13
    rows = selection.rows_by_class(counts, datasets["a2d2"], predicted)
    assert rows == [("Sky", "unknown", 1, 0, 0), ("Car", "known", 5, 1, 1)]


def test_each_class_has_a_bar_with_its_name_and_counts():
    rows = [("_a", "unknown", 9, 3, 2), ("$b$", "known", 2, 1, 0), ("c", "known", 1, 0, 0)]
    figure = selection.draw_bars([selection.Shown(*row) for row in rows], "set")
    unknown, known = figure.axes
    assert [tick.get_text() for tick in known.get_yticklabels()] == ["$b$", "c"]
    assert [bar.get_width() for bar in unknown.patches] == [9, 3, 2]
    assert [text.get_text() for text in known.texts] == [" 0 / 1 / 2", " 0 / 0 / 1"]
    assert known.get_title() == "known classes, in all 0 / 1 / 3"
    assert figure.get_suptitle().startswith("set: ")
    (alone,) = selection.draw_bars([selection.Shown(*rows[0])], "set").axes
    assert alone.get_title() == "unknown classes, in all 2 / 3 / 9"


@pytest.mark.parametrize(("count", "named"), [(1, 1), (30, 30), (50, 40)])
def test_as_many_categories_as_can_be_told_apart_are_named(count, named):
    names, one = [f"_{k}" for k in range(count)], np.array([0.5])
    side = iou.Side(one, np.full((1, count), 0.5), one)
    trust = iou.Trust(one, names, dict.fromkeys(iou.SIDES, side), np.ones(count))
    figure = iou.draw_curves(trust, "set")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["mean", *(f" _{k}" for k in range(named))]
    looks = {(line.get_color(), line.get_linestyle()) for line in legend.legend_handles}
    assert len(looks) == named + 1
    assert figure.get_suptitle().startswith("set: ")


def test_the_selection_script_counts_what_the_crops_show(tree):
    box = [[10, 20, 28, 32], [0, 0, 12, 16]]  # the cow, and half of the building
    true_id = [COW, KNOWN["building"]]
    write_embeddings(tree, np.ones((2, 2)), size=(4, 4), true_id=true_id, box=box)
    run = call(eval_selection, tree, min_height=4, min_width=4, num_cores=1)
    assert run.result == {
        "objects": 4,
        "covered": 2,
        "shown": 2,
        "objects_unknown": 1,
        "covered_unknown": 1,
        "shown_unknown": 1,
    }
    folder = Results(tree, MODEL, "streets_ood").analysis
    rows = read_csv(folder / f"selection_{NET}.csv")
    assert [tuple(row.values()) for row in rows] == [
        ("cow", "unknown", "1", "1", "1", "1.0", "1.0"),
        ("building", "known", "1", "1", "1", "1.0", "1.0"),
        ("car", "known", "1", "0", "0", "0.0", "0.0"),
        ("road", "known", "1", "0", "0", "0.0", "0.0"),
    ]
    for suffix in (".png", ".pdf"):
        assert (folder / f"selection_{NET}{suffix}").stat().st_size


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "custom_dataset"}, "'custom_dataset' has no ground truth"),
        ({"min_height": 9}, r"no embeddings_9_\*_\*.p .*; run compute_embeddings"),
        ({"dataset": "streets_val"}, "no objects of streets_val, only of streets_ood"),
        ({"num_cores": 0}, "`args.num_cores` must be a whole number >= 1, got 0"),
    ],
)
def test_settings_of_the_selection_that_cannot_work_are_named(tmp_path, settings, message):
    write_embeddings(tmp_path, np.ones((1, 2)), true_id=[COW])
    with pytest.raises(SettingError, match=message):
        call(eval_selection, tmp_path, **settings)


# --- groups


def test_groups_are_judged_by_the_script(tmp_path):
    vectors = np.repeat(100 * np.eye(2, 3), 5, axis=0) + np.arange(10)[:, None] / 100
    true_id = [COW] * 4 + [BOAT] * 4 + [KNOWN["car"], 255]
    write_embeddings(tmp_path, vectors, true_id=true_id)
    run = call(eval_groups, tmp_path, min_height=16, min_width=16)
    assert run.result["all"]["purity"] == 7 / 9  # four cows and a boat; three boats and a car
    assert run.result["unknown"]["completeness"] == 7 / 8
    assert run.result["known"]["purity"] == 0
    folder = Results(tmp_path, MODEL, "streets_ood").analysis
    rows = read_csv(folder / f"groups_{NET}.csv")
    assert [row["objects"] for row in rows] == ["9", "1", "8"]


# --- pictures to label


def test_the_budget_script_tells_how_much_of_the_unknown_is_labelled(tree):
    write_embeddings(tree, np.ones((2, 2)), size=(4, 4), image_index=[0, 1])
    run = call(eval_budget, tree, min_height=4, min_width=4, num_cores=1)
    # the second picture has no labels: all is in the first
    assert run.result["expected gain"] == run.result["at random"]
    assert_allclose(run.result["expected gain"], np.tile([0.1, 0.25, 0.5], (2, 3, 1)))
    folder = Results(tree, MODEL, "streets_ood").analysis
    rows = read_csv(folder / f"budget_{NET}.csv")
    ways = ["expected gain", "most suspicious first", "farthest first", *["at random"] * 5]
    assert [row["way"] for row in rows] == ways
    assert {row["objects"] for row in rows} == {"1.0"}
    for suffix in (".png", ".pdf"):
        assert (folder / f"budget_{NET}{suffix}").stat().st_size


def test_a_budget_is_not_judged_where_nothing_is_unknown(tree):
    write_embeddings(tree, np.ones((2, 2)), size=(5, 19), image_index=[0, 1])
    with pytest.raises(SettingError, match="none of an unknown class with 5 x 19 pixels"):
        call(eval_budget, tree, min_height=5, min_width=19, num_cores=1)
