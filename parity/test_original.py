"""The twin and the Flax networks against the original modules, live, where a clone of the repository is given."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from mtl_jax import metrics
from mtl_jax import tasks as task_table
from parity import golden, report
from parity.compare import QUANTITIES, Live, float64_bounds
from parity.flax_run import recorded_batch, recorded_network, scores
from parity.interpreter import interpret
from tests.marks import slow

torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)

from parity import original  # noqa: E402
from parity.reference import run  # noqa: E402

CLONE = os.environ.get(original.VARIABLE)
NETWORKS = [name for name in golden.manifest()["models"] if not name.startswith("backbone_")]


pytestmark = pytest.mark.usefixtures("torch")  # single-threaded


def twin_run(name):
    """In float64; saliency's weight is float32 in the original."""
    return run.run_network(name, torch.float64, weight_dtype=torch.float32)


def flax_run(name):
    with jax.enable_x64(True):
        network = recorded_network(name, np.float64, interpret)
        return network.run(golden.state_dict(name), recorded_batch(name))


# The scores that mean the same in both, and how much they may differ: the original computes angles in float32. Its rmse
# of normals is the mean, and its loss of edges applies the sigmoid twice (`test_metrics` shows both sides).
SCORES = {
    "semseg": {"mIoU": 1e-6},
    "human_parts": {"mIoU": 1e-6},
    "sal": {"mIoU": 1e-6, "maxF": 1e-6},
    "normals": {"mean": 1e-3, "11.25": 1e-3, "22.5": 1e-3, "30": 1e-3},
    "depth": {"rmse": 1e-5, "log_rmse": 1e-5},
    "edge": {},
}


def our_scores(name, outputs):
    """{"task/score": value} of outputs `[B, C, H, W]` by our streaming metrics; depth over all pixels, as there."""
    tasks = golden.info(name)["tasks"]
    streaming = {
        task: metrics.build(
            task_table.get(task).metric, num_classes=outputs[task].shape[1], depth_protocol="pixel", final=False
        )
        for task in tasks
    }
    found = scores(outputs, golden.batch(tuple(tasks), golden.dataset(name)), streaming)
    return {f"{task}/{key}": found[f"{task}/{key}"] for task in tasks for key in SCORES[task]}


def assert_same(name, reference, **runs):
    """Every element of every output, statistic, gradient and parameter, and the scores, of the twin and in Flax."""
    failures = []
    for key, score in our_scores(name, reference.eval).items():
        bound = SCORES[key.partition("/")[0]][key.partition("/")[2]]
        if not report.record(f"metrics {name} / original", key, abs(score - reference.scores[key])) < bound:
            failures.append(f"score {key}: {score}, of the original {reference.scores[key]}")
    for who, ours in runs.items():
        bounds = float64_bounds(name, original=who == "flax")
        for quantity, measure in QUANTITIES.items():
            deviation = report.record(f"{who} float64 {name} / original", quantity, measure(Live(reference), ours))
            if not deviation < bounds[quantity]:
                failures.append(f"{who}, {quantity}: {deviation:.1e}, allowed {bounds[quantity]:.0e}")
    assert not failures


@pytest.mark.skipif(
    not CLONE, reason=f"set {original.VARIABLE} to a clone of the original repository to compare with its modules"
)
@pytest.mark.parametrize("name", NETWORKS)
def test_original(name):
    assert_same(name, original.run_original(Path(CLONE), name), twin=twin_run(name), flax=flax_run(name))


