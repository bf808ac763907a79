"""Recipes that scale, crop and pad: parameters, random numbers, and what happens to the maps."""

import cv2
import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.config import Config, Data, image_size, validate
from mtl_jax.data import augmentation, catalogue, placing
from mtl_jax.data.augmentation import geometry
from mtl_jax.labels import IGNORE, Conventions
from mtl_jax.notation import Interval

H, W = 60, 80
SIZE = (48, 64)


def sample(height=H, width=W, seed=0):
    """Blocks of classes; every other label follows from them, so that labels show whether they moved together."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(1, 6, (height // 15 + 1, width // 15 + 1)).astype(np.uint8)
    classes = np.kron(blocks, np.ones((15, 15), np.uint8))[:height, :width, None]
    angle = np.deg2rad(20.0 * classes)
    return {
        "image": np.repeat(40 * classes, 3, axis=2),
        "semseg": classes,
        "human_parts": classes,
        "sal": (classes > 3).astype(np.float32),
        "edge": (classes == 2).astype(np.float32),
        "depth": classes.astype(np.float32),
        "normals": np.concatenate([np.sin(angle), 0 * angle, -np.cos(angle)], axis=2).astype(np.float32),
    }


def transformed(recipe, seed=0, maps=None, size=SIZE):
    recipe = augmentation.get_recipe(recipe)
    drawn = augmentation.draw(recipe, np.random.default_rng(seed))
    return augmentation.train_transform(maps or sample(), drawn, recipe, size, normalised=False)


def test_parameters_change_the_recipe():
    changed = augmentation.get_recipe("invpt:scale=0.8-1.25,max_class=1.5,photometric=false")
    assert changed == augmentation.invpt(scale=Interval(0.8, 1.25), max_class=1.5, photometric=False)
    assert changed.looks_at == ()
    assert augmentation.get_recipe("invpt").looks_at == ("semseg",)
    assert augmentation.get_recipe("survey:scale=1+2") == augmentation.survey(scale=(1.0, 2.0))
    assert augmentation.get_recipe("astmt:scale=1e-1-1.5e0") == augmentation.astmt(scale=Interval(0.1, 1.5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("invpt:scale=2-0.5", r"parameter scale of the augmentation recipe invpt is '2-0.5'; it must be an interval"),
        ("invpt:size=3", r"'size=3' is no parameter=value of .* invpt; it takes scale=0.5-2, max_class=0.75, flip=0.5"),
        ("astmt:flip=2", "the augmentation recipe astmt: flip is 2; a probability is from 0 to 1"),
        ("astmt:rotation=200", "rotation is 200; the largest angle is from 0 to 180 degrees"),
        ("custom:scale=0+1", "give scales above 0"),
        ("custom:scale=0-1", "scale is 0-1; give scales above 0"),
        ("custom:jitter=0.4", "jitter has 1 numbers; it has four, brightness.contrast.saturation.hue"),
        ("custom:jitter=0+0+0+0.6", "none may be below 0, and the hue not above 0.5"),
        ("custom:cutout=0.5,cutout_area=0.5-1", "cutout_area is 0.5-1; give parts of the image between 0 and 1"),
        ("custom:max_class=0", "max_class is 0; it must be above 0"),
        ("crops", "unknown augmentation recipe 'crops'; the recipes are astmt, survey, none, invpt, custom"),
    ],
)
def test_wrong_parameters_are_named(text, said):
    with pytest.raises(ValueError, match=said):
        augmentation.get_recipe(text)
    with pytest.raises(ValueError, match=f"data.augmentation: .*{said}"):
        validate(Config(Data("nyud", ("depth",), augmentation=text)))


def test_a_recipe_from_outside():
    @augmentation.register_recipe
    def halves(*, flip: float = 0.0) -> augmentation.Recipe:
        return augmentation.Recipe((augmentation.Flip(flip), augmentation.Scale((0.5,))))

    try:
        assert validate(Config(Data("nyud", ("depth",), augmentation="halves:flip=1")))
        with pytest.raises(
            ValueError, match="leave 24x32 pixels of image, expected 48x64; end the recipe with Stretch"
        ):
            transformed("halves")
        with pytest.raises(ValueError, match="already"):
            augmentation.register_recipe(type("halves", (), {}))
    finally:
        del augmentation.RECIPES["halves"]


def test_the_numbers_are_drawn_in_the_documented_order():
    rng = np.random.default_rng(5)
    scale, crop, flip = rng.uniform(0.5, 2), rng.random((11, 2)), rng.random() < 0.5
    brightness, first = (rng.random() < 0.5, rng.uniform(-32, 32)), rng.random() < 0.5
    contrast, saturation = ((rng.random() < 0.5, rng.uniform(0.5, 1.5)) for _ in range(2))
    hue = (rng.random() < 0.5, rng.integers(-18, 18))
    drawn = augmentation.draw("invpt", np.random.default_rng(5))
    assert (drawn[0], drawn[2], drawn[4]) == (scale, flip, None)
    np.testing.assert_array_equal(drawn[1], crop)
    used = [value if uses else None for uses, value in (brightness, contrast, saturation, hue)]
    assert drawn[3] == (used[0], used[1], first, *used[2:])
    rng = np.random.default_rng(5)
    published = (rng.random() < 0.5, (rng.uniform(-20, 20), rng.uniform(0.75, 1.25)), None)
    assert augmentation.draw("astmt", np.random.default_rng(5)) == published


@pytest.mark.parametrize("text", ["invpt", "custom:rotation=5,jitter=0.4+0.4+0.4+0.1,cutout=0.5,flip=0.5", "astmt"])
def test_every_sample_draws_the_same_number_of_numbers(text):
    left = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        augmentation.draw(text, rng)
        state, reference = rng.bit_generator.state["state"]["state"], np.random.default_rng(seed)
        left.add(next(i for i in range(100) if _state(reference, skip=i > 0) == state))
    assert len(left) == 1


def _state(rng, skip):
    if skip:
        rng.bit_generator.advance(1)
    return rng.bit_generator.state["state"]["state"]


@pytest.mark.parametrize("seed", range(6))
def test_invpt_step_by_step(seed):
    """The published steps, written out with OpenCV and NumPy for the same random numbers."""
    scale, crop, flip, *_ = augmentation.draw("invpt:photometric=false", np.random.default_rng(seed))
    maps = sample()
    maps["depth"][:9], maps["normals"][:9], maps["semseg"][:9] = 0, 0, 255
    got = transformed("invpt:photometric=false", seed, maps)
    height, width = int(48 * scale), int(64 * scale)  # 60 x 80 fits into 48 x 64 as 48 x 64
    maps["image"] = maps["image"].astype(np.float32)
    moved = {
        name: cv2.resize(x, (width, height), interpolation=cv2.INTER_LINEAR if name == "image" else cv2.INTER_NEAREST)
        for name, x in maps.items()
    }
    moved = {name: x if x.ndim == 3 else x[..., None] for name, x in moved.items()}
    moved["image"] = np.trunc(moved["image"])  # for the colours
    moved["depth"] = moved["depth"] / np.float32(scale)
    for number, (down, right) in enumerate(crop):
        top, left = int(down * (max(height - 48, 0) + 1)), int(right * (max(width - 64, 0) + 1))
        part = np.s_[top : top + 48, left : left + 64]
        classes = moved["semseg"][part]
        _, counts = np.unique(classes[classes != 255], return_counts=True)
        if number == 10 or (len(counts) > 1 and counts.max() / counts.sum() < 0.75):
            break
    moved = {name: x[part] for name, x in moved.items()}
    if flip:
        moved = {name: x[:, ::-1].copy() for name, x in moved.items()}
        moved["normals"][..., 0] *= -1
    height, width = moved["image"].shape[:2]
    inside = np.s_[(48 - height) // 2 :, (64 - width) // 2 :]
    inside = np.s_[inside[0].start : inside[0].start + height, inside[1].start : inside[1].start + width]
    for name, x in moved.items():
        want = np.full((*SIZE, x.shape[2]), (124, 116, 104) if name == "image" else 255, np.float32)
        missing = (x == 0).all(axis=2, keepdims=True) & (name in ("depth", "normals"))
        want[inside] = np.where(missing, 255, x)
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("text", ["invpt:photometric=false", "custom:scale=0.6-1.8,flip=0.5,max_class=0.8"])
@pytest.mark.parametrize("seed", range(4))
def test_labels_move_with_the_image(text, seed):
    scale, *_ = augmentation.draw(text, np.random.default_rng(seed))
    got = transformed(text, seed)
    inner = np.zeros(SIZE, bool)  # away from interpolation
    for value in range(1, 6):
        inner |= cv2.erode((got["semseg"][..., 0] == value).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert inner.mean() > 0.05
    classes = got["semseg"][inner].astype(np.float32)
    np.testing.assert_allclose(got["image"][inner] / 40, np.repeat(classes, 3, axis=1), atol=0.05)
    np.testing.assert_array_equal(got["human_parts"][inner], classes)
    np.testing.assert_array_equal(got["sal"][inner], classes > 3)
    np.testing.assert_allclose(got["depth"][inner], classes / scale, rtol=1e-6)
    np.testing.assert_allclose(np.abs(got["normals"][inner][:, 0]), np.sin(np.deg2rad(20 * classes[:, 0])), atol=1e-6)
    labelled = got["normals"][..., 0] != IGNORE
    np.testing.assert_allclose(np.linalg.norm(got["normals"][labelled], axis=1), 1, atol=1e-6)
    outside = (got["image"] == geometry.MEAN_COLOR).all(axis=2)
    assert (outside == (got["semseg"][..., 0] == IGNORE)).all()
    for name in tasks.TASKS:
        assert (got[name][outside] == IGNORE).all()
        assert got[name].dtype == tasks.get(name).kind.dtype


def test_a_crop_with_one_dominating_class_is_rejected():
    crop = augmentation.Crop(0.75)
    context = augmentation.Context((4, 4), augmentation.get_recipe("invpt").resampling, "", Conventions())
    classes = np.zeros((4, 12, 1), np.uint8)
    classes[:, 8:10], classes[:, 10:] = 1, 2
    # Nothing but class 0; three quarters of it and a quarter of class 1; half class 1 and half class 2.
    left, middle, right = 0.0, 5.5 / 9, 0.99
    numbers = np.arange(11) * 1e-9  # there is no room above, so that these shares tell which part is taken
    for shares, want in (([left, right], 1), ([middle, right], 1), ([left], 10), ([right, left], 0)):
        drawn = np.stack([numbers, np.resize(shares + [left] * 11, 11)], axis=1)
        assert crop.settle({"semseg": classes}, drawn, context).tolist() == drawn[want : want + 1].tolist()
    classes[:, 1:] = IGNORE  # one class and pixels without any
    assert crop.settle({"semseg": classes}, drawn, context)[0, 0] == numbers[10]
    assert crop.settle({}, drawn, context)[0, 0] == 0


def test_cutout_hides_a_rectangle():
    maps = sample(*SIZE)
    ignored = transformed("custom:cutout=1", 3, maps)
    hidden = (ignored["image"] == geometry.MEAN_COLOR).all(axis=2)
    hole = augmentation.draw("custom:cutout=1", np.random.default_rng(3))[-1]
    assert hidden.mean() == pytest.approx(hole.area, abs=0.02)
    rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
    assert hidden.sum() == len(rows) * len(columns)
    assert len(rows) / len(columns) == pytest.approx(hole.aspect, rel=0.2)
    kept = transformed("custom:cutout=1,cutout_labels=keep", 3, maps)
    np.testing.assert_array_equal(kept["image"], ignored["image"])
    for name in tasks.TASKS:
        assert (ignored[name][hidden] == IGNORE).all()
        np.testing.assert_array_equal(ignored[name][~hidden], kept[name][~hidden])
        assert not (kept[name][hidden] == IGNORE).any()
    with_none = transformed("custom:cutout=1e-9", 3, maps)
    np.testing.assert_array_equal(with_none["image"], maps["image"])


def test_inputs_are_not_changed():
    maps = sample()
    before = {name: x.copy() for name, x in maps.items()}
    text = "custom:rotation=9,scale=0.5-2,flip=1,photometric=true,jitter=0.4+0.4+0.4+0.1,cutout=1"
    for seed in range(4):
        transformed(text, seed, maps)
        transformed("custom:flip=1,cutout=1", seed, maps)
        for name, x in maps.items():
            np.testing.assert_array_equal(x, before[name], err_msg=name)


@pytest.mark.parametrize("given", [(40, 64), (48, 50), (48, 64), (96, 100), (30, 200), (7, 5)])
def test_evaluation_pads_and_takes_the_padding_off(given):
    maps = sample(*given)
    got = augmentation.val_transform(maps, SIZE, "invpt", normalised=False)
    height, width = placing.fitted(given, SIZE)
    assert height <= 48
    assert width <= 64
    assert given == (height, width) or height == 48 or width == 64
    content = placing.content(got["semseg"], given, "pad")
    want = cv2.resize(maps["semseg"], (width, height), interpolation=cv2.INTER_NEAREST)[..., None]
    np.testing.assert_array_equal(content, want)
    assert (got["semseg"] != IGNORE).sum() == height * width
    np.testing.assert_array_equal(placing.content(got["semseg"], given, "stretch"), got["semseg"])
    trained = augmentation.train_transform(
        maps, augmentation.draw("custom", np.random.default_rng(0)), "custom", SIZE, normalised=False
    )
    looked_at = augmentation.val_transform(maps, SIZE, "custom", normalised=False)
    for name in trained:  # scale 1 is what evaluation sees
        np.testing.assert_array_equal(trained[name], looked_at[name], err_msg=name)


def test_the_preset_has_sizes_of_its_own():
    sizes = {
        (dataset, augmentation_name, given): image_size(
            Config(Data(dataset, ("semseg",), augmentation=augmentation_name, image_size=given))
        )
        for dataset in ("nyud", "pascal")
        for augmentation_name in ("", "invpt:flip=0", "astmt")
        for given in ((0, 0), (64, 96))
    }
    for (dataset, name, given), size in sizes.items():
        own = catalogue.get(dataset).image_size
        preset = (448, 576) if dataset == "nyud" and name.startswith("invpt") else own
        assert size == (given if given != (0, 0) else preset)
