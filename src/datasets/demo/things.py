"""How each thing of a street looks: one function a kind, drawn at (x, z) on a `Canvas`.

The first part draws what the training scenes know, the second what only `streets_ood` holds. Each
function takes the canvas, a random generator and the position of the thing's middle on the ground.
"""

import math

import numpy as np

from src.datasets.demo.canvas import Face, drop_shadow, scaled

(ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN) = (
    range(10)
)
SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(10, 19)

# the corners of a shape read best side by side
# fmt: off
SKINS = [(236, 188, 160), (198, 134, 100), (141, 85, 54), (224, 172, 138), (92, 58, 40)]
HAIRS = [(40, 28, 22), (90, 60, 35), (190, 150, 90), (20, 20, 22), (140, 140, 140)]
CLOTHES = [
    (170, 40, 45), (40, 70, 140), (45, 45, 50), (215, 210, 200), (60, 110, 70), (200, 160, 60),
    (120, 60, 110), (90, 130, 170), (230, 120, 50), (110, 85, 65),
]
PAINTS = [
    (190, 190, 195), (35, 37, 42), (235, 235, 235), (150, 25, 30), (30, 60, 120), (90, 95, 100),
    (40, 90, 60), (200, 170, 90), (120, 150, 175), (80, 50, 40),
]
GLASS, RUBBER, CHROME = (52, 66, 80), (24, 24, 26), (170, 172, 175)


def pick(rng, options):
    """Choose one entry of a list."""
    return options[rng.integers(len(options))]


def vary(rng, colour, spread=18):
    """Shift a colour a little."""
    return tuple(channel + rng.uniform(-spread, spread) for channel in colour)


def shade(rng, colours, spread=18):
    """Choose one of some colours and shift it a little."""
    return vary(rng, pick(rng, colours), spread)


def solid(canvas, label, x, z, width, length, *, y=0.0):
    """Near face and visible side face of a box whose near face has its middle at (x, z)."""
    near = Face(canvas, label, x - width / 2, z, y=y)
    seen_x = x + canvas.bend * z * z
    side_x = x - width / 2 if seen_x > 0 else x + width / 2
    lit = canvas.sun * seen_x < 0
    side = Face(canvas, label, side_x, z, y=y, turn=math.pi / 2, light=1.05 if lit else 0.72)
    return near, side


# ---------------------------------------------------------------- the known world


def building(canvas, rng, side, x, z0, z1, height):
    """A house whose front runs along the road at |x| from z0 to z1; `side` is -1 or 1."""
    colours = [
        (186, 160, 130), (150, 92, 72), (200, 190, 175), (140, 140, 145), (170, 120, 95),
        (205, 180, 140), (120, 110, 105), (160, 170, 180), (190, 140, 120), (110, 125, 140),
    ]
    wall = shade(rng, colours)
    lit = canvas.sun * side < 0
    front = Face(canvas, BUILDING, side * x, z0, turn=math.pi / 2, light=1.05 if lit else 0.75)
    depth = rng.uniform(8, 16)
    end = Face(canvas, BUILDING, side * x, z0, mirror=side < 0, light=0.9)
    for face, width in ((end, depth), (front, z1 - z0)):
        face.box(0, 0, width, height, wall)
        _windows(face, rng, width, height, wall)
        face.box(0, height - 0.5, width, height, scaled(wall, 0.8))
    if rng.random() < 0.5:
        roof = shade(rng, [(120, 60, 48), (85, 80, 85), (100, 75, 60), (70, 75, 85)])
        rise = rng.uniform(1.5, 3.5)
        front.box(0, height, z1 - z0, height + rise, roof)
        end.polygon([(0, height), (depth, height), (depth / 2, height + rise * 1.3)], wall)


def _windows(face, rng, width, height, wall):
    floor = rng.uniform(2.9, 3.6)
    columns = max(1, int(width / rng.uniform(1.9, 3.2)))
    pane_width = width / columns * rng.uniform(0.4, 0.7)
    pane_height = floor * rng.uniform(0.45, 0.65)
    glass = shade(rng, [(70, 85, 100), (45, 52, 62), (110, 130, 150), (60, 60, 58)], 12)
    frame = scaled(wall, rng.choice([0.65, 1.2]))
    shop = rng.random() < 0.45
    for row in range(int((height - 0.8) / floor)):
        for column in range(columns):
            a = (column + 0.5) * width / columns
            b = row * floor + 0.9
            if row == 0 and shop:
                a0, a1 = a - width / columns * 0.46, a + width / columns * 0.46
                face.box(a0, 0.35, a1, 2.6, scaled(glass, 0.9))
                continue
            half = pane_width / 2
            face.box(a - half - 0.1, b - 0.12, a + half + 0.1, b + pane_height + 0.1, frame)
            face.box(a - half, b, a + half, b + pane_height, scaled(glass, rng.uniform(0.75, 1.3)))
    if shop:
        face.box(0, 2.6, width, 3.2, shade(rng, CLOTHES))


