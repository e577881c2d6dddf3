"""Arrays to pictures."""

import io

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from src import pictures
from src.records import Prediction

COLOURS = [(128, 64, 128), (0, 0, 142), (128, 64, 128)]  # of classes 0, 13, 0
MAPPING = {0: ("road", (128, 64, 128)), 13: ("car", (0, 0, 142)), 300: ("kite", (1, 2, 3))}


def test_classes_get_their_colours_and_unknown_ids_are_black():
    ids = np.array([[0, 13], [7, 255]], np.uint8)
    expected = [[(128, 64, 128), (0, 0, 142)], [(0, 0, 0), (0, 0, 0)]]
    assert_array_equal(pictures.colour_classes(ids, MAPPING), expected)


def test_ids_beyond_a_byte_get_their_colours():
    assert_array_equal(
        pictures.colour_classes(np.array([[300]], np.uint16), MAPPING), [[[1, 2, 3]]]
    )


def test_the_overlay_mixes_colours_and_leaves_unlabelled_pixels_alone():
    image = np.full((1, 2, 3), 100, np.uint8)
    result = pictures.overlay_classes(image, np.array([[0, 255]], np.uint8), MAPPING, strength=0.5)
    assert_array_equal(result, [[[114, 82, 114], [100, 100, 100]]])


def test_entropy_is_dark_where_the_network_is_certain():
    probabilities = np.array([[[1, 0, 0], [0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3]]], np.float32)
    ids = np.zeros((1, 3), np.uint8)
    picture = pictures.entropy_heatmap(Prediction(probabilities, ids, None, "a.png"))
    assert (np.diff(picture.sum(axis=-1)[0].astype(int)) > 100).all()
    maps = np.array([[[0, 0, 0], [0.58, 0, 0], [1, 0, 0]]], np.float32)  # entropy comes first
    stored = pictures.entropy_heatmap(Prediction(None, ids, None, "a.png", maps))
    assert_allclose(stored.astype(int), picture, atol=2)


def test_segments_go_from_red_to_blue_with_a_darker_boundary():
    components = np.array([[1, -1, 2, 3, 0]], np.int32)
    picture = pictures.iou_map(components, np.array([0, 1, np.nan])).astype(int)[0]
    assert picture[0, 0] > picture[0, 2] + 100  # IoU 0: red
    assert picture[2, 2] > picture[2, 0] + 80  # IoU 1: blue
    assert (picture[1] < picture[0]).any()
    assert_array_equal(picture[3:], [(128, 128, 128), (0, 0, 0)])


def test_ious_differ_for_who_cannot_tell_red_from_green():
    ious = np.linspace(0, 1, 6)
    colours = pictures.iou_map(np.arange(1, 7, dtype=np.int32)[None], ious)[0] / 255
    deuteranopia = [  # Machado, Oliveira and Fernandes 2009, of linear RGB
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
    seen = (colours**2.2 @ np.transpose(deuteranopia)).clip(0, 1) ** (1 / 2.2)
    distances = np.linalg.norm(seen[:, None] - seen, axis=-1) + np.eye(6)
    assert distances.min() > 0.3  # from red to green: 0.01


TRUE_IOU, PREDICTED_IOU = "True IoU (white: no label)", "Predicted IoU (white: no label)"


def test_the_rating_leaves_segments_without_ground_truth_white():
    components = np.array([[1, 2, 3]], np.int32)
    predicted, iou = np.array([[0, 13, 0]], np.uint8), np.array([0, 1, 0.0])
    truth = np.array([[13, 13, 255]], np.uint8)
    panels = pictures.rating_panels(
        Prediction(None, predicted, truth, ""), components, iou, iou, MAPPING, MAPPING
    )
    assert [*panels] == ["True classes", "Predicted classes", TRUE_IOU, PREDICTED_IOU]
    assert_array_equal(panels["True classes"], [[(0, 0, 142), (0, 0, 142), (0, 0, 0)]])
    assert_array_equal(panels["Predicted classes"], [COLOURS])
    assert_array_equal(panels[TRUE_IOU], panels[PREDICTED_IOU])
    assert_array_equal(panels[TRUE_IOU][0, :2], pictures.iou_map(components[:, :2], iou)[0])
    assert_array_equal(panels[TRUE_IOU][0, 2], pictures.WHITE)


def test_without_any_ground_truth_the_rating_still_shows_the_predicted_iou():
    components, unknown = np.array([[1, 1]], np.int32), np.array([np.nan])
    prediction = Prediction(None, np.zeros((1, 2), np.uint8), None, "")
    panels = pictures.rating_panels(prediction, components, unknown, [0.9], MAPPING, MAPPING)
    assert panels["True classes"] is panels[TRUE_IOU] is None
    assert_array_equal(panels[PREDICTED_IOU], pictures.iou_map(components, [0.9]))


def test_a_legend_has_the_classes_that_occur_and_the_rest_once():
    ids = np.array([[13, 0, 255], [13, 7, 0]], np.uint8)
    road, car = MAPPING[0], MAPPING[13]
    assert pictures.legend_of(ids, MAPPING) == [road, car, ("no class", (0, 0, 0))]
    assert pictures.legend_of(ids[:1, :2], MAPPING) == [road, car]


@pytest.mark.parametrize(("size", "thickness"), [(64, 2), (1500, 5)])
def test_a_box_surrounds_its_segment_with_a_line_that_fits_the_picture(size, thickness):
    black = np.zeros((size, size, 3), np.uint8)
    picture = pictures.draw_box(black, (20, 24, 40, 32))
    assert not black.any()
    assert not picture[24:32, 20:40].any()  # the segment itself is not covered
    assert_array_equal(picture[28, 20 - thickness : 20], [pictures.RED] * thickness)
    assert_array_equal(picture[32 : 32 + thickness, 30], [pictures.RED] * thickness)
    assert_array_equal(picture[28, 19 - thickness], pictures.WHITE)


def test_a_box_at_the_rim_of_the_picture_is_drawn_as_far_as_it_fits():
    picture = pictures.draw_box(np.zeros((30, 30, 3), np.uint8), (0, 0, 30, 10))
    assert_array_equal(picture[10, 15], pictures.RED)


def test_a_box_that_touches_the_rim_is_closed_inside_it():
    picture = pictures.draw_box(np.zeros((30, 40, 3), np.uint8), (0, 0, 40, 30))
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert_array_equal(edge, np.broadcast_to(pictures.RED, edge.shape))
    assert not picture[2:-2, 2:-2].any()


def prediction(truth):
    probabilities = np.full((8, 8, 2), 0.5, np.float32)
    return Prediction(probabilities, np.zeros((8, 8), np.uint8), truth, "a.png")


@pytest.mark.parametrize(
    ("truth", "title"),
    [(np.zeros((8, 8), np.uint8), "Image with ground truth"), (None, "Image (no ground truth)")],
)
def test_the_overview_has_four_titled_panels_with_the_segment_boxed_in_each(truth, title):
    panels = pictures.overview_panels(
        np.zeros((8, 8, 3), np.uint8),
        prediction(truth),
        np.ones((8, 8), np.int32),
        [0.25],
        (3, 3, 5, 5),
        MAPPING,
        MAPPING,
        [1],
    )
    titles = ["Entropy", "Predicted IoU of each segment", title, "Predicted classes"]
    assert list(panels) == titles
    for picture in panels.values():
        assert_array_equal(picture[4, 2], pictures.RED)
        assert_array_equal(picture[0, 0], pictures.WHITE)  # the outline of the segment


def test_an_outline_lies_inside_and_runs_around_all_segments_of_an_object():
    segments = np.array([[1, 1, 1, 2, 2, 3]] * 3)
    outline = pictures.outline_of(np.isin(segments, [1, 2]))
    assert_array_equal(outline[[0, 2]], [[1, 1, 1, 1, 1, 0]] * 2)
    assert_array_equal(outline[1], [1, 0, 0, 0, 1, 0])


def test_the_overview_says_where_no_predicted_iou_is_known():
    image, components = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.int32)
    rest = (3, 3, 5, 5), MAPPING, MAPPING, [1]
    panels = pictures.overview_panels(image, prediction(None), components, [np.nan], *rest)
    assert list(panels)[1] == "Predicted IoU of each segment (unknown)"


