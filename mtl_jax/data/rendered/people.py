"""Pictures of people, animals, vehicles and furniture with PASCAL's labels: 14 of its 20 classes, and body parts."""

from __future__ import annotations

import cv2
import numpy as np

from mtl_jax.data.rendered import furniture
from mtl_jax.data.rendered.furniture import Rng, Workshop
from mtl_jax.data.rendered.raycast import VOID, Camera, Scene, along, gather, photograph, render
from mtl_jax.data.rendered.rooms import label_maps
from mtl_jax.data.rendered.textures import Material, shade

CLASSES = {  # VOC's ids; `furniture` uses the same names
    "background": 0,
    "boat": 4,
    "bottle": 5,
    "bus": 6,
    "car": 7,
    "chair": 9,
    "cow": 10,
    "table": 11,
    "dog": 12,
    "horse": 13,
    "person": 15,
    "plant": 16,
    "sheep": 17,
    "sofa": 18,
    "television": 20,
    **dict.fromkeys(("floor", "ceiling", "wall", "cabinet", "lamp", "box", "window", "picture", "door", "pillow"), 0),
    "void": VOID,
}
PARTS = {"background": 0, "head": 1, "torso": 2, "upper arm": 3, "lower arm": 4, "upper leg": 5, "lower leg": 6}


def _limb(w: Workshop, start, direction, length: float, radius: float, look: Material, part: str) -> np.ndarray:
    """Adds a rounded cylinder from `start` along the unit vector `direction`, and returns its end."""
    start, direction = np.asarray(start, np.float32), np.asarray(direction, np.float32)
    end = start + length * direction
    turn = along(direction)
    w.add("cylinder", (start + end) / 2, (radius, radius, length / 2), look, turn, PARTS[part])
    w.add("ball", start, (radius * 1.05,) * 3, look, None, PARTS[part])
    return end


def _swing(forward: float, outward: float) -> np.ndarray:
    """Returns the direction of a hanging limb that is lifted forward (-y) and outward (+x) by two angles in radians."""
    return np.array(
        [np.sin(outward), -np.sin(forward) * np.cos(outward), -np.cos(forward) * np.cos(outward)], np.float32
    )


