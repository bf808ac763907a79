import dataclasses
import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mtl_jax import experiment, models, optim, protocol, registry
from mtl_jax.config import Config, Data, Model, Optim, Train
from mtl_jax.data.augmentation import get_recipe
from mtl_jax.outputs import Outputs
from tests import tiny
from tests.marks import slow


@pytest.fixture(autouse=True)
def _tiny_backbones(monkeypatch):
    tiny.register_backbones(monkeypatch)


def losses(config, tasks, intermediate=()):
    """The losses of zeros, final and intermediate predictions, where every label is 1."""
    labels = dict.fromkeys(("edge", "depth"), jnp.ones((1, 2, 2, 1)))
    zeros = jnp.zeros((1, 2, 2, 1))
    outputs = Outputs(dict.fromkeys(tasks, zeros), {"deepsup": dict.fromkeys(intermediate, zeros)})
    return experiment.make(config).objective(outputs, labels)


def test_a_task_on_its_own_has_the_weight_1():
    total, parts = losses(Config(Data("nyud", ("edge",))), ["edge"])
    assert total == parts["edge"] > 0


def test_several_tasks_have_the_weights_of_the_table():
    total, parts = losses(Config(Data("nyud", ("depth", "edge"))), ["edge", "depth"])
    assert float(total) == pytest.approx(50 * parts["edge"] + 1 * parts["depth"])


def test_an_auxiliary_task_makes_several():
    total, parts = losses(Config(Data("nyud", ("edge",), ("edge", "depth"))), ["edge"], ["edge", "depth"])
    expected = 50 * (parts["edge"] + parts["deepsup_edge"]) + parts["deepsup_depth"]
    assert float(total) == pytest.approx(float(expected))


def test_a_configuration_names_losses_and_weights():
    data = Data("nyud", ("depth", "edge"))
    plain, _ = losses(Config(data), ["edge", "depth"])
    config = Config(data, losses={"edge": "balanced_cross_entropy"}, loss_weights={"depth": 3.0, "edge": 0.5})
    total, parts = losses(config, ["edge", "depth"])
    assert float(total) == pytest.approx(0.5 * parts["edge"] + 3 * parts["depth"])
    assert experiment.make(config).objective.losses["edge"] == "balanced_cross_entropy"
    assert experiment.make(Config(data)).objective.losses["edge"] == "edge_cross_entropy"
    assert float(total) != pytest.approx(float(plain))
    total, parts = losses(Config(Data("nyud", ("edge",)), loss_weights={"edge": 0.5}), ["edge"])
    assert float(total) == pytest.approx(0.5 * float(parts["edge"]))


def test_an_experiment_is_a_copy_of_its_configuration():
    config = Config(Data("nyud", ("depth", "semseg"), release="survey"))
    run = experiment.make(config)
    config.data.release = "astmt"
    assert run.builder_name == "nyud_mt/survey"
    assert run.recipe == get_recipe("survey")
    assert run.main_tasks == run.aux_tasks == run.all_tasks == ("semseg", "depth")
    assert run.channels == {"semseg": 40, "depth": 1}
    assert run.image_size == (480, 640)
    assert run.protocol_description["data"] == "nyud_mt/survey"
    assert experiment.make(run) is run
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.config = config


def test_the_augmentation_is_chosen_by_itself():
    run = experiment.make(Config(Data("nyud", ("depth",), release="survey", augmentation="none")))
    assert run.builder_name == "nyud_mt/survey"
    assert run.recipe == get_recipe("none")


def test_the_older_name_of_the_release_still_works():
    config = Config(Data("nyud", ("depth",), protocol="survey"))
    for changed in (experiment.resolve(config), experiment.make(config).config):
        assert (changed.data.release, changed.data.protocol) == ("survey", "")


EXTENSION = """
from mtl_jax import optim, protocol

optim.register_schedule("flat", lambda lr, epochs, **_: optim.constant(lr))
protocol.register(protocol.Protocol("of_an_extension", "pixel", "mIoU", protocol.EdgeRule("bsds_bench")))
"""


