"""InvPT against the numbers recorded from its code: networks in float64, losses, the score of saliency, names."""

import math
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mtl_jax import backbones, losses, metrics, models, optim, recipes, weights
from mtl_jax.backbones.vit import build_plain_vit, build_vit
from mtl_jax.backbones.vit_variants import VARIANTS
from mtl_jax.config import Config, Data, Model, num_channels
from mtl_jax.data import catalogue
from mtl_jax.nn import resize_like
from mtl_jax.nn.position_embedding import resize_cubic
from parity import report, transformers
from parity.interpreter import interpret
from tests.marks import slow

SIZE = (128, 192)
SMALL = replace(VARIANTS["vit_small_patch16"], width=96, heads=4, outputs=(1, 2, 3, 4))
OPTIONS = {"features": 32, "extra": 16, "drop_path": 0.0}
TASKS = {"nyud": ("semseg", "depth", "normals", "edge"), "pascal": ("semseg", "human_parts", "sal", "normals", "edge")}
BOUND = 1e-9
# The library divides normals by (norm + 1e-12), the recorded loss by max(norm, 1e-12). That changes the loss by 1e-12,
# gradients by 2e-10, and, since Adam divides a gradient by its own size, a parameter's change by up to 5e-9.
STEPS_BOUND = 1e-7
each_network = pytest.mark.parametrize("dataset", TASKS)


@pytest.fixture
def small(monkeypatch):
    """The vision transformer that the networks were recorded with."""
    monkeypatch.setitem(VARIANTS, "recorded", SMALL)
    monkeypatch.setitem(backbones.BACKBONES, "recorded", build_vit)
    monkeypatch.setitem(backbones.PLAIN, "recorded", build_plain_vit)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def recorded_losses(dataset):
    return recipes.load(f"{dataset}_invpt").losses


def abstract(dataset):
    config = Config(Data(dataset, TASKS[dataset], image_size=SIZE), Model("invpt", "recorded", options=OPTIONS))
    return nnx.eval_shape(lambda: models.build(config))


def network(dataset):
    """The recorded network in float64."""
    graphdef, state = nnx.split(abstract(dataset))
    model = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), state))
    weights.load_torch(model, transformers.state_dict(f"invpt_{dataset}"))
    return model


@cache
def targets():
    """{name: label `[2, *SIZE, C]`} of the recordings, drawn from one generator in this order."""
    rng, shape = np.random.default_rng(1), (2, 1, *SIZE)
    drawn = {}
    for name, classes in (("semseg40", 40), ("semseg21", 21), ("human_parts", 7)):
        drawn[name] = rng.integers(0, classes, shape)
        drawn[name][rng.random(shape) < 0.1] = 255
    for name in ("sal", "edge"):
        drawn[name] = (rng.random(shape) < 0.3).astype(np.float32)
    normals = rng.standard_normal((2, 3, *SIZE))
    normals = (normals / np.sqrt(np.square(normals).sum(axis=1, keepdims=True))).astype(np.float32)
    drawn["normals"] = np.where(rng.random(shape) < 0.1, np.float32(255), normals)
    drawn["depth"] = rng.uniform(0.5, 9.5, shape).astype(np.float32)
    for name in ("depth", "sal", "edge"):
        drawn[name][rng.random(shape) < 0.1] = 255
    return {name: np.moveaxis(label, 1, -1) for name, label in drawn.items()}


def batch(dataset):
    stored = {"semseg": f"semseg{len(catalogue.get(dataset).class_names['semseg'])}"}
    labels = {task: targets()[stored.get(task, task)] for task in TASKS[dataset]}
    wide = {task: x.astype(np.float64) if x.dtype.kind == "f" else x for task, x in labels.items()}
    return jax.tree.map(jnp.asarray, wide | {"image": transformers.image(*SIZE).astype(np.float64)})


def outputs(model, images):
    """The predictions under their recorded names, two channels of saliency included."""
    final, preliminary = model.logits(images)
    named = final | {f"inter_{task}": x for task, x in preliminary.items()}
    return {name: resize_like(x, images) for name, x in named.items()}


def sums(mode, arrays, recorded):
    """The largest deviation from the recorded sums of outputs, relative to the sum of magnitudes."""
    assert {f"{mode}/{name}#shape" for name in arrays} == {
        key for key in recorded if key.startswith(f"{mode}/") and key.endswith("#shape")
    }
    deviations = []
    for name, x in arrays.items():
        full, key = np.moveaxis(np.asarray(x), -1, 1), f"{mode}/{name}"
        assert full.shape == tuple(recorded[f"{key}#shape"])
        scale = recorded[f"{key}#abssum_f64"]
        deviations += [abs(full.sum() - recorded[f"{key}#sum_f64"]) / scale, abs(np.abs(full).sum() / scale - 1)]
    return max(deviations)


