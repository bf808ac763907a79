"""The parts of a checkpoint, and the form in which Orbax stores each of them.

Orbax's newer API cannot open checkpoints read-only and lies in `orbax.checkpoint.experimental`, whose names may change.
"""

from dataclasses import dataclass
from typing import Any

import orbax.checkpoint as ocp


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a checkpoint, as JSON the metrics of a step in Orbax.

    Attributes:
        score: Number that ranks the checkpoint, higher is better; None where it is not defined.
        reference: Results that the score is relative to, ready for JSON; None where there are none. The first
            evaluation of a run may set them, when `progress` of its step is written already.
    """

    score: float | None
    reference: Any = None


def handlers(*, read_only: bool) -> ocp.handlers.CheckpointHandlerRegistry:
    """Returns what reads and writes `state` and `progress`; with it Orbax can tell what a checkpoint holds.

    Args:
        read_only: True for evaluation, which reads a part of what the standard handler has written and leaves the
            optimiser on the disk.
    """
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    progress = ocp.JsonCheckpointHandler()
    registry.add("progress", ocp.args.JsonSave, progress)
    registry.add("progress", ocp.args.JsonRestore, progress)
    if read_only:
        registry.add("state", ocp.args.PyTreeRestore, ocp.PyTreeCheckpointHandler())
    else:
        state = ocp.StandardCheckpointHandler()
        registry.add("state", ocp.args.StandardSave, state)
        registry.add("state", ocp.args.StandardRestore, state)
    return registry
