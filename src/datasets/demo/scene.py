"""One random street scene: light, road and weather, and where its things stand."""

import functools
import math

import numpy as np
from PIL import Image

from src.datasets.demo import things
from src.datasets.demo.canvas import Canvas, mix, scaled
from src.datasets.demo.things import ROAD, SIDEWALK, SKY, TERRAIN, UNSEEN, pick, shade

# sky above, sky at the horizon, tint of all light, visibility in metres
WEATHERS = [
    ((88, 140, 205), (205, 222, 235), (1.04, 1.0, 0.94), 320),  # clear
    ((160, 170, 182), (208, 212, 216), (0.94, 0.97, 1.0), 160),  # overcast
    ((110, 125, 165), (245, 190, 140), (1.1, 0.95, 0.8), 200),  # evening
    ((188, 194, 198), (214, 217, 219), (0.95, 0.98, 1.0), 75),  # fog
    ((70, 95, 150), (170, 185, 205), (0.8, 0.86, 1.0), 240),  # dusk
]
LEAVES = [
    [(70, 110, 50), (90, 125, 60), (60, 95, 60)],  # summer
    [(190, 120, 45), (160, 70, 40), (175, 150, 60)],  # autumn
    [(120, 155, 75), (95, 140, 65), (215, 180, 195)],  # spring
]


def render(rng, height, width, unseen=()):
    """Draw one scene.

    Parameters
    ----------
    rng : numpy.random.Generator
        The scene is a function of its state.
    height, width : int
        In pixels.
    unseen : sequence of (int, str)
        Label and kind (a key of `UNSEEN`) of the unknown objects to put on the road.

    Returns
    -------
    picture : ndarray of shape (height, width, 3), uint8
    labels : ndarray of shape (height, width), uint8
        Cityscapes train ids, and the labels in `unseen`.
    """
    weather = WEATHERS[rng.integers(len(WEATHERS))]
    canvas = Canvas(
        height, width, horizon=rng.uniform(0.34, 0.48), focal=rng.uniform(0.62, 0.85),
        camera_height=rng.uniform(1.3, 2.4), bend=rng.normal(0, 0.0012), haze=weather[1],
        visibility=weather[3],
    )  # fmt: skip
    canvas.sun = rng.choice([-1, 1])
    canvas.leaves = LEAVES[rng.integers(len(LEAVES))]
    street = {
        "road": rng.uniform(3.4, 5.6),  # half the width, metres
        "walk": {-1: rng.uniform(1.8, 3.5), 1: rng.uniform(1.8, 3.5)},
    }
    canvas.paint_background(*_background(canvas, rng, weather, street))
    for _, draw in sorted(_layout(canvas, rng, street, unseen), key=lambda item: -item[0]):
        draw()
    picture, labels = canvas.finished()
    return _expose(picture, rng, weather[2]), labels


def _background(canvas, rng, weather, street):
    horizon = math.ceil(canvas.horizon) + 1
    picture = np.empty((canvas.height, canvas.width, 3), np.uint8)
    labels = np.full((canvas.height, canvas.width), SKY, np.uint8)
    picture[:horizon] = _sky(rng, weather, horizon, canvas.width)
    rows = np.arange(horizon, canvas.height, dtype=np.float32)
    ground, labels[horizon:] = _ground(canvas, rng, weather, street, rows)
    picture[horizon:] = np.clip(ground, 0, 255)
    return picture, labels


def _sky(rng, weather, height, width):
    shape = height // 4 + 1, width // 4  # clouds are soft: a quarter of the resolution will do
    share = np.linspace(0, 1, shape[0])[:, None, None] ** 1.3
    sky = np.array(weather[0]) * (1 - share) + np.array(weather[1]) * share
    clouds = sum(
        _smooth_noise(rng, shape, cells) * weight
        for cells, weight in (((4, 6), 0.6), ((10, 14), 0.3), ((24, 30), 0.15))
    )
    cover = np.clip((clouds - rng.uniform(0.35, 0.75)) * 3, 0, 1)[:, :, None]
    sky = sky + (np.array(mix(weather[1], (250, 250, 250), 0.5)) - sky) * cover * 0.8
    small = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def _smooth_noise(rng, shape, cells):
    coarse = Image.fromarray((rng.random(cells) * 255).astype(np.uint8))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC), np.float32) / 255


