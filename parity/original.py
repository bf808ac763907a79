"""Runs networks and meters of the original repository, from a clone that the user has.

Nothing of it is part of this project, and we have not seen it: what is assumed of a clone is its public interface,

* `utils.config.create_config(environment yml, experiment yml)`, the configuration `p`,
* `utils.common_config.get_model(p)` and `get_criterion(p)`,
* `utils.utils.get_output(logits, task)`, the predictions as the meters take them,
* `evaluation.evaluate_utils.PerformanceMeter(p)` with `update({task: prediction}, {task: label})` and
  `get_score(verbose)`, which returns {task: {name: score}},
* the experiment files named in the manifest under `upstream_config`, relative to the clone.

Its packages are called `utils`, `models`, `losses` and `evaluation`, and it wants old NumPy, old PyTorch, downloaded
weights and a GPU. It therefore runs in a process of its own, which this module starts (`run_original`) and is:

    cd CLONE && PYTHONPATH=CLONE:ROOT_OF_THIS_PROJECT python -m parity.original NAME OUT.npz
"""

import collections.abc
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
import tempfile
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from parity import golden
from parity.compare import Run
from parity.reference import run

VARIABLE = "MTL_REFERENCE_REPO"
INTERFACE = {
    "create_config": "utils.config",
    "get_model": "utils.common_config",
    "get_criterion": "utils.common_config",
    "get_output": "utils.utils",
    "PerformanceMeter": "evaluation.evaluate_utils",
}
REMOVED_FROM_NUMPY = {"float": float, "int": int, "bool": bool, "object": object, "str": str, "complex": complex}
# What PyTorch and torchvision had when the original was written; without a downloaded file no name has to be found.
REMOVED_MODULES: dict[str, dict[str, Any]] = {
    "torch._six": {"string_classes": (str, bytes), "int_classes": int, "container_abcs": collections.abc},
    "torchvision.models.utils": {"load_state_dict_from_url": lambda *args, **kwargs: defaultdict(dict)},
}
# The original transforms images with it. No image is read here, so that its place may be taken where it is missing or
# built for another PyTorch.
TORCHVISION = ("torchvision", "torchvision.models", "torchvision.transforms")
ROOT = Path(__file__).resolve().parents[1]


def save(result: Run, path: Path) -> None:
    """Writes a run to an .npz file."""
    arrays = {}
    for field in dataclasses.fields(Run):
        value = getattr(result, field.name)
        entries = value if isinstance(value, Mapping) else {"": value}
        arrays |= {f"{field.name}/{key}": x for key, x in entries.items()}
    np.savez(path, **arrays)


def load(path: Path) -> Run:
    """Reads what `save` wrote."""
    fields: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    with np.load(path) as arrays:
        for key, value in arrays.items():
            field, _, name = key.partition("/")
            fields[field][name] = value
    losses, scores = ({key: float(x) for key, x in fields.pop(name, {}).items()} for name in ("losses", "scores"))
    step_losses = fields.pop("step_losses")[""].tolist()
    return Run(**fields, losses=losses, scores=scores, step_losses=step_losses)


