"""Evaluates by the final protocol: predictions at original size, quantised, against untouched labels.

    python scripts/evaluate.py --workdir runs/nyud_mtinet
    python scripts/evaluate.py --workdir runs/nyud_mtinet --step latest --single_task runs/single --save_predictions out
    python scripts/evaluate.py --predictions DIR --dataset pascal --tasks semseg,edge --protocol invpt

Of a checkpoint, or of the files of any tool: DIR/TASK/ID.png (class ids; 0..255 for sal and edge; RGB = 255 (n + 1) / 2
for normals), DIR/depth/ID.mat (metres, key depth). Both ways give the same numbers. Writes results.json into the work
directory or DIR, for other checkpoints than the best results_STEP.json, for another protocol than the run's own
results_PROTOCOL.json, and prints a table.

An interrupted evaluation goes on where it was: with the same arguments no image is predicted, scored or matched again.
"""

from collections.abc import Iterator
from pathlib import Path

from absl import flags
from tqdm import tqdm

from mtl_jax import cli, experiment
from mtl_jax.config import Config, Data, main_tasks, num_channels, validate
from mtl_jax.data import catalogue
from mtl_jax.data.split import Split
from mtl_jax.evaluation import constant_baseline, predictions, result_files, scoring
from mtl_jax.evaluation.edge_scores import EdgeScores
from mtl_jax.evaluation.resume_log import ResumeLog
from mtl_jax.inference.restored import Restored
from mtl_jax.protocol import PROTOCOLS
from mtl_jax.tasks import TASKS

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of a training run")
_STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "instead of --workdir: folder with predictions of any tool")
_DATASET = flags.DEFINE_enum("dataset", None, list(catalogue.DATASETS), "of --predictions: what they belong to")
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

_FOR_RUNS, _FOR_FILES = ("step", "batch_size", "save_predictions"), ("dataset", "builder", "tasks", "manual_dir")
Images = Iterator[tuple[int, scoring.Predicted]]


def main() -> None:
    cli.enable_compilation_cache()
    _check_flags()
    out = Path(_WORKDIR.value or _PREDICTIONS.value or "")
    config = experiment.load_config(out) if _WORKDIR.value else _config_of_files(out)
    if _DATA_DIR.value is not None:
        config.data.data_dir = _DATA_DIR.value
    if _NUM_WORKERS.value is not None:
        config.data.num_workers = _NUM_WORKERS.value
    own = experiment.describe_protocol(config)
    if _PROTOCOL.value is not None:
        config.train.eval_protocol, config.train.depth_protocol = _PROTOCOL.value, ""
    names, rules = main_tasks(config), experiment.describe_protocol(config)
    path = out / result_files.file_name(_STEP.value, config.train.eval_protocol if rules != own else "")
    criteria = experiment.criteria(config, final=True)
    reference = result_files.read_single_task(_SINGLE_TASK.value, criteria, rules) if _SINGLE_TASK.value else None
    source = experiment.open_split(config, "val", names)
    run = Restored(config, out, _STEP.value) if _WORKDIR.value else None
    metrics = experiment.build_metrics(config, final=True)
    edges = None
    if "edge" in names:
        rule = experiment.dataset(config).edge_rule(config.train.eval_protocol)
        edges = EdgeScores(source, rule, store=out / "edge_counts.jsonl", num_workers=_NUM_WORKERS.value)
    origins = [run.fingerprint if run else predictions.stamp(out, names, name) for name in source.ids()]
    keys = scoring.keys(source, metrics, rules, origins)
    with ResumeLog(path.with_suffix(".partial"), keys) as progress:
        images = _predicted(run, source, progress) if run else _read(out, config, source, progress)
        bar = tqdm(images, "scoring", len(source), unit="image", initial=len(progress))
        scored = scoring.final(bar, source, metrics, config.data.dataset, edges, progress)
        checkpoint, step = (_STEP.value, run.step) if run else (None, None)
        content = result_files.make(
            scored.results, reference, criteria, checkpoint=checkpoint, step=step, protocol=rules
        )
        result_files.write(content, path)
        if _BOOTSTRAP.value:
            content["intervals"] = scored.bootstrap(_BOOTSTRAP.value)
        if _CONSTANT.value:
            train = experiment.open_split(config, "train", names)
            content["constant"] = constant_baseline.score(train, source, metrics, config.data.dataset)
        result_files.write(content, path)
        progress.delete()
    print(result_files.readable(content))


def _check_flags() -> None:
    if bool(_WORKDIR.value) == bool(_PREDICTIONS.value):
        raise ValueError("give either --workdir, a training run, or --predictions, a folder with files")
    given, foreign = ("--workdir", _FOR_FILES) if _WORKDIR.value else ("--predictions", _FOR_RUNS)
    if wrong := [f"--{name}" for name in foreign if flags.FLAGS[name].present]:
        raise ValueError(f"{', '.join(wrong)} cannot be given with {given}")


def _config_of_files(folder: Path) -> Config:
    """The configuration of files that come without one."""
    if not folder.is_dir():
        raise FileNotFoundError(f"--predictions: there is no folder {folder}")
    if (folder / experiment.CONFIG).exists():
        raise ValueError(f"--predictions: {folder} is the work directory of a run; give it as --workdir")
    if _DATASET.value is None:
        raise ValueError(f"--predictions needs --dataset: {', '.join(catalogue.DATASETS)}")
    dataset = catalogue.get(_DATASET.value)
    known = tuple(task for task in TASKS if dataset.has(task))
    names = tuple(_TASKS.value) or tuple(task for task in known if (folder / task).is_dir())
    if not names:
        raise ValueError(f"{folder} has no sub-folder of a task of {_DATASET.value}: {', '.join(known)}")
    data = Data(_DATASET.value, names, builder=_BUILDER.value, manual_dir=_MANUAL_DIR.value)
    return validate(experiment.resolve(Config(data)))


def _predicted(run: Restored, source: Split, progress: ResumeLog) -> Images:
    """What a checkpoint predicts; saved first where that is wanted."""
    if not _SAVE.value:
        return scoring.at_size(run.predict_split(source, _BATCH_SIZE.value, skip=progress))
    folder = Path(_SAVE.value)
    owner = {"model": run.fingerprint, "data": source.fingerprint()}
    predictions.claim(folder, owner, f"{run.workdir.resolve()}, step {run.step}")
    saved = {i for i, name in enumerate(source.ids()) if predictions.saved(folder, run.tasks, name)}
    images = run.predict_split(source, _BATCH_SIZE.value, skip=saved)
    bar = tqdm(images, "predicting", len(source), unit="image", initial=len(saved))
    scoring.save_predictions(bar, source, run.config.data.dataset, folder)
    return _read(folder, run.config, source, progress)


def _read(folder: Path, config: Config, source: Split, progress: ResumeLog) -> Images:
    channels = num_channels(config, main_tasks(config))
    return scoring.read_predictions(folder, source, channels, skip=progress)


if __name__ == "__main__":
    cli.run(main)
