"""Task balancing for any JAX model, after the manner of optax: a method is a pair of pure functions, init and update.

balancer = balancing.cagrad(c=0.5)  # or balancing.parse("cagrad:c=0.5")
step = balancing.value_and_grad(loss_fn, balancer, tasks)  # loss_fn(shared, specific, batch) -> {task: loss}, aux
state = balancer.init(len(tasks), shared)
...
result = step(state, key, shared, specific, batch)  # under jit
updates, opt_state = optimizer.update((result.shared, result.specific), opt_state, (shared, specific))
...
state = balancing.observe(balancer, tasks, result.state, result.losses, lambda: loss_fn(shared, specific, batch)[0])
"""

from mtl_jax.balancing.aligned_mtl import aligned_mtl
from mtl_jax.balancing.average_norm import average_norm
from mtl_jax.balancing.cagrad import cagrad
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
from mtl_jax.balancing.db_mtl import db_mtl
from mtl_jax.balancing.dtp import dtp
from mtl_jax.balancing.dwa import dwa
from mtl_jax.balancing.excess_mtl import excess_mtl
from mtl_jax.balancing.fairgrad import fairgrad
from mtl_jax.balancing.famo import famo
from mtl_jax.balancing.fixed import fixed
from mtl_jax.balancing.geometric import geometric
from mtl_jax.balancing.graddrop import graddrop
from mtl_jax.balancing.gradnorm import gradnorm
from mtl_jax.balancing.gradvac import gradvac
from mtl_jax.balancing.imtl_g import imtl_g
from mtl_jax.balancing.imtl_l import imtl_l
from mtl_jax.balancing.mgda import mgda, mgda_ub
from mtl_jax.balancing.nash_mtl import nash_mtl
from mtl_jax.balancing.pcgrad import pcgrad
from mtl_jax.balancing.registry import BALANCERS, parse
from mtl_jax.balancing.rlw import rlw
from mtl_jax.balancing.stch import stch
from mtl_jax.balancing.uncertainty import uncertainty
from mtl_jax.balancing.upgrad import upgrad

__all__ = [
    "BALANCERS",
    "Balanced",
    "Balancer",
    "Decision",
    "Signals",
    "aligned_mtl",
    "average_norm",
    "cagrad",
    "combine",
    "cosine_matrix",
    "db_mtl",
    "dtp",
    "dwa",
    "excess_mtl",
    "fairgrad",
    "famo",
    "fixed",
    "geometric",
    "graddrop",
    "gradnorm",
    "gradvac",
    "gramian",
    "imtl_g",
    "imtl_l",
    "mgda",
    "mgda_ub",
    "nash_mtl",
    "observe",
    "parse",
    "pcgrad",
    "rlw",
    "stch",
    "uncertainty",
    "upgrad",
    "value_and_grad",
]
