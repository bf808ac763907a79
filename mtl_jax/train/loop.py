"""The training loop."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from filelock import FileLock

from mtl_jax import config as configs
from mtl_jax import experiment, folders, loggers
from mtl_jax.config import Config
from mtl_jax.data import datasets, prefetch, records
from mtl_jax.evaluation import scoring
from mtl_jax.experiment import Experiment
from mtl_jax.loggers import EVALUATION, TRAINING
from mtl_jax.metrics import deciding
from mtl_jax.runtime import atomic_files, compilation, processes, sharding
from mtl_jax.train import (
    agreement,
    banner,
    cadence,
    configured_step,
    initial_state,
    initial_weights,
    inputs,
    measured_losses,
    milestones,
    profiling,
    ranking,
    task_balancing,
    writer,
)
from mtl_jax.train import state as train_state
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.checkpoint_parts import Evaluation
from mtl_jax.train.lock import LOCK, acquire
from mtl_jax.train.logged_images import LoggedImages
from mtl_jax.train.milestones import Milestones
from mtl_jax.train.pace import duration
from mtl_jax.train.progress import Plan, Progress
from mtl_jax.train.step import SKIPPED, Scalars, make_eval_step
from mtl_jax.train.stop import StoppedError, StopRequests

logger = logging.getLogger(__name__)

_AHEAD = 2  # steps that the device is given before the first of them has ended


class NonFiniteLossError(FloatingPointError):
    """A loss, the gradient or a parameter is NaN or infinite."""


def fit(
    config: Config | Experiment,
    workdir: str | Path,
    single_task: scoring.Results | None = None,
    *,
    allow_config_change: bool = False,
    profile: profiling.Steps | None = None,
) -> scoring.Results:
    """Trains from the newest whole checkpoint in the work directory, or from the initial weights if there is none.

    The training ends after the epochs or steps of the configuration, or earlier where `train.patience` evaluations in a
    row have brought no better score, where a loss is not finite, or where a signal stops it.

    Writes config.json, checkpoints/, log.jsonl, and the files of other loggers. The result is the same, bit for bit on
    CPU, whether or not the run was interrupted. All processes of a run call this function with the same arguments and
    share the work directory.

    Args:
        config: The experiment, or its configuration after `experiment.resolve`.
        workdir: The work directory of the run.
        single_task: {task: scores} of single-task models. The multi-task performance that ranks checkpoints is relative
            to these scores, or by default to the first evaluation of this run.
        allow_config_change: True to continue with this configuration where the work directory has another one.
        profile: Steps of this process that the first process records for TensorBoard and Perfetto, in the folder
            `profile` of the work directory, up to the first evaluation among them; None = none.

    Returns:
        {task: {metric: value}} of the last evaluation of this call; empty where nothing was left to do.

    Raises:
        ValueError, FileNotFoundError: The configuration, the data or the work directory does not fit, or another run
            is at work there; nothing has been trained then.
        StoppedError: SIGTERM or SIGINT came; the step was finished and the state saved.
        NonFiniteLossError: A loss, the gradient or a parameter is not finite; the last checkpoint is from before that.
        SaveError, DamagedError: A checkpoint cannot be written, or none can be read.
        WriteError: The log cannot be written, because the disk is full or read-only.
        CorruptRecordError: A training image cannot be read, and `data.skip_corrupt` is not set.
    """
    return _Run(experiment.make(config), Path(workdir), single_task, allow_config_change).fit(profile)


class _Run:
    """The part of one process in a run."""

    def __init__(self, run: Experiment, workdir: Path, single_task: scoring.Results | None, allow_config_change: bool):
        self.experiment, self.workdir = run, workdir
        self.config = config = run.config
        agreement.check_configuration(config)
        self.mesh = sharding.make_mesh()
        self.balancing = task_balancing.from_config(config)
        self.loggers = loggers.parse(config.train.loggers)
        processes.on_first(partial(loggers.check_installed, self.loggers))
        self.eval_batch_size = configs.eval_batch_size(config)
        accumulate = config.train.accumulate
        sharding.check_batch_size(config.train.batch_size, self.mesh, "train.batch_size", accumulate)
        sharding.check_batch_size(self.eval_batch_size, self.mesh, "train.eval_batch_size")
        datasets.check_data_dir(run.data_dir)
        ranking.chosen(run)
        if not folders.holds_checkpoint(workdir):
            initial_weights.check(run)  # an impossible model or missing weights fail before any data is fetched
        self.source = run.training_labels.open()
        self.val_source = run.open_split("val", run.main_tasks)
        agreement.check_data(self.source, self.val_source)
        self.labelled = {
            "train": run.training_labels.counts(),
            "val": datasets.count_labelled(run.prepare_data(), "val", run.all_tasks),
        }
        self.criteria = ranking.scorable(run, self.labelled)
        self.ranked = ranking.ranked(run, self.criteria)
        self.cadence = cadence.of_run(run, len(self.source))
        self.total_steps, self.steps_per_epoch = self.cadence.total_steps, self.cadence.steps_per_epoch
        self.learning_rate = run.learning_rate(self.steps_per_epoch)

        with contextlib.ExitStack() as exits:
            lock = FileLock(workdir / LOCK)
            exits.callback(lock.release)  # does nothing where the lock is not held

            def claim() -> None:
                acquire(lock, workdir)
                if folders.holds_checkpoint(workdir):
                    experiment.check_continues(config, workdir, allow_change=allow_config_change)

            processes.on_first(claim)
            self.checkpoints = Checkpoints(workdir, keep=config.train.keep)
            exits.callback(self.checkpoints.close)
            start = initial_state.create_or_restore(run, self.checkpoints, self.mesh, self.steps_per_epoch)
            self.state, self.progress = start
            self.step = self.first_step = self.progress["step"]
            evaluation = self.checkpoints.evaluation(self.step)
            self.evaluates_first = self.cadence.evaluates(self.step) and evaluation is None
            self.scores = list(ranking.stored_scores(self.progress, evaluation, config.train.best))
            stored = self.progress["reference"] or (None if evaluation is None else evaluation.reference)
            self.reference = ranking.choose_reference(stored, single_task, config.train.best)
            objective = measured_losses.objective(run, self.source, workdir)
            self.train_step = configured_step.train_step(config, self.state, objective, self.balancing)
            self.evaluated = configs.eval_weights(config)
            graphdef = self.state.alone(self.evaluated).graphdef
            eval_step = make_eval_step(graphdef, run.streaming_metrics, self.mesh)
            self.eval_step = compilation.announced(eval_step, "the evaluation step")
            self.logged_images = LoggedImages(run, self.val_source, graphdef, self.mesh)
            self.batches = inputs.train_batches(run, self.source)
            if self.progress["input"] is not None:
                self.batches.set_state(self.progress["input"])
            exits.callback(self.batches.close)
            self.position = self.batches.get_state()  # after the last batch trained on
            # Only now has everything been accepted: until here the work directory fits the run that it belongs to.
            processes.on_first(lambda: experiment.store_config(config, workdir))
            self.placed = prefetch.ahead(self._place_batch, what=inputs.describe(run, self.source))
            exits.callback(self.placed.close)
            facts = self._start()
            self.writer = exits.enter_context(writer.open_log(self.loggers, facts, self.evaluates_first))
            lines = loggers.read(workdir / loggers.LOG) if processes.first() else ()
            self.milestones = Milestones(self.criteria, lines)
            banner.say(facts, self.writer.places())
            self.exits = exits.pop_all()  # closed in reverse order, each even if another fails to

    def _start(self) -> banner.Start:
        """Returns the facts about this run that loggers and the terminal are told."""
        return banner.Start(
            experiment=self.experiment,
            workdir=self.workdir,
            model=self.state.model(),
            images={source.split: len(source) for source in (self.source, self.val_source)},
            labelled=self.labelled,
            devices=self.mesh.size,
            step=self.step,
            cadence=self.cadence,
            restored=bool(self.checkpoints.steps()),
        )

    def fit(self, profile: profiling.Steps | None = None) -> scoring.Results:
        train = self.config.train
        results: scoring.Results = {}
        pending: list[tuple[int, Scalars]] = []
        began = time.perf_counter()
        # Whatever ends the loop, what was saved so far reaches the disk.
        with StopRequests() as stop, self.exits:
            arrays, seed = self.state.arrays, np.uint32(train.seed)
            plan = Plan(self.total_steps, self.steps_per_epoch, self.config.train.batch_size, self.experiment.all_tasks)
            progress = Progress(plan, self.step, shown=processes.first())
            self.exits.callback(progress.close)
            profiler = profiling.Profiler(profile, self.workdir, step=self.step, total=self.total_steps)
            self.exits.callback(profiler.close)
            if self.evaluates_first:
                logger.info("step %d has no score and is evaluated first", self.step)
                with progress.pause("evaluating"):
                    results = self._evaluate(arrays)
            started = time.perf_counter()
            while self.step < self.total_steps and not self._ends_early():
                with profiler.step(self.step + 1, arrays):
                    with self._rescuing(arrays, pending, started):
                        batch, self.position = next(self.placed)
                    arrays, scalars = self.train_step(arrays, batch, seed)
                self.step += 1
                profiler.finished(self.step, arrays, evaluates=self.cadence.evaluates(self.step))
                pending.append((self.step, scalars))
                # Otherwise a slow device lags behind by all steps between two lines of the log: the bar shows a rate
                # that is not true, a signal waits for all these steps, and their batches fill the memory.
                if len(pending) > _AHEAD:
                    finished, values = pending[-1 - _AHEAD]
                    jax.block_until_ready(values)
                    progress.finished(finished, partial(_fetched, values))
                stops = stop.reached(self.step) and self.step < self.total_steps
                saves = self.cadence.saves(self.step) or stops
                if self.cadence.logs(self.step) or saves:
                    progress.logged(self.step, self._flush(pending, started))
                    pending, started = [], time.perf_counter()
                if saves:
                    self._save(arrays)
                if stops:
                    raise StoppedError(
                        f"stopped at step {self.step} of {self.total_steps}, which was saved; run the same command "
                        "again to continue"
                    )
                if self.cadence.evaluates(self.step):
                    with progress.pause("evaluating"):
                        results = self._evaluate(arrays)
                    started = time.perf_counter()
            progress.close()
            self._say_end(time.perf_counter() - began)
        return results

    def _place_batch(self) -> tuple[dict[str, jax.Array], dict[str, int]]:
        """Returns the next batch, on its way to the devices, and the position in the data after it."""
        return sharding.shard_batch(next(self.batches), self.mesh), self.batches.get_state()

    def _flush(self, pending: list[tuple[int, Scalars]], started: float) -> dict[str, float]:
        """Fetches and checks the values of the steps since the last line of the log; writes and returns their means."""
        fetched = [(step, _fetched(scalars)) for step, scalars in pending]
        seconds = time.perf_counter() - started  # now that the device has finished the steps
        for step, scalars in fetched:
            self._check_finite(step, scalars)
        self.checkpoints.check()
        sums = {name: sum(scalars[name] for _, scalars in fetched) for name in fetched[0][1]}
        means = {name: value if name == SKIPPED else value / len(fetched) for name, value in sums.items()}
        rate = {
            "epoch": self.step / self.steps_per_epoch,
            "learning_rate": float(self.learning_rate(self.step - 1)),
            "images_per_second": len(fetched) * self.config.train.batch_size / seconds,
        }
        self.writer.write(self.step, TRAINING, means | rate)
        return means

    def _check_finite(self, step: int, scalars: dict[str, float]) -> None:
        """Raises NonFiniteLossError, after writing down the step's images and losses, unless all values are finite."""
        bad = {name: value for name, value in scalars.items() if not math.isfinite(value)}
        if not bad:
            return
        dump = self.workdir / f"not_finite_{step}.json"
        if processes.first():
            drawn = [self._name_record(index) for index in self.batches.records(step - 1)]
            # As text, because JSON has no word for NaN and infinity.
            atomic_files.write_json(dump, {"step": step, "values": jax.tree.map(str, scalars), "records": drawn})
        raise NonFiniteLossError(
            f"step {step}: {', '.join(f'{name} is {value}' for name, value in bad.items())}. {dump} names the step's "
            f"images and all losses. Lower optim.lr or check the labels{self._way_back(step)}"
        )

    def _way_back(self, step: int) -> str:
        """Says where to continue after a step whose values are not finite."""
        *older, newest = [0, *(saved for saved in self.checkpoints.steps() if saved < step)]
        if newest == 0:
            return ""
        if step > self.first_step + 1:
            return f"; the newest checkpoint, of step {newest}, is from before this step"
        where = f"{self.checkpoints.directory / str(newest)}"
        return (
            f". The run has just been continued from step {newest}, which may have diverged already: move {where} to "
            f"another place, and the same command continues from step {older[-1]}"
        )

    def _name_record(self, index: int) -> dict[str, Any]:
        try:
            return {"index": index, "id": records.as_text(self.source[index]["id"])}
        except records.CorruptRecordError as error:  # another image stood in for this one
            return {"index": index, "corrupt": str(error)}

    def _evaluate(self, arrays: Any) -> scoring.Results:
        """Evaluates the newest step, which was saved before, and adds the score to its checkpoint."""
        batches = inputs.val_batches(self.experiment, self.val_source, self.eval_batch_size)
        began = time.perf_counter()
        arrays = train_state.TrainState(self.state.graphdef, arrays).alone(self.evaluated).arrays
        results = scoring.streaming(self.eval_step, arrays, batches, self.experiment.streaming_metrics, self.mesh)
        seconds = time.perf_counter() - began
        if self.reference is None and len(self.ranked) > 1 and scoring.can_serve_as_reference(results, self.ranked):
            self.reference = results
            logger.info("no single-task results: checkpoints are ranked by their gain over this first evaluation")
        scalars = {
            f"{task}/{name}": value
            for task, result in results.items()
            for name, value in result.items()
            if isinstance(value, float) and math.isfinite(value)  # a task without labels has none
        }
        self.writer.write(self.step, EVALUATION, scalars)
        self.writer.write_images(self.step, self.logged_images.draw(arrays))
        score = scoring.score(results, self.reference, self.ranked)
        self.scores.append((self.step, score))
        self.checkpoints.add_evaluation(self.step, Evaluation(score, self.reference))
        self._say_scores(results, score, seconds)
        return results

    def _ends_early(self) -> bool:
        """Returns True if `train.patience` evaluations in a row have brought no better score."""
        patience = self.config.train.patience
        return patience > 0 and ranking.evaluations_since_best(self.scores) >= patience

    def _say_scores(self, results: scoring.Results, score: float | None, seconds: float) -> None:
        """Says in the log how the newest step scores, and how that compares with the best so far."""
        if not processes.first():
            return
        self.milestones.add(self.step, results)
        of_average = " with the averaged weights" if self.evaluated == configs.EMA else ""
        lines = [f"evaluation of step {self.step}{of_average} ({seconds:.0f} s)", self.milestones.table(self.step)]
        if self.config.train.best:
            ((task, criterion),) = self.ranked.items()
            value = deciding(results, task, criterion)
            lines.append(milestones.best_line(self.config.train.best, value, self.checkpoints.best(), self.step))
        elif len(self.criteria) > 1:
            lines.append(milestones.gain_line(score, self.checkpoints.best(), self.step))
        if patience := self.config.train.patience:
            lines.append(milestones.patience_line(ranking.evaluations_since_best(self.scores), patience))
        logger.info("%s", "\n".join(filter(None, lines)))

    def _say_end(self, seconds: float) -> None:
        """Says in the log where the best checkpoint is, and what to do with it."""
        if not processes.first():
            return
        trained = self.step - self.first_step
        done = f"{trained} steps in {duration(seconds)}" if trained else "nothing was left to train"
        if self.step < self.total_steps:
            done += f". It ends early because of train.patience={self.config.train.patience}"
        logger.info("training has ended at step %d: %s", self.step, done)
        best = self.checkpoints.best()
        step = self.checkpoints.steps()[-1] if best is None else best
        scores = self.milestones.scores(step)
        logger.info("%s", milestones.ending(self.workdir, step, best is not None, scores))

    @contextlib.contextmanager
    def _rescuing(self, arrays: Any, pending: list[tuple[int, Scalars]], started: float) -> Iterator[None]:
        """Saves the newest step after an error of input, for example because a worker was killed.

        With several processes, those whose input goes on would wait for this one, so nothing is saved.
        """
        try:
            yield
        except Exception:
            if jax.process_count() == 1 and self.step > self.first_step:
                if pending:
                    self._flush(pending, started)
                self._save(arrays)
                logger.warning("step %d was saved before the error; the same command continues from it", self.step)
            raise

    def _save(self, arrays: Any) -> None:
        progress = {"step": self.step, "input": self.position, "reference": self.reference}
        progress |= ranking.progress_of_scores(self.scores, self.config.train.best)
        self.checkpoints.save(self.step, arrays, progress)


def _fetched(scalars: Scalars) -> dict[str, float]:
    values: dict[str, float] = jax.tree.map(float, jax.device_get(scalars))
    return values
