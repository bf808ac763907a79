"""Keys of the initial weights."""

import jax
import numpy as np
from flax import nnx

from mtl_jax.nn import Conv, InitialKeys, Sequential


def layers(rngs):
    return Sequential([Conv(3, 4, 3, rngs=rngs), Conv(4, 4, 1, use_bias=True, rngs=rngs)])


def test_the_weights_are_those_of_flax():
    ours, theirs = layers(InitialKeys(3)), layers(nnx.Rngs(3))
    assert nnx.graphdef(ours) == nnx.graphdef(theirs)
    jax.tree.map(np.testing.assert_array_equal, *(nnx.as_pure(nnx.state(model)) for model in (ours, theirs)))


def test_a_trace_has_no_counter():
    """A counter that is an array makes the time to build a model quadratic in its number of layers."""

    def primitives(rngs):
        return {eqn.primitive.name for eqn in jax.make_jaxpr(lambda: [rngs(0).params() for _ in range(2)])().eqns}

    assert "add" in primitives(nnx.Rngs)
    assert "add" not in primitives(InitialKeys)


def test_a_layer_may_keep_a_stream():
    """Its keys change in each step of a compiled function."""
    dropout = nnx.Dropout(0.5, rngs=InitialKeys(0))
    step = nnx.jit(lambda dropout: dropout(jax.numpy.ones(64)))
    assert not np.array_equal(step(dropout), step(dropout))
