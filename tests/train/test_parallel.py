import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.runtime import sharding
from mtl_jax.train import initial_weights
from mtl_jax.train.loop import fit
from tests import tiny
from tests.train import runs

ROOT = Path(__file__).parents[2]
_EVALUATION = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[3]))
from mtl_jax import backbones, experiment
from mtl_jax.data import loader
from mtl_jax.evaluation import scoring
from mtl_jax.inference.restored import Restored
from mtl_jax.train.step import make_eval_step
from tests import tiny
backbones.BACKBONES["tiny"] = tiny.build_backbone
config = experiment.load_config(sys.argv[2])
run = Restored(config, sys.argv[2], "latest")
source = run.experiment.open_split("val", run.tasks)
images = scoring.at_size(run.predict_split(source, int(sys.argv[3])))
final = scoring.final(images, source, run.experiment.final_metrics, run.experiment.conventions).results
metrics = run.experiment.streaming_metrics
step = make_eval_step(run.state.graphdef, metrics, run.mesh)
batches = loader.val_batches(
    source,
    conventions=run.experiment.conventions,
    tasks=run.tasks,
    size=run.experiment.image_size,
    batch_size=int(sys.argv[3]),
)
streaming = scoring.streaming(step, run.state.arrays, batches, metrics, run.mesh)
print(json.dumps({"devices": jax.device_count(), "final": final, "streaming": streaming}))
"""


@pytest.mark.slow
def test_eight_devices_evaluate_exactly_like_one(tmp_path, data_dir):
    """Five images on eight devices: three only pad."""
    fit(tiny.config(data_dir, epochs=1), tmp_path)
    found = {}
    for devices in (1, 8):
        command = [sys.executable, "-c", _EVALUATION, str(data_dir), str(tmp_path), str(devices)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
        assert process.returncode == 0, process.stderr
        found[devices] = json.loads(process.stdout.splitlines()[-1])
        assert found[devices].pop("devices") == devices
    assert np.isfinite(found[1]["final"]["depth"]["rmse"])
    assert found[8] == found[1]


_ON_FEWER_DEVICES = """
import shutil, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 8)
from mtl_jax import backbones, experiment
from mtl_jax.runtime import sharding
from mtl_jax.train import loop
from tests import tiny
from tests.train import runs
backbones.BACKBONES["tiny"] = tiny.build_backbone
sharding.LEAST_SIZE = 64  # the tiny model's arrays are small
workdir, make_mesh = Path(sys.argv[2]), sharding.make_mesh
for devices in (8, 1, 2, 4):
    sharding.make_mesh = lambda: make_mesh(jax.devices()[:devices])
    if devices < 8:
        shutil.copytree(workdir / "8", workdir / str(devices))
        shutil.rmtree(workdir / str(devices) / "checkpoints/3")
    config = tiny.config(sys.argv[1], batch_size=8, eval_batch_size=8, epochs=3)
    config.optim.name, config.optim.lr = "sgd", 0.01  # Adam makes much of roundings
    config.train.split_state = devices in (4, 8)
    run = loop._Run(experiment.make(config), workdir / str(devices), None, False)
    print(run.step, runs.bytes_on_a_device(run.state.arrays))
    run.fit()
"""


@pytest.mark.slow
def test_fewer_devices_go_on_from_a_checkpoint_of_eight(tmp_path, data_dir):
    """Where the state is split, and where it is whole."""
    command = [sys.executable, "-c", _ON_FEWER_DEVICES, str(data_dir), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert process.returncode == 0, process.stderr
    steps, size = zip(*(map(int, line.split()) for line in process.stdout.splitlines()), strict=True)
    assert steps == (0, 2, 2, 2)
    eight, one, two, four = size
    assert one == two
    assert one / 8 < eight < one / 4
    assert one / 4 < four < one / 2
    expected = runs.arrays(tmp_path / "8")[1]
    for devices in ("1", "2", "4"):
        step, found, _ = runs.arrays(tmp_path / devices)
        assert step == 3
        jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6), expected, found)


@pytest.mark.parametrize(
    ("shape", "split"),
    [
        ((3, 3, 64, 128), (None, None, None, "data")),
        ((3, 3, 128, 64), (None, None, "data", None)),
        ((3, 3, 128, 128), (None, None, None, "data")),
        ((3, 3, 130, 64), (None, None, None, "data")),  # eight devices cannot share 130
        ((3, 3, 130, 66), ()),
        ((1, 1, 64, 128), ()),  # small
        ((), ()),
    ],
)
def test_which_axis_is_split(shape, split):
    mesh = jax.sharding.AbstractMesh((8,), ("data",))
    assert sharding.state_sharding(shape, mesh, split=True).spec == jax.sharding.PartitionSpec(*split)
    assert sharding.state_sharding(shape, mesh, split=False).spec == jax.sharding.PartitionSpec()


@pytest.mark.slow
def test_bfloat16_trains_with_float32_parameters(tmp_path, data_dir):
    config = tiny.config(data_dir, epochs=1)
    config.model.dtype = "bfloat16"
    assert np.isfinite(fit(config, tmp_path)["depth"]["rmse"])
    model = initial_weights.build_model(config)
    assert model.decoder.last_layer[0].kernel.dtype == model.decoder.last_layer[1].var.dtype == jnp.float32


def test_uneven_batches_are_refused():
    class Mesh:
        size = 3

    with pytest.raises(ValueError, match=r"train\.batch_size is 4, which 3 devices cannot share evenly"):
        sharding.check_batch_size(4, Mesh(), "train.batch_size")
    with pytest.raises(ValueError, match=r"is 9, .* evenly in 2 micro-batches; make it a multiple of 6"):
        sharding.check_batch_size(9, Mesh(), "train.batch_size", 2)
    sharding.check_batch_size(12, Mesh(), "train.batch_size", 2)
