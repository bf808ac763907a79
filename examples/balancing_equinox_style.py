"""A model that is itself a pytree, as in Equinox, all shared: python examples/balancing_equinox_style.py gradvac"""

import sys
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax

from mtl_jax import balancing

TASKS = ("sum", "product")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Model:
    trunk: jax.Array
    head: jax.Array  # one column a task
    slope: float = field(default=0.1, metadata={"static": True})

    def __call__(self, x):
        return jax.nn.leaky_relu(x @ self.trunk, self.slope) @ self.head


def loss_fn(model, _):
    """The head is shared too: of its columns all but one have a zero gradient for each task."""
    errors = jnp.mean((model(x) - targets) ** 2, axis=0)
    return dict(zip(TASKS, errors, strict=True)), None


balancer = balancing.parse(sys.argv[1] if len(sys.argv) > 1 else "gradvac")
optimizer = optax.adam(1e-2)


@jax.jit
def step(carry, key):
    state, model, opt_state = carry
    result = balancing.value_and_grad(loss_fn, balancer, TASKS)(state, key, model, ())
    updates, opt_state = optimizer.update(result.shared, opt_state, model)
    model = optax.apply_updates(model, updates)
    state = balancing.observe(balancer, TASKS, result.state, result.losses, lambda: loss_fn(model, ())[0])
    return (state, model, opt_state), result.losses


x = jax.random.normal(jax.random.key(0), (64, 4))
targets = jnp.stack([x.sum(axis=1), x.prod(axis=1)], axis=1)
model = Model(jax.random.normal(jax.random.key(1), (4, 32)) / 2, jax.random.normal(jax.random.key(2), (32, 2)) / 6)
carry = (balancer.init(len(TASKS), model), model, optimizer.init(model))
carry, losses = jax.lax.scan(step, carry, jax.random.split(jax.random.key(3), 300))
for task in TASKS:
    print(f"{task}: {losses[task][0]:.4g} -> {losses[task][-1]:.4g}")
