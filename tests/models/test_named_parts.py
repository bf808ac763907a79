"""Parts of models by name: learning rates, weight decay, and parts that do not learn."""

import pytest
from flax import nnx

from mtl_jax import backbones, models
from mtl_jax.backbones import HRNet, ResNet
from mtl_jax.config import Config, Data, Model
from mtl_jax.models import named_parts
from mtl_jax.nn import BatchNorm, Conv, Dropout, Frozen
from tests import tiny


def abstract(name, backbone="tiny", head="", tasks=("semseg", "depth"), aux_tasks=()):
    config = Config(Data("nyud", tasks, aux_tasks), Model(name, backbone, head))
    return nnx.eval_shape(lambda: models.build(config))


def parameters(model):
    wanted = (nnx.Param, Frozen)
    return {".".join(map(str, path)): x for path, x in nnx.iter_graph(model) if isinstance(x, wanted)}


@pytest.mark.parametrize(
    ("model", "name", "wanted"),
    [
        ("baseline", "backbone", {"backbone"}),
        ("baseline", "heads", {"decoders.semseg", "decoders.depth"}),
        ("baseline", "backbone.convs.1", {"backbone.convs.1"}),
        ("baseline", "decoders.depth", {"decoders.depth"}),
        ("cross_stitch", "heads", {"heads.semseg", "heads.depth"}),
        ("cross_stitch", "backbone", {"backbone.semseg", "backbone.depth"}),
        ("cross_stitch", "backbone.stem.kernel", {"backbone.semseg.stem.kernel", "backbone.depth.stem.kernel"}),
        ("cross_stitch", "backbone.semseg", {"backbone.semseg"}),
        ("cross_stitch", "cross_stitch", {"cross_stitch"}),
        ("pad_net", "backbone.stem", {"backbone.0.stem"}),
    ],
)
def test_names_of_parts(model, name, wanted):
    assert set(named_parts.paths(abstract(model), name, "optim.freeze")) == wanted


def test_unknown_parts_are_refused_with_the_parts_that_there_are():
    with pytest.raises(
        ValueError,
        match=r"optim\.freeze names 'backbone\.convs\.3', which is no part of this Baseline; "
        r"its parts are backbone, heads, decoders and what .*nearest are .*backbone\.convs\.[01]",
    ):
        models.freeze(abstract("baseline"), ["backbone.convs.3"])
    with pytest.raises(ValueError, match=r"optim\.multipliers names 'encoder'"):
        models.learning_rate_factors(abstract("baseline"), {"encoder": 0.1}, 1.0)
    with pytest.raises(ValueError, match=r"optim\.freeze names backbone, heads, which leaves no parameter to train"):
        models.freeze(abstract("baseline"), ["backbone", "heads"])


def test_the_most_specific_multiplier_counts_and_layers_multiply_it():
    """The tiny backbone has three layers, stem included: 0.5, 0.25 and 0.125 from the last to the first."""
    multipliers = {"backbone": 0.1, "backbone.convs.0": 3.0, "decoders.depth": 10.0}
    factors = models.learning_rate_factors(abstract("baseline"), multipliers, 0.5)
    found = {}
    for path, factor in factors.items():
        found.setdefault(".".join(path.split(".")[: 3 if "convs" in path else 2]), set()).add(round(factor, 9))
    assert found == {
        "backbone.stem": {0.0125},
        "backbone.convs.0": {0.75},
        "backbone.convs.1": {0.05},
        "decoders.semseg": {1.0},
        "decoders.depth": {10.0},
    }


def test_layers_of_a_transformer_have_the_factors_of_timm():
    """ViT of two blocks: the embedding is layer 0, the blocks are layers 1 and 2, the last norm has the factor 1."""

    class Transformer(tiny.TinyBackbone):
        def __init__(self, *, rngs):
            super().__init__(rngs=rngs)
            self.pos_embed = nnx.Param(rngs.params.normal((1, 4, 16)))
            self.norm = BatchNorm(16)
            self.layers = (("stem", "pos_embed"), ("convs.0",), ("convs.1",))
            self.no_weight_decay = ("pos_embed",)

    def build():
        rngs = nnx.Rngs(0)
        return models.Baseline(Transformer(rngs=rngs), {"depth": Conv(16, 1, 1, rngs=rngs)})

    model = nnx.eval_shape(build)
    factors = models.learning_rate_factors(model, {}, 0.8)
    assert factors == pytest.approx(
        {
            "backbone.stem.kernel": 0.8**3,
            "backbone.pos_embed": 0.8**3,
            "backbone.convs.0.kernel": 0.8**2,
            "backbone.convs.1.kernel": 0.8,
            "backbone.norm.scale": 1.0,
            "backbone.norm.bias": 1.0,
            "decoders.depth.kernel": 1.0,
        }
    )
    assert models.not_decayed(model) == {"backbone.pos_embed"}


@pytest.mark.parametrize(("name", "kind"), [("resnet18", ResNet), ("hrnet_w18", HRNet)])
def test_the_layers_of_a_backbone_hold_all_its_parameters_once(name, kind):
    backbone = nnx.eval_shape(lambda: backbones.build(name, image_size=None, rngs=nnx.Rngs(0)))
    assert isinstance(backbone, kind)
    tops = [part for layer in backbone.layers for part in layer]
    assert len(set(tops)) == len(tops)
    assert {path.split(".")[0] for path in parameters(backbone)} == set(tops)
    assert len(backbone.layers) == len(backbone.stages)


def test_a_backbone_without_an_order_of_layers_is_refused():
    model = abstract("baseline")
    model.backbone.layers = ()
    with pytest.raises(
        ValueError, match=r"layer_decay is 0\.9, and TinyBackbone does not state the order of its layers"
    ):
        models.learning_rate_factors(model, {}, 0.9)


def test_frozen_parts_are_in_evaluation_mode_and_no_parameters():
    model = abstract("baseline", "tiny_resnet", "deeplab")
    total, before = models.count_parameters(model), parameters(model)
    models.freeze(model, ["backbone.bn1", "backbone.layer1", "decoders.depth", "backbone.layer2.0.conv1.kernel"])
    frozen = ("backbone.bn1.", "backbone.layer1.", "decoders.depth.", "backbone.layer2.0.conv1.kernel")
    after = parameters(model)
    assert after.keys() == before.keys()
    for path, value in after.items():
        assert isinstance(value, Frozen if path.startswith(frozen) else nnx.Param), path
        assert value.shape == before[path].shape
    assert models.count_parameters(model) == total
    dropouts = norms = 0
    for path, module in nnx.iter_modules(models.training_view(model, nnx.Rngs(dropout=0))):
        stands_still = ".".join((*map(str, path), "")).startswith(frozen[:3])
        if isinstance(module, BatchNorm):
            assert module.use_running_average == stands_still, path
            norms += stands_still
        if isinstance(module, Dropout):
            assert module.deterministic == stands_still, path
            dropouts += stands_still
    assert norms > 3
    assert dropouts == 1
    assert models.freeze(model, []) is model
