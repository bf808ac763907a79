"""The recorded losses, values and gradients in float32, and torch's own losses in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import losses
from parity import golden

TASKS = {"softmax": "semseg", "balanced": "sal", "binary": "sal", "depth": "depth", "normals": "normals"}
NOTATIONS = {
    "softmax": "ce",
    "balanced_w0.95": "bce:positive_weight=0.95",
    "balanced_none": "bce",
    "binary": "2*bce:positive_weight=0.5",
    "depth_l1": "l1",
    "normals_l1": "l1",
    "normals_l2": "l2",
}
# The library has no such options: sums in place of means, and predictions that are not normalised.
NO_OPTIONS = ("batch_average", "sum", "normals_l1_nonormalize", "normals_l2_nonormalize")
# The recorded losses take a label of 255 for a positive; here it is ignored. Void pixels are such labels here.
OTHERWISE = tuple(
    f"{loss}/{case}"
    for loss in ("balanced_w0.95", "balanced_none", "binary")
    for case in ("label_255", "all_255", "void_pixels")
)
RECORDED = [key.removesuffix("/loss") for key in golden.arrays("losses.npz") if key.endswith("/loss")]
COMPARED = [case for case in RECORDED if case not in OTHERWISE and not set(case.split("/")) & set(NO_OPTIONS)]


def test_every_other_case_is_compared():
    assert len(RECORDED) == 59
    assert len(COMPARED) == 43


@pytest.mark.parametrize("case", COMPARED)
def test_recorded_loss(case):
    """Where the recorded loss is NaN, nothing is valid and ours is 0."""
    recorded = {key: golden.arrays("losses.npz")[f"{case}/{key}"] for key in ("output", "label", "loss", "grad")}
    output, label = (jnp.asarray(np.moveaxis(recorded[key], 1, -1)) for key in ("output", "label"))
    name = case.split("/")[0]
    loss = losses.TaskLoss(NOTATIONS[name], TASKS[name.split("_")[0]])
    value, gradient = jax.value_and_grad(lambda output: sum(loss.terms(output, label).values()))(output)
    np.testing.assert_allclose(value, np.nan_to_num(recorded["loss"], nan=0.0), rtol=1e-5, atol=1e-7)
    # The gradient of a tiny vector is the difference of numbers as large as the largest: one rounding of it.
    rounding = np.finfo(np.float32).eps * np.abs(recorded["grad"]).max()
    np.testing.assert_allclose(np.moveaxis(gradient, -1, 1), recorded["grad"], rtol=1e-5, atol=max(1e-7, rounding))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 0.25), (0.0, 1.0, 3.0)])
def test_cross_entropy_of_torch(torch, smoothing, weights):
    rng = np.random.default_rng(0)
    logits, label = rng.standard_normal((2, 5, 7, 3)), rng.integers(0, 3, (2, 5, 7))
    label[rng.random(label.shape) < 0.2] = 255
    theirs = torch.tensor(np.moveaxis(logits, -1, 1), requires_grad=True)
    loss = torch.nn.CrossEntropyLoss(
        None if weights is None else torch.tensor(weights, dtype=torch.float64),
        ignore_index=255,
        label_smoothing=smoothing,
    )(theirs, torch.tensor(label))
    loss.backward()
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(losses.softmax_cross_entropy)(
            jnp.asarray(logits), jnp.asarray(label[..., None]), smoothing, weights
        )
        np.testing.assert_allclose(value, loss.item(), rtol=1e-14)
        np.testing.assert_allclose(np.moveaxis(gradient, -1, 1), theirs.grad.numpy(), rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("name", ["l1_loss", "mse_loss"])
def test_differences_of_torch(torch, name):
    """Some differences are 0, where the gradient is 0 in torch."""
    rng = np.random.default_rng(0)
    prediction, label = rng.standard_normal((2, 2, 5, 7, 1))
    label[0, 0] = prediction[0, 0]
    theirs = torch.tensor(prediction, requires_grad=True)
    loss = getattr(torch.nn.functional, name)(theirs, torch.tensor(label))
    loss.backward()
    ours = {"l1_loss": losses.depth_l1, "mse_loss": losses.depth_l2}[name]
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(ours)(jnp.asarray(prediction), jnp.asarray(label))
        np.testing.assert_allclose(value, loss.item(), rtol=1e-14)
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-14)


def test_cosine_of_torch(torch):
    rng = np.random.default_rng(0)
    prediction, label = rng.standard_normal((2, 2, 5, 7, 3))
    label /= np.linalg.norm(label, axis=-1, keepdims=True)
    theirs = torch.tensor(prediction, requires_grad=True)
    loss = (1 - torch.nn.functional.cosine_similarity(theirs, torch.tensor(label), dim=-1)).mean()
    loss.backward()
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(losses.normals_cosine)(jnp.asarray(prediction), jnp.asarray(label))
        # 1e-12 is added to the norm of a prediction here.
        np.testing.assert_allclose(value, loss.item(), rtol=1e-11)
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-9, atol=1e-14)
