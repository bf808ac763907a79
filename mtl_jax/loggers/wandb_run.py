"""Weights & Biases (https://wandb.ai)."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtl_jax.loggers.base import LoggedImage, Outcome, RunStart
from mtl_jax.loggers.registry import register
from mtl_jax.loggers.service import Service

_STEP = "step"  # horizontal axis of all curves
# wandb shows a run whose status is not 0 as failed, or as preempted after `mark_preempting`.
_STATUS: Mapping[Outcome, int] = {"finished": 0, "stopped": 1, "failed": 1}


@dataclass(frozen=True)
class WandbOptions:
    """Options of the logger "wandb".

    Attributes:
        project: Project; empty = the environment variable WANDB_PROJECT, or else mtl_jax.
        entity: User or team; empty = the default of the account.
        group: Group of runs, for example several seeds of one experiment.
        name: Name of the run; empty = the name of the work directory.
        tags: Tags of the run, joined by "+" on the command line.
    """

    project: str = ""
    entity: str = ""
    group: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()


@register("wandb", options=WandbOptions, package="wandb", extra="wandb")
class Wandb(Service):
    """A run at Weights & Biases, with curves, images and configuration.

    Without a network, `WANDB_MODE=offline` keeps everything in WORKDIR/wandb, and `wandb sync` sends it later.
    """

    def __init__(self, start: RunStart, options: WandbOptions):
        import wandb  # an extra

        project = options.project or os.environ.get("WANDB_PROJECT", "mtl_jax")
        super().__init__(start, "wandb", {"project": project, "entity": options.entity})
        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            entity=options.entity or None,
            group=options.group or None,
            name=options.name or start.workdir.resolve().name,
            tags=options.tags or None,
            dir=start.workdir,
            id=self.continued() or None,
            resume="allow",
            config={**start.config, "run": dict(start.facts)},
            allow_val_change=True,  # a run may continue with other values of some fields
        )
        # Values of one step may come in several calls, so the step is a value like the others.
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)
        self.begin(self._run.id)

    def send(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Sends the values as KIND/NAME."""
        self._run.log({_STEP: step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def send_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Sends the pictures as images/NAME."""
        shown = {f"images/{each.name}": self._wandb.Image(each.picture, caption=each.caption) for each in images}
        self._run.log({_STEP: step, **shown})

    def place(self) -> str:
        if self._run.offline:
            # An interrupted run has a folder for each of its parts.
            parts = f"{shlex.quote(str(Path(self._run.settings.sync_dir).parent))}/offline-run-*-{self._run.id}"
            return f"wandb sync {parts}   (sends the run to the project {self._run.project})"
        return str(self._run.url)

    def close(self, outcome: Outcome) -> None:
        if outcome == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=_STATUS[outcome])