def run_original(clone: Path, name: str) -> Run:
    """The run of a recorded network, in float64 from the recorded weights, with the modules of a clone.

    Raises:
        RuntimeError: the clone could not be used; the message says what was looked for and ends with the process's
            own words.
    """
    clone = clone.resolve()
    paths = os.pathsep.join(map(str, (clone, ROOT)))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.npz"  # up to 2 GB
        process = subprocess.run(
            [sys.executable, "-m", "parity.original", name, str(out)],
            cwd=clone,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode or not out.exists():
            wanted = ", ".join(f"{module}.{attribute}" for attribute, module in INTERFACE.items())
            raise RuntimeError(
                f"{name} could not be run from the clone {clone} ({VARIABLE}). Looked for {wanted} and "
                f"{golden.info(name)['upstream_config']} there; it ended with\n{process.stderr[-4000:]}"
            )
        return load(out)


def adapt_environment() -> None:
    """Puts back what the original may need: names that NumPy, PyTorch and torchvision have removed.

    `cuda` calls do nothing.
    """
    for alias, value in REMOVED_FROM_NUMPY.items():
        if alias not in vars(np):
            setattr(np, alias, value)
    for kind in (nn.Module, Tensor):
        kind.cuda = lambda self, *args, **kwargs: self
    try:
        importlib.import_module("torchvision.transforms")
    except (ImportError, RuntimeError):  # missing, or built for another PyTorch
        for name in list(sys.modules):
            if name.partition(".")[0] == "torchvision":
                del sys.modules[name]
        for name in TORCHVISION:
            sys.modules[name] = mock.MagicMock(name=name, __path__=[], __spec__=None)
    for name, attributes in REMOVED_MODULES.items():
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            module = types.ModuleType(name)
            vars(module).update(attributes)
            sys.modules[name] = module


@contextlib.contextmanager
def without_checkpoints() -> Iterator[None]:
    """No file is read, downloaded or loaded into a module: every weight is replaced afterwards."""

    def no_arrays(*args: Any, **kwargs: Any) -> dict:
        return defaultdict(dict)

    def no_loading(*args: Any, **kwargs: Any) -> tuple:
        return [], []  # keys that are missing, and unexpected ones

    targets = ("torch.load", "torch.hub.load_state_dict_from_url", "torch.utils.model_zoo.load_url")
    with contextlib.ExitStack() as stack:
        for target in targets:
            stack.enter_context(mock.patch(target, no_arrays))
        stack.enter_context(mock.patch.object(nn.Module, "load_state_dict", no_loading))
        yield


@dataclasses.dataclass
class Original:
    """What a clone makes of an experiment.

    Attributes:
        model: the network in float64, without dropout.
        criterion: its loss.
        predict: (logits `[B, C, H, W]`, task) -> predictions as the meter takes them.
        meter: the scores of all tasks.
    """

    model: nn.Module
    criterion: Callable
    predict: Callable[[Tensor, str], Tensor]
    meter: Any


def build(name: str, folder: Path) -> Original:
    """A network of the original with its criterion and its meter.

    Args:
        folder: for whatever the original writes when it reads its configuration.
    """
    environment = folder / "environment.yml"
    environment.write_text(f"root_dir: {folder}\n", encoding="utf-8")
    with without_checkpoints():
        api = {
            attribute: getattr(importlib.import_module(module), attribute) for attribute, module in INTERFACE.items()
        }
        config = api["create_config"](str(environment), golden.info(name)["upstream_config"])
        config["backbone_kwargs"]["pretrained"] = False
        model, criterion = api["get_model"](config), api["get_criterion"](config)
        meter = api["PerformanceMeter"](config)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return Original(model.double(), criterion, api["get_output"], meter)


def adapt_criterion(criterion: Callable, tasks: list[str]) -> Callable:
    """loss(outputs, labels), whether or not the criterion also wants the list of tasks."""
    called = criterion.forward if isinstance(criterion, nn.Module) else criterion
    if len(inspect.signature(called).parameters) > 2:
        return lambda outputs, labels: criterion(outputs, labels, tasks)
    return criterion


def without_features(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Intermediate features, which some networks return besides their predictions, are not compared."""
    return {k: x for k, x in outputs.items() if not any(part.startswith("features") for part in k.split("/"))}


def measure(original: Original, outputs: Mapping[str, np.ndarray], labels: Mapping[str, Tensor]) -> dict[str, float]:
    """{task/name: score} of outputs `[B, C, H, W]` of the main tasks, by the original's meter."""
    predictions = {task: original.predict(torch.from_numpy(outputs[task]), task) for task in labels}
    original.meter.update(predictions, {task: label.clone() for task, label in labels.items()})
    scores = original.meter.get_score(verbose=False)
    return {
        f"{task}/{key}": float(value) for task in labels for key, value in scores[task].items() if np.ndim(value) == 0
    }


def main(name: str, out: str) -> None:
    torch.set_num_threads(1)
    adapt_environment()
    with tempfile.TemporaryDirectory() as folder:
        original = build(name, Path(folder))
    state, tasks = golden.state_dict(name), golden.info(name)["tasks"]
    original.model.load_state_dict({key: torch.from_numpy(x) for key, x in state.items()}, strict=True)
    labels = run.labels(name, torch.float64)
    result = run.run(
        original.model,
        adapt_criterion(original.criterion, tasks),
        run.optimizer(name, original.model),
        state,
        torch.from_numpy(golden.image()).double(),
        labels,
    )
    result.eval, result.train = without_features(result.eval), without_features(result.train)
    result.scores = measure(original, result.eval, {task: labels[task] for task in tasks})
    save(result, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
