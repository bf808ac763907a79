"""Evaluates by the final protocol: predictions at original size, quantised, against untouched labels.

    python scripts/evaluate.py --workdir runs/nyud_mtinet
    python scripts/evaluate.py --workdir runs/nyud_mtinet --step latest --single_task runs/single --save_predictions out
    python scripts/evaluate.py --predictions DIR --dataset pascal --tasks semseg,edge --protocol invpt

Of a checkpoint, or of the files of any tool: DIR/TASK/ID.png (class ids; 0..255 for sal and edge; RGB = 255 (n + 1) / 2
for normals), DIR/depth/ID.mat (metres, key depth). Both ways give the same numbers. Writes results.json into the work
directory, for other checkpoints than the best results_STEP.json, or into DIR, and prints a table.

An interrupted evaluation goes on where it was: images whose predictions are saved are not predicted again, and images
whose edges are matched are not matched again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from mtl_jax import cli, constant, evaluate, experiment, predictions, whole
from mtl_jax.config import Config, Data, main_tasks, num_channels, validate
from mtl_jax.data import datasets
from mtl_jax.data.datasets import Split
from mtl_jax.edge_scores import EdgeScores
from mtl_jax.protocol import PROTOCOLS
from mtl_jax.restore import Restored

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of a training run")
_STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "instead of --workdir: folder with predictions of any tool")
_DATASET = flags.DEFINE_enum("dataset", None, list(datasets.DATASETS), "of --predictions: what they belong to")
_BUILDER = flags.DEFINE_string("builder", "", "of --predictions: tfds name, by default the data set's own")
_TASKS = flags.DEFINE_list("tasks", [], "of --predictions: what to score, by default every task with a sub-folder")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", "", "of --predictions: the data set's original files; one's own folder")
_PROTOCOL = flags.DEFINE_enum("protocol", None, list(PROTOCOLS), "by default the run's own, and survey for others")
_SINGLE_TASK = flags.DEFINE_multi_string("single_task", [], "directory with results of single-task runs (repeatable)")
_SAVE = flags.DEFINE_string("save_predictions", None, "folder that receives every prediction as a file")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "images at a time; 0 = the run's own", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where built data sets live; by default where the run had them")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "processes that read images and match edges; by default the run's own, one for each core"
)
_BOOTSTRAP = flags.DEFINE_integer(
    "bootstrap", 0, "also confidence intervals over the images, from so many resamples, for example 1000", lower_bound=0
)
_CONSTANT = flags.DEFINE_bool("constant_baseline", False, "also score the best constant prediction, for comparison")

_MANIFEST = "predictions.json"


def main() -> None:
    cli.enable_compilation_cache()
    if bool(_WORKDIR.value) == bool(_PREDICTIONS.value):
        raise ValueError("give either --workdir, a training run, or --predictions, a folder with files")
    out = Path(_WORKDIR.value or _PREDICTIONS.value or "")
    config = experiment.load_config(out) if _WORKDIR.value else _config_of_files(out)
    if _DATA_DIR.value is not None:
        config.data.data_dir = _DATA_DIR.value
    if _NUM_WORKERS.value is not None:
        config.data.num_workers = _NUM_WORKERS.value
    if _PROTOCOL.value is not None:
        config.train.eval_protocol, config.train.depth_protocol = _PROTOCOL.value, ""
    names, rules = main_tasks(config), experiment.describe_protocol(config)
    criteria = experiment.criteria(config, final=True)
    reference = None
    if _SINGLE_TASK.value:
        reference = evaluate.read_single_task(_SINGLE_TASK.value, criteria, rules)
    source = experiment.open_split(config, "val", names)
    step, images = _predicted(config, source, out) if _WORKDIR.value else (None, _from_files(config, source, out))
    metrics = experiment.build_metrics(config, final=True)
    edges = None
    if "edge" in names:
        rule = experiment.protocol(config).edges[config.data.dataset]
        store = out / "edge_counts.jsonl"
        edges = EdgeScores(source, config.data.dataset, rule, store=store, num_workers=_NUM_WORKERS.value)
    progress = tqdm(images, "scoring", len(source), unit="image")
    scored = evaluate.final(progress, source, metrics, config.data.dataset, edges)
    intervals = scored.bootstrap(_BOOTSTRAP.value) if _BOOTSTRAP.value else None
    report = evaluate.report(scored.results, reference, criteria, step=step, protocol=rules, intervals=intervals)
    if _CONSTANT.value:
        train = experiment.open_split(config, "train", names)
        report["constant"] = constant.score(train, source, metrics, config.data.dataset)
    evaluate.write_report(report, out, _STEP.value if _WORKDIR.value else "best")
    print(evaluate.readable(report))


def _config_of_files(folder: Path) -> Config:
    """The configuration of files that come without one."""
    if not folder.is_dir():
        raise FileNotFoundError(f"--predictions: there is no folder {folder}")
    if _DATASET.value is None:
        raise ValueError(f"--predictions needs --dataset: {', '.join(datasets.DATASETS)}")
    known = datasets.get(_DATASET.value).tasks
    names = tuple(_TASKS.value) or tuple(task for task in known if (folder / task).is_dir())
    if not names:
        raise ValueError(f"{folder} has no sub-folder of a task of {_DATASET.value}: {', '.join(known)}")
    data = Data(_DATASET.value, names, builder=_BUILDER.value, manual_dir=_MANUAL_DIR.value)
    return validate(experiment.resolve(Config(data)))


def _predicted(config: Config, source: Split, workdir: Path) -> tuple[int, Iterator[tuple[int, Any]]]:
    """(the checkpoint's step, its predictions), which are saved first where that is wanted."""
    run = Restored(config, workdir, _STEP.value)
    if not _SAVE.value:
        return run.step, run.predict_split(source, _BATCH_SIZE.value)
    folder = Path(_SAVE.value)
    _claim(folder, {"workdir": str(workdir.resolve()), "step": run.step, "data": source.name})
    left = [i for i, name in enumerate(source.ids()) if not predictions.saved(folder, run.tasks, name)]
    if left:
        rest = source.subset(left)
        images = tqdm(run.predict_split(rest, _BATCH_SIZE.value), "predicting", len(rest), unit="image")
        evaluate.save_predictions(images, rest, run.tasks, config.data.dataset, folder)
    return run.step, _from_files(config, source, folder)


def _from_files(config: Config, source: Split, folder: Path) -> Iterator[tuple[int, Any]]:
    channels = num_channels(config, main_tasks(config))
    return evaluate.read_predictions(folder, source, channels, config.data.dataset)


def _claim(folder: Path, content: dict[str, Any]) -> None:
    """Notes whose predictions a folder holds, and refuses one with those of another model."""
    path = folder / _MANIFEST
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} cannot be read ({error}); delete {folder}, or give another folder") from error
        if found != content:
            raise ValueError(f"{folder} holds the predictions of {found}, these are of {content}; give another folder")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and has no {_MANIFEST}: whose are the files? Give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    whole.write(path, json.dumps(content) + "\n")


if __name__ == "__main__":
    cli.run(main)
