"""The log of a run, which the first process writes: log.jsonl, and the other loggers that the configuration names."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from mtl_jax import config as configs
from mtl_jax import experiment, models
from mtl_jax.config import Config
from mtl_jax.loggers import Choice, LoggedImage, Logger, Outcome, RunStart
from mtl_jax.runtime import processes
from mtl_jax.train import banner
from mtl_jax.train.stop import StoppedError

logger = logging.getLogger(__name__)


class Writer:
    """Sends what a run logs to its loggers, log.jsonl first.

    An error of a logger that writes files of the work directory, such as a full disk, is raised. Another logger, for
    example of a service that cannot be reached any more, is left out after its first error, with a warning.

    All processes of a run make a writer. Those of the other processes do nothing.

    Args:
        choices: The loggers, from `loggers.parse`.
        start: The start of the run.

    Raises:
        OSError: A file cannot be read or written; the message names it.
        ValueError: A logger cannot be opened, for example because a service cannot be reached.
    """

    def __init__(self, choices: Sequence[Choice], start: RunStart):
        self._open: dict[str, Logger] = {}
        processes.on_first(lambda: self._open_all(choices, start))

    def _open_all(self, choices: Sequence[Choice], start: RunStart) -> None:
        with contextlib.ExitStack() as exits:
            for choice in choices:
                self._open[choice.name] = opened = _opened(choice, start)
                exits.callback(opened.close, "failed")
            exits.pop_all()

    def places(self) -> dict[str, str]:
        """Returns {name of a logger: where a person finds what was logged}."""
        named = {name: opened.place() for name, opened in self._open.items()}
        return {name: place for name, place in named.items() if place}

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Logs the values of a step.

        Args:
            step: Number of the step.
            kind: TRAINING or EVALUATION.
            values: {name: value}.

        Raises:
            ValueError: A value is not finite.
            OSError: A file cannot be written, for example because the disk is full; the message names it.
        """
        if bad := {name: value for name, value in values.items() if not math.isfinite(value)}:
            raise ValueError(f"step {step}: the log takes finite numbers alone, and the values hold {bad}")
        self._each(f"at step {step}", lambda opened: opened.write(step, kind, values))

    def write_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Logs the pictures of the evaluation of a step.

        Raises:
            OSError: A file cannot be written; the message names it.
        """
        if images:
            self._each(f"at step {step}", lambda opened: opened.write_images(step, images))

    def close(self, outcome: Outcome = "finished") -> None:
        """Closes all loggers, each even if another fails to.

        Raises:
            OSError: What was written has not reached a file; the message names it.
        """
        with contextlib.ExitStack() as exits:
            for name in reversed(self._open):
                exits.callback(self._each, "at the end of the run", lambda opened: opened.close(outcome), [name])
        self._open.clear()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close("finished" if error is None else "stopped" if isinstance(error, StoppedError) else "failed")

    def _each(self, when: str, act: Callable[[Logger], None], names: Sequence[str] | None = None) -> None:
        for name in list(self._open if names is None else names):
            with self._guarding(name, when):
                act(self._open[name])

    @contextlib.contextmanager
    def _guarding(self, name: str, when: str) -> Iterator[None]:
        """Leaves out a logger that fails inside of the `with` block, unless it writes files of the work directory."""
        try:
            yield
        # Clients of services raise errors of their own kinds, and none of them may end days of training.
        except Exception as error:
            if self._open[name].local:
                raise
            del self._open[name]
            logger.warning(
                "the logger %s has failed %s (%s: %s) and is left out; training goes on, and log.jsonl has every line. "
                "If the run is started again, the logger gets the lines that it lacks",
                name,
                when,
                type(error).__name__,
                error,
            )


def open_log(choices: Sequence[Choice], start: banner.Start, evaluates_again: bool) -> Writer:
    """Opens the loggers of a run, and tells them its configuration and facts.

    Args:
        choices: The loggers, from `loggers.parse`.
        start: Facts about the run.
        evaluates_again: The run continues with the evaluation of the step that it continues from.

    Raises:
        OSError, ValueError: See `Writer`.
    """
    run = start.experiment
    criteria = run.streaming_criteria.items()
    told = RunStart(
        workdir=start.workdir,
        step=start.step,
        evaluates_again=evaluates_again,
        config=_settings(run.config),
        fixed=experiment.fixed_on_resume(run.config),
        facts=banner.facts(start),
        scores=[f"{task}/{criterion.name}" for task, criterion in criteria],
    )
    return Writer(choices, told)


def _settings(config: Config) -> dict[str, Any]:
    """Returns {field: value} of the configuration, entries of dicts as fields, without what is particular to a host."""
    settings: dict[str, Any] = {}
    for name, value in configs.shared_by_processes(config).items():
        settings |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return settings | {name: value for name, value, _ in models.option_fields(config)}


def _opened(choice: Choice, start: RunStart) -> Logger:
    """Opens a logger, before any step is trained."""
    try:
        return choice.open(start)
    except (OSError, ValueError):
        raise
    except Exception as error:  # clients of services raise errors of their own kinds
        raise ValueError(
            f"the logger {choice.name} cannot be opened ({type(error).__name__}: {error}); mend that, or leave "
            f"{choice.name!r} out of train.loggers. Nothing is lost: the same command continues the run"
        ) from error
