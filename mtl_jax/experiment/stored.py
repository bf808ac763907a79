"""The configuration that a run stores in its work directory, and what may change when the run continues."""

import dataclasses
import logging
from pathlib import Path

from mtl_jax import config as configs
from mtl_jax import folders, models, registry
from mtl_jax.config import Config
from mtl_jax.config import file as config_file
from mtl_jax.data import catalogue
from mtl_jax.experiment.assembly import make
from mtl_jax.experiment.described_data import data_dir

logger = logging.getLogger(__name__)

CONFIG = "config.json"


def check_continues(config: Config, workdir: str | Path, *, allow_change: bool = False) -> None:
    """Compares a configuration with that of the run in a work directory, which it is to continue.

    Args:
        config: The configuration.
        workdir: The work directory.
        allow_change: Differences, or a stored configuration that cannot be read, are a warning instead of an error.

    Raises:
        ValueError: The run has another configuration; every difference is listed. Or see `load_config`.
        FileNotFoundError: See `load_config`.
    """
    try:
        listed = differences(config, workdir)
    except (FileNotFoundError, ValueError) as error:
        if not allow_change:
            raise
        listed = f"it is not compared with that of the run, because: {error}"
    if listed:
        if not allow_change:
            raise ValueError(
                f"{workdir} holds a run with another configuration ({listed}); continue it with the old values, "
                "give another --workdir, or let it go on with the new ones by --allow_config_change"
            )
        logger.warning("%s goes on with another configuration: %s", workdir, listed)


def store_config(config: Config, workdir: str | Path) -> None:
    """Writes the configuration and its checksum into a work directory, which is made where it is not."""
    # Evaluation may be started from another folder, so the data's place is stored as an absolute path.
    stored = dataclasses.replace(
        config, data=dataclasses.replace(config.data, data_dir=str(data_dir(config).resolve()))
    )
    path = Path(workdir) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    config_file.write(path, configs.to_json(stored))


def differences(config: Config, workdir: str | Path) -> str:
    """Returns a list of the fields in which the run in a work directory differs from a configuration.

    Fields that may change when a run continues do not count. The text is empty where nothing differs.

    Raises:
        FileNotFoundError, ValueError: See `load_config`.
    """
    # As the file gives it back: a recipe may hold lists in place of tuples.
    given = configs.from_json(configs.to_json(config), "the configuration")
    old, new = (fixed_on_resume(make(each).config) for each in (load_config(workdir), given))
    return "; ".join(
        f"{name}: {old.get(name)!r} there, {new[name]!r} now" for name in new if old.get(name) != new[name]
    )


def fixed_on_resume(config: Config) -> dict[str, object]:
    """Returns {field: value} of all fields that must not change when a run continues, options of the model included."""
    options = {name: value for name, value, rules in models.option_fields(config) if not rules.may_change}
    return configs.fixed_on_resume(config) | options


def identity(config: Config) -> dict[str, object]:
    """Returns {field: value} of all fields that runs of one experiment share, options of the model included."""
    options = {name: value for name, value, rules in models.option_fields(config) if not rules.same_experiment}
    return configs.identity(config) | options


def load_config(workdir: str | Path) -> Config:
    """Returns the configuration that is stored in a work directory, and loads the modules in its `imports`.

    What a described folder says is part of the stored configuration, so the folder itself is not needed any more.

    Raises:
        FileNotFoundError: The directory has no configuration, or is a saved model.
        ValueError: The configuration is damaged, or cannot be understood.
    """
    folders.check_is_run(workdir)
    config = read_config(workdir)
    registry.load_extensions(config.imports)
    if catalogue.get(config.data.dataset).described:
        config.data.manual_dir = ""
    return config


def read_config(folder: str | Path) -> Config:
    """Returns the configuration that is stored in a folder, and imports nothing.

    Raises:
        FileNotFoundError: The folder has no configuration.
        ValueError: The configuration is damaged, or cannot be understood.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no work directory of a run: it has no {CONFIG}. Give the --workdir of a training run"
        )
    return configs.from_json(config_file.read(path), str(path))
