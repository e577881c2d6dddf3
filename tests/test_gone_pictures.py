"""What was made of pictures that the dataset has no more is left out of all that follows."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compute_embeddings
import pred_images
from src.MetaSeg import main as metaseg
from src.store.paths import GONE

NAMES = "abcde"


@pytest.fixture
def user(tmp_path):
    """Five pictures, stored predictions of them, and a function that runs all stages on them.

    It gives what the export says of each picture: its name and the numbers of its segments.
    """
    photos, net, results = tmp_path / "photos", tmp_path / "net", tmp_path / "results"
    photos.mkdir(), net.mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        Image.new("RGB", (24, 16), (ord(name), 0, 0)).save(photos / f"{name}.png")
        np.save(net / f"{name}.npy", rng.normal(0, 1, (3, 4, 6)).astype(np.float32))
    (net / "classes.json").write_text(json.dumps({"classes": ["road", "sky", "car"]}))
    common = f"args.model_name=predictions/{net}", f"args.io_path={results}", "args.num_cores=1"

    def run(*words):
        data = f"args.dataset={photos}"
        call = ["with", *common, data, "args.gpu=None", *words]
        pred_images.ex.run_commandline(["pred_images.py", *call])
        metaseg.ex.run_commandline(["main.py", "with", *common, "args.dataset=photos"])
        return embed()

    def embed():
        found = "args.datasets=[photos]", "args.threshold=0", f"args.csv={tmp_path / 'found.csv'}"
        call = ["with", *common, "args.gpu=None", "args.suspicion=entropy", *found]
        compute_embeddings.ex.run_commandline(["compute_embeddings.py", *call])
        return sorted((row["image_path"].rpartition("/")[2], row["component"]) for row in rows())

    def rows():
        with (tmp_path / "found.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    run.photos, run.net, run.results, run.embed = photos, net, results, embed
    run.paths = lambda: [row["image_path"] for row in rows()]
    return run


@pytest.mark.promise(16)
@pytest.mark.parametrize("name", ["b", "e"])
def test_a_picture_that_is_gone_is_in_no_later_stage_and_comes_back(user, name, capsys):
    before = user()
    assert {path[0] for path, _ in before} == set(NAMES)
    path = user.photos / f"{name}.png"
    kept = path.read_bytes()
    path.unlink()
    assert user() == [row for row in before if row[0] != path.name]
    said = capsys.readouterr().err
    assert "photos has 4 pictures now, and results of 1 more, from index 4 on" in said
    path.write_bytes(kept)
    assert user() == before
    assert not [*user.results.rglob(f"*{GONE}")]


@pytest.mark.promise(16)
def test_stage_4_alone_leaves_out_a_picture_that_is_gone(user):
    before = user()
    (user.photos / "e.png").unlink()
    assert user.embed() == [row for row in before if row[0] != "e.png"]


@pytest.mark.promise(16)
def test_what_is_left_of_a_picture_that_has_changed_is_in_no_later_stage(user, capsys):
    before = user()
    (user.photos / "b.png").write_bytes(b"no picture any more")
    for run in (user.embed, user, user.embed):
        with pytest.raises(SystemExit, match="image 1.*b.png"):
            run()
    common = f"args.io_path={user.results}", f"args.model_name=predictions/{user.net}"
    with pytest.raises(SystemExit, match="image 1: .*b.png has changed since the picture was pre"):
        metaseg.ex.run_commandline(["main.py", "with", *common, "args.dataset=photos"])
    Image.new("RGB", (24, 16), (ord("b"), 0, 0)).save(user.photos / "b.png")
    assert user() == before


@pytest.mark.promise(16)
def test_the_drawing_of_a_picture_that_is_gone_goes_with_it(user):
    user()
    drawing = next(user.results.glob("input/*/photos")).parts[-2:]
    drawing = user.results.joinpath("pictures/rating", *drawing, "rating4.png")
    drawing.parent.mkdir(parents=True)
    drawing.touch()
    (user.photos / "e.png").unlink()
    user()
    assert not drawing.exists()


@pytest.mark.promise(16)
def test_what_is_found_lies_where_the_pictures_are_now(user):
    before = user()
    moved = user.photos.rename(user.photos.with_name("elsewhere"))
    user.photos.symlink_to(moved)
    copy = shutil.copytree(moved, user.photos.parent / "again" / "photos")
    places = user.results / "names" / "datasets" / "photos.json"
    places.write_text(places.read_text().replace(str(user.photos), str(copy)))
    assert user.embed() == before
    assert {Path(path).parent for path in user.paths()} == {copy}


@pytest.mark.promise(16)
def test_what_is_left_of_pictures_that_are_gone_is_deleted_where_asked(user):
    user()
    (user.photos / "e.png").unlink()
    user("args.forget=True")
    left = [path.name for path in user.results.rglob("*4*") if path.is_file()]
    assert left == []


@pytest.mark.promise(16)
def test_a_dry_run_touches_no_result_of_a_picture_that_is_gone(user):
    user()
    (user.photos / "e.png").unlink()
    before = sorted(user.results.rglob("*"))
    common = f"args.dataset={user.photos}", f"args.io_path={user.results}", "args.dry_run=True"
    model = f"args.model_name=predictions/{user.photos.parent / 'net'}"
    pred_images.ex.run_commandline(["pred_images.py", "with", *common, model, "args.gpu=None"])
    assert sorted(user.results.rglob("*")) == before
