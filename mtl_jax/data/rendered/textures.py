"""Procedural textures: the colour of a shape as a function of the position on its surface."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """The appearance of a surface.

    Attributes:
        base: Main colour, RGB in 0..1.
        accent: Second colour of the pattern, RGB in 0..1.
        pattern: Name of the pattern, a key of `PATTERNS`.
        scale: Size of the pattern's cells in metres.
        seed: Seed of the random numbers in the pattern.
        gloss: Strength of the highlight.
        glow: 0 for a surface that is lit by the lamp, up to 1 for one that shows its colour under any light.
    """

    base: Color
    accent: Color = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    scale: float = 0.2
    seed: int = 0
    gloss: float = 0.0
    glow: float = 0.0


def paint(rng: np.random.Generator, hue, saturation, value) -> Color:
    """Draws a random colour, RGB in 0..1, from (low, high) ranges of hue, saturation and value, each in 0..1.

    Hues above 1 begin again at 0.
    """
    return colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))


def shade(color: Color, factor: float) -> Color:
    """Multiplies a colour by a factor."""
    r, g, b = color
    return r * factor, g * factor, b * factor


def smooth_noise(u: Array, v: Array, seed: int) -> Array:
    """Computes smooth noise with a wavelength of about 1 and values in about -1..1, a sum of random plane waves."""
    rng = np.random.default_rng(seed)
    out = np.zeros_like(u)
    for k in (0.7, 1.1, 1.7, 2.6):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        a, b = np.float32(2 * np.pi * k * np.cos(angle)), np.float32(2 * np.pi * k * np.sin(angle))
        bend = np.sin(b * 0.6 * u - a * 0.6 * v + np.float32(phase * 3))
        out += np.sin(a * u + b * v + np.float32(phase) + bend) / np.float32(k)
    return out / np.float32(2)


def _random_cells(cells: Array, seed: int) -> Array:
    """Returns a pseudorandom number in 0..1 for every integer cell."""
    return np.modf(np.abs(np.sin(cells * np.float32(12.9898) + np.float32(seed % 97))) * np.float32(4375.85))[0]


def _mix(base: Array, accent: Array, weight: Array) -> Array:
    return base[:, None] * (1 - weight) + accent[:, None] * weight


def _plain(u, v, extent, m, base, accent):
    return _mix(base, base * 0.94, 0.5 + 0.5 * smooth_noise(u / 0.7, v / 0.7, m.seed))


def _checks(u, v, extent, m, base, accent):
    return _mix(base, accent, (np.floor(u / m.scale) + np.floor(v / m.scale)) % 2)


def _tiles(u, v, extent, m, base, accent):
    i, j = np.floor(u / m.scale), np.floor(v / m.scale)
    joint = (np.modf(u / m.scale - i)[0] < 0.05) | (np.modf(v / m.scale - j)[0] < 0.05)
    return _mix(base, accent, np.where(joint, 1, 0.25 * _random_cells(i + 17 * j, m.seed)))


def _stripes(u, v, extent, m, base, accent):
    return _mix(base, accent, (np.floor(u / m.scale) % 2 == 0) * np.float32(1))


def _wood(u, v, extent, m, base, accent):
    plank = np.floor(v / m.scale)
    piece = np.floor(u / (m.scale * 8) + _random_cells(plank, m.seed) * 8)
    grain = smooth_noise(u * 1.5, v * 22 + plank * 3, m.seed)
    seam = np.modf(np.abs(v / m.scale))[0] < 0.05
    return _mix(base, accent, np.clip(0.15 + 0.35 * _random_cells(plank * 7 + piece, m.seed) + 0.18 * grain, 0, 1)) * (
        1 - 0.35 * seam
    )


def _spots(u, v, extent, m, base, accent):
    return _mix(base, accent, (smooth_noise(u / m.scale, v / m.scale, m.seed) > 0.15) * np.float32(1))


def _cloth(u, v, extent, m, base, accent):
    weave = 0.5 + 0.25 * np.sin(u * (6.28 / 0.02)) * np.sin(v * (6.28 / 0.02))
    return _mix(base, accent, weave * 0.25 + 0.2 * smooth_noise(u / 0.25, v / 0.25, m.seed) + 0.15)


def _frame(u, v, extent, width):
    return (extent[0] - np.abs(u) < width) | (extent[1] - np.abs(v) < width)


def _drawers(u, v, extent, m, base, accent):
    row = (v + extent[1]) / m.scale
    gap = (np.abs(row - np.rint(row)) * m.scale < 0.012) | (np.abs(u) < 0.008)
    knob = (np.abs(np.abs(u) - 0.07) < 0.02) & (np.abs(row - np.floor(row) - 0.5) * m.scale < 0.03)
    wood = _wood(u, v, extent, m, base, base * 0.75)
    return np.where(knob, accent[:, None], wood * (1 - 0.6 * gap))


def _panels(u, v, extent, m, base, accent):
    upper = v > 0
    w = np.abs(v - np.where(upper, 0.5, -0.5) * extent[1]) / (0.36 * extent[1])
    edge = np.maximum(np.abs(u) / (0.62 * extent[0]), w)
    groove = np.abs(edge - 1) < 0.06
    knob = (u - 0.8 * extent[0]) ** 2 + (v + 0.05) ** 2 < 0.05**2
    return np.where(knob, accent[:, None], base[:, None] * (1 - 0.35 * groove)) * (1 - 0.1 * (edge < 1))


def _window(u, v, extent, m, base, accent):
    bars = _frame(u, v, extent, 0.06) | (np.abs(u) < 0.025) | (np.abs(v - 0.2 * extent[1]) < 0.02)
    hills = v / extent[1] + 0.25 * smooth_noise(u / 0.9, v / 0.9, m.seed) < -0.2
    view = np.where(hills, accent[:, None], base[:, None] * (0.9 + 0.12 * v / extent[1]))
    return np.where(bars, np.float32(0.93), view)


def _painting(u, v, extent, m, base, accent):
    rng = np.random.default_rng(m.seed)
    third = np.array(colorsys.hsv_to_rgb(rng.uniform(), 0.8, 0.8), np.float32)
    a = smooth_noise(u / (1.2 * extent[0]), v / (1.2 * extent[1]), m.seed)
    out = _mix(base, accent, (a > 0) * np.float32(1))
    out = np.where(a > 0.45, third[:, None], out)
    return np.where(_frame(u, v, extent, 0.035), np.float32(0.06), out)


def _screen(u, v, extent, m, base, accent):
    glare = np.clip((u / extent[0] + v / extent[1]) * 0.5, 0, 1)
    return np.where(_frame(u, v, extent, 0.03), np.float32(0.03), _mix(base, accent, 0.15 + 0.5 * glare))


def _carton(u, v, extent, m, base, accent):
    tape = np.abs(u) < 0.15 * extent[0]
    return _mix(base, accent, 0.55 * tape + 0.08 * smooth_noise(u / 0.15, v / 0.15, m.seed))


def _rug(u, v, extent, m, base, accent):
    rings = np.minimum(extent[0] - np.abs(u), extent[1] - np.abs(v))
    return _mix(base, accent, (np.floor(rings / m.scale) % 2 == 0) * np.float32(1))


def _bricks(u, v, extent, m, base, accent):
    row = np.floor(v / m.scale)
    x = u / (2.2 * m.scale) + 0.5 * (row % 2)
    joint = (np.abs(x - np.rint(x)) < 0.025) | (v / m.scale - row < 0.08)
    return np.where(
        joint, accent[:, None], base[:, None] * (0.8 + 0.4 * _random_cells(np.floor(x + 0.5) + row * 13, m.seed))
    )


def _grass(u, v, extent, m, base, accent):
    coarse = smooth_noise(u / m.scale, v / m.scale, m.seed)
    fine = smooth_noise(u * 6, v * 6, m.seed + 1)
    return _mix(base, accent, np.clip(0.5 + 0.3 * coarse + 0.25 * fine, 0, 1))


def _glass_band(u, v, extent, m, base, accent):
    band = (v > 0.05 * extent[1]) & (v < 0.75 * extent[1])
    pillar = np.abs(np.modf(np.abs(u) / m.scale)[0] - 0.5) > 0.44
    return np.where(band & ~pillar, accent[:, None], base[:, None])


PATTERNS = {
    "plain": _plain,
    "checks": _checks,
    "tiles": _tiles,
    "stripes": _stripes,
    "wood": _wood,
    "spots": _spots,
    "cloth": _cloth,
    "drawers": _drawers,
    "panels": _panels,
    "window": _window,
    "painting": _painting,
    "screen": _screen,
    "carton": _carton,
    "rug": _rug,
    "bricks": _bricks,
    "grass": _grass,
    "glass_band": _glass_band,
}


def albedo(material: Material, kind: str, points: Array, normals: Array, half: Array) -> Array:
    """Computes the colours `[3, n]` of surface points.

    Args:
        material: Appearance of the surface.
        kind: Kind of the shape, see `raycast.Shape`.
        points: Points `[3, n]` in metres, in the local axes of the shape.
        normals: Normals `[3, n]` of the unit solid, which distinguish the faces of a box.
        half: Half extents `[3]` of the shape in metres.
    """
    x, y, z = points
    if kind == "box":
        side, top = normals[0] != 0, normals[2] != 0
        u, v = np.where(side, y, x), np.where(top, y, z)
        extent = np.where(side, half[1], half[0]), np.where(top, half[1], half[2])
    elif kind == "cylinder":
        cap = normals[2] != 0
        u, v = np.where(cap, x, np.arctan2(y, x) * half[0]), np.where(cap, y, z)
        extent = np.where(cap, half[0], np.pi * half[0]), np.where(cap, half[1], half[2])
    else:
        u, v = np.arctan2(y, x) * half[0], z
        extent = np.full_like(x, np.pi * half[0]), np.full_like(x, half[2])
    base, accent = (np.asarray(c, np.float32) for c in (material.base, material.accent))
    out = PATTERNS[material.pattern](u, v, extent, material, base, accent)
    return np.clip(out, 0, 1).astype(np.float32)
