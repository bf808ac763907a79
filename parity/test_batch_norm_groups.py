"""Batch norm with the statistics of parts of the batch, against torch's replicas.

torch's DataParallel needs GPUs. On a CPU its replicas are copies that share the parameters and have running statistics
of their own; the first replica's are the module's.
"""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models, weights
from mtl_jax.nn import BatchNorm, Conv, Sequential
from parity import report
from parity.compare import FLOAT64
from parity.flax_run import STATISTICS
from tests.marks import slow

STEPS = 2  # the second one starts from the first one's running statistics


def build():
    rngs = nnx.Rngs(0)
    return Sequential(
        [
            Conv(3, 6, 3, use_bias=True, rngs=rngs),
            BatchNorm(6),
            nnx.relu,
            Conv(6, 5, 3, stride=2, rngs=rngs),
            BatchNorm(5, momentum=0.01),
            nnx.relu,
            Conv(5, 2, 1, use_bias=True, rngs=rngs),
        ]
    )


def build_torch(torch):
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(5, momentum=0.01),
        nn.ReLU(),
        nn.Conv2d(5, 2, 1),
    ).double()


def data_parallel(torch, module, images, number):
    """What `torch.nn.DataParallel(module)(images)` computes on so many devices."""
    shared = {id(parameter): parameter for parameter in module.parameters()}
    replicas = [module, *(copy.deepcopy(module, dict(shared)) for _ in range(number - 1))]
    parts = zip(replicas, images.chunk(number), strict=True)
    return torch.cat([replica(part) for replica, part in parts])


@pytest.mark.parametrize("groups", [1, slow(2), 3, slow(6)])
def test_groups_are_the_replicas_of_data_parallel(torch, groups):
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((6, 3, 8, 10)) + 2 * rng.standard_normal((6, 3, 1, 1)) for _ in range(STEPS)]
    cotangent = rng.standard_normal((6, 2, 4, 5))

    twin = build_torch(torch).train()
    for key, x in twin.state_dict().items():
        if x.is_floating_point():
            x.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1.0, 1.0], x.shape)))
            if key.endswith("running_var"):
                x.abs_()
    arrays = {key: x.numpy().copy() for key, x in twin.state_dict().items()}
    wanted = []
    for batch in images:
        outputs = data_parallel(torch, twin, torch.from_numpy(batch), groups)
        twin.zero_grad()
        outputs.backward(torch.from_numpy(cotangent))
        gradients = {key: parameter.grad.numpy().copy() for key, parameter in twin.named_parameters()}
        statistics = {key: x.numpy().copy() for key, x in twin.named_buffers() if key.endswith(STATISTICS)}
        wanted.append({"train": {"outputs": outputs.detach().numpy()}, "gradients": gradients, "buffers": statistics})

    with jax.enable_x64(True):
        model = build()
        nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model)))
        weights.load_torch(model, arrays)

        @nnx.compat.jit
        def run(model, x):
            def loss_fn(model):
                y = model(x)
                return (y * jnp.moveaxis(cotangent, 1, -1)).sum(), y

            view = models.training_view(model, nnx.Rngs(dropout=0), groups)
            return nnx.compat.grad(loss_fn, has_aux=True)(view)

        for batch, expected in zip(images, wanted, strict=True):
            grads, outputs = run(model, jnp.asarray(np.moveaxis(batch, 1, -1)))
            gradients = build()
            nnx.update(gradients, grads)
            statistics = {key: x for key, x in weights.to_torch(model).items() if key.endswith(STATISTICS)}
            found = {
                "train": {"outputs": np.moveaxis(np.asarray(outputs), -1, 1)},
                "gradients": {k: x for k, x in weights.to_torch(gradients).items() if not k.endswith(STATISTICS)},
                "buffers": statistics,
            }
            for quantity, values in expected.items():
                assert found[quantity].keys() == values.keys()
                # The first convolution's bias precedes a batch norm: its gradient is 0, and computed as noise.
                largest = max(np.abs(x).max() for x in values.values())
                deviation = max(np.abs(found[quantity][key] - x).max() / largest for key, x in values.items())
                name = f"flax float64 batch norm in {groups} groups / torch"
                assert report.record(name, quantity, deviation) < FLOAT64[quantity], quantity
