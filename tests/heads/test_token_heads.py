"""DINOv2's linear heads and DPT's. `parity/test_dense_heads.py` compares their numbers with recorded ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import heads, models
from mtl_jax.heads import BNLinearHead, DPTHead, LinearHead
from mtl_jax.nn import BlockTokens, Tokens
from tests.marks import slow

CHANNELS = (16,) * 4


def blocks(height=2, width=3, rng=0):
    """Tokens of four blocks, random ones; the normed ones differ from the raw ones."""
    rng = np.random.default_rng(rng)

    def tokens():
        draw = rng.standard_normal
        return Tokens(jnp.float32(draw((2, height, width, 16))), jnp.float32(draw((2, 16))))

    return tuple(BlockTokens(tokens(), tokens()) for _ in CHANNELS)


def changed(given, level, kind, part):
    """The tokens with other class tokens, or patches, in one block."""
    block = given[level]
    tokens = getattr(block, kind)
    other = {"patches": tokens.patches, "class_token": tokens.class_token} | {part: 1 + getattr(tokens, part)}
    replaced = {"raw": block.raw, "normed": block.normed} | {kind: Tokens(**other)}
    return (*given[:level], BlockTokens(**replaced), *given[level + 1 :])


def reads(head, given):
    """(block, raw or normed, patches or class_token) of everything that changes what a head returns."""
    head = models.evaluation_view(head)
    before = head(given)
    parts = [(i, kind, part) for i in range(4) for kind in ("raw", "normed") for part in ("patches", "class_token")]
    return {part for part in parts if np.abs(head(changed(given, *part)) - before).max() > 1e-6}


def every(levels, kind, *parts):
    return {(level, kind, part) for level in levels for part in parts}


BOTH = ("patches", "class_token")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("linear", every(range(4), "raw", *BOTH)),
        ("linear:levels=1,class_token=false,final_norm=true", {(3, "normed", "patches")}),
        ("bn_linear:levels=2", every((2, 3), "normed", "patches")),
        slow("bn_linear:final_norm=false", every(range(4), "raw", "patches")),
    ],
)
def test_what_linear_heads_read(head, expected):
    assert reads(heads.build(head, CHANNELS, 5, rngs=nnx.Rngs(0)), blocks()) == expected


@pytest.mark.parametrize(("readout", "parts"), [("project", BOTH), slow("add", BOTH), ("ignore", ("patches",))])
def test_what_dpt_reads(readout, parts):
    given = blocks()
    reassemble = heads.build(f"dpt:features=4,readout={readout}", CHANNELS, 1, rngs=nnx.Rngs(0)).reassemble_blocks
    maps = reassemble([block.raw for block in given])
    assert [x.shape[1:] for x in maps] == [(8, 12, 2), (4, 6, 4), (2, 3, 8), (1, 2, 16)]
    for part in BOTH:
        other = reassemble([changed(given, 1, "raw", part)[i].raw for i in range(4)])
        differ = [bool(np.abs(a - b).max() > 1e-6) for a, b in zip(maps, other, strict=True)]
        assert differ == [False, part in parts, False, False]


def test_sizes_of_results():
    shape = jax.eval_shape(lambda: blocks(3, 5))
    for head, expected in {
        LinearHead(CHANNELS, 5, rngs=nnx.Rngs(0)): (2, 12, 20, 5),
        BNLinearHead(CHANNELS, 5, rngs=nnx.Rngs(0)): (2, 3, 5, 5),
        DPTHead(CHANNELS, 5, features=4, rngs=nnx.Rngs(0)): (2, 64, 96, 5),
    }.items():
        graphdef, state = nnx.split(models.evaluation_view(head))
        run = jax.eval_shape(lambda state, x, graphdef=graphdef: nnx.merge(graphdef, state)(x), state, shape)
        assert run.shape == expected


def test_the_linear_head_enlarges_the_same_before_and_after_its_layer():
    """It enlarges after the layer; the published head before it."""
    head, given = LinearHead(CHANNELS, 5, rngs=nnx.Rngs(0)), blocks()
    patches = [block.raw.patches for block in given]
    pairs = zip(given, patches, strict=True)
    classes = [jnp.broadcast_to(block.raw.class_token[:, None, None], x.shape) for block, x in pairs]
    features = jnp.concatenate([x for pair in zip(patches, classes, strict=True) for x in pair], axis=-1)
    enlarged = jax.image.resize(features, (2, 8, 12, features.shape[-1]), "bilinear", antialias=False)
    np.testing.assert_allclose(head(given), head.conv_depth(enlarged), atol=1e-5)


@pytest.mark.parametrize(("head", "number"), [("linear:levels=1", 196_864), ("linear", 786_688), ("dpt", 13_961_377)])
def test_number_of_parameters_on_the_small_transformer(head, number):
    bins = "bins" if head != "dpt" else "relu"
    model = nnx.eval_shape(lambda: heads.build(head, (384,) * 4, 1, regression=bins, rngs=nnx.Rngs(0)))
    assert models.count_parameters(model) == number


def test_convolutions_of_dpt_start_from_hes_distribution():
    head = DPTHead((64,) * 4, 1, features=32, rngs=nnx.Rngs(0))
    kernel = np.asarray(head.fusion_blocks[0].res_conv_unit2.conv1.conv.kernel[...])
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 32)), rtol=0.05)
    assert not np.asarray(head.project.conv.bias[...]).any()
    assert np.asarray(head.conv_depth.head[0].bias[...]).any()  # of the output, as torch's convolutions


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("dpt2", r"unknown head 'dpt2'; the heads are .*dpt"),
        ("dpt:width=4", r"'width=4' is no parameter=value of the head dpt; it takes features=256, hidden=32, readout="),
        ("dpt:readout=mean", "readout of the head dpt is 'mean'; it must be project or add or ignore"),
        ("linear:levels=5", "levels of the head linear is '5'; it must be 1 or 2 or 3 or 4"),
        ("hrnet:levels=1", "'levels=1' is no parameter=value of the head hrnet; it takes no parameters"),
        ("dpt:", "ends with a colon"),
    ],
)
def test_impossible_heads_are_refused(head, message):
    with pytest.raises(ValueError, match=message):
        heads.check(head)


def test_dpt_needs_four_blocks():
    with pytest.raises(ValueError, match="reads the tokens of 4 blocks; the backbone has 3"):
        DPTHead((16,) * 3, 1, rngs=nnx.Rngs(0))
