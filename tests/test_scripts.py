"""The five scripts in order, as a user starts them: a clone with own entries, in another folder.

The photographs are real ones.
"""

import re
import shutil
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 (h5py finds its filters there)
import numpy as np
import pytest
import skimage
import sklearn
from clone import (
    DISCOVER,
    EMBED,
    MEASURE,
    PREDICT,
    SCRIPTS,
    SEARCH,
    SPLITS,
    TRAIN,
    TREE,
    Clone,
    files_below,
    table_at,
    tree_of,
    written_at,
)  # fmt: skip
from PIL import Image
from workers import new_cluster

from src.store import arrays, tables
from src.store.paths import Results

TABLE = "embeddings/nearest_colour/embeddings_6_6_segmentation.p"
VECTORS = "embeddings/nearest_colour/embeddings_6_6_segmentation/{dataset}/vectors{}.p"


def save_photographs(folder):
    """Four photographs of different sizes and formats, one on its side, and a broken one."""
    folder.mkdir(parents=True)
    scikit_image, scikit_learn = (Path(m.__file__).parent for m in (skimage, sklearn))
    sources = {
        "china.jpg": scikit_learn / "datasets" / "images" / "china.jpg",
        "coffee.png": scikit_image / "data" / "coffee.png",
        "flower.JPG": scikit_learn / "datasets" / "images" / "flower.jpg",
        "rocket.jpeg": scikit_image / "data" / "rocket.jpg",
    }
    for number, (name, source) in enumerate(sources.items()):
        with Image.open(source) as picture:
            picture.thumbnail((100 + 10 * number, 100))  # small ones are measured faster
            exif = Image.Exif()
            exif[0x0112] = 6 if name == "rocket.jpeg" else 1  # 6: to be turned by a right angle
            picture.save(folder / name, exif=exif)
    (folder / "broken.jpg").write_text("no picture")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("user"))
    save_photographs(clone.photographs)
    return clone


@pytest.fixture(scope="module")
def runs(clone):
    """Every stage on the blocks and on the photographs: name -> finished process."""
    photographs = "args.dataset=custom_dataset"
    searched, shown = "args.datasets=[blocks,custom_dataset]", "args.datasets=[custom_dataset]"
    every_size = ["args.min_height=6", "args.min_width=6"]
    io_path = f"args.io_path={clone.results}_photographs"
    runs = clone.call_all(
        predict_train=(PREDICT, "with", "args.dataset=blocks"),
        predict_val=(PREDICT, "with", "args.dataset=blocks_val"),
        predict=(PREDICT, "with", "args.num_cores=2"),
        predict_photographs=(PREDICT, "with", photographs, io_path),
    )
    runs |= clone.call_all(
        measure_train=(MEASURE, "with", "args.dataset=blocks"),
        measure_val=(MEASURE, "with", "args.dataset=blocks_val"),
        measure=(MEASURE, "with", "args.num_cores=2"),
        measure_photographs=(MEASURE, "with", photographs, io_path),
    )
    runs |= clone.call_all(train=(TRAIN, "with", "args.epochs=3", "args.batch_size=8"))
    runs |= clone.call_all(
        embed=(EMBED,),
        embed_photographs=(EMBED, "with", searched, io_path, *every_size),
    )
    maps = [f"mainplot.save_path={name}/map.png" for name in ("blocks", "photographs")]
    runs |= clone.call_all(
        discover=(DISCOVER, "with", maps[0], "mainplot.segment=2"),
        discover_photographs=(
            DISCOVER, "with", shown, io_path, *every_size, maps[1], "mainplot.segment=0",
        ),
    )  # fmt: skip
    return runs


@pytest.fixture(scope="module")
def photograph_results(clone, runs):
    return Path(f"{clone.results}_photographs")


# In order


def test_every_stage_ends_well(runs):
    wrong = {name: run.stderr for name, run in runs.items() if run.returncode}
    assert [*wrong] == ["predict_photographs"], wrong  # the broken picture
    assert "arning" not in "".join(run.stderr for run in runs.values())


def test_the_files_are_where_the_documents_say(clone, runs):
    beside = {f"{TABLE.removesuffix('.p')}/{name}.p" for name in ("known", "judged")}
    expected = (
        {TABLE} | beside | {VECTORS.format(index, dataset="blocks_ood") for index in range(3)}
    )
    for dataset, count in SPLITS.items():
        expected |= tree_of(dataset, range(count))
    assert files_below(clone.results) == expected
    assert (clone.folder / "weights" / "meta_nn_streets.pth").is_file()


