"""Scripts as modules, for tests in process."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from absl import flags

SCRIPTS = Path(__file__).parents[1] / "scripts"


@contextlib.contextmanager
def loaded(name: str) -> Iterator[ModuleType]:
    """scripts/NAME.py; afterwards its flags are gone, because other scripts have flags of the same names."""
    known = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        yield module
    finally:
        for flag in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, flag)
