"""The command `mtl`: names of commands, recipes and options, configurations on the command line, help."""

import argparse
import importlib
import subprocess
import sys
import zipfile

import pytest

from mtl_jax import cli, commands, config_help, config_overrides, field_values, recipes
from mtl_jax.config import Config
from tests import scripts


def mtl(capsys, *args):
    """Returns (exit status, output, errors) of a command that fails before it sets anything up, or prints help."""
    with scripts.restored():
        try:
            commands.main(args)
            status = 0
        except SystemExit as end:
            status = end.code
    return status, *capsys.readouterr()


def test_the_overview_names_every_command_and_needs_no_jax():
    code = "import sys; from mtl_jax import commands; commands.main(['--help']); assert 'jax' not in sys.modules"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    for name in commands.COMMANDS:
        (line,) = [line for line in process.stdout.splitlines() if line.startswith(f"  {name} ")]
        assert line.endswith(".")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "no command 'trian'; did you mean mtl train?"),
        (["list", "modles"], "did you mean models?"),
        (["data"], "did you mean mtl data build or mtl data show?"),
        (["data", "bild"], "did you mean mtl data build"),
        (["xyz"], "no command 'xyz'; The commands are train, evaluate"),
    ],
)
def test_unknown_commands(capsys, args, message):
    status, out, errors = mtl(capsys, *args)
    assert (status, out) == (2, "")
    assert message in errors


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--workdir=x"], 2, "the recipe is missing: give a name of `mtl list recipes`"),
        (["--optim.lr=1", "--workdir=x"], 2, "the recipe is missing"),
        (["nyud_mtinett", "--workdir=x"], 1, "no recipe 'nyud_mtinett' and no such file. Did you mean nyud_mtinet"),
        (["demo", "--config=demo", "--workdir=x"], 2, "given twice, as demo and as --config demo"),
        (["demo", "--wrokdir=x"], 2, "the following arguments are required: --workdir"),
        (["demo", "--workdir=x", "--single_tsk=y"], 2, "did you mean --single_task?"),
        (["demo", "--workdir=x", "--num_processes=0"], 2, "'0' is not a whole number of at least 1"),
        (["demo", "--workdir=x", "--find_lr", "--find_lr_steps=5"], 2, "'5' is not a whole number of at least 13"),
        (["demo", "--workdir=x", "--optim.lr=fast"], 2, "--optim.lr is 'fast'; expected a finite number"),
        (["demo", "--workdir=x", "--config.optim.lr=nan"], 2, "--config.optim.lr is 'nan'; expected a finite number"),
        (["demo", "--workdir=x", "--optim.lr"], 2, "--optim.lr has no value; write --optim.lr=VALUE"),
        (["demo", "--workdir=x", "--model.bakbone=a"], 2, "no field model.bakbone; the nearest are model.backbone"),
        (["nyud_mtinet:auxx=edge", "--workdir=x"], 1, "'auxx=edge' is not one of this recipe's (aux=, "),
        (["folder:tasks=semseg,depth", "--workdir=x"], 1, "to give several values, write tasks=semseg+depth"),
    ],
)
def test_what_training_refuses(tmp_path, monkeypatch, args, status, message):
    monkeypatch.chdir(tmp_path)
    process = scripts.run("train", *args)
    assert process.returncode == status, process.stderr
    assert message in " ".join(process.stderr.split())
    assert not list(tmp_path.iterdir())


