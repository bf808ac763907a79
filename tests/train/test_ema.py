"""The moving average of weights: its numbers, its place in steps and checkpoints, and which weights are scored."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mtl_jax
from mtl_jax import experiment, models
from mtl_jax.config import validate
from mtl_jax.data import loader
from mtl_jax.evaluation import result_files, scoring
from mtl_jax.inference.evaluate import evaluate_run
from mtl_jax.inference.export import export_run
from mtl_jax.inference.restored import Restored
from mtl_jax.losses import Objective
from mtl_jax.nn import BatchNorm, Conv
from mtl_jax.outputs import Outputs
from mtl_jax.runtime import sharding
from mtl_jax.train import restore
from mtl_jax.train import state as train_state
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.ema import Ema
from mtl_jax.train.loop import fit
from mtl_jax.train.step import make_eval_step, make_train_step
from tests import tiny
from tests.train import runs

STEPS = 12


class Predictor(nnx.Module):
    """A convolution and a batch norm, with a count of integers as extensions may have one."""

    def __init__(self):
        self.conv = Conv(3, 1, 3, rngs=nnx.Rngs(0))
        self.norm = BatchNorm(1)
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, images):
        self.count.set_value(self.count[...] + 1)
        return Outputs({"depth": self.norm(self.conv(images))})


def build():
    """The model in float64."""
    model = Predictor()
    nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, nnx.state(model)))
    return model


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        yield {"image": rng.normal(size=(4, 8, 8, 3)), "depth": rng.uniform(1, 9, (4, 8, 8, 1))}


def named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def train(ema, **options):
    """[({name: weights}, {name: averages}) at first and after each step]"""
    state = train_state.create(build, optax.sgd(0.05), sharding.make_mesh(), ema=ema)
    step = make_train_step(state.graphdef, Objective(["depth"]), **options)
    arrays = state.arrays
    seen = [jax.tree.map(np.asarray, arrays)]
    for batch in batches():
        arrays, _ = step(arrays, batch)
        seen.append(jax.tree.map(np.asarray, arrays))
    assert int(seen[-1][train_state.AVERAGE]["steps"]) == STEPS
    return [(named(each[train_state.MODEL]), named(each[train_state.AVERAGE]["model"])) for each in seen]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("ema", [Ema(0.9), Ema(0.9, warmup=True)])
def test_parameters_and_statistics_are_averaged_after_every_step(ema, accumulate):
    with jax.enable_x64(True):
        (weights, expected), *steps = train(ema, accumulate=accumulate)
    assert (
        expected.keys()
        == weights.keys()
        == {"conv.kernel", "norm.scale", "norm.bias", "norm.mean", "norm.var", "count"}
    )
    for name, array in weights.items():
        np.testing.assert_array_equal(expected[name], array)
    for t, (weights, averages) in enumerate(steps):
        decay = min(0.9, (1 + t) / (10 + t)) if ema.warmup else 0.9
        expected = {name: decay * expected[name] + (1 - decay) * array for name, array in weights.items()}
        expected["count"] = weights["count"]
        for name, array in averages.items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-13, err_msg=f"{name} after step {t}")
    assert all((averages[name] != weights[name]).any() for name in weights if name != "count")


def test_weights_that_stand_still_are_their_own_average():
    """To the last bit, in float32: a frozen part, for example."""
    model = Predictor()
    state = train_state.create(lambda: model, optax.sgd(0.0), sharding.make_mesh(), ema=Ema(0.999))
    step = make_train_step(state.graphdef, Objective(["depth"]))
    arrays = state.arrays
    for batch in batches():
        arrays, _ = step(arrays, jax.tree.map(np.float32, batch))
    np.testing.assert_array_equal(arrays[train_state.AVERAGE]["model"]["conv"]["kernel"], model.conv.kernel[...])


def state(workdir):
    """{name: array} of the newest checkpoint, all parts."""
    run = experiment.make(experiment.load_config(workdir))
    ema = Ema(run.config.train.ema) if run.config.train.ema else None
    tx = run.optimizer(steps_per_epoch=3)
    abstract = train_state.abstract(lambda: models.build(run.config), tx, sharding.make_mesh(), ema=ema)
    checkpoints = Checkpoints(workdir, read_only=True)
    arrays, _ = checkpoints.restore(checkpoints.resolve("latest"), abstract.arrays)
    return named(arrays)


def scores(workdir, weights):
    """The results that training's own evaluation gives of the newest checkpoint."""
    run = Restored(experiment.load_config(workdir), workdir, "latest", weights)
    source, metrics = run.experiment.open_split("val", run.tasks), run.experiment.streaming_metrics
    batches = loader.val_batches(
        source, conventions=run.experiment.conventions, tasks=run.tasks, size=(64, 64), batch_size=4, num_workers=0
    )
    step = make_eval_step(run.state.graphdef, metrics, run.mesh)
    return scoring.streaming(step, run.state.arrays, batches, metrics, run.mesh)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """(work directory, results) of a run that averages its weights."""
    workdir = tmp_path_factory.mktemp("ema") / "run"
    with pytest.MonkeyPatch.context() as patch:
        tiny.register_backbones(patch)
        return workdir, fit(
            tiny.config(data_dir, ema=0.9, ema_warmup=True, checkpoint_every=2, eval_final_epochs=0), workdir
        )