# A clone that is none: the twin behind the interface of the original, with its habits, as far as they matter here.
STAND_IN = {
    "utils/__init__.py": "",
    "evaluation/__init__.py": "",
    "models/__init__.py": "",
    "losses/__init__.py": "",
    "utils/config.py": """
import pathlib

from easydict import EasyDict

def create_config(env_file, exp_file):
    root = pathlib.Path(env_file).read_text().split()[1]
    (pathlib.Path(root) / "results").mkdir()
    name = pathlib.Path(exp_file).read_text().split()[1]
    return EasyDict({"name": name, "backbone_kwargs": {"pretrained": True}})
""",
    "utils/utils.py": """
import torch

def get_output(output, task):
    output = output.permute(0, 2, 3, 1)
    if task in ("semseg", "human_parts"):
        return output.argmax(dim=3)
    if task in ("sal", "edge"):
        return (255 / (1 + torch.exp(-output))).squeeze()
    return (torch.nn.functional.normalize(output, dim=3) + 1) * 255 / 2 if task == "normals" else output
""",
    "evaluation/evaluate_utils.py": """
from parity import golden
from parity.reference import metrics

def segmentation(images):
    return metrics.segmentation(images, 40)

METERS = {"semseg": segmentation, "depth": lambda images: metrics.depth(images, "pixel")}

class PerformanceMeter:
    def __init__(self, p):
        self.images = {task: [] for task in golden.info(p["name"])["tasks"]}

    def update(self, pred, gt):
        for task, images in self.images.items():
            images += zip(pred[task].numpy(), gt[task].permute(0, 2, 3, 1).numpy().copy())
            gt[task].zero_()  # the labels are the meter's own

    def get_score(self, verbose=True):
        return {task: METERS[task](images) for task, images in self.images.items()}
""",
    "utils/common_config.py": """
import numpy as np
import torch
from torch._six import int_classes, string_classes
from torch.hub import load_state_dict_from_url
from torchvision import transforms
from torchvision.models.utils import load_state_dict_from_url

import losses
import models
from parity.reference import run
from parity.reference.hrnet import HRNetHead

KIND = np.float, np.int, np.bool

def get_model(p):
    assert not p.backbone_kwargs.pretrained
    assert transforms.Compose([transforms.ToTensor()]) and isinstance("", string_classes) and isinstance(1, int_classes)
    network = run.network(p["name"]).cuda()
    network.load_state_dict(torch.load("single_task_checkpoint.pth"))
    network.load_state_dict(load_state_dict_from_url("https://example.org/weights.pth"))
    for module in list(network.modules()):
        if isinstance(module, HRNetHead):
            module.last_layer.append(torch.nn.Dropout(0.5))
    network.register_forward_hook(lambda module, args, out: {**out, "features_depth": args[0]})
    return network

def get_criterion(p):
    loss = run.objective(p["name"], torch.float32)

    def of_one_task(pred, gt):
        return loss(pred, gt)

    def of_several(pred, gt, tasks):
        assert set(tasks) <= set(gt)
        return loss(pred, gt)

    return of_one_task if p["name"].startswith("single") else of_several
""",
}


@pytest.fixture
def stand_in(tmp_path):
    """Writes the stand-in, with the experiment file of a network."""

    def write(name):
        experiment = golden.info(name)["upstream_config"]
        for path, text in {**STAND_IN, experiment: f"name: {name}\n"}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize("name", [slow("single_hrnet18_depth"), "baseline_nyud_hrnet18"])
def test_stand_in(stand_in, name):
    """All of the way through the other process and back."""
    assert_same(name, original.run_original(stand_in(name), name), twin=twin_run(name))


def test_useless_clone(tmp_path):
    """The error names the clone, what was looked for there, and what the process said."""
    message = rf"(?s)clone {tmp_path} .*utils\.common_config\.get_model.*hrnet18/depth\.yml.*No module named 'utils'"
    with pytest.raises(RuntimeError, match=message):
        original.run_original(tmp_path, "single_hrnet18_depth")


def test_runs_are_stored_exactly(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.standard_normal((2, 3)), "deep/b.c": rng.standard_normal(4)}
    result = original.Run(arrays, arrays, arrays, {"total": 0.1}, arrays, [0.1, 0.2], arrays, arrays, {"a/mIoU": 0.3})
    original.save(result, tmp_path / "run.npz")
    loaded = original.load(tmp_path / "run.npz")
    assert (loaded.losses, loaded.scores) == (result.losses, result.scores)
    assert loaded.step_losses == result.step_losses
    for field in ("eval", "train", "buffers", "gradients", "params_before", "params_after"):
        np.testing.assert_equal(getattr(loaded, field), arrays)
