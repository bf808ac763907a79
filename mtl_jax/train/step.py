"""The jitted steps of training, prediction and evaluation."""

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
from mtl_jax.train import micro_batches
from mtl_jax.train.task_balancing import Balancing

Batch = Mapping[str, jax.Array]
Scalars = dict[str, jax.Array]
SKIPPED = "skipped"  # key of the number of corrupt records that were skipped for a batch


def make_train_step(
    graphdef: nnx.GraphDef,
    objective: Objective,
    *,
    accumulate: int = 1,
    batch_norm_groups: int = 1,
    shardings: Any = None,
    balancing: Balancing | None = None,
) -> Callable[..., tuple[Any, Scalars]]:
    """Returns the training step (arrays, batch, seed=0) -> (arrays, {name: scalar}).

    The scalars are "loss/<name>", "gradient_norm" and "parameter_norm".

    Where the state has an average of the weights, the step moves the average last, whatever gave the gradient.

    The step donates the buffers of the old arrays. The batch holds "image" `[B, H, W, 3]` (uint8, or normalised
    float32) and a label `[B, H, W, C]` for every task of the objective. If it holds "skipped" `[B]`, from
    `data.loader`, the step also returns the sum of "skipped".

    The dropout masks depend only on the seed, the number of the step and the index of the micro-batch. A seed of type
    `np.uint32` is not part of the compiled program, so the persistent cache has one program for all seeds.

    Args:
        graphdef: Static structure of the training state.
        objective: Function that training minimises.
        accumulate: Number of micro-batches into which the batch is split. They are processed one after another. Losses
            and gradients are those of the whole batch, with two exceptions: batch norm treats every micro-batch as a
            batch, and the dropout masks differ.
        batch_norm_groups: Number of parts of the batch, or of each micro-batch, over which batch norm computes separate
            statistics. A part of a batch consists of consecutive images. Micro-batch i holds the images i,
            i + accumulate, ..., so its part j consists of every accumulate-th image of part j of the batch.
        shardings: Shardings of the arrays, if the arrays are split over the devices. The arrays of the model are
            gathered for the step. The arrays of the optimiser and of the average stay split, and every device updates
            its own part (ZeRO, arXiv 1910.02054).
        balancing: Method that combines the gradients of the tasks. None means the weights of the objective.
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=None if shardings is None else (shardings, None))
    def step(arrays: Any, batch: Batch, seed: jax.typing.ArrayLike = 0) -> tuple[Any, Scalars]:
        whole = arrays if shardings is None else _gathered(arrays, shardings)
        model, optimizer, memory, average = nnx.merge(graphdef, whole)
        key = jax.random.fold_in(jax.random.key(seed), optimizer.step[...])
        if balancing is not None:
            logged, grads, observe = balancing.gradients(
                model, memory, objective, batch, key, batch_norm_groups, accumulate
            )
            optimizer.update(model, grads)
            observe()
        else:
            if accumulate == 1:
                losses, grads = _gradients(model, objective, batch, key, batch_norm_groups)
            else:
                losses, grads = _accumulated_gradients(model, objective, batch, key, batch_norm_groups, accumulate)
            optimizer.update(model, grads)
            logged = {f"loss/{name}": value for name, value in losses.items()}
        if average is not None:
            average.update(model)
        # A gradient that overflows damages the parameters one step before the loss shows the damage.
        logged["gradient_norm"] = optax.tree.norm(nnx.as_pure(grads))
        # Parameters whose squares overflow give no finite loss any more, so they must not reach a checkpoint.
        logged["parameter_norm"] = optax.tree.norm(nnx.as_pure(nnx.state(model, nnx.Param)))
        if SKIPPED in batch:
            logged[SKIPPED] = batch[SKIPPED].sum()
        return nnx.as_pure(nnx.state((model, optimizer, memory, average))), logged

    return step


def _gathered(arrays: Any, shardings: Any) -> Any:
    """Returns the arrays of the state, with all arrays of the model whole on every device."""

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
    """Returns the losses and the gradient of their total, and updates the running statistics of the model.

    Args:
        model: The model.
        objective: Function that training minimises.
        batch: Images and labels.
        key: Random key of the dropout masks.
        groups: Number of groups of batch norm.
        counts: Label counts of the whole batch, if this batch is a part of it.
    """
    parts: Any = nnx.split(model, nnx.Param, ...)  # the type of a split depends on the number of filters
    graphdef, parameters, others = parts

    def loss_fn(parameters: nnx.State) -> tuple[jax.Array, tuple[Scalars, nnx.State]]:
        copy = nnx.merge(graphdef, parameters, others, copy=True)
        outputs = training_view(copy, nnx.Rngs(dropout=key), groups)(normalise(batch["image"]))
        total, losses = objective(outputs, batch, counts)
        return total, (losses, nnx.state(copy, nnx.BatchStat))

    grads, (losses, statistics) = jax.grad(loss_fn, has_aux=True)(parameters)
    nnx.update(model, statistics)
    return losses, grads


def _accumulated_gradients(
    model: nnx.Module, objective: Objective, batch: Batch, key: jax.Array, groups: int, number: int
) -> tuple[Scalars, Any]:
    """Computes the result of `_gradients` from `number` micro-batches, one after another."""
    counts = count_labels(batch)  # of the whole batch, so that the losses of the micro-batches add up to its loss
    graphdef = nnx.graphdef(model)
    statistics, others = nnx.state(model, nnx.BatchStat, ...)

    def add(carry: tuple[Any, Any], part: tuple[jax.Array, Batch]) -> tuple[tuple[Any, Any], Scalars]:
        (statistics, total), (index, micro) = carry, part
        model = nnx.merge(graphdef, statistics, others, copy=True)
        losses, grads = _gradients(model, objective, micro, jax.random.fold_in(key, index), groups, counts)
        return (nnx.state(model, nnx.BatchStat), jax.tree.map(jnp.add, total, grads)), losses

    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    (statistics, grads), losses = jax.lax.scan(add, (statistics, zeros), micro_batches.split(batch, number))
    nnx.update(model, statistics)
    return jax.tree.map(lambda x: x.sum(0), losses), grads


def make_predict_step(
    graphdef: nnx.GraphDef, tasks: Sequence[str], mesh: Mesh
) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]:
    """Returns the step (arrays, batch) -> (index, valid, {task: prediction at network resolution}).

    The batch holds "image" `[B, H, W, 3]`, "index" `[B]` and "valid" `[B]`. The results have the order of the images of
    the batch, and every device holds all of them.

    Args:
        graphdef: Static structure of the training state.
        tasks: Names of the tasks to predict.
        mesh: Devices that share a batch.
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
    """Returns the step (arrays, batch) -> (valid, {task: statistics of each image}).

    Every device holds all results.

    Args:
        graphdef: Static structure of the training state.
        metrics: {task: metric}.
        mesh: Devices that share a batch.
    """

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def step(arrays: Any, batch: Batch) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
        model, *_ = nnx.merge(graphdef, arrays)
        predictions = postprocess(evaluation_view(model)(normalise(batch["image"])), tuple(metrics))
        return batch["valid"], {task: metric.update(predictions[task], batch[task]) for task, metric in metrics.items()}

    return step
