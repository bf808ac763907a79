"""Recorded networks by name, and their runs."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mtl_jax import tasks as task_table
from parity import golden
from parity.compare import Run, flatten
from parity.reference.hrnet import HRNetHead, MultiTask, SingleTask, fused_hrnet, hrnet
from parity.reference.losses import Objective
from parity.reference.mtinet import MTINet
from parity.reference.train_step import make_step


def network(name: str) -> nn.Module:
    """The network that was recorded under a name, with torch's default initialisation.

    Raises:
        ValueError: there is no twin of it.
    """
    if name.startswith("backbone_hrnet"):
        variant = name.removeprefix("backbone_")
        return fused_hrnet(variant.removesuffix("_fuse")) if variant.endswith("_fuse") else hrnet(variant)
    info = golden.info(name)
    if not info["backbone"].startswith("hrnet"):
        raise ValueError(f"no twin of {name!r}: its backbone is {info['backbone']}, and only HRNets are written")
    backbone = hrnet(info["backbone"])
    tasks, aux_tasks = info["tasks"], info["auxiliary_tasks"]
    outputs = task_table.num_channels([*tasks, *(aux_tasks or [])], golden.dataset(name))
    if info["model"] == "mti_net":
        return MTINet(backbone, backbone.channels, tasks, aux_tasks, outputs)
    heads = {task: HRNetHead(backbone.channels, outputs[task]) for task in tasks}
    if info["setup"] == "single_task":
        return SingleTask(backbone, tasks[0], heads[tasks[0]])
    return MultiTask(backbone, heads)


def objective(name: str, weight_dtype: torch.dtype | None = None) -> Objective:
    """The objective of a recorded network; a single task has the weight 1."""
    info = golden.info(name)
    weights = info["loss_weights"] or dict.fromkeys(info["tasks"], 1.0)
    return Objective(info["tasks"], info["auxiliary_tasks"] or (), weights, weight_dtype)


def load(model: nn.Module, state: Mapping[str, np.ndarray]) -> None:
    """Copies numpy arrays into a model, which keeps its dtype; counters may be missing."""
    missing, unexpected = model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()}, False)
    if wrong := [k for k in missing if not k.endswith("num_batches_tracked")] + unexpected:
        raise ValueError(f"keys without a place or places without a key: {wrong}")


def buffers(model: nn.Module) -> dict[str, np.ndarray]:
    """Copies of all running means and variances."""
    return {k: v.numpy().copy() for k, v in model.named_buffers() if not k.endswith("num_batches_tracked")}


def parameters(model: nn.Module) -> dict[str, np.ndarray]:
    """Copies of all parameters."""
    return {k: v.detach().numpy().copy() for k, v in model.named_parameters()}


def arrays(outputs: Mapping) -> dict[str, np.ndarray]:
    """A network's outputs under their recorded names."""
    return {k: v.detach().numpy() for k, v in flatten(outputs).items()}


def run(
    model: nn.Module,
    loss: Objective,
    state: Mapping[str, np.ndarray],
    image: Tensor,
    labels: Mapping[str, Tensor],
    lr: float = 1e-4,
    weight_decay: float = 1e-4,
) -> Run:
    """Evaluates, differentiates and trains for three steps, each time from `state`."""
    load(model, state)
    model.eval()
    with torch.no_grad():
        evaluated = arrays(model(image))
    load(model, state)
    before = parameters(model)
    model.train()
    model.zero_grad(set_to_none=True)
    outputs = model(image)
    losses = loss(outputs, labels)
    losses["total"].backward()
    trained, statistics = arrays(outputs), buffers(model)
    gradients = {k: v.grad.numpy().copy() for k, v in model.named_parameters()}
    load(model, state)
    step = make_step(model, loss, lr, weight_decay)
    step_losses = [step(image, labels)["total"].item() for _ in range(3)]
    return Run(
        eval=evaluated,
        train=trained,
        buffers=statistics,
        losses={k: v.item() for k, v in losses.items()},
        gradients=gradients,
        step_losses=step_losses,
        params_before=before,
        params_after=parameters(model),
    )


def run_network(
    name: str,
    dtype: torch.dtype,
    state: Mapping[str, np.ndarray] | None = None,
    image: np.ndarray | None = None,
    weight_dtype: torch.dtype | None = None,
) -> Run:
    """A run of a recorded network, by default from the recorded weights on the recorded image.

    Args:
        image: `[B, 3, 64, 96]`.
        weight_dtype: as in `losses.balanced_cross_entropy`.
    """
    info = golden.info(name)
    labels = golden.targets((*info["tasks"], *(info["auxiliary_tasks"] or ())), golden.dataset(name))
    return run(
        network(name).to(dtype),
        objective(name, weight_dtype),
        golden.state_dict(name) if state is None else state,
        torch.from_numpy(golden.image() if image is None else image).to(dtype),
        {task: torch.from_numpy(label).to(dtype) for task, label in labels.items()},
        info["optimizer"]["groups"][0]["lr_used"],
        info["optimizer"]["groups"][0]["weight_decay"],
    )
