"""Recipes: configuration files by name or by path, with their options after a colon."""

import ast
import inspect
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

from mtl_jax.config import Config
from mtl_jax.registry import did_you_mean

# A wheel has the recipes inside of the package; in a checkout they lie beside it.
_PLACES = (Path(__file__).with_name("configs"), Path(__file__).parents[1] / "configs")
_FUNCTION = "get_config"
_EXPECTED = f"a recipe is a Python file with a function {_FUNCTION}, like those that `mtl list recipes` names"


def shipped() -> Mapping[str, Path]:
    """Returns {name: file} of the recipes that come with the package."""
    folder = next(place for place in _PLACES if place.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def load(spec: str) -> Config:
    """Returns the configuration of a recipe.

    Args:
        spec: `NAME` of a shipped recipe, or `FILE.py`; options follow after a colon: `nyud_mtinet:aux=edge+normals`.

    Raises:
        FileNotFoundError: There is no such recipe or file; the message lists the nearest names.
        ValueError: The file is no recipe, or it has no such option.
    """
    place, _, argument = spec.partition(":")
    return _run(_path(place), argument)


def _path(place: str) -> Path:
    known = shipped()
    if place in known:
        return known[place]
    path = Path(place).expanduser()
    if path.is_file():
        return path
    hint = did_you_mean(path.stem, known, after=" ")
    raise FileNotFoundError(
        f"there is no recipe {place!r} and no such file. {hint}The recipes are {', '.join(known)}; or give a file "
        "FILE.py"
    )


def docstring(spec: str) -> str:
    """Returns the docstring of a recipe, which names its options. The file is not executed.

    Raises:
        FileNotFoundError, ValueError: See `load`.
    """
    path = _path(spec.partition(":")[0])
    try:
        return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}; {_EXPECTED}") from error


def _call(get_config: Callable[..., Config], argument: str) -> Config:
    """Calls the function of a recipe, which may have no parameter for options."""
    if inspect.signature(get_config).parameters:
        return get_config(argument or None)
    if argument:
        raise ValueError(f"the recipe has no options, got {argument!r}")
    return get_config()


def _run(path: Path, argument: str) -> Config:
    if path.suffix != ".py":  # Python also runs archives, which a file of weights may be
        raise ValueError(f"{path} is no Python file; {_EXPECTED}")
    try:
        get_config = runpy.run_path(str(path)).get(_FUNCTION)
        config = None if get_config is None else _call(get_config, argument)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        # Whatever is wrong in a file that somebody else wrote is told with the file's name.
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}; {_EXPECTED}") from error
    if get_config is None:
        raise ValueError(f"{path} has no function {_FUNCTION}; {_EXPECTED}")
    if not isinstance(config, Config):
        raise ValueError(f"{path}: {_FUNCTION} returns {type(config).__name__}, expected mtl_jax.config.Config")
    return config