def test_a_prediction_holds_what_the_documents_say(clone, runs):
    with h5py.File(clone.results / TREE["input"].format(1, dataset="blocks_ood")) as file:
        assert set(file) == {"probabilities", "prediction", "ground_truths", "image_path"}
        probabilities = file["probabilities"][()]  # class by class, 65535 is 1
        assert (probabilities.shape, probabilities.dtype) == ((3, 48, 64), np.uint16)
        assert abs(probabilities.sum(axis=0, dtype=int) - 65535).max() <= 1
        np.testing.assert_array_equal(file["prediction"], probabilities.argmax(axis=0))
        assert set(np.unique(file["ground_truths"])) >= {0, 2, 100, 101}
        assert file["image_path"][0].decode().endswith("data/blocks_ood/1_image.png")


def test_metrics_and_component_map_have_the_same_segments(clone, runs):
    metrics = table_at(clone.results / TREE["metrics"].format(0, dataset="blocks_ood"))
    with h5py.File(clone.results / TREE["components"].format(0, dataset="blocks_ood")) as file:
        components = file["components"][()]
    assert (components.shape, components.dtype) == ((48, 64), np.int32)
    count = abs(components).max()
    assert count > 2
    assert {len(values) for name, values in metrics.items() if name != "made_from"} == {count}
    assert {"iou", "iou0", "class", "E_bd", "S_rel", "cprob2", "ndist0"} <= metrics.keys()
    assert all(0 <= iou <= 1 for iou in metrics["iou"])


def test_the_embeddings_table_has_a_row_an_object_of_suspicious_segments(clone, runs):
    table = table_at(clone.results / TABLE)
    rows, counts = len(table["gt"]), table["segment_counts"]
    assert rows == len(counts) >= 3
    assert len(table["segments"]) == counts.sum() > 6
    assert table["dataset"] == ["blocks_ood"] * 3 and table["model_name"] == ["nearest_colour"] * 3
    assert table["embeddings"].shape == (rows, 3)
    assert table["nn_embeddings"].shape == table["plot_embeddings"].shape == (rows, 2)
    for name in ("box", "component_index", "image_level_index", "pred", "iou", "thumbnail_sizes"):
        assert len(table[name]) == rows, name
    left, upper, right, lower = table["box"].T
    assert (right - left >= 6).all() and (lower - upper >= 6).all()
    judged = [table["iou_pred"][image] for image in table["image_level_index"]]
    segments = np.split(table["segments"], np.cumsum(counts)[:-1])
    assert [numbers[0] for numbers in segments] == table["component_index"].tolist()
    for iou, of_image, numbers in zip(table["iou"], judged, segments, strict=True):
        of_segments = of_image[numbers - 1]
        assert of_segments.min() <= iou <= of_segments.max()  # it is a mean of them


def test_the_log_gives_the_figures(runs):
    assert re.search(r"R\^2 .* blocks_val: -?\d\.\d{3} \(\d+ segments, all\)", runs["train"].stderr)
    assert re.search(r"AUROC of out of distribution .* [01]\.\d{3}", runs["embed"].stderr)
    assert "3 done, 0 skipped (already there), 0 failed, 3 in total" in runs["predict"].stderr
    assert "3 done, 0 skipped (already there), 0 failed, 3 in total" in runs["measure"].stderr


@pytest.mark.parametrize(
    ("folder", "row"), [("blocks", 2), ("photographs", 0)], ids=["blocks", "photographs"]
)
def test_the_map_and_the_pictures_of_a_segment_are_written(clone, runs, folder, row):
    folder = clone.elsewhere / folder
    names = ["map.png", f"map_neighbours_{row}.png", f"map_overview_{row}.png"]
    assert sorted(files_below(folder)) == names
    for name in names:
        with Image.open(folder / name) as picture:
            assert picture.width > 600 and picture.height > 400
            assert len(picture.convert("L").getcolors()) > 20  # shades


def test_a_second_run_of_every_stage_does_nothing(clone, runs):
    before = written_at(clone.results, clone.folder)
    again = clone.call_all(
        predict=(PREDICT, "with", "args.num_cores=2"),
        measure=(MEASURE,),
        train=(TRAIN, "with", "args.epochs=3", "args.batch_size=8"),
        embed=(EMBED,),
        discover=(DISCOVER, "with", "mainplot.save_path=again.png"),
    )
    assert {name: run.returncode for name, run in again.items()} == dict.fromkeys(again, 0)
    assert written_at(clone.results, clone.folder) == before
    for name in ("predict", "measure"):
        assert "0 done, 3 skipped (already there), 0 failed, 3 in total" in again[name].stderr
    assert "not trained again" in again["train"].stderr
    assert "up to date" in again["embed"].stderr
    assert "reducing" not in again["discover"].stderr
    for name in ("train", "embed"):  # the figures are told again
        figures = [
            [line.split(" ", 1)[1] for line in run.stderr.splitlines() if "R^2" in line
             or "AUROC" in line]
            for run in (runs[name], again[name])
        ]  # fmt: skip
        assert figures[0] == figures[1] != []


