"""Furnished rooms with NYUD's labels: 16 of its 40 classes, depth, normals and boundaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from mtl_jax.data.rendered.furniture import (
    Rng,
    Workshop,
    bed,
    cabinet,
    carton,
    chair,
    clutter,
    hang,
    lamp,
    shell,
    sofa,
    table,
    television,
)
from mtl_jax.data.rendered.raycast import VOID, Camera, Scene, boundaries, gather, photograph, render, yaw

CLASSES = {  # NYUD's ids, counted from 0
    "wall": 0,
    "floor": 1,
    "cabinet": 2,
    "bed": 3,
    "chair": 4,
    "sofa": 5,
    "table": 6,
    "door": 7,
    "window": 8,
    "picture": 10,
    "pillow": 17,
    "floor mat": 19,
    "ceiling": 21,
    "television": 24,
    "box": 28,
    "lamp": 34,
    "void": VOID,
}
MAX_DEPTH = 10.0  # metres; a Kinect measures nothing beyond

# Objects that stand against a wall: {name: (relative frequency, range of half widths, range of half depths, function)}.
STANDING: dict[str, tuple[float, tuple[float, float], tuple[float, float], Callable[..., Any]]] = {
    "bed": (1.5, (0.5, 0.95), (1.0, 1.05), bed),
    "sofa": (1.5, (0.75, 1.1), (0.4, 0.48), sofa),
    "cabinet": (1.8, (0.4, 0.8), (0.2, 0.3), cabinet),
    "television": (1.3, (0.5, 0.8), (0.2, 0.28), television),
    "table": (1.0, (0.45, 0.9), (0.35, 0.5), table),
    "chair": (0.8, (0.22, 0.26), (0.22, 0.26), chair),
    "lamp": (1.5, (0.2, 0.2), (0.2, 0.2), lamp),
    "clutter": (0.8, (0.2, 0.2), (0.2, 0.2), clutter),
}


def furnish(rng: Rng) -> Scene:
    """Draws a random room with furniture, camera and lamp."""
    w = Workshop(rng, CLASSES)
    width, length, height = rng.uniform(2.8, 6.5), rng.uniform(2.8, 9.5), rng.uniform(2.4, 3.0)
    shell(w, width, length, height)
    eye = np.array([rng.uniform(-0.3, 0.3) * width, rng.uniform(0.15, 0.6), rng.uniform(1.2, 1.7)])
    target = np.array([rng.uniform(-0.25, 0.25) * width, rng.uniform(0.65, 0.95) * length])
    walls = [
        (0.0, length, 0.0, width),
        (-width / 2, length / 2, np.pi / 2, length),
        (width / 2, length / 2, -np.pi / 2, length),
    ]
    low = [(eye[0], eye[1], 0.7, 1.1)]  # footprints: x, y and half sizes along the world's axes

    def free(x: float, y: float, hx: float, hy: float) -> bool:
        return all(abs(x - a) > hx + c + 0.05 or abs(y - b) > hy + d + 0.05 for a, b, c, d in low)

    names = list(STANDING)
    odds = np.array([STANDING[n][0] for n in names])
    for _ in range(int(rng.integers(12, 22))):
        _, wides, deeps, make = STANDING[names[rng.choice(len(names), p=odds / odds.sum())]]
        wide, deep = rng.uniform(*wides), rng.uniform(*deeps)
        x, y, angle, span = walls[rng.choice(3, p=[0.5, 0.25, 0.25])]
        if make is table and rng.random() < 0.6:  # in the middle of the room
            x, y = rng.uniform(-0.25, 0.25) * width, rng.uniform(0.4, 0.75) * length
            angle = rng.choice([0.0, np.pi / 2])
        elif wide + 0.05 < span / 2:
            s = rng.uniform(-span / 2 + wide + 0.05, span / 2 - wide - 0.05)
            px, py, _ = yaw(angle) @ np.array([s, -deep - 0.03, 0], np.float32)
            x, y = x + px, y + py
        else:
            continue
        reach = deep + (0.3 if make is table else 0)
        hx, hy = (wide, reach) if angle == 0 else (reach, wide)
        if free(x, y, hx, hy):
            low.append((x, y, hx, hy))
            make(w, x, y, angle, (wide, deep))
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-0.4, 0.4) * width, rng.uniform(0.35, 0.9) * length
        if free(x, y, 0.3, 0.3):
            low.append((x, y, 0.3, 0.3))
            carton(w, x, y, rng.uniform(0, 3))
    hang(w, walls, height, low)
    if rng.random() < 0.6:
        x, y = rng.uniform(-0.2, 0.2) * width, rng.uniform(0.4, 0.7) * length
        w.start("floor mat", x, y, 0, rng.uniform(-0.2, 0.2))
        red, sand = w.hue((0.9, 1.0), (0.6, 0.85), (0.45, 0.7)), w.hue((0.08, 0.14), (0.3, 0.6), (0.7, 0.9))
        rug = w.look(red, sand, "rug", 0.12)
        w.add("box", (0, 0, 0.006), (rng.uniform(0.6, 1.0), rng.uniform(0.45, 0.8), 0.006), rug, shadow=False)
    angle = np.arctan2(eye[0] - target[0], target[1] - eye[1])
    camera = Camera.looking(eye, angle, rng.uniform(-0.35, -0.05), rng.uniform(-0.04, 0.04), rng.uniform(0.79, 0.84))
    warm = np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.82, 1.0)])
    light = np.array([rng.uniform(-0.2, 0.2) * width, rng.uniform(0.3, 0.7) * length, height - 0.25])
    strength = rng.uniform(0.35, 0.55)
    bounds = np.array([[-width / 2, 0, 0], [width / 2, length, height]], np.float32)
    lamp, fill = (warm * strength).astype(np.float32), (warm * rng.uniform(0.52, 0.68)).astype(np.float32)
    return Scene(w.shapes, camera, light.astype(np.float32), lamp, fill, bounds=bounds, reach=5.0)


def label_maps(labels: np.ndarray, instances: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Returns class labels with some void outlines, as annotators draw them, and boundaries (0 or 255).

    Args:
        labels: Class of each pixel, `[H, W]`.
        instances: Number of the object at each pixel, `[H, W]`.
        rng: Random number generator of the scene.

    Returns:
        The labels and the boundaries, both uint8 `[H, W, 1]`.
    """
    edge = boundaries(instances)
    sloppy = [i for i in np.unique(instances) if rng.random() < 0.3]
    band = np.zeros_like(edge)
    for i in sloppy:
        inside = (instances == i).astype(np.uint8)
        band |= cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
    band &= cv2.dilate(boundaries(labels).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    return np.where(band, VOID, labels).astype(np.uint8)[..., None], (255 * edge).astype(np.uint8)[..., None]


def kinect_holes(depth: np.ndarray, normals: np.ndarray, rays: np.ndarray, rng: Rng) -> np.ndarray:
    """Selects the pixels without a depth measurement, bool `[H, W]`.

    Their surfaces are too far away, seen at a grazing angle, or in the shadow that an object casts in the projector's
    light.
    """
    view = rays / np.sqrt((rays * rays).sum(axis=0))
    facing = np.abs((normals * np.moveaxis(view, 0, -1)).sum(axis=-1))
    speckle = cv2.GaussianBlur(rng.standard_normal(depth.shape, dtype=np.float32), (0, 0), 2.0)
    holes = (depth <= 0) | (depth > MAX_DEPTH) | (facing + 0.15 * speckle < 0.1)
    for shift in range(1, 1 + round(depth.shape[1] / 110)):  # the projector's parallax leaves a gap beside an object
        holes[:, :-shift] |= depth[:, :-shift] > 1.12 * depth[:, shift:]
    return holes


def sample(rng: Rng, height: int, width: int) -> dict[str, np.ndarray]:
    """Draws a room and its labels, {feature: `[H, W, channels]`}; see `RenderedScenes` for the features.

    The features are image, semseg, depth, normals and edge.
    """
    scene = furnish(rng)
    out = render(scene, height, width)
    labels = gather([s.label for s in scene.shapes], out.index, VOID)
    instances = gather([s.instance for s in scene.shapes], out.index, 0)
    semseg, edge = label_maps(labels, instances, rng)
    valid = ~kinect_holes(out.depth, out.normals, out.rays, rng)[..., None]
    return {
        "image": photograph(out.color, rng),
        "semseg": semseg,
        "depth": out.depth[..., None] * valid,
        "normals": out.normals * valid,
        "edge": edge,
    }
