"""One experiment: a configuration together with everything that its names stand for.

Training, evaluation, prediction, export and reports all start from an `Experiment`, so that a checkpoint is read by the
same model that wrote it. The configuration of a run is stored in its work directory.
"""

from mtl_jax.experiment.assembly import Experiment, make
from mtl_jax.experiment.described_data import resolve
from mtl_jax.experiment.stored import (
    CONFIG,
    check_continues,
    differences,
    fixed_on_resume,
    identity,
    load_config,
    read_config,
    store_config,
)

__all__ = [
    "CONFIG",
    "Experiment",
    "check_continues",
    "differences",
    "fixed_on_resume",
    "identity",
    "load_config",
    "make",
    "read_config",
    "resolve",
    "store_config",
]