TRAIN, EVALUATE, PREDICT = ("train", "demo", "--workdir=x"), ("evaluate",), ("predict", "--workdir=x")
IMAGES, LABELS = (*PREDICT, "--images=x", "--out=y"), (*PREDICT, "--split=train", "--save_labels=y")
SHOW = ("show_data", "demo", "--out=sheet.png")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((*TRAIN, "--find_lr_steps=100"), "--find_lr_steps has no effect without --find_lr; leave --find_lr_steps out"),
        ((*TRAIN, "--no-find_lr", "--find_lr_min=1e-6"), "--find_lr_min has no effect without --find_lr"),
        ((*TRAIN, "--find_lr_max=0"), "--find_lr_max has no effect without --find_lr"),
        ((*TRAIN, "--find_lr", "--profile=10:20"), "--profile has no effect with --find_lr; leave one of them out"),
        ((*TRAIN, "--find_lr", "--single_task=x"), "--single_task has no effect with --find_lr"),
        ((*TRAIN, "--find_lr", "--allow_config_change"), "--allow_config_change has no effect with --find_lr"),
        ((*EVALUATE, "--predictions=x", "--step=3"), "--step has no effect without --workdir"),
        ((*EVALUATE, "--predictions=x", "--batch_size=0"), "--batch_size has no effect without --workdir"),
        ((*EVALUATE, "--predictions=x", "--weights=ema"), "--weights has no effect without --workdir"),
        ((*EVALUATE, "--workdir=x", "--tasks=edge"), "--tasks has no effect without --predictions"),
        ((*IMAGES, "--overlap=0.5"), "--overlap has no effect without --window"),
        ((*IMAGES, "--errors"), "--errors has no effect without --split"),
        ((*IMAGES, "--frames_per_second=5"), "--frames_per_second has no effect without --video"),
        ((*IMAGES, "--data_dir=x"), "--data_dir has no effect without --split or --save_labels"),
        ((*IMAGES, "--fill"), "--fill has no effect without --save_labels"),
        ((*IMAGES, "--save_labels_confidence=0"), "--save_labels_confidence has no effect without --save_labels"),
        ((*IMAGES, "--no_panels", "--style=map"), "--style has no effect with --no_panels"),
        ((*IMAGES, "--no_panels", "--long_side=80"), "--long_side has no effect with --no_panels"),
        ((*PREDICT, "--images=x", "--save_labels=y", "--fill"), "--fill has no effect with --images"),
        ((*LABELS, "--errors"), "--errors has no effect with --save_labels"),
        ((*PREDICT, "--video=x", "--save_labels=y"), "--save_labels has no effect without --images or --split"),
        (("report", "x", "--gallery=0"), "--gallery has no effect without --html"),
        (("report", "x", "--gallery_scored=0"), "--gallery_scored has no effect without --html"),
        ((*SHOW, "--seed=0"), "--seed has no effect without --augment"),
        ((*SHOW, "--ids=a", "--count=12"), "--count has no effect with --ids"),
        ((*SHOW, "--ids=a", "--start=0"), "--start has no effect with --ids"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    process = scripts.run(*args)
    assert process.returncode == 2, process.stderr
    said = " ".join(process.stderr.split())
    assert message in said
    assert "did you mean" not in said
    assert not list(tmp_path.iterdir())


def test_a_report_without_images_scores_none(tmp_path):
    process = scripts.run("report", tmp_path, f"--html={tmp_path / 'x.html'}", "--gallery=0", "--gallery_scored=5")
    assert process.returncode == 1
    assert "--gallery_scored has no effect with --gallery 0" in process.stderr


def test_options_that_may_have_no_effect_have_no_default():
    for name, module in commands.COMMANDS.items():
        parser = cli.Parser(f"mtl {name}", "")
        importlib.import_module(f"mtl_jax.commands.{module}").add_arguments(parser)
        options = {action.dest for action in parser._actions}
        for option, others in [*parser._needs.items(), *parser._excluded.items()]:
            assert {option, *others} <= options
            assert parser.get_default(option) in (None, False, "", [], ())


def parsed(*args):
    parser = cli.Parser("mtl test", "")
    parser.add_config()
    parser.add_argument("--out", default="")
    return parser.parse(args)


@pytest.mark.parametrize(
    "args",
    [
        ["nyud_mtinet:aux=edge", "--optim.lr=3e-4", "--data.image_size=64x96", "--model.remat=conv,heads"],
        ["--optim.lr", "3e-4", "--data.image_size=64,96", "--model.remat", "conv+heads", "nyud_mtinet:aux=edge"],
        [
            "--config=configs/nyud_mtinet.py:aux=edge",
            "--config.optim.lr=0.0003",
            "--config.data.image_size=(64, 96)",
            "--config.model.remat=('conv', 'heads')",
        ],
    ],
)
def test_all_forms_of_a_configuration_mean_the_same(args):
    config = parsed(*args, "--out=x").config
    wanted = recipes.load("nyud_mtinet:aux=edge")
    wanted.optim.lr, wanted.data.image_size, wanted.model.remat = 3e-4, (64, 96), ("conv", "heads")
    assert config == wanted


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", bool, True),
        ("False", bool, False),
        ("7", int, 7),
        ("1e-3", float, 1e-3),
        ("3", float, 3.0),
        ("", str, ""),
        ("(1)", str, "(1)"),
        ("", tuple[str, ...], ()),
        ("()", tuple[str, ...], ()),
        ("semseg", tuple[str, ...], ("semseg",)),
        ("max", tuple[str, ...], ("max",)),  # an x parts numbers alone
        ("[30, 60]", tuple[int, ...], (30, 60)),
        ("{'depth': 'depth_l1'}", dict[str, str], {"depth": "depth_l1"}),
    ],
)
def test_values(text, kind, value):
    read = field_values.parse(text, kind)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2", bool),
        ("1.5", int),
        ("inf", float),
        ("1,2,3", tuple[int, int]),
        ("a,b", tuple[int, ...]),
        ("(1, 'a')", tuple[int, ...]),
        ("depth", dict[str, str]),
        ("(" * 10000, tuple[str, ...]),
    ],
)
def test_values_of_another_type(text, kind):
    with pytest.raises(ValueError, match="expected "):
        field_values.parse(text, kind)


