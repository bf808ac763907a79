"""Start-up, options, logging, output and error messages of all commands.

A command is a module with a docstring, which is its help, and two functions: `add_arguments(parser)` and
`run(arguments)`. Everything that a command shows passes through this module. Names from files cannot control the
terminal there.
"""

import argparse
import difflib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import NoReturn

from absl import logging as absl_logging
from tqdm import tqdm

from mtl_jax import config_help, config_overrides, recipes
from mtl_jax.config import WEIGHTS, Config
from mtl_jax.runtime import devices, messages
from mtl_jax.runtime.allocator import tune_allocator
from mtl_jax.runtime.download import cache_dir

# Bad input raises these errors, with a message that says what to do; any other error is a bug and keeps its traceback.
USER_ERRORS = (ValueError, OSError, FloatingPointError)
_USAGE = 2  # exit status of a command that is called in a way that it does not understand
_HELP = ("-h", "--help")
_MORE = "`mtl train RECIPE --help` explains one recipe, with its options and values."


class Parser(argparse.ArgumentParser):
    """Options of a command, which may take a configuration: a recipe, and fields that override it.

    Args:
        prog: Name of the command, for its help and its errors.
        description: Help of the command.
    """

    def __init__(self, prog: str, description: str):
        super().__init__(
            prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self._takes_config = self._needs_config = self._positional = self._explains = False
        self._needs: Mapping[str, Sequence[str]] = {}
        self._excluded: Mapping[str, Sequence[str]] = {}
        self._asked: str | None = None  # the recipe that somebody asks help on

    def add_config(self, *, required: bool = True, positional: bool = True, explain: bool = False) -> None:
        """Adds a configuration, which `parse` turns into `arguments.config`; None where nobody gives one.

        Args:
            required: A missing configuration is an error.
            positional: The recipe may be given without `--config`.
            explain: The help explains the recipe and all fields.
        """
        self._takes_config, self._needs_config = True, required
        self._positional, self._explains = positional, explain
        if positional:
            self.add_argument(
                "recipe", nargs="?", metavar="RECIPE", help="recipe: a name of `mtl list recipes`, or FILE.py"
            )
        self.add_argument(
            "--config", metavar="RECIPE", help="the recipe; options follow a colon: RECIPE:key=value,key=value"
        )

    def add_step(self) -> None:
        """Adds the checkpoint of a work directory, `arguments.step`."""
        self.add_argument("--step", default="best", help="checkpoint: best (the default), latest or a step number")

    def add_weights(self) -> None:
        """Adds the weights of a checkpoint, `arguments.weights`; empty by default."""
        self.add_argument(
            "--weights",
            default="",
            choices=WEIGHTS,
            help="weights of the checkpoint: ema (their moving average) or trained; by default those that training "
            "evaluated",
        )

    def add_single_task(self) -> None:
        """Adds directories with results that others are compared with, `arguments.single_task`."""
        self.add_argument(
            "--single_task",
            action="append",
            default=[],
            metavar="DIR",
            help="directory with results of single-task runs (repeatable)",
        )

    def refuse_ineffective(
        self, *, needs: Mapping[str, Sequence[str]] | None = None, excluded: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Makes options that have no effect beside the other ones an error of `parse`.

        Options named first in these tables have no default value, so that whatever value they have was given.

        Args:
            needs: {option: the options with one of which it has an effect}.
            excluded: {option: the options with each of which it has no effect}.
        """
        self._needs, self._excluded = needs or {}, excluded or {}

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Returns the values of the options. A wrong option ends the program with status 2.

        Raises:
            ValueError, FileNotFoundError: The configuration cannot be read.
        """
        if not self._takes_config:
            return self._parse_effective(argv)
        try:
            overrides, others = config_overrides.split(argv)
        except ValueError as error:
            self.error(str(error))
        if any(each in _HELP for each in others):
            self._asked = self._named_recipe(others)
        arguments = self._parse_effective(others)
        spec, named_twice = arguments.config, vars(arguments).pop("recipe", None)
        if spec is not None and named_twice is not None:
            self.error(f"the recipe is given twice, as {named_twice} and as --config {spec}")
        spec = spec or named_twice
        if spec is None and (self._needs_config or overrides):
            self.error("the recipe is missing: give a name of `mtl list recipes`, or FILE.py")
        arguments.config = None if spec is None else recipes.load(spec)
        if spec is not None:
            try:
                config_overrides.apply(arguments.config, overrides)
            except ValueError as error:
                self.error(str(error))
        return arguments

    def _parse_effective(self, argv: Sequence[str]) -> argparse.Namespace:
        """Returns the values of the options, all of which have an effect."""
        arguments = self.parse_args(argv)

        def given(option: str) -> bool:
            value = getattr(arguments, option)
            return value is not None and value is not False and value not in ("", (), [])

        for option, others in self._needs.items():
            if given(option) and not any(map(given, others)):
                listed = " or ".join(f"--{other}" for other in others)
                self.error(f"--{option} has no effect without {listed}; leave --{option} out, or give {listed}")
        for option, others in self._excluded.items():
            for other in filter(given, others):
                if given(option):
                    self.error(f"--{option} has no effect with --{other}; leave one of them out")
        return arguments

    def format_help(self) -> str:
        usage = super().format_help()
        if not self._takes_config:
            return usage
        if not self._explains:
            return f"{usage}\n`mtl train RECIPE --help` lists the fields that --FIELD=VALUE overrides.\n"
        if self._asked is None:
            return f"{usage}\n{config_help.text(Config(), 'their defaults')}\n\n{_MORE}\n"
        values = config_help.text(recipes.load(self._asked), "the values of the recipe")
        return f"{usage}\nrecipe {self._asked}:\n\n{recipes.docstring(self._asked)}\n\n{values}\n"

    def _named_recipe(self, arguments: Sequence[str]) -> str | None:
        """Returns the recipe that arguments name, or None. It need not be there."""
        for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
            if argument == "--config":
                return following
            if argument.startswith("--config="):
                return argument.removeprefix("--config=")
        names = [(argument, argument.partition(":")[0]) for argument in arguments if self._positional]
        return next((spec for spec, name in names if name in recipes.shipped() or name.endswith(".py")), None)

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2 and a message that names options and choices of similar spelling."""
        known = [option for action in self._actions for option in action.option_strings]
        known += [str(choice) for action in self._actions for choice in action.choices or ()]
        words = [word.partition("=")[0].rstrip(";,.") for word in message.split() if word.startswith("--")]
        words += re.findall("invalid choice: '(.+?)'", message)
        near = [each for word in words if word not in known for each in difflib.get_close_matches(word, known, 2)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        show_error(f"{self.prog}: {message}{hint}. `{self.prog} --help` lists the options")
        sys.exit(_USAGE)


def names(text: str) -> tuple[str, ...]:
    """Returns the names in `a,b` or `a+b`, as an option's type."""
    return tuple(name for name in text.replace("+", ",").split(",") if name)


def at_least(least: int) -> Callable[[str], int]:
    """Returns the type of options that are whole numbers with a least value."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return whole_number


def run(command: ModuleType, prog: str, argv: Sequence[str] | None = None) -> None:
    """Runs a command; an error of `USER_ERRORS` ends the program with its message and status 1.

    Args:
        command: Module with `add_arguments` and `run`.
        prog: Name of the command.
        argv: Its arguments; by default those of the program.
    """
    sys.excepthook = _show_bug
    handler = _Handler()
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("mtl_jax").setLevel(logging.INFO)
    # Orbax and TFDS log every folder that they open, and the traceback of every error that they raise.
    absl_logging.set_verbosity(absl_logging.FATAL)
    parser = Parser(prog, command.__doc__ or "")
    command.add_arguments(parser)
    try:
        tune_allocator()
        arguments = parser.parse(sys.argv[1:] if argv is None else argv)
        with devices.explain_missing():
            command.run(arguments)
    except USER_ERRORS as error:
        if os.environ.get("MTL_JAX_TRACEBACK"):
            raise
        show_error(messages.explain(error))
        sys.exit(1)


def show(text: str) -> None:
    """Prints the lines of a text, each of them `messages.printable`."""
    print("\n".join(map(messages.printable, text.split("\n"))))


def show_error(message: str) -> None:
    """Prints an error message as one paragraph to the standard error output."""
    print(messages.paragraph(f"error: {message}"), file=sys.stderr)


class _Handler(logging.StreamHandler):
    """Writes a line of the log above the progress bars, which are drawn again below it."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(self.stream):
            super().emit(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return messages.paragraph(super().format(record))


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints a traceback, as `sys.excepthook` does."""
    print(messages.paragraph("".join(traceback.format_exception(kind, error, trace)).rstrip()), file=sys.stderr)


def enable_compilation_cache() -> None:
    """Keeps compiled programs in $MTL_JAX_CACHE (default ~/.cache/mtl_jax), so that a second run starts in seconds."""
    from mtl_jax.runtime import compiled_programs

    compiled_programs.keep(cache_dir() / "xla")
