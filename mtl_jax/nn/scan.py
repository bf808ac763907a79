"""Equal modules that run one after the other, as one loop in the compiled program."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

Block = TypeVar("Block", bound=nnx.Module)

_UNROLLS = ContextVar("unrolls", default=False)


def run_blocks(blocks: Sequence[Block], call: Callable[[Block, jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Computes `x = call(block, x)` for block after block.

    The compiled program has the operations of a single block, in a loop over the stacked parameters of all. Each module
    keeps its own parameters.

    Args:
        blocks: Modules of one structure, which keep their variables as they are when they are called.
        call: Function from a module and its input to its output, which has the shape and the dtype of the input.
        x: Input of the first module.
    """
    if len(blocks) == 1 or _UNROLLS.get():
        for block in blocks:
            x = call(block, x)
        return x
    graphdef = nnx.split(blocks[0])[0]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(nnx.split(block)[1] for block in blocks))

    def step(x: jax.Array, state: nnx.State) -> tuple[jax.Array, None]:
        return call(nnx.merge(graphdef, state), x), None

    return jax.lax.scan(step, x, stacked)[0]


@contextlib.contextmanager
def unrolled() -> Iterator[None]:
    """Lets `run_blocks` repeat the operations for each block, in programs for formats without loops."""
    token = _UNROLLS.set(True)
    try:
        yield
    finally:
        _UNROLLS.reset(token)