def _ground(canvas, rng, weather, street, rows):
    columns = np.arange(canvas.width, dtype=np.float32)
    z = np.minimum(canvas.focal * canvas.camera_height / (rows - canvas.horizon), 400)[:, None]
    z = z.astype(np.float32)
    x = (columns - canvas.width / 2) * (z / canvas.focal) - np.float32(canvas.bend) * z * z
    road, walk = street["road"], street["walk"]
    grain = _grain(rng, x, z)
    labels = np.full(x.shape, ROAD, np.uint8)
    asphalt = shade(rng, [(92, 93, 96), (72, 73, 78), (120, 117, 112), (100, 96, 92)], 8)
    colour = np.full((*x.shape, 3), asphalt, np.float32)
    _mark_lanes(colour, rng, x, z, road)
    crossing = rng.uniform(14, 45) if rng.random() < 0.35 else None
    side_road = np.zeros(x.shape, bool) if crossing is None else abs(z - crossing) < 4
    for side in (-1, 1):
        beyond = (x * side > road) & ~side_road
        paving = shade(rng, [(165, 160, 155), (150, 140, 130), (178, 160, 145)], 8)
        labels[beyond] = SIDEWALK
        joints = ((x % 0.9 < 0.06) | (z % 0.9 < 0.08)) & (z < 25)
        colour[beyond] = paving
        colour[beyond & joints] = scaled(paving, 0.85)
        colour[beyond & (x * side < road + 0.18)] = scaled(paving, 1.2)  # kerb
        outside = beyond & (x * side > road + walk[side])
        if rng.random() < 0.75:
            grass = shade(rng, [(98, 128, 62), (120, 125, 70), (140, 118, 85)], 10)
            labels[outside] = TERRAIN
            colour[outside] = grass
            colour[outside] *= (1 + 0.5 * (grain[outside] - 0.5))[:, None]
    colour *= (0.86 + 0.28 * grain)[:, :, None]
    fade = np.exp(-z / weather[3])[:, :, None]
    haze = np.array(weather[1], np.float32)
    return haze + (colour - haze) * fade, labels


def _grain(rng, x, z):
    noise = rng.random((128, 128)).astype(np.float32)
    fine = noise[(x * 14).astype(int) & 127, (z * 9).astype(int) & 127]
    coarse = noise[(x * 1.3).astype(int) & 127, (z * 0.7).astype(int) & 127]
    return np.where(z < 30, 0.6 * fine + 0.4 * coarse, 0.5)


def _mark_lanes(colour, rng, x, z, road):
    paint = shade(rng, [(225, 225, 220), (225, 190, 80)], 8)
    dashes = (z + rng.uniform(0, 9)) % 9 < rng.uniform(3, 5)
    lines = abs(x) < 0.09
    if rng.random() < 0.8:
        colour[lines & dashes] = paint
    if rng.random() < 0.5:
        colour[abs(abs(x) - road + 0.35) < 0.08] = paint
    if rng.random() < 0.3:
        start = rng.uniform(5, 18)
        stripes = (z > start) & (z < start + 3.2) & (abs(x) < road) & (x % 1.0 < 0.5)
        colour[stripes] = paint
    for _ in range(rng.integers(0, 4)):  # patches of newer asphalt
        a, b = rng.uniform(-road, road), rng.uniform(4, 25)
        patch = (abs(x - a) < rng.uniform(0.4, 1.4)) & (abs(z - b) < rng.uniform(0.5, 3))
        colour[patch] *= rng.uniform(0.75, 0.9)


def _layout(canvas, rng, street, unseen):
    """List (distance, function that draws it) of everything in the scene."""
    road, items = street["road"], []

    def put(distance, draw, *args, **options):
        items.append((distance, functools.partial(draw, canvas, rng, *args, **options)))

    put(100, things.woods, 100)
    for side in (-1, 1):
        _edge_of_the_street(put, rng, side, road + street["walk"][side])
        _on_the_sidewalk(put, rng, side, road, street["walk"][side])
    _on_the_road(put, rng, road)
    for z, (label, kind) in zip(_distances(rng, len(unseen), 4.5, 13), unseen, strict=True):
        x = rng.uniform(-1.05, 1.05) * road
        put(z - 0.3, UNSEEN[kind][0], x, z, label)
    return items


