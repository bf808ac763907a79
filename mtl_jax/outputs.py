"""The outputs of a model, in one form for all models."""

from dataclasses import dataclass, field

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Predictions of a multi-task network for a batch of images.

    It is a pytree. JAX sorts the keys of dictionaries in results of compiled functions: iterate over tasks in an order
    of your own, such as that of `tasks.ordered`.

    Attributes:
        logits: {main task: `[B, H, W, channels]`}, at the size of the images.
        intermediate: {name: {task: `[B, h, w, channels]`}}, predictions on the way that deep supervision compares with
            labels too, at any size. The loss of such a prediction is logged as `<name>_<task>`: PAD-Net has the name
            `deepsup`, MTI-Net `scale_0` to `scale_3`.
    """

    logits: dict[str, jax.Array]
    intermediate: dict[str, dict[str, jax.Array]] = field(default_factory=dict)
