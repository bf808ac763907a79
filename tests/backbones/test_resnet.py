import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax.backbones import ResNet, resnet
from mtl_jax.nn import BatchNorm, Conv, InitialKeys
from tests import tiny

# 3x3 convolutions of the layers as (stride, dilation). Where layer3 and layer4 lost their stride, that convolution has
# the dilation of the layer before, all others that of their layer.
PLAIN = {
    "layer1": [(1, 1)] * 4,
    "layer2": [(2, 1), *[(1, 1)] * 3],
    "layer3": [(2, 1), *[(1, 1)] * 3],
    "layer4": [(2, 1), *[(1, 1)] * 3],
}
DILATED = PLAIN | {"layer3": [(1, 1), *[(1, 2)] * 3], "layer4": [(1, 2), *[(1, 4)] * 3]}
# A bottleneck has one such convolution.
PLAIN_50 = {
    "layer1": [(1, 1)] * 3,
    "layer2": [(2, 1), *[(1, 1)] * 3],
    "layer3": [(2, 1), *[(1, 1)] * 5],
    "layer4": [(2, 1), *[(1, 1)] * 2],
}
DILATED_50 = PLAIN_50 | {"layer3": [(1, 1), *[(1, 2)] * 5], "layer4": [(1, 2), *[(1, 4)] * 2]}
EXPECTED = {
    "resnet18": PLAIN,
    "resnet18_dilated": DILATED,
    "resnet50": PLAIN_50,
    "resnet50_dilated": DILATED_50,
}


def abstract(name) -> ResNet:
    return nnx.eval_shape(lambda: ResNet(name, rngs=InitialKeys(0)))


@pytest.mark.parametrize("name", EXPECTED)
def test_strides_and_dilations(name):
    model = abstract(name)
    for layer, expected in EXPECTED[name].items():
        convs = [conv for block in getattr(model, layer) for conv in (block.conv1, block.conv2)]
        found = [conv for conv in convs if conv.kernel.shape[0] == 3]
        assert [(conv.stride, conv.dilation) for conv in found] == expected
        assert all(conv.margins((8, 8)) == [(conv.dilation,) * 2] * 2 for conv in found)  # keeps the size at stride 1
        # Of the pointwise convolutions only the projection beside a strided block has a stride.
        modules = [module for _, module in nnx.iter_modules(getattr(model, layer)) if isinstance(module, Conv)]
        pointwise = [conv.stride for conv in modules if conv.kernel.shape[0] == 1 and conv.stride > 1]
        assert pointwise == [2] * (expected[0][0] == 2)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_dilation_changes_no_parameter(name):
    plain, dilated = (
        {path: leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(abstract(n)))}
        for n in (name, f"{name}_dilated")
    )
    assert plain == dilated


def test_variants():
    blocks = {name: variant.blocks for name, variant in resnet.VARIANTS.items() if not name.endswith("_dilated")}
    assert blocks == {
        "resnet18": (2, 2, 2, 2),
        "resnet34": (3, 4, 6, 3),
        "resnet50": (3, 4, 6, 3),
        "resnet101": (3, 4, 23, 3),
        "resnet152": (3, 8, 36, 3),
    }
    assert {f"{name}_dilated" for name in blocks} | set(blocks) == set(resnet.VARIANTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", [(16, 24, 64), (8, 12, 128), (4, 6, 256), (2, 3, 512)]),
        ("resnet18_dilated", [(8, 12, 512)]),
        ("resnet50", [(16, 24, 256), (8, 12, 512), (4, 6, 1024), (2, 3, 2048)]),
        ("resnet50_dilated", [(8, 12, 2048)]),
    ],
)
def test_maps(name, expected):
    model = abstract(name)
    graphdef, state = nnx.split(model)

    def stages(state, images):
        model = nnx.merge(graphdef, state)
        maps = {"": (images,)}
        for before, stage in zip(("", *model.stages), model.stages, strict=False):
            maps[stage] = model.run_stage(stage, maps[before])
        return model(images), maps

    maps, by_stage = jax.eval_shape(stages, state, jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32))
    assert [x.shape[1:] for x in maps] == expected
    assert model.channels == tuple(shape[-1] for shape in expected)
    for stage in model.stages:
        assert model.stage_channels(stage) == tuple(x.shape[-1] for x in by_stage[stage])


def test_he_normal_initialisation(monkeypatch):
    tiny.register_backbones(monkeypatch)
    model = ResNet("tiny_resnet", rngs=nnx.Rngs(0))
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Conv):
            kernel = np.asarray(module.kernel[...])
            height, width, _, out = kernel.shape
            deviation = kernel.std() / np.sqrt(2 / (height * width * out))
            assert abs(deviation - 1) < 4 / np.sqrt(2 * kernel.size), path  # four standard errors
            assert module.bias is None
        if isinstance(module, BatchNorm):
            assert (module.scale[...] == 1).all()
            assert (module.bias[...] == 0).all()


def test_the_width_is_the_variants(monkeypatch):
    variant = dataclasses.replace(resnet.VARIANTS["resnet50"], width=4, blocks=(1, 1, 1, 1))
    monkeypatch.setitem(resnet.VARIANTS, "narrow", variant)
    model = abstract("narrow")
    assert (model.conv1.kernel.shape[-1], model.channels) == (4, (16, 32, 64, 128))
