"""Our balancing methods against TorchJD's, on random gradients and losses in float64."""

import warnings

import numpy as np
import pytest

from mtl_jax.balancing.aligned_mtl import aligned_mtl
from mtl_jax.balancing.cagrad import cagrad
from mtl_jax.balancing.dwa import dwa
from mtl_jax.balancing.excess_mtl import excess_mtl
from mtl_jax.balancing.fairgrad import fairgrad
from mtl_jax.balancing.famo import famo
from mtl_jax.balancing.fixed import fixed
from mtl_jax.balancing.geometric import geometric
from mtl_jax.balancing.graddrop import graddrop
from mtl_jax.balancing.gradvac import gradvac
from mtl_jax.balancing.imtl_g import imtl_g
from mtl_jax.balancing.imtl_l import imtl_l
from mtl_jax.balancing.mgda import mgda
from mtl_jax.balancing.nash_mtl import nash_mtl
from mtl_jax.balancing.pcgrad import pcgrad
from mtl_jax.balancing.rlw import rlw
from mtl_jax.balancing.stch import stch
from mtl_jax.balancing.uncertainty import uncertainty
from mtl_jax.balancing.upgrad import upgrad
from parity.balancers import (
    Ours,
    assert_close,
    assert_same_step,
    every_case,
    gradients,
    losses,
    normal,
    orders,
    our_weights,
    slow,
    uniform,
)

torch = pytest.importorskip("torch")


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


@every_case
def test_torchjd_pcgrad(torchjd, monkeypatch, tasks, shift):
    jacobian = gradients(tasks, shift)
    ours = Ours(pcgrad(), tasks)
    for seed in range(3):
        drawn = iter([torch.as_tensor([*others, i]) for i, others in enumerate(orders(tasks, seed))])
        monkeypatch.setattr(torch, "randperm", lambda n, drawn=drawn: next(drawn))
        theirs = aggregated(torchjd.PCGrad(), jacobian)
        assert_close(ours.decide(jacobian, seed=seed).weights @ jacobian, theirs, 1e-9)


@every_case
def test_torchjd_gradvac(torchjd, monkeypatch, tasks, shift):
    ours, aggregator = Ours(gradvac(beta=0.3), tasks), torchjd.GradVac(beta=0.3)
    for seed in range(5):
        jacobian = gradients(tasks, shift, seed)
        # They number the tasks that are not i.
        drawn = iter([torch.as_tensor(others - (others > i)) for i, others in enumerate(orders(tasks, seed))])
        monkeypatch.setattr(torch, "randperm", lambda n, drawn=drawn: next(drawn))
        theirs = aggregated(aggregator, jacobian)
        # 1e-8 is added to their denominators, whence to the cosines.
        assert_close(ours.decide(jacobian, seed=seed).weights @ jacobian, theirs, 1e-6)


@every_case
@pytest.mark.parametrize("leak", [0.0, slow(0.3)])
def test_torchjd_graddrop(torchjd, monkeypatch, tasks, shift, leak):
    jacobian, ours = gradients(tasks, shift), Ours(graddrop(leak=leak), tasks)
    for seed in range(3):
        monkeypatch.setattr(torch, "rand", lambda *_, seed=seed, **__: torch.as_tensor(uniform(seed)))
        theirs = aggregated(torchjd.GradDrop(leak=torch.full((tasks,), leak, dtype=torch.float64)), jacobian)
        assert_close(ours.decide(jacobian, seed=seed).gradient, theirs, 1e-12)


@every_case
# Without warm-up they do not scale the first excess risk. With one step of it they do as we without.
@pytest.mark.parametrize(("warm_up", "their_warm_up"), [(0, 1), (3, 3)])
def test_torchjd_excess_mtl(torchjd, tasks, shift, warm_up, their_warm_up):
    ours = Ours(excess_mtl(step_size=0.5, warm_up=warm_up), tasks)
    aggregator = torchjd.ExcessMTL(0.5, n_warmup_steps=their_warm_up)
    for seed in range(5):
        jacobian = gradients(tasks, shift, seed) / (1 + seed * np.arange(tasks)[:, None])
        # 1e-7 is added to what is a root, and to what is divided by.
        assert_close(ours.decide(jacobian).weights @ jacobian, aggregated(aggregator, jacobian), 1e-5)


