from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models
from mtl_jax.backbones import ResNet
from mtl_jax.models.mtan import MTAN
from mtl_jax.nn import Sequential, max_pool_2x2

TASKS = ("semseg", "depth")
SIZE = (33, 47)


def build(backbone: str) -> MTAN:
    """Its outputs are the attended maps of layer4, enlarged."""
    rngs = nnx.Rngs(0)
    return MTAN(ResNet(backbone, rngs=rngs), {task: Sequential([itemgetter(-1)]) for task in TASKS}, rngs=rngs)


def images():
    return jax.random.normal(jax.random.key(0), (2, *SIZE, 3))


def test_refinements_pool_where_the_next_layer_has_a_stride():
    def pools(backbone):
        model = nnx.eval_shape(lambda: build(backbone))
        return [max_pool_2x2 in list(getattr(model, f"refine_{i}")) for i in (1, 2, 3)]

    assert pools("tiny_resnet") == [True, True, True]
    assert pools("tiny_resnet_dilated") == [True, False, False]


@pytest.mark.slow
def test_shared_statistics_see_the_tasks_one_after_the_other():
    graphdef, state = nnx.split(build("tiny_resnet"))

    def train(arrays, images):
        model = models.training_view(nnx.merge(graphdef, arrays), nnx.Rngs(dropout=0))
        model(images)
        return nnx.as_pure(nnx.state(model, nnx.BatchStat))

    train = jax.jit(train)

    def statistics(first, second):
        """Running statistics after a step in which the two tasks attend with the masks of these ones: {path: array}."""
        arrays = nnx.as_pure(state)
        for i in range(1, 5):
            masks = arrays[f"attention_{i}"]
            arrays[f"attention_{i}"] = {"semseg": masks[first], "depth": masks[second]}
        leaves = jax.tree_util.tree_leaves_with_path(train(arrays, images()))
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    found, first, second = (statistics(*masks) for masks in (TASKS, ("semseg", "semseg"), ("depth", "depth")))
    shared = [path for path in found if "refine" in path]
    assert len(shared) == 3 * 4 * 2  # three bottlenecks with a projection each, mean and variance
    for path in shared:
        # running = 0.9 * running + 0.1 * batch, twice; with one task's masks both batches are the same.
        remains = 0.81 * (0 if "mean" in path else 1)
        batch = [(twice - remains) / 0.19 for twice in (first[path], second[path])]
        assert np.abs(batch[1] - batch[0]).max() > 1e-3  # their order matters
        # float32, through a division that enlarges its errors five times.
        np.testing.assert_allclose(found[path], remains + 0.09 * batch[0] + 0.1 * batch[1], rtol=2e-5, atol=2e-6)
    # The backbone's see the images once.
    stem = nnx.merge(graphdef, state).backbone.conv1(images())
    expected = 0.1 * np.asarray(stem).mean((0, 1, 2))
    np.testing.assert_allclose(found["['backbone']['bn1']['mean']"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_mask_multiplies_the_layers_output():
    """The last batch norm of a mask sets the argument of its sigmoid: to 0 for one task, -ln 3 for the other."""
    model = models.evaluation_view(build("tiny_resnet_dilated"))
    for task, bias in (("semseg", 0.0), ("depth", -np.log(3.0))):
        mask = model.attention_4[task]
        mask[4].scale[...] = jnp.zeros_like(mask[4].scale[...])
        mask[4].bias[...] = jnp.full_like(mask[4].bias[...], bias)
    attended, (expected,) = model(images()), model.backbone(images())
    expected = jax.image.resize(expected, (2, *SIZE, expected.shape[-1]), "bilinear", antialias=False)
    assert jnp.abs(expected).max() > 0.1
    for task, share in (("semseg", 0.5), ("depth", 0.25)):
        np.testing.assert_allclose(attended.logits[task], share * expected, rtol=1e-4, atol=1e-5)  # float32, ten layers
