import dataclasses
import json
import logging
import re
from pathlib import Path

import optax
import pytest

from mtl_jax import config as configs
from mtl_jax import optim, protocol, recipes
from mtl_jax.config import Config, Data, Model, Optim, for_backbone, parse_arg, validate

ROOT = Path(__file__).parents[1]


def test_demo_is_a_valid_configuration():
    assert validate(recipes.load("demo")).data.builder == "rendered_scenes/nyud"
    with pytest.raises(ValueError, match="takes no options"):
        recipes.load("demo:aux=edge")


def test_paths_with_commas_in_arguments():
    arg = parse_arg("root=/data/a,b [1],c=3,model=x", root="", model="", c="")
    assert (arg.root, arg.model, arg.c) == ("/data/a,b [1]", "x", "3")
    with pytest.raises(ValueError, match="option 'b' is not one of this recipe's"):
        parse_arg("model=a,b", model="")


def test_parse_arg_overrides_defaults():
    arg = parse_arg("b=2,c=x+y,d=two", a="1", b="", c="", d=("one", "two"), e=("one", "two"))
    assert (arg.a, arg.b, arg.c, arg.d, arg.e) == ("1", "2", "x+y", "two", "one")
    assert parse_arg(None, a="1").a == parse_arg("", a="1").a == "1"


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("auxx=edge", r"'auxx=edge' is not one of this recipe's \(aux=, backbone=tiny, mode=one\|two\)"),
        ("edge", r"'edge' is not one of this recipe's"),
        ("aux=edge,mode=", r"the option mode of the recipe is ''; it may be 'one' or 'two'"),
        ("mode=three", r"the option mode of the recipe is 'three'; it may be 'one' or 'two'"),
    ],
)
def test_what_a_file_does_not_offer_is_refused(arg, message):
    with pytest.raises(ValueError, match=message):
        parse_arg(arg, aux="", backbone="tiny", mode=("one", "two"))


@pytest.fixture
def notes(caplog):
    """The log, with a note on every older name, whoever has used it before."""
    configs.note_new_name.cache_clear()
    with caplog.at_level(logging.WARNING):
        yield caplog


def test_older_names_of_options_are_understood(notes):
    options = {"aliases": {"protocol": "release"}, "release": ("astmt", "survey")}
    assert parse_arg("release=survey", **options).release == "survey"
    assert not notes.messages
    assert parse_arg("protocol=survey", **options).release == "survey"
    assert notes.messages == ["the option protocol= is called release= now; the older name still works"]
    with pytest.raises(ValueError, match="release of the recipe is 'v1'; it may be 'astmt' or 'survey'"):
        parse_arg("protocol=v1", **options)


def test_older_names_of_fields_are_understood(notes):
    config = Config(Data("nyud", ("depth",), protocol="survey"))
    renamed = configs.with_new_names(config)
    assert (renamed.data.release, renamed.data.protocol) == ("survey", "")
    assert configs.with_new_names(renamed) is renamed
    stored = json.loads(configs.to_json(renamed))
    stored["data"]["protocol"] = stored["data"].pop("release")
    del stored["losses"], stored["loss_weights"], stored["imports"]
    assert configs.from_json(json.dumps(stored), "config.json") == renamed
    assert notes.messages == ["data.protocol is called data.release now; the older name still works"]


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


@pytest.mark.parametrize("name", ["pretrained_entry", "pretrained_prefix"])
def test_a_part_of_no_file_is_refused(name):
    config = Config(Data("nyud", ("semseg",)))
    setattr(config.model, name, "ema")
    with pytest.raises(ValueError, match=rf"model\.{name} is 'ema' and model\.pretrained is empty"):
        configs.validate(config)
    config.model.pretrained = "x.pth"
    assert configs.validate(config) is config


