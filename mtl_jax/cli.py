"""What the scripts share: start-up, logging, and errors a user can act on."""

import logging
import os
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

from mtl_jax.runtime.download import cache_dir

# What bad input raises, with a message that says what to do; anything else is a bug and keeps its traceback.
USER_ERRORS = (ValueError, OSError, FloatingPointError)


def run(main: Callable[..., None], *names: str) -> None:
    """Parses the flags and calls `main`; a user's error ends the program with its message and status 1.

    Args:
        names: of the arguments that stand on the command line without a flag; `main` gets their values. A last name
            that ends in "..." stands for one or more.
    """

    def wrapped(argv: list[str]) -> None:
        values = argv[1:]
        if len(values) > len(names) and not (names and names[-1].endswith("...")):
            unexpected = " ".join(values[len(names) :])
            raise app.UsageError(f"unexpected arguments {unexpected}; every option starts with --")
        if len(values) < len(names):
            raise app.UsageError(f"missing arguments: {' '.join(names[len(values) :])}")
        logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
        logging.getLogger("mtl_jax").setLevel(logging.INFO)
        absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax and tfds tell of every folder they open
        try:
            main(*values)
        except USER_ERRORS as error:
            if os.environ.get("MTL_JAX_TRACEBACK"):
                raise
            sys.exit(f"error: {error}")

    app.run(wrapped, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Flags, with unknown or ill-typed config fields as a plain error."""
    try:
        return flags.FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        # A config file's own error arrives as the text of a traceback; its last line is what the user needs.
        lines = [line for line in str(error).splitlines() if line.strip()]
        first = lines[0].removesuffix(" Traceback (most recent call last):")
        sys.exit(f"error: {first}" if len(lines) == 1 else f"error: {first} {lines[-1].strip()}")
    except flags.Error as error:
        sys.exit(f"error: {error}")
    except (ValueError, AttributeError, KeyError, TypeError, OSError) as error:
        message = error.args[0] if len(error.args) == 1 else error  # str() of a KeyError is its repr
        sys.exit(f"error: the configuration cannot be read: {message}; mtl_jax/config.py lists the fields")


def enable_compilation_cache() -> None:
    """Keeps compiled programs in $MTL_JAX_CACHE (~/.cache/mtl_jax): a second run starts in seconds."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
