"""A Flax NNX model with a shared trunk and two heads: python examples/balancing_flax.py uncertainty"""

import sys

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mtl_jax import balancing

TASKS = ("class", "depth")


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.trunk = nnx.Sequential(nnx.Linear(8, 32, rngs=rngs), nnx.relu, nnx.Linear(32, 32, rngs=rngs), nnx.relu)
        self.heads = nnx.Dict({"class": nnx.Linear(32, 3, rngs=rngs), "depth": nnx.Linear(32, 1, rngs=rngs)})

    def __call__(self, x):
        features = self.trunk(x)
        return {task: self.heads[task](features) for task in TASKS}


balancer = balancing.parse(sys.argv[1] if len(sys.argv) > 1 else "db_mtl")
graphdef, *params = nnx.split(Model(nnx.Rngs(0)), nnx.PathContains("trunk"), ...)  # shared, specific
optimizer = optax.adam(1e-2)


def loss_fn(shared, specific):
    out = nnx.merge(graphdef, shared, specific)(x)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(out["class"], labels)
    return {"class": jnp.mean(cross_entropy), "depth": jnp.mean((out["depth"][:, 0] - depth) ** 2)}, None


@jax.jit
def step(carry, key):
    state, params, opt_state = carry
    result = balancing.value_and_grad(loss_fn, balancer, TASKS)(state, key, *params)
    updates, opt_state = optimizer.update([result.shared, result.specific], opt_state, params)
    params = optax.apply_updates(params, updates)
    state = balancing.observe(balancer, TASKS, result.state, result.losses, lambda: loss_fn(*params)[0])
    return (state, params, opt_state), result.losses


x = jax.random.normal(jax.random.key(0), (64, 8))
labels, depth = jnp.argmax(x[:, :3], axis=1), 10 * x[:, 3] ** 2
carry = (balancer.init(len(TASKS), params[0]), params, optimizer.init(params))
carry, losses = jax.lax.scan(step, carry, jax.random.split(jax.random.key(1), 200))
model = nnx.merge(graphdef, *carry[1])  # the trained model
for task in TASKS:
    print(f"{task}: {losses[task][0]:.4g} -> {losses[task][-1]:.4g}")
