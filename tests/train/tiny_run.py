"""The smallest run as a file for `scripts/train.py --config tests/train/tiny_run.py:DATA_DIR`."""

from mtl_jax import backbones
from tests import tiny


def get_config(data_dir):
    backbones.BACKBONES["tiny"] = tiny.build_backbone
    return tiny.config(data_dir, epochs=2, eval_final_epochs=1)