# Photographs


def test_photographs_need_no_ground_truth(photograph_results):
    indices = [1, 2, 3, 4]  # 0 is the broken one
    vectors = {VECTORS.format(index, dataset="custom_dataset") for index in indices}
    judged = TABLE.removesuffix(".p") + "/judged.p"
    expected = tree_of("custom_dataset", indices) | vectors | {TABLE, judged}
    assert files_below(photograph_results) == expected
    for index in indices:
        metrics = table_at(
            photograph_results / TREE["metrics"].format(index, dataset="custom_dataset")
        )
        assert len(metrics["iou"]) and np.isnan(np.array(metrics["iou"], float)).all()
    table = table_at(photograph_results / TABLE)
    assert len(table["gt"]) and set(table["gt"]) == {255}
    names = [Path(path).name for path in table["image_path"]]
    assert names == ["china.jpg", "coffee.png", "flower.JPG", "rocket.jpeg"]


def test_nothing_is_claimed_that_needs_ground_truth(runs):
    log = "".join(run.stderr for name, run in runs.items() if name.endswith("_photographs"))
    assert "AUROC" not in log and "R^2" not in log


def test_a_picture_that_cannot_be_read_is_named_and_stops_no_other(clone, runs):
    run = runs["predict_photographs"]
    assert run.returncode == 1
    assert "4 done, 0 skipped (already there), 1 failed, 5 in total" in run.stderr
    last = run.stderr.splitlines()[-1]
    assert last.startswith("  image 0: ") and str(clone.photographs / "broken.jpg") in last
    assert "Traceback" not in run.stderr


# Other ways to run a stage


def test_without_probabilities_stage_1_measures_the_segments_itself(clone, runs, tmp_path):
    results = {form: tmp_path / form for form in ("none", "float32")}
    for form, folder in results.items():
        assert (
            clone.call(PREDICT, "with", f"args.probabilities={form}", results=folder).returncode
            == 0
        )
    before = written_at(results["none"])
    measured = {form: clone.call(MEASURE, results=folder) for form, folder in results.items()}
    assert "0 done, 3 skipped" in measured["none"].stderr
    assert "3 done, 0 skipped" in measured["float32"].stderr
    assert written_at(results["none"]) == before
    again = clone.call(PREDICT, "with", "args.probabilities=none", results=results["none"])
    assert "0 done, 3 skipped" in again.stderr
    for index in range(3):
        name = TREE["metrics"].format(index, dataset="blocks_ood")
        one, other = (table_at(folder / name) for folder in results.values())
        assert one.keys() == other.keys()
        for metric in one.keys() - {"made_from"}:
            np.testing.assert_array_equal(one[metric], other[metric], err_msg=metric)
    overwritten = clone.call(MEASURE, "with", "args.overwrite=True", results=results["none"])
    assert overwritten.returncode == 1 and "args.probabilities=none" in overwritten.stderr
    assert "Traceback" not in overwritten.stderr


def test_stage_1_can_be_kept_to_images_with_a_class_or_in_a_list(clone, runs, tmp_path):
    assert clone.call(SEARCH, results=tmp_path).returncode == 0
    (clone.elsewhere / "some.txt").write_text("2\n")
    settings = "args.classindex=sofa", "args.subset_file=some.txt"
    assert clone.call(PREDICT, "with", *settings, results=tmp_path).returncode == 0
    assert [path.name for path in (tmp_path / "input").rglob("*.hdf5")] == ["input2.hdf5"]


def test_stage_2_draws_the_iou_and_compares_meta_models(clone, runs, copied_results):
    tasks = "args.visualize_rating=True", "args.analyze_metrics=True", "args.num_averages=2"
    run = clone.call(MEASURE, "with", "args.dataset=blocks", *tasks, results=copied_results)
    assert run.returncode == 0, run.stderr
    picture = copied_results / "pictures/rating/nearest_colour/blocks/rating0.png"
    with Image.open(picture) as rating:
        assert rating.width >= 2 * 64 and rating.height >= 2 * 48
    folder = copied_results / "analysis/nearest_colour/blocks"
    assert {"scores.csv", "scores.tex", "roc.png", "predicted.png"} <= files_below(folder)
    assert re.search(r"regression +neural +R\^2", run.stderr)


