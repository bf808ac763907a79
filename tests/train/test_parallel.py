import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import experiment, initial, parallel
from mtl_jax.restore import Restored
from mtl_jax.train.loop import fit
from tests import tiny

ROOT = Path(__file__).parents[2]
_ON_FOUR_DEVICES = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from mtl_jax import backbones
from mtl_jax.train.loop import fit
from tests import tiny
backbones.BACKBONES["tiny"] = tiny.build_backbone
results = fit(tiny.config(sys.argv[1], epochs=1), sys.argv[2])
print(json.dumps({"devices": jax.device_count(), "rmse": results["depth"]["rmse"]}))
"""

_EVALUATION = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[3]))
from mtl_jax import backbones, evaluate, experiment
from mtl_jax.data import loader
from mtl_jax.restore import Restored
from mtl_jax.train.step import make_eval_step
from tests import tiny
backbones.BACKBONES["tiny"] = tiny.build_backbone
config = experiment.load_config(sys.argv[2])
run = Restored(config, sys.argv[2], "latest")
source = experiment.open_split(config, "val", run.tasks)
images = evaluate.at_size(run.predict_split(source, int(sys.argv[3])))
final = evaluate.final(images, source, experiment.build_metrics(config, final=True), "nyud").results
metrics = experiment.build_metrics(config, final=False)
step = make_eval_step(run.state.graphdef, metrics, run.mesh)
batches = loader.val_batches(
    source, family="nyud", tasks=run.tasks, size=experiment.image_size(config), batch_size=int(sys.argv[3])
)
streaming = evaluate.streaming(step, run.state.arrays, batches, metrics, run.mesh)
print(json.dumps({"devices": jax.device_count(), "final": final, "streaming": streaming}))
"""


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


def test_four_devices_train_like_one(tmp_path, data_dir):
    rmse = fit(tiny.config(data_dir, epochs=1), tmp_path / "one")["depth"]["rmse"]
    command = [sys.executable, "-c", _ON_FOUR_DEVICES, str(data_dir), str(tmp_path / "four")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["devices"] == 4
    assert found["rmse"] == pytest.approx(rmse, rel=1e-4)  # float32 sums in another order, three steps of Adam

    # A checkpoint written on four devices is restored on one.
    run = Restored(experiment.load_config(tmp_path / "four"), tmp_path / "four", "latest")
    source = experiment.open_split(run.config, "val", run.tasks)
    assert all(np.isfinite(maps["depth"]).all() for _, maps in run.predict_split(source))


def test_bfloat16_trains_with_float32_parameters(tmp_path, data_dir):
    config = tiny.config(data_dir, epochs=1)
    config.model.dtype = "bfloat16"
    assert np.isfinite(fit(config, tmp_path)["depth"]["rmse"])
    model = initial.build_model(config)
    assert model.decoder.last_layer[0].kernel.dtype == model.decoder.last_layer[1].var.dtype == jnp.float32


def test_uneven_batches_are_refused():
    class Mesh:
        size = 3

    with pytest.raises(ValueError, match=r"train\.batch_size is 4, which 3 devices cannot share evenly"):
        parallel.check_batch_size(4, Mesh(), "train.batch_size")
    with pytest.raises(ValueError, match=r"is 9, .* evenly in 2 micro-batches; make it a multiple of 6"):
        parallel.check_batch_size(9, Mesh(), "train.batch_size", 2)
    parallel.check_batch_size(12, Mesh(), "train.batch_size", 2)