def test_choices_are_those_of_the_tables(monkeypatch):
    config = Config(Data("nyud", ("depth",), release="v1", augmentation="much", border="one"))
    config.optim.name, config.optim.schedule, config.train.eval_protocol = "signs", "sawtooth", "own"
    with pytest.raises(ValueError, match="does not work") as error:
        validate(config)
    for part in (
        "data.release is 'v1'; it may be 'astmt' or 'survey'",
        "data.augmentation: unknown augmentation recipe 'much'; the recipes are astmt, survey, none, invpt, custom",
        "data.border is 'one'; it may be '' or 'zero' or 'ignore'",
        "optim.name is 'signs'; it may be 'sgd' or 'adam' or 'adamw' or 'lamb' or 'lion' or 'adan' or 'muon'",
        "optim.schedule is 'sawtooth'; it may be 'poly' or 'cosine' or 'step' or 'constant'",
        "train.eval_protocol is 'own'; it may be 'survey' or 'astmt' or 'invpt'",
    ):
        assert part in str(error.value)
    optim.register_schedule("sawtooth", lambda lr, epochs, **_: optim.constant(lr))
    optim.register_optimizer("signs")(lambda parts, options: optax.scale_by_sign())
    protocol.register(protocol.Protocol("own", "pixel", "maxF"))
    try:
        validate(dataclasses.replace(config, data=Data("nyud", ("depth",), augmentation="none")))
    finally:
        del optim.SCHEDULES["sawtooth"], optim.OPTIMIZERS["signs"], protocol.PROTOCOLS["own"]


def test_fields_of_the_optimiser():
    config = Config(Data("nyud", ("depth",)))
    config.optim = Optim("adamw", options={"b2": 0.95}, multipliers={"backbone": 0.1}, layer_decay=0.75, clip_norm=1.0)
    assert validate(config) is config
    config.optim = Optim("lion", options={"eps": 0.1}, multipliers={"backbone": -1.0}, layer_decay=1.5, clip_norm=-1.0)
    config.optim.weight_decay_on, config.optim.momentum = "weights", 1.0
    with pytest.raises(ValueError, match="does not work") as error:
        validate(config)
    for part in (
        "optim.options.eps is 0.1, but the options of optimiser lion are b1, b2",
        "optim.multipliers has -1.0 for backbone; the least is 0",
        "optim.layer_decay is 1.5; the most is 1",
        "optim.clip_norm is -1.0; the least is 0",
        "optim.momentum is 1.0; it must be below 1",
        "optim.weight_decay_on is 'weights'; it may be '' or 'all' or 'kernels'",
    ):
        assert part in str(error.value)


