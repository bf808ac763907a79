"""Event files for TensorBoard: curves, images, the configuration as hyperparameters, and a text about the run."""

import contextlib
import io
import shlex
import socket
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import hparams, scalar, text

from mtl_jax.loggers.base import EVALUATION, LoggedImage, Logger, Outcome, RunStart
from mtl_jax.loggers.local_files import close
from mtl_jax.loggers.registry import NoOptions, register
from mtl_jax.runtime import atomic_files, messages

EVENTS = "tensorboard"
_VERSION = "brain.Event:2"  # of the form of event files, which their first record names
_RGB = 3  # number of channels of an image summary


@register("tensorboard")
class TensorBoard(Logger):
    """Curves, images, hyperparameters and facts about the run as event files in tensorboard/.

    Every part of a run writes a file of its own. TensorBoard hides what earlier files say of later steps.

    Raises:
        OSError: A file cannot be written; the message names it.
    """

    local = True

    def __init__(self, start: RunStart, options: NoOptions):
        self._folder = start.workdir / EVENTS
        with contextlib.ExitStack() as exits:
            # TensorBoard reads all files of the folder in the order of their names.
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{uuid.uuid4().hex[:8]}"
            with messages.writing("the events for TensorBoard", self._folder):
                self._folder.mkdir(exist_ok=True)
                self._events = exits.enter_context(io.FileIO(self._folder / name, "x"))
            self._add(file_version=_VERSION)
            # TensorBoard hides what earlier files say of this step and of later ones.
            self._add(step=start.step + 1, session_log=SessionLog(status=SessionLog.START))
            for summary in _about(start):
                self._add(step=start.step, summary=summary)
            exits.pop_all()

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Writes a point of the curve KIND/NAME for each value."""
        summary = Summary()
        for name, value in values.items():
            summary.MergeFrom(scalar(f"{kind}/{name}", value))
        self._add(step=step, summary=summary)

    def write_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Writes the pictures under the tags images/NAME, one event for each."""
        for image in images:
            height, width, _ = image.picture.shape
            encoded = Summary.Image(height=height, width=width, colorspace=_RGB, encoded_image_string=image.jpeg)
            self._add(step=step, summary=Summary(value=[Summary.Value(tag=f"images/{image.name}", image=encoded)]))

    def place(self) -> str:
        return f"tensorboard --logdir {shlex.quote(str(self._folder))}   (pip install tensorboard)"

    def close(self, outcome: Outcome) -> None:
        close(self._events, "the events for TensorBoard")

    def _add(self, **content: Any) -> None:
        """Appends a record in the form of TFRecord: length, its checksum, content, its checksum."""
        record = Event(wall_time=time.time(), **content).SerializeToString()
        length = struct.pack("<Q", len(record))
        framed = b"".join((length, _checksum(length), record, _checksum(record)))
        with messages.writing("the events for TensorBoard", self._folder):
            atomic_files.append(self._events, framed)


def _about(start: RunStart) -> list[Summary]:
    """Returns the summaries about a run: its configuration as hyperparameters, and a table of its facts."""
    summaries: list[Summary] = []
    if start.config:
        # TensorBoard knows numbers, texts, and true and false.
        values = {name: v if isinstance(v, bool | int | float | str) else str(v) for name, v in start.config.items()}
        experiment, session, _ = hparams(values, {f"{EVALUATION}/{name}": np.nan for name in start.scores})
        summaries += [experiment, session]
    if start.facts:
        rows = (
            f"| {messages.markdown_cell(title)} | {messages.markdown_cell(value)} |"
            for title, value in start.facts.items()
        )
        summaries.append(text("run", "\n".join(("| | |", "|---|---|", *rows))))
    return summaries


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
