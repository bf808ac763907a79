"""What all processes that train together must agree on, which is checked before they train."""

from mtl_jax import config as configs
from mtl_jax.config import Config
from mtl_jax.data.split import Split
from mtl_jax.runtime import processes
from mtl_jax.train import banner


def check_configuration(config: Config) -> None:
    """Checks that the processes have the same configuration and the same versions of the packages.

    Raises:
        ValueError: They differ, see `processes.check_agreement`.
    """
    processes.check_agreement("the configuration", configs.shared_by_processes(config))
    processes.check_agreement("the packages", banner.versions())


def check_data(*sources: Split) -> None:
    """Checks that the processes have opened the same splits, with as many images.

    Raises:
        ValueError: They differ, see `processes.check_agreement`.
    """
    processes.check_agreement("the data", {source.split: [source.name, len(source)] for source in sources})
