"""The model of a run as one function from the bytes of images to predictions, which export formats write down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export as jax_export

from mtl_jax.evaluation.predictions import postprocess
from mtl_jax.images import normalise
from mtl_jax.models import evaluation_view
from mtl_jax.nn import fold_batch_norm, isolate


@dataclass(frozen=True)
class Program:
    """A trained model as a function, with its weights as constants and batch norms folded into convolutions.

    Attributes:
        predict: Jitted function from uint8 RGB images `[B, H, W, 3]` to {task: prediction}, as
            `predictions.postprocess` makes them.
        tasks: The predicted tasks in task order.
        images: Shape and type of the images. A batch of any size has the symbolic size "batch".
        outputs: {task: shape and type of its prediction}.
    """

    predict: jax.stages.Wrapped
    tasks: tuple[str, ...]
    images: jax.ShapeDtypeStruct
    outputs: Mapping[str, jax.ShapeDtypeStruct]


def make(model: nnx.Module, tasks: Sequence[str], size: tuple[int, int], *, batch_size: int) -> Program:
    """Returns the program of a model.

    Args:
        model: The trained model.
        tasks: Tasks that the program predicts.
        size: (height, width) of the images in pixels.
        batch_size: The only batch size that the program takes; 0 = it takes any.
    """
    graphdef, state = nnx.split(evaluation_view(fold_batch_norm(model)))
    # Arrays of NumPy belong to no device. Constants let the compiler lay the kernels out once, not in every call.
    arrays = jax.tree.map(np.asarray, nnx.as_pure(state))

    @jax.jit
    def predict(images: jax.Array) -> dict[str, jax.Array]:
        return postprocess(nnx.merge(graphdef, arrays)(normalise(images)), tasks)

    shape = jax_export.symbolic_shape(f"{batch_size or 'batch'}, {size[0]}, {size[1]}, 3")
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    with isolate.fused():
        outputs = jax.eval_shape(predict, images)
    return Program(predict, tuple(tasks), images, {task: outputs[task] for task in tasks})


def form(array: jax.ShapeDtypeStruct) -> dict[str, Any]:
    """Returns the shape of an array, with names for sides that may have any length, and its type, ready for JSON."""
    shape = [side if isinstance(side, int) else str(side) for side in array.shape]
    return {"shape": shape, "dtype": array.dtype.name}
