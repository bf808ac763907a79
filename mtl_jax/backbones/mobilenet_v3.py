"""MobileNetV3 (arXiv 1905.02244), large and small."""

from flax import nnx
from flax.nnx import relu

from mtl_jax.backbones.mobile import TIMM, Block, MobileNet, Variant, rounded
from mtl_jax.backbones.registry import register
from mtl_jax.backbones.weights_table import register_weights
from mtl_jax.nn.activations import hard_swish
from mtl_jax.runtime.published_files import Address

# Tables 1 and 2: kernel size, expansion size, channels, squeeze-and-excitation, activation, stride. Rows that timm's
# files count together stand together.
_LARGE = (
    ((3, 16, 16, False, relu, 1),),
    ((3, 64, 24, False, relu, 2), (3, 72, 24, False, relu, 1)),
    ((5, 72, 40, True, relu, 2), (5, 120, 40, True, relu, 1), (5, 120, 40, True, relu, 1)),
    (
        (3, 240, 80, False, hard_swish, 2),
        (3, 200, 80, False, hard_swish, 1),
        (3, 184, 80, False, hard_swish, 1),
        (3, 184, 80, False, hard_swish, 1),
    ),
    ((3, 480, 112, True, hard_swish, 1), (3, 672, 112, True, hard_swish, 1)),
    ((5, 672, 160, True, hard_swish, 2), (5, 960, 160, True, hard_swish, 1), (5, 960, 160, True, hard_swish, 1)),
)
_SMALL = (
    ((3, 16, 16, True, relu, 2),),
    ((3, 72, 24, False, relu, 2), (3, 88, 24, False, relu, 1)),
    ((5, 96, 40, True, hard_swish, 2), (5, 240, 40, True, hard_swish, 1), (5, 240, 40, True, hard_swish, 1)),
    ((5, 120, 48, True, hard_swish, 1), (5, 144, 48, True, hard_swish, 1)),
    ((5, 288, 96, True, hard_swish, 2), (5, 576, 96, True, hard_swish, 1), (5, 576, 96, True, hard_swish, 1)),
)


def _variant(groups: tuple, last: int) -> Variant:
    blocks = tuple(
        tuple(
            Block(kernel, hidden, features, activation, stride, rounded(hidden / 4) if squeeze else 0)
            for kernel, hidden, features, squeeze, activation, stride in group
        )
        for group in groups
    )
    return Variant(16, blocks, hard_swish, last)


VARIANTS = {"mobilenetv3_small": _variant(_SMALL, 576), "mobilenetv3_large": _variant(_LARGE, 960)}


for _name, _file in {
    "mobilenetv3_small": "mobilenetv3_small_100_lamb-266a294c.pth",
    "mobilenetv3_large": "mobilenetv3_large_100_ra-f55367f5.pth",
}.items():
    register_weights(_name, "imagenet", Address(TIMM + _file), license="Apache-2.0")


@register(*VARIANTS)
def build_mobilenet_v3(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> MobileNet:
    """Builds the MobileNetV3 of a name in `VARIANTS`, for images of any size."""
    return MobileNet(VARIANTS[name], rngs=rngs)
