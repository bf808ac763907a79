"""A run whose gallery can be drawn."""

import pytest

from mtl_jax import backbones, models, weights
from mtl_jax.inference import evaluate
from mtl_jax.train import initial_weights
from tests import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """An evaluated model of two tasks on five images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
        config = tiny.config(data_dir)
        config.data.tasks, config.model.name = ("semseg", "depth"), "baseline"
        path = tmp_path_factory.mktemp("runs") / "run"
        initial_weights.create_workdir(config, path, weights.to_torch(models.build(config)))
        evaluate.evaluate_run(path)
        yield path