def test_a_heat_map_of_ones_own_stays_and_trains_another_meta_model(
    clone, copied_results, tmp_path
):
    for dataset, count in SPLITS.items():
        (tmp_path / dataset).mkdir()
        for index in range(count):
            np.save(tmp_path / dataset / f"{index}.npy", np.ones((48, 64)))
    maps = {d: [f"args.dataset={d}", f"args.heatmaps.depth={tmp_path / d}"] for d in SPLITS}
    for dataset in ("blocks", "blocks_val"):
        run = clone.call(MEASURE, "with", *maps[dataset], results=copied_results)
        assert run.returncode == 0, run.stderr
    again = clone.call(MEASURE, "with", "args.dataset=blocks", results=copied_results)
    assert "0 done, 4 skipped" in again.stderr  # they are kept
    table = table_at(copied_results / TREE["metrics"].format(0, dataset="blocks"))
    np.testing.assert_array_equal(table["depth_in"] <= 1, True)
    weights = clone.elsewhere / "deep.pth"
    shutil.copy(clone.folder / "weights" / "meta_nn_streets.pth", weights)
    before = weights.read_bytes()
    words = ["args.epochs=3", "args.batch_size=8", "args.meta_weights=deep.pth"]
    run = clone.call(TRAIN, "with", *words, results=copied_results)
    assert run.returncode == 0, run.stderr
    assert weights.read_bytes() != before


def test_scores_of_the_logits_are_kept_and_measured(clone, copied_results):
    one = "args.num_images=1"
    scored = clone.call(PREDICT, "with", "args.scores=[energy]", one, results=copied_results)
    assert "1 done, 0 skipped" in scored.stderr, scored.stderr
    plain = clone.call(PREDICT, "with", one, results=copied_results)
    assert "0 done, 1 skipped" in plain.stderr  # what is kept does no harm
    measured = clone.call(MEASURE, results=copied_results)
    assert "1 done, 2 skipped" in measured.stderr
    table = table_at(copied_results / TREE["metrics"].format(0, dataset="blocks_ood"))
    assert np.ptp(table["energy"]) > 0 and "max_logit" not in table


# When things change or break


@pytest.fixture
def copied_results(clone, runs, tmp_path):
    return shutil.copytree(clone.results, tmp_path / "results")


def test_on_a_cluster_the_stages_give_what_they_give_here(clone, runs, copied_results):
    place, folders = ("nearest_colour", "blocks_ood"), (copied_results, clone.results)
    for kind in ("input", "metrics", "components"):
        shutil.rmtree(copied_results.joinpath(kind, *place))
    shutil.rmtree(copied_results / "embeddings")
    with new_cluster() as cluster:
        for _ in range(2):
            cluster.worker(path=[clone.folder])
        for script in (PREDICT, MEASURE, EMBED):
            words = f"args.scheduler={cluster.address}", "args.images_per_job=2"
            run = clone.call(script, "with", *words, results=copied_results)
            assert run.returncode == 0, run.stderr
            assert f"2 jobs at a time on workers of {cluster.address}" in run.stderr
    for index in range(SPLITS["blocks_ood"]):
        for kind, read in (
            ("prediction", lambda path: vars(arrays.read_prediction(path))),
            ("metrics", tables.read_table),
            ("components", arrays.read_components),
        ):
            paths = (getattr(Results(folder, *place), kind)(index) for folder in folders)
            np.testing.assert_equal(*map(read, paths))
    table, expected = (tables.read_embeddings(folder / TABLE) for folder in folders)
    assert len(table) > 0
    for name in table.columns:  # stage 5 has added to the other one
        np.testing.assert_equal(table[name].tolist(), expected[name].tolist())


def test_a_prediction_that_cannot_be_read_is_named_and_stops_no_other(clone, copied_results):
    broken = copied_results / TREE["input"].format(0, dataset="blocks_ood")
    broken.write_bytes(broken.read_bytes()[:200])
    run = clone.call(MEASURE, results=copied_results)
    assert run.returncode == 1
    assert "2 skipped (already there), 1 failed, 3 in total" in run.stderr
    assert str(broken) in run.stderr and "Traceback" not in run.stderr


