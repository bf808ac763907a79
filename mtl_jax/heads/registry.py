"""The heads by name, and their notation in a configuration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from flax import nnx

from mtl_jax import notation
from mtl_jax.heads.regression import RegressionHead, parse
from mtl_jax.registry import Registry

Factory = TypeVar("Factory", bound=Callable[..., nnx.Module])

HEADS: Registry[Callable[..., nnx.Module]] = Registry("head", "heads", "mtl_jax.heads.register")
_OF_CALLS = ("channels", "num_outputs", "rngs")  # parameters that are no arguments of the configuration


def register(name: str) -> Callable[[Factory], Factory]:
    """Returns a decorator that registers a head, which `model.head` then may name::

        @heads.register("linear_probe")
        class LinearProbe(nnx.Module):
            def __init__(self, channels, num_outputs, *, use_bias: bool = True, rngs):
                self.conv = nn.Conv(channels[-1], num_outputs, 1, use_bias=use_bias, rngs=rngs)

            @nn.recomputable
            def __call__(self, maps):
                return self.conv(maps[-1])

    A head is a class or function called as `head(channels, num_outputs, rngs=rngs)`. The module that it makes turns
    the maps of a backbone, `[B, H, W, channels[0]]` first, into logits `[B, h, w, num_outputs]` of any resolution.
    Its other parameters are arguments that the configuration may give, as in `linear_probe:use_bias=false`; they have
    type annotations and defaults, see `mtl_jax.notation`.

    A head with the attribute `reads_tokens = True` reads the tokens of a transformer in place of maps: a sequence of
    `mtl_jax.nn.BlockTokens`, the tokens of the first block with channels[0] channels.

    Args:
        name: Name of the head.

    Raises:
        ValueError: The name is taken.
    """
    return HEADS.decorator(name)


def reads_tokens(head: str) -> bool:
    """Returns True if a head, in the notation of `build`, reads tokens in place of maps.

    Raises:
        ValueError: There is no such head.
    """
    return bool(head) and getattr(HEADS[notation.split(head)[0]], "reads_tokens", False)


def check(head: str) -> None:
    """Checks the notation of a head; values that a head itself refuses are found when it is built.

    Raises:
        ValueError: There is no such head, it has no such argument, or a value has the wrong type.
    """
    if head:
        _parse(head)


def build(head: str, channels: Sequence[int], num_outputs: int, *, regression: str = "", rngs: nnx.Rngs) -> nnx.Module:
    """Builds a head with random initial weights.

    Args:
        head: NAME or NAME:ARGUMENT=VALUE,ARGUMENT=VALUE with a key of `HEADS`; the empty string chooses deeplab for a
            single map and hrnet for several.
        channels: Number of channels of each map that the head reads, finest first, or of the tokens of each block.
        num_outputs: Number of logit channels.
        regression: Regression that turns logits into real values, in the notation of `regression.parse`; "" = the
            logits are the values.
        rngs: Source of the initial weights.

    Raises:
        ValueError: There is no such head or regression, or an argument is unknown or impossible.
    """
    factory, arguments = _parse(head or ("deeplab" if len(channels) == 1 else "hrnet"))
    if not regression:
        return factory(channels, num_outputs, **arguments, rngs=rngs)
    chosen = parse(regression)
    return RegressionHead(factory(channels, chosen.num_logits, **arguments, rngs=rngs), chosen)


def _parse(head: str) -> tuple[Callable[..., nnx.Module], Mapping[str, Any]]:
    """Returns (factory of the head, its arguments)."""
    name, given = notation.split(head)
    factory = HEADS[name]
    # The metaclass of modules hides the signature of a class.
    signature = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    return factory, notation.arguments(given, signature, f"the head {name}", _OF_CALLS)
