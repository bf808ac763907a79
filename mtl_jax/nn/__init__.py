"""Building blocks shared by all backbones, heads and models, with torch's semantics where Flax differs."""

from mtl_jax.nn.blocks import BasicBlock, Bottleneck
from mtl_jax.nn.conv import Conv, Linear
from mtl_jax.nn.depthwise_conv import DepthwiseConv
from mtl_jax.nn.drop_path import DropPath, drop_path_rates
from mtl_jax.nn.dropout import Dropout
from mtl_jax.nn.dtype import compute_dtype
from mtl_jax.nn.fold import fold_batch_norm
from mtl_jax.nn.frozen import Frozen, freeze_parameters
from mtl_jax.nn.initial_keys import InitialKeys
from mtl_jax.nn.inverted_residual import InvertedResidual, SeparableConv
from mtl_jax.nn.layer_norm import LayerNorm
from mtl_jax.nn.layer_scale import LayerScale
from mtl_jax.nn.mlp import Mlp, PackedSwiGLU, SwiGLU
from mtl_jax.nn.norm import BatchNorm
from mtl_jax.nn.numbered import Numbered
from mtl_jax.nn.pad import pad_to_multiples
from mtl_jax.nn.patch_embed import PatchEmbed, PatchProjection
from mtl_jax.nn.pool import max_pool_2x2, max_pool_stem
from mtl_jax.nn.remat import Staged, recomputable
from mtl_jax.nn.resize import double_aligned, resize_bilinear, resize_like
from mtl_jax.nn.resize_layers import resize_layers
from mtl_jax.nn.self_attention import SelfAttention
from mtl_jax.nn.sequential import Sequential
from mtl_jax.nn.squeeze_excite import SqueezeExcite
from mtl_jax.nn.tokens import BlockTokens, Tokens
from mtl_jax.nn.transposed_conv import DoublingConv, TransposedConv
from mtl_jax.nn.window_attention import WindowAttention

__all__ = [
    "BasicBlock",
    "BatchNorm",
    "BlockTokens",
    "Bottleneck",
    "Conv",
    "DepthwiseConv",
    "DoublingConv",
    "DropPath",
    "Dropout",
    "Frozen",
    "InitialKeys",
    "InvertedResidual",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "Mlp",
    "Numbered",
    "PackedSwiGLU",
    "PatchEmbed",
    "PatchProjection",
    "SelfAttention",
    "SeparableConv",
    "Sequential",
    "SqueezeExcite",
    "Staged",
    "SwiGLU",
    "Tokens",
    "TransposedConv",
    "WindowAttention",
    "compute_dtype",
    "double_aligned",
    "drop_path_rates",
    "fold_batch_norm",
    "freeze_parameters",
    "max_pool_2x2",
    "max_pool_stem",
    "pad_to_multiples",
    "recomputable",
    "resize_bilinear",
    "resize_layers",
    "resize_like",
]