def wall(canvas, rng, x, z0, z1):
    """A garden wall along the road."""
    colour = shade(rng, [(150, 145, 138), (158, 110, 88), (175, 168, 150)], 10)
    height = rng.uniform(1.4, 2.3)
    face = Face(canvas, WALL, x, z0, turn=math.pi / 2, light=rng.uniform(0.85, 1.0))
    face.box(0, 0, z1 - z0, height, colour)
    for b in np.arange(0.35, height, 0.45):
        face.box(0, b, z1 - z0, b + 0.05, scaled(colour, 0.82))
    face.box(0, height - 0.15, z1 - z0, height, scaled(colour, 1.15))


def fence(canvas, rng, x, z0, z1):
    """Rails and posts along the road; what shines through is part of it."""
    colour = shade(rng, [(95, 98, 102), (225, 225, 222), (110, 80, 55), (50, 75, 60)], 10)
    height = rng.uniform(1.0, 1.6)
    face = Face(canvas, FENCE, x, z0, turn=math.pi / 2)
    face.box(0, 0, z1 - z0, height, scaled(colour, 0.5), alpha=60)
    for b in (0.2, height * 0.55, height - 0.08):
        face.box(0, b, z1 - z0, b + 0.08, colour)
    for a in np.arange(0, z1 - z0, 0.45 + z0 * 0.012):
        face.box(a, 0, a + 0.1, height, scaled(colour, 0.9))


def tree(canvas, rng, x, z, height=None):
    """Trunk and crown."""
    height = height or rng.uniform(4, 9)
    leaf = shade(rng, canvas.leaves, 12)
    drop_shadow(canvas, x, z, 1.4, 0.8, 70)
    face = Face(canvas, VEGETATION, x, z)
    face.polygon([(-0.18, 0), (0.18, 0), (0.1, height * 0.6), (-0.1, height * 0.6)], (78, 60, 46))
    _crown(face, rng, height * 0.66, height * rng.uniform(0.24, 0.36), leaf, rng.uniform(0.8, 1.3))


def _crown(face, rng, middle, radius, leaf, tall):
    face.disc(0, middle, radius * 0.85, scaled(leaf, 0.6), tall=tall)
    for _ in range(26):
        turn, far = rng.uniform(0, 2 * math.pi), radius * math.sqrt(rng.random())
        a, b = far * math.cos(turn), middle + far * math.sin(turn) * tall
        shade = 0.75 + 0.35 * (b - middle) / (radius * tall) + rng.uniform(-0.1, 0.1)
        face.disc(a, b, radius * rng.uniform(0.2, 0.38), scaled(leaf, shade), corners=9)


def woods(canvas, rng, z):
    """A line of trees that closes the view."""
    leaf = scaled(shade(rng, canvas.leaves, 12), 0.85)
    height = rng.uniform(4, 9)
    face = Face(canvas, VEGETATION, 0, z)
    face.box(-300, 0, 300, height, leaf)
    for a in range(-150, 150, 6):
        face.disc(a + rng.uniform(-2, 2), height, rng.uniform(3, 5), leaf, corners=9)


def hedge(canvas, rng, x, z0, z1):
    """A clipped hedge along the road."""
    leaf = shade(rng, canvas.leaves, 12)
    height = rng.uniform(0.9, 2.0)
    face = Face(canvas, VEGETATION, x, z0, turn=math.pi / 2, light=0.9)
    face.box(0, 0, z1 - z0, height * 0.9, scaled(leaf, 0.75))
    for _ in range(40):
        a, b = rng.uniform(0, z1 - z0), rng.uniform(0.15, 0.95) * height
        face.disc(a, b, rng.uniform(0.15, 0.35), scaled(leaf, rng.uniform(0.7, 1.15)), corners=8)


def bush(canvas, rng, x, z):
    """A round bush."""
    face = Face(canvas, VEGETATION, x, z)
    radius = rng.uniform(0.5, 1.0)
    _crown(face, rng, radius * 0.9, radius, shade(rng, canvas.leaves, 12), 0.9)


def lamp(canvas, rng, x, z):
    """A street lamp that leans over the road."""
    colour = shade(rng, [(88, 92, 96), (60, 66, 64), (135, 138, 140)], 8)
    height, arm = rng.uniform(5, 7.5), -math.copysign(rng.uniform(0.8, 1.8), x)
    face = Face(canvas, POLE, x, z)
    face.polygon([(-0.14, 0), (0.14, 0), (0.09, height), (-0.09, height)], colour)
    face.stroke([(0, height), (arm * 0.5, height + 0.35), (arm, height + 0.35)], 0.13, colour)
    face.disc(arm, height + 0.28, 0.32, (225, 222, 205), tall=0.4)


def bollard(canvas, rng, x, z):
    """A short post."""
    face = Face(canvas, POLE, x, z)
    face.box(-0.11, 0, 0.11, 1.0, pick(rng, [(70, 72, 75), (150, 60, 50), (120, 122, 125)]))
    face.box(-0.11, 0.75, 0.11, 0.88, (235, 235, 230))


