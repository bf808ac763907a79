"""A model that is itself a pytree, as in Equinox, all shared: python examples/balancing_equinox_style.py gradvac"""

import sys
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax

from mtl_jax import balancing

TASKS = ("sum", "product")


@partial(jax.tree_util.register_dataclass, data_fields=["weight", "bias"], meta_fields=[])
@dataclass(frozen=True)
class Linear:
    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return x @ self.weight + self.bias[None]


@partial(jax.tree_util.register_dataclass, data_fields=["trunk", "head"], meta_fields=["slope"])
@dataclass(frozen=True)
class Model:
    trunk: Linear
    head: Linear  # one column a task
    slope: float = 0.1

    def __call__(self, x):
        return self.head(jax.nn.leaky_relu(self.trunk(x), self.slope))


def loss_fn(model, _, x, targets):
    """The head is shared too: of its columns all but one have a zero gradient for each task."""
    errors = jnp.mean((model(x) - targets) ** 2, axis=0)
    return dict(zip(TASKS, errors, strict=True)), None


def linear(key, inputs, outputs):
    return Linear(jax.random.normal(key, (inputs, outputs)) / inputs**0.5, jnp.zeros(outputs))


balancer = balancing.parse(sys.argv[1] if len(sys.argv) > 1 else "gradvac")
model = Model(linear(jax.random.key(0), 4, 32), linear(jax.random.key(1), 32, 2))
optimizer = optax.adam(1e-2)


@jax.jit
def step(carry, key):
    state, model, opt_state = carry
    result = balancing.value_and_grad(loss_fn, balancer, TASKS)(state, key, model, (), x, targets)
    updates, opt_state = optimizer.update(result.shared, opt_state, model)
    model = optax.apply_updates(model, updates)
    state = balancing.observe(balancer, TASKS, result.state, result.losses, lambda: loss_fn(model, (), x, targets)[0])
    return (state, model, opt_state), result.losses


x = jax.random.normal(jax.random.key(2), (64, 4))
targets = jnp.stack([x.sum(axis=1), x.prod(axis=1)], axis=1)
carry = (balancer.init(len(TASKS), model), model, optimizer.init(model))
carry, losses = jax.lax.scan(step, carry, jax.random.split(jax.random.key(3), 300))
for task in TASKS:
    print(f"{task}: {losses[task][0]:.4g} -> {losses[task][-1]:.4g}")
