"""Heads: feature maps to logits. `build` makes one by name."""

from collections.abc import Callable, Sequence

from flax import nnx
from flax.typing import Dtype

from mtl_jax.heads.deeplab import DeepLabHead
from mtl_jax.heads.hrnet import Fusion, HRNetHead

HEADS: dict[str, Callable[..., nnx.Module]] = {"hrnet": HRNetHead, "deeplab": DeepLabHead}


def build(
    name: str, channels: Sequence[int], num_outputs: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs
) -> nnx.Module:
    """A head that reads maps of these widths, finest first.

    Args:
        name: a key of `HEADS`; empty = deeplab for a single map, hrnet for several.

    Raises:
        ValueError: no such head.
    """
    name = name or ("deeplab" if len(channels) == 1 else "hrnet")
    if name not in HEADS:
        raise ValueError(f"unknown head {name!r}; the heads are {', '.join(HEADS)}")
    return HEADS[name](channels, num_outputs, dtype=dtype, rngs=rngs)


__all__ = ["HEADS", "DeepLabHead", "Fusion", "HRNetHead", "build"]
