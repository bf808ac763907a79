"""The recipes of InvPT in configs/: what is published, and a training step."""

import jax
import pytest

from mtl_jax import backbones, experiment, models, recipes, tasks
from mtl_jax import config as configs
from mtl_jax.config import validate
from mtl_jax.runtime import sharding
from mtl_jax.runtime.published_files import HubFile
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_train_step
from tests import tiny

TASKS = {"nyud": ("semseg", "normals", "edge", "depth"), "pascal": ("semseg", "human_parts", "sal", "normals", "edge")}
SIZES = {"nyud": (448, 576), "pascal": (512, 512)}
each_dataset = pytest.mark.parametrize("dataset", TASKS)


@each_dataset
def test_what_is_published(dataset):
    config = validate(recipes.load(f"{dataset}_invpt"))
    assert (configs.main_tasks(config), configs.image_size(config)) == (TASKS[dataset], SIZES[dataset])
    assert (config.model.name, config.model.backbone) == ("invpt", "vit_large_patch16")
    assert models.options(config) == models.InvPTOptions(512, 64, 0.15, "sal")
    optim, train = config.optim, config.train
    assert (optim.name, optim.lr, optim.weight_decay, optim.clip_norm) == ("adam", 2e-5, 1e-6, 0)
    assert (optim.schedule, optim.schedule_by, optim.poly_power) == ("poly", "step", 0.9)
    assert (train.batch_size, train.steps, train.epochs, train.eval_every) == (6, 40000, 0, 1000)
    run = experiment.make(config)
    rate = run.learning_rate(steps_per_epoch=100)
    assert float(rate(0)) == pytest.approx(2e-5)
    assert float(rate(20000)) == pytest.approx(2e-5 * 0.5**0.9)
    weights = {"semseg": 1, "human_parts": 2, "sal": 5, "normals": 10, "edge": 50, "depth": 1}
    assert run.objective.weights == weights
    decisive = {task: criterion.name for task, criterion in run.final_criteria.items()}
    assert decisive.get("sal", "maxF_pixel") == "maxF_pixel"
    assert run.protocol.depth == "pixel"


@each_dataset
def test_other_backbones_take_the_same_recipe(dataset):
    config = validate(recipes.load(f"{dataset}_invpt:backbone=dinov2_base"))
    assert config.model.backbone == "dinov2_base"
    config.model.backbone = "vit_large_patch16"
    assert config == recipes.load(f"{dataset}_invpt")


@pytest.mark.slow
@each_dataset
def test_a_training_step_can_be_traced(dataset, monkeypatch):
    tiny.register_backbones(monkeypatch)
    config = recipes.load(f"{dataset}_invpt:backbone=tiny_vit")
    config.data.image_size, config.model.options = (32, 64), {"features": 8, "extra": 8}
    run = experiment.make(config)
    tx = run.optimizer(steps_per_epoch=1)
    state = train_state.abstract(lambda: models.build(run.config), tx, sharding.make_mesh())
    kinds = {task: tasks.get(task).kind for task in TASKS[dataset]}
    batch = {task: jax.ShapeDtypeStruct((2, 32, 64, kind.channels), kind.dtype) for task, kind in kinds.items()}
    batch |= {"image": jax.ShapeDtypeStruct((2, 32, 64, 3), "uint8"), "index": jax.ShapeDtypeStruct((2,), "int32")}
    _, reported = jax.eval_shape(make_train_step(state.graphdef, run.objective), state.arrays, batch)
    names = {*TASKS[dataset], *(f"inter_{task}" for task in TASKS[dataset]), "total"}
    assert set(reported) == {f"loss/{name}" for name in names} | {"gradient_norm", "parameter_norm"}


@each_dataset
def test_the_weights_are_published_ones(dataset):
    model = recipes.load(f"{dataset}_invpt").model
    weights = backbones.weights_of(model.backbone)[model.pretrained]
    assert weights.file == HubFile("timm/vit_large_patch16_384.augreg_in21k_ft_in1k")
