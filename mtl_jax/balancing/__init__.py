"""Task balancing for any JAX model, in the manner of optax: a method is a pair of pure functions, init and update.

balancer = balancing.cagrad(c=0.5)  # or balancing.parse("cagrad:c=0.5")
step = balancing.value_and_grad(loss_fn, balancer, tasks)  # loss_fn(shared, specific, batch) -> {task: loss}, aux
state = balancer.init(len(tasks), shared)
...
result = step(state, key, shared, specific, batch)  # under jit
updates, opt_state = optimizer.update((result.shared, result.specific), opt_state, (shared, specific))
...
state = balancing.observe(balancer, tasks, result.state, result.losses, lambda: loss_fn(shared, specific, batch)[0])

A new method is a file in this folder with a function under `@register`, and a line for it below.
"""

from mtl_jax.balancing.accumulated import accumulated_value_and_grad
from mtl_jax.balancing.core import (
    Balanced,
    Balancer,
    Decision,
    Signals,
    combine,
    cosine_matrix,
    gramian,
    observe,
    value_and_grad,
)
from mtl_jax.balancing.registry import BALANCERS, parse, register

# Each import registers a method, so the order of the lines is the order of `BALANCERS`. "NAME as NAME" tells type
# checkers and editors that the name belongs to this module.
# isort: off
# These methods read the losses alone (`Balancer.needs` is "losses").
from mtl_jax.balancing.fixed import fixed as fixed
from mtl_jax.balancing.uncertainty import uncertainty as uncertainty
from mtl_jax.balancing.imtl_l import imtl_l as imtl_l
from mtl_jax.balancing.dwa import dwa as dwa
from mtl_jax.balancing.rlw import rlw as rlw
from mtl_jax.balancing.geometric import geometric as geometric
from mtl_jax.balancing.dtp import dtp as dtp
from mtl_jax.balancing.famo import famo as famo
from mtl_jax.balancing.stch import stch as stch

# These methods read the inner products of the tasks' gradients (`Balancer.needs` is "gramian").
from mtl_jax.balancing.gradnorm import gradnorm as gradnorm
from mtl_jax.balancing.average_norm import average_norm as average_norm
from mtl_jax.balancing.mgda import mgda as mgda
from mtl_jax.balancing.mgda import mgda_ub as mgda_ub
from mtl_jax.balancing.pcgrad import pcgrad as pcgrad
from mtl_jax.balancing.gradvac import gradvac as gradvac
from mtl_jax.balancing.cagrad import cagrad as cagrad
from mtl_jax.balancing.imtl_g import imtl_g as imtl_g
from mtl_jax.balancing.nash_mtl import nash_mtl as nash_mtl
from mtl_jax.balancing.fairgrad import fairgrad as fairgrad
from mtl_jax.balancing.aligned_mtl import aligned_mtl as aligned_mtl
from mtl_jax.balancing.upgrad import upgrad as upgrad

# These methods read the tasks' gradients themselves (`Balancer.needs` is "jacobian").
from mtl_jax.balancing.graddrop import graddrop as graddrop
from mtl_jax.balancing.db_mtl import db_mtl as db_mtl
from mtl_jax.balancing.excess_mtl import excess_mtl as excess_mtl
# isort: on

__all__ = [
    *BALANCERS,
    "BALANCERS",
    "Balanced",
    "Balancer",
    "Decision",
    "Signals",
    "accumulated_value_and_grad",
    "combine",
    "cosine_matrix",
    "gramian",
    "observe",
    "parse",
    "register",
    "value_and_grad",
]
