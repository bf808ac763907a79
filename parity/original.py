"""Runs networks of the original repository, from a clone that the user has.

Nothing of it is part of this project, and we have not seen it: what is assumed of a clone is its public interface,

* `utils.config.create_config(environment yml, experiment yml)`, the configuration `p`,
* `utils.common_config.get_model(p)` and `get_criterion(p)`,
* the experiment files named in the manifest under `upstream_config`, relative to the clone.

Its packages are called `utils`, `models` and `losses`, and it wants old NumPy, downloaded weights and a GPU. It
therefore runs in a process of its own, which this module starts (`run_original`) and is:

    cd CLONE && PYTHONPATH=CLONE:ROOT_OF_THIS_PROJECT python -m parity.original NAME OUT.npz
"""

import contextlib
import dataclasses
import importlib
import inspect
import os
import subprocess
import sys
import tempfile
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
}
REMOVED_FROM_NUMPY = {"float": float, "int": int, "bool": bool, "object": object, "str": str, "complex": complex}
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
    losses = {key: float(value) for key, value in fields.pop("losses").items()}
    step_losses = fields.pop("step_losses")[""].tolist()
    return Run(**fields, losses=losses, step_losses=step_losses)


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
    """What every part of the original may need: aliases that NumPy has removed, and `cuda` calls that do nothing."""
    for alias, value in REMOVED_FROM_NUMPY.items():
        if alias not in vars(np):
            setattr(np, alias, value)
    for kind in (nn.Module, Tensor):
        kind.cuda = lambda self, *args, **kwargs: self


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


def build(name: str, folder: Path) -> tuple[nn.Module, Callable]:
    """A network of the original and its criterion.

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
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model.double(), criterion


def adapt_criterion(criterion: Callable, tasks: list[str]) -> Callable:
    """loss(outputs, labels), whether or not the criterion also wants the list of tasks."""
    called = criterion.forward if isinstance(criterion, nn.Module) else criterion
    if len(inspect.signature(called).parameters) > 2:
        return lambda outputs, labels: criterion(outputs, labels, tasks)
    return criterion


def without_features(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Intermediate features, which some networks return besides their predictions, are not compared."""
    return {k: x for k, x in outputs.items() if not any(part.startswith("features") for part in k.split("/"))}


def main(name: str, out: str) -> None:
    torch.set_num_threads(1)
    adapt_environment()
    with tempfile.TemporaryDirectory() as folder:
        model, criterion = build(name, Path(folder))
    state = golden.state_dict(name)
    model.load_state_dict({key: torch.from_numpy(x) for key, x in state.items()}, strict=True)
    result = run.run(
        model,
        adapt_criterion(criterion, golden.info(name)["tasks"]),
        run.optimizer(name, model),
        state,
        torch.from_numpy(golden.image()).double(),
        run.labels(name, torch.float64),
    )
    result.eval, result.train = without_features(result.eval), without_features(result.train)
    save(result, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
