import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax.nn import BatchNorm, Conv, Dropout, Sequential, Staged, recomputable
from mtl_jax.nn.remat import select


class Layers(Sequential):
    """Layers in a row that may recompute their activations."""

    @recomputable
    def __call__(self, x):
        return super().__call__(x)


class Network(Staged):
    """Two stages that share the stream of dropout's random numbers."""

    stages = ("first", "second")

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List(
            [Layers([Conv(4, 4, 3, rngs=rngs), BatchNorm(4), Dropout(0.5), jnp.sin]) for _ in range(2)]
        )

    def parts(self, stage):
        return [self.layers[self.stages.index(stage)]]

    def __call__(self, x):
        for layers in self.layers:
            x = layers(x)
        return x


@pytest.mark.parametrize("names", [("first",), ("first", "second")])
def test_running_statistics_and_random_numbers_move_once(names):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 6, 4)), jnp.float32)

    def step(graphdef, state, x):
        model = nnx.view(nnx.merge(graphdef, state), deterministic=False, rngs=nnx.Rngs(dropout=1))
        gradient = nnx.compat.grad(lambda model: (model(x) ** 2).sum())(model)
        stream = model.layers[0][2].rngs
        return nnx.as_pure(gradient), nnx.as_pure(nnx.compat.state(model, nnx.BatchStat)), stream.count[...]

    found = []
    for selected in ((), names):
        model = Network()
        select(model, selected)
        compiled = jax.jit(step, static_argnums=0)
        found.append(compiled(nnx.graphdef(model), nnx.as_pure(nnx.state(model)), x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5), *found)  # float32
    assert found[1][2] == 2


def test_unknown_stages_are_refused():
    with pytest.raises(ValueError, match=r"model\.remat names third; the stages of this model are first, second"):
        select(Network(), ("first", "third"))