def person(w: Workshop, x: float, y: float, angle: float, pose: str | None = None) -> None:
    """Adds a dressed person.

    Args:
        w: Workshop of the scene.
        x: Position of the person in metres.
        y: Position of the person in metres.
        angle: Angle of the person about z, in radians.
        pose: "stand", "walk", "cheer", "point" or "sit" (on a seat 0.45 m high); None draws one of the first four.
    """
    rng = w.rng
    pose = pose or str(rng.choice(["stand", "walk", "cheer", "point"]))
    s = rng.uniform(1.5, 1.9)  # height in metres
    skin = w.look(w.hue((0.04, 0.08), (0.3, 0.6), (0.45, 0.95)))
    pattern = rng.choice(["plain", "stripes", "plain"])
    shirt = w.look(w.hue((0, 1), (0.5, 0.9), (0.4, 0.9)), (0.9, 0.9, 0.9), pattern, 0.09)
    cloth = w.look(w.hue((0.57, 0.68), (0.2, 0.6), (0.12, 0.45)))
    sleeve = shirt if rng.random() < 0.4 else skin
    calf = cloth if rng.random() < 0.7 else skin
    hair = w.look(w.hue((0.02, 0.12), (0.3, 0.7), (0.05, 0.5)))
    shoe = w.look((0.1, 0.08, 0.08))
    w.start("person", x, y, 0, angle)
    hip = 0.45 + 0.06 * s if pose == "sit" else 0.52 * s
    shoulder = hip + 0.29 * s
    lean = rng.uniform(-0.04, 0.06) * s
    for side in (-1, 1):
        mirror = np.array([side, 1, 1], np.float32)
        if pose == "sit":
            thigh, shin = _swing(rng.uniform(1.35, 1.55), rng.uniform(0.05, 0.2)), _swing(rng.uniform(-0.2, 0.2), 0)
        elif pose == "walk":
            step = side * rng.uniform(0.3, 0.55)
            thigh, shin = _swing(step, 0.04), _swing(step - rng.uniform(0.1, 0.6), 0.02)
        else:
            spread = rng.uniform(0.03, 0.18)
            thigh, shin = _swing(rng.uniform(-0.05, 0.15), spread), _swing(-0.05, spread * 0.7)
        knee = _limb(w, mirror * (0.05 * s, 0, hip), mirror * thigh, 0.24 * s, 0.052 * s, cloth, "upper leg")
        foot = _limb(w, knee, mirror * shin, 0.24 * s, 0.037 * s, calf, "lower leg")
        toe = foot + np.array([0, -0.03, -0.005]) * s
        w.add("ball", toe, (0.03 * s, 0.07 * s, 0.025 * s), shoe, None, PARTS["lower leg"])
        if pose == "cheer":
            upper = _swing(rng.uniform(2.0, 3.0), rng.uniform(0.2, 0.5))
            lower = _swing(rng.uniform(2.6, 3.1), rng.uniform(-0.1, 0.3))
        elif pose == "point" and side > 0:
            upper = _swing(rng.uniform(0.2, 1.2), rng.uniform(0.8, 1.5))
            lower = _swing(rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5))
        else:
            back = -side * 0.5 if pose == "walk" else rng.uniform(-0.2, 0.3)
            upper = _swing(back, rng.uniform(0.1, 0.45))
            lower = _swing(back + rng.uniform(0.1, 1.3), rng.uniform(-0.3, 0.2))
        joint = mirror * (0.125 * s, -lean, shoulder)
        elbow = _limb(w, joint, mirror * upper, 0.165 * s, 0.032 * s, shirt, "upper arm")
        hand = _limb(w, elbow, mirror * lower, 0.15 * s, 0.026 * s, sleeve, "lower arm")
        w.add("ball", hand, (0.033 * s,) * 3, skin, None, PARTS["lower arm"])
    spine = np.array([0, -lean, shoulder - hip], np.float32)
    torso, center = along(spine), np.array([0, -lean / 2, (hip + shoulder) / 2], np.float32)
    half = np.array([0.105 * s, 0.066 * s, 0.15 * s], np.float32)
    # The third axis is the spine. Whether the first or the second axis is the width depends on `along`.
    half[:2] = half[:2] if abs(torso[0, 0]) > 0.5 else half[1::-1]
    w.add("cylinder", center, half, shirt, torso, PARTS["torso"])
    w.add("ball", (0, -lean, shoulder - 0.01 * s), (0.128 * s, 0.07 * s, 0.05 * s), shirt, None, PARTS["torso"])
    w.add("cylinder", (0, -lean, shoulder + 0.04 * s), (0.032 * s, 0.032 * s, 0.03 * s), skin, None, PARTS["torso"])
    head = np.array([0, -lean - 0.005 * s, shoulder + 0.12 * s], np.float32)
    w.add("ball", head, (0.05 * s, 0.06 * s, 0.072 * s), skin, None, PARTS["head"])
    crown = head + np.array([0, 0.012, 0.016]) * s
    w.add("ball", crown, (0.056 * s, 0.06 * s, 0.066 * s), hair, None, PARTS["head"])
    for side in (-1, 1):
        eye = head + np.array([side * 0.02, -0.055, 0.008]) * s
        w.add("ball", eye, (0.008 * s,) * 3, shoe, None, PARTS["head"])


