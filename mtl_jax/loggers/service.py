"""The base of loggers that send what a run logs to a service, which cannot drop lines again."""

import json
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_jax.loggers import jsonl
from mtl_jax.loggers.base import EVALUATION, LoggedImage, Logger, RunStart
from mtl_jax.runtime import atomic_files, messages

FOLDER = "loggers"
_IMAGES = "images"

logger = logging.getLogger(__name__)


class Service(Logger):
    """A logger that sends every line once, also if the run is interrupted and continues from an earlier step.

    The file loggers/NAME.json in the work directory holds the id of the run at the service, the last step of each kind
    of lines that was sent, and the configuration that they belong to. Lines of log.jsonl that were not sent yet, for
    example because the service could not be reached, are sent when the run continues. A run that goes back and repeats
    steps with another configuration begins anew at the service, because the lines of these steps differ.

    A subclass calls `continued` in its constructor, then opens the run at the service, and then calls `begin`.

    Args:
        start: The start of the run.
        name: Name of the logger.
        account: Where the run lies at the service, for example the name of the project. A run that continues with
            another account begins anew there.
    """

    def __init__(self, start: RunStart, name: str, account: Mapping[str, str]):
        self._start, self._name, self._account = start, name, dict(account)
        self._file = start.workdir / FOLDER / f"{name}.json"
        self._config = json.loads(json.dumps(dict(start.fixed)))  # as the file gives it back: lists for tuples
        self._id = ""
        self._sent: dict[str, int] = {}

    def continued(self) -> str:
        """Returns the id that an earlier part of the run had at the service, "" if there is none.

        A run that begins at step 0 is a new run there, because it may have another configuration than the one before.
        So is a run that goes on with another configuration from a step before the last one that was sent.

        Raises:
            ValueError: The file in the work directory is damaged.
        """
        if self._start.step == 0 or not self._file.exists():
            return ""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            account, known, sent = content["account"], str(content["id"]), dict(content["sent"])
            before = dict(content.get("config", self._config))  # older versions have not stored it
            repeated = any(step > self._last_kept(kind) for kind, step in sent.items())
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{self._file} is damaged ({type(error).__name__}: {error}); delete the file, and the run continues as "
                f"a new run of {self._name}"
            ) from error
        if account != self._account:
            logger.warning(
                "%s: the run was logged to %s and is now logged to %s, as a new run with all lines",
                self._name,
                _words(account),
                _words(self._account),
            )
            return ""
        # A field that an older version lacked has its default, which is what that version did.
        changed = [name for name, value in self._config.items() if before.get(name, value) != value]
        if changed and repeated:
            logger.warning(
                "%s: lines up to step %d were sent, and the run repeats the steps after step %d with another "
                "configuration (%s); it is now logged as a new run with all lines",
                self._name,
                max(sent.values()),
                self._start.step,
                messages.listing([f"{name}: {before[name]!r}, now {self._config[name]!r}" for name in changed]),
            )
            return ""
        self._sent = sent
        return known

    def begin(self, run_id: str) -> None:
        """Stores the id of the run at the service, and sends the lines of the log that were not sent yet."""
        self._id = run_id
        with messages.writing(f"the state of the logger {self._name}", self._file):
            self._file.parent.mkdir(exist_ok=True)
        self._store()
        lines = [
            line for line in jsonl.read(self._start.workdir / jsonl.LOG) if self._is_new(line["step"], line["kind"])
        ]
        if lines:
            logger.info("%s: %d lines of %s were not sent yet and are sent now", self._name, len(lines), jsonl.LOG)
        for line in lines:
            self.write(line["step"], line["kind"], {k: v for k, v in line.items() if k not in ("step", "kind")})

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Sends a line, unless an earlier part of the run has sent it."""
        if self._is_new(step, kind):
            self.send(step, kind, values)
            self._mark(step, kind)

    def write_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Sends pictures, unless an earlier part of the run has sent them."""
        if self._is_new(step, _IMAGES):
            self.send_images(step, images)
            self._mark(step, _IMAGES)

    @abstractmethod
    def send(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Sends the values of a step."""

    @abstractmethod
    def send_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Sends the pictures of the evaluation of a step."""

    def _last_kept(self, kind: str) -> int:
        """Returns the step up to which lines of a kind, sent by earlier parts of the run, are those of the run."""
        evaluated = self._start.evaluates_again and kind in (EVALUATION, _IMAGES)
        return self._start.step - 1 if evaluated else self._start.step

    def _is_new(self, step: int, kind: str) -> bool:
        return step > self._sent.get(kind, -1)

    def _mark(self, step: int, kind: str) -> None:
        self._sent[kind] = step
        self._store()

    def _store(self) -> None:
        content: dict[str, Any] = {
            "account": self._account,
            "id": self._id,
            "sent": self._sent,
            "config": self._config,
        }
        with messages.writing(f"the state of the logger {self._name}", self._file):
            atomic_files.write(self._file, json.dumps(content, indent=1) + "\n", sync=False)


def _words(account: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in account.items() if value)