def traffic_light(canvas, rng, x, z):
    """Three lamps on a pole, one of them lit."""
    height = rng.uniform(2.6, 3.6)
    face = Face(canvas, POLE, x, z)
    face.box(-0.09, 0, 0.09, height, (84, 88, 90))
    face.box(-0.27, height, 0.27, height + 1.35, (28, 30, 31), label=TRAFFIC_LIGHT)
    lit = rng.integers(3)
    lamps = [(60, 215, 110), (245, 190, 50), (240, 50, 45)]
    for k, colour in enumerate(lamps):
        dark = (46, 46, 44)
        middle = height + 0.26 + 0.42 * k
        face.disc(0, middle, 0.17, colour if k == lit else dark, label=TRAFFIC_LIGHT)


def traffic_sign(canvas, rng, x, z):
    """One of six signs on a pole."""
    height = rng.uniform(2.0, 2.8)
    Face(canvas, POLE, x, z).box(-0.07, 0, 0.07, height, (140, 144, 146))
    face = Face(canvas, TRAFFIC_SIGN, x, z)
    red, white, blue = (200, 32, 38), (240, 240, 236), (35, 85, 170)
    size, kind = rng.uniform(0.4, 0.55), rng.integers(6)
    if kind == 0:  # speed limit
        face.disc(0, height, size, red, corners=18)
        face.disc(0, height, size * 0.75, white, corners=18)
        face.box(-size * 0.35, height - size * 0.3, -size * 0.08, height + size * 0.3, (30, 30, 30))
        face.box(size * 0.08, height - size * 0.3, size * 0.35, height + size * 0.3, (30, 30, 30))
    elif kind == 1:  # stop
        turns = [math.pi * (2 * k + 1) / 8 for k in range(8)]
        face.polygon([(size * math.cos(t), height + size * math.sin(t)) for t in turns], red)
        face.box(-size * 0.7, height - size * 0.18, size * 0.7, height + size * 0.18, white)
    elif kind in (2, 3):  # give way, whose tip points down, and warning
        for part, colour in ((1.1, red), (0.7, white)):
            s, tip = size * part, size * part * (-1 if kind == 2 else 1)
            face.polygon([(-s, height - tip * 0.6), (s, height - tip * 0.6), (0, height + tip)],
                         colour)
    elif kind == 4:  # direction
        face.disc(0, height, size, blue, corners=18)
        face.stroke([(0, height - size * 0.6), (0, height + size * 0.5)], 0.1, white)
        face.polygon([(-0.2, height + 0.1), (0.2, height + 0.1), (0, height + 0.35)], white)
    else:  # parking
        face.box(-size * 0.9, height - size, size * 0.9, height + size, blue)
        face.box(-size * 0.4, height - size * 0.7, -size * 0.1, height + size * 0.7, white)
        face.ring(0, height + size * 0.3, size * 0.42, size * 0.2, white, corners=10)


def person(canvas, rng, x, z):
    """Somebody walking or standing."""
    drop_shadow(canvas, x, z, 0.4, 0.25)
    size = rng.uniform(0.86, 1.08) * (0.72 if rng.random() < 0.15 else 1.0)
    top, legs = shade(rng, CLOTHES), shade(rng, CLOTHES[:5] + [(60, 65, 90)])
    skin, hair = pick(rng, SKINS), pick(rng, HAIRS)
    face = Face(canvas, PERSON, x, z, mirror=bool(rng.integers(2)))
    step = rng.uniform(0.05, 0.3) * size
    hip, shoulder = 0.86 * size, 1.42 * size
    for foot in (-step, step):
        face.stroke([(0.0, hip), (foot * 0.6, hip * 0.5), (foot, 0.06)], 0.17 * size, legs)
        face.stroke([(foot, 0.05), (foot + 0.13, 0.05)], 0.1 * size, (30, 28, 28))
    if rng.random() < 0.25:  # coat or dress
        hem = 0.45 * size
        waist, flare = 0.2 * size, 0.27 * size
        face.polygon([(-waist, hip), (waist, hip), (flare, hem), (-flare, hem)], top)
    face.polygon([(-0.2 * size, hip - 0.08), (0.2 * size, hip - 0.08), (0.24 * size, shoulder),
                  (-0.24 * size, shoulder)], top)
    swing = rng.uniform(0, 0.3)
    for hand in (-1, 1):
        elbow = (hand * 0.3 * size + swing * hand * 0.3, 1.12 * size)
        face.stroke([(hand * 0.22 * size, shoulder - 0.04), elbow, (elbow[0] + swing, 0.85 * size)],
                    0.11 * size, scaled(top, 0.85))
    if rng.random() < 0.3:
        face.box(-0.36 * size, 0.95 * size, -0.16 * size, 1.4 * size, shade(rng, CLOTHES))
    _head(face, 0.0, 1.6 * size, size, skin, hair)


