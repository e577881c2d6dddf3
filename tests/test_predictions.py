"""What another program predicted: which file belongs to a picture, and what may be in it."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.errors import SettingError
from src.model.outputs import kind_of
from src.model.predictions import Predictions, read

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
SIZE = 36, 64  # height and width of a picture
LOGITS = np.random.default_rng(0).normal(0, 3, (3, 9, 16))  # (C, h, w)


def stored(folder, *names):
    """Predictions in files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, LOGITS)
    return Predictions(folder)


# --- which file


def test_the_file_that_shares_most_folders_with_a_picture_is_its(tmp_path):
    names = ("a/b/1.npy", "b/1.npy", "1.npy", "b/2.npy", "2.npy", "3.v2.npy", "5.npy")
    predictions = stored(tmp_path, *names)
    for name in ("4.npz", "a/b/5.npz"):
        np.savez(tmp_path / name, LOGITS)
    expected = {"a/b/1.jpg": "a/b/1.npy", "c/b/1.jpg": "b/1.npy", "1.png": "1.npy"}
    expected |= {"a/b/2.jpg": "b/2.npy", "a/3.v2.jpg": "3.v2.npy", "a/4.jpg": "4.npz"}
    expected |= {"a/b/5.jpg": "a/b/5.npz"}
    for picture, name in expected.items():
        assert predictions.path_of(f"/data/{picture}") == tmp_path / name
    pictures = [Path("/data", picture) for picture in expected]
    files = {Path("/data", picture): tmp_path / name for picture, name in expected.items()}
    assert predictions.paths_of(pictures) == files


def test_two_pictures_that_would_share_a_file_are_an_error(tmp_path):
    predictions = stored(tmp_path, "1.npy")
    with pytest.raises(SettingError, match=r"/a/1\.jpg and /data/b/1\.jpg would both .*1\.npy"):
        predictions.paths_of(["/data/a/1.jpg", "/data/b/1.jpg"])


def test_a_picture_without_a_file_is_left_to_fail_alone(tmp_path):
    predictions = stored(tmp_path, "a/1.npy")
    pictures = ["/data/a/1.jpg", "/data/a/2.jpg"]
    assert predictions.paths_of(pictures) == {pictures[0]: tmp_path / "a/1.npy"}
    with pytest.raises(FileNotFoundError, match=r"no prediction of .*2\.jpg: .* for 2\.npy and"):
        predictions.path_of("/data/a/2.jpg")
    with pytest.raises(SettingError, match=r"no picture has a prediction; .* of /data/a/2\.jpg"):
        predictions.paths_of(pictures[1:])


def test_a_picture_of_classes_in_the_place_of_a_file_is_refused_with_the_reason(tmp_path):
    predictions = stored(tmp_path, "1.npy")
    Image.new("L", (8, 8)).save(tmp_path / "2.png")
    with pytest.raises(FileNotFoundError, match=r"has only .*2\.png .*arg-max.*np\.save"):
        predictions.path_of("/data/a/2.jpg")
    with pytest.raises(ValueError, match=r"2\.png is no .npy or .npz file: .*arg-max"):
        read(tmp_path / "2.png", SIZE)


@pytest.mark.parametrize("what", [Predictions, Predictions.describe])
def test_a_folder_without_predictions_is_an_error_that_says_how_to_store_them(what, tmp_path):
    with pytest.raises(SettingError, match="there is no folder of predictions .*gone"):
        what(tmp_path / "gone")
    Image.new("L", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(SettingError, match=r"no \.npy or \.npz file, .*arg-max.*np\.save"):
        what(tmp_path)


def test_classes_json_in_the_folder_names_the_classes(tmp_path):
    assert stored(tmp_path, "1.npy").describe(tmp_path) == {}
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(["road", "car"]))
    expected = {"classes": {0: "road", 1: "car"}, "from": str(path)}
    assert Predictions.describe(tmp_path) == expected


# --- what is in it


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("form", ["CHW", "HWC", "NCHW", "NHWC", "Fortran"])
@pytest.mark.parametrize("count", [3, None])
def test_each_layout_and_precision_gives_the_values_by_class(dtype, form, count, tmp_path):
    array = LOGITS.astype(dtype)
    array = array.transpose(1, 2, 0) if form.endswith("HWC") else array
    array = array[None] if form.startswith("N") else array
    array = np.asfortranarray(array) if form == "Fortran" else array
    np.save(tmp_path / "1.npy", array)
    np.savez_compressed(tmp_path / "1.npz", array)
    for path in (tmp_path / "1.npy", tmp_path / "1.npz"):
        values = read(path, SIZE, count)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, LOGITS.astype(dtype).astype(np.float32))


def test_logits_and_probabilities_are_told_apart(tmp_path):
    powers = np.exp(LOGITS)
    for kind, values in (("logits", LOGITS), ("probabilities", powers / powers.sum(0))):
        np.save(tmp_path / "1.npy", values.astype(np.float16))
        assert kind_of(read(tmp_path / "1.npy", SIZE, 3), 0) == kind


