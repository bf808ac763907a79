"""Our balancing methods against TorchJD's and LibMTL's, on random gradients in float64.

Steps are compared, not weights: weights of dependent gradients are a matter of choice. Where the two differ the test
says why; a tolerance looser than 1e-9 is theirs, not ours: our solutions meet the equations (tests/balancing).
"""

import importlib
import importlib.util
import sys
import types
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.balancing import core
from mtl_jax.balancing.aligned_mtl import aligned_mtl
from mtl_jax.balancing.cagrad import cagrad
from mtl_jax.balancing.fairgrad import fairgrad
from mtl_jax.balancing.imtl_g import imtl_g
from mtl_jax.balancing.mgda import mgda
from mtl_jax.balancing.nash_mtl import nash_mtl
from mtl_jax.balancing.upgrad import upgrad

torch = pytest.importorskip("torch")

CASES = [(tasks, shift) for tasks in (2, 3, 5, 8) for shift in (-0.3, 0.0, 1.0)]  # more and less conflict
slow = partial(pytest.param, marks=pytest.mark.slow)
every_case = pytest.mark.parametrize(
    ("tasks", "shift"), [case if case in ((2, -0.3), (3, 0.0)) else slow(*case) for case in CASES]
)


def gradients(tasks, shift):
    rng = np.random.default_rng([tasks, int(10 * shift) % 100])
    return (rng.normal(size=(tasks, 24)) + shift * rng.normal(size=24)) * np.linspace(0.5, 2, tasks)[:, None]


def our_weights(balancer, jacobian, losses=None):
    with jax.enable_x64(True):
        jacobian = jnp.asarray(jacobian)
        losses = jnp.ones(len(jacobian)) if losses is None else jnp.asarray(losses)
        signals = core.Signals(losses, jax.random.key(0), core.gramian(jacobian))
        decision, _ = jax.jit(balancer.update)(balancer.init(len(jacobian), ()), signals)
        return np.asarray(decision.weights)


def assert_same_step(balancer, theirs, jacobian, rtol, factor=1.0):
    """rtol is of the step's length; factor times ours is to be theirs."""
    step = factor * our_weights(balancer, jacobian) @ jacobian
    assert np.linalg.norm(step - np.asarray(theirs)) <= rtol * np.linalg.norm(theirs)


@pytest.fixture
def torchjd():
    pytest.importorskip("torchjd")
    return pytest.importorskip("torchjd.aggregation")


def aggregated(aggregator, jacobian):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their solvers: deprecations, problems called inaccurate
        return aggregator(torch.as_tensor(jacobian)).numpy()


@every_case
def test_torchjd_mgda(torchjd, tasks, shift):
    jacobian = gradients(tasks, shift)
    # Frank-Wolfe, stopped early by default (100 steps, or a step below 0.001); even so it converges like 1 / steps.
    theirs = aggregated(torchjd.MGDA(epsilon=1e-9, max_iters=20000), jacobian)
    assert_same_step(mgda(), theirs, jacobian, 5e-3)
    ours = our_weights(mgda(), jacobian) @ jacobian
    assert np.linalg.norm(ours) <= np.linalg.norm(theirs) * (1 + 1e-12)


@every_case
@pytest.mark.parametrize("c", [slow(0.2), 0.5])
def test_torchjd_cagrad(torchjd, tasks, shift, c):
    pytest.importorskip("cvxpy")
    jacobian = gradients(tasks, shift)
    # A conic solver, and 1e-4 below which a norm counts as zero.
    assert_same_step(cagrad(c=c), aggregated(torchjd.CAGrad(c=c), jacobian), jacobian, 1e-3)


@every_case
def test_torchjd_imtl_g(torchjd, tasks, shift):
    jacobian = gradients(tasks, shift)
    assert_same_step(imtl_g(), aggregated(torchjd.IMTLG(), jacobian), jacobian, 1e-9)


@every_case
def test_torchjd_nash_mtl(torchjd, tasks, shift):
    pytest.importorskip("ecos")
    jacobian = gradients(tasks, shift)
    # Successive convex programs, up to 100; max_norm = 0 leaves the step as long as it is, sqrt(T).
    theirs = aggregated(torchjd.NashMTL(n_tasks=tasks, max_norm=0.0, optim_niter=100), jacobian)
    assert_same_step(nash_mtl(), theirs, jacobian, 1e-5)
    assert np.linalg.norm(our_weights(nash_mtl(), jacobian) @ jacobian) == pytest.approx(tasks**0.5)


