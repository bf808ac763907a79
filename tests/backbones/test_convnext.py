"""ConvNeXts: files of weights, small images. `tests/backbones/test_hierarchy.py` has what they share with others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models, weights
from mtl_jax.backbones.convnext import VARIANTS, ConvNeXt, Encoder, published
from mtl_jax.nn import InitialKeys
from parity import transformers

TIMM = {name: f"full_timm_{name}" for name in ("convnext_tiny", "convnext_base")}
# Numbers of parameters of timm's features, which have neither the classifier nor the norm before it.
PARAMETERS = {
    "convnext_tiny": 27_818_592,
    "convnext_small": 49_453_152,
    "convnext_base": 87_564_416,
    "convnext_large": 196_227_264,
}


def abstract(name):
    return nnx.eval_shape(lambda: Encoder(VARIANTS[name], rngs=InitialKeys(0)))


@pytest.mark.parametrize(("name", "file"), TIMM.items())
def test_published_files_fill_the_network_exactly(name, file):
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in transformers.keys(file)}
    weights.check_torch(abstract(name), published(arrays))


@pytest.mark.parametrize(("name", "number"), PARAMETERS.items())
def test_number_of_parameters(name, number):
    assert models.count_parameters(abstract(name)) == number
    assert PARAMETERS.keys() == VARIANTS.keys()


def test_names_of_convnexts_own_files_and_of_timms_features():
    original = {
        "downsample_layers.0.0.weight": 1,
        "downsample_layers.0.1.bias": 2,
        "downsample_layers.3.1.weight": 3,
        "stages.2.8.gamma": 4,
        "stages.2.8.dwconv.weight": 5,
        "stages.2.8.norm.bias": 6,
        "stages.2.8.pwconv1.weight": 7,
        "stages.2.8.pwconv2.bias": 8,
        "norm.weight": 9,
        "head.bias": 10,
    }
    assert published(original) == {
        "stem.0.weight": 1,
        "stem.1.bias": 2,
        "stages.3.downsample.1.weight": 3,
        "stages.2.blocks.8.gamma": 4,
        "stages.2.blocks.8.conv_dw.weight": 5,
        "stages.2.blocks.8.norm.bias": 6,
        "stages.2.blocks.8.mlp.fc1.weight": 7,
        "stages.2.blocks.8.mlp.fc2.bias": 8,
    }
    features = {"stem_1.weight": 1, "stages_2.blocks.10.gamma": 2}
    assert published(features) == {"stem.1.weight": 1, "stages.2.blocks.10.gamma": 2}


def test_images_that_leave_no_pixel_at_stride_32_are_refused():
    model = nnx.eval_shape(lambda: ConvNeXt("convnext_tiny", rngs=InitialKeys(0)))
    with pytest.raises(ValueError, match=r"images of 31x64 pixels .* stride 32; .* to 32x32 or more"):
        jax.eval_shape(model, jax.ShapeDtypeStruct((1, 31, 64, 3), jnp.float32))
