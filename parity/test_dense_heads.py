"""DINOv2's dense heads on a small transformer against the numbers recorded from DINOv2's own code, in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import heads, weights
from mtl_jax.backbones import ViT, vit_variants
from mtl_jax.backbones.vit_weights import published
from mtl_jax.heads.regression import Bins
from mtl_jax.losses import softmax_cross_entropy
from mtl_jax.models import SingleTask, evaluation_view, training_view
from mtl_jax.nn import resize_bilinear
from parity import report, transformers
from parity.interpreter import interpret
from tests.marks import slow

BACKBONE = replace(
    vit_variants.VARIANTS["dinov2_small"], width=48, heads=4, outputs=(1, 2, 3, 4), grid=5, layer_scale=1.0
)
BOUND = 1e-9
BIAS = "decode_head.conv_depth.head.4.bias"  # recorded with 2, so that few pixels end in the last ReLU
DPT = "dpt:features=32"
# {recording: (head, regression)}; those with gradients come first
DEPTH = {
    "linear1": ("linear:levels=1", "bins"),
    "linear4": ("linear", "bins"),
    "dpt_project": (DPT, "relu"),
    "linear4_softmax": ("linear", "bins:number=64,probabilities=softmax"),
    "linear4_sigmoid": ("linear", "bins:number=64,probabilities=sigmoid"),
    "linear4_regression": ("linear", "relu"),
    "linear4_scale_up": ("linear", "sigmoid"),
    "dpt_add": (f"{DPT},readout=add", "relu"),
    "dpt_ignore": (f"{DPT},readout=ignore", "relu"),
}
SEMSEG = {"seg_linear": "bn_linear:levels=1", "seg_ms": "bn_linear"}
QUICK = ("dpt_add", "linear4_sigmoid")


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    monkeypatch.setitem(vit_variants.VARIANTS, "recorded", BACKBONE)
    with jax.enable_x64(True):
        yield


def ours(key, prefix):
    """The torch key of a parameter here; None for the mask token, which is not there."""
    part, _, name = key.partition(".")
    if part == "decode_head":
        return f"decoder.{prefix}{name}"
    names = list(published({name: np.zeros(1)}, BACKBONE))
    return f"backbone.encoder.{names[0]}" if names else None


def load(name, head, regression=""):
    """A model in float64 with the recorded weights."""

    def build():
        backbone = ViT("recorded", rngs=nnx.Rngs(0)).for_tokens()
        decoder = heads.build(head, backbone.channels, 21, regression=regression, rngs=nnx.Rngs(1))
        return SingleTask(backbone, decoder, "semseg")

    graphdef, state = nnx.split(nnx.eval_shape(build))
    model = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), state))
    arrays = transformers.state_dict(f"dinov2_{name}")
    if BIAS in arrays:
        arrays[BIAS] = np.full(1, 2.0)
    renamed = {ours(key, "head." * bool(regression)): array for key, array in arrays.items()}
    weights.load_torch(model, {key: array for key, array in renamed.items() if key is not None})
    return model


def padded(images):
    """Images with zeros on all sides, as DINOv2's heads pad them to whole patches."""
    margins = [(missing // 2, missing - missing // 2) for missing in (-side % 14 for side in images.shape[1:3])]
    return np.pad(images, [(0, 0), *margins, (0, 0)])


def deviation(value, recorded, key, step=1):
    """The largest deviation from what is recorded of an array `[B, H, W, C]`, in its sums and in single elements."""
    array = np.moveaxis(np.asarray(value), -1, 1)
    assert array.shape == tuple(recorded[f"{key}#shape"])
    largest = recorded[f"{key}#abssum_f64"]
    worst = [abs(array.sum() - recorded[f"{key}#sum_f64"]), abs(np.abs(array).sum() - largest)] / largest
    if f"{key}#f64" in recorded:
        worst = np.append(worst, np.abs(array[:, :, ::step, ::step] - recorded[f"{key}#f64"]).max())
    return float(worst.max())


def gradients(gradient, recorded, key, prefix=""):
    """The largest deviation of a gradient's norm and sum from the recorded ones, relative to the norm.

    Norms that are 0 but for rounding count relative to the largest norm.
    """
    arrays = weights.to_torch(gradient)
    norms, totals = recorded[f"{key}/l2_f64"], recorded[f"{key}/sum_f64"]
    worst = []
    for name, norm, total in zip(recorded[f"{key}/keys"], norms, totals, strict=True):
        array = arrays.pop(ours(str(name), prefix))
        scale = norm if norm > 1e-12 * norms.max() else norms.max()
        worst += [abs(np.sqrt(np.square(array).sum()) - norm) / scale, abs(array.sum() - total) / scale]
    without = [ours(str(name), prefix) for name in recorded[f"{key}/none_keys"]]
    assert set(arrays) <= {*without, *(name for name in arrays if ".running_" in name)}
    assert not any(np.abs(arrays[name]).max() for name in without if name in arrays)
    return max(worst)


def scale_invariant(prediction, label):
    """The loss of DINOv2's depth heads over the valid pixels of the whole batch."""
    valid = label > 0
    difference = jnp.log(prediction + 1e-3) - jnp.log(label + 1e-3)
    mean = jnp.where(valid, difference, 0).sum() / valid.sum()
    variance = jnp.where(valid, jnp.square(difference - mean), 0).sum() / (valid.sum() - 1)
    return jnp.sqrt(variance + 0.15 * jnp.square(mean))


def values(model, images):
    """What the head returns, at its own resolution."""
    return model.decoder(model.backbone(images))


def run(function, model, images):
    """The results of a function of a model and images, operation by operation."""
    graphdef, state = nnx.split(model)
    compute = interpret(lambda state, images: function(nnx.merge(graphdef, state), images))
    return compute(nnx.as_pure(state), images)


@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in DEPTH])
def test_depth(name):
    recorded = transformers.recorded(f"dinov2_depth_{name}")
    model = load(f"depth_{name}", *DEPTH[name])
    found = {}
    for size in dict.fromkeys(key.split("/")[0] for key in recorded):
        height, width = map(int, size.split("x"))
        images = np.float64(padded(transformers.image(height, width)))

        def outputs(model, images):
            return values(model, images), values(evaluation_view(model), images)

        output, clamped = run(outputs, model, images)
        found[f"{size} output"] = deviation(output, recorded, f"{size}/head_output", step=4)
        prediction = resize_bilinear(clamped, (height, width))
        found[f"{size} prediction"] = deviation(prediction, recorded, f"{size}/prediction", step=4)
        if f"{size}/grad/keys" in recorded:
            rng = np.random.default_rng(1)
            label = rng.uniform(0.5, 9.5, (2, 1, height, width)).astype(np.float32)
            label[rng.random(label.shape) < 0.1] = 0
            label = np.float64(np.moveaxis(label, 1, -1))

            def loss(state, images=images, label=label):
                output = values(nnx.merge(nnx.graphdef(model), state), images)
                return scale_invariant(resize_bilinear(output, label.shape[1:3]), label)

            value, gradient = interpret(jax.value_and_grad(loss))(nnx.as_pure(nnx.state(model)))
            found[f"{size} loss"] = abs(float(value) - recorded[f"{size}/sigloss_f64"])
            gradient = nnx.merge(nnx.graphdef(model), gradient)
            found[f"{size} gradients"] = gradients(gradient, recorded, f"{size}/grad", "head.")
    check(name, found)


