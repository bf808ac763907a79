import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mtl_jax import backbones, models, recipes
from mtl_jax.commands import summary
from mtl_jax.config import Config, Data, Model
from mtl_jax.nn import BasicBlock, Conv, InitialKeys, Linear, SqueezeExcite, resize_bilinear
from mtl_jax.reports import cost
from parity import flax_run, golden
from tests.marks import slow
from tests.test_configs import EXPERIMENTS, ROOT

RNGS = nnx.Rngs(0)


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (Conv(3, 5, 3, rngs=RNGS), (1, 8, 6, 3), 8 * 6 * 5 * 3 * 9),
        (Conv(3, 5, 3, rngs=RNGS), (2, 8, 6, 3), 2 * 8 * 6 * 5 * 3 * 9),
        (Conv(3, 5, 7, stride=2, use_bias=True, rngs=RNGS), (1, 9, 6, 3), 5 * 3 * 5 * 3 * 49),  # sides are rounded up
        (Conv(3, 5, 3, dilation=2, rngs=RNGS), (1, 32, 32, 3), 32 * 32 * 5 * 3 * 9),
        (Conv(3, 5, 3, dilation=4, rngs=RNGS), (1, 8, 6, 3), 8 * 6 * 5 * 3 * 9),  # more than half of them with padding
        (Conv(3, 5, 1, rngs=RNGS), (1, 8, 6, 3), 8 * 6 * 5 * 3),  # a matrix product
        (Conv(3, 5, 1, stride=2, rngs=RNGS), (1, 8, 6, 3), 4 * 3 * 5 * 3),  # a convolution
        (Linear(3, 5, rngs=RNGS), (2, 3), 2 * 3 * 5),
        (SqueezeExcite(32, rngs=RNGS), (1, 8, 6, 32), 2 * 32 * 2),
        (BasicBlock(3, 5, stride=2, rngs=RNGS), (1, 8, 6, 3), 4 * 3 * (3 * 5 * 9 + 5 * 5 * 9 + 3 * 5)),
    ],
)
def test_hand_counted_modules(module, shape, expected):
    module = nnx.view(module, use_running_average=True, raise_if_not_found=False)
    assert cost.multiply_adds(module, jax.ShapeDtypeStruct(shape, jnp.float32)) == expected


def test_interpolation_is_not_counted():
    """Fails when jax renames the function by which it is recognised."""

    def resize(x):
        return resize_bilinear(x, (16, 20))

    assert "dot_general" in str(jax.make_jaxpr(resize)(jnp.zeros((1, 8, 6, 3))))
    assert cost.multiply_adds(resize, jnp.zeros((1, 8, 6, 3))) == 0


@jax.custom_jvp
def _product(x, y):
    return x @ y


_product.defjvp(lambda primals, tangents: (_product(*primals), tangents[0] @ primals[1]))


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda f: f, lambda f: jax.jit(jax.checkpoint(f))])
def test_functions_inside_functions_are_counted(wrap):
    x, y = jnp.zeros((2, 3)), jnp.zeros((3, 5))
    assert cost.multiply_adds(lambda x, y: wrap(_product)(x, y) + x @ y, x, y) == 2 * 30


def test_batched_products_and_grouped_convolutions():
    assert cost.multiply_adds(jnp.matmul, jnp.zeros((7, 2, 3)), jnp.zeros((7, 3, 5))) == 7 * 2 * 3 * 5
    grouped = nnx.Conv(6, 4, (3, 3), feature_group_count=2, rngs=RNGS)
    assert cost.multiply_adds(grouped, jnp.zeros((1, 8, 8, 6))) == 64 * 4 * 3 * 9


def test_loops_are_refused():
    def loop(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: y @ y, x)

    with pytest.raises(ValueError, match="inside scan are not counted"):
        cost.multiply_adds(loop, jnp.zeros((2, 2)))


MANIFEST = json.loads((golden.ROOT / "manifest.json").read_text(encoding="utf-8"))["models"]
BACKBONES = ("hrnet_w18", "hrnet_w32", "hrnet_w48", "resnet18_dilated", "resnet50_dilated")  # without a classifier


def _slow_if_large(names):
    """Thousands of layers take seconds to build, abstract as they are; a small one of every model stays."""
    large = (
        "single_hrnet18_semseg40",
        "single_resnet50",
        "baseline_pascal_hrnet18",
        "baseline_nyud_resnet50",
        "cross_stitch_nyud",
        "nddr_cnn_nyud",
        "mtan_nyud",
        "pad_net_nyud_hrnet18_aux",
        "pad_net_pascal",
        "mti_net_nyud_hrnet18_aux",
        "mti_net_pascal",
        "hrnet_w32",
        "hrnet_w48",
    )
    return [slow(name) if name.startswith(large) else name for name in names]


@pytest.mark.parametrize("name", _slow_if_large(name for name in MANIFEST if "setup" in MANIFEST[name]))
def test_parameters_are_those_of_the_recorded_networks(name):
    model = nnx.eval_shape(lambda: models.build(flax_run.config(name)))
    assert models.count_parameters(model) == MANIFEST[name]["n_parameters"]


@pytest.mark.parametrize("name", _slow_if_large(BACKBONES))
def test_parameters_are_those_of_the_recorded_backbones(name):
    backbone = nnx.eval_shape(lambda: backbones.build(name, rngs=InitialKeys(0)))
    assert models.count_parameters(backbone) == MANIFEST[f"backbone_{name}"]["n_parameters"]


def test_summary_and_its_tables():
    """ResNet-18 at 64x96: what each stage multiplies, by hand."""
    config = Config(Data("nyud", ("depth",), image_size=(64, 96)), Model("single_task", "resnet18_dilated"))
    found = cost.summarize(config)
    coarse = 8 * 12  # pixels at 1/8
    stem, layer1 = 32 * 48 * 64 * 3 * 49, 16 * 24 * 4 * 64 * 64 * 9
    layers = sum(c // 2 * c * 9 + 3 * c * c * 9 + c // 2 * c for c in (128, 256, 512)) * coarse
    aspp = 512 * 256 * (1 + 3 * 9) * coarse + 512 * 256 + 5 * 256 * 256 * coarse
    head = (256 * 256 * 9 + 256) * coarse
    assert found.multiply_adds == stem + layer1 + layers + aspp + head
    assert (found.backbone, found.size) == (11176512, (64, 96))

    plain = cost.table([found]).splitlines()
    assert plain[0].split("  ")[0].strip() == "model"
    assert "single_task  resnet18_dilated  nyud 64x96  depth" in plain[1]
    head, rule, row = cost.table([found], markdown=True).splitlines()
    assert len({line.count("|") for line in (head, rule, row)}) == 1
    assert {len(line) for line in (head, rule, row)} == {len(row)}
    assert "| 11.18 M |" in " ".join(row.split())


@pytest.fixture(scope="module")
def shipped():
    """What the script counts by default."""
    return [recipes.load(name) for name in summary.PUBLISHED]


def test_the_script_lists_every_shipped_model(shipped):
    """Every experiment, with one single-task model of each data set and backbone for all."""

    def network(config):
        data = config.data
        tasks = () if config.model.name == "single_task" else (data.tasks, data.aux_tasks)
        return (data.dataset, config.model.name, config.model.backbone, tasks)

    assert len({network(config) for config in shipped}) == len(shipped)
    assert {network(config) for config in shipped} == {network(recipes.load(row.spec)) for row in EXPERIMENTS}


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints(shipped):
    table = cost.table([cost.summarize(config) for config in shipped], markdown=True)
    assert table in (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
