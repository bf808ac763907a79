"""Maps of four resolutions from the maps of a plain transformer, which all have one resolution."""

from collections.abc import Sequence

import jax
from flax import nnx

from mtl_jax.backbones.base import Maps
from mtl_jax.nn import Conv, recomputable, resize_layers


class Pyramid(nnx.Module):
    """The "reassemble" stage of DPT (arXiv 2103.13413, sec. 3.1): four maps to four resolutions.

    A conv1x1 brings map i to its width. The first map is then enlarged four times and the second one twice, by
    transposed convolutions, the third one stays, and the last one is halved by a conv3x3. With patches of 16 pixels
    the strides are 4, 8, 16 and 32, as those of a ResNet. The widths are those of DINOv2's dense heads: C/8, C/4, C/2
    and C.

    Args:
        features: Number of channels C of the maps.
        rngs: Source of the initial weights.

    Attributes:
        channels: Number of channels of each result, finest first.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.channels = (features // 8, features // 4, features // 2, features)
        self.projects = nnx.List([Conv(features, width, 1, use_bias=True, rngs=rngs) for width in self.channels])
        self.resize_layers = resize_layers(self.channels, rngs=rngs)

    @recomputable
    def __call__(self, maps: Sequence[jax.Array]) -> Maps:
        """`([B, h, w, C], ...) -> ([B, 4h, 4w, C/8], [B, 2h, 2w, C/4], [B, h, w, C/2], [B, h/2, w/2, C])`

        Odd sides are rounded up where they are halved.
        """
        layers = zip(self.projects, self.resize_layers, maps, strict=True)
        return tuple(resize(project(x)) for project, resize, x in layers)
