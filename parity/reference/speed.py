"""A training step of the twin of a configuration, run in the ways PyTorch users do, for timing."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from mtl_jax import experiment, models
from mtl_jax.config import Config, all_tasks, main_tasks, num_channels
from parity.reference import run
from parity.reference.losses import Objective
from parity.reference.train_step import make_step


class TrainStep:
    """The counterpart of `mtl_jax.benchmark.train.TrainStep`: every call is a training step and returns its loss.

    Args:
        config: model, optimiser, precision and sizes.
        weights: {key of the state_dict: array}, every one but counters.
        batch: NHWC arrays by name.
        way: "eager" (NCHW), "channels_last", "compile" or "compile_channels_last"; the optimiser is
            fused, not compiled.
    """

    def __init__(self, config: Config, weights: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray], way: str):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tasks, aux_tasks = main_tasks(config), config.data.aux_tasks
        channels = num_channels(config, all_tasks(config))
        backbone = config.model.backbone.removesuffix("_dilated")
        fusion = (config.model.alpha, config.model.beta)
        model = run.assemble(config.model.name, backbone, tasks, aux_tasks, channels, fusion)
        run.load(model, weights)
        model = model.to(device)
        labels = {
            name: torch.from_numpy(np.ascontiguousarray(value.transpose(0, 3, 1, 2))).to(device)
            for name, value in batch.items()
        }
        image = labels.pop("image")
        if way.endswith("channels_last"):
            model = model.to(memory_format=torch.channels_last)
            image = image.contiguous(memory_format=torch.channels_last)
        weights_of_losses = experiment.build_objective(config).weights
        loss = Objective(tasks, aux_tasks, {task: weights_of_losses[task] for task in all_tasks(config)})
        optimizer = _optimizer(config, model)
        if way.startswith("compile"):
            model.compile()
            loss = torch.compile(loss)
        self._step, self._image, self._labels = make_step(model, loss, optimizer), image, labels
        self._autocast = torch.autocast(device, torch.bfloat16, enabled=config.model.dtype == "bfloat16")

    def __call__(self) -> float:
        with self._autocast:
            return float(self._step(self._image, self._labels)["total"])


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    options, groups = config.optim, {False: [], True: []}
    for name, parameter in model.named_parameters():
        groups[name.split(".")[0] in models.FUSIONS].append(parameter)
    rates = {False: options.lr, True: options.lr * options.fusion_lr_multiplier}
    listed = [{"params": parameters, "lr": rates[fusion]} for fusion, parameters in groups.items() if parameters]
    if options.name == "adam":
        return torch.optim.Adam(listed, weight_decay=options.weight_decay, fused=True)
    return torch.optim.SGD(listed, momentum=options.momentum, weight_decay=options.weight_decay, fused=True)
