"""The jitted steps."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from mtl_jax import parallel
from mtl_jax.losses import Objective
from mtl_jax.metrics import Metric
from mtl_jax.predictions import postprocess

Batch = Mapping[str, jax.Array]
Losses = dict[str, jax.Array]


def make_train_step(graphdef: nnx.GraphDef, objective: Objective) -> Callable[[Any, Batch], tuple[Any, Losses]]:
    """step(arrays, batch) -> (arrays, losses); the old arrays' buffers are donated.

    The batch holds "image" `[B, H, W, 3]` and a label `[B, H, W, C]` for every task the objective asks for.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(arrays: Any, batch: Batch) -> tuple[Any, Losses]:
        model, optimizer = nnx.merge(graphdef, arrays)
        model = nnx.view(model, use_running_average=False)

        def loss_fn(model: nnx.Module) -> tuple[jax.Array, Losses]:
            return objective(model(batch["image"]), batch)

        (_, losses), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
        optimizer.update(model, grads)
        return nnx.as_pure(nnx.state((model, optimizer))), losses

    return step


def make_predict_step(
    graphdef: nnx.GraphDef, tasks: Sequence[str], mesh: Mesh
) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
    """step(arrays, images `[B, H, W, 3]`) -> {task: prediction} at network resolution, on every device whole."""

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def step(arrays: Any, images: jax.Array) -> dict[str, jax.Array]:
        model, _ = nnx.merge(graphdef, arrays)
        return postprocess(nnx.view(model, use_running_average=True)(images), tasks)

    return step


def make_eval_step(
    graphdef: nnx.GraphDef, metrics: Mapping[str, Metric], mesh: Mesh
) -> Callable[[Any, Batch], dict[str, dict[str, jax.Array]]]:
    """step(arrays, batch) -> {task: statistics of each image}, on every device whole."""

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def step(arrays: Any, batch: Batch) -> dict[str, dict[str, jax.Array]]:
        model, _ = nnx.merge(graphdef, arrays)
        predictions = postprocess(nnx.view(model, use_running_average=True)(batch["image"]), tuple(metrics))
        return {task: metric.update(predictions[task], batch[task]) for task, metric in metrics.items()}

    return step