def _head(face, a, b, size, skin, hair):
    face.box(a - 0.05 * size, b - 0.2 * size, a + 0.05 * size, b, scaled(skin, 0.85))
    face.disc(a, b, 0.115 * size, skin, tall=1.2)
    top = b + 0.15 * size
    face.polygon([(a - 0.12 * size, b), (a + 0.12 * size, b + 0.03), (a + 0.09 * size, top),
                  (a - 0.1 * size, top)], hair)


def bicycle(canvas, rng, x, z, *, ridden=False):
    """A bicycle seen from the side or, ridden along the road, half turned."""
    turn = rng.uniform(0.6, 1.1) if ridden else rng.uniform(0.0, 0.5)
    mirror = bool(rng.integers(2))
    drop_shadow(canvas, x, z, 0.8, 0.25, 70)
    face = Face(canvas, BICYCLE, x, z, turn=turn, mirror=mirror)
    paint = shade(rng, CLOTHES + PAINTS[:3])
    back, front, pedals = (-0.55, 0.35), (0.55, 0.35), (-0.05, 0.32)
    saddle, bar = (-0.2, 0.95), (0.42, 0.98)
    for a, b in (back, front):
        face.disc(a, b, 0.34, (70, 70, 72), alpha=90)
        face.ring(a, b, 0.36, 0.075, RUBBER)
    for line in ([back, pedals, saddle, back], [pedals, bar], [saddle, (0.4, 0.85)], [front, bar]):
        face.stroke(line, 0.07, paint)
    face.stroke([(-0.32, 0.97), (-0.1, 0.97)], 0.09, RUBBER)
    face.stroke([(0.3, 1.03), (0.5, 1.03)], 0.06, RUBBER)
    return face


def cyclist(canvas, rng, x, z):
    """A rider on a bicycle; rider and bicycle have labels of their own."""
    seat = bicycle(canvas, rng, x, z, ridden=True)
    _driver(seat, rng, pedals=0.3, saddle=1.0, bar=(0.42, 1.1))


def motorcyclist(canvas, rng, x, z):
    """A rider on a motorcycle."""
    motorcycle(canvas, rng, x, z)
    face = Face(canvas, RIDER, x, z, turn=0.9)
    _driver(face, rng, pedals=0.35, saddle=0.85, bar=(0.5, 1.05))


def _driver(seat, rng, pedals, saddle, bar):
    top, legs = shade(rng, CLOTHES), shade(rng, CLOTHES[:5])
    hip, shoulder = (-0.2, saddle), (0.12, saddle + 0.58)
    for knee, foot in (((0.18, 0.72), (0.0, pedals - 0.15)), ((0.14, 0.85), (0.05, pedals + 0.2))):
        seat.stroke([hip, knee, foot], 0.17, legs, label=RIDER)
        seat.stroke([foot, (foot[0] + 0.14, foot[1])], 0.1, (30, 28, 28), label=RIDER)
    seat.stroke([hip, shoulder], 0.36, top, label=RIDER)
    seat.stroke([shoulder, (0.3, saddle + 0.25), bar], 0.12, scaled(top, 0.85), label=RIDER)
    helmet = shade(rng, CLOTHES + PAINTS[:3])
    a, b = shoulder[0] + 0.06, shoulder[1] + 0.22
    seat.disc(a, b, 0.12, pick(rng, SKINS), tall=1.2, label=RIDER)
    seat.polygon([(a - 0.15, b), (a + 0.15, b + 0.02), (a + 0.1, b + 0.18), (a - 0.11, b + 0.18)],
                 helmet, label=RIDER)


def motorcycle(canvas, rng, x, z):
    """A motorcycle, half turned."""
    drop_shadow(canvas, x, z, 0.8, 0.3, 80)
    face = Face(canvas, MOTORCYCLE, x, z, turn=0.9, mirror=False)
    paint = shade(rng, CLOTHES)
    _wheels(face, (-0.68, 0.68), 0.33, 0.35, 0.18, (120, 122, 125))
    face.polygon([(-0.5, 0.35), (0.35, 0.3), (0.45, 0.75), (-0.4, 0.7)], (60, 62, 65))
    face.polygon([(-0.75, 0.8), (-0.1, 0.75), (0.45, 0.95), (0.5, 0.7), (-0.6, 0.6)], paint)
    face.stroke([(0.68, 0.35), (0.48, 1.05)], 0.11, CHROME)
    face.disc(0.62, 0.85, 0.13, (240, 235, 210))


def _wheels(side, places, height, radius, rim, metal=CHROME):
    for a in places:
        side.disc(a, height, radius, RUBBER)
        side.disc(a, height, rim, metal)


