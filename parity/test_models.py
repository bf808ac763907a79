"""The recorded networks in Flax against the recorded numbers, and element by element against the twin.

In float64, where a computation that differs in meaning cannot hide behind rounding; and in float32, compiled as shipped
where a method has no smaller network, since XLA needs minutes for one of MTI-Net.
"""

import jax
import numpy as np
import pytest

from mtl_jax import weights
from parity import golden, report
from parity.compare import QUANTITIES, Live, Recorded, float32_bounds, float64_bounds, keep_latest
from parity.flax_run import recorded_batch, recorded_network
from parity.interpreter import interpret

NETWORKS = [name for name in golden.manifest()["models"] if not name.startswith("backbone_")]
# `test_methods` compares every method with the twin, and `test_reference` the twin with these recordings: together they
# show the same as these do directly. As shipped, compiled and in float32, one network is compared every time.
QUICK = "single_resnet18_semseg21"
COMPILED = (
    QUICK,
    "baseline_nyud_hrnet18",
    "cross_stitch_pascal_resnet18",
    "nddr_cnn_pascal_resnet18",
    "mtan_pascal_resnet18",
    "pad_net_nyud_hrnet18",
    "mti_net_nyud_hrnet18",
)


def each_network(quick=()):
    """One with all its tests at a time; a backbone's share compiled operations and thus a process."""
    params = []
    for name in NETWORKS:
        marks = [pytest.mark.xdist_group(golden.info(name)["backbone"])]
        params.append(pytest.param(name, marks=marks if name in quick else [*marks, pytest.mark.slow]))
    return pytest.mark.parametrize("name", params, scope="module")


@keep_latest
def make_room(backbone):
    """Drops the compiled operations of another backbone's networks, which are gigabytes."""
    jax.clear_caches()


@keep_latest
def network(name, dtype):
    make_room(golden.info(name)["backbone"])
    if dtype == "float32":
        return recorded_network(name, np.float32, jax.jit if name in COMPILED else interpret)
    return recorded_network(name, np.float64, interpret)


@keep_latest
def flax_run(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        return network(name, dtype).run(golden.state_dict(name), recorded_batch(name))


@each_network(quick=[QUICK])
def test_weights_round_trip(name):
    """Every recorded array finds its place and comes back bit for bit under its name."""
    arrays = {key: x for key, x in golden.state_dict(name).items() if not key.endswith("num_batches_tracked")}
    with jax.enable_x64(True):
        returned = weights.to_torch(network(name, "float64").model(golden.state_dict(name)))
    assert returned.keys() == arrays.keys()
    for key, x in arrays.items():
        np.testing.assert_array_equal(returned[key], x, err_msg=key)


@each_network()
def test_float64(torch, name):
    """Every element against the twin, norms and sums against the recorded numbers."""
    from parity.reference.run import run_network

    run = flax_run(name, "float64")
    references = {"recorded": Recorded(name, "_f64"), "twin": Live(run_network(name, torch.float64))}
    failures = []
    for against, reference in references.items():
        bounds = float64_bounds(name, original=against == "recorded")
        for quantity, measure in QUANTITIES.items():
            deviation = report.record(f"flax float64 {name} / {against}", quantity, measure(reference, run))
            if not deviation < bounds[quantity]:
                failures.append(f"{quantity} / {against}: {deviation:.1e}, allowed {bounds[quantity]:.0e}")
    assert not failures


@each_network(quick=[QUICK])
def test_float32(name):
    """As shipped: no flags, no casts. Elementwise, where the float64 recording has sums only."""
    run, recorded, bounds = flax_run(name, "float32"), Recorded(name, ""), float32_bounds(name)
    deviations = {quantity: measure(recorded, run) for quantity, measure in QUANTITIES.items()}
    for quantity, deviation in deviations.items():
        assert report.record(f"flax float32 {name} / recorded", quantity, deviation) < bounds[quantity]
