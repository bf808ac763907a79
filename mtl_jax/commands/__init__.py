"""The command `mtl`: one module for each of its commands."""

import ast
import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mtl_jax.runtime import interrupts

COMMANDS = {
    "train": "train",
    "evaluate": "evaluate",
    "predict": "predict",
    "export": "export",
    "report": "report",
    "app": "app",
    "convert": "convert",
    "edges": "edges",
    "summary": "summary",
    "list": "list_names",
    "data build": "build_data",
    "data show": "show_data",
    "demo": "demo",
}
_HELP = ("-h", "--help", "help")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command: `mtl NAME OPTIONS`. Without a name, or with --help, prints the list of the commands.

    Args:
        argv: The arguments after `mtl`; by default those of the program.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] in _HELP:
        sys.stdout.write(_overview())
        return
    interrupts.keep()
    name = next((name for name in COMMANDS if given[: len(name.split())] == name.split()), None)
    from mtl_jax import cli  # here, so that the overview needs no jax

    if name is None:
        cli.show_error(f"mtl has no command {given[0]!r}; {_nearest(given)}The commands are {', '.join(COMMANDS)}")
        sys.exit(2)
    arguments = given[len(name.split()) :]
    cli.run(importlib.import_module(f"{__name__}.{COMMANDS[name]}"), f"mtl {name}", arguments)


def _nearest(given: Sequence[str]) -> str:
    """Returns a question that names the commands that the user may have meant, or an empty text."""
    near = [name for name in COMMANDS if name.startswith(f"{given[0]} ")]
    near = near or difflib.get_close_matches(" ".join(given[:2]), COMMANDS, 3)
    near = near or difflib.get_close_matches(given[0], COMMANDS, 3, 0.5)
    return f"did you mean mtl {' or mtl '.join(near)}? " if near else ""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {_summary(module)}" for name, module in COMMANDS.items()]
    listed = "\n".join(lines)
    return f"usage: mtl COMMAND ...\n\ncommands:\n{listed}\n\n`mtl COMMAND --help` says more.\n"


def _summary(module: str) -> str:
    """Returns the first line of a command's docstring, which is read without an import."""
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
