"""The Flax models against the recorded numbers, and element by element against the twin.

In float64, where a computation that differs in meaning cannot hide behind rounding; in float32 as shipped.
"""

import jax
import numpy as np
import pytest

from mtl_jax import weights
from parity import golden, report
from parity.compare import FLOAT64, QUANTITIES, Live, Recorded, float32_bounds, float64_bounds, keep_latest
from parity.flax_run import Network, interpret

NETWORKS = [name for name in golden.manifest()["models"] if not name.startswith("backbone_")]
# The parts of these are nearly all in other networks, PAD-Net's distillation in MTI-Net: what they add is more of the
# same. Cross-stitch units and NDDR-CNN's layer, of which this is not true, have tests of their own.
SLOW = {
    "single_hrnet18_depth",
    "single_hrnet18_semseg40",
    "single_resnet50_depth",
    "baseline_nyud_hrnet18",
    "baseline_pascal_hrnet18",
    "pad_net_nyud_hrnet18",
    "pad_net_nyud_hrnet18_aux",
    "pad_net_pascal_hrnet18",
    "mti_net_nyud_hrnet18",
    "mti_net_pascal_hrnet18",
    "baseline_nyud_resnet50",
    "cross_stitch_nyud_resnet50",
    "cross_stitch_pascal_resnet18",
    "nddr_cnn_nyud_resnet50",
    "nddr_cnn_pascal_resnet18",
    "mtan_nyud_resnet50",
}
# Compiled as a whole, which takes XLA a minute for the larger ones.
SLOW_IN_FLOAT32 = set(NETWORKS) - {"single_resnet18_semseg21"}
# Weights and an image that nobody recorded show that nothing was fitted to those that were.
OTHER_WEIGHTS = ("single_resnet18_semseg21", "mti_net_nyud_hrnet18_aux")


def each(names, slow=frozenset()):
    """Over networks, one with all its tests at a time; a backbone's share compiled operations and thus a process."""
    params = []
    for name in names:
        marks = [pytest.mark.xdist_group(golden.info(name)["backbone"])]
        params.append(pytest.param(name, marks=[*marks, pytest.mark.slow] if name in slow else marks))
    return pytest.mark.parametrize("name", params, scope="module")


@keep_latest
def make_room(backbone):
    """Drops the compiled operations of another backbone's networks, which are gigabytes."""
    jax.clear_caches()


@keep_latest
def network(name, dtype):
    make_room(golden.info(name)["backbone"])
    if dtype == "float32":
        return Network(name, np.float32, jax.jit)
    return Network(name, np.float64, interpret)


def other_image(height, width):
    return np.random.default_rng(2).standard_normal((2, 3, height, width)).astype(np.float32)


@keep_latest
def flax_run(name, dtype, recorded=True):
    with jax.enable_x64(dtype == "float64"):
        if recorded:
            return network(name, dtype).run(golden.state_dict(name))
        return network(name, dtype).run(golden.state_dict(name, "live."), other_image(64, 96))


@keep_latest
def twin_run(name, recorded=True):
    import torch

    from parity.reference import run

    if recorded:
        return run.run_network(name, torch.float64)
    return run.run_network(name, torch.float64, golden.state_dict(name, "live."), other_image(64, 96))


@each(NETWORKS, SLOW)
def test_weights_round_trip(name):
    """Every recorded array finds its place and comes back bit for bit under its name."""
    arrays = {key: x for key, x in golden.state_dict(name).items() if not key.endswith("num_batches_tracked")}
    with jax.enable_x64(True):
        returned = weights.to_torch(network(name, "float64").model(golden.state_dict(name)))
    assert returned.keys() == arrays.keys()
    for key, x in arrays.items():
        np.testing.assert_array_equal(returned[key], x, err_msg=key)


@each(NETWORKS, SLOW)
def test_float64(torch, name):
    """Every element against the twin, norms and sums against the recorded numbers."""
    run = flax_run(name, "float64")
    references = {"recorded": Recorded(name, "_f64"), "twin": Live(twin_run(name))}
    failures = []
    for against, reference in references.items():
        bounds = float64_bounds(name, original=against == "recorded")
        for quantity, measure in QUANTITIES.items():
            deviation = report.record(f"flax float64 {name} / {against}", quantity, measure(reference, run))
            if not deviation < bounds[quantity]:
                failures.append(f"{quantity} / {against}: {deviation:.1e}, allowed {bounds[quantity]:.0e}")
    assert not failures


@each(OTHER_WEIGHTS, slow=OTHER_WEIGHTS)
def test_other_weights(torch, name):
    run, live = flax_run(name, "float64", False), Live(twin_run(name, False))
    bounds = float64_bounds(name, original=False)
    deviations = {quantity: measure(live, run) for quantity, measure in QUANTITIES.items()}
    for quantity, deviation in deviations.items():
        assert report.record(f"flax float64 {name} other weights / twin", quantity, deviation) < bounds[quantity]


@each(NETWORKS, SLOW_IN_FLOAT32)
def test_float32(name):
    """As shipped: compiled, no flags, no casts. Elementwise, where the float64 recording has sums only."""
    run, recorded, bounds = flax_run(name, "float32"), Recorded(name, ""), float32_bounds(name)
    deviations = {quantity: measure(recorded, run) for quantity, measure in QUANTITIES.items()}
    for quantity, deviation in deviations.items():
        assert report.record(f"flax float32 {name} / recorded", quantity, deviation) < bounds[quantity]


@each(OTHER_WEIGHTS[1:], slow=OTHER_WEIGHTS)
def test_sides_not_divisible_by_32(torch, name):
    """Maps of 13x18, 7x9, 4x5 and 2x3: coarse features take the finer map's size, where x2 would not fit."""
    from parity.reference import run

    state, image = golden.state_dict(name, "live."), other_image(50, 70)
    reference = run.network(name).double().eval()
    run.load(reference, state)
    with torch.no_grad():
        wanted = run.arrays(reference(torch.from_numpy(image).double()))
    with jax.enable_x64(True):
        got = network(name, "float64").evaluate(state, image)
    deviation = max(np.abs(got[key] - x).max() / np.sqrt(np.mean(x**2)) for key, x in wanted.items())
    assert got.keys() == wanted.keys()
    assert report.record(f"flax float64 {name} 50x70 / twin", "eval", deviation) < FLOAT64["eval"]
