"""The weights a model starts from. Single-task models are written, not trained, by `create_workdir`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import backbones, experiment, models, weights
from mtl_jax.inference.restored import Restored
from mtl_jax.train import initial_weights, restore
from mtl_jax.train.checkpoint import Checkpoints, SaveError
from mtl_jax.train.checkpoint_parts import Evaluation
from mtl_jax.train.loop import fit
from tests import tiny
from tests.train import runs

TASKS = ("normals", "depth")


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)


def multi_task(tmp_path, **model):
    """A configuration of a model that consists of single-task models."""
    config = tiny.config(tmp_path)
    config.data.tasks, config.model.name = TASKS, "cross_stitch"
    for name, value in model.items():
        if name in ("init_single_task", "single_task"):
            config.model.options[name] = value
        else:
            setattr(config.model, name, value)
    return config


def single(tmp_path, task, seed=1):
    """(configuration, weights) of a single-task model."""
    config = tiny.config(tmp_path, seed=seed)
    config.data.tasks = (task,)
    return config, weights.to_torch(models.build(config))


def pretrained(tmp_path):
    """A file with weights of the backbone, and those weights."""
    _, arrays = single(tmp_path, "depth", seed=2)
    arrays = {k.removeprefix("backbone."): v for k, v in arrays.items() if k.startswith("backbone.")}
    weights.write_arrays(tmp_path / "backbone.npz", arrays | {"fc.weight": np.zeros((2, 3))})
    return str(tmp_path / "backbone.npz"), arrays


def assert_starts_from(model, singles, config):
    """Both networks are the single-task ones, and what is between them has its initial values."""
    found, fresh = weights.to_torch(model), weights.to_torch(models.build(config))
    places = {f"backbone.{task}.": (task, "backbone.") for task in TASKS}
    places |= {f"heads.{task}.": (task, "decoder.") for task in TASKS}
    for key, value in found.items():
        for place, (task, part) in places.items():
            if key.startswith(place):
                np.testing.assert_array_equal(value, singles[task][part + key.removeprefix(place)], err_msg=key)
                break
        else:
            assert key.startswith(f"{model.fusion}.")
            np.testing.assert_array_equal(value, fresh[key], err_msg=key)


def test_without_a_wish_the_weights_are_random(tmp_path):
    config = multi_task(tmp_path, init_single_task=False)
    initial_weights.check(config)
    built, fresh = weights.to_torch(initial_weights.build_model(config)), weights.to_torch(models.build(config))
    for key, value in fresh.items():
        np.testing.assert_array_equal(built[key], value, err_msg=key)


def test_pretrained_weights_fill_every_backbone(tmp_path):
    source, arrays = pretrained(tmp_path)
    config = multi_task(tmp_path, init_single_task=False, pretrained=source)
    initial_weights.check(config)
    model = initial_weights.build_model(config)
    for backbone in model.backbones():
        for key, value in weights.to_torch(backbone).items():
            np.testing.assert_array_equal(value, arrays[key], err_msg=key)
    np.testing.assert_array_equal(
        *(weights.to_torch(m)["heads.depth.last_layer.0.weight"] for m in (model, models.build(config)))
    )


def test_a_whole_model_is_no_backbone(tmp_path):
    weights.write_arrays(tmp_path / "model.npz", single(tmp_path, "depth")[1])
    config = multi_task(tmp_path, init_single_task=False, pretrained=str(tmp_path / "model.npz"))
    with pytest.raises(ValueError, match=r"model\.npz holds a whole model, not a backbone"):
        initial_weights.check(config)


@pytest.mark.parametrize("prefix", ["backbone.", "module._orig_mod.encoder.", "model.backbone."])
def test_a_prefix_before_the_backbone_is_removed(tmp_path, caplog, prefix):
    caplog.set_level("INFO", "mtl_jax")
    source, arrays = pretrained(tmp_path)
    foreign = {f"{prefix}{name}": value for name, value in arrays.items()} | {f"{prefix}fc.weight": np.zeros(2)}
    weights.write_arrays(source, foreign | {"projector.0.weight": np.zeros(3)})
    config = multi_task(tmp_path, init_single_task=False, pretrained=source)
    initial_weights.check(config)
    for backbone in initial_weights.build_model(config).backbones():
        for key, value in weights.to_torch(backbone).items():
            np.testing.assert_array_equal(value, arrays[key], err_msg=key)
    assert f"removes the prefix {prefix} from {len(arrays) + 1} names" in caplog.text
    assert "leaves out 1 arrays without it: projector.0.weight" in caplog.text


def test_a_prefix_can_be_named(tmp_path):
    source, arrays = pretrained(tmp_path)
    other = {name: value + 1 for name, value in arrays.items()}
    both = {f"{part}.{name}": value for part, each in (("q", arrays), ("k", other)) for name, value in each.items()}
    weights.write_arrays(source, both)
    config = multi_task(tmp_path, init_single_task=False, pretrained=source)
    with pytest.raises(ValueError, match="unmatched: q"):
        initial_weights.check(config)
    config.model.pretrained_prefix = "k."
    loaded = weights.to_torch(initial_weights.build_model(config).backbones()[0])
    for name, value in other.items():
        np.testing.assert_array_equal(loaded[name], value, err_msg=name)


def test_the_backbone_of_a_whole_model_can_be_named(tmp_path):
    arrays = {f"module.model.{name}": value for name, value in single(tmp_path, "depth")[1].items()}
    weights.write_arrays(tmp_path / "model.npz", arrays)
    config = multi_task(tmp_path, init_single_task=False, pretrained=str(tmp_path / "model.npz"))
    with pytest.raises(ValueError, match=r"holds a whole model, .*pretrained_prefix=backbone\."):
        initial_weights.check(config)
    config.model.pretrained_prefix = "model.backbone."
    initial_weights.check(config)


def test_an_entry_of_a_checkpoint_can_be_named(tmp_path):
    torch = pytest.importorskip("torch", reason="writing torch files needs torch", exc_type=ModuleNotFoundError)
    _, arrays = pretrained(tmp_path)
    state = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    averaged = {name: value + 1 for name, value in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged, "best": np.float64(0.5)}, tmp_path / "x.ckpt")
    config = multi_task(tmp_path, init_single_task=False, pretrained=str(tmp_path / "x.ckpt"))
    for entry, wanted in (("", state), ("state_dict_ema", averaged)):
        config.model.pretrained_entry = entry
        loaded = weights.to_torch(initial_weights.build_model(config).backbones()[0])
        for name, value in wanted.items():
            np.testing.assert_array_equal(loaded[name], value.numpy(), err_msg=name)


def test_a_prefix_before_a_single_task_model_is_removed(tmp_path):
    singles = {}
    for seed, task in enumerate(TASKS):
        config, singles[task] = single(tmp_path, task, seed + 1)
        arrays = {f"model.{name}": value for name, value in singles[task].items()}
        weights.write_arrays(tmp_path / f"{task}.npz", arrays)
    config = multi_task(tmp_path, single_task=f"{tmp_path}/{{task}}.npz")
    initial_weights.check(config)
    assert_starts_from(initial_weights.build_model(config), singles, config)


def test_one_image_is_too_little_for_deeplab(tmp_path):
    config = multi_task(tmp_path, init_single_task=False, head="deeplab")
    initial_weights.check(config)
    for config.train.batch_size, config.train.accumulate in ((1, 1), (4, 4)):
        with pytest.raises(ValueError, match="cannot train on a global batch of one image"):
            initial_weights.check(config)


def test_pretrained_weights_that_do_not_fit_are_found_early(tmp_path):
    source, arrays = pretrained(tmp_path)
    weights.write_arrays(source, arrays | {"stem.weight": np.zeros((3, 3, 5, 5))})
    config = multi_task(tmp_path, init_single_task=False, pretrained=source)
    with pytest.raises(ValueError, match=r"backbone\.npz: the weights do not fit TinyBackbone .*\n.*stem\.weight"):
        initial_weights.check(config)


@pytest.mark.parametrize(
    ("name", "kind"), [("cross_stitch", "workdir"), ("cross_stitch", ".safetensors"), ("nddr_cnn", "workdir")]
)
def test_single_task_models(tmp_path, name, kind):
    singles = {}
    for seed, task in enumerate(TASKS):
        config, singles[task] = single(tmp_path, task, seed + 1)
        if kind == "workdir":
            initial_weights.create_workdir(config, tmp_path / f"single_{task}", singles[task])
        else:
            weights.write_arrays(tmp_path / f"single_{task}.safetensors", singles[task])
    pattern = f"{tmp_path}/single_{{task}}{'' if kind == 'workdir' else kind}"
    # The pretrained file does not exist, and is not needed.
    config = multi_task(tmp_path, name=name, single_task=pattern, pretrained=str(tmp_path / "none.npz"))
    initial_weights.check(config)
    assert_starts_from(initial_weights.build_model(config), singles, config)


def test_the_best_checkpoint_is_taken(tmp_path):
    singles = {}
    for task in TASKS:
        config, _ = single(tmp_path, task)
        initial_weights.create_workdir(config, tmp_path / task, single(tmp_path, task)[1])
        state = restore.load(config, tmp_path / task, "latest").state
        checkpoints = Checkpoints(tmp_path / task)
        for step, score in ((1, 0.9), (2, 0.1)):
            arrays = jax.tree.map(lambda x, step=step: x + step if x.dtype == jnp.float32 else x, state.arrays)
            checkpoints.save(step, arrays, initial_weights.PROGRESS)
            checkpoints.add_evaluation(step, Evaluation(score))
        checkpoints.close()
        singles[task] = {key: value + np.float32(1) for key, value in weights.to_torch(state.model()).items()}
    config = multi_task(tmp_path, single_task=f"{tmp_path}/{{task}}")
    assert_starts_from(initial_weights.build_model(config), singles, config)


def test_every_missing_single_task_model_is_named(tmp_path):
    config, arrays = single(tmp_path, "depth")
    (tmp_path / "single_normals").mkdir()  # begun, but without a checkpoint
    config = multi_task(tmp_path, single_task=f"{tmp_path}/single_{{task}}")
    with pytest.raises(FileNotFoundError) as error:
        initial_weights.check(config)
    for task in TASKS:
        path = f"{tmp_path}/single_{task}"
        command = f"mtl train nyud_single:task={task},backbone=tiny --workdir {path}"
        assert f"\n  {path}: {command}" in str(error.value)
    assert "--model.options.init_single_task=False" in str(error.value)
    initial_weights.create_workdir(single(tmp_path, "depth")[0], tmp_path / "single_depth", arrays)
    with pytest.raises(FileNotFoundError) as error:
        initial_weights.check(config)
    assert "single_depth" not in str(error.value)


def test_the_commands_for_missing_models_name_the_heads(tmp_path):
    config = multi_task(tmp_path, single_task=f"{tmp_path}/{{task}}")
    config.model.heads, config.model.regression = {"normals": "deeplab"}, {"depth": "relu"}
    with pytest.raises(FileNotFoundError) as error:
        initial_weights.check(config)
    options = [line.rpartition(" ")[2] for line in str(error.value).splitlines()[1:]]
    assert options == ["--model.heads.normals=deeplab", "--model.regression.depth=relu"]


@pytest.mark.parametrize("pattern", ["", "runs/single"])
def test_the_pattern_needs_a_place_for_the_task(tmp_path, pattern):
    with pytest.raises(
        ValueError, match=rf"model\.options\.single_task is '{pattern}'; .*with {{task}} where they differ"
    ):
        initial_weights.check(multi_task(tmp_path, single_task=pattern))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c.data, "tasks", ("normals",)), r"data\.tasks is \('normals',\), not \('depth',\)"),
        (lambda c: setattr(c.model, "name", "baseline"), r"model\.name is 'baseline', not 'single_task'"),
        (lambda c: setattr(c.data, "release", "survey"), r"data\.release is 'survey', not 'astmt'"),
        (
            lambda c: setattr(c.data, "builder", ""),
            "the tfds builder is 'nyud_mt/astmt', not 'rendered_scenes/nyud_tiny'",
        ),
    ],
)
def test_runs_of_other_models_are_refused(tmp_path, change, message):
    for task in TASKS:
        config, _ = single(tmp_path, task)
        if task == "depth":
            change(config)
        initial_weights.create_workdir(config, tmp_path / task, weights.to_torch(models.build(config)))
    with pytest.raises(
        ValueError, match=rf"depth is no run of the single-task model that depth starts from: .*{message}"
    ):
        initial_weights.check(multi_task(tmp_path, single_task=f"{tmp_path}/{{task}}"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays | {"extra": np.zeros(2)}, r"depth\.npz is no single-task model: .* holds extra"),
        (
            lambda arrays: arrays | {"decoder.last_layer.3.bias": np.zeros(40)},
            r"depth\.npz, decoder: .*\n.*last_layer\.3\.bias is \(40,\), the model has \(1,\)",
        ),
        (
            lambda arrays: {k: v for k, v in arrays.items() if k != "backbone.stem.weight"},
            r"depth\.npz, backbone: .*\n.*unfilled: stem\.weight",
        ),
    ],
)
def test_files_of_other_models_are_refused(tmp_path, change, message):
    for task in TASKS:
        arrays = single(tmp_path, task)[1]
        weights.write_arrays(tmp_path / f"{task}.npz", change(arrays) if task == "depth" else arrays)
    with pytest.raises(ValueError, match=message):
        initial_weights.check(multi_task(tmp_path, single_task=f"{tmp_path}/{{task}}.npz"))


def test_training_starts_from_a_created_workdir(tmp_path, data_dir):
    """It ends where a run that began with the same weights by itself ends, and prediction reads it before that."""
    config = tiny.config(data_dir, epochs=1)
    arrays = weights.to_torch(initial_weights.build_model(config))
    initial_weights.create_workdir(config, tmp_path / "created", arrays)
    run = Restored(experiment.load_config(tmp_path / "created"), tmp_path / "created", "best")
    assert run.step == 0
    source = run.experiment.open_split("val", run.tasks)
    assert len(list(run.predict_split(source))) == len(source)

    fit(config, tmp_path / "created")
    fit(config, tmp_path / "straight")
    created, straight = (runs.arrays(tmp_path / name, "3")[1] for name in ("created", "straight"))
    jax.tree.map(np.testing.assert_array_equal, created, straight)


def test_a_workdir_is_created_whole_or_not_at_all(tmp_path):
    config, arrays = single(tmp_path, "depth")
    with pytest.raises(ValueError, match="unfilled: backbone"):
        initial_weights.create_workdir(
            config, tmp_path / "run", {k: v for k, v in arrays.items() if "backbone" not in k}
        )
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(FileExistsError, match="run exists already"):
        initial_weights.create_workdir(config, tmp_path / "run", arrays)


def test_a_work_directory_that_cannot_be_written_does_not_stay(tmp_path, monkeypatch):
    config, arrays = single(tmp_path, "depth")

    def fail(*arguments):
        raise SaveError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", fail)
        with pytest.raises(SaveError):
            initial_weights.create_workdir(config, tmp_path / "run", arrays)
    assert not (tmp_path / "run").exists()
    initial_weights.create_workdir(config, tmp_path / "run", arrays)
