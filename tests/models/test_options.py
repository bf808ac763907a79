"""The options of a model: defaults, checks, the command line, and configurations of older versions."""

import json

import pytest
from flax import nnx

from mtl_jax import config_overrides, heads, models, nn, recipes
from mtl_jax.config import Config, Data, Model, from_json, to_json
from mtl_jax.models import NoOptions, SoftSharingOptions


def config(name="cross_stitch", **options):
    return Config(Data("nyud", ("semseg", "depth")), Model(name, "tiny", options=options))


def test_defaults():
    assert models.options(config()) == SoftSharingOptions(0.9, 0.1, True, "")
    assert models.options(config("mti_net")) == NoOptions()


def test_given_options_replace_defaults_and_whole_numbers_are_numbers():
    found = models.options(config(alpha=1, single_task="runs/{task}"))
    assert found == SoftSharingOptions(1.0, 0.1, True, "runs/{task}")
    assert isinstance(found.alpha, float)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gamma": 2}, r"model\.options\.gamma is 2, .* cross_stitch are alpha, beta, init_single_task, single_task"),
        ({"alpha": "much"}, r"model\.options\.alpha is 'much'; .* float"),
        ({"alpha": True}, r"model\.options\.alpha is True; .* float"),
        ({"init_single_task": 1}, r"model\.options\.init_single_task is 1; .* bool"),
        ({"beta": float("nan")}, r"model\.options\.beta is nan; give a finite number"),
    ],
)
def test_impossible_options_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: models.build(config(**given)))


def test_models_without_options_refuse_any():
    with pytest.raises(ValueError, match=r"model\.options\.alpha is 0\.5, but model baseline has no options"):
        models.options(config("baseline", alpha=0.5))


@pytest.mark.parametrize("name", ["nyud_cross_stitch", "pascal_nddr_cnn"])
def test_the_command_line_overrides_options(name):
    wanted = {"alpha": 0.7, "init_single_task": False, "single_task": "elsewhere/{task}"}
    overrides, _ = config_overrides.split([f"--model.options.{option}={value}" for option, value in wanted.items()])
    options = models.options(config_overrides.apply(recipes.load(name), overrides))
    assert {option: getattr(options, option) for option in wanted} == wanted


def test_configurations_of_older_versions_keep_their_options():
    stored = json.loads(to_json(config()))
    del stored["model"]["options"]
    stored["model"] |= {"alpha": 0.8, "beta": 0.05, "init_single_task": False, "single_task": "runs/{task}"}
    found = from_json(json.dumps(stored), "config.json")
    assert models.options(found) == SoftSharingOptions(0.8, 0.05, False, "runs/{task}")
    stored["model"]["name"] = "baseline"  # every model had these fields
    assert models.options(from_json(json.dumps(stored), "config.json")) == NoOptions()


def test_only_decorated_modules_recompute(monkeypatch):
    class Linear(nnx.Module):
        def __init__(self, channels, num_outputs, *, rngs):
            self.conv = nn.Conv(channels[-1], num_outputs, 1, rngs=rngs)

        def __call__(self, maps):
            return self.conv(maps[-1])

    monkeypatch.setitem(heads.HEADS, "linear", Linear)
    found = config("baseline")
    found.model.head, found.model.remat = "linear", ("heads",)
    with pytest.raises(ValueError, match=r"calls Linear, .* decorate Linear\.__call__ with mtl_jax\.nn\.recomputable"):
        nnx.eval_shape(lambda: models.build(found))
    found.model.remat = ("conv",)
    nnx.eval_shape(lambda: models.build(found))
