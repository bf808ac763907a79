"""Recipes: configuration files by name or by path, with their options after a colon."""

import difflib
import runpy
from collections.abc import Mapping
from pathlib import Path

from mtl_jax.config import Config

# A wheel has the recipes inside of the package; in a checkout they lie beside it.
_PLACES = (Path(__file__).with_name("configs"), Path(__file__).parents[1] / "configs")
_FUNCTION = "get_config"


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
    near = difflib.get_close_matches(path.stem, known, 3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise FileNotFoundError(
        f"there is no recipe {place!r} and no such file; {hint}The recipes are {', '.join(known)}; or give a file "
        "FILE.py"
    )


def _run(path: Path, argument: str) -> Config:
    try:
        get_config = runpy.run_path(str(path))[_FUNCTION]
    except KeyError:
        raise ValueError(f"{path} has no function {_FUNCTION}, which returns the configuration") from None
    except Exception as error:
        # Whatever is wrong in a file that somebody else wrote is told with the file's name.
        raise ValueError(
            f"{path} cannot be read: {type(error).__name__}: {error}; a recipe is a Python file with a function "
            f"{_FUNCTION}, like those that `mtl list recipes` names"
        ) from error
    config = get_config(argument or None)
    if not isinstance(config, Config):
        raise ValueError(f"{path}: {_FUNCTION} returns {type(config).__name__}, expected mtl_jax.config.Config")
    return config
