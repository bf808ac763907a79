"""InvPT: tasks in the published order, two logits of saliency, layers that nothing reads, and sizes of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models, optim, weights
from mtl_jax.config import Config, Data, Model
from mtl_jax.losses import balanced_cross_entropy, softmax_cross_entropy
from mtl_jax.models.inverted_pyramid import MessagePassingAttention
from mtl_jax.models.transformer_tasks import as_outputs, published_order
from mtl_jax.nn import Frozen

PASCAL = ("semseg", "human_parts", "sal", "normals", "edge")
SMALL = {"features": 8, "extra": 8}


def abstract(tasks=("semseg", "depth"), dataset="nyud", backbone="tiny_vit", size=(32, 64), **options):
    config = Config(Data(dataset, tasks, image_size=size), Model("invpt", backbone, options=SMALL | options))
    return nnx.eval_shape(lambda: models.build(config))


def test_depth_comes_second():
    """In the table of tasks it is the last one."""
    assert published_order(("semseg", "normals", "edge", "depth")) == ("semseg", "depth", "normals", "edge")
    assert published_order(PASCAL) == PASCAL
    assert published_order(("heat", "edge", "semseg")) == ("semseg", "edge", "heat")  # "heat" is not published
    model = abstract(("semseg", "normals", "edge", "depth"))
    assert model.multi_task_decoder.tasks == model.multi_task_decoder.invpt.tasks
    assert model.multi_task_decoder.tasks == ("semseg", "depth", "normals", "edge")


def test_saliency_has_two_logits_unless_the_option_says_otherwise():
    for given, wanted in (({}, (2, 1)), ({"two_logits": ""}, (1, 1)), ({"two_logits": "sal+edge"}, (2, 2))):
        model = abstract(PASCAL, "pascal", **given)
        for task, channels in zip(("sal", "edge"), wanted, strict=True):
            preliminary = model.multi_task_decoder.intermediate_head[task].kernel
            assert model.heads[task].linear_pred.kernel.shape[-1] == preliminary.shape[-1] == channels
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, 32, 64, 3), jnp.float32)
    outputs = jax.eval_shape(lambda s, x: models.evaluation_view(nnx.merge(graphdef, s))(x), state, images)
    assert outputs.logits["sal"].shape == outputs.logits["edge"].shape == (1, 32, 64, 1)
    assert outputs.intermediate["inter"]["sal"].shape == (1, 2, 4, 1)


def test_two_logits_become_one_of_the_same_probability_and_loss():
    rng = np.random.default_rng(0)
    both, label = rng.standard_normal((2, 3, 4, 2)).astype(np.float32), rng.integers(0, 2, (2, 3, 4, 1))
    label[0, 0] = 255
    one = as_outputs({"sal": jnp.asarray(both)}, {"sal": 1})["sal"]
    np.testing.assert_allclose(jax.nn.sigmoid(one)[..., 0], jax.nn.softmax(both)[..., 1], rtol=1e-5)
    negative = (label == 0).sum() / (label != 255).sum()
    ours, plain = balanced_cross_entropy(one, label), softmax_cross_entropy(both, label)
    weighted = softmax_cross_entropy(both, label, class_weights=(1 - negative, negative))
    weights_sum = np.where(label == 0, 1 - negative, np.where(label == 1, negative, 0)).sum()
    np.testing.assert_allclose(ours, weighted * weights_sum / (label != 255).sum(), rtol=1e-5)
    assert abs(float(ours - plain)) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 12}, r"model\.options\.features \+ model\.options\.extra is 20; .* multiple of 8"),
        ({"drop_path": 1.0}, r"model\.options\.drop_path is 1\.0; it must be at least 0 and below 1"),
        ({"two_logits": "depth"}, r"two_logits names depth, whose labels are no foreground; it may name sal and edge"),
        ({"two_logits": "salt"}, r"unknown task 'salt'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        abstract(**options)


def test_an_optimiser_leaves_layers_that_nothing_reads():
    """Published weights have them. With a gradient of 0, Adam's weight decay would move them by the learning rate."""
    model = abstract()
    unused = {
        "multi_task_decoder.scale_embed.2",
        "multi_task_decoder.invpt.norm_mt",
        "multi_task_decoder.invpt.redu_chan.0.0",
        "multi_task_decoder.invpt.redu_chan.0.1",
        "multi_task_decoder.invpt.invpt_stages.0.blocks.0.attn.fuse_attn",
    }
    frozen = {path for path, value in nnx.to_flat_state(nnx.state(model)) if isinstance(value, Frozen)}
    assert {".".join(map(str, path[:-1])) for path in frozen} == unused
    parameters = nnx.as_pure(nnx.state(model, nnx.Param))
    tx = optim.make_optimizer("adam", 1e-3, weight_decay=1e-6)
    moments = jax.eval_shape(tx.init, parameters)
    moved = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(moments)}
    assert not any("norm_mt'" in path for path in moved)
    assert any("norm_mts" in path for path in moved)
    assert {f"{path}.weight" for path in unused} <= set(weights.torch_keys(model))