def animal(w: Workshop, name: str, x: float, y: float, angle: float) -> None:
    """Adds a quadruped, whose head is on its -x side."""
    size, hide = {
        "cow": (1.0, w.look((0.92, 0.9, 0.86), (0.1, 0.08, 0.08), "spots", 0.5)),
        "horse": (1.1, w.look(w.hue((0.03, 0.06), (0.6, 0.8), (0.3, 0.5)))),
        "sheep": (0.65, w.look((0.93, 0.91, 0.85), (0.75, 0.73, 0.68), "spots", 0.07)),
        "dog": (0.65, w.look(w.hue((0.08, 0.11), (0.45, 0.7), (0.6, 0.85)))),
    }[name]
    size *= w.rng.uniform(0.85, 1.15)
    dark = w.look((0.12, 0.1, 0.1)) if name == "sheep" else hide
    leg = {"horse": 0.8, "sheep": 0.5}.get(name, 0.62) * size
    fat = {"horse": 0.27, "dog": 0.22, "sheep": 0.36}.get(name, 0.34) * size
    w.start(name, x, y, 0, angle)
    w.add("ball", (0, 0, leg + 0.6 * fat), (0.75 * size, fat, fat), hide)
    for sx in (-1, 1):
        for sy in (-1, 1):
            top = (sx * 0.48 * size, sy * 0.5 * fat, leg + 0.2 * fat)
            foot = np.array([sx * 0.48 * size + w.rng.uniform(-0.12, 0.12) * size, sy * 0.5 * fat, 0]) - top
            _limb(w, top, foot / np.linalg.norm(foot), float(np.linalg.norm(foot)), 0.065 * size, dark, "background")
    rise = {"horse": 0.65, "sheep": 0.2}.get(name, 0.3) * size * w.rng.uniform(0.5, 1.1)
    neck = np.array([-0.35 * size, 0, rise], np.float32)
    reach = float(np.linalg.norm(neck))
    end = _limb(w, (-0.55 * size, 0, leg + 0.7 * fat), neck / reach, reach, 0.14 * size, hide, "background")
    w.add("ball", end - (0.12 * size, 0, 0.04 * size), (0.24 * size, 0.12 * size, 0.13 * size), dark)
    for sy in (-1, 1):
        ear = end + np.array([0.02, sy * 0.1, 0.12]) * size
        w.add("ball", ear, (0.04 * size, 0.03 * size, 0.09 * size), dark)
    _limb(w, (0.7 * size, 0, leg + 0.8 * fat), (0.5, 0, -0.866), 0.4 * size, 0.03 * size, dark, "background")


def vehicle(w: Workshop, name: str, x: float, y: float, angle: float) -> None:
    """Adds a car or a bus, whose length is along x."""
    glass = (0.25, 0.33, 0.4)
    if name == "bus":
        paint, length, wide, low, tall = w.hue((0.0, 0.16), (0.75, 0.95), (0.75, 0.95)), 3.6, 1.2, 0.35, 2.9
    else:
        paint, length, wide, low, tall = w.hue((0, 1), (0.5, 0.95), (0.35, 0.9)), 2.0, 0.85, 0.25, 0.85
    w.start(name, x, y, 0, angle)
    body = w.look(paint, glass, "glass_band" if name == "bus" else "plain", 1.1, gloss=0.35)
    w.add("box", (0, 0, (low + tall) / 2), (length, wide, (tall - low) / 2), body)
    if name == "car":
        cabin = w.look(paint, glass, "glass_band", 0.9, gloss=0.35)
        w.add("box", (0.15, 0, tall + 0.27), (1.05, wide - 0.08, 0.28), cabin)
    tyre, hub = w.look((0.06, 0.06, 0.07)), w.look((0.7, 0.7, 0.72), gloss=0.5)
    light = w.look((1, 0.95, 0.75), glow=0.6)
    radius = 0.33 if name == "car" else 0.48
    for sx in (-1, 1):
        for sy in (-1, 1):
            axle, spin = np.array([sx * 0.62 * length, sy * (wide - 0.08), radius]), along((0, 1, 0))
            w.add("cylinder", axle, (radius, radius, 0.12), tyre, spin)
            w.add("cylinder", axle, (0.5 * radius, 0.5 * radius, 0.13), hub, spin)
            w.add("ball", (sx * length, sy * 0.65 * wide, low + 0.35 * (tall - low) * 0.9), (0.05, 0.13, 0.1), light)


