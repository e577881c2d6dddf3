"""Arrays to pictures: class colours, heat maps, boxes, the overview's panels, thumbnails.

Pictures and images are RGB arrays of shape (H, W, 3), uint8. A box is (left, upper, right, lower)
in pixels, right and lower exclusive. `ids` are arrays of shape (H, W), uint8 or uint16; a mapping
is that of a dataset, `label_mapping` or `pred_mapping`: name and RGB colour of a class by its id.
`components` are of shape (H, W), int32: +k inside segment k, -k on its boundary; IoUs of shape
(S,), float: that of segment k at position k - 1. A colour is (r, g, b), or a name or "#rrggbb".
"""

import io
from functools import lru_cache

import matplotlib
import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from src.records import NO_LABEL

RED = (255, 0, 0)
WHITE = (255, 255, 255)
BLANK = (232, 234, 238)
ENTROPY_COLOURS = "inferno"  # dark = certain
IOU_COLOURS = "RdYlBu"  # red = 0, blue = 1: also for who cannot tell red from green
SCALE_COLOURS = "viridis"
THUMBNAIL_SIDE_PX = 128
KEPT_DECODED = 512  # thumbnails: 25 MB at most
MOST_ENLARGED = 4
CONTEXT = 0.15  # of the box's longer side, on each side


def colour_classes(ids, mapping):
    """Paint class ids with the colours of their classes; ids that have none become black."""
    ids = np.asarray(ids)
    colours = np.zeros((max(int(ids.max(initial=0)), NO_LABEL) + 1, 3), np.uint8)
    for class_id, (_, rgb) in mapping.items():
        if 0 <= class_id < len(colours):
            colours[class_id] = rgb
    return colours[ids]


def overlay_classes(image, ids, mapping, strength=0.55):
    """Lay class colours over an image, their share `strength`; where no label (255) is it stays."""
    mixed = (1 - strength) * image + strength * colour_classes(ids, mapping)
    return np.where((ids == NO_LABEL)[..., None], image, np.rint(mixed).astype(np.uint8))


def entropy_heatmap(prediction):
    """Show how uncertain each pixel is: entropy of its softmax over log(C), dark = 0.

    The prediction has the probabilities of at least 2 classes, or heat maps in their place.
    """
    if prediction.probabilities is None:
        return _colour_values(prediction.heatmaps[:, :, 0], ENTROPY_COLOURS)
    p = prediction.probabilities
    entropy = -(p * np.log(np.maximum(p, np.finfo(np.float32).tiny))).sum(axis=-1)
    return _colour_values(entropy / np.log(p.shape[-1]), ENTROPY_COLOURS)


def iou_map(components, ious):
    """Paint each segment by its IoU, red (0) to blue (1), its boundary darker.

    No segment (0) becomes black, an unknown IoU (NaN) grey.
    """
    ious = np.asarray(ious, np.float64)
    colours = np.zeros((len(ious) + 1, 3), np.uint8)
    colours[1:] = _colour_values(np.nan_to_num(ious), IOU_COLOURS)
    colours[1:][np.isnan(ious)] = 128
    picture = colours[np.abs(components)]
    boundary = components < 0
    picture[boundary] = (picture[boundary] * 0.7).astype(np.uint8)
    return picture


def rating_panels(prediction, components, true_iou, predicted_iou, label_mapping, pred_mapping):
    """Four pictures by their titles: classes, then IoUs, each true before predicted.

    Segments without a labelled pixel are white in both of the IoUs. The true ones are None where
    there is no ground truth at all.
    """
    truth, numbers = prediction.ground_truth, np.abs(components)
    of_truth = None if truth is None else colour_classes(truth, label_mapping)
    maps = []
    for values in (true_iou, predicted_iou):
        is_white = np.isnan(values)
        if truth is not None:
            is_white |= np.bincount(numbers[truth != NO_LABEL], minlength=len(values) + 1)[1:] == 0
        is_white = np.concatenate([[False], is_white])[numbers]
        maps.append(np.where(is_white[..., None], np.uint8(255), iou_map(components, values)))
    return {
        "True classes": of_truth,
        "Predicted classes": colour_classes(prediction.prediction, pred_mapping),
        "True IoU (white: no label)": None if truth is None else maps[0],
        "Predicted IoU (white: no label)": maps[1],
    }


def legend_of(ids, mapping):
    """Name and colour of each class that occurs; ids without one are together, black."""
    found = np.unique(ids).tolist()
    rest = [("no class", (0, 0, 0))] if set(found) - set(mapping) else []
    return [(mapping[key][0], tuple(mapping[key][1])) for key in found if key in mapping] + rest


