"""Optimisers and schedules of the learning rate, by name.

`make_optimizer` and `make_schedule` make them; `register_optimizer` and `register_schedule` add a name.
"""

from mtl_jax.optim.optimizers import (
    DECAYED,
    OPTIMIZERS,
    NoOptions,
    Optimizer,
    OptimizerParts,
    distinguishes_kernels,
    make_optimizer,
    optimizer_options,
    register_optimizer,
)
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
from mtl_jax.optim.transforms import factor_of, leads_to

# The import registers the optimisers, in this order.
from mtl_jax.optim.methods import (  # isort: skip
    AdamOptions,
    AdanOptions,
    LambOptions,
    LionOptions,
    MuonOptions,
    SgdOptions,
)

__all__ = [
    "DECAYED",
    "OPTIMIZERS",
    "SCHEDULES",
    "AdamOptions",
    "AdanOptions",
    "LambOptions",
    "LionOptions",
    "MuonOptions",
    "NoOptions",
    "Optimizer",
    "OptimizerParts",
    "Schedule",
    "ScheduleMaker",
    "SgdOptions",
    "constant",
    "cosine",
    "distinguishes_kernels",
    "factor_of",
    "leads_to",
    "make_optimizer",
    "make_schedule",
    "optimizer_options",
    "over_steps",
    "poly",
    "register_optimizer",
    "register_schedule",
    "step",
    "with_warmup",
]
