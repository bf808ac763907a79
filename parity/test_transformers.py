"""Vision transformers against the numbers recorded from DINOv2's own code and from timm, in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import weights
from mtl_jax.backbones.vit_encoder import VisionTransformer
from mtl_jax.backbones.vit_variants import VARIANTS
from mtl_jax.backbones.vit_weights import published
from mtl_jax.nn import PackedSwiGLU
from mtl_jax.nn.position_embedding import resize_antialiased, resize_with_offset
from mtl_jax.nn.rotary import angles
from parity import report, transformers

SMALL = {"width": 48, "heads": 4, "outputs": (1, 2, 3, 4), "layer_scale": 1.0}
PLAIN = replace(VARIANTS["deit_small_patch16"], **SMALL | {"grid": 7, "layer_scale": 0.0})
DINOV2 = replace(VARIANTS["dinov2_small"], **SMALL, grid=5)
DINOV3 = replace(VARIANTS["dinov3_small"], **SMALL)
PLUS = replace(VARIANTS["dinov3_small_plus_qkvb"], **SMALL)
DINOV2_BY_TIMM = replace(DINOV2, grid=7, resize=resize_antialiased)
# {recording: the transformer}
TIMM = {
    "timm_vit_patch16_resized": PLAIN,
    "timm_dinov2_patch14": DINOV2_BY_TIMM,
    "timm_dinov2_reg4_patch14": replace(DINOV2_BY_TIMM, registers=4),
    "timm_dinov3_patch16": DINOV3,
    "timm_dinov3_qkvb_plus_patch16": PLUS,
}
META = {
    "dinov2_plain": DINOV2,
    "dinov2_reg4": replace(DINOV2, registers=4, resize=resize_antialiased),
    "dinov2_swiglu": replace(DINOV2, mlp=PackedSwiGLU, hidden=0),
}
BOUND = 1e-9


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def load(name, variant):
    """A transformer in float64 with the recorded weights, read under the names that they were recorded with."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: VisionTransformer(variant, rngs=nnx.Rngs(0))))
    model = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), state))
    weights.load_torch(model, published(transformers.state_dict(name), variant))
    return model


def padded(images, patch):
    """Images with zeros below and to the right of them, as timm pads them to whole patches."""
    return np.pad(images, [(0, 0), *((0, -side % patch) for side in images.shape[1:3]), (0, 0)])


def tokens(model, images):
    """The tokens after each block, and all tokens after the final norm, as timm orders them."""
    maps, outputs = model.embed(images), {}
    for i, block in enumerate(model.blocks):
        maps = model.run([block], maps)
        outputs[f"block{i}"] = jnp.moveaxis(maps[0], -1, 1)
    return outputs | {"final_tokens": normed(model, maps)}


def normed(model, maps):
    patches, prefix = maps
    return model.norm(jnp.concatenate([prefix[:, 0], patches.reshape(len(patches), -1, patches.shape[-1])], axis=1))


def gradients(name, model, loss, prefix):
    """The objective, and the largest deviation of a gradient's norm and sum, relative to the norm.

    Every recorded key has a gradient here, and every parameter has a recorded key.
    """
    recorded, shapes = transformers.recorded(name), dict(transformers.keys(name))
    graphdef, state = nnx.split(model)
    value, grads = jax.jit(jax.value_and_grad(lambda state: loss(nnx.merge(graphdef, state))))(state)
    arrays = weights.to_torch(nnx.merge(graphdef, grads))
    deviations = []
    rows = zip(recorded[f"{prefix}keys"], recorded[f"{prefix}l2_f64"], recorded[f"{prefix}sum_f64"], strict=True)
    for key, norm, total in rows:
        shape = shapes[key]
        (ours,) = published({str(key): np.zeros(shape)}, model.variant)
        gradient = arrays.pop(ours)
        if key == "pos_embed":  # timm has no position of the class token beside registers
            gradient = gradient[:, -shape[1] :]
        assert gradient.shape == shape
        deviations += [abs(np.sqrt(np.square(gradient).sum()) - norm) / norm, abs(gradient.sum() - total) / norm]
    assert not arrays
    return float(value), max(deviations)