def car(canvas, rng, x, z):
    """A car that drives away or comes closer."""
    width, length, height = rng.uniform(1.7, 1.95), rng.uniform(3.7, 4.8), rng.uniform(1.4, 1.75)
    paint = shade(rng, PAINTS, 12)
    waist = height * 0.58
    drop_shadow(canvas, x, z + length / 2, width * 0.62, length * 0.55, 120)
    near, side = solid(canvas, CAR, x, z, width, length)
    front, back = length * rng.uniform(0.02, 0.2), length * rng.uniform(0.75, 0.95)
    side.polygon([(0, 0.28), (length, 0.28), (length, waist * 0.92), (back, waist), (front, waist),
                  (0, waist * 0.95)], paint)
    lean = length * 0.1
    side.polygon([(front, waist), (back, waist), (back - lean * 1.4, height),
                  (front + lean, height)], paint)
    side.polygon([(front + lean * 0.7, waist + 0.03), (back - lean * 0.9, waist + 0.03),
                  (back - lean * 1.7, height - 0.08), (front + lean * 1.3, height - 0.08)],
                 GLASS)
    side.box((front + back) / 2 - 0.05, waist, (front + back) / 2 + 0.06, height - 0.05, paint)
    _wheels(side, (length * 0.18, length * 0.8), 0.32, 0.34, 0.19)
    cabin = Face(canvas, CAR, x - width / 2, z + front)
    cabin.polygon([(0.03, waist), (width - 0.03, waist), (width * 0.86, height),
                   (width * 0.14, height)], scaled(paint, 1.05))
    cabin.polygon([(width * 0.1, waist + 0.02), (width * 0.9, waist + 0.02),
                   (width * 0.82, height - 0.1), (width * 0.18, height - 0.1)], GLASS)
    _lid(canvas, CAR, x, z, width, front, waist, scaled(paint, 1.15))
    near.boxes((0.08, width - 0.3), 0.0, 0.22, 0.45, RUBBER)
    near.box(0, 0.25, width, waist, paint)
    near.box(0, 0.25, width, 0.42, scaled(paint, 0.55))
    near.box(width * 0.36, 0.45, width * 0.64, 0.58, (235, 235, 225))
    lights = (245, 240, 215) if rng.random() < 0.5 else (190, 30, 30)
    near.boxes((0.04, width - 0.4), waist * 0.68, 0.36, waist * 0.88, lights)


def _lid(canvas, label, x, z, width, length, y, colour):
    half = width / 2
    corners = [(x - half, z), (x + half, z), (x + half, z + length), (x - half, z + length)]
    canvas.fill([canvas.project(a, y, b) for a, b in corners], colour, z, label)


def truck(canvas, rng, x, z):
    """A lorry with a closed body, or its cabin seen from the front."""
    width, length, height = 2.45, rng.uniform(5.5, 8.5), rng.uniform(3.0, 3.8)
    body = shade(rng, [(235, 235, 232), (200, 120, 40), (60, 90, 140), (150, 155, 150)], 12)
    drop_shadow(canvas, x, z + length / 2, width * 0.6, length * 0.55, 120)
    near, side = solid(canvas, TRUCK, x, z, width, length)
    side.box(0, 0.75, length, height, body)
    side.box(0, 0.6, length, 0.8, (50, 52, 55))
    stripe = shade(rng, CLOTHES)
    side.box(length * 0.1, height * 0.45, length * 0.9, height * 0.62, stripe)
    _wheels(side, (length * 0.12, length * 0.28, length * 0.85), 0.48, 0.48, 0.22)
    near.boxes((0.12, width - 0.52), 0.0, 0.4, 0.8, RUBBER)
    if rng.random() < 0.4:  # the cabin, coming closer
        cabin = shade(rng, CLOTHES)
        near.box(0, 0.5, width, height, body)
        near.box(0.08, 0.5, width - 0.08, 2.7, cabin)
        near.box(0.22, 1.6, width - 0.22, 2.5, GLASS)
        near.box(width * 0.25, 0.85, width * 0.75, 1.25, (40, 42, 44))
        lights = (245, 240, 215)
    else:
        near.box(0, 0.75, width, height, scaled(body, 0.92))
        near.box(width / 2 - 0.03, 0.85, width / 2 + 0.03, height - 0.1, scaled(body, 0.6))
        near.box(0.1, 0.55, width - 0.1, 0.75, (60, 62, 64))
        lights = (190, 30, 30)
    near.boxes((0.1, width - 0.5), 0.6, 0.4, 0.8, lights)


def bus(canvas, rng, x, z):
    """A city bus with a line of windows."""
    width, length, height = 2.5, rng.uniform(8.5, 12), rng.uniform(2.9, 3.2)
    paint = shade(rng, [(205, 45, 40), (240, 195, 50), (50, 120, 175), (70, 150, 90)], 12)
    drop_shadow(canvas, x, z + length / 2, width * 0.6, length * 0.55, 120)
    near, side = solid(canvas, BUS, x, z, width, length)
    side.box(0, 0.35, length, height, paint)
    side.box(0.2, 1.35, length - 0.2, 2.45, GLASS)
    for a in np.arange(1.4, length - 0.5, 1.4):
        side.box(a, 1.35, a + 0.14, 2.45, scaled(paint, 0.9))
    _wheels(side, (length * 0.2, length * 0.78), 0.48, 0.48, 0.22)
    near.boxes((0.12, width - 0.5), 0.0, 0.38, 0.5, RUBBER)
    near.box(0, 0.35, width, height, paint)
    near.box(0.15, 1.2, width - 0.15, 2.35, GLASS)
    near.box(0.4, 2.5, width - 0.4, 2.85, (25, 25, 25))
    near.box(0.6, 2.58, width * 0.6, 2.76, (250, 190, 60))
    for a in (0.12, width - 0.45):
        near.box(a, 0.6, a + 0.33, 0.85, pick(rng, [(245, 240, 215), (190, 30, 30)]))


