"""The names in files of published vision transformers: those of DINOv2, DINOv3 and timm."""

import itertools
import logging
import math
import re
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from mtl_jax.backbones.published import renamed
from mtl_jax.backbones.vit_variants import Variant
from mtl_jax.backbones.weights_table import register_weights
from mtl_jax.nn import PackedSwiGLU
from mtl_jax.nn.position_embedding import Resize, resize_antialiased
from mtl_jax.runtime.published_files import Address, HubFile

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

# What only pretraining, a classifier or another way of computing the same uses.
_LEFT_OUT = re.compile(r"mask_token|(?:head|fc_norm)\..*|rope_embed\.periods|blocks\.\d+\.attn\.qkv\.bias_mask")
_NAMES = (
    (r"^(?:reg_token|storage_tokens)$", "register_tokens"),  # timm; DINOv3
    (r"^blocks\.\d+\.(\d+\.)", r"blocks.\1"),  # DINOv2's training checkpoints number groups of blocks, too
    (r"\.gamma_([12])$", r".ls\1.gamma"),  # timm's DINOv3
)
_DINOV3_MLP = ((r"\.mlp\.w1\.", ".mlp.fc1_g."), (r"\.mlp\.w2\.", ".mlp.fc1_x."), (r"\.mlp\.w3\.", ".mlp.fc2."))
_TIMM_PACKED = ((r"\.mlp\.fc1\.", ".mlp.w12."), (r"\.mlp\.fc2\.", ".mlp.w3."))


def published(
    arrays: Mapping[str, np.ndarray],
    variant: Variant,
    grid: tuple[int, int] | None = None,
    resize: Resize = resize_antialiased,
) -> Arrays:
    """Returns the arrays of a published file under the names of `VisionTransformer`. Log lines say what changes.

    Args:
        arrays: {torch key: array} of a file from DINOv2, DINOv3 or timm.
        variant: Sizes of the transformer that takes them.
        grid: (rows, columns) of patches for which it stores the position embedding; None = those of the variant.
        resize: Function that resizes the position embedding of a file for another grid.
    """
    perceptron = _TIMM_PACKED if variant.mlp is PackedSwiGLU else _DINOV3_MLP
    ours = renamed(arrays, _LEFT_OUT, (*_NAMES, *perceptron))
    positioned = _with_positions(ours, grid or (variant.grid, variant.grid), resize)
    return _split_biases(positioned, variant)


def _with_positions(arrays: Arrays, size: tuple[int, int], resize: Resize) -> Arrays:
    """Brings the position embedding to the form `[1, 1 + M * M', C]`, where `size` is (M, M').

    Files have square grids. With registers, timm has added the embedding of the class token to the class token: what is
    left of it is 0.
    """
    embedding = arrays.get("pos_embed")
    if embedding is None or embedding.ndim != 3 or not any(size):
        return arrays
    side = round(embedding.shape[1] ** 0.5)
    if side**2 == embedding.shape[1]:
        embedding = np.concatenate([np.zeros_like(embedding[:, :1]), embedding], axis=1)
    side = round((embedding.shape[1] - 1) ** 0.5)
    if side**2 == embedding.shape[1] - 1 and (side, side) != size:
        logger.info("resizes the position embedding from %dx%d to %dx%d", side, side, *size)
        grid = jnp.asarray(embedding[:, 1:]).reshape(1, side, side, -1)
        resized = np.asarray(resize(grid, size)).astype(embedding.dtype)
        embedding = np.concatenate([embedding[:, :1], resized.reshape(1, math.prod(size), -1)], axis=1)
    return arrays | {"pos_embed": embedding}


def _split_biases(arrays: Arrays, variant: Variant) -> Arrays:
    """Takes the biases of queries and values from those of all projections, where a variant has these alone.

    DINOv3 masks the biases of keys, which change nothing: all scores of a query change alike.
    """
    if variant.biases != "q_and_v":
        return arrays
    split: Arrays = {}
    for name, array in arrays.items():
        if name.endswith(".attn.qkv.bias") and array.ndim == 1:
            block = name.removesuffix("qkv.bias")
            split[f"{block}q_bias"], _, split[f"{block}v_bias"] = np.split(array, 3)
        else:
            split[name] = array
    return split


# timm's files on the hub. No commit and no checksum of them is known here; every name and shape is checked.
def _on_hub(model: str) -> HubFile:
    return HubFile(f"timm/{model}")


_DEIT = "https://dl.fbaipublicfiles.com/deit/deit_{}_patch16_224-{}.pth"
for _size in ("small", "base", "large"):
    _file = _on_hub(f"vit_{_size}_patch16_384.augreg_in21k_ft_in1k")
    register_weights(f"vit_{_size}_patch16", "imagenet", _file, license="Apache-2.0")
for _size, _digits in {"small": "cd65a155", "base": "b5f2ef4d"}.items():
    register_weights(f"deit_{_size}_patch16", "imagenet", Address(_DEIT.format(_size, _digits)), license="Apache-2.0")
for _size, _registers in itertools.product(("small", "base", "large", "giant"), ("", "_reg4")):
    _file = _on_hub(f"vit_{_size}_patch14{_registers}_dinov2.lvd142m")
    register_weights(f"dinov2_{_size}{_registers}", "lvd142m", _file, license="Apache-2.0")
for _size, _biases in itertools.product(("small", "base", "large", "small_plus"), ("", "_qkvb")):
    _file = _on_hub(f"vit_{_size}_patch16_dinov3{_biases}.lvd1689m")
    register_weights(f"dinov3_{_size}{_biases}", "lvd1689m", _file, license="DINOv3 License")
