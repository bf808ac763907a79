"""Two losses of a plain JAX model, balanced by any method: python examples/balancing_plain_jax.py famo"""

import sys

import jax
import jax.numpy as jnp
import optax

from mtl_jax import balancing

TASKS = ("height", "width")


def loss_fn(shared, specific, x, targets):
    features = jnp.tanh(x @ shared)
    return {task: jnp.mean((features @ specific[task] - targets[task]) ** 2) for task in TASKS}, None


balancer = balancing.parse(sys.argv[1] if len(sys.argv) > 1 else "pcgrad")
grad = balancing.value_and_grad(loss_fn, balancer, TASKS)
optimizer = optax.adam(1e-2)

x = jax.random.normal(jax.random.key(0), (64, 8))
targets = {"height": x[:, 0] * x[:, 1], "width": 100 * jnp.sin(x[:, 2])}  # of very different scale
params = (0.3 * jax.random.normal(jax.random.key(1), (8, 32)), {task: jnp.zeros(32) for task in TASKS})


@jax.jit
def step(carry, key):
    state, params, opt_state = carry
    result = grad(state, key, *params, x, targets)
    updates, opt_state = optimizer.update((result.shared, result.specific), opt_state, params)
    params = optax.apply_updates(params, updates)
    state = balancing.observe(balancer, TASKS, result.state, result.losses, lambda: loss_fn(*params, x, targets)[0])
    return (state, params, opt_state), result.losses


carry = (balancer.init(len(TASKS), params[0]), params, optimizer.init(params))
carry, losses = jax.lax.scan(step, carry, jax.random.split(jax.random.key(2), 300))
for task in TASKS:
    print(f"{task}: {losses[task][0]:.4g} -> {losses[task][-1]:.4g}")
