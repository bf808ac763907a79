"""What a run says: at its start, after an evaluation and at its end."""

import importlib
import logging
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from flax import nnx

from mtl_jax import cli, commands, experiment, models, weights
from mtl_jax.runtime import devices, processes
from mtl_jax.tasks import Criterion
from mtl_jax.train import banner, cadence, milestones
from mtl_jax.train.loop import fit
from mtl_jax.train.milestones import Milestones
from tests import tiny
from tests.processes import ROOT
from tests.train import runs

CRITERIA = {"semseg": Criterion("mIoU", higher_is_better=True), "depth": Criterion("rmse", higher_is_better=False)}


def results(miou, rmse):
    return {"semseg": {"mIoU": miou, "per_class_IoU": [miou]}, "depth": {"rmse": rmse}}


def test_the_best_so_far_is_marked():
    said = Milestones(CRITERIA)
    said.add(10, results(0.25, 0.5))
    assert said.table(10) == "semseg  mIoU 0.2500  * best so far\ndepth   rmse 0.5000  * best so far"
    said.add(20, results(0.24, 0.4))
    assert said.table(20) == (
        "semseg  mIoU 0.2400  best: 0.2500 at step 10; higher is better\ndepth   rmse 0.4000  * best so far"
    )
    said.add(30, results(0.25, float("nan")))  # as good as step 10
    assert said.table(30) == "semseg  mIoU 0.2500  * best so far\ndepth   rmse is not defined"
    assert said.scores(30) == "semseg mIoU 0.2500"
    assert said.scores(40) == ""


def test_a_run_that_continues_knows_its_earlier_evaluations():
    logged = [
        {"step": 10, "kind": "train", "semseg/mIoU": 9.0},
        {"step": 10, "kind": "eval", "semseg/mIoU": 0.5, "depth/rmse": 0.25, "depth/delta1": 0.9},
        {"step": 20, "kind": "eval", "semseg/mIoU": 0.75},
    ]
    said = Milestones(CRITERIA, logged)
    said.add(30, results(0.6, 0.3))
    assert said.table(30) == (
        "semseg  mIoU 0.6000  best: 0.7500 at step 20; higher is better\n"
        "depth   rmse 0.3000  best: 0.2500 at step 10; lower is better"
    )


def test_the_gain_ranks_checkpoints():
    assert milestones.gain_line(0.0123, 20, 20) == "mean gain of the tasks +1.23 %  * best checkpoint so far"
    assert milestones.gain_line(-0.5, 10, 20) == "mean gain of the tasks -50.00 %  best checkpoint: step 10"
    assert "is not ranked" in milestones.gain_line(None, 10, 20)


def test_the_next_commands_exist(tmp_path):
    """Each of them names a command and options that it has."""
    said = milestones.ending(tmp_path / "a run", 6, True, "depth rmse 0.5000")
    head, _, *listed = said.splitlines()
    assert head == f"the best checkpoint is {tmp_path / 'a run' / 'checkpoints' / '6'} (depth rmse 0.5000)"
    assert len(listed) == 3
    for command in listed:
        _, name, *options = shlex.split(command[command.index("mtl ") :])
        parser = cli.Parser(name, "")
        importlib.import_module(f"mtl_jax.commands.{commands.COMMANDS[name]}").add_arguments(parser)
        assert parser.parse(options).workdir == str(tmp_path / "a run")


def test_without_a_score_the_latest_checkpoint_is_named(tmp_path):
    said = milestones.ending(tmp_path, 6, False, "")
    assert said.startswith(f"no checkpoint has a score; the latest one is {tmp_path / 'checkpoints' / '6'}\n")


def row(message, name):
    (line,) = (line for line in message.splitlines() if line.startswith(f"{name} "))
    return line.removeprefix(name).strip()


def start(tmp_path, config, step=0, devices=1, *, restored=False):
    """What a run of 12 and 5 images says at its start."""
    run = experiment.make(config)
    labelled = {"train": dict.fromkeys(run.all_tasks, 12), "val": dict.fromkeys(run.all_tasks, 5)}
    model = nnx.eval_shape(lambda: models.build(run.config))
    images = {"train": 12, "val": 5}
    when = cadence.of_run(run, 12)
    facts = banner.Start(run, tmp_path / "run", model, images, labelled, devices, step, when, restored)
    return banner.text(facts, {"csv": f"{tmp_path / 'run' / 'csv'}/"})


