"""Networks of inverted residual blocks against timm's, live, where timm is installed (`pip install timm`)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, weights
from mtl_jax.backbones import efficientnet_lite, mobilenet_v2, mobilenet_v3
from mtl_jax.backbones.mobile import Block, MobileNet, Variant, rows_to_groups
from mtl_jax.nn import InitialKeys
from mtl_jax.nn.activations import hard_swish, relu6

# {our backbone: timm's model}
MODELS = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "efficientnet_lite0_symmetric": "efficientnet_lite0",
    "mobilenetv2_050": "mobilenetv2_050",
    "mobilenetv2_100": "mobilenetv2_100",
    "mobilenetv2_140": "mobilenetv2_140",
    "mobilenetv3_small": "mobilenetv3_small_100",
    "mobilenetv3_large": "mobilenetv3_large_100",
}
VARIANTS = efficientnet_lite.VARIANTS | mobilenet_v2.VARIANTS | mobilenet_v3.VARIANTS

_ROWS = ((3, 1, 8, 1, 1), (3, 2, 16, 2, 2), (5, 3, 16, 1, 2), (3, 2, 24, 1, 2), (5, 2, 24, 1, 1), (3, 2, 32, 1, 2))
_ROWS_ARCH = [[f"{'ir' if e > 1 else 'ds'}_r{n}_k{k}_s{s}_e{e}_c{c}"] for k, e, c, n, s in _ROWS]
_GROUPS = (
    (Block(3, 8, 16, nnx.relu, stride=2, squeeze=8),),
    (Block(3, 32, 16, nnx.relu, stride=2), Block(3, 48, 16, nnx.relu)),
    (Block(5, 32, 24, hard_swish, stride=2, squeeze=8),),
    (Block(5, 48, 24, hard_swish, squeeze=16),),
    (Block(5, 48, 24, hard_swish, stride=2, squeeze=16),),
)
_GROUPS_ARCH = [
    ["ds_r1_k3_s2_e1_c16_se0.25_nre"],
    ["ir_r1_k3_s2_e2_c16_nre", "ir_r1_k3_s1_e3_c16_nre"],
    ["ir_r1_k5_s2_e2_c24_se0.25"],
    ["ir_r1_k5_s1_e2_c24_se0.25"],
    ["ir_r1_k5_s2_e2_c24_se0.25"],
    ["cn_r1_k1_s1_c32"],
]
# {case: (our sizes, timm's function, its architecture, its padding)}
SMALL = {
    "symmetric": (Variant(8, rows_to_groups(_ROWS, 8, relu6), relu6), "efficientnet", _ROWS_ARCH, ""),
    "same": (
        Variant(8, rows_to_groups(_ROWS, 8, relu6), relu6, same_padding=True, epsilon=1e-3),
        "efficientnet",
        _ROWS_ARCH,
        "same",
    ),
    "squeezed": (Variant(8, _GROUPS, hard_swish, last=32), "mobilenetv3", _GROUPS_ARCH, ""),
}


@pytest.fixture
def timm(torch):
    return pytest.importorskip("timm", reason="compares with timm", exc_type=ModuleNotFoundError)


def small_twin(timm, torch, case):
    """A network of timm's classes with the blocks of a case, and numbers that tell all its parameters apart."""
    from timm.layers import get_act_layer
    from timm.models import efficientnet, mobilenetv3
    from timm.models._efficientnet_blocks import SqueezeExcite
    from timm.models._efficientnet_builder import decode_arch_def, round_channels

    variant, family, architecture, padding = SMALL[case]
    kind = {"efficientnet": efficientnet.EfficientNetFeatures, "mobilenetv3": mobilenetv3.MobileNetV3Features}[family]
    options = {
        "stem_size": variant.stem,
        "pad_type": padding,
        "act_layer": get_act_layer("hard_swish" if family == "mobilenetv3" else "relu6"),
        "norm_layer": partial(torch.nn.BatchNorm2d, eps=variant.epsilon),
        "se_layer": partial(
            SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=torch.nn.ReLU, rd_round_fn=round_channels
        ),
    }
    twin = kind(decode_arch_def(architecture), **options).double()
    with torch.no_grad():
        for name, value in twin.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.ndim == 1:
                value.normal_(0.2, 0.3)
    return twin


