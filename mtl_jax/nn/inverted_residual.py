"""Inverted residual blocks (arXiv 1801.04381, fig. 4) with squeeze-and-excitation (arXiv 1905.02244, fig. 4)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import jax
from flax import nnx

from mtl_jax.nn.activations import hard_sigmoid
from mtl_jax.nn.conv import Conv
from mtl_jax.nn.depthwise_conv import DepthwiseConv
from mtl_jax.nn.init import he_normal_depthwise, he_normal_fan_out
from mtl_jax.nn.norm import EPSILON, BatchNorm

Activation = Callable[[jax.Array], jax.Array]


class HardSqueezeExcite(nnx.Module):
    """Squeeze-and-excitation of MobileNetV3: x * hard_sigmoid(conv(relu(conv(mean_hw(x))))).

    Args:
        features: Number of channels of the input.
        hidden: Number of hidden units.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        conv = partial(Conv, kernel_size=1, use_bias=True, kernel_init=he_normal_fan_out, rngs=rngs)
        self.conv_reduce = conv(features, hidden)
        self.conv_expand = conv(hidden, features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C] -> [B, H, W, C]`"""
        y = nnx.relu(self.conv_reduce(x.mean((1, 2), keepdims=True)))
        return x * hard_sigmoid(self.conv_expand(y))


class SeparableConv(nnx.Module):
    """Depthwise convolution, BN, activation, conv1x1, BN; plus the input where the shapes agree.

    `[B, H, W, in] -> [B, ceil(H / stride), ceil(W / stride), features]`. It is the inverted residual block that does
    not widen its input.

    Args:
        in_features: Number of input channels.
        features: Number of output channels.
        kernel_size: Side of the depthwise kernels.
        stride: Stride of the depthwise convolution.
        activation: Activation after the depthwise convolution.
        squeeze: Number of hidden units of squeeze-and-excitation before the conv1x1; 0 = none.
        same_padding: Padding of the depthwise convolution, see `DepthwiseConv`.
        epsilon: What batch norms add to the variance.
        rngs: Source of the initial weights.
    """

    norm_inputs: ClassVar[Mapping[str, str]] = {"bn1": "conv_dw", "bn2": "conv_pw"}

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        kernel_size: int,
        stride: int,
        activation: Activation,
        squeeze: int = 0,
        same_padding: bool = False,
        epsilon: float = EPSILON,
        rngs: nnx.Rngs,
    ):
        self.conv_dw = DepthwiseConv(
            in_features,
            kernel_size,
            stride=stride,
            same_padding=same_padding,
            kernel_init=he_normal_depthwise,
            rngs=rngs,
        )
        self.bn1 = BatchNorm(in_features, epsilon=epsilon)
        self.se = HardSqueezeExcite(in_features, squeeze, rngs=rngs) if squeeze else None
        self.conv_pw = Conv(in_features, features, 1, kernel_init=he_normal_fan_out, rngs=rngs)
        self.bn2 = BatchNorm(features, epsilon=epsilon)
        self.activation = activation
        self.adds_input = stride == 1 and in_features == features

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.activation(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y if self.se is None else self.se(y)))
        return x + y if self.adds_input else y


class InvertedResidual(nnx.Module):
    """conv1x1 to more channels, BN, activation, and a `SeparableConv` to few channels.

    `[B, H, W, in] -> [B, ceil(H / stride), ceil(W / stride), features]`

    Args:
        in_features: Number of input channels.
        hidden: Number of channels of the depthwise convolution.
        features: Number of output channels.
        kernel_size: Side of the depthwise kernels.
        stride: Stride of the depthwise convolution.
        activation: Activation after the first two convolutions.
        squeeze: Number of hidden units of squeeze-and-excitation before the last conv1x1; 0 = none.
        same_padding: Padding of the depthwise convolution, see `DepthwiseConv`.
        epsilon: What batch norms add to the variance.
        rngs: Source of the initial weights.
    """

    norm_inputs: ClassVar[Mapping[str, str]] = {"bn1": "conv_pw", "bn2": "conv_dw", "bn3": "conv_pwl"}

    def __init__(
        self,
        in_features: int,
        hidden: int,
        features: int,
        *,
        kernel_size: int,
        stride: int,
        activation: Activation,
        squeeze: int = 0,
        same_padding: bool = False,
        epsilon: float = EPSILON,
        rngs: nnx.Rngs,
    ):
        pointwise = partial(Conv, kernel_size=1, kernel_init=he_normal_fan_out, rngs=rngs)
        norm = partial(BatchNorm, epsilon=epsilon)
        self.conv_pw = pointwise(in_features, hidden)
        self.bn1 = norm(hidden)
        self.conv_dw = DepthwiseConv(
            hidden, kernel_size, stride=stride, same_padding=same_padding, kernel_init=he_normal_depthwise, rngs=rngs
        )
        self.bn2 = norm(hidden)
        self.se = HardSqueezeExcite(hidden, squeeze, rngs=rngs) if squeeze else None
        self.conv_pwl = pointwise(hidden, features)
        self.bn3 = norm(features)
        self.activation = activation
        self.adds_input = stride == 1 and in_features == features

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.activation(self.bn1(self.conv_pw(x)))
        y = self.activation(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y if self.se is None else self.se(y)))
        return x + y if self.adds_input else y