@pytest.mark.parametrize("key", ["logits", "probabilities", "arr_0", "only"])
def test_the_array_of_an_npz_file_is_found_by_its_key(key, tmp_path):
    beside = {} if key == "only" else {"path": np.array("a/b")}
    np.savez(tmp_path / "1.npz", **{key: LOGITS}, **beside)
    assert read(tmp_path / "1.npz", SIZE).shape == (3, 9, 16)


def test_an_npz_file_of_several_unknown_arrays_is_refused_by_their_names(tmp_path):
    np.savez(tmp_path / "1.npz", a=LOGITS, b=LOGITS)
    with pytest.raises(ValueError, match=r"1\.npz .* one called logits, .*; it has a, b"):
        read(tmp_path / "1.npz", SIZE)


def test_sides_of_the_picture_tell_the_layout_where_both_ends_are_the_classes(tmp_path):
    np.save(tmp_path / "1.npy", np.zeros((9, 16, 9)))
    assert read(tmp_path / "1.npy", SIZE, 9).shape == (9, 9, 16)
    np.save(tmp_path / "2.npy", np.zeros((9, 9, 9)))
    with pytest.raises(ValueError, match=r"2\.npy .*\(9, 9, 9\) .* 36 x 64 .*classes\.json"):
        read(tmp_path / "2.npy", SIZE, 9)
    np.save(tmp_path / "3.npy", np.zeros((3, 12, 12)))  # the network saw another shape
    with pytest.raises(ValueError, match=r"3\.npy .*classes\.json"):
        read(tmp_path / "3.npy", SIZE)
    assert read(tmp_path / "3.npy", SIZE, 3).shape == (3, 12, 12)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (LOGITS.argmax(0), r"whole numbers \(int64\): .*arg-max"),
        (LOGITS.astype(np.uint8), r"whole numbers \(uint8\)"),
        (LOGITS > 0, r"whole numbers \(bool\)"),
        (LOGITS.max(0), r"must be of shape .* is \(9, 16\): .*arg-max"),
        (np.zeros((0, 9, 16)), r"must be of shape|damaged"),
        (LOGITS[:1], r"one channel, \(1, 9, 16\)"),
        (LOGITS.astype(complex), "must be float16, .* is complex128"),
        (np.where(LOGITS > 5, np.nan, LOGITS), "NaN or infinite"),
        (np.where(LOGITS > 5, 1e300, LOGITS), "NaN or infinite"),  # of float32
        (np.array([{}]), "damaged or something else: .*bject"),
    ],
)
def test_other_values_are_refused_with_the_reason(array, expected, tmp_path):
    np.save(tmp_path / "1.npy", array)
    np.savez(tmp_path / "1.npz", array)
    for suffix in ("npy", "npz"):
        with pytest.raises(ValueError, match=rf"1\.{suffix} .*{expected}"):
            read(tmp_path / f"1.{suffix}", SIZE)


def test_another_number_of_classes_is_refused_by_both(tmp_path):
    np.save(tmp_path / "1.npy", LOGITS)
    with pytest.raises(ValueError, match=r"1\.npy .*\(3, 9, 16\), but there are 19 classes"):
        read(tmp_path / "1.npy", SIZE, 19)


def claiming(shape):
    """A `.npy` file of eight bytes that says it has this shape."""
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(8)


@pytest.mark.parametrize("shape", [(5, 1 << 20, 1 << 20), (1 << 40, 1 << 40, 5), (5, 1, 3)])
@pytest.mark.parametrize("lies", [False, True])
def test_a_file_that_claims_more_than_it_holds_takes_no_memory(shape, lies, tmp_path):
    content = claiming(shape)
    (tmp_path / "1.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "1.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", content)
        if lies:
            archive.filelist[0].file_size = 1 << 31  # the directory at its end says so too
    for suffix in ("npy", "npz"):
        with pytest.raises(ValueError, match=rf"1\.{suffix} is damaged or something else"):
            read(tmp_path / f"1.{suffix}", SIZE)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_damaged_files_give_one_sentence(suffix, tmp_path):
    path = tmp_path / f"1.{suffix}"
    (np.save if suffix == "npy" else np.savez_compressed)(path, LOGITS)
    whole = path.read_bytes()
    for content in (b"", b"<html>404</html>", whole[:-40], whole[:60], whole[5:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"1\.{suffix} is damaged or something else"):
            read(path, SIZE, 3)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone"):
        read(tmp_path / f"gone.{suffix}", SIZE)


@pytest.mark.skipif(not REAL.is_dir(), reason="a machine without the real photographs")
@pytest.mark.parametrize(
    ("folder", "count"), [("road_anomaly", 36), ("camvid/train", 60), ("camvid/val", 30)]
)
def test_logits_of_a_real_network_are_read_as_such(folder, count):
    predictions = Predictions(REAL / folder / "logits")
    classes = predictions.describe(REAL / folder / "logits")["classes"]
    assert len(classes) == 19 and classes[0] == ("road", (128, 64, 128))
    paths = predictions.paths_of(sorted((REAL / folder / "images").iterdir()))
    assert len(paths) == count
    for picture, path in paths.items():
        with Image.open(picture) as image:
            width, height = image.size
        for known in (19, None):
            values = read(path, (height, width), known)
            assert values.shape == (19, -(-height // 4), -(-width // 4))
        assert kind_of(values, 0) == "logits"
