"""The files in configs/ against the table of published experiments, and through training."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, experiment, folders, models, recipes
from mtl_jax import config as configs
from mtl_jax.config import Config, validate
from mtl_jax.data import loader
from mtl_jax.data.catalogue import DATASETS
from mtl_jax.heads import DeepLabHead, HRNetHead
from mtl_jax.runtime import sharding
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_train_step
from tests.marks import slow
from tests.tiny import TinyBackbone

ROOT = Path(__file__).parents[1]

# The published experiments, written out by hand; n is the batch size, ep the epochs, a/b alpha and beta of cross-stitch
# and NDDR-CNN. Weight decay is 1e-4, momentum (of sgd) 0.9, the schedule poly in all. PAD-Net has heads of its own.
BACKBONE = {"h18": "hrnet_w18", "r18": "resnet18_dilated", "r50": "resnet50_dilated"}
HEAD = {"hrnet": HRNetHead, "deeplab": DeepLabHead, "own": None}
TASK = {"s": "semseg", "h": "human_parts", "a": "sal", "n": "normals", "e": "edge", "d": "depth"}  # in task order
TABLE = """
file:argument                                            model        on  head    tasks aux   n  ep  by   lr   a/b
nyud_single:task=semseg                                  single_task  h18 hrnet   s     s     8  100 adam 1e-4 -
nyud_single:task=depth                                   single_task  h18 hrnet   d     d     8  100 adam 1e-4 -
nyud_baseline                                            baseline     h18 hrnet   sd    sd    8  100 adam 1e-4 -
nyud_padnet                                              pad_net      h18 own     sd    sd    8  100 adam 1e-4 -
nyud_padnet:aux=edge+normals                             pad_net      h18 own     sd    sned  8  100 adam 1e-4 -
nyud_mtinet                                              mti_net      h18 hrnet   sd    sd    8  100 adam 1e-4 -
nyud_mtinet:aux=edge+normals                             mti_net      h18 hrnet   sd    sned  8  100 adam 1e-4 -
nyud_single:task=semseg,backbone=resnet50_dilated        single_task  r50 deeplab s     s     8  100 adam 1e-4 -
nyud_single:task=depth,backbone=resnet50_dilated         single_task  r50 deeplab d     d     8  100 adam 1e-4 -
nyud_baseline:backbone=resnet50_dilated                  baseline     r50 deeplab sd    sd    8  100 adam 1e-4 -
nyud_mtan                                                mtan         r50 deeplab sd    sd    8  100 adam 1e-4 -
nyud_cross_stitch                                        cross_stitch r50 deeplab sd    sd    8  50  sgd  1e-3 0.9/0.1
nyud_nddr_cnn                                            nddr_cnn     r50 deeplab sd    sd    8  50  sgd  1e-3 0.9/0.1
pascal_single:task=semseg                                single_task  h18 hrnet   s     s     8  60  sgd  1e-2 -
pascal_single:task=human_parts                           single_task  h18 hrnet   h     h     8  60  sgd  1e-2 -
pascal_single:task=sal                                   single_task  h18 hrnet   a     a     8  60  sgd  1e-2 -
pascal_single:task=normals                               single_task  h18 hrnet   n     n     8  60  sgd  1e-2 -
pascal_single:task=edge                                  single_task  h18 hrnet   e     e     8  60  sgd  1e-2 -
pascal_baseline                                          baseline     h18 hrnet   shane shane 8  100 adam 1e-4 -
pascal_padnet                                            pad_net      h18 own     shane shane 8  100 adam 1e-4 -
pascal_mtinet                                            mti_net      h18 hrnet   shane shane 8  100 adam 1e-4 -
pascal_baseline:tasks=small                              baseline     h18 hrnet   sha   sha   8  80  adam 1e-4 -
pascal_padnet:tasks=small                                pad_net      h18 own     sha   sha   8  80  adam 1e-4 -
pascal_mtinet:tasks=small                                mti_net      h18 hrnet   sha   sha   8  80  adam 1e-4 -
pascal_single:task=semseg,backbone=resnet18_dilated      single_task  r18 deeplab s     s     12 60  adam 1e-4 -
pascal_single:task=human_parts,backbone=resnet18_dilated single_task  r18 deeplab h     h     12 60  adam 1e-4 -
pascal_single:task=sal,backbone=resnet18_dilated         single_task  r18 deeplab a     a     12 60  adam 1e-4 -
pascal_single:task=normals,backbone=resnet18_dilated     single_task  r18 deeplab n     n     12 60  adam 1e-4 -
pascal_single:task=edge,backbone=resnet18_dilated        single_task  r18 deeplab e     e     12 60  adam 1e-4 -
pascal_baseline:backbone=resnet18_dilated                baseline     r18 deeplab shane shane 6  100 adam 1e-4 -
pascal_mtan                                              mtan         r18 deeplab shane shane 6  100 sgd  5e-3 -
pascal_cross_stitch                                      cross_stitch r18 deeplab shane shane 12 20  sgd  5e-3 0.8/0.05
pascal_nddr_cnn                                          nddr_cnn     r18 deeplab shane shane 12 20  sgd  5e-3 0.8/0.05
"""


class Experiment(NamedTuple):
    """A row of the table, spelled out."""

    spec: str
    model: str
    backbone: str
    head: type | None
    tasks: tuple[str, ...]
    aux_tasks: tuple[str, ...]
    batch_size: int
    epochs: int
    optimizer: str
    lr: float
    fusion: tuple[float, float] | None

    @classmethod
    def read(cls, line: str) -> "Experiment":
        spec, model, backbone, head, tasks, aux, batch_size, epochs, optimizer, lr, fusion = line.split()
        names = [tuple(TASK[letter] for letter in letters) for letters in (tasks, aux)]
        numbers = None if fusion == "-" else tuple(map(float, fusion.split("/")))
        return cls(
            spec,
            model,
            BACKBONE[backbone],
            HEAD[head],
            *names,
            int(batch_size),
            int(epochs),
            optimizer,
            float(lr),
            numbers,
        )

    @property
    def dataset(self) -> str:
        return self.spec.partition("_")[0]

    def losses(self, scales: int = 4) -> set[str]:
        """The names under which a training step reports, with a backbone of so many maps."""
        names = set(self.tasks)
        if self.model == "pad_net":
            names |= {f"deepsup_{task}" for task in self.aux_tasks}
        if self.model == "mti_net":
            names |= {f"scale_{scale}_{task}" for scale in range(scales) for task in self.aux_tasks}
        return {f"loss/{name}" for name in names | {"total"}} | {"gradient_norm", "parameter_norm"}


EXPERIMENTS = [Experiment.read(line) for line in TABLE.strip().splitlines()[1:]]
# Recipes of other experiments, which have tests of their own.
OTHERS = {"demo", "folder", "nyud_dinov2", "pascal_dinov2", "nyud_invpt", "pascal_invpt"}
FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in OTHERS)
each_experiment = pytest.mark.parametrize("row", EXPERIMENTS, ids=lambda row: row.spec)
# Nearly every model, and every head and kind of loss, once, on backbones that are traced quickly.
TRACED = {
    "nyud_single:task=depth,backbone=resnet50_dilated",
    "pascal_baseline:backbone=resnet18_dilated",
    "nyud_mtan",
    "pascal_cross_stitch",
    "pascal_padnet",
    "nyud_mtinet:aux=edge+normals",
}


def test_there_are_33_experiments_in_14_files():
    assert len({row.spec for row in EXPERIMENTS}) == len(EXPERIMENTS) == 33
    assert {row.spec.partition(":")[0] for row in EXPERIMENTS} == set(FILES)
    assert len(FILES) == 14


@each_experiment
def test_every_experiment_is_its_row(row):
    config = validate(recipes.load(row.spec))
    assert (config.data.dataset, config.data.release) == (row.dataset, "astmt")
    assert configs.main_tasks(config) == row.tasks
    assert configs.aux_tasks(config) == row.aux_tasks
    assert (config.model.name, config.model.backbone, config.model.head) == (row.model, row.backbone, "")
    assert (config.train.batch_size, config.train.epochs) == (row.batch_size, row.epochs)
    optim = config.optim
    assert (optim.name, optim.lr, optim.weight_decay, optim.schedule) == (row.optimizer, row.lr, 1e-4, "poly")
    assert optim.momentum == 0.9
    assert optim.fusion_lr_multiplier == 100
    assert config.model.pretrained == "imagenet"
    assert config.train.eval_final_epochs == 10
    if row.fusion:
        options = models.options(config)
        assert (options.alpha, options.beta) == row.fusion
        assert options.init_single_task


@pytest.mark.parametrize("row", [row for row in EXPERIMENTS if row.dataset == "nyud"], ids=lambda row: row.spec)
@pytest.mark.parametrize("release", ["astmt", "survey"])
def test_both_releases_of_nyud_differ_in_nothing_else(row, release):
    separator = "," if ":" in row.spec else ":"
    config, default = recipes.load(f"{row.spec}{separator}release={release}"), recipes.load(row.spec)
    assert recipes.load(f"{row.spec}{separator}protocol={release}") == config  # the older name
    assert validate(config).data.release == release
    config.data.release = default.data.release
    assert config == default


@pytest.mark.parametrize("row", [row for row in EXPERIMENTS if row.fusion], ids=lambda row: row.spec)
def test_fusion_models_look_where_the_single_task_recipes_put_their_models(row):
    """The documented commands: --workdir runs/<data>_single_<backbone>_<task>."""
    pattern = recipes.load(row.spec).model.options["single_task"]
    assert pattern == f"runs/{row.dataset}_single_{row.backbone}_{{task}}"
    workdirs = (ROOT / "configs" / f"{row.dataset}_single.py").read_text(encoding="utf-8")
    assert any(f"--workdir {pattern.format(task=task)}" in workdirs for task in row.tasks)
    other = recipes.load(f"{row.spec}:backbone=resnet34_dilated").model
    assert other.options["single_task"] == f"runs/{row.dataset}_single_resnet34_dilated_{{task}}"


@pytest.mark.parametrize("backbone", ["hrnet_w48", "resnet34_dilated", "resnet101"])
@pytest.mark.parametrize("name", FILES)
def test_other_backbones_take_the_recipe_of_their_family(name, backbone):
    config = validate(recipes.load(f"{name}:backbone={backbone}"))
    assert config.model.backbone == backbone
    rows = [row for row in EXPERIMENTS if row.spec.startswith(name) and "small" not in row.spec]
    row = next((row for row in rows if row.backbone[:5] == backbone[:5]), rows[0])
    assert (config.train.batch_size, config.train.epochs) == (row.batch_size, row.epochs)
    assert (config.optim.name, config.optim.lr) == (row.optimizer, row.lr)


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7", "convnext_base"])
@pytest.mark.parametrize("name", FILES)
def test_backbones_without_a_published_experiment_take_the_recipe_of_resnets(name, backbone):
    config, resnet = (validate(recipes.load(f"{name}:backbone={other}")) for other in (backbone, "resnet50"))
    assert config.model.backbone == backbone
    assert (config.optim, config.train) == (resnet.optim, resnet.train)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nyud_single:task=foo", "task of the recipe is 'foo'; it may be 'semseg' or 'depth' or 'normals' or 'edge'"),
        (
            "pascal_single:task=depth",
            "task of the recipe is 'depth'; it may be 'semseg' or 'human_parts' or 'sal' or 'normals' or",
        ),
        *(
            (f"pascal_{name}:tasks=foo", "'foo'; it may be 'all' or 'small'")
            for name in ("baseline", "padnet", "mtinet")
        ),
        *((f"{n}:release=v1", "'v1'; it may be 'astmt' or 'survey'") for n in FILES if n.startswith("nyud")),
        *((f"{name}:foo=1", "'foo=1' is not one of this recipe's") for name in FILES),
        ("pascal_single:backbone=vgg16", "recipe for backbone 'vgg16'; .* begins with 'hrnet' or 'resnet'"),
        ("pascal_baseline:backbone=vgg16", "recipe for backbone 'vgg16'; .* begins with 'hrnet' or 'resnet'"),
        ("nyud_padnet:aux=edge+foo", "unknown task 'foo'; the tasks are semseg"),
        ("nyud_mtinet:aux=sal", "data set 'nyud' has no task sal; it has: semseg"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        validate(recipes.load(spec))


@pytest.mark.parametrize("name", FILES)
def test_unknown_backbones_are_refused_before_anything_starts(name):
    with pytest.raises(
        ValueError, match=r"unknown backbone 'resnet19'; the backbones are .*, hrnet_w18, .*resnet152_dilated"
    ):
        models.build(recipes.load(f"{name}:backbone=resnet19"))


@pytest.fixture(scope="module")
def batches(data_dir):
    """{data set: a batch of two 64x64 images with all labels, as the input pipeline delivers it}"""
    found = {}
    for dataset in (DATASETS[name] for name in sorted({row.dataset for row in EXPERIMENTS})):
        config = Config(configs.Data(dataset.name, dataset.tasks, builder=f"rendered_scenes/{dataset.name}_tiny"))
        config.data.data_dir = str(data_dir)
        run = experiment.make(config)
        source = run.open_split("train", dataset.tasks)
        found[dataset.name] = next(
            loader.train_batches(
                source,
                conventions=dataset.conventions,
                tasks=dataset.tasks,
                recipe=run.recipe,
                size=(64, 64),
                batch_size=2,
                seed=0,
            )
        )
    return found


def _training(row: Experiment, batches, make_state):
    """(step, state, batch) of an experiment, as `train.fit` makes them."""
    run = experiment.make(recipes.load(row.spec))
    tx = run.optimizer(steps_per_epoch=1)
    state = make_state(lambda: models.build(run.config), tx, sharding.make_mesh())
    step = make_train_step(state.graphdef, run.objective)
    batch = {key: value for key, value in batches[row.dataset].items() if key in {"image", "index", *row.aux_tasks}}
    return step, state, batch


def _shapes(arrays):
    leaves, _ = jax.tree.flatten_with_path(arrays)
    return {jax.tree_util.keystr(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}


def _replace_backbone(row, monkeypatch) -> int:
    """Puts a small network in the place of the backbone; the number of its maps."""
    monkeypatch.setitem(
        backbones.BACKBONES, row.backbone, lambda name, *, image_size, rngs: TinyBackbone(scales=2, rngs=rngs)
    )
    return 2


@pytest.mark.parametrize(
    "row", [row if row.spec in TRACED else slow(row) for row in EXPERIMENTS], ids=lambda row: row.spec
)
def test_a_training_step_can_be_traced(row, batches, monkeypatch):
    """Tracing HRNet takes seconds: once with every model; in the other rows something small takes its place."""
    scales = 4
    first = next(other for other in EXPERIMENTS if (other.model, other.backbone) == (row.model, row.backbone))
    if row.backbone.startswith("hrnet") and row is not first:
        scales = _replace_backbone(row, monkeypatch)
    step, state, batch = _training(row, batches, train_state.abstract)
    arrays, reported = jax.eval_shape(step, state.arrays, batch)
    assert set(reported) == row.losses(scales)
    assert _shapes(arrays) == _shapes(state.arrays)  # what a step returns, the next one and checkpoints take
    kinds = {type(module) for _, module in nnx.iter_modules(state.model())}
    assert kinds & {HRNetHead, DeepLabHead} == {row.head} - {None}


@pytest.mark.parametrize(
    "spec", ["pascal_baseline", slow("nyud_padnet"), slow("pascal_single:task=sal,backbone=resnet18_dilated")]
)
def test_a_training_step_runs(spec, batches, monkeypatch):
    row = next(row for row in EXPERIMENTS if row.spec == spec)
    if row.backbone.startswith("hrnet"):  # would compile for minutes
        _replace_backbone(row, monkeypatch)
    step, state, batch = _training(row, batches, train_state.create)
    _, reported = step(state.arrays, batch)
    assert set(reported) == row.losses()
    assert all(np.isfinite(value) for value in reported.values()), reported


@pytest.mark.slow
@each_experiment
def test_every_experiment_trains(row, data_dir, tmp_path):
    """An epoch by the command a user types, on the embedded data, with the recipe of the file."""
    name, _, argument = row.spec.partition(":")
    workdir = tmp_path / "run"
    command = [
        sys.executable,
        "scripts/train.py",
        f"--config=configs/{name}.py" + f":{argument}" * bool(argument),
        f"--workdir={workdir}",
        f"--config.data.builder=rendered_scenes/{row.dataset}_tiny",
        f"--config.data.data_dir={data_dir}",
        "--config.data.image_size=(64, 64)",
        "--config.data.num_workers=0",
        "--config.model.pretrained=",
        *["--config.model.options.init_single_task=False"] * bool(row.fusion),
        "--config.train.batch_size=2",  # the least with which the DeepLab head can train
        "--config.train.eval_batch_size=2",
        "--config.train.epochs=1",
        "--config.train.log_every=1",
    ]
    quickly = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # compiled in half of the time
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quickly)
    assert process.returncode == 0, process.stderr[-5000:]
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 7))  # 12 images
    for line in train:
        assert row.losses() <= set(line)
        assert all(math.isfinite(line[name]) for name in row.losses())
    (evaluation,) = [line for line in lines if line["kind"] == "eval"]
    assert {key.partition("/")[0] for key in evaluation} - {"step", "kind"} == set(row.tasks)
    assert folders.holds_checkpoint(workdir)
