"""Axes of normals: flips and rotations of vectors are those of the surfaces in the picture."""

import cv2
import numpy as np
import pytest

from mtl_jax.data import catalogue, transforms
from mtl_jax.labels import Conventions, axes

ANGLE = 20.0
SYSTEMS = ["opencv", "opengl", "z-up", "LUF", "RUF"]


def seen(declared, tilt=(0.3, -0.5)):
    """The normals of a plane in the declared axes, [32, 48, 3]."""
    vector = np.array([*tilt, -1.0])  # OpenCV's axes
    vector = vector / np.linalg.norm(vector) @ axes.to_opencv(declared)
    return np.broadcast_to(vector.astype(np.float32), (32, 48, 3)).copy()


@pytest.mark.parametrize("declared", SYSTEMS)
def test_a_rotated_picture_has_rotated_normals(declared):
    """A tilted plane, seen by a camera that is turned about its axis."""
    maps = {"normals": seen(declared)}
    moved = transforms.scale_and_rotate(maps, ANGLE, 1.0, conventions=Conventions(axes=declared))
    matrix = cv2.getRotationMatrix2D((0, 0), ANGLE, 1)[:, :2]  # how OpenCV moves the pixels (right, down)
    turned = matrix @ np.array([0.3, -0.5])
    np.testing.assert_allclose(moved["normals"][16, 24], seen(declared, turned)[0, 0], atol=1e-6)


@pytest.mark.parametrize("declared", SYSTEMS)
def test_a_mirrored_picture_has_mirrored_normals(declared):
    mirrored = transforms.flip({"normals": seen(declared)}, Conventions(axes=declared))
    np.testing.assert_array_equal(mirrored["normals"], seen(declared, (-0.3, -0.5)))


@pytest.mark.parametrize("declared", SYSTEMS[1:])
def test_the_axes_matter(declared):
    """With the axes of OpenCV the error at 20 degrees is of that order where y or z points up."""
    wrong, right = (
        transforms.scale_and_rotate({"normals": seen(declared)}, ANGLE, 1.0, conventions=Conventions(axes=name))
        for name in ("opencv", declared)
    )
    cosine = (wrong["normals"] * right["normals"])[16, 24].sum()
    if declared == "LUF":  # left and up: both turned by half a turn, which rotations do not notice
        assert cosine == pytest.approx(1)
    else:
        assert cosine < np.cos(np.deg2rad(5))


def test_the_embedded_rooms_have_z_up():
    assert catalogue.FAMILIES["rendered_scenes"].axes == "z-up"
    assert catalogue.FAMILIES["nyud"].axes == ""  # the recorded behaviour: rotated as if y pointed down
    kind = transforms.tasks.get("normals").kind
    key = kind.key([], style="map", names=(), conventions=Conventions(axes="z-up"), low=None, high=None)
    assert key.lines[:3] == ("red: x right", "green: y forward", "blue: z up")
    assert "x right, y up, z back" in kind.meaning(Conventions(axes="opengl"))


@pytest.mark.parametrize("wrong", ["", "up", "RRF", "RU", "xyz", "RUFB", "rub"])
def test_unknown_axes(wrong):
    with pytest.raises(ValueError, match=f"axes are '{wrong}', expected 'opencv', 'opengl', 'z-up', or three letters"):
        axes.code(wrong)