@pytest.fixture
def scalarization():
    pytest.importorskip("torchjd")
    return pytest.importorskip("torchjd.scalarization")


def scalarized(scalarizer, values):
    """The weights of losses in the gradient of the scalar made of them; that to the scalarizer's parameters stays."""
    given = torch.as_tensor(values).requires_grad_()
    scalarizer(given).backward()
    return given.grad.numpy()


TASKS = (2, 5)


@pytest.mark.parametrize("tasks", TASKS)
def test_torchjd_fixed(scalarization, tasks):
    values, weights = losses(tasks), losses(tasks, 1)
    theirs = scalarized(scalarization.Constant(torch.as_tensor(weights)), values)
    np.testing.assert_allclose(Ours(fixed(weights=weights), tasks).weights(values), theirs, rtol=1e-12)
    np.testing.assert_array_equal(Ours(fixed(), tasks).weights(values), scalarized(scalarization.Sum(), values))


@pytest.mark.parametrize("tasks", TASKS)
def test_torchjd_dwa(scalarization, tasks):
    ours, theirs = Ours(dwa(temperature=0.7, window=3), tasks), scalarization.DWA(temperature=0.7)
    for seed in range(12):
        values = losses(tasks, seed)
        np.testing.assert_allclose(ours.weights(values), scalarized(theirs, values), rtol=1e-12)
        if seed % 3 == 2:
            theirs.step()  # an epoch is over
    assert np.ptp(ours.weights(values)) > 0.01


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("minimum", [0.0, 0.25])
def test_torchjd_famo(scalarization, tasks, minimum):
    ours = Ours(famo(learning_rate=0.1, weight_decay=0.02, minimum=minimum), tasks)
    least = torch.full((tasks,), minimum, dtype=torch.float64)
    theirs = scalarization.FAMO(tasks, least, lr=0.1, weight_decay=0.02).double()
    for seed in range(6):
        before, after = losses(tasks, seed), losses(tasks, seed + 100)
        np.testing.assert_allclose(ours.weights(before), scalarized(theirs, before), rtol=1e-9)
        ours.observe(before, after)
        theirs.update(torch.as_tensor(after))


@pytest.mark.parametrize("tasks", TASKS)
def test_torchjd_geometric(scalarization, tasks):
    values = losses(tasks)
    theirs = scalarized(scalarization.GeometricMean(), values)
    np.testing.assert_allclose(Ours(geometric(), tasks).weights(values), theirs, rtol=1e-12)


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize(
    ("name", "balancer", "factor", "rtol"),
    [
        ("IMTLL", imtl_l(learning_rate=0.1), 1, 1e-12),
        # Half of cross-entropies too, which the paper does not halve: r = 1 with us, and a factor of the whole. Adam's
        # 1e-8 weighs more beside half the gradient.
        ("UW", uncertainty(regularizer=1.0, learning_rate=0.1), 0.5, 1e-6),
    ],
)
def test_torchjd_learned_scales(scalarization, tasks, name, balancer, factor, rtol):
    ours, theirs = Ours(balancer, tasks), getattr(scalarization, name)(tasks).double()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1)
    for seed in range(6):
        values = losses(tasks, seed)
        optimizer.zero_grad()
        weights = scalarized(theirs, values)
        optimizer.step()
        np.testing.assert_allclose(factor * ours.weights(values), weights, rtol=rtol)


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("given", [False, True])
def test_torchjd_stch(scalarization, tasks, given):
    values = losses(tasks)
    preference, ideal = (losses(tasks, 1), losses(tasks, 2) - 1) if given else (None, None)
    theirs = scalarization.STCH(0.3, *(None if v is None else torch.as_tensor(v) for v in (preference, ideal)))
    ours = Ours(stch(mu=0.3, preference=preference, ideal=ideal), tasks)
    np.testing.assert_allclose(ours.weights(values), scalarized(theirs, values), rtol=1e-12)


@pytest.mark.parametrize("tasks", TASKS)
def test_torchjd_rlw(scalarization, monkeypatch, tasks):
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.as_tensor(normal(tasks, 3)))
    values = losses(tasks)
    theirs = scalarized(scalarization.Random(), values)
    np.testing.assert_allclose(Ours(rlw(), tasks).weights(values, seed=3), theirs, rtol=1e-12)
