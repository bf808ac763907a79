"""A trained model, read from a work directory and ready to predict."""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from mtl_jax import config as configs
from mtl_jax import experiment
from mtl_jax.config import Config
from mtl_jax.data.split import Split
from mtl_jax.evaluation import scoring
from mtl_jax.experiment import Experiment
from mtl_jax.runtime import compilation, sharding
from mtl_jax.train import inputs, restore
from mtl_jax.train.step import make_predict_step


class Restored:
    """The model of a run at one of its checkpoints, for evaluation: it predicts splits at the size of the network.

    `mtl_jax.inference.model.Model` is for images from anywhere, and predicts maps at their own size.

    Args:
        config: The run's own experiment or configuration, `experiment.load_config(workdir)`.
        workdir: The work directory of the run.
        step: Checkpoint: "best", "latest" or the number of a step.
        weights: Weights of the checkpoint: "ema" or "trained"; empty = those that training evaluated.

    Raises:
        FileNotFoundError: The run has no checkpoints, or no such step.
        DamagedError: The checkpoint's files are not whole.
        ValueError: The checkpoint does not fit the configuration, or has no such weights.

    Attributes:
        experiment: The run's experiment.
        config: The run's configuration.
        workdir: The work directory of the run.
        step: Number of the checkpoint's step.
        weights: Weights of the model: "ema" or "trained".
        tasks: The main tasks.
        mesh: The devices, which share the images of a batch.
        state: State with the model alone.
    """

    def __init__(self, config: Config | Experiment, workdir: str | Path, step: str, weights: str = ""):
        self.experiment, self.workdir = experiment.make(config), Path(workdir)
        self.config, self.tasks = self.experiment.config, self.experiment.main_tasks
        self.mesh = sharding.make_mesh()
        self.step, self.weights, self.state = restore.load(self.experiment, workdir, step, weights)
        predict = make_predict_step(self.state.graphdef, self.tasks, self.mesh)
        self._predict = compilation.announced(predict, "the prediction")

    @cached_property
    def fingerprint(self) -> str:
        """A text that differs between models that predict differently; the optimiser's state has no influence."""
        digest = hashlib.sha256(repr((self.config.model, self.experiment.image_size, self.tasks)).encode())
        for value in jax.tree.leaves(self.state.arrays):
            if not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
                digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def predict_split(
        self, source: Split, batch_size: int = 0, skip: Container[int] = ()
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yields (index, {task: prediction at network resolution}) for every image of a split.

        Args:
            source: The records of the split.
            batch_size: Number of images in a batch over all devices; 0 = the run's batch size of evaluation.
            skip: Indices of images to leave out.
        """
        left = [index for index in range(len(source)) if index not in skip]
        if not left:
            return
        size = batch_size or configs.eval_batch_size(self.config)
        sharding.check_batch_size(size, self.mesh, "batch_size")
        batches = inputs.val_batches(self.experiment, source.subset(left), size, labels=False)
        for position, maps in self.predict_batches(batches):
            yield left[position], maps

    def predict_batches(
        self, batches: Iterable[Mapping[str, np.ndarray]]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yields (index, {task: prediction at network resolution}) for every image of batches.

        Args:
            batches: Batches with "image" `[B, H, W, 3]`, "index" and "valid" `[B]`; images that are not valid are
                padding.
        """
        return scoring.predict_images(self._predict, self.state.arrays, batches, self.mesh)
