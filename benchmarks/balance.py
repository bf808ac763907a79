"""Training steps whose tasks different methods balance, beside the step of fixed weights.

Methods that read the losses alone share a program, and so do those that read the gradients' inner products. It holds
them all and follows at each step the one that its state names; what they do with a few numbers is next to nothing
beside the passes through the network, which take minutes to compile where they are written out for every task.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import batches, train
from benchmarks.comparison import Program
from mtl_jax import balancing, models
from mtl_jax.balancing import Balancer, Decision, Signals
from mtl_jax.balancing.core import State, Tree
from mtl_jax.config import PLAIN_BALANCING, Config, all_tasks
from mtl_jax.train.task_balancing import Balancing


def programs(config: Config, methods: Sequence[str]) -> dict[str, Program]:
    """{method: its step}, that of fixed weights first; from the same weights and batch.

    What compiling took is the same number for all that share a program.

    Args:
        methods: as in `Config.balancing`.

    Raises:
        ValueError: an unknown method, a parameter that it does not have, or a method that does not suit the model.
    """
    groups = _groups([method for method in methods if method != PLAIN_BALANCING])
    _check(groups, config)  # before minutes of compiling
    batch = batches.train_batch(config)
    found = {PLAIN_BALANCING: train.TrainStep(replace(config, balancing=PLAIN_BALANCING), batch)}
    for group in groups:
        names = list(group)
        balancer = one_of(list(group.values())) if len(group) > 1 else group[names[0]]
        step = train.TrainStep(config, batch, Balancing(balancer, all_tasks(config)))
        found[names[0]] = step  # which starts with the first
        for position, name in enumerate(names[1:], 1):
            found[name] = step.again(partial(_follow, position))
    return {method: found[method] for method in dict.fromkeys((PLAIN_BALANCING, *methods))}


class Choice(NamedTuple):
    """State of `one_of`.

    Attributes:
        followed: position of the method that decides.
        states: of all methods.
    """

    followed: jax.Array
    states: tuple[State, ...]


def one_of(balancers: Sequence[Balancer]) -> Balancer:
    """A method that follows one of several, the first until its state says otherwise.

    Args:
        balancers: methods that read the same, and decide on weights alone.
    """

    def init(tasks: int, shared: Tree) -> Choice:
        return Choice(jnp.int32(0), tuple(balancer.init(tasks, shared) for balancer in balancers))

    def update(state: Choice, signals: Signals) -> tuple[Decision, Choice]:
        def follow(position: int) -> tuple[jax.Array, jax.Array, tuple[State, ...]]:
            decision, following = balancers[position].update(state.states[position], signals)
            specific = jnp.ones_like(signals.losses) if decision.specific is None else decision.specific
            states = (*state.states[:position], following, *state.states[position + 1 :])
            return decision.weights.astype(signals.losses.dtype), specific.astype(signals.losses.dtype), states

        branches = [partial(follow, position) for position in range(len(balancers))]
        weights, specific, states = jax.lax.switch(state.followed, branches)
        return Decision(weights, specific=specific), Choice(state.followed, states)

    return Balancer(init, update, balancers[0].needs)


def _follow(position: int, choice: Choice) -> Choice:
    return choice._replace(followed=jnp.int32(position))


def _check(groups: Sequence[dict[str, Balancer]], config: Config) -> None:
    model = nnx.eval_shape(lambda: models.build(config))
    for group in groups:
        for method, balancer in group.items():
            try:
                Balancing(balancer, all_tasks(config)).check(model)
            except ValueError as error:
                raise ValueError(f"{method}: {error}") from None


def _groups(methods: Sequence[str]) -> list[dict[str, Balancer]]:
    """{method: balancer} of those that share a program: no gradients to keep, no second forward pass, no features."""
    groups: dict[str, dict[str, Balancer]] = {}
    for method in methods:
        balancer = balancing.parse(method)
        alone = balancer.needs == "jacobian" or balancer.observe is not None or balancer.features
        groups.setdefault(method if alone else balancer.needs, {})[method] = balancer
    return list(groups.values())
