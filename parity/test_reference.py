"""The PyTorch twin against the recorded numbers: without this, agreement with the twin would mean little."""

import hashlib

import numpy as np
import pytest

from parity import golden, report
from parity.compare import FLOAT64, FLOAT64_RESNET50, QUANTITIES, Recorded, float32_bounds, keep_latest
from tests.marks import slow

torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)

from parity.reference import hrnet, losses, run  # noqa: E402
from parity.reference.cross_stitch import CrossStitchUnit  # noqa: E402
from parity.reference.mtan import MTAN  # noqa: E402
from parity.reference.mtinet import MTINet  # noqa: E402
from parity.reference.nddr_cnn import NDDRLayer  # noqa: E402
from parity.reference.resnet import resnet  # noqa: E402

BACKBONES = [name for name in golden.manifest()["models"] if name.startswith("backbone_")]
NETWORKS = [name for name in golden.manifest()["models"] if name not in BACKBONES]
# Put together from what others show: the head of baseline_pascal_resnet18 with a backbone that is compared by itself,
# MTAN of mtan_pascal_resnet18, PAD-Net of pad_net_nyud_hrnet18_aux. Cross-stitch units and NDDR-CNN's layer are tested
# by themselves; their networks are the largest.
REDUNDANT = (
    "single_resnet50_depth",
    "baseline_nyud_resnet50",
    "cross_stitch_pascal_resnet18",
    "mtan_nyud_resnet50",
    "pad_net_nyud_hrnet18",
    "pad_net_pascal_hrnet18",
    "cross_stitch_nyud_resnet50",
    "nddr_cnn_nyud_resnet50",
    "nddr_cnn_pascal_resnet18",
)


def by_name(names, slow=()):
    """Over networks; scope and groups make pytest run all tests of one together, while its weights are cached."""
    params = []
    for name in names:
        large = name.startswith(("cross_stitch", "nddr_cnn"))  # 6 GB: never two of them at once
        marks = [pytest.mark.xdist_group("large networks" if large else f"twin {name}")]
        params.append(pytest.param(name, marks=[*marks, pytest.mark.slow] if name in slow else marks))
    return pytest.mark.parametrize("name", params, scope="module")


def float64_bounds(name):
    """Of the twin, closer than between PyTorch and Flax but for one loss, which another machine's rounding moves."""
    third = {"step losses": FLOAT64_RESNET50["step losses"]} if name == "single_resnet50_depth" else {}
    return FLOAT64 | third


PRECISIONS = {
    "float64": (torch.float64, "_f64", float64_bounds),
    "float32": (torch.float32, "", float32_bounds),
}


pytestmark = pytest.mark.usefixtures("torch")  # single-threaded


@by_name([*NETWORKS, *BACKBONES])
def test_state_dict_has_the_recorded_keys_shapes_and_order(name):
    """The order too: a torch optimiser addresses parameters by position."""
    with torch.device("meta"):
        state = run.network(name).state_dict()
    assert tuple((key, tuple(value.shape)) for key, value in state.items()) == golden.keys(name)


@by_name([*NETWORKS, *BACKBONES])
def test_weights_are_those_of_the_recording(name):
    digest = hashlib.sha256()
    for key, value in golden.state_dict(name).items():
        digest.update(key.encode("utf-8") + value.tobytes())
    assert digest.hexdigest() == golden.info(name)["weights_sha256"]


@keep_latest
def recorded_run(name, precision):
    # float32 for saliency's weight: it was rounded so in the recorded float64 run too.
    return run.run_network(name, PRECISIONS[precision][0], weight_dtype=torch.float32)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("precision", ["float64", slow("float32")])
@by_name(NETWORKS, slow=REDUNDANT)
def test_network(name, precision, quantity):
    _, suffix, bounds = PRECISIONS[precision]
    deviation = QUANTITIES[quantity](Recorded(name, suffix), recorded_run(name, precision))
    assert report.record(f"twin {precision} {name}", quantity, deviation) < bounds(name)[quantity]


def features(model, image):
    """A backbone's maps under their recorded names."""
    with torch.no_grad():
        match model:
            case hrnet.HRNet():
                maps = {f"branch{i}": x for i, x in enumerate(model(image))}
            case torch.nn.Sequential():
                maps = {"fused": model(image)}
            case _:
                maps = model.features(image)
    return {key: x.numpy() for key, x in maps.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone(backbone, precision):
    dtype, suffix, bounds = PRECISIONS[precision]
    model = run.network(backbone).to(dtype)
    run.load(model, golden.state_dict(backbone))
    recorded, image = Recorded(backbone, suffix), torch.from_numpy(golden.image()).to(dtype)
    model.eval()
    deviations = {"eval": recorded.outputs(features(model, image), "eval")}
    model.train()
    deviations["train"] = recorded.outputs(features(model, image), "train")
    deviations["buffers"] = recorded.statistics(run.buffers(model))
    for quantity, deviation in deviations.items():
        assert report.record(f"twin {precision} {backbone}", quantity, deviation) < bounds(backbone)[quantity], quantity


FUSION = [(0.8, 0.05), (0.9, 0.1)]
RECORDED_FORWARD = FUSION[0]  # of the two only this one


@pytest.mark.parametrize(("alpha", "beta"), FUSION)
@pytest.mark.parametrize(("kind", "layer"), [("nddr", NDDRLayer), ("cross_stitch", CrossStitchUnit)])
def test_initial_values_of_fusion(kind, layer, alpha, beta):
    prefix = f"{kind}/alpha{alpha}_beta{beta}/"
    wanted = {k.removeprefix(prefix): v for k, v in golden.arrays("init.npz").items() if k.startswith(prefix)}
    state = layer("abc", 4, alpha, beta).state_dict()
    assert list(state) == list(wanted)
    for key, value in state.items():
        np.testing.assert_array_equal(value.numpy(), wanted[key], err_msg=key)


def check_fusion(outputs, kind):
    for task, output in outputs.items():
        wanted = golden.arrays("init.npz")[f"{kind}/{task}"]
        np.testing.assert_allclose(output.detach().numpy(), wanted, rtol=1e-5, atol=1e-6, err_msg=task)


def test_forward_of_fusion():
    """Freshly initialised, in float32: one cross-stitch unit, one NDDR layer in both modes and its statistics."""
    maps = {task: torch.from_numpy(golden.arrays("init.npz")[f"input/{task}"]) for task in "abc"}
    check_fusion(CrossStitchUnit("abc", 4, *RECORDED_FORWARD)(maps), "cross_stitch/forward")
    nddr = NDDRLayer("abc", 4, *RECORDED_FORWARD)
    check_fusion(nddr.eval()(maps), "nddr/forward_eval")
    check_fusion(nddr.train()(maps), "nddr/forward_train")
    for key, value in run.buffers(nddr).items():
        wanted = golden.arrays("init.npz")[f"nddr/after_train_forward/{key}"]
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7, err_msg=key)


def test_mtan_on_odd_sides():
    """A layer1 map of 13x18 halves to 7x9, in the backbone by its stride and in the refinement by its max-pool."""
    model = MTAN(resnet("resnet18", dilated=True), {"depth": torch.nn.Conv2d(512, 1, 1)}).eval()
    with torch.no_grad():
        outputs = model(torch.from_numpy(golden.image()[:, :, :50, :70].copy()))
    assert outputs["depth"].shape == (2, 1, 50, 70)


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