def test_extensions_are_loaded_before_names_are_looked_up(tmp_path, monkeypatch):
    (tmp_path / "extension_of_a_test.py").write_text(EXTENSION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_extensions", list(registry.extensions()))  # later worker processes do not find it
    config = Config(Data("nyud", ("depth",)), optim=Optim(schedule="flat", lr=1e-2))
    config.train.eval_protocol, config.imports = "of_an_extension", ("extension_of_a_test",)
    try:
        run = experiment.make(experiment.resolve(config))
        assert float(run.learning_rate(5)(7)) == pytest.approx(1e-2)
        assert run.protocol_description["edge"] == "bsds_bench, maxDist 0.0075, all images"
        experiment.store_config(run.config, tmp_path / "run")
        assert experiment.load_config(tmp_path / "run").imports == ("extension_of_a_test",)
        assert experiment.differences(run.config, tmp_path / "run") == ""
    finally:
        del optim.SCHEDULES["flat"], protocol.PROTOCOLS["of_an_extension"]
    config.imports = ("no_such_module_anywhere",)
    with pytest.raises(ValueError, match="no_such_module_anywhere"):
        experiment.resolve(config)


@pytest.mark.parametrize(("name", "fusion"), [slow("cross_stitch", "cross_stitch"), ("nddr_cnn", "nddr")])
def test_fusions_learn_at_their_own_rate(name, fusion):
    """One step of sgd against a gradient of ones: every parameter moves by lr, those of the fusion 100 times as far."""

    def displacement(multiplier):
        config = Config(
            Data("nyud", ("semseg", "depth")),
            Model(name, "tiny"),
            Optim("sgd", lr=1e-3, weight_decay=0.0, schedule="constant", fusion_lr_multiplier=multiplier),
            Train(epochs=1),
        )
        model = models.build(config)
        before = nnx.to_flat_state(jax.tree.map(jnp.copy, nnx.state(model, nnx.Param)))
        optimizer = nnx.Optimizer(model, experiment.make(config).optimizer(steps_per_epoch=1), wrt=nnx.Param)
        optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
        after = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
        return {path: np.asarray(value[...] - after[path][...]) for path, value in before}

    one, hundred = displacement(1.0), displacement(100.0)
    assert {path[0] for path in one} == {"backbone", "heads", fusion}
    for path, moved in one.items():
        np.testing.assert_allclose(moved, 1e-3, atol=2e-7, err_msg=str(path))  # rounding of weights of size 1
        factor = 100 if path[0] == fusion else 1
        np.testing.assert_allclose(hundred[path], factor * 1e-3, atol=2e-7, err_msg=str(path))


@pytest.mark.parametrize(
    ("dataset", "builder", "border"),
    [
        ("nyud", "", "zero"),
        ("pascal", "", "zero"),
        ("nyud", "rendered_scenes/nyud_tiny", "ignore"),
        ("pascal", "rendered_scenes/pascal_small", "ignore"),
        ("folder", "folder_mt/own", "ignore"),
    ],
)
def test_published_data_have_the_published_border(dataset, builder, border, tmp_path):
    """The experiment says it, and so does its work directory: a run that has it from there continues."""
    data = Data(dataset, ("normals",), builder=builder, image_size=(64, 64))
    config = Config(data)
    run = experiment.make(config)
    assert config.data.border == ""
    assert run.config.data.border == border
    experiment.store_config(run.config, tmp_path)
    assert f'"border": "{border}"' in (tmp_path / "config.json").read_text()
    assert experiment.differences(config, tmp_path) == ""
    other = {"zero": "ignore", "ignore": "zero"}[border]
    changed = Config(dataclasses.replace(data, border=other))
    assert experiment.make(changed).config.data.border == other
    assert experiment.differences(changed, tmp_path) == f"data.border: '{border}' there, '{other}' now"


def test_lists_of_a_recipe_are_no_change(tmp_path):
    def config(frozen):
        return Config(Data("nyud", ["semseg", "depth"]), Model("baseline", "tiny"), Optim(freeze=[frozen]))

    experiment.store_config(experiment.make(config("backbone")).config, tmp_path)
    assert experiment.differences(config("backbone"), tmp_path) == ""
    expected = "optim.freeze: ('backbone',) there, ('heads',) now"
    assert experiment.differences(config("heads"), tmp_path) == expected


@pytest.fixture
def stored(tmp_path):
    """A work directory with a configuration, which has numbers, texts and lists."""
    config = Config(Data("nyud", ("semseg", "depth"), image_size=(96, 128)), optim=Optim(lr=1e-3))
    config.loss_weights = {"depth": 2.0}
    experiment.store_config(experiment.make(config).config, tmp_path)
    return tmp_path


def test_no_flipped_bit_of_a_stored_configuration_is_silent(stored):
    """What is read in spite of a flipped bit, in a space between two fields for example, is the same."""
    path = stored / experiment.CONFIG
    content, config = path.read_bytes(), experiment.load_config(stored)
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert experiment.load_config(stored) == config
        except ValueError as error:
            refused += 1
            if str(path) not in str(error):
                raise
    assert refused > 150


def test_an_edited_configuration_says_how_it_is_accepted(stored):
    path = stored / experiment.CONFIG
    content = json.loads(path.read_text())
    content["optim"]["lr"] = 0.021
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config\.json has changed .* on purpose, delete the field 'sha256'; else"):
        experiment.load_config(stored)
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert experiment.load_config(stored).optim.lr == 0.021


def test_a_stored_configuration_may_be_formatted_anew(stored):
    path = stored / experiment.CONFIG
    config = experiment.load_config(stored)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert experiment.load_config(stored) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, as after a power cut"),
        (bytes(700), "is filled with zeros, as after a power cut"),
        (b'{"data": {"data', "is no JSON: Unterminated string"),
        (b'{"data": "\xff"}', "is no JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "is no JSON: maximum recursion depth"),
        (b"3", "the file holds 3 in place of fields"),
    ],
)
def test_a_damaged_configuration_names_its_file(stored, content, message, caplog):
    path = stored / experiment.CONFIG
    config = experiment.load_config(stored)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} .*{message}"):
        experiment.check_continues(config, stored)
    experiment.check_continues(config, stored, allow_change=True)
    assert f"it is not compared with that of the run, because: {path}" in caplog.text
    experiment.store_config(config, stored)
    assert experiment.load_config(stored) == config


