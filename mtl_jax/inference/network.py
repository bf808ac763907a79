"""The network of a model, compiled for every size of image that it meets."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import cv2
import jax
import numpy as np
from flax import nnx

from mtl_jax import tasks as task_table
from mtl_jax.evaluation import predictions
from mtl_jax.experiment import Experiment
from mtl_jax.images import normalise
from mtl_jax.inference.options import PredictOptions
from mtl_jax.inference.placement import Size, scaled
from mtl_jax.models import evaluation_view
from mtl_jax.runtime import compilation, sharding
from mtl_jax.runtime.messages import size_text
from mtl_jax.train.state import TrainState

Values = dict[str, np.ndarray]  # {task: softened values `[B, h, w, C]`}, see `LabelKind.soften`


class Network:
    """Computes softened values of images, averaged over mirrored and scaled views.

    Args:
        experiment: The experiment that the model is from.
        state: State with the model alone, whole on all devices.

    Attributes:
        size: (height, width) of the network's inputs in training.
        multiple: Number of pixels of which the sides of other inputs are multiples.
        fixed_size: True if the network takes no images of other sizes.
    """

    def __init__(self, experiment: Experiment, state: TrainState):
        self.size = experiment.image_size
        self._tasks, self._conventions = experiment.main_tasks, experiment.conventions
        self._arrays, self._mesh = state.arrays, sharding.make_mesh()
        model: Any = state.model()
        self.multiple = model.multiple
        self.fixed_size = any(backbone.fixed_size for backbone in model.backbones())
        self._programs: dict[tuple[int, ...], Callable[..., Any]] = {}  # {shape of images: program, announced}
        tasks, graphdef = self._tasks, state.graphdef

        @partial(jax.jit, out_shardings=sharding.replicated(self._mesh))
        def soften(arrays: Any, images: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            model, *_ = nnx.merge(graphdef, arrays)
            return predictions.soften(evaluation_view(model)(normalise(images["image"])), tasks)

        self._soften = soften

    def values(self, images: np.ndarray, options: PredictOptions) -> Values:
        """Returns softened values at the size of the images.

        Args:
            images: uint8 `[B, h, w, 3]`, at most `options.batch_size` of them.
            options: Views that are averaged.

        Raises:
            ValueError: The network takes no images of this size.
        """
        total: Values = {}
        for scale, mirrored in options.views:
            values = self._view(images, scale, mirrored, options.batch_size)
            total = {task: total[task] + value for task, value in values.items()} if total else values
        views = len(options.views)
        return total if views == 1 else {task: value / views for task, value in total.items()}

    def _view(self, images: np.ndarray, scale: float, mirrored: bool, batch_size: int) -> Values:
        own: Size = (images.shape[1], images.shape[2])
        size = own if scale == 1 else self._scaled_size(own, scale)
        seen = np.stack([scaled(image, size) for image in images])
        values = self._run(seen[:, :, ::-1] if mirrored else seen, batch_size)
        if mirrored:
            kinds = {task: task_table.get(task).kind for task in values}
            # A copy: `flip` changes values in their place, and arrays from a device cannot be changed.
            values = {task: kinds[task].flip(x[:, :, ::-1].copy(), self._conventions) for task, x in values.items()}
        return {task: np.stack([_resized(each, own) for each in x]) for task, x in values.items()}

    def _scaled_size(self, size: Size, scale: float) -> Size:
        height, width = (max(1, round(side * scale / self.multiple)) * self.multiple for side in size)
        return (height, width)

    def _run(self, images: np.ndarray, batch_size: int) -> Values:
        size: Size = (images.shape[1], images.shape[2])
        if self.fixed_size and size != self.size:
            raise ValueError(
                f"the network takes images of {size_text(self.size)} alone, because its weights depend on the size, "
                f"and this one is {size_text(size)}; set resize='fit' or 'stretch', scales=(1.0,)"
            )
        # One size of batch, which the devices share evenly, is one program.
        batch = -(-batch_size // self._mesh.size) * self._mesh.size
        whole = np.concatenate([images, np.repeat(images[-1:], batch - len(images), axis=0)])
        if whole.shape not in self._programs:
            what = f"the network for images of {size_text(size)}, {batch} at a time"
            self._programs[whole.shape] = compilation.announced(self._soften, what)
        values = self._programs[whole.shape](self._arrays, sharding.shard_batch({"image": whole}, self._mesh))
        return {task: np.asarray(values[task])[: len(images)] for task in self._tasks}


def _resized(values: np.ndarray, size: Size) -> np.ndarray:
    """Resizes values `[h, w, C]` linearly, channel by channel because OpenCV limits the number of channels."""
    if values.shape[:2] == size:
        return values
    channels = [np.ascontiguousarray(values[..., i]) for i in range(values.shape[-1])]
    return np.stack([cv2.resize(x, size[::-1], interpolation=cv2.INTER_LINEAR) for x in channels], axis=-1)
