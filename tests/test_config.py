import dataclasses
import importlib.util
from pathlib import Path

import pytest

from mtl_jax import config as configs
from mtl_jax.config import Config, Data, Model, parse_arg, validate

ROOT = Path(__file__).parents[1]


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config


def test_nyud_mtinet_is_the_papers_recipe():
    config = validate(_load("nyud_mtinet")("aux=edge+normals"))
    assert (config.model.name, config.model.backbone, config.model.pretrained) == ("mti_net", "hrnet_w18", "imagenet")
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adam", 1e-4, 1e-4)
    assert (config.optim.schedule, config.train.batch_size, config.train.epochs) == ("poly", 8, 100)
    assert configs.main_tasks(config) == ("semseg", "depth")
    assert configs.aux_tasks(config) == ("semseg", "normals", "edge", "depth")
    assert config.train.eval_final_epochs == 10


def test_aux_tasks_default_to_the_main_ones():
    assert configs.aux_tasks(_load("nyud_mtinet")()) == ("semseg", "depth")


def test_demo_is_a_valid_configuration():
    assert validate(_load("demo")()).data.builder == "rendered_scenes/nyud"
    with pytest.raises(ValueError, match="takes no argument"):
        _load("demo")("aux=edge")


@pytest.mark.parametrize("arg", ["auxx=edge", "edge"])
def test_unknown_options_of_a_file_are_refused(arg):
    with pytest.raises(
        ValueError, match=r"not one of this file's options \(aux=, backbone=hrnet_w18, protocol=astmt\)"
    ):
        _load("nyud_mtinet")(arg)


def test_parse_arg_overrides_defaults():
    arg = parse_arg("b=2,c=x+y", a="1", b="", c="")
    assert (arg.a, arg.b, arg.c) == ("1", "2", "x+y")


def test_validate_lists_every_problem():
    config = Config(Data("nyud", ("semseg", "sal")), Model(dtype="half"))
    config.optim.lr = 0
    config.train.batch_size = 0
    config.data.image_size = (16, 64)
    with pytest.raises(ValueError, match="does not work") as error:
        validate(config)
    for part in (
        "model.dtype is 'half'; it may be 'float32' or 'bfloat16'",
        "optim.lr is 0; it must be positive",
        "train.batch_size is 0; the least is 1",
        "data.image_size is (16, 64)",
        "data set 'nyud' has no task sal",
    ):
        assert part in str(error.value)


def test_json_round_trip():
    config = Config(Data("nyud", ("semseg", "depth"), image_size=(96, 128)))
    assert configs.from_json(configs.to_json(config), "config.json") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"lr"', '"rate"'), "unknown fields optim.rate"),
        (lambda text: text.replace('"momentum": 0.9,', ""), "missing fields optim.momentum"),
        (lambda text: text[:40], "is not a configuration of this version"),
    ],
)
def test_damaged_json_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        configs.from_json(change(configs.to_json(Config(Data("nyud", ("semseg",))))), "x/config.json")


def test_every_field_is_documented():
    for section in (configs.Data, configs.Model, configs.Optim, configs.Train):
        undocumented = [f.name for f in dataclasses.fields(section) if f"{f.name}:" not in section.__doc__]
        assert not undocumented, section
