"""Optimisers and schedules of the learning rate, by name."""

from mtl_jax.optim.optimizers import OPTIMIZERS, OptimizerMaker, make_optimizer, register_optimizer
from mtl_jax.optim.schedules import (
    SCHEDULES,
    Schedule,
    ScheduleMaker,
    constant,
    make_schedule,
    per_step,
    poly,
    register_schedule,
    step,
)

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "OptimizerMaker",
    "Schedule",
    "ScheduleMaker",
    "constant",
    "make_optimizer",
    "make_schedule",
    "per_step",
    "poly",
    "register_optimizer",
    "register_schedule",
    "step",
]
