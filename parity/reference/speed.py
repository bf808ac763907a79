"""The twin of a configuration at work in the ways PyTorch users run it, for timing and
for learning curves.

Ways are "eager" (NCHW), "channels_last", "compile" and "compile_channels_last". With a bfloat16 configuration the
forward pass runs under autocast. On a GPU float32 convolutions and matrix products round their factors to TF32, and
cuDNN tries its algorithms out: what XLA does by itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_jax import experiment, images, models
from mtl_jax import tasks as task_table
from mtl_jax.config import Config, all_tasks, aux_tasks, main_tasks, num_channels
from mtl_jax.labels import ClassIds, Foreground, LabelKind, RealValues, UnitVectors
from parity.reference import metrics, run
from parity.reference.losses import Objective
from parity.reference.train_step import make_step

Arrays = Mapping[str, np.ndarray]


class _Program:
    """A model on the device, and what it needs there.

    Args:
        config: model and precision.
        weights: {key of the state_dict: array}, every one but counters.
        way: see above.
    """

    def __init__(self, config: Config, weights: Arrays, way: str):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self.way, self._held, self._peak = way, 0, 0
        self.autocast = torch.autocast(self.device, torch.bfloat16, enabled=config.model.dtype == "bfloat16")
        channels = num_channels(config, all_tasks(config))
        backbone = config.model.backbone.removesuffix("_dilated")
        options = models.options(config)
        fusion = (getattr(options, "alpha", None), getattr(options, "beta", None))
        with self.counted():
            model = run.assemble(config.model.name, backbone, main_tasks(config), aux_tasks(config), channels, fusion)
            run.load(model, weights)
            self.model = model.to(self.device)
            if way.endswith("channels_last"):
                self.model = self.model.to(memory_format=torch.channels_last)

    @property
    def memory(self) -> int | None:
        """Most bytes that it has held on a GPU, beside other programs of this process; None on the host."""
        return self._peak if self.device == "cuda" else None

    @contextmanager
    def counted(self) -> Iterator[None]:
        """What happens inside counts as this program's memory."""
        if self.device != "cuda":
            yield
            return
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield
        self._peak = max(self._peak, self._held + torch.cuda.max_memory_allocated() - before)
        self._held += torch.cuda.memory_allocated() - before

    def place(self, array: np.ndarray) -> Tensor:
        """`[B, H, W, C]` as `[B, C, H, W]` on the device, in the way's memory format."""
        tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last) if self.way.endswith("channels_last") else tensor


class _Trainer(_Program):
    """A model with its loss and optimiser. The optimiser is fused, not compiled."""

    def __init__(self, config: Config, weights: Arrays, way: str):
        super().__init__(config, weights, way)
        self._tasks = all_tasks(config)
        loss_weights = experiment.make(config).objective.weights
        loss: Any = Objective(main_tasks(config), aux_tasks(config), {task: loss_weights[task] for task in self._tasks})
        self._optimizer = _optimizer(config, self.model)
        if way.startswith("compile"):
            self.model.compile()
            loss = torch.compile(loss)
        self._step = make_step(self.model, loss, self._optimizer)

    def labels(self, batch: Arrays) -> dict[str, Tensor]:
        """{task: label `[B, C, H, W]`} on the device."""
        return {task: self.place(batch[task]).contiguous() for task in self._tasks}


class TrainStep(_Trainer):
    """The counterpart of `benchmarks.train.TrainStep`."""

    def __init__(self, config: Config, weights: Arrays, batch: Arrays, way: str):
        super().__init__(config, weights, way)
        with self.counted():
            self._image, self._labels = self.place(batch["image"]), self.labels(batch)

    def __call__(self, steps: int = 1) -> float:
        with self.counted(), self.autocast:
            for _ in range(steps):
                losses = self._step(self._image, self._labels)
            return float(losses["total"])


