"""A trained model out of a work directory, ready to predict."""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from mtl_jax import experiment
from mtl_jax.config import Config, main_tasks, validate
from mtl_jax.data import loader
from mtl_jax.data.split import Split
from mtl_jax.evaluation import scoring
from mtl_jax.runtime import sharding
from mtl_jax.train import restore
from mtl_jax.train.step import make_predict_step


class Restored:
    """The model of a run at one of its checkpoints.

    Args:
        config: the run's own, `experiment.load_config(workdir)`.
        step: "best", "latest" or a number.

    Raises:
        FileNotFoundError: no checkpoint, or not that one.
        ValueError: the checkpoint does not fit the configuration.

    Attributes:
        workdir: of the run.
        step: the checkpoint's step.
        tasks: the main tasks.
        state: the model and its optimiser.
    """

    def __init__(self, config: Config, workdir: str | Path, step: str):
        self.config, self.workdir = validate(config), Path(workdir)
        self.tasks = main_tasks(config)
        self.mesh = sharding.make_mesh()
        self.step, self.state = restore.load(config, workdir, step)
        self._predict = make_predict_step(self.state.graphdef, self.tasks, self.mesh)

    @cached_property
    def fingerprint(self) -> str:
        """Another one for every model that predicts something else, and for another state of its optimiser."""
        found = hashlib.sha256(repr((self.config.model, experiment.image_size(self.config), self.tasks)).encode())
        for value in jax.tree.leaves(self.state.arrays):
            if not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
                found.update(np.ascontiguousarray(value).tobytes())
        return found.hexdigest()

    def predict_split(
        self, source: Split, batch_size: int = 0, skip: Container[int] = ()
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(index, {task: prediction at network resolution}) for every image of a split.

        Args:
            batch_size: images at a time over all devices; 0 = the run's own for evaluation.
            skip: images to leave out.
        """
        left = [index for index in range(len(source)) if index not in skip]
        if not left:
            return
        train = self.config.train
        size = batch_size or train.eval_batch_size or train.batch_size
        sharding.check_batch_size(size, self.mesh, "batch_size")
        batches = loader.val_batches(
            source.subset(left),
            family=self.config.data.dataset,
            tasks=(),
            size=experiment.image_size(self.config),
            batch_size=size,
            num_workers=self.config.data.num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        for position, maps in self.predict_batches(batches):
            yield left[position], maps

    def predict_batches(
        self, batches: Iterable[Mapping[str, np.ndarray]]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """As `predict_split`, from batches of normalised images with "index" and "valid"."""
        return scoring.predict_images(self._predict, self.state.arrays, batches, self.mesh)
