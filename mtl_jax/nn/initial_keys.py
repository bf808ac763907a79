"""Random keys of the initial weights."""

import jax
from flax import nnx


class InitialKeys(nnx.Rngs):
    """The keys of `nnx.Rngs(seed)`, which are counted in Python.

    `nnx.Rngs` counts in an array. While `nnx.eval_shape` builds a model, flax asks for the sharding of this counter at
    each key, and jax goes through all operations so far to say that the counter has none yet. The time to build a model
    is then quadratic in the number of its layers.

    Args:
        seed: Seed of the keys.
    """

    def __init__(self, seed: int):
        self.default = _CountedStream(seed, tag="default")


class _CountedStream(nnx.RngStream):
    def __init__(self, key: jax.Array | int, *, tag: str):
        super().__init__(key, tag=tag)
        self.taken = 0

    def __call__(self) -> jax.Array:
        self.taken += 1
        return jax.random.fold_in(self.key[...], self.taken - 1)

    def fork(self, **_) -> nnx.RngStream:
        """Returns the stream that a layer keeps: its counter is an array, which a jitted step can change."""
        return nnx.RngStream(self(), tag=self.tag)
