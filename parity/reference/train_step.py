"""One training step of a reference network, for trajectories and for timing."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def make_step(
    model: nn.Module,
    loss: Callable[[Mapping, Mapping[str, Tensor]], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
) -> Callable[[Tensor, Mapping[str, Tensor]], dict[str, Tensor]]:
    """Returns step(image, labels) -> {component: loss before the update}; model and optimiser change in place.

    Forward in training mode, loss, backward, update. The returned losses are detached and
    stay on their device: read one of them to wait for the step on an accelerator.

    Args:
        loss: outputs and labels to named losses with a `total`, for example an `Objective`.
    """

    def step(image: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        losses = loss(model(image), labels)
        losses["total"].backward()
        optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    return step
