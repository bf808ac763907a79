"""Start-up, logging and error messages of all scripts."""

import logging
import os
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

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
        values = argv[1:]
        if len(values) > len(names) and not (names and names[-1].endswith("...")):
            unexpected = " ".join(values[len(names) :])
            raise app.UsageError(f"unexpected arguments {unexpected}; every option starts with --")
        if len(values) < len(names):
            raise app.UsageError(f"missing arguments: {' '.join(names[len(values) :])}")
        logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
        logging.getLogger("mtl_jax").setLevel(logging.INFO)
        absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax and TFDS log every folder that they open
        try:
            main(*values)
        except USER_ERRORS as error:
            if os.environ.get("MTL_JAX_TRACEBACK"):
                raise
            sys.exit(f"error: {error}")

    app.run(wrapped, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; unknown fields of a configuration and values of a wrong type end the program with a message."""
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
    """Keeps compiled programs in $MTL_JAX_CACHE (default ~/.cache/mtl_jax), so that a second run starts in seconds."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
