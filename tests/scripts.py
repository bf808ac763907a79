"""Commands and scripts, for tests in this process."""

import contextlib
import importlib.util
import io
import logging
import runpy
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import jax
from absl import logging as absl_logging

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(name: str, *args: object) -> CompletedProcess:
    """What `python scripts/NAME.py ARGS` does, in this process: a process of its own needs seconds to start.

    Logging, search path and compilation cache are afterwards what they were.
    """
    command = [str(SCRIPTS / f"{name}.py"), *map(str, args)]
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), restored():
        sys.argv = command
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:  # None is the status 0, as for the interpreter
            status = int(end.code or 0)
    return CompletedProcess(command, status, stdout.getvalue(), stderr.getvalue())


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Leaves logging, warnings, the path and the compilation cache as they were before a command that runs within."""
    argv, path, hook = sys.argv, sys.path.copy(), sys.excepthook
    cache = jax.config.values["jax_compilation_cache_dir"]
    root, library = logging.getLogger(), logging.getLogger("mtl_jax")
    handlers, levels = root.handlers.copy(), (root.level, library.level)
    # A command sets logging up anew, which closes the handlers that it finds; absl's then closes a stream of earlier.
    absl_handler = absl_logging.get_absl_handler().python_handler
    stream, absl_handler.stream = absl_handler.stream, sys.stderr
    root.handlers.clear()
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("default")  # for tests they are errors
            yield
    finally:
        root.handlers[:], absl_handler.stream = handlers, stream
        root.setLevel(levels[0])
        library.setLevel(levels[1])
        jax.config.update("jax_compilation_cache_dir", cache)
        sys.argv, sys.path[:], sys.excepthook = argv, path, hook


def load(name: str) -> ModuleType:
    """Returns scripts/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