def boat(w: Workshop, x: float, y: float, angle: float) -> None:
    white, trim = w.look((0.93, 0.93, 0.95), gloss=0.2), w.look(w.hue((0, 1), (0.6, 0.9), (0.4, 0.8)))
    w.start("boat", x, y, 0, angle)
    w.add("ball", (0, 0, 0.25), (2.6, 0.9, 0.75), trim)
    w.add("cylinder", (0, 0, 0.8), (2.3, 0.8, 0.12), white)
    if w.rng.random() < 0.5:
        w.add("box", (0.4, 0, 1.2), (0.8, 0.5, 0.4), w.look((0.93, 0.93, 0.95), (0.25, 0.35, 0.45), "glass_band", 0.5))
    else:
        w.add("cylinder", (0, 0, 2.6), (0.05, 0.05, 1.9), trim)
        w.add("box", (0.8, 0, 2.6), (0.75, 0.02, 1.4), white)


def bottle(w: Workshop, x: float, y: float, z: float, size: float) -> None:
    glass = w.look(w.hue((0.08, 0.4), (0.6, 0.9), (0.25, 0.6)), gloss=0.8)
    w.start("bottle", x, y, z)
    r = 0.16 * size
    w.add("cylinder", (0, 0, 0.3 * size), (r, r, 0.3 * size), glass)
    w.add("ball", (0, 0, 0.6 * size), (r, r, 0.16 * size), glass)
    w.add("cylinder", (0, 0, 0.8 * size), (0.35 * r, 0.35 * r, 0.2 * size), glass)
    w.add("cylinder", (0, 0, 0.98 * size), (0.45 * r, 0.45 * r, 0.05 * size), w.look((0.8, 0.15, 0.1)))
    w.add("cylinder", (0, 0, 0.3 * size), (1.03 * r, 1.03 * r, 0.14 * size), w.look((0.92, 0.9, 0.82)))


def plant(w: Workshop, x: float, y: float, z: float, size: float) -> None:
    w.start("plant", x, y, z)
    w.add("cylinder", (0, 0, 0.2 * size), (0.2 * size, 0.2 * size, 0.2 * size), w.look((0.72, 0.36, 0.22)))
    w.add("cylinder", (0, 0, 0.38 * size), (0.23 * size, 0.23 * size, 0.04 * size), w.look((0.66, 0.32, 0.2)))
    for _ in range(12):
        tip = w.rng.uniform((-0.35, -0.35, 0.55), (0.35, 0.35, 1.15)).astype(np.float32) * np.float32(size)
        leaf = w.look(w.hue((0.27, 0.38), (0.55, 0.8), (0.3, 0.6)))
        root = np.array([0, 0, 0.4 * size], np.float32)
        w.add("ball", (tip + root) / 2, (0.07 * size, 0.03 * size, 0.25 * size), leaf, along(tip - root))


def _tree(w: Workshop, x: float, y: float, size: float) -> None:
    w.start("background", x, y)
    w.add("cylinder", (0, 0, size), (0.12 * size, 0.12 * size, size), w.look((0.35, 0.25, 0.17)))
    leaf = w.look((0.18, 0.38, 0.14), (0.3, 0.5, 0.2), "grass", 0.6)
    for _ in range(4):
        w.add("ball", w.rng.uniform((-0.5, -0.4, 1.7), (0.5, 0.4, 2.6)) * size, w.rng.uniform(0.5, 0.9, 3) * size, leaf)


