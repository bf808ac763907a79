"""MobileNetV2 (arXiv 1801.04381), at several widths."""

from flax import nnx

from mtl_jax.backbones.mobile import TIMM, MobileNet, Variant, rounded, rows_to_groups
from mtl_jax.backbones.registry import register
from mtl_jax.backbones.weights_table import register_weights
from mtl_jax.nn.activations import relu6
from mtl_jax.runtime.published_files import Address

# Table 2: kernel size, expansion factor t, channels c, blocks n, stride s of the first block.
_ROWS = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (3, 6, 32, 3, 2),
    (3, 6, 64, 4, 2),
    (3, 6, 96, 3, 1),
    (3, 6, 160, 3, 2),
    (3, 6, 320, 1, 1),
)


def _variant(width: float) -> Variant:
    stem = rounded(32 * width)
    rows = [(kernel, factor, rounded(width * channels), blocks, s) for kernel, factor, channels, blocks, s in _ROWS]
    return Variant(stem, rows_to_groups(rows, stem, relu6), relu6)


# The number in a name is the width multiplier in percent.
VARIANTS = {
    "mobilenetv2_050": _variant(0.5),
    "mobilenetv2_100": _variant(1.0),
    "mobilenetv2_140": _variant(1.4),
}


for _name, _file in {
    "mobilenetv2_050": "mobilenetv2_050-3d30d450.pth",
    "mobilenetv2_100": "mobilenetv2_100_ra-b33bc2c4.pth",
    "mobilenetv2_140": "mobilenetv2_140_ra-21a4e913.pth",
}.items():
    register_weights(_name, "imagenet", Address(TIMM + _file), license="Apache-2.0")


@register(*VARIANTS)
def build_mobilenet_v2(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> MobileNet:
    """Builds the MobileNetV2 of a name in `VARIANTS`, for images of any size."""
    return MobileNet(VARIANTS[name], rngs=rngs)
