"""The real backbones in every model, without computing anything."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mtl_jax import backbones, models
from mtl_jax.config import Config, Data, Model
from mtl_jax.data import catalogue
from mtl_jax.heads import DeepLabHead, HRNetHead
from tests.marks import slow

SIZES = [(64, 96), (72, 100), (33, 47)]  # 32 divides the first alone; the last is odd at most halvings
INVPT_SIZES = [(64, 128)]  # InvPT takes multiples of 64 on these backbones
MAIN = ("semseg", "depth")
AUX = ("semseg", "normals", "edge", "depth")
STRIDES = {"hrnet_w18": (4, 8, 16, 32), "resnet18": (4, 8, 16, 32), "resnet18_dilated": (8,)}


@functools.cache
def abstract_model(name: str, backbone: str, main=MAIN) -> models.MultiTaskModel:
    aux = AUX if name in ("pad_net", "mti_net") else ()
    size = INVPT_SIZES[0] if name == "invpt" else (0, 0)
    config = Config(Data("nyud", main, aux, image_size=size), Model(name, backbone))
    return nnx.eval_shape(lambda: models.build(config))


def output_shapes(model: models.MultiTaskModel, *shape: int):
    graphdef, state = nnx.split(model)

    def apply(state, images):
        return models.evaluation_view(nnx.merge(graphdef, state))(images)

    return jax.tree.map(jnp.shape, jax.eval_shape(apply, state, jax.ShapeDtypeStruct(shape, jnp.float32)))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [name for name in backbones.BACKBONES if name not in STRIDES])
def test_single_task_on_every_other_backbone(backbone):
    model = abstract_model("single_task", backbone, ("semseg",))
    assert output_shapes(model, 2, 64, 96, 3) == models.Outputs({"semseg": (2, 64, 96, 40)})


# Tracing HRNet in several models takes longest; MTI-Net is there for all of them.
QUICK = [
    (n, b)
    for n in models.MODELS
    for b in STRIDES
    if (b != "hrnet_w18" or n in ("mtan", "mti_net")) and (n, b) not in (("mti_net", "resnet18"), ("invpt", "resnet18"))
]
SLOW = [(n, b) for n in models.MODELS for b in STRIDES if (n, b) not in QUICK]


@pytest.mark.parametrize(("name", "backbone"), [*QUICK, *(slow(*case) for case in SLOW)])
def test_every_model_at_every_size(name, backbone):
    if name == "mtan" and backbone == "hrnet_w18":
        with pytest.raises(ValueError, match=r"layers of a ResNet; model\.backbone is 'hrnet_w18', .* resnet18, "):
            abstract_model(name, backbone)
        return
    if name == "invpt" and backbone == "resnet18_dilated":
        with pytest.raises(ValueError, match=r"invpt reads 4 maps of its backbone, ResNet has 1; choose another"):
            abstract_model(name, backbone)
        return
    main = MAIN[:1] if name == "single_task" else MAIN
    model = abstract_model(name, backbone, main)
    # Tracing HRNet takes seconds: the size at which the most can go wrong; the others in the slow cases.
    sizes = SIZES[-1:] if (name, backbone) == ("mti_net", "hrnet_w18") else SIZES
    sizes = INVPT_SIZES if name == "invpt" else sizes
    for height, width in sizes:
        maps = [(-(-height // stride), -(-width // stride)) for stride in STRIDES[backbone]]  # rounded up
        aux = catalogue.get("nyud").num_logits(AUX if name in ("pad_net", "mti_net") else main)
        expected = {task: (2, height, width, n) for task, n in catalogue.get("nyud").num_logits(main).items()}
        stages = {
            "pad_net": {"deepsup": maps[0]},
            "mti_net": {f"scale_{i}": size for i, size in enumerate(maps)},
            "invpt": {"inter": maps[-1]},
        }
        intermediate = {
            stage: {task: (2, *size, n) for task, n in aux.items()} for stage, size in stages.get(name, {}).items()
        }
        assert output_shapes(model, 2, height, width, 3) == models.Outputs(expected, intermediate)


def test_the_head_is_chosen_by_the_number_of_maps_or_by_name():
    def head(backbone, name):
        config = Config(Data("nyud", ("depth",)), Model("single_task", backbone, head=name))
        return type(nnx.eval_shape(lambda: models.build(config)).decoder)

    assert head("tiny_resnet", "") == head("tiny_resnet_dilated", "hrnet") == HRNetHead
    assert head("tiny_resnet_dilated", "") == head("tiny_resnet", "deeplab") == DeepLabHead


@pytest.mark.parametrize("backbone", STRIDES)
@pytest.mark.parametrize("shape", [(2, 3, 64, 96), (2, 64, 96, 1), (64, 96, 3)])
def test_images_of_another_layout_are_refused(shape, backbone):
    model = abstract_model("baseline", backbone)
    with pytest.raises(ValueError, match=r"images and maps are \[B, H, W, C\], images with 3 channels") as error:
        output_shapes(model, *shape)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(Data("nyud", ("semseg",)), Model("resnet")), "unknown model 'resnet'; the models are .*single_task"),
        (
            Config(Data("nyud", ("semseg",)), Model("baseline", "vgg")),
            "unknown backbone 'vgg'; the backbones are .*, hrnet_w18, .*resnet18, ",
        ),
        (
            Config(Data("nyud", ("semseg",)), Model("baseline", "tiny", head="fcn")),
            "unknown head 'fcn'; the heads are .*deeplab",
        ),
        (
            Config(Data("nyud", ("semseg",)), Model("mti_net", "tiny", head="deeplab")),
            "model mti_net distils at every scale",
        ),
        (Config(Data("nyud", ("semseg",)), Model("pad_net", "tiny", head="hrnet")), "model pad_net has its own heads"),
        (Config(Data("nyud", ("semseg",)), Model("invpt", "tiny_vit", head="hrnet")), "model invpt has its own heads"),
        (Config(Data("nyud", ("semseg", "depth")), Model("single_task")), "takes one task, data.tasks names 2"),
        (Config(Data("nyud", ("sal",)), Model("baseline", "tiny")), "data set 'nyud' has no task sal"),
    ],
)
def test_impossible_models_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: models.build(config))


@pytest.mark.parametrize("name", ["pad_net", "mti_net"])
def test_main_tasks_must_be_auxiliary_tasks(name):
    config = Config(Data("nyud", ("semseg", "depth"), ("semseg", "edge")), Model(name, "tiny"))
    with pytest.raises(ValueError, match=r"missing: depth\. Add them to data\.aux_tasks"):
        nnx.eval_shape(lambda: models.build(config))


@pytest.mark.parametrize("name", ["single_task", "baseline", "cross_stitch", "nddr_cnn", "mtan", "invpt"])
def test_auxiliary_tasks_need_intermediate_predictions(name):
    config = Config(Data("nyud", ("depth",), ("depth", "edge")), Model(name, "tiny_resnet"))
    with pytest.raises(ValueError, match=f"model {name} has no intermediate predictions for .* edge; leave"):
        nnx.eval_shape(lambda: models.build(config))
