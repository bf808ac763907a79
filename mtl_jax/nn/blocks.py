"""Residual blocks (arXiv 1512.03385, fig. 5)."""

import jax
from flax import nnx
from flax.typing import Dtype

from mtl_jax.nn.conv import Conv
from mtl_jax.nn.norm import BatchNorm
from mtl_jax.nn.sequential import Sequential


def _shortcut(in_features: int, out_features: int, stride: int, momentum: float, dtype: Dtype | None, rngs: nnx.Rngs):
    """Projection of the identity branch where its shape changes, else None."""
    if stride == 1 and in_features == out_features:
        return None
    conv = Conv(in_features, out_features, 1, stride=stride, dtype=dtype, rngs=rngs)
    return Sequential([conv, BatchNorm(out_features, momentum=momentum, dtype=dtype)])


class BasicBlock(nnx.Module):
    """conv3x3 BN ReLU conv3x3 BN, plus the input, ReLU: `[B, H, W, in] -> [B, H/stride, W/stride, out]`."""

    expansion = 1

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int = 1,
        momentum: float = 0.1,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.conv1 = Conv(in_features, features, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(features, momentum=momentum, dtype=dtype)
        self.conv2 = Conv(features, features, 3, dtype=dtype, rngs=rngs)
        self.bn2 = BatchNorm(features, momentum=momentum, dtype=dtype)
        self.downsample = _shortcut(in_features, features, stride, momentum, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """conv1x1 BN ReLU conv3x3 BN ReLU conv1x1 BN, plus the input, ReLU; `4 * features` output channels."""

    expansion = 4

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int = 1,
        momentum: float = 0.1,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        out_features = self.expansion * features
        self.conv1 = Conv(in_features, features, 1, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(features, momentum=momentum, dtype=dtype)
        self.conv2 = Conv(features, features, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.bn2 = BatchNorm(features, momentum=momentum, dtype=dtype)
        self.conv3 = Conv(features, out_features, 1, dtype=dtype, rngs=rngs)
        self.bn3 = BatchNorm(out_features, momentum=momentum, dtype=dtype)
        self.downsample = _shortcut(in_features, out_features, stride, momentum, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x)))