def draw_box(picture, box, colour=RED):
    """Copy a picture with a box around a segment.

    The line lies outside the box, where the box touches the picture's edge inside it. It is as
    thick as the picture's size asks for (1/300 of the longer side, at least 2 pixels) and has a
    white rim, so that it shows on every ground.
    """
    result = Image.fromarray(picture)
    draw = ImageDraw.Draw(result)
    thickness = max(2, round(max(picture.shape[:2]) / 300))
    rim = max(1, thickness // 3)
    last = result.width - 1, result.height - 1
    for by, paint, width in ((thickness + rim, WHITE, rim), (thickness, colour, thickness)):
        corners = np.clip(np.reshape(_grown(box, by), (2, 2)), 0, last)
        draw.rectangle(corners.ravel().tolist(), outline=paint, width=width)
    return np.array(result)


def overview_panels(
    image, prediction, components, predicted_iou, box, label_mapping, pred_mapping, segments
):
    """The four pictures that explain an object, by their titles, in reading order.

    The IoUs are those of every segment of the image; box and outline, around all its segments, are
    the object's, drawn in each.
    """
    truth = prediction.ground_truth
    if truth is None:
        truth_title, truth_picture = "Image (no ground truth)", image
    else:
        truth_title = "Image with ground truth"
        truth_picture = overlay_classes(image, truth, label_mapping)
    unknown = " (unknown)" if np.isnan(predicted_iou).all() else ""
    panels = {
        "Entropy": entropy_heatmap(prediction),
        f"Predicted IoU of each segment{unknown}": iou_map(components, predicted_iou),
        truth_title: truth_picture,
        "Predicted classes": colour_classes(prediction.prediction, pred_mapping),
    }
    outline = outline_of(np.isin(np.abs(components), segments))
    return {
        title: draw_box(np.where(outline[..., None], np.uint8(WHITE), picture), box)
        for title, picture in panels.items()
    }


def outline_of(mask):
    """The pixels (H, W) of a mask with one beside them, or the edge of the image, that is not."""
    return mask & ~ndimage.binary_erosion(mask)


def crop(image, box, context=0.0):
    """Cut a box out of an image, grown by `context` times its longer side on each side.

    What would lie outside the image is left out.
    """
    left, upper, right, lower = (int(edge) for edge in box)
    margin = round(context * max(right - left, lower - upper))
    return image[max(upper - margin, 0) : lower + margin, max(left - margin, 0) : right + margin]


def thumbnail(image, box, side=THUMBNAIL_SIDE_PX):
    """A segment with a little context as a small JPEG (bytes).

    Its longer side has at most `side` pixels; small crops are not enlarged.
    """
    picture = Image.fromarray(crop(image, box, CONTEXT))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _jpeg(picture)


def in_context(image, box, mask, side):
    """A segment with as much around it as it is long, its outline red; (h, w, 3) uint8.

    The longer side has `side` pixels, of a small one fewer. `mask` (H, W) are its pixels; None: the
    box is drawn.
    """
    picture = Image.fromarray(crop(image if mask is not None else draw_box(image, box), box, 1.0))
    scale = min(side / max(picture.size), MOST_ENLARGED)
    size = tuple(max(1, round(scale * length)) for length in picture.size)
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    result = np.array(picture.resize(size, resampling))
    if mask is not None:
        shape = Image.fromarray(np.ascontiguousarray(crop(mask, box, 1.0)))
        inside = np.array(shape.resize(size, Image.Resampling.NEAREST))
        for colour, width in ((WHITE, 3), (RED, 2)):  # shows on every ground
            result[ndimage.binary_dilation(inside, iterations=width) & ~inside] = colour
    return result


def blank_thumbnail(side=THUMBNAIL_SIDE_PX):
    """A light grey square as a small JPEG (bytes), for a segment whose image cannot be read."""
    return _jpeg(Image.new("RGB", (side, side), BLANK))


@lru_cache(KEPT_DECODED)  # a sheet that is shown again has most of them
def decode(jpeg):
    """Picture of shape (H, W, 3) from the bytes of an image file; else OSError or ValueError.

    It is kept, and so cannot be written to.
    """
    try:
        picture = np.array(Image.open(io.BytesIO(jpeg), formats=["JPEG"]).convert("RGB"))
    except OSError:
        raise
    except Exception as error:  # broken ones raise nearly anything
        raise ValueError(f"it is no JPEG: {error}") from error
    picture.flags.writeable = False
    return picture


def thumbnail_sheet(thumbnails, columns, frames, side=160, caption=40, ground=WHITE):
    """Lay thumbnails out in a grid, row by row, each scaled into its cell and framed.

    Parameters
    ----------
    thumbnails : sequence of bytes
        N image files; without any, one row is empty.
    columns : int
        Cells in a row.
    frames, ground : sequence of N colours, and a colour
        Around and between the thumbnails.
    side, caption : int
        Pixels of a cell: `side` wide, `side` + `caption` high, the caption's part left empty.
    """
    rows = max(1, -(-len(thumbnails) // columns))
    sheet = Image.new("RGB", (columns * side, rows * (side + caption)), ground)
    draw = ImageDraw.Draw(sheet)
    gap, frame = side // 20, max(2, side // 40)
    room = side - 2 * (gap + frame)
    for number, (data, colour) in enumerate(zip(thumbnails, frames, strict=True)):
        picture = _fit(Image.fromarray(decode(data)), room)
        left = number % columns * side + (side - picture.width) // 2
        upper = number // columns * (side + caption) + (side - picture.height) // 2
        box = (left, upper, left + picture.width, upper + picture.height)
        draw.rectangle(_grown(box, frame), outline=colour, width=frame)
        sheet.paste(picture, (left, upper))
    return np.array(sheet)


def distinct_colours(count):
    """List of `count` RGB colours that are easy to tell apart (up to 20, then along a rainbow)."""
    if count <= 20:
        strong_first = [*range(0, 20, 2), *range(1, 20, 2)]
        colours = _colour_values(np.array(strong_first[:count], int), "tab20")
    else:
        colours = _colour_values(np.linspace(0, 1, count), "turbo")
    return [tuple(map(int, colour)) for colour in colours]


def scale_colours(count):
    """Colours of a scale from low to high, (count, 3) uint8, none too bright for white paper."""
    return _colour_values(np.linspace(0, 0.92, count), SCALE_COLOURS)


def _colour_values(values, colours):
    return matplotlib.colormaps[colours](values, bytes=True)[..., :3]


def _grown(box, by):
    """Corners for `ImageDraw.rectangle`, which draws the lower right one too."""
    left, upper, right, lower = (int(edge) for edge in box)
    return left - by, upper - by, right + by - 1, lower + by - 1


def _jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _fit(picture, side):
    scale = side / max(picture.size)
    size = tuple(max(1, round(length * scale)) for length in picture.size)
    return picture.resize(size, Image.Resampling.BICUBIC)
