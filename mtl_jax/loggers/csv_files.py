"""The log of a run as tables: csv/train.csv and csv/eval.csv, one row for each line of the log."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_jax.loggers import jsonl
from mtl_jax.loggers.base import Logger, Outcome, RunStart
from mtl_jax.loggers.local_files import close
from mtl_jax.loggers.registry import NoOptions, register
from mtl_jax.runtime import atomic_files, messages

CSV = "csv"
_WHAT = "the log as CSV"


@register("csv")
class Csv(Logger):
    """Tables in csv/train.csv and csv/eval.csv, with a column for each loss and score.

    The tables always equal log.jsonl: when a run begins or continues, they are written again from the log. A new column
    has empty fields in the rows before it.

    Raises:
        OSError: A file cannot be written; the message names it.
    """

    local = True

    def __init__(self, start: RunStart, options: NoOptions):
        self._log, self._folder = start.workdir / jsonl.LOG, start.workdir / CSV
        self._files: dict[str, io.FileIO] = {}
        self._columns: dict[str, list[str]] = {}
        with messages.writing(_WHAT, self._folder):
            self._folder.mkdir(exist_ok=True)
        for old in self._folder.glob("*.csv"):
            old.unlink()
        for kind in {line["kind"] for line in jsonl.read(self._log)}:
            self._write_again(kind)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Writes a row, which may have no value. A value without a column adds the column to the whole table."""
        if kind not in self._files or not set(values) <= set(self._columns[kind]):
            self._write_again(kind)  # log.jsonl has this line already
            return
        with messages.writing(_WHAT, self._folder):
            atomic_files.append(self._files[kind], _rows(self._columns[kind], [{"step": step, **values}]))

    def place(self) -> str:
        return f"{self._folder}/"

    def close(self, outcome: Outcome) -> None:
        for file in self._files.values():
            close(file, _WHAT)

    def _write_again(self, kind: str) -> None:
        """Writes the whole table of a kind of lines, and opens it for the next rows."""
        lines = [line for line in jsonl.read(self._log) if line["kind"] == kind]
        columns = list(dict.fromkeys(name for line in lines for name in line if name != "kind"))
        path = self._folder / f"{kind}.csv"
        if kind in self._files:
            close(self._files[kind], _WHAT)
        with messages.writing(_WHAT, path):
            header = _rows(columns, [dict(zip(columns, columns, strict=True))])
            atomic_files.write(path, header + _rows(columns, lines))
            self._files[kind] = io.FileIO(path, "a")
        self._columns[kind] = columns


def _rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