def numbers(shape, rng):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def test_attention_passes_scores_on():
    """One head of one query of the second task, by hand."""
    rng = np.random.default_rng(0)
    attention = MessagePassingAttention(2, 8, 1, rngs=nnx.Rngs(0))
    for _, variable in nnx.iter_graph(attention):
        if isinstance(variable, nnx.Param):
            variable[...] = numbers(variable.shape, rng)
    y, message = numbers((1, 2, 4, 8, 8), rng), numbers((1, 4, 2, 4), rng)
    view = models.evaluation_view(attention)
    out, scores = view(y, message)
    assert (out.shape, scores.shape) == (y.shape, (1, 16, 2, 4))

    def affine(layer, x):
        return np.asarray(x) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

    task, row, column, head = 1, 1, 2, 1
    query = affine(attention.proj_q, view.conv_proj_q[task](y[:, task])[0, row, column])
    pooled = np.asarray(y[0]).reshape(2, 1, 4, 2, 4, 8).mean((2, 4)).reshape(4, 8)
    keys = affine(attention.proj_k, pooled)
    plain = [keys[:, part] @ query[part] / np.sqrt(8) for part in (slice(0, 4), slice(4, 8))]
    # Rows of the message are 1x2 pixels of each task. Pixel (1, 2) of 2x4 lies a quarter from the second one.
    passed = 0.25 * message[0, 2 * task] + 0.75 * message[0, 2 * task + 1]
    kernel, bias = attention.fuse_attn.kernel[0, 0, :, head], attention.fuse_attn.bias[head]
    fused = np.asarray(kernel) @ np.stack([*plain, *np.asarray(passed)]) + float(bias)
    number = task * 8 + row * 4 + column
    np.testing.assert_allclose(scores[0, number, head], fused, rtol=1e-4, atol=1e-4)


def test_sizes_that_the_stages_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"multiples of 32 on tiny_vit; these have 32x80 .*image_size=32,64 for"):
        abstract(size=(32, 80))
    model = abstract()
    with pytest.raises(ValueError, match=r"images of 32x48 pixels; model invpt takes sides that are multiples of 32"):
        jax.eval_shape(model.logits, jax.ShapeDtypeStruct((1, 32, 48, 3), jnp.float32))
    assert model.multiple == 32  # to which prediction pads


def test_a_pyramid_of_maps_takes_the_place_of_tokens():
    """The stages add the maps of their own resolutions, so none is left over, and none is enlarged."""
    model = abstract(backbone="tiny_resnet", size=(64, 128))
    assert model.multiple == 64
    assert [conv.kernel.shape[2:] for conv in model.multi_task_decoder.scale_embed] == [(32, 4), (64, 8)]
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, 64, 128, 3), jnp.float32)
    logits, preliminary = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s).logits(x), state, images)
    assert (logits["depth"].shape, preliminary["depth"].shape) == ((1, 16, 32, 1), (1, 2, 4, 1))
