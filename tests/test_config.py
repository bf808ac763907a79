import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from mtl_jax import config as configs
from mtl_jax.config import Config, Data, Model, for_backbone, parse_arg, validate

ROOT = Path(__file__).parents[1]


def test_demo_is_a_valid_configuration():
    get_config = runpy.run_path(str(ROOT / "configs" / "demo.py"))["get_config"]
    assert validate(get_config()).data.builder == "rendered_scenes/nyud"
    with pytest.raises(ValueError, match="takes no argument"):
        get_config("aux=edge")


def test_parse_arg_overrides_defaults():
    arg = parse_arg("b=2,c=x+y,d=two", a="1", b="", c="", d=("one", "two"), e=("one", "two"))
    assert (arg.a, arg.b, arg.c, arg.d, arg.e) == ("1", "2", "x+y", "two", "one")
    assert parse_arg(None, a="1").a == parse_arg("", a="1").a == "1"


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("auxx=edge", r"'auxx=edge' is not one of this file's options \(aux=, backbone=tiny, mode=one\|two\)"),
        ("edge", r"'edge' is not one of this file's options"),
        ("aux=edge,mode=", r"--config argument mode is ''; it may be 'one' or 'two'"),
        ("mode=three", r"--config argument mode is 'three'; it may be 'one' or 'two'"),
    ],
)
def test_what_a_file_does_not_offer_is_refused(arg, message):
    with pytest.raises(ValueError, match=message):
        parse_arg(arg, aux="", backbone="tiny", mode=("one", "two"))


def test_recipes_hold_for_a_family_of_backbones():
    recipes = {"hrnet": 8, "resnet": 6}
    names = ("hrnet_w18", "hrnet_w48", "resnet18_dilated")
    assert [for_backbone(name, **recipes) for name in names] == [8, 8, 6]
    with pytest.raises(ValueError, match="backbone 'vgg16'; give one whose name begins with 'hrnet' or 'resnet'"):
        for_backbone("vgg16", **recipes)


def test_validate_lists_every_problem():
    config = Config(Data("nyud", ("semseg", "sal")), Model(dtype="half"))
    config.optim.lr = 0
    config.train.batch_size = 0
    config.data.image_size = (16, 64)
    config.optim.schedule = "step"
    with pytest.raises(ValueError, match="does not work") as error:
        validate(config)
    for part in (
        "model.dtype is 'half'; it may be 'float32' or 'bfloat16'",
        "optim.lr is 0; it must be positive",
        "train.batch_size is 0; the least is 1",
        "data.image_size is (16, 64)",
        "optim.schedule is 'step' and optim.decay_epochs is empty",
        "data set 'nyud' has no task sal",
    ):
        assert part in str(error.value)


def test_micro_batches_are_equal():
    config = Config(Data("nyud", ("depth",)))
    config.train.accumulate = 4
    assert validate(config) is config
    config.train.accumulate = 3
    with pytest.raises(ValueError, match=r"train\.accumulate is 3, which does not divide train\.batch_size, 8"):
        validate(config)
    config.train.accumulate = 0
    with pytest.raises(ValueError, match=r"train\.accumulate is 0; the least is 1"):
        validate(config)


def test_groups_of_batch_norm_are_equal():
    config = Config(Data("nyud", ("depth",)))
    config.train.accumulate, config.train.batch_norm_groups = 2, 4
    assert validate(config) is config
    config.train.batch_norm_groups = 8
    message = r"train\.batch_norm_groups is 8, which does not divide train\.batch_size / train\.accumulate, 4"
    with pytest.raises(ValueError, match=message):
        validate(config)
    config.train.batch_norm_groups = 0
    with pytest.raises(ValueError, match=r"train\.batch_norm_groups is 0; the least is 1"):
        validate(config)


def test_json_round_trip():
    config = Config(Data("nyud", ("semseg", "depth"), image_size=(96, 128)), Model(remat=("conv", "heads")))
    assert configs.from_json(configs.to_json(config), "config.json") == config


def test_json_of_a_version_with_fewer_fields():
    """What it lacks has its default, which is what that version did."""
    config = Config(Data("nyud", ("depth",), num_workers=1), Model(dtype="bfloat16"))
    stored = json.loads(configs.to_json(config))
    del stored["train"]["batch_norm_groups"], stored["data"]["border"], stored["balancing"]
    assert configs.from_json(json.dumps(stored), "config.json") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"lr"', '"rate"'), "unknown fields optim.rate"),
        (lambda text: text[:40], "is not a configuration of this version"),
        (lambda text: "[]", "x/config.json is not .*: the file holds \\[\\] in place of fields"),
        (lambda text: text.replace('"optim": {', '"optim": 3, "train": {', 1), "optim holds 3 in place of fields"),
        (lambda text: "{}", "missing sections data, model, optim, train"),
    ],
)
def test_damaged_json_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        configs.from_json(change(configs.to_json(Config(Data("nyud", ("semseg",))))), "x/config.json")


def test_every_field_is_documented():
    for section in (configs.Data, configs.Model, configs.Optim, configs.Train):
        undocumented = [f.name for f in dataclasses.fields(section) if f"{f.name}:" not in section.__doc__]
        assert not undocumented, section
