"""Our balancing methods against LibMTL's, on random gradients and losses.

Gradients that are stored one task after the other are in single precision there.
"""

import importlib
import importlib.util
import random
import sys
import types
import warnings

import jax
import numpy as np
import pytest

from mtl_jax.balancing.cagrad import cagrad
from mtl_jax.balancing.dwa import dwa
from mtl_jax.balancing.fixed import fixed
from mtl_jax.balancing.geometric import geometric
from mtl_jax.balancing.graddrop import graddrop
from mtl_jax.balancing.gradnorm import gradnorm
from mtl_jax.balancing.gradvac import gradvac
from mtl_jax.balancing.imtl_g import imtl_g
from mtl_jax.balancing.imtl_l import imtl_l
from mtl_jax.balancing.mgda import mgda, mgda_ub
from mtl_jax.balancing.pcgrad import pcgrad
from mtl_jax.balancing.rlw import rlw
from mtl_jax.balancing.uncertainty import uncertainty
from parity.balancers import (
    SIZE,
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
def libmtl(monkeypatch):
    found = importlib.util.find_spec("LibMTL")
    if found is None:
        pytest.skip("could not import 'LibMTL'; pip install --no-deps LibMTL==1.1.5")
    # Importing the package itself imports its models, and these need torchvision: an empty one in its place.
    package = types.ModuleType("LibMTL")
    package.__path__ = list(found.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "LibMTL", package)
    return trainer


def trainer(method, tasks, *, features=False):
    """A LibMTL method in a model of one shared parameter, or of one feature map of one image."""
    weighting = getattr(importlib.import_module(f"LibMTL.weighting.{method}"), method)

    class Model(weighting):
        def __init__(self):
            super().__init__()
            self.shared = torch.nn.Parameter(torch.ones(SIZE, dtype=torch.float64))
            self.task_num, self.rep_grad, self.device = tasks, features, torch.device("cpu")
            self.task_name = [str(i) for i in range(tasks)]
            self.init_param()

        def get_share_params(self):
            return [self.shared]

        def zero_grad_share_params(self):
            self.shared.grad = torch.zeros_like(self.shared)

        def step(self, jacobian, values, **arguments):
            """What `backward` leaves on the shared parameters where gradients and losses are these."""
            self.zero_grad()
            self.rep = self.shared[None] * 1
            self.rep_tasks = {task: self.rep.detach().requires_grad_() for task in self.task_name}
            inputs = self.rep_tasks.values() if features else [self.shared[None]] * tasks
            given = zip(torch.as_tensor(jacobian), torch.as_tensor(values), inputs, strict=True)
            computed = [value + (row * (x[0] - 1)).sum() for row, value, x in given]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy's, about the shapes of scipy's arguments
                self.backward(torch.stack(computed), **arguments)
            return self.shared.grad.numpy()

    return Model()


def slope(state):
    """The gradient that Adam was given in its first step."""
    return np.asarray(jax.tree.leaves(state)[1]) / (1 - 0.9)


def put(listed, order):
    assert sorted(listed) == sorted(order)
    listed[:] = order


@every_case
@pytest.mark.parametrize("normalization", ["none", "l2", slow("loss"), slow("loss+")])
def test_libmtl_mgda(libmtl, tasks, shift, normalization):
    jacobian, values = gradients(tasks, shift), losses(tasks)
    theirs = libmtl("MGDA", tasks).step(jacobian, values, mgda_gn=normalization)
    # They sum the gradients as normalised, we (as the paper's authors) as they were. Where one gradient is itself the
    # shortest vector they keep a thousandth of another; else they stop at a step that changes no weight by 1e-5.
    norms = np.linalg.norm(jacobian, axis=1)
    scale = {"none": 1, "l2": norms, "loss": values, "loss+": values * norms}[normalization]
    step = (our_weights(mgda(normalization=normalization), jacobian, values) / scale) @ jacobian
    assert np.linalg.norm(step) <= np.linalg.norm(theirs) * (1 + 1e-5)
    if tasks <= 3:  # with more they stop up to a fifth away
        assert_close(step, theirs, 2e-2)


def test_libmtl_mgda_ub(libmtl):
    """Gradients to the features of one image; those of several they sum before they take inner products."""
    jacobian = gradients(2, 0.0)
    theirs = libmtl("MGDA", 2, features=True).step(jacobian, np.ones(2), mgda_gn="none")
    assert_same_step(mgda_ub(), theirs, jacobian, 1e-6)


@pytest.mark.parametrize("shift", [-0.3, slow(0.0), slow(1.0)])
@pytest.mark.parametrize("rescale", [0, 1, 2])
def test_libmtl_cagrad(libmtl, shift, rescale):
    jacobian, c = gradients(3, shift), 0.5  # three tasks are part of their code
    factor = {0: 1, 1: 1 / (1 + c**2), 2: 1 / (1 + c)}[rescale]
    theirs = libmtl("CAGrad", 3).step(jacobian, np.ones(3), calpha=c, rescale=rescale)
    # SLSQP, and 1e-8 added to what is a root.
    assert_same_step(cagrad(c=c), theirs, jacobian, 1e-5, factor)


@every_case
def test_libmtl_imtl(libmtl, tasks, shift):
    """Both halves of the method, where all scales are still 1."""
    jacobian, values = gradients(tasks, shift), losses(tasks)
    model = libmtl("IMTL", tasks)
    assert_same_step(imtl_g(), model.step(jacobian, values), jacobian, 1e-4)  # a matrix is inverted
    ours = Ours(imtl_l(), tasks)
    ours.weights(values)
    np.testing.assert_allclose(slope(ours.state["adam"]), -model.loss_scale.grad, rtol=1e-5, atol=1e-6)


@every_case
def test_libmtl_pcgrad(libmtl, monkeypatch, tasks, shift):
    jacobian = gradients(tasks, shift)
    ours, model = Ours(pcgrad(), tasks), libmtl("PCGrad", tasks)
    for seed in range(3):
        # The task itself is among the others, without effect in the first place.
        drawn = iter([[i, *others] for i, others in enumerate(orders(tasks, seed))])
        monkeypatch.setattr(random, "shuffle", lambda listed, drawn=drawn: put(listed, next(drawn)))
        theirs = model.step(jacobian, np.ones(tasks))
        assert_close(ours.decide(jacobian, seed=seed).weights @ jacobian, theirs, 1e-5)


@every_case
def test_libmtl_gradvac(libmtl, monkeypatch, tasks, shift):
    jacobian, targets = gradients(tasks, shift), 0.5 * np.cos(np.arange(tasks**2.0)).reshape(tasks, tasks)
    drawn = iter(list(orders(tasks, 0)))
    monkeypatch.setattr(random, "shuffle", lambda listed: put(listed, next(drawn)))
    # One step alone: they move the target of a pair only where its cosine lies below it, the paper in any case.
    ours, model = Ours(gradvac(), tasks), libmtl("GradVac", tasks)
    ours.state, model.rho_T = {"targets": targets}, torch.as_tensor(targets, dtype=torch.float32)
    theirs = model.step(jacobian, np.ones(tasks), beta=0.5)
    assert_close(ours.decide(jacobian).weights @ jacobian, theirs, 1e-5)


@every_case
@pytest.mark.parametrize("leak", [0.0, slow(0.3)])
def test_libmtl_graddrop(libmtl, monkeypatch, tasks, shift, leak):
    # They multiply by the signs of the features, all positive here, and sum over the images, of which there is one.
    jacobian, model = gradients(tasks, shift), libmtl("GradDrop", tasks, features=True)
    monkeypatch.setattr(torch, "rand_like", lambda _: torch.as_tensor(uniform(1)))
    theirs = model.step(jacobian, np.ones(tasks), leak=leak)
    assert_close(Ours(graddrop(leak=leak), tasks).decide(jacobian, seed=1).gradient, theirs, 1e-6)


@every_case
def test_libmtl_gradnorm(libmtl, tasks, shift):
    """The derivative of the weights, which are T softmax(z) there, and the losses' first values an epoch's."""
    jacobian, first, values = gradients(tasks, shift), losses(tasks), losses(tasks, 1)
    model = libmtl("GradNorm", tasks)
    model.epoch, model.train_loss_buffer = 1, first[:, None]
    theirs = model.step(jacobian, values, alpha=0.8)
    ours = Ours(gradnorm(alpha=0.8), tasks)
    ours.state = ours.state._replace(initial=first)
    assert_close(ours.decide(jacobian, values).weights @ jacobian, theirs, 1e-6)
    norms = np.linalg.norm(jacobian, axis=1)
    weighted = slope(ours.state.optimizer) * norms.mean()  # ours is relative to that
    # Through the softmax where all weights are 1.
    np.testing.assert_allclose(weighted - weighted.mean(), model.loss_scale.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tasks", [2, 5])
def test_libmtl_dwa(libmtl, tasks):
    epochs = np.stack([losses(tasks, seed) for seed in range(3)], axis=1)
    ours, model = Ours(dwa(temperature=0.7, window=1), tasks), libmtl("DWA", tasks)
    jacobian = gradients(tasks, 0.0)
    model.train_loss_buffer = epochs
    for epoch in range(3):
        model.epoch = epoch
        theirs = model.step(jacobian, epochs[:, epoch], T=0.7)
        assert_close(ours.weights(epochs[:, epoch]) @ jacobian, theirs, 1e-6)


@pytest.mark.parametrize("tasks", [2, 5])
def test_libmtl_fixed(libmtl, tasks):
    jacobian, values = gradients(tasks, 0.0), losses(tasks)
    theirs = libmtl("EW", tasks).step(jacobian, values)
    assert_close(Ours(fixed(), tasks).weights(values) @ jacobian, theirs, 1e-12)


@pytest.mark.parametrize("tasks", [2, 5])
def test_libmtl_geometric(libmtl, tasks):
    jacobian, values = gradients(tasks, 0.0), losses(tasks)
    theirs = libmtl("GLS", tasks).step(jacobian, values)
    assert_close(Ours(geometric(), tasks).weights(values) @ jacobian, theirs, 1e-12)


@pytest.mark.parametrize("tasks", [2, 5])
def test_libmtl_uncertainty(libmtl, tasks):
    """They begin at a log-variance of -1/2, and halve all losses: twice theirs is ours with r = 1."""
    jacobian, values = gradients(tasks, 0.0), losses(tasks)
    model, ours = libmtl("UW", tasks), Ours(uncertainty(regularizer=1.0), tasks)
    ours.state["log_variances"] = np.full(tasks, -0.5)
    theirs = model.step(jacobian, values)
    assert_close(ours.weights(values) @ jacobian / 2, theirs, 1e-6)
    np.testing.assert_allclose(slope(ours.state["adam"]) / 2, model.loss_scale.grad, rtol=1e-5)


@pytest.mark.parametrize("tasks", [2, 5])
def test_libmtl_rlw(libmtl, tasks):
    """Normal weights; of a draw from a Dirichlet distribution they take the softmax too, which the paper does not."""
    jacobian, values = gradients(tasks, 0.0), losses(tasks)
    model = libmtl("RLW", tasks)
    model.distribution = types.SimpleNamespace(sample=lambda: torch.as_tensor(normal(tasks, 3)))
    theirs = model.step(jacobian, values, dist="Normal")
    assert_close(Ours(rlw(), tasks).weights(values, seed=3) @ jacobian, theirs, 1e-12)
