"""The table of loggers by name, and their notation in a configuration."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mtl_jax import notation
from mtl_jax.loggers.base import Logger, RunStart
from mtl_jax.options import NoOptions
from mtl_jax.registry import Registry
from mtl_jax.runtime import messages

Open = TypeVar("Open", bound=Callable[[RunStart, Any], Logger])

_ALWAYS = "jsonl"  # continuing, reports and the scores in the terminal read it


@dataclass(frozen=True)
class Entry:
    """An entry of `LOGGERS`.

    Attributes:
        open: Class of the logger, or function from the start of a run and the options to the logger.
        options: Class of the options, a frozen dataclass whose fields have defaults.
        package: Module that the logger imports and this package does not install; "" = none.
        extra: Extra of this package that installs it; "" for a logger outside of this package.
    """

    open: Callable[[RunStart, Any], Logger]
    options: type
    package: str
    extra: str


LOGGERS: Registry[Entry] = Registry("logger", "loggers", "mtl_jax.loggers.register")


def register(name: str, *, options: type = NoOptions, package: str = "", extra: str = "") -> Callable[[Open], Open]:
    """Returns a decorator that registers a logger, which `train.loggers` then may name::

        @loggers.register("my_service", options=MyOptions, package="my_client")
        class MyService(loggers.Logger):
            def __init__(self, start: loggers.RunStart, options: MyOptions): ...

    Args:
        name: Name of the logger.
        options: Class of the options, a frozen dataclass whose fields have defaults. `mtl_jax.notation` lists the types
            that the command line can set.
        package: Module that the logger imports, if it is not installed with this package. A run that names the logger
            fails before it begins if the module is missing.
        extra: Extra of this package that installs the module, for the error message.

    Raises:
        ValueError: Another logger has this name.
    """

    def add(opener: Open) -> Open:
        LOGGERS.register(name, Entry(opener, options, package, extra))
        return opener

    return add


@dataclass(frozen=True)
class Choice:
    """A logger that a configuration names.

    Attributes:
        name: Name of the logger.
        options: Its options.
    """

    name: str
    options: Any

    def check_installed(self) -> None:
        """Checks that the package of the logger is installed.

        Raises:
            ValueError: It is not; the message says how to install it.
        """
        entry = LOGGERS[self.name]
        if entry.package and importlib.util.find_spec(entry.package) is None:
            remedy = messages.install(entry.extra) if entry.extra else f"install {entry.package}"
            raise ValueError(
                f"train.loggers names {self.name!r}, which needs the package {entry.package}, and the package is not "
                f"installed: {remedy}; or leave {self.name!r} out of train.loggers"
            )

    def open(self, start: RunStart) -> Logger:
        """Opens the logger for a run."""
        return LOGGERS[self.name].open(start, self.options)


def parse(texts: Sequence[str]) -> tuple[Choice, ...]:
    """Returns the loggers of their notation, NAME or NAME:OPTION=VALUE,OPTION=VALUE.

    The first one is always "jsonl", whether it is named or not.

    Raises:
        ValueError: A logger or an option is unknown, a value has the wrong type, or a logger is named twice.
    """
    choices = {_ALWAYS: _parse(_ALWAYS)}
    named: set[str] = set()
    for text in texts:
        choice = _parse(text)
        if choice.name in named:
            raise ValueError(f"train.loggers names {choice.name!r} twice; name each logger once")
        named.add(choice.name)
        choices[choice.name] = choice
    return tuple(choices.values())


def check_installed(choices: Sequence[Choice]) -> None:
    """Checks that the packages of loggers are installed.

    Raises:
        ValueError: See `Choice.check_installed`.
    """
    for choice in choices:
        choice.check_installed()


def _parse(text: str) -> Choice:
    name, given = notation.split(text)
    options = LOGGERS[name].options
    return Choice(name, options(**notation.arguments(given, options, f"the logger {name}")))
