"""Evaluation by the final protocol, of a run's checkpoint or of the files of any tool.

Predictions are scored at each image's original size, quantised, against untouched labels. An interrupted evaluation
goes on where it was: with the same arguments no image is predicted, scored or matched again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mtl_jax import experiment
from mtl_jax.config import Config, Data
from mtl_jax.data import catalogue
from mtl_jax.data.split import Split
from mtl_jax.evaluation import constant_baseline, predictions, result_files, scoring
from mtl_jax.evaluation.edge_scores import EdgeScores
from mtl_jax.evaluation.resume_log import ResumeLog
from mtl_jax.experiment import Experiment
from mtl_jax.inference.restored import Restored
from mtl_jax.tasks import TASKS

_Images = Iterator[tuple[int, scoring.Predicted]]


@dataclass(frozen=True)
class Options:
    """Options of an evaluation that runs and files share.

    Attributes:
        protocol: Evaluation protocol, a key of `mtl_jax.protocol.PROTOCOLS`; empty = the run's own, and survey for
            files.
        single_task: Directories with results of single-task runs, which the multi-task performance is relative to.
        data_dir: Folder of the built data sets; empty = the run's own, and ~/tensorflow_datasets for files.
        num_workers: Number of processes that read images and match edges; None = the run's own number for images, and
            one for each core for edges.
        bootstrap: Number of resamples of the images for confidence intervals; 0 = no intervals.
        constant_baseline: True to score the best constant prediction as well.
        split: Split of the images, "val" or another one that the data set has.
    """

    protocol: str = ""
    single_task: Sequence[str | Path] = ()
    data_dir: str = ""
    num_workers: int | None = None
    bootstrap: int = 0
    constant_baseline: bool = False
    split: str = result_files.SPLIT


def evaluate_run(
    workdir: str | Path,
    step: str = result_files.BEST,
    options: Options | None = None,
    *,
    weights: str = "",
    batch_size: int = 0,
    save_predictions: str | Path | None = None,
) -> result_files.Report:
    """Evaluates a run at one of its checkpoints, and returns the report.

    Writes the report into the work directory: results.json for the best checkpoint, with the weights that training
    evaluated, by the run's own protocol on the validation split; otherwise
    results[_STEP][_WEIGHTS][_PROTOCOL][.SPLIT].json.

    Args:
        workdir: The work directory of the run.
        step: Checkpoint: "best", "latest" or the number of a step.
        options: Options that evaluations of runs and files share.
        weights: Weights of the checkpoint: "ema" or "trained"; empty = those that training evaluated.
        batch_size: Number of images in a batch over all devices; 0 = the run's batch size of evaluation.
        save_predictions: Folder that receives every prediction as a file; None = predictions are not saved.

    Returns:
        The report, see `result_files.make`, with "intervals" and "constant" where they are asked for.

    Raises:
        FileNotFoundError: The directory is no work directory, or has no such checkpoint; or data or single-task results
            are missing.
        DamagedError: The checkpoint's files are not whole.
        ValueError: The checkpoint does not fit the configuration or has no such weights, the folder holds other
            predictions, another evaluation is at work, or single-task results cannot be used.
    """
    options = options or Options()
    workdir = Path(workdir)
    asked, other = _experiment(experiment.load_config(workdir), options)
    other_weights = result_files.other_weights(asked.config, weights)

    def restore(source: Split) -> _Predictions:
        run = Restored(asked, workdir, step, weights)
        fingerprints = [run.fingerprint] * len(source)

        def read(progress: ResumeLog) -> _Images:
            if save_predictions is None:
                return scoring.at_size(run.predict_split(source, batch_size, skip=progress), asked.recipe.placement)
            _save(run, source, Path(save_predictions), batch_size)
            return scoring.read_predictions(Path(save_predictions), source, asked.channels, skip=progress)

        name = result_files.checkpoint_name(step, other_weights)
        return _Predictions(fingerprints, read, name, run.step, run.weights)

    file = workdir / result_files.file_name(step, other_weights, other, options.split)
    return _evaluate(asked, file, restore, options)


def evaluate_files(
    folder: str | Path,
    dataset: str,
    options: Options | None = None,
    *,
    tasks: Sequence[str] = (),
    builder: str = "",
    manual_dir: str = "",
) -> result_files.Report:
    """Evaluates the predictions of any tool, and returns the report.

    The predictions of an image lie in FOLDER/TASK/ID.png (class ids; 0 to 255 for saliency and edges; RGB =
    255 (n + 1) / 2 for normals) and FOLDER/depth/ID.mat (metres, key "depth"). Writes the report into the folder:
    results.json by the survey's protocol on the validation split, otherwise results[_PROTOCOL][.SPLIT].json.

    Args:
        folder: Folder with a sub-folder for each task.
        dataset: Data set of the images, a key of `mtl_jax.data.DATASETS`.
        options: Options that evaluations of runs and files share.
        tasks: Tasks to score; empty = every task with a sub-folder.
        builder: TFDS builder and its config; empty = the data set's own.
        manual_dir: Folder or archive with the data set's original files; for `folder` the folder with your images and
            labels.

    Returns:
        The report, see `result_files.make`, with "intervals" and "constant" where they are asked for.

    Raises:
        FileNotFoundError: The folder, some predictions, the data or single-task results are missing.
        ValueError: The folder is a work directory or has no sub-folder of a task, a prediction cannot be used, another
            evaluation is at work, or single-task results cannot be used.
    """
    options = options or Options()
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"--predictions: there is no folder {folder}")
    if (folder / experiment.CONFIG).exists():
        raise ValueError(f"--predictions: {folder} is the work directory of a run; give it as --workdir")
    if not dataset:
        raise ValueError(f"--predictions needs --dataset: {', '.join(catalogue.DATASETS)}")
    row = catalogue.get(dataset)
    known = tuple(task for task in TASKS if row.has(task))
    names = tuple(tasks) or tuple(task for task in known if (folder / task).is_dir())
    if not names:
        raise ValueError(f"{folder} has no sub-folder of a task of {dataset}: {', '.join(known)}")
    config = experiment.resolve(Config(Data(dataset, names, builder=builder, manual_dir=manual_dir)))
    asked, other = _experiment(config, options)

    def find(source: Split) -> _Predictions:
        stamps = [predictions.stamp(folder, asked.main_tasks, name) for name in source.ids()]
        return _Predictions(
            stamps, lambda progress: scoring.read_predictions(folder, source, asked.channels, skip=progress)
        )

    return _evaluate(asked, folder / result_files.file_name(protocol=other, split=options.split), find, options)


@dataclass(frozen=True)
class _Predictions:
    """The predictions on a split.

    Attributes:
        origins: For each image a text that changes whenever its predictions may change.
        read: Function from the finished images to (index, predictions) of the others.
        checkpoint: Name of the checkpoint; None for files.
        step: Number of the checkpoint's step; None for files.
        weights: Weights of the checkpoint; None for files.
    """

    origins: list[str]
    read: Callable[[ResumeLog], _Images]
    checkpoint: str | None = None
    step: int | None = None
    weights: str | None = None


def _experiment(config: Config, options: Options) -> tuple[Experiment, str]:
    """Returns the experiment with the options, and the name of its protocol unless that is the configuration's own."""
    if options.data_dir:
        config.data.data_dir = options.data_dir
    if options.num_workers is not None:
        config.data.num_workers = options.num_workers
    own = experiment.make(config)
    if not options.protocol:
        return own, ""
    config.train.eval_protocol, config.train.depth_protocol = options.protocol, ""
    asked = experiment.make(config)
    return asked, options.protocol if asked.protocol_description != own.protocol_description else ""


