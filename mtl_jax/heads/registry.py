"""The heads by name."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from flax import nnx

from mtl_jax.registry import Registry

Factory = TypeVar("Factory", bound=Callable[..., nnx.Module])

HEADS: Registry[Callable[..., nnx.Module]] = Registry("head", "heads", "mtl_jax.heads.register")


def register(name: str) -> Callable[[Factory], Factory]:
    """Returns a decorator that registers a head, which `model.head` then may name::

        @heads.register("linear")
        class LinearHead(nnx.Module):
            def __init__(self, channels, num_outputs, *, rngs):
                self.conv = nn.Conv(channels[-1], num_outputs, 1, use_bias=True, rngs=rngs)

            @nn.recomputable
            def __call__(self, maps):
                return self.conv(maps[-1])

    A head is a class or function called as `head(channels, num_outputs, rngs=rngs)`. The module that it makes turns
    the maps of a backbone, `[B, H, W, channels[0]]` first, into logits `[B, h, w, num_outputs]` of any resolution.

    Args:
        name: Name of the head.

    Raises:
        ValueError: The name is taken.
    """
    return HEADS.decorator(name)


def build(name: str, channels: Sequence[int], num_outputs: int, *, rngs: nnx.Rngs) -> nnx.Module:
    """Builds a head with random initial weights.

    Args:
        name: A key of `HEADS`; the empty string chooses deeplab for a single map and hrnet for several.
        channels: Number of channels of each map that the head reads, finest first.
        num_outputs: Number of logit channels.
        rngs: Source of the initial weights.

    Raises:
        ValueError: There is no such head.
    """
    return HEADS[name or ("deeplab" if len(channels) == 1 else "hrnet")](channels, num_outputs, rngs=rngs)