def _outdoors(w: Workshop, theme: str) -> None:
    """Adds the ground up to the horizon, and houses, hills or trees in the distance."""
    rng = w.rng
    light, dark = w.hue((0.2, 0.3), (0.5, 0.7), (0.5, 0.7)), w.hue((0.22, 0.3), (0.5, 0.7), (0.3, 0.45))
    ground = {
        "street": w.look((0.5, 0.5, 0.52), (0.38, 0.38, 0.4), "tiles", 0.9),
        "meadow": w.look(light, dark, "grass", 1.5),
        "water": w.look((0.16, 0.36, 0.5), (0.3, 0.52, 0.65), "grass", 0.7, gloss=0.2),
    }[theme]
    w.start("background")
    w.add("box", (0, 60, -0.5), (120, 100, 0.5), ground, shadow=False)
    far = rng.uniform(14, 26)
    if theme == "street":
        x = rng.uniform(-22, -16)
        while x < 18:
            wide, tall = rng.uniform(2.5, 5), rng.uniform(2.5, 6)
            w.start("background", x + wide, far)
            wall = w.hue((0.0, 0.12), (0.15, 0.5), (0.5, 0.85))
            look = w.look(wall, shade(wall, 0.75), "bricks", 0.4)
            w.add("box", (0, 2, tall), (wide, 2, tall), look, shadow=False)
            glass = w.look((0.45, 0.55, 0.65), (0.3, 0.4, 0.4), "window", glow=0.3)
            for i in range(2):
                for j in range(3):
                    w.add("box", ((j - 1) * 0.62 * wide, 0, 1.6 + 3 * i), (0.5, 0.05, 0.8), glass, shadow=False)
            x += 2 * wide + 0.3
    else:
        for _ in range(int(rng.integers(1, 4))):
            w.start("background")
            center, half = (rng.uniform(-50, 50), far + 60, -4), rng.uniform((20, 15, 8), (50, 20, 16))
            w.add("ball", center, half, w.look((0.35, 0.45, 0.4), (0.28, 0.38, 0.33), "grass", 6), shadow=False)
        if theme == "meadow":
            for _ in range(int(rng.integers(1, 6))):
                _tree(w, rng.uniform(-12, 12), rng.uniform(10, far), rng.uniform(1, 2.2))


def _indoors(w: Workshop, spots: list[float]) -> None:
    """Adds a room 7 m wide around the camera, with furniture at the x positions `spots`."""
    rng = w.rng
    furniture.shell(w, 7.0, 7.5, 2.9)
    furniture.hang(w, [(0.0, 7.5, 0.0, 7.0)], 2.9, [])
    for x in spots:
        y = rng.uniform(3.8, 5.4)
        match rng.choice(["sofa", "table", "tv", "chair", "plant", "sit"], p=[0.2, 0.2, 0.2, 0.1, 0.1, 0.2]):
            case "sofa":
                furniture.sofa(w, x, y, rng.uniform(-0.4, 0.4), (rng.uniform(0.75, 0.95), 0.45))
            case "table":
                furniture.table(w, x, y, rng.uniform(-0.3, 0.3), (rng.uniform(0.55, 0.85), 0.42))
            case "tv":
                furniture.television(w, x, y, rng.uniform(-0.3, 0.3), (0.75, 0.25))
            case "chair":
                furniture.chair(w, x, y, rng.uniform(-0.7, 0.7))
            case "plant":
                plant(w, x, y, 0, rng.uniform(0.9, 1.4))
            case _:
                angle = rng.uniform(-0.7, 0.7)
                furniture.chair(w, x, y - 0.6, angle)
                person(w, x, y - 0.6, angle, "sit")


