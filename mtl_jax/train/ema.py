"""The exponential moving average (EMA) of the weights of a model over the steps of training."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.config import Config

_AVERAGED = (nnx.Param, nnx.BatchStat)


@dataclass(frozen=True)
class Ema:
    """A rule for the average of weights.

    Attributes:
        decay: Weight of the average in the next average, above 0 and below 1.
        warmup: True to limit the decay of step t, counted from 0 where the average begins, to (1 + t) / (10 + t), as
            TensorFlow's `ExponentialMovingAverage` does with `num_updates`.
    """

    decay: float
    warmup: bool = False

    def share(self, step: jax.Array) -> jax.Array | float:
        """Returns the share of the newest weights in the average of a step, 1 - decay, in the type of the step."""
        return jnp.maximum(1 - self.decay, 9 / (10 + step)) if self.warmup else 1 - self.decay


def from_config(config: Config) -> Ema | None:
    """Returns how a configuration averages weights; None where it does not."""
    return Ema(config.train.ema, config.train.ema_warmup) if config.train.ema else None


class Average(nnx.Module):
    """The average of a model as a part of the training state, so that checkpoints hold it.

    The parameters and the running statistics of batch norm are averaged, as timm's `ModelEmaV2` averages parameters and
    buffers. All other variables, and arrays of integers, are those of the newest step.

    Args:
        model: Model whose weights are the first average.
        ema: How weights are averaged.

    Attributes:
        model: Model with the averaged weights.
    """

    def __init__(self, model: nnx.Module, ema: Ema):
        self.model = nnx.clone(model)
        self.steps = nnx.Variable(jnp.zeros((), jnp.int32))
        self._ema = ema

    def update(self, model: nnx.Module) -> None:
        """Moves the average towards the weights of a model that has made a step.

        average = decay * average + (1 - decay) * weights, in the form that leaves an average equal to the weights
        unchanged, to the last bit.
        """

        def moved(average: jax.Array, weights: jax.Array) -> jax.Array:
            if not jnp.issubdtype(average.dtype, jnp.floating):
                return weights
            return average + self._ema.share(self.steps[...].astype(average.dtype)) * (weights - average)

        averaged, others = nnx.state(model, _AVERAGED, ...)
        nnx.update(self.model, jax.tree.map(moved, nnx.state(self.model, _AVERAGED), averaged))
        nnx.update(self.model, others)
        self.steps.set_value(self.steps[...] + 1)
