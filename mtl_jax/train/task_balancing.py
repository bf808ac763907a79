"""Task balancing within a training step of a multi-task model."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax import balancing
from mtl_jax.balancing import Balanced, Balancer
from mtl_jax.balancing.core import State
from mtl_jax.config import PLAIN_BALANCING, Config, all_tasks
from mtl_jax.images import normalise
from mtl_jax.losses import Objective, count_labels
from mtl_jax.models import Baseline, MultiTaskModel, training_view
from mtl_jax.train import micro_batches

Scalars = dict[str, jax.Array]


class Remembered(nnx.Variable):
    """An array of the state of a balancing method."""


class Memory(nnx.Module):
    """The state of a balancing method as a part of the training state, so that checkpoints hold it.

    Args:
        state: First state of the method.
    """

    def __init__(self, state: State):
        leaves, self.structure = jax.tree_util.tree_flatten_with_path(state)
        self.names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves)
        # The arrays have names, so that no method takes the arrays of another method for its own. After a merge they
        # are in the order of the names.
        self.leaves = nnx.Dict(zip(self.names, [Remembered(leaf) for _, leaf in leaves], strict=True))

    def read(self) -> State:
        """Returns the state."""
        return jax.tree.unflatten(self.structure, [self.leaves[name][...] for name in self.names])

    def write(self, state: State) -> None:
        """Replaces the state by the next state."""
        for name, value in zip(self.names, jax.tree.leaves(state), strict=True):
            leaf = self.leaves[name]
            # An assignment to `leaf[...]` would ask for shardings, which costs a trace of the step for each leaf.
            leaf.set_value(jnp.asarray(value, leaf.dtype))


class Balancing:
    """A balancing method, applied to the tasks of a model.

    The method balances the unweighted losses of the tasks. The loss of a task includes its deep supervision.

    Args:
        balancer: Balancing method.
        tasks: Names of the main and auxiliary tasks, in the order of the arrays of the method.
    """

    def __init__(self, balancer: Balancer, tasks: tuple[str, ...]):
        self.balancer, self.tasks = balancer, tasks

    def remember(self, model: MultiTaskModel) -> Memory:
        """Returns the first state of the method for a model.

        Raises:
            ValueError: See `check`.
        """
        self.check(model)
        _, shared, _, _ = _split(model)
        return Memory(self.balancer.init(len(self.tasks), shared))

    def check(self, model: MultiTaskModel) -> None:
        """Checks that the method fits the tasks and a model, which may be abstract.

        Raises:
            ValueError: A parameter of the method has another number of values than there are tasks. Or the method reads
                a representation between encoder and heads, and the model has no such representation.
        """
        shared = _split(model)[1]
        jax.eval_shape(lambda: self.balancer.init(len(self.tasks), shared))
        if self.balancer.needs != "losses" and not jax.tree.leaves(shared):
            raise ValueError(
                "the balancing method reads the gradients of the parameters that tasks share, and there are no shared "
                f"parameters that learn in this {type(model).__name__}; name fewer parts in optim.freeze, or choose a "
                "method that reads losses alone, such as uncertainty"
            )
        if self.balancer.features and not isinstance(model, Baseline):
            raise ValueError(
                f"the balancing method reads the representation between encoder and heads, which "
                f"{type(model).__name__} does not have; use it with model.name=baseline, or mgda with any model"
            )

    def gradients(
        self,
        model: MultiTaskModel,
        memory: Memory,
        objective: Objective,
        batch: Mapping[str, jax.Array],
        key: jax.Array,
        groups: int,
        accumulate: int = 1,
    ) -> tuple[Scalars, Any, Callable[[], None]]:
        """Computes the combined gradient, and updates the running statistics of the model and the state of the method.

        Args:
            model: The model.
            memory: State of the method.
            objective: Function that training minimises.
            batch: Images and labels.
            key: Random key of the dropout masks and of the method.
            groups: Number of groups of batch norm.
            accumulate: Number of micro-batches into which the batch is split.

        Returns:
            (values to log, gradient with respect to all parameters, function to call after the step of the optimiser).
            The values are all losses `loss/<name>`, `weight/<task>`, and, if the gradients of the tasks were computed,
            `cosine/<task>_<task>`.
        """
        if accumulate > 1:
            return self._accumulated_gradients(model, memory, objective, batch, key, groups, accumulate)
        graphdef, shared, specific, others = _split(model)
        images = normalise(batch["image"])

        def forward(shared: nnx.State, specific: nnx.State, run: Callable[[Any], Any]) -> tuple[Any, nnx.State]:
            copy = nnx.merge(graphdef, shared, specific, others, copy=True)
            found = run(training_view(copy, nnx.Rngs(dropout=key), groups))
            return found, nnx.state(copy, nnx.BatchStat)

        def score(outputs: Any, statistics: nnx.State) -> tuple[dict[str, jax.Array], tuple[Scalars, nnx.State]]:
            losses, components = objective.by_task(outputs, batch)
            return losses, (components, statistics)

        def loss_fn(shared: nnx.State, specific: nnx.State) -> tuple[dict[str, jax.Array], tuple[Scalars, nnx.State]]:
            return score(*forward(shared, specific, lambda model: model(images)))

        def encode(moving: nnx.State) -> tuple[Any, nnx.State]:
            return forward(moving, specific, lambda model: model.encode(images))

        def decoded(features: Any, specific: nnx.State) -> tuple[dict[str, jax.Array], tuple[Scalars, nnx.State]]:
            return score(*forward(shared, specific, lambda model: model.decode(features, images)))

        arguments = memory.read(), jax.random.fold_in(key, 1), shared, specific
        if self.balancer.features:
            balanced = balancing.value_and_grad(decoded, self.balancer, self.tasks, encode=encode)(*arguments)
            encoded, (components, statistics) = balanced.aux
            nnx.update(model, statistics)  # new statistics of the heads, old statistics of the backbone
            nnx.update(model, nnx.filter_state(encoded, lambda path, _: path[0] == "backbone"))
        else:
            balanced = balancing.value_and_grad(loss_fn, self.balancer, self.tasks)(*arguments)
            components, statistics = balanced.aux
            nnx.update(model, statistics)
        memory.write(balanced.state)

        def moved() -> dict[str, jax.Array]:
            _, shared, specific, _ = _split(model)
            return loss_fn(shared, specific)[0]

        return self._logged(components, balanced), *self._to_apply(memory, balanced, moved)

    def _to_apply(
        self, memory: Memory, balanced: Balanced, moved: Callable[[], dict[str, jax.Array]]
    ) -> tuple[Any, Callable[[], None]]:
        """Returns the gradient with respect to all parameters, and the function to call after the optimiser's step."""

        def observe() -> None:
            memory.write(balancing.observe(self.balancer, self.tasks, memory.read(), balanced.losses, moved))

        return nnx.merge_state(balanced.shared, balanced.specific), observe

    def _accumulated_gradients(
        self,
        model: MultiTaskModel,
        memory: Memory,
        objective: Objective,
        batch: Mapping[str, jax.Array],
        key: jax.Array,
        groups: int,
        number: int,
    ) -> tuple[Scalars, Any, Callable[[], None]]:
        """Computes the result of `gradients` from `number` micro-batches, one after another."""
        graphdef, shared, specific, others = _split(model)
        statistics, constant = nnx.split_state(others, nnx.BatchStat, ...)
        counts = count_labels(batch)  # of the whole batch, so that the losses of the micro-batches add up to its loss
        parts = micro_batches.split(batch, number)
        dropout = jax.random.fold_in(key, 0)  # the method draws from fold_in(key, 1)

        def loss_fn(
            shared: nnx.State, specific: nnx.State, statistics: nnx.State, part: tuple[jax.Array, Any]
        ) -> tuple[dict[str, jax.Array], tuple[nnx.State, Scalars]]:
            index, micro = part
            copy = nnx.merge(graphdef, shared, specific, statistics, constant, copy=True)
            view = training_view(copy, nnx.Rngs(dropout=jax.random.fold_in(dropout, index)), groups)
            losses, components = objective.by_task(view(normalise(micro["image"])), micro, counts)
            return losses, (nnx.state(copy, nnx.BatchStat), components)

        compute = balancing.accumulated_value_and_grad(loss_fn, self.balancer, self.tasks)
        method_key = jax.random.fold_in(key, 1)
        balanced = compute(memory.read(), method_key, shared, specific, statistics, parts)
        last, components = balanced.aux
        nnx.update(model, last)
        memory.write(balanced.state)

        def moved() -> dict[str, jax.Array]:
            _, shared, specific, _ = _split(model)

            def losses_of(statistics: nnx.State, part: Any) -> tuple[nnx.State, dict[str, jax.Array]]:
                losses, (statistics, _) = loss_fn(shared, specific, statistics, part)
                return statistics, losses

            return jax.tree.map(lambda x: x.sum(0), jax.lax.scan(losses_of, statistics, parts)[1])

        return self._logged(components, balanced), *self._to_apply(memory, balanced, moved)

    def _logged(self, components: Scalars, balanced: Balanced) -> Scalars:
        logged = {f"loss/{name}": value for name, value in components.items()}
        logged |= {f"weight/{task}": value for task, value in balanced.weights.items()}
        if balanced.cosines is not None:
            for i, one in enumerate(self.tasks):
                for j, other in enumerate(self.tasks[:i]):
                    logged[f"cosine/{other}_{one}"] = balanced.cosines[i, j]
        return logged


def from_config(config: Config) -> Balancing | None:
    """Returns the balancing method of a configuration. None means the weights of the task table, which need no method.

    Raises:
        ValueError: The method is unknown, or it does not have one of the given parameters. Or the method balances
            gradients of features, and batches are split into micro-batches.
    """
    if config.balancing == PLAIN_BALANCING:
        return None
    balancer = balancing.parse(config.balancing)
    if balancer.features and config.train.accumulate > 1:
        raise ValueError(
            f"balancing is {config.balancing!r} and train.accumulate is {config.train.accumulate}; the method balances "
            "gradients with respect to the features of a whole batch, which micro-batches do not keep. Set "
            "train.accumulate=1 and save memory with model.remat, or choose balancing=mgda, which balances gradients "
            "of parameters"
        )
    return Balancing(balancer, all_tasks(config))


def _split(model: MultiTaskModel) -> tuple[nnx.GraphDef, nnx.State, nnx.State, nnx.State]:
    """Returns (structure, shared parameters, parameters of single tasks, other variables)."""

    def is_shared(path: tuple[Any, ...], value: Any) -> bool:
        return isinstance(value, nnx.Param) and path[0] not in model.specific

    parts: Any = nnx.split(model, is_shared, nnx.Param, ...)
    return parts
