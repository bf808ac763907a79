"""Residual blocks (arXiv 1512.03385, fig. 5)."""

from functools import partial

import jax
from flax import nnx
from flax.typing import Dtype

from mtl_jax.nn.conv import Conv
from mtl_jax.nn.init import Initializer, torch_uniform
from mtl_jax.nn.norm import BatchNorm
from mtl_jax.nn.sequential import Sequential


def _shortcut(in_features: int, out_features: int, stride: int, conv: partial, norm: partial) -> Sequential | None:
    """Projection of the identity branch where its shape changes, else None."""
    if stride == 1 and in_features == out_features:
        return None
    return Sequential([conv(in_features, out_features, 1, stride=stride), norm(out_features)])


class BasicBlock(nnx.Module):
    """conv3x3 BN ReLU conv3x3 BN, plus the input, ReLU: `[B, H, W, in] -> [B, H/stride, W/stride, features]`.

    Args:
        dilation: of the 3x3 convolutions.
        first_dilation: of the first of them, where it differs.
    """

    expansion = 1

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        first_dilation: int | None = None,
        momentum: float = 0.1,
        kernel_init: Initializer = torch_uniform,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        conv = partial(Conv, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=momentum, dtype=dtype)
        self.conv1 = conv(in_features, features, 3, stride=stride, dilation=first_dilation or dilation)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3, dilation=dilation)
        self.bn2 = norm(features)
        self.downsample = _shortcut(in_features, features, stride, conv, norm)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """conv1x1 BN ReLU conv3x3 BN ReLU conv1x1 BN, plus the input, ReLU; `4 * features` output channels.

    Args: as of `BasicBlock`; here the first 3x3 convolution is the only one.
    """

    expansion = 4

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        first_dilation: int | None = None,
        momentum: float = 0.1,
        kernel_init: Initializer = torch_uniform,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        conv = partial(Conv, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=momentum, dtype=dtype)
        out_features = self.expansion * features
        self.conv1 = conv(in_features, features, 1)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3, stride=stride, dilation=first_dilation or dilation)
        self.bn2 = norm(features)
        self.conv3 = conv(features, out_features, 1)
        self.bn3 = norm(out_features)
        self.downsample = _shortcut(in_features, out_features, stride, conv, norm)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x)))
