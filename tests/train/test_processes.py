"""Two processes on the loopback, over gloo, as one run."""

import shutil
import signal

import jax
import numpy as np
import pytest
from filelock import FileLock

from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.lock import LOCK
from mtl_jax.train.stop import EXIT_STATUS
from tests.train import runs


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    return runs.Run(data_dir, tmp_path_factory.mktemp("cache"))


# Adam would make much of the roundings of gradients that batch norm makes next to nothing.
SGD = ("--config.optim.name=sgd", "--config.optim.lr=0.01")


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
    """The work directory of one process with two devices."""
    workdir = tmp_path_factory.mktemp("alone")
    run(workdir, *SGD, devices=2)
    return workdir


@pytest.fixture(scope="module")
def together(run, alone, tmp_path_factory):
    """That of two processes with a device each."""
    workdir = tmp_path_factory.mktemp("together")
    for status, errors in run.finish(*run.start_together(workdir, *SGD)):
        assert status == 0, errors
    return workdir


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one(alone, together):
    expected, found = runs.log(alone), runs.log(together)
    assert [line["kind"] for line in found] == ["train"] * 6 + ["eval"]
    for one, two in zip(expected, found, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5)), name
    (step, one, progress), (other, two, others) = runs.arrays(alone), runs.arrays(together)
    assert step == other == 6
    assert progress == others
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6), one, two)


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_is_continued_by_one(run, alone, together, tmp_path):
    """Of steps 3 and 6 it takes the former, the latter being damaged."""
    workdir = tmp_path / "run"
    shutil.copytree(together, workdir)
    (workdir / "checkpoints/6/progress/metadata").unlink()
    assert "checkpoint 6 is damaged and passed over" in run(workdir, *SGD)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6),
        runs.arrays(alone)[1],
        runs.arrays(workdir)[1],
    )


@pytest.mark.slow
def test_the_death_of_one_process_ends_the_other_and_the_run_goes_on(run, together, tmp_path):
    processes = run.start_together(tmp_path, *SGD, "--config.train.checkpoint_every=1")
    runs.wait_for(lambda: runs.logged_steps(tmp_path) >= 2, "step 2")
    processes[1].kill()
    (status, errors), _ = run.finish(*processes)
    assert status not in (0, EXIT_STATUS), errors
    for status, errors in run.finish(*run.start_together(tmp_path, *SGD, "--config.train.checkpoint_every=1")):
        assert status == 0, errors
    assert runs.log(tmp_path) == runs.log(together)
    jax.tree.map(np.testing.assert_array_equal, runs.arrays(together)[1], runs.arrays(tmp_path)[1])


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(run, tmp_path):
    processes = run.start_together(tmp_path, *SGD, "--config.train.epochs=400")
    runs.wait_for(lambda: runs.logged_steps(tmp_path) >= 1, "step 1")
    processes[1].send_signal(signal.SIGINT)
    for status, errors in run.finish(*processes):
        assert status == EXIT_STATUS, errors
    stopped = runs.logged_steps(tmp_path)
    assert Checkpoints(tmp_path, read_only=True).resolve("latest") == stopped < 1200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--config.optim.lr=0.02", "optim.lr is 0.01 in process 0, 0.02 in process 1"),
        ("--config.train.batch_size=8", "train.batch_size is 4 in process 0, 8 in process 1"),
        ("--config.train.seed=1", "train.seed is 0 in process 0, 1 in process 1"),
        ("--config.train.epochs=3", "train.epochs is 2 in process 0, 3 in process 1"),
        ("--config.optim.weight_decay=0.5", "optim.weight_decay is 0.0001 in process 0, 0.5 in process 1"),
        ("--config.model.dtype=bfloat16", "model.dtype is 'float32' in process 0, 'bfloat16' in process 1"),
        ("--config.data.image_size=(64,96)", "data.image_size is [64, 64] in process 0, [64, 96] in process 1"),
        ("--config.balancing=uncertainty", "balancing is 'fixed' in process 0, 'uncertainty' in process 1"),
    ],
)
def test_processes_with_different_configurations_do_not_start(run, tmp_path, option, message):
    for status, errors in run.finish(*run.start_together(tmp_path, *SGD, more=(option,))):
        assert status == 1
        assert f"the processes of this run do not agree on the configuration: {message}" in errors
    assert not (tmp_path / "log.jsonl").exists()


@pytest.mark.slow
def test_processes_with_different_range_tests_do_not_start(run, tmp_path):
    for status, errors in run.finish(*run.start_together(tmp_path, "--find_lr", more=("--find_lr_max=0.5",))):
        assert status == 1
        assert "do not agree on the range test: high is 1.0 in process 0, 0.5 in process 1" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_test_a_range_together(run, tmp_path):
    options = ("--find_lr", "--find_lr_steps=13", "--data.tasks=semseg", "--losses.semseg=ce:class_weights=enet")
    ended = run.finish(*run.start_together(tmp_path, *options))
    assert [status for status, _ in ended] == [0, 0], ended
    assert sum("counting the labels of semseg" in errors for _, errors in ended) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"label_frequencies.json", "lr_finder.json", "lr_finder.png"}


@pytest.mark.slow
def test_what_the_first_process_refuses_ends_all(run, tmp_path):
    with FileLock(tmp_path / LOCK):
        for status, errors in run.finish(*run.start_together(tmp_path, *SGD)):
            assert status == 1
            assert "another process is training in" in errors
