"""The Flax models against the recorded numbers, and against the twin on weights and images nobody recorded.

In float64, where a computation that differs in meaning cannot hide behind rounding; once in float32, as shipped.
"""

from functools import cache

import jax
import numpy as np
import pytest

from mtl_jax import weights
from parity import golden, report
from parity.compare import FLOAT32, FLOAT64, QUANTITIES, Live, Recorded
from parity.flax_run import Network

MTI_NETS = ("mti_net_nyud_hrnet18", "mti_net_nyud_hrnet18_aux", "mti_net_pascal_hrnet18")
OTHERS = ("single_hrnet18_semseg40", "single_hrnet18_depth", "baseline_nyud_hrnet18", "baseline_pascal_hrnet18")


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


# Compiling a training step takes most of the time. The network with auxiliary tasks contains the one without.
IN_FLOAT64 = [*slow(MTI_NETS[0], *OTHERS), *MTI_NETS[1:]]
IN_FLOAT32 = [MTI_NETS[0], *slow(*MTI_NETS[1:], *OTHERS)]

# The recorded float64 runs have saliency's weight rounded to float32, which we do not imitate. Undoing the rounding in
# the recorded networks changed that loss by 5e-8, single gradient norms by 1e-6, single parameters' changes by 3e-4.
SALIENCY = {"losses": 1e-7, "gradients": 5e-6, "step losses": 1e-7, "3 steps": 1e-3}


@cache
def network(name, dtype):
    if dtype == "float32":
        return Network(name, np.float32)
    return Network(name, np.float64, {"xla_backend_optimization_level": 0})


@cache
def recorded_run(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        return network(name, dtype).run(golden.state_dict(name))


@cache
def other_weights(name):
    """Drawn by the recording's rule, but others."""
    return {key: golden.weight(f"live.{key}", shape) for key, shape in golden.keys(name)}


def other_image(height, width):
    return np.random.default_rng(2).standard_normal((2, 3, height, width)).astype(np.float32)


@pytest.fixture(scope="module")
def torch():
    """Single-threaded: two threads that wait for each other are slow on a machine that does other things too."""
    torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


@cache
def live_runs(name):
    """(the twin's run, ours) on other weights and another image."""
    import torch

    from parity.reference import run

    state, image = other_weights(name), other_image(64, 96)
    with jax.enable_x64(True):
        return run.run_network(name, torch.float64, state, image), network(name, "float64").run(state, image)


@pytest.mark.parametrize("name", [*MTI_NETS, *slow(*OTHERS)])
def test_weights_round_trip(name):
    """Every recorded array finds its place and comes back bit for bit under its name."""
    arrays = {key: x for key, x in golden.state_dict(name).items() if not key.endswith("num_batches_tracked")}
    returned = weights.to_torch(network(name, "float32").model(golden.state_dict(name)))
    assert returned.keys() == arrays.keys()
    for key, x in arrays.items():
        np.testing.assert_array_equal(returned[key], x, err_msg=key)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", IN_FLOAT64)
def test_recorded_float64(name, quantity):
    deviation = QUANTITIES[quantity](Recorded(name, "_f64"), recorded_run(name, "float64"))
    bounds = FLOAT64 | (SALIENCY if "sal" in network(name, "float64").tasks else {})
    assert report.record(f"flax float64 {name}", quantity, deviation) < bounds[quantity]


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", IN_FLOAT32)
def test_recorded_float32(name, quantity):
    """As shipped: no flags, no casts. Elementwise, where the float64 recording has sums only."""
    deviation = QUANTITIES[quantity](Recorded(name, ""), recorded_run(name, "float32"))
    assert report.record(f"flax float32 {name}", quantity, deviation) < FLOAT32[quantity]


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", IN_FLOAT64)
def test_live_float64(torch, name, quantity):
    """Every element of every output, statistic, gradient and parameter."""
    reference, ours = live_runs(name)
    deviation = QUANTITIES[quantity](Live(reference), ours)
    assert report.record(f"flax float64 {name} live", quantity, deviation) < FLOAT64[quantity]


def test_sides_not_divisible_by_32(torch):
    """Maps of 13x18, 7x9, 4x5 and 2x3: coarse features take the finer map's size, where x2 would not fit."""
    from parity.reference import run

    name = MTI_NETS[1]
    state, image = other_weights(name), other_image(50, 70)
    reference = run.network(name).double().eval()
    run.load(reference, state)
    with torch.no_grad():
        wanted = run.arrays(reference(torch.from_numpy(image).double()))
    with jax.enable_x64(True):
        got = network(name, "float64").evaluate(state, image)
    deviation = max(np.abs(got[key] - x).max() / np.sqrt(np.mean(x**2)) for key, x in wanted.items())
    assert got.keys() == wanted.keys()
    assert report.record(f"flax float64 {name} 50x70", "eval", deviation) < FLOAT64["eval"]
