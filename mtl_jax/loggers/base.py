"""The interface of loggers, and what they are told of a run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

TRAINING, EVALUATION = "train", "eval"  # kinds of lines

# How a run ended: at its last step, by a request to stop, after which the same command continues it, or by an error.
Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class RunStart:
    """The facts that loggers get when a run begins or continues.

    Attributes:
        workdir: The work directory.
        step: Step that the run continues from, 0 at first.
        evaluates_again: The run continues with the evaluation of `step`. The line of an earlier evaluation of this step
            does not count.
        config: {field: value} of the configuration, as in "optim.lr".
        fixed: {field: value} of the fields that decide what is trained. A run that repeats steps with other values of
            them gets other losses and scores there.
        facts: {title: text} about the run: versions of packages, devices, model, data.
        scores: Names of the scores that decide between checkpoints, as in "semseg/mIoU".
    """

    workdir: Path
    step: int = 0
    evaluates_again: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    scores: Sequence[str] = ()


@dataclass(frozen=True)
class LoggedImage:
    """A picture that shows what the model predicts for one validation image.

    Attributes:
        name: Name of the picture, the same in every evaluation: letters, digits, "_" and "-".
        caption: Id of the validation image.
        picture: RGB uint8 `[H, W, 3]`.
        jpeg: The picture as a JPEG file.
    """

    name: str
    caption: str
    picture: np.ndarray
    jpeg: bytes


class Logger(ABC):
    """Receives the lines and the images of a run, from the first process alone.

    A logger is opened when the run begins or continues. It drops, hides or does not repeat what an earlier part of the
    run logged after the step that the run continues from, so that every step appears once.

    Attributes:
        local: The logger writes files of the work directory. An error, for example of a full disk, ends the run. An
            error of another logger is a warning: training goes on without this logger.
    """

    local: ClassVar[bool] = False

    @abstractmethod
    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Logs the values of a step.

        Args:
            step: Number of the step.
            kind: TRAINING or EVALUATION.
            values: {name: finite value}.
        """

    def write_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Logs the pictures of the evaluation of a step. A logger without a place for pictures leaves them out."""
        return

    def place(self) -> str:
        """Returns where a person finds what was logged: a file, an address or a command; "" if there is nothing."""
        return ""

    @abstractmethod
    def close(self, outcome: Outcome) -> None:
        """Ends the log of this part of the run.

        Args:
            outcome: How the run ended.
        """