def test_entries_of_dicts():
    config = parsed(
        "nyud_cross_stitch",
        "--losses.depth=depth_l1",
        "--losses.semseg=ce:smoothing=0.1,class_weights=measured+0.5*dice",
        "--loss_weights.depth=2",
        "--model.options.alpha=0.8",
        "--model.options.init_single_task=false",
        "--model.options.single_task=runs/{task}",
        "--optim.options.nesterov=true",
        "--optim.multipliers.heads=10",
        "--optim.multipliers.backbone.layer1=0.1",
    ).config
    assert config.losses == {"depth": "depth_l1", "semseg": "ce:smoothing=0.1,class_weights=measured+0.5*dice"}
    assert config.loss_weights == {"depth": 2.0}
    wanted = {"alpha": 0.8, "init_single_task": False, "single_task": "runs/{task}"}
    assert {name: config.model.options[name] for name in wanted} == wanted
    assert config.optim.options == {"nesterov": True}
    assert config.optim.multipliers == {"heads": 10.0, "backbone.layer1": 0.1}


def test_the_help_explains_every_field_with_the_values_of_the_recipe(capsys):
    status, out, _ = mtl(capsys, "train", "demo", "--help")
    assert status == 0
    for name, field, owner in config_overrides.fields():
        assert f"--{name}=" in out
        assert config_help.attributes(owner)[field.name]
    assert "--optim.lr=0.001\n" in out  # the recipe's own
    assert "--optim.lr=0.0001\n" in mtl(capsys, "train", "--help")[1]
    assert "Choices: survey, astmt, invpt." in " ".join(out.split()) or '"survey"' in out


def test_every_recipe_is_listed_and_loads(capsys):
    status, out, _ = mtl(capsys, "list", "recipes")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(recipes.shipped())
    assert all(isinstance(recipes.load(name), Config) for name in recipes.shipped())


@pytest.mark.parametrize("kind", ["models", "backbones", "tasks", "datasets", "balancing", "losses", "protocols"])
def test_names_are_listed(capsys, kind):
    status, out, _ = mtl(capsys, "list", kind)
    assert status == 0
    assert len(out.splitlines()) > 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "has no function get_config"),
        ("def get_config(arg): return {}", "get_config returns dict, expected mtl_jax.config.Config"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, content, message):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        recipes.load(str(path))
    assert str(path) in str(error.value)


def test_every_option_of_every_command_has_help():
    for name, module in commands.COMMANDS.items():
        parser = cli.Parser(f"mtl {name}", "")
        __import__(f"mtl_jax.commands.{module}")
        sys.modules[f"mtl_jax.commands.{module}"].add_arguments(parser)
        lost = [action.dest for action in parser._actions if not action.help or action.help == argparse.SUPPRESS]
        assert not lost, (name, lost)


def test_help_executes_no_file(capsys, tmp_path):
    """A file of weights is a zip archive, which Python would run."""
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", "raise AssertionError('executed')")
    assert mtl(capsys, "convert", str(path), "x.npz", "--help")[0] == 0
    status, _, errors = mtl(capsys, "train", str(path), "--workdir=x")
    assert status == 1
    assert "is no Python file" in errors
    assert mtl(capsys, "train", "--workdir=x", "--help")[0] == 0


def test_the_help_of_a_recipe_has_its_docstring(capsys):
    for args in (["demo", "--help"], ["--workdir=x", "--config", "demo", "--help"], ["--help", "--config=demo"]):
        out = mtl(capsys, "train", *args)[1]
        assert "recipe demo:\n\nA small MTI-Net" in out
        assert "--optim.lr=0.001\n" in out
        assert "here with the values of the recipe" in out
    assert "here with their defaults" in mtl(capsys, "train", "--help")[1]
    assert "`mtl train RECIPE --help` lists the fields" in mtl(capsys, "data", "show", "--help")[1]


def test_recipes_without_options_and_with_errors(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from mtl_jax.config import Config\ndef get_config():\n    return Config()")
    assert recipes.load(str(path)) == Config()
    path.write_text("import os\nos.environ['NOWHERE']\ndef get_config(arg=None):\n    pass")
    with pytest.raises(ValueError, match=r"mine\.py cannot be read: KeyError: 'NOWHERE'"):
        recipes.load(str(path))
    path.write_text("def get_config(arg=None):\n    return lost")
    with pytest.raises(ValueError, match=r"mine\.py cannot be read: NameError: name 'lost'"):
        recipes.load(str(path))


def test_true_and_false():
    assert parsed("demo", "--train.split_state", "--config.data.skip_corrupt").config.train.split_state
    assert not parsed("demo", "--train.split_state=false").config.train.split_state


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        (["--train.steps=400"], (0, 400)),
        (["--config.train.steps", "400"], (0, 400)),
        (["--train.steps=0"], (6, 0)),
        (["--train.epochs=3"], (3, 0)),
        (["--train.epochs=3", "--train.steps=400"], (3, 400)),  # the check of the configuration refuses it
    ],
)
def test_a_length_in_steps_takes_the_place_of_epochs(caplog, options, lengths):
    with caplog.at_level("INFO"):
        train = parsed("demo", *options).config.train
    assert (train.epochs, train.steps) == lengths
    replaced = "train.steps is given and takes the place of train.epochs, which was 6" in caplog.text
    assert replaced == (lengths == (0, 400))