@every_case
def test_torchjd_upgrad(torchjd, tasks, shift):
    pytest.importorskip("qpsolvers")
    jacobian = gradients(tasks, shift)
    # They add 1e-4 to the diagonal of the Gramian over its trace.
    assert_same_step(upgrad(), aggregated(torchjd.UPGrad(), jacobian), jacobian, 5e-3)


@every_case
def test_torchjd_aligned_mtl(torchjd, tasks, shift):
    jacobian = gradients(tasks, shift)
    assert_same_step(aligned_mtl(), aggregated(torchjd.AlignedMTL(), jacobian), jacobian, 1e-9)
    preference = np.arange(1.0, tasks + 1)
    theirs = torchjd.AlignedMTL(pref_vector=torch.as_tensor(preference / preference.sum()))
    assert_same_step(aligned_mtl(preference=preference), aggregated(theirs, jacobian), jacobian, 1e-9)


@every_case
@pytest.mark.parametrize("alpha", [slow(0.5), 1.0, slow(2.0)])
def test_torchjd_fairgrad(torchjd, tasks, shift, alpha):
    jacobian = gradients(tasks, shift)
    # scipy's least squares, to a relative change of 1e-8, in the residual's square.
    assert_same_step(fairgrad(alpha=alpha), aggregated(torchjd.FairGrad(alpha=alpha), jacobian), jacobian, 1e-7)


@pytest.fixture
def libmtl(monkeypatch):
    found = importlib.util.find_spec("LibMTL")
    if found is None:
        pytest.skip("could not import 'LibMTL'")
    # Importing the package itself imports its models, and these need torchvision: an empty one in its place.
    package = types.ModuleType("LibMTL")
    package.__path__ = list(found.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "LibMTL", package)
    return libmtl_gradient


def libmtl_gradient(method, jacobian, losses, **arguments):
    """The gradient that a LibMTL method leaves on the shared parameters of a model whose gradients are given."""
    weighting = getattr(importlib.import_module(f"LibMTL.weighting.{method}"), method)

    class Model(weighting):
        def __init__(self):
            super().__init__()
            self.shared = torch.nn.Parameter(torch.zeros(jacobian.shape[1], dtype=torch.float64))
            self.task_num, self.rep_grad, self.device = len(jacobian), False, torch.device("cpu")

        def get_share_params(self):
            return [self.shared]

        def zero_grad_share_params(self):
            self.shared.grad = torch.zeros_like(self.shared)

    model = Model()
    values = torch.as_tensor(jacobian) @ model.shared + torch.as_tensor(losses)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about the shapes of scipy's arguments
        model.backward(values, **arguments)
    return model.shared.grad.numpy()


@every_case
@pytest.mark.parametrize("normalization", ["none", "l2", slow("loss"), slow("loss+")])
def test_libmtl_mgda(libmtl, tasks, shift, normalization):
    jacobian, losses = gradients(tasks, shift), np.linspace(0.5, 1.5, tasks)
    theirs = libmtl("MGDA", jacobian, losses, mgda_gn=normalization)
    # They sum the gradients as normalised, we (as the paper's authors) as they were. On an edge of the hull they keep a
    # thousandth of the longer gradient; inside they stop after 250 steps; and all is in single precision.
    norms = np.linalg.norm(jacobian, axis=1)
    scale = {"none": 1, "l2": norms, "loss": losses, "loss+": losses * norms}[normalization]
    step = (our_weights(mgda(normalization=normalization), jacobian, losses) / scale) @ jacobian
    assert np.linalg.norm(step) <= np.linalg.norm(theirs) * (1 + 1e-5)
    if tasks <= 3:  # with more they stop up to a fifth away
        assert np.linalg.norm(step - theirs) <= 2e-2 * np.linalg.norm(theirs)


@pytest.mark.parametrize("shift", [-0.3, 0.0, 1.0])
@pytest.mark.parametrize("rescale", [0, 1, 2])
def test_libmtl_cagrad(libmtl, shift, rescale):
    jacobian, c = gradients(3, shift), 0.5  # three tasks are part of their code
    factor = {0: 1, 1: 1 / (1 + c**2), 2: 1 / (1 + c)}[rescale]
    theirs = libmtl("CAGrad", jacobian, np.ones(3), calpha=c, rescale=rescale)
    # SLSQP, 1e-8 added to what is a root, and single precision.
    assert_same_step(cagrad(c=c), theirs, jacobian, 1e-5, factor)