class Learner(_Trainer):
    """The counterpart of `benchmarks.learn.OurLearner`."""

    def __init__(self, config: Config, weights: Arrays, way: str):
        super().__init__(config, weights, way)
        self._predictor = Predictor(self.model, main_tasks(config)).to(self.device)
        self._criteria = experiment.make(config).streaming_criteria
        self._scorers = _scorers(config)

    def step(self, batch: Arrays, rate: float) -> float:
        """Takes a training step at a learning rate, and returns the loss before it."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        with self.autocast:
            losses = self._step(self._predictor.normalise(self.place(batch["image"])), self.labels(batch))
        return float(losses["total"])

    def scores(self, batches: Iterable[Arrays]) -> dict[str, float]:
        """{task: deciding score} of the valid images, at the size of the network."""
        pairs: dict[str, list] = {task: [] for task in self._scorers}
        self._predictor.eval()
        for batch in batches:
            with torch.inference_mode(), self.autocast:
                predictions = self._predictor(self.place(batch["image"]))
            for task, prediction in predictions.items():
                valid = batch["valid"]
                pairs[task] += zip(prediction.cpu().numpy()[valid], batch[task][valid], strict=True)
        return {task: scorer(pairs[task])[self._criteria[task].name] for task, scorer in self._scorers.items()}


class PredictStep(_Program):
    """The counterpart of `benchmarks.infer.PredictStep`; compiled from the bytes to the predictions."""

    def __init__(self, config: Config, weights: Arrays, batch: Arrays, way: str):
        super().__init__(config, weights, way)
        with self.counted():
            self._image = self.place(batch["image"])
            self._predictor = Predictor(self.model, main_tasks(config)).to(self.device).eval()
        if way.startswith("compile"):
            self._predictor.compile()

    def predictions(self) -> dict[str, Tensor]:
        """{task: prediction `[B, H, W, C]`, of class maps `[B, H, W]`} on the device."""
        with self.counted(), torch.inference_mode(), self.autocast:
            return self._predictor(self._image)

    def __call__(self, steps: int = 1) -> dict[str, Tensor]:
        for _ in range(steps):
            predictions = self.predictions()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return predictions


class EvalStep(PredictStep):
    """The counterpart of `benchmarks.eval.EvalStep`, with the scores of parity/reference/metrics.py."""

    def __init__(self, config: Config, weights: Arrays, batch: Arrays, way: str):
        super().__init__(config, weights, batch, way)
        self._labels = {task: batch[task] for task in main_tasks(config)}
        self._criteria = experiment.make(config).streaming_criteria
        self._scorers = _scorers(config)

    def __call__(self, steps: int = 1) -> dict[str, float]:
        for _ in range(steps):
            scores = {}
            for task, prediction in self.predictions().items():
                pairs = zip(prediction.cpu().numpy(), self._labels[task], strict=True)
                scores[task] = self._scorers[task](pairs)[self._criteria[task].name]
        return scores


class Predictor(nn.Module):
    """Bytes `[B, 3, H, W]` -> {task: prediction}: `evaluation.predictions.postprocess` of the network's outputs."""

    def __init__(self, network: nn.Module, tasks: tuple[str, ...]):
        super().__init__()
        self.network = network
        self.activations = {task: _ACTIVATIONS[type(task_table.get(task).kind)] for task in tasks}
        for name, value in {"mean": images.MEAN, "std": images.STD}.items():
            self.register_buffer(name, torch.from_numpy(value.reshape(3, 1, 1)), persistent=False)

    def normalise(self, image: Tensor) -> Tensor:
        """Bytes to the network's input, as `mtl_jax.images.normalise`."""
        return (image.float() / 255 - self.mean) / self.std

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        outputs = self.network(self.normalise(image))
        return {
            task: activation(outputs[task].permute(0, 2, 3, 1).float()) for task, activation in self.activations.items()
        }


# {kind of label: logits `[B, H, W, C]` to predictions}
_ACTIVATIONS: dict[type[LabelKind], Callable[[Tensor], Tensor]] = {
    ClassIds: lambda logits: logits.argmax(dim=-1).int(),
    Foreground: lambda logits: 255 * logits.sigmoid(),
    UnitVectors: lambda logits: 255 * (nn.functional.normalize(logits, dim=-1) + 1) / 2,
    RealValues: lambda logits: logits,
}


def _scorers(config: Config) -> dict[str, Callable[[Any], dict]]:
    """{task: function of (prediction, label) of images that returns their scores}, as while training."""
    depth = partial(metrics.depth, protocol=experiment.make(config).protocol.depth)
    functions = {"saliency": metrics.saliency, "normals": metrics.normals, "edge": metrics.edge, "depth": depth}
    return {
        task: functions.get(task_table.get(task).metric, partial(metrics.segmentation, num_classes=classes))
        for task, classes in num_channels(config, main_tasks(config)).items()
    }


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    options, groups = config.optim, {False: [], True: []}
    for name, parameter in model.named_parameters():
        groups[name.split(".")[0] in models.fusions(config)].append(parameter)
    multipliers = {False: 1.0, True: options.fusion_lr_multiplier}
    listed = [
        {"params": parameters, "lr": options.lr * multipliers[fusion], "multiplier": multipliers[fusion]}
        for fusion, parameters in groups.items()
        if parameters
    ]
    if options.name == "adam":
        return torch.optim.Adam(listed, weight_decay=options.weight_decay, fused=True)
    return torch.optim.SGD(listed, momentum=options.momentum, weight_decay=options.weight_decay, fused=True)