# ---------------------------------------------------------------- never seen in training


def cow(canvas, rng, x, z, label):
    """A cow, patched."""
    drop_shadow(canvas, x, z, 1.0, 0.4)
    face = Face(canvas, label, x, z, mirror=bool(rng.integers(2)))
    hide = shade(rng, [(235, 230, 222), (120, 75, 48), (60, 48, 42), (190, 150, 110)], 10)
    patch = (50, 40, 36) if sum(hide) > 450 else (225, 215, 200)
    nod = rng.uniform(-0.45, 0.15)
    for a in (-0.62, -0.42, 0.42, 0.62):
        face.stroke([(a, 0.75), (a + rng.uniform(-0.1, 0.1), 0.05)], 0.16, scaled(hide, 0.85))
    face.disc(0, 1.0, 0.92, hide, tall=0.45)
    for _ in range(4):
        face.disc(rng.uniform(-0.6, 0.5), rng.uniform(0.85, 1.15), rng.uniform(0.12, 0.25), patch)
    face.stroke([(0.7, 1.15), (1.05, 1.35 + nod)], 0.34, hide)
    face.disc(1.2, 1.35 + nod, 0.27, hide, tall=0.7, tilt=-0.5)
    face.disc(1.38, 1.26 + nod, 0.12, (222, 170, 160))
    face.stroke([(1.05, 1.5 + nod), (0.98, 1.68 + nod)], 0.07, (225, 215, 190))
    face.stroke([(-0.9, 1.15), (-1.02, 0.5)], 0.06, patch)


def ostrich(canvas, rng, x, z, label):
    """A tall bird."""
    drop_shadow(canvas, x, z, 0.6, 0.3)
    face = Face(canvas, label, x, z, mirror=bool(rng.integers(2)))
    feathers = shade(rng, [(38, 34, 34), (120, 100, 85), (225, 140, 150), (235, 235, 235)], 8)
    skin = (225, 175, 150)
    for a in (-0.12, 0.12):
        bend = rng.uniform(-0.15, 0.15)
        face.stroke([(a, 1.0), (a + bend + 0.1, 0.55), (a + bend, 0.05)], 0.11, skin)
    face.disc(0, 1.25, 0.62, feathers, tall=0.6, tilt=0.2)
    face.disc(-0.5, 1.35, 0.28, scaled(feathers, 1.5), tall=0.7)
    lean = rng.uniform(0.1, 0.4)
    face.stroke([(0.4, 1.35), (0.55, 1.8), (0.45 + lean, 2.35)], 0.13, skin)
    face.disc(0.52 + lean, 2.38, 0.15, feathers, tall=0.8)
    face.polygon([(0.62 + lean, 2.42), (0.9 + lean, 2.33), (0.62 + lean, 2.3)], (240, 180, 60))


def dumpster(canvas, rng, x, z, label):
    """A skip on small wheels, lid open or closed."""
    width, length = rng.uniform(1.5, 2.2), 1.2
    paint = shade(rng, [(40, 120, 70), (35, 80, 150), (210, 120, 30), (110, 115, 118)], 14)
    drop_shadow(canvas, x, z + length / 2, width * 0.6, 0.8, 120)
    near, side = solid(canvas, label, x, z, width, length)
    side.polygon([(0, 0.25), (length, 0.25), (length, 1.2), (0, 1.2)], paint)
    near.polygon([(0.15, 0.2), (width - 0.15, 0.2), (width, 1.2), (0, 1.2)], paint)
    for a in (0.3, 0.5, 0.7):
        near.box(width * a - 0.04, 0.3, width * a + 0.04, 1.1, scaled(paint, 0.7))
    if rng.random() < 0.5:
        near.box(-0.05, 1.15, width + 0.05, 1.38, scaled(paint, 0.6))
    else:
        for _ in range(6):
            a = rng.uniform(0.2, width - 0.2)
            near.disc(a, 1.25, rng.uniform(0.15, 0.28), shade(rng, CLOTHES))
        near.box(0, 1.1, width, 1.22, scaled(paint, 0.8))
    for a in (0.3, width - 0.3):
        near.disc(a, 0.13, 0.13, RUBBER)


