"""Regression of real values, such as depth, from the logits of a head.

The choices are those of DINOv2's depth heads (arXiv 2304.07193): bins, or a single channel. Without any of them the
only channel of a head is the value itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax import notation
from mtl_jax.nn import recomputable
from mtl_jax.nn.per_channel import per_channel
from mtl_jax.registry import Registry

Kind = TypeVar("Kind", bound="type[Regression]")


@dataclass(frozen=True)
class Regression:
    """A function from logits to real values.

    A subclass is a frozen dataclass that defines `__call__`.

    Attributes:
        low: Least value, in the unit of the labels.
        high: Greatest value.

    Raises:
        ValueError: The range is empty.
    """

    low: float = 0.001
    high: float = 10.0

    def __post_init__(self):
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low is {self.low} and high {self.high}; low must be below high")

    @property
    def num_logits(self) -> int:
        """Number of logit channels that the function takes."""
        return 1

    def __call__(self, logits: jax.Array) -> jax.Array:
        """`[B, h, w, num_logits] -> [B, h, w, 1]`"""
        raise TypeError(f"{type(self).__name__} does not define __call__")


REGRESSIONS: Registry[type[Regression]] = Registry("regression", "regressions", "mtl_jax.heads.register_regression")


def register_regression(name: str) -> Callable[[Kind], Kind]:
    """Returns a decorator that registers a subclass of `Regression`, which `model.regression` then may name.

    Args:
        name: Name of the regression.

    Raises:
        ValueError: The name is taken.
    """
    return REGRESSIONS.decorator(name)


def parse(text: str) -> Regression:
    """Returns the regression of its notation, NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE.

    Raises:
        ValueError: There is no such regression, it has no such parameter, or a value is impossible.
    """
    name, given = notation.split(text)
    kind = REGRESSIONS[name]
    return kind(**notation.arguments(given, kind, f"the regression {name}"))


def check(text: str) -> None:
    """Checks the notation of a regression; an empty text stands for none.

    Raises:
        ValueError: See `parse`.
    """
    if text:
        parse(text)


@register_regression("bins")
@dataclass(frozen=True)
class Bins(Regression):
    """The mean of fixed values under probabilities that the logits give (DINOv2's linear depth heads).

    Attributes:
        low: Value of the first bin, in the unit of the labels.
        high: Value of the last bin.
        number: Number of bins, which is the number of logits.
        spacing: "uniform" for equal differences, "sid" for equal ratios (arXiv 1806.02446, eq. 1, "spacing-increasing
            discretisation").
        probabilities: "linear" for max(l, 0) + 0.1, "softmax" for exp(l), "sigmoid" for 1 / (1 + exp(-l)), each over
            their sum.

    Raises:
        ValueError: The range is empty, there are fewer than two bins, or "sid" has bins that are not positive.
    """

    number: int = 256
    spacing: Literal["uniform", "sid"] = "uniform"
    probabilities: Literal["linear", "softmax", "sigmoid"] = "linear"

    def __post_init__(self):
        super().__post_init__()
        if self.number < 2:
            raise ValueError(f"number is {self.number}; give at least 2 bins")
        if self.spacing == "sid" and self.low <= 0:
            raise ValueError(f"low is {self.low}; bins of equal ratios begin above 0")

    @property
    def num_logits(self) -> int:
        return self.number

    def __call__(self, logits: jax.Array) -> jax.Array:
        weights = _WEIGHTS[self.probabilities](logits)
        values = per_channel(jnp.asarray(_SPACINGS[self.spacing](self.low, self.high, self.number)), logits)
        return (weights * values).sum(axis=-1, keepdims=True) / weights.sum(axis=-1, keepdims=True)


_SPACINGS: dict[str, Callable[[float, float, int], np.ndarray]] = {"uniform": np.linspace, "sid": np.geomspace}
_WEIGHTS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda logits: nnx.relu(logits) + 0.1,
    "softmax": nnx.softmax,
    "sigmoid": nnx.sigmoid,
}


@register_regression("relu")
@dataclass(frozen=True)
class Rectified(Regression):
    """The positive part of the only logit, above the least value: max(l, 0) + low (DINOv2's DPT heads).

    Attributes:
        low: Least value, in the unit of the labels.
        high: Greatest value that evaluation predicts. Training has no upper limit.
    """

    def __call__(self, logits: jax.Array) -> jax.Array:
        return nnx.relu(logits) + self.low


@register_regression("sigmoid")
@dataclass(frozen=True)
class Bounded(Regression):
    """The only logit, brought between 0 and the greatest value: high / (1 + exp(-l)).

    Attributes:
        low: Least value that evaluation predicts, in the unit of the labels.
        high: Greatest value.
    """

    def __call__(self, logits: jax.Array) -> jax.Array:
        return nnx.sigmoid(logits) * self.high


class RegressionHead(nnx.Module):
    """A head and the regression of its logits: maps or tokens to values `[B, h, w, 1]`.

    In evaluation, values outside of the range of the regression become its ends.

    Args:
        head: Head that returns `regression.num_logits` logits.
        regression: Function from logits to values.
    """

    def __init__(self, head: nnx.Module, regression: Regression):
        self.head = head
        self.regression = regression
        self.clamps = False

    def set_view(self, deterministic: bool | None = None):
        """Sets attributes of a view; `nnx.view` calls it.

        Args:
            deterministic: True to keep the values within their range, as evaluation does.
        """
        if deterministic is not None:
            self.clamps = deterministic

    @recomputable
    def __call__(self, features):
        """Returns the values, in float32 at least: bfloat16 has three digits, too few for a depth in metres."""
        logits = self.head(features)
        values = self.regression(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        return jnp.clip(values, self.regression.low, self.regression.high) if self.clamps else values
