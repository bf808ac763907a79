"""The PyTorch twin against the recorded numbers: without this, agreement with the twin would mean little."""

import hashlib
from functools import cache

import numpy as np
import pytest

from parity import golden, report
from parity.compare import FLOAT32, FLOAT64, QUANTITIES, Recorded

torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)

from parity.reference import hrnet, losses, run  # noqa: E402
from parity.reference.mtinet import MTINet  # noqa: E402

MTI_NETS = ("mti_net_nyud_hrnet18", "mti_net_nyud_hrnet18_aux", "mti_net_pascal_hrnet18")
OTHERS = ("single_hrnet18_semseg40", "single_hrnet18_depth", "baseline_nyud_hrnet18", "baseline_pascal_hrnet18")
BACKBONES = {
    "backbone_hrnet_w18": ["branch0", "branch1", "branch2", "branch3"],
    "backbone_hrnet_w32": ["branch0", "branch1", "branch2", "branch3"],
    "backbone_hrnet_w48": ["branch0", "branch1", "branch2", "branch3"],
    "backbone_hrnet_w18_fuse": ["fused"],
}
PRECISIONS = {"float64": (torch.float64, "_f64", FLOAT64), "float32": (torch.float32, "", FLOAT32)}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads that wait for each other are slow on a machine that does other things too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [*BACKBONES, *OTHERS, *MTI_NETS])
def test_state_dict_has_the_recorded_keys_shapes_and_order(name):
    """The order too: a torch optimiser addresses parameters by position."""
    state = run.network(name).state_dict()
    assert tuple((key, tuple(value.shape)) for key, value in state.items()) == golden.keys(name)


@pytest.mark.parametrize("name", [*BACKBONES, *OTHERS, *MTI_NETS])
def test_weights_are_those_of_the_recording(name):
    digest = hashlib.sha256()
    for key, value in golden.state_dict(name).items():
        digest.update(key.encode("utf-8") + value.tobytes())
    assert digest.hexdigest() == golden.info(name)["weights_sha256"]


@cache
def recorded_run(name, precision):
    # float32 for saliency's weight: it was rounded so in the recorded float64 run too.
    return run.run_network(name, PRECISIONS[precision][0], weight_dtype=torch.float32)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [*OTHERS, *MTI_NETS])
def test_network(name, precision, quantity):
    _, suffix, bounds = PRECISIONS[precision]
    deviation = QUANTITIES[quantity](Recorded(name, suffix), recorded_run(name, precision))
    assert report.record(f"twin {precision} {name}", quantity, deviation) < bounds[quantity]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name, precision):
    dtype, suffix, bounds = PRECISIONS[precision]
    model = run.network(name).to(dtype)
    run.load(model, golden.state_dict(name))
    recorded, image = Recorded(name, suffix), torch.from_numpy(golden.image()).to(dtype)

    def outputs():
        with torch.no_grad():
            maps = model(image)
        maps = maps if isinstance(maps, list) else [maps]
        return {key: x.numpy() for key, x in zip(BACKBONES[name], maps, strict=True)}

    model.eval()
    deviations = {"eval": recorded.outputs(outputs(), "eval")}
    model.train()
    deviations["train"] = recorded.outputs(outputs(), "train")
    deviations["buffers"] = recorded.statistics(run.buffers(model))
    for quantity, deviation in deviations.items():
        assert report.record(f"twin {precision} {name}", quantity, deviation) < bounds[quantity], quantity


def test_sides_not_divisible_by_32():
    """50x70 gives maps of 13x18, 7x9, 4x5 and 2x3; coarse features take the finer map's size."""
    backbone = hrnet.hrnet("hrnet_w18")
    outputs = {"semseg": 40, "depth": 1}
    model = MTINet(backbone, backbone.channels, tuple(outputs), tuple(outputs), outputs).eval()
    with torch.no_grad():
        predictions = model(torch.from_numpy(golden.image()[:, :, :50, :70].copy()))
    assert predictions["semseg"].shape == (2, 40, 50, 70)
    sizes = [(13, 18), (7, 9), (4, 5), (2, 3)]
    assert [tuple(scale["depth"].shape[-2:]) for scale in predictions["deep_supervision"].values()] == sizes


LOSSES = {
    "softmax": losses.softmax_cross_entropy,
    "balanced_w0.95": lambda output, label: losses.balanced_cross_entropy(output, label, 0.95),
    "balanced_none": losses.balanced_cross_entropy,
    "depth_l1": losses.depth_l1,
    "normals_l1": losses.normals_l1,
}
# Options that nothing here has: void pixels, sums without a mean.
LEFT_OUT = ("void_pixels", "batch_average", "sum")
CASES = [
    key.removesuffix("/loss")
    for key in golden.arrays("losses.npz")
    if key.endswith("/loss") and key.split("/")[0] in LOSSES and key.split("/")[1] not in LEFT_OUT
]


@pytest.mark.parametrize("case", CASES)
def test_loss(case):
    """Values and gradients in float32; where the recorded loss is NaN, nothing was valid and ours is 0."""
    recorded = {key: golden.arrays("losses.npz")[f"{case}/{key}"] for key in ("output", "label", "loss", "grad")}
    output = torch.from_numpy(recorded["output"]).requires_grad_()
    loss = LOSSES[case.split("/")[0]](output, torch.from_numpy(recorded["label"]))
    loss.backward()
    np.testing.assert_allclose(loss.item(), np.nan_to_num(recorded["loss"], nan=0.0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(output.grad.numpy(), recorded["grad"], rtol=1e-5, atol=1e-7)
