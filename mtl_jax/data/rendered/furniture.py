"""Rooms and furniture made of shapes, and the workshop that collects the shapes of a scene."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtl_jax.data.rendered.raycast import Shape, yaw
from mtl_jax.data.rendered.textures import Color, Material, paint, shade

Rng = np.random.Generator


class Workshop:
    """Collects the shapes of a scene; shapes of one object share a label, an instance number, a position and an angle.

    Args:
        rng: Random number generator of the scene.
        classes: {name of an object: class id}.
    """

    def __init__(self, rng: Rng, classes: Mapping[str, int]):
        self.rng, self.classes = rng, classes
        self.shapes: list[Shape] = []
        self.instances = 0

    def start(self, name: str, x: float = 0, y: float = 0, z: float = 0, angle: float = 0) -> None:
        """Begins an object at (x, y, z) in metres, turned by `angle` in radians about z; its front is its -y side."""
        self.label, self.origin, self.turn = self.classes[name], np.array([x, y, z], np.float32), yaw(angle)
        self.instances += 1

    def add(self, kind: str, center, half, material: Material, rotation=None, part: int = 0, shadow=True) -> None:
        """Adds a shape, given in the frame of the current object, in metres."""
        own = np.eye(3, dtype=np.float32) if rotation is None else rotation
        center = self.turn @ np.asarray(center, np.float32) + self.origin
        half = np.asarray(half, np.float32)
        args = (material, self.label, self.instances, part, self.turn @ own, shadow)
        self.shapes.append(Shape(kind, center, half, *args))

    def look(self, base: Color, accent: Color = (0, 0, 0), pattern="plain", scale=0.2, gloss=0.0, glow=0.0) -> Material:
        """Returns a material with a random seed."""
        return Material(base, accent, pattern, scale, int(self.rng.integers(2**31)), gloss, glow)

    def hue(self, hue, saturation, value) -> Color:
        """Draws a random colour, see `textures.paint`."""
        return paint(self.rng, hue, saturation, value)

    def legs(self, wide: float, deep: float, height: float, thick: float, material: Material) -> None:
        """Adds four legs under a top with the half extents `wide` and `deep`."""
        for sx in (-1, 1):
            for sy in (-1, 1):
                center = (sx * (wide - thick), sy * (deep - thick), height / 2)
                self.add("box", center, (thick, thick, height / 2), material)


def shell(w: Workshop, width: float, length: float, height: float) -> None:
    """Adds a floor, a ceiling and four walls around x in +-width / 2, y in 0..length, z in 0..height."""
    rng, t = w.rng, 0.1
    x, y = width / 2 + t, length / 2 + t
    if rng.random() < 0.65:
        light, dark = w.hue((0.05, 0.09), (0.45, 0.65), (0.5, 0.7)), w.hue((0.03, 0.07), (0.5, 0.7), (0.25, 0.4))
        floor = w.look(light, dark, "wood", 0.14)
    else:
        grey = rng.uniform(0.45, 0.7)
        pattern = rng.choice(["tiles", "checks"])
        floor = w.look((grey, grey, grey * 0.95), (grey * 0.7,) * 3, pattern, rng.uniform(0.3, 0.5))
    w.start("floor")
    w.add("box", (0, length / 2, -t), (x, y, t), floor, shadow=False)
    w.start("ceiling")
    white = w.look(w.hue((0.1, 0.16), (0, 0.06), (0.9, 0.99)))
    w.add("box", (0, length / 2, height + t), (x, y, t), white, shadow=False)
    base = w.hue((0, 1), (0.06, 0.25), (0.68, 0.9))
    pattern = "stripes" if rng.random() < 0.25 else "plain"
    wall = w.look(base, shade(base, 0.92), pattern, rng.uniform(0.08, 0.2))
    skirting = w.look((0.88, 0.87, 0.84))
    w.start("wall")
    for sign in (-1, 1):
        w.add("box", (sign * x, length / 2, height / 2), (t, y, height / 2), wall, shadow=False)
        w.add("box", (0, length / 2 + sign * y, height / 2), (x, t, height / 2), wall, shadow=False)
        w.add("box", (sign * width / 2, length / 2, 0.04), (0.015, length / 2, 0.04), skirting, shadow=False)
    w.add("box", (0, length, 0.04), (width / 2, 0.015, 0.04), skirting, shadow=False)


def pillow(w: Workshop, x: float, y: float, z: float, angle: float) -> None:
    w.start("pillow", x, y, z, angle)
    look = w.look(w.hue((0.12, 0.18), (0.02, 0.15), (0.9, 0.98)), pattern="cloth", accent=(0.8, 0.78, 0.7))
    w.add("ball", (0, 0, 0), (w.rng.uniform(0.24, 0.32), w.rng.uniform(0.16, 0.2), w.rng.uniform(0.07, 0.11)), look)


def bed(w: Workshop, x: float, y: float, angle: float, half) -> None:
    wide, deep = half
    cover = w.hue((0.58, 0.76), (0.45, 0.7), (0.45, 0.8))
    frame = w.look(w.hue((0.04, 0.07), (0.5, 0.7), (0.25, 0.4)))
    second = w.hue((0.58, 0.76), (0.2, 0.4), (0.7, 0.9))
    blanket = w.look(cover, second, w.rng.choice(["cloth", "stripes", "checks"]), 0.18)
    w.start("bed", x, y, 0, angle)
    top = w.rng.uniform(0.45, 0.6)
    w.add("box", (0, 0, 0.15), (wide, deep, 0.1), frame)
    w.add("box", (0, 0, (0.25 + top) / 2), (wide - 0.02, deep - 0.02, (top - 0.25) / 2), w.look((0.86, 0.87, 0.9)))
    w.add("box", (0, -0.25 * deep, (0.3 + top) / 2), (wide, 0.76 * deep, (top - 0.25) / 2), blanket)
    w.add("box", (0, deep - 0.03, 0.5), (wide, 0.03, w.rng.uniform(0.45, 0.55)), frame)
    spots = (-0.5, 0.5) if wide > 0.6 else (0.0,)
    for s in spots:
        px, py, _ = yaw(angle) @ np.array([s * wide, deep - 0.3, 0], np.float32)
        pillow(w, x + px, y + py, top + 0.08, angle)


def sofa(w: Workshop, x: float, y: float, angle: float, half) -> None:
    wide, deep = half
    base = w.hue((0.27, 0.47), (0.4, 0.7), (0.3, 0.6))
    cloth = w.look(base, shade(base, 0.7), "cloth")
    w.start("sofa", x, y, 0, angle)
    w.add("box", (0, 0, 0.2), (wide, deep, 0.15), cloth)
    seats = 2 if wide < 0.85 else 3
    step = 2 * (wide - 0.15) / seats
    for i in range(seats):
        center = -wide + 0.15 + (i + 0.5) * step
        w.add("box", (center, -0.06, 0.4), (step / 2 - 0.012, deep - 0.1, 0.07), cloth)
    w.add("box", (0, deep - 0.1, 0.58), (wide, 0.1, w.rng.uniform(0.26, 0.32)), cloth)
    for s in (-1, 1):
        w.add("box", (s * (wide - 0.08), 0, 0.36), (0.08, deep, 0.25), cloth)
    if w.rng.random() < 0.6:
        px, py, _ = yaw(angle) @ np.array([w.rng.uniform(-0.5, 0.5) * wide, 0.1, 0], np.float32)
        pillow(w, x + px, y + py, 0.56, angle)


def chair(w: Workshop, x: float, y: float, angle: float, half=(0.22, 0.22)) -> None:
    wide, deep = half
    frame = w.look(w.hue((0.97, 1.04), (0.6, 0.85), (0.4, 0.7)), gloss=0.1)
    seat = w.rng.uniform(0.42, 0.48)
    w.start("chair", x, y, 0, angle)
    w.legs(wide, deep, seat, 0.025, frame)
    w.add("box", (0, 0, seat), (wide, deep, 0.03), frame)
    for s in (-1, 1):
        w.add("box", (s * (wide - 0.025), deep - 0.025, seat + 0.22), (0.025, 0.02, 0.25), frame)
    w.add("box", (0, deep - 0.025, seat + 0.36), (wide, 0.015, 0.12), frame)


def table(w: Workshop, x: float, y: float, angle: float, half) -> None:
    wide, deep = half
    base = w.hue((0.08, 0.12), (0.45, 0.65), (0.75, 0.95))
    wood = w.look(base, shade(base, 0.75), "wood", 0.12, gloss=0.15)
    top = w.rng.uniform(0.68, 0.78) if wide > 0.5 else w.rng.uniform(0.4, 0.5)
    w.start("table", x, y, 0, angle)
    if w.rng.random() < 0.25:
        w.add("cylinder", (0, 0, top), (wide, deep, 0.025), wood)
        w.add("cylinder", (0, 0, top / 2), (0.06, 0.06, top / 2), wood)
        w.add("cylinder", (0, 0, 0.02), (0.5 * wide, 0.5 * deep, 0.02), wood)
    else:
        w.legs(wide, deep, top, 0.035, wood)
        w.add("box", (0, 0, top), (wide, deep, 0.025), wood)
    if w.rng.random() < 0.5:
        carton(w, x + w.rng.uniform(-0.4, 0.4) * wide, y, angle + w.rng.uniform(-0.5, 0.5), top + 0.025, 0.6)
    if top > 0.6:  # chairs at the long sides, which face the table
        for s in (-1, 1):
            if w.rng.random() < 0.7:
                px, py, _ = yaw(angle) @ np.array([w.rng.uniform(-0.4, 0.4) * wide, s * (deep + 0.12), 0], np.float32)
                turn = angle + (0 if s > 0 else np.pi) + w.rng.uniform(-0.25, 0.25)
                chair(w, x + px, y + py, turn)


def cabinet(w: Workshop, x: float, y: float, angle: float, half, tall: float | None = None) -> float:
    wide, deep = half
    tall = tall or float(w.rng.choice([w.rng.uniform(0.6, 1.0), w.rng.uniform(1.5, 2.0)]))
    base = w.hue((0.02, 0.06), (0.55, 0.75), (0.25, 0.42))
    w.start("cabinet", x, y, 0, angle)
    front = w.look(base, (0.8, 0.75, 0.5), "drawers", w.rng.uniform(0.25, 0.45))
    w.add("box", (0, 0, tall / 2), (wide, deep, tall / 2), front)
    w.add("box", (0, -0.01, tall), (wide + 0.015, deep + 0.015, 0.015), w.look(base))
    return tall


def television(w: Workshop, x: float, y: float, angle: float, half) -> None:
    tall = cabinet(w, x, y, angle, half, w.rng.uniform(0.45, 0.6))
    wide = half[0] * w.rng.uniform(0.75, 0.95)
    w.start("television", x, y, tall + 0.03, angle)
    on = w.rng.random() < 0.3
    accent = w.hue((0.5, 0.65), (0.5, 0.9), (0.5, 0.9)) if on else (0.2, 0.22, 0.26)
    screen = w.look((0.03, 0.03, 0.05), accent, "screen", gloss=0.3, glow=0.8 if on else 0)
    w.add("box", (0, 0, 0.04 + 0.3 * wide + 0.25 * wide), (wide, 0.03, 0.55 * wide), screen)
    w.add("box", (0, 0, 0.02), (0.35 * wide, 0.1, 0.02), w.look((0.05, 0.05, 0.05)))
    w.add("box", (0, 0.02, 0.1), (0.05, 0.02, 0.1), w.look((0.05, 0.05, 0.05)))


def lamp(w: Workshop, x: float, y: float, angle: float, half=(0.2, 0.2)) -> None:
    tall = w.rng.uniform(1.3, 1.7)
    metal = w.look((0.25, 0.25, 0.28), gloss=0.4)
    glowing = w.look(w.hue((0.12, 0.16), (0.4, 0.7), (0.95, 1)), glow=0.75)
    w.start("lamp", x, y, 0, angle)
    w.add("cylinder", (0, 0, 0.02), (0.15, 0.15, 0.02), metal)
    w.add("cylinder", (0, 0, tall / 2), (0.02, 0.02, tall / 2), metal)
    r = w.rng.uniform(0.17, 0.23)
    kind, half_height = ("ball", r) if w.rng.random() < 0.4 else ("cylinder", 0.16)
    w.add(kind, (0, 0, tall), (r, r, half_height), glowing)


def carton(w: Workshop, x: float, y: float, angle: float, z: float = 0, size: float = 1.0) -> None:
    a, b, c = size * w.rng.uniform(0.16, 0.3, 3)
    look = w.look(w.hue((0.075, 0.095), (0.42, 0.52), (0.6, 0.75)), (0.85, 0.78, 0.6), "carton")
    w.start("box", x, y, z, angle)
    w.add("box", (0, 0, c), (a, b, c), look)


def clutter(w: Workshop, x: float, y: float, angle: float, half=(0.2, 0.2)) -> None:
    """Adds an object without a label: a ball, a bin or a plant."""
    w.start("void", x, y, 0, angle)
    r = w.rng.uniform(0.1, 0.2)
    match w.rng.integers(3):
        case 0:
            w.add("ball", (0, 0, r), (r, r, r), w.look(w.hue((0, 1), (0.6, 0.9), (0.6, 0.9)), (1, 1, 1), "stripes", r))
        case 1:
            ribbed = w.look((0.55, 0.57, 0.6), (0.4, 0.4, 0.45), "stripes", 0.04)
            w.add("cylinder", (0, 0, 1.4 * r), (r, r, 1.4 * r), ribbed)
        case _:
            w.add("cylinder", (0, 0, 0.18), (0.15, 0.15, 0.18), w.look((0.75, 0.7, 0.65)))
            for _ in range(7):
                c = w.rng.uniform((-0.2, -0.2, 0.45), (0.2, 0.2, 1.0))
                leaf = w.look((0.2, 0.45, 0.15), (0.1, 0.3, 0.08), "spots", 0.1)
                w.add("ball", c, w.rng.uniform(0.1, 0.18, 3), leaf)


def hang(w: Workshop, walls: list[tuple[float, float, float, float]], height: float, low: list) -> None:
    """Adds doors, windows and pictures to the walls.

    Args:
        w: Workshop of the scene.
        walls: (x, y, angle, length) of each wall, at its middle and seen from inside.
        height: Height of the room in metres.
        low: Footprints (x, y, half width, half depth) of objects on the floor, which doors keep clear; those of the
            new doors are appended.
    """
    rng = w.rng
    for x, y, angle, length in walls:
        taken: list[tuple[float, float]] = []
        for _ in range(int(rng.integers(2, 5))):
            name = rng.choice(["door", "window", "picture"], p=[0.25, 0.35, 0.4])
            wide = {"door": 0.45, "window": rng.uniform(0.4, 0.9), "picture": rng.uniform(0.2, 0.5)}[name]
            if wide + 0.1 > length / 2:
                continue
            s = rng.uniform(-length / 2 + wide + 0.1, length / 2 - wide - 0.1)
            if any(abs(s - t) < wide + other + 0.1 for t, other in taken):
                continue
            px, py, _ = yaw(angle) @ np.array([s, 0, 0], np.float32)
            if name == "door" and any(abs(x + px - a) < c + 0.4 and abs(y + py - b) < d + 0.4 for a, b, c, d in low):
                continue
            taken.append((s, wide))
            w.start(str(name), x + px, y + py, 0, angle)
            if name == "door":
                look = w.look(w.hue((0.11, 0.14), (0.5, 0.7), (0.55, 0.75)), (0.85, 0.8, 0.5), "panels")
                w.add("box", (0, 0, 1.02), (wide, 0.03, 1.02), look)
                low.append((x + px, y + py, 0.5, 0.5))
            elif name == "window":
                sky = w.hue((0.52, 0.6), (0.15, 0.4), (0.93, 1.0))
                look = w.look(sky, w.hue((0.25, 0.35), (0.4, 0.6), (0.4, 0.6)), "window", glow=0.85)
                w.add("box", (0, 0, rng.uniform(1.5, 1.65)), (wide, 0.03, rng.uniform(0.45, 0.65)), look)
            else:
                look = w.look(w.hue((0, 1), (0.6, 0.9), (0.5, 0.9)), w.hue((0, 1), (0.6, 0.9), (0.4, 0.9)), "painting")
                w.add("box", (0, 0, rng.uniform(1.45, 1.75)), (wide, 0.02, rng.uniform(0.2, 0.4)), look)
