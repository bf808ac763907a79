"""Our balancing methods on random gradients and losses in float64, to be compared with those of other libraries.

Of methods that read gradients, steps are compared and not weights, which are a matter of choice where gradients are
dependent. Tests say where libraries differ, and why a tolerance is as loose as it is: our solutions meet their
equations (tests/balancing).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.balancing import Balancer, Decision, Signals, gramian
from mtl_jax.balancing.pcgrad import partners
from tests.marks import slow

SIZE = 24
CASES = [(tasks, shift) for tasks in (2, 3, 5, 8) for shift in (-0.3, 0.0, 1.0)]  # more and less conflict
every_case = pytest.mark.parametrize(
    ("tasks", "shift"), [case if case in ((2, -0.3), (3, 0.0)) else slow(*case) for case in CASES]
)


def gradients(tasks: int, shift: float, seed: int = 0) -> np.ndarray:
    """Random gradients `[tasks, SIZE]` of different lengths; `shift` pushes all in one direction."""
    rng = np.random.default_rng([tasks, int(10 * shift) % 100, seed])
    return (rng.normal(size=(tasks, SIZE)) + shift * rng.normal(size=SIZE)) * np.linspace(0.5, 2, tasks)[:, None]


def losses(tasks: int, seed: int = 0) -> np.ndarray:
    """Random positive losses `[tasks]`."""
    return np.random.default_rng([tasks, seed]).uniform(0.5, 2, tasks)


class Ours:
    """One of our methods, step after step."""

    def __init__(self, balancer: Balancer, tasks: int):
        self.balancer, self.update = balancer, jax.jit(balancer.update)
        with jax.enable_x64(True):
            self.state = balancer.init(tasks, jnp.zeros(SIZE))

    def decide(self, jacobian: np.ndarray, values: np.ndarray | None = None, seed: int = 0) -> Decision:
        """What it decides on gradients `[T, SIZE]` and losses `[T]`, 1 each by default; `seed` is of its draws."""
        with jax.enable_x64(True):
            given = jnp.asarray(jacobian)
            values = np.ones(len(jacobian)) if values is None else values
            signals = Signals(jnp.asarray(values), jax.random.key(seed), gramian(given), given)
            decision, self.state = self.update(self.state, signals)
        return jax.tree.map(np.asarray, decision)

    def weights(self, values: np.ndarray, seed: int = 0) -> np.ndarray:
        """Those of a method that reads losses alone."""
        return self.decide(np.zeros((len(values), SIZE)), values, seed).weights

    def observe(self, before: np.ndarray, after: np.ndarray) -> None:
        """The losses before and after a step of the optimiser."""
        with jax.enable_x64(True):
            self.state = self.balancer.observe(self.state, jnp.asarray(before), jnp.asarray(after))


def our_weights(balancer: Balancer, jacobian: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Of a method's first step."""
    return Ours(balancer, len(jacobian)).decide(jacobian, values).weights


def assert_same_step(
    balancer: Balancer, theirs: np.ndarray, jacobian: np.ndarray, rtol: float, factor: float = 1.0
) -> None:
    """rtol is of the step's length; factor times ours is to be theirs."""
    assert_close(factor * our_weights(balancer, jacobian) @ jacobian, theirs, rtol)


def assert_close(ours: np.ndarray, theirs: np.ndarray, rtol: float) -> None:
    """rtol is of theirs as a whole."""
    assert np.linalg.norm(ours - np.asarray(theirs)) <= rtol * np.linalg.norm(theirs)


def orders(tasks: int, seed: int) -> np.ndarray:
    """For each task the others in the order in which PCGrad and GradVac meet them: `[T, T - 1]`."""
    with jax.enable_x64(True):
        return np.asarray(partners(jax.random.key(seed), tasks)).argmax(axis=-1).T


def normal(tasks: int, seed: int) -> np.ndarray:
    """What random weights are made of: `[T]`."""
    with jax.enable_x64(True):
        return np.asarray(jax.random.normal(jax.random.key(seed), (tasks,), jnp.float64))


def uniform(seed: int) -> np.ndarray:
    """What decides on the sign of each element in GradDrop: `[SIZE]`."""
    with jax.enable_x64(True):
        return np.asarray(jax.random.uniform(jax.random.key(seed), (SIZE,)))
