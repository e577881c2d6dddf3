"""A pinhole camera that draws flat shapes of a 3-D street into a picture and its label map.

World coordinates are metres: x to the right, y up, z forward from the camera, which stands on the
road at x = z = 0. Colours are (r, g, b) in [0, 255].
"""

import math

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 2
NEAREST_Z = 1.5


def mix(first, second, share):
    """Blend two colours; `share` in [0, 1] is that of the second."""
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def scaled(colour, factor):
    """Make a colour brighter or darker."""
    return tuple(channel * factor for channel in colour)


def ellipse(a, b, half_width, half_height, corners):
    """Corners (a, b) of a polygon that looks like an ellipse."""
    turns = [2 * math.pi * k / corners for k in range(corners)]
    return [(a + half_width * math.cos(t), b + half_height * math.sin(t)) for t in turns]


class Canvas:
    """Picture and label map of one view, drawn far things first.

    Parameters
    ----------
    height, width : int
        Size of the finished picture in pixels; drawing happens at twice that size.
    horizon, focal : float
        Row of the horizon as a share of the height; focal length as a share of the width.
    camera_height : float
        In metres above the road.
    bend : float
        Curvature of the road: everything is shifted right by `bend` * z**2 metres.
    haze : tuple of float
        Colour that things fade to.
    visibility : float
        Distance in metres at which a thing has faded to 63 %.
    """

    def __init__(self, height, width, *, horizon, focal, camera_height, bend, haze, visibility):
        self.height, self.width = height * SUPERSAMPLING, width * SUPERSAMPLING
        self.horizon, self.focal = horizon * self.height, focal * self.width
        self.camera_height, self.bend = camera_height, bend
        self.haze, self.visibility = haze, visibility
        self.picture = Image.new("RGB", (self.width, self.height))
        self.labels = Image.new("L", (self.width, self.height), 255)
        self._paint = ImageDraw.Draw(self.picture, "RGBA")
        self._mark = ImageDraw.Draw(self.labels)

    def project(self, x, y, z):
        """Column and row of a point, in pixels of the large picture."""
        z = max(z, NEAREST_Z)
        column = self.width / 2 + self.focal * (x + self.bend * z * z) / z
        return column, self.horizon + self.focal * (self.camera_height - y) / z

    def fade(self, colour, z):
        """What is left of a colour at a distance of `z` metres."""
        return mix(colour, self.haze, 1 - math.exp(-z / self.visibility))

    def fill(self, points, colour, z, label, alpha=255):
        """Fill a polygon of pixels; a `label` of None leaves the label map alone."""
        red, green, blue = (min(255, max(0, round(c))) for c in self.fade(colour, z))
        self._paint.polygon(points, fill=(red, green, blue, alpha))
        if label is not None:
            self._mark.polygon(points, fill=int(label))

    def paint_background(self, picture, labels):
        """Start from arrays (H, W, 3) and (H, W) of the large size."""
        self.picture.paste(Image.fromarray(picture))
        self.labels.paste(Image.fromarray(labels))

    def finished(self):
        """Picture (H, W, 3) uint8, anti-aliased, and labels (H, W) uint8."""
        labels = np.asarray(self.labels)[::SUPERSAMPLING, ::SUPERSAMPLING]
        return np.asarray(self.picture.reduce(SUPERSAMPLING)), labels.copy()


class Face:
    """A vertical plane in the street with coordinates of its own: a along it, b up, in metres.

    Parameters
    ----------
    canvas : Canvas
    label : int or None
        Drawn into the label map by every shape that names no other.
    x, z : float
        Where (0, 0) stands on the ground.
    y : float
        How far (0, 0) is above the ground.
    turn : float
        Angle between the plane and the picture in radians: 0 faces the camera, pi / 2 runs along
        the road.
    light : float
        Brightness of everything on it.
    mirror : bool
        Let a grow to the left.
    """

    def __init__(self, canvas, label, x, z, *, y=0.0, turn=0.0, light=1.0, mirror=False):
        self.canvas, self.label, self.light = canvas, label, light
        self.x, self.y, self.z = x, y, z
        sign = -1 if mirror else 1
        self._step = sign * math.cos(turn), sign * math.sin(turn)

    def _pixel(self, a, b):
        dx, dz = self._step
        return self.canvas.project(self.x + a * dx, self.y + b, self.z + a * dz)

    def polygon(self, points, colour, *, label=-1, alpha=255):
        """Fill a polygon of (a, b); a `label` of -1 is the face's own."""
        label = self.label if label == -1 else label
        pixels = [self._pixel(a, b) for a, b in points]
        self.canvas.fill(pixels, scaled(colour, self.light), self.z, label, alpha)

    def box(self, a0, b0, a1, b1, colour, **options):
        """Fill the rectangle between two corners."""
        self.polygon([(a0, b0), (a1, b0), (a1, b1), (a0, b1)], colour, **options)

    def boxes(self, places, b0, wide, b1, colour):
        """Fill the same rectangle at several places along the face."""
        for a in places:
            self.box(a, b0, a + wide, b1, colour)

    def disc(self, a, b, radius, colour, *, tall=1.0, tilt=0.0, corners=14, **options):
        """Fill an ellipse of half-width `radius` and half-height `radius * tall`."""
        cos, sin = math.cos(tilt), math.sin(tilt)
        points = ellipse(0, 0, radius, radius * tall, corners)
        points = [(a + p * cos - q * sin, b + p * sin + q * cos) for p, q in points]
        self.polygon(points, colour, **options)

    def stroke(self, points, width, colour, **options):
        """Draw a line of (a, b) corners, `width` metres wide, with round joints."""
        for (a0, b0), (a1, b1) in zip(points, points[1:], strict=False):
            length = math.hypot(a1 - a0, b1 - b0) or 1.0
            p, q = (b0 - b1) / length * width / 2, (a1 - a0) / length * width / 2
            corners = [(a0 + p, b0 + q), (a1 + p, b1 + q), (a1 - p, b1 - q), (a0 - p, b0 - q)]
            self.polygon(corners, colour, **options)
        for a, b in points:
            self.disc(a, b, width / 2, colour, corners=8, **options)

    def ring(self, a, b, radius, width, colour, *, corners=18, **options):
        """Draw a circle's outline."""
        outer = ellipse(a, b, radius, radius, corners)
        inner = ellipse(a, b, radius - width, radius - width, corners)
        for k in range(corners):
            self.polygon([outer[k - 1], outer[k], inner[k], inner[k - 1]], colour, **options)


def drop_shadow(canvas, x, z, half_width, half_length, strength=90):
    """Darken the ground under a thing."""
    points = [canvas.project(a, 0, b) for a, b in ellipse(x, z, half_width, half_length, 16)]
    canvas.fill(points, (15, 15, 20), 0, None, alpha=strength)
