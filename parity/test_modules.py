"""Flax backbones and fusion layers by themselves: against the recorded numbers, and against the twin."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, models, weights
from mtl_jax.backbones import HRNet
from mtl_jax.backbones.resnet import LAYERS
from mtl_jax.heads import Fusion
from mtl_jax.models.cross_stitch import CrossStitchUnit
from mtl_jax.models.nddr_cnn import NDDRLayer
from mtl_jax.nn import Sequential
from parity import golden, report
from parity.compare import FLOAT64, Recorded
from parity.flax_run import STATISTICS, nchw
from parity.interpreter import interpret

RECORDED = [name for name in golden.manifest()["models"] if name.startswith("backbone_")]
TRAINING_VIEW = {"use_running_average": False, "raise_if_not_found": False}


def build(name: str) -> nnx.Module:
    rngs = nnx.Rngs(0)
    backbone = backbones.build(name.removesuffix("_fuse"), rngs=rngs)
    return Sequential([backbone, Fusion(backbone.channels, rngs=rngs)]) if name.endswith("_fuse") else backbone


def maps(model: nnx.Module, images: jax.Array) -> dict[str, jax.Array]:
    """A backbone's maps under their recorded names."""
    if isinstance(model, Sequential):
        return {"fused": model(images)}
    if isinstance(model, HRNet):
        return {f"branch{i}": x for i, x in enumerate(model(images))}
    outputs, x = {}, model.run_stage("conv", (images,))
    for layer in LAYERS:
        x = model.run_stage(layer, x)
        (outputs[layer],) = x
    return outputs


class Forward:
    """A backbone in float64 with given weights, run operation by operation.

    Args:
        make: builds it.
        arrays: {torch key: array}.
    """

    def __init__(self, make: Callable[[], nnx.Module], arrays: Mapping[str, np.ndarray]):
        graphdef, state = nnx.split(nnx.eval_shape(make))
        self.model = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), state))
        weights.load_torch(self.model, arrays)
        self.image = jnp.asarray(np.moveaxis(golden.image(), 1, -1), jnp.float64)

    def eval(self) -> dict[str, np.ndarray]:
        view = models.evaluation_view(self.model)
        return nchw(interpret(lambda state, image: maps(nnx.merge(nnx.graphdef(view), state), image))(*self._inputs()))

    def train(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Outputs, and the running statistics afterwards."""
        view = nnx.view(self.model, **TRAINING_VIEW)

        def forward(state, image):
            model = nnx.merge(nnx.graphdef(view), state)
            return maps(model, image), nnx.as_pure(nnx.state(model))

        outputs, state = interpret(forward)(*self._inputs())
        nnx.update(self.model, state)
        after = weights.to_torch(self.model)
        return nchw(outputs), {key: x for key, x in after.items() if key.endswith(STATISTICS)}

    def _inputs(self):
        return nnx.as_pure(nnx.state(self.model)), self.image


def family(name):
    """The group of `test_models` whose networks share compiled operations with a backbone."""
    return name.removeprefix("backbone_").removesuffix("_dilated").removesuffix("_fuse")


def marks(name):
    """Its group. `test_methods` runs HRNets and dilated ResNets in whole networks; larger ones only take longer."""
    group = pytest.mark.xdist_group(family(name))
    return [group] if name == "backbone_resnet18" else [group, pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in RECORDED])
def test_recorded_backbone(name):
    arrays, variant = golden.state_dict(name), name.removeprefix("backbone_")
    classifier = {key: arrays[key] for key in arrays if key.startswith("fc.")}
    recorded = Recorded(name, "_f64")

    def with_logits(outputs):
        """A plain ResNet was recorded with its classifier, which we have no use for."""
        if not classifier:
            return outputs
        logits = outputs["layer4"].mean((2, 3)) @ classifier["fc.weight"].T + classifier["fc.bias"]
        return outputs | {"logits": logits}

    with jax.enable_x64(True):
        forward = Forward(lambda: build(variant), {key: x for key, x in arrays.items() if key not in classifier})
        deviations = {"eval": recorded.outputs(with_logits(forward.eval()), "eval")}
        trained, statistics = forward.train()
    deviations |= {"train": recorded.outputs(with_logits(trained), "train"), "buffers": recorded.statistics(statistics)}
    for quantity, deviation in deviations.items():
        assert report.record(f"flax float64 {name} / recorded", quantity, deviation) < FLOAT64[quantity], quantity


HRNETS = {"hrnet_w18_small": (1, (1, 1, 1), 2, 16, 32), "hrnet_w18_full": (4, (1, 4, 3), 4, 18)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34_dilated", *HRNETS, "resnet101", "resnet152_dilated"])
def test_unrecorded_backbone(name):
    """Variants of the same code, against the twin with weights drawn by the recording's rule."""
    torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)
    from parity.reference import hrnet, resnet, run

    if name in HRNETS:
        twin = hrnet.HRNet(*HRNETS[name])
    else:
        twin = resnet.resnet(name.removesuffix("_dilated"), name.endswith("_dilated"))
    arrays = {key: golden.weight(key, tuple(x.shape)) for key, x in twin.state_dict().items()}
    twin.double()
    run.load(twin, arrays)

    def twin_maps():
        with torch.no_grad():
            image = torch.from_numpy(golden.image()).double()
            outputs = twin(image) if name.startswith("hrnet") else twin.features(image)
        named = {f"branch{i}": x for i, x in enumerate(outputs)} if name.startswith("hrnet") else outputs
        return {key: x.numpy() for key, x in named.items()}

    with jax.enable_x64(True):
        forward = Forward(lambda: build(name), arrays)
        twin.eval()
        pairs = {"eval": (forward.eval(), twin_maps())}
        trained, statistics = forward.train()
        twin.train()
        pairs |= {"train": (trained, twin_maps()), "buffers": (statistics, run.buffers(twin))}
    for quantity, (got, wanted) in pairs.items():
        assert got.keys() == wanted.keys()
        deviation = max(np.abs(got[key] - x).max() / np.sqrt(np.mean(x**2)) for key, x in wanted.items())
        assert report.record(f"flax float64 {name} / twin", quantity, deviation) < FLOAT64[quantity], quantity