def named(graphdef, *states):
    """{torch key: array} of states that fill a model."""
    return weights.to_torch(nnx.merge(graphdef, *states))


def test_rates():
    """The recorded rates are those of the recipes' schedule, here over four steps."""
    recorded = transformers.recorded("invpt_nyud")["steps/lr"]
    schedule = optim.make_schedule("poly", 2e-4, 4, power=0.9)
    np.testing.assert_allclose([schedule(step) for step in range(3)], recorded, rtol=1e-12)


@pytest.mark.slow
@each_network
def test_evaluation(small, float64, dataset):
    model, recorded = network(dataset), transformers.recorded(f"invpt_{dataset}")
    graphdef, state = nnx.split(models.evaluation_view(model))
    run = interpret(lambda state, images: outputs(nnx.merge(graphdef, state), images))
    deviation = sums("eval", run(nnx.as_pure(state), batch(dataset)["image"]), recorded)
    assert report.record(f"flax float64 invpt_{dataset} / recorded", "eval", deviation) < BOUND


@pytest.mark.slow
@each_network
def test_three_steps(small, float64, dataset):
    """Outputs, statistics, losses and gradients in training, and three steps with the recorded rates."""
    model, recorded = network(dataset), transformers.recorded(f"invpt_{dataset}")
    view = nnx.view(model, use_running_average=False, deterministic=True, raise_if_not_found=False)
    graphdef, parameters, statistics, rest = nnx.split(view, nnx.Param, nnx.BatchStat, ...)
    objective = losses.Objective(TASKS[dataset], losses=recorded_losses(dataset))

    def differentiate(parameters, statistics, batch):
        def loss(parameters):
            model = nnx.merge(graphdef, parameters, statistics, rest, copy=True)
            images = batch["image"]
            raw = outputs(model, images)
            # The second forward pass of a call would move the running statistics again.
            final = {task: raw[task] for task in TASKS[dataset]}
            inter = {task: raw[f"inter_{task}"] for task in TASKS[dataset]}
            joined = models.Outputs(joined_logits(final, dataset), {"inter": joined_logits(inter, dataset)})
            total, components = objective(joined, batch)
            return total, (raw, components, nnx.as_pure(nnx.state(model, nnx.BatchStat)))

        return jax.value_and_grad(loss, has_aux=True)(parameters)

    run, data = interpret(differentiate), batch(dataset)
    tx = optim.make_optimizer("adam", lambda step: jnp.asarray(recorded["steps/lr"])[step], weight_decay=1e-6)
    first = nnx.as_pure(parameters)
    parameters, opt_state = first, tx.init(first)
    totals = []
    for step in range(3):
        (total, (raw, components, moved)), gradient = run(parameters, nnx.as_pure(statistics), data)
        if step == 0:
            deviations = {
                "train": sums("train", raw, recorded),
                "buffers": statistics_deviation(named(graphdef, parameters, moved, rest), recorded),
                "losses": losses_deviation(components, recorded),
                "gradients": gradients_deviation(named(graphdef, gradient, moved, rest), recorded),
            }
        statistics = moved
        totals.append(float(total))
        updates, opt_state = tx.update(gradient, opt_state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    deviations["step losses"] = float(np.abs(np.array(totals) / recorded["steps/loss_f64"] - 1).max())
    before, after = (named(graphdef, each, statistics, rest) for each in (first, parameters))
    deviations["steps"] = steps_deviation(before, after, recorded)
    for quantity, deviation in deviations.items():
        report.record(f"flax float64 invpt_{dataset} / recorded", quantity, deviation)
    assert all(value < (STEPS_BOUND if key == "steps" else BOUND) for key, value in deviations.items()), deviations


def joined_logits(logits, dataset):
    channels = num_channels(Config(Data(dataset, TASKS[dataset])), TASKS[dataset])
    return models.transformer_tasks.as_outputs(logits, channels)


def statistics_deviation(arrays, recorded):
    keys = recorded["buffers_after_forward/keys"].tolist()
    assert set(keys) == {key for key in arrays if "running_" in key}
    rows = zip(
        keys, recorded["buffers_after_forward/sum_f64"], recorded["buffers_after_forward/abssum_f64"], strict=True
    )
    return max(abs(arrays[key].sum() - total) / scale for key, total, scale in rows)


def losses_deviation(components, recorded):
    wanted = dict(zip(recorded["loss/keys"].tolist(), recorded["loss/values_f64"], strict=True))
    assert components.keys() == wanted.keys()
    return max(abs(float(components[key]) / value - 1) for key, value in wanted.items())


def gradients_deviation(arrays, recorded):
    """Of norms and sums, relative to the norm, or to the largest norm where a gradient is 0 in theory."""
    keys, zero = recorded["grad/keys"].tolist(), set(recorded["zero_grad_keys"].tolist())
    still = recorded["grad/none_keys"].tolist()
    assert {*keys, *still} == {key for key in arrays if "running_" not in key}
    largest = recorded["grad/l2_f64"].max()
    deviations = []
    for key, norm, total in zip(keys, recorded["grad/l2_f64"], recorded["grad/sum_f64"], strict=True):
        scale = largest if key in zero else norm
        ours, size = np.sqrt(np.square(arrays[key]).sum()), math.sqrt(arrays[key].size)
        deviations += [abs(ours - norm) / scale, abs(arrays[key].sum() - total) / (scale * size)]
    return max(deviations)


def steps_deviation(before, after, recorded):
    """Of the norm of the change; parameters without a gradient have not changed at all."""
    still, zero = set(recorded["grad/none_keys"].tolist()), set(recorded["zero_grad_keys"].tolist())
    rows = zip(recorded["steps/param_keys"].tolist(), recorded["steps/param_delta_l2_f64"], strict=True)
    deviations = []
    for key, norm in rows:
        change = float(np.linalg.norm((after[key] - before[key]).ravel()))
        if key in still:
            assert change == norm == 0, key
        elif key not in zero:
            deviations.append(abs(change / norm - 1))
    return max(deviations)


@each_network
def test_published_weights_have_a_place(dataset):
    """The keys and shapes of the recorded network and of the published one are those of our models."""
    config = recipes.load(f"{dataset}_invpt")
    model = nnx.eval_shape(lambda: models.build(config))
    keys = transformers.keys(f"full_invpt_{dataset}_vitL")
    weights.check_torch(model, {key: np.broadcast_to(np.float32(0), shape) for key, shape in keys})


@pytest.mark.slow
@each_network
def test_weights_round_trip(small, float64, dataset):
    arrays = transformers.state_dict(f"invpt_{dataset}")
    returned = weights.to_torch(network(dataset))
    assert returned.keys() == {key for key in arrays if not key.endswith("num_batches_tracked")}
    for key, x in returned.items():
        np.testing.assert_array_equal(x, arrays[key], err_msg=key)


CASES = sorted({key.split("/")[1] for key in transformers.recorded("invpt_misc") if key.startswith("losses/")})
# A vector has a label or none: no data set here has labels of single components.
OTHERWISE = "normals_one_component_255"


@pytest.mark.parametrize(
    "case", [case if case in ("sal", "edge_soft", "normals") else slow(case) for case in CASES if case != OTHERWISE]
)
def test_recorded_loss(case):
    """Losses of the recipes on small maps, with gradients."""
    recorded = transformers.recorded("invpt_misc")
    output, label, gradient = (
        jnp.asarray(np.moveaxis(recorded[f"losses/{case}/{key}"], 1, -1)) for key in ("output", "label", "grad")
    )
    task = case.split("_")[0]
    loss = losses.TaskLoss(recorded_losses("nyud").get(task, losses.Objective((task,)).losses[task]), task)
    channels = {task: 1 if task == "sal" else output.shape[-1]}

    def value_of(output):
        return sum(loss.terms(models.transformer_tasks.as_outputs({task: output}, channels)[task], label).values())

    value, ours = jax.value_and_grad(value_of)(output)
    np.testing.assert_allclose(value, recorded[f"losses/{case}/loss"], rtol=1e-5)
    np.testing.assert_allclose(ours, gradient, rtol=1e-5, atol=1e-7)


def test_recorded_score_of_saliency():
    recorded, metric = transformers.recorded("invpt_misc"), metrics.Saliency()
    accumulator = metrics.Accumulator(metric)
    for i in range(2):
        label = np.moveaxis(recorded[f"meter/sal/b{i}/gt"], 1, -1)
        accumulator.update(metric.update(recorded[f"meter/sal/b{i}/pred"][..., None], label))
    assert accumulator.compute()["maxF_pixel"] == pytest.approx(float(recorded["meter/sal/maxF"]), abs=1e-6)


@pytest.mark.parametrize("key", ["9x12", "4x6", "5x9"])
def test_position_embeddings(float64, key):
    table = transformers.recorded("pos_embed_7")
    grid = jnp.asarray(table["pos_embed"], jnp.float64)[:, 1:].reshape(1, 7, 7, 5)
    ours = resize_cubic(grid, tuple(map(int, key.split("x")))).reshape(1, -1, 5)
    np.testing.assert_allclose(ours, table[f"plain/{key}"][:, 1:], atol=1e-13)