def _edge_of_the_street(put, rng, side, x):
    urban = rng.random() < 0.75
    z = rng.uniform(2, 7)
    while z < 80:
        length = rng.uniform(8, 20)
        if rng.random() < (0.75 if urban else 0.25):
            setback = rng.choice([-0.1, rng.uniform(1.0, 3.0)])
            put(z + length, things.building, side, x + setback, z, z + length, rng.uniform(5, 19))
        else:
            for _ in range(rng.integers(2, 6)):
                far = z + rng.uniform(0, length)
                put(far, things.tree, side * (x + rng.uniform(2, 9)), far, rng.uniform(4, 11))
        if z < 60 and rng.random() < 0.45:
            kind = pick(rng, [things.wall, things.fence, things.fence, things.hedge, things.wall])
            put(z + length - 0.1, kind, side * (x - 0.1), z, z + length)
        z += length + rng.choice([0.0, rng.uniform(1, 8)])


def _on_the_sidewalk(put, rng, side, road, walk):
    kerb = road + 0.45
    kinds = [things.lamp, things.traffic_sign, things.traffic_light, things.tree, things.bollard]
    shares = [0.24, 0.3, 0.24, 0.14, 0.08]
    for z in np.arange(rng.uniform(5, 9), 32, rng.uniform(6, 10)):
        put(z, kinds[rng.choice(5, p=shares)], side * kerb, z)
    for z in _distances(rng, rng.integers(0, 4), 6, 22):
        put(z, things.person, side * (road + rng.uniform(0.7, walk)), z)
    if rng.random() < 0.3:  # a group
        middle, start = rng.uniform(1, walk), rng.uniform(8, 18)
        for _ in range(rng.integers(2, 5)):
            z = start + rng.uniform(-1, 1)
            put(z, things.person, side * (road + middle + rng.normal(0, 0.5)), z)
    for z in _distances(rng, rng.integers(0, 3), 6, 18):
        put(z, things.bicycle, side * (road + rng.uniform(0.8, walk)), z)
    for z in _distances(rng, rng.integers(0, 2), 6, 25):
        put(z, things.bush, side * (road + walk - 0.4), z)


def _on_the_road(put, rng, road):
    lane = road / 2
    kinds = [things.car, things.truck, things.bus, things.cyclist, things.motorcyclist]
    shares = [0.58, 0.13, 0.12, 0.11, 0.06]
    for side in (-1, 1):
        z = rng.uniform(7, 20)
        while z < 50:
            kind = kinds[rng.choice(5, p=shares)]
            put(z, kind, side * (lane + rng.normal(0, 0.25)), z)
            z += 9 + rng.exponential(16)
        if road > 4.4 and rng.random() < 0.6:  # parked along the kerb
            for far in np.arange(rng.uniform(7, 12), 32, rng.uniform(6, 9)):
                if rng.random() < 0.6:
                    put(far, things.car, side * (road - 1.0), far)
    for z in _distances(rng, rng.integers(0, 3), 7, 20):
        put(z, things.person, rng.uniform(-road, road), z)
    for z in _distances(rng, rng.integers(0, 3), 6, 19):
        kind = things.cyclist if rng.random() < 0.6 else things.motorcyclist
        put(z, kind, rng.choice([-1, 1]) * rng.uniform(0.3, 0.85) * road, z)
    if rng.random() < 0.25:
        z = rng.uniform(7, 20)
        put(z, things.motorcycle, rng.choice([-1, 1]) * (road - 0.6), z)


def _distances(rng, count, nearest, farthest):
    """Distances whose pictures spread evenly over the height of the road."""
    return 1 / rng.uniform(1 / farthest, 1 / nearest, count)


def _expose(picture, rng, tint):
    """Light, contrast and noise of the camera."""
    image = picture.astype(np.float32)
    image *= np.array(tint) * rng.uniform(0.8, 1.15)
    clouds = _smooth_noise(rng, image.shape[:2], (3, 5))
    image *= (0.85 + 0.3 * clouds)[:, :, None]
    image = 128 + (image - 128) * rng.uniform(0.85, 1.15)
    image += rng.normal(0, rng.uniform(2, 6), image.shape[:2])[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)
