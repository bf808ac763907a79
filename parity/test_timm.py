"""Vision transformers against timm's, live, where timm is installed (`pip install timm`; it needs torchvision)."""

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
from mtl_jax.nn.position_embedding import resize_antialiased

SMALL = {"width": 48, "heads": 4, "outputs": (1, 2, 3, 4)}
# {timm's model: (ours, side of the trained grid)}
MODELS = {
    "vit_small_patch16_384": ("deit_small_patch16", 5),
    "vit_small_patch14_dinov2": ("dinov2_small", 5),
    "vit_small_patch14_reg4_dinov2": ("dinov2_small_reg4", 5),
    "vit_giant_patch14_reg4_dinov2": ("dinov2_giant_reg4", 5),
    "vit_small_patch16_dinov3": ("dinov3_small", 0),
    "vit_small_plus_patch16_dinov3_qkvb": ("dinov3_small_plus_qkvb", 0),
}


@pytest.mark.parametrize("name", MODELS)
def test_tokens(name, torch, seed):
    timm = pytest.importorskip("timm", reason="compares with timm", exc_type=ModuleNotFoundError)
    ours, grid = MODELS[name]
    variant = replace(VARIANTS[ours], **SMALL, grid=grid)
    if grid:
        variant = replace(variant, resize=resize_antialiased)
    options = {"embed_dim": 48, "depth": 4, "num_heads": 4, "num_classes": 0, "dynamic_img_size": True}
    torch.manual_seed(seed)
    # A rotary embedding takes images of any size; a stored one is for the size that it was trained with.
    side = {"img_size": grid * variant.patch} if grid else {}
    twin = timm.create_model(name, **options, **side).double().eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    height, width = 3 * variant.patch, 4 * variant.patch
    images = np.random.default_rng(seed).standard_normal((2, 3, height, width))
    with torch.no_grad():
        expected = twin.forward_features(torch.from_numpy(images)).numpy()

    with jax.enable_x64(True):
        graphdef, state = nnx.split(nnx.eval_shape(lambda: VisionTransformer(variant, rngs=nnx.Rngs(0))))
        model = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), state))
        arrays = {key: value.numpy() for key, value in twin.state_dict().items()}
        weights.load_torch(model, published(arrays, variant))

        def tokens(model, images):
            patches, prefix = model.run(list(model.blocks), model.embed(images))
            return model.norm(jnp.concatenate([prefix[:, 0], patches.reshape(2, -1, variant.width)], axis=1))

        computed = jax.jit(tokens)(model, jnp.moveaxis(jnp.asarray(images), 1, -1))
    # timm resizes position embeddings, and computes rotary angles, in float32.
    np.testing.assert_allclose(computed, expected, atol=1e-5 * np.abs(expected).max())
