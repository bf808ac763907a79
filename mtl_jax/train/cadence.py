"""The steps at which a run logs, saves, evaluates and ends."""

import math
from dataclasses import dataclass

from mtl_jax import config as configs
from mtl_jax.data import loader
from mtl_jax.experiment import Experiment, configured_optim
from mtl_jax.runtime.messages import counted


@dataclass(frozen=True)
class Cadence:
    """The steps at which something is due, counted from 1: step n is the n-th step of the optimiser.

    Attributes:
        steps_per_epoch: Number of steps of an epoch.
        total_steps: Number of steps of the run. The run may end within an epoch.
        log_every: Number of steps between two lines of the log.
        checkpoint_every: Number of steps between checkpoints, besides the one after every epoch; 0 = only that one.
        eval_every: Number of steps between evaluations; 0 = each of the last `eval_final_epochs` epochs ends with one.
        eval_final_epochs: Number of last epochs that each end with an evaluation where `eval_every` is 0; 0 = all do.
    """

    steps_per_epoch: int
    total_steps: int
    log_every: int = 1
    checkpoint_every: int = 0
    eval_every: int = 0
    eval_final_epochs: int = 0

    @property
    def epochs(self) -> int:
        """The number of epochs. The last one is incomplete where the run ends within it."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def ends_epoch(self, step: int) -> bool:
        """Returns True if an epoch ends with a step, or the run does."""
        return step > 0 and (step % self.steps_per_epoch == 0 or step == self.total_steps)

    def saves(self, step: int) -> bool:
        """Returns True if a step is saved: at the end of an epoch, when a checkpoint is due, and before evaluation."""
        due = self.checkpoint_every > 0 and step % self.checkpoint_every == 0
        return self.ends_epoch(step) or due or self.evaluates(step)

    def logs(self, step: int) -> bool:
        """Returns True if a line of the log is due."""
        return step % self.log_every == 0

    def evaluates(self, step: int) -> bool:
        """Returns True if a step is followed by an evaluation. The last step always is."""
        if step == self.total_steps:
            return True
        if self.eval_every:
            return step > 0 and step % self.eval_every == 0
        last = self.eval_final_epochs
        epoch = step // self.steps_per_epoch
        return self.ends_epoch(step) and (last == 0 or epoch > self.epochs - last)

    @property
    def length(self) -> str:
        """The length of the run as text, for example "600: 100 epochs of 6 steps"."""
        whole = self.total_steps % self.steps_per_epoch == 0
        epochs = counted(self.epochs, "epoch") if whole else f"{self.total_steps / self.steps_per_epoch:.1f} epochs"
        return f"{self.total_steps}: {epochs} of {counted(self.steps_per_epoch, 'step')}"

    @property
    def evaluated(self) -> str:
        """The steps that an evaluation follows, as text, for example "each of the last 10 epochs"."""
        if self.eval_every >= self.total_steps:
            return "the last step"
        if self.eval_every:
            rest = "" if self.total_steps % self.eval_every == 0 else " and the last one"
            number = "" if self.eval_every == 1 else f"{self.eval_every} "
            return f"every {number}step{'s' if number else ''}{rest}"
        if self.eval_final_epochs == 0 or self.eval_final_epochs >= self.epochs:
            return "every epoch"
        last = self.eval_final_epochs
        return "the last epoch" if last == 1 else f"each of the last {last} epochs"


def of_run(run: Experiment, images: int) -> Cadence:
    """Returns the cadence of an experiment.

    Args:
        run: The experiment.
        images: Number of training images.

    Raises:
        ValueError: A batch has more images than there are, see `loader.steps_per_epoch`; the warm-up is as long as the
            run, or the rate decays within it; or `train.patience` never ends the run.
    """
    train = run.config.train
    steps_per_epoch = loader.steps_per_epoch(images, train.batch_size)
    total = configured_optim.total_steps(run.config, steps_per_epoch)
    warmup = configured_optim.warmup_steps(run.config, steps_per_epoch)
    if warmup >= total:
        raise ValueError(
            f"the warm-up takes {warmup} steps (optim.warmup_steps, optim.warmup_epochs), the run {total}, which are "
            f"{total / steps_per_epoch:g} epochs of {steps_per_epoch} steps; the warm-up must end before the run does"
        )
    if problems := list(configs.length_problems(run.config, steps_per_epoch)):
        raise ValueError("; ".join(problems))
    return Cadence(
        steps_per_epoch,
        total,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        eval_every=train.eval_every,
        eval_final_epochs=train.eval_final_epochs,
    )
