"""Start-up, logging, output and error messages of all scripts.

Everything that a script shows passes through this module. Names from files cannot control the terminal there.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from tqdm import tqdm

from mtl_jax.runtime import messages
from mtl_jax.runtime.allocator import tune_allocator
from mtl_jax.runtime.download import cache_dir

# Bad input raises these errors, with a message that says what to do; any other error is a bug and keeps its traceback.
USER_ERRORS = (ValueError, OSError, FloatingPointError)


def run(main: Callable[..., None], *names: str) -> None:
    """Parses the flags and calls `main`; an error of `USER_ERRORS` ends the program with its message and status 1.

    Args:
        main: The script's own function, which takes the values of the arguments without a flag.
        names: Names of the arguments without a flag. A last name that ends in "..." stands for one or more.
    """

    def wrapped(argv: list[str]) -> None:
        from mtl_jax.runtime import devices  # imports JAX, for which --help need not wait

        values = argv[1:]
        if len(values) > len(names) and not (names and names[-1].endswith("...")):
            unexpected = messages.printable(" ".join(values[len(names) :]))
            raise app.UsageError(f"unexpected arguments {unexpected}; every option starts with --")
        if len(values) < len(names):
            raise app.UsageError(f"missing arguments: {' '.join(names[len(values) :])}")
        sys.excepthook = _show_bug
        handler = _Handler()
        handler.setFormatter(_Formatter("%(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        logging.getLogger("mtl_jax").setLevel(logging.INFO)
        # Orbax and TFDS log every folder that they open, and the traceback of every error that they raise.
        absl_logging.set_verbosity(absl_logging.FATAL)
        try:
            with devices.explain_missing():
                main(*values)
        except USER_ERRORS as error:
            if os.environ.get("MTL_JAX_TRACEBACK"):
                raise
            _exit(messages.explain(error))

    try:
        tune_allocator()
    except ValueError as error:
        _exit(str(error))
    app.run(wrapped, flags_parser=_parse)


def show(text: str) -> None:
    """Prints the lines of a text, each of them `messages.printable`."""
    print("\n".join(map(messages.printable, text.split("\n"))))


class _Handler(logging.StreamHandler):
    """Writes a line of the log above the progress bars, which are drawn again below it."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(self.stream):
            super().emit(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return messages.paragraph(super().format(record))


def _exit(message: str) -> NoReturn:
    sys.exit(messages.paragraph(f"error: {message}"))


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints a traceback, as `sys.excepthook` does."""
    print(messages.paragraph("".join(traceback.format_exception(kind, error, trace)).rstrip()), file=sys.stderr)


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; unknown fields of a configuration and values of a wrong type end the program with a message."""
    try:
        return flags.FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        # A config file's own error arrives as the text of a traceback; its last line is what the user needs.
        lines = [line for line in str(error).splitlines() if line.strip()]
        first = lines[0].removesuffix(" Traceback (most recent call last):")
        _exit(first if len(lines) == 1 else f"{first} {lines[-1].strip()}")
    except flags.Error as error:
        _exit(str(error))
    except (ValueError, AttributeError, KeyError, TypeError, OSError, NameError, SyntaxError, ImportError) as error:
        message = error.args[0] if len(error.args) == 1 else error  # str() of a KeyError is its repr
        _exit(
            f"the configuration cannot be read: {message}; a configuration is a Python file like those in configs, and "
            "mtl_jax/config.py lists the fields"
        )


def enable_compilation_cache() -> None:
    """Keeps compiled programs in $MTL_JAX_CACHE (default ~/.cache/mtl_jax), so that a second run starts in seconds."""
    from mtl_jax.runtime import compiled_programs

    compiled_programs.keep(cache_dir() / "xla")
