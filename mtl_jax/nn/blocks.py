"""Residual blocks (arXiv 1512.03385, fig. 5)."""

from functools import partial

import jax
from flax import nnx

from mtl_jax.nn.conv import Conv
from mtl_jax.nn.init import Initializer, torch_uniform
from mtl_jax.nn.norm import BatchNorm
from mtl_jax.nn.sequential import Sequential


def _shortcut(in_features: int, out_features: int, stride: int, conv: partial, norm: partial) -> Sequential | None:
    """Returns the projection of the identity branch if its shape changes, else None."""
    if stride == 1 and in_features == out_features:
        return None
    return Sequential([conv(in_features, out_features, 1, stride=stride), norm(out_features)])


class BasicBlock(nnx.Module):
    """Residual block relu(x + BN(conv3x3(relu(BN(conv3x3(x)))))): `[B, H, W, in] -> [B, H/stride, W/stride, features]`.

    Args:
        in_features: Number of input channels.
        features: Number of channels of the 3x3 convolutions.
        stride: Stride of the first convolution.
        dilation: Dilation of the 3x3 convolutions.
        first_dilation: Dilation of the first 3x3 convolution, if it differs.
        momentum: Weight of a new batch in the running statistics of the batch norms.
        kernel_init: Initialiser of the kernels.
        rngs: Source of the initial weights.
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
        rngs: nnx.Rngs,
    ):
        conv = partial(Conv, kernel_init=kernel_init, rngs=rngs)
        norm = partial(BatchNorm, momentum=momentum)
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
    """Residual block conv1x1 BN ReLU conv3x3 BN ReLU conv1x1 BN, plus the input, ReLU.

    `[B, H, W, in] -> [B, H/stride, W/stride, 4 * features]`

    Args:
        in_features: Number of input channels.
        features: Number of channels of the 3x3 convolution.
        stride: Stride of the 3x3 convolution.
        dilation: Dilation of the 3x3 convolution.
        first_dilation: Dilation of the 3x3 convolution, if it differs from `dilation`.
        momentum: Weight of a new batch in the running statistics of the batch norms.
        kernel_init: Initialiser of the kernels.
        rngs: Source of the initial weights.
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
        rngs: nnx.Rngs,
    ):
        conv = partial(Conv, kernel_init=kernel_init, rngs=rngs)
        norm = partial(BatchNorm, momentum=momentum)
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
