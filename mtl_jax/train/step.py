"""The jitted steps."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from mtl_jax import parallel
from mtl_jax.images import normalise
from mtl_jax.losses import Objective
from mtl_jax.metrics import Metric
from mtl_jax.models import evaluation_view, training_view
from mtl_jax.predictions import postprocess

Batch = Mapping[str, jax.Array]
Scalars = dict[str, jax.Array]


def make_train_step(
    graphdef: nnx.GraphDef, objective: Objective, seed: int = 0
) -> Callable[[Any, Batch], tuple[Any, Scalars]]:
    """step(arrays, batch) -> (arrays, {"loss/<name>", "gradient_norm"}); the old arrays' buffers are donated.

    The batch holds "image" `[B, H, W, 3]` (uint8, or float32 normalised) and a label `[B, H, W, C]` for every task that
    the objective asks for.

    Args:
        seed: of the dropout masks, which depend on it and on the number of the step alone.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(arrays: Any, batch: Batch) -> tuple[Any, Scalars]:
        model, optimizer = nnx.merge(graphdef, arrays)
        rngs = nnx.Rngs(dropout=jax.random.fold_in(jax.random.key(seed), optimizer.step[...]))
        trained = training_view(model, rngs)  # of the two only this one holds the generator

        def loss_fn(model: nnx.Module) -> tuple[jax.Array, Scalars]:
            return objective(model(normalise(batch["image"])), batch)

        (_, losses), grads = nnx.value_and_grad(loss_fn, has_aux=True)(trained)
        optimizer.update(model, grads)
        # A gradient that overflows spoils the parameters one step before a loss shows it.
        logged = {f"loss/{name}": value for name, value in losses.items()}
        return nnx.as_pure(nnx.state((model, optimizer))), logged | {
            "gradient_norm": optax.tree.norm(nnx.as_pure(grads))
        }

    return step


def make_predict_step(
    graphdef: nnx.GraphDef, tasks: Sequence[str], mesh: Mesh
) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]:
    """step(arrays, batch) -> (index, valid, {task: prediction at network resolution}), on every device whole.

    The batch holds "image" `[B, H, W, 3]`, "index" and "valid" `[B]`: what comes back in one order went in in one.
    """

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def step(arrays: Any, batch: Batch) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        model, _ = nnx.merge(graphdef, arrays)
        outputs = evaluation_view(model)(normalise(batch["image"]))
        return batch["index"], batch["valid"], postprocess(outputs, tasks)

    return step


def make_eval_step(
    graphdef: nnx.GraphDef, metrics: Mapping[str, Metric], mesh: Mesh
) -> Callable[[Any, Batch], tuple[jax.Array, dict[str, dict[str, jax.Array]]]]:
    """step(arrays, batch) -> (valid, {task: statistics of each image}), on every device whole."""

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def step(arrays: Any, batch: Batch) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
        model, _ = nnx.merge(graphdef, arrays)
        predictions = postprocess(evaluation_view(model)(normalise(batch["image"])), tuple(metrics))
        return batch["valid"], {task: metric.update(predictions[task], batch[task]) for task, metric in metrics.items()}

    return step
