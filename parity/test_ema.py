"""The moving average of weights and statistics, against torch's `AveragedModel` with `use_buffers=True`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import weights
from mtl_jax.nn import BatchNorm, Conv, Sequential
from mtl_jax.train.ema import Average, Ema
from parity import report

STEPS = 20
BOUND = 1e-14


@pytest.mark.parametrize("decay", [0.9, 0.999])
def test_averages_are_those_of_torch(torch, decay):
    swa_utils = pytest.importorskip("torch.optim.swa_utils")
    rng = np.random.default_rng(0)
    twin = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1, bias=False), torch.nn.BatchNorm2d(5)).double()
    multi_avg_fn = swa_utils.get_ema_multi_avg_fn(decay)
    averaged = swa_utils.AveragedModel(twin, multi_avg_fn=multi_avg_fn, use_buffers=True)
    with jax.enable_x64(True):
        model = Sequential([Conv(3, 5, 3, rngs=nnx.Rngs(0)), BatchNorm(5)])
        nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model)))
        average = None
        for _ in range(STEPS):
            arrays = {key: rng.normal(size=x.shape) for key, x in weights.to_torch(model).items()}
            for key, x in twin.state_dict().items():
                if x.is_floating_point():  # the count of batches is no weight
                    x.copy_(torch.from_numpy(arrays[key]))
            weights.load_torch(model, arrays)
            averaged.update_parameters(twin)
            if average is None:  # torch takes the first weights that it sees for the first average
                average = Average(model, Ema(decay))
            else:
                average.update(model)
        found = weights.to_torch(average.model)
        expected = {key: x.numpy() for key, x in averaged.module.state_dict().items() if x.is_floating_point()}
        assert found.keys() == expected.keys()
        deviation = max(np.abs(found[key] - x).max() for key, x in expected.items())
        assert report.record("flax float64 moving average / torch", "average", deviation) < BOUND
