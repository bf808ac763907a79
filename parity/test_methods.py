"""Every method as a complete Flax network beside the twin, on weights, images and labels drawn from this run's seed.

The batch has an odd number of images with odd sides; `methods.draw` describes the other corners that it covers.
"""

import dataclasses
import re

import pytest

from parity import cases, report
from parity.compare import FLOAT64, FLOAT64_RESNET50, QUANTITIES, Live

torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)

from parity import methods  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch")  # single-threaded

# Every run draws other weights: there is room for draws that amplify rounding more than most (parity/README.md). Adam
# divides a gradient by its own size, so that an element whose parts nearly cancel moves by its rounding error.
BOUNDS = FLOAT64 | {"gradients": 1e-7, "step losses": 1e-8, "steps": 1e-4, "metrics": 1e-9}
BOUNDS_RESNET50 = BOUNDS | FLOAT64_RESNET50 | {"gradients": 1e-6}


# The few hidden units of a squeeze-and-excitation may be off for all images; its last bias learns anyway.
MAY_BE_OFF = re.compile(r"squeeze\.(0\.(weight|bias)|2\.weight)$")


def deviations(case, seed):
    """{quantity: largest deviation of the Flax network from the twin}"""
    arrays, batch = methods.draw(case, seed)
    twin, flax = methods.run_twin(case, arrays, batch), methods.run_flax(case, arrays, batch)
    without = [key for key, gradient in flax.gradients.items() if not gradient.any() and not MAY_BE_OFF.search(key)]
    assert not without, "these parameters do not learn"
    assert all((x != arrays[key]).all() for key, x in flax.buffers.items())  # every running statistic moves
    found = {quantity: measure(Live(twin), flax) for quantity, measure in QUANTITIES.items()}
    wanted, got = methods.twin_scores(case, twin.eval, batch), methods.scores(case, flax.eval, batch)
    return found | {"metrics": max(abs(got[key] - x) / max(abs(x), 1e-300) for key, x in wanted.items())}


def compare(case, seed, name):
    """Notes the deviations under a name, and returns those that are too large."""
    bounds, failures = BOUNDS_RESNET50 if "resnet50" in case.backbone else BOUNDS, []
    for quantity, deviation in deviations(case, seed).items():
        if not report.record(name, quantity, deviation) < bounds[quantity]:
            failures.append(f"{quantity}: {deviation:.1e}, allowed {bounds[quantity]:.0e} (--parity_seed={seed})")
    return failures


# Each of these models is compared on another backbone, too.
SLOW = dict.fromkeys(("baseline, resnet50_dilated", "single_task, resnet18_dilated"), (pytest.mark.slow,))


@pytest.mark.parametrize(
    "case",
    # Those of a backbone share compiled operations and thus a process.
    [
        pytest.param(case, id=case.row, marks=[pytest.mark.xdist_group(case.backbone), *SLOW.get(case.row, ())])
        for case in cases.CASES
    ],
)
def test_method(case, seed):
    assert not compare(case, seed, case.row)


OTHER_SIZES = [
    dataclasses.replace(case, images=images, size=size)
    for case in cases.CASES
    for images, size in ((3, (33, 49)), (2, (101, 163)))
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.xdist_group(case.backbone)) for case in OTHER_SIZES],
    ids=lambda case: f"{case.row}, {case.size}",
)
def test_other_sizes(case, seed):
    name = f"{case.row}, {case.images} images of {'x'.join(map(str, case.size))}"
    assert not compare(case, seed, name)
