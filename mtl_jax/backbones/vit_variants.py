"""The vision transformers by name: ViT and DeiT (timm's models), DINOv2 and DINOv3."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from flax import nnx

from mtl_jax.backbones.renormalise import IMAGENET_MEAN, IMAGENET_STD, Channels
from mtl_jax.nn import Mlp, PackedSwiGLU, SwiGLU
from mtl_jax.nn.position_embedding import Resize, resize_antialiased, resize_with_offset
from mtl_jax.nn.self_attention import Biases

_HALF: Channels = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Variant:
    """The sizes of one vision transformer.

    Attributes:
        width: Number of channels of the tokens.
        heads: Number of attention heads.
        outputs: Numbers of blocks after which the four maps are taken; the last one is the number of blocks.
        patch: Side of a patch in pixels.
        grid: Side of the grid of patches for which the position embedding is stored; 0 = the tokens have a rotary
            embedding instead.
        resize: Function that resizes the position embedding to other grids.
        registers: Number of register tokens (DINOv3 calls them storage tokens).
        layer_scale: Initial value of the layer scale; 0 = the blocks have none.
        mlp: Class of the perceptrons.
        hidden: Number of their hidden units, as a multiple of the width; 0 = eight thirds, rounded up to a multiple of
            8, as in packed SwiGLU.
        biases: Biases of the projections to queries, keys and values.
        epsilon: What layer norms add to the variance.
        mean: Mean of the pixels (0 to 1, RGB) that the published weights were trained with.
        std: Standard deviation of the pixels likewise.
    """

    width: int
    heads: int
    outputs: tuple[int, int, int, int]
    patch: int = 16
    grid: int = 0
    resize: Resize = resize_antialiased
    registers: int = 0
    layer_scale: float = 0.0
    mlp: Callable[..., nnx.Module] = Mlp
    hidden: int = 4
    biases: Biases = "qkv"
    epsilon: float = 1e-6
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    @property
    def hidden_units(self) -> int:
        """Number of hidden units of the perceptrons."""
        return self.hidden * self.width or (int(8 * self.width / 3) + 7) // 8 * 8


_SMALL = Variant(width=384, heads=6, outputs=(3, 6, 9, 12))
_BASE = Variant(width=768, heads=12, outputs=(3, 6, 9, 12))
_LARGE = Variant(width=1024, heads=16, outputs=(6, 12, 18, 24))
# DINOv2 and DINOv3 take the first map of a large model one block earlier.
_DINO_LARGE = replace(_LARGE, outputs=(5, 12, 18, 24))
_GIANT = Variant(width=1536, heads=24, outputs=(10, 20, 30, 40), mlp=PackedSwiGLU, hidden=0)
_DINO = {"small": _SMALL, "base": _BASE, "large": _DINO_LARGE}


def _dinov2(size: Variant) -> Variant:
    return replace(size, patch=14, grid=37, resize=resize_with_offset, layer_scale=1e-5)


def _dinov3(size: Variant) -> Variant:
    return replace(size, registers=4, layer_scale=1e-5, epsilon=1e-5, biases="none")


_VIT = {
    f"vit_{name}_patch16": replace(size, grid=24, mean=_HALF, std=_HALF)
    for name, size in {"small": _SMALL, "base": _BASE, "large": _LARGE}.items()
}
_DEIT = {f"deit_{name}_patch16": replace(size, grid=14) for name, size in {"small": _SMALL, "base": _BASE}.items()}
_DINOV2 = {f"dinov2_{name}": _dinov2(size) for name, size in (_DINO | {"giant": _GIANT}).items()}
_DINOV2_REGISTERS = {
    f"{name}_reg4": replace(variant, registers=4, resize=resize_antialiased) for name, variant in _DINOV2.items()
}
_DINOV3 = {f"dinov3_{name}": _dinov3(size) for name, size in _DINO.items()}
_DINOV3_PLUS = {"dinov3_small_plus": replace(_DINOV3["dinov3_small"], mlp=SwiGLU)}
_DINOV3_BIASES = {
    f"{name}_qkvb": replace(variant, biases="q_and_v") for name, variant in (_DINOV3 | _DINOV3_PLUS).items()
}
VARIANTS: dict[str, Variant] = _VIT | _DEIT | _DINOV2 | _DINOV2_REGISTERS | _DINOV3 | _DINOV3_PLUS | _DINOV3_BIASES
