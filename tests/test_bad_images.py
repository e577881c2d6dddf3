"""Odd pictures are read rightly, bad ones are named, and neither stops the others."""

import io
import os
import re
import struct
import sys
import zlib

import h5py
import hdf5plugin  # noqa: F401 (h5py finds its filters there)
import numpy as np
import pytest
import tifffile
from clone import PREDICT, TREE, Clone, written_at
from numpy.testing import assert_array_equal
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from src.datasets import LabelledImages, read_ids, read_image
from src.datasets.custom import CustomDataset

HEIGHT, WIDTH = 4, 6
RED = (255, 0, 0)


def encoded(mode, colour, kind, size=(WIDTH, HEIGHT), **options):
    """Bytes of a picture of one colour; options are those of Pillow's `save`."""
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind, **options)
    return file.getvalue()


def words(*values):
    return struct.pack(f">{len(values)}H", *values)


def png(width, height, bits, colour_type, pixel):
    """Bytes of a PNG picture of one colour, of kinds that Pillow does not write."""

    def chunk(name, data):
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    rows = (b"\0" + pixel * min(width, 100)) * min(height, 100)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def png_16(colour_type, *values):
    return png(WIDTH, HEIGHT, 16, colour_type, words(*values))


def tiff(value, dtype, **options):
    """Bytes of a TIFF picture of one colour."""
    file = io.BytesIO()
    value = np.broadcast_to(np.array(value, dtype), (HEIGHT, WIDTH, *np.shape(value)))
    tifffile.imwrite(file, value, **options)
    return file.getvalue()