def test_an_interrupted_run_goes_on_with_its_average(run, tmp_path):
    workdir, _ = run
    runs.fit_and_kill(experiment.load_config(workdir), tmp_path, 5)  # a step after the last save
    fit(experiment.load_config(workdir), tmp_path)
    straight, resumed = state(workdir), state(tmp_path)
    assert int(straight["3.steps"]) == 6
    assert straight.keys() == resumed.keys()
    for name, array in straight.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
    assert runs.log(workdir) == runs.log(tmp_path)  # its evaluations among them


def test_training_evaluates_the_average(run):
    workdir, results = run
    averaged, trained = (scores(workdir, weights)["depth"]["rmse"] for weights in ("", "trained"))
    assert averaged == pytest.approx(results["depth"]["rmse"], rel=1e-6)
    assert abs(trained - averaged) > 1e-4


def test_results_name_the_weights(run):
    workdir, _ = run
    report = evaluate_run(workdir, "latest")
    other = evaluate_run(workdir, "latest", weights="trained")
    assert (report["weights"], report["checkpoint"]) == ("ema", "latest")
    assert (other["weights"], other["checkpoint"]) == ("trained", "latest (trained)")
    assert report["results"] != other["results"]
    assert result_files.read(workdir / "results_latest.json") == report
    assert result_files.read(workdir / "results_latest_trained.json") == other
    assert workdir.joinpath("results_latest_trained.json") in result_files.find([workdir])
    assert "step 6, averaged weights (EMA); protocol" in result_files.readable(report)
    for weights, expected in (("", report), ("ema", report), ("trained", other)):
        assert mtl_jax.load(workdir, "latest", weights).results == expected


def test_a_loaded_model_has_the_weights_that_are_asked_for(run, tmp_path):
    workdir, _ = run
    arrays = state(workdir)
    for weights, prefix in (("", "3.model."), ("ema", "3.model."), ("trained", "0.")):
        model = mtl_jax.load(workdir, "latest", weights)
        for name, array in named(nnx.as_pure(nnx.state(model.net))).items():
            np.testing.assert_array_equal(array, arrays[prefix + name], err_msg=name)
        assert model.origin.endswith("step 6, averaged weights (EMA)") == (weights != "trained")
    folder = mtl_jax.load(workdir, "latest").save(tmp_path / "saved")
    assert "* averaged weights (EMA), decay 0.9\n" in (folder / "README.md").read_text()
    saved = mtl_jax.load(folder)
    np.testing.assert_array_equal(
        saved.net.decoder.last_layer[1].mean[...], arrays["3.model.decoder.last_layer.1.mean"]
    )
    with pytest.raises(ValueError, match=r"weights is 'ema', and .* holds a single model; leave weights out"):
        mtl_jax.load(folder, weights="ema")
    with pytest.raises(ValueError, match="weights is 'average'; it may be 'trained' or 'ema'"):
        mtl_jax.load(workdir, weights="average")


def test_an_exported_model_names_its_weights(run, tmp_path):
    workdir, _ = run
    config = experiment.load_config(workdir)
    for weights in ("ema", "trained"):
        out = tmp_path / f"{weights}.zip"
        assert export_run(config, workdir, "latest", out, weights=weights, platforms=["cpu"])["weights"] == weights


@pytest.mark.slow
def test_an_average_may_begin_and_end_later(tmp_path, data_dir, caplog):
    config = tiny.config(data_dir, epochs=1)
    fit(config, tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint 3 of .* has no averaged weights: .* or train with --train.ema="):
        restore.load(config, tmp_path, "latest", "ema")
    config.train.epochs, config.train.ema = 2, 0.9
    with pytest.raises(ValueError, match=r"another configuration \(train.epochs: .*; train.ema: 0.0 there, 0.9 now\)"):
        fit(config, tmp_path)
    assert restore.load(config, tmp_path, "latest").weights == "trained"  # what training evaluated
    assert "its trained weights are taken" in caplog.text

    fit(config, tmp_path, allow_config_change=True)
    assert "checkpoint 3 has no average of the weights; the average begins with its weights" in caplog.text
    arrays = state(tmp_path)
    assert int(arrays["3.steps"]) == 3
    # In three steps of Adam the average cannot get far from the weights, wherever it began.
    name = "decoder.last_layer.0.kernel"
    assert 0 < np.abs(arrays[f"3.model.{name}"] - arrays[f"0.{name}"]).max() < 3 * config.optim.lr

    config.train.epochs, config.train.ema = 3, 0.0
    fit(config, tmp_path, allow_config_change=True)
    assert "the average of the weights in checkpoint 6 is passed over, because train.ema is 0" in caplog.text
    assert {name.partition(".")[0] for name in state(tmp_path)} == {"0", "1"}


def test_the_start_says_what_is_averaged_and_scored(tmp_path, data_dir, caplog):
    with caplog.at_level(logging.INFO):
        fit(tiny.config(data_dir, epochs=1, ema=0.99, eval_weights="trained"), tmp_path)
    assert "decay 0.99; evaluation scores the weights of the newest step" in caplog.text
    assert "evaluation of step 3 (" in caplog.text


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"ema": 1.0}, "train.ema is 1.0; it must be below 1"),
        ({"ema": -0.1}, "train.ema is -0.1; the least is 0"),
        ({"ema_warmup": True}, "train.ema_warmup asks for averaged weights and train.ema is 0"),
        ({"eval_weights": "ema"}, "train.eval_weights asks for averaged weights and train.ema is 0"),
        ({"eval_weights": "mean"}, "train.eval_weights is 'mean'; it may be '' or 'trained' or 'ema'"),
    ],
)
def test_options_that_do_not_work_are_refused(train, message):
    with pytest.raises(ValueError, match=message):
        validate(tiny.config("", **train))