def test_bins_of_equal_ratios():
    """DINOv2 takes the ends of the range for exponents of 10; its range 0.001 to 1 is 10^0.001 to 10^1 here."""
    recorded = transformers.recorded("dinov2_depth_linear4_sid")
    model = load("depth_linear4_sid", "linear", "bins:number=8,spacing=sid")
    model.decoder.regression = Bins(10**0.001, 10.0, 8, "sid")
    output = run(values, model, np.float64(transformers.image(56, 84)))
    check("linear4_sid", {"output": deviation(output, recorded, "56x84/head_output")})


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("seg_ms", "train"),
        slow("seg_ms", "eval"),
        slow("seg_linear", "eval"),
        slow("seg_linear", "train"),
    ],
)
def test_semantic_segmentation(name, mode):
    """In training mode only the batch norm of the head differs; its running statistics move once."""
    recorded = transformers.recorded(f"dinov2_{name}")
    model = load(name, SEMSEG[name])
    rng = np.random.default_rng(1)
    label = rng.integers(0, 21, (2, 56, 84))
    label[rng.random(label.shape) < 0.1] = 255
    label = label[..., None]
    images = np.float64(transformers.image(56, 84))
    graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)

    def loss(parameters, rest):
        model = nnx.merge(graphdef, parameters, rest, copy=True)
        view = training_view(model, nnx.Rngs(0)) if mode == "train" else evaluation_view(model)
        logits = values(view, images)
        outputs = logits, resize_bilinear(logits, (56, 84))
        return softmax_cross_entropy(outputs[1], label), (outputs, nnx.as_pure(nnx.state(model, nnx.BatchStat)))

    compute = interpret(jax.value_and_grad(loss, has_aux=True))
    (value, (outputs, moved)), gradient = compute(nnx.as_pure(parameters), nnx.as_pure(rest))
    found = {
        "logits output": deviation(outputs[0], recorded, f"{mode}/logits"),
        "upsampled output": deviation(outputs[1], recorded, f"{mode}/upsampled"),
        "loss": abs(float(value) - recorded[f"{mode}/loss_f64"]),
        "gradients": gradients(nnx.merge(graphdef, gradient, rest), recorded, f"{mode}/grad"),
    }
    np.testing.assert_allclose(np.moveaxis(outputs[0], -1, 1), recorded[f"{mode}/logits"], atol=1e-4)  # float32
    for statistic in ("mean", "var"):
        array = moved["decoder"]["bn"][statistic]
        found[f"running {statistic}"] = np.abs(array - recorded[f"{mode}/bn_running_{statistic}_f64"]).max()
    check(f"{name} {mode}", found)


PUBLISHED = {"linear1": ("linear:levels=1", 256), "linear4": ("linear", 256), "dpt": ("dpt", 1)}


@pytest.mark.parametrize("head", PUBLISHED)
@pytest.mark.parametrize(("size", "variant"), [("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant")])
def test_published_files_fill_the_heads_exactly(head, size, variant):
    channels = (vit_variants.VARIANTS[f"dinov2_{variant}"].width,) * 4
    notation, number = PUBLISHED[head]
    model = nnx.eval_shape(lambda: heads.build(notation, channels, number, rngs=nnx.Rngs(0)))
    shapes = transformers.keys(f"published_dinov2_depth_{head}_vit{size}14")
    weights.check_torch(model, {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes})


def check(name, found):
    for quantity, worst in found.items():
        assert worst < BOUND, quantity
    kinds = {"eval": [q for q in found if "gradients" not in q], "gradients": [q for q in found if "gradients" in q]}
    for kind, quantities in kinds.items():
        if quantities:
            report.record(f"flax float64 dinov2_{name} / recorded", kind, max(found[q] for q in quantities))
