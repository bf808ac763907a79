"""Recomputing activations changes neither outputs nor gradients nor running statistics, and is not for evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models
from mtl_jax.config import main_tasks
from mtl_jax.losses import Objective
from tests.models.test_models import BACKBONES, batch, config

STAGES = {
    "single_task": {"conv", "layer1", "layer2", "layer3", "layer4", "heads"},
    "baseline": {"conv", "layer1", "layer2", "layer3", "layer4", "heads"},
    "cross_stitch": {"conv", "stage1", "stage2", "heads"},
    "nddr_cnn": {"conv", "stage1", "stage2", "heads"},
    "mtan": {"conv", *(f"{kind}{i}" for kind in ("layer", "attention_") for i in (1, 2, 3, 4)), "heads"},
    "pad_net": {"conv", "stage1", "stage2", "fusion", "initial_predictions", "distillation", "heads"},
    "mti_net": {"conv", "stage1", "stage2", "scale_0", "scale_1", "heads"},
    "invpt": {
        "patch_embed",
        *(f"blocks_{i}" for i in (1, 2, 3, 4)),
        "preliminary",
        "stage_0",
        "stage_1",
        "stage_2",
        "heads",
    },
}


def build(name, stages=()):
    cfg = config(name)
    cfg.model.remat = tuple(stages)
    return models.build(cfg)


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_are_known(name):
    with pytest.raises(ValueError, match="names decoder; the stages of this model are ") as error:
        nnx.eval_shape(lambda: build(name, ["heads", "decoder"]))
    assert set(str(error.value).rpartition(" are ")[2].split(", ")) == STAGES[name]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "cross_stitch" else pytest.mark.slow) for name in BACKBONES],
)
def test_only_memory_and_time_change(name):
    objective = Objective(main_tasks(config(name)))

    def train(graphdef, arrays, batch):
        model = models.training_view(nnx.merge(graphdef, arrays), nnx.Rngs(dropout=0))

        def loss_fn(model):
            outputs = model(batch["image"])
            return objective(outputs, batch)[0], outputs

        gradient, outputs = nnx.compat.grad(loss_fn, has_aux=True)(model)
        return outputs, nnx.as_pure(gradient), nnx.as_pure(nnx.state(model, nnx.BatchStat))

    with jax.enable_x64(True):

        def wide(x):
            return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x

        arrays = jax.tree.map(wide, nnx.as_pure(nnx.state(build(name))))
        found = []
        for stages in ((), STAGES[name]):
            graphdef = nnx.graphdef(nnx.eval_shape(lambda stages=stages: build(name, stages)))
            step = jax.jit(train, static_argnums=0)
            found.append(step(graphdef, arrays, jax.tree.map(wide, batch(name))))

    def compare(kept, recomputed):
        # Rounding errors of float64 through tens of layers; a bias before a batch norm has no gradient but those.
        np.testing.assert_allclose(recomputed, kept, rtol=1e-9, atol=1e-11)

    jax.tree.map(compare, *found)


def test_a_model_recomputes_what_is_named_and_nothing_in_evaluation():
    model = build("baseline", ["layer1", "heads"])
    assert (model.remat, model.backbone.remat) == (("heads",), ("layer1",))
    images = batch()["image"]
    for view, recomputes in (
        (models.training_view(model, nnx.Rngs(dropout=0)), True),
        (models.evaluation_view(model), False),
    ):
        state = nnx.as_pure(nnx.state(view))
        program = jax.make_jaxpr(lambda state, x, view=view: nnx.merge(nnx.graphdef(view), state)(x))(state, images)
        assert ("remat" in str(program)) == recomputes
