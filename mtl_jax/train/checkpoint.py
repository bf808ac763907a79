"""Checkpoints of a run, stored by Orbax: the newest ones and the best ones, written while training goes on."""

import contextlib
import itertools
import json
import logging
import math
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from absl import logging as absl_logging
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN
from orbax.checkpoint.checkpoint_utils import construct_restore_args

from mtl_jax import folders
from mtl_jax.runtime import atomic_files, messages, processes
from mtl_jax.train import checkpoint_arrays, checkpoint_parts, integrity
from mtl_jax.train.checkpoint_parts import Evaluation

logger = logging.getLogger(__name__)

DAMAGED = "damaged_checkpoints"
_SCORE = "score"
KEPT = 2  # newest checkpoints: one to continue from, and one in case that one is damaged


class SaveError(OSError):
    """A checkpoint could not be written; the checkpoints before it are unchanged."""


class DamagedError(OSError):
    """Files of a checkpoint are missing, cut short or changed."""


class Checkpoints:
    """The checkpoints of a work directory.

    A checkpoint holds `state`, the arrays of {0: model, 1: optimiser, 2: memory of a balancing method, 3: average of
    the weights}, and `progress`, JSON with the position in the training data, the results that evaluations are ranked
    by and the scores of the evaluations before it. The score of its own evaluation is added later. A checkpoint without
    a score is never the best one.

    The first process writes a manifest into the checkpoint (see `integrity`) before Orbax gives the checkpoint its
    name, so every finished checkpoint has its manifest. The files are compared with the manifest before they are
    restored.

    Args:
        workdir: The work directory of the run.
        read_only: True for evaluation: nothing is created or deleted.
        keep: Number of best checkpoints that stay, besides the newest ones.

    Raises:
        FileNotFoundError: `read_only` is True, and the directory has no checkpoints, or is a saved model.
        DamagedError: `read_only` is True, and a checkpoint's score cannot be read.
    """

    def __init__(self, workdir: str | Path, *, read_only: bool = False, keep: int = 1):
        self.directory = Path(workdir).resolve() / folders.CHECKPOINTS
        if read_only:
            folders.check_is_run(workdir)
        if read_only and not self.directory.is_dir():
            raise FileNotFoundError(
                f"{workdir} has no checkpoints (there is no {self.directory}); train first with "
                f"mtl train RECIPE --workdir {workdir}"
            )

        if read_only:
            self._refuse_what_orbax_cannot_read()
        else:
            processes.on_first(self._correct_what_orbax_cannot_read)

        def score(metrics: Any) -> float:
            return -math.inf if metrics[_SCORE] is None else metrics[_SCORE]

        best = BestN(get_metric_fn=score, n=keep, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=score,  # of the metrics that `add_evaluation` adds
            preservation_policy=AnyPreservationPolicy([LatestN(n=KEPT), best]),
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,  # what Orbax sets, with a warning
            create=not read_only,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
            cleanup_tmp_directories=not read_only,  # what a killed run was writing
        )
        self._read_only, self._keep = read_only, keep
        self._saved: int | None = None  # step that was saved last, whose name may not be on the disk yet
        with messages.dropped(absl_logging.get_absl_logger(), "Given directory is read only"):
            self._manager = ocp.CheckpointManager(
                self.directory, options=options, handler_registry=checkpoint_parts.handlers(read_only=read_only)
            )

    def best(self) -> int | None:
        """Returns the step with the highest score, or None where no step has a score."""
        return next(iter(self.ranking()), None)

    def ranking(self) -> list[int]:
        """Returns the steps that have a score, the highest score first, and of equal scores the earlier step."""
        evaluations = {step: self._manager.metrics(step) for step in self.steps()}
        scores = {step: stored[_SCORE] for step, stored in evaluations.items() if stored}
        defined = [step for step, score in scores.items() if score is not None]
        return sorted(defined, key=lambda step: -scores[step])

    def steps(self) -> list[int]:
        """Returns all steps, in order."""
        return sorted(self._manager.all_steps())

    def resolve(self, step: str) -> int:
        """Returns the number of a step that is named "best", "latest" or by its number.

        Where no checkpoint was evaluated, the latest stands in for the best, with a warning.

        Raises:
            ValueError: The name is neither of the words nor a number.
            FileNotFoundError: There is no such checkpoint; the message lists the steps.
        """
        steps = self.steps()
        if not steps:
            raise FileNotFoundError(f"{self.directory} holds no finished checkpoint; train longer")
        if step == "latest":
            return steps[-1]
        if step == "best":
            best = self.best()
            if best is None:
                logger.warning("no checkpoint in %s has a score; the latest stands in for the best", self.directory)
            return steps[-1] if best is None else best
        if not step.isdecimal():
            raise ValueError(f"step is {step!r}; it may be best, latest or a number")
        if int(step) not in steps:
            raise FileNotFoundError(f"{self.directory} has no step {step}; it has {', '.join(map(str, steps))}")
        return int(step)

    def save(self, step: int, arrays: Any, progress: dict) -> None:
        """Starts writing a checkpoint, and returns once the arrays are copied.

        A step that exists already is left alone.

        Args:
            step: Number of the step.
            arrays: Arrays of the training state: those of the model, of the optimiser, and where there are any those of
                a balancing method and of the average of the weights.
            progress: Other state of the run, ready for JSON.

        Raises:
            SaveError: The checkpoint before could not be written, or this one cannot be begun.
        """
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(progress))
        with self._saving():
            self._manager.wait_until_finished()
            self._sync()
            self._saved = step
            self._manager.save(step, args=args)

    def evaluation(self, step: int) -> Evaluation | None:
        """Returns the evaluation of a step, the same in all processes; None where the step was not evaluated."""
        # One process decides for all, as in `restore_newest`.
        metrics = json.loads(processes.first_says(lambda: json.dumps(self._manager.metrics(step))))
        return None if metrics is None else Evaluation(**metrics)

    def add_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Adds the evaluation of a step to its checkpoint, and deletes the steps that are superseded.

        A checkpoint is saved before it is evaluated, so that an evaluation that fails or is killed loses no step.

        Args:
            step: Number of the step.
            evaluation: What the evaluation says.

        Raises:
            SaveError: The checkpoint or its evaluation could not be written.
        """

        def add() -> None:
            integrity.add_score(self.directory / str(step), asdict(evaluation))
            self._manager.reload()
            self._delete_superseded()

        with self._saving():
            self._manager.wait_until_finished()
            self._sync()
            processes.on_first(add)
            self._manager.reload()

    def _delete_superseded(self) -> None:
        """Deletes the steps that are neither among the best ones nor among the newest ones, in the first process."""
        for step in set(self.steps()[:-KEPT]) - set(self.ranking()[: self._keep]):
            # Under this name Orbax deletes at the next start what a kill leaves of the folder.
            deleted = self.directory / f"{step}{ocp.path.atomicity.TMP_DIR_SUFFIX}"
            (self.directory / str(step)).rename(deleted)
            shutil.rmtree(deleted)

    def check(self) -> None:
        """Raises SaveError if writing in the background has failed so far."""
        with self._saving():
            self._manager.check_for_errors()
            self._sync()

    def _seal(self) -> None:
        """Writes the manifest of the step that is being saved.

        Orbax calls the function in the first process, in the background, when all processes have written their files
        and before the folder of the step loses the suffix of its name.
        """
        (directory,) = self.directory.glob(f"{self._saved}{ocp.path.atomicity.TMP_DIR_SUFFIX}*")
        integrity.seal(directory)

    def _sync(self) -> None:
        """Waits until the name of the step that was saved last is on the disk, if the step is finished."""
        directory = self.directory / str(self._saved)
        if self._saved is None or not processes.first() or not directory.is_dir():
            return
        for folder in (directory, self.directory, self.directory.parent):
            atomic_files.sync_folder(folder)
        self._saved = None

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many types where a disk is full
            raise SaveError(
                f"a checkpoint could not be written to {self.directory}: {error}. Make room, or correct what it says, "
                "and run the same command again: it continues from the newest checkpoint"
            ) from error

    def restore_newest(self, abstract: Any, optional: Collection[int] = ()) -> tuple[int, Any, dict]:
        """Returns (step, arrays, progress) of the newest checkpoint whose files are whole, for a run that continues.

        Damaged checkpoints are moved aside.

        Args:
            abstract: Shapes, dtypes and shardings of all arrays of a checkpoint.
            optional: Parts that the result lacks where the checkpoint lacks them, and that are passed over where they
                are in the checkpoint and not in `abstract`.

        Raises:
            DamagedError: All checkpoints are damaged.
            ValueError: The checkpoint holds the arrays of another model or optimiser; the first differences are listed.
        """
        # One process decides for all: others may see another state of a network's file system.
        step, damaged = json.loads(processes.first_says(self._newest_whole))
        if step is None:
            listed = "".join(f"\n  step {number}: {damage}" for number, damage in damaged)
            raise DamagedError(
                f"all checkpoints of {self.directory} are damaged; bring one back from a copy, or start a new run in "
                f"another workdir:{listed}"
            )
        for number, damage in damaged:  # they would keep their steps from being saved again
            aside = self._aside(number)
            logger.warning("checkpoint %d is damaged and passed over: %s. It lies in %s now", number, damage, aside)
            processes.on_first(partial(_move, self.directory / str(number), aside))
        processes.on_first(self._delete_superseded)  # a kill may have come before it
        self._manager.reload()
        self._note_without_manifest(step)
        return step, *self._restore(step, abstract, optional)

    def restore(self, step: int, abstract: Any) -> tuple[Any, dict]:
        """Returns (arrays, progress) of a step, for `read_only` checkpoints.

        Args:
            step: Number of the step.
            abstract: Shapes, dtypes and shardings of the arrays to restore: {0: arrays of the model}, and the other
                parts of a checkpoint where they are wanted. Parts that are not named are not read.

        Raises:
            FileNotFoundError: The checkpoint was deleted in the meantime.
            DamagedError: The files of the checkpoint are not whole.
            ValueError: The checkpoint holds the arrays of another model or optimiser; the first differences are listed.
        """
        directory = self.directory / str(step)
        # One process decides for all, as in `restore_newest`.
        self._refuse_damaged(step, processes.first_says(partial(integrity.changes, directory)))
        try:
            restored = self._restore(step, abstract)
        except Exception:  # Orbax and TensorStore raise many types where files are damaged or gone
            self._refuse_damaged(step, integrity.damage(directory))
            raise
        self._note_without_manifest(step)
        return restored

    def _refuse_damaged(self, step: int, damage: str) -> None:
        """Raises an error if a step is gone, or `damage` says that it is damaged."""
        directory = self.directory / str(step)
        if not directory.exists():
            raise FileNotFoundError(f"{directory} is gone: a run deletes its older checkpoints; try again")
        if damage:
            others = ", ".join(str(other) for other in self.steps() if other != step) or "none"
            raise DamagedError(f"checkpoint {step} of {self.directory} is damaged: {damage}. Other steps: {others}")

    def _note_without_manifest(self, step: int) -> None:
        directory = self.directory / str(step)
        if not integrity.is_sealed(directory):
            logger.warning(
                "%s has no %s, as an older version wrote it: a flipped bit there stays unnoticed",
                directory,
                integrity.MANIFEST,
            )

    def _newest_whole(self) -> str:
        """Returns JSON of [newest step whose files are whole, or null, [[newer step, its damage], ...]]."""
        damaged: list[tuple[int, str]] = []
        for step in reversed(self.steps()):
            damage = integrity.damage(self.directory / str(step))
            if not damage:
                return json.dumps([step, damaged])
            damaged.append((step, damage))
        return json.dumps([None, damaged])

    def _folders(self) -> list[Path]:
        """Returns the folders of all finished steps; Orbax reads the scores and metadata of all of them first."""
        return [path for path in self.directory.glob("*") if path.name.isdecimal()]

    def _refuse_what_orbax_cannot_read(self) -> None:
        for folder in self._folders():
            if damage := integrity.damaged_score(folder):
                raise DamagedError(
                    f"{damage}; move {folder / 'metrics'} elsewhere, the checkpoint then counts as not evaluated"
                )
            if damage := integrity.damaged_metadata(folder):
                raise DamagedError(f"{damage}; delete it, because nothing that is restored depends on it")

    def _correct_what_orbax_cannot_read(self) -> None:
        for folder in self._folders():
            if damage := integrity.damaged_score(folder):
                aside = self._aside(int(folder.name)).with_name(f"{folder.name}_metrics")
                logger.warning("%s; it lies in %s now, and the checkpoint counts as not evaluated", damage, aside)
                _move(folder / "metrics", aside)
            elif integrity.lost_score(folder):
                logger.warning("%s has no score, although its manifest lists one; it counts as not evaluated", folder)
            if damage := integrity.damaged_metadata(folder):
                logger.warning("%s and is deleted; nothing that is restored depends on it", damage)
                (folder / integrity.METADATA).unlink()

    def _aside(self, step: int) -> Path:
        return self.directory.parent / DAMAGED / str(step)

    def parts(self, step: int) -> set[int]:
        """Returns the parts of the state that a checkpoint holds."""
        return set(map(int, checkpoint_arrays.parts(self._manager.item_metadata(step)["state"])))

    def _restore(self, step: int, abstract: Any, optional: Collection[int] = ()) -> tuple[Any, dict]:
        unlike = (self.parts(step) ^ set(abstract)) & set(optional)
        self._check(step, abstract, unlike)
        if unlike:  # the standard handler restores all parts or none
            wanted = {part: tree for part, tree in abstract.items() if part not in unlike}
            with contextlib.closing(Checkpoints(self.directory.parent, read_only=True)) as reader:
                return reader._restore(step, wanted)
        state: ocp.args.CheckpointArgs = ocp.args.StandardRestore(abstract)
        if self._read_only:
            shardings = construct_restore_args(abstract)
            state = ocp.args.PyTreeRestore(item=abstract, restore_args=shardings, partial_restore=True)
        restored = self._manager.restore(step, args=ocp.args.Composite(state=state, progress=ocp.args.JsonRestore()))
        return restored["state"], restored["progress"]

    def _check(self, step: int, abstract: Any, passed_over: Collection[int]) -> None:
        """Compares names and shapes before anything is read, because Orbax's own message lists whole trees."""
        stored = self._manager.item_metadata(step)["state"]
        problems = checkpoint_arrays.differences(stored, abstract, in_part=self._read_only, passed_over=passed_over)
        if problems:
            shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            raise ValueError(
                f"the checkpoint {self.directory / str(step)} belongs to another model or optimiser: {shown}. "
                "Use the workdir of this configuration, or another workdir for a new run"
            )

    def close(self) -> None:
        """Waits until everything is written, and stops the background threads.

        Raises:
            SaveError: A checkpoint could not be written.
        """
        with self._saving():
            self._manager.close()
            self._sync()


def _move(directory: Path, aside: Path) -> None:
    """Moves a folder to a place that is free: `aside`, or `aside` with a number."""
    aside.parent.mkdir(exist_ok=True)
    number = itertools.count(1)
    place = aside
    while place.exists():
        place = aside.with_name(f"{aside.name}_{next(number)}")
    directory.rename(place)