def test_ranges():
    config = Config(Data("nyud", ("depth",), num_workers=-1))
    config.train.seed = 2**32
    with pytest.raises(
        ValueError, match=r"num_workers is -1; the least is 0; .*seed is 4294967296; it must be below 2\^32"
    ):
        validate(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"sal": "depth_l1"}}, "losses names sal; the tasks of this configuration are semseg, depth"),
        ({"losses": {"depth": "berhuu"}}, "losses.depth is 'berhuu': unknown loss .* Did you mean berhu"),
        (
            {"losses": {"depth": "l1+dice"}},
            "losses.depth is 'l1[+]dice': the loss 'dice' is for labels of the kind Clas",
        ),
        ({"losses": {"semseg": "ce:class_weights=1/2"}}, "number of class_weights of ce is 2; semseg has 40 classes"),
        ({"loss_weights": {"edge": 2.0}}, "loss_weights names edge; the tasks of this configuration are semseg, depth"),
        ({"loss_weights": {"depth": -1.0}}, r"loss_weights has -1\.0 for depth; the least is 0"),
        ({"loss_weights": {"depth": 2.0}, "balancing": "dwa"}, "loss_weights is given and balancing is 'dwa', which"),
    ],
)
def test_losses_and_their_weights_are_checked(changes, message):
    config = Config(Data("nyud", ("semseg", "depth")), losses={"depth": "depth_l1"}, loss_weights={"semseg": 3.0})
    assert validate(config) is config
    with pytest.raises(ValueError, match=message):
        validate(dataclasses.replace(config, **changes))


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


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("optim", "lr", "NaN", "optim.lr is NaN; expected a finite number"),
        ("optim", "lr", "-Infinity", "optim.lr is -Infinity; expected a finite number"),
        ("optim", "lr", "1e999", "optim.lr is Infinity; expected a finite number"),
        ("optim", "lr", "1" + 400 * "0", "optim.lr is 10*; expected a finite number"),
        ("optim", "lr", '"0.1"', 'optim.lr is "0.1"; expected a finite number'),
        ("optim", "lr", "true", "optim.lr is true; expected a finite number"),
        ("optim", "lr", "null", "optim.lr is null; expected a finite number"),
        ("optim", "decay_epochs", "30", r"optim.decay_epochs is 30; expected a list of whole numbers"),
        ("optim", "decay_epochs", "[30.5]", r"optim.decay_epochs is \[30.5\]; expected a list of whole numbers"),
        ("train", "epochs", "1.5", "train.epochs is 1.5; expected a whole number"),
        ("train", "split_state", "0", "train.split_state is 0; expected true or false"),
        ("data", "dataset", '["nyud"]', r'data.dataset is \["nyud"\]; expected a string'),
        ("data", "tasks", '"depth"', r'data.tasks is "depth"; expected a list of strings'),
        ("data", "image_size", "[64]", r"data.image_size is \[64\]; expected a list of 2 whole numbers"),
        (
            "data",
            "class_names",
            '{"semseg": [1]}',
            r"data.class_names is .*; expected a mapping {name: a list of strings}",
        ),
        ("model", "options", '{"alpha": NaN}', 'model.options is {"alpha": NaN}; expected a mapping {name: a value'),
        (None, "loss_weights", '{"depth": NaN}', r'loss_weights is {"depth": NaN}; expected a mapping {name: a finite'),
        (None, "imports", "{}", r"imports is {}; expected a list of strings"),
    ],
)
def test_stored_values_have_the_type_of_their_field(section, field, value, message):
    stored = json.loads(configs.to_json(Config(Data("nyud", ("depth",)))))
    part = stored if section is None else stored[section]
    assert field in part
    part[field] = "the value"
    with pytest.raises(ValueError, match=rf"x/config.json is not .*: {message}"):
        configs.from_json(json.dumps(stored).replace('"the value"', value), "x/config.json")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_are_finite(number):
    config = Config(Data("nyud", ("depth",)), Model(options={"alpha": number}), loss_weights={"depth": number})
    config.optim.weight_decay = number
    with pytest.raises(ValueError, match="numbers must be finite") as raised:
        validate(config)
    for field in ("optim.weight_decay", "model.options", "loss_weights"):
        assert re.search(rf"{field} is .*{number}.*; numbers must be finite", str(raised.value))


def test_rules_say_what_continues_a_run_and_what_is_one_experiment():
    parts = {field.name: getattr(Config(), field.name) for field in dataclasses.fields(Config)}
    sections = {name: part for name, part in parts.items() if dataclasses.is_dataclass(part)}
    everything = {f"{name}.{field.name}" for name, part in sections.items() for field in dataclasses.fields(part)}
    everything |= parts.keys() - sections.keys()
    fixed, same = (set(fields(Config())) for fields in (configs.fixed_on_resume, configs.identity))
    assert {"data.dataset", "optim.lr", "train.seed", "balancing", "losses", "loss_weights"} <= fixed < everything
    assert everything - fixed >= {"data.data_dir", "data.skip_corrupt", "model.pretrained", "model.remat", "imports"}
    assert everything - same >= {"train.seed", "train.log_every", "data.data_dir", "data.num_workers"}
    assert {"data.skip_corrupt", "model.pretrained", "train.split_state"} <= same


def test_every_field_is_documented():
    for section in (configs.Config, configs.Data, configs.Model, configs.Optim, configs.Train):
        undocumented = [f.name for f in dataclasses.fields(section) if f"{f.name}:" not in section.__doc__]
        assert not undocumented, section
