"""The tokens of a vision transformer, as heads read them."""

from dataclasses import dataclass

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of images. It is a pytree.

    Attributes:
        patches: Tokens of the patches, `[B, h, w, C]`.
        class_token: Token of the image, `[B, C]`.
    """

    patches: jax.Array
    class_token: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockTokens:
    """The tokens after one block of a transformer. It is a pytree.

    Attributes:
        raw: Tokens as the block returns them.
        normed: Tokens after the final norm of the transformer.
    """

    raw: Tokens
    normed: Tokens