def _evaluate(
    run: Experiment, path: Path, find: Callable[[Split], _Predictions], options: Options
) -> result_files.Report:
    """Scores predictions on a split, and writes and returns the report.

    Args:
        run: The experiment.
        path: File that receives the report.
        find: Function from the split to the predictions on it.
        options: Options of the evaluation.
    """
    names, criteria, rules, metrics = run.main_tasks, run.final_criteria, run.protocol_description, run.final_metrics
    reference = None
    if options.single_task:
        reference = result_files.read_single_task(options.single_task, criteria, rules, options.split)
    source = run.open_split(options.split, names)
    predicted = find(source)
    edges = None
    if "edge" in names:
        store = path.with_name(f"edge_counts{result_files.ending(options.split, '.jsonl')}")
        edges = EdgeScores(
            source, run.dataset.edge_rule(run.protocol.name), store=store, num_workers=options.num_workers
        )
    keys = scoring.keys(source, metrics, rules, predicted.origins)
    with ResumeLog(path.with_suffix(".partial"), keys) as progress:
        bar = tqdm(predicted.read(progress), "scoring", len(source), unit="image", initial=len(progress))
        scored = scoring.final(bar, source, metrics, run.conventions, edges, progress)
        report = result_files.make(
            scored.results,
            reference,
            criteria,
            checkpoint=predicted.checkpoint,
            step=predicted.step,
            weights=predicted.weights,
            protocol=rules,
        )
        result_files.write(report, path)
        if options.bootstrap:
            report["intervals"] = scored.bootstrap(options.bootstrap)
        if options.constant_baseline:
            report["constant"] = constant_baseline.score(
                run.open_split("train", names), source, metrics, run.conventions
            )
        result_files.write(report, path)
        progress.delete()
    return report


def _save(run: Restored, source: Split, folder: Path, batch_size: int) -> None:
    """Predicts the images whose predictions are not in the folder yet, and writes them there.

    Raises:
        ValueError: The folder holds other predictions.
    """
    owner = {"model": run.fingerprint, "data": source.fingerprint()}
    predictions.claim(folder, owner, f"{run.workdir.resolve()}, step {run.step}")
    saved = {i for i, name in enumerate(source.ids()) if predictions.saved(folder, run.tasks, name)}
    images = run.predict_split(source, batch_size, skip=saved)
    bar = tqdm(images, "predicting", len(source), unit="image", initial=len(saved))
    scoring.save_predictions(bar, source, run.experiment.conventions, folder, run.experiment.recipe.placement)
