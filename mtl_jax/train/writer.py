"""The log of a run: one JSON line for each log step, and TensorBoard event files, written by process 0 alone."""

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
        workdir: The work directory of the run.
        resume_step: Step that the run continues from. Lines of later steps, written before an interruption, are
            dropped, so that every step appears once.
        active: True on one process. On the others the writer does nothing.
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
        """Writes one line `{"step": step, "kind": kind, name: value, ...}`.

        Args:
            step: Number of the step.
            kind: "train" or "eval".
            values: {name: value}.

        Raises:
            OSError: The file cannot be written, for example because the disk is full; the message names it.
        """
        if not self._active:
            return
        line = json.dumps({"step": step, "kind": kind, **values}) + "\n"
        atomic_files.append(self._file, line.encode())
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Writes everything to the disk and closes the files."""
        if self._active:
            self._file.close()
            self._events.close()


def _truncate(path: Path, step: int) -> None:
    """Drops the lines of steps after `step`, and a line that a crash cut short."""
    if path.exists():
        atomic_files.write(path, "".join(f"{line}\n" for line, content in whole_lines(path) if content["step"] <= step))


def whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (line, its content) of a log; nothing where there is no log.

    A line that is being written, or that a crash cut short, ends the log.
    """
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            return
        yield line, content