INIT = golden.arrays("init.npz")
TASKS = ("a", "b", "c")


def unit(kind: str, alpha: float, beta: float) -> nnx.Module:
    if kind == "nddr":
        return NDDRLayer(TASKS, 4, alpha=alpha, beta=beta, rngs=nnx.Rngs(0))
    return CrossStitchUnit(TASKS, 4, alpha=alpha, beta=beta)


@pytest.mark.parametrize(("alpha", "beta"), [(0.8, 0.05), (0.9, 0.1)])
@pytest.mark.parametrize("kind", ["nddr", "cross_stitch"])
def test_initial_values_of_fusion(kind, alpha, beta):
    prefix = f"{kind}/alpha{alpha}_beta{beta}/"
    wanted = {key.removeprefix(prefix): x for key, x in INIT.items() if key.startswith(prefix)}
    got = weights.to_torch(unit(kind, alpha, beta))
    assert got.keys() == {key for key in wanted if not key.endswith("num_batches_tracked")}
    for key, x in got.items():
        np.testing.assert_array_equal(x, wanted[key], err_msg=key)


def test_forward_of_fusion():
    """Freshly initialised, in float32: a cross-stitch unit, an NDDR layer in both modes, and its statistics."""
    inputs = {task: jnp.asarray(np.moveaxis(INIT[f"input/{task}"], 1, -1)) for task in TASKS}
    nddr = unit("nddr", 0.8, 0.05)
    results = {
        "cross_stitch/forward": unit("cross_stitch", 0.8, 0.05)(inputs),
        "nddr/forward_eval": models.evaluation_view(nddr)(inputs),
        "nddr/forward_train": nnx.view(nddr, **TRAINING_VIEW)(inputs),
    }
    for name, outputs in results.items():
        for task, x in nchw(outputs).items():
            np.testing.assert_allclose(x, INIT[f"{name}/{task}"], rtol=1e-5, atol=1e-6, err_msg=f"{name}/{task}")
    for key, x in weights.to_torch(nddr).items():
        if key.endswith(STATISTICS):
            wanted = INIT[f"nddr/after_train_forward/{key}"]
            np.testing.assert_allclose(x, wanted, rtol=1e-5, atol=1e-7, err_msg=key)
