"""Axes of surface normals: which way x, y and z point, as seen from the camera.

Three letters name the directions of x, y and z: right or left, up or down, forward (away from the camera) or back. The
usual systems have names:

    opencv  RDF  x right, y down, z forward
    opengl  RUB  x right, y up, z back, towards the camera
    z-up    RFU  x right, y forward, z up
"""

from functools import cache

import numpy as np

NAMES = {"opencv": "RDF", "opengl": "RUB", "z-up": "RFU"}
_DIRECTIONS = {"R": "right", "L": "left", "U": "up", "D": "down", "F": "forward", "B": "back"}
# Direction of each letter in the axes of OpenCV.
_VECTORS = {"R": (1, 0, 0), "L": (-1, 0, 0), "D": (0, 1, 0), "U": (0, -1, 0), "F": (0, 0, 1), "B": (0, 0, -1)}
_LINES = ("RL", "UD", "FB")  # each line has one axis


def code(axes: str) -> str:
    """Returns the three letters of axes that are given by their name or letters.

    Raises:
        ValueError: There are no such axes.
    """
    letters = NAMES.get(axes, axes)
    if len(letters) != 3 or any(sum(letter in line for letter in letters) != 1 for line in _LINES):
        raise ValueError(
            f"axes are {axes!r}, expected {', '.join(map(repr, NAMES))}, or three letters for the directions of x, y "
            "and z: R or L (right, left), U or D (up, down), F or B (forward, back)"
        )
    return letters


def describe(axes: str) -> str:
    """Describes axes, for example "x right, y down, z forward"."""
    return ", ".join(f"{axis} {_DIRECTIONS[letter]}" for axis, letter in zip("xyz", code(axes), strict=True))


@cache
def to_opencv(axes: str) -> np.ndarray:
    """Returns the matrix `[3, 3]` that turns vectors (as columns) into those of OpenCV's axes."""
    return np.array([_VECTORS[letter] for letter in code(axes)], np.float64).T


def horizontal(axes: str) -> int:
    """Returns the index of the axis that points right or left."""
    return next(index for index, letter in enumerate(code(axes)) if letter in "RL")


def rotation(axes: str, angle: float) -> np.ndarray:
    """Returns the matrix `[3, 3]` by which vectors turn when the image turns by `angle` degrees, counter-clockwise."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turned = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return to_opencv(axes).T @ turned @ to_opencv(axes)
