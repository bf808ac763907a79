"""The parts of a checkpoint, and the form in which Orbax stores each of them.

Orbax's newer API cannot open checkpoints read-only and lies in `orbax.checkpoint.experimental`, whose names may change.
"""

import orbax.checkpoint as ocp


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