def steps_of_ones(config):
    """{path: the first step of a parameter}, where all parameters and gradients are 1."""
    model = nnx.eval_shape(lambda: models.build(config))
    shapes = jax.tree.leaves_with_path(nnx.as_pure(nnx.state(model, nnx.Param)))
    ones = {jax.tree_util.keystr(path, simple=True, separator="."): np.ones(x.shape, np.float32) for path, x in shapes}
    nested = {}
    for path, x in ones.items():
        *above, name = path.split(".")
        part = nested
        for each in above:
            part = part.setdefault(each, {})
        part[name] = x
    tx = experiment.make(config).optimizer(steps_per_epoch=1)
    updates, _ = tx.update(nested, tx.init(nested), nested)
    leaves = jax.tree.leaves_with_path(updates)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.unique(x).item() for path, x in leaves}


def test_the_optimiser_has_what_the_configuration_says():
    """Adam's first step has the length of the learning rate, up to roundings; the decay of kernels comes on top."""
    config = tiny.config("")
    config.optim = Optim(
        "adamw", lr=0.1, weight_decay=0.5, layer_decay=0.5, multipliers={"heads": 2.0, "backbone.stem": 3.0}
    )
    steps = steps_of_ones(config)
    assert steps["backbone.stem.kernel"] == pytest.approx(-0.1 * 1.5 * 3 * 0.5**3, rel=1e-4)
    assert steps["backbone.convs.0.kernel"] == pytest.approx(-0.1 * 1.5 * 0.5**2, rel=1e-4)
    assert steps["backbone.convs.1.kernel"] == pytest.approx(-0.1 * 1.5 * 0.5, rel=1e-4)
    heads = {path: step for path, step in steps.items() if path.startswith("decoder.")}
    for path, step in heads.items():
        assert step == pytest.approx(-0.1 * 2 * (1.5 if path.endswith("kernel") else 1.0), rel=1e-4), path
    assert any(path.endswith("bias") for path in heads)
    config.optim = Optim("sgd", lr=0.1, weight_decay=0.5, weight_decay_on="kernels", clip_norm=0.01)
    clipped = steps_of_ones(config)
    number = models.count_parameters(nnx.eval_shape(lambda: models.build(config)))
    for path, step in clipped.items():
        decay = 0.5 if path.endswith("kernel") else 0
        assert step == pytest.approx(-0.1 * (0.01 / np.sqrt(number) + decay), rel=1e-4), path


@pytest.mark.parametrize("coupled", [False, True])
def test_a_registered_optimiser_tells_position_embeddings_from_kernels(monkeypatch, coupled):
    """Also if its weight decay does not."""
    monkeypatch.setattr(tiny.TinyBackbone, "no_weight_decay", ("stem.kernel",))
    config = tiny.config("")
    config.optim = Optim("orthogonal", weight_decay_on="all")
    optim.register_optimizer("orthogonal", coupled=coupled)(lambda parts, options: optax.identity())
    try:
        assert experiment.make(config).parameter_groups == ({}, {"backbone.stem.kernel"})
    finally:
        del optim.OPTIMIZERS["orthogonal"]


def test_fusions_learn_at_their_multiplier_and_may_be_named():
    config = Config(Data("nyud", ("semseg", "depth")), Model("cross_stitch", "tiny"))
    assert experiment.make(config).parameter_groups == ({"cross_stitch": 100.0}, frozenset())
    config.optim.multipliers = {"backbone": 0.1, "cross_stitch": 7.0}
    factors, _ = experiment.make(config).parameter_groups
    assert {path.split(".")[0]: factor for path, factor in factors.items()} == {"backbone": 0.1, "cross_stitch": 7.0}
