"""The optimisers of the table, which optax computes, and their options."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

from mtl_jax.optim.optimizers import OptimizerParts, register_optimizer
from mtl_jax.optim.transforms import Tree


def _check(shares: Mapping[str, float], least: Mapping[str, float]) -> None:
    """Raises a ValueError for a share outside of [0, 1), or a number that is negative or not finite."""
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise ValueError(f"optim.options.{name} is {value}; it must be at least 0 and below 1")
    for name, value in least.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"optim.options.{name} is {value}; it must be at least 0")


@dataclass(frozen=True)
class SgdOptions:
    """Options of "sgd".

    Attributes:
        momentum: Weight of the past in the velocity; the value of `optim.momentum`.
        nesterov: True for Nesterov momentum (torch's).

    Raises:
        ValueError: Nesterov momentum is asked for, and the momentum is 0.
    """

    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self):
        if self.nesterov and not self.momentum > 0:
            raise ValueError(f"optim.options.nesterov needs a momentum above 0; optim.momentum is {self.momentum}")


@register_optimizer("sgd", options=SgdOptions, coupled=True, uses_kernels=False)
def sgd(parts: OptimizerParts, options: SgdOptions) -> optax.GradientTransformation:
    """Returns stochastic gradient descent with momentum and without dampening, as torch's SGD."""
    return optax.trace(options.momentum, options.nesterov)


@dataclass(frozen=True)
class AdamOptions:
    """Options of "adam" and "adamw".

    Attributes:
        b1: Weight of the past in the mean of the gradients.
        b2: Weight of the past in the mean of their squares.
        eps: Number that is added to the root of the mean of the squares.
        nesterov: True for the Nesterov momentum of NAdam (as optax, without the schedule of b1 that torch's NAdam has).

    Raises:
        ValueError: A value is out of its range.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    nesterov: bool = False

    def __post_init__(self):
        _check({"b1": self.b1, "b2": self.b2}, {"eps": self.eps})


@register_optimizer("adam", options=AdamOptions, coupled=True, uses_kernels=False)
def adam(parts: OptimizerParts, options: AdamOptions) -> optax.GradientTransformation:
    """Returns Adam (arXiv 1412.6980), with the weight decay in the gradient, as torch's Adam."""
    return optax.scale_by_adam(options.b1, options.b2, options.eps, nesterov=options.nesterov)


@register_optimizer("adamw", options=AdamOptions)
def adamw(parts: OptimizerParts, options: AdamOptions) -> optax.GradientTransformation:
    """Returns Adam with decoupled weight decay (arXiv 1711.05101), as torch's AdamW."""
    return optax.chain(adam(parts, options), parts.decay)


@dataclass(frozen=True)
class LambOptions:
    """Options of "lamb".

    Attributes:
        b1: Weight of the past in the mean of the gradients.
        b2: Weight of the past in the mean of their squares.
        eps: Number that is added to the root of the mean of the squares.

    Raises:
        ValueError: A value is out of its range.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6

    def __post_init__(self):
        _check({"b1": self.b1, "b2": self.b2}, {"eps": self.eps})


@register_optimizer("lamb", options=LambOptions)
def lamb(parts: OptimizerParts, options: LambOptions) -> optax.GradientTransformation:
    """Returns LAMB (arXiv 1904.00962, algorithm 2): the step of AdamW, scaled to the norm of each parameter."""
    moments = optax.scale_by_adam(options.b1, options.b2, options.eps)
    return optax.chain(moments, parts.decay, optax.scale_by_trust_ratio())


@dataclass(frozen=True)
class LionOptions:
    """Options of "lion".

    Attributes:
        b1: Weight of the past in the vector whose signs are the step.
        b2: Weight of the past in the mean of the gradients.

    Raises:
        ValueError: A value is out of its range.
    """

    b1: float = 0.9
    b2: float = 0.99

    def __post_init__(self):
        _check({"b1": self.b1, "b2": self.b2}, {})


@register_optimizer("lion", options=LionOptions)
def lion(parts: OptimizerParts, options: LionOptions) -> optax.GradientTransformation:
    """Returns Lion (arXiv 2302.06675, algorithm 2): signs of the momentum. It needs a smaller rate than AdamW."""
    return optax.chain(optax.scale_by_lion(options.b1, options.b2), parts.decay)


@dataclass(frozen=True)
class AdanOptions:
    """Options of "adan", as optax names them: one minus the β of the paper.

    Attributes:
        b1: Weight of the past in the mean of the gradients.
        b2: Weight of the past in the mean of their differences.
        b3: Weight of the past in the mean of the squares.
        eps: Number that is added to the root of the mean of the squares.

    Raises:
        ValueError: A value is out of its range.
    """

    b1: float = 0.98
    b2: float = 0.92
    b3: float = 0.99
    eps: float = 1e-8

    def __post_init__(self):
        _check({"b1": self.b1, "b2": self.b2, "b3": self.b3}, {"eps": self.eps})


@register_optimizer("adan", options=AdanOptions)
def adan(parts: OptimizerParts, options: AdanOptions) -> optax.GradientTransformation:
    """Returns Adan, adaptive Nesterov momentum (arXiv 2208.06677), with the weight decay of AdamW."""
    return optax.chain(optax.scale_by_adan(options.b1, options.b2, options.b3, options.eps), parts.decay)


@dataclass(frozen=True)
class MuonOptions:
    """Options of "muon".

    Attributes:
        beta: Weight of the past in the momentum of kernels.
        nesterov: True for Nesterov momentum, of kernels and in Adam.
        ns_steps: Number of Newton-Schulz iterations.
        consistent_rms: Root mean square of the updates of kernels. 0.2 is that of AdamW, so that learning rates and
            weight decays of AdamW fit (arXiv 2502.16982). 0 = the scale sqrt(max(1, outputs / inputs)) of the first
            Muon, whose learning rates are about a hundred times as large.
        b1: Weight of the past in Adam's mean of the gradients, for the other parameters.
        b2: Weight of the past in Adam's mean of their squares, for the other parameters.
        eps: Number that is added to the divisors.

    Raises:
        ValueError: A value is out of its range.
    """

    beta: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    consistent_rms: float = 0.2
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        shares = {"beta": self.beta, "b1": self.b1, "b2": self.b2}
        _check(shares, {"consistent_rms": self.consistent_rms, "eps": self.eps})
        if self.ns_steps < 1:
            raise ValueError(f"optim.options.ns_steps is {self.ns_steps}; it must be at least 1")


@register_optimizer("muon", options=MuonOptions)
def muon(parts: OptimizerParts, options: MuonOptions) -> optax.GradientTransformation:
    """Returns Muon (Jordan, 2024; arXiv 2502.16982): orthogonalised momentum for kernels, Adam for the rest.

    A kernel of a convolution `[kh, kw, in, out]` is a matrix `[kh * kw * in, out]`.
    """

    def axes(kernel: bool, param: jax.Array) -> Any:
        *inputs, output = range(param.ndim)
        return optax.contrib.MuonDimensionNumbers(tuple(inputs), output) if kernel else None

    def dimension_numbers(params: Tree) -> Tree:
        return jax.tree.map(axes, parts.kernels(params), params)

    updates = optax.contrib.muon(
        1.0,
        ns_steps=options.ns_steps,
        beta=options.beta,
        eps=options.eps,
        nesterov=options.nesterov,
        adam_b1=options.b1,
        adam_b2=options.b2,
        muon_weight_dimension_numbers=dimension_numbers,
        consistent_rms=options.consistent_rms or None,
    )
    return optax.chain(updates, optax.scale(-1.0), parts.decay)
