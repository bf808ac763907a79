"""Trains a model, or continues where the work directory's newest checkpoint stands.

python scripts/train.py --config configs/nyud_mtinet.py --workdir runs/nyud_mtinet
python scripts/train.py --config configs/nyud_mtinet.py:aux=edge+normals --config.optim.lr=3e-4 --workdir runs/aux
"""

from absl import flags
from ml_collections import config_flags

from mtl_jax import cli, experiment, report
from mtl_jax.config import validate
from mtl_jax.train.loop import fit

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configuration, FILE.py or FILE.py:key=value,...")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run: checkpoints, logs, configuration", required=True)
_SINGLE_TASK = flags.DEFINE_multi_string("single_task", [], "directory with results of single-task runs (repeatable)")
flags.mark_flag_as_required("config")


def main() -> None:
    cli.enable_compilation_cache()
    config = validate(experiment.resolve(_CONFIG.value))
    reference = None
    if _SINGLE_TASK.value:
        criteria = experiment.criteria(config, final=False)
        reference = report.read_single_task(_SINGLE_TASK.value, criteria, experiment.describe_protocol(config))
    fit(config, _WORKDIR.value, reference)


if __name__ == "__main__":
    cli.run(main)