def compose(rng: Rng) -> Scene:
    """Draws a random scene: a street, a meadow, a shore, a room or a table top."""
    w = Workshop(rng, CLASSES)
    theme = str(rng.choice(["street", "meadow", "water", "room", "still"], p=[0.25, 0.22, 0.1, 0.3, 0.13]))
    crowd = int(rng.choice([0, 1, 2, 3], p=[0.25, 0.4, 0.25, 0.1]))
    spots = list(rng.permutation(np.linspace(-1.5, 1.5, 4)) + rng.uniform(-0.3, 0.3, 4))
    eye, aim = np.array([rng.uniform(-0.5, 0.5), 0.2, rng.uniform(1.0, 1.6)]), np.array([0, 4.5, rng.uniform(0.7, 1.0)])
    people = (2.3, 4.2)
    if theme == "still":
        furniture.shell(w, 5.0, 4.0, 2.8)
        furniture.table(w, 0, 2.2, 0, (1.1, 0.5))
        for x in rng.permutation(np.linspace(-0.6, 0.6, 5))[: rng.integers(2, 5)]:
            (bottle if rng.random() < 0.65 else plant)(w, x, rng.uniform(1.9, 2.4), 0.78, rng.uniform(0.35, 0.6))
        crowd, eye, aim, people = min(crowd, 1), np.array([0, 0.3, 1.5]), np.array([0, 2.2, 0.95]), (3.0, 3.3)
    elif theme == "room":
        _indoors(w, [1.2 * s for s in spots[: rng.integers(1, 4)]])
    else:
        _outdoors(w, theme)
        turn = rng.uniform(-0.5, 0.5) + np.pi * rng.integers(2)
        if theme == "water":
            boat(w, rng.uniform(-1.5, 1.5), rng.uniform(6, 9), turn)
            crowd = 0
        elif theme == "street" and rng.random() < 0.75:
            name = "bus" if rng.random() < 0.35 else "car"
            vehicle(w, name, rng.uniform(-1.5, 1.5), rng.uniform(5.8, 8) + (3 if name == "bus" else 0), turn)
        elif theme == "meadow":
            name = str(rng.choice(["cow", "horse", "sheep", "dog"]))
            for x in rng.permutation([-1.0, 1.0])[: rng.integers(1, 3)]:
                animal(w, name, x, rng.uniform(3.4, 5.2), turn + rng.uniform(-0.4, 0.4))
            crowd = min(crowd, 1)
    for x in spots[4 - crowd :]:
        person(w, 0.75 * x, rng.uniform(*people), rng.uniform(-0.9, 0.9) + (np.pi if rng.random() < 0.2 else 0))
    angle = np.arctan2(eye[0] - aim[0], aim[1] - eye[1])
    pitch = np.arctan2(aim[2] - eye[2], aim[1] - eye[1])
    camera = Camera.looking(eye, angle, pitch, rng.uniform(-0.04, 0.04), rng.uniform(1.0, 1.25))
    if theme in ("room", "still"):
        light, reach, strength, ambient = np.array([rng.uniform(-1, 1), 2.0, 2.6]), 5.0, 0.4, 0.6
    else:
        light, reach, strength, ambient = rng.uniform((-40, -40, 25), (40, 10, 50)), np.inf, 0.3, 0.5
    warm = np.array([1.0, rng.uniform(0.95, 1.0), rng.uniform(0.88, 1.0)])
    sky = np.array([[0.85, 0.89, 0.93], w.hue((0.55, 0.62), (0.2, 0.6), (0.75, 0.95))])
    light, lamp, fill, sky = (a.astype(np.float32) for a in (light, warm * strength, warm * ambient, sky))
    return Scene(w.shapes, camera, light, lamp, fill, sky=sky, reach=reach)


def salient(instances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Selects the pixels of salient objects, bool `[H, W]`: objects that are large and near the centre."""
    height, width = labels.shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    interest = np.ones(VOID + 1)
    interest[[0, VOID]], interest[CLASSES["table"]] = 0, 0.2
    interest[[CLASSES["person"], CLASSES["bottle"], CLASSES["plant"]]] = 3
    weight = np.exp(-1.5 * (x * x + y * y)) * interest[labels]
    score = np.bincount(instances.ravel(), weight.ravel())
    return (score >= 0.5 * score.max())[instances] & (weight > 0)


def sample(rng: Rng, height: int, width: int) -> dict[str, np.ndarray]:
    """Draws a picture and its labels, {feature: `[H, W, channels]`}; see `RenderedScenes` for the features.

    The features are image, semseg, human_parts, sal, normals and edge.
    """
    scene = compose(rng)
    out = render(scene, height, width)
    labels = gather([s.label for s in scene.shapes], out.index, 0)
    instances = gather([s.instance for s in scene.shapes], out.index, 0)
    parts = gather([s.part for s in scene.shapes], out.index, 0)
    semseg, edge = label_maps(labels, instances, rng)
    attention = cv2.medianBlur(salient(instances, labels).astype(np.uint8) * 255, 3)
    return {
        "image": photograph(out.color, rng),
        "semseg": semseg,
        "human_parts": parts.astype(np.uint8)[..., None],
        "sal": attention[..., None],
        "normals": out.normals,
        "edge": edge,
    }
