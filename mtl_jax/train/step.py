"""The jitted steps."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from mtl_jax.evaluation.predictions import postprocess
from mtl_jax.images import normalise
from mtl_jax.losses import LabelCounts, Objective, count_labels
from mtl_jax.metrics import Metric
from mtl_jax.models import evaluation_view, training_view
from mtl_jax.runtime import sharding
from mtl_jax.train.task_balancing import Balancing

Batch = Mapping[str, jax.Array]
Scalars = dict[str, jax.Array]
SKIPPED = "skipped"  # corrupt records that were passed over for a batch


def make_train_step(
    graphdef: nnx.GraphDef,
    objective: Objective,
    *,
    accumulate: int = 1,
    batch_norm_groups: int = 1,
    shardings: Any = None,
    balancing: Balancing | None = None,
) -> Callable[..., tuple[Any, Scalars]]:
    """step(arrays, batch, seed=0) -> (arrays, {"loss/<name>", "gradient_norm"}); the old arrays' buffers are donated.

    The batch holds "image" `[B, H, W, 3]` (uint8, or float32 normalised) and a label `[B, H, W, C]` for every task that
    the objective asks for. Where it has "skipped" `[B]`, from `data.loader`, the sum is among what is returned.

    The dropout masks depend on the seed, the number of the step and that of the micro-batch alone. As a `np.uint32` the
    seed is no part of the program, which the persistent cache then has for all seeds.

    Args:
        accumulate: micro-batches that the batch is split into, one after the other. Losses and gradients are those of
            the whole batch, but for batch norm, which takes every micro-batch for a batch, and for dropout's masks.
        batch_norm_groups: parts of the batch, or of each micro-batch, that batch norm takes the statistics of. Those of
            a batch are consecutive images. Micro-batch i holds images i, i + accumulate, ...: its part j consists of
            every accumulate-th image of part j of the batch.
        shardings: of each of the arrays, where they are split over the devices: the model's are gathered for the step,
            the optimiser's are not, and every device updates its own part (ZeRO, arXiv 1910.02054).
        balancing: the method that combines the tasks' gradients; by default the objective's weights do. Not together
            with `accumulate`.
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=None if shardings is None else (shardings, None))
    def step(arrays: Any, batch: Batch, seed: jax.typing.ArrayLike = 0) -> tuple[Any, Scalars]:
        model, optimizer, *memory = nnx.merge(graphdef, arrays if shardings is None else _gathered(arrays, shardings))
        key = jax.random.fold_in(jax.random.key(seed), optimizer.step[...])
        if balancing is not None:
            logged, grads, observe = balancing.gradients(model, memory[0], objective, batch, key, batch_norm_groups)
            optimizer.update(model, grads)
            observe()
        else:
            if accumulate == 1:
                losses, grads = _gradients(model, objective, batch, key, batch_norm_groups)
            else:
                losses, grads = _accumulated_gradients(model, objective, batch, key, batch_norm_groups, accumulate)
            optimizer.update(model, grads)
            logged = {f"loss/{name}": value for name, value in losses.items()}
        # A gradient that overflows spoils the parameters one step before a loss shows it.
        logged["gradient_norm"] = optax.tree.norm(nnx.as_pure(grads))
        if SKIPPED in batch:
            logged[SKIPPED] = batch[SKIPPED].sum()
        return nnx.as_pure(nnx.state((model, optimizer, *memory))), logged

    return step


def _gathered(arrays: Any, shardings: Any) -> Any:
    """The arrays of (model, optimiser) with the model's whole on every device."""

    def gather(path: tuple, leaf: jax.Array, placed: NamedSharding) -> jax.Array:
        whole = sharding.replicated(placed.mesh)
        return jax.lax.with_sharding_constraint(leaf, whole) if path[0].key == 0 else leaf

    return jax.tree_util.tree_map_with_path(gather, arrays, shardings)


def _gradients(
    model: nnx.Module,
    objective: Objective,
    batch: Batch,
    key: jax.Array,
    groups: int,
    counts: Mapping[str, LabelCounts] | None = None,
) -> tuple[Scalars, Any]:
    """Losses and the gradient of their total; updates the model's running statistics.

    Args:
        key: of the dropout masks.
        groups: of batch norm.
        counts: of the batch that this one is a part of.
    """
    trained = training_view(model, nnx.Rngs(dropout=key), groups)  # of the two only this one holds the generator

    def loss_fn(model: nnx.Module) -> tuple[jax.Array, Scalars]:
        return objective(model(normalise(batch["image"])), batch, counts)

    (_, losses), grads = nnx.value_and_grad(loss_fn, has_aux=True)(trained)
    return losses, grads


def _accumulated_gradients(
    model: nnx.Module, objective: Objective, batch: Batch, key: jax.Array, groups: int, number: int
) -> tuple[Scalars, Any]:
    """What `_gradients` returns, from `number` micro-batches in turn."""
    counts = count_labels(batch)  # the means are over the whole batch: the micro-batches' losses add up to its own
    graphdef = nnx.graphdef(model)
    statistics, others = nnx.state(model, nnx.BatchStat, ...)

    def add(carry: tuple[Any, Any], part: tuple[jax.Array, Batch]) -> tuple[tuple[Any, Any], Scalars]:
        (statistics, total), (index, micro) = carry, part
        model = nnx.merge(graphdef, statistics, others, copy=True)
        losses, grads = _gradients(model, objective, micro, jax.random.fold_in(key, index), groups, counts)
        return (nnx.state(model, nnx.BatchStat), jax.tree.map(jnp.add, total, grads)), losses

    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    # Every number-th image is in one micro-batch: a device then cuts its share of each out of its share of the batch,
    # and no image moves to another device.
    parts = {name: x.reshape(-1, number, *x.shape[1:]).swapaxes(0, 1) for name, x in batch.items()}
    (statistics, grads), losses = jax.lax.scan(add, (statistics, zeros), (jnp.arange(number), parts))
    nnx.update(model, statistics)
    return jax.tree.map(lambda x: x.sum(0), losses), grads


def make_predict_step(
    graphdef: nnx.GraphDef, tasks: Sequence[str], mesh: Mesh
) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]:
    """step(arrays, batch) -> (index, valid, {task: prediction at network resolution}), on every device whole.

    The batch holds "image" `[B, H, W, 3]`, "index" and "valid" `[B]`: what comes back in one order went in in one.
    """

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def step(arrays: Any, batch: Batch) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        model, *_ = nnx.merge(graphdef, arrays)
        outputs = evaluation_view(model)(normalise(batch["image"]))
        return batch["index"], batch["valid"], postprocess(outputs, tasks)

    return step


def make_eval_step(
    graphdef: nnx.GraphDef, metrics: Mapping[str, Metric], mesh: Mesh
) -> Callable[[Any, Batch], tuple[jax.Array, dict[str, dict[str, jax.Array]]]]:
    """step(arrays, batch) -> (valid, {task: statistics of each image}), on every device whole."""

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def step(arrays: Any, batch: Batch) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
        model, *_ = nnx.merge(graphdef, arrays)
        predictions = postprocess(evaluation_view(model)(normalise(batch["image"])), tuple(metrics))
        return batch["valid"], {task: metric.update(predictions[task], batch[task]) for task, metric in metrics.items()}

    return step