def tyres(canvas, rng, x, z, label):
    """A pile of tyres, and one leaning on it."""
    drop_shadow(canvas, x, z, 0.8, 0.4, 110)
    face = Face(canvas, label, x, z, mirror=bool(rng.integers(2)))
    tone = (34, 34, 36)
    for k in range(rng.integers(3, 7)):
        shift = rng.uniform(-0.08, 0.08)
        b = 0.14 + 0.26 * k
        face.disc(shift, b, 0.52, scaled(tone, 0.8 + 0.15 * (k % 2)), tall=0.32)
        face.disc(shift, b + 0.07, 0.46, scaled(tone, 1.5), tall=0.22)
        face.disc(shift, b + 0.08, 0.26, (12, 12, 12), tall=0.22)
    face.ring(0.72, 0.5, 0.5, 0.2, scaled(tone, 1.25))
    face.ring(0.72, 0.5, 0.31, 0.03, (190, 190, 190))


def sofa(canvas, rng, x, z, label):
    """An upholstered couch."""
    width = rng.uniform(1.6, 2.3)
    fabric = shade(rng, [(160, 50, 60), (70, 95, 130), (190, 165, 120), (85, 120, 85)], 14)
    drop_shadow(canvas, x, z, width * 0.6, 0.5, 120)
    face = Face(canvas, label, x - width / 2, z)
    face.boxes((0.1, width - 0.2), 0, 0.1, 0.16, (70, 48, 32))
    face.polygon([(0.1, 0.4), (width - 0.1, 0.4), (width - 0.16, 1.0), (0.16, 1.0)],
                 scaled(fabric, 0.8))
    seats = rng.integers(2, 4)
    for k in range(seats):
        a0, a1 = 0.2 + k * (width - 0.4) / seats, 0.2 + (k + 1) * (width - 0.4) / seats
        face.box(a0 + 0.03, 0.5, a1 - 0.03, 0.95, fabric)
        face.box(a0 + 0.02, 0.32, a1 - 0.02, 0.52, scaled(fabric, 1.2))
    face.box(0, 0.12, width, 0.34, scaled(fabric, 0.7))
    for a in (0, width - 0.24):
        face.box(a, 0.12, a + 0.24, 0.66, scaled(fabric, 0.95))
        face.disc(a + 0.12, 0.66, 0.13, scaled(fabric, 1.1))


def boxes(canvas, rng, x, z, label):
    """Cardboard boxes that fell off a van."""
    drop_shadow(canvas, x, z, 1.0, 0.5)
    spots = [(-0.55, 0.0), (0.3, 0.0), (-0.15, 1.0)][: rng.integers(2, 4)]
    base = vary(rng, (185, 145, 95), 14)
    height = rng.uniform(0.55, 0.8)
    for a, level in spots:
        size = rng.uniform(0.6, 0.85)
        near, side = solid(canvas, label, x + a, z, size, size, y=level * height)
        side.box(0, 0, size, height, base)
        near.box(0, 0, size, height, scaled(base, 1.08))
        near.box(size * 0.42, 0, size * 0.58, height, (215, 190, 150))
        near.box(0, height * 0.94, size, height, scaled(base, 0.75))
        near.box(size * 0.1, height * 0.15, size * 0.3, height * 0.35, (120, 60, 50))


def balloons(canvas, rng, x, z, label):
    """A bunch of balloons on strings."""
    face = Face(canvas, label, x, z)
    for _ in range(rng.integers(5, 9)):
        a, b = rng.normal(0, 0.38), rng.uniform(1.3, 2.4)
        face.stroke([(0, 0.1), (a * 0.5, b * 0.5), (a, b - 0.3)], 0.03, (225, 225, 225))
        vivid = pick(rng, [
            (235, 60, 70), (250, 205, 50), (60, 140, 235), (90, 200, 100), (235, 120, 200)
        ])
        face.disc(a, b, 0.3, vary(rng, vivid, 10), tall=1.2)
        face.disc(a - 0.09, b + 0.13, 0.07, (255, 255, 255), tall=1.3)
    face.disc(0, 0.1, 0.14, (180, 60, 60))


def boat(canvas, rng, x, z, label):
    """A sailing dinghy on the road."""
    drop_shadow(canvas, x, z, 1.5, 0.5, 120)
    face = Face(canvas, label, x, z, mirror=bool(rng.integers(2)))
    hull = shade(rng, [(235, 235, 235), (180, 40, 40), (30, 70, 130), (240, 200, 80)], 8)
    face.polygon([(-1.4, 0.85), (1.8, 0.95), (1.2, 0.15), (-1.1, 0.15)], hull)
    face.polygon([(-1.4, 0.85), (1.8, 0.95), (1.7, 0.8), (-1.36, 0.7)], (120, 78, 45))
    if rng.random() < 0.6:
        face.stroke([(0.1, 0.9), (0.1, 3.4)], 0.09, (150, 110, 70))
        sail = shade(rng, [(245, 243, 235), (230, 90, 60), (90, 160, 210)], 6)
        face.polygon([(0.2, 3.3), (0.2, 1.1), (1.5, 1.1)], sail)
        face.polygon([(0.0, 3.0), (0.0, 1.1), (-0.8, 1.1)], scaled(sail, 0.9))
    else:
        face.polygon([(-0.7, 0.87), (0.5, 0.9), (0.3, 1.5), (-0.6, 1.5)], scaled(hull, 0.8))
        face.box(-0.5, 1.05, 0.2, 1.38, GLASS)