def test_the_banner(tmp_path, monkeypatch):
    tiny.register_backbones(monkeypatch)
    monkeypatch.setattr(devices, "describe", lambda: "8 x NVIDIA H100 80GB HBM3")
    config = tiny.config(tmp_path, epochs=20, eval_final_epochs=5, accumulate=2)
    config.data.tasks, config.data.aux_tasks = ("semseg", "depth"), ("semseg", "depth", "normals")
    config.model.name = "pad_net"
    said = start(tmp_path, config, devices=2)
    assert row(said, "software").startswith("mtl_jax ")
    assert row(said, "devices") == "8 x NVIDIA H100 80GB HBM3"
    assert row(said, "model").startswith("pad_net on tiny, ")
    assert row(said, "model").endswith(" million parameters, 0.01 of them in the backbone; computes in float32")
    assert row(said, "weights") == "random"
    assert row(said, "data") == f"rendered_scenes/nyud_tiny in {tmp_path}"
    assert row(said, "images") == "train 12, val 5; resized to 64x64 (height x width)"
    assert row(said, "task semseg") == "loss softmax_cross_entropy x 1; labels: train 12, val 5"
    assert row(said, "task normals") == "loss normals_l1 x 10 (auxiliary); labels: train 12, val 5"
    assert row(said, "tasks") == "sum of the weighted losses"
    assert row(said, "batch") == (
        "4 images, 2 on each of 2 devices, batch norm takes each micro-batch of 2 images for a batch"
    )
    assert row(said, "steps") == "60: 20 epochs of 3 steps"
    assert row(said, "evaluation") == "after each of the last 5 epochs, by the protocol survey"
    assert row(said, "files") == f"{tmp_path / 'run'}: checkpoints/, log.jsonl"
    assert row(said, "log csv") == f"{tmp_path / 'run' / 'csv'}/"
    assert len({len(line) - len(line[12:].lstrip()) for line in said.splitlines()[1:]}) == 1  # the columns stand


def test_the_banner_of_a_balanced_run_that_continues(tmp_path, monkeypatch):
    tiny.register_backbones(monkeypatch)
    config = tiny.config(tmp_path, eval_final_epochs=1)
    config.data.tasks, config.model.name, config.balancing = ("semseg", "depth"), "baseline", "cagrad"
    said = start(tmp_path, config, step=3, restored=True)
    assert row(said, "weights") == "those of the checkpoint of step 3"
    assert row(said, "task depth") == "loss depth_l1; labels: train 12, val 5"
    assert row(said, "tasks") == "balanced by cagrad"
    assert row(said, "steps") == "6: 2 epochs of 3 steps; 3 are left"
    assert row(said, "evaluation") == "after the last epoch, by the protocol survey"


def test_the_banner_of_a_run_with_converted_weights(tmp_path, monkeypatch):
    """They lie in a checkpoint of step 0; what the configuration says of pretrained weights plays no part."""
    tiny.register_backbones(monkeypatch)
    config = tiny.config(tmp_path)
    config.model.pretrained = "imagenet.pth"
    assert row(start(tmp_path, config, restored=True), "weights") == "those of the checkpoint of step 0"
    assert row(start(tmp_path, config), "weights") == "backbone from imagenet.pth, else random"


def test_the_first_process_alone_says_how_a_run_starts(monkeypatch, caplog):
    monkeypatch.setattr(processes, "first", lambda: False)
    with caplog.at_level(logging.INFO, "mtl_jax"):
        banner.say(SimpleNamespace(), {})
    assert not caplog.messages


@pytest.fixture(scope="module")
def said(tmp_path_factory, data_dir):
    """(work directory, messages of a run, messages of the same command after its end)."""
    workdir = tmp_path_factory.mktemp("talk") / "run"
    config = tiny.config(data_dir, eval_final_epochs=0)
    config.data.tasks, config.model.name = ("semseg", "depth"), "baseline"
    with pytest.MonkeyPatch.context() as patch, runs.messages() as messages:
        tiny.register_backbones(patch)
        fit(config, workdir)
        first = messages.copy()
        messages.clear()
        fit(config, workdir)
    return workdir, first, messages


def test_what_is_said_between_start_and_end(said):
    _, messages, _ = said
    assert messages[0].startswith("training\nsoftware ")
    assert [message for message in messages if message.startswith("compiling")] == [
        "compiling the training step ...",
        "compiling the evaluation step ...",
    ]
    evaluations = [message for message in messages if message.startswith("evaluation of step")]
    assert [message.split()[3] for message in evaluations] == ["3", "6"]
    assert [line.split()[0] for line in evaluations[0].splitlines()] == ["evaluation", "semseg", "depth", "mean"]
    assert any(message.startswith("step 6/6, epoch 2/2, loss ") for message in messages)


def test_the_end(said):
    workdir, messages, again = said
    assert any(message.startswith("training has ended at step 6: 6 steps in 0:") for message in messages)
    assert messages[-1].startswith(f"the best checkpoint is {workdir / 'checkpoints'}/")
    assert "(semseg mIoU " in messages[-1]
    assert "training has ended at step 6: nothing was left to train" in again
    assert again[-1] == messages[-1]  # the scores come from the log


def test_a_checkpoint_is_read_without_a_word_of_other_libraries(said):
    """In a program that sets up no logging, which then shows every warning."""
    workdir, *_ = said
    code = f"from mtl_jax.train.checkpoint import Checkpoints; Checkpoints({str(workdir)!r}, read_only=True).close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == ""


def test_how_a_file_of_weights_is_read_is_said_once(tmp_path, data_dir, monkeypatch, caplog):
    tiny.register_backbones(monkeypatch)
    config = tiny.config(data_dir, epochs=1)
    arrays = weights.to_torch(models.build(config).backbone)
    weights.write_arrays(tmp_path / "backbone.npz", {f"encoder.{name}": value for name, value in arrays.items()})
    config.model.pretrained = str(tmp_path / "backbone.npz")
    with caplog.at_level(logging.INFO, "mtl_jax"):
        fit(config, tmp_path / "run")
    assert sum("removes the prefix encoder. from" in message for message in caplog.messages) == 1