def palette(kind, **options):
    """Bytes of a picture whose palette has red as its second colour."""
    image, file = Image.new("P", (WIDTH, HEIGHT), 1), io.BytesIO()
    image.putpalette([0, 0, 255, *RED])
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation, kind="PNG"):
    """Bytes of an upright red picture that a camera held in another way has taken."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT)
    return encoded("RGB", RED, kind, size, exif=exif)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def cut(kind):
    """Bytes of the first half of a picture."""
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind)
    return file.getvalue()[: len(file.getvalue()) // 2]


ODD = {  # name: (bytes, the colour that it must have)
    "16-bit-grey.png": (png_16(0, 0x80FF), (128, 128, 128)),
    "16-bit-grey-alpha.png": (png_16(4, 0x80FF, 9), (128, 128, 128)),
    "16-bit-rgb.png": (png_16(2, 0x12FF, 0x80FF, 0xFFFF), (18, 128, 255)),
    "16-bit-rgba.png": (png_16(6, 0x12FF, 0x80FF, 0xFFFF, 0), (18, 128, 255)),
    "16-bit-grey.tif": (tiff(0x80FF, "u2"), (128, 128, 128)),
    "16-bit-grey-big-endian.tif": (tiff(0x80FF, ">u2", byteorder=">"), (128, 128, 128)),
    "16-bit-rgb.tif": (tiff([0x12FF, 0x80FF, 0xFFFF], "u2", photometric="rgb"), (18, 128, 255)),
    "16-bit.pgm": (b"P5 6 4 65535\n" + words(0x80FF) * WIDTH * HEIGHT, (128, 128, 128)),
    "grey.png": (encoded("L", 200, "PNG"), (200, 200, 200)),
    "grey.jpg": (encoded("L", 200, "JPEG"), (200, 200, 200)),
    "grey-alpha.png": (encoded("LA", (200, 9), "PNG"), (200, 200, 200)),
    "one-bit.png": (encoded("1", 1, "PNG"), (255, 255, 255)),
    "palette.png": (palette("PNG"), RED),
    "palette-transparency.png": (palette("PNG", transparency=bytes([255, 7])), RED),
    "palette.gif": (palette("GIF"), RED),
    "animated.gif": (
        palette("GIF", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]), RED
    ),
    "pages.tif": (
        encoded("RGB", RED, "TIFF", save_all=True, append_images=[Image.new("L", (9, 9))]), RED
    ),
    "rgba.png": (encoded("RGBA", (1, 2, 3, 4), "PNG"), (1, 2, 3)),
    "cmyk.jpg": (encoded("CMYK", (0, 255, 255, 0), "JPEG"), RED),
    "cmyk-black.jpg": (encoded("CMYK", (0, 0, 0, 255), "JPEG"), (0, 0, 0)),
    "turned.jpg": (turned(6, "JPEG"), (254, 0, 0)),
    "a-jpeg.png": (encoded("L", 200, "JPEG"), (200, 200, 200)),
    "ünïcode and spaces.PNG": (encoded("RGB", RED, "PNG"), RED),
}  # fmt: skip
BAD = {  # name: (bytes, what is said of it)
    "empty.png": (b"", "it is empty"),
    "text.png": (b"some text, and no picture", "it is no picture"),
    "zeros.jpg": (bytes(4096), "it is no picture"),
    "program.png": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\n", "it is no picture"
    ),
    "no-pixels.png": (png(0, 0, 8, 2, b""), "it is no picture"),
    "bomb.png": (png(60000, 60000, 8, 2, b"\0\0\0"), "more than 178956970 pixels; .*MAX_IMAGE"),
    "cut.jpg": (cut("JPEG"), "truncated"),
    "cut.png": (cut("PNG"), "truncated"),
    "cut.bmp": (cut("BMP"), "truncated"),
    "cut.gif": (cut("GIF"), "truncated"),
    "cut.webp": (cut("WEBP"), "decoder"),
    "cut.tif": (cut("TIFF"), "truncated|no picture"),
    "floats.tif": (tiff(0.5, "f4"), "no known range; save it with 8 or 16 bits"),
    "integers.tif": (tiff(300, "i4"), "no known range"),
    "signed.tif": (tiff(300, "i2"), "no known range"),
    "negative.tif": (tiff(300, "u2", photometric="miniswhite"), "and 0 where it is black"),
}  # fmt: skip


def save(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)


# One picture


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_has_its_colours_and_its_size(tmp_path, name):
    save(tmp_path, {name: ODD[name]})
    image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    assert_array_equal(image, np.full((HEIGHT, WIDTH, 3), ODD[name][1]))


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_named_once_with_the_reason_in_one_line(tmp_path, name):
    save(tmp_path, {name: BAD[name]})
    with pytest.raises(ValueError, match=f"^{tmp_path / name} cannot be used: ") as caught:
        read_image(tmp_path / name)
    message = str(caught.value)
    assert re.search(BAD[name][1], message)
    assert message.count(name) == 1 and "\n" not in message


@pytest.mark.parametrize("value", [0, 1, 255, 256, 0x7FFF, 0x8000, 0xFFFF])
def test_of_16_bits_the_upper_8_are_kept(tmp_path, value):
    (tmp_path / "a.png").write_bytes(png(1, 1, 16, 0, words(value)))
    assert_array_equal(read_image(tmp_path / "a.png"), np.full((1, 1, 3), value >> 8))


def test_a_picture_may_be_one_pixel(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("L", 90, "JPEG", (1, 1)))
    assert_array_equal(read_image(tmp_path / "a.jpg"), [[[90, 90, 90]]])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA"])
def test_a_picture_cut_anywhere_is_refused_or_the_same(tmp_path, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    whole = tmp_path / "whole"
    Image.fromarray(NOISE).save(whole, kind, **options)
    data, pixels = whole.read_bytes(), np.asarray(read_image(whole))
    offsets = np.random.default_rng(1).integers(0, len(data), 40)
    for length in [*offsets, len(data) - 1, len(data) - 2, len(data) - 13]:
        (tmp_path / "cut").write_bytes(data[:length])
        try:
            image = read_image(tmp_path / "cut")
        except ValueError:
            continue
        assert_array_equal(image, pixels, err_msg=f"cut after {length} of {len(data)} bytes")


def test_an_image_of_4096_x_8192_is_no_bomb(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("1", 1, "PNG", (8192, 4096)))
    assert read_image(tmp_path / "a.png").size == (8192, 4096)


def test_the_limit_of_pixels_is_the_one_that_pillow_is_set_to(tmp_path, monkeypatch):
    for height in (20, 21):
        (tmp_path / f"{height}.png").write_bytes(encoded("L", 5, "PNG", (10, height)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns from there on
    assert read_image(tmp_path / "20.png").size == (10, 20)
    with pytest.raises(ValueError, match="21.png cannot be used: it claims more than 200 pixels"):
        read_image(tmp_path / "21.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(tmp_path / "21.png").size == (10, 21)


@pytest.fixture
def as_nobody():
    """Without the rights of root, who may read everything."""
    if os.name != "posix":
        pytest.skip("needs the permissions of POSIX")
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    yield
    os.seteuid(own)


@pytest.fixture
def locked(tmp_path):
    (tmp_path / "locked.png").write_bytes(encoded("L", 5, "PNG"))
    (tmp_path / "locked.png").chmod(0)
    return tmp_path / "locked.png"


@pytest.mark.promise(6)
def test_a_picture_that_may_not_be_read_is_named(locked, as_nobody):
    with pytest.raises(PermissionError, match="Permission denied: .*locked.png"):
        read_image(locked)


@pytest.mark.promise(6)
def test_a_folder_and_a_disk_that_fails_are_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match="folder.png cannot be used: it is no file"):
        read_image(tmp_path / "folder.png")
    if sys.platform == "linux":
        (tmp_path / "failing.png").symlink_to("/proc/self/mem")  # whose first page is none
        with pytest.raises(ValueError, match="failing.png cannot be used: .*Input/output error"):
            read_image(tmp_path / "failing.png")


def test_a_link_to_nowhere_keeps_its_index_and_is_named(tmp_path):
    save(tmp_path, {"a.png": ODD["grey.png"], "c.png": ODD["rgba.png"]})
    (tmp_path / "b.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "d.png").symlink_to(tmp_path)  # a folder
    dataset = CustomDataset(tmp_path)
    assert [path.name for path, _ in dataset.samples] == ["a.png", "b.png", "c.png"]
    with pytest.raises(FileNotFoundError, match="No such file or directory: .*b.png"):
        dataset[1]
    save(tmp_path, {"elsewhere.png": ODD["grey.png"]})
    assert dataset[1][0].size == (WIDTH, HEIGHT)


# A picture and its labels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_are_drawn_for_the_upright_picture(tmp_path, orientation):
    upright = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    stored = {  # the inverse of what EXIF asks a viewer to do
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, labels = tmp_path / "image.png", tmp_path / "labels.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(image, exif=exif)
    Image.fromarray(upright).save(labels)
    picture, truth, _ = LabelledImages([(image, labels)])[0]
    assert_array_equal(np.asarray(picture)[:, :, 0], upright)
    assert_array_equal(truth, upright)
    assert_array_equal(read_ids(image), upright)  # labels with such data are turned, too


def test_labels_drawn_for_the_picture_on_its_side_are_refused(tmp_path):
    (tmp_path / "image.png").write_bytes(turned(6))
    (tmp_path / "labels.png").write_bytes(encoded("L", 0, "PNG", (HEIGHT, WIDTH)))
    with pytest.raises(ValueError, match=r"upright image: .*labels.png has .*\(6, 4\), .*\(4, 6\)"):
        LabelledImages([(tmp_path / "image.png", tmp_path / "labels.png")])[0]


# Damage that no decoder notices


@pytest.mark.promise(17)
@pytest.mark.parametrize("kind", ["bit", "zeros", "cut", "longer"])
def test_no_damage_of_a_label_png_goes_unnoticed(tmp_path, kind):
    random, path = np.random.default_rng(0), tmp_path / "labels.png"
    Image.fromarray(random.integers(0, 19, (60, 80), np.uint8)).save(path)
    whole = path.read_bytes()
    for place in random.integers(8, len(whole), 50).tolist():
        damaged = {
            "bit": whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :],
            "zeros": whole[:place] + bytes(len(whole) - place),
            "cut": whole[:place],
            "longer": whole + whole[:place],
        }[kind]
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path} cannot be used: .+"):
            read_ids(path)


def test_labels_in_a_format_that_changes_values_are_refused(tmp_path):
    path = tmp_path / "labels.png"
    Image.new("L", (8, 8), 3).save(path, "JPEG")
    with pytest.raises(ValueError, match="JPEG changes ids and colours; save labels as PNG"):
        read_ids(path)


def test_labels_of_16_bits_keep_their_ids(tmp_path):
    path, ids = tmp_path / "labels.png", np.array([[0, 24005], [255, 65535]], np.uint16)
    Image.fromarray(ids).save(path)
    assert_array_equal(read_ids(path), ids)


def test_a_damaged_png_photograph_is_refused_and_one_with_more_behind_it_is_not(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((50, 50, 3), 7, np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"what a phone keeps of the picture before it was cropped")
    assert read_image(path).size == (50, 50)
    checksum = whole.index(b"IEND") - 8  # of the pixels
    path.write_bytes(whole[:checksum] + bytes(4) + whole[checksum + 4 :])
    with pytest.raises(ValueError, match="checksum in b'IDAT'"):
        read_image(path)


def test_a_png_may_tell_three_megabytes_of_how_it_was_made(tmp_path):
    told = PngInfo()
    told.add_text("parameters", "abc" * 2**20, zip=True)
    Image.new("L", (3, 2)).save(tmp_path / "told.png", pnginfo=told)
    assert read_image(tmp_path / "told.png").size == (3, 2)


ODD_TAGS = {  # tag, type, count, value
    "signed rational": (0x011A, 10, 1, struct.pack("<ii", -1, 0)),
    "text for a number": (0x0128, 2, 9, b"pictures\0"),
    "double": (0x011B, 12, 1, struct.pack("<d", 72.5)),
    "number for text": (0x010F, 4, 2, struct.pack("<II", 1, 2)),
}


@pytest.mark.parametrize("tag", ODD_TAGS.values(), ids=ODD_TAGS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_whatever_its_other_tags_are(tmp_path, kind, tag):
    *entry, value = tag
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    entries = sorted([orientation, struct.pack("<HHII", *entry, 38)])
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + b"".join(entries) + bytes(4) + value
    path = tmp_path / "photo"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, kind, exif=exif)
    assert read_image(path).size == (HEIGHT, WIDTH)


# A run over all of them


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Stage 1's user, with all these pictures and with labels of which some are bad."""
    clone = Clone(tmp_path_factory.mktemp("user"))
    save(clone.photographs, ODD | BAD)
    (clone.photographs / "folder.png").mkdir()
    (clone.photographs / "nowhere.png").symlink_to(clone.photographs / "elsewhere.png")
    (clone.photographs / "locked.png").write_bytes(encoded("L", 5, "PNG"))
    (clone.photographs / "locked.png").chmod(0)
    (clone.photographs / "pixel.png").write_bytes(encoded("L", 5, "PNG", (1, 1)))
    blocks = clone.folder / "data" / "blocks"
    (blocks / "0_labels.png").write_bytes(encoded("L", 0, "PNG"))
    (blocks / "1_labels.png").write_bytes(b"")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(blocks / "2_image.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(blocks / "2_image.png", exif=exif)
    return clone


def run_both(clone):
    datasets = {"custom_dataset": "args.num_cores=2", "blocks": "args.num_cores=1"}
    calls = {name: (PREDICT, "with", f"args.dataset={name}", datasets[name]) for name in datasets}
    return clone.call_all(**calls)


@pytest.fixture(scope="module")
def first_runs(clone):
    return run_both(clone)


def names_of(clone):
    """Names of the pictures in the folder, in the order of their indices."""
    return sorted(path.name for path in clone.photographs.iterdir() if path.name != "folder.png")


def expected_failures(clone):
    """Name: what is said of it. Root may read the locked one."""
    reasons = {name: reason for name, (_, reason) in BAD.items()}
    reasons["nowhere.png"] = "No such file"
    if not os.access(clone.photographs / "locked.png", os.R_OK):
        reasons["locked.png"] = "Permission denied"
    return reasons


def failures(run):
    """Index: reason, from the list that a run ends with."""
    found = re.findall(r"^  image (\d+): (.*)$", run.stderr, re.M)
    assert len(dict(found)) == len(found)
    return {int(index): reason for index, reason in found}


def prediction(clone, dataset, index):
    """Predicted classes and ground truth, or None."""
    path = clone.results / TREE["input"].format(index, dataset=dataset)
    if not path.is_file():
        return None
    with h5py.File(path) as file:
        return file["prediction"][()], file["ground_truths"][()]


@pytest.mark.promise(6)
def test_stage_1_names_every_bad_picture_once_and_predicts_all_others(clone, first_runs):
    run, names = first_runs["custom_dataset"], names_of(clone)
    expected, failed = expected_failures(clone), failures(run)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    done = len(names) - len(expected)
    assert f"{done} done, 0 skipped (already there), {len(expected)} failed" in run.stderr
    assert {names[index] for index in failed} == expected.keys()
    for index, reason in failed.items():
        assert str(clone.photographs / names[index]) in reason
        assert re.search(expected[names[index]], reason)
    for index, name in enumerate(names):
        found = prediction(clone, "custom_dataset", index)
        if name in expected:
            assert found is None
        else:
            assert found[0].shape == ((1, 1) if name == "pixel.png" else (HEIGHT, WIDTH)), name


@pytest.mark.promise(6)
def test_stage_1_names_bad_labels_and_turns_pictures_to_theirs(clone, first_runs):
    run = first_runs["blocks"]
    failed = failures(run)
    assert run.returncode == 1 and "2 done, 0 skipped (already there), 2 failed" in run.stderr
    assert [*failed] == [0, 1]
    assert "0_labels.png has (height, width) (4, 6), " in failed[0]
    assert "1_labels.png cannot be used: it is empty" in failed[1]
    classes, truth = prediction(clone, "blocks", 2)
    assert classes.shape == truth.shape == (48, 64)
    assert (classes == truth).mean() > 0.8


@pytest.mark.promise(6)
def test_a_second_run_does_exactly_the_failed_ones_again(clone, first_runs):
    before = written_at(clone.results)
    (clone.photographs / "empty.png").write_bytes(encoded("RGB", RED, "PNG"))
    (clone.folder / "data/blocks/1_labels.png").write_bytes(encoded("L", 0, "PNG", (64, 48)))
    runs = run_both(clone)
    repaired = {"custom_dataset": names_of(clone).index("empty.png"), "blocks": 1}
    for name, run in runs.items():
        old, new = failures(first_runs[name]), failures(run)
        assert new == {index: old[index] for index in old if index != repaired[name]}
        assert prediction(clone, name, repaired[name]) is not None
        assert f"1 done, {run_size(clone, name) - len(old)} skipped" in run.stderr
    after = written_at(clone.results)
    assert before == {path: after[path] for path in before}
    assert len(after) == len(before) + 2


def run_size(clone, name):
    return 4 if name == "blocks" else len(names_of(clone))