def arrays_of(twin):
    return {name: value.numpy().copy() for name, value in twin.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("case", SMALL)
def test_maps_gradients_and_statistics(case, timm, torch, seed):
    """In float64, of images with odd sides: a training step's maps, gradients and statistics, then an evaluation."""
    torch.manual_seed(seed)
    twin, variant = small_twin(timm, torch, case), SMALL[case][0]
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((2, 65, 97, 3))
    # Batch norms over few pixels multiply rounding errors of 1e-16. torch computes the gradient of its hard sigmoid
    # with a sixth in float32, whose relative error is 3e-8.
    tolerance = 1e-7 if case == "squeezed" else 1e-9
    with jax.enable_x64(True):
        graphdef, state = nnx.split(nnx.eval_shape(lambda: MobileNet(variant, rngs=InitialKeys(0))))
        model = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), state))
        weights.load_torch(model, model.published_arrays(arrays_of(twin)))
        before = weights.to_torch(model)

        maps = twin.train()(torch.from_numpy(images).permute(0, 3, 1, 2))[-4:]
        weigh = [rng.standard_normal(x.shape) for x in maps]
        sum((x * torch.from_numpy(w)).sum() for x, w in zip(maps, weigh, strict=True)).backward()

        @nnx.jit
        def step(model):
            def loss(model):
                ours = nnx.view(model, use_running_average=False)(jnp.asarray(images))
                return sum((x * jnp.moveaxis(w, 1, -1)).sum() for x, w in zip(ours, weigh, strict=True)), ours

            return nnx.grad(loss, has_aux=True)(model)

        gradients, ours = step(model)
        compare_maps(ours, maps)
        after = weights.to_torch(model)
        for name, value in arrays_of(twin).items():
            if "running" in name:
                np.testing.assert_allclose(after[name], value, atol=1e-12)
                assert not np.allclose(after[name], before[name])
        nnx.update(model, gradients)  # the gradients take the parameters' places, to have torch's names and layout
        computed = weights.to_torch(model)
        for name, parameter in twin.named_parameters():
            expected = parameter.grad.numpy()
            scale = np.abs(expected).max()
            np.testing.assert_allclose(computed[name], expected, atol=tolerance * max(scale, 1), err_msg=name)
            assert scale > 0

        weights.load_torch(model, arrays_of(twin))
        evaluated = jax.jit(lambda model: nnx.view(model, use_running_average=True)(jnp.asarray(images)))(model)
        with torch.no_grad():
            compare_maps(evaluated, twin.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))[-4:])


def compare_maps(ours, theirs):
    assert len(ours) == 4
    for a, b in zip(ours, theirs, strict=True):
        expected = b.detach().permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(a, expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("name", MODELS)
def test_sizes(name, timm):
    """Every array of timm's classifier has a place, the classifier apart; batch norms, strides and paddings agree."""
    model = nnx.eval_shape(lambda: backbones.build(name, rngs=InitialKeys(0)))
    twin = timm.create_model(MODELS[name])
    weights.check_torch(model, model.published_arrays(arrays_of(twin)))
    assert (model.variant.epsilon, model.variant.same_padding) == (
        twin.bn1.eps,
        type(twin.conv_stem).__name__ == "Conv2dSame",
    )
    for group, their_group in zip(model.blocks, twin.blocks, strict=True):
        for block, their_block in zip(group, their_group, strict=True):
            if hasattr(their_block, "conv_dw"):
                assert block.conv_dw.stride == their_block.conv_dw.stride[0]


def test_every_backbone_has_a_twin():
    assert set(MODELS) == set(VARIANTS)
