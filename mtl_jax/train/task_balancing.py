"""Task balancing within a training step of one of our models."""

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
from mtl_jax.losses import Objective
from mtl_jax.models import Baseline, MultiTaskModel, training_view

Scalars = dict[str, jax.Array]


class Remembered(nnx.Variable):
    """An array of a method's state."""


class Memory(nnx.Module):
    """A method's state as a part of the training state, so that checkpoints hold it."""

    def __init__(self, state: State):
        leaves, self.structure = jax.tree_util.tree_flatten_with_path(state)
        self.names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves)
        # Named, so that no method takes another's arrays for its own; merged, they are in the names' order.
        self.leaves = nnx.Dict(zip(self.names, [Remembered(leaf) for _, leaf in leaves], strict=True))

    def read(self) -> State:
        """The state."""
        return jax.tree.unflatten(self.structure, [self.leaves[name][...] for name in self.names])

    def write(self, state: State) -> None:
        """Replaces the state by the next."""
        for name, value in zip(self.names, jax.tree.leaves(state), strict=True):
            leaf = self.leaves[name]
            leaf.set_value(jnp.asarray(value, leaf.dtype))  # by item it asks for shardings: a trace of the step a leaf


class Balancing:
    """A method and what it balances: each task's own losses, deep supervision's included, without weights.

    Args:
        balancer: the method.
        tasks: main and auxiliary tasks, in the order of the method's arrays.
    """

    def __init__(self, balancer: Balancer, tasks: tuple[str, ...]):
        self.balancer, self.tasks = balancer, tasks

    def remember(self, model: MultiTaskModel) -> Memory:
        """The method's first state for a model.

        Raises:
            ValueError: as `check`.
        """
        self.check(model)
        _, shared, _, _ = _split(model)
        return Memory(self.balancer.init(len(self.tasks), shared))

    def check(self, model: MultiTaskModel) -> None:
        """Whether the method suits the tasks and a model, which may be abstract.

        Raises:
            ValueError: a parameter has another number of values than there are tasks; or the method reads a shared
                representation, and the model has none that its heads alone read.
        """
        shared = _split(model)[1]
        jax.eval_shape(lambda: self.balancer.init(len(self.tasks), shared))
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
    ) -> tuple[Scalars, Any, Callable[[], None]]:
        """(what to log, the gradient to all parameters, what to call after the optimiser's step).

        Updates the model's running statistics and the method's state. Logged are all losses, `weight_<task>`, and where
        the tasks' gradients were computed, `cosine_<task>_<task>`.

        Args:
            key: of the dropout masks and the method's own draws.
            groups: of batch norm.
        """
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
            nnx.update(model, statistics)  # of the heads; the backbone's are still the old ones there
            nnx.update(model, nnx.filter_state(encoded, lambda path, _: path[0] == "backbone"))
        else:
            balanced = balancing.value_and_grad(loss_fn, self.balancer, self.tasks)(*arguments)
            components, statistics = balanced.aux
            nnx.update(model, statistics)
        memory.write(balanced.state)

        def moved() -> dict[str, jax.Array]:
            _, shared, specific, _ = _split(model)
            return loss_fn(shared, specific)[0]

        def observe() -> None:
            memory.write(balancing.observe(self.balancer, self.tasks, memory.read(), balanced.losses, moved))

        return self._logged(components, balanced), nnx.merge_state(balanced.shared, balanced.specific), observe

    def _logged(self, components: Scalars, balanced: Balanced) -> Scalars:
        logged = {f"loss/{name}": value for name, value in components.items()}
        logged |= {f"weight/{task}": value for task, value in balanced.weights.items()}
        if balanced.cosines is not None:
            for i, one in enumerate(self.tasks):
                for j, other in enumerate(self.tasks[:i]):
                    logged[f"cosine/{other}_{one}"] = balanced.cosines[i, j]
        return logged


def from_config(config: Config) -> Balancing | None:
    """What a configuration asks for; None stands for the task table's weights, which need no method.

    Raises:
        ValueError: an unknown method, or a parameter that it does not have.
    """
    if config.balancing == PLAIN_BALANCING:
        return None
    return Balancing(balancing.parse(config.balancing), all_tasks(config))


def _split(model: MultiTaskModel) -> tuple[nnx.GraphDef, nnx.State, nnx.State, nnx.State]:
    """(structure, shared parameters, those of a single task, other variables)."""

    def is_shared(path: tuple[Any, ...], value: Any) -> bool:
        return isinstance(value, nnx.Param) and path[0] not in model.specific

    parts: Any = nnx.split(model, is_shared, nnx.Param, ...)
    return parts
