"""Transforms: geometry, borders, ignored regions, draws."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mtl_jax import images, tasks
from mtl_jax.data import augmentation, catalogue, transforms
from tests.data.draws import published as Draw

H, W = 48, 64


def sample(seed=0, names=tuple(tasks.TASKS)):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(H, W, 3)).astype(np.float32)
    maps = {
        "image": rng.integers(0, 256, (H, W, 3), dtype=np.uint8),
        "semseg": rng.integers(0, 21, (H, W, 1), dtype=np.uint8),
        "human_parts": rng.integers(0, 7, (H, W, 1), dtype=np.uint8),
        "sal": rng.integers(0, 2, (H, W, 1)).astype(np.float32),
        "edge": rng.integers(0, 2, (H, W, 1)).astype(np.float32),
        "depth": rng.uniform(1, 9, (H, W, 1)).astype(np.float32),
        "normals": normals / np.linalg.norm(normals, axis=2, keepdims=True),
    }
    return {name: maps[name] for name in ("image", *names)}


def plane(normal, offset, focal=60.0):
    """Depth of the plane n . p = offset seen by a pinhole camera (x right, y down, z forward), and its normal."""
    v, u = np.mgrid[:H, :W].astype(np.float64)
    rays = np.stack([(u - W / 2) / focal, (v - H / 2) / focal, np.ones((H, W))], axis=2)
    depth = offset / (rays @ normal)
    return rays, depth[..., None].astype(np.float32), np.broadcast_to(normal, (H, W, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("recipe", "drawn"),
    [
        ("astmt", Draw()),
        ("astmt", Draw(angle=17.0)),
        ("astmt", Draw(True, -20.0)),
        ("astmt", Draw(True, 20.0)),
        ("astmt", Draw(False, -13.0, 1.25)),
        ("astmt", Draw(True, 8.0, 0.75)),
        ("survey", Draw(False, 0.0, 1.2)),
        ("survey", Draw(True, 0.0, 1.5)),
    ],
)
def test_plane_normals_stay_perpendicular(recipe, drawn):
    """Rotating about the camera's axis, mirroring and zooming turn points and normals alike: again a plane."""
    normal = np.array([0.3, -0.5, 0.8])
    normal /= np.linalg.norm(normal)
    _, depth, normals = plane(normal, 2.0)
    maps = {"image": np.zeros((H, W, 3), np.float32), "depth": depth, "normals": normals}
    got = augmentation.train_transform(maps, drawn, recipe, (H, W))
    _, turn, _ = drawn
    rays, _, _ = plane(normal, 2.0, focal=60.0 * turn.scale)  # the enlarged picture is that of a longer lens
    centre = np.s_[H // 2 - 8 : H // 2 + 8, W // 2 - 8 : W // 2 + 8]
    points = (rays * got["depth"])[centre].reshape(-1, 3)
    turned = got["normals"][centre].reshape(-1, 3)
    np.testing.assert_allclose(turned, np.broadcast_to(turned[0], turned.shape), atol=1e-6)
    # Mirroring moves column j to W - 1 - j, the axis is at W / 2: one pixel off, hence 0.2 % and not rounding. The
    # survey's nearest depths are half a pixel off.
    along = (points - points.mean(axis=0)) @ turned[0].astype(np.float64)
    tolerance = 2e-3 if recipe == "astmt" else 1e-2
    assert np.abs(along).max() < tolerance * np.linalg.norm(points, axis=1).mean()
    if turn.angle != 0:  # then the old normal is wrong
        assert np.abs((points - points.mean(axis=0)) @ normal).max() > 0.02


def test_depth_scale():
    """The survey protocol: the image 1.5 times as large is seen from 1/1.5 of the distance."""
    maps = {"image": np.zeros((H, W, 3), np.float32), "depth": np.full((H, W, 1), 6.0, np.float32)}
    survey = augmentation.train_transform(maps, Draw(scale=1.5), "survey", (H, W))
    np.testing.assert_allclose(survey["depth"], 4.0)
    astmt = augmentation.train_transform(maps, Draw(scale=1.5), "astmt", (H, W))
    np.testing.assert_allclose(astmt["depth"], 6.0)


@pytest.mark.parametrize("size", [(H, W), (60, 90)])
def test_one_draw_for_all_maps(size):
    """The same pattern in every map ends up in the same place."""
    pattern = np.kron(np.random.default_rng(0).integers(1, 3, (H // 8, W // 8)), np.ones((8, 8)))[..., None]
    maps = {"image": np.repeat(100 * pattern, 3, axis=2).astype(np.uint8)}
    maps |= {name: pattern.astype(np.uint8) for name in ("semseg", "human_parts")}
    maps |= {name: pattern.astype(np.float32) for name in ("sal", "edge", "depth")}
    maps["normals"] = np.concatenate([pattern == 1, pattern == 2, 0 * pattern], axis=2).astype(np.float32)
    got = augmentation.train_transform(maps, Draw(True, 11.0, 0.8), "astmt", size, "zero", normalised=False)
    outside = got["semseg"] == 0
    assert 0.1 < outside.mean() < 0.6
    for name in ("human_parts", "sal", "edge"):
        np.testing.assert_array_equal(got[name], got["semseg"])
    inner = cv2.erode((got["semseg"] == 2).astype(np.uint8), np.ones((5, 5))).astype(bool)  # away from interpolation
    assert inner.sum() > 50
    assert (np.abs(got["image"][inner].astype(int) - 200) < 40).all()
    np.testing.assert_allclose(got["depth"][inner], 2, atol=0.3)
    assert (np.abs(got["normals"][inner] @ [np.sin(np.deg2rad(11)), np.cos(np.deg2rad(11)), 0]) > 0.9).all()


def test_flip_twice_is_identity():
    maps = {name: x.astype(np.float32) for name, x in sample().items()}
    once, twice = transforms.flip(maps), transforms.flip(transforms.flip(maps))
    for name in maps:
        np.testing.assert_array_equal(twice[name], maps[name])
        assert not np.array_equal(once[name], maps[name])
    np.testing.assert_array_equal(once["normals"][:, ::-1] * [-1, 1, 1], maps["normals"])


def test_border():
    """Rotated corners: without a label, or class 0 and background as in the published experiments."""
    maps = sample()
    for name in ("semseg", "human_parts", "sal", "edge"):
        maps[name] = np.ones_like(maps[name])
    drawn = Draw(angle=20.0, scale=0.75)
    zero = augmentation.train_transform(maps, drawn, "astmt", (H, W), border="zero")
    ignore = augmentation.train_transform(maps, drawn, "astmt", (H, W))
    outside = zero["semseg"] == 0
    assert 0.1 < outside.mean() < 0.6
    for name in ("semseg", "human_parts", "sal", "edge"):
        np.testing.assert_array_equal(ignore[name], np.where(outside, 255, zero[name]))
    for name in ("image", "depth", "normals"):
        np.testing.assert_array_equal(ignore[name], zero[name])
    corner = np.s_[0, 0]
    assert zero["depth"][corner] == 255
    assert (zero["normals"][corner] == 255).all()
    for family, want in (("nyud", zero), ("pascal", zero), ("folder", ignore), ("rendered_scenes", ignore)):
        conventions = replace(catalogue.FAMILIES[family], interpolates_holes=False, empty_is_unlabelled=())
        got = augmentation.train_transform(maps, drawn, "astmt", (H, W), conventions=conventions)
        np.testing.assert_array_equal(got["semseg"], want["semseg"])
    with pytest.raises(ValueError, match="unknown border 'mirror'; the borders are zero, ignore"):
        augmentation.train_transform(maps, drawn, "astmt", (H, W), border="mirror")


@pytest.mark.parametrize("border", transforms.BORDERS)
@pytest.mark.parametrize("family", ["pascal", "folder", "rendered_scenes"])
def test_image_without_people(family, border):
    """It has no label of parts in PASCAL. Elsewhere class 0 is a class like every other."""
    maps, conventions = sample(), catalogue.FAMILIES[family]
    for value in (0, 255):
        maps["human_parts"] = np.full((H, W, 1), value, np.uint8)
        trained = augmentation.train_transform(maps, Draw(scale=1.1), "astmt", (H, W), border, conventions=conventions)
        validated = augmentation.val_transform(maps, (H, W), conventions=conventions)
        for got in (trained, validated):
            assert (got["human_parts"] == (255 if family == "pascal" else value)).all()


WALL = 20.0  # metres


@pytest.mark.parametrize("family", ["folder", "rendered_scenes"])
@pytest.mark.parametrize("measured", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("train", [True, False])
def test_depth_with_holes(family, measured, train):
    """A wall of which some pixels are measured is as far away at every pixel that has a label afterwards."""
    known = np.random.default_rng(0).random((375, 1242, 1)) < measured
    maps = {"image": np.zeros((375, 1242, 3), np.uint8), "depth": np.where(known, WALL, 0).astype(np.float32)}
    options = {"size": (192, 640), "conventions": catalogue.FAMILIES[family]}
    if train:
        got = augmentation.train_transform(maps, Draw(True, 11.0, 1.2), "astmt", **options)["depth"]
    else:
        got = augmentation.val_transform(maps, recipe="astmt", **options)["depth"]
    labelled = got != 255
    np.testing.assert_allclose(got[labelled], WALL, rtol=1e-5)
    assert 0.8 * measured < labelled.mean() < 1.2 * measured + 0.05
    published = augmentation.val_transform(maps, (192, 640), "astmt", conventions=catalogue.FAMILIES["nyud"])["depth"]
    assert np.median(published[published != 255]) < 0.99 * WALL or measured > 0.5  # holes drag it down there


def test_normals_with_holes():
    """A plane with holes keeps its direction up to their edges, and a hole stays one."""
    normal = np.float32([0.6, 0.0, 0.8])
    known = np.random.default_rng(0).random((96, 128, 1)) < 0.7
    known[40:60, 40:60] = False
    maps = {"image": np.zeros((96, 128, 3), np.uint8), "normals": np.where(known, normal, 0).astype(np.float32)}
    got = augmentation.val_transform(maps, (48, 64))["normals"]
    labelled = got[..., 0] != 255
    np.testing.assert_allclose(got[labelled], np.broadcast_to(normal, got[labelled].shape), atol=1e-6)
    assert not labelled[21:29, 21:29].any()
    assert 0.6 < labelled.mean() < 0.9


def test_validation():
    maps = sample()
    maps["depth"][3, 4], maps["normals"][5, 6] = 0, 0
    got = augmentation.val_transform({"id": "x", **maps}, (H, W))
    assert set(got) == {"image", *tasks.TASKS}
    for name in tasks.TASKS:
        assert got[name].dtype == tasks.get(name).kind.dtype
        assert got[name].shape == (H, W, tasks.get(name).kind.channels)
    for name in ("semseg", "human_parts", "sal", "edge"):
        np.testing.assert_array_equal(got[name], maps[name])
    np.testing.assert_array_equal(got["depth"], np.where(maps["depth"] == 0, 255, maps["depth"]))
    assert got["normals"][5, 6].tolist() == [255, 255, 255]
    want = (maps["image"] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(got["image"], want, atol=1e-5)
    assert augmentation.val_transform(maps, (30, 50))["normals"].shape == (30, 50, 3)


def test_image_as_bytes():
    """What is left to the device gives the same there."""
    maps = sample()
    for transform in (
        lambda **kwargs: augmentation.train_transform(maps, Draw(angle=5.0), "astmt", (H, W), **kwargs),
        lambda **kwargs: augmentation.val_transform(maps, (30, 50), **kwargs),
        lambda **kwargs: augmentation.val_transform(maps, (H, W), **kwargs),
    ):
        image = transform(normalised=False)["image"]
        assert image.dtype == np.uint8
        np.testing.assert_allclose(images.normalise(image), transform()["image"], atol=1e-6)


@pytest.mark.parametrize("missing", tasks.TASKS)
def test_labels_may_be_missing(missing):
    maps = sample()
    whole = augmentation.train_transform(maps, Draw(True, 5.0, 1.1), "astmt", (H, W))
    part = augmentation.train_transform(
        {name: x for name, x in maps.items() if name != missing}, Draw(True, 5.0, 1.1), "astmt", (H, W)
    )
    assert set(whole) - set(part) == {missing}
    for name in part:
        np.testing.assert_array_equal(part[name], whole[name])


def test_overshoot_saturates():
    """The reference's cast wraps: 258.7 becomes 2, -3.2 becomes 253."""
    image = np.array([258.7, 255.9, 254.9, 0.9, -0.5, -3.2], np.float32).reshape(1, 2, 3)
    grey = transforms.normalise_image(image) * transforms.STD + transforms.MEAN
    np.testing.assert_allclose(grey.ravel() * 255, [255, 255, 254, 0, 0, 0], atol=1e-4)


def test_inputs_are_not_changed():
    maps = {name: x.astype(np.float32) for name, x in sample().items()}
    maps["depth"][0], maps["normals"][1] = 0, 0
    before = {name: x.copy() for name, x in maps.items()}
    augmentation.train_transform(maps, Draw(True, 5.0, 1.1), "survey", (H, W))
    augmentation.train_transform(maps, Draw(), "none", (H, W))
    for name in maps:
        np.testing.assert_array_equal(maps[name], before[name])


def test_draws():
    rng = np.random.default_rng(0)
    astmt = [augmentation.draw("astmt", rng) for _ in range(2000)]
    assert 0.45 < np.mean([flip for flip, _, _ in astmt]) < 0.55
    angles, scales = np.array([turn for _, turn, _ in astmt]).T
    assert -20 <= angles.min() < -19.9 < 19.9 < angles.max() <= 20
    assert 0.75 <= scales.min() < 0.755 < 1.245 < scales.max() <= 1.25
    survey = [augmentation.draw("survey", rng) for _ in range(300)]
    assert {turn.scale for _, turn, _ in survey} == {1.0, 1.2, 1.5}
    assert {turn.angle for _, turn, _ in survey} == {0.0}
    assert {augmentation.draw("none", rng) for _ in range(9)} == {Draw(False, 0.0, 1.0)}
    with pytest.raises(ValueError, match="unknown augmentation recipe 'x'; the recipes are astmt, survey, none"):
        augmentation.draw("x", rng)