def barrel(canvas, rng, x, z, label):
    """One to three oil drums."""
    drop_shadow(canvas, x, z, 0.7, 0.35, 110)
    paint = shade(rng, [(200, 60, 40), (45, 85, 150), (220, 180, 40), (70, 110, 80)], 12)
    for a in (-0.36, 0.36, 0.0)[: rng.integers(1, 4)]:
        face = Face(canvas, label, x + a, z - (0.2 if a == 0 else 0))
        face.box(-0.33, 0.08, 0.33, 1.05, paint)
        face.box(-0.33, 0.08, -0.2, 1.05, scaled(paint, 0.7))
        face.box(0.08, 0.08, 0.2, 1.05, scaled(paint, 1.25))
        face.disc(0, 0.08, 0.33, scaled(paint, 0.7), tall=0.25)
        for b in (0.38, 0.72):
            face.box(-0.35, b, 0.35, b + 0.06, scaled(paint, 0.75))
        face.disc(0, 1.05, 0.33, scaled(paint, 0.85), tall=0.25)
        face.disc(0, 1.05, 0.27, scaled(paint, 0.6), tall=0.22)


def tent(canvas, rng, x, z, label):
    """A ridge tent."""
    width, height = rng.uniform(2.0, 2.8), rng.uniform(1.3, 1.8)
    drop_shadow(canvas, x, z + 0.8, width * 0.6, 1.2, 90)
    cloth = shade(rng, [(235, 130, 40), (70, 140, 80), (60, 110, 180), (220, 200, 60)], 12)
    near, side = solid(canvas, label, x, z, width, 2.2)
    half = width / 2
    ridge_near, ridge_far = canvas.project(x, height, z), canvas.project(x, height, z + 2.2)
    corners = [side._pixel(0, 0), side._pixel(2.2, 0), ridge_far, ridge_near]
    canvas.fill(corners, scaled(cloth, side.light), z, label)
    near.polygon([(0, 0), (width, 0), (half, height)], cloth)
    near.polygon([(half * 0.72, 0), (half * 1.28, 0), (half, height * 0.75)], scaled(cloth, 0.35))
    near.stroke([(0, 0), (half, height), (width, 0)], 0.06, scaled(cloth, 1.3))


def beach_ball(canvas, rng, x, z, label):
    """A giant striped ball."""
    radius = rng.uniform(0.5, 0.95)
    drop_shadow(canvas, x, z, radius, 0.4, 120)
    face = Face(canvas, label, x, z)
    tilt = rng.uniform(0, math.pi)
    first = (240, 240, 240)
    second = shade(rng, [(170, 40, 45), (30, 110, 200), (250, 180, 40)])
    face.disc(0, radius, radius, first, corners=24)
    for k, share in enumerate((0.85, 0.55, 0.22)):
        face.disc(0, radius, radius * share, (second, first, second)[k], tall=1 / share, tilt=tilt,
                  corners=24)
    face.disc(-radius * 0.35, radius * 1.4, radius * 0.16, (255, 255, 255))


def bathtub(canvas, rng, x, z, label):
    """A free-standing bathtub with feet."""
    drop_shadow(canvas, x, z, 1.0, 0.4, 120)
    enamel = shade(rng, [(242, 242, 240), (225, 200, 205), (190, 215, 225), (90, 110, 120)], 6)
    face = Face(canvas, label, x, z, mirror=bool(rng.integers(2)))
    for a in (-0.6, 0.5):
        face.disc(a, 0.1, 0.13, (190, 160, 80))
    face.polygon([(-0.95, 0.8), (0.95, 0.75), (0.7, 0.2), (-0.62, 0.18)], enamel)
    face.stroke([(-1.0, 0.84), (0.98, 0.76)], 0.12, scaled(enamel, 0.85))
    face.stroke([(0.75, 0.78), (0.75, 1.15), (0.5, 1.12)], 0.07, (175, 178, 182))
    if rng.random() < 0.5:
        for _ in range(9):
            face.disc(rng.uniform(-0.7, 0.5), rng.uniform(0.85, 1.05), 0.13, (250, 250, 255))


UNSEEN = {
    "cow": (cow, (150, 75, 0)),
    "ostrich": (ostrich, (255, 105, 180)),
    "dumpster": (dumpster, (0, 160, 120)),
    "tyres": (tyres, (90, 90, 90)),
    "sofa": (sofa, (200, 0, 60)),
    "boxes": (boxes, (210, 180, 140)),
    "balloons": (balloons, (255, 0, 255)),
    "boat": (boat, (0, 200, 255)),
    "barrel": (barrel, (255, 140, 0)),
    "tent": (tent, (154, 205, 50)),
    "beach ball": (beach_ball, (255, 255, 0)),
    "bathtub": (bathtub, (180, 220, 255)),
}