def test_a_segment_that_could_not_be_embedded_is_tried_again(clone, copied_results, tmp_path):
    path = copied_results / TABLE
    rows = len(table_at(path)["gt"])
    shutil.rmtree(path.parent)
    picture = clone.folder / "data" / "blocks_ood" / "1_image.png"
    hidden = picture.rename(tmp_path / "hidden.png")
    run = clone.call(EMBED, results=copied_results)
    hidden.rename(picture)
    assert run.returncode == 1 and str(picture) in run.stderr
    assert clone.call(EMBED, results=copied_results).returncode == 0
    assert len(table_at(path)["gt"]) == rows


def test_other_metrics_train_another_meta_model(clone, copied_results):
    (copied_results / TREE["metrics"].format(0, dataset="blocks")).unlink()
    words = ["args.epochs=3", "args.batch_size=8", "args.meta_weights=again.pth"]
    weights = clone.elsewhere / "again.pth"
    shutil.copy(clone.folder / "weights" / "meta_nn_streets.pth", weights)
    before = weights.read_bytes()
    run = clone.call(TRAIN, "with", *words, results=copied_results)
    assert run.returncode == 0, run.stderr
    assert weights.read_bytes() != before


# Wrong settings

WRONG = {
    "predict a key": (PREDICT, "args.gpuu=1", "did you mean `args.gpu`"),
    "predict a dataset": (PREDICT, "args.dataset=block", "Did you mean 'blocks'.*'cityscapes_val'"),
    "predict a root": (PREDICT, "args.dataset=a2d2", "no folder /path/to/a2d2"),
    "measure a model": (MEASURE, "args.model_name=nearest", "'nearest_colour'"),
    "measure a type": (MEASURE, "args.num_cores=two", "must be a whole number >= 1, got 'two'"),
    "train a dataset": (TRAIN, "args.val_dataset=block", "Did you mean 'blocks'"),
    "embed a network": (EMBED, "args.net=vgg", "Did you mean 'vgg16'"),
    "embed a class": (EMBED, "args.pred_classes=[car,cow]", "'cow'.*0 'road', 1 'car'"),
    "embed a file": (EMBED, "args.load_file=embeddings_6_6_x.p", "embeddings_6_6_x.p is missing"),
    "embed too early": (EMBED, "args.iou_threshold=0.5", r"pred_images\.py|src/MetaSeg/main\.py"),
    "discover a method": (DISCOVER, "args.method=umap", "tsne, isomap, pca"),
    "discover too early": (DISCOVER, "mainplot.save_path=x.png", r"compute_embeddings\.py"),
}


@pytest.fixture(scope="module")
def wrong_runs(clone, runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    calls = {
        what: (script, "with", setting, f"args.io_path={folder / 'results'}")
        for what, (script, setting, _) in WRONG.items()
    }
    before = written_at(clone.folder, clone.elsewhere)
    finished = clone.call_all(**calls)
    assert written_at(clone.folder, clone.elsewhere) == before
    assert not files_below(folder)
    return finished


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_setting_stops_before_any_work(wrong_runs, what):
    run = wrong_runs[what]
    assert run.returncode == 1
    assert re.search(WRONG[what][2], run.stderr), run.stderr
    assert "Traceback" not in run.stderr, run.stderr


def test_weights_that_cannot_be_downloaded_are_asked_for(clone, runs):
    before = written_at(clone.results)
    run = clone.call(EMBED, "with", "args.net=densenet201")
    assert run.returncode == 1
    assert "https://download.pytorch.org/models/densenet201" in run.stderr
    assert f"into {clone.folder / 'torch' / 'hub' / 'checkpoints'}" in run.stderr
    assert "Traceback" not in run.stderr
    assert written_at(clone.results) == before


# Help


@pytest.fixture(scope="module")
def helps(clone):
    asked = {script: (script, "-h") for script in SCRIPTS}
    return clone.call_all(**asked, print_config=(EMBED, "print_config"))


@pytest.mark.parametrize(("number", "script"), [*enumerate(SCRIPTS, 1)])
def test_help_says_what_a_script_does_and_explains_every_setting(helps, number, script):
    run = helps[script]
    assert run.returncode == 0
    assert f"Stage {number}" in run.stdout
    settings = run.stdout.partition("Settings and their defaults")[2].partition("\n\n")[0]
    own = re.split(r"\n  (?=\w)", settings)[1:]
    assert len(own) > 10
    assert all(re.match(r"(args\.|mainplot\.)?\w+=.*\S\s{2,}\S", entry) for entry in own)
    assert max(map(len, run.stdout.splitlines())) <= 100


def test_print_config_explains_every_setting(helps):
    lines = helps["print_config"].stdout.partition("args:")[2].splitlines()
    settings = [line for line in lines if line.startswith("    ")]
    assert len(settings) > 10
    assert all("# " in line for line in settings)
