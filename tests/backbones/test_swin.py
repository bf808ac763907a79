"""Swin Transformers: files of weights. `tests/backbones/test_hierarchy.py` has what they share with other networks."""

import numpy as np
import pytest
from flax import nnx

from mtl_jax import models, weights
from mtl_jax.backbones.swin import VARIANTS, SwinTransformer, published
from mtl_jax.nn import InitialKeys
from parity import transformers

TIMM = {
    "swin_tiny_patch4_window7": "full_timm_swin_tiny_patch4_window7_224",
    "swin_base_patch4_window7": "full_timm_swin_base_patch4_window7_224",
    "swin_base_patch4_window12": "full_timm_swin_base_patch4_window12_384",
    "swin_large_patch4_window12": "full_timm_swin_large_patch4_window12_384",
}
# Numbers of parameters of timm's features, which have neither the classifier nor the norm before it.
PARAMETERS = {
    "swin_tiny_patch4_window7": 27_517_818,
    "swin_small_patch4_window7": 48_835_722,
    "swin_base_patch4_window7": 86_741_176,
    "swin_base_patch4_window12": 86_876_536,
    "swin_large_patch4_window7": 194_992_404,
    "swin_large_patch4_window12": 195_195_444,
}


def abstract(name):
    return nnx.eval_shape(lambda: SwinTransformer(VARIANTS[name], rngs=InitialKeys(0)))


def file_of(name):
    """Arrays under the keys and in the shapes of a published file, which take no memory."""
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in transformers.keys(name)}


@pytest.mark.parametrize(("name", "file"), TIMM.items())
def test_published_files_fill_the_transformer_exactly(name, file):
    weights.check_torch(abstract(name), published(file_of(file)))


def test_a_file_for_other_windows_is_refused():
    arrays = published(file_of(TIMM["swin_base_patch4_window12"]))
    with pytest.raises(ValueError, match=r"bias_table is \(529, 4\), the model has \(169, 4\)"):
        weights.check_torch(abstract("swin_base_patch4_window7"), arrays)


@pytest.mark.parametrize(("name", "number"), PARAMETERS.items())
def test_number_of_parameters(name, number):
    assert models.count_parameters(abstract(name)) == number
    assert PARAMETERS.keys() == VARIANTS.keys()


def test_names_of_swins_own_files_and_of_timms_features():
    """Swin's code halves the resolution at the end of a stage, and stores what follows from the size of windows."""
    original = {
        "layers.0.downsample.norm.weight": 1,
        "layers.2.downsample.reduction.weight": 2,
        "layers.0.blocks.1.attn_mask": 3,
        "layers.0.blocks.1.attn.relative_position_index": 4,
        "layers.3.blocks.1.attn.qkv.weight": 5,
        "norm.weight": 6,
        "head.weight": 7,
    }
    assert published(original) == {
        "layers.1.downsample.norm.weight": 1,
        "layers.3.downsample.reduction.weight": 2,
        "layers.3.blocks.1.attn.qkv.weight": 5,
    }
    features = {"layers_1.downsample.norm.weight": 1, "patch_embed.proj.weight": 2}
    assert published(features) == {"layers.1.downsample.norm.weight": 1, "patch_embed.proj.weight": 2}
