"""Optimisers and schedules of the learning rate, by name."""

from mtl_jax.optim.optimizers import OPTIMIZERS, OptimizerMaker, make_optimizer, register_optimizer
from mtl_jax.optim.schedules import (
    SCHEDULES,
    Schedule,
    ScheduleMaker,
    constant,
    cosine,
    make_schedule,
    over_steps,
    poly,
    register_schedule,
    step,
    with_warmup,
)

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "OptimizerMaker",
    "Schedule",
    "ScheduleMaker",
    "constant",
    "cosine",
    "make_optimizer",
    "make_schedule",
    "over_steps",
    "poly",
    "register_optimizer",
    "register_schedule",
    "step",
    "with_warmup",
]
