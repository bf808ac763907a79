import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models
from mtl_jax.heads import DeepLabHead
from mtl_jax.heads.deeplab import ASPP
from mtl_jax.nn import Conv, Dropout


@pytest.fixture(scope="module")
def head():
    return DeepLabHead((8, 16), 5, rngs=nnx.Rngs(0))


def maps(batch_size):
    return tuple(jax.random.normal(jax.random.key(0), (batch_size, 4, 6, width)) for width in (8, 16))


def test_training_on_one_image_is_refused(head):
    with pytest.raises(
        ValueError, match=r"cannot train on a global batch of one image.*train\.batch_size to 2 or more"
    ):
        models.training_view(head, nnx.Rngs(dropout=0))(maps(1))


def test_evaluation_of_one_image_works(head):
    out = models.evaluation_view(head)(maps(1))
    assert out.shape == (1, 4, 6, 5)
    assert np.isfinite(out).all()


def test_it_reads_the_coarsest_map_alone(head):
    head = models.evaluation_view(head)
    fine, coarse = maps(2)
    np.testing.assert_array_equal(head((fine, coarse)), head((0 * fine, coarse)))
    assert (head((fine, 2 * coarse)) != head((fine, coarse))).any()


def test_layers(head):
    aspp = head[0]
    assert isinstance(aspp, ASPP)
    branches = [branch[0] for branch in list(aspp.convs)[:4]]
    assert [(conv.kernel.shape, conv.dilation) for conv in branches] == [
        ((1, 1, 16, 256), 1),
        ((3, 3, 16, 256), 12),
        ((3, 3, 16, 256), 24),
        ((3, 3, 16, 256), 36),
    ]
    assert aspp.project[0].kernel.shape == (1, 1, 5 * 256, 256)
    assert isinstance(aspp.project[3], Dropout)
    assert aspp.project[3].rate == 0.5
    convs = [module for _, module in nnx.iter_modules(head) if isinstance(module, Conv)]
    assert [conv for conv in convs if conv.bias is not None] == [head[4]]  # all others precede a batch norm


def test_the_pooled_branch_sees_the_whole_image():
    aspp = models.evaluation_view(ASPP(3, rngs=nnx.Rngs(0)))
    x = jnp.zeros((1, 4, 6, 3))
    # A change in one corner reaches the opposite one: through the pooling alone, as every dilation leads outside.
    assert (aspp(x)[0, 3, 5] != aspp(x.at[0, 0, 0].set(100.0))[0, 3, 5]).any()
