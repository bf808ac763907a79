"""A run with a prediction of every kind, for tests that export it, and what evaluation predicts with it."""

from pathlib import Path

import numpy as np

from mtl_jax import experiment, models, weights
from mtl_jax.config import Model
from mtl_jax.inference.restored import Restored
from mtl_jax.train import initial_weights
from tests import tiny

TASKS = ("semseg", "normals", "edge", "depth")


def create(folder: Path, backbone: str = "tiny_resnet", dtype: str = "float32") -> Path:
    """Makes a work directory in a folder with random weights. `tiny.register_backbones` comes first."""
    config = tiny.config(folder)
    config.data.tasks = TASKS
    config.model = Model("baseline", backbone, dtype=dtype)
    model = tiny.randomise_batch_norms(models.build(config))
    initial_weights.create_workdir(config, folder / "run", weights.to_torch(model))
    return folder / "run"


def images(number: int) -> np.ndarray:
    """Random images `[number, 64, 64, 3]`."""
    return np.random.default_rng(number).integers(0, 256, (number, 64, 64, 3), np.uint8)


def expected(workdir: Path, batch: np.ndarray) -> dict[str, np.ndarray]:
    """What evaluation predicts, unfolded."""
    run = Restored(experiment.load_config(workdir), workdir, "latest")
    number = len(batch)
    whole = {"image": batch, "index": np.arange(number, dtype=np.int32), "valid": np.ones(number, bool)}
    maps = [maps for _, maps in run.predict_batches([whole])]
    return {task: np.stack([one[task] for one in maps]) for task in run.tasks}


def assert_close(maps, wanted):
    """Compares predictions of float32, of up to 255."""
    assert maps.keys() == wanted.keys()
    for task, values in wanted.items():
        assert maps[task].dtype == values.dtype
        if task == "semseg":
            assert (maps[task] == values).mean() > 0.999  # two classes may be equally likely
        else:
            np.testing.assert_allclose(maps[task], values, rtol=1e-4, atol=1e-3)