def parametrized(names, default):
    """All recordings, of which a default run takes one or, with None, none."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name == default else pytest.mark.slow) for name in names]
    )


@parametrized(TIMM, "timm_dinov3_qkvb_plus_patch16")
def test_timm(name):
    recorded, variant = transformers.recorded(name), TIMM[name]
    model = load(name, variant)
    sizes = list(dict.fromkeys(key.split("/")[1] for key in recorded if key.startswith("eval/")))
    deviations = {}
    for size in sizes:
        images = jnp.asarray(padded(transformers.image(*map(int, size.split("x"))), variant.patch), jnp.float64)
        for output, value in jax.jit(tokens)(model, images).items():
            deviations[f"{size}/{output}"] = transformers.sums(f"eval/{size}/{output}", np.asarray(value), recorded)
            if output == "final_tokens":  # recorded in float32
                np.testing.assert_allclose(value, recorded[f"eval/{size}/{output}"], atol=1e-4)
    images = jnp.asarray(padded(transformers.image(*map(int, sizes[0].split("x"))), variant.patch), jnp.float64)

    def objective(model):
        return sum(jnp.square(x).mean() / 2 for x in tokens(model, images).values())

    loss, worst = gradients(name, model, objective, "grad/")
    deviations |= {"loss": abs(loss / float(recorded["loss_f64"]) - 1), "gradients": worst}
    check(name, deviations)


@parametrized(META, None)
def test_dinov2(name):
    recorded, variant = transformers.recorded(name), META[name]
    model = load(name, variant)
    deviations = {}

    def final(model, images):
        return model.run(list(model.blocks), model.embed(images))

    for height, width in ((56, 84), (70, 70), (140, 98), (28, 126)):
        size = f"{height}x{width}"
        images = jnp.asarray(transformers.image(height, width), jnp.float64)
        maps = jax.jit(final)(model, images)
        prenorm = np.concatenate([maps[1][:, 0], maps[0].reshape(2, -1, variant.width)], axis=1)
        y, registers = np.asarray(normed(model, maps)), variant.registers
        complete = {
            "x_prenorm": prenorm,
            "x_norm_clstoken": y[:, 0],
            "x_norm_patchtokens": y[:, 1 + registers :],
            **({"x_norm_regtokens": y[:, 1 : 1 + registers]} if registers else {}),
        }
        for output, value in complete.items():
            deviations[f"{size}/{output}"] = transformers.sums(f"{size}/{output}", value, recorded)
        elements = recorded[f"{size}/x_norm_patchtokens#f64"]
        deviations[f"{size}/elements"] = np.abs(complete["x_norm_patchtokens"][:, ::5, ::4] - elements).max()

        def objective(model, images=images):
            y = normed(model, final(model, images))
            patches = y[:, 1 + variant.registers :]
            weigh = [np.random.default_rng(seed).standard_normal for seed in (4, 5)]
            return (patches * weigh[0](patches.shape)).sum() + (y[:, 0] * weigh[1](y[:, 0].shape)).sum()

        if height == 56:
            _, deviations["gradients"] = gradients(name, model, objective, f"{size}/grad/")
    check(name, deviations)


@pytest.mark.parametrize(("kind", "resize"), [("plain", resize_with_offset), ("reg4", resize_antialiased)])
def test_published_position_embeddings(kind, resize):
    recorded = transformers.recorded("pos_embed_37")
    embedding = jnp.asarray(transformers.weight("pos_embed", (1, 1370, 4), "dinov2"), jnp.float64)
    sizes = [key for key in recorded if key.startswith(kind) and key.endswith("#sum_f64")]
    assert len(sizes) == 6
    for key in sizes:
        stem = key.removesuffix("#sum_f64")
        height, width = map(int, stem.rpartition("/")[-1].split("x"))
        grid = resize(embedding[:, 1:].reshape(1, 37, 37, 4), (height, width))
        ours = np.concatenate([embedding[0, :1], grid.reshape(-1, 4)])
        np.testing.assert_allclose(ours.sum(), recorded[key], rtol=1e-11)
        np.testing.assert_allclose(ours[[0, 1, -1]], recorded[f"{stem}#first_last_f64"].reshape(3, 4), rtol=1e-11)


def test_timms_position_embeddings():
    recorded = transformers.recorded("pos_embed_7")
    grid = jnp.asarray(recorded["pos_embed"], jnp.float64)[:, 1:].reshape(1, 7, 7, 5)
    for key in ("9x12", "4x6", "5x9"):
        size = tuple(map(int, key.split("x")))
        ours = resize_antialiased(grid, size).reshape(1, -1, 5)
        np.testing.assert_allclose(ours, recorded[f"antialias/{key}"][:, 1:], atol=1e-13)


def test_rotary_angles():
    table = transformers.recorded("timm_dinov3_patch16")
    ours = angles(4, 6, 12)
    both = np.concatenate([np.sin(ours), np.cos(ours)], axis=-1)
    np.testing.assert_allclose(both, table["rope_table"], atol=1e-5)  # recorded in float32
    np.testing.assert_allclose(np.abs(both).sum(), table["rope_table#abssum_f64"], rtol=1e-12)


def check(name, deviations):
    for quantity, deviation in deviations.items():
        assert deviation < BOUND, quantity
    outputs = [deviation for quantity, deviation in deviations.items() if quantity not in ("gradients", "loss")]
    report.record(f"flax float64 {name} / recorded", "eval", max(outputs))
    report.record(f"flax float64 {name} / recorded", "gradients", deviations["gradients"])
