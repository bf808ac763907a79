"""Recorded networks by name, and their runs."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mtl_jax.data import catalogue
from parity import golden
from parity.compare import Run, flatten
from parity.reference.baseline import MultiTask, SingleTask
from parity.reference.cross_stitch import CrossStitchNetwork
from parity.reference.deeplab import deeplab_head
from parity.reference.hrnet import Fusion, HRNet, HRNetHead, hrnet
from parity.reference.losses import Objective
from parity.reference.mtan import MTAN
from parity.reference.mtinet import MTINet
from parity.reference.nddr_cnn import NDDRCNN
from parity.reference.padnet import PADNet
from parity.reference.resnet import ResNet, resnet
from parity.reference.train_step import make_step


def backbone(name: str) -> nn.Module:
    """A backbone that was recorded by itself."""
    variant = name.removeprefix("backbone_")
    if variant.startswith("hrnet"):
        maps = hrnet(variant.removesuffix("_fuse"))
        return nn.Sequential(maps, Fusion(maps.channels)) if variant.endswith("_fuse") else maps
    dilated = variant.endswith("_dilated")
    return resnet(variant.removesuffix("_dilated"), dilated, num_classes=0 if dilated else 1000)


def head(backbone: HRNet | ResNet, num_outputs: int) -> nn.Module:
    """The head that belongs to a backbone."""
    if isinstance(backbone, HRNet):
        return HRNetHead(backbone.channels, num_outputs)
    return deeplab_head(backbone.channels["layer4"], num_outputs)


def network(name: str) -> nn.Module:
    """The network that was recorded under a name, with torch's default initialisation and without dropout.

    Raises:
        ValueError: there is no twin of its method.
    """
    if name.startswith("backbone_"):
        return backbone(name)
    info = golden.info(name)
    method = "single_task" if info["setup"] == "single_task" else info["model"]
    tasks, aux_tasks = info["tasks"], info["auxiliary_tasks"] or ()
    outputs = catalogue.get(golden.dataset(name)).num_logits([*tasks, *aux_tasks])
    return assemble(method, info["backbone"], tasks, aux_tasks, outputs, golden.fusion(name))


def assemble(
    method: str,
    backbone_name: str,
    tasks: Sequence[str],
    aux_tasks: Sequence[str],
    outputs: Mapping[str, int],
    fusion: tuple[float, float] | None,
) -> nn.Module:
    """The twin of a network, without dropout.

    Args:
        method: key of `mtl_jax.models.MODELS`.
        backbone_name: an HRNet, or a ResNet, which is dilated.
        tasks: main tasks.
        aux_tasks: of intermediate predictions.
        outputs: {task: logit channels}.
        fusion: (alpha, beta) of cross-stitch and NDDR-CNN.

    Raises:
        ValueError: there is no twin of the method.
    """
    is_hrnet = backbone_name.startswith("hrnet")

    def build() -> HRNet | ResNet:
        return hrnet(backbone_name) if is_hrnet else resnet(backbone_name, dilated=True)

    def heads(backbone: HRNet | ResNet) -> dict[str, nn.Module]:
        return {task: head(backbone, outputs[task]) for task in tasks}

    first = build()
    match method:
        case "single_task":
            return SingleTask(first, tasks[0], head(first, outputs[tasks[0]]))
        case "baseline":
            return MultiTask(first, heads(first))
        case "mtan":
            return MTAN(first, heads(first))
        case "cross_stitch" | "nddr_cnn":
            backbones = {task: build() if i else first for i, task in enumerate(tasks)}
            model = CrossStitchNetwork if method == "cross_stitch" else NDDRCNN
            return model(backbones, heads(first), *fusion)
        case "pad_net":
            fused = nn.Sequential(first, Fusion(first.channels))
            return PADNet(fused, sum(first.channels), tasks, aux_tasks, outputs)
        case "mti_net":
            return MTINet(first, first.channels, tasks, aux_tasks, outputs)
        case _:
            raise ValueError(f"there is no twin of the method {method!r}")


def objective(name: str, weight_dtype: torch.dtype | None = None) -> Objective:
    """The objective of a recorded network; a single task has the weight 1."""
    info = golden.info(name)
    weights = info["loss_weights"] or dict.fromkeys(info["tasks"], 1.0)
    return Objective(info["tasks"], info["auxiliary_tasks"] or (), weights, weight_dtype)


def optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """The recorded optimiser, with the recorded groups of parameters and the rates that were in effect."""
    recorded = golden.info(name)["optimizer"]
    names, parameters = zip(*model.named_parameters(), strict=True)
    groups = []
    for group in recorded["groups"]:
        start = names.index(group["first_param"])
        stop = start + group["n_params"]
        if names[stop - 1] != group["last_param"]:
            raise ValueError(f"{name}: a group of parameters ends with {names[stop - 1]}, not {group['last_param']}")
        options = {key: group[key] for key in ("momentum", "betas", "eps", "weight_decay") if key in group}
        groups.append({"params": parameters[start:stop], "lr": group["lr_used"], **options})
    # Fused: without it the temporary arrays of 80 million parameters take longer than the network.
    return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[recorded["name"]](groups, fused=True)


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


def labels(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The labels of a recorded network's tasks, `[2, C, 64, 96]`."""
    info = golden.info(name)
    arrays = golden.targets((*info["tasks"], *(info["auxiliary_tasks"] or ())), golden.dataset(name))
    return {task: torch.from_numpy(label).to(dtype) for task, label in arrays.items()}


def run(
    model: nn.Module,
    loss: Callable[[Mapping, Mapping[str, Tensor]], Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, np.ndarray],
    image: Tensor,
    labels: Mapping[str, Tensor],
    steps: int = 3,
) -> Run:
    """Evaluates and trains, both from `state`; the gradient is that of the first step.

    Args:
        loss: outputs and labels to named losses with a `total`.
        optimizer: of the model's parameters, not used before.
        steps: how many optimiser steps on this batch.
    """
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
    optimizer.step()  # the first one: its gradient is the one above
    step = make_step(model, loss, optimizer)
    step_losses = [losses["total"].item(), *(step(image, labels)["total"].item() for _ in range(steps - 1))]
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
    with torch.device("meta"):  # without initial values: they are loaded
        model = network(name).to(dtype)
    model.to_empty(device="cpu")
    return run(
        model,
        objective(name, weight_dtype),
        optimizer(name, model),
        golden.state_dict(name) if state is None else state,
        torch.from_numpy(golden.image() if image is None else image).to(dtype),
        labels(name, dtype),
    )