def test_a_thumbnail_is_a_small_jpeg_with_a_little_context():
    image = np.zeros((400, 600, 3), np.uint8)
    data = pictures.thumbnail(image, (100, 100, 300, 200))
    assert Image.open(io.BytesIO(data)).format == "JPEG"
    assert pictures.decode(data).shape == (79, 128, 3)  # 260 x 160 pixels with the context


def test_small_crops_are_not_enlarged_and_end_at_the_rim():
    data = pictures.thumbnail(np.zeros((50, 50, 3), np.uint8), (0, 0, 20, 20))
    assert pictures.decode(data).shape == (23, 23, 3)


def test_a_crop_without_context_is_the_box():
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    assert_array_equal(pictures.crop(image, (1, 2, 4, 3)), image[2:3, 1:4])


def test_a_sheet_holds_every_thumbnail_in_its_frame_and_leaves_room_for_captions():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    images = [np.full((10, 20, 3), colour, np.uint8) for colour in colours]
    thumbnails = [pictures.thumbnail(image, (0, 0, 20, 10)) for image in images]
    frames = [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    sheet = pictures.thumbnail_sheet(thumbnails, 2, frames, side=100, caption=20)
    assert sheet.shape == (240, 200, 3)
    for number, colour in enumerate(colours):
        cell = sheet[number // 2 * 120 :, number % 2 * 100 :]
        assert np.abs(cell[50, 50].astype(int) - colour).max() < 8
        assert_array_equal(cell[50, 6], frames[number])
        assert_array_equal(cell[110, 50], pictures.WHITE)
    assert_array_equal(sheet[170, 150], pictures.WHITE)  # no fourth thumbnail


@pytest.mark.parametrize("count", [1, 20, 45])
def test_distinct_colours_differ(count):
    colours = pictures.distinct_colours(count)
    assert len(colours) == len(set(colours)) == count


def test_a_scale_goes_from_dark_to_bright_but_not_too_bright_for_paper():
    brightness = pictures.scale_colours(32).astype(int).sum(axis=1)
    assert (np.diff(brightness) > 0).all()
    assert brightness[-1] < 600


def test_a_blank_thumbnail_and_a_sheet_of_none_are_empty():
    picture = pictures.decode(pictures.blank_thumbnail(16))
    assert picture.shape == (16, 16, 3)
    assert_allclose(picture, np.broadcast_to(pictures.BLANK, picture.shape), atol=2)
    sheet = pictures.thumbnail_sheet([], 3, [], side=10, caption=4, ground=(1, 2, 3))
    assert_array_equal(sheet, np.broadcast_to((1, 2, 3), (14, 30, 3)))
