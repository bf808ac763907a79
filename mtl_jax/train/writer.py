"""Where a run's numbers go: one JSON line per log step, and TensorBoard event files. Process 0 only."""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from mtl_jax.runtime import atomic_files

LOG = "log.jsonl"


class Writer:
    """Appends to `log.jsonl` and to the event files of a work directory.

    Args:
        workdir: the run's directory.
        resume_step: lines of later steps, written before an interruption, are dropped: a step appears once.
        active: False on all processes but one; the writer then does nothing.
    """

    def __init__(self, workdir: str | Path, *, resume_step: int, active: bool = True):
        self._active = active
        if not active:
            return
        path = Path(workdir) / LOG
        _truncate(path, resume_step)
        self._file = io.FileIO(path, "a")
        self._events = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One line `{"step": ..., "kind": ..., name: value, ...}`; kind is "train" or "eval".

        Raises:
            OSError: it cannot be written, the disk is full; the message names the file.
        """
        if not self._active:
            return
        line = json.dumps({"step": step, "kind": kind, **values}) + "\n"
        atomic_files.append(self._file, line.encode())
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flushes everything."""
        if self._active:
            self._file.close()
            self._events.close()


def _truncate(path: Path, step: int) -> None:
    """Keeps the whole lines of steps up to `step`; a line that a crash cut short goes too."""
    if path.exists():
        atomic_files.write(path, "".join(f"{line}\n" for line, content in whole_lines(path) if content["step"] <= step))


def whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, its content) of a log, if it is there; one that is being written, or that a crash cut short, ends it."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            return
        yield line, content
