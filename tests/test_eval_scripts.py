"""Retrieval, IoU by predicted IoU, and selection: the scripts on recorded and hand-made files."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import eval_iou
import eval_retrieval
import eval_selection
from configuration import CONFIG, datasets
from src.datasets.cityscapes import Cityscapes
from src.datasets.streets import Streets
from src.errors import RunError, SettingError
from src.MetaSeg.metrics import compute_metrics_components
from src.records import Prediction
from src.store import cache

MODEL, NET = CONFIG.MODEL_NAME, CONFIG.EMBEDDING_NETWORK
COW, BOAT = 100, 107  # ids in Streets.label_mapping
KNOWN = {"road": 0, "building": 2, "car": 13}


def call(script, io_path, **settings):
    """A script as sacred runs it; gives the finished run."""
    return script.ex.run(config_updates={"args": {"io_path": str(io_path), **settings}})


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_embeddings(io_path, gt, nn, *, dataset="streets_ood", size=(16, 16), box=None, **columns):
    """An embeddings file with one image, or with as many as `dataset` has names."""
    names = [dataset] if isinstance(dataset, str) else dataset
    count, images = len(gt), len(names)
    table = {
        "image_path": [f"{k}.png" for k in range(images)],
        "dataset": names,
        "model_name": [MODEL] * images,
        "image_index": np.arange(images),
        "iou_pred": [np.full(count, 0.25, np.float32)] * images,
        "embeddings": np.asarray(nn, np.float32),
        "nn_embeddings": np.asarray(nn, np.float32),
        "box": np.tile([0, 0, 4, 4], (count, 1)) if box is None else np.asarray(box),
        "component_index": np.arange(1, count + 1),
        "image_level_index": np.zeros(count, np.int64),
        "gt": np.asarray(gt),
        "pred": np.zeros(count, np.int64),
        **columns,
    }
    table = {name: value for name, value in table.items() if value is not None}
    cache.write_table(cache.embeddings_path(io_path, MODEL, *size, NET), table, {})


# --- retrieval


@pytest.mark.parametrize("case", ["plain", "annotated"])
def test_recorded_mean_average_precisions_are_met(reference, tmp_path, case):
    recorded = np.load(reference / "retrieval" / f"map_{case}.npz")
    columns = {}
    if case == "annotated":
        columns["annotated"] = np.ones(len(recorded["gt_ids"]), np.int64)
        columns["annotated"][recorded["kept_rows"]] = recorded["annotated"]
    write_embeddings(
        tmp_path, recorded["gt_ids"], recorded["embeddings"],
        dataset="a2d2", size=(128, 128), **columns,
    )  # fmt: skip
    settings = dict(min_height=128, min_width=128, annotated=case == "annotated")
    run = call(eval_retrieval, tmp_path, **settings)
    for metric in ("euclid", "cos"):
        found = run.info["average precision"][metric].values()
        per_class = sorted(value for value in found if value is not None)
        assert_allclose(per_class, sorted(recorded[f"map_per_class_{metric}"]), rtol=1e-6)
        figures = run.result[metric]
        assert figures["map"] == pytest.approx(float(recorded[f"map_average_{metric}"]), rel=1e-6)
        weighted = float(recorded[f"map_weighted_{metric}"])
        assert figures["map_weighted"] == pytest.approx(weighted, rel=1e-6)


LINE = [[0.0, 1], [1, 1], [3, 1], [6, 1], [50, 1]]  # row 0 sees 1, 2, 3, 4 in order


def test_classes_are_averaged_alone_and_by_known_and_unknown(tmp_path):
    # cow 0: ranks 2; cow 2: rank 2 (1 is nearer); cars 1 and 3 likewise; a boat alone.
    write_embeddings(tmp_path, [COW, KNOWN["car"], COW, KNOWN["car"], BOAT], LINE)
    run = call(eval_retrieval, tmp_path, metrics=["euclid"], counts=[1, 2])
    assert run.info["average precision"] == {
        # row 0: 1, 2 -> 1/2; row 2: 1, 0 or 3 at equal distance, the lower first -> 1/2;
        # row 1: 0, 2, 3 -> 1/3; row 3: 2, 1 -> 1/2
        "euclid": {"boat": None, "car": pytest.approx(5 / 12), "cow": pytest.approx(1 / 2)}
    }
    figures = run.result["euclid"]
    assert figures["map"] == pytest.approx((5 / 12 + 1 / 2) / 2)
    assert (figures["map_known"], figures["map_unknown"]) == pytest.approx((5 / 12, 1 / 2))
    assert (figures["precision_at_1"], figures["recall_at_2"]) == pytest.approx((0, 3 / 4))
    folder = cache.analysis_folder(tmp_path, MODEL, "streets_ood")
    rows = read_csv(folder / f"retrieval_{NET}_stored.csv")
    assert [(row["class"], row["known"], row["segments"]) for row in rows] == [
        ("boat", "unknown", "1"),
        ("cow", "unknown", "2"),
        ("car", "known", "2"),
    ]
    assert [row["average precision"] for row in rows[:2]] == ["", "0.5"]
    for suffix in ("_means.csv", ".png", ".pdf"):
        assert (folder / f"retrieval_{NET}_stored{suffix}").stat().st_size


def test_frequent_classes_count_more_in_the_weighted_average():
    names = np.array(["a", "a", "b", "b", "b"])
    known = np.ones(5, bool)
    classes = eval_retrieval.judge(
        np.array([[0.0], [9], [1], [2], [3]]), names, known, ["euclid"], []
    )
    (_, number, queries, mean, weighted), *_ = eval_retrieval.means(classes, "euclid")
    a, b = (row["euclid"][0] for row in classes)
    assert (number, queries) == (2, 5) and a < b
    assert_allclose([mean[0], weighted[0]], [(a + b) / 2, (2 * a + 3 * b) / 5])


def test_variants_are_one_class_and_names_meet_across_datasets():
    table = {
        "dataset": ["a2d2", "cityscapes_val"],
        "image_level_index": np.array([0, 0, 0, 1, 1]),
        "gt": np.array([7, 10, 34, 10, 255]),  # Car 1, Car 4, Sky; sky
    }
    log = eval_retrieval.ex.logger
    names, is_known = eval_retrieval.classes_of(log, table, np.arange(5))
    assert_array_equal(names, ["Car", "Car", "Sky", "Sky", ""])
    assert_array_equal(is_known, [True, True, True, True, False])


def test_other_spaces_are_made_from_the_features(tmp_path):
    rng = np.random.default_rng(0)
    gt = [COW, BOAT] * 10
    features = rng.normal(size=(20, 6)) + np.array(gt)[:, None]
    box = np.array([[0, 0, 10 if label == COW else 20, 20] for label in gt])
    write_embeddings(tmp_path, gt, features, box=box, nn_embeddings=None)
    for method in ("none", "pca", "size"):
        figures = call(eval_retrieval, tmp_path, method=method, metrics=["euclid"]).result
        assert figures["euclid"]["map_unknown"] > 0.99, method
    with pytest.raises(SettingError, match="no neighbour space yet: run discover_embedding_space"):
        call(eval_retrieval, tmp_path)


def test_segments_that_came_after_the_space_are_counted(tmp_path):
    nn = np.array(LINE)
    nn[3:] = np.nan
    write_embeddings(tmp_path, [COW] * 5, LINE, nn_embeddings=nn.astype(np.float32))
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
        ({"datasets": ["street"]}, "there is no dataset 'street'. Did you mean"),
        ({"datasets": ["streets"]}, "no segments of streets, only of streets_ood"),
        ({"annotated": True}, "has no column `annotated`"),
        ({"min_height": 7}, "embeddings_7_16_segmentation.p is missing; run compute_embeddings"),
        ({"min_query_count": 6}, "no class has 6 segments"),
    ],
)
def test_settings_of_retrieval_that_cannot_work_are_named(tmp_path, settings, message):
    write_embeddings(tmp_path, [COW] * 5, LINE)
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
    place = tmp_path, MODEL, dataset
    maps = np.zeros((*recorded["gt_ids"].shape, 3), np.float32)
    ids = (recorded[name].astype(np.uint8) for name in ("prediction_train_ids", "gt_ids"))
    path = cache.prediction_path(*place, 0)
    cache.write_prediction(path, Prediction(None, *ids, "a.png", maps), {"a": 1}, "none")
    made_from = {"prediction": cache.made_from(path)}
    cache.write_components(cache.components_path(*place, 0), recorded["components"], made_from)
    metrics = {"class": np.zeros(len(recorded["iou_pred"]))}
    cache.write_table(cache.metrics_path(*place, 0), metrics, made_from)
    names, tables = eval_iou.category_tables(datasets[dataset], datasets["cityscapes_train"])
    below = eval_iou.count_image(
        0,
        place=place,
        meta_model=SimpleNamespace(predict=lambda metrics: recorded["iou_pred"]),
        thresholds=recorded["thresholds"],
        tables=tables,
        categories=len(names),
    )
    # Recorded with the predicted category as row, and with void, which is not counted, first.
    assert_array_equal(below[:-1].transpose(0, 2, 1), recorded["confusion_below"][:, 1:, 1:])
    rest = (below[-1] - below[:-1]).transpose(0, 2, 1)
    assert_array_equal(rest, recorded["confusion_at_or_above"][:, 1:, 1:])
    curves = eval_iou.curves(below)
    for side, name in (("below", "below"), ("at or above", "at_or_above")):
        some = curves[side]["share"] > 0
        iou = np.nan_to_num(curves[side]["iou"][some])  # the paper counts what is absent as 0
        assert_allclose(iou, recorded[f"class_iou_{name}"][some], atol=1e-5)
        assert_allclose(100 * iou.mean(1), recorded[f"miou_percent_{name}"][some], atol=1e-3)


def test_a_rider_is_human_and_trailers_have_a_category_though_nobody_predicts_them():
    names, (predicted, true) = eval_iou.category_tables(
        datasets["a2d2"], datasets["cityscapes_val"]
    )
    assert names == ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
    assert names[predicted[12]] == "human"  # rider
    utility_vehicle, animals = 52, 0
    assert names[true[utility_vehicle]] == "vehicle"
    assert true[animals] == true[255] == predicted[255] == len(names)  # in none


def test_without_categories_every_predicted_class_is_its_own(monkeypatch):
    monkeypatch.delattr(Streets, "categories")
    names, (predicted, true) = eval_iou.category_tables(
        datasets["streets_ood"], datasets["streets"]
    )
    assert names == [name for name, _ in Streets.pred_mapping.values()]
    assert_array_equal(predicted[:19], np.arange(19))
    assert_array_equal(true[[0, 18, COW]], [0, 18, 19])


def test_curves_are_worked_out_by_hand():
    below = np.zeros((3, 2, 2), int)  # thresholds 0.5 and 0.9; row = true category
    below[0] = [[1, 1], [0, 0]]
    below[1] = [[2, 1], [0, 0]]
    below[2] = [[2, 1], [0, 1]]
    curves = eval_iou.curves(below)
    assert_allclose(curves["below"]["share"], [2 / 4, 3 / 4])
    assert_allclose(curves["below"]["iou"], [[1 / 2, np.nan], [2 / 3, np.nan]])
    assert_allclose(curves["below"]["mean"], [1 / 2, 2 / 3])  # of what occurs
    assert_allclose(curves["at or above"]["iou"], [[1, 1], [np.nan, 1]])
    assert_allclose(curves["at or above"]["share"], [2 / 4, 1 / 4])


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
        place = folder, MODEL, "streets_ood", index
        probabilities = rng.dirichlet(np.full(19, 0.05), classes.shape).astype(np.float32)
        probabilities = (probabilities + 4 * np.eye(19, dtype=np.float32)[classes]) / 5
        prediction = Prediction(probabilities, classes, labels, f"{index}.png")
        path = cache.prediction_path(*place)
        cache.write_prediction(path, prediction, {"image": index})
        metrics, components = compute_metrics_components(probabilities, labels)
        made_from = {"prediction": cache.made_from(path)}
        cache.write_components(cache.components_path(*place), components, made_from)
        cache.write_table(cache.metrics_path(*place), metrics, made_from)
    return folder


def test_the_iou_script_writes_the_curve_of_every_category(tree):
    run = call(eval_iou, tree, num_thresholds=5, num_cores=1)
    # The cow has no category, so that nothing is wrong: all of the three categories is met.
    assert run.result["miou"] == 1
    assert (run.result["iou_flat"], run.result["iou_sky"]) == (1, None)
    curve = run.info["curves"]["at or above"]
    assert (curve["mean"][0], curve["share"][0]) == (1, 1)
    folder = cache.analysis_folder(tree, MODEL, "streets_ood")
    rows = read_csv(folder / "iou_by_predicted_iou.csv")
    assert [row["threshold"] for row in rows] == ["0.0", "0.25", "0.5", "0.75", "1.0"] * 2
    assert (rows[0]["mean IoU"], rows[4]["vehicle"], rows[4]["sky"]) == ("", "1.0", "")
    for suffix in (".png", ".pdf"):
        assert (folder / f"iou_by_predicted_iou{suffix}").stat().st_size


def test_an_image_predicted_anew_fails_by_name_and_the_others_count(tree, tmp_path):
    place = tmp_path, MODEL, "streets_ood"
    for index in (0, 1):
        for path in (cache.prediction_path, cache.components_path, cache.metrics_path):
            target = path(*place, index)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path(tree, *place[1:], index).read_bytes())
    path = cache.prediction_path(*place, 1)
    cache.write_prediction(path, cache.read_prediction(path), {"image": "another"})
    with pytest.raises(RunError, match="image 1: .*predicted again since it was measured"):
        call(eval_iou, tmp_path, num_cores=1)
    assert (cache.analysis_folder(*place) / "iou_by_predicted_iou.csv").is_file()


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
    none = eval_selection.count_objects(truth, [], size)
    assert_array_equal(none, [[0, 1, 0], [COW, 2, 0], [BOAT, 0, 0]])
    # Half of the first cow, a quarter of the second, and all of the boat.
    boxes = [[0, 0, 2, 2], [8, 0, 9, 1], [9, 5, 10, 6]]
    assert_array_equal(
        eval_selection.count_objects(truth, boxes, size), [[0, 1, 0], [COW, 2, 1], [BOAT, 0, 0]]
    )
    # Two boxes with a quarter each are no box with a half.
    boxes = [[7, 0, 8, 1], [8, 1, 9, 2]]
    assert_array_equal(eval_selection.count_objects(truth, boxes, size)[:, 2], [0, 0, 0])
    assert_array_equal(eval_selection.count_objects(truth, [], (1, 1))[:, 0], ids)


def test_variants_are_counted_as_one_class():
    counts = np.zeros((256, 2), int)
    counts[[7, 10, 34]] = [[2, 1], [3, 0], [1, 0]]  # Car 1, Car 4, Sky
    predicted = np.full(256, 255)
    predicted[[7, 10]] = 13
    rows = eval_selection.rows_by_class(counts, datasets["a2d2"], predicted)
    assert rows == [("Sky", "unknown", 1, 0), ("Car", "known", 5, 1)]


def test_small_slices_of_a_pie_become_one():
    rows = [("a", "known", 96, 3), ("b", "known", 2, 1), ("c", "known", 2, 2)]
    assert eval_selection.grouped(rows) == [("a", 96, 3), ("2 others", 4, 3)]


def test_the_selection_script_counts_what_the_crops_show(tree):
    box = [[10, 20, 28, 32], [0, 0, 12, 16]]  # the cow, and half of the building
    write_embeddings(tree, [COW, KNOWN["building"]], np.ones((2, 2)), size=(4, 4), box=box)
    run = call(eval_selection, tree, min_height=4, min_width=4, num_cores=1)
    assert run.result == {
        "objects": 4,
        "covered": 2,
        "objects_unknown": 1,
        "covered_unknown": 1,
    }
    folder = cache.analysis_folder(tree, MODEL, "streets_ood")
    rows = read_csv(folder / f"selection_{NET}.csv")
    assert [tuple(row.values()) for row in rows] == [
        ("cow", "unknown", "1", "1", "1.0"),
        ("building", "known", "1", "1", "1.0"),
        ("car", "known", "1", "0", "0.0"),
        ("road", "known", "1", "0", "0.0"),
    ]
    for suffix in (".png", ".pdf"):
        assert (folder / f"selection_{NET}{suffix}").stat().st_size


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "custom_dataset"}, "'custom_dataset' has no ground truth"),
        ({"min_height": 9}, "embeddings_9_16_segmentation.p is missing; run compute_embeddings"),
        ({"dataset": "streets_val"}, "no segments of 'streets_val', only of streets_ood"),
        ({"num_cores": 0}, "`args.num_cores` must be a whole number >= 1, got 0"),
    ],
)
def test_settings_of_the_selection_that_cannot_work_are_named(tmp_path, settings, message):
    write_embeddings(tmp_path, [COW], np.ones((1, 2)))
    with pytest.raises(SettingError, match=message):
        call(eval_selection, tmp_path, **settings)
