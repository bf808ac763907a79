"""Training steps with different balancing methods, beside the step with fixed weights.

Compiling the passes through the network takes minutes, so methods with the same inputs share a program: one for all
that read the losses alone, one for all that read the inner products of gradients. The program holds all of them, and
its state names the method that it follows. Next to the passes through the network the methods themselves cost nothing.
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
    """Returns {method: its step}, fixed weights first, all from the same weights and batch.

    Steps that share a program have the same costs of compilation.

    Args:
        config: Model, optimiser and sizes.
        methods: Balancing methods, as in `Config.balancing`.

    Raises:
        ValueError: A method is unknown, does not have a parameter, or does not suit the model.
    """
    groups = _groups([method for method in methods if method != PLAIN_BALANCING])
    _check(groups, config)  # before minutes of compiling
    batch = batches.train_batch(config)
    steps = {PLAIN_BALANCING: train.TrainStep(replace(config, balancing=PLAIN_BALANCING), batch)}
    for group in groups:
        names = list(group)
        balancer = one_of(list(group.values())) if len(group) > 1 else group[names[0]]
        step = train.TrainStep(config, batch, Balancing(balancer, all_tasks(config)))
        steps[names[0]] = step  # a step follows the first method until it is told otherwise
        for position, name in enumerate(names[1:], 1):
            steps[name] = step.again(partial(_follow, position))
    return {method: steps[method] for method in dict.fromkeys((PLAIN_BALANCING, *methods))}


class Choice(NamedTuple):
    """State of `one_of`.

    Attributes:
        followed: Position of the method that decides.
        states: States of all methods.
    """

    followed: jax.Array
    states: tuple[State, ...]


def one_of(balancers: Sequence[Balancer]) -> Balancer:
    """Returns a method that follows one of several methods, the first until its state says otherwise.

    Args:
        balancers: Methods with the same inputs that decide on weights alone.
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
    """Returns {method: balancer} for each program.

    A method is alone in its program if it keeps gradients, needs a second forward pass, or reads features.
    """
    groups: dict[str, dict[str, Balancer]] = {}
    for method in methods:
        balancer = balancing.parse(method)
        alone = balancer.needs == "jacobian" or balancer.observe is not None or balancer.features
        groups.setdefault(method if alone else balancer.needs, {})[method] = balancer
    return list(groups.values())
